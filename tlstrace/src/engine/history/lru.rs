//! A map that makes room for what is new.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;

/// A map of at most `LIMIT` entries. When it is full, an eighth of it goes: what has not proven itself before what has, and the
/// least recently used first. Dropping many at once keeps the cost of an insertion constant on average.
#[derive(Clone, Debug)]
pub(super) struct Lru<K, V, const LIMIT: usize> {
    entries: HashMap<K, (u64, V), RandomState>,
}

impl<K, V, const LIMIT: usize> Default for Lru<K, V, LIMIT> {
    fn default() -> Self {
        Self { entries: HashMap::default() }
    }
}

impl<K: Eq + Hash, V: Default, const LIMIT: usize> Lru<K, V, LIMIT> {
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// The value of `key`, made if there is none, marked as used at `now`, by a clock of any kind.
    pub(super) fn touch(&mut self, key: K, now: u64, has_proven_itself: impl Fn(&V) -> bool) -> &mut V {
        if self.entries.len() >= LIMIT && !self.entries.contains_key(&key) {
            self.make_room(has_proven_itself);
        }
        let (used, value) = self.entries.entry(key).or_default();
        *used = now;
        value
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|(_, value)| value)
    }

    /// All values, and when each was used last.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.entries.values().map(|(used, value)| (*used, value))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(u64, &V) -> bool) {
        self.entries.retain(|_, (used, value)| keep(*used, value));
    }

    fn make_room(&mut self, has_proven_itself: impl Fn(&V) -> bool) {
        let rank = |(used, value): &(u64, V)| (has_proven_itself(value), *used);
        let mut ranks: Vec<_> = self.entries.values().map(rank).collect();
        let last = (ranks.len() / 8).min(ranks.len().saturating_sub(1));
        let (_, &mut threshold, _) = ranks.select_nth_unstable(last);
        self.entries.retain(|_, entry| rank(entry) > threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_and_proven_stays_and_the_rest_makes_room() {
        let mut map: Lru<u32, u32, 16> = Lru::default();
        for key in 0..4 {
            *map.touch(key, 0, |v| *v > 0) = 1;
        }
        for key in 4..10_000 {
            map.touch(key, 2 * u64::from(key), |v| *v > 0);
            map.touch(4, 2 * u64::from(key) + 1, |v| *v > 0);
        }
        assert!(map.entries.len() <= 16);
        assert!((0..=4).all(|key| map.get(&key).is_some()));
        assert!(map.get(&5).is_none() && map.get(&9_999).is_some());
    }
}
