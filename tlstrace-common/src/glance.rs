//! What most packets show at a glance: TCP right behind an IPv4 header without options or an IPv6 header without
//! extensions, and no VLAN tag.
//!
//! The walk of [`crate::packet`] finds the same, and checks more. But between two packets the stack has emptied the
//! CPU's instruction cache, and then a program costs what its path is long: this one is short, and is all that nearly
//! every packet takes.

use crate::link::{EtherType, Start};
use crate::load::Load;
use crate::net::Address;
use crate::{flow, tcp};

/// The little that decides whether more must be known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Glance {
    /// As [`flow::hash`].
    pub hash: u32,
    /// TCP's.
    pub flags: u8,
}

/// Looks at a packet; `None` if it takes more than a look. Lengths are not checked.
#[inline(always)]
pub fn glance(load: &impl Load, start: Start) -> Option<Glance> {
    match start {
        Start::Ethernet => {
            let ether_type = EtherType(u16::from_be_bytes(load.load(ETHERNET_LEN - 2)?));
            match ether_type {
                EtherType::IPV4 => ipv4(load, ETHERNET_LEN),
                EtherType::IPV6 => ipv6(load, ETHERNET_LEN),
                _ => None,
            }
        }
        Start::Ip => ipv4(load, 0).or_else(|| ipv6(load, 0)),
    }
}

const ETHERNET_LEN: u32 = 14;

#[inline(always)]
fn ipv4(load: &impl Load, offset: u32) -> Option<Glance> {
    let header: [u8; 34] = load.load(offset)?;
    let [version_ihl, _, _, _, _, _, f1, f0, _, protocol, _, _, s3, s2, s1, s0, d3, d2, d1, d0, ..] = header;
    // A fragment has an offset, or is followed by more (RFC 791 §3.1).
    if version_ihl != 0x45 || protocol != tcp::PROTOCOL || (f1 & 0x3f) | f0 != 0 {
        return None;
    }
    let [.., p3, p2, p1, p0, _, _, _, _, _, _, _, _, _, flags] = header;
    let (source, destination) = (Address::mapped([s3, s2, s1, s0]), Address::mapped([d3, d2, d1, d0]));
    Some(Glance { hash: flow::hash_of(source, destination, ports([p3, p2, p1, p0])), flags })
}

#[inline(always)]
fn ipv6(load: &impl Load, offset: u32) -> Option<Glance> {
    let [version, _, _, _, _, _, next_header, _]: [u8; 8] = load.load(offset)?;
    if version >> 4 != 6 || next_header != tcp::PROTOCOL {
        return None;
    }
    let (source, destination) = (Address::new(load.load(offset + 8)?), Address::new(load.load(offset + 24)?));
    let [p3, p2, p1, p0, .., flags]: [u8; 14] = load.load(offset + 40)?;
    Some(Glance { hash: flow::hash_of(source, destination, ports([p3, p2, p1, p0])), flags })
}

#[inline(always)]
const fn ports([s1, s0, d1, d0]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([s1, s0]), u16::from_be_bytes([d1, d0])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet;

    extern crate std;
    use std::vec::Vec;

    const V4: [u8; 20] = [0x45, 0, 0, 40, 0x12, 0x34, 0x40, 0, 63, 6, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6];
    const V6: [u8; 8] = [0x60, 0, 0, 0, 0, 20, 6, 61];
    const TCP: [u8; 20] = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 2, 0, 0, 0, 0];

    fn v6() -> Vec<u8> {
        [&V6[..], &[0xfd; 16], &[0xfe; 16], &TCP].concat()
    }

    fn ethernet(ether_type: u16, packet: &[u8]) -> Vec<u8> {
        [&[2; 12], &ether_type.to_be_bytes()[..], packet].concat()
    }

    #[test]
    fn it_finds_what_the_walk_finds_or_nothing() {
        let v4 = [&V4[..], &TCP].concat();
        for (ether_type, packet) in [(0x0800, v4), (0x86dd, v6())] {
            for (start, frame) in
                [(Start::Ip, packet.clone()), (Start::Ethernet, ethernet(ether_type, &packet))]
            {
                let seen = glance(&&frame[..], start).unwrap();
                assert_eq!(seen.flags, 0x18);
                for len in 0..frame.len() {
                    assert!(glance(&&frame[..len], start).is_none_or(|seen_early| seen_early == seen));
                }
                for index in 0..frame.len() {
                    for value in 0..=u8::MAX {
                        let mut frame = frame.clone();
                        frame[index] = value;
                        let seen = glance(&&frame[..], start);
                        if let (Some(seen), Ok(packet)) = (seen, packet::walk(&&frame[..], start)) {
                            assert_eq!(
                                (seen.hash, seen.flags),
                                (flow::hash(&packet), packet.tcp.flags),
                                "{index} {value}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_right_behind_a_plain_header_takes_more_than_a_look() {
        let changed = |index: usize, value: u8| {
            let mut packet = [&V4[..], &TCP].concat();
            packet[index] = value;
            glance(&&packet[..], Start::Ip)
        };
        assert!(changed(0, 0x45).is_some());
        assert!(changed(0, 0x46).is_none(), "options");
        assert!(changed(6, 0x20).is_none() && changed(7, 1).is_none(), "fragments");
        assert!(changed(9, 17).is_none(), "UDP");
        let mut extended = v6();
        extended[6] = 60;
        assert!(glance(&&extended[..], Start::Ip).is_none(), "extension headers");
        assert!(glance(&&ethernet(0x8100, &v6())[..], Start::Ethernet).is_none(), "a VLAN tag");
    }
}
