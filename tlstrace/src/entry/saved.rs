//! JSON lines that were saved, read back: those of `-o json` and of `-o gcp`, also inside the `jsonPayload` of a
//! Cloud Logging entry.
//!
//! A reader is more patient than a schema: fields that later versions add are left alone, and of those that are
//! missing only what a line cannot do without is an error.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{Detail, Details, Entry, Leaf, Timings};
use crate::aggregate::{Aggregate, Quantiles};
use crate::engine::facts::{ConnectionId, Role};
use crate::engine::timestamp::Timestamp;
use crate::names::{Ends, Identity, Process, Workload};
use crate::verdict::{Confidence, EndedBy, EndedHow, Severity};

/// A line that was read back.
#[derive(Clone, Debug)]
pub enum Saved {
    Verdict(Box<(Entry<'static>, Details<'static>)>),
    /// An object of schema `tlstrace-aggregate/1`.
    Aggregate(Box<Aggregate>),
    /// An object of schema `tlstrace-summary/1`.
    Summary(serde_json::Value),
}

/// The line is nothing that tlstrace wrote.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a line of tlstrace")]
pub struct NotOurs;

impl Saved {
    /// Reads one JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, NotOurs> {
        let value: serde_json::Value = serde_json::from_slice(json).map_err(|_| NotOurs)?;
        let value = match value {
            serde_json::Value::Object(mut fields) if fields.contains_key("jsonPayload") => {
                fields.remove("jsonPayload").unwrap_or_default()
            }
            value => value,
        };
        match value.pointer("/tlstrace/schema").and_then(serde_json::Value::as_str) {
            Some("tlstrace-aggregate/1") => Ok(Self::Aggregate(Box::new(aggregate(&value).ok_or(NotOurs)?))),
            Some("tlstrace-summary/1") => Ok(Self::Summary(value)),
            Some("tlstrace/1") => {
                let line: Line = serde_json::from_value(value).map_err(|_| NotOurs)?;
                Ok(Self::Verdict(Box::new(line.into_entry().ok_or(NotOurs)?)))
            }
            _ => Err(NotOurs),
        }
    }
}

fn aggregate(value: &serde_json::Value) -> Option<Aggregate> {
    let text = |pointer: &str| value.pointer(pointer)?.as_str();
    let time = |pointer: &str| Timestamp::parse(text(pointer)?);
    let micros = |pointer: &str| value.pointer(pointer)?.as_u64().map(Duration::from_micros);
    let quantiles = || {
        let [p50, p90, p99] =
            ["p50", "p90", "p99"].map(|name| micros(&format!("/tlstrace/handshake_us/{name}")));
        Some(Quantiles { p50: p50?, p90: p90?, p99: p99? })
    };
    let server = value.get("server").cloned().map(serde_json::from_value::<Endpoint>).transpose().ok()?;
    Some(Aggregate {
        start: time("/event/start")?,
        end: time("/event/end")?,
        verdict: text("/tlstrace/verdict")?.to_owned(),
        severity: Severity::parse(text("/tlstrace/severity")?)?,
        server: server.as_ref().map(|server| SocketAddr::new(server.ip, server.port)),
        server_name: text("/tls/client/server_name").map(str::to_owned),
        identity: server.and_then(|mut server| server.identity()),
        count: value.pointer("/tlstrace/count")?.as_u64()?,
        handshake: quantiles(),
        is_suppressed: value
            .pointer("/tlstrace/suppressed")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(false),
    })
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    client: Endpoint,
    server: Endpoint,
    #[serde(default)]
    tls: Tls,
    tlstrace: Trace,
    k8s: Option<Kubernetes>,
}

#[derive(Deserialize)]
struct Endpoint {
    ip: IpAddr,
    port: u16,
    k8s: Option<Kubernetes>,
    process: Option<ProcessFields>,
}

#[derive(Default, Deserialize)]
struct Tls {
    #[serde(default)]
    client: Client,
    server: Option<Server>,
}

#[derive(Default, Deserialize)]
struct Client {
    server_name: Option<String>,
    ja4: Option<String>,
}

#[derive(Deserialize)]
struct Server {
    subject: Option<String>,
    not_after: Option<String>,
}

#[derive(Deserialize)]
struct Trace {
    verdict: String,
    severity: String,
    #[serde(default)]
    confidence: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    evidence: Vec<Fact>,
    #[serde(default)]
    warnings: Vec<Fact>,
    #[serde(default)]
    alternatives: Vec<Alternative>,
    remedy: Option<String>,
    ended_by: Option<Ended>,
    connection_id: Option<String>,
    #[serde(default)]
    revision: u32,
    replaces: Option<String>,
    #[serde(default)]
    timings_us: Timings,
    capture: Option<Capture>,
}

#[derive(Deserialize)]
struct Fact {
    fact: String,
    detail: String,
}

#[derive(Deserialize)]
struct Alternative {
    verdict: String,
    why: String,
}

#[derive(Deserialize)]
struct Ended {
    side: String,
    how: String,
}

#[derive(Deserialize)]
struct Capture {
    complete: bool,
}

#[derive(Default, Deserialize)]
struct Kubernetes {
    pod: Option<Named>,
    namespace: Option<Named>,
    container: Option<Named>,
    workload: Option<WorkloadFields>,
    node: Option<Named>,
    service: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct WorkloadFields {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct ProcessFields {
    pid: u32,
    name: String,
}

impl Endpoint {
    fn identity(&mut self) -> Option<Arc<Identity>> {
        let process = self.process.take();
        let process = process.map(|process| Process { pid: process.pid, command: cut(process.name).into() });
        let identity = Identity { process, ..self.k8s.take().unwrap_or_default().into() };
        (!identity.is_empty()).then(|| Arc::new(identity))
    }
}

impl From<Kubernetes> for Identity {
    fn from(fields: Kubernetes) -> Self {
        let name = |named: Option<Named>| named.map(|named| cut(named.name).into());
        Self {
            namespace: name(fields.namespace),
            pod: name(fields.pod),
            container: name(fields.container),
            workload: fields.workload.map(|workload| Workload {
                kind: cut(workload.kind).into(),
                name: cut(workload.name).into(),
            }),
            node: name(fields.node),
            service: name(fields.service),
            process: None,
            gateway: None,
        }
    }
}

impl Line {
    /// `None` if a time or a severity is none.
    fn into_entry(mut self) -> Option<(Entry<'static>, Details<'static>)> {
        let Trace { verdict, severity, confidence, summary, evidence, warnings, alternatives, .. } =
            self.tlstrace;
        let severity = Severity::parse(&severity)?;
        let mut names = Ends { client: self.client.identity(), server: self.server.identity() };
        // A line may say of which pod it is without saying which end that is.
        if names == Ends::default() {
            names.server = self.k8s.map(|fields| Arc::new(fields.into()));
        }
        let is_failure = severity > Severity::Info;
        let entry = Entry {
            time: Timestamp::parse(&self.timestamp)?,
            severity,
            verdict: cut(verdict).into(),
            confidence: Confidence::parse(&confidence).unwrap_or(Confidence::Suspected),
            client: SocketAddr::new(self.client.ip, self.client.port),
            server: SocketAddr::new(self.server.ip, self.server.port),
            server_name: self.tls.client.server_name.map(cut).map(Cow::from),
            names,
            ended_by: self.tlstrace.ended_by.as_ref().and_then(Ended::parse),
            summary: summary.into(),
            connection: self
                .tlstrace
                .connection_id
                .and_then(|id| u64::from_str_radix(&id, 16).ok())
                .map(ConnectionId),
            revision: self.tlstrace.revision,
            replaces: self.tlstrace.replaces.map(Cow::from),
            ja4: self.tls.client.ja4.filter(|_| is_failure).map(cut).map(Cow::from),
            certificate: self.tls.server.and_then(|server| {
                let not_after = Timestamp::parse(&server.not_after?)?.as_secs().cast_signed();
                Some(Leaf { subject: cut(server.subject?).into(), not_after })
            }),
            timings: self.tlstrace.timings_us,
            is_whole: self.tlstrace.capture.is_none_or(|capture| capture.complete),
        };
        let facts = |facts: Vec<Fact>| {
            let details = facts.into_iter();
            details.map(|item| Detail { name: item.fact.into(), text: item.detail.into() }).collect()
        };
        let details = Details {
            evidence: facts(evidence),
            warnings: facts(warnings),
            alternatives: alternatives
                .into_iter()
                .map(|item| Detail { name: item.verdict.into(), text: item.why.into() })
                .collect(),
            remedy: self.tlstrace.remedy.filter(|_| is_failure).map(Cow::from),
        };
        Some((entry, details))
    }
}

/// A name of a length that can be kept for each of thousands of connections, whatever a line brings.
fn cut(mut name: String) -> String {
    const MOST: usize = 1024;
    if name.len() > MOST {
        name.truncate(name.floor_char_boundary(MOST));
        name.push('…');
    }
    name
}

impl Ended {
    fn parse(&self) -> Option<EndedBy> {
        let side = [Role::Client, Role::Server].into_iter().find(|role| role.as_str() == self.side)?;
        Some(EndedBy { side, how: EndedHow::parse(&self.how)? })
    }
}
