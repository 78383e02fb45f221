//! Numbers for Prometheus: what `tlstrace watch --metrics` exports, and as which text.
//!
//! A connection counts once, by its first verdict: counters cannot go down, so a revision moves nothing. Filters and
//! `--all` choose what is printed, not what is counted. No label holds an address, and none a server name unless
//! [`Metrics::with_certificates`] asked for it; all others have few values, whatever peers send.

#![forbid(unsafe_code)]

pub mod server;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter as Count;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tlstrace_common::skip::{Counter, Skip};

use crate::engine::facts::How;
use crate::entry::Entry;
use crate::tls::certificate::NameMatch;
use crate::tls::codepoints::ProtocolVersion;
use crate::verdict::{EndedHow, Severity, Verdict};

/// Upper bounds in seconds: from a neighbour in the same zone to a client that waits for its user.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All that is exported.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    handshakes: Family<HandshakeLabels, CounterWithExemplar<ExemplarLabels>>,
    durations: Histogram,
    alerts: Family<AlertLabels, Count>,
    packets: Family<PacketLabels, Count>,
    lost: Family<LossLabels, Count>,
    tracked: Gauge,
    certificates: Option<Certificates>,
}

/// What is read from elsewhere, each a total since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Connections that the engine follows now.
    pub tracked: usize,
    /// Connections that it forgot for want of room.
    pub evicted: u64,
    /// Events that could not be decoded.
    pub malformed: u64,
    /// Verdicts not printed: standard output was not read fast enough.
    pub output_full: u64,
    /// Verdicts not printed: writing failed.
    pub output_failed: u64,
    /// The same for what was not exported.
    pub export_full: u64,
    pub export_failed: u64,
}

/// The text formats of scrapes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// OpenMetrics 1.0, for who says that they understand it.
    OpenMetrics,
    /// The older format of Prometheus, for everybody else.
    Prometheus,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HandshakeLabels {
    verdict: &'static str,
    severity: &'static str,
    tls_version: &'static str,
}

/// Of an exemplar, which is no label of a series.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ExemplarLabels {
    connection_id: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AlertLabels {
    name: &'static str,
    side: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct PacketLabels {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct LossLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct BuildLabels {
    version: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct NameLabels {
    server_name: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("tlstrace");
        let handshakes = Family::default();
        registry.register("handshakes", "Connections by their first verdict", handshakes.clone());
        let durations = Histogram::new(BUCKETS);
        registry.register_with_unit(
            "handshake_duration",
            "ClientHello to the end of handshakes that were completed",
            Unit::Seconds,
            durations.clone(),
        );
        let alerts = Family::default();
        registry.register("alerts", "Alerts that ended a connection, by who sent them", alerts.clone());
        let packets = Family::default();
        registry.register(
            "packets",
            "Packets that the BPF programs saw, by what became of them",
            packets.clone(),
        );
        let lost = Family::default();
        registry.register("events_lost", "What was missed or could not be printed", lost.clone());
        let tracked = Gauge::default();
        registry.register("tracked_connections", "Connections followed at this moment", tracked.clone());
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "Always 1, the labels say which program it is", build);
        let certificates = None;
        Self { registry, handshakes, durations, alerts, packets, lost, tracked, certificates }
    }

    /// Exports also when the certificates of at most `capacity` server names expire. Only names that the certificate
    /// is for, as clients may ask for any; TLS 1.3 hides certificates.
    #[must_use]
    pub fn with_certificates(mut self, capacity: usize) -> Self {
        let certificates = Certificates::new(capacity);
        self.registry.register_with_unit(
            "certificate_not_after_timestamp",
            "When the certificate that was presented for a server name expires, since 1970",
            Unit::Seconds,
            certificates.not_after.clone(),
        );
        self.certificates = Some(certificates);
        self
    }

    /// Counts a verdict, unless it revises another.
    pub fn observe(&self, verdict: &Verdict) {
        if verdict.revision > 0 {
            return;
        }
        let labels = HandshakeLabels {
            verdict: verdict.id,
            severity: verdict.severity.as_str(),
            tls_version: tls_version(verdict.facts.version()),
        };
        // From a number to the line that tells of it: of what is benign, none may have been printed.
        let exemplar = (verdict.severity > Severity::Info)
            .then(|| ExemplarLabels { connection_id: verdict.facts.connection.to_string() });
        let time = UNIX_EPOCH + Duration::from_nanos(verdict.time().as_nanos());
        self.handshakes.get_or_create(&labels).inc_by(1, exemplar, Some(time));
        if let Some(duration) = Entry::of(verdict).handshake() {
            self.durations.observe(duration.as_secs_f64());
        }
        if let Some(labels) = AlertLabels::of(verdict) {
            self.alerts.get_or_create(&labels).inc();
        }
        if let Some(certificates) = &self.certificates {
            certificates.observe(verdict);
        }
    }

    /// Takes what others count; `count` is the sum over all CPUs of one element of the `COUNTERS` map.
    pub fn update(&self, count: impl Fn(Counter) -> u64, reading: &Reading) {
        let set = |metric: &Count, value| metric.inner().store(value, Ordering::Relaxed);
        let results = Skip::ALL.into_iter().map(Skip::counter).chain([Counter::Selected]);
        for counter in results {
            let labels = PacketLabels { result: counter.as_str() };
            set(&self.packets.get_or_create(&labels), count(counter));
        }
        let kernel = Counter::ALL.into_iter().filter(|counter| counter.is_loss());
        let kernel = kernel.map(|counter| (counter.as_str(), count(counter)));
        let rest = [
            ("connection_evicted", reading.evicted),
            ("malformed", reading.malformed),
            ("output_full", reading.output_full),
            ("output_failed", reading.output_failed),
            ("export_full", reading.export_full),
            ("export_failed", reading.export_failed),
        ];
        for (reason, value) in kernel.chain(rest) {
            set(&self.lost.get_or_create(&LossLabels { reason }), value);
        }
        self.tracked.set(i64::try_from(reading.tracked).unwrap_or(i64::MAX));
    }

    /// Everything as text.
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => prometheus(&text),
        }
    }
}

impl Format {
    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl AlertLabels {
    /// The alert that a verdict's line shows.
    fn of(verdict: &Verdict) -> Option<Self> {
        if let Some(root) = verdict.root
            && let How::Alert(alert) = root.how
        {
            return Some(Self {
                name: alert.description.name().unwrap_or("other"),
                side: root.role.as_str(),
            });
        }
        let ended = verdict.ended_by.filter(|ended| ended.how == EndedHow::Alert)?;
        Some(Self { name: "encrypted", side: ended.side.as_str() })
    }
}

/// A server can select any of 65,536 values.
fn tls_version(version: Option<ProtocolVersion>) -> &'static str {
    version.map_or("none", |version| version.name().unwrap_or("other"))
}

/// When certificates expire, of the names that were seen last.
#[derive(Debug)]
struct Certificates {
    not_after: Family<NameLabels, Gauge>,
    capacity: usize,
    seen: Mutex<Seen>,
}

/// When each name was seen last, counted in sightings.
#[derive(Debug, Default)]
struct Seen {
    last: HashMap<String, u64>,
    sightings: u64,
}

impl Certificates {
    fn new(capacity: usize) -> Self {
        Self { not_after: Family::default(), capacity, seen: Mutex::default() }
    }

    fn observe(&self, verdict: &Verdict) {
        let facts = &*verdict.facts;
        let chain = facts.server().certificates.as_ref();
        let name = facts.client_hello.as_ref().and_then(|hello| hello.server_name.as_ref());
        if let Some(leaf) = chain.and_then(|chain| chain.leaf())
            && let Some(name) = name
            && matches!(leaf.matches_name(name), NameMatch::Matches | NameMatch::CommonNameOnly)
        {
            self.set(&name.as_str(), leaf.not_after);
        }
    }

    fn set(&self, name: &str, not_after: i64) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(evicted) =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).see(&name, self.capacity)
        {
            self.not_after.remove(&NameLabels { server_name: evicted });
        }
        self.not_after.get_or_create(&NameLabels { server_name: name }).set(not_after);
    }
}

impl Seen {
    /// Notes a sighting; gives the name that has to make room for it.
    fn see(&mut self, name: &str, capacity: usize) -> Option<String> {
        self.sightings += 1;
        if let Some(last) = self.last.get_mut(name) {
            *last = self.sightings;
            return None;
        }
        let oldest = (self.last.len() >= capacity)
            .then(|| self.last.iter().min_by_key(|(_, last)| **last).map(|(name, _)| name.clone()))
            .flatten();
        if let Some(oldest) = &oldest {
            self.last.remove(oldest);
        }
        self.last.insert(name.to_owned(), self.sightings);
        oldest
    }
}

/// OpenMetrics in the older format: there, a counter has its suffix also where it is described, and units, exemplars and
/// the end are not written.
fn prometheus(open_metrics: &str) -> String {
    let described = |line: &'_ str, what| -> Option<(String, String)> {
        let (name, rest) = line.strip_prefix(what)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let types = open_metrics.lines().filter_map(|line| described(line, "# TYPE "));
    let counters: BTreeSet<_> = types.filter(|(_, kind)| kind == "counter").map(|(name, _)| name).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        // Only here are exemplars, and no label in front of one can hold what begins it.
        let line = match line.split_once(" # {") {
            Some((sample, _)) if line.starts_with("tlstrace_handshakes_total{") => sample,
            _ => line,
        };
        let suffixed = ["# HELP ", "# TYPE "].into_iter().find_map(|what| {
            let (name, rest) = described(line, what)?;
            counters.contains(&name).then(|| format!("{what}{name}_total {rest}"))
        });
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", suffixed.as_deref().unwrap_or(line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_count_is_a_total_and_zeros_are_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.update(|_| 0, &Reading::default());
        assert!(
            metrics
                .render(Format::OpenMetrics)
                .contains("tlstrace_events_lost_total{reason=\"ring_full\"} 0\n")
        );
        for _ in 0..2 {
            let count = |counter| if counter == Counter::Selected { 7 } else { 1 };
            metrics.update(count, &Reading { tracked: 3, output_full: 5, ..Reading::default() });
        }
        let text = metrics.render(Format::OpenMetrics);
        for line in [
            "tlstrace_packets_total{result=\"selected\"} 7\n",
            "tlstrace_packets_total{result=\"not_tcp\"} 1\n",
            "tlstrace_events_lost_total{reason=\"ring_full\"} 1\n",
            "tlstrace_events_lost_total{reason=\"output_full\"} 5\n",
            "tlstrace_tracked_connections 3\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("\"events\"") && !text.contains("event_bytes"), "they are no packets: {text}");
    }

    #[test]
    fn the_older_format_describes_counters_by_their_whole_name() {
        let metrics = Metrics::new();
        metrics.update(|_| 0, &Reading::default());
        let open = metrics.render(Format::OpenMetrics);
        assert!(open.contains("# TYPE tlstrace_packets counter\n") && open.ends_with("# EOF\n"), "{open}");
        let older = metrics.render(Format::Prometheus);
        assert!(older.contains("# TYPE tlstrace_packets_total counter\n"), "{older}");
        assert!(older.contains("# HELP tlstrace_packets_total Packets"), "{older}");
        assert!(older.contains("# TYPE tlstrace_handshake_duration_seconds histogram\n"), "{older}");
        assert!(!older.contains("# UNIT") && !older.contains("# EOF"), "{older}");
        let samples = |text: &str| {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(samples(&open), samples(&older));
    }

    #[test]
    fn names_of_certificates_are_as_many_as_asked_for_and_the_last_seen_stay() {
        let metrics = Metrics::new().with_certificates(2);
        let certificates = metrics.certificates.as_ref().unwrap();
        for (name, not_after) in [("a.example", 1), ("b.example", 2), ("A.example.", 3), ("c.example", 4)] {
            certificates.set(name, not_after);
        }
        let text = metrics.render(Format::OpenMetrics);
        let of = |name: &str| {
            format!("tlstrace_certificate_not_after_timestamp_seconds{{server_name=\"{name}\"}}")
        };
        assert!(text.contains(&format!("{} 3\n", of("a.example"))), "{text}");
        assert!(text.contains(&format!("{} 4\n", of("c.example"))), "{text}");
        assert!(!text.contains("b.example"), "{text}");
    }

    #[test]
    fn a_name_cannot_end_its_label() {
        let metrics = Metrics::new().with_certificates(2);
        metrics.certificates.as_ref().unwrap().set("a\"} 1\nb", 1);
        assert!(metrics.render(Format::Prometheus).contains(r#"{server_name="a\"} 1\nb"} 1"#));
    }

    #[test]
    fn versions_that_nobody_knows_share_a_label() {
        assert_eq!(tls_version(Some(ProtocolVersion::TLS1_3)), "1.3");
        assert_eq!(tls_version(Some(ProtocolVersion(0x1234))), "other");
        assert_eq!(tls_version(None), "none");
    }
}
