//! One JSON object per verdict and line, schema `tlstrace/1`: field names of the Elastic Common Schema where
//! it has one, the rest under `tlstrace`. What is unknown is absent.

use std::borrow::Cow;
use std::fmt::Display;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use crate::aggregate::Aggregate;
use crate::engine::facts::{HandshakeFacts, How};
use crate::engine::locality::Direction;
use crate::engine::segment;
use crate::engine::timestamp::{Civil, Timestamp};
use crate::entry::{self, Timings};
use crate::names::Identity;
use crate::tls::certificate::{Certificate, CertificateChain};
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{
    AlertLevel, CipherSuite, NamedGroup, ProtocolVersion, SignatureScheme, is_grease,
};
use crate::tls::fingerprint;
use crate::tls::handshake::CertificateRequest;
use crate::verdict::{Alternative, EndedHow, Evidence, Severity, Verdict, words};

use super::rendered::Rendered;
use super::writer::{Verbatim, append};
use super::{Observer, Sink, aggregate};

/// The JSON format.
#[derive(Default)]
pub(super) struct Json {
    clients: Rendered<Box<ClientHello>>,
    servers: Rendered<Vec<[u8; 32]>>,
    chains: Rendered<Vec<[u8; 32]>>,
}

impl Sink for Json {
    fn emit(&mut self, verdict: &Verdict, observer: &Observer, out: &mut Vec<u8>) -> io::Result<()> {
        let chain = verdict.facts.server().certificates.as_ref();
        let parts = Parts {
            client: match verdict.facts.client_hello.as_deref() {
                None => None,
                Some(hello) => Some(self.clients.get(
                    client_hash(hello),
                    |known| shown_of(known) == shown_of(hello),
                    || Box::new(hello.clone()),
                    || Client::of(hello),
                )?),
            },
            server: match chain.filter(|chain| chain.leaf().is_some()) {
                None => None,
                Some(chain) => {
                    Some(self.servers.get(chain_hash(chain), is_chain(chain), digests(chain), || {
                        Certificates::of(chain)
                    })?)
                }
            },
            server_certificates: match chain.filter(|chain| !chain.certificates.is_empty()) {
                None => None,
                Some(chain) => {
                    Some(self.chains.get(chain_hash(chain), is_chain(chain), digests(chain), || {
                        CertificateFields::chain(chain, true)
                    })?)
                }
            },
        };
        append(out, &Line::of(verdict, observer, parts))?;
        out.push(b'\n');
        Ok(())
    }

    fn aggregate(&mut self, aggregate: &Aggregate, observer: &Observer, out: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *out, &aggregate::Object::of(aggregate, observer))?;
        out.push(b'\n');
        Ok(())
    }
}

/// Parts of a line that other lines share.
struct Parts<'a> {
    client: Option<Verbatim<'a>>,
    server: Option<Verbatim<'a>>,
    server_certificates: Option<Verbatim<'a>>,
}

/// All of a ClientHello that [`Client`] shows, directly or in a fingerprint.
fn shown_of(hello: &ClientHello) -> impl PartialEq {
    (
        (hello.server_name.as_ref(), hello.legacy_version, hello.ssl_v2),
        (&hello.supported_versions, &hello.cipher_suites, &hello.extensions),
        (&hello.supported_groups, &hello.signature_schemes, &hello.alpn, &hello.ec_point_formats),
    )
}

/// The lists in it go into one number each: `Hash` would take some eighty of them one by one.
fn client_hash(hello: &ClientHello) -> impl Hash {
    fn number(list: impl Iterator<Item = u16>) -> u64 {
        // 2^64 divided by the golden ratio, as in Fibonacci hashing.
        list.fold(0, |hash: u64, item| hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(item))
    }
    (
        hello.server_name.as_ref(),
        &hello.alpn,
        number(hello.cipher_suites.iter().map(|suite| suite.0)),
        number(hello.extensions.iter().map(|extension| extension.0)),
        number(hello.supported_groups.iter().map(|group| group.0)),
        number(hello.signature_schemes.iter().map(|scheme| scheme.0)),
    )
}

fn chain_hash(chain: &CertificateChain) -> u64 {
    chain.certificates.iter().fold(0, |hash, certificate| {
        let [a, b, c, d, e, f, g, h, ..] = certificate.sha256;
        hash.rotate_left(1) ^ u64::from_be_bytes([a, b, c, d, e, f, g, h])
    })
}

fn is_chain(chain: &CertificateChain) -> impl Fn(&Vec<[u8; 32]>) -> bool {
    |known| known.iter().eq(chain.certificates.iter().map(|certificate| &certificate.sha256))
}

fn digests(chain: &CertificateChain) -> impl FnOnce() -> Vec<[u8; 32]> {
    || chain.certificates.iter().map(|certificate| certificate.sha256).collect()
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "@timestamp", serialize_with = "display")]
    timestamp: Timestamp,
    event: Event,
    client: Endpoint<'a>,
    server: Endpoint<'a>,
    network: Network,
    #[serde(skip_serializing_if = "ObserverFields::is_empty")]
    observer: ObserverFields<'a>,
    tls: Tls<'a>,
    tlstrace: Trace<'a>,
    /// Of the end that the line is filed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<Kubernetes<'a>>,
}

#[derive(Serialize)]
struct Event {
    outcome: Word,
    /// Nanoseconds.
    duration: u64,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    ip: IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Translated>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k8s: Option<Kubernetes<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
}

/// Names of one end, nested as in the semantic conventions of OpenTelemetry.
#[derive(Serialize)]
pub(super) struct Kubernetes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Workload<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Named<'a>>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Workload<'a> {
    kind: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    name: &'a str,
}

/// An endpoint behind a translation of addresses.
#[derive(Serialize)]
struct Translated {
    ip: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct Network {
    #[serde(rename = "type")]
    kind: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<Word>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<Shown<ProtocolVersion>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_protocol: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<Shown<CipherSuite>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    curve: Option<Shown<NamedGroup>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_protocol: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<Verbatim<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Verbatim<'a>>,
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
    supported_ciphers: Names<'a, CipherSuite>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    supported_groups: Names<'a, NamedGroup>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    signature_algorithms: Names<'a, SignatureScheme>,
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
    schema: Word,
    verdict: Word,
    severity: Word,
    blame: Word,
    confidence: Word,
    phase: Word,
    summary: &'a str,
    evidence: Items<'a, Evidence>,
    #[serde(skip_serializing_if = "Items::is_empty")]
    alternatives: Items<'a, Alternative>,
    remedy: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<EndedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_by: Option<ResetBy<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<AlertFields>,
    history: &'a str,
    timings_us: Timings,
    #[serde(skip_serializing_if = "Option::is_none")]
    offer: Option<Offer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection: Option<Selection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_request: Option<RequestFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_certificates: Option<Verbatim<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    client_certificates: Vec<CertificateFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Proxy>,
    warnings: Items<'a, Evidence>,
    capture: Capture,
    /// Fields of the line that hold only the first part of what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut: Vec<&'static str>,
    #[serde(serialize_with = "display")]
    connection_id: crate::engine::facts::ConnectionId,
    revision: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Word>,
}

#[derive(Serialize)]
struct EndedBy {
    side: Word,
    how: Word,
}

/// What this node's kernel says of the RST that ended the connection, if it sent it.
#[derive(Serialize)]
struct ResetBy<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
}

#[derive(Serialize)]
struct AlertFields {
    side: Word,
    /// Not known of an encrypted alert, and neither are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    encrypted: bool,
}

/// What a ClientHello proposes beyond the ECS fields.
#[derive(Serialize)]
struct Offer<'a> {
    /// Bytes of the message, its 4-byte header included.
    length: u32,
    segments: u32,
    records: u32,
    session_id_len: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    key_shares: Vec<KeyShareFields>,
    #[serde(skip_serializing_if = "Names::is_empty")]
    signature_algorithms_cert: Names<'a, SignatureScheme>,
    #[serde(skip_serializing_if = "<[u8]>::is_empty")]
    psk_modes: &'a [u8],
    #[serde(skip_serializing_if = "is_zero")]
    psk_identities: u16,
    #[serde(skip_serializing_if = "is_false")]
    early_data: bool,
    /// Bytes of the session ticket; 0 asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ticket_len: Option<u16>,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    compress_certificate: &'a [u16],
    #[serde(skip_serializing_if = "is_false")]
    encrypted_client_hello: bool,
    #[serde(skip_serializing_if = "is_false")]
    extended_master_secret: bool,
    #[serde(skip_serializing_if = "is_false")]
    renegotiation_info: bool,
    #[serde(skip_serializing_if = "is_false")]
    fallback_scsv: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_size_limit: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    padding_len: Option<u16>,
    #[serde(skip_serializing_if = "is_false")]
    ssl_v2: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

#[derive(Serialize)]
struct KeyShareFields {
    group: Shown<NamedGroup>,
    len: u16,
}

/// What a ServerHello picks beyond the ECS fields.
#[derive(Serialize)]
struct Selection {
    #[serde(skip_serializing_if = "is_false")]
    hello_retry_request: bool,
    /// The group that a HelloRetryRequest asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    hello_retry_group: Option<Shown<NamedGroup>>,
    /// The server can do better than it selected (RFC 8446 §4.1.3).
    #[serde(skip_serializing_if = "is_false")]
    downgrade_sentinel: bool,
    #[serde(skip_serializing_if = "is_false")]
    extended_master_secret: bool,
    #[serde(skip_serializing_if = "is_false")]
    renegotiation_info: bool,
    #[serde(skip_serializing_if = "is_false")]
    psk: bool,
}

#[derive(Serialize)]
struct RequestFields<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    authorities: &'a [Box<str>],
    certificate_types: &'a [u8],
    #[serde(skip_serializing_if = "Names::is_empty")]
    signature_algorithms: Names<'a, SignatureScheme>,
}

/// A certificate. A client's names a person or a device: its subject and names stay out, and its fingerprint
/// is cut short.
#[derive(Serialize)]
struct CertificateFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    /// Not of a client's that is self-issued: it is the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    not_before: String,
    not_after: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<Cow<'a, str>>,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bits: Option<u32>,
    signature_algorithm: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    extended_key_usage: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<bool>,
    sha256: String,
}

/// The PROXY protocol header in front of the connection.
#[derive(Serialize)]
struct Proxy {
    version: u8,
    local: bool,
    /// The load balancer: `client` is whom it speaks for.
    address: IpAddr,
    port: u16,
}

#[derive(Serialize)]
struct Capture {
    complete: bool,
    gaps: u32,
    lost: u32,
}

impl<'a> Line<'a> {
    fn of(verdict: &'a Verdict, observer: &'a Observer, parts: Parts<'a>) -> Self {
        let facts = &*verdict.facts;
        let names = &verdict.names;
        let (client, server) = (facts.client().address.ip(), facts.server().address.ip());
        // Where nothing is known to be local, the hook knows at least which way packets went.
        let direction = observer.locality.direction(client, server).or(match facts.direction {
            segment::Direction::Ingress => Some(Direction::Inbound),
            segment::Direction::Egress => Some(Direction::Outbound),
            segment::Direction::Unknown => None,
        });
        Self {
            timestamp: verdict.time(),
            event: Event {
                outcome: Word(outcome(verdict.severity, verdict.id)),
                duration: nanos(verdict.time().since(facts.first_seen)),
            },
            client: match facts.proxy.as_ref().and_then(|header| header.source) {
                // What is translated is the load balancer's address.
                Some(inner) => Endpoint::of(inner, None, names.client.as_deref()),
                None => Endpoint::of(
                    facts.client().address,
                    facts.client().translated.as_deref(),
                    names.client.as_deref(),
                ),
            },
            server: Endpoint::of(
                facts.server().address,
                facts.server().translated.as_deref(),
                names.server.as_deref(),
            ),
            network: Network {
                kind: Word(if facts.server().address.is_ipv4() { "ipv4" } else { "ipv6" }),
                direction: direction.map(Direction::as_str).map(Word),
            },
            observer: ObserverFields {
                hostname: observer.hostname.as_deref(),
                interface: observer.interfaces.get(&facts.interface).map(|name| Interface { name }),
            },
            tls: Tls::of(facts, parts.client, parts.server),
            tlstrace: Trace::of(verdict, parts.server_certificates),
            k8s: names.subject().and_then(Kubernetes::of),
        }
    }
}

impl<'a> Endpoint<'a> {
    fn of(address: SocketAddr, translated: Option<&SocketAddr>, identity: Option<&'a Identity>) -> Self {
        let process = identity.and_then(|identity| identity.process.as_ref());
        Self {
            ip: address.ip(),
            port: address.port(),
            nat: translated.map(|address| Translated { ip: address.ip(), port: address.port() }),
            k8s: identity.and_then(Kubernetes::of),
            process: process.map(|process| Process { pid: process.pid, name: &process.command }),
        }
    }
}

impl<'a> Kubernetes<'a> {
    /// `None` if nothing is known.
    pub(super) fn of(identity: &'a Identity) -> Option<Self> {
        let Identity { namespace, pod, container, workload, node, service, process: _, gateway: _ } =
            identity;
        let named = |name: &'a Option<Arc<str>>| name.as_deref().map(|name| Named { name });
        let is_known = pod.is_some() || service.is_some() || node.is_some();
        is_known.then(|| Self {
            pod: named(pod),
            namespace: named(namespace),
            container: named(container),
            workload: workload
                .as_ref()
                .map(|workload| Workload { kind: &workload.kind, name: &workload.name }),
            node: named(node),
            service: named(service),
        })
    }
}

impl<'a> Tls<'a> {
    fn of(facts: &'a HandshakeFacts, client: Option<Verbatim<'a>>, server: Option<Verbatim<'a>>) -> Self {
        let selected = facts.server_hello.as_deref();
        let version = facts.version();
        Self {
            established: facts.progress.complete.is_some(),
            version: version.map(Shown),
            version_protocol: version.map(|version| Word(if version.0 <= 0x0300 { "ssl" } else { "tls" })),
            cipher: selected.map(|hello| Shown(hello.cipher_suite)),
            curve: facts.group().map(Shown),
            next_protocol: selected.and_then(|hello| hello.alpn.as_deref()).map(protocol_name),
            resumed: selected.map(|_| facts.progress.resumed),
            client,
            server,
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
            alpn: protocols(hello).take(MAX_PROTOCOLS).map(protocol_name).collect(),
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
            names: names(leaf, &mut { MAX_NAMES_LEN }),
            chain: chain.certificates.iter().map(|certificate| &*certificate.subject).collect(),
        })
    }
}

impl<'a> Trace<'a> {
    fn of(verdict: &'a Verdict, server_certificates: Option<Verbatim<'a>>) -> Self {
        let facts = &*verdict.facts;
        Self {
            schema: Word("tlstrace/1"),
            verdict: Word(verdict.id),
            severity: Word(verdict.severity.as_str()),
            blame: Word(verdict.blame.as_str()),
            confidence: Word(verdict.confidence.as_str()),
            phase: Word(facts.phase().as_str()),
            summary: &verdict.summary,
            evidence: Items(&verdict.evidence),
            alternatives: Items(&verdict.alternatives),
            remedy: entry::remedy(verdict),
            reason: verdict.reason,
            ended_by: verdict
                .ended_by
                .map(|ended| EndedBy { side: Word(ended.side.as_str()), how: Word(ended.how.as_str()) }),
            reset_by: verdict.reset_by.as_ref().map(|report| ResetBy {
                reason: report.reason.as_deref(),
                pid: report.process.as_ref().map(|process| process.pid),
                command: report.process.as_ref().map(|process| process.command.as_str()),
            }),
            alerts: root_alert(verdict).into_iter().collect(),
            history: facts.history.as_str(),
            timings_us: Timings::of(facts),
            offer: facts.client_hello.as_deref().map(|hello| Offer::of(hello, facts)),
            selection: Selection::of(facts),
            certificate_request: facts.certificate_request.as_deref().map(|request| RequestFields {
                authorities: &request.authorities,
                certificate_types: &request.certificate_types,
                signature_algorithms: Names(&request.signature_schemes, |scheme| scheme.is_grease()),
            }),
            server_certificates,
            client_certificates: facts
                .client()
                .certificates
                .as_ref()
                .map(|chain| CertificateFields::chain(chain, false))
                .unwrap_or_default(),
            proxy: facts.proxy.as_ref().map(|header| Proxy {
                version: header.version,
                local: header.local,
                address: facts.client().address.ip(),
                port: facts.client().address.port(),
            }),
            warnings: Items(&verdict.warnings),
            capture: Capture {
                complete: facts.is_complete_capture(),
                gaps: facts.capture.gaps,
                lost: facts.capture.lost,
            },
            cut: cut(facts),
            connection_id: facts.connection,
            revision: verdict.revision,
            replaces: verdict.replaces.map(Word),
        }
    }
}

impl<'a> Offer<'a> {
    fn of(hello: &'a ClientHello, facts: &HandshakeFacts) -> Self {
        Self {
            length: hello.length,
            segments: facts.client_hello_size.segments,
            records: facts.client_hello_size.records,
            session_id_len: hello.session_id_len,
            key_shares: hello
                .key_shares
                .iter()
                .filter(|share| !share.group.is_grease())
                .take(MAX_ITEMS)
                .map(|share| KeyShareFields { group: Shown(share.group), len: share.len })
                .collect(),
            signature_algorithms_cert: Names(&hello.signature_schemes_cert, |scheme| scheme.is_grease()),
            psk_modes: &hello.psk_modes,
            psk_identities: hello.psk_identities,
            early_data: hello.early_data,
            session_ticket_len: hello.session_ticket_len,
            compress_certificate: &hello.compress_certificate,
            encrypted_client_hello: hello.encrypted_client_hello,
            extended_master_secret: hello.extended_master_secret,
            renegotiation_info: hello.renegotiation_info || hello.has_renegotiation_scsv(),
            fallback_scsv: hello.has_fallback_scsv(),
            record_size_limit: hello.record_size_limit,
            padding_len: hello.padding_len,
            ssl_v2: hello.ssl_v2,
            problems: hello.problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Selection {
    fn of(facts: &HandshakeFacts) -> Option<Self> {
        let hello = facts.server_hello.as_deref();
        let retry = facts.hello_retry_request.as_deref();
        hello.or(retry)?;
        Some(Self {
            hello_retry_request: retry.is_some(),
            hello_retry_group: retry.and_then(|retry| retry.group).map(Shown),
            downgrade_sentinel: hello.is_some_and(|hello| hello.downgrade.is_some()),
            extended_master_secret: hello.is_some_and(|hello| hello.extended_master_secret),
            renegotiation_info: hello.is_some_and(|hello| hello.renegotiation_info),
            psk: hello.is_some_and(|hello| hello.psk_selected),
        })
    }
}

impl<'a> CertificateFields<'a> {
    fn chain(chain: &'a CertificateChain, is_public: bool) -> Vec<Self> {
        let mut room = MAX_NAMES_LEN;
        chain.certificates.iter().map(|certificate| Self::of(certificate, is_public, &mut room)).collect()
    }

    fn of(certificate: &'a Certificate, is_public: bool, room: &mut usize) -> Self {
        let usage = certificate.extended_key_usage.unwrap_or_default();
        let uses =
            [(usage.any, "any"), (usage.server_auth, "server_auth"), (usage.client_auth, "client_auth")];
        let fingerprint = if is_public { &certificate.sha256[..] } else { &certificate.sha256[..8] };
        Self {
            subject: is_public.then_some(&*certificate.subject),
            issuer: (is_public || !certificate.self_issued).then_some(&*certificate.issuer),
            not_before: date(certificate.not_before),
            not_after: date(certificate.not_after),
            names: if is_public { names(certificate, room) } else { Vec::new() },
            key: certificate.key.algorithm.to_string(),
            key_bits: certificate.key.bits,
            signature_algorithm: &certificate.signature_algorithm,
            extended_key_usage: uses.into_iter().filter_map(|(has, name)| has.then_some(name)).collect(),
            ca: certificate.is_ca,
            sha256: hex(fingerprint),
        }
    }
}

/// The alert that ended the connection: in the clear, or inferred by the rule.
fn root_alert(verdict: &Verdict) -> Option<AlertFields> {
    if let Some(ending) = verdict.root
        && let How::Alert(alert) = ending.how
    {
        return Some(AlertFields {
            side: Word(ending.role.as_str()),
            level: Some(Word(if alert.level == AlertLevel::WARNING { "warning" } else { "fatal" })),
            code: Some(alert.description.0),
            name: Some(alert.description.to_string()),
            encrypted: false,
        });
    }
    let ended = verdict.ended_by.filter(|ended| ended.how == EndedHow::Alert)?;
    Some(AlertFields {
        side: Word(ended.side.as_str()),
        level: None,
        code: None,
        name: None,
        encrypted: true,
    })
}

/// Most items shown of a list that a peer has sent. No stack has so many; a line that is longer than what collects lines
/// takes (16 KiB a part for containerd, 256 KiB for Cloud Logging) is no use to anybody.
const MAX_ITEMS: usize = 256;
/// The same of protocol names, which may have 255 characters.
const MAX_PROTOCOLS: usize = 32;
/// Most bytes shown of the names in the certificates of one chain.
const MAX_NAMES_LEN: usize = 16 * 1024;

/// Items of a list in wire order, GREASE left out, by their names; the first [`MAX_ITEMS`].
struct Names<'a, T>(&'a [T], fn(&T) -> bool);

impl<T> Names<'_, T> {
    fn is_empty(&self) -> bool {
        self.0.iter().all(self.1)
    }

    fn is_cut(&self) -> bool {
        self.0.len() > MAX_ITEMS && self.0.iter().filter(|item| !(self.1)(item)).count() > MAX_ITEMS
    }
}

impl<T: Copy + Into<Cow<'static, str>>> Serialize for Names<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for item in self.0.iter().filter(|item| !(self.1)(item)).take(MAX_ITEMS) {
            list.serialize_element(&Shown(*item))?;
        }
        list.end()
    }
}

/// Which lists are not shown to their ends.
fn cut(facts: &HandshakeFacts) -> Vec<&'static str> {
    let mut cut = Vec::new();
    let mut note = |field, is_cut: bool| cut.extend(is_cut.then_some(field));
    if let Some(hello) = facts.client_hello.as_deref() {
        let (versions, schemes) = (&hello.supported_versions, &hello.signature_schemes);
        note("tls.client.supported_versions", Names(versions, |version| version.is_grease()).is_cut());
        note("tls.client.supported_ciphers", Names(&hello.cipher_suites, |suite| suite.is_grease()).is_cut());
        note(
            "tls.client.supported_groups",
            Names(&hello.supported_groups, |group| group.is_grease()).is_cut(),
        );
        note("tls.client.signature_algorithms", Names(schemes, |scheme| scheme.is_grease()).is_cut());
        note("tls.client.alpn", protocols(hello).nth(MAX_PROTOCOLS).is_some());
        note("tlstrace.offer.key_shares", Names(&hello.key_shares, |share| share.group.is_grease()).is_cut());
        let schemes = &hello.signature_schemes_cert;
        note(
            "tlstrace.offer.signature_algorithms_cert",
            Names(schemes, |scheme| scheme.is_grease()).is_cut(),
        );
    }
    if let Some(request) = facts.certificate_request.as_deref() {
        let (count, schemes) = (usize::from(request.authority_count), &request.signature_schemes);
        note("tlstrace.certificate_request.authorities", count > CertificateRequest::MAX_AUTHORITIES);
        let is_cut = Names(schemes, |scheme| scheme.is_grease()).is_cut();
        note("tlstrace.certificate_request.signature_algorithms", is_cut);
    }
    if let Some(chain) = &facts.server().certificates {
        let is_chain_cut = usize::from(chain.count) > CertificateChain::MAX_CERTIFICATES;
        let mut room = MAX_NAMES_LEN;
        let are_names_cut = chain.certificates.iter().any(|certificate| is_cut(certificate, &mut room));
        note("tls.server.names", chain.leaf().is_some_and(|leaf| is_cut(leaf, &mut { MAX_NAMES_LEN })));
        note("tls.server.chain", is_chain_cut);
        note("tlstrace.server_certificates", is_chain_cut || are_names_cut);
    }
    cut
}

/// A certificate's names, as far as there is `room` for them, in bytes.
fn names<'a>(certificate: &'a Certificate, room: &mut usize) -> Vec<Cow<'a, str>> {
    let names = certificate.names.iter().filter_map(words::alternative_name);
    names
        .take_while(|name| {
            let left = room.checked_sub(name.len());
            *room = left.unwrap_or(0);
            left.is_some()
        })
        .collect()
}

/// Whether some of a certificate's names have no `room`, or were not even read.
fn is_cut(certificate: &Certificate, room: &mut usize) -> bool {
    let names = certificate.names.iter().filter_map(words::alternative_name);
    let left = room.checked_sub(names.map(|name| name.len()).sum());
    *room = left.unwrap_or(0);
    left.is_none() || certificate.name_count as usize > certificate.names.len()
}

struct Shown<T>(T);

impl<T: Copy + Into<Cow<'static, str>>> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.into() {
            Cow::Borrowed(name) => Word(name).serialize(serializer),
            Cow::Owned(number) => serializer.serialize_str(&number),
        }
    }
}

/// A word of this program, or of a registry: as an enumeration's variant it is not looked through for what to escape.
struct Word(&'static str);

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_variant("Word", 0, self.0)
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
    fact: Word,
    detail: &'a str,
}

#[derive(Serialize)]
struct AlternativeFields<'a> {
    verdict: Word,
    why: &'a str,
}

impl Serialize for Items<'_, Evidence> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().map(|item| EvidenceFields { fact: Word(item.fact), detail: &item.detail }),
        )
    }
}

impl Serialize for Items<'_, Alternative> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().map(|item| AlternativeFields { verdict: Word(item.verdict), why: &item.why }),
        )
    }
}

/// The protocols of ALPN, GREASE left out.
fn protocols(hello: &ClientHello) -> impl Iterator<Item = &[u8]> {
    let is_grease = |name: &[u8]| {
        name.first_chunk().is_some_and(|pair| name.len() == 2 && is_grease(u16::from_be_bytes(*pair)))
    };
    hello.alpn.iter().map(|name| &**name).filter(move |name| !is_grease(name))
}

/// A protocol's name: text where it is text, hexadecimal otherwise.
fn protocol_name(name: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(name) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => text.into(),
        _ => format!("0x{}", hex(name)).into(),
    }
}

/// `2026-11-22T10:00:00Z`.
fn date(seconds: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn is_zero(value: &u16) -> bool {
    *value == 0
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn display<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// `success`, `failure` or `unknown`.
pub(super) fn outcome(severity: Severity, verdict: &str) -> &'static str {
    match (severity, verdict) {
        (_, "ok") => "success",
        (Severity::Info, _) => "unknown",
        (Severity::Warning | Severity::Error, _) => "failure",
    }
}
