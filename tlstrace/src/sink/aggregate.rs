//! Counts of verdicts as lines: an object of schema `tlstrace-aggregate/1`, and text.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::Observer;
use super::clean::Clean;
use super::json::{Kubernetes, outcome};
use crate::aggregate::Aggregate;
use crate::verdict::words;

/// The object.
#[derive(Serialize)]
pub(super) struct Object<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    event: Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observer: Option<Host<'a>>,
    tlstrace: Trace<'a>,
}

#[derive(Serialize)]
struct Event {
    outcome: &'static str,
    start: String,
    end: String,
}

#[derive(Serialize)]
struct Server<'a> {
    ip: std::net::IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<Kubernetes<'a>>,
}

#[derive(Serialize)]
struct Tls<'a> {
    client: Client<'a>,
}

#[derive(Serialize)]
struct Client<'a> {
    server_name: &'a str,
}

#[derive(Serialize)]
struct Host<'a> {
    hostname: &'a str,
}

#[derive(Serialize)]
struct Trace<'a> {
    schema: &'static str,
    verdict: &'a str,
    severity: &'static str,
    count: u64,
    suppressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_us: Option<Micros>,
}

#[derive(Serialize)]
struct Micros {
    p50: u64,
    p90: u64,
    p99: u64,
}

impl<'a> Object<'a> {
    pub(super) fn of(aggregate: &'a Aggregate, observer: &'a Observer) -> Self {
        let Aggregate { start, end, verdict, severity, server, server_name, .. } = aggregate;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self {
            timestamp: end.to_string(),
            event: Event {
                outcome: outcome(*severity, verdict),
                start: start.to_string(),
                end: end.to_string(),
            },
            server: server.map(|server: SocketAddr| Server {
                ip: server.ip(),
                port: server.port(),
                k8s: aggregate.identity.as_deref().and_then(Kubernetes::of),
            }),
            tls: server_name.as_deref().map(|server_name| Tls { client: Client { server_name } }),
            observer: observer.hostname.as_deref().map(|hostname| Host { hostname }),
            tlstrace: Trace {
                schema: "tlstrace-aggregate/1",
                verdict,
                severity: severity.as_str(),
                count: aggregate.count,
                suppressed: aggregate.is_suppressed,
                handshake_us: aggregate.handshake.map(|handshake| Micros {
                    p50: micros(handshake.p50),
                    p90: micros(handshake.p90),
                    p99: micros(handshake.p99),
                }),
            },
        }
    }
}

/// The sentence: `412 in 10 s, handshakes of 3.1 ms (median), 4 ms (90 %), 12 ms (99 %)`.
pub(super) fn sentence(aggregate: &Aggregate) -> String {
    let Aggregate { start, end, count, handshake, is_suppressed, .. } = aggregate;
    let mut text = format!("{count} in {}", words::duration(end.since(*start)));
    if *is_suppressed {
        text.push_str(" beyond the rate of lines (--max-rate)");
    }
    if let Some(handshake) = handshake {
        let [p50, p90, p99] = [handshake.p50, handshake.p90, handshake.p99].map(words::duration);
        let _ = write!(text, ", handshakes of {p50} (median), {p90} (90 %), {p99} (99 %)");
    }
    text
}

/// Where they went: `→ api.example.com (10.4.0.9:8443)`.
pub(super) fn destination(aggregate: &Aggregate) -> String {
    let name = aggregate.identity.as_ref().map(|identity| Clean(&identity.to_string()).to_string());
    let server = match (aggregate.server, name.filter(|name| !name.is_empty())) {
        (None, _) => "several servers".to_owned(),
        (Some(server), Some(name)) => format!("{name}:{}", server.port()),
        (Some(server), None) => server.to_string(),
    };
    match &aggregate.server_name {
        Some(name) => format!("→ {} ({server})", Clean(name)),
        None => format!("→ {server}"),
    }
}
