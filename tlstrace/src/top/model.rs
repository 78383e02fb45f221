//! What is drawn: one moment of a [`State`](super::State), all of its texts safe for a terminal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::series::{Bucket, Series, Span};
use crate::engine::facts::Role;
use crate::engine::timestamp::{Civil, Timestamp};
use crate::entry::{Detail, Details, Entry};
use crate::names::Identity;
use crate::sink::Clean;
use crate::summary::CaptureTotals;
use crate::verdict::{Confidence, EndedBy, Severity};

/// One moment.
#[derive(Clone, Debug)]
pub struct Model {
    /// What is watched.
    pub source: String,
    /// Since when is counted; `None`: nothing was seen.
    pub since: Option<Timestamp>,
    pub now: Timestamp,
    /// Nothing more will come.
    pub is_ended: bool,
    pub handshakes: u64,
    pub successes: u64,
    pub failed: u64,
    pub all: Series,
    /// What the failures have in common, in sentences; the one with most failures first.
    pub incidents: Vec<String>,
    /// Certificates that end soon, in sentences; the soonest first.
    pub certificates: Vec<String>,
    pub listeners: Vec<Listener>,
    /// How many listeners were forgotten for want of room.
    pub forgotten: u64,
    /// Newest first.
    pub failures: Vec<Failure>,
    /// `None`: saved lines do not tell.
    pub capture: Option<CaptureTotals>,
    /// What was said to the user, oldest first.
    pub notes: Vec<String>,
    /// Seconds east of UTC.
    pub offset: i32,
}

/// An address that clients connect to.
#[derive(Clone, Debug)]
pub struct Listener {
    pub address: SocketAddr,
    /// Who has the address, as far as that was told last.
    pub who: Option<String>,
    /// What clients call it and how often, the most frequent first.
    pub names: Vec<(String, u64)>,
    pub handshakes: u64,
    pub successes: u64,
    pub failures: u64,
    /// Failures by verdict, the most frequent first.
    pub kinds: Vec<(String, u64)>,
    /// Time from ClientHello to the end of the handshake.
    pub median: Option<Duration>,
    pub p99: Option<Duration>,
    pub last_seen: Timestamp,
    pub last_failure: Option<Timestamp>,
    pub series: Series,
}

/// What failures are of one kind by.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FailureKey {
    pub server: SocketAddr,
    pub verdict: String,
    pub server_name: Option<String>,
}

/// Failures of one kind: how many, and the newest of them.
#[derive(Clone, Debug)]
pub struct Failure {
    pub key: FailureKey,
    pub count: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    pub severity: Severity,
    pub confidence: Confidence,
    pub ended_by: Option<EndedBy>,
    pub client: SocketAddr,
    /// How many clients; `None`: more than are told apart.
    pub clients: Option<usize>,
    /// When it happened last, and to whom, newest first.
    pub recent: Vec<(Timestamp, SocketAddr)>,
    pub ja4: Option<String>,
    /// Who the client and the server of the newest are, where that is known.
    pub ends: Vec<(Role, String)>,
    pub summary: String,
    pub explained: Arc<Explained>,
}

/// What stands behind a verdict.
#[derive(Clone, Debug, Default)]
pub struct Explained {
    pub evidence: Vec<Point>,
    pub warnings: Vec<Point>,
    /// By the id of the other verdict.
    pub alternatives: Vec<Point>,
    pub remedy: Option<String>,
}

/// A named text.
#[derive(Clone, Debug)]
pub struct Point {
    pub name: String,
    pub text: String,
}

impl Model {
    /// `14:02:11`, as the user's clock has it.
    pub fn clock(&self, time: Timestamp) -> String {
        let Civil { hour, minute, second, .. } =
            Civil::of(time.as_secs().cast_signed() + i64::from(self.offset));
        format!("{hour:02}:{minute:02}:{second:02}")
    }

    /// How long has been counted.
    pub fn period(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| self.now.since(since))
    }

    /// How much of a span is shown in [`Self::cells`].
    pub fn shown(&self, span: Span) -> Duration {
        let all = Duration::from_secs(span.seconds());
        // Both ends are in the middle of a bucket.
        let some = self.period() + Duration::from_secs(span.bucket_seconds());
        if self.is_ended { some.min(all) } else { all }
    }

    /// Where [`Self::cells`] begin.
    pub fn begin(&self, span: Span) -> Timestamp {
        let shown = u64::try_from(self.shown(span).as_nanos()).unwrap_or(u64::MAX);
        Timestamp::from_nanos(self.now.as_nanos().saturating_sub(shown))
    }

    /// Handshakes a second in a span; of what has passed of it, if that is less.
    pub fn rate(&self, series: &Series, span: Span) -> f64 {
        let handshakes: u32 = series.until(self.now, span).iter().map(|bucket| bucket.handshakes).sum();
        let seconds = (self.period().as_secs() + 1).min(span.seconds());
        f64::from(handshakes) / f64::from(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The span in at most so many cells, oldest first. Of what has ended, the part in which something was seen.
    pub fn cells(&self, series: &Series, span: Span, cells: usize) -> Vec<Bucket> {
        let buckets = series.until(self.now, span);
        let all = buckets.len();
        let shown = self.shown(span).as_secs().div_ceil(span.bucket_seconds());
        let shown = usize::try_from(shown).map_or(all, |shown| shown.clamp(1, all));
        let buckets = buckets.get(all - shown..).unwrap_or_default();
        let each = buckets.len().div_ceil(cells.max(1));
        // From the newest: what does not fill a cell is the oldest.
        let mut cells: Vec<_> = buckets
            .rchunks(each)
            .map(|chunk| chunk.iter().copied().fold(Bucket::default(), Bucket::plus))
            .collect();
        cells.reverse();
        cells
    }
}

impl Listener {
    /// The most frequent failure.
    pub fn top_verdict(&self) -> Option<&str> {
        self.kinds.first().map(|(verdict, _)| &**verdict)
    }

    /// Successes among the handshakes that ended one way or the other; `None` if none did.
    pub fn share(&self) -> Option<f64> {
        share(self.successes, self.failures)
    }
}

/// The part that succeeded of what succeeded or failed, 0 to 1.
pub fn share(successes: u64, failures: u64) -> Option<f64> {
    let all = successes + failures;
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    (all > 0).then(|| successes as f64 / all as f64)
}

impl FailureKey {
    /// Of an entry, if its verdict were `verdict`.
    pub(super) fn new(entry: &Entry<'_>, verdict: &str) -> Self {
        Self {
            server: entry.server,
            verdict: Clean(verdict).to_string(),
            server_name: entry.server_name.as_deref().map(clean),
        }
    }
}

impl Failure {
    pub(super) fn new(key: FailureKey, entry: &Entry<'_>, explained: Explained) -> Self {
        Self {
            key,
            count: 1,
            first: entry.time,
            last: entry.time,
            severity: entry.severity,
            confidence: entry.confidence,
            ended_by: entry.ended_by,
            client: entry.client,
            clients: Some(1),
            recent: Vec::new(),
            ja4: entry.ja4.as_deref().map(clean),
            ends: [Role::Client, Role::Server]
                .into_iter()
                .filter_map(|role| Some((role, who(entry.names.of(role)?)?)))
                .collect(),
            summary: clean(&entry.summary),
            explained: Arc::new(explained),
        }
    }

    /// `error`, and where it is no observation, how sure it is; who ended it, and how.
    pub fn remarks(&self) -> String {
        let mut remarks = vec![self.severity.to_string(), self.confidence.to_string()];
        remarks.extend(self.ended_by.map(|ended| format!("ended by {} {}", ended.side.as_str(), ended.how)));
        remarks.join(", ")
    }
}

impl Explained {
    pub(super) fn of(details: &Details<'_>) -> Self {
        let points = |details: &[Detail<'_>]| details.iter().map(Point::of).collect();
        Self {
            evidence: points(&details.evidence),
            warnings: points(&details.warnings),
            alternatives: points(&details.alternatives),
            remedy: details.remedy.as_deref().map(clean),
        }
    }
}

impl Point {
    fn of(detail: &Detail<'_>) -> Self {
        Self { name: clean(&detail.name), text: clean(&detail.text) }
    }
}

/// All that is known of an end: `shop/web-7d9f, Deployment web, container envoy, svc web, on node-1`.
pub(super) fn who(identity: &Identity) -> Option<String> {
    let Identity { pod, container, workload, node, service, process, .. } = identity;
    let name = identity.to_string();
    let is_pod = pod.is_some();
    let parts = [
        Some(name).filter(|name| !name.is_empty()),
        workload.as_ref().map(|workload| format!("{} {}", workload.kind, workload.name)),
        container.as_ref().map(|container| format!("container {container}")),
        service.as_ref().filter(|_| is_pod).map(|service| format!("svc {service}")),
        process.as_ref().map(|process| format!("{} (pid {})", process.command, process.pid)),
        node.as_ref().filter(|_| is_pod).map(|node| format!("on {node}")),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| clean(&parts.join(", ")))
}

fn clean(text: &str) -> String {
    Clean(text).to_string()
}
