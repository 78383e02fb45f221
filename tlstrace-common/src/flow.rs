//! Which flow a segment belongs to, in whichever direction it goes.

use crate::net::Address;
use crate::packet::TcpPacket;

/// A flow's two endpoints in an order that does not depend on the direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq)]
pub struct FlowKey {
    low: Address,
    high: Address,
    /// The lower end's port in the upper half.
    ports: u64,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl PartialEq for FlowKey {
    /// Without a branch for each word; of the derived one, LLVM makes a call in the BPF programs.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let ([l0, l1], [h0, h1]) = (self.low.words(), self.high.words());
        let ([m0, m1], [i0, i1]) = (other.low.words(), other.high.words());
        (l0 ^ m0) | (l1 ^ m1) | (h0 ^ i0) | (h1 ^ i1) | (self.ports ^ other.ports) == 0
    }
}

/// Which endpoint of a [`FlowKey`] sent a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sender {
    Low = 0,
    High = 1,
}

impl FlowKey {
    /// The key of the flow that `packet` belongs to, and which of its ends sent it.
    #[inline(always)]
    pub fn of(packet: &TcpPacket) -> (Self, Sender) {
        let source = (packet.source, packet.tcp.source_port);
        let destination = (packet.destination, packet.tcp.destination_port);
        if source <= destination {
            (Self::new(source, destination), Sender::Low)
        } else {
            (Self::new(destination, source), Sender::High)
        }
    }

    #[inline(always)]
    const fn new((low, low_port): (Address, u16), (high, high_port): (Address, u16)) -> Self {
        Self { low, high, ports: (low_port as u64) << 32 | high_port as u64 }
    }
}

/// A hash of the flow that is the same for both directions.
///
/// Multiply-shift over sums (which do not depend on the order). It is no defence against somebody who
/// wants collisions: those cost look-ups, never a wrong answer.
#[inline(always)]
pub const fn hash(packet: &TcpPacket) -> u32 {
    hash_of(packet.source, packet.destination, [packet.tcp.source_port, packet.tcp.destination_port])
}

/// The same, of no more than it takes.
#[inline(always)]
pub const fn hash_of(
    source: Address,
    destination: Address,
    [source_port, destination_port]: [u16; 2],
) -> u32 {
    let [s0, s1] = source.words();
    let [d0, d1] = destination.words();
    let ports = source_port as u64 + destination_port as u64;
    let mixed = s0
        .wrapping_add(d0)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(s1.wrapping_add(d1))
        .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        .wrapping_add(ports)
        .wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Start;
    use crate::packet;

    fn packet(source: u8, destination: u8, source_port: u16, destination_port: u16) -> TcpPacket {
        let mut bytes = [0; 40];
        bytes[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
        bytes[15] = source;
        bytes[19] = destination;
        bytes[20..22].copy_from_slice(&source_port.to_be_bytes());
        bytes[22..24].copy_from_slice(&destination_port.to_be_bytes());
        bytes[32] = 0x50;
        packet::walk(&&bytes[..], Start::Ip).unwrap()
    }

    #[test]
    fn both_directions_have_one_key_and_one_hash_and_different_senders() {
        let there = packet(1, 2, 40_000, 443);
        let back = packet(2, 1, 443, 40_000);
        let ((key, sender), (other_key, other_sender)) = (FlowKey::of(&there), FlowKey::of(&back));
        assert_eq!(key, other_key);
        assert_ne!(sender, other_sender);
        assert_eq!(hash(&there), hash(&back));
    }

    #[test]
    fn flows_to_oneself_differ_by_their_ports_and_have_two_senders() {
        let there = packet(1, 1, 40_000, 443);
        let back = packet(1, 1, 443, 40_000);
        assert_eq!(FlowKey::of(&there).0, FlowKey::of(&back).0);
        assert_ne!(FlowKey::of(&there).1, FlowKey::of(&back).1);
    }

    #[test]
    fn flows_of_one_client_spread_over_the_hash() {
        let mut taken = [false; 1024];
        let mut distinct = 0;
        for port in 0..1024 {
            let slot = (hash(&packet(1, 2, 32_768 + port, 443)) >> 22) as usize;
            distinct += u32::from(!taken[slot]);
            taken[slot] = true;
        }
        // 1024 balls into as many bins hit 647 of them on average.
        assert!(distinct > 550, "{distinct}");
    }
}
