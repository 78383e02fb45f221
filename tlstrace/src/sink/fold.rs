//! Repeats of one failure, folded: the first is shown at once, what follows within a while as one line with a count.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::engine::timestamp::Timestamp;
use crate::entry::Entry;

use super::text::Row;

/// How long repeats are collected.
const WINDOW: Duration = Duration::from_secs(10);
/// Most kinds of failure that are folded at once. Further ones are shown as they come.
const MAX_WINDOWS: usize = 256;
/// Most clients that are told apart in a window.
const MAX_CLIENTS: usize = 1000;

/// Windows in which repeats are counted.
#[derive(Debug, Default)]
pub(super) struct Folds {
    open: BTreeMap<Key, Window>,
}

/// What is alike about repeats: what went wrong, and where.
type Key = (String, SocketAddr, Option<String>);

#[derive(Debug)]
struct Window {
    since: Timestamp,
    repeats: u64,
    clients: BTreeSet<IpAddr>,
    last: Option<Row>,
}

/// Repeats that are to be shown now.
#[derive(Debug)]
pub(super) struct Folded {
    /// How many, at least one.
    pub(super) repeats: u64,
    pub(super) clients: usize,
    /// Over what time.
    pub(super) within: Duration,
    pub(super) last: Row,
}

impl Folds {
    /// Takes an entry and what it looks like; gives the row back if it is to be shown at once.
    pub(super) fn take(&mut self, entry: &Entry<'_>, row: Row) -> Option<Row> {
        let key = (
            entry.verdict.clone().into_owned(),
            entry.server,
            entry.server_name.clone().map(std::borrow::Cow::into_owned),
        );
        if let Some(window) = self.open.get_mut(&key) {
            window.repeats += 1;
            if window.clients.len() < MAX_CLIENTS {
                window.clients.insert(entry.client.ip());
            }
            window.last = Some(row);
            return None;
        }
        if self.open.len() < MAX_WINDOWS {
            self.open.insert(key, Window::from(entry.time));
        }
        Some(row)
    }

    /// When the next window ends.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.open.values().map(|window| window.since.after(WINDOW)).min()
    }

    /// Ends the windows that are over at `now`. Where something was repeated, the next one begins.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Folded> {
        let mut due = Vec::new();
        self.open.retain(|_, window| {
            let end = window.since.after(WINDOW);
            if end > now {
                return true;
            }
            let ended = std::mem::replace(window, Window::from(end.max(now)));
            let folded = ended.folded(end);
            let goes_on = folded.is_some();
            due.extend(folded);
            goes_on
        });
        due.sort_by_key(|folded| folded.last.at);
        due
    }

    /// Ends all windows.
    pub(super) fn finish(&mut self) -> Vec<Folded> {
        let mut rest: Vec<_> = std::mem::take(&mut self.open)
            .into_values()
            .filter_map(|window| {
                let last = window.last.as_ref()?.at;
                window.folded(last)
            })
            .collect();
        rest.sort_by_key(|folded| folded.last.at);
        rest
    }
}

impl Window {
    fn from(since: Timestamp) -> Self {
        Self { since, repeats: 0, clients: BTreeSet::new(), last: None }
    }

    fn folded(self, end: Timestamp) -> Option<Folded> {
        Some(Folded {
            repeats: self.repeats,
            clients: self.clients.len(),
            within: end.since(self.since),
            last: self.last?,
        })
    }
}
