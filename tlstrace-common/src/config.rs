//! What userspace tells the BPF program while it runs.

/// The one value of the `CONTROL` map. Each field is written by userspace, and read by the program with
/// every packet that it concerns.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Control {
    /// Nonzero while nobody polls the ring: the next event wakes the consumer, and the program sets the
    /// field back to 0.
    pub consumer_sleeping: u32,
    /// Nonzero shortly after attaching: data of connections that were opened before is looked at too.
    pub warm_up: u32,
}

const _: () = assert!(size_of::<Control>() == 8);

// SAFETY: `repr(C)`, two integers, no padding (asserted above): every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Control {}
