//! What follows from the answers: what the endpoint accepts, what is wrong with its chain, and which verdicts on the
//! connections of others that would explain.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::timestamp::Timestamp;
use crate::tls::certificate::CertificateChain;
use crate::tls::client_hello::ServerName;
use crate::tls::codepoints::{AlertDescription, ProtocolVersion};
use crate::tls::record::FirstBytes;
use crate::verdict::{certificate_faults, words};

use super::answer::{Accepted, Answer, Refusal, Trust, Unreachable};
use super::hello::Hello;
use super::plan::{self, Answers, Aspect, Attempt, Base, NOBODYS_PROTOCOL, Question, Target};

/// All that a probe has found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked, and the answer to it.
    pub checks: Vec<Check>,
    /// Why nothing could be asked: the refusal of the first hello, where no other was accepted either.
    pub refused: Option<Refusal>,
    pub certificate: Option<CertificateReport>,
    /// Whether the endpoint asks for a client certificate, and what it does without one.
    pub client_certificate: ClientCertificate,
    pub explains: Vec<Explanation>,
    /// Connections made.
    pub connections: usize,
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Check {
    pub aspect: Aspect,
    /// What was offered, in words.
    pub offer: String,
    pub result: CheckResult,
    /// How, in words.
    pub detail: String,
    /// From the hello to the answer.
    pub after: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckResult {
    Accepted,
    /// There was a ServerHello, and it selected something else, or nothing, of what the question was about.
    Otherwise,
    Refused,
}

/// The chain, as far as it could be seen.
#[derive(Clone, Debug)]
pub struct CertificateReport {
    pub chain: Arc<CertificateChain>,
    /// Sentences' ends, to follow "the certificate …".
    pub problems: Vec<String>,
    /// `None` without `--ca-file`.
    pub trust: Option<Trust>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificate {
    Unknown,
    NotRequested,
    /// Asked for; what becomes of a client without one was not seen.
    Requested,
    /// Asked for, and a client without one is served.
    Optional,
    Required,
}

/// A verdict that the endpoint's behaviour would explain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    pub verdict: &'static str,
    /// A sentence.
    pub why: String,
}

impl Report {
    /// Draws the conclusions, at the time `now`.
    pub fn new(target: &Target, answers: &Answers, now: Timestamp) -> Self {
        let mut report = Self {
            checks: Vec::new(),
            refused: None,
            certificate: None,
            client_certificate: ClientCertificate::Unknown,
            explains: Vec::new(),
            connections: answers.len(),
        };
        match plan::base(target, answers) {
            Base::Found(base, accepted) => report.conclude(target, &base, accepted, answers, now),
            Base::None(refusal) => {
                report.refused = Some(refusal.clone());
                report.explains.extend(explain_refusal(refusal));
            }
            Base::Try(_) => {}
        }
        report
    }

    /// Whether a TCP connection came about.
    pub fn is_reachable(&self) -> bool {
        !matches!(self.refused, Some(Refusal::Unreachable(_)))
    }

    fn conclude(
        &mut self,
        target: &Target,
        base: &Hello,
        accepted: &Accepted,
        answers: &Answers,
        now: Timestamp,
    ) {
        let questions = plan::questions(target, base, answers);
        let handshake = plan::handshake(base, answers).and_then(|attempt| answers.get(&attempt));
        let handshake = handshake.and_then(|outcome| outcome.answer.as_ref().ok());
        self.checks = questions.iter().filter_map(|question| check(question, answers)).collect();
        let seen: Vec<&Accepted> = handshake
            .into_iter()
            .chain([accepted])
            .chain(
                questions
                    .iter()
                    .filter(|question| is_same_name(&question.attempt, base))
                    .filter_map(|question| answers.get(&question.attempt)?.answer.as_ref().ok()),
            )
            .collect();
        let name = base.server_name.as_deref().map(|name| ServerName::new(name.as_bytes()));
        self.certificate(&seen, name.as_ref(), now);
        self.client_certificate = client_certificate(handshake, &seen);
        let explanations = [
            self.proxy_header(base),
            self.server_name(base),
            self.nobodys_name(),
            self.listing(Aspect::Version, "protocol_version_mismatch", "TLS versions"),
            self.suites(),
            self.listing(Aspect::Group, "group_mismatch", "key exchange groups"),
            self.large_hello(),
            self.alpn(),
        ];
        for Explanation { verdict, why } in explanations.into_iter().flatten() {
            self.explain(verdict, why);
        }
        if self.client_certificate == ClientCertificate::Required {
            self.explain(
                "client_certificate_missing",
                "The endpoint requires a client certificate.".to_owned(),
            );
        }
    }

    fn explain(&mut self, verdict: &'static str, why: String) {
        if !self.explains.iter().any(|explanation| explanation.verdict == verdict) {
            self.explains.push(Explanation { verdict, why });
        }
    }

    fn of(&self, aspect: Aspect) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.aspect == aspect)
    }

    fn find(&self, aspect: Aspect, offer: &str) -> Option<&Check> {
        self.of(aspect).find(|check| check.offer == offer)
    }

    fn certificate(&mut self, seen: &[&Accepted], name: Option<&ServerName>, now: Timestamp) {
        let Some(chain) = seen.iter().find_map(|accepted| accepted.chain.clone()) else { return };
        let trust = seen.iter().find_map(|accepted| accepted.trust.clone());
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut faults = certificate_faults(&chain, name, now);
        if trust == Some(Trust::Trusted) {
            // What the names of the certificates suggest about the way to a root, the signatures refute.
            faults.retain(|fault| !fault.is_about_path);
        }
        let mut problems = Vec::new();
        for fault in &faults {
            self.explain(fault.verdict, format!("The server's certificate {}.", fault.text));
            problems.push(fault.text.clone());
        }
        if trust == Some(Trust::UnknownIssuer) && faults.is_empty() {
            problems.push("is not issued by an authority of the given file".to_owned());
            self.explain(
                "server_ca_unknown",
                "No authority of the given file issued the server's chain.".to_owned(),
            );
        }
        self.certificate = Some(CertificateReport { chain, problems, trust });
    }

    fn proxy_header(&self, base: &Hello) -> Option<Explanation> {
        let refused = |offer| {
            self.find(Aspect::ProxyHeader, offer).filter(|check| check.result == CheckResult::Refused)
        };
        if base.proxy.is_some() {
            let bare = refused("none")?;
            let why = format!(
                "A ClientHello without PROXY header is refused ({}), with one it is accepted.",
                bare.detail
            );
            return Some(Explanation { verdict: "proxy_header_missing", why });
        }
        let header = refused("v1").or_else(|| refused("v2"))?;
        let why = format!(
            "A PROXY header {} in front of the ClientHello is refused ({}).",
            header.offer, header.detail
        );
        Some(Explanation { verdict: "proxy_header_unexpected", why })
    }

    fn server_name(&self, base: &Hello) -> Option<Explanation> {
        let name = base.server_name.as_deref();
        if let Some(name) = name {
            let without =
                self.find(Aspect::ServerName, "none").filter(|check| check.result == CheckResult::Refused)?;
            let why = format!(
                "Without server_name the endpoint refuses ({}), with {name} it accepts.",
                without.detail
            );
            return Some(Explanation { verdict: "sni_missing", why });
        }
        // The base has no name: either none was asked for, or the one that was is refused.
        let named = self
            .of(Aspect::ServerName)
            .find(|check| check.offer != "none" && check.offer != plan::NOBODYS_NAME)?;
        (named.result == CheckResult::Refused).then(|| Explanation {
            verdict: "sni_unrecognized",
            why: format!(
                "With the server_name {} the endpoint refuses ({}), without it accepts.",
                named.offer, named.detail
            ),
        })
    }

    fn nobodys_name(&self) -> Option<Explanation> {
        let other = self.find(Aspect::ServerName, plan::NOBODYS_NAME)?;
        (other.result == CheckResult::Refused).then(|| Explanation {
            verdict: "sni_unrecognized",
            why: format!("A server_name that the endpoint does not know is refused ({}).", other.detail),
        })
    }

    /// Some of an aspect's values are accepted, and some are not.
    fn listing(&self, aspect: Aspect, verdict: &'static str, what: &str) -> Option<Explanation> {
        let offers = |is_meant: fn(&Check) -> bool| {
            let meant: Vec<_> =
                self.of(aspect).filter(|check| is_meant(check)).map(|check| check.offer.as_str()).collect();
            (!meant.is_empty()).then(|| meant.join(", "))
        };
        let accepted = offers(|check| check.result == CheckResult::Accepted)?;
        // Where another version is selected, this one is not taken. Another group may only be liked better.
        let refused = offers(|check| match check.result {
            CheckResult::Accepted => false,
            CheckResult::Otherwise => check.aspect == Aspect::Version,
            CheckResult::Refused => true,
        })?;
        let why = format!("Of {what} the endpoint takes {accepted}; it does not take {refused}.");
        Some(Explanation { verdict, why })
    }

    fn suites(&self) -> Option<Explanation> {
        self.listing(Aspect::CipherSuite, "cipher_suite_mismatch", "cipher suites")
    }

    fn large_hello(&self) -> Option<Explanation> {
        let large = self.of(Aspect::HelloSize).find(|check| check.result == CheckResult::Refused)?;
        let why = format!(
            "A ClientHello of {} is refused ({}), a small one is accepted.",
            large.offer, large.detail
        );
        Some(Explanation { verdict: "large_client_hello_intolerance", why })
    }

    fn alpn(&self) -> Option<Explanation> {
        let refused: Vec<_> =
            self.of(Aspect::Alpn).filter(|check| check.result == CheckResult::Refused).collect();
        let first = refused.first()?;
        let offers = words::list(
            refused.iter().map(|check| match check.offer.as_str() {
                NOBODYS_PROTOCOL => "one that nobody speaks",
                "none" => "none at all",
                offer => offer,
            }),
            4,
        );
        let why = format!(
            "A client that offers only this application protocol is refused ({}): {offers}.",
            first.detail
        );
        Some(Explanation { verdict: "alpn_mismatch", why })
    }
}

fn is_same_name(attempt: &Attempt, base: &Hello) -> bool {
    match attempt {
        Attempt::Hello(hello) => hello.server_name == base.server_name,
        Attempt::Handshake { server_name, .. } => *server_name == base.server_name,
    }
}

fn check(question: &Question, answers: &Answers) -> Option<Check> {
    let outcome = answers.get(&question.attempt)?;
    let (result, detail) = match &outcome.answer {
        Ok(accepted) if question.wanted.is_met_by(&outcome.answer) => {
            (CheckResult::Accepted, selection(accepted))
        }
        Ok(accepted) => (CheckResult::Otherwise, selection(accepted)),
        Err(refusal) => (CheckResult::Refused, refusal.to_string()),
    };
    let Question { aspect, offer, .. } = question;
    Some(Check { aspect: *aspect, offer: offer.clone(), result, detail, after: outcome.after })
}

/// What a server selected: `TLS 1.2, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, x25519, h2`.
fn selection(accepted: &Accepted) -> String {
    let mut parts = vec![if accepted.version == ProtocolVersion::SSL3 {
        "SSL 3.0".to_owned()
    } else {
        format!("TLS {}", accepted.version)
    }];
    parts.push(accepted.cipher_suite.to_string());
    parts.extend(accepted.group.map(|group| group.to_string()));
    parts.extend(accepted.alpn.as_deref().map(words::printable));
    parts.join(", ")
}

fn client_certificate(handshake: Option<&Accepted>, seen: &[&Accepted]) -> ClientCertificate {
    // Only a handshake that goes on shows what becomes of a client without certificate.
    if let Some(handshake) = handshake
        && handshake.certificate_requested == Some(true)
    {
        return if handshake.refused_after.is_some() {
            ClientCertificate::Required
        } else {
            ClientCertificate::Optional
        };
    }
    match seen.iter().find_map(|accepted| accepted.certificate_requested) {
        Some(true) => ClientCertificate::Requested,
        Some(false) => ClientCertificate::NotRequested,
        None => ClientCertificate::Unknown,
    }
}

/// What an endpoint that accepts no hello at all explains.
fn explain_refusal(refusal: &Refusal) -> Option<Explanation> {
    let (verdict, why) = match refusal {
        Refusal::Unreachable(Unreachable::Refused) => ("port_closed", "A RST answers the SYN.".to_owned()),
        Refusal::Unreachable(Unreachable::TimedOut) => ("syn_timeout", "Nobody answers the SYN.".to_owned()),
        Refusal::Unreachable(Unreachable::Other(_)) | Refusal::Failed(_) => return None,
        Refusal::NotTls { kind, .. } => match kind {
            FirstBytes::SmtpOrFtp
            | FirstBytes::Imap
            | FirstBytes::Pop3
            | FirstBytes::MySqlGreeting
            | FirstBytes::Ldap
            | FirstBytes::Xmpp => {
                ("starttls_expected", format!("The endpoint does not begin with TLS: {refusal}."))
            }
            _ => ("tls_on_plaintext_port", format!("The endpoint does not speak TLS: {refusal}.")),
        },
        Refusal::Reset => {
            ("reset_after_client_hello", "Every ClientHello that was tried is answered by a RST.".to_owned())
        }
        Refusal::Closed => (
            "closed_after_client_hello",
            "The connection is closed after every ClientHello that was tried.".to_owned(),
        ),
        Refusal::Silent => ("server_silent", "No ClientHello that was tried is answered.".to_owned()),
        Refusal::Alert(alert) => match alert.description {
            AlertDescription::UNRECOGNIZED_NAME => {
                ("sni_unrecognized", format!("Every ClientHello that was tried is refused: {refusal}."))
            }
            AlertDescription::PROTOCOL_VERSION => (
                "protocol_version_mismatch",
                format!("Every ClientHello that was tried is refused: {refusal}."),
            ),
            AlertDescription::HANDSHAKE_FAILURE => (
                "handshake_failure_unexplained",
                format!("Every ClientHello that was tried is refused: {refusal}."),
            ),
            _ => ("protocol_error", format!("Every ClientHello that was tried is refused: {refusal}.")),
        },
        Refusal::Malformed(_) => {
            ("protocol_error", format!("The answer is not TLS as it should be: {refusal}."))
        }
    };
    Some(Explanation { verdict, why })
}

impl std::fmt::Display for Refusal {
    /// A phrase that reads after "refused:".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alert(alert) => write!(f, "alert {}", words::alert(alert.description)),
            Self::Closed => f.write_str("closed"),
            Self::Reset => f.write_str("reset"),
            Self::Silent => f.write_str("no answer"),
            Self::NotTls { head, .. } => write!(f, "the answer begins with \"{}\"", words::head(head)),
            Self::Malformed(why) => write!(f, "the answer is malformed: {why}"),
            Self::Failed(why) => write!(f, "the handshake failed: {}", words::printable(why.as_bytes())),
            Self::Unreachable(Unreachable::Refused) => f.write_str("connection refused"),
            Self::Unreachable(Unreachable::TimedOut) => f.write_str("connection timed out"),
            Self::Unreachable(Unreachable::Other(why)) => f.write_str(why),
        }
    }
}

/// Whether this answer is no statement of the endpoint's but a fault on the way.
pub fn is_unreachable(answer: &Answer) -> bool {
    matches!(answer, Err(Refusal::Unreachable(_)))
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{alert, modern, named, probe};
    use super::*;
    use crate::verdict::explain::PROBED;

    fn report(server: impl Fn(&Attempt) -> Answer) -> Report {
        let report = Report::new(&named(), &probe(&named(), server), Timestamp::default());
        // What `tlstrace explain` says of the probe is true.
        assert!(explains(&report).iter().all(|verdict| PROBED.contains(verdict)));
        report
    }

    fn explains(report: &Report) -> Vec<&'static str> {
        report.explains.iter().map(|explanation| explanation.verdict).collect()
    }

    #[test]
    fn a_gateway_that_knows_its_listeners_by_name_explains_sni_missing() {
        let report = report(|attempt| match attempt {
            Attempt::Hello(hello) if hello.server_name.as_deref() != Some("api.example.com") => {
                Err(Refusal::Reset)
            }
            other => modern(other),
        });
        let missing =
            report.explains.iter().find(|explanation| explanation.verdict == "sni_missing").unwrap();
        assert_eq!(
            missing.why,
            "Without server_name the endpoint refuses (reset), with api.example.com it accepts."
        );
        assert!(explains(&report).contains(&"sni_unrecognized"));
    }

    #[test]
    fn a_server_that_takes_any_name_explains_neither_of_them() {
        let report = report(modern);
        assert!(
            !explains(&report).iter().any(|verdict| verdict.starts_with("sni_")),
            "{:?}",
            report.explains
        );
        assert!(
            !explains(&report)
                .iter()
                .any(|verdict| verdict.starts_with("proxy_") || verdict.starts_with("large_"))
        );
    }

    #[test]
    fn what_is_taken_and_what_is_not_is_listed() {
        let report = report(modern);
        let why =
            |verdict| &report.explains.iter().find(|explanation| explanation.verdict == verdict).unwrap().why;
        assert_eq!(
            why("protocol_version_mismatch"),
            "Of TLS versions the endpoint takes 1.3, 1.2; it does not take 1.1, 1.0, ssl3."
        );
        assert!(why("cipher_suite_mismatch").contains("takes TLS_AES_128_GCM_SHA256"));
        assert!(why("group_mismatch").ends_with("it does not take X25519MLKEM768, x448, ffdhe2048."));
    }

    #[test]
    fn a_large_hello_that_is_not_answered_is_intolerance() {
        let report = report(|attempt| match attempt {
            Attempt::Hello(hello) if hello.message(&[0; 32]).len() > 1400 => Err(Refusal::Silent),
            other => modern(other),
        });
        assert!(explains(&report).contains(&"large_client_hello_intolerance"));
    }

    #[test]
    fn a_listener_behind_a_load_balancer_explains_proxy_header_missing_and_the_others_unexpected() {
        let missing = report(|attempt| match attempt {
            Attempt::Hello(Hello { proxy: None, .. }) => Err(Refusal::Closed),
            other => modern(other),
        });
        assert!(explains(&missing).contains(&"proxy_header_missing"));
        let unexpected = report(|attempt| match attempt {
            Attempt::Hello(Hello { proxy: Some(_), .. }) => alert(AlertDescription::UNEXPECTED_MESSAGE),
            other => modern(other),
        });
        assert!(explains(&unexpected).contains(&"proxy_header_unexpected"));
        assert!(!explains(&unexpected).contains(&"proxy_header_missing"));
    }

    #[test]
    fn an_unknown_protocol_that_is_ignored_is_no_mismatch_and_one_that_is_refused_is() {
        assert!(!explains(&report(modern)).contains(&"alpn_mismatch"));
        let strict = report(|attempt| match attempt {
            Attempt::Hello(hello) if hello.alpn.iter().any(|protocol| &**protocol != "h2") => {
                alert(AlertDescription::NO_APPLICATION_PROTOCOL)
            }
            other => modern(other),
        });
        let why =
            &strict.explains.iter().find(|explanation| explanation.verdict == "alpn_mismatch").unwrap().why;
        assert!(why.contains("http/1.1, one that nobody speaks"), "{why}");
    }

    #[test]
    fn a_client_certificate_is_required_only_if_its_absence_was_refused() {
        let with = |refused_after: Option<Refusal>| {
            report(move |attempt| match attempt {
                Attempt::Handshake { .. } => Ok(Accepted {
                    version: ProtocolVersion::TLS1_3,
                    certificate_requested: Some(true),
                    refused_after: refused_after.clone(),
                    ..Accepted::default()
                }),
                other @ Attempt::Hello(_) => modern(other),
            })
        };
        assert_eq!(with(None).client_certificate, ClientCertificate::Optional);
        let required = with(Some(Refusal::Closed));
        assert_eq!(required.client_certificate, ClientCertificate::Required);
        assert!(explains(&required).contains(&"client_certificate_missing"));
    }

    #[test]
    fn an_endpoint_that_does_not_speak_tls_is_told_by_its_first_bytes() {
        let not_tls = |kind, head: &'static [u8]| {
            explains(&report(move |_| Err(Refusal::NotTls { kind, head: head.into() })))
        };
        assert_eq!(not_tls(FirstBytes::Http, b"HTTP/1.1 400"), ["tls_on_plaintext_port"]);
        assert_eq!(not_tls(FirstBytes::SmtpOrFtp, b"220 mail"), ["starttls_expected"]);
        let closed = report(|_| Err(Refusal::Unreachable(Unreachable::Refused)));
        assert!(!closed.is_reachable());
        assert_eq!(explains(&closed), ["port_closed"]);
    }
}
