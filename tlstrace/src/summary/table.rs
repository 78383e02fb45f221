//! Counts by some key, for a bounded number of keys.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::{Class, Latency};
use foldhash::fast::RandomState;

use crate::engine::timestamp::Timestamp;

/// Most keys. When there are more, a quarter is forgotten: those that failed least, the quietest first.
pub const MAX_KEYS: usize = 4096;
/// Most kinds of failure that are told apart for one key.
const MAX_KINDS: usize = 8;

/// Tallies by key.
#[derive(Debug)]
pub struct Table<K> {
    tallies: HashMap<K, Tally, RandomState>,
    forgotten: u64,
    forgotten_failing: u64,
}

/// What is known under one key.
#[derive(Debug)]
pub struct Tally {
    pub handshakes: u64,
    pub successes: u64,
    pub failures: u64,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    pub first_failure: Option<Timestamp>,
    pub last_failure: Option<Timestamp>,
    /// How long completed handshakes took; none if there was none.
    pub latency: Option<Box<Latency>>,
    kinds: Vec<(Arc<str>, u64)>,
}

/// What is to be counted.
pub(super) struct Seen<'a> {
    pub(super) time: Timestamp,
    pub(super) verdict: &'a Arc<str>,
    pub(super) class: Class,
    pub(super) handshake: Option<Duration>,
    /// How many there were of that kind.
    pub(super) count: u64,
}

impl<K: Clone + Eq + Hash + Ord> Table<K> {
    /// The `most` keys with most failures, those without failure left out.
    pub fn failing(&self, most: usize) -> Vec<(&K, &Tally)> {
        let mut failing: Vec<_> = self.tallies.iter().filter(|(_, tally)| tally.failures > 0).collect();
        failing.sort_by(|(a, of_a), (b, of_b)| {
            (of_b.failures, of_b.last_failure).cmp(&(of_a.failures, of_a.last_failure)).then_with(|| a.cmp(b))
        });
        failing.truncate(most);
        failing
    }

    /// All keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Tally)> {
        self.tallies.iter()
    }

    /// What is known under a key.
    pub fn get(&self, key: &K) -> Option<&Tally> {
        self.tallies.get(key)
    }

    pub fn len(&self) -> usize {
        self.tallies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// How many keys were forgotten for want of room; one that came back counts again.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many of them had failed.
    pub fn forgotten_failing(&self) -> u64 {
        self.forgotten_failing
    }

    pub(super) fn add<Q>(&mut self, key: &Q, seen: &Seen<'_>)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(tally) = self.tallies.get_mut(key) {
            return tally.add(seen);
        }
        if self.tallies.len() >= MAX_KEYS {
            self.forget();
        }
        let mut tally = Tally::new(seen.time);
        tally.add(seen);
        self.tallies.insert(key.to_owned(), tally);
    }

    pub(super) fn take_back<Q>(&mut self, key: &Q, verdict: &str, class: Class)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(tally) = self.tallies.get_mut(key) {
            tally.take_back(verdict, class);
        }
    }

    fn forget(&mut self) {
        let mut keys: Vec<_> = self.tallies.iter().map(|(key, tally)| (tally.worth(), key.clone())).collect();
        let (least, _, _) = keys.select_nth_unstable(MAX_KEYS / 4);
        self.forgotten += least.len() as u64;
        self.forgotten_failing += least.iter().filter(|((failures, _), _)| *failures > 0).count() as u64;
        for (_, key) in least {
            self.tallies.remove(key);
        }
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { tallies: HashMap::default(), forgotten: 0, forgotten_failing: 0 }
    }
}

impl Tally {
    /// The most frequent failure.
    pub fn top_verdict(&self) -> Option<(&str, u64)> {
        self.kinds().next()
    }

    /// Failures by verdict, the most frequent first.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, u64)> {
        let mut kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| (&**kind, *count)).collect();
        kinds.retain(|(_, count)| *count > 0);
        kinds.sort_by_key(|(kind, count)| (std::cmp::Reverse(*count), *kind));
        kinds.into_iter()
    }

    fn new(time: Timestamp) -> Self {
        Self {
            handshakes: 0,
            successes: 0,
            failures: 0,
            first_seen: time,
            last_seen: time,
            first_failure: None,
            last_failure: None,
            latency: None,
            kinds: Vec::new(),
        }
    }

    fn add(&mut self, seen: &Seen<'_>) {
        self.handshakes += seen.count;
        self.first_seen = self.first_seen.min(seen.time);
        self.last_seen = self.last_seen.max(seen.time);
        if let Some(handshake) = seen.handshake {
            self.latency.get_or_insert_default().add(handshake);
        }
        match seen.class {
            Class::Success => self.successes += seen.count,
            Class::Neither => {}
            Class::Failure => {
                self.failures += seen.count;
                self.first_failure = Some(self.first_failure.map_or(seen.time, |first| first.min(seen.time)));
                self.last_failure = Some(self.last_failure.map_or(seen.time, |last| last.max(seen.time)));
                if let Some((_, count)) = self.kinds.iter_mut().find(|(kind, _)| kind == seen.verdict) {
                    *count += seen.count;
                } else if self.kinds.len() < MAX_KINDS {
                    self.kinds.push((Arc::clone(seen.verdict), seen.count));
                }
            }
        }
    }

    fn take_back(&mut self, verdict: &str, class: Class) {
        self.handshakes = self.handshakes.saturating_sub(1);
        match class {
            Class::Success => self.successes = self.successes.saturating_sub(1),
            Class::Neither => {}
            Class::Failure => {
                self.failures = self.failures.saturating_sub(1);
                if let Some((_, count)) = self.kinds.iter_mut().find(|(kind, _)| &**kind == verdict) {
                    *count = count.saturating_sub(1);
                }
            }
        }
    }

    /// What is worth least is forgotten first.
    fn worth(&self) -> (u64, Timestamp) {
        (self.failures, self.last_seen)
    }
}
