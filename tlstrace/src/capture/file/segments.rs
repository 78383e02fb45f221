//! From a captured frame to the TCP segment in it.

use std::net::SocketAddr;

use smallvec::SmallVec;
use tlstrace_common::encapsulation::{self, LinkKind};
use tlstrace_common::event::{Notes, TcpOptions};
use tlstrace_common::load::Load;
use tlstrace_common::skip::Skip;
use tlstrace_common::tcp::{self, Tcp};

use super::Frame;
use crate::engine::segment::{Chunk, Direction, Segment, address};

/// The innermost TCP segment of a frame that begins with headers of this `kind`.
///
/// A frame that a snap length cut gives a segment of its full length whose missing bytes are in no
/// chunk, with [`Notes::TRUNCATED`], provided that its headers are whole.
pub fn segment<'a>(frame: &Frame<'a>, kind: LinkKind) -> Result<Segment<'a>, Skip> {
    let packet = encapsulation::walk(&Captured(frame), kind)?;
    let tcp = packet.tcp;
    let bytes = captured_payload(frame.data, tcp.payload_offset, tcp.payload_len);
    let is_whole = bytes.len() as u64 == u64::from(tcp.payload_len);
    Ok(Segment {
        timestamp: frame.timestamp,
        interface: interface(frame, kind),
        direction: Direction::Unknown,
        source: SocketAddr::new(address(packet.source.octets()), tcp.source_port),
        destination: SocketAddr::new(address(packet.destination.octets()), tcp.destination_port),
        sequence: tcp.sequence,
        acknowledgement: tcp.acknowledgement,
        flags: tcp.flags,
        window: tcp.window,
        options: options(frame.data, &tcp),
        hop_limit: packet.hop_limit,
        ip_id: packet.ip_id,
        vlan: packet.vlan,
        payload_len: tcp.payload_len,
        chunks: chunks_of(bytes),
        notes: if is_whole { 0 } else { Notes::TRUNCATED },
        is_own: false,
    })
}

/// A capture on all interfaces at once tells them apart in each frame: bytes 4 to 7 of
/// `LINKTYPE_LINUX_SLL2`. The same packet on two of them is one packet.
fn interface(frame: &Frame<'_>, kind: LinkKind) -> u32 {
    match kind {
        LinkKind::LinuxSll2 => frame.data.load(4).map_or(frame.interface, u32::from_be_bytes),
        _ => frame.interface,
    }
}

/// A frame whose length is that on the wire, of which only the captured bytes can be read.
struct Captured<'a>(&'a Frame<'a>);

impl Load for Captured<'_> {
    fn len(&self) -> u32 {
        self.0.wire_len
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.data.load(offset)
    }
}

/// Bits of the options that were captured.
fn options(data: &[u8], tcp: &Tcp) -> u8 {
    let captured = data.get(tcp.options_offset as usize..).unwrap_or_default();
    let len = captured.len().min(tcp.options_len() as usize).min(tcp::MAX_OPTIONS_LEN);
    // Nearly every segment has none, or these (RFC 7323 appendix A).
    match captured.get(..len) {
        Some([]) => return 0,
        Some([1, 1, 8, 10, _, _, _, _, _, _, _, _]) => return TcpOptions::TIMESTAMPS,
        _ => {}
    }
    let mut options = [0; tcp::MAX_OPTIONS_LEN];
    if let (Some(room), Some(captured)) = (options.get_mut(..len), captured.get(..len)) {
        room.copy_from_slice(captured);
    }
    tcp::options(&options, u32::try_from(len).unwrap_or_default())
}

fn chunks_of(bytes: &[u8]) -> SmallVec<[Chunk<'_>; 4]> {
    let mut chunks = SmallVec::new();
    if !bytes.is_empty() {
        chunks.push(Chunk { offset: 0, bytes });
    }
    chunks
}

fn captured_payload(data: &[u8], offset: u32, len: u32) -> &[u8] {
    let from = data.get(offset as usize..).unwrap_or_default();
    from.get(..len as usize).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::timestamp::Timestamp;

    /// A raw IPv4 packet with a SYN's options and the payload "hello", of which the first `captured`
    /// bytes were kept.
    fn with_segment<T>(captured: usize, check: impl FnOnce(Result<Segment<'_>, Skip>) -> T) -> T {
        let mut packet = vec![0x45, 0, 0, 49, 0x12, 0x34, 0x40, 0, 61, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 8, 0x60, 0x12, 0xfa, 0xf0, 0, 0, 0, 0]);
        packet.extend([2, 4, 5, 0xb4]);
        packet.extend(b"hello");
        let frame = Frame {
            timestamp: Timestamp::from_nanos(42),
            link_type: 101,
            interface: 3,
            wire_len: u32::try_from(packet.len()).unwrap(),
            data: &packet[..captured],
        };
        check(segment(&frame, LinkKind::Ip))
    }

    #[test]
    fn headers_and_payload_become_the_segment() {
        with_segment(49, |segment| {
            let segment = segment.unwrap();
            assert_eq!(segment.timestamp, Timestamp::from_nanos(42));
            assert_eq!(segment.interface, 3);
            assert_eq!(segment.source.to_string(), "10.0.0.1:40000");
            assert_eq!(segment.destination.to_string(), "10.0.0.2:443");
            assert_eq!((segment.sequence, segment.acknowledgement, segment.flags), (7, 8, 0x12));
            assert_eq!((segment.window, segment.hop_limit, segment.ip_id), (0xfaf0, 61, 0x1234));
            assert_eq!(segment.options, TcpOptions::MSS);
            assert_eq!(segment.payload_len, 5);
            assert_eq!(segment.chunks.as_slice(), [Chunk { offset: 0, bytes: b"hello" }]);
            assert_eq!(segment.notes, 0);
        });
    }

    #[test]
    fn a_capture_on_all_interfaces_tells_them_apart() {
        let mut data = vec![0x08, 0, 0, 0, 0, 0, 1, 2, 0, 1, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0];
        data.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        data.extend([0x9c, 0x40, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 8, 0x50, 0x10, 0xfa, 0xf0, 0, 0, 0, 0]);
        let frame = Frame {
            timestamp: Timestamp::from_nanos(42),
            link_type: 276,
            interface: 0,
            wire_len: u32::try_from(data.len()).unwrap(),
            data: &data,
        };
        assert_eq!(segment(&frame, LinkKind::LinuxSll2).unwrap().interface, 0x102);
    }

    #[test]
    fn a_snap_length_leaves_the_length_and_takes_the_bytes() {
        for (captured, kept) in [(46, 2), (44, 0)] {
            with_segment(captured, |segment| {
                let segment = segment.unwrap();
                assert_eq!(segment.payload_len, 5);
                let bytes: usize = segment.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
                assert_eq!(bytes, kept);
                assert!(segment.is_truncated());
            });
        }
    }

    #[test]
    fn cut_headers_are_no_segment() {
        for captured in 0..36 {
            with_segment(captured, |segment| assert_eq!(segment.unwrap_err(), Skip::Truncated));
        }
    }
}
