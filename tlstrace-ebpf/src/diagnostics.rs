//! What the programs say of themselves, through aya-log: rarely, and never on the path of packets that
//! are not selected.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::{debug, warn};
use tlstrace_common::packet::TcpPacket;

use crate::emit::Event;

/// A flow begins to be followed.
#[inline(always)]
pub(crate) fn followed(skb: &mut __sk_buff, event: &mut Event) {
    // SAFETY: both are valid.
    unsafe { tlstrace_followed(skb, event) };
}

/// `lost` events of this CPU did not fit into the ring.
#[inline(always)]
pub(crate) fn ring_full(skb: &mut __sk_buff, lost: u64) {
    // Powers of two: often enough to be seen, too seldom to be a burden.
    if lost.is_power_of_two() {
        // SAFETY: the context is valid.
        unsafe { tlstrace_ring_full(skb, lost) };
    }
}

// Global functions (see `emit`): a message costs much of the stack and many paths.

/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_followed(skb: *mut __sk_buff, event: *mut Event) -> u32 {
    // SAFETY: the caller's.
    let (false, Some(event)) = (skb.is_null(), unsafe { event.as_ref() }) else { return 0 };
    let TcpPacket { tcp, .. } = &event.packet;
    debug!(&TcContext::new(skb), "following a flow, ports {} to {}", tcp.source_port, tcp.destination_port);
    0
}

/// # Safety
///
/// `skb` must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_ring_full(skb: *mut __sk_buff, lost: u64) -> u32 {
    if skb.is_null() {
        return 0;
    }
    warn!(&TcContext::new(skb), "the ring is full: {} events lost on this CPU", lost);
    0
}
