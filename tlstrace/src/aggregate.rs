//! Verdicts that are counted instead of printed: those that `--aggregate` names, and those beyond `--max-rate`.
//!
//! Counts are kept by verdict, listener and server name, for a period that ends at a whole multiple of its length, so
//! that several nodes' periods are the same. Pure, and bounded: what finds no room is counted without its listener.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::glob::Glob;
use crate::engine::timestamp::Timestamp;
use crate::entry::Entry;
use crate::names::Identity;
use crate::summary::Latency;
use crate::verdict::Severity;

/// Most listeners and server names that are told apart in a period.
const MAX_GROUPS: usize = 4096;
/// How long verdicts beyond the rate are counted until that is said.
const SUPPRESSED_FOR: Duration = Duration::from_secs(10);

/// What stands for many verdicts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Aggregate {
    /// When the first of them came, and when the period ended.
    pub start: Timestamp,
    pub end: Timestamp,
    pub verdict: String,
    pub severity: Severity,
    /// `None`: several, for want of room.
    pub server: Option<SocketAddr>,
    pub server_name: Option<String>,
    /// Who the server is.
    pub identity: Option<Arc<Identity>>,
    pub count: u64,
    /// Of the handshakes that were completed, if any was.
    pub handshake: Option<Quantiles>,
    /// Each would have had a line of its own, had there been fewer.
    pub is_suppressed: bool,
}

/// How long handshakes took: so many percent of them no longer than that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
}

/// Counts of the current periods.
#[derive(Debug)]
pub struct Aggregates {
    /// By what a verdict's id must match, and for how long.
    periods: Vec<(Glob, Duration)>,
    /// Most verdicts that are printed a second.
    max_rate: Option<u32>,
    /// A second, and how many were printed in it.
    rate: (u64, u32),
    groups: HashMap<Key, Group>,
    now: Timestamp,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    verdict: String,
    listener: Option<(SocketAddr, Option<String>)>,
    is_suppressed: bool,
}

#[derive(Debug)]
struct Group {
    severity: Severity,
    start: Timestamp,
    end: Timestamp,
    identity: Option<Arc<Identity>>,
    count: u64,
    latency: Latency,
}

impl Aggregates {
    pub fn new(periods: Vec<(Glob, Duration)>, max_rate: Option<u32>) -> Self {
        Self { periods, max_rate, rate: (0, 0), groups: HashMap::new(), now: Timestamp::default() }
    }

    /// Whether verdicts like this one are asked for as counts.
    pub fn are_for(&self, entry: &Entry<'_>) -> bool {
        self.period_of(&entry.verdict).is_some()
    }

    /// Counts the verdict, if it is not to be printed.
    pub fn take(&mut self, entry: &Entry<'_>) -> bool {
        self.now = self.now.max(entry.time);
        let period = self.period_of(&entry.verdict);
        if period.is_none() && !self.exceeds_rate() {
            return false;
        }
        let is_suppressed = period.is_none();
        let mut key = Key {
            verdict: entry.verdict.clone().into_owned(),
            listener: Some((entry.server, entry.server_name.clone().map(Into::into))),
            is_suppressed,
        };
        let most = self.max_rate.filter(|_| is_suppressed).map_or(MAX_GROUPS, |rate| rate as usize);
        if self.groups.len() >= most && !self.groups.contains_key(&key) {
            key.listener = None;
        }
        let end = end_of_period(self.now, period.unwrap_or(SUPPRESSED_FOR));
        let group = self.groups.entry(key).or_insert_with(|| Group {
            severity: entry.severity,
            start: entry.time,
            end,
            identity: entry.names.server.clone(),
            count: 0,
            latency: Latency::default(),
        });
        group.count += 1;
        group.severity = group.severity.max(entry.severity);
        group.start = group.start.min(entry.time);
        if group.identity != entry.names.server {
            group.identity = None;
        }
        entry.handshake().into_iter().for_each(|handshake| group.latency.add(handshake));
        true
    }

    /// When the next period ends.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.groups.values().map(|group| group.end).min()
    }

    /// Ends the periods that are over at `now`.
    pub fn due(&mut self, now: Timestamp) -> Vec<Aggregate> {
        self.now = self.now.max(now);
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        in_order(self.groups.extract_if(|_, group| group.end <= now))
    }

    /// Ends all periods.
    pub fn finish(&mut self) -> Vec<Aggregate> {
        in_order(self.groups.drain())
    }

    fn period_of(&self, verdict: &str) -> Option<Duration> {
        self.periods.iter().find(|(pattern, _)| pattern.matches(verdict)).map(|(_, period)| *period)
    }

    fn exceeds_rate(&mut self) -> bool {
        let Some(most) = self.max_rate else { return false };
        let second = self.now.as_secs();
        if self.rate.0 != second {
            self.rate = (second, 0);
        }
        self.rate.1 = self.rate.1.saturating_add(1);
        self.rate.1 > most
    }
}

fn in_order(groups: impl Iterator<Item = (Key, Group)>) -> Vec<Aggregate> {
    let mut aggregates: Vec<_> = groups.map(|(key, group)| group.close(key)).collect();
    aggregates.sort_by(|a, b| {
        let order = |of: &Aggregate| (of.end, of.verdict.clone(), of.server, of.server_name.clone());
        order(a).cmp(&order(b))
    });
    aggregates
}

impl Group {
    fn close(self, key: Key) -> Aggregate {
        let Key { verdict, listener, is_suppressed } = key;
        let quantile = |percent| self.latency.quantile(percent);
        let (server, server_name) =
            listener.map_or((None, None), |(server, server_name)| (Some(server), server_name));
        Aggregate {
            start: self.start,
            end: self.end,
            verdict,
            severity: self.severity,
            identity: self.identity.filter(|_| server.is_some()),
            server,
            server_name,
            count: self.count,
            handshake: quantile(50).zip(quantile(90)).zip(quantile(99)).map(|((p50, p90), p99)| Quantiles {
                p50,
                p90,
                p99,
            }),
            is_suppressed,
        }
    }
}

/// The next whole multiple of `period` after `now`.
fn end_of_period(now: Timestamp, period: Duration) -> Timestamp {
    let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    let begun = now.as_nanos() / period;
    Timestamp::from_nanos((begun + 1).saturating_mul(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timings;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_millis(millis))
    }

    fn ok(millis: u64, server_name: &'static str) -> Entry<'static> {
        Entry {
            time: at(millis),
            verdict: "ok".into(),
            severity: Severity::Info,
            server_name: Some(server_name.into()),
            timings: Timings { handshake: Some(3000), ..Timings::default() },
            ..Entry::sample()
        }
    }

    fn aggregates(max_rate: Option<u32>) -> Aggregates {
        Aggregates::new(vec![(Glob::new("ok"), Duration::from_secs(10))], max_rate)
    }

    #[test]
    fn what_is_asked_for_as_counts_is_counted_by_name_until_the_period_ends() {
        let mut aggregates = aggregates(None);
        for millis in [1000, 2000, 9000] {
            assert!(aggregates.take(&ok(millis, "a.example")));
        }
        assert!(aggregates.take(&ok(3000, "b.example")));
        assert!(!aggregates.take(&Entry { time: at(3000), ..Entry::sample() }), "a failure has its line");
        assert_eq!(aggregates.deadline(), Some(at(10_000)));
        assert!(aggregates.due(at(9999)).is_empty());
        let [a, b] = &*aggregates.due(at(10_000)) else { panic!() };
        assert_eq!((a.server_name.as_deref(), a.count, a.is_suppressed), (Some("a.example"), 3, false));
        assert_eq!((a.start, a.end), (at(1000), at(10_000)));
        assert!(a.handshake.unwrap().p99.abs_diff(Duration::from_millis(3)) < Duration::from_millis(1));
        assert_eq!((b.server_name.as_deref(), b.count), (Some("b.example"), 1));
        assert_eq!(aggregates.deadline(), None);
    }

    #[test]
    fn a_verdict_that_is_told_late_opens_no_period_that_is_over() {
        let mut aggregates = aggregates(None);
        assert!(aggregates.due(at(10_500)).is_empty());
        assert!(aggregates.take(&ok(9900, "a.example")));
        assert_eq!(aggregates.deadline(), Some(at(20_000)));
    }

    #[test]
    fn beyond_the_rate_verdicts_are_counted_and_none_is_lost() {
        let mut aggregates = aggregates(Some(2));
        let failure = |port: u16| Entry {
            time: at(0),
            server: SocketAddr::from(([192, 0, 2, 1], port)),
            ..Entry::sample()
        };
        let printed = (1..=10).filter(|port| !aggregates.take(&failure(*port))).count();
        assert_eq!(printed, 2);
        assert!(!aggregates.take(&Entry { time: at(1000), ..failure(1) }), "another second");
        let rest = aggregates.finish();
        assert!(rest.len() <= 3 && rest.iter().all(|aggregate| aggregate.is_suppressed));
        assert_eq!(rest.iter().map(|aggregate| aggregate.count).sum::<u64>(), 8);
        assert!(rest.iter().any(|aggregate| aggregate.server.is_none()), "there is room for two listeners");
    }

    #[test]
    fn memory_is_bounded_and_counts_are_right() {
        let mut aggregates = aggregates(None);
        for number in 0..10_000 {
            let name = format!("{number}.example");
            aggregates.take(&Entry { server_name: Some(name.into()), ..ok(0, "") });
        }
        let rest = aggregates.finish();
        assert!(rest.len() <= MAX_GROUPS + 1);
        assert_eq!(rest.iter().map(|aggregate| aggregate.count).sum::<u64>(), 10_000);
    }
}
