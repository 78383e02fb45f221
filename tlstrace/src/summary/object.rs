//! A summary for machines: one JSON object, schema `tlstrace-summary/1`. What is unknown is absent.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

use super::{CaptureTotals, EXPIRES_SOON, Incident, Latency, Summary, Table, Tally};
use crate::engine::timestamp::{Civil, Timestamp};

/// Most items of each list.
const MOST: usize = 20;

/// The object, to be serialised.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    pub summary: &'a Summary,
    pub capture: Option<&'a CaptureTotals>,
    pub hostname: Option<&'a str>,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Line::of(self).serialize(serializer)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp", skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observer: Option<Observer<'a>>,
    tlstrace: Body<'a>,
}

#[derive(Serialize)]
struct Observer<'a> {
    hostname: &'a str,
}

#[derive(Serialize)]
struct Body<'a> {
    schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    handshakes: u64,
    successes: u64,
    failures: u64,
    verdicts: Vec<Verdict<'a>>,
    incidents: Vec<IncidentFields<'a>>,
    listeners: Vec<Row>,
    server_names: Vec<Row>,
    clients: Vec<Row>,
    certificates: Vec<CertificateFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_us: Option<Quantiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<Capture<'a>>,
}

#[derive(Serialize)]
struct Verdict<'a> {
    verdict: &'a str,
    severity: &'static str,
    count: u64,
    first: String,
    last: String,
}

#[derive(Serialize)]
struct IncidentFields<'a> {
    verdict: &'a str,
    failures: u64,
    first: String,
    last: String,
    in_common: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<usize>,
    server_names: Vec<&'a str>,
    ja4: Vec<&'a str>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    handshakes: u64,
    failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_verdict: Option<String>,
}

#[derive(Serialize)]
struct CertificateFields<'a> {
    subject: &'a str,
    not_after: String,
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    last: String,
}

/// Microseconds.
#[derive(Serialize)]
struct Quantiles {
    p50: u64,
    p90: u64,
    p99: u64,
}

#[derive(Serialize)]
struct Capture<'a> {
    packets: u64,
    tcp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    losses: Vec<Missed<'a>>,
    unread: Vec<Missed<'a>>,
}

#[derive(Serialize)]
struct Missed<'a> {
    what: &'a str,
    count: u64,
}

/// Reads back what a capture counted, and on which host, if an object tells it.
pub fn read_capture(object: &serde_json::Value) -> Option<(Option<String>, CaptureTotals)> {
    #[derive(Deserialize)]
    struct Capture {
        packets: u64,
        tcp: u64,
        candidates: Option<u64>,
        events: Option<u64>,
        losses: Vec<Missed>,
        unread: Vec<Missed>,
    }

    #[derive(Deserialize)]
    struct Missed {
        what: String,
        count: u64,
    }

    let capture = Capture::deserialize(object.pointer("/tlstrace/capture")?).ok()?;
    let counts = |missed: Vec<Missed>| {
        let most = missed.into_iter().take(MOST);
        most.map(|missed| (missed.what.into(), missed.count)).collect()
    };
    let hostname = object.pointer("/observer/hostname").and_then(serde_json::Value::as_str);
    let totals = CaptureTotals {
        packets: capture.packets,
        tcp: capture.tcp,
        candidates: capture.candidates,
        events: capture.events,
        losses: counts(capture.losses),
        unread: counts(capture.unread),
    };
    Some((hostname.map(ToOwned::to_owned), totals))
}

impl<'a> Line<'a> {
    fn of(object: &Object<'a>) -> Self {
        let summary = object.summary;
        let period = summary.period();
        Self {
            timestamp: period.map(|(_, last)| last.to_string()),
            observer: object.hostname.map(|hostname| Observer { hostname }),
            tlstrace: Body {
                schema: "tlstrace-summary/1",
                since: period.map(|(first, _)| first.to_string()),
                until: period.map(|(_, last)| last.to_string()),
                handshakes: summary.handshakes(),
                successes: summary.successes(),
                failures: summary.failures(),
                verdicts: summary
                    .verdicts()
                    .into_iter()
                    .map(|(verdict, count)| Verdict {
                        verdict,
                        severity: count.severity.as_str(),
                        count: count.count,
                        first: count.first.to_string(),
                        last: count.last.to_string(),
                    })
                    .collect(),
                incidents: summary
                    .incidents()
                    .list()
                    .into_iter()
                    .take(MOST)
                    .map(IncidentFields::of)
                    .collect(),
                listeners: rows(summary.listeners()),
                server_names: rows(summary.server_names()),
                clients: rows(summary.clients()),
                certificates: certificates(summary, period.map(|(_, last)| last)),
                handshake_us: Quantiles::of(summary.latency()),
                capture: object.capture.map(|totals| Capture {
                    packets: totals.packets,
                    tcp: totals.tcp,
                    candidates: totals.candidates,
                    events: totals.events,
                    losses: missed(&totals.losses),
                    unread: missed(&totals.unread),
                }),
            },
        }
    }
}

impl<'a> IncidentFields<'a> {
    fn of(incident: &'a Incident) -> Self {
        Self {
            verdict: &incident.verdict,
            failures: incident.failures,
            first: incident.first.to_string(),
            last: incident.last.to_string(),
            in_common: incident.in_common().join(", "),
            network: incident.network(),
            clients: incident.clients.count(),
            servers: incident.servers.count(),
            server_names: incident.server_names.iter().take(MOST).map(|name| &**name).collect(),
            ja4: incident.ja4.iter().take(MOST).map(|ja4| &**ja4).collect(),
        }
    }
}

fn missed<'a>(counts: &'a [(Cow<'static, str>, u64)]) -> Vec<Missed<'a>> {
    counts.iter().map(|(what, count)| Missed { what, count: *count }).collect()
}

fn rows<K: Clone + Eq + std::hash::Hash + Ord + ToString>(table: &Table<K>) -> Vec<Row> {
    let row = |(key, tally): (&K, &Tally)| Row {
        name: key.to_string(),
        handshakes: tally.handshakes,
        failures: tally.failures,
        first: tally.first_failure.map(|time| time.to_string()),
        last: tally.last_failure.map(|time| time.to_string()),
        top_verdict: tally.top_verdict().map(|(verdict, _)| verdict.to_owned()),
    };
    table.failing(MOST).into_iter().map(row).collect()
}

fn certificates(summary: &Summary, now: Option<Timestamp>) -> Vec<CertificateFields<'_>> {
    let Some(now) = now else { return Vec::new() };
    let expiring = summary.certificates().expiring(now, EXPIRES_SOON);
    expiring
        .take(MOST)
        .map(|(not_after, subject, certificate)| CertificateFields {
            subject,
            not_after: date(not_after),
            server: certificate.server.to_string(),
            server_name: certificate.server_name.as_deref(),
            last: certificate.last_seen.to_string(),
        })
        .collect()
}

impl Quantiles {
    fn of(latency: &Latency) -> Option<Self> {
        let micros =
            |percent| Some(u64::try_from(latency.quantile(percent)?.as_micros()).unwrap_or(u64::MAX));
        Some(Self { p50: micros(50)?, p90: micros(90)?, p99: micros(99)? })
    }
}

/// `2026-11-22T10:00:00Z`.
fn date(seconds: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
