//! What the engine is fed: one captured TCP segment, whether it came from the ring or from a file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smallvec::SmallVec;
use tlstrace_common::event::{Notes, TcpFlags, TcpOptions};

use super::timestamp::Timestamp;

/// Where the hook stood: on the way into the interface's network stack, or out of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    Ingress,
    Egress,
    /// A capture file does not say.
    Unknown,
}

/// One TCP segment with as much of its payload as was captured.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    pub timestamp: Timestamp,
    /// Index of the interface that saw it: the kernel's for live packets, the file's otherwise.
    pub interface: u32,
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    /// Meaningful only with the ACK flag.
    pub acknowledgement: u32,
    /// [`TcpFlags`] bits.
    pub flags: u8,
    /// As on the wire, unscaled.
    pub window: u16,
    /// [`TcpOptions`] bits.
    pub options: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// IPv4 identification, 0 for IPv6.
    pub ip_id: u16,
    /// Outermost VLAN identifier, 0 if untagged.
    pub vlan: u16,
    /// Length of the payload on the wire, in bytes.
    pub payload_len: u32,
    /// The captured parts of the payload, by offset, in order, without overlap.
    pub chunks: SmallVec<[Chunk<'a>; 4]>,
    /// [`Notes`] bits of the kernel's selection; 0 for a capture file.
    pub notes: u8,
    /// It leaves this network namespace under one of its own addresses, and the kernel reports every RST that it sends
    /// so (see [`super::resets`]).
    pub is_own: bool,
}

/// An address as the header walk gives it: IPv4-mapped ones (RFC 4291 §2.5.5.2) become IPv4.
pub(crate) fn address(octets: [u8; 16]) -> IpAddr {
    let bits = u128::from_be_bytes(octets);
    match u32::try_from(bits ^ MAPPED) {
        Ok(v4) => Ipv4Addr::from_bits(v4).into(),
        Err(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

/// `::ffff:0:0`, in front of an IPv4 address.
pub(crate) const MAPPED: u128 = 0xffff << 32;

/// A captured part of a segment's payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk<'a> {
    /// Offset from the start of the payload, in bytes.
    pub offset: u32,
    pub bytes: &'a [u8],
}

impl Segment<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn is_syn(&self) -> bool {
        self.has(TcpFlags::SYN)
    }

    pub fn is_fin(&self) -> bool {
        self.has(TcpFlags::FIN)
    }

    pub fn is_rst(&self) -> bool {
        self.has(TcpFlags::RST)
    }

    pub fn is_ack(&self) -> bool {
        self.has(TcpFlags::ACK)
    }

    pub fn has_timestamps(&self) -> bool {
        self.options & TcpOptions::TIMESTAMPS != 0
    }

    /// Whether the payload begins as a record with a ClientHello does (RFC 8446 §4, §5.1).
    pub fn begins_with_client_hello(&self) -> bool {
        let first = self.chunks.first().filter(|chunk| chunk.offset == 0);
        first.is_some_and(|chunk| matches!(chunk.bytes, [22, 3, _, _, _, 1, ..]))
    }

    /// Whether the capture left out bytes that it should have kept.
    pub fn is_truncated(&self) -> bool {
        self.notes & Notes::TRUNCATED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_become_ipv4_and_others_stay_ipv6() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        assert_eq!(address(mapped).to_string(), "10.0.0.1");
        let mut native = [0; 16];
        native[0] = 0xfd;
        native[15] = 1;
        assert_eq!(address(native).to_string(), "fd00::1");
    }
}
