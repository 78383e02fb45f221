//! TCP headers (RFC 9293 §3.1) and the few options that a diagnosis uses.

use crate::encapsulation;
use crate::event::TcpOptions;
use crate::load::Load;
use crate::net::Datagram;
use crate::skip::Skip;

/// Protocol number of TCP.
pub const PROTOCOL: u8 = 6;

/// What the TCP header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tcp {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// [`crate::event::TcpFlags`] bits.
    pub flags: u8,
    /// As on the wire, unscaled.
    pub window: u16,
    /// Offset of the options from the start of the packet, in bytes; they end where the payload begins.
    pub options_offset: u32,
    /// Offset of the payload from the start of the packet, in bytes.
    pub payload_offset: u32,
    /// Length of the payload, in bytes.
    pub payload_len: u32,
}

impl Tcp {
    /// Length of the options, in bytes: at most 40.
    #[inline(always)]
    pub const fn options_len(&self) -> u32 {
        self.payload_offset - self.options_offset
    }
}

/// Reads the TCP header behind `datagram`'s network header, without its options.
#[inline(always)]
pub fn walk(load: &impl Load, datagram: &Datagram) -> Result<Tcp, Skip> {
    if datagram.protocol != PROTOCOL {
        return Err(other(load, datagram));
    }
    let header: [u8; 16] = load.load(datagram.offset).ok_or(Skip::Truncated)?;
    let [s1, s0, d1, d0, q3, q2, q1, q0, a3, a2, a1, a0, data_offset, flags, w1, w0] = header;
    let header_len = u32::from(data_offset >> 4) * 4;
    let payload_offset = datagram.offset + header_len;
    if header_len < HEADER_LEN || payload_offset > datagram.end {
        return Err(Skip::BadLength);
    }
    Ok(Tcp {
        source_port: u16::from_be_bytes([s1, s0]),
        destination_port: u16::from_be_bytes([d1, d0]),
        sequence: u32::from_be_bytes([q3, q2, q1, q0]),
        acknowledgement: u32::from_be_bytes([a3, a2, a1, a0]),
        flags,
        window: u16::from_be_bytes([w1, w0]),
        options_offset: datagram.offset + HEADER_LEN,
        payload_offset,
        payload_len: datagram.end - payload_offset,
    })
}

/// [`TcpOptions`] bits of the first `len` bytes of `options`: the bytes from
/// [`Tcp::options_offset`] to [`Tcp::payload_offset`].
///
/// An option that lies about its length ends the scan.
pub fn options(options: &[u8; MAX_OPTIONS_LEN], len: u32) -> u8 {
    let mut scan = OptionScan { at: 0, len, found: 0 };
    while scan.step(options) {}
    scan.found()
}

/// Whether the first `len` bytes of `options` are what most segments have: timestamps, and in front of them what aligns
/// them (RFC 7323 appendix A). Then there is no need for [`options`].
#[inline(always)]
pub const fn are_timestamps(options: &[u8; MAX_OPTIONS_LEN], len: u32) -> bool {
    len == 12 && matches!(options, [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, ..])
}

/// A walk over TCP options, one at a time.
///
/// A BPF program keeps this in a map, where the verifier does not follow values: in registers, the bits
/// found so far would multiply the paths that it has to walk.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OptionScan {
    /// Offset of the next option.
    pub at: u32,
    /// Length of all options, at most 40.
    pub len: u32,
    pub found: u32,
}

impl OptionScan {
    /// [`TcpOptions`] bits so far.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits of a byte")]
    pub const fn found(&self) -> u8 {
        self.found as u8
    }

    /// Looks at one option, and tells whether another may follow.
    #[inline(always)]
    pub fn step(&mut self, options: &[u8; MAX_OPTIONS_LEN]) -> bool {
        // A mask instead of `get`: LLVM would turn the check into one that the verifier cannot follow.
        let kind = options[self.at as usize % MAX_OPTIONS_LEN];
        if self.at >= self.len || kind == END_OF_LIST {
            return false;
        }
        if kind == NO_OPERATION {
            self.at += 1;
            return true;
        }
        let option_len = u32::from(options[(self.at + 1) as usize % MAX_OPTIONS_LEN]);
        if option_len < 2 || self.at + option_len > self.len {
            return false;
        }
        self.found |= match kind {
            2 => u32::from(TcpOptions::MSS),
            5 => u32::from(TcpOptions::SACK),
            TIMESTAMPS => u32::from(TcpOptions::TIMESTAMPS),
            34 => u32::from(TcpOptions::FAST_OPEN),
            _ => 0,
        };
        self.at += option_len;
        true
    }
}

/// Most options that a header holds: 40 bytes, one each.
pub const MAX_OPTIONS: u32 = 40;

/// Room for all options: the data offset leaves them 40 bytes, and a power of two is cheap to stay in.
pub const MAX_OPTIONS_LEN: usize = 64;

/// What a packet of another protocol is.
#[inline(always)]
fn other(load: &impl Load, datagram: &Datagram) -> Skip {
    match datagram.protocol {
        encapsulation::UDP => match load.load(datagram.offset + 2) {
            Some([p1, p0, _, _, _, _, first, v3, v2, v1, v0]) => {
                if is_quic(first, u32::from_be_bytes([v3, v2, v1, v0])) {
                    Skip::Quic
                } else if encapsulation::is_udp_tunnel(u16::from_be_bytes([p1, p0])) {
                    Skip::Encapsulated
                } else {
                    Skip::NotTcp
                }
            }
            None => Skip::NotTcp,
        },
        encapsulation::IPV4 | encapsulation::IPV6 | encapsulation::GRE => Skip::Encapsulated,
        _ => Skip::NotTcp,
    }
}

/// Whether UDP that begins with these bytes is the long header of QUIC 1 or 2 (RFC 9000 §17.2, RFC 9369 §3.1), on
/// whatever port.
#[inline(always)]
const fn is_quic(first: u8, version: u32) -> bool {
    first & 0xc0 == 0xc0 && (version == 1 || version == 0x6b33_43cf)
}

const HEADER_LEN: u32 = 20;
const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;
const TIMESTAMPS: u8 = 8;
