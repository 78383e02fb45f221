//! The counters: one per outcome of a packet, and those of events and losses.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use tlstrace_common::skip::{Counter, Skip};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Counts what became of a packet.
#[inline(always)]
pub(crate) fn settle(outcome: Result<(), Skip>) {
    count(match outcome {
        Ok(()) => Counter::Selected,
        Err(skip) => skip.counter(),
    });
}

/// Adds one to a counter.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    add(counter, 1);
}

/// Adds to a counter, and returns what it is then on this CPU.
#[inline(always)]
pub(crate) fn add(counter: Counter, amount: u64) -> u64 {
    let Some(count) = COUNTERS.get_ptr_mut(counter as u32) else { return 0 };
    // SAFETY: the value is this CPU's, and no program of ours interrupts another on the same CPU.
    unsafe {
        *count += amount;
        *count
    }
}
