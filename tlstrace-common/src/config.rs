//! What userspace tells the BPF programs: while they run, and once, when they are loaded.

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

/// Where the kernel keeps what a report of a RST is made of: offsets in bytes, which differ from kernel to kernel and
/// are read from its BTF. The value of the global [`crate::symbols::LAYOUT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    /// `struct sock_common`, which a `struct sock` begins with.
    pub family: u32,
    pub state: u32,
    pub local_v4: u32,
    pub local_v6: u32,
    pub local_port: u32,
    pub remote_v4: u32,
    pub remote_v6: u32,
    pub remote_port: u32,
    /// `struct tcp_sock`.
    pub snd_nxt: u32,
    pub rcv_nxt: u32,
    /// `struct sk_buff`.
    pub head: u32,
    pub network_header: u32,
    pub transport_header: u32,
    /// `struct task_struct`.
    pub group_leader: u32,
    pub command: u32,
    pub padding: u32,
}

const _: () = assert!(size_of::<Layout>() == 64);

// SAFETY: `repr(C)`, integers, no padding (asserted above): every bit pattern is a value.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Layout {}
