//! Network headers: IPv4 with options (RFC 791), IPv6 with extension headers (RFC 8200).

use crate::link::{EtherType, Link};
use crate::load::Load;
use crate::skip::Skip;

/// Most IPv6 extension headers that are stepped over.
pub const MAX_EXTENSION_HEADERS: u32 = 8;

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (RFC 4291 §2.5.5.2).
///
/// Two machine words instead of 16 bytes: a BPF program keeps them in registers.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Address([u64; 2]);

impl Address {
    /// The address in network byte order.
    #[inline(always)]
    pub fn octets(self) -> [u8; 16] {
        let mut octets = [0; 16];
        let (start, end) = octets.split_at_mut(8);
        start.copy_from_slice(&self.0[0].to_ne_bytes());
        end.copy_from_slice(&self.0[1].to_ne_bytes());
        octets
    }

    /// The address as two words, in whatever order this machine has: for hashing and comparing.
    #[inline(always)]
    pub const fn words(self) -> [u64; 2] {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn new(octets: [u8; 16]) -> Self {
        match (octets.first_chunk(), octets.last_chunk()) {
            (Some(start), Some(end)) => Self([u64::from_ne_bytes(*start), u64::from_ne_bytes(*end)]),
            _ => Self([0; 2]),
        }
    }

    #[inline(always)]
    pub(crate) const fn mapped(v4: [u8; 4]) -> Self {
        Self::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]])
    }
}

/// What the network header says about the packet behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram {
    pub source: Address,
    pub destination: Address,
    /// Protocol of the transport header (IANA Assigned Internet Protocol Numbers).
    pub protocol: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// IPv4 identification, 0 for IPv6.
    pub ip_id: u16,
    /// Offset of the transport header from the start of the packet, in bytes.
    pub offset: u32,
    /// Offset of the datagram's end from the start of the packet, in bytes: what lies behind it is
    /// padding of the link.
    pub end: u32,
}

/// Steps over the network header that `link` found, extension headers included.
#[inline(always)]
pub fn walk(load: &impl Load, link: &Link) -> Result<Datagram, Skip> {
    let mut datagram = header(load, link)?;
    extensions(load, &mut datagram)?;
    Ok(datagram)
}

/// Steps over the network header that `link` found, but not over extension headers.
#[inline(always)]
pub fn header(load: &impl Load, link: &Link) -> Result<Datagram, Skip> {
    match link.ether_type {
        EtherType::IPV4 => ipv4(load, link.offset),
        EtherType::IPV6 => ipv6(load, link.offset),
        _ => Err(Skip::NotIp),
    }
}

/// Steps over an IPv4 header at `offset`, options included. A fragment is an error.
#[inline(always)]
pub fn ipv4(load: &impl Load, offset: u32) -> Result<Datagram, Skip> {
    let header: [u8; 20] = load.load(offset).ok_or(Skip::Truncated)?;
    let [version_ihl, _, l1, l0, i1, i0, f1, f0, hop_limit, protocol, _, _, s3, s2, s1, s0, d3, d2, d1, d0] =
        header;
    if version_ihl >> 4 != 4 {
        return Err(Skip::BadLength);
    }
    let header_len = u32::from(version_ihl & 0x0f) * 4;
    if header_len < 20 {
        return Err(Skip::BadLength);
    }
    if u16::from_be_bytes([f1, f0]) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0 {
        return Err(Skip::Fragment);
    }
    let total_len = u32::from(u16::from_be_bytes([l1, l0]));
    if total_len != 0 && total_len < header_len {
        return Err(Skip::BadLength);
    }
    Ok(Datagram {
        source: Address::mapped([s3, s2, s1, s0]),
        destination: Address::mapped([d3, d2, d1, d0]),
        protocol,
        hop_limit,
        ip_id: u16::from_be_bytes([i1, i0]),
        offset: offset + header_len,
        end: end(load, offset, total_len),
    })
}

/// Steps over an IPv6 header at `offset`, without the extension headers behind it.
#[inline(always)]
pub fn ipv6(load: &impl Load, offset: u32) -> Result<Datagram, Skip> {
    let [version, _, _, _, l1, l0, next_header, hop_limit] = load.load(offset).ok_or(Skip::Truncated)?;
    if version >> 4 != 6 {
        return Err(Skip::BadLength);
    }
    let payload_len = u32::from(u16::from_be_bytes([l1, l0]));
    let total_len = if payload_len == 0 { 0 } else { payload_len + IPV6_LEN };
    let source = load.load(offset + 8).ok_or(Skip::Truncated)?;
    let destination = load.load(offset + 24).ok_or(Skip::Truncated)?;
    Ok(Datagram {
        source: Address::new(source),
        destination: Address::new(destination),
        protocol: next_header,
        hop_limit,
        ip_id: 0,
        offset: offset + IPV6_LEN,
        end: end(load, offset, total_len),
    })
}

/// Steps over at most [`MAX_EXTENSION_HEADERS`] IPv6 extension headers, if there are any.
#[inline(always)]
pub fn extensions(load: &impl Load, datagram: &mut Datagram) -> Result<(), Skip> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !datagram.has_extensions() {
            break;
        }
        extension(load, datagram)?;
    }
    if datagram.has_extensions() { Err(Skip::TooManyExtensionHeaders) } else { Ok(()) }
}

/// Steps over the IPv6 extension header that comes next. A fragment is an error unless it is atomic,
/// that is, whole (RFC 6946).
#[inline(always)]
pub fn extension(load: &impl Load, datagram: &mut Datagram) -> Result<(), Skip> {
    let [next_header, len, f1, f0] = load.load(datagram.offset).ok_or(Skip::Truncated)?;
    datagram.offset += match datagram.protocol {
        FRAGMENT if u16::from_be_bytes([f1, f0]) & !FRAGMENT_RESERVED != 0 => return Err(Skip::Fragment),
        FRAGMENT => 8,
        // RFC 4302 §2.2: in 4-octet units, minus 2.
        AUTHENTICATION => (u32::from(len) + 2) * 4,
        // RFC 8200 §4.3: in 8-octet units, without the first 8 octets.
        _ => (u32::from(len) + 1) * 8,
    };
    datagram.protocol = next_header;
    Ok(())
}

impl Datagram {
    /// Whether an IPv6 extension header comes next.
    #[inline(always)]
    pub const fn has_extensions(&self) -> bool {
        matches!(self.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
    }
}

const IPV6_LEN: u32 = 40;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// In IPv6, neither offset nor "more fragments" (RFC 8200 §4.5).
const FRAGMENT_RESERVED: u16 = 0x0006;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// End of a datagram that begins at `start`. A length of 0 is BIG TCP's, whose packets are longer than
/// the field can say (kernel commit b1a78b9b9886); one beyond the packet is no better. Both times the
/// packet's own length holds.
#[inline(always)]
fn end(load: &impl Load, start: u32, total_len: u32) -> u32 {
    let stated = start + total_len;
    if total_len == 0 || stated > load.len() { load.len() } else { stated }
}
