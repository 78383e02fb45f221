//! The bounded table of connections.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::connection::{Connection, Judged};
use super::deadlines::Deadlines;
use super::segment::{MAPPED, Segment};
use super::timestamp::Timestamp;

/// Both ends of a connection, the same for both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ConnectionKey {
    low: End,
    high: End,
}

impl ConnectionKey {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let source = End::from(segment.source);
        let destination = End::from(segment.destination);
        if source.is_below(destination) {
            Self { low: source, high: destination }
        } else {
            Self { low: destination, high: source }
        }
    }
}

impl Hash for ConnectionKey {
    /// As numbers: of arrays the lengths would be hashed too, for every segment.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ((low, low_port), (high, high_port)) = (self.low.rank(), self.high.rank());
        state.write_u128(low);
        state.write_u128(high);
        state.write_u32(u32::from(low_port) << 16 | u32::from(high_port));
    }
}

/// An address and a port in half the room of a [`SocketAddr`]: the table holds many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct End {
    ip: [u8; 16],
    port: u16,
}

impl End {
    /// Whether it is the first of the two in a key.
    pub(crate) fn is_below(self, other: Self) -> bool {
        self.rank() <= other.rank()
    }

    /// Some order, the same everywhere.
    fn rank(self) -> (u128, u16) {
        (u128::from_ne_bytes(self.ip), self.port)
    }
}

impl From<SocketAddr> for End {
    fn from(address: SocketAddr) -> Self {
        // As numbers, and not as octets, which would be moved one by one.
        let bits = match address.ip() {
            IpAddr::V4(ip) => MAPPED | u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        Self { ip: bits.to_ne_bytes(), port: address.port() }
    }
}

/// Names a connection in the table for as long as it is there.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot {
    index: u32,
    generation: u32,
}

/// What is kept of a connection.
#[derive(Debug)]
pub(crate) enum Tracked {
    Open(Box<Connection>),
    Judged(Judged),
}

impl Tracked {
    fn deadline(&self) -> Timestamp {
        match self {
            Self::Open(connection) => connection.deadline(),
            Self::Judged(judged) => judged.deadline(),
        }
    }
}

/// Connections by key, in order of age, and by deadline.
#[derive(Debug)]
pub(crate) struct Table {
    limit: usize,
    max_weight: usize,
    /// Indices into `entries`, where the keys are: to have them here too would take as much room again.
    by_key: HashTable<u32>,
    hasher: RandomState,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Deadlines as they were when pushed: a popped entry is checked against the connection's present one.
    deadlines: Deadlines,
    /// Candidates for eviction, oldest first: connections without payload, and the others.
    unproven: VecDeque<Slot>,
    proven: VecDeque<Slot>,
    /// Memory that connections take beyond the ordinary, in bytes, and those that do, by how long they have.
    weight: usize,
    heavy: VecDeque<Slot>,
    /// Room of connections that are over, for others.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Connection>>,
}

/// Most connections whose room is kept.
const MAX_SPARE: usize = 128;

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    key: Option<ConnectionKey>,
    tracked: Option<Tracked>,
    /// The earliest deadline that is in the queue for this entry.
    queued: Option<Timestamp>,
    /// [`Connection::weight`], when it was last asked.
    weight: usize,
    is_among_heavy: bool,
}

impl Table {
    /// Of so many connections, which together take so many bytes beyond the ordinary.
    pub(crate) fn new(limit: usize, max_weight: usize) -> Self {
        Self {
            limit: limit.max(1),
            max_weight,
            by_key: HashTable::new(),
            hasher: RandomState::default(),
            entries: Vec::new(),
            free: Vec::new(),
            deadlines: Deadlines::default(),
            unproven: VecDeque::new(),
            proven: VecDeque::new(),
            weight: 0,
            heavy: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether one more connection would push another out.
    pub(crate) fn is_full(&self) -> bool {
        self.by_key.len() >= self.limit
    }

    pub(crate) fn find(&self, key: &ConnectionKey) -> Option<Slot> {
        let entry = |index: u32| self.entries.get(index as usize);
        let is_it = |index: &u32| entry(*index).is_some_and(|entry| entry.key.as_ref() == Some(key));
        let index = *self.by_key.find(self.hasher.hash_one(key), is_it)?;
        Some(Slot { index, generation: entry(index)?.generation })
    }

    /// The connection, as long as it is not judged for good.
    pub(crate) fn open(&self, slot: Slot) -> Option<&Connection> {
        match self.entry(slot)?.tracked.as_ref()? {
            Tracked::Open(connection) => Some(connection),
            Tracked::Judged(_) => None,
        }
    }

    /// As [`Table::open`].
    pub(crate) fn open_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        match self.entry_mut(slot)?.tracked.as_mut()? {
            Tracked::Open(connection) => Some(connection),
            Tracked::Judged(_) => None,
        }
    }

    pub(crate) fn is_judged(&self, slot: Slot) -> bool {
        self.entry(slot).is_some_and(|entry| matches!(entry.tracked, Some(Tracked::Judged(_))))
    }

    /// Whether a segment begins another connection between the same ports.
    pub(crate) fn is_replaced_by(&self, slot: Slot, segment: &Segment<'_>) -> bool {
        match self.entry(slot).and_then(|entry| entry.tracked.as_ref()) {
            Some(Tracked::Open(connection)) => connection.is_replaced_by(segment),
            Some(Tracked::Judged(judged)) => judged.is_replaced_by(segment),
            None => false,
        }
    }

    /// Notes that a judged connection is still alive.
    pub(crate) fn touch(&mut self, slot: Slot, now: Timestamp) {
        if let Some(Entry { tracked: Some(Tracked::Judged(judged)), .. }) = self.entry_mut(slot) {
            judged.last_seen = judged.last_seen.max(now);
        }
    }

    /// Adds a connection; returns one that had to make room, if the table was full.
    pub(crate) fn insert(
        &mut self,
        key: ConnectionKey,
        connection: Connection,
    ) -> (Slot, Option<Box<Connection>>) {
        let evicted = if self.is_full() { self.evict() } else { None };
        let connection = match self.spare.pop() {
            Some(mut room) => {
                *room = connection;
                room
            }
            None => Box::new(connection),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let mut slot = Slot { index, generation: 0 };
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.key = Some(key);
            entry.tracked = Some(Tracked::Open(connection));
            entry.queued = None;
            entry.is_among_heavy = false;
            slot.generation = entry.generation;
        }
        let Self { by_key, hasher, entries, .. } = self;
        by_key.insert_unique(hasher.hash_one(key), index, |index| {
            let key = entries.get(*index as usize).and_then(|entry| entry.key.as_ref());
            key.map_or(0, |key| hasher.hash_one(key))
        });
        if self.unproven.len() + self.proven.len() > 2 * self.limit {
            self.forget_removed();
        }
        self.unproven.push_back(slot);
        (slot, evicted)
    }

    /// Keeps the room of a connection whose facts were taken: malloc(3) is slow with pieces of this size.
    pub(crate) fn recycle(&mut self, connection: Box<Connection>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(connection);
        }
    }

    /// Takes an open connection out for a moment; [`Table::put_back`] must follow.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Box<Connection>> {
        let tracked = &mut self.entry_mut(slot)?.tracked;
        match tracked.take()? {
            Tracked::Open(connection) => Some(connection),
            judged @ Tracked::Judged(_) => {
                *tracked = Some(judged);
                None
            }
        }
    }

    pub(crate) fn put_back(&mut self, slot: Slot, tracked: Tracked) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.tracked = Some(tracked);
        }
        self.weigh(slot);
        self.reschedule(slot);
    }

    /// Takes account of what a connection holds by now, if that can have changed: without payload it does not grow.
    pub(crate) fn weigh_after(&mut self, slot: Slot, segment: &Segment<'_>) {
        if segment.payload_len > 0 || self.entry(slot).is_some_and(|entry| entry.weight > 0) {
            self.weigh(slot);
        }
    }

    fn weigh(&mut self, slot: Slot) {
        let limit = self.limit;
        let Some(entry) = self.entry_mut(slot) else { return };
        let before = entry.weight;
        entry.weight = match &entry.tracked {
            Some(Tracked::Open(connection)) => connection.weight(),
            Some(Tracked::Judged(_)) | None => 0,
        };
        let (weight, is_new) = (entry.weight, entry.weight > 0 && !entry.is_among_heavy);
        entry.is_among_heavy |= is_new;
        self.weight = self.weight - before + weight;
        if is_new {
            if self.heavy.len() > 2 * limit {
                let mut heavy = std::mem::take(&mut self.heavy);
                heavy.retain(|&slot| self.entry(slot).is_some());
                self.heavy = heavy;
            }
            self.heavy.push_back(slot);
        }
    }

    /// While all hold too much: takes out the connection that has done so for the longest time.
    pub(crate) fn pop_too_heavy(&mut self) -> Option<Box<Connection>> {
        while self.weight > self.max_weight {
            let slot = self.heavy.pop_front()?;
            let Some(entry) = self.entry_mut(slot) else { continue };
            entry.is_among_heavy = false;
            if entry.weight > 0 {
                return self.remove(slot);
            }
        }
        None
    }

    /// Forgets a connection; returns it if it was not judged for good.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Box<Connection>> {
        let entry = self.entry_mut(slot)?;
        let key = entry.key.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        let tracked = entry.tracked.take();
        let weight = std::mem::take(&mut entry.weight);
        self.weight -= weight;
        let hash = self.hasher.hash_one(key);
        if let Ok(known) = self.by_key.find_entry(hash, |index| *index == slot.index) {
            known.remove();
        }
        self.free.push(slot.index);
        match tracked? {
            Tracked::Open(connection) => Some(connection),
            Tracked::Judged(_) => None,
        }
    }

    /// Puts a connection's present deadline into the queue, if it is not there already.
    pub(crate) fn reschedule(&mut self, slot: Slot) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let Some(deadline) = entry.tracked.as_ref().map(Tracked::deadline) else { return };
        if entry.queued.is_some_and(|queued| queued <= deadline) {
            return;
        }
        entry.queued = Some(deadline);
        self.deadlines.push(deadline, slot);
        if self.deadlines.len() > 4 * self.limit {
            self.forget_overtaken_deadlines();
        }
    }

    /// The next connection whose deadline is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Slot> {
        while let Some((at, slot)) = self.deadlines.pop_due(now) {
            let Some(entry) = self.entry_mut(slot) else { continue };
            if entry.queued != Some(at) {
                continue;
            }
            entry.queued = None;
            let deadline = entry.tracked.as_ref().map(Tracked::deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Some(slot);
            }
            self.reschedule(slot);
        }
        None
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first()
    }

    /// What connections that are over hold in the room that is kept of them, in bytes.
    #[cfg(test)]
    pub(crate) fn spare_weight(&self) -> usize {
        self.spare.iter().map(|room| room.weight()).sum()
    }

    /// Deadlines in the queue.
    #[cfg(test)]
    pub(crate) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// All connections that are not judged for good, the oldest first.
    pub(crate) fn slots_by_age(&self) -> Vec<Slot> {
        let mut slots: Vec<_> = self
            .by_key
            .iter()
            .filter_map(|&index| {
                let slot = Slot { index, generation: self.entries.get(index as usize)?.generation };
                Some((self.open(slot)?.facts.first_seen, slot))
            })
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Makes room: forgets the oldest connection that carried nothing or was judged, or else the oldest, which
    /// it returns if it was not judged for good.
    fn evict(&mut self) -> Option<Box<Connection>> {
        while let Some(slot) = self.unproven.pop_front() {
            match self.open(slot) {
                Some(connection) if connection.carried_payload() => self.proven.push_back(slot),
                _ if self.entry(slot).is_some() => return self.remove(slot),
                _ => {}
            }
        }
        while let Some(slot) = self.proven.pop_front() {
            if self.entry(slot).is_some() {
                return self.remove(slot);
            }
        }
        None
    }

    /// Drops from the eviction queues what has left the table by itself.
    fn forget_removed(&mut self) {
        let mut queues = (std::mem::take(&mut self.unproven), std::mem::take(&mut self.proven));
        queues.0.retain(|&slot| self.entry(slot).is_some());
        queues.1.retain(|&slot| self.entry(slot).is_some());
        (self.unproven, self.proven) = queues;
    }

    /// Drops the deadlines of what has left the table, and those that an earlier one has taken the place of.
    fn forget_overtaken_deadlines(&mut self) {
        let mut deadlines = std::mem::take(&mut self.deadlines);
        deadlines.retain(|at, slot| self.entry(slot).is_some_and(|entry| entry.queued == Some(at)));
        self.deadlines = deadlines;
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.index as usize).filter(|entry| entry.generation == slot.generation)
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.index as usize).filter(|entry| entry.generation == slot.generation)
    }
}
