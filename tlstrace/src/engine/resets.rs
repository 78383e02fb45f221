//! What this node's kernel says of RSTs that it sent, and which RST on the wire each of them is.
//!
//! A report may come before or after the segment. Reports are kept for a while, and asked for when a connection is
//! judged. A RST is recognised by its numbers, which address translation leaves alone.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Ending, HandshakeFacts, How, Reset, Role};
use super::timestamp::Timestamp;

/// A RST that this node's kernel sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalReset {
    pub timestamp: Timestamp,
    /// Who sends the RST, as the kernel that sends it sees it: address translation may follow.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Numbers of the RST itself; the acknowledgement is 0 if it has none.
    pub sequence: u32,
    pub acknowledgement: u32,
    /// The kernel's name for the reason, such as `TCP_ABORT_ON_CLOSE`.
    pub reason: Option<Arc<str>>,
    /// Whose act it was, where it was a process's.
    pub process: Option<Process>,
}

/// A process, as the kernel knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// In the initial PID namespace.
    pub pid: u32,
    /// What the process calls itself: not to be trusted.
    pub command: String,
}

/// Most reports that are kept.
const MAX_REPORTS: usize = 4096;
/// A report and its segment are at most so far apart: softirqs may be late on a busy node.
const WINDOW: Duration = Duration::from_secs(1);
/// For a RST that leaves by the stack that sends it, it is microseconds, or as long as the sender may be preempted.
const LATE: Duration = Duration::from_millis(20);

/// The reports of late.
#[derive(Debug, Default)]
pub(crate) struct LocalResets {
    by_numbers: HashMap<(u32, u32), LocalReset>,
    /// The keys of `by_numbers` in the order in which they came.
    order: VecDeque<(Timestamp, (u32, u32))>,
    /// When the latest RST came of which there should be a report.
    expected: Option<Timestamp>,
    /// Between these two points in time every report has come.
    told: Option<(Timestamp, Timestamp)>,
}

impl LocalResets {
    pub(crate) fn add(&mut self, report: LocalReset) {
        let now = report.timestamp;
        while let Some(&(at, numbers)) = self.order.front()
            && (self.order.len() >= MAX_REPORTS || now.since(at) > 2 * WINDOW)
        {
            self.order.pop_front();
            self.by_numbers.remove(&numbers);
        }
        let numbers = (report.sequence, report.acknowledgement);
        // Of those that repeat a RST, the first one counts.
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_numbers.entry(numbers) {
            entry.insert(report);
            self.order.push_back((now, numbers));
        }
    }

    /// A RST has come of which there should be a report.
    pub(crate) fn expect(&mut self, at: Timestamp) {
        self.expected = self.expected.max(Some(at));
    }

    pub(crate) fn is_expecting(&self, now: Timestamp) -> bool {
        self.expected.is_some_and(|at| now.since(at) < WINDOW)
    }

    /// All reports of what happened after `since` and before `until` have been added.
    pub(crate) fn vouch(&mut self, since: Timestamp, until: Timestamp) {
        self.told = Some((since, until));
    }

    /// Adds to the facts what was reported of the connection's resets, and what should have been and was not.
    pub(crate) fn join(&self, facts: &mut HandshakeFacts) {
        let [client, server] = [Role::Client, Role::Server].map(|role| facts.peer(role).address);
        for Ending { role, how, time, .. } in &mut facts.endings {
            let How::Reset(reset) = how else { continue };
            let (from, to) = if *role == Role::Client { (client, server) } else { (server, client) };
            if facts.reset_reports.iter().any(|report| reset.is(report)) {
                continue;
            }
            match self.find(reset, *time, from, to) {
                Some(report) => facts.reset_reports.push(report.clone()),
                None => reset.is_unreported = reset.is_own && self.is_unreported(*time, from, to),
            }
        }
    }

    /// Whether a RST at `time` would have been reported and was not.
    fn is_unreported(&self, time: Timestamp, from: SocketAddr, to: SocketAddr) -> bool {
        self.told.is_some_and(|(since, until)| since.after(LATE) < time && time.after(LATE) < until)
            && !self.by_numbers.values().any(|report| {
                // Another namespace may use the same addresses; better say nothing than the wrong thing.
                report.local == from && report.remote == to && apart(report.timestamp, time) <= WINDOW
            })
    }

    fn find(&self, reset: &Reset, time: Timestamp, from: SocketAddr, to: SocketAddr) -> Option<&LocalReset> {
        let report = self.by_numbers.get(&(reset.sequence, reset.acknowledgement))?;
        // Both numbers agree by chance once in 2⁶⁴; one alone needs an endpoint that agrees, too.
        let fits = report.sequence != 0 && report.acknowledgement != 0
            || report.local == from
            || report.remote == to;
        (apart(report.timestamp, time) <= WINDOW && fits).then_some(report)
    }
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

impl Reset {
    /// Whether `report` is about this RST.
    pub(crate) fn is(&self, report: &LocalReset) -> bool {
        (self.sequence, self.acknowledgement) == (report.sequence, report.acknowledgement)
    }
}
