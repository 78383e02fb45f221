//! The walk for capture files: more kinds of link headers, and tunnels.
//!
//! The BPF program walks Ethernet, VLAN tags and IP only ([`crate::packet::walk`]). A capture file may
//! come from any link and from a point where the packets are still wrapped: here the innermost TCP
//! segment is looked for, through a bounded number of headers, with the same steps for Ethernet, IP
//! and TCP.

use crate::link::{self, EtherType, Link};
use crate::load::Load;
use crate::net::{self, Datagram};
use crate::packet::TcpPacket;
use crate::skip::Skip;
use crate::tcp;

/// Most headers between the link and the TCP header that are stepped over.
pub const MAX_HEADERS: usize = 16;

/// What the frames of a capture begin with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkKind {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
    /// Linux "cooked" capture.
    LinuxSll,
    /// Linux "cooked" capture, version 2.
    LinuxSll2,
    /// Four bytes of address family: loopback of the BSDs.
    Loopback,
    /// PPP, with or without the address and control fields of HDLC framing (RFC 1662 §3.1).
    Ppp,
    /// PPP or Cisco HDLC: the first byte tells.
    Hdlc,
    /// A `PPPoE` session header.
    PppOverEthernet,
}

impl LinkKind {
    /// The kind that a `LINKTYPE_` value stands for (<https://www.tcpdump.org/linktypes.html>), or
    /// `None` if it is not supported.
    pub const fn from_link_type(link_type: u32) -> Option<Self> {
        Some(match link_type {
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            9 => Self::Ppp,
            // 12 and 14 are what `DLT_RAW` is on some systems, and what old files from there have.
            12 | 14 | 101 | 228 | 229 => Self::Ip,
            50 | 104 => Self::Hdlc,
            51 => Self::PppOverEthernet,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }
}

/// Steps over all headers of a frame down to its innermost TCP header, or says why there is none.
pub fn walk(load: &impl Load, kind: LinkKind) -> Result<TcpPacket, Skip> {
    // Every header that states a length bounds what is inside it: padding is no payload.
    let mut load = Within { load, end: load.len() };
    let mut link = match kind {
        LinkKind::Ethernet => link::ethernet(&load, 0)?,
        LinkKind::Ip => link::bare_ip(&load, 0)?,
        LinkKind::LinuxSll => ether_type_at(&load, 14, 16)?,
        LinkKind::LinuxSll2 => ether_type_at(&load, 0, 20)?,
        LinkKind::Loopback => link::bare_ip(&load, 4)?,
        LinkKind::Ppp => ppp(&load, 0)?,
        LinkKind::Hdlc => hdlc(&load, 0)?,
        LinkKind::PppOverEthernet => ppp_over_ethernet(&mut load, 0)?,
    };
    let mut vlan = 0;
    for _ in 0..MAX_HEADERS {
        if vlan == 0 {
            vlan = link.vlan;
        }
        link = match link.ether_type {
            EtherType::IPV4 | EtherType::IPV6 => {
                let datagram = net::walk(&load, &link)?;
                load.end = datagram.end;
                match tunnel(&load, &datagram)? {
                    Some(inner) => inner,
                    None => {
                        return Ok(TcpPacket::new(
                            &Link { vlan, ..link },
                            &datagram,
                            tcp::walk(&load, &datagram)?,
                        ));
                    }
                }
            }
            EtherType::VLAN | EtherType::SERVICE_VLAN | QINQ_9100 | QINQ_9200 => {
                vlan_tag(&load, link.offset)?
            }
            MPLS_UNICAST | MPLS_MULTICAST => mpls(&load, link.offset)?,
            PPPOE_SESSION => ppp_over_ethernet(&mut load, link.offset)?,
            CISCO_METADATA => ether_type_at(&load, link.offset + 6, link.offset + 8)?,
            BRIDGED_ETHERNET => link::ethernet(&load, link.offset)?,
            _ => return Err(Skip::NotIp),
        };
    }
    Err(Skip::NotIp)
}

/// Outer tag of QinQ before 802.1ad gave it a number.
const QINQ_9100: EtherType = EtherType(0x9100);
const QINQ_9200: EtherType = EtherType(0x9200);
/// RFC 5332 §3.
const MPLS_UNICAST: EtherType = EtherType(0x8847);
const MPLS_MULTICAST: EtherType = EtherType(0x8848);
/// RFC 2516 §4.
const PPPOE_SESSION: EtherType = EtherType(0x8864);
/// Cisco's security group tag (draft-smith-kandula-sxp, appendix): version, length, one option.
const CISCO_METADATA: EtherType = EtherType(0x8909);
/// "Transparent Ethernet bridging" in GRE and GENEVE (RFC 7637 §3.2, RFC 8926 §3.4).
const BRIDGED_ETHERNET: EtherType = EtherType(0x6558);
/// draft-foschiano-erspan: types I and II, type III.
const ERSPAN: u16 = 0x88be;
const ERSPAN_3: u16 = 0x22eb;

/// A packet up to where the headers around it say that it ends.
struct Within<'a, L> {
    load: &'a L,
    end: u32,
}

impl<L: Load> Load for Within<'_, L> {
    fn len(&self) -> u32 {
        self.end
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.load.load(offset)
    }
}

/// Protocol numbers.
pub(crate) const IPV4: u8 = 4;
pub(crate) const UDP: u8 = 17;
pub(crate) const IPV6: u8 = 41;
pub(crate) const GRE: u8 = 47;
const MPLS: u8 = 137;

const VXLAN: u16 = 4789;
/// What Linux, and Cilium and flannel with it, took before there was an assignment.
const VXLAN_LINUX: u16 = 8472;
const GENEVE: u16 = 6081;

/// Whether UDP to this port carries other packets between nodes.
#[inline(always)]
pub(crate) const fn is_udp_tunnel(port: u16) -> bool {
    matches!(port, VXLAN | VXLAN_LINUX | GENEVE)
}

/// What a datagram carries, if that is another packet.
fn tunnel(load: &impl Load, datagram: &Datagram) -> Result<Option<Link>, Skip> {
    let offset = datagram.offset;
    Ok(match datagram.protocol {
        IPV4 => Some(untagged(EtherType::IPV4, offset)),
        IPV6 => Some(untagged(EtherType::IPV6, offset)),
        MPLS => Some(untagged(MPLS_UNICAST, offset)),
        GRE => Some(gre(load, offset)?),
        UDP => udp_tunnel(load, offset)?,
        _ => None,
    })
}

/// Tunnels over UDP, by their ports.
fn udp_tunnel(load: &impl Load, offset: u32) -> Result<Option<Link>, Skip> {
    const TEREDO: u16 = 3544;
    let [s1, s0, d1, d0] = load.load(offset).ok_or(Skip::Truncated)?;
    let inner = offset + 8;
    match (u16::from_be_bytes([s1, s0]), u16::from_be_bytes([d1, d0])) {
        (_, VXLAN | VXLAN_LINUX) => {
            // RFC 7348 §5: the I flag must be set.
            let [flags] = load.load(inner).ok_or(Skip::Truncated)?;
            if flags & 0x08 == 0 { Ok(None) } else { link::ethernet(load, inner + 8).map(Some) }
        }
        (_, GENEVE) => {
            // RFC 8926 §3.4: version, length of the options in 4-byte units.
            let [first, _, p1, p0] = load.load(inner).ok_or(Skip::Truncated)?;
            if first >> 6 != 0 {
                return Ok(None);
            }
            let ether_type = EtherType(u16::from_be_bytes([p1, p0]));
            Ok(Some(untagged(ether_type, inner + 8 + u32::from(first & 0x3f) * 4)))
        }
        (TEREDO, _) | (_, TEREDO) => teredo(load, inner),
        _ => Ok(None),
    }
}

/// RFC 4380 §5.1.1: IPv6, after an authentication and an origin indication that may be there.
fn teredo(load: &impl Load, offset: u32) -> Result<Option<Link>, Skip> {
    let mut offset = offset;
    if let Some([0, 1, client_id_len, auth_len]) = load.load(offset) {
        offset += 13 + u32::from(client_id_len) + u32::from(auth_len);
    }
    if load.load(offset) == Some([0, 0]) {
        offset += 8;
    }
    let [first] = load.load(offset).ok_or(Skip::Truncated)?;
    Ok((first >> 4 == 6).then(|| untagged(EtherType::IPV6, offset)))
}

/// RFC 2784, and RFC 2890 for key and sequence number.
fn gre(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    const CHECKSUM: u8 = 0x80;
    const ROUTING: u8 = 0x40;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    let [flags, version, p1, p0] = load.load(offset).ok_or(Skip::Truncated)?;
    if flags & ROUTING != 0 || version & 0x07 != 0 {
        return Err(Skip::NotTcp);
    }
    let words: u32 = [CHECKSUM, KEY, SEQUENCE].iter().map(|flag| u32::from(flags & flag != 0)).sum();
    let inner = offset + 4 + words * 4;
    match u16::from_be_bytes([p1, p0]) {
        // Only type II numbers its packets; type I has no header at all.
        ERSPAN if flags & SEQUENCE == 0 => link::ethernet(load, inner),
        ERSPAN => link::ethernet(load, inner + 8),
        ERSPAN_3 => {
            // The last bit says that an 8-byte platform-specific header follows.
            let [optional] = load.load(inner + 11).ok_or(Skip::Truncated)?;
            link::ethernet(load, inner + 12 + u32::from(optional & 1) * 8)
        }
        protocol => Ok(untagged(EtherType(protocol), inner)),
    }
}

/// RFC 3032 §2.1: labels up to the one at the bottom of the stack. What follows says nowhere what it
/// is, so only IP is recognised.
fn mpls(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    let mut offset = offset;
    for _ in 0..MAX_HEADERS {
        let [_, _, bottom, _] = load.load(offset).ok_or(Skip::Truncated)?;
        offset += 4;
        if bottom & 1 != 0 {
            return link::bare_ip(load, offset);
        }
    }
    Err(Skip::NotIp)
}

/// RFC 2516 §4: version and type, code, session, length; then a PPP protocol number.
fn ppp_over_ethernet<L: Load>(load: &mut Within<'_, L>, offset: u32) -> Result<Link, Skip> {
    let [version_type, code, _, _, len_high, len_low] = load.load(offset).ok_or(Skip::Truncated)?;
    if version_type != 0x11 || code != 0 {
        return Err(Skip::NotIp);
    }
    let inner = offset + 6;
    load.end = load.end.min(inner + u32::from(u16::from_be_bytes([len_high, len_low])));
    ppp(load, inner)
}

fn ppp(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];
    let offset = if load.load(offset) == Some(ADDRESS_AND_CONTROL) { offset + 2 } else { offset };
    let [first, second] = load.load(offset).ok_or(Skip::Truncated)?;
    // RFC 1661 §2: an odd first byte is the whole number.
    let (protocol, inner) = if first & 1 != 0 {
        (u16::from(first), offset + 1)
    } else {
        (u16::from_be_bytes([first, second]), offset + 2)
    };
    match protocol {
        0x0021 => Ok(untagged(EtherType::IPV4, inner)),
        0x0057 => Ok(untagged(EtherType::IPV6, inner)),
        0x0281 => Ok(untagged(MPLS_UNICAST, inner)),
        _ => Err(Skip::NotIp),
    }
}

/// Cisco HDLC (address 0x0f or 0x8f, control, `EtherType`), or else PPP.
fn hdlc(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    match load.load(offset) {
        Some([0x0f | 0x8f]) => ether_type_at(load, offset + 2, offset + 4),
        _ => ppp(load, offset),
    }
}

fn vlan_tag(load: &impl Load, offset: u32) -> Result<Link, Skip> {
    let [tci_high, tci_low, t1, t0] = load.load(offset).ok_or(Skip::Truncated)?;
    Ok(Link {
        ether_type: EtherType(u16::from_be_bytes([t1, t0])),
        offset: offset + 4,
        vlan: u16::from_be_bytes([tci_high, tci_low]) & 0x0fff,
    })
}

/// A header whose `EtherType` stands at `at`, and behind which the next header is at `next`.
fn ether_type_at(load: &impl Load, at: u32, next: u32) -> Result<Link, Skip> {
    let ether_type = load.load(at).ok_or(Skip::Truncated)?;
    Ok(untagged(EtherType(u16::from_be_bytes(ether_type)), next))
}

const fn untagged(ether_type: EtherType, offset: u32) -> Link {
    Link { ether_type, offset, vlan: 0 }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// A TCP segment from port 1 to port 443 with the payload "hello", without any header around it.
    fn tcp_segment() -> Vec<u8> {
        let mut tcp = Vec::from([0, 1, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        tcp.extend(b"hello");
        tcp
    }

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let [len_high, len_low] = u16::try_from(payload.len() + 20).unwrap().to_be_bytes();
        let head = [0x45, 0, len_high, len_low, 0, 9, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        [&head[..], payload].concat()
    }

    fn ipv6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let [len_high, len_low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut head = Vec::from([0x60, 0, 0, 0, len_high, len_low, next_header, 64]);
        head.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        head.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        [&head[..], payload].concat()
    }

    fn udp(destination: u16, payload: &[u8]) -> Vec<u8> {
        let [d1, d0] = destination.to_be_bytes();
        let [len_high, len_low] = u16::try_from(payload.len() + 8).unwrap().to_be_bytes();
        [&[0xc0, 0, d1, d0, len_high, len_low, 0, 0], payload].concat()
    }

    fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
        [&[2; 12], &ether_type.to_be_bytes()[..], payload].concat()
    }

    fn packet4() -> Vec<u8> {
        ipv4(tcp::PROTOCOL, &tcp_segment())
    }

    fn packet6() -> Vec<u8> {
        ipv6(tcp::PROTOCOL, &tcp_segment())
    }

    /// Every kind of link and tunnel once, with what is around the segment.
    fn frames() -> Vec<(&'static str, LinkKind, Vec<u8>)> {
        let frame4 = ethernet(0x0800, &packet4());
        let over_ip = |payload: &[u8]| ethernet(0x0800, payload);
        let gre = |header: &[u8], payload: &[u8]| over_ip(&ipv4(47, &[header, payload].concat()));
        let vxlan_header = [8, 0, 0, 0, 0, 0, 1, 0];
        let pppoe = [0x11, 0, 0, 1, 0, 47, 0x00, 0x21];
        let geneve =
            |header: &[u8], payload: &[u8]| over_ip(&ipv4(17, &udp(6081, &[header, payload].concat())));
        let teredo = |header: &[u8]| over_ip(&ipv4(17, &udp(3544, &[header, &packet6()].concat())));
        Vec::from([
            ("Ethernet", LinkKind::Ethernet, frame4.clone()),
            ("raw IPv4", LinkKind::Ip, packet4()),
            ("raw IPv6", LinkKind::Ip, packet6()),
            ("SLL", LinkKind::LinuxSll, [&[0; 14], &[0x08, 0x00][..], &packet4()].concat()),
            ("SLL2", LinkKind::LinuxSll2, [&[0x86, 0xdd], &[0; 18][..], &packet6()].concat()),
            ("loopback, little endian", LinkKind::Loopback, [&[2, 0, 0, 0][..], &packet4()].concat()),
            ("loopback, big endian", LinkKind::Loopback, [&[0, 0, 0, 30][..], &packet6()].concat()),
            ("PPP", LinkKind::Ppp, [&[0x00, 0x21][..], &packet4()].concat()),
            ("PPP in HDLC framing", LinkKind::Ppp, [&[0xff, 0x03, 0x00, 0x57][..], &packet6()].concat()),
            ("PPP, short protocol", LinkKind::Ppp, [&[0x21][..], &packet4()].concat()),
            ("HDLC with PPP", LinkKind::Hdlc, [&[0xff, 0x03, 0x00, 0x21][..], &packet4()].concat()),
            ("Cisco HDLC", LinkKind::Hdlc, [&[0x0f, 0, 0x08, 0x00][..], &packet4()].concat()),
            ("PPPoE without Ethernet", LinkKind::PppOverEthernet, [&pppoe, &packet4()[..]].concat()),
            ("VLAN", LinkKind::Ethernet, ethernet(0x8100, &[&[0, 5, 8, 0][..], &packet4()].concat())),
            (
                "QinQ 0x9100",
                LinkKind::Ethernet,
                ethernet(0x9100, &[&[0, 5, 0x81, 0, 0, 6, 8, 0][..], &packet4()].concat()),
            ),
            (
                "three tags",
                LinkKind::Ethernet,
                ethernet(0x88a8, &[&[0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 8, 0][..], &packet4()].concat()),
            ),
            (
                "PPPoE over VLAN",
                LinkKind::Ethernet,
                ethernet(0x8100, &[&[0, 5, 0x88, 0x64][..], &pppoe, &packet4()].concat()),
            ),
            (
                "MPLS",
                LinkKind::Ethernet,
                ethernet(0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64][..], &packet6()].concat()),
            ),
            (
                "Cisco metadata",
                LinkKind::Ethernet,
                ethernet(0x8909, &[&[1, 1, 0, 1, 0, 2, 8, 0][..], &packet4()].concat()),
            ),
            (
                "VXLAN",
                LinkKind::Ethernet,
                over_ip(&ipv4(17, &udp(4789, &[&vxlan_header, &frame4[..]].concat()))),
            ),
            (
                "VXLAN over IPv6, Linux's port",
                LinkKind::Ip,
                ipv6(17, &udp(8472, &[&vxlan_header, &frame4[..]].concat())),
            ),
            ("GENEVE", LinkKind::Ethernet, geneve(&[0, 0, 0x65, 0x58, 0, 0, 1, 0], &frame4)),
            (
                "GENEVE with options and bare IP",
                LinkKind::Ethernet,
                geneve(&[1, 0, 8, 0, 0, 0, 1, 0, 9, 9, 9, 9], &packet4()),
            ),
            ("GRE", LinkKind::Ethernet, gre(&[0, 0, 8, 0], &packet4())),
            (
                "GRE with checksum, key and sequence",
                LinkKind::Ethernet,
                gre(&[0xb0, 0, 0x86, 0xdd, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], &packet6()),
            ),
            ("GRE with Ethernet", LinkKind::Ethernet, gre(&[0, 0, 0x65, 0x58], &frame4)),
            ("ERSPAN I", LinkKind::Ethernet, gre(&[0, 0, 0x88, 0xbe], &frame4)),
            (
                "ERSPAN II",
                LinkKind::Ethernet,
                gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 0, 0, 0, 0, 0], &frame4),
            ),
            (
                "ERSPAN III",
                LinkKind::Ethernet,
                gre(&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &frame4),
            ),
            ("IPv4 in IPv4", LinkKind::Ethernet, over_ip(&ipv4(4, &packet4()))),
            ("IPv6 in IPv4", LinkKind::Ethernet, over_ip(&ipv4(41, &packet6()))),
            ("IPv4 in IPv6", LinkKind::Ip, ipv6(4, &packet4())),
            ("Teredo", LinkKind::Ethernet, teredo(&[])),
            ("Teredo with origin", LinkKind::Ethernet, teredo(&[0, 0, 1, 1, 2, 2, 2, 2])),
            (
                "Teredo with authentication and origin",
                LinkKind::Ethernet,
                teredo(&[0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 1, 2, 2, 2, 2]),
            ),
        ])
    }

    #[test]
    fn the_segment_is_found_behind_every_kind_of_link_and_tunnel() {
        for (name, kind, frame) in frames() {
            let packet = walk(&&frame[..], kind).unwrap_or_else(|skip| panic!("{name}: {skip:?}"));
            assert_eq!((packet.tcp.destination_port, packet.tcp.sequence), (443, 7), "{name}");
            let payload = packet.tcp.payload_offset as usize..;
            assert_eq!(frame[payload], b"hello"[..], "{name}");
            assert_eq!(packet.tcp.payload_len, 5, "{name}");
        }
    }

    #[test]
    fn every_prefix_of_every_frame_is_skipped_or_has_less_payload() {
        for (name, kind, frame) in frames() {
            for len in 0..frame.len() {
                if let Ok(packet) = walk(&&frame[..len], kind) {
                    assert!(packet.tcp.payload_len < 5, "{name}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn every_corrupt_byte_is_survived() {
        for (_, kind, mut frame) in frames() {
            for index in 0..frame.len() {
                let before = frame[index];
                for value in 0..=u8::MAX {
                    frame[index] = value;
                    if let Ok(packet) = walk(&&frame[..], kind) {
                        let end = packet.tcp.payload_offset + packet.tcp.payload_len;
                        assert!(end as usize <= frame.len());
                    }
                }
                frame[index] = before;
            }
        }
    }

    #[test]
    fn the_outermost_tag_is_reported() {
        for (name, kind, frame) in frames() {
            let vlan = walk(&&frame[..], kind).map(|packet| packet.vlan);
            let expected =
                if ["VLAN", "QinQ 0x9100", "three tags", "PPPoE over VLAN"].contains(&name) { 5 } else { 0 };
            assert_eq!(vlan, Ok(expected), "{name}");
        }
    }

    #[test]
    fn headers_without_end_are_given_up() {
        let mut frame = packet4();
        for _ in 0..=MAX_HEADERS {
            frame = ipv4(4, &frame);
        }
        assert_eq!(walk(&&frame[..], LinkKind::Ip), Err(Skip::NotIp));
    }

    #[test]
    fn padding_is_no_payload_whichever_header_tells() {
        for (name, kind, mut frame) in frames() {
            frame.extend([0; 6]);
            let payload_len = walk(&&frame[..], kind).map(|packet| packet.tcp.payload_len);
            assert_eq!(payload_len, Ok(5), "{name}");
        }
        let lying = ipv4(tcp::PROTOCOL, &[&tcp_segment()[..], &[0; 6]].concat());
        let frame = [&[0x11, 0, 0, 1, 0, 47, 0x00, 0x21], &lying[..]].concat();
        let payload_len = walk(&&frame[..], LinkKind::PppOverEthernet).map(|packet| packet.tcp.payload_len);
        assert_eq!(payload_len, Ok(5));
    }

    #[test]
    fn udp_to_other_ports_is_no_tunnel() {
        let frame = ipv4(17, &udp(53, &packet4()));
        assert_eq!(walk(&&frame[..], LinkKind::Ip), Err(Skip::NotTcp));
    }
}
