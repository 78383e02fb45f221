//! What is said about one connection, as people and aggregates need it: from a verdict that was just found, or
//! from a JSON line that was saved.
//!
//! Everything that shows or counts verdicts and is not the JSON itself works on [`Entry`], so that live traffic,
//! a capture and yesterday's log look the same.

#![forbid(unsafe_code)]

mod redact;
mod saved;
mod timings;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::facts::{ConnectionId, Role};
use crate::engine::timestamp::Timestamp;
use crate::names::Ends;
use crate::tls::fingerprint;
use crate::verdict::{Blame, Confidence, EndedBy, Severity, Verdict, explain};

pub use redact::Redaction;
pub use saved::{NotOurs, Saved};
pub use timings::Timings;

/// One verdict, in brief. Texts are as they were sent, and not safe for a terminal.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When the connection ended, or was last heard of.
    pub time: Timestamp,
    pub severity: Severity,
    /// Its id. Saved lines may bring ids that this version does not know.
    pub verdict: Cow<'a, str>,
    pub confidence: Confidence,
    /// Who sent the ClientHello, or should have; the inner client where a PROXY header names it.
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub server_name: Option<Cow<'a, str>>,
    /// Who both ends are, where that is known.
    pub names: Ends,
    pub ended_by: Option<EndedBy>,
    /// The sentence.
    pub summary: Cow<'a, str>,
    pub connection: Option<ConnectionId>,
    /// Counts verdicts about the same connection, from 0.
    pub revision: u32,
    /// The id of the verdict that this one replaces, if it revises one.
    pub replaces: Option<Cow<'a, str>>,
    /// Of the client, where the handshake failed: what succeeds is not fingerprinted for this.
    pub ja4: Option<Cow<'a, str>>,
    /// The leaf that the server presented in the clear.
    pub certificate: Option<Leaf<'a>>,
    pub timings: Timings,
    /// Whether all of it was captured that a verdict may rest on.
    pub is_whole: bool,
}

#[cfg(test)]
impl Entry<'static> {
    /// A client without SNI that was reset, of which no more is known. Tests change what they are about.
    pub(crate) fn sample() -> Self {
        Self {
            time: Timestamp::default(),
            severity: Severity::Error,
            verdict: "sni_missing".into(),
            confidence: Confidence::Observed,
            client: SocketAddr::from(([10, 1, 2, 3], 40_000)),
            server: SocketAddr::from(([192, 0, 2, 1], 8443)),
            server_name: None,
            names: Ends::default(),
            ended_by: None,
            summary: "".into(),
            connection: None,
            revision: 0,
            replaces: None,
            ja4: None,
            certificate: None,
            timings: Timings::default(),
            is_whole: true,
        }
    }
}

/// A server's certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf<'a> {
    pub subject: Cow<'a, str>,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// What to do about a verdict: in general, and by the settings of the product that one of its ends is.
pub fn remedy(verdict: &Verdict) -> Cow<'static, str> {
    let step = |role: Role| {
        let product = verdict.names.of(role)?.gateway()?.product_as(role)?;
        Some((product, explain::step(verdict.id, product, role)?))
    };
    let first = if verdict.blame == Blame::Client { Role::Client } else { Role::Server };
    match step(first).or_else(|| step(first.peer())) {
        Some((product, step)) => format!("{} {}: {step}", verdict.remedy, product.name()).into(),
        None => verdict.remedy.into(),
    }
}

/// What stands under a verdict for those who want to know more.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Details<'a> {
    pub evidence: Vec<Detail<'a>>,
    pub warnings: Vec<Detail<'a>>,
    /// By the id of the other verdict.
    pub alternatives: Vec<Detail<'a>>,
    pub remedy: Option<Cow<'a, str>>,
}

/// A named text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Detail<'a> {
    pub name: Cow<'a, str>,
    pub text: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// Of a verdict.
    pub fn of(verdict: &'a Verdict) -> Self {
        let facts = &*verdict.facts;
        let is_failure = verdict.severity > Severity::Info;
        let hello = facts.client_hello.as_deref().filter(|_| is_failure);
        let leaf = facts.server().certificates.as_ref().and_then(|chain| chain.leaf());
        Self {
            time: verdict.time(),
            severity: verdict.severity,
            verdict: verdict.id.into(),
            confidence: verdict.confidence,
            client: facts.proxy.as_ref().and_then(|header| header.source).unwrap_or(facts.client().address),
            server: facts.server().address,
            server_name: facts.server_name(),
            names: verdict.names.clone(),
            ended_by: verdict.ended_by,
            summary: (&*verdict.summary).into(),
            connection: Some(facts.connection),
            revision: verdict.revision,
            replaces: verdict.replaces.map(Cow::from),
            ja4: hello.map(|hello| fingerprint::ja4(hello).into()),
            certificate: leaf
                .map(|leaf| Leaf { subject: (&*leaf.subject).into(), not_after: leaf.not_after }),
            timings: Timings::of(facts),
            is_whole: facts.is_complete_capture(),
        }
    }

    /// Whether somebody may have to act.
    pub fn is_failure(&self) -> bool {
        self.severity > Severity::Info
    }

    /// ClientHello to the end of the handshake.
    pub fn handshake(&self) -> Option<Duration> {
        self.timings.handshake.map(Duration::from_micros)
    }

    /// Whether the handshake was completed and nobody objected.
    pub fn is_success(&self) -> bool {
        self.verdict == "ok"
    }
}

impl<'a> Details<'a> {
    /// Of a verdict.
    pub fn of(verdict: &'a Verdict) -> Self {
        let detail = |name: &'static str, text: &'a str| Detail { name: name.into(), text: text.into() };
        Self {
            evidence: verdict.evidence.iter().map(|item| detail(item.fact, &item.detail)).collect(),
            warnings: verdict.warnings.iter().map(|item| detail(item.fact, &item.detail)).collect(),
            alternatives: verdict.alternatives.iter().map(|item| detail(item.verdict, &item.why)).collect(),
            remedy: (verdict.severity > Severity::Info).then(|| remedy(verdict)),
        }
    }
}
