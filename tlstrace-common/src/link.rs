//! Link headers: from the first byte of a frame to the network header behind it.
//!
//! Ethernet II with up to two VLAN tags in band (IEEE 802.1Q, 802.1ad). The receive path of Linux moves
//! the outer tag out of the frame before a TC program sees it, an egress hook or a capture file may
//! show it in place: both occur.

use crate::load::Load;
use crate::skip::Skip;

/// What a packet begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header: tun, WireGuard.
    Ip,
}

/// Where the network header is and what it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// EtherType of the network header.
    pub ether_type: EtherType,
    /// Offset of the network header from the start of the packet, in bytes.
    pub offset: u32,
    /// VLAN identifier of the outermost tag in band, 0 if there is none.
    pub vlan: u16,
}

/// An EtherType (IEEE 802 Numbers).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EtherType(pub u16);

impl EtherType {
    pub const IPV4: Self = Self(0x0800);
    pub const IPV6: Self = Self(0x86dd);
    /// Customer tag, 802.1Q.
    pub const VLAN: Self = Self(0x8100);
    /// Service tag, 802.1ad: the outer tag of QinQ.
    pub const SERVICE_VLAN: Self = Self(0x88a8);

    const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN)
    }
}

/// Steps over the link header, whatever kind it is.
#[inline(always)]
pub fn walk(load: &impl Load, start: Start) -> Result<Link, Skip> {
    match start {
        Start::Ethernet => ethernet(load, 0),
        Start::Ip => bare_ip(load, 0),
    }
}

/// Steps over an Ethernet II header at `offset` and the VLAN tags behind it.
#[inline(always)]
pub fn ethernet(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    let mut link = Link {
        ether_type: EtherType(u16::from_be_bytes(load.load(offset + 12).ok_or(Skip::Truncated)?)),
        offset: offset + ETHERNET_LEN,
        vlan: 0,
    };
    if link.ether_type.is_vlan() {
        step_over_tag(load, &mut link)?;
        if link.ether_type.is_vlan() {
            step_over_tag(load, &mut link)?;
        }
    }
    Ok(link)
}

/// Tells IPv4 from IPv6 by the version field of a header at `offset`.
#[inline(always)]
pub fn bare_ip(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    let [first] = load.load(offset).ok_or(Skip::Truncated)?;
    let ether_type = match first >> 4 {
        4 => EtherType::IPV4,
        6 => EtherType::IPV6,
        _ => return Err(Skip::NotIp),
    };
    Ok(Link { ether_type, offset, vlan: 0 })
}

const ETHERNET_LEN: u32 = 14;
const VLAN_TAG_LEN: u32 = 4;

#[inline(always)]
fn step_over_tag(load: &impl Load, link: &mut Link) -> Result<(), Skip> {
    let [tci_high, tci_low, type_high, type_low] = load.load(link.offset).ok_or(Skip::Truncated)?;
    if link.vlan == 0 {
        link.vlan = u16::from_be_bytes([tci_high, tci_low]) & 0x0fff;
    }
    link.ether_type = EtherType(u16::from_be_bytes([type_high, type_low]));
    link.offset += VLAN_TAG_LEN;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn frame<const N: usize>(rest: [u8; N]) -> ([u8; 64], usize) {
        let mut bytes = [0; 64];
        bytes[..12].copy_from_slice(&ADDRESSES);
        bytes[12..12 + N].copy_from_slice(&rest);
        (bytes, 12 + N)
    }

    fn walked<const N: usize>(rest: [u8; N]) -> Result<Link, Skip> {
        let (bytes, len) = frame(rest);
        walk(&&bytes[..len], Start::Ethernet)
    }

    #[test]
    fn an_untagged_frame_is_fourteen_bytes_of_link_header() {
        assert_eq!(walked([0x08, 0]), Ok(Link { ether_type: EtherType::IPV4, offset: 14, vlan: 0 }));
    }

    #[test]
    fn one_tag_is_stepped_over_and_its_priority_is_no_part_of_the_identifier() {
        let tagged = walked([0x81, 0, 0xe0, 7, 0x86, 0xdd]);
        assert_eq!(tagged, Ok(Link { ether_type: EtherType::IPV6, offset: 18, vlan: 7 }));
    }

    #[test]
    fn of_two_tags_the_outer_one_is_reported() {
        let tagged = walked([0x88, 0xa8, 0, 5, 0x81, 0, 0, 9, 0x08, 0]);
        assert_eq!(tagged, Ok(Link { ether_type: EtherType::IPV4, offset: 22, vlan: 5 }));
    }

    #[test]
    fn a_third_tag_is_left_in_place_as_an_unknown_protocol() {
        let tagged = walked([0x81, 0, 0, 5, 0x81, 0, 0, 9, 0x81, 0, 0, 1, 0x08, 0]);
        assert_eq!(tagged, Ok(Link { ether_type: EtherType::VLAN, offset: 22, vlan: 5 }));
    }

    #[test]
    fn a_frame_that_ends_inside_its_tag_is_truncated() {
        assert_eq!(walked([0x81, 0, 0, 5, 0x08]), Err(Skip::Truncated));
    }

    #[test]
    fn without_a_link_header_the_version_field_decides() {
        let start = |first: u8| walk(&&[first][..], Start::Ip).map(|link| link.ether_type);
        assert_eq!(start(0x45), Ok(EtherType::IPV4));
        assert_eq!(start(0x60), Ok(EtherType::IPV6));
        assert_eq!(start(0x10), Err(Skip::NotIp));
    }
}
