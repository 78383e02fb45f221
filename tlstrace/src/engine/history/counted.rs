//! Small bounded sets: how often each value was seen, and how many different ones there were.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use smallvec::SmallVec;

/// Most different values that are kept.
const MAX_VALUES: usize = 24;

/// Values and how often each was seen, the most frequent not necessarily first.
#[derive(Clone, Debug)]
pub struct Counted<T>(SmallVec<[(T, u32); 2]>);

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T: Clone + PartialEq> Counted<T> {
    pub fn contains(&self, value: &T) -> bool {
        self.0.iter().any(|(known, _)| known == value)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often anything was seen.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(value, _)| value)
    }

    /// Values with how often each was seen, the most frequent first.
    pub fn by_frequency(&self) -> Vec<&(T, u32)> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        entries
    }

    pub(super) fn add(&mut self, value: &T) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| known == value) {
            *count = count.saturating_add(1);
            return;
        }
        if self.0.len() >= MAX_VALUES
            && let Some(rarest) = (0..self.0.len()).min_by_key(|&at| self.0.get(at).map(|(_, count)| *count))
        {
            self.0.swap_remove(rarest);
        }
        self.0.push((value.clone(), 1));
    }

    /// Halves every count so many times; what reaches zero is forgotten.
    pub(super) fn halve(&mut self, times: u32) {
        self.0.retain(|(_, count)| {
            *count = count.checked_shr(times).unwrap_or(0);
            *count > 0
        });
    }
}

/// Roughly how many different addresses there were: linear counting in 64 bits (Whang et al., 1990), good for
/// telling one from a few and a few from many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distinct(u64);

impl Distinct {
    pub(super) fn add(&mut self, address: IpAddr) {
        let mut hasher = DefaultHasher::new();
        address.hash(&mut hasher);
        self.0 |= 1 << (hasher.finish() % 64);
    }

    pub(super) fn estimate(self) -> u32 {
        let empty = f64::from(self.0.count_zeros().max(1));
        let estimate = -64.0 * (empty / 64.0).ln();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 267")]
        let rounded = estimate.round() as u32;
        rounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rare_value_makes_room_for_a_new_one() {
        let mut values = Counted::default();
        for value in 0..1000u32 {
            values.add(&7777);
            values.add(&value);
        }
        assert!(values.contains(&7777) && values.contains(&999));
        assert!(values.values().count() <= MAX_VALUES);
        values.halve(5);
        assert_eq!(values.values().collect::<Vec<_>>(), [&7777]);
    }

    #[test]
    fn the_number_of_clients_is_about_right() {
        let estimate = |n: u32| {
            let mut distinct = Distinct::default();
            for i in 0..n {
                distinct.add(IpAddr::from(i.to_be_bytes()));
                distinct.add(IpAddr::from(i.to_be_bytes()));
            }
            distinct.estimate()
        };
        assert_eq!((estimate(0), estimate(1)), (0, 1));
        assert!((2..=3).contains(&estimate(3)));
        assert!((25..=60).contains(&estimate(40)));
    }
}
