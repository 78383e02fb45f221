//! From facts to one verdict: why a connection ended as it did, whose side, how sure, on what evidence.
//!
//! [`judge`] picks the root cause among the endings ([`root_cause`]), asks every registered rule
//! ([`rules`]), and takes the finding that is most specific. A rule that cannot tell causes apart must stay
//! silent or say so: a wrong confident verdict is worse than none.

#![forbid(unsafe_code)]

mod case;
pub mod explain;
pub mod root_cause;
pub mod rules;
pub mod words;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use crate::engine::facts::{Ending, HandshakeFacts, How, Phase, Role};
use crate::engine::history::ListenerHistory;
use crate::engine::resets::LocalReset;
use crate::engine::timestamp::Timestamp;
use crate::engine::tls13::Exchange;
use crate::names::Ends;
use crate::tls::certificate::CertificateChain;
use crate::tls::client_hello::ServerName;

use root_cause::RootCause;
use rules::Rule;

/// How much somebody should care.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Benign, never counted as a failure.
    Info,
    Warning,
    /// The handshake failed and someone should act.
    Error,
}

/// Where the fix is to be made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Blame {
    Client,
    Server,
    /// Network, middlebox, load balancer.
    Path,
    /// Both ends work, they disagree.
    Config,
    Unknown,
}

/// How a verdict is known.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Confidence {
    /// The best of several explanations; the others are listed as alternatives.
    Suspected,
    /// Sizes, order, direction or this listener's history say so.
    Inferred,
    /// Bytes on the wire say so.
    Observed,
}

/// How much a finding explains. A cause beats a symptom, whatever their confidence: rules only claim what
/// their evidence allows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Specificity {
    /// Something can always be said.
    Fallback,
    /// How it ended, not why.
    Symptom,
    /// What kind of cause, not which one.
    Class,
    /// The cause.
    Cause,
}

/// What was seen that speaks for a verdict.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Evidence {
    /// Name of the fact, `snake_case`, stable.
    pub fact: &'static str,
    pub detail: Cow<'static, str>,
}

/// What else could explain the same facts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alternative {
    pub verdict: &'static str,
    pub why: Cow<'static, str>,
}

/// One rule's answer.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where it is not the rule's own.
    pub severity: Option<Severity>,
    pub blame: Blame,
    pub confidence: Confidence,
    pub specificity: Specificity,
    /// A sentence in the past tense.
    pub summary: String,
    pub evidence: Vec<Evidence>,
    pub alternatives: Vec<Alternative>,
    /// Why not more can be said (`undetermined` only).
    pub reason: Option<&'static str>,
    /// Replaces the root cause's ending where the rule knows better, as for an encrypted alert.
    pub ended_by: Option<EndedBy>,
    /// Things worth knowing that are not the verdict.
    pub warnings: Vec<Evidence>,
}

/// Who ended a connection, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EndedBy {
    pub side: Role,
    pub how: EndedHow,
}

/// Ways to end a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndedHow {
    Alert,
    Reset,
    Close,
    Silence,
}

/// The finding that was taken, and what it rests on.
#[derive(Clone, Debug)]
pub struct Judgement {
    pub rule: &'static dyn Rule,
    pub finding: Finding,
    pub root: RootCause,
}

/// What is published about a connection.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub id: &'static str,
    pub severity: Severity,
    pub blame: Blame,
    pub confidence: Confidence,
    pub summary: String,
    pub evidence: Vec<Evidence>,
    pub alternatives: Vec<Alternative>,
    /// What to do, whatever the ends are.
    pub remedy: &'static str,
    pub reason: Option<&'static str>,
    pub ended_by: Option<EndedBy>,
    /// The root ending, if the connection ended.
    pub root: Option<Ending>,
    /// The root is a RST that this node's kernel sent.
    pub reset_by: Option<LocalReset>,
    pub warnings: Vec<Evidence>,
    /// Counts verdicts about the same connection, from 0.
    pub revision: u32,
    /// The id of the verdict that this one replaces, on the same connection.
    pub replaces: Option<&'static str>,
    pub facts: Arc<HandshakeFacts>,
    /// Who both ends are; whoever prints the verdict looks that up.
    pub names: Ends,
}

/// What the rules are asked about.
pub struct Case<'a> {
    pub facts: &'a HandshakeFacts,
    pub listener: &'a ListenerHistory,
    /// The listener's history has counted this connection's outcome already.
    pub is_counted: bool,
    pub root: &'a RootCause,
    exchange: OnceCell<Option<Exchange<'a>>>,
    answers: rules::Answers,
}

/// What is known of the certificates that the server presented.
#[derive(Clone, Copy, Debug)]
pub struct KnownChain<'a> {
    pub chain: &'a CertificateChain,
    /// Not seen on this connection, where it was encrypted, but in the clear on the same listener for the same
    /// name; its length fits.
    pub from_history: bool,
}

/// Judges a connection by all rules but those `without`; `is_counted` says that the listener's history has counted
/// its outcome. `None`: it was not TLS and nothing suggests that it should have been.
pub fn judge(
    facts: &HandshakeFacts,
    listener: &ListenerHistory,
    is_counted: bool,
    without: &[&str],
) -> Option<Judgement> {
    let root = RootCause::of(facts);
    let case = Case::new(facts, listener, is_counted, &root);
    let mut best: Option<(&'static dyn Rule, Finding)> = None;
    // `Iterator::reduce` moves the best finding from call to call, for every rule.
    for rule in rules::all() {
        if !without.is_empty() && without.contains(&rule.id()) {
            continue;
        }
        let Some(finding) = rule.judge(&case) else { continue };
        // The first of equals wins, so that the registry's order is the last word.
        if best.as_ref().is_none_or(|(_, best)| finding.rank() > best.rank()) {
            best = Some((rule, finding));
        }
    }
    let (rule, finding) = best?;
    let (rule, mut finding) = if without.contains(&"undetermined") {
        (rule, finding)
    } else {
        allow_for_loss(&case, rule, finding)
    };
    let is_failure = finding.severity.unwrap_or(rule.severity()) > Severity::Info;
    if let Some(period) = case.failing_period(rule.id()).filter(|_| is_failure) {
        let every = words::duration(period);
        finding = finding.evidence(
            "periodic_attempts",
            format!("this client fails in the same way every {every}: a health check"),
        );
    }
    if facts.phase() == Phase::Complete {
        finding.warnings.extend(rules::certificate_warnings(&case));
    }
    Some(Judgement { rule, finding, root })
}

/// Takes back what a finding claims where part of the conversation was not captured: what looks like silence
/// may be an alert that was missed. An alert that was seen stays seen.
fn allow_for_loss(
    case: &Case<'_>,
    rule: &'static dyn Rule,
    mut finding: Finding,
) -> (&'static dyn Rule, Finding) {
    if !case.facts.capture.lost_something() {
        return (rule, finding);
    }
    if finding.severity.unwrap_or(rule.severity()) == Severity::Info {
        let is_certain = case.facts.phase() == Phase::Complete || rule.id() == "undetermined";
        return (rule, if is_certain { finding } else { doubted(finding) });
    }
    if case.root.ending.is_some_and(|ending| matches!(ending.how, How::Alert(_))) {
        if finding.confidence != Confidence::Observed {
            finding.confidence = Confidence::Suspected;
        }
        return (rule, finding);
    }
    let undetermined = rules::find("undetermined").and_then(|rule| Some((rule, rule.judge(case)?)));
    if let Some((undetermined, instead)) = undetermined {
        return (undetermined, instead.alternative(rule.id(), "what was captured looks like it"));
    }
    // It did not come to TLS. An ending that was seen is one, whatever else was not.
    (rule, if case.root.ending.is_some() { finding } else { doubted(finding) })
}

/// The same, if nothing that was missed says otherwise.
fn doubted(mut finding: Finding) -> Finding {
    finding.confidence = Confidence::Suspected;
    finding.alternative("undetermined", "part of the conversation was not captured")
}

/// Something that a client would object to in a server's certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFault {
    /// The verdict on a connection whose client refused for this reason.
    pub verdict: &'static str,
    /// To follow "the certificate …".
    pub text: String,
    /// It concerns the way from the leaf to a root, which names and key ids suggest and only signatures prove.
    pub is_about_path: bool,
}

/// All that clients would object to in a chain that a server presents for `name` at `now` (seconds since 1970).
pub fn certificate_faults(
    chain: &CertificateChain,
    name: Option<&ServerName>,
    now: i64,
) -> Vec<CertificateFault> {
    rules::certificate_faults(chain, name, now)
}

impl Verdict {
    pub fn new(judgement: Judgement, facts: Arc<HandshakeFacts>) -> Self {
        let Judgement { rule, finding, root } = judgement;
        let ended_by = finding.ended_by.or_else(|| root.ending.as_ref().map(EndedBy::from));
        let mut evidence = finding.evidence;
        let mut summary = finding.summary;
        let reset_by = root.report(&facts).cloned();
        if let Some(report) = &reset_by {
            let detail = words::local_reset(report, &facts).into();
            evidence.push(Evidence { fact: "kernel_reset", detail });
            if let Some(process) = &report.process {
                summary = format!("{summary} {} did it.", words::process(process));
            }
        }
        evidence.extend(root.evidence());
        if let Some((client, server)) = facts.translated() {
            let detail =
                format!("also seen as {client} → {server}: addresses are translated on the way").into();
            evidence.push(Evidence { fact: "address_translation", detail });
        }
        Self {
            id: rule.id(),
            severity: finding.severity.unwrap_or(rule.severity()),
            blame: finding.blame,
            confidence: finding.confidence,
            summary,
            evidence,
            alternatives: finding.alternatives,
            remedy: rule.remedy(),
            reason: finding.reason,
            ended_by,
            root: root.ending,
            reset_by,
            warnings: finding.warnings,
            revision: 0,
            replaces: None,
            facts,
            names: Ends::default(),
        }
    }

    /// As the `revision`th verdict on its connection, in place of one with the id `replaces`.
    #[must_use]
    pub fn revising(mut self, revision: u32, replaces: &'static str) -> Self {
        self.revision = revision;
        self.replaces = Some(replaces);
        self
    }
}

impl Verdict {
    /// When the connection ended, or when it was last heard of.
    pub fn time(&self) -> Timestamp {
        self.root.map_or(self.facts.last_seen, |root| root.time)
    }
}

impl Finding {
    /// A finding that its bytes prove and that blames nobody yet.
    pub fn new(summary: impl Into<String>) -> Self {
        Self {
            severity: None,
            blame: Blame::Unknown,
            confidence: Confidence::Observed,
            specificity: Specificity::Cause,
            summary: summary.into(),
            evidence: Vec::new(),
            alternatives: Vec::new(),
            reason: None,
            ended_by: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) fn rank(&self) -> (Specificity, Confidence) {
        (self.specificity, self.confidence)
    }

    #[must_use]
    pub fn blame(mut self, blame: Blame) -> Self {
        self.blame = blame;
        self
    }

    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    #[must_use]
    pub fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    #[must_use]
    pub fn specificity(mut self, specificity: Specificity) -> Self {
        self.specificity = specificity;
        self
    }

    #[must_use]
    pub fn evidence(mut self, fact: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        self.evidence.push(Evidence { fact, detail: detail.into() });
        self
    }

    #[must_use]
    pub fn alternative(mut self, verdict: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        self.alternatives.push(Alternative { verdict, why: why.into() });
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    #[must_use]
    pub fn ended_by(mut self, side: Role, how: EndedHow) -> Self {
        self.ended_by = Some(EndedBy { side, how });
        self
    }

    #[must_use]
    pub fn warning(mut self, fact: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        self.warnings.push(Evidence { fact, detail: detail.into() });
        self
    }
}

impl From<&Ending> for EndedBy {
    fn from(ending: &Ending) -> Self {
        let how = match ending.how {
            How::Alert(_) => EndedHow::Alert,
            How::Reset(_) => EndedHow::Reset,
            How::Close => EndedHow::Close,
        };
        Self { side: ending.role, how }
    }
}

macro_rules! as_str {
    ($type:ident { $($variant:ident => $text:literal,)* }) => {
        impl $type {
            /// As in the JSON.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// What [`Self::as_str`] gave.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text)
            }

            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

as_str!(Severity { Info => "info", Warning => "warning", Error => "error", });
as_str!(Blame { Client => "client", Server => "server", Path => "path", Config => "config", Unknown => "unknown", });
as_str!(Confidence { Suspected => "suspected", Inferred => "inferred", Observed => "observed", });
as_str!(EndedHow { Alert => "alert", Reset => "reset", Close => "close", Silence => "silence", });

impl<'a> Case<'a> {
    fn new(
        facts: &'a HandshakeFacts,
        listener: &'a ListenerHistory,
        is_counted: bool,
        root: &'a RootCause,
    ) -> Self {
        let (exchange, answers) = (OnceCell::new(), rules::Answers::default());
        Self { facts, listener, is_counted, root, exchange, answers }
    }

    /// A whole ClientHello came and the server sent not one byte.
    pub fn is_hello_unanswered(&self) -> bool {
        self.facts.client_hello.is_some() && self.facts.server().bytes == 0
    }

    /// The server ended the connection after the ClientHello with nothing but, at most, alerts.
    pub fn is_hello_refused(&self) -> bool {
        self.facts.client_hello.is_some()
            && self.facts.server_hello.is_none()
            && self.facts.hello_retry_request.is_none()
            && self.root.ending.is_some_and(|ending| ending.role == Role::Server)
    }

    /// Something on the connection was TLS.
    pub fn spoke_tls(&self) -> bool {
        let facts = self.facts;
        facts.client_hello.is_some()
            || facts.server_hello.is_some()
            || facts.peers.iter().any(|peer| !peer.alerts.is_empty())
            || facts.client().unfinished.is_some_and(|message| message.kind.is_some())
    }

    /// Time from the ClientHello to `time`, in words.
    pub fn since_client_hello(&self, time: Timestamp) -> String {
        let hello = self.facts.progress.client_hello.unwrap_or(self.facts.first_seen);
        words::duration(time.since(hello))
    }
}
