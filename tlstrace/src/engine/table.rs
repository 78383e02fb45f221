//! The bounded table of connections, and the queue of their deadlines.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::connection::Connection;
use super::segment::Segment;
use super::timestamp::Timestamp;

/// Both ends of a connection, the same for both directions.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ConnectionKey {
    low: (u128, u16),
    high: (u128, u16),
}

impl ConnectionKey {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let source = flatten(segment.source);
        let destination = flatten(segment.destination);
        Self { low: source.min(destination), high: source.max(destination) }
    }
}

fn flatten(address: SocketAddr) -> (u128, u16) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip.to_bits(), address.port())
}

/// Names a connection in the table for as long as it is there.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot {
    index: u32,
    generation: u32,
}

/// Connections by key, in order of age, and by deadline.
#[derive(Debug)]
pub(crate) struct Table {
    limit: usize,
    by_key: HashMap<ConnectionKey, Slot>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Deadlines as they were when pushed: a popped entry is checked against the connection's present one.
    deadlines: BinaryHeap<Reverse<(Timestamp, Slot)>>,
    /// Candidates for eviction, oldest first: connections without payload, and the others.
    unproven: VecDeque<Slot>,
    proven: VecDeque<Slot>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    key: Option<ConnectionKey>,
    connection: Option<Box<Connection>>,
    /// The earliest deadline that is in the queue for this entry.
    queued: Option<Timestamp>,
}

impl Table {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            by_key: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            deadlines: BinaryHeap::new(),
            unproven: VecDeque::new(),
            proven: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn find(&self, key: &ConnectionKey) -> Option<Slot> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, slot: Slot) -> Option<&Connection> {
        self.entry(slot)?.connection.as_deref()
    }

    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.entry_mut(slot)?.connection.as_deref_mut()
    }

    /// Adds a connection; returns one that had to make room, if the table was full.
    pub(crate) fn insert(
        &mut self,
        key: ConnectionKey,
        connection: Connection,
    ) -> (Slot, Option<Connection>) {
        let evicted = if self.by_key.len() >= self.limit { self.evict() } else { None };
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, key: None, connection: None, queued: None });
            u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
        });
        let mut slot = Slot { index, generation: 0 };
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.generation = entry.generation.wrapping_add(1);
            entry.key = Some(key);
            entry.connection = Some(Box::new(connection));
            entry.queued = None;
            slot.generation = entry.generation;
        }
        self.by_key.insert(key, slot);
        if self.unproven.len() + self.proven.len() > 2 * self.limit {
            self.forget_removed();
        }
        self.unproven.push_back(slot);
        (slot, evicted)
    }

    /// Takes a connection out for a moment; [`Table::put_back`] must follow.
    pub(crate) fn take(&mut self, slot: Slot) -> Option<Box<Connection>> {
        self.entry_mut(slot)?.connection.take()
    }

    pub(crate) fn put_back(&mut self, slot: Slot, connection: Box<Connection>) {
        if let Some(entry) = self.entry_mut(slot) {
            entry.connection = Some(connection);
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Connection> {
        let entry = self.entry_mut(slot)?;
        let key = entry.key.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        let connection = entry.connection.take();
        self.by_key.remove(&key);
        self.free.push(slot.index);
        connection.map(|connection| *connection)
    }

    /// Puts a connection's present deadline into the queue, if it is not there already.
    pub(crate) fn reschedule(&mut self, slot: Slot) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let Some(deadline) = entry.connection.as_ref().map(|connection| connection.deadline()) else {
            return;
        };
        if entry.queued.is_none_or(|queued| deadline < queued) {
            entry.queued = Some(deadline);
            self.deadlines.push(Reverse((deadline, slot)));
        }
    }

    /// The next connection whose deadline is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Slot> {
        while let Some(&Reverse((at, slot))) = self.deadlines.peek() {
            if at > now {
                return None;
            }
            self.deadlines.pop();
            let Some(entry) = self.entry_mut(slot) else { continue };
            if entry.queued != Some(at) {
                continue;
            }
            entry.queued = None;
            let deadline = entry.connection.as_ref().map(|connection| connection.deadline());
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Some(slot);
            }
            self.reschedule(slot);
        }
        None
    }

    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// All connections, the oldest first.
    pub(crate) fn slots_by_age(&self) -> Vec<Slot> {
        let mut slots: Vec<_> =
            self.by_key.values().filter_map(|&slot| Some((self.get(slot)?.facts.first_seen, slot))).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Removes the oldest connection that carried nothing, or else the oldest.
    fn evict(&mut self) -> Option<Connection> {
        while let Some(slot) = self.unproven.pop_front() {
            match self.get(slot) {
                Some(connection) if connection.carried_payload() => self.proven.push_back(slot),
                Some(_) => return self.remove(slot),
                None => {}
            }
        }
        while let Some(slot) = self.proven.pop_front() {
            if self.get(slot).is_some() {
                return self.remove(slot);
            }
        }
        None
    }

    /// Drops from the eviction queues what has left the table by itself.
    fn forget_removed(&mut self) {
        let mut queues = (std::mem::take(&mut self.unproven), std::mem::take(&mut self.proven));
        queues.0.retain(|&slot| self.get(slot).is_some());
        queues.1.retain(|&slot| self.get(slot).is_some());
        (self.unproven, self.proven) = queues;
    }

    fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.index as usize).filter(|entry| entry.generation == slot.generation)
    }

    fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.index as usize).filter(|entry| entry.generation == slot.generation)
    }
}
