//! A window on a byte source: as much as the caller asks to see at once is contiguous.

use std::io::{self, Read};
use std::ops::Range;

use super::Stop;

/// Size of one read, and of the buffer as long as no frame is longer.
const INITIAL_LEN: usize = 256 * 1024;

pub(super) struct Buffer {
    source: Box<dyn Read>,
    bytes: Vec<u8>,
    /// What was read and not yet consumed is `bytes[start..end]`.
    start: usize,
    end: usize,
    /// Offset of `start` in the source.
    offset: u64,
    state: SourceState,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum SourceState {
    Open,
    Ended,
    /// A compressed stream that ends in its middle.
    Cut,
}

impl Buffer {
    pub(super) fn new(source: Box<dyn Read>) -> Self {
        let bytes = vec![0; INITIAL_LEN];
        Self { source, bytes, start: 0, end: 0, offset: 0, state: SourceState::Open }
    }

    /// The unconsumed bytes, at least `len` of them; [`Stop::Truncated`] where the source ends before.
    pub(super) fn peek(&mut self, len: usize) -> Result<&[u8], Stop> {
        if self.end - self.start < len {
            self.fill(len)?;
        }
        Ok(self.unconsumed())
    }

    /// Consumes `len` bytes that were peeked at, and gives those of them that lie in `range`.
    pub(super) fn take(&mut self, len: usize, range: Range<usize>) -> &[u8] {
        let from = self.start;
        let len = len.min(self.end - from);
        self.start += len;
        self.offset += len as u64;
        self.bytes.get(from..from + len).and_then(|bytes| bytes.get(range)).unwrap_or_default()
    }

    /// Consumes `len` bytes that need not fit into memory.
    pub(super) fn skip(&mut self, mut len: usize) -> Result<(), Stop> {
        loop {
            let step = len.min(self.end - self.start);
            self.take(step, 0..0);
            len -= step;
            if len == 0 {
                return Ok(());
            }
            self.fill(1)?;
        }
    }

    /// Whether the source has ended, and properly.
    pub(super) fn is_at_end(&mut self) -> Result<bool, Stop> {
        if self.start < self.end {
            return Ok(false);
        }
        match self.fill(1) {
            Ok(()) => Ok(false),
            Err(Stop::Truncated) if self.state == SourceState::Ended => Ok(true),
            Err(stop) => Err(stop),
        }
    }

    /// Offset in the source of the first unconsumed byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Offset in the source after the last byte that was read.
    pub(super) fn end_offset(&self) -> u64 {
        self.offset + (self.end - self.start) as u64
    }

    fn unconsumed(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Reads until `len` bytes are unconsumed. The buffer grows with what was really read, never with
    /// what a length field promises.
    #[cold]
    fn fill(&mut self, len: usize) -> Result<(), Stop> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < len {
            if self.state != SourceState::Open {
                return Err(Stop::Truncated);
            }
            if self.end == self.bytes.len() {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
            match self.source.read(self.bytes.get_mut(self.end..).unwrap_or_default()) {
                Ok(0) => self.state = SourceState::Ended,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.state = SourceState::Cut,
                Err(error) => return Err(Stop::Io(error)),
            }
        }
        Ok(())
    }
}
