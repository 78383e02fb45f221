//! The flows that are followed, in the places of [`tlstrace_common::table`].
//!
//! The packets of both directions may be here on two CPUs at the same time. A place changes hands by one atomic operation on
//! its tag, and may do so while another CPU still looks at what it held, as an entry of the kernel's LRU hash may.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tlstrace_common::flow::{FlowKey, Sender};
use tlstrace_common::framing::{Mode, Stream};
use tlstrace_common::limits;
use tlstrace_common::skip::Counter;
use tlstrace_common::table::{BUCKETS, PLACES, Tag, WAYS, bucket};

use crate::machine::{self, Words, opaque};
use crate::{gate, stats};

/// A flow that is followed.
#[repr(C)]
pub(crate) struct Flow {
    key: FlowKey,
    /// By [`Sender`].
    pub(crate) streams: [Stream; 2],
    /// Segments with payload.
    pub(crate) segments: u32,
    /// [`Flow::FINISHED`] and the like.
    pub(crate) flags: u32,
    /// Epoch in which the gate counted the flow.
    entered: u32,
    place: u32,
}

impl Flow {
    /// Enough was seen.
    pub(crate) const FINISHED: u32 = 0x01;
    /// The gate does not count the flow any more.
    const LEFT_GATE: u32 = 0x02;
    /// An event of this flow was lost since the last one that was not.
    pub(crate) const LOSS: u32 = 0x04;
    /// FIN was seen, from the lower end; the next bit is for the higher one.
    pub(crate) const FIN: u32 = 0x08;
    pub(crate) const BOTH_FIN: u32 = 0x18;

    /// Whether an acknowledgement without payload is of use: it tells what arrived, which is of interest
    /// until both sides have encrypted something.
    #[inline(always)]
    pub(crate) fn wants_acknowledgement(&mut self, sender: Sender) -> bool {
        let (stream, peer) = self.split(sender);
        stream.acknowledgements < limits::MAX_ACKNOWLEDGEMENTS
            && (stream.encrypted() == 0 || peer.encrypted() == 0)
    }

    /// The sender's stream, and its peer's.
    #[inline(always)]
    pub(crate) fn split(&mut self, sender: Sender) -> (&mut Stream, &mut Stream) {
        // One path for both senders: the verifier would walk two one after the other.
        let index = opaque(sender as u64) as usize & 1;
        let streams = self.streams.as_mut_ptr();
        // SAFETY: 0 and 1, in whatever order, are two elements of the array.
        unsafe { (&mut *streams.add(index), &mut *streams.add(index ^ 1)) }
    }

    /// Whether either end has sent a TLS record.
    #[inline(always)]
    fn is_tls(&self) -> bool {
        let [low, high] = &self.streams;
        low.mode() == Mode::TLS || high.mode() == Mode::TLS
    }

    /// Takes the flow's count out of the gate, once. Its place may be another flow's soon.
    #[inline(always)]
    pub(crate) fn leave_gate(&mut self, hash: u32) {
        if self.flags & Self::LEFT_GATE == 0 {
            self.flags |= Self::LEFT_GATE;
            gate::leave(hash, self.entered as u8);
            let tag = Tag::new(hash, self.entered as u8);
            replace(self.place, tag, tag.over());
        }
    }
}

/// The flow with this key.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, hash: u32) -> Option<&'static mut Flow> {
    let way = TAGS.row::<WAYS>(bucket(hash)).position(|tag| Tag(tag).is_of(hash))?;
    let flow = at((bucket(hash) * WAYS + way) as u32)?;
    if flow.key == *key {
        return Some(flow);
    }
    // That is another flow with the same hash.
    // SAFETY: the key is valid.
    at(unsafe { tlstrace_find(key, hash) })
}

/// A place for a flow that begins, as which nothing is known of it; `None` if other CPUs are too busy in its bucket.
///
/// A handshake that has to go for it in the middle is counted.
#[inline(always)]
pub(crate) fn insert(key: &FlowKey, hash: u32) -> Option<&'static mut Flow> {
    let place = tlstrace_claim(hash);
    let flow = at(place)?;
    // SAFETY: all of it are integers.
    unsafe { machine::clear(flow) };
    flow.key = *key;
    flow.place = place;
    flow.entered = gate::epoch().into();
    replace(place, Tag::BUSY, Tag::new(hash, flow.entered as u8));
    Some(flow)
}

/// Forgets a flow.
#[inline(always)]
pub(crate) fn remove(flow: &mut Flow, hash: u32) {
    flow.leave_gate(hash);
    replace(flow.place, Tag::new(hash, flow.entered as u8).over(), Tag::FREE);
}

#[map]
static FLOWS: Array<Flow> = Array::with_max_entries(PLACES as u32, 0);

static TAGS: Words<PLACES> = Words::new();
/// By bucket, which way goes next, if it can be dispensed with, or else if none can: so the flow that came first goes first.
///
/// In memory, where the verifier does not tell one answer from another. Two CPUs may write different ways: both are good.
static TURNS: Words<BUCKETS> = Words::new();

/// How often a place is looked for that another CPU takes.
const TRIES: u32 = 3;

/// No place: nothing is [`at`] it.
const NONE: u32 = u32::MAX;

#[inline(always)]
fn at(place: u32) -> Option<&'static mut Flow> {
    // SAFETY: a map value. Both directions may change it at the same time, but seldom the same part.
    FLOWS.get_ptr_mut(place).map(|flow| unsafe { &mut *flow })
}

// Global functions: see `emit`.

/// [`find`], whatever else has the same hash: the place, or [`NONE`].
///
/// # Safety
///
/// The pointer must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_find(key: *const FlowKey, hash: u32) -> u32 {
    // SAFETY: the caller's.
    let Some(key) = (unsafe { key.as_ref() }) else { return NONE };
    for way in machine::rounds(WAYS as u32) {
        let place = (bucket(hash) * WAYS) as u32 + way as u32;
        if tag(place).is_of(hash) && at(place).is_some_and(|flow| flow.key == *key) {
            return place;
        }
    }
    NONE
}

/// Marks a place of the hash's bucket as [`Tag::BUSY`], and returns it, or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tlstrace_claim(hash: u32) -> u32 {
    let now = gate::epoch();
    let bucket = bucket(hash);
    let first = (bucket * WAYS) as u32;
    for _ in machine::rounds(TRIES) {
        machine::fence();
        let start = TURNS.get(bucket);
        for way in machine::rounds(WAYS as u32) {
            let next = (start + way as u32) % WAYS as u32;
            if tag(first + next).is_dispensable(now) {
                TURNS.set(bucket, next);
                break;
            }
        }
        let way = TURNS.get(bucket) % WAYS as u32;
        let place = first + way;
        let old = tag(place);
        if old != Tag::BUSY && replace(place, old, Tag::BUSY) {
            TURNS.set(bucket, way + 1);
            if !old.is_dispensable(now) && at(place).is_some_and(|flow| flow.is_tls()) {
                stats::count(Counter::FlowTableFull);
            }
            return place;
        }
    }
    stats::count(Counter::FlowTableFull);
    NONE
}

#[inline(always)]
fn tag(place: u32) -> Tag {
    Tag(TAGS.get(place as usize))
}

#[inline(always)]
fn replace(place: u32, old: Tag, new: Tag) -> bool {
    TAGS.replace(place as usize, old.0, new.0)
}
