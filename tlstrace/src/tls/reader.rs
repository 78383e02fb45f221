//! A cursor over bytes from the wire, in the presentation language of RFC 8446 §3: big-endian integers, and
//! vectors with a length in front. A read past the end is `None` and consumes nothing.

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|&[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().copied().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Option<u32> {
        self.array().map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// `opaque data<0..2^8-1>`
    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.u8()?;
        let data = ahead.take(usize::from(len))?;
        *self = ahead;
        Some(data)
    }

    /// `opaque data<0..2^16-1>`
    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.u16()?;
        let data = ahead.take(usize::from(len))?;
        *self = ahead;
        Some(data)
    }

    /// `opaque data<0..2^24-1>`
    pub(super) fn vector24(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.u24()?;
        let data = ahead.take(usize::try_from(len).ok()?)?;
        *self = ahead;
        Some(data)
    }
}
