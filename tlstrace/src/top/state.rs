//! What the screen knows: taken in verdict by verdict, bounded, and given out as a [`Model`] to draw.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::model::{self, Explained, Failure, FailureKey, Listener, Model};
use super::series::{Bucket, Series};
use crate::aggregate::Aggregate;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Details, Entry};
use crate::names::Identity;
use crate::sink::Clean;
use crate::summary::{CaptureTotals, Few, Summary, Text};
use crate::verdict::Severity;

/// Most kinds of failure, each at one listener and for one server name; the one that was quiet longest is forgotten.
const MAX_FAILURES: usize = 512;
/// Most server names that are told apart at one listener.
const MAX_NAMES: usize = 16;
/// How many of the last failures of a kind are told with their clients.
const MAX_RECENT: usize = 6;
/// Most notices that are kept.
const MAX_NOTES: usize = 100;

/// Everything that was seen since the start, or since the counts were set to zero.
#[derive(Debug)]
pub struct State {
    source: String,
    summary: Summary,
    all: Series,
    listeners: HashMap<SocketAddr, OfListener>,
    failures: HashMap<FailureKey, OfFailure>,
    since: Option<Timestamp>,
    now: Timestamp,
    /// Somebody tells what time it is.
    is_told_time: bool,
    is_ended: bool,
    capture: Option<CaptureTotals>,
    notes: VecDeque<String>,
    /// Seconds east of UTC.
    offset: i32,
    changes: u64,
}

#[derive(Debug, Default)]
struct OfListener {
    series: Series,
    /// Who has the address; of those who told, the last.
    who: Option<Arc<Identity>>,
    /// What clients called it, how often.
    names: Vec<(String, u64)>,
}

/// Failures of one kind.
#[derive(Debug)]
struct OfFailure {
    count: u64,
    first: Timestamp,
    clients: Few<IpAddr>,
    recent: VecDeque<(Timestamp, SocketAddr)>,
    last: Arc<Failure>,
}

impl State {
    /// `offset` is what clocks on the screen are ahead of UTC, in seconds.
    pub fn new(offset: i32) -> Self {
        Self {
            source: String::new(),
            summary: Summary::default(),
            all: Series::default(),
            listeners: HashMap::new(),
            failures: HashMap::new(),
            since: None,
            now: Timestamp::default(),
            is_told_time: false,
            is_ended: false,
            capture: None,
            notes: VecDeque::new(),
            offset,
            changes: 0,
        }
    }

    /// What is watched, in a few words.
    pub fn set_source(&mut self, source: &str) {
        self.source = Clean(source).to_string();
        self.changes += 1;
    }

    /// Takes in a verdict; `details` are asked for where it is a failure.
    pub fn add<'a>(&mut self, entry: &Entry<'_>, details: impl FnOnce() -> Details<'a>) {
        self.now = self.now.max(entry.time);
        self.since = Some(self.since.map_or(entry.time, |since| since.min(entry.time)));
        self.changes += 1;
        self.summary.add(entry);
        let was_failure = entry.replaces.as_ref().is_some_and(|replaced| self.take_back(entry, replaced));
        let counted = Bucket {
            handshakes: u32::from(entry.revision == 0),
            failures: u32::from(entry.is_failure() && !was_failure),
        };
        self.all.add(entry.time, counted);
        if !self.listeners.contains_key(&entry.server) {
            self.make_room();
        }
        let listener = self.listeners.entry(entry.server).or_default();
        listener.series.add(entry.time, counted);
        if let Some(who) = &entry.names.server {
            listener.who = Some(Arc::clone(who));
        }
        if let Some(name) = entry.server_name.as_deref().filter(|_| entry.revision == 0) {
            listener.name(name, 1);
        }
        if entry.is_failure() {
            self.add_failure(entry, &details());
        }
    }

    /// Takes in a line that stands for many verdicts.
    pub fn add_aggregate(&mut self, aggregate: &Aggregate) {
        let Aggregate { start, end, severity, count, .. } = *aggregate;
        self.now = self.now.max(end);
        self.since = Some(self.since.map_or(start, |since| since.min(start)));
        self.changes += 1;
        self.summary.add_aggregate(aggregate);
        let handshakes = u32::try_from(count).unwrap_or(u32::MAX);
        let failures = if severity > Severity::Info { handshakes } else { 0 };
        let counted = Bucket { handshakes, failures };
        self.all.add(end, counted);
        let Some(server) = aggregate.server else { return };
        if !self.listeners.contains_key(&server) {
            self.make_room();
        }
        let listener = self.listeners.entry(server).or_default();
        listener.series.add(end, counted);
        if let Some(who) = &aggregate.identity {
            listener.who = Some(Arc::clone(who));
        }
        if let Some(name) = &aggregate.server_name {
            listener.name(name, count);
        }
    }

    /// Time passes, whatever comes.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.is_told_time = true;
        self.now = self.now.max(now);
    }

    /// Time passes where nobody tells what time it is: in a stream of saved lines that has not ended.
    pub fn pass(&mut self, time: Duration) {
        if self.since.is_some() && !self.is_told_time && !self.is_ended {
            self.now = self.now.after(time);
        }
    }

    /// Takes in what the source of the packets counted so far.
    pub fn set_capture(&mut self, capture: CaptureTotals) {
        self.capture = Some(capture);
        self.changes += 1;
    }

    /// Takes in what one of several sources counted in all.
    pub fn add_capture(&mut self, of_one: &CaptureTotals) {
        let all = self.capture.get_or_insert_default();
        all.packets += of_one.packets;
        all.tcp += of_one.tcp;
        self.changes += 1;
    }

    /// Takes in what is said to the user in a line.
    pub fn note(&mut self, line: &str) {
        if self.notes.len() >= MAX_NOTES {
            self.notes.pop_front();
        }
        self.notes.push_back(Clean(line).to_string());
        self.changes += 1;
    }

    /// Nothing more will come.
    pub fn end(&mut self) {
        self.is_ended = true;
        self.changes += 1;
    }

    /// Counts from zero again.
    pub fn reset(&mut self) {
        self.summary = Summary::default();
        self.all = Series::default();
        self.listeners.clear();
        self.failures.clear();
        self.since = (!self.is_ended).then_some(self.now).filter(|now| *now > Timestamp::default());
        self.changes += 1;
    }

    /// Grows with whatever changes what is to be seen, seconds included.
    pub fn version(&self) -> (u64, u64) {
        (self.changes, self.now.as_secs())
    }

    /// The sum for people, as after a replay.
    pub fn summary_text(&self) -> String {
        self.text().to_string()
    }

    /// How things are now.
    pub fn model(&self) -> Model {
        let listeners = self.summary.listeners();
        let rows = listeners.iter().filter_map(|(address, tally)| {
            let of = self.listeners.get(address)?;
            let kinds = tally.kinds().map(|(verdict, count)| (Clean(verdict).to_string(), count));
            Some(Listener {
                address: *address,
                who: of.who.as_deref().and_then(model::who),
                names: of.names_by_count(),
                handshakes: tally.handshakes,
                successes: tally.successes,
                failures: tally.failures,
                kinds: kinds.collect(),
                median: tally.latency.as_ref().and_then(|latency| latency.quantile(50)),
                p99: tally.latency.as_ref().and_then(|latency| latency.quantile(99)),
                last_seen: tally.last_seen,
                last_failure: tally.last_failure,
                series: of.series.clone(),
            })
        });
        let mut failures: Vec<_> = self.failures.values().map(OfFailure::shown).collect();
        // Within a second the order must not depend on which of two kinds was just seen: it would never rest.
        failures.sort_by(|a, b| {
            let place = |failure: &Failure| (failure.last.as_secs(), failure.count);
            place(b).cmp(&place(a)).then_with(|| a.key.cmp(&b.key))
        });
        let text = self.text();
        Model {
            source: self.source.clone(),
            since: self.since,
            now: self.now,
            is_ended: self.is_ended,
            handshakes: self.summary.handshakes(),
            successes: self.summary.successes(),
            failed: self.summary.failures(),
            all: self.all.clone(),
            incidents: text.incidents(),
            certificates: text.certificates(self.now),
            listeners: rows.collect(),
            forgotten: listeners.forgotten(),
            failures,
            capture: self.capture.clone(),
            notes: self.notes.iter().cloned().collect(),
            offset: self.offset,
        }
    }

    fn text(&self) -> Text<'_> {
        Text { summary: &self.summary, offset: self.offset }
    }

    /// Forgets the failure that a revision replaces; says whether there was one.
    fn take_back(&mut self, entry: &Entry<'_>, replaced: &str) -> bool {
        let key = FailureKey::new(entry, replaced);
        let Some(failure) = self.failures.get_mut(&key) else { return false };
        failure.count = failure.count.saturating_sub(1);
        if failure.count == 0 {
            self.failures.remove(&key);
        }
        true
    }

    fn add_failure(&mut self, entry: &Entry<'_>, details: &Details<'_>) {
        let key = FailureKey::new(entry, &entry.verdict);
        let last = Arc::new(Failure::new(key.clone(), entry, Explained::of(details)));
        if let Some(failure) = self.failures.get_mut(&key) {
            failure.count += 1;
            failure.last = last;
            failure.remember(entry);
            return;
        }
        if self.failures.len() >= MAX_FAILURES
            && let Some(quietest) =
                self.failures.iter().min_by_key(|(_, failure)| failure.last.last).map(|(key, _)| key.clone())
        {
            self.failures.remove(&quietest);
        }
        let mut failure =
            OfFailure { count: 1, first: entry.time, clients: Few::default(), recent: VecDeque::new(), last };
        failure.remember(entry);
        self.failures.insert(key, failure);
    }

    /// Forgets the series of listeners that the summary has forgotten.
    fn make_room(&mut self) {
        if self.listeners.len() >= crate::summary::MAX_KEYS {
            let known = self.summary.listeners();
            self.listeners.retain(|address, _| known.get(address).is_some());
        }
    }
}

impl OfListener {
    fn name(&mut self, name: &str, times: u64) {
        let shown = Clean(name).to_string();
        if let Some((_, count)) = self.names.iter_mut().find(|(known, _)| *known == shown) {
            *count += times;
        } else if self.names.len() < MAX_NAMES {
            self.names.push((shown, times));
        }
    }

    fn names_by_count(&self) -> Vec<(String, u64)> {
        let mut names = self.names.clone();
        names.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then_with(|| a.cmp(b)));
        names
    }
}

impl OfFailure {
    fn remember(&mut self, entry: &Entry<'_>) {
        self.clients.add(&entry.client.ip(), |client| *client);
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_back();
        }
        self.recent.push_front((entry.time, entry.client));
    }

    fn shown(&self) -> Failure {
        Failure {
            count: self.count,
            first: self.first,
            clients: self.clients.count(),
            recent: self.recent.iter().copied().collect(),
            ..Failure::clone(&self.last)
        }
    }
}
