//! Verdicts that are waiting to be better informed.
//!
//! A bare reset of the first client that a listener is seen with can only be suspected to come from a missing
//! `server_name`. When others, who sent one, are accepted afterwards, that is known, and the verdict is given again.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::verdict::{Confidence, Judgement, Severity, Specificity};

use super::facts::{ConnectionId, HandshakeFacts, Phase};
use super::timestamp::Timestamp;

/// Most that wait, of all listeners and of one.
const MAX_DOUBTS: usize = 512;
const MAX_PER_LISTENER: usize = 8;
/// Bytes of messages of the longest connection that waits: a long chain and a hello with keys of every kind.
const MAX_WEIGHT: usize = 32 * 1024;
/// Whoever looks at a verdict does so soon; later the configuration may have changed.
const PATIENCE: Duration = Duration::from_mins(10);

/// A verdict that may not be the last word.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) facts: Arc<HandshakeFacts>,
    pub(super) revision: u32,
    /// What was said.
    pub(super) verdict: &'static str,
    /// The listener's history has counted it.
    pub(super) is_counted: bool,
    rank: (Specificity, Confidence),
}

impl Doubt {
    /// `None` if what a listener does to others cannot change this judgement.
    pub(super) fn of(
        judgement: &Judgement,
        facts: &Arc<HandshakeFacts>,
        revision: u32,
        is_counted: bool,
    ) -> Option<Self> {
        let finding = &judgement.finding;
        let is_certain =
            finding.confidence > Confidence::Suspected && finding.specificity == Specificity::Cause;
        let is_failure = finding.severity.unwrap_or(judgement.rule.severity()) > Severity::Info
            && facts.phase() < Phase::Complete
            && facts.client().bytes > 0;
        (is_failure && !is_certain && facts.weight() <= MAX_WEIGHT).then(|| Self {
            facts: Arc::clone(facts),
            revision,
            verdict: judgement.rule.id(),
            is_counted,
            rank: finding.rank(),
        })
    }

    /// Whether a judgement says more, or something else.
    pub(super) fn is_bettered_by(&self, judgement: &Judgement) -> bool {
        judgement.rule.id() != self.verdict || judgement.finding.rank() > self.rank
    }

    fn listener(&self) -> SocketAddr {
        self.facts.server().address
    }
}

/// All of them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Doubts(VecDeque<Doubt>);

impl Doubts {
    /// Whether there are any about this listener.
    pub(super) fn concern(&self, listener: SocketAddr) -> bool {
        self.0.iter().any(|doubt| doubt.listener() == listener)
    }

    pub(super) fn push(&mut self, doubt: Doubt) {
        let of_listener = |other: &&Doubt| other.listener() == doubt.listener();
        if self.0.iter().filter(of_listener).count() >= MAX_PER_LISTENER
            && let Some(oldest) = self.0.iter().position(|other| of_listener(&other))
        {
            self.0.remove(oldest);
        } else if self.0.len() >= MAX_DOUBTS {
            self.0.pop_front();
        }
        self.0.push_back(doubt);
    }

    /// Drops what was in doubt about a connection on which something else is said.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.0.retain(|doubt| doubt.facts.connection != connection);
    }

    /// Takes out those about this listener that are still of interest.
    pub(super) fn take(&mut self, listener: SocketAddr, now: Timestamp) -> Vec<Doubt> {
        self.0.retain(|doubt| now.since(doubt.facts.last_seen) < PATIENCE);
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(|doubt| doubt.listener() == listener);
        self.0 = left.into();
        taken
    }
}
