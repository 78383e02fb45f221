//! The server did not accept the client's certificate, or missed it.
//!
//! In TLS 1.2 the messages are in the clear: whether the server asked, what the client sent, and the alert. In
//! TLS 1.3 the sizes of records tell whether a certificate was sent, and the server's first record after the
//! client's Finished whether it was refused: by then the client believes that all is well
//! (`DIAGNOSIS.md` §3.4, §4.2).

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::engine::facts::{Ending, How, Role};
use crate::engine::timestamp::Timestamp;
use crate::engine::tls13::{ClientCertificate, Exchange};
use crate::tls::certificate::{Certificate, CertificateChain};
use crate::tls::codepoints::{AlertDescription, ContentType};
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::{Rule, rule};

pub(super) const RULES: &[&dyn Rule] =
    &[&Missing, &Expired, &Revoked, &Unsupported, &Untrusted, &KeyMismatch, &Rejected];

/// A server that answers a request without a client certificate closes soon after.
const SHORT_EXCHANGE: Duration = Duration::from_secs(5);
/// Record lengths of nginx's page for status 400 with its headers, which is about 400 bytes long, by HTTP/1.1 and h2,
/// with and without its version. Less is a small answer of an application, more a larger one.
const ERROR_PAGE: RangeInclusive<u32> = 250..=550;

rule!(
    Missing, "client_certificate_missing", Error,
    short: "The server requires a client certificate and the client sent none.",
    long: "The server sent a CertificateRequest, the client answered with an empty Certificate (RFC 5246 \
           §7.4.6, RFC 8446 §4.4.2.4), and the server refused: with certificate_required (116), \
           handshake_failure (40, OpenSSL), bad_certificate (42, Go and JSSE) or decode_error (50, GnuTLS), or \
           by closing. In TLS 1.3 the empty Certificate is a record of fixed size before the Finished, and the \
           server's alert is encrypted. nginx completes the handshake and answers the request with status 400.",
    remedy: "Configure a certificate and its key in the client, issued by an authority that the server accepts; \
             or make the client certificate optional on the server."
);

rule!(
    Expired, "client_certificate_expired", Error,
    short: "The client's certificate has expired, or is not valid yet, and the server refused it.",
    long: "The validity of the client's certificate (RFC 5280 §4.1.2.5) does not include the time of the packets, \
           or the server sent certificate_expired (45, RFC 8446 §6.2).",
    remedy: "Renew the client's certificate and restart or reload the client."
);

rule!(
    Revoked, "client_certificate_revoked", Error,
    short: "The server found the client's certificate revoked.",
    long: "The server sent certificate_revoked (44, RFC 8446 §6.2) after the client's Certificate.",
    remedy: "Issue a new certificate for the client; if it should not be revoked, check the server's CRL or OCSP."
);

rule!(
    Unsupported, "client_certificate_unsupported", Error,
    short: "The client's certificate is of a kind that the server does not accept.",
    long: "The server sent unsupported_certificate (43, RFC 8446 §6.2), or refused a certificate whose \
           extendedKeyUsage (RFC 5280 §4.2.1.12) does not allow client authentication.",
    remedy: "Reissue the client's certificate with extendedKeyUsage clientAuth, and a key and signature that the \
             server accepts."
);

rule!(
    Untrusted, "client_certificate_untrusted", Error,
    short: "The server does not trust the issuer of the client's certificate.",
    long: "The server sent unknown_ca (48, RFC 8446 §6.2) or access_denied (49), or it refused a certificate none \
           of whose issuers is among the certificate_authorities that it had listed (RFC 5246 §7.4.4).",
    remedy: "Use a client certificate from one of the authorities that the server lists, sent with its \
             intermediates; or add the issuer to the server's trust store."
);

rule!(
    KeyMismatch, "client_certificate_key_mismatch", Error,
    short: "The client could not prove that it holds the key of its certificate.",
    long: "The server sent decrypt_error (51, RFC 8446 §6.2) after the client's CertificateVerify: the signature \
           does not fit the certificate, because the key belongs to another one or something altered the \
           handshake.",
    remedy: "Check that the client's key belongs to its certificate: openssl x509 -noout -pubkey and openssl pkey \
             -pubout must print the same."
);

rule!(
    Rejected, "client_certificate_rejected", Error,
    short: "The server refused the client's certificate, and the reason is not visible.",
    long: "The client sent a Certificate and a CertificateVerify, and the server's first record after the \
           client's Finished is as short as an alert (RFC 8446 §6), or the server closed at once; or, in TLS \
           1.2, the alert does not say why and no fault is visible in the certificate.",
    remedy: "Look into the server's log for the verification error, and check the issuer, the dates and the \
             extendedKeyUsage of the client's certificate against the server's trust store."
);

/// What is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    Missing,
    Expired,
    Revoked,
    Unsupported,
    Untrusted,
    KeyMismatch,
    Rejected,
}

/// How the server refused.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    /// By an alert that can be read.
    Alert(AlertDescription),
    /// By an alert that cannot (TLS 1.3). A late one came after the client had begun to close, and may be the
    /// answer to that.
    EncryptedAlert { length: u16, is_late: bool },
    /// By a FIN or RST.
    Silent(Ending),
    /// By a short answer and a close, after a complete handshake.
    ShortAnswer { bytes: u32 },
}

/// What the client had sent.
#[derive(Clone, Copy, Debug)]
enum Presented<'a> {
    Nothing,
    /// Seen in the clear.
    Chain(&'a CertificateChain),
    /// Told from the sizes of records.
    Encrypted,
}

fn judge(case: &Case<'_>, cause: Cause) -> Option<Finding> {
    case.answers.client_certificate.give(cause, || find(case))
}

fn find(case: &Case<'_>) -> Option<(Cause, Finding)> {
    let presented = presented(case)?;
    let (refusal, time) = refusal(case, presented)?;
    let (cause, confidence, fault) = diagnose(case, presented, refusal, time);
    let reaction = match refusal {
        Refusal::Alert(alert) => format!("the server refused with the alert {}", words::alert(alert)),
        Refusal::EncryptedAlert { .. } => {
            "the server answered the client's Finished with an encrypted alert".to_owned()
        }
        Refusal::Silent(ending) => {
            let how = if ending.how == How::Close { "closed" } else { "reset" };
            format!("the server {how} the connection without an alert")
        }
        Refusal::ShortAnswer { bytes } => {
            format!("the server completed the handshake, sent {bytes} bytes and closed")
        }
    };
    let blame = match cause {
        Cause::Missing | Cause::Expired | Cause::Revoked | Cause::Unsupported | Cause::KeyMismatch => {
            Blame::Client
        }
        Cause::Untrusted => Blame::Config,
        Cause::Rejected => Blame::Unknown,
    };
    let mut finding = Finding::new(format!("{fault}, and {reaction}.")).blame(blame).confidence(confidence);
    if cause == Cause::Rejected {
        finding = finding
            .specificity(Specificity::Class)
            .alternative("client_certificate_untrusted", "the server may not trust its issuer")
            .alternative("client_certificate_expired", "it may have expired");
    }
    if cause == Cause::Untrusted && confidence == Confidence::Suspected {
        finding = finding.alternative(
            "client_certificate_rejected",
            "a policy about whom the certificate names gives the same alert",
        );
    }
    finding = match refusal {
        Refusal::Alert(alert) => finding.evidence("server_alert", words::alert(alert)),
        Refusal::EncryptedAlert { length, is_late } => {
            let finding = finding.ended_by(Role::Server, EndedHow::Alert).evidence(
                "encrypted_alert",
                format!("the server's first record after the client's Finished is as short as an alert ({length} bytes)"),
            );
            if is_late {
                finding.alternative("ok", "it may answer the client's close_notify")
            } else {
                finding
            }
        }
        Refusal::Silent(ending) => finding.evidence("silent_refusal", words::ending(&ending)),
        Refusal::ShortAnswer { .. } => finding
            .severity(Severity::Warning)
            .specificity(Specificity::Class)
            .evidence(
                "short_answer",
                "nginx answers a request without a required certificate with status 400",
            )
            .alternative("ok", "the certificate may be optional and the answer short"),
    };
    finding = match presented {
        Presented::Nothing => finding.evidence("empty_client_certificate", empty_certificate_text(case)),
        // The subject names a person or a device and is not repeated.
        Presented::Chain(chain) => match chain.leaf() {
            Some(leaf) => finding.evidence(
                "client_certificate",
                format!(
                    "issued by {}, valid {} to {}, chain of {}",
                    words::client_issuer(leaf),
                    words::date(leaf.not_before),
                    words::date(leaf.not_after),
                    chain.count
                ),
            ),
            None => finding.evidence("client_certificate", "it cannot be parsed"),
        },
        Presented::Encrypted => finding.evidence(
            "client_certificate",
            "a Certificate and a CertificateVerify stand before the Finished",
        ),
    };
    if let Some(request) = &case.facts.certificate_request
        && !request.authorities.is_empty()
    {
        finding = finding.evidence(
            "accepted_authorities",
            format!("the server lists {}", words::list(&request.authorities, 3)),
        );
    }
    Some((cause, finding))
}

/// What the client presented, if the server asked for a certificate.
fn presented<'a>(case: &Case<'a>) -> Option<Presented<'a>> {
    let facts = case.facts;
    if let Some(exchange) = case.exchange() {
        return match exchange.client.certificate {
            ClientCertificate::Empty => Some(Presented::Nothing),
            ClientCertificate::Sent | ClientCertificate::Unclear => Some(Presented::Encrypted),
            ClientCertificate::NotSent => None,
        };
    }
    let asked = facts.certificate_request.is_some();
    match &facts.client().certificates {
        Some(chain) if chain.is_empty() => Some(Presented::Nothing),
        Some(chain) => Some(Presented::Chain(chain)),
        // SSL 3 clients without a certificate send none at all (RFC 6101 §5.6.6).
        None => (asked && facts.progress.client_key_exchange.is_some()).then_some(Presented::Nothing),
    }
}

fn refusal(case: &Case<'_>, presented: Presented<'_>) -> Option<(Refusal, Timestamp)> {
    let facts = case.facts;
    let progress = &facts.progress;
    let root = case.root.ending?;
    if let Some((ending, alert)) = case.root.alert_by(Role::Server) {
        let names_a_certificate = is_about_certificates(alert.description, presented);
        return names_a_certificate.then_some((Refusal::Alert(alert.description), ending.time));
    }
    let exchange = case.exchange();
    if let Some(exchange) = exchange {
        let first = exchange.server_reaction().next();
        if let Some(first) = first.filter(|record| exchange.is_server_alert(record)) {
            let is_only = exchange.server_reaction().all(|record| exchange.is_server_alert(record));
            let ended_by_server = facts.endings.iter().any(|ending| ending.role == Role::Server);
            // A server may leave it to the client to close. A client that goes on was not refused, unless it wrote its
            // request before it read: nobody says goodbye after a fatal alert (RFC 8446 §6.2), or has had an answer.
            let answers = || exchange.client_answer().filter(|record| record.had_received(first));
            let went_on = answers().any(|record| !exchange.is_client_alert(record))
                && (answers().any(|record| exchange.is_client_alert(record))
                    || exchange.client_answer().any(|record| record.time < first.time));
            let ended_by_client = !went_on && facts.endings.iter().any(|ending| ending.time >= first.time);
            let ended = ended_by_server || ended_by_client;
            let is_late = exchange
                .client_answer()
                .any(|record| exchange.is_client_alert(record) && record.time < first.time);
            let refusal = Refusal::EncryptedAlert { length: first.length, is_late };
            return (is_only && ended).then_some((refusal, first.time));
        }
        // A server that had hung up before has not seen the client's flight.
        let is_answer = exchange.client_flight_began().is_some_and(|began| began <= root.time);
        let is_clear = exchange.client.certificate != ClientCertificate::Unclear;
        if first.is_none()
            && is_clear
            && is_answer
            && root.role == Role::Server
            && progress.client_finished.is_some()
        {
            return Some((Refusal::Silent(root), root.time));
        }
    } else if progress.complete.is_none() {
        let flight_is_out = progress.client_key_exchange.is_some_and(|sent| sent <= root.time)
            && progress.server_finished.is_none();
        return (flight_is_out && root.role == Role::Server).then_some((Refusal::Silent(root), root.time));
    }
    let Presented::Nothing = presented else { return None };
    let bytes = short_answer(case, exchange)?;
    Some((Refusal::ShortAnswer { bytes }, root.time))
}

/// Bytes of the server's only answer, if it sent one and closed at once.
fn short_answer(case: &Case<'_>, exchange: Option<&Exchange<'_>>) -> Option<u32> {
    let facts = case.facts;
    let finished = facts.progress.client_finished?;
    facts.progress.client_data?;
    let closed = facts.endings.iter().find(|ending| ending.role == Role::Server)?;
    if closed.time.since(finished) > SHORT_EXCHANGE {
        return None;
    }
    let request = facts.progress.client_data?;
    let answers: Vec<u32> = match exchange {
        // Session tickets come as soon as the Finished has, before a request is answered.
        Some(exchange) => exchange
            .server_answer()
            .filter(|record| record.time >= request && !exchange.is_server_alert(record))
            .map(|record| u32::from(record.length))
            .collect(),
        None => facts
            .server()
            .opaque_records
            .iter()
            .filter(|record| record.content_type == ContentType::APPLICATION_DATA)
            .map(|record| u32::from(record.length))
            .collect(),
    };
    // Where the request overtakes the tickets, they are counted in: at most two, before the answer.
    let last = answers.last().copied()?;
    // By position where it is known: one segment may carry the Finished and the request.
    let requests = match exchange {
        Some(exchange) => exchange.client_answer().count(),
        None => facts
            .client()
            .opaque_records
            .iter()
            .filter(|record| record.time >= request && record.content_type != ContentType::HANDSHAKE)
            .count(),
    };
    (answers.len() <= 3 && requests <= 2 && ERROR_PAGE.contains(&last)).then_some(last)
}

fn diagnose(
    case: &Case<'_>,
    presented: Presented<'_>,
    refusal: Refusal,
    time: Timestamp,
) -> (Cause, Confidence, String) {
    let now = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let chain = match presented {
        Presented::Nothing => {
            let confidence = match refusal {
                Refusal::Alert(_) => Confidence::Observed,
                Refusal::EncryptedAlert { is_late: false, .. } | Refusal::Silent(_) => Confidence::Inferred,
                Refusal::EncryptedAlert { is_late: true, .. } | Refusal::ShortAnswer { .. } => {
                    Confidence::Suspected
                }
            };
            return (
                Cause::Missing,
                confidence,
                "The client sent no certificate although the server asked for one".to_owned(),
            );
        }
        Presented::Chain(chain) => Some(chain),
        Presented::Encrypted => None,
    };
    let leaf = chain.and_then(CertificateChain::leaf).map(|leaf| &**leaf);
    let sent = || "The client sent a certificate".to_owned();
    let by_facts = leaf.zip(chain).and_then(|(leaf, chain)| fault(case, chain, leaf, now));
    let said = |cause, confidence| (cause, confidence, sent());
    match refusal {
        Refusal::Alert(AlertDescription::CERTIFICATE_REVOKED) => said(Cause::Revoked, Confidence::Observed),
        Refusal::Alert(AlertDescription::CERTIFICATE_EXPIRED) => match by_facts {
            Some((Cause::Expired, fault)) => (Cause::Expired, Confidence::Observed, fault),
            _ => said(Cause::Expired, Confidence::Inferred),
        },
        Refusal::Alert(AlertDescription::UNSUPPORTED_CERTIFICATE) => {
            said(Cause::Unsupported, Confidence::Observed)
        }
        Refusal::Alert(AlertDescription::DECRYPT_ERROR) => said(Cause::KeyMismatch, Confidence::Inferred),
        Refusal::Alert(alert @ (AlertDescription::UNKNOWN_CA | AlertDescription::ACCESS_DENIED)) => {
            match by_facts {
                Some((Cause::Untrusted, fault)) => (Cause::Untrusted, Confidence::Observed, fault),
                // GnuTLS denies access whatever is wrong.
                Some((cause, fault)) if alert == AlertDescription::ACCESS_DENIED => {
                    (cause, Confidence::Inferred, fault)
                }
                _ if alert == AlertDescription::UNKNOWN_CA => {
                    let fault = leaf.map_or_else(sent, |leaf| {
                        format!("The client's certificate was issued by {}", words::client_issuer(leaf))
                    });
                    (Cause::Untrusted, Confidence::Inferred, fault)
                }
                _ => said(Cause::Untrusted, Confidence::Suspected),
            }
        }
        // Generic alerts, and none: the certificate decides.
        _ => {
            if let Some((cause, fault)) = by_facts {
                return (cause, Confidence::Inferred, fault);
            }
            let confidence = match refusal {
                Refusal::Alert(_) => Confidence::Observed,
                Refusal::EncryptedAlert { is_late: true, .. } | Refusal::Silent(_) => Confidence::Suspected,
                // One large record may be the whole flight of rustls, or a Finished that is padded to a block.
                Refusal::EncryptedAlert { .. } if is_unclear(case) => Confidence::Suspected,
                Refusal::EncryptedAlert { .. } | Refusal::ShortAnswer { .. } => Confidence::Inferred,
            };
            (Cause::Rejected, confidence, sent())
        }
    }
}

/// Whether a client's certificate is only supposed to be in its flight.
fn is_unclear(case: &Case<'_>) -> bool {
    case.exchange().is_some_and(|exchange| exchange.client.certificate == ClientCertificate::Unclear)
}

/// What is visibly wrong with a client's certificate.
fn fault(case: &Case<'_>, chain: &CertificateChain, leaf: &Certificate, now: i64) -> Option<(Cause, String)> {
    if now > leaf.not_after {
        return Some((
            Cause::Expired,
            format!("The client's certificate expired on {}", words::date(leaf.not_after)),
        ));
    }
    if now < leaf.not_before {
        let from = words::date(leaf.not_before);
        return Some((Cause::Expired, format!("The client's certificate is valid only from {from}")));
    }
    if leaf.extended_key_usage.is_some_and(|usage| !usage.allows_client()) {
        let fault = "The client's certificate may not be used by clients (extendedKeyUsage lacks clientAuth)";
        return Some((Cause::Unsupported, fault.to_owned()));
    }
    let request = case.facts.certificate_request.as_ref()?;
    let is_listed =
        |certificate: &Certificate| request.authorities.iter().any(|name| **name == *certificate.issuer);
    let all_listed = request.authorities.len() == usize::from(request.authority_count);
    let is_unlisted = all_listed
        && !request.authorities.is_empty()
        && chain.is_fully_parsed()
        && !chain.certificates.iter().any(|certificate| is_listed(certificate));
    is_unlisted.then(|| {
        let fault = format!(
            "The client's certificate was issued by {}, which is not among the {} authorities that the server lists",
            words::client_issuer(leaf),
            request.authority_count
        );
        (Cause::Untrusted, fault)
    })
}

/// Alerts that servers send about a client's certificate, or for want of one.
fn is_about_certificates(alert: AlertDescription, presented: Presented<'_>) -> bool {
    match alert {
        AlertDescription::BAD_CERTIFICATE
        | AlertDescription::UNSUPPORTED_CERTIFICATE
        | AlertDescription::CERTIFICATE_REVOKED
        | AlertDescription::CERTIFICATE_EXPIRED
        | AlertDescription::CERTIFICATE_UNKNOWN
        | AlertDescription::UNKNOWN_CA
        | AlertDescription::ACCESS_DENIED
        | AlertDescription::CERTIFICATE_REQUIRED
        | AlertDescription::NO_CERTIFICATE => true,
        // Without a certificate OpenSSL says handshake_failure and GnuTLS decode_error.
        AlertDescription::HANDSHAKE_FAILURE | AlertDescription::DECODE_ERROR => {
            matches!(presented, Presented::Nothing)
        }
        AlertDescription::DECRYPT_ERROR => matches!(presented, Presented::Chain(_)),
        _ => false,
    }
}

fn empty_certificate_text(case: &Case<'_>) -> &'static str {
    if case.facts.client().certificates.is_some() {
        "the client's Certificate message is empty"
    } else if case.exchange().is_some() {
        "a record of the size of an empty Certificate stands before the client's Finished"
    } else {
        "the client sent no Certificate message"
    }
}
