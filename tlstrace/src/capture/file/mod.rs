//! Capture files: pcap and pcapng, plain or gzip-compressed, from a path or from standard input.
//!
//! Hand-written rather than `pcap-parser`: a replay must not be bound by reading (a frame is a slice of
//! one large buffer, nothing is allocated per frame), the memory must not follow a length that a
//! damaged file claims, and the "modified" pcap format is needed too.

mod buffer;
mod fields;
mod pcap;
mod pcapng;
mod segments;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use self::buffer::Buffer;
pub use self::segments::segment;
use crate::engine::timestamp::Timestamp;

/// Longest frame that is read, in bytes; a longer one is taken for damage.
///
/// libpcap's own limit is 262,144 (`MAXIMUM_SNAPLEN`), but BIG TCP packets are longer than that.
pub const MAX_FRAME_LEN: u32 = 16 * 1024 * 1024;

/// Bytes that [`is_capture`] wants to see.
pub const MAGIC_LEN: u64 = 4;

/// Whether a file that begins so is a capture, or compressed, as captures are.
pub fn is_capture(head: &[u8]) -> bool {
    let magic = head.first_chunk::<4>();
    head.starts_with(&GZIP_MAGIC)
        || magic.is_some_and(|magic| *magic == pcapng::MAGIC || pcap::Reader::detect(*magic).is_some())
}

/// How gzip-compressed files begin (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A frame as it was captured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// When it was captured; nanoseconds where the file has them. A pcapng Simple Packet Block has no
    /// time: it gets that of the frame before it.
    pub timestamp: Timestamp,
    /// `LINKTYPE_` value of the interface (<https://www.tcpdump.org/linktypes.html>).
    pub link_type: u32,
    /// 0 for pcap; for pcapng, the number of the interface counted over the whole file, from 0.
    pub interface: u32,
    /// Length on the wire, in bytes; `data` is shorter where a snap length cut it.
    pub wire_len: u32,
    pub data: &'a [u8],
}

/// Why a file could not be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {name}")]
    Io { name: String, source: io::Error },
    #[error("{name} is not a capture file: {reason}")]
    NotACapture { name: String, reason: String },
    #[error("{name} is damaged at byte {offset}: {problem}")]
    Damaged {
        name: String,
        /// Offset of the damaged frame or block in the (uncompressed) file.
        offset: u64,
        problem: Problem,
    },
}

/// What is wrong with a damaged file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error("a frame of {0} bytes is longer than any frame")]
    FrameTooLong(u32),
    #[error("a block of {0} bytes cannot be")]
    BlockLength(u32),
    #[error("a block is {leading} bytes long according to its start and {trailing} according to its end")]
    BlockLengthsDiffer { leading: u32, trailing: u32 },
    #[error("a block is too short for what it holds")]
    BlockTooShort,
    #[error("a section's byte-order magic is unknown")]
    ByteOrderMagic,
    #[error("a packet belongs to interface {0}, which was not described")]
    UnknownInterface(u32),
    #[error("a section has more than {0} interfaces")]
    TooManyInterfaces(usize),
}

/// Reads the frames of one capture in the file's order, within bounded memory.
pub struct CaptureReader {
    name: String,
    buffer: Buffer,
    format: Format,
    ended: bool,
    truncated_at: Option<u64>,
}

impl CaptureReader {
    /// Opens a capture file, or standard input for `-`.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        if path == Path::new("-") {
            return Self::from_reader("standard input".to_owned(), Box::new(io::stdin()));
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::from_reader(name, Box::new(file)),
            Err(source) => Err(ReadError::Io { name, source }),
        }
    }

    /// Reads from anything; `name` is what errors call it. The source need not be buffered.
    pub fn from_reader(name: String, source: Box<dyn Read>) -> Result<Self, ReadError> {
        let mut buffer = match decompress(source) {
            Ok(source) => Buffer::new(source),
            Err(source) => return Err(ReadError::Io { name, source }),
        };
        match Format::detect(&mut buffer) {
            Ok(format) => Ok(Self { name, buffer, format, ended: false, truncated_at: None }),
            Err(stop) => Err(stop.into_error(name, 0)),
        }
    }

    /// The next frame, or `None` at the end. After an error there are no more frames.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let found = match &mut self.format {
            Format::Pcap(reader) => reader.find_frame(&mut self.buffer),
            Format::PcapNg(reader) => reader.find_frame(&mut self.buffer),
        };
        match found {
            Ok(Some(FoundFrame { timestamp, link_type, interface, wire_len, data, total_len })) => {
                let data = self.buffer.take(total_len, data);
                Ok(Some(Frame { timestamp, link_type, interface, wire_len, data }))
            }
            Ok(None) => {
                self.ended = true;
                Ok(None)
            }
            Err(Stop::Truncated) => {
                self.ended = true;
                self.truncated_at = Some(self.buffer.end_offset());
                Ok(None)
            }
            Err(stop) => {
                self.ended = true;
                Err(stop.into_error(self.name.clone(), self.buffer.offset()))
            }
        }
    }

    /// The length of the (uncompressed) file in bytes, if it ends in the middle of a frame or block.
    /// Known once [`Self::next_frame`] has returned `None`.
    pub fn truncated_at(&self) -> Option<u64> {
        self.truncated_at
    }

    /// What errors and warnings call this capture.
    pub fn name(&self) -> &str {
        &self.name
    }
}

enum Format {
    Pcap(pcap::Reader),
    PcapNg(pcapng::Reader),
}

impl Format {
    /// Tells the formats apart by their first four bytes; pcap's file header is consumed.
    fn detect(buffer: &mut Buffer) -> Result<Self, Stop> {
        if buffer.is_at_end()? {
            return Err(Stop::NotACapture("it is empty".to_owned()));
        }
        let Some(magic) = buffer.peek(4)?.first_chunk::<4>().copied() else {
            return Err(Stop::Truncated);
        };
        if magic == pcapng::MAGIC {
            return Ok(Self::PcapNg(pcapng::Reader::default()));
        }
        match pcap::Reader::detect(magic) {
            Some(mut reader) => {
                reader.read_header(buffer)?;
                Ok(Self::Pcap(reader))
            }
            None => Err(Stop::NotACapture(format!(
                "it begins with {:02x} {:02x} {:02x} {:02x}, which is neither pcap nor pcapng",
                magic[0], magic[1], magic[2], magic[3]
            ))),
        }
    }
}

/// A frame that lies whole at the front of the buffer.
struct FoundFrame {
    timestamp: Timestamp,
    link_type: u32,
    interface: u32,
    wire_len: u32,
    /// Where the captured bytes lie, from the front of the buffer.
    data: Range<usize>,
    /// Length of the frame with all that the file format puts around it.
    total_len: usize,
}

/// Why no more frame can be read.
enum Stop {
    /// The source ended in the middle of something.
    Truncated,
    Io(io::Error),
    NotACapture(String),
    Damaged(Problem),
}

impl Stop {
    fn into_error(self, name: String, offset: u64) -> ReadError {
        match self {
            Self::Truncated => {
                ReadError::NotACapture { name, reason: "it ends before its header does".to_owned() }
            }
            Self::Io(source) => ReadError::Io { name, source },
            Self::NotACapture(reason) => ReadError::NotACapture { name, reason },
            Self::Damaged(problem) => ReadError::Damaged { name, offset, problem },
        }
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Damaged(problem)
    }
}

/// Recognises gzip (RFC 1952 §2.3.1) by content, as standard input has no file name.
fn decompress(mut source: Box<dyn Read>) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::with_capacity(GZIP_MAGIC.len());
    source.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
    let is_gzip = head == GZIP_MAGIC;
    let source = Cursor::new(head).chain(source);
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) })
}

#[cfg(test)]
mod tests;
