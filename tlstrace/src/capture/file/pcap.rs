//! The pcap format: <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/>, and Alexey
//! Kuznetzov's "modified" one, whose frames carry the interface index too.

use super::buffer::Buffer;
use super::fields::{ByteOrder, Fields};
use super::{FoundFrame, MAX_FRAME_LEN, Problem, Stop};
use crate::engine::timestamp::Timestamp;

const FILE_HEADER_LEN: usize = 24;
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const MAGIC_MODIFIED: u32 = 0xa1b2_cd34;

pub(super) struct Reader {
    order: ByteOrder,
    /// Length of a timestamp's fractional unit, in nanoseconds.
    unit: u64,
    /// Length of the header in front of each frame.
    frame_header_len: usize,
    link_type: u32,
}

impl Reader {
    /// Recognises the file's first four bytes.
    pub(super) fn detect(magic: [u8; 4]) -> Option<Self> {
        Self::variant(u32::from_le_bytes(magic), ByteOrder::Little)
            .or_else(|| Self::variant(u32::from_be_bytes(magic), ByteOrder::Big))
    }

    /// Consumes the file header.
    pub(super) fn read_header(&mut self, buffer: &mut Buffer) -> Result<(), Stop> {
        const LINK_TYPE_OFFSET: usize = 20;
        let mut fields = Fields::new(buffer.peek(FILE_HEADER_LEN)?, self.order);
        fields.bytes(LINK_TYPE_OFFSET).ok_or(Stop::Truncated)?;
        // The upper bits tell the length of the frame check sequence.
        self.link_type = fields.u32().ok_or(Stop::Truncated)? & 0x03ff_ffff;
        buffer.skip(FILE_HEADER_LEN)
    }

    /// Brings the next frame to the front of the buffer.
    pub(super) fn find_frame(&self, buffer: &mut Buffer) -> Result<Option<FoundFrame>, Stop> {
        if buffer.is_at_end()? {
            return Ok(None);
        }
        let mut fields = Fields::new(buffer.peek(self.frame_header_len)?, self.order);
        let seconds = fields.u32().ok_or(Stop::Truncated)?;
        let fraction = fields.u32().ok_or(Stop::Truncated)?;
        let captured_len = fields.u32().ok_or(Stop::Truncated)?;
        let wire_len = fields.u32().ok_or(Stop::Truncated)?;
        if captured_len > MAX_FRAME_LEN {
            return Err(Problem::FrameTooLong(captured_len).into());
        }
        let total_len = self.frame_header_len + captured_len as usize;
        buffer.peek(total_len)?;
        Ok(Some(FoundFrame {
            timestamp: Timestamp::from_nanos(
                u64::from(seconds) * 1_000_000_000 + u64::from(fraction) * self.unit,
            ),
            link_type: self.link_type,
            interface: 0,
            wire_len: wire_len.max(captured_len),
            data: self.frame_header_len..total_len,
            total_len,
        }))
    }

    fn variant(magic: u32, order: ByteOrder) -> Option<Self> {
        let (unit, frame_header_len) = match magic {
            MAGIC_MICROSECONDS => (1000, 16),
            MAGIC_NANOSECONDS => (1, 16),
            MAGIC_MODIFIED => (1000, 24),
            _ => return None,
        };
        Some(Self { order, unit, frame_header_len, link_type: 0 })
    }
}
