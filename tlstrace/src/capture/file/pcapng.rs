//! The pcapng format: <https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcapng/>.

use super::buffer::Buffer;
use super::fields::{ByteOrder, Fields};
use super::{FoundFrame, MAX_FRAME_LEN, Problem, Stop};
use crate::engine::timestamp::Timestamp;

/// The type of a Section Header Block, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, but old files have it.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type and length before a block's body.
const BLOCK_HEADER_LEN: usize = 8;
/// Type and both lengths: the smallest block.
const BLOCK_OVERHEAD: usize = 12;
/// Longest block of those that are read whole: a frame, and plenty of options.
const MAX_BLOCK_LEN: u32 = MAX_FRAME_LEN + 1024 * 1024;
/// Most interfaces of one section.
const MAX_INTERFACES: usize = 65_536;

#[derive(Default)]
pub(super) struct Reader {
    order: ByteOrder,
    /// The interfaces of the current section.
    interfaces: Vec<Interface>,
    /// How many interfaces the sections before the current one had.
    earlier_interfaces: u32,
    last_timestamp: Timestamp,
}

struct Interface {
    link_type: u32,
    /// 0: not limited.
    snap_len: u32,
    resolution: Resolution,
    /// Seconds to add to every timestamp.
    offset: i64,
}

/// How to turn a timestamp's units into nanoseconds.
#[derive(Clone, Copy)]
enum Resolution {
    /// A unit is this many nanoseconds.
    Times(u64),
    /// A nanosecond is this many units.
    DividedBy(u64),
    /// A unit is 2^-n seconds.
    Binary(u32),
}

struct Block {
    kind: u32,
    /// With header and trailer.
    len: u32,
}

impl Reader {
    /// Brings the next block with a frame to the front of the buffer, after taking in what precedes it.
    pub(super) fn find_frame(&mut self, buffer: &mut Buffer) -> Result<Option<FoundFrame>, Stop> {
        while !buffer.is_at_end()? {
            let block = self.read_block_header(buffer)?;
            let len = block.len as usize;
            match block.kind {
                SECTION_HEADER => {
                    self.earlier_interfaces = self.earlier_interfaces.saturating_add(self.interface_count());
                    self.interfaces.clear();
                    buffer.skip(len)?;
                }
                INTERFACE_DESCRIPTION => {
                    let interface = Interface::read(self.body(buffer, &block)?, self.order)?;
                    if self.interfaces.len() == MAX_INTERFACES {
                        return Err(Problem::TooManyInterfaces(MAX_INTERFACES).into());
                    }
                    self.interfaces.push(interface);
                    buffer.skip(len)?;
                }
                ENHANCED_PACKET | PACKET | SIMPLE_PACKET => return self.read_frame(buffer, &block).map(Some),
                _ => buffer.skip(len)?,
            }
        }
        Ok(None)
    }

    fn interface_count(&self) -> u32 {
        u32::try_from(self.interfaces.len()).unwrap_or(u32::MAX)
    }

    /// Reads a block's type and length, and a section's byte order, without consuming them.
    fn read_block_header(&mut self, buffer: &mut Buffer) -> Result<Block, Stop> {
        let head = buffer.peek(BLOCK_HEADER_LEN)?;
        if head.starts_with(&MAGIC) {
            let magic = Fields::new(buffer.peek(BLOCK_OVERHEAD)?, ByteOrder::Little);
            self.order = section_byte_order(magic)?;
        }
        let mut fields = Fields::new(buffer.peek(BLOCK_HEADER_LEN)?, self.order);
        let kind = fields.u32().ok_or(Stop::Truncated)?;
        let len = fields.u32().ok_or(Stop::Truncated)?;
        if len % 4 != 0 || (len as usize) < BLOCK_OVERHEAD {
            return Err(Problem::BlockLength(len).into());
        }
        Ok(Block { kind, len })
    }

    /// The bytes between a block's header and its trailer, which are then in the buffer.
    fn body<'a>(&self, buffer: &'a mut Buffer, block: &Block) -> Result<&'a [u8], Stop> {
        if block.len > MAX_BLOCK_LEN {
            return Err(Problem::BlockLength(block.len).into());
        }
        let len = block.len as usize;
        let mut fields = Fields::new(buffer.peek(len)?, self.order);
        fields.bytes(BLOCK_HEADER_LEN).ok_or(Stop::Truncated)?;
        let body = fields.bytes(len - BLOCK_OVERHEAD).ok_or(Stop::Truncated)?;
        let trailing = fields.u32().ok_or(Stop::Truncated)?;
        if trailing != block.len {
            return Err(Problem::BlockLengthsDiffer { leading: block.len, trailing }.into());
        }
        Ok(body)
    }

    fn read_frame(&mut self, buffer: &mut Buffer, block: &Block) -> Result<FoundFrame, Stop> {
        let body = self.body(buffer, block)?;
        let body_len = body.len();
        let head =
            PacketHead::read(block.kind, Fields::new(body, self.order)).ok_or(Problem::BlockTooShort)?;
        let interface = usize::try_from(head.interface)
            .ok()
            .and_then(|index| self.interfaces.get(index))
            .ok_or(Problem::UnknownInterface(head.interface))?;
        let captured_len = match head.captured_len {
            Some(len) => len,
            None if interface.snap_len == 0 => head.wire_len,
            None => head.wire_len.min(interface.snap_len),
        };
        if captured_len > MAX_FRAME_LEN {
            return Err(Problem::FrameTooLong(captured_len).into());
        }
        let data = head.len..head.len + captured_len as usize;
        if data.end > body_len {
            return Err(Problem::BlockTooShort.into());
        }
        let timestamp = match head.ticks {
            Some(ticks) => interface.timestamp(ticks),
            None => self.last_timestamp,
        };
        self.last_timestamp = timestamp;
        Ok(FoundFrame {
            timestamp,
            link_type: interface.link_type,
            interface: self.earlier_interfaces.saturating_add(head.interface),
            wire_len: head.wire_len.max(captured_len),
            data: BLOCK_HEADER_LEN + data.start..BLOCK_HEADER_LEN + data.end,
            total_len: block.len as usize,
        })
    }
}

/// What a block says of its frame.
struct PacketHead {
    interface: u32,
    /// Timestamp in the interface's units.
    ticks: Option<u64>,
    captured_len: Option<u32>,
    wire_len: u32,
    /// Number of bytes before the frame in the block's body.
    len: usize,
}

impl PacketHead {
    fn read(kind: u32, mut fields: Fields<'_>) -> Option<Self> {
        if kind == SIMPLE_PACKET {
            return Some(Self {
                interface: 0,
                ticks: None,
                captured_len: None,
                wire_len: fields.u32()?,
                len: 4,
            });
        }
        let interface = if kind == PACKET {
            let interface = fields.u16()?;
            let _drops = fields.u16()?;
            u32::from(interface)
        } else {
            fields.u32()?
        };
        let high = fields.u32()?;
        let low = fields.u32()?;
        Some(Self {
            interface,
            ticks: Some(u64::from(high) << 32 | u64::from(low)),
            captured_len: Some(fields.u32()?),
            wire_len: fields.u32()?,
            len: 20,
        })
    }
}

impl Interface {
    fn read(body: &[u8], order: ByteOrder) -> Result<Self, Problem> {
        const OPTION_END: u16 = 0;
        const OPTION_TSRESOL: u16 = 9;
        const OPTION_TSOFFSET: u16 = 14;
        let mut fields = Fields::new(body, order);
        let link_type = fields.u16().ok_or(Problem::BlockTooShort)?;
        let _reserved = fields.u16().ok_or(Problem::BlockTooShort)?;
        let snap_len = fields.u32().ok_or(Problem::BlockTooShort)?;
        let mut interface = Self {
            link_type: u32::from(link_type),
            snap_len,
            resolution: Resolution::Times(1000),
            offset: 0,
        };
        while let (Some(code), Some(len)) = (fields.u16(), fields.u16()) {
            let Some(value) = fields.bytes(usize::from(len)) else { break };
            match (code, value) {
                (OPTION_END, _) => break,
                (OPTION_TSRESOL, &[resolution]) => interface.resolution = Resolution::decode(resolution),
                (OPTION_TSOFFSET, _) => {
                    interface.offset = Fields::new(value, order).i64().unwrap_or_default();
                }
                _ => {}
            }
            fields.bytes(usize::from(len).next_multiple_of(4) - usize::from(len));
        }
        Ok(interface)
    }

    fn timestamp(&self, ticks: u64) -> Timestamp {
        let nanos = match self.resolution {
            Resolution::Times(unit) => i128::from(ticks) * i128::from(unit),
            Resolution::DividedBy(units) => i128::from(ticks / units),
            Resolution::Binary(bits) => (i128::from(ticks) * 1_000_000_000) >> bits,
        };
        let nanos = nanos + i128::from(self.offset) * 1_000_000_000;
        Timestamp::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

impl Resolution {
    /// `if_tsresol`: a negative power of 2 with the top bit, else of 10.
    fn decode(value: u8) -> Self {
        let exponent = u32::from(value & 0x7f);
        if value & 0x80 != 0 {
            return Self::Binary(exponent);
        }
        match exponent {
            0..=9 => Self::Times(10u64.pow(9 - exponent)),
            // Units too small for any 64-bit timestamp to reach a nanosecond saturate to that.
            _ => Self::DividedBy(10u64.checked_pow(exponent - 9).unwrap_or(u64::MAX)),
        }
    }
}

fn section_byte_order(mut block: Fields<'_>) -> Result<ByteOrder, Stop> {
    block.bytes(BLOCK_HEADER_LEN).ok_or(Stop::Truncated)?;
    match block.u32() {
        Some(0x1a2b_3c4d) => Ok(ByteOrder::Little),
        Some(0x4d3c_2b1a) => Ok(ByteOrder::Big),
        Some(_) => Err(Problem::ByteOrderMagic.into()),
        None => Err(Stop::Truncated),
    }
}
