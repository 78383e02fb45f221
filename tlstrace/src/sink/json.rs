//! One JSON object per verdict and line, schema `tlstrace/1`: field names of the Elastic Common Schema where
//! it has one, the rest under `tlstrace`. What is unknown is absent.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::IpAddr;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::engine::facts::{HandshakeFacts, How, Peer};
use crate::engine::segment::Direction;
use crate::engine::timestamp::{Civil, Timestamp};
use crate::tls::certificate::{CertificateChain, SubjectAltName};
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{AlertLevel, ProtocolVersion};
use crate::tls::fingerprint;
use crate::verdict::{Alternative, Evidence, Severity, Verdict};

use super::{Observer, Sink};

/// The JSON format.
#[derive(Default)]
pub(super) struct Json {
    line: Vec<u8>,
}

impl Sink for Json {
    fn emit(&mut self, verdict: &Verdict, observer: &Observer, out: &mut dyn Write) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, &Line::of(verdict, observer))?;
        self.line.push(b'\n');
        out.write_all(&self.line)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp", serialize_with = "display")]
    timestamp: Timestamp,
    event: Event,
    client: Endpoint,
    server: Endpoint,
    network: Network,
    #[serde(skip_serializing_if = "ObserverFields::is_empty")]
    observer: ObserverFields<'a>,
    tls: Tls<'a>,
    tlstrace: Trace<'a>,
}

#[derive(Serialize)]
struct Event {
    outcome: &'static str,
    /// Nanoseconds.
    duration: u64,
}

#[derive(Serialize)]
struct Endpoint {
    ip: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct Network {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
}

#[derive(Serialize)]
struct ObserverFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<Interface<'a>>,
}

impl ObserverFields<'_> {
    fn is_empty(&self) -> bool {
        self.hostname.is_none() && self.interface.is_none()
    }
}

#[derive(Serialize)]
struct Interface<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Tls<'a> {
    established: bool,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "display_option")]
    version: Option<ProtocolVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curve: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_protocol: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Client<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Certificates<'a>>,
}

#[derive(Serialize)]
struct Client<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<Cow<'a, str>>,
    ja3: String,
    ja4: String,
    legacy_version: String,
    #[serde(skip_serializing_if = "Names::is_empty")]
    supported_versions: Names<'a, ProtocolVersion>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    supported_ciphers: Names<'a, crate::tls::codepoints::CipherSuite>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    supported_groups: Names<'a, crate::tls::codepoints::NamedGroup>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    signature_algorithms: Names<'a, crate::tls::codepoints::SignatureScheme>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alpn: Vec<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Certificates<'a> {
    subject: &'a str,
    issuer: &'a str,
    not_before: String,
    not_after: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<Cow<'a, str>>,
    chain: Vec<&'a str>,
}

#[derive(Serialize)]
struct Trace<'a> {
    schema: &'static str,
    verdict: &'static str,
    severity: &'static str,
    blame: &'static str,
    confidence: &'static str,
    phase: &'static str,
    summary: &'a str,
    evidence: Items<'a, Evidence>,
    #[serde(skip_serializing_if = "Items::is_empty")]
    alternatives: Items<'a, Alternative>,
    remedy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<EndedBy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<AlertFields>,
    history: &'a str,
    timings_us: Timings,
    warnings: Items<'a, Evidence>,
    capture: Capture,
    #[serde(serialize_with = "display")]
    connection_id: crate::engine::facts::ConnectionId,
    revision: u32,
}

#[derive(Serialize)]
struct EndedBy {
    side: &'static str,
    how: &'static str,
}

#[derive(Serialize)]
struct AlertFields {
    side: &'static str,
    level: &'static str,
    code: u8,
    name: String,
    encrypted: bool,
}

/// Durations of `DIAGNOSIS.md` §10, in microseconds.
#[derive(Serialize)]
struct Timings {
    /// SYN to the end of TCP's handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_rtt: Option<u64>,
    /// From there to the whole ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_hello: Option<u64>,
    /// From there to the server's first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_hello: Option<u64>,
    /// From the ClientHello to the end of the handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake: Option<u64>,
}

#[derive(Serialize)]
struct Capture {
    complete: bool,
    gaps: u32,
    lost: u32,
}

impl<'a> Line<'a> {
    fn of(verdict: &'a Verdict, observer: &'a Observer) -> Self {
        let facts = &*verdict.facts;
        let direction = match facts.direction {
            Direction::Ingress => Some("inbound"),
            Direction::Egress => Some("outbound"),
            Direction::Unknown => None,
        };
        Self {
            timestamp: verdict.time(),
            event: Event {
                outcome: verdict.outcome(),
                duration: nanos(verdict.time().since(facts.first_seen)),
            },
            client: Endpoint::of(facts.client()),
            server: Endpoint::of(facts.server()),
            network: Network {
                kind: if facts.server().address.is_ipv4() { "ipv4" } else { "ipv6" },
                direction,
            },
            observer: ObserverFields {
                hostname: observer.hostname.as_deref(),
                interface: observer.interfaces.get(&facts.interface).map(|name| Interface { name }),
            },
            tls: Tls::of(facts),
            tlstrace: Trace::of(verdict),
        }
    }
}

impl Endpoint {
    fn of(peer: &Peer) -> Self {
        Self { ip: peer.address.ip(), port: peer.address.port() }
    }
}

impl<'a> Tls<'a> {
    fn of(facts: &'a HandshakeFacts) -> Self {
        let selected = facts.server_hello.as_deref();
        let version = facts.version();
        Self {
            established: facts.progress.complete.is_some(),
            version,
            version_protocol: version.map(|version| if version.0 <= 0x0300 { "ssl" } else { "tls" }),
            cipher: selected.map(|hello| hello.cipher_suite.to_string()),
            curve: facts.group().map(|group| group.to_string()),
            next_protocol: selected.and_then(|hello| hello.alpn.as_deref()).map(protocol_name),
            resumed: selected.map(|_| facts.progress.resumed),
            client: facts.client_hello.as_deref().map(Client::of),
            server: facts.server().certificates.as_ref().and_then(Certificates::of),
        }
    }
}

impl<'a> Client<'a> {
    fn of(hello: &'a ClientHello) -> Self {
        Self {
            server_name: hello.server_name.as_ref().map(|name| name.as_str()),
            ja3: fingerprint::ja3(hello),
            ja4: fingerprint::ja4(hello),
            legacy_version: hello.legacy_version.to_string(),
            supported_versions: Names(&hello.supported_versions, |version| version.is_grease()),
            supported_ciphers: Names(&hello.cipher_suites, |suite| suite.is_grease()),
            supported_groups: Names(&hello.supported_groups, |group| group.is_grease()),
            signature_algorithms: Names(&hello.signature_schemes, |scheme| scheme.is_grease()),
            alpn: hello
                .alpn
                .iter()
                .filter(|name| !matches!(***name, [a, b] if crate::tls::codepoints::is_grease(u16::from_be_bytes([a, b]))))
                .map(|name| protocol_name(name))
                .collect(),
        }
    }
}

impl<'a> Certificates<'a> {
    fn of(chain: &'a CertificateChain) -> Option<Self> {
        let leaf = chain.leaf()?;
        Some(Self {
            subject: &leaf.subject,
            issuer: &leaf.issuer,
            not_before: date(leaf.not_before),
            not_after: date(leaf.not_after),
            names: leaf.names.iter().filter_map(name_text).collect(),
            chain: chain.certificates.iter().map(|certificate| &*certificate.subject).collect(),
        })
    }
}

impl<'a> Trace<'a> {
    fn of(verdict: &'a Verdict) -> Self {
        let facts = &*verdict.facts;
        Self {
            schema: "tlstrace/1",
            verdict: verdict.id,
            severity: verdict.severity.as_str(),
            blame: verdict.blame.as_str(),
            confidence: verdict.confidence.as_str(),
            phase: facts.phase().as_str(),
            summary: &verdict.summary,
            evidence: Items(&verdict.evidence),
            alternatives: Items(&verdict.alternatives),
            remedy: verdict.remedy,
            reason: verdict.reason,
            ended_by: verdict
                .ended_by
                .map(|ended| EndedBy { side: ended.side.as_str(), how: ended.how.as_str() }),
            alerts: root_alert(verdict).into_iter().collect(),
            history: facts.history.as_str(),
            timings_us: Timings::of(facts),
            warnings: Items(&verdict.warnings),
            capture: Capture {
                complete: facts.is_complete_capture(),
                gaps: facts.capture.gaps,
                lost: facts.capture.lost,
            },
            connection_id: facts.connection,
            revision: verdict.revision,
        }
    }
}

impl Timings {
    fn of(facts: &HandshakeFacts) -> Self {
        let micros = |from: Option<Timestamp>, to: Option<Timestamp>| Some(nanos(to?.since(from?)) / 1000);
        let progress = &facts.progress;
        Self {
            tcp_rtt: micros(facts.tcp.syn, facts.tcp.established),
            client_hello: micros(facts.tcp.established, progress.client_hello),
            server_hello: micros(progress.client_hello, facts.server().first_payload),
            handshake: micros(progress.client_hello, progress.complete),
        }
    }
}

fn root_alert(verdict: &Verdict) -> Option<AlertFields> {
    let ending = verdict.root?;
    let How::Alert(alert) = ending.how else { return None };
    Some(AlertFields {
        side: ending.role.as_str(),
        level: if alert.level == AlertLevel::WARNING { "warning" } else { "fatal" },
        code: alert.description.0,
        name: alert.description.to_string(),
        encrypted: false,
    })
}

/// Items of a list in wire order, GREASE left out, by their names.
struct Names<'a, T>(&'a [T], fn(&T) -> bool);

impl<T> Names<'_, T> {
    fn is_empty(&self) -> bool {
        self.0.iter().all(self.1)
    }
}

impl<T: Display> Serialize for Names<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for item in self.0.iter().filter(|item| !(self.1)(item)) {
            list.serialize_element(&Shown(item))?;
        }
        list.end()
    }
}

struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Items<'a, T>(&'a [T]);

impl<T> Items<'_, T> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Serialize)]
struct EvidenceFields<'a> {
    fact: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
struct AlternativeFields<'a> {
    verdict: &'static str,
    why: &'a str,
}

impl Serialize for Items<'_, Evidence> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer
            .collect_seq(self.0.iter().map(|item| EvidenceFields { fact: item.fact, detail: &item.detail }))
    }
}

impl Serialize for Items<'_, Alternative> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().map(|item| AlternativeFields { verdict: item.verdict, why: &item.why }),
        )
    }
}

/// A protocol's name: text where it is text, hexadecimal otherwise.
fn protocol_name(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => text.into(),
        _ => name.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")).into(),
    }
}

fn name_text(name: &SubjectAltName) -> Option<Cow<'_, str>> {
    match name {
        SubjectAltName::Dns(name) | SubjectAltName::Uri(name) | SubjectAltName::Email(name) => {
            Some(Cow::Borrowed(name))
        }
        SubjectAltName::Ip(ip) => Some(ip.to_string().into()),
        SubjectAltName::Other => None,
    }
}

/// `2026-11-22T10:00:00Z`.
fn date(seconds: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn display<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
fn display_option<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl Verdict {
    /// `success`, `failure` or `unknown`.
    fn outcome(&self) -> &'static str {
        match (self.severity, self.id) {
            (_, "ok") => "success",
            (Severity::Info, _) => "unknown",
            (Severity::Warning | Severity::Error, _) => "failure",
        }
    }
}
