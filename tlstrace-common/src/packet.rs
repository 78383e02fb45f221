//! The whole walk: from a packet's first byte to its TCP payload.

use crate::link::{self, Link, Start};
use crate::load::Load;
use crate::net::{self, Address, Datagram};
use crate::skip::Skip;
use crate::tcp::{self, Tcp};

/// A TCP segment, as its headers describe it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPacket {
    pub source: Address,
    pub destination: Address,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// IPv4 identification, 0 for IPv6.
    pub ip_id: u16,
    /// VLAN identifier of the outermost tag in band, 0 if there is none.
    pub vlan: u16,
    pub tcp: Tcp,
}

/// Steps over all headers of a packet, or says why there is no TCP segment in it.
#[inline(always)]
pub fn walk(load: &impl Load, start: Start) -> Result<TcpPacket, Skip> {
    let link = link::walk(load, start)?;
    let datagram = net::walk(load, &link)?;
    let tcp = tcp::walk(load, &datagram)?;
    Ok(TcpPacket::new(&link, &datagram, tcp))
}

impl TcpPacket {
    #[inline(always)]
    pub const fn new(link: &Link, datagram: &Datagram, tcp: Tcp) -> Self {
        Self {
            source: datagram.source,
            destination: datagram.destination,
            hop_limit: datagram.hop_limit,
            ip_id: datagram.ip_id,
            vlan: link.vlan,
            tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{TcpFlags, TcpOptions};

    extern crate std;
    use std::vec::Vec;

    const V4: [u8; 20] = [0x45, 0, 0, 47, 0x12, 0x34, 0x40, 0, 63, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    const TCP: [u8; 20] = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 2, 0, 0, 0, 0];
    const PAYLOAD: [u8; 7] = *b"payload";

    fn ethernet(ether_type: u16, rest: &[&[u8]]) -> Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend(ether_type.to_be_bytes());
        frame.extend(rest.concat());
        frame
    }

    fn v4() -> Vec<u8> {
        ethernet(0x0800, &[&V4, &TCP, &PAYLOAD])
    }

    fn v6(next_header: u8, extensions: &[u8]) -> Vec<u8> {
        let len = u16::try_from(extensions.len() + TCP.len() + PAYLOAD.len()).unwrap();
        let [l1, l0] = len.to_be_bytes();
        let mut header = std::vec![0x60, 0, 0, 0, l1, l0, next_header, 61];
        header.extend([0xfd; 16]);
        header.extend([0xfe; 16]);
        ethernet(0x86dd, &[&header, extensions, &TCP, &PAYLOAD])
    }

    fn walked(frame: &[u8]) -> Result<TcpPacket, Skip> {
        walk(&frame, Start::Ethernet)
    }

    fn payload<'a>(frame: &'a [u8], packet: &TcpPacket) -> &'a [u8] {
        let start = packet.tcp.payload_offset as usize;
        &frame[start..start + packet.tcp.payload_len as usize]
    }

    #[test]
    fn a_segment_over_ipv4_is_read_field_by_field() {
        let frame = v4();
        let packet = walked(&frame).unwrap();
        assert_eq!(packet.source.octets(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(packet.destination.octets()[12..], [10, 0, 0, 2]);
        assert_eq!((packet.hop_limit, packet.ip_id, packet.vlan), (63, 0x1234, 0));
        let tcp = packet.tcp;
        assert_eq!((tcp.source_port, tcp.destination_port), (40_000, 443));
        assert_eq!((tcp.sequence, tcp.acknowledgement, tcp.window), (7, 9, 0x0102));
        assert_eq!(tcp.flags, TcpFlags::ACK | TcpFlags::PSH);
        assert_eq!(payload(&frame, &packet), PAYLOAD);
    }

    #[test]
    fn extension_headers_are_stepped_over_up_to_a_limit() {
        let plain = v6(6, &[]);
        let packet = walked(&plain).unwrap();
        assert_eq!((packet.hop_limit, packet.ip_id), (61, 0));
        assert_eq!(packet.source.octets(), [0xfd; 16]);
        assert_eq!(payload(&plain, &packet), PAYLOAD);

        let destination_options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
        let eight: Vec<u8> = (1..=8).flat_map(|n| destination_options(if n == 8 { 6 } else { 60 })).collect();
        let frame = v6(60, &eight);
        assert_eq!(payload(&frame, &walked(&frame).unwrap()), PAYLOAD);
        let nine: Vec<u8> = (1..=9).flat_map(|n| destination_options(if n == 9 { 6 } else { 60 })).collect();
        assert_eq!(walked(&v6(60, &nine)), Err(Skip::TooManyExtensionHeaders));

        // An atomic fragment is whole; an authentication header counts in words of four octets.
        let atomic = v6(44, &[6, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(payload(&atomic, &walked(&atomic).unwrap()), PAYLOAD);
        let authentication = v6(51, &[6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(payload(&authentication, &walked(&authentication).unwrap()), PAYLOAD);
        assert_eq!(walked(&v6(44, &[6, 0, 0, 1, 0, 0, 0, 1])), Err(Skip::Fragment));
    }

    #[test]
    fn no_prefix_of_a_frame_is_read_beyond_its_end() {
        let extensions = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
        for frame in [v4(), v6(6, &[]), v6(0, &extensions)] {
            let whole = walked(&frame).unwrap();
            for len in 0..frame.len() {
                match walked(&frame[..len]) {
                    Ok(packet) => assert!(len >= whole.tcp.payload_offset as usize, "{packet:?}"),
                    Err(skip) => assert!(matches!(skip, Skip::Truncated | Skip::BadLength), "{skip:?}"),
                }
            }
        }
    }

    #[test]
    fn no_byte_of_a_header_can_make_the_payload_leave_the_frame() {
        for frame in [v4(), v6(6, &[]), v6(60, &[6, 0, 1, 4, 0, 0, 0, 0])] {
            for index in 0..frame.len() {
                for value in 0..=u8::MAX {
                    let mut frame = frame.clone();
                    frame[index] = value;
                    if let Ok(packet) = walked(&frame) {
                        let _ = payload(&frame, &packet);
                    }
                }
            }
        }
    }

    #[test]
    fn a_length_that_is_missing_or_too_long_gives_way_to_the_packets_own() {
        for stated in [0_u16, 48, 0xffff] {
            let mut frame = v4();
            frame[16..18].copy_from_slice(&stated.to_be_bytes());
            let packet = walked(&frame).unwrap();
            assert_eq!(payload(&frame, &packet), PAYLOAD, "{stated}");
        }
        let mut padded = v4();
        padded.extend([0; 9]);
        assert_eq!(payload(&padded, &walked(&padded).unwrap()), PAYLOAD);
    }

    #[test]
    fn options_are_found_among_padding_and_a_lie_ends_the_search() {
        let found = |bytes: &[u8]| {
            let mut options = [0xff; tcp::MAX_OPTIONS_LEN];
            options[..bytes.len()].copy_from_slice(bytes);
            tcp::options(&options, u32::try_from(bytes.len()).unwrap())
        };
        assert_eq!(found(&[]), 0);
        assert_eq!(
            found(&[2, 4, 5, 0xb4, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]),
            TcpOptions::MSS | TcpOptions::TIMESTAMPS
        );
        assert_eq!(found(&[34, 2, 5, 2]), TcpOptions::FAST_OPEN | TcpOptions::SACK);
        assert_eq!(found(&[0, 2, 4, 5]), 0, "behind the end of the list");
        assert_eq!(found(&[2, 0, 8, 10]), 0, "a length of 0");
        assert_eq!(found(&[2, 40, 5, 5]), 0, "a length beyond the end");
        assert_eq!(found(&[1; 40]), 0);
    }
}
