//! Fuzz bodies of what comes in: events of the ring, capture files, frames.

use std::io::{Cursor, Read};

use tlstrace_common::encapsulation::LinkKind;
use tlstrace_common::event;

use super::clock::Clock;
use super::file::{self, CaptureReader, Frame};
use super::ring;
use crate::engine::segment::Segment;
use crate::engine::timestamp::Timestamp;
use crate::engine::{self, Engine};
use crate::fuzz::Input;

/// An event as the BPF program would have written it.
pub(crate) fn event(data: &[u8]) {
    // A report of a RST has no parts to get wrong.
    let Ok(event::Event::Segment(event)) = event::decode(data) else { return };
    let clock = Clock::start();
    let segment = ring::segment(&event, &clock);
    assert_eq!(segment.chunks.len(), usize::from(event.header.chunks));
    check_segment(&segment, data);
    let mut engine = Engine::new(engine::Settings::default());
    engine.handle_segment(&segment);
    engine.finish();
}

/// A capture file, read at once and byte by byte.
pub(crate) fn capture_file(data: &[u8]) {
    /// gzip, which multiplies.
    const GZIP: [u8; 2] = [0x1f, 0x8b];
    if data.starts_with(&GZIP) {
        return;
    }
    let at_once = read(Box::new(Cursor::new(data.to_vec())), data.len());
    let bytewise = read(Box::new(Bytewise(Cursor::new(data.to_vec()))), data.len());
    assert_eq!(at_once, bytewise);
}

/// Link type, length on the wire beyond what was captured, frame.
pub(crate) fn walk(data: &[u8]) {
    let mut input = Input::new(data);
    let (link_type, beyond) = (u32::from(input.u16()), u32::from(input.u16()));
    let Some(kind) = LinkKind::from_link_type(link_type) else { return };
    let bytes = input.rest();
    let wire_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).saturating_add(beyond);
    let frame = Frame { timestamp: Timestamp::default(), link_type, interface: 0, wire_len, data: bytes };
    if let Ok(segment) = file::segment(&frame, kind) {
        check_segment(&segment, bytes);
        assert!(segment.payload_len <= wire_len);
        if segment.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() < segment.payload_len as usize
        {
            assert!(segment.is_truncated());
        }
    }
}

/// Chunks lie in the input, in order, within the payload.
fn check_segment(segment: &Segment<'_>, input: &[u8]) {
    let mut end = 0;
    for chunk in &segment.chunks {
        assert!(chunk.offset >= end);
        end = chunk.offset + u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
        let range = input.as_ptr_range();
        assert!(chunk.bytes.is_empty() || range.contains(&chunk.bytes.as_ptr()));
    }
    assert!(end <= segment.payload_len);
}

/// Number of frames, their bytes, the last time, and how it ended.
fn read(source: Box<dyn Read>, len: usize) -> (usize, usize, Timestamp, String) {
    let mut reader = match CaptureReader::from_reader("input".to_owned(), source) {
        Ok(reader) => reader,
        Err(error) => return (0, 0, Timestamp::default(), error.to_string()),
    };
    let (mut frames, mut bytes, mut last) = (0, 0, Timestamp::default());
    let end = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                frames += 1;
                bytes += frame.data.len();
                last = frame.timestamp;
                if let Some(kind) = LinkKind::from_link_type(frame.link_type)
                    && let Ok(segment) = file::segment(&frame, kind)
                {
                    check_segment(&segment, frame.data);
                }
            }
            Ok(None) => break format!("{:?}", reader.truncated_at()),
            Err(error) => break error.to_string(),
        }
    };
    // Every frame has a header of 12 bytes at least, and no byte is in two of them.
    assert!(bytes <= len && frames * 12 <= len);
    assert!(matches!(reader.next_frame(), Ok(None)), "after the end there is nothing");
    (frames, bytes, last, end)
}

/// A source that never gives more than a byte.
struct Bytewise(Cursor<Vec<u8>>);

impl Read for Bytewise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(buffer.get_mut(..len).unwrap_or_default())
    }
}
