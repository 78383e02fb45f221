//! What was noted lately about connections, by their names: the last so many, in the order in which they came.
//!
//! With many thousands, what one more costs is the memory that it finds cold. So the notes lie one behind the other, where
//! the next one to be replaced is the neighbour of the last, and what is looked up at random is small.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::facts::ConnectionId;

/// A note each on the `N` connections that came last.
#[derive(Debug)]
pub(crate) struct Recent<V, const N: u16> {
    /// Where in `notes` a connection is.
    places: HashTable<u16>,
    hasher: RandomState,
    /// A ring, once it is full.
    notes: Vec<(ConnectionId, V)>,
    /// The place of the oldest, once it is full.
    oldest: u16,
}

impl<V, const N: u16> Default for Recent<V, N> {
    fn default() -> Self {
        const { assert!(N > 0) };
        Self { places: HashTable::new(), hasher: RandomState::default(), notes: Vec::new(), oldest: 0 }
    }
}

impl<V, const N: u16> Recent<V, N> {
    pub(crate) fn get(&self, id: ConnectionId) -> Option<&V> {
        let place = *self.places.find(self.hasher.hash_one(id), |place| self.is_at(*place, id))?;
        self.notes.get(usize::from(place)).map(|(_, note)| note)
    }

    /// Notes something; gives what was noted before about the connection, which keeps its place in the order. A new one
    /// takes the place of the oldest.
    pub(crate) fn insert(&mut self, id: ConnectionId, note: V) -> Option<V> {
        let hash = self.hasher.hash_one(id);
        let known = self.places.find(hash, |place| self.is_at(*place, id)).copied();
        if let Some((_, known)) = known.and_then(|place| self.notes.get_mut(usize::from(place))) {
            return Some(std::mem::replace(known, note));
        }
        let place = match u16::try_from(self.notes.len()) {
            Ok(next) if next < N => {
                self.notes.push((id, note));
                next
            }
            _ => self.replace_oldest((id, note)),
        };
        let Self { places, notes, hasher, .. } = self;
        places.insert_unique(hash, place, |place| {
            notes.get(usize::from(*place)).map_or(0, |(id, _)| hasher.hash_one(id))
        });
        None
    }

    /// Connections that are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Puts a note where the oldest is; returns the place.
    fn replace_oldest(&mut self, note: (ConnectionId, V)) -> u16 {
        let place = self.oldest;
        self.oldest = (place + 1) % N;
        if let Some(oldest) = self.notes.get_mut(usize::from(place)) {
            let (forgotten, _) = std::mem::replace(oldest, note);
            let hash = self.hasher.hash_one(forgotten);
            if let Ok(known) = self.places.find_entry(hash, |other| *other == place) {
                known.remove();
            }
        }
        place
    }

    fn is_at(&self, place: u16, id: ConnectionId) -> bool {
        self.notes.get(usize::from(place)).is_some_and(|(other, _)| *other == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known_and_the_oldest_of_them_goes_first() {
        let mut recent = Recent::<_, 3>::default();
        for id in 0..10 {
            assert_eq!(recent.insert(ConnectionId(id), id * 100), None);
            let known: Vec<_> = (0..=id + 1).filter_map(|id| recent.get(ConnectionId(id)).copied()).collect();
            let expected: Vec<_> = (id.saturating_sub(2)..=id).map(|id| id * 100).collect();
            assert_eq!(known, expected);
            assert_eq!(recent.len(), expected.len());
        }
    }

    #[test]
    fn who_comes_again_keeps_its_place_in_the_order() {
        let mut recent = Recent::<_, 2>::default();
        assert_eq!(recent.insert(ConnectionId(1), "a"), None);
        assert_eq!(recent.insert(ConnectionId(2), "b"), None);
        assert_eq!(recent.insert(ConnectionId(1), "c"), Some("a"));
        assert_eq!(recent.insert(ConnectionId(3), "d"), None);
        assert_eq!([1, 2, 3].map(|id| recent.get(ConnectionId(id)).copied()), [None, Some("b"), Some("d")]);
    }
}
