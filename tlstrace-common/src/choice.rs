//! Which connections are left out in the kernel, as userspace tells the BPF programs when it loads them.

/// By what connections are chosen. The value of the global [`crate::symbols::CHOICE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Choice {
    /// Nonzero: one of the two ports must be in [`Ports`].
    pub by_port: u32,
    /// 0, [`Choice::ONLY_LISTED`] or [`Choice::ALL_BUT_EXCLUDED`].
    pub by_server: u32,
}

const _: () = assert!(size_of::<Choice>() == 8);

impl Choice {
    /// Leaves nothing out.
    pub const ANY: Self = Self { by_port: 0, by_server: 0 };
    /// Servers that are in no network of the map [`crate::symbols::SERVERS`] are left out.
    pub const ONLY_LISTED: u32 = 1;
    /// They are not.
    pub const ALL_BUT_EXCLUDED: u32 = 2;
}

/// Value of a network in the map [`crate::symbols::SERVERS`] whose servers are chosen. Of the networks that contain an
/// address, the longest prefix decides.
pub const LISTED: u32 = 1;
/// Value of a network whose servers are left out.
pub const EXCLUDED: u32 = 2;

/// Bits of an address in that map: an IPv4 address stands behind `::ffff:0:0/96` (RFC 4291 §2.5.5.2).
pub const ADDRESS_BITS: u32 = 128;

/// A set of ports: the value of the global [`crate::symbols::PORTS`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ports([u32; 2048]);

impl Ports {
    pub const NONE: Self = Self([0; 2048]);

    /// Which word a port's bit is in, and the bit.
    #[inline(always)]
    pub const fn place(port: u16) -> (usize, u32) {
        (port as usize >> 5, 1 << (port & 31))
    }

    pub fn insert(&mut self, port: u16) {
        let (word, bit) = Self::place(port);
        self.0[word] |= bit;
    }
}

// SAFETY: `repr(C)` and transparent integers, no padding (asserted above): every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Choice {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Ports {}
