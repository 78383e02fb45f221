//! "N bytes at offset": the one thing that the header walk needs of a packet.

/// A packet whose bytes can be read at an offset: an skb in the kernel, a slice everywhere else.
pub trait Load {
    /// Total length of the packet in bytes, however much of it can be read.
    fn len(&self) -> u32;

    /// The `N` bytes at `offset`, or `None` where the packet ends before.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Whether the packet has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Load for &[u8] {
    fn len(&self) -> u32 {
        u32::try_from((**self).len()).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}
