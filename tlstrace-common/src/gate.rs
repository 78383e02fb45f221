//! The gate: "may a handshake be under way in this flow?", answered by one word of memory.
//!
//! A slot counts the flows of one hash that began lately and are not finished, in two generations of
//! [`EPOCH_SHIFT`] nanoseconds each. The current generation turns into the previous one, and the
//! previous one is forgotten, when somebody next looks: a flow that never finishes keeps its slot open
//! for 69 to 138 s, no longer.

/// Number of slots.
pub const SLOTS: usize = 1 << SLOT_BITS;

/// The slot of a flow with this [`crate::flow::hash`].
#[inline(always)]
pub const fn index(hash: u32) -> usize {
    (hash >> (u32::BITS - SLOT_BITS)) as usize
}

/// An epoch is `bpf_ktime_get_ns() >> EPOCH_SHIFT`, of which 8 bits are kept: 2³⁶ ns are about 69 s.
pub const EPOCH_SHIFT: u32 = 36;

/// One word of the gate: epoch (8 bits), count of the previous generation (12), of the current one (12).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Slot(pub u32);

impl Slot {
    /// Whether any flow is counted.
    #[inline(always)]
    pub const fn is_open(self, now: u8) -> bool {
        match self.age(now) {
            0 => self.0 & (COUNT | COUNT << COUNT_BITS) != 0,
            1 => self.0 & COUNT != 0,
            _ => false,
        }
    }

    /// The slot with one flow more. A full count stays full.
    #[inline(always)]
    #[must_use]
    pub const fn incremented(self, now: u8) -> Self {
        let Self(slot) = self.rotated(now);
        if slot & COUNT == COUNT { Self(slot) } else { Self(slot + 1) }
    }

    /// The slot without a flow that was counted in the epoch `added`.
    ///
    /// A generation without any count is left as it is, and so is a full one, whose true count nobody
    /// knows.
    #[inline(always)]
    #[must_use]
    pub const fn decremented(self, now: u8, added: u8) -> Self {
        let Self(slot) = self.rotated(now);
        let shift = match now.wrapping_sub(added) {
            0 => 0,
            1 => COUNT_BITS,
            _ => return Self(slot),
        };
        let count = slot >> shift & COUNT;
        if count == 0 || count == COUNT { Self(slot) } else { Self(slot - (1 << shift)) }
    }

    #[inline(always)]
    const fn rotated(self, now: u8) -> Self {
        let counts = match self.age(now) {
            0 => self.0 & (COUNT | COUNT << COUNT_BITS),
            1 => (self.0 & COUNT) << COUNT_BITS,
            _ => 0,
        };
        Self((now as u32) << (2 * COUNT_BITS) | counts)
    }

    #[inline(always)]
    const fn age(self, now: u8) -> u8 {
        now.wrapping_sub((self.0 >> (2 * COUNT_BITS)) as u8)
    }
}

const SLOT_BITS: u32 = 15;
const COUNT_BITS: u32 = 12;
const COUNT: u32 = (1 << COUNT_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_slot_is_closed_in_every_epoch() {
        for now in 0..=u8::MAX {
            assert!(!Slot::default().is_open(now));
        }
    }

    #[test]
    fn a_flow_keeps_its_slot_open_for_two_epochs_and_no_longer() {
        let slot = Slot::default().incremented(255);
        assert!(slot.is_open(255));
        assert!(slot.is_open(0));
        assert!(!slot.is_open(1));
        assert!(!slot.is_open(2));
    }

    #[test]
    fn the_last_flow_that_finishes_closes_the_slot() {
        let two = Slot::default().incremented(7).incremented(7);
        let one = two.decremented(7, 7);
        assert!(one.is_open(7));
        assert!(!one.decremented(7, 7).is_open(7));
    }

    #[test]
    fn a_flow_is_taken_out_of_the_generation_in_which_it_was_counted() {
        let slot = Slot::default().incremented(7).incremented(8);
        assert!(slot.decremented(8, 7).is_open(9), "the younger flow is still counted");
        assert!(!slot.decremented(8, 8).is_open(9), "the older flow is too old to count");
    }

    #[test]
    fn a_flow_that_is_not_counted_any_more_takes_nobody_elses_count() {
        let slot = Slot::default().incremented(9);
        assert!(slot.decremented(9, 6).is_open(9));
        assert!(slot.decremented(9, 8).is_open(9));
    }

    #[test]
    fn a_full_count_neither_wraps_nor_shrinks() {
        let mut slot = Slot::default();
        for _ in 0..10_000 {
            slot = slot.incremented(3);
        }
        assert_eq!(slot, slot.incremented(3));
        assert_eq!(slot, slot.decremented(3, 3));
        assert!(slot.is_open(3));
    }
}
