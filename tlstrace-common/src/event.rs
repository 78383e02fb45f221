//! The ring buffer's format: one event per TCP segment that was selected, and one per RST that the kernel sent.
//!
//! A segment's event is a [`SegmentHeader`] and then [`SegmentHeader::chunks`] chunks, each a [`ChunkHeader`]
//! followed by that many bytes. A chunk says which bytes of the segment's payload were copied; what no
//! chunk covers was left in the kernel on purpose (an encrypted record's body) or for want of room
//! ([`Notes::TRUNCATED`]). Integers are in host byte order (both sides run on one machine), addresses
//! in network byte order.

use core::mem::size_of;

/// Most payload bytes that one event carries, over all its chunks.
pub const MAX_EVENT_PAYLOAD: usize = 24 * 1024;

/// Most chunks in one event.
pub const MAX_CHUNKS: usize = 64;

/// Size of the largest event, in bytes.
pub const MAX_EVENT_LEN: usize =
    size_of::<SegmentHeader>() + MAX_CHUNKS * size_of::<ChunkHeader>() + MAX_EVENT_PAYLOAD;

/// What is known of a segment without its payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentHeader {
    /// `bpf_ktime_get_ns`: nanoseconds of `CLOCK_MONOTONIC`.
    pub timestamp_ns: u64,
    /// [`Kind::INGRESS`] or [`Kind::EGRESS`] of `interface`.
    pub kind: u8,
    /// [`Notes`] bits.
    pub notes: u8,
    /// Number of chunks that follow.
    pub chunks: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// [`TcpFlags`] bits.
    pub tcp_flags: u8,
    /// [`TcpOptions`] bits.
    pub tcp_options: u8,
    /// VLAN identifier of the outermost tag, 0 if untagged.
    pub vlan: u16,
    /// IPv6 address, or an IPv4 address in its IPv4-mapped form (RFC 4291 §2.5.5.2).
    pub source: [u8; 16],
    /// As `source`.
    pub destination: [u8; 16],
    /// TCP sequence number of the first payload byte (of the SYN, if there is one).
    pub sequence: u32,
    /// TCP acknowledgement number; meaningful only with [`TcpFlags::ACK`].
    pub acknowledgement: u32,
    /// Length of the TCP payload, in bytes, as the packet carried it (a GSO or GRO packet may exceed the MTU).
    pub payload_len: u32,
    /// Index of the interface whose hook saw the packet.
    pub interface: u32,
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP window as on the wire, unscaled.
    pub window: u16,
    /// IPv4 identification; 0 for IPv6.
    pub ip_id: u16,
}

/// The byte behind the timestamp of every event: what kind of event it is.
pub struct Kind;

impl Kind {
    /// A segment on its way into the interface's network stack.
    pub const INGRESS: u8 = 0;
    /// A segment on its way out of it.
    pub const EGRESS: u8 = 1;
    /// A [`ResetReport`].
    pub const RESET: u8 = 2;
}

/// A RST that this node's kernel sent for one of its sockets, or for want of one (tracepoint `tcp:tcp_send_reset`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResetReport {
    /// As in a [`SegmentHeader`].
    pub timestamp_ns: u64,
    /// [`Kind::RESET`].
    pub kind: u8,
    /// Nonzero if it answers a segment. Then it was sent by whoever happened to be running, and `pid` and `command`
    /// mean nothing.
    pub answers: u8,
    /// The socket's state (`TCP_CLOSE` and the like of `net/tcp_states.h`), 0 if it answers a segment.
    pub state: u8,
    pub padding: u8,
    /// `enum sk_rst_reason`, whose numbers differ from kernel to kernel.
    pub reason: u32,
    /// The sender of the RST. Addresses are as in a [`SegmentHeader`].
    pub local: [u8; 16],
    /// Its receiver.
    pub remote: [u8; 16],
    /// TCP sequence number of the RST.
    pub sequence: u32,
    /// TCP acknowledgement number of the RST, 0 if it has none.
    pub acknowledgement: u32,
    /// Process id in the initial PID namespace (`tgid`).
    pub pid: u32,
    pub local_port: u16,
    pub remote_port: u16,
    /// `comm` of the process (its first thread's), zero-terminated. A process chooses it freely.
    pub command: [u8; 16],
}

/// Where the bytes after it stood in the segment's payload.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkHeader {
    /// Offset of the chunk's first byte from the start of the segment's payload.
    pub offset: u32,
    /// Number of bytes that follow this header.
    pub len: u32,
}

const _: () = assert!(size_of::<SegmentHeader>() == 72);
const _: () = assert!(size_of::<ResetReport>() == 80);
const _: () = assert!(size_of::<ChunkHeader>() == 8);

/// Bits of the TCP header's flags byte (RFC 9293 §3.1).
pub struct TcpFlags;

impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// Which TCP options a segment carried.
pub struct TcpOptions;

impl TcpOptions {
    /// Timestamps (kind 8): an active abort by Linux carries them, a reset for an unknown socket does not.
    pub const TIMESTAMPS: u8 = 0x01;
    /// Maximum segment size (kind 2).
    pub const MSS: u8 = 0x02;
    /// SACK (kind 5) blocks: the sender misses data.
    pub const SACK: u8 = 0x04;
    /// TCP Fast Open (kind 34).
    pub const FAST_OPEN: u8 = 0x08;
}

/// What happened while the payload was selected.
pub struct Notes;

impl Notes {
    /// Bytes that should have been copied were not, for want of room in the event or in the stream's budget.
    pub const TRUNCATED: u8 = 0x01;
    /// The segment did not continue the stream where the program expected it (a hole before it), so that
    /// record boundaries are unknown and nothing was copied.
    pub const UNFRAMED: u8 = 0x02;
    /// The segment repeats bytes that the program had already passed.
    pub const RETRANSMISSION: u8 = 0x04;
    /// The first bytes of this direction of the stream are not TLS.
    pub const NOT_TLS: u8 = 0x08;
    /// This is the last event of this direction until a FIN or RST: the program has seen enough.
    pub const LAST: u8 = 0x10;
    /// An earlier event of this flow was lost because the ring was full.
    pub const LOSS_BEFORE: u8 = 0x20;
}

/// A decoded event, borrowing from the ring's bytes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    Segment(Segment<'a>),
    Reset(ResetReport),
}

/// A segment with the parts of its payload that were copied.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub header: SegmentHeader,
    chunks: &'a [u8],
}

impl<'a> Segment<'a> {
    /// The chunks in the order of their offsets.
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { rest: self.chunks, left: self.header.chunks }
    }
}

/// Iterator over an event's chunks: offset in the segment's payload, and bytes.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
    left: u8,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (offset, bytes, rest) = split_chunk(self.rest).ok()?;
        self.left -= 1;
        self.rest = rest;
        Some((offset, bytes))
    }
}

/// Why bytes are not an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DecodeError {
    /// Shorter than its kind of event is, or than its chunks say.
    Truncated,
    /// Of no known [`Kind`].
    UnknownKind,
    /// More than [`MAX_CHUNKS`] chunks.
    TooManyChunks,
    /// A chunk lies outside the payload, or before the chunk in front of it.
    ChunkOutOfPlace,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the event is shorter than it says",
            Self::UnknownKind => "the event is of an unknown kind",
            Self::TooManyChunks => "the event has more chunks than an event can have",
            Self::ChunkOutOfPlace => "a chunk lies outside its segment, or before its predecessor",
        })
    }
}

impl core::error::Error for DecodeError {}

/// Reads an event as the BPF program wrote it, checking every length.
///
/// Bytes after the last chunk are ignored: the ring rounds records up.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    match bytes.get(size_of::<u64>()) {
        Some(&(Kind::INGRESS | Kind::EGRESS)) => decode_segment(bytes).map(Event::Segment),
        Some(&Kind::RESET) => ResetReport::from_bytes(bytes).map(Event::Reset).ok_or(DecodeError::Truncated),
        Some(_) => Err(DecodeError::UnknownKind),
        None => Err(DecodeError::Truncated),
    }
}

fn decode_segment(bytes: &[u8]) -> Result<Segment<'_>, DecodeError> {
    let Some((head, chunks)) = bytes.split_at_checked(size_of::<SegmentHeader>()) else {
        return Err(DecodeError::Truncated);
    };
    let header = SegmentHeader::from_bytes(head).ok_or(DecodeError::Truncated)?;
    if usize::from(header.chunks) > MAX_CHUNKS {
        return Err(DecodeError::TooManyChunks);
    }
    let mut rest = chunks;
    let mut end = 0u32;
    for _ in 0..header.chunks {
        let (offset, bytes, tail) = split_chunk(rest)?;
        let len = u32::try_from(bytes.len()).map_err(|_| DecodeError::ChunkOutOfPlace)?;
        if offset < end {
            return Err(DecodeError::ChunkOutOfPlace);
        }
        end = offset.checked_add(len).ok_or(DecodeError::ChunkOutOfPlace)?;
        if end > header.payload_len {
            return Err(DecodeError::ChunkOutOfPlace);
        }
        rest = tail;
    }
    Ok(Segment { header, chunks })
}

fn split_chunk(bytes: &[u8]) -> Result<(u32, &[u8], &[u8]), DecodeError> {
    let (offset, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
    let len = usize::try_from(u32::from_ne_bytes(*len)).map_err(|_| DecodeError::Truncated)?;
    let (bytes, rest) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    Ok((u32::from_ne_bytes(*offset), bytes, rest))
}

impl SegmentHeader {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            timestamp_ns: u64::from_ne_bytes(fields.take()?),
            kind: fields.byte()?,
            notes: fields.byte()?,
            chunks: fields.byte()?,
            hop_limit: fields.byte()?,
            tcp_flags: fields.byte()?,
            tcp_options: fields.byte()?,
            vlan: u16::from_ne_bytes(fields.take()?),
            source: fields.take()?,
            destination: fields.take()?,
            sequence: u32::from_ne_bytes(fields.take()?),
            acknowledgement: u32::from_ne_bytes(fields.take()?),
            payload_len: u32::from_ne_bytes(fields.take()?),
            interface: u32::from_ne_bytes(fields.take()?),
            source_port: u16::from_ne_bytes(fields.take()?),
            destination_port: u16::from_ne_bytes(fields.take()?),
            window: u16::from_ne_bytes(fields.take()?),
            ip_id: u16::from_ne_bytes(fields.take()?),
        })
    }
}

impl ResetReport {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            timestamp_ns: u64::from_ne_bytes(fields.take()?),
            kind: fields.byte()?,
            answers: fields.byte()?,
            state: fields.byte()?,
            padding: fields.byte()?,
            reason: u32::from_ne_bytes(fields.take()?),
            local: fields.take()?,
            remote: fields.take()?,
            sequence: u32::from_ne_bytes(fields.take()?),
            acknowledgement: u32::from_ne_bytes(fields.take()?),
            pid: u32::from_ne_bytes(fields.take()?),
            local_port: u16::from_ne_bytes(fields.take()?),
            remote_port: u16::from_ne_bytes(fields.take()?),
            command: fields.take()?,
        })
    }
}

/// The fields of a `repr(C)` struct without holes, read in order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> [u8; size_of::<ResetReport>()] {
        let mut bytes = [0; size_of::<ResetReport>()];
        bytes[..8].copy_from_slice(&7u64.to_ne_bytes());
        bytes[8] = Kind::RESET;
        bytes[12..16].copy_from_slice(&11u32.to_ne_bytes());
        bytes[16..32].fill(1);
        bytes[32..48].fill(2);
        bytes[48..52].copy_from_slice(&100u32.to_ne_bytes());
        bytes[56..60].copy_from_slice(&4242u32.to_ne_bytes());
        bytes[60..62].copy_from_slice(&8443u16.to_ne_bytes());
        bytes[64..69].copy_from_slice(b"envoy");
        bytes
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let Ok(Event::Reset(report)) = decode(&report()) else { panic!("no report") };
        let expected = ResetReport {
            timestamp_ns: 7,
            kind: Kind::RESET,
            reason: 11,
            local: [1; 16],
            remote: [2; 16],
            sequence: 100,
            pid: 4242,
            local_port: 8443,
            command: *b"envoy\0\0\0\0\0\0\0\0\0\0\0",
            ..ResetReport::default()
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_cut_event_and_an_unknown_kind_are_refused() {
        let bytes = report();
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]).unwrap_err(), DecodeError::Truncated, "{len}");
        }
        assert_eq!(decode(&[9; 80]).unwrap_err(), DecodeError::UnknownKind);
    }
}
