//! The server name: missing, unknown to the server, or not a name.

use crate::engine::facts::{How, Role};
use crate::tls::codepoints::{AlertDescription, AlertLevel};
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::Rule;
use super::offer::Offer;

pub(super) const RULES: &[&dyn Rule] = &[&SniMissing, &SniUnrecognized, &SniIpLiteral];

/// Names that must have been accepted for another one's refusal to stand out.
const CONTRAST: u32 = 3;

/// See [`Rule::doc_short`].
struct SniMissing;

impl Rule for SniMissing {
    fn id(&self) -> &'static str {
        "sni_missing"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client sent no server_name and this listener refuses that."
    }

    fn doc_long(&self) -> &'static str {
        "The ClientHello has no server_name extension (RFC 6066 §3), and the server refused it: with the \
         alert unrecognized_name, or, as Envoy, Istio and Apigee do when no filter chain matches, with a \
         bare reset. Certain where the same listener accepts hellos that carry a name and none that do \
         not; without such history a reset can have other reasons, and they are listed."
    }

    fn remedy(&self) -> &'static str {
        "Make the client send SNI (connect by host name, not by address), or give the listener a default \
         certificate for clients without SNI."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.client_hello.as_ref()?;
        let history = case.listener;
        if hello.server_name.is_some() || history.without_name.accepted > 0 {
            return None;
        }
        let named = history.with_name;
        let contrast = named.accepted > 0;
        if contrast && case.server_alerted_after_server_hello() {
            return Some(refused_behind_server_hello(case));
        }
        if !case.is_hello_refused() {
            return None;
        }
        let fits = Offer::of(hello).narrowest().is_none();
        let confidence = match case.root.ending?.how {
            How::Alert(alert) => match alert.description {
                AlertDescription::UNRECOGNIZED_NAME => Confidence::Observed,
                // Servers that insist on SNI also say handshake_failure, access_denied (rustls) or internal_error.
                AlertDescription::HANDSHAKE_FAILURE
                | AlertDescription::ACCESS_DENIED
                | AlertDescription::INTERNAL_ERROR
                    if contrast =>
                {
                    Confidence::Inferred
                }
                AlertDescription::HANDSHAKE_FAILURE | AlertDescription::ACCESS_DENIED if fits => {
                    Confidence::Suspected
                }
                _ => return None,
            },
            How::Reset(_) | How::Close if case.facts.server_answered() => return None,
            How::Reset(_) if contrast => Confidence::Inferred,
            // Where hellos with a name are always reset, too, the name is not the reason.
            How::Reset(_) if named.refused > 0 => return None,
            How::Reset(_) => Confidence::Suspected,
            How::Close if contrast => Confidence::Inferred,
            How::Close => return None,
        };
        let mut finding =
            Finding::new(format!("The client sent no server_name and the server {}.", case.refusal()?))
                .blame(Blame::Config)
                .confidence(confidence)
                .evidence("client_hello_without_sni", "the ClientHello has no server_name extension");
        if let Some((_, reset)) = case.root.reset_by(Role::Server) {
            finding = finding.evidence("server_reset", words::reset(reset));
        }
        if contrast {
            finding = finding.evidence("listener_history", contrast_text(case));
        }
        if confidence == Confidence::Suspected {
            finding = if case.root.alert_by(Role::Server).is_some() {
                finding.alternative("cipher_suite_mismatch", "the alert covers every parameter of the offer")
            } else {
                finding
                    .alternative(
                        "proxy_header_missing",
                        "a listener that expects a PROXY header resets in the same way",
                    )
                    .alternative(
                        "reset_after_client_hello",
                        "an overloaded server or an access rule looks the same",
                    )
            };
        }
        // A health check that knows no name fails at every round; that is one thing to fix, not an error each time.
        if case.failing_period("sni_missing").is_some() {
            finding = finding.severity(Severity::Warning);
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct SniUnrecognized;

impl Rule for SniUnrecognized {
    fn id(&self) -> &'static str {
        "sni_unrecognized"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server has nothing for the server_name that the client asked for."
    }

    fn doc_long(&self) -> &'static str {
        "The server refused the ClientHello's server_name with the fatal alert unrecognized_name (RFC 6066 \
         §3), or it resets, closes or fails for this name and accepts others on the same listener. As a \
         warning the alert is no refusal, but some clients (Java 7, JSSE) take it for one."
    }

    fn remedy(&self) -> &'static str {
        "Check the name for a typo, then configure this host (server_name, Gateway host, virtual host, \
         host alias) and its certificate on the listener."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.client_hello.as_ref()?;
        let name = hello.server_name.as_ref().filter(|name| !name.is_ip_literal())?;
        if let Some(finding) = warning_taken_as_fatal(case) {
            return Some(finding);
        }
        if !case.is_hello_refused() {
            return None;
        }
        let contrast = case.is_only_this_name_refused();
        // One other name may have been luck.
        let by_contrast = if case.listener.with_name.accepted >= CONTRAST {
            Confidence::Inferred
        } else {
            Confidence::Suspected
        };
        let reset_or_close = contrast && !case.facts.server_answered();
        let confidence = match case.root.ending?.how {
            How::Alert(alert) => match alert.description {
                AlertDescription::UNRECOGNIZED_NAME => Confidence::Observed,
                AlertDescription::INTERNAL_ERROR | AlertDescription::ACCESS_DENIED if contrast => by_contrast,
                _ => return None,
            },
            How::Reset(_) | How::Close if reset_or_close => by_contrast,
            How::Reset(_) | How::Close => return None,
        };
        let name = name.as_str().into_owned();
        let mut finding =
            Finding::new(format!("The client asked for {name} and the server {}.", case.refusal()?))
                .blame(Blame::Config)
                .confidence(confidence)
                .evidence("server_name", name);
        if contrast {
            let others = case.listener.with_name.accepted;
            finding = finding.evidence(
                "listener_history",
                format!("this listener accepted {others} with other names, none with this one"),
            );
        }
        if confidence != Confidence::Observed {
            finding = finding.alternative(
                "server_certificate_unavailable",
                "the name may be configured and its certificate missing",
            );
            if case.root.alert_by(Role::Server).is_none() {
                finding = finding.alternative(
                    "reset_after_client_hello",
                    "an overloaded server or an access rule looks the same",
                );
            }
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct SniIpLiteral;

impl Rule for SniIpLiteral {
    fn id(&self) -> &'static str {
        "sni_ip_literal"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The client sent an IP address as server_name, and the server refused the handshake."
    }

    fn doc_long(&self) -> &'static str {
        "RFC 6066 §3 does not permit literal addresses in server_name. Many servers ignore the fault; \
         others answer with unrecognized_name, illegal_parameter or decode_error, or find no host of that \
         name and reset."
    }

    fn remedy(&self) -> &'static str {
        "Make the client connect by host name, or stop it from sending SNI for addresses."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.client_hello.as_ref()?;
        let name = hello.server_name.as_ref().filter(|name| name.is_ip_literal())?;
        if !case.is_hello_refused() {
            return None;
        }
        let confidence = match case.root.ending?.how {
            How::Alert(alert) => match alert.description {
                AlertDescription::UNRECOGNIZED_NAME
                | AlertDescription::ILLEGAL_PARAMETER
                | AlertDescription::DECODE_ERROR => Confidence::Inferred,
                AlertDescription::INTERNAL_ERROR | AlertDescription::ACCESS_DENIED => Confidence::Suspected,
                _ => return None,
            },
            How::Reset(_) | How::Close if case.facts.server_answered() => return None,
            How::Reset(_) | How::Close => Confidence::Suspected,
        };
        let name = name.as_str().into_owned();
        let finding = Finding::new(format!(
            "The client sent the address {name} as server_name and the server {}.",
            case.refusal()?
        ))
        .blame(Blame::Client)
        .confidence(confidence)
        .evidence("server_name_is_address", name);
        Some(if confidence == Confidence::Suspected {
            finding
                .specificity(Specificity::Class)
                .alternative("sni_unrecognized", "the server may only not know it")
        } else {
            finding
        })
    }
}

/// The server warned that it does not know the name and went on, and the client did not.
fn warning_taken_as_fatal(case: &Case<'_>) -> Option<Finding> {
    let facts = case.facts;
    let warned = facts.server().alerts.iter().any(|alert| {
        alert.level == AlertLevel::WARNING && alert.description == AlertDescription::UNRECOGNIZED_NAME
    });
    let ending = case.root.ending.filter(|ending| ending.role == Role::Client)?;
    let refused = match ending.how {
        How::Alert(alert) => matches!(
            alert.description,
            AlertDescription::HANDSHAKE_FAILURE | AlertDescription::UNRECOGNIZED_NAME
        ),
        How::Reset(_) | How::Close => facts.progress.client_key_exchange.is_none(),
    };
    if !warned || !refused || facts.progress.client_finished.is_some() {
        return None;
    }
    let name = facts.server_name()?;
    Some(
        Finding::new(format!(
            "The server warned that it does not know {name} and went on; the client {}.",
            words::ending_of(&ending)
        ))
        .blame(Blame::Config)
        .confidence(Confidence::Inferred)
        .evidence("server_name", name.into_owned())
        .evidence("unrecognized_name_warning", "alert unrecognized_name (112) at level warning"),
    )
}

/// JSSE's key manager finds no certificate only after the ServerHello of TLS 1.3, and its alert is encrypted.
fn refused_behind_server_hello(case: &Case<'_>) -> Finding {
    Finding::new("The client sent no server_name; the server sent its ServerHello, then an encrypted alert.")
        .blame(Blame::Config)
        .confidence(Confidence::Inferred)
        .ended_by(Role::Server, EndedHow::Alert)
        .evidence("client_hello_without_sni", "the ClientHello has no server_name extension")
        .evidence("encrypted_alert", "one record of an alert's size where EncryptedExtensions are due")
        .evidence("listener_history", contrast_text(case))
        .alternative("alpn_mismatch", "some servers refuse the offered protocols in this place")
        .alternative("signature_algorithm_mismatch", "or find that their key fits no offered algorithm")
}

fn contrast_text(case: &Case<'_>) -> String {
    let named = case.listener.with_name;
    format!(
        "this listener accepted {} of {} with SNI, 0 of {} without",
        named.accepted,
        named.total(),
        case.refused(case.listener.without_name),
    )
}
