//! The server name: missing, or unknown to the server.

use crate::engine::facts::Role;
use crate::tls::codepoints::AlertDescription;
use crate::verdict::{Blame, Case, Confidence, Finding, Severity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[&SniMissing, &SniUnrecognized];

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
         alert unrecognized_name, or, as Envoy, Istio and Apigee do when no filter chain matches, with a bare \
         reset. Certain where the same listener accepts hellos that carry a name and none that do not; \
         without such history a reset can have other reasons, and they are listed."
    }

    fn remedy(&self) -> &'static str {
        "Make the client send SNI (connect by host name, not by address), or give the listener a default \
         certificate for clients without SNI."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.client_hello.as_ref()?;
        if hello.server_name.is_some() || !case.is_hello_refused() {
            return None;
        }
        let history = case.listener;
        if history.without_name.accepted > 0 {
            return None;
        }
        let named = history.with_name;
        let contrast = named.accepted > 0;
        let (how, confidence) = if let Some((_, alert)) = case.root.alert_by(Role::Server) {
            let how = format!("answered with the alert {}", words::alert(alert.description));
            match alert.description {
                AlertDescription::UNRECOGNIZED_NAME => (how, Confidence::Observed),
                // Servers that insist on SNI also say handshake_failure, access_denied or internal_error.
                AlertDescription::HANDSHAKE_FAILURE
                | AlertDescription::ACCESS_DENIED
                | AlertDescription::INTERNAL_ERROR
                    if contrast =>
                {
                    (how, Confidence::Inferred)
                }
                _ => return None,
            }
        } else if let Some((ending, _)) = case.root.reset_by(Role::Server) {
            // Where hellos with a name are always reset too, the name is not the reason.
            if !contrast && named.refused > 0 {
                return None;
            }
            let how = format!(
                "reset the connection {} later, without an alert",
                case.since_client_hello(ending.time)
            );
            (how, if contrast { Confidence::Inferred } else { Confidence::Suspected })
        } else if let Some(ending) = case.root.close_by(Role::Server)
            && contrast
        {
            let how = format!(
                "closed the connection {} later, without an alert",
                case.since_client_hello(ending.time)
            );
            (how, Confidence::Inferred)
        } else {
            return None;
        };
        let mut finding = Finding::new(format!("The client sent no server_name and the server {how}."))
            .blame(Blame::Config)
            .confidence(confidence)
            .evidence("client_hello_without_sni", "the ClientHello has no server_name extension");
        if let Some((_, reset)) = case.root.reset_by(Role::Server) {
            finding = finding.evidence("server_reset", words::reset(reset));
        }
        if contrast {
            let without = history.without_name;
            finding = finding.evidence(
                "listener_history",
                format!(
                    "this listener accepted {} of {} with SNI, 0 of {} without",
                    named.accepted,
                    named.accepted + named.refused,
                    without.refused + 1,
                ),
            );
        }
        if confidence == Confidence::Suspected {
            finding = finding
                .alternative(
                    "proxy_header_missing",
                    "a listener that expects a PROXY header resets in the same way",
                )
                .alternative(
                    "reset_after_client_hello",
                    "an overloaded server or an access rule looks the same",
                );
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
         §3), or it resets, closes or fails for this name and accepts others on the same listener."
    }

    fn remedy(&self) -> &'static str {
        "Check the name for a typo, then configure this host (server_name, Gateway host, virtual host, host \
         alias) and its certificate on the listener."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let name = case.facts.server_name()?;
        if !case.is_hello_refused() {
            return None;
        }
        let this = case.listener.name(&name).map(|name| name.tally).unwrap_or_default();
        let others = case.listener.with_name.accepted.saturating_sub(this.accepted);
        let contrast = this.accepted == 0 && others > 0;
        let (how, confidence) = if let Some((_, alert)) = case.root.alert_by(Role::Server) {
            match alert.description {
                AlertDescription::UNRECOGNIZED_NAME => (
                    format!("answered with the alert {}", words::alert(alert.description)),
                    Confidence::Observed,
                ),
                AlertDescription::INTERNAL_ERROR if contrast => (
                    format!("answered with the alert {}", words::alert(alert.description)),
                    Confidence::Inferred,
                ),
                _ => return None,
            }
        } else if let Some((ending, _)) = case.root.reset_by(Role::Server)
            && contrast
        {
            let delay = case.since_client_hello(ending.time);
            (format!("reset the connection {delay} later, without an alert"), Confidence::Inferred)
        } else if let Some(ending) = case.root.close_by(Role::Server)
            && contrast
        {
            let delay = case.since_client_hello(ending.time);
            (format!("closed the connection {delay} later, without an alert"), Confidence::Inferred)
        } else {
            return None;
        };
        let mut finding = Finding::new(format!("The client asked for {name} and the server {how}."))
            .blame(Blame::Config)
            .confidence(confidence)
            .evidence("server_name", name.into_owned());
        if contrast {
            finding = finding.evidence(
                "listener_history",
                format!("this listener accepted {others} with other names, none with this one"),
            );
        }
        Some(finding)
    }
}
