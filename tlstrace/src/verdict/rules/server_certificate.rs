//! The client did not accept the server's certificate.
//!
//! [`refusal`] tells whether and how the client refused: by an alert, by an encrypted alert, by a close in the
//! middle of the handshake, or by a close after it. [`cause`] asks the certificate, where it was seen, what is
//! wrong with it. Alerts alone are no truth: Go says `bad_certificate` for everything, JSSE
//! `certificate_unknown`, Node and gRPC nothing (`DIAGNOSIS.md` §3.2).

use std::time::Duration;

use crate::engine::facts::{Ending, How, Role};
use crate::engine::timestamp::Timestamp;
use crate::engine::tls13::Exchange;
use crate::tls::certificate::trust::Trust;
use crate::tls::certificate::{Certificate, CertificateChain, KeyAlgorithm, NameMatch};
use crate::tls::client_hello::ServerName;
use crate::tls::codepoints::{AlertDescription, ContentType, ProtocolVersion};
use crate::verdict::{
    Blame, Case, CertificateFault, Confidence, EndedHow, Evidence, Finding, KnownChain, Severity,
    Specificity, words,
};

use super::{Rule, rule};

pub(super) const RULES: &[&dyn Rule] = &[
    &Expired,
    &NotYetValid,
    &ClientClockWrong,
    &HostnameMismatch,
    &ChainIncomplete,
    &ChainMisordered,
    &SelfSigned,
    &CaUnknown,
    &Revoked,
    &Unsupported,
    &OcspResponseRejected,
    &Rejected,
    &ClientClosedAfterHandshake,
];

/// After the handshake a verifier decides at once; who closes later had other reasons.
const LATE_CHECK: Duration = Duration::from_secs(5);
/// A silent close in the middle of the handshake that comes later is more likely a timeout.
const SILENT_CHECK: Duration = Duration::from_secs(1);
/// Header, level and description.
const ALERT_RECORD_LEN: u64 = 7;
/// A certificate that expires within so many days is worth a warning.
const EXPIRY_WARNING_DAYS: i64 = 14;
const DAY: i64 = 86_400;

rule!(
    Expired, "server_certificate_expired", Error,
    short: "The server's certificate has expired, and the client refused it.",
    long: "The certificate's notAfter (RFC 5280 §4.1.2.5) had passed when the client met it. Known from the \
           certificate, which TLS 1.2 shows, or from the alert certificate_expired (45, RFC 8446 §6.2), which \
           OpenSSL clients send in the clear also under TLS 1.3. Some stacks say 45 for a certificate that is \
           not valid yet, and a client whose clock runs ahead says it for one that is valid.",
    remedy: "Renew the server's certificate, deploy it and reload the server; if it was renewed already, find \
             the instance that still serves the old one."
);

rule!(
    NotYetValid, "server_certificate_not_yet_valid", Error,
    short: "The server's certificate is not valid yet, and the client refused it.",
    long: "The certificate's notBefore (RFC 5280 §4.1.2.5) lay in the future when the client met it: it was \
           issued for later, or the clock of the issuing machine ran ahead. rustls and NSS report this as \
           certificate_expired (45), JSSE and Go as bad_certificate (42).",
    remedy: "Deploy a certificate that is valid now, and check the clock of the machine that issues them."
);

rule!(
    ClientClockWrong, "client_clock_wrong", Warning,
    short: "The client called a certificate expired that is valid: its clock is wrong.",
    long: "The client sent the alert certificate_expired (45, RFC 8446 §6.2), while every certificate of the \
           chain was valid at the time of the packets. Either the client's clock is off, or the observer's is.",
    remedy: "Synchronise the client's clock (NTP), and compare it with the clock of this host."
);

rule!(
    HostnameMismatch, "hostname_mismatch", Error,
    short: "The server's certificate does not cover the name that the client asked for.",
    long: "No subjectAltName of the certificate matches the client's server_name by RFC 9525 §6 (a wildcard \
           stands for one whole label, an address matches only an address), and the client refused: with an \
           alert (42 OpenSSL and Go, 46 JSSE), or, as curl does, by closing after a complete handshake.",
    remedy: "Reissue the certificate with this name among its subjectAltNames, or make the server select the \
             right certificate for this server_name, or correct the name that the client uses."
);

rule!(
    ChainIncomplete, "server_chain_incomplete", Error,
    short: "The server does not send the intermediate certificate that its own was issued by.",
    long: "The issuer of the last certificate that can be reached from the leaf is not in the chain, although \
           RFC 8446 §4.4.2 (RFC 5246 §7.4.2) asks for everything but the root. Clients that have the \
           intermediate in a cache succeed, all others do not. Where the leaf's issuer may be a root, the \
           client may lack that root instead.",
    remedy: "Configure the full chain (leaf first, then every intermediate, no root) on the server and reload it."
);

rule!(
    ChainMisordered, "server_chain_misordered", Error,
    short: "The server sends its certificates in the wrong order, or unrelated ones among them.",
    long: "RFC 5246 §7.4.2 requires that each certificate certifies the one before it. The chain holds \
           everything that is needed, but not in this order. Most clients sort it, strict ones refuse it; RFC \
           8446 §4.4.2 only asks clients to be tolerant.",
    remedy: "Put the leaf first, then each issuer in turn, into the server's chain file; remove what does not belong."
);

rule!(
    SelfSigned, "server_certificate_self_signed", Error,
    short: "The server's certificate is self-signed, and the client does not trust it.",
    long: "Subject and issuer of the leaf are the same, and so are its key identifiers (RFC 5280 §3.2), so no \
           authority vouches for it. The client said unknown_ca (48), certificate_unknown (46) or \
           bad_certificate (42), depending on its stack.",
    remedy: "Install a certificate from an authority that the clients trust; a default or snake-oil certificate \
             usually means that the intended one was not loaded. For tests, trust this certificate in the client."
);

rule!(
    CaUnknown, "server_ca_unknown", Error,
    short: "The client does not know the authority that issued the server's certificate.",
    long: "The client sent unknown_ca (48, RFC 8446 §6.2), or a generic certificate alert about a chain that \
           is complete, current and covers the name. Under TLS 1.3 the chain is not visible, and the same \
           alert is sent for a self-signed certificate and a missing intermediate.",
    remedy: "Add the issuing root to the client's trust store (CA bundle, Java trust store, Apigee TrustStore), or \
             use a certificate from an authority that it trusts."
);

rule!(
    Revoked, "server_certificate_revoked", Error,
    short: "The client found the server's certificate revoked.",
    long: "The client sent certificate_revoked (44, RFC 8446 §6.2) after it consulted a CRL or OCSP.",
    remedy: "Replace the certificate and its key, and ask the authority why it was revoked."
);

rule!(
    Unsupported, "server_certificate_unsupported", Error,
    short: "The server's certificate is of a kind that the client does not accept.",
    long: "The client sent unsupported_certificate (43, RFC 8446 §6.2), or refused a certificate whose \
           extendedKeyUsage (RFC 5280 §4.2.1.12) does not allow server authentication. JSSE says 43 also when \
           an algorithm is disabled by policy (jdk.certpath.disabledAlgorithms).",
    remedy: "Reissue the certificate with extendedKeyUsage serverAuth, a key of at least RSA 2048 or P-256, and a \
             SHA-2 signature."
);

rule!(
    OcspResponseRejected, "ocsp_response_rejected", Error,
    short: "The client refused the OCSP response that the server stapled, or missed one.",
    long: "The client sent bad_certificate_status_response (113, RFC 6066 §8).",
    remedy: "Let the server fetch a fresh OCSP response, or switch stapling off; a certificate with \
             must-staple needs one."
);

rule!(
    Rejected, "server_certificate_rejected", Error,
    short: "The client refused the server's certificate, and the reason is not visible.",
    long: "The client sent a certificate alert that does not say why and no fault is visible in the chain; or \
           under TLS 1.3 its first encrypted record after the server's flight was too short for a Finished \
           (RFC 8446 §4.4.4), so it is an encrypted alert; or it closed without a word right after the \
           server's flight, as Node and gRPC do.",
    remedy: "Look into the client's log, and verify the chain as the client does: openssl s_client -connect \
             HOST:PORT -servername NAME -verify_return_error -CAfile CLIENT_TRUST.pem."
);

rule!(
    ClientClosedAfterHandshake, "client_closed_after_handshake", Warning,
    short: "The client completed the handshake and closed the connection without sending anything.",
    long: "Some clients check the host name or a pin only after the handshake, and close (curl, wget, Node under \
           TLS 1.2, NSS). Connections that were opened ahead of need and handshake-only probes look the same, \
           so this is a hint, not a failure. An orderly close (close_notify, RFC 8446 §6.1) of a client that \
           offered no application protocol counts as ok.",
    remedy: "If the client reports an error, check the certificate's names and the client's pins; if it is a probe \
             or a spare connection, nothing is wrong."
);

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    Expired,
    NotYetValid,
    ClientClockWrong,
    HostnameMismatch,
    ChainIncomplete,
    ChainMisordered,
    SelfSigned,
    CaUnknown,
    Revoked,
    Unsupported,
    OcspResponseRejected,
    Rejected,
    ClientClosedAfterHandshake,
}

/// How the client refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// By an alert that can be read.
    Alert(AlertDescription),
    /// By an alert that cannot.
    EncryptedAlert { length: u16, is_usual_length: bool },
    /// By a FIN or RST in answer to the server's flight.
    Silent(Ending),
    /// By closing a complete handshake before it carried anything.
    AfterHandshake { is_suspicious: bool },
}

/// A cause, and how sure it is.
struct Diagnosis {
    cause: Cause,
    confidence: Confidence,
    blame: Blame,
    /// What the certificate says, to follow "presented a certificate that …"; empty if nothing.
    fault: String,
    alternatives: &'static [(&'static str, &'static str)],
}

fn judge(case: &Case<'_>, cause: Cause) -> Option<Finding> {
    case.answers.server_certificate.give(cause, || find(case))
}

fn find(case: &Case<'_>) -> Option<(Cause, Finding)> {
    let (refusal, time) = refusal(case)?;
    let chain = case.server_chain();
    let diagnosis = diagnose(case, refusal, chain.as_ref(), time)?;
    let cause = diagnosis.cause;
    let summary = if diagnosis.fault.is_empty() {
        format!("The client {}.", reaction(case, refusal, "the server's certificate"))
    } else {
        let reaction = reaction(case, refusal, "it");
        format!("The server's certificate {}, and the client {reaction}.", diagnosis.fault)
    };
    let mut finding = Finding::new(summary).blame(diagnosis.blame).confidence(diagnosis.confidence);
    if matches!(cause, Cause::Rejected | Cause::ClientClosedAfterHandshake) {
        finding = finding.specificity(Specificity::Class);
    }
    finding = match refusal {
        Refusal::Alert(alert) => finding.evidence("client_alert", words::alert(alert)),
        Refusal::EncryptedAlert { length, .. } => finding
            .ended_by(Role::Client, EndedHow::Alert)
            .evidence("encrypted_alert", encrypted_alert_text(case, length)),
        Refusal::Silent(ending) => finding.evidence("silent_refusal", words::ending(&ending)),
        Refusal::AfterHandshake { .. } => {
            finding.evidence("no_application_data", "the client sent none before it closed")
        }
    };
    // After a complete handshake the connection itself did not fail; and who leaves without a word, with nothing to
    // object to in sight, may only have come to look, as scanners do.
    let has_seen_no_fault = chain.as_ref().is_some_and(|chain| chain.chain.leaf().is_some());
    if match refusal {
        Refusal::AfterHandshake { .. } => true,
        Refusal::Silent(_) => cause == Cause::Rejected && has_seen_no_fault,
        Refusal::Alert(_) | Refusal::EncryptedAlert { .. } => false,
    } {
        finding = finding.severity(Severity::Warning);
    }
    if let Some(chain) = &chain {
        finding = finding.evidence("server_certificate", describe(chain));
        if chain.from_history {
            finding = finding.evidence(
                "known_chain",
                "seen in the clear on this listener for this name, and its size fits the encrypted one",
            );
        }
    }
    if let Some(others) = accepted_by_others(case, cause, chain.as_ref()) {
        finding = finding.evidence(
            "listener_history",
            format!(
                "{others} handshakes with this certificate completed here: other clients have its issuer"
            ),
        );
    }
    if let Some(detail) = chain.as_ref().and_then(|chain| trust_text(&chain.chain.trust)) {
        finding = finding.evidence("trust_anchors", detail);
    }
    for &(verdict, why) in diagnosis.alternatives {
        finding = finding.alternative(verdict, why);
    }
    Some((cause, finding))
}

/// How many handshakes with this certificate completed, where it is a question of what a client has.
fn accepted_by_others(case: &Case<'_>, cause: Cause, chain: Option<&KnownChain<'_>>) -> Option<u32> {
    let is_in_question = matches!(cause, Cause::ChainIncomplete | Cause::CaUnknown | Cause::SelfSigned);
    let known = case.listener.name_of(case.facts.client_hello.as_ref()?).filter(|_| is_in_question)?;
    let is_same = known.leaf()? == chain?.chain.leaf()?.sha256;
    Some(known.tally.accepted).filter(|accepted| is_same && *accepted > 0)
}

/// What the authorities that the user gave say about a chain.
fn trust_text(trust: &Trust) -> Option<String> {
    match trust {
        Trust::NotAsked => None,
        Trust::Anchored(anchor) => {
            Some(format!("the chain leads to {}, which is among the given authorities", anchor.subject))
        }
        Trust::Astray { anchors, same_name: false } => {
            Some(format!("the chain leads to none of the {anchors} given authorities"))
        }
        Trust::Astray { anchors, same_name: true } => Some(format!(
            "the chain leads to none of the {anchors} given authorities; one of them has the issuer's name and \
             another key"
        )),
    }
}

/// Whether and how the client refused what the server presented, and when.
fn refusal(case: &Case<'_>) -> Option<(Refusal, Timestamp)> {
    let facts = case.facts;
    facts.client_hello.as_ref()?;
    // In a resumed session no certificate is presented.
    if facts.progress.resumed {
        return None;
    }
    if let Some((ending, alert)) = case.root.alert_by(Role::Client) {
        return is_about_certificates(alert.description)
            .then_some((Refusal::Alert(alert.description), ending.time));
    }
    let root = case.root.ending?;
    let exchange = case.exchange();
    if let Some(exchange) = exchange
        && let Some(record) = exchange.client_alert()
    {
        // A client whose server has hung up may well say so in an alert.
        let server_was_first = root.role == Role::Server && root.time < record.time;
        let refusal = Refusal::EncryptedAlert {
            length: record.length,
            is_usual_length: exchange.sizes.is_alert(record.length, None),
        };
        return (!server_was_first && exchange.is_server_flight_complete()).then_some((refusal, record.time));
    }
    let closed_by_client = root.role == Role::Client && !matches!(root.how, How::Alert(_));
    if exchange.is_none()
        && facts.progress.client_finished.is_some()
        && let Some(record) = early_encrypted_alert(case)
    {
        let refusal = Refusal::EncryptedAlert { length: record.length, is_usual_length: true };
        return Some((refusal, record.time));
    }
    if facts.progress.client_finished.is_some() || facts.progress.complete.is_some() {
        return late_close(case, exchange, &root);
    }
    let flight = facts.progress.server_flight?;
    let is_flight_complete = match exchange {
        Some(exchange) => exchange.is_server_flight_complete(),
        None => facts.progress.server_hello_done.is_some() && facts.server().certificates.is_some(),
    };
    let server = facts.server();
    // A bare RST comes from a socket that is gone: the process was ended, or its descriptor closed before.
    let is_deliberate = !matches!(root.how, How::Reset(reset) if !reset.is_active_abort());
    let is_answer = closed_by_client
        && is_deliberate
        && facts.client().opaque_records.is_empty()
        && facts.progress.client_key_exchange.is_none()
        && server.stuck_at.is_none()
        && (exchange.is_some() || has_received_flight(case, &root))
        && root.time.since(flight) < SILENT_CHECK;
    (is_flight_complete && is_answer).then_some((Refusal::Silent(root), root.time))
}

/// Whether who ended the connection had received all that the server sent until somebody ended it. In TLS 1.3 the
/// server may go on without waiting (tickets, an encrypted alert), and nothing shows where its flight ended.
fn has_received_flight(case: &Case<'_>, root: &Ending) -> bool {
    let facts = case.facts;
    let ends =
        facts.endings.iter().filter(|ending| ending.role == Role::Server).map(|ending| ending.position);
    let flight = ends.min().unwrap_or(facts.server().bytes);
    // An alert is placed at the segment in which it ends, and may have begun before it.
    root.received.is_none_or(|received| received + ALERT_RECORD_LEN >= flight)
}

/// NSS verifies while it finishes the handshake: in TLS 1.2 its alert follows its own Finished and does not wait
/// for the server's.
fn early_encrypted_alert<'a>(case: &Case<'a>) -> Option<&'a crate::engine::facts::OpaqueRecord> {
    let facts = case.facts;
    let record =
        facts.client().opaque_records.iter().find(|record| record.content_type == ContentType::ALERT)?;
    let is_answered = record.peer_records > 0 || facts.progress.client_data.is_some();
    let is_refused = case.root.ending.is_some_and(|root| root.time >= record.time);
    (!is_answered && is_refused).then_some(record)
}

/// The client closed a handshake that it had completed, and had sent nothing.
fn late_close(
    case: &Case<'_>,
    exchange: Option<&Exchange<'_>>,
    root: &Ending,
) -> Option<(Refusal, Timestamp)> {
    let facts = case.facts;
    let progress = &facts.progress;
    // A server that presents no certificate request has nothing to refuse in its turn.
    let finished = progress.client_finished?;
    if progress.client_data.is_some() || facts.client_hello.as_ref()?.early_data {
        return None;
    }
    // Up to two session tickets, and the answer to a close, are no application data either.
    let is_server_silent = match exchange {
        Some(exchange) => {
            exchange.server_answer().filter(|record| !exchange.is_server_alert(record)).count() <= 2
        }
        None => progress.server_data.is_none(),
    };
    let closing = facts.endings.iter().find(|ending| ending.role == Role::Client)?;
    if !is_server_silent || root.time.since(finished) > LATE_CHECK {
        return None;
    }
    let goodbye = match exchange {
        Some(exchange) => exchange.client_answer().find(|record| exchange.is_client_alert(record)),
        None => facts.client().opaque_records.iter().find(|record| record.content_type == ContentType::ALERT),
    };
    let offers_http = facts
        .client_hello
        .as_ref()?
        .alpn
        .iter()
        .any(|protocol| matches!(&**protocol, b"h2" | b"http/1.1" | b"http/1.0"));
    // The server's FIN may be its answer to a close_notify.
    let closed_first = root.role == Role::Client
        || goodbye.is_some_and(|goodbye| root.received.is_some_and(|received| received > goodbye.position));
    let is_suspicious = closed_first && (offers_http || goodbye.is_none());
    Some((Refusal::AfterHandshake { is_suspicious }, closing.time))
}

fn diagnose(
    case: &Case<'_>,
    refusal: Refusal,
    chain: Option<&KnownChain<'_>>,
    time: Timestamp,
) -> Option<Diagnosis> {
    let now = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let leaf = chain.and_then(|chain| chain.chain.leaf()).map(|leaf| &**leaf);
    let observed = if chain.is_some_and(|chain| chain.from_history) {
        Confidence::Inferred
    } else {
        Confidence::Observed
    };
    let is_tls13 = case.facts.version().is_some_and(ProtocolVersion::is_tls13);
    let is_asked = chain.is_some_and(|chain| chain.chain.trust != Trust::NotAsked);
    let plain = |cause, confidence, blame| Diagnosis {
        cause,
        confidence,
        blame,
        fault: String::new(),
        alternatives: &[],
    };
    let diagnosis = match refusal {
        Refusal::Alert(AlertDescription::CERTIFICATE_REVOKED) => {
            plain(Cause::Revoked, Confidence::Observed, Blame::Server)
        }
        Refusal::Alert(AlertDescription::BAD_CERTIFICATE_STATUS_RESPONSE) => {
            plain(Cause::OcspResponseRejected, Confidence::Observed, Blame::Server)
        }
        Refusal::Alert(AlertDescription::UNSUPPORTED_CERTIFICATE) => {
            plain(Cause::Unsupported, Confidence::Observed, Blame::Server)
        }
        Refusal::Alert(AlertDescription::CERTIFICATE_EXPIRED) => match (chain, leaf) {
            (Some(chain), Some(_)) => date_fault(chain, now, observed).unwrap_or(Diagnosis {
                fault: "was valid at that time".to_owned(),
                alternatives: &[("server_certificate_expired", "the observer's own clock may be wrong")],
                ..plain(Cause::ClientClockWrong, Confidence::Inferred, Blame::Client)
            }),
            _ => Diagnosis {
                alternatives: &[
                    (
                        "client_clock_wrong",
                        "the certificate was not visible; the client's clock may be wrong",
                    ),
                    (
                        "server_certificate_not_yet_valid",
                        "rustls and NSS say the same of a certificate that is not valid yet",
                    ),
                ],
                ..plain(Cause::Expired, Confidence::Inferred, Blame::Server)
            },
        },
        Refusal::Alert(AlertDescription::UNKNOWN_CA) => match (chain, leaf) {
            // The alert and the given authorities agree.
            (Some(chain), Some(leaf)) => {
                path_fault(chain, leaf, if is_asked { observed } else { Confidence::Inferred })
                    .unwrap_or_else(|| unknown_authority(chain, leaf, observed))
            }
            _ => Diagnosis {
                alternatives: &[
                    ("server_chain_incomplete", "a missing intermediate gives the same alert"),
                    ("server_certificate_self_signed", "a self-signed certificate gives the same alert"),
                ],
                ..plain(Cause::CaUnknown, Confidence::Suspected, Blame::Unknown)
            },
        },
        // Generic alerts, and none: the certificate decides.
        Refusal::Alert(alert) => match (chain, leaf) {
            (Some(chain), Some(leaf)) => date_fault(chain, now, observed)
                .or_else(|| name_fault(case, leaf, Confidence::Inferred))
                .or_else(|| usage_fault(leaf))
                .or_else(|| match path_fault(chain, leaf, Confidence::Inferred)? {
                    // A client may check another name than the one that it sent, and says the same then.
                    fault if fault.cause == Cause::ChainIncomplete && !is_asked => Some(Diagnosis {
                        confidence: Confidence::Suspected,
                        alternatives: &[
                            ("hostname_mismatch", "the client may have checked another name than it sent"),
                            ("server_ca_unknown", "if that issuer is a root, the client lacks it"),
                        ],
                        ..fault
                    }),
                    fault => Some(fault),
                })
                .unwrap_or_else(|| match chain.chain.trust {
                    // What nothing visible is wrong with, and leads to an authority: a name, a pin, a policy.
                    Trust::Anchored(_) => Diagnosis {
                        alternatives: &[
                            ("hostname_mismatch", "the client may have checked another name than it sent"),
                            ("server_ca_unknown", "the client may know other authorities than those given"),
                        ],
                        ..plain(Cause::Rejected, Confidence::Observed, Blame::Unknown)
                    },
                    Trust::NotAsked | Trust::Astray { .. } => Diagnosis {
                        alternatives: &[(
                            "server_certificate_rejected",
                            "a pin or a policy of the client gives the same alert",
                        )],
                        ..unknown_authority(chain, leaf, Confidence::Suspected)
                    },
                }),
            _ => Diagnosis {
                alternatives: if alert == AlertDescription::BAD_CERTIFICATE {
                    &[("hostname_mismatch", "OpenSSL sends bad_certificate when the name does not match")]
                } else {
                    &[
                        ("hostname_mismatch", "this alert is sent for a wrong name"),
                        ("server_ca_unknown", "and for an unknown authority"),
                    ]
                },
                // The alert's own meaning is a fault of the certificate (RFC 8446 §6.2).
                ..plain(
                    Cause::Rejected,
                    Confidence::Observed,
                    if alert == AlertDescription::BAD_CERTIFICATE { Blame::Server } else { Blame::Unknown },
                )
            },
        },
        Refusal::EncryptedAlert { is_usual_length, .. } => {
            let confidence = if is_usual_length { Confidence::Inferred } else { Confidence::Suspected };
            leaf.zip(chain).and_then(|(leaf, chain)| any_fault(case, chain, leaf, now)).unwrap_or(Diagnosis {
                alternatives: if is_tls13 {
                    &[("protocol_error", "the client may have refused another part of the server's flight")]
                } else {
                    &[]
                },
                ..plain(Cause::Rejected, confidence, Blame::Unknown)
            })
        }
        Refusal::Silent(_) => leaf
            .zip(chain)
            .and_then(|(leaf, chain)| any_fault(case, chain, leaf, now))
            // That the issuer is not there is usual where it is a root, and a silent close tells nothing of it.
            .filter(|fault| {
                is_asked || !matches!(fault.cause, Cause::ChainIncomplete | Cause::ChainMisordered)
            })
            .map_or(
                Diagnosis {
                    alternatives: &[
                        ("client_abandoned", "the client may have given up for another reason"),
                        ("server_ca_unknown", "the client may not know the issuer, or miss an intermediate"),
                    ],
                    ..plain(Cause::Rejected, Confidence::Suspected, Blame::Unknown)
                },
                |fault| Diagnosis {
                    confidence: Confidence::Suspected,
                    alternatives: &[("client_abandoned", "the client may have given up for another reason")],
                    ..fault
                },
            ),
        Refusal::AfterHandshake { is_suspicious } => {
            let fault = leaf.zip(chain).and_then(|(leaf, chain)| {
                date_fault(chain, now, Confidence::Inferred)
                    .or_else(|| name_fault(case, leaf, Confidence::Inferred))
                    // Clients that complete the handshake first are often those that do not look at these.
                    .or_else(|| {
                        let fault = usage_fault(leaf)
                            .map(|fault| Diagnosis { confidence: Confidence::Suspected, ..fault })
                            .or_else(|| path_fault(chain, leaf, Confidence::Suspected));
                        fault.filter(|_| is_suspicious)
                    })
            });
            match fault {
                Some(fault) => Diagnosis {
                    confidence: fault.confidence.min(if is_suspicious {
                        Confidence::Inferred
                    } else {
                        Confidence::Suspected
                    }),
                    alternatives: &[("ok", "a probe or a spare connection looks the same")],
                    ..fault
                },
                None if is_suspicious => Diagnosis {
                    alternatives: &[
                        ("hostname_mismatch", "curl checks the name after the handshake"),
                        ("ok", "a probe or a spare connection looks the same"),
                    ],
                    ..plain(Cause::ClientClosedAfterHandshake, Confidence::Suspected, Blame::Unknown)
                },
                None => return None,
            }
        }
    };
    Some(diagnosis)
}

/// The first thing that a verifier would object to.
fn any_fault(case: &Case<'_>, chain: &KnownChain<'_>, leaf: &Certificate, now: i64) -> Option<Diagnosis> {
    date_fault(chain, now, Confidence::Inferred)
        .or_else(|| name_fault(case, leaf, Confidence::Inferred))
        .or_else(|| usage_fault(leaf))
        .or_else(|| {
            let is_asked = chain.chain.trust != Trust::NotAsked;
            path_fault(chain, leaf, if is_asked { Confidence::Inferred } else { Confidence::Suspected })
        })
}

fn date_fault(chain: &KnownChain<'_>, now: i64, confidence: Confidence) -> Option<Diagnosis> {
    let certificates = &chain.chain.certificates;
    // An expired certificate that the leaf's path does not need does no harm.
    let on_path = certificates.iter().enumerate().filter(|(at, certificate)| {
        *at == 0
            || certificates
                .iter()
                .take(*at)
                .any(|below| below.is_issued_by(certificate) && !certificate.is_self_signed())
    });
    for (at, certificate) in on_path {
        let issuer = &certificate.subject;
        if now > certificate.not_after {
            let fault = if at == 0 {
                format!(
                    "expired on {} ({} ago)",
                    date(certificate.not_after),
                    days(now - certificate.not_after)
                )
            } else {
                format!("cannot be verified: its issuer {issuer} expired on {}", date(certificate.not_after))
            };
            return Some(Diagnosis {
                cause: Cause::Expired,
                confidence,
                blame: Blame::Server,
                fault,
                alternatives: &[],
            });
        }
        if now < certificate.not_before {
            let fault = if at == 0 {
                format!(
                    "is valid only from {} (in {})",
                    date(certificate.not_before),
                    days(certificate.not_before - now)
                )
            } else {
                format!(
                    "cannot be verified: its issuer {issuer} is valid only from {}",
                    date(certificate.not_before)
                )
            };
            return Some(Diagnosis {
                cause: Cause::NotYetValid,
                confidence,
                blame: Blame::Server,
                fault,
                alternatives: &[],
            });
        }
    }
    match &chain.chain.trust {
        // Some stacks look at the dates of a root, others do not (RFC 5280 §6.1 leaves it open).
        Trust::Anchored(anchor) if now > anchor.not_after => Some(Diagnosis {
            cause: Cause::Expired,
            confidence: confidence.min(Confidence::Inferred),
            blame: Blame::Server,
            fault: format!(
                "cannot be verified: its root {} expired on {}",
                anchor.subject,
                date(anchor.not_after)
            ),
            alternatives: &[("server_ca_unknown", "the client may lack the root that replaced it")],
        }),
        _ => None,
    }
}

fn name_fault(case: &Case<'_>, leaf: &Certificate, confidence: Confidence) -> Option<Diagnosis> {
    name_fault_of(case.facts.client_hello.as_ref()?.server_name.as_ref()?, leaf, confidence)
}

fn name_fault_of(name: &ServerName, leaf: &Certificate, confidence: Confidence) -> Option<Diagnosis> {
    (leaf.matches_name(name) == NameMatch::Differs).then(|| Diagnosis {
        cause: Cause::HostnameMismatch,
        confidence,
        blame: Blame::Server,
        fault: format!("covers {} and not {}", names_of(leaf), name.as_str()),
        alternatives: &[],
    })
}

fn usage_fault(leaf: &Certificate) -> Option<Diagnosis> {
    leaf.extended_key_usage.filter(|usage| !usage.allows_server()).map(|_| Diagnosis {
        cause: Cause::Unsupported,
        confidence: Confidence::Inferred,
        blame: Blame::Server,
        fault: "may not be used by servers (extendedKeyUsage lacks serverAuth)".to_owned(),
        alternatives: &[],
    })
}

/// What is wrong with the way from the leaf to a root.
fn path_fault(chain: &KnownChain<'_>, leaf: &Certificate, confidence: Confidence) -> Option<Diagnosis> {
    let certificates = &chain.chain;
    let fault = |cause, fault, alternatives| {
        Some(Diagnosis { cause, confidence, blame: Blame::Server, fault, alternatives })
    };
    let (is_anchored, is_astray) = match certificates.trust {
        Trust::NotAsked => (false, false),
        Trust::Anchored(_) => (true, false),
        Trust::Astray { .. } => (false, true),
    };
    if certificates.is_self_signed_leaf() && !is_anchored {
        return fault(Cause::SelfSigned, format!("is self-signed ({})", leaf.subject), &[]);
    }
    // An issuer is missing where the leaf's is: above an intermediate it is a root as a rule, which may be left out.
    if let Some(missing) = certificates.missing_issuer()
        && !certificates.certificates.iter().skip(1).any(|other| leaf.is_issued_by(other))
        && !is_anchored
    {
        let has_namesake = matches!(certificates.trust, Trust::Astray { same_name: true, .. });
        if is_named_root(missing) || has_namesake {
            return is_astray.then(|| unknown_authority(chain, leaf, confidence));
        }
        return fault(
            Cause::ChainIncomplete,
            format!("was issued by {missing}, which is not in the chain of {}", certificates.count),
            &[("server_ca_unknown", "if that issuer is a root, the client lacks it")],
        );
    }
    if certificates.links_in_order() == Some(false) {
        return fault(
            Cause::ChainMisordered,
            format!("came in a chain of {} that is out of order", certificates.count),
            &[("server_ca_unknown", "most clients sort the chain; the client may lack the root")],
        );
    }
    is_astray.then(|| unknown_authority(chain, leaf, confidence))
}

/// A chain without a fault of its own whose authority the client does not take.
fn unknown_authority(chain: &KnownChain<'_>, leaf: &Certificate, confidence: Confidence) -> Diagnosis {
    let by = format!("was issued by {}", leaf.issuer);
    let diagnosis = |confidence, blame, fault, alternatives| Diagnosis {
        cause: Cause::CaUnknown,
        confidence,
        blame,
        fault,
        alternatives,
    };
    match &chain.chain.trust {
        Trust::NotAsked => diagnosis(
            confidence.min(Confidence::Inferred),
            Blame::Client,
            by,
            &[("server_chain_incomplete", "the server may leave out an intermediate")],
        ),
        Trust::Anchored(anchor) => diagnosis(
            confidence,
            Blame::Client,
            format!("{by} and leads to {}, one of the given authorities", anchor.subject),
            &[],
        ),
        Trust::Astray { anchors, .. } => diagnosis(
            confidence,
            Blame::Config,
            format!("{by} and leads to none of the {anchors} given authorities"),
            &[],
        ),
    }
}

/// Roots call themselves so, by a custom that nearly all authorities follow: a chain that ends below one is
/// complete (RFC 5246 §7.4.2 lets the root be left out).
fn is_named_root(subject: &str) -> bool {
    subject
        .split(|character: char| !character.is_ascii_alphanumeric())
        .any(|word| word.eq_ignore_ascii_case("root"))
}

/// Alerts that a client sends about a certificate and nothing else.
fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BAD_CERTIFICATE
            | AlertDescription::UNSUPPORTED_CERTIFICATE
            | AlertDescription::CERTIFICATE_REVOKED
            | AlertDescription::CERTIFICATE_EXPIRED
            | AlertDescription::CERTIFICATE_UNKNOWN
            | AlertDescription::UNKNOWN_CA
            | AlertDescription::ACCESS_DENIED
            | AlertDescription::BAD_CERTIFICATE_STATUS_RESPONSE
    )
}

/// What the client did to `what`, to follow "The client …".
fn reaction(case: &Case<'_>, refusal: Refusal, what: &str) -> String {
    match refusal {
        Refusal::Alert(alert) => {
            let under = case.facts.version().map_or(String::new(), |version| format!(" under TLS {version}"));
            format!("refused {what} with the alert {}{under}", words::alert(alert))
        }
        Refusal::EncryptedAlert { .. } => {
            format!("refused {what} with an encrypted alert where its Finished was due")
        }
        Refusal::Silent(ending) => {
            let flight = case.facts.progress.server_flight.unwrap_or(ending.time);
            let how = if ending.how == How::Close { "closed" } else { "reset" };
            let delay = words::duration(ending.time.since(flight));
            format!("{how} the connection {delay} after {what}, without an alert")
        }
        Refusal::AfterHandshake { .. } => {
            "completed the handshake and ended the connection without sending any data".to_owned()
        }
    }
}

fn encrypted_alert_text(case: &Case<'_>, length: u16) -> String {
    match case.exchange() {
        Some(exchange) => format!(
            "a record of {length} bytes stands where a Finished of at least {} must",
            exchange.sizes.finished
        ),
        None => {
            format!("an alert record of {length} bytes followed the client's Finished before the server's")
        }
    }
}

fn describe(known: &KnownChain<'_>) -> String {
    let Some(leaf) = known.chain.leaf() else {
        return format!("{} certificates, the leaf cannot be parsed", known.chain.count);
    };
    format!(
        "{}, issued by {}, valid {} to {}, names {}, chain of {}",
        leaf.subject,
        leaf.issuer,
        date(leaf.not_before),
        date(leaf.not_after),
        names_of(leaf),
        known.chain.count
    )
}

fn names_of(leaf: &Certificate) -> String {
    let names: Vec<_> = leaf.names.iter().filter_map(words::alternative_name).collect();
    if names.is_empty() { "no name".to_owned() } else { words::list(names, 4) }
}

fn days(seconds: i64) -> String {
    match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn date(seconds: i64) -> String {
    words::date(seconds)
}

/// All that a verifier would object to in a chain that is presented for `name` at `now` (seconds since 1970).
pub(super) fn faults(chain: &CertificateChain, name: Option<&ServerName>, now: i64) -> Vec<CertificateFault> {
    let known = KnownChain { chain, from_history: false };
    let Some(leaf) = chain.leaf() else { return Vec::new() };
    [
        date_fault(&known, now, Confidence::Observed),
        name.and_then(|name| name_fault_of(name, leaf, Confidence::Observed)),
        usage_fault(leaf),
        path_fault(&known, leaf, Confidence::Inferred),
    ]
    .into_iter()
    .flatten()
    .filter_map(|Diagnosis { cause, fault: text, .. }| {
        let (verdict, is_about_path) = match cause {
            Cause::Expired => (Expired.id(), false),
            Cause::NotYetValid => (NotYetValid.id(), false),
            Cause::HostnameMismatch => (HostnameMismatch.id(), false),
            Cause::Unsupported => (Unsupported.id(), false),
            Cause::ChainIncomplete => (ChainIncomplete.id(), true),
            Cause::ChainMisordered => (ChainMisordered.id(), true),
            Cause::SelfSigned => (SelfSigned.id(), true),
            // What no certificate tells by itself.
            _ => return None,
        };
        Some(CertificateFault { verdict, text, is_about_path })
    })
    .collect()
}

/// What is worth knowing about the certificate of a handshake that succeeded.
pub(super) fn warnings(case: &Case<'_>) -> Vec<Evidence> {
    let mut warnings = Vec::new();
    let Some(chain) = case.facts.server().certificates.as_ref() else { return warnings };
    let Some(leaf) = chain.leaf() else { return warnings };
    let mut warn = |fact, detail: String| warnings.push(Evidence { fact, detail: detail.into() });
    let now = i64::try_from(case.facts.last_seen.as_secs()).unwrap_or(i64::MAX);
    if now > leaf.not_after {
        warn("certificate_expired", format!("it expired on {}", date(leaf.not_after)));
    } else if now < leaf.not_before {
        warn("certificate_not_yet_valid", format!("it is valid from {}", date(leaf.not_before)));
    } else if leaf.not_after - now < EXPIRY_WARNING_DAYS * DAY {
        warn(
            "certificate_expires_soon",
            format!("it expires on {}, in {}", date(leaf.not_after), days(leaf.not_after - now)),
        );
    }
    if let Some(name) = case.facts.client_hello.as_ref().and_then(|hello| hello.server_name.as_ref())
        && leaf.matches_name(name) == NameMatch::Differs
    {
        warn("certificate_name_differs", format!("it covers {} and not {}", names_of(leaf), name.as_str()));
    }
    if leaf.key.algorithm == KeyAlgorithm::Rsa && leaf.key.bits.is_some_and(|bits| bits < 2048) {
        warn("certificate_weak_key", format!("RSA with {} bits", leaf.key.bits.unwrap_or_default()));
    }
    if leaf.has_weak_signature {
        warn("certificate_weak_signature", format!("signed with {}", leaf.signature_algorithm));
    }
    if matches!(chain.trust, Trust::Astray { .. }) {
        warn("certificate_not_anchored", trust_text(&chain.trust).unwrap_or_default());
    }
    let is_anchored = matches!(chain.trust, Trust::Anchored(_));
    if !chain.is_self_signed_leaf() && chain.is_fully_parsed() && !is_anchored {
        if chain.count == 1 && !is_named_root(&leaf.issuer) {
            warn("certificate_chain_short", format!("the leaf alone; its issuer is {}", leaf.issuer));
        } else if chain.links_in_order() == Some(false) {
            warn("certificate_chain_misordered", format!("{} certificates, out of order", chain.count));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_known_by_the_word_in_its_name() {
        assert!(is_named_root("CN=ISRG Root X1,O=Internet Security Research Group,C=US"));
        assert!(!is_named_root("CN=R11,O=Let's Encrypt,C=US"));
        assert!(!is_named_root("CN=Rootless Issuer"));
    }

    #[test]
    fn less_than_a_day_is_said_so() {
        assert_eq!(days(3600), "less than a day");
        assert_eq!(days(3 * DAY + 5), "3 days");
    }
}
