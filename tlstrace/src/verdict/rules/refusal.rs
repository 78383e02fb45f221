//! One side refused the handshake for a reason that its alert, or the order of events, names.

use std::time::Duration;

use crate::engine::facts::{How, Phase, Role};
use crate::tls::codepoints::AlertDescription;
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] =
    &[&ServerCertificateUnavailable, &EchRejected, &RenegotiationRefused, &ProtocolError];

/// A client that was refused its ECH tries again at once.
const ECH_RETRY_WINDOW: Duration = Duration::from_secs(5);

/// See [`Rule::doc_short`].
struct ServerCertificateUnavailable;

impl Rule for ServerCertificateUnavailable {
    fn id(&self) -> &'static str {
        "server_certificate_unavailable"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server could not select or load a certificate for this name."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered the ClientHello with internal_error (RFC 8446 §6.2). Servers that fetch \
         certificates on demand (Go's GetCertificate, ACME host policies, secret stores) say so when that \
         fails; that other names work on the same listener, or that this one worked before, makes it \
         likely."
    }

    fn remedy(&self) -> &'static str {
        "Look into the server's log at this time; check the certificate, key and secret for this name, and \
         the issuer's rate limits."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (_, alert) = case.root.alert_by(Role::Server)?;
        if alert.description != AlertDescription::INTERNAL_ERROR || !case.is_hello_refused() {
            return None;
        }
        let hello = case.facts.client_hello.as_ref()?;
        let known = case.listener.name_of(hello).is_some_and(|name| name.tally.accepted > 0);
        let name =
            case.facts.server_name().map_or_else(|| "no name".to_owned(), std::borrow::Cow::into_owned);
        let mut finding = Finding::new(format!(
            "The client asked for {name} and the server answered with the alert {}.",
            words::alert(alert.description)
        ))
        .blame(Blame::Server)
        .confidence(if known { Confidence::Inferred } else { Confidence::Suspected })
        .evidence("alert", words::alert(alert.description));
        if known {
            finding = finding.evidence("listener_history", "handshakes for this name completed before");
        }
        Some(
            finding
                .alternative(
                    "sni_unrecognized",
                    "some servers say internal_error for names that they do not have",
                )
                .alternative("protocol_error", "the server may have failed for any internal reason"),
        )
    }
}

/// See [`Rule::doc_short`].
struct EchRejected;

impl Rule for EchRejected {
    fn id(&self) -> &'static str {
        "ech_rejected"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The server did not accept the client's Encrypted ClientHello, and the client tried again."
    }

    fn doc_long(&self) -> &'static str {
        "The ClientHello carried encrypted_client_hello, the handshake completed with the outer name, the \
         client sent one record of an alert's size (ech_required is sent only then, RFC 9849 §6.1.6), \
         closed without any data, and offered ECH again at once. A GREASE extension never leads to that."
    }

    fn remedy(&self) -> &'static str {
        "Publish the server's current ECHConfig in DNS (HTTPS record) and keep the previous key until \
         caches expire."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let hello = facts.client_hello.as_ref()?;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Client)?;
        if !hello.encrypted_client_hello
            || !case.client_alerted_after_finished()
            || !case.listener.offered_ech_after(facts.client().address.ip(), ending.time, ECH_RETRY_WINDOW)
        {
            return None;
        }
        Some(
            Finding::new(
                "The client completed the handshake with the outer name, closed without data and tried ECH again.",
            )
            .blame(Blame::Config)
            .confidence(Confidence::Inferred)
            .ended_by(Role::Client, EndedHow::Alert)
            .evidence("ech_offered", "the ClientHello has encrypted_client_hello")
            .evidence("retry", "the same client offered ECH again right after")
            .alternative("client_closed_after_handshake", "the alert is encrypted"),
        )
    }
}

/// See [`Rule::doc_short`].
struct RenegotiationRefused;

impl Rule for RenegotiationRefused {
    fn id(&self) -> &'static str {
        "renegotiation_refused"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "One side asked for another handshake on the connection, and it failed."
    }

    fn doc_long(&self) -> &'static str {
        "After both Finished messages a handshake record came (a HelloRequest or a ClientHello, RFC 5246 \
         §7.4.1), and the connection ended with an alert and without application data after it. What the \
         alert says is encrypted; no_renegotiation (RFC 5746 §4.2) is usual."
    }

    fn remedy(&self) -> &'static str {
        "Turn renegotiation off in the side that asks for it (client certificates per path, old TLS \
         stacks), or use TLS 1.3."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let Some((role, begun)) = facts.renegotiation else {
            let (ending, alert) =
                case.root.alert_by(Role::Server).or_else(|| case.root.alert_by(Role::Client))?;
            if alert.description != AlertDescription::NO_RENEGOTIATION {
                return None;
            }
            return Some(
                Finding::new(format!(
                    "{} refused to renegotiate with the alert {}.",
                    words::side(ending.role),
                    words::alert(alert.description)
                ))
                .blame(Blame::Config),
            );
        };
        let ending = case.root.ending?;
        let refusing = facts.peer(role.peer());
        let answered = refusing.opaque_records.iter().any(|record| {
            record.time >= begun && record.content_type == crate::tls::codepoints::ContentType::ALERT
        });
        if !answered {
            return None;
        }
        Some(
            Finding::new(format!(
                "{} asked to renegotiate and the {} answered with an encrypted alert; then the {} {}.",
                words::side(role),
                role.peer().as_str(),
                ending.role.as_str(),
                words::ending_of(&ending)
            ))
            .blame(Blame::Config)
            .confidence(Confidence::Inferred)
            .ended_by(role.peer(), EndedHow::Alert)
            .evidence("handshake_after_finished", "a handshake record after both Finished messages"),
        )
    }
}

/// See [`Rule::doc_short`].
struct ProtocolError;

impl Rule for ProtocolError {
    fn id(&self) -> &'static str {
        "protocol_error"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "A peer broke the protocol, or thought that the other had."
    }

    fn doc_long(&self) -> &'static str {
        "The handshake ended with an alert that names a fault in the protocol itself (RFC 8446 §6.2): \
         decode_error, illegal_parameter, unexpected_message, missing_extension, bad_record_mac, \
         decrypt_error, record_overflow, internal_error and the like. The alert is the first event, not an \
         answer to the other side's end, so one of the two stacks has a bug, or something on the path \
         changes bytes."
    }

    fn remedy(&self) -> &'static str {
        "Update the side that the alert accuses; capture the connection on both ends to see whether the \
         path changes it."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        if let Some(finding) = refused_before_certificate(case) {
            return Some(finding);
        }
        let ending = case.root.ending?;
        let How::Alert(alert) = ending.how else { return None };
        let by_name = matches!(
            alert.description,
            AlertDescription::UNEXPECTED_MESSAGE
                | AlertDescription::BAD_RECORD_MAC
                | AlertDescription::DECRYPTION_FAILED
                | AlertDescription::RECORD_OVERFLOW
                | AlertDescription::DECOMPRESSION_FAILURE
                | AlertDescription::ILLEGAL_PARAMETER
                | AlertDescription::DECODE_ERROR
                | AlertDescription::DECRYPT_ERROR
                | AlertDescription::PROTOCOL_VERSION
                | AlertDescription::INTERNAL_ERROR
                | AlertDescription::MISSING_EXTENSION
                | AlertDescription::UNSUPPORTED_EXTENSION
                | AlertDescription::UNKNOWN_PSK_IDENTITY
                | AlertDescription::GENERAL_ERROR
                | AlertDescription::EXPORT_RESTRICTION
                | AlertDescription::NO_CERTIFICATE
        );
        let late_failure =
            alert.description == AlertDescription::HANDSHAKE_FAILURE && !case.is_handshake_failure();
        if !(by_name || late_failure) || facts.client_hello.is_none() || facts.phase() == Phase::Complete {
            return None;
        }
        let side = words::side(ending.role);
        let after = if facts.server_hello.is_some() {
            "after the ServerHello"
        } else if facts.hello_retry_request.is_some() {
            "after the HelloRetryRequest"
        } else {
            "after the ClientHello"
        };
        // Whoever says internal_error accuses itself.
        let accused = match alert.description {
            AlertDescription::INTERNAL_ERROR | AlertDescription::GENERAL_ERROR => ending.role,
            _ => ending.role.peer(),
        };
        Some(
            Finding::new(format!(
                "{side} {}: it sent the alert {} {after}.",
                alert.description.meaning(),
                words::alert(alert.description)
            ))
            .blame(match accused {
                Role::Client => Blame::Client,
                Role::Server => Blame::Server,
            })
            .specificity(Specificity::Class)
            .evidence("alert", words::alert(alert.description)),
        )
    }
}

/// TLS 1.3: the client's encrypted alert came before the server's flight was complete, so it is hardly about the
/// certificate.
fn refused_before_certificate(case: &Case<'_>) -> Option<Finding> {
    let exchange = case.exchange()?;
    let record = exchange.client_alert()?;
    let is_first = case.root.ending.is_some_and(|ending| ending.time >= record.time);
    if exchange.is_server_flight_complete() || !is_first {
        return None;
    }
    Some(
        Finding::new("The client sent an encrypted alert before the server's flight was complete.")
            .confidence(Confidence::Suspected)
            .specificity(Specificity::Class)
            .ended_by(Role::Client, EndedHow::Alert)
            .evidence(
                "encrypted_alert",
                format!("a record of {} bytes stands where a Finished is due", record.length),
            )
            .alternative("server_certificate_rejected", "the server's flight may be padded or coalesced"),
    )
}
