//! The table of the flows that are followed: buckets of sixteen places, each with a tag that tells whose it is without a
//! look at the place itself.
//!
//! The kernel's LRU hash spends some 100 ns on an insertion, and forgets whatever was looked up least lately. Here an
//! insertion is two atomic operations; what goes first is what nobody asks for any more, and a flow that has to go in
//! the middle of its handshake can be counted.

/// Places of a bucket.
pub const WAYS: usize = 16;
/// Number of buckets.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// Flows that there is room for.
pub const PLACES: usize = BUCKETS * WAYS;

/// The bucket of a flow with this [`crate::flow::hash`].
#[inline(always)]
pub const fn bucket(hash: u32) -> usize {
    hash as usize % BUCKETS
}

/// Who has a place: the upper bits of a flow's hash (24; the lower ones choose the bucket), the epoch in which it began
/// (6, see [`crate::gate::EPOCH_SHIFT`]), whether it is over (1), whether the place is taken (1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tag(pub u32);

impl Tag {
    /// Nobody.
    pub const FREE: Self = Self(0);
    /// Somebody who is just moving in, and not to be found yet.
    pub const BUSY: Self = Self(OVER);

    /// A flow with this hash that begins in the epoch `now`.
    #[inline(always)]
    pub const fn new(hash: u32, now: u8) -> Self {
        Self(hash & !STATE | (now as u32) << EPOCH_SHIFT & EPOCH | TAKEN)
    }

    /// Whether a flow with this hash, out of those of its bucket, may have the place.
    #[inline(always)]
    pub const fn is_of(self, hash: u32) -> bool {
        self.0 | (STATE & !TAKEN) == hash | STATE
    }

    /// The same flow when its handshake is over.
    #[inline(always)]
    #[must_use]
    pub const fn over(self) -> Self {
        Self(self.0 | OVER)
    }

    /// Whether the place can be given to another flow without a loss: it is nobody's, or the handshake is over, or it began
    /// so long ago that the gate is closed for it.
    #[inline(always)]
    pub const fn is_dispensable(self, now: u8) -> bool {
        if self.0 & TAKEN == 0 {
            return self.0 == Self::FREE.0;
        }
        let age = ((now as u32) << EPOCH_SHIFT).wrapping_sub(self.0 & EPOCH) & EPOCH;
        self.0 & OVER != 0 || age > 1 << EPOCH_SHIFT
    }
}

const BUCKET_BITS: u32 = 12;
const TAKEN: u32 = 0x01;
const OVER: u32 = 0x02;
const EPOCH_SHIFT: u32 = 2;
const EPOCH: u32 = 0x3f << EPOCH_SHIFT;
const STATE: u32 = TAKEN | OVER | EPOCH;

const _: () =
    assert!(STATE < 1 << BUCKET_BITS, "the bucket knows the bits of the hash that the tag leaves out");

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: u32 = 0xdead_beef;

    #[test]
    fn a_flow_is_found_in_every_epoch_and_after_its_end() {
        for now in 0..=u8::MAX {
            let tag = Tag::new(HASH, now);
            assert!(tag.is_of(HASH));
            assert!(tag.over().is_of(HASH));
        }
    }

    #[test]
    fn whatever_bit_of_the_hash_differs_another_flow_is_in_another_bucket_or_has_another_tag() {
        for bit in 0..u32::BITS {
            let other = HASH ^ 1 << bit;
            assert!(bucket(other) != bucket(HASH) || !Tag::new(HASH, 3).is_of(other), "{bit}");
        }
    }

    #[test]
    fn a_place_that_is_free_or_just_being_taken_is_nobodys_and_only_the_free_one_can_be_had() {
        for tag in [Tag::FREE, Tag::BUSY] {
            for hash in [0, 1, 2, 0xff, u32::MAX] {
                assert!(!tag.is_of(hash), "{tag:?} {hash}");
            }
        }
        assert!(Tag::FREE.is_dispensable(5) && !Tag::BUSY.is_dispensable(5));
    }

    #[test]
    fn a_flow_can_be_dispensed_with_when_it_is_over_or_two_epochs_old() {
        for began in [0, 62, 63, 64, 255] {
            let tag = Tag::new(HASH, began);
            assert!(!tag.is_dispensable(began));
            assert!(!tag.is_dispensable(began.wrapping_add(1)));
            assert!(tag.is_dispensable(began.wrapping_add(2)));
            assert!(tag.is_dispensable(began.wrapping_add(63)));
            assert!(tag.over().is_dispensable(began));
        }
    }

    #[test]
    fn every_place_is_in_one_bucket() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u32::MAX) * WAYS, PLACES - WAYS);
    }
}
