//! Lines of several nodes as one: in the order of time, and a connection that two nodes saw once.
//!
//! A connection has the same id wherever it is seen under the same addresses. Of two verdicts on it the better informed
//! one stays, and takes from the other the names that only that node knew.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::engine::facts::ConnectionId;
use crate::engine::recent::Recent;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Details, Entry};
use crate::verdict::Confidence;

/// A node prints verdicts at most so much out of order: what waited for a time-out comes after what did not.
pub(super) const DISORDER: Duration = Duration::from_mins(1);
/// Most lines that wait for earlier ones.
const MAX_WAITING: usize = 1 << 16;
/// Most connections that are remembered after their line was printed.
const MAX_PRINTED: u16 = u16::MAX;

/// A line that was read.
pub(super) struct Item {
    pub(super) entry: Entry<'static>,
    pub(super) details: Details<'static>,
    /// What stood before the object.
    pub(super) prefix: Vec<u8>,
    pub(super) object: Value,
    /// As it was read; none if there is more to the object by now.
    pub(super) line: Option<Vec<u8>>,
    /// Who saw it: by its name, or by where the line came from.
    pub(super) observer: String,
}

/// Lines in order.
#[derive(Default)]
pub(super) struct Merge {
    waiting: BTreeMap<Place, Item>,
    by_connection: HashMap<ConnectionId, Place>,
    printed: Recent<String, MAX_PRINTED>,
    count: u64,
    /// Lines on connections that have another.
    pub(super) duplicates: u64,
}

/// When, and in which order of reading.
type Place = (Timestamp, u64);

impl Merge {
    /// Takes a line.
    pub(super) fn add(&mut self, mut item: Item) {
        if let Some(id) = item.entry.connection {
            if self.printed.get(id).is_some_and(|observer| *observer != item.observer) {
                self.duplicates += 1;
                return;
            }
            if let Some(place) = self.by_connection.get(&id).copied()
                && let Some(other) = self.waiting.get_mut(&place)
                && other.observer != item.observer
            {
                self.duplicates += 1;
                if item.rank() <= other.rank() {
                    other.complete_with(&item);
                    return;
                }
                item.complete_with(other);
                self.waiting.remove(&place);
            }
        }
        self.count += 1;
        let place = (item.entry.time, self.count);
        if let Some(id) = item.entry.connection {
            self.by_connection.insert(id, place);
        }
        self.waiting.insert(place, item);
    }

    /// The first line, if it is of before `until` or too many wait.
    pub(super) fn next_before(&mut self, until: Timestamp) -> Option<Item> {
        let first = self.waiting.first_entry()?;
        if first.key().0 >= until && self.count_waiting() <= MAX_WAITING {
            return None;
        }
        self.next()
    }

    /// The first line, whatever may follow.
    pub(super) fn next(&mut self) -> Option<Item> {
        let (place, item) = self.waiting.pop_first()?;
        if let Some(id) = item.entry.connection {
            if self.by_connection.get(&id) == Some(&place) {
                self.by_connection.remove(&id);
            }
            self.printed.insert(id, item.observer.clone());
        }
        Some(item)
    }

    fn count_waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Item {
    /// How well informed it is.
    fn rank(&self) -> (u32, bool, bool, Confidence) {
        let is_complete = self.object.pointer("/tlstrace/capture/complete") == Some(&Value::Bool(true));
        let is_told = self.entry.verdict != "undetermined";
        (self.entry.revision, is_told, is_complete, self.entry.confidence)
    }

    /// Takes the names that only the other has.
    fn complete_with(&mut self, other: &Self) {
        let names = &mut self.entry.names;
        let sides = [
            ("client", &mut names.client, &other.entry.names.client),
            ("server", &mut names.server, &other.entry.names.server),
        ];
        for (side, own, others) in sides {
            if own.is_some() || others.is_none() {
                continue;
            }
            own.clone_from(others);
            self.line = None;
            let Some(Value::Object(fields)) = self.object.get_mut(side) else { continue };
            for name in ["k8s", "process"] {
                if let Some(value) = other.object.get(side).and_then(|fields| fields.get(name)) {
                    fields.insert(name.to_owned(), value.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::names::{Ends, Identity};

    fn item(observer: &str, second: u64, connection: u64) -> Item {
        let entry = Entry {
            time: Timestamp::from_nanos(second * 1_000_000_000),
            connection: Some(ConnectionId(connection)),
            ..Entry::sample()
        };
        let object = json!({"client": {}, "server": {}});
        let (details, prefix, line) = (Details::default(), Vec::new(), None);
        Item { entry, details, prefix, object, line, observer: observer.into() }
    }

    fn printed(mut merge: Merge) -> Vec<(String, u64)> {
        std::iter::from_fn(|| merge.next())
            .map(|item| (item.observer, item.entry.connection.unwrap().0))
            .collect()
    }

    #[test]
    fn lines_come_in_the_order_of_time_and_a_connection_of_two_nodes_once() {
        let mut merge = Merge::default();
        for item in [item("a", 3, 1), item("a", 1, 2), item("b", 2, 3), item("b", 3, 1)] {
            merge.add(item);
        }
        assert_eq!(merge.duplicates, 1);
        assert_eq!(printed(merge), [("a".into(), 2), ("b".into(), 3), ("a".into(), 1)]);
    }

    #[test]
    fn the_better_informed_stays_and_takes_the_others_names() {
        let identity = |pod: &str| Some(Arc::new(Identity { pod: Some(pod.into()), ..Identity::default() }));
        let mut poor = item("a", 1, 1);
        poor.entry.verdict = "undetermined".into();
        poor.entry.names = Ends { client: identity("client-0"), server: None };
        poor.object["client"]["k8s"] = json!({"pod": {"name": "client-0"}});
        let mut rich = item("b", 2, 1);
        rich.entry.names = Ends { client: None, server: identity("server-0") };
        let mut merge = Merge::default();
        merge.add(poor);
        merge.add(rich);
        let best = merge.next().unwrap();
        assert_eq!((&*best.observer, &*best.entry.verdict), ("b", "sni_missing"));
        assert_eq!(best.entry.names, Ends { client: identity("client-0"), server: identity("server-0") });
        assert_eq!(best.object["client"]["k8s"]["pod"]["name"], "client-0");
        assert!(merge.next().is_none());
        merge.add(item("a", 5, 1));
        assert!(merge.next().is_none(), "it was printed");
        merge.add(item("b", 5, 1));
        assert!(merge.next().is_some(), "a revision is news");
    }

    #[test]
    fn a_line_waits_until_no_earlier_one_can_come() {
        let mut merge = Merge::default();
        merge.add(item("a", 5, 1));
        assert!(merge.next_before(Timestamp::from_nanos(5_000_000_000)).is_none());
        assert!(merge.next_before(Timestamp::from_nanos(5_000_000_001)).is_some());
    }
}
