//! The gate's memory: see [`tlstrace_common::gate`].

use tlstrace_common::gate::{EPOCH_SHIFT, SLOTS, Slot, index};

use crate::machine::{self, Words};

static GATE: Words<SLOTS> = Words::new();
static EPOCH: Words<1> = Words::new();
static CLIENT_ISNS: Words<ISN_SLOTS> = Words::new();

/// How many initial sequence numbers are remembered. Between its SYN and its first payload a flow should not share its
/// slot with another one that begins: if that payload is no ClientHello, as a server's banner, it would be left out.
const ISN_SLOTS: usize = 1 << 18;

/// How often a slot is tried that other CPUs change too.
const TRIES: u32 = 3;

/// Whether a handshake may be under way in a flow with this hash.
#[inline(always)]
pub(crate) fn is_open(hash: u32) -> bool {
    slot(hash).is_open(epoch())
}

/// The epoch as of the latest SYN.
#[inline(always)]
pub(crate) fn epoch() -> u8 {
    EPOCH.get(0) as u8
}

/// Sets the epoch to that of `now`, in nanoseconds of the monotonic clock.
#[inline(always)]
pub(crate) fn set_epoch(now: u64) {
    let now = (now >> EPOCH_SHIFT) as u32 & 0xff;
    // Written only when it changes, so that the cache line stays shared.
    if EPOCH.get(0) != now {
        EPOCH.set(0, now);
    }
}

/// Counts a flow that begins.
#[inline(always)]
pub(crate) fn enter(hash: u32) {
    tlstrace_enter(hash);
}

/// Takes back a flow that was counted in the epoch `entered`.
#[inline(always)]
pub(crate) fn leave(hash: u32, entered: u8) {
    tlstrace_leave(hash, u32::from(entered));
}

// Global functions: see `emit`.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tlstrace_enter(hash: u32) -> u32 {
    let now = epoch();
    update(hash, |slot| slot.incremented(now))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tlstrace_leave(hash: u32, entered: u32) -> u32 {
    let now = epoch();
    update(hash, |slot| slot.decremented(now, entered as u8))
}

#[inline(always)]
fn update(hash: u32, change: impl Fn(Slot) -> Slot) -> u32 {
    for _ in machine::rounds(TRIES) {
        let old = slot(hash);
        if replace(hash, old, change(old)) {
            return 1;
        }
    }
    0
}

/// Remembers the initial sequence number of a connection's client.
#[inline(always)]
pub(crate) fn set_client_isn(hash: u32, sequence: u32) {
    CLIENT_ISNS.set(hash as usize, sequence);
}

/// The initial sequence number of the latest client with this hash, which may belong to another flow.
#[inline(always)]
pub(crate) fn client_isn(hash: u32) -> u32 {
    CLIENT_ISNS.get(hash as usize)
}

#[inline(always)]
fn slot(hash: u32) -> Slot {
    Slot(GATE.get(index(hash)))
}

#[inline(always)]
fn replace(hash: u32, old: Slot, new: Slot) -> bool {
    GATE.replace(index(hash), old.0, new.0)
}
