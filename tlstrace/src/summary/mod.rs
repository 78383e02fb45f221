//! What all verdicts together say: how many failed, of what, where, since when, and what they have in common.
//!
//! A [`Summary`] takes entries one by one and can be asked at any time; the summary at exit and at SIGUSR1, `top` and
//! reports read the same one. It is pure, and bounded whatever comes: tables forget what failed least, and say so.

#![forbid(unsafe_code)]

mod certificates;
mod incidents;
mod latency;
mod object;
mod table;
mod text;
mod timeline;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::aggregate::Aggregate;
use crate::engine::recent::Recent;
use crate::engine::timestamp::Timestamp;
use crate::entry::Entry;
use crate::verdict::Severity;

pub use certificates::{Certificate, Certificates, EXPIRES_SOON};
pub use incidents::{Few, Incident, Incidents};
pub use latency::Latency;
pub use object::{Object, read_capture};
pub use table::{MAX_KEYS, Table, Tally};
pub use text::{Share, Text, Times};
pub use timeline::{Step, Timeline};

/// Most verdict ids that are told apart: there are far fewer, but saved lines may bring any text.
const MAX_VERDICTS: usize = 512;
/// Most connections whose last verdict is remembered, in case it is revised.
const MAX_REVISABLE: u16 = 8192;
/// What stands for the ids beyond [`MAX_VERDICTS`].
const OTHER: &str = "other";

/// Counts of everything that was judged.
#[derive(Debug, Default)]
pub struct Summary {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    handshakes: u64,
    successes: u64,
    failures: u64,
    verdicts: BTreeMap<Arc<str>, Count>,
    listeners: Table<SocketAddr>,
    server_names: Table<String>,
    clients: Table<IpAddr>,
    incidents: Incidents,
    certificates: Certificates,
    latency: Latency,
    timeline: Timeline,
    /// Last verdicts, for as long as they may be revised.
    revisable: Recent<Said, MAX_REVISABLE>,
}

/// How often one verdict was given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Count {
    /// The highest that it was given with.
    pub severity: Severity,
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// What the source of the packets counted. It is not known for saved lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CaptureTotals {
    pub packets: u64,
    pub tcp: u64,
    /// Packets that were candidates for a handshake, where they are told apart.
    pub candidates: Option<u64>,
    pub events: Option<u64>,
    /// What was missed, in words.
    pub losses: Vec<(Cow<'static, str>, u64)>,
    /// Packets that may have mattered and were not read, in words.
    pub unread: Vec<(Cow<'static, str>, u64)>,
}

impl fmt::Display for CaptureTotals {
    /// `10 packets, 8 TCP, 5 candidates for a handshake, 4 events; nothing lost; not read: 2 IP fragments`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets, {} TCP", self.packets, self.tcp)?;
        if let Some(candidates) = self.candidates {
            write!(f, ", {candidates} candidates for a handshake")?;
        }
        if let Some(events) = self.events {
            write!(f, ", {events} events")?;
        }
        match &*self.losses {
            [] => f.write_str("; nothing lost")?,
            losses => write!(f, "; {}", phrases(losses))?,
        }
        match &*self.unread {
            [] => Ok(()),
            unread => write!(f, "; not read: {}", phrases(unread)),
        }
    }
}

/// `7 events lost, 1 event malformed`
fn phrases(counts: &[(Cow<'static, str>, u64)]) -> String {
    let phrases: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
    phrases.join(", ")
}

/// What was said about a connection.
#[derive(Clone, Debug)]
struct Said {
    verdict: Arc<str>,
    class: Class,
    time: Timestamp,
}

/// How a verdict counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Class {
    Success,
    Failure,
    /// Neither: benign, or unknown.
    Neither,
}

impl Summary {
    /// Counts an entry. A revision takes the place of what was said before about the connection.
    pub fn add(&mut self, entry: &Entry<'_>) {
        let class = Class::of(entry);
        let verdict = self.intern(&entry.verdict);
        let time = entry.time;
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = Some(self.last.map_or(time, |last| last.max(time)));
        let said = Said { verdict: Arc::clone(&verdict), class, time };
        let before = entry.connection.and_then(|id| self.revisable.insert(id, said));
        if entry.revision > 0
            && let Some(said) = before
        {
            self.take_back(entry, &said);
        }
        let seen = table::Seen { time, verdict: &verdict, class, handshake: entry.handshake(), count: 1 };
        self.count(&seen, entry.severity, time);
        self.listeners.add(&entry.server, &seen);
        if let Some(name) = &entry.server_name {
            self.server_names.add(&**name, &seen);
        }
        self.clients.add(&entry.client.ip(), &seen);
        if class == Class::Failure {
            self.incidents.add(&verdict, entry);
        }
        if let Some(leaf) = &entry.certificate {
            self.certificates.add(leaf, entry);
        }
        if let Some(handshake) = entry.handshake() {
            self.latency.add(handshake);
        }
    }

    /// Counts what an aggregate stands for, as of the end of its period. It tells neither clients nor what the verdicts
    /// have in common, and no latency but quantiles, which do not add up.
    pub fn add_aggregate(&mut self, aggregate: &Aggregate) {
        let Aggregate { start, end, severity, count, .. } = *aggregate;
        let class = Class::new(severity, &aggregate.verdict);
        let verdict = self.intern(&aggregate.verdict);
        self.first = Some(self.first.map_or(start, |first| first.min(start)));
        self.last = Some(self.last.map_or(end, |last| last.max(end)));
        let seen = table::Seen { time: end, verdict: &verdict, class, handshake: None, count };
        self.count(&seen, severity, start);
        if let Some(server) = &aggregate.server {
            self.listeners.add(server, &seen);
        }
        if let Some(name) = &aggregate.server_name {
            self.server_names.add(&**name, &seen);
        }
    }

    fn count(&mut self, seen: &table::Seen<'_>, severity: Severity, first: Timestamp) {
        let table::Seen { time, verdict, class, count, .. } = *seen;
        self.handshakes += count;
        match class {
            Class::Success => self.successes += count,
            Class::Failure => self.failures += count,
            Class::Neither => {}
        }
        let new = Count { severity, count: 0, first, last: time };
        let known = self.verdicts.entry(Arc::clone(verdict)).or_insert(new);
        known.count += count;
        known.severity = known.severity.max(severity);
        known.first = known.first.min(first);
        known.last = known.last.max(time);
        self.timeline.add(time, verdict, class, count);
    }

    /// Times of the first and the last entry.
    pub fn period(&self) -> Option<(Timestamp, Timestamp)> {
        self.first.zip(self.last)
    }

    /// Connections that were judged.
    pub fn handshakes(&self) -> u64 {
        self.handshakes
    }

    /// Those that were completed without objection.
    pub fn successes(&self) -> u64 {
        self.successes
    }

    /// Warnings and errors.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Every verdict that was given, the most frequent first.
    pub fn verdicts(&self) -> Vec<(&str, Count)> {
        let mut verdicts: Vec<_> = self.verdicts.iter().map(|(id, count)| (&**id, *count)).collect();
        verdicts.retain(|(_, count)| count.count > 0);
        verdicts.sort_by_key(|(id, count)| (std::cmp::Reverse(count.count), *id));
        verdicts
    }

    /// By the server's address.
    pub fn listeners(&self) -> &Table<SocketAddr> {
        &self.listeners
    }

    /// By the name that the client asked for.
    pub fn server_names(&self) -> &Table<String> {
        &self.server_names
    }

    /// By the client's address.
    pub fn clients(&self) -> &Table<IpAddr> {
        &self.clients
    }

    /// Failures that have their verdict and their time in common.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Server certificates that were seen in the clear.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// How long completed handshakes took.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// When failures happened.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    fn take_back(&mut self, entry: &Entry<'_>, said: &Said) {
        let Said { verdict, class, time } = said;
        let class = *class;
        self.handshakes = self.handshakes.saturating_sub(1);
        match class {
            Class::Success => self.successes = self.successes.saturating_sub(1),
            Class::Failure => {
                self.failures = self.failures.saturating_sub(1);
                self.incidents.take_back(verdict);
            }
            Class::Neither => {}
        }
        if let Some(count) = self.verdicts.get_mut(&**verdict) {
            count.count = count.count.saturating_sub(1);
        }
        self.listeners.take_back(&entry.server, verdict, class);
        if let Some(name) = &entry.server_name {
            self.server_names.take_back(&**name, verdict, class);
        }
        self.clients.take_back(&entry.client.ip(), verdict, class);
        self.timeline.take_back(*time, verdict, class);
    }

    fn intern(&self, verdict: &str) -> Arc<str> {
        match self.verdicts.get_key_value(verdict) {
            Some((known, _)) => Arc::clone(known),
            None if self.verdicts.len() < MAX_VERDICTS => verdict.into(),
            None => OTHER.into(),
        }
    }
}

impl Class {
    fn of(entry: &Entry<'_>) -> Self {
        Self::new(entry.severity, &entry.verdict)
    }

    fn new(severity: Severity, verdict: &str) -> Self {
        if severity > Severity::Info {
            Self::Failure
        } else if verdict == "ok" {
            Self::Success
        } else {
            Self::Neither
        }
    }
}

#[cfg(test)]
mod tests;
