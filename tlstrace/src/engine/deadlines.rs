//! The queue of deadlines.
//!
//! Nearly all are the time of some segment and one of a few periods, and so those of a period come in order. A queue for
//! each takes them at one end and gives them at the other, whereas a heap of all would be searched from its top to its
//! bottom, through memory that is cold when it holds what thousands of connections have left there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::table::Slot;
use super::timestamp::Timestamp;

/// Connections by deadline. One may have several; whether a deadline still stands is for the caller to know.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The earliest deadline of all.
    first: Option<Timestamp>,
    /// Each in order, the earliest in front.
    in_order: [VecDeque<Deadline>; QUEUES],
    /// Those that fit nowhere.
    others: BinaryHeap<Reverse<Deadline>>,
}

type Deadline = (Timestamp, Slot);

/// Without a handshake, in one, after it, and after its end; and one for what is a little late.
const QUEUES: usize = 5;

impl Deadlines {
    pub(super) fn push(&mut self, at: Timestamp, slot: Slot) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        // Where the least is skipped, so that short periods keep a queue.
        let last = |queue: &&mut VecDeque<Deadline>| queue.back().map(|(last, _)| *last);
        let fitting = self.in_order.iter_mut().filter(|queue| last(queue).is_none_or(|last| last <= at));
        match fitting.max_by_key(last) {
            Some(queue) => queue.push_back((at, slot)),
            None => self.others.push(Reverse((at, slot))),
        }
    }

    /// The earliest deadline.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.first
    }

    /// Takes the earliest deadline, if it is not after `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Deadline> {
        let first = self.first.filter(|first| *first <= now)?;
        let is_first = |deadline: Option<&Deadline>| deadline.is_some_and(|(at, _)| *at == first);
        let due = match self.in_order.iter_mut().find(|queue| is_first(queue.front())) {
            Some(queue) => queue.pop_front(),
            None => self.others.pop().map(|Reverse(deadline)| deadline),
        };
        self.first = self.earliest();
        due
    }

    pub(super) fn len(&self) -> usize {
        self.in_order.iter().map(VecDeque::len).sum::<usize>() + self.others.len()
    }

    /// Drops the deadlines that do not stand any more.
    pub(super) fn retain(&mut self, mut stands: impl FnMut(Timestamp, Slot) -> bool) {
        for queue in &mut self.in_order {
            queue.retain(|(at, slot)| stands(*at, *slot));
        }
        self.others.retain(|Reverse((at, slot))| stands(*at, *slot));
        self.first = self.earliest();
    }

    fn earliest(&self) -> Option<Timestamp> {
        let queues = self.in_order.iter().filter_map(VecDeque::front);
        queues.chain(self.others.peek().map(|Reverse(first)| first)).map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    /// What is left, taken one by one.
    fn drain(deadlines: &mut Deadlines) -> Vec<Deadline> {
        std::iter::from_fn(|| deadlines.pop_due(at(u64::MAX))).collect()
    }

    #[test]
    fn what_is_not_due_stays() {
        let mut deadlines = Deadlines::default();
        deadlines.push(at(5), Slot::default());
        assert_eq!((deadlines.first(), deadlines.pop_due(at(4))), (Some(at(5)), None));
        assert_eq!(deadlines.pop_due(at(5)), Some((at(5), Slot::default())));
        assert_eq!((deadlines.first(), deadlines.len()), (None, 0));
    }

    #[test]
    fn deadlines_of_a_few_periods_need_no_heap() {
        let mut deadlines = Deadlines::default();
        for now in 0..1000 {
            for period in [10, 3000, 60_000, 150_000] {
                deadlines.push(at(now + period), Slot::default());
            }
            while deadlines.pop_due(at(now)).is_some() {}
        }
        assert!(deadlines.others.is_empty() && deadlines.len() > 3000);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn they_come_in_the_order_of_time(mut times in prop::collection::vec(0_u64..50, 0..100), limit in 0_u64..50) {
            let mut deadlines = Deadlines::default();
            for time in &times {
                deadlines.push(at(*time), Slot::default());
            }
            deadlines.retain(|time, _| time >= at(limit));
            times.retain(|time| *time >= limit);
            times.sort_unstable();
            prop_assert_eq!((deadlines.first(), deadlines.len()), (times.first().copied().map(at), times.len()));
            let drained: Vec<_> = drain(&mut deadlines).into_iter().map(|(time, _)| time).collect();
            prop_assert_eq!(drained, times.into_iter().map(at).collect::<Vec<_>>());
        }
    }
}
