//! The two sides speak TLS and cannot agree.

use crate::engine::facts::Role;
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::AlertDescription;
use crate::verdict::{Blame, Case, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[&ProtocolVersionMismatch, &HandshakeFailureUnexplained];

/// See [`Rule::doc_short`].
struct ProtocolVersionMismatch;

impl Rule for ProtocolVersionMismatch {
    fn id(&self) -> &'static str {
        "protocol_version_mismatch"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Client and server have no TLS version in common."
    }

    fn doc_long(&self) -> &'static str {
        "One side refused the other's versions with the alert protocol_version (RFC 8446 §4.1.3, §6.2): the \
         server after the ClientHello, or the client after a ServerHello that picked a version which it does \
         not allow."
    }

    fn remedy(&self) -> &'static str {
        "Enable TLS 1.2 or 1.3 on the side that lacks it; lower the other side's minimum only knowingly."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.client_hello.as_ref()?;
        let (by, alert) = case.root.alert_by(Role::Server).or_else(|| case.root.alert_by(Role::Client))?;
        if alert.description != AlertDescription::PROTOCOL_VERSION {
            return None;
        }
        let offered = offered_versions(hello);
        let said = words::alert(alert.description);
        let summary = match (by.role, case.facts.version()) {
            (Role::Server, _) => {
                format!("The client offered TLS {offered} and the server answered with the alert {said}.")
            }
            (Role::Client, Some(version)) => {
                format!(
                    "The server selected TLS {version} and the client, which offered {offered}, answered with the alert {said}."
                )
            }
            // A client that hears something other than TLS may say protocol_version, too.
            (Role::Client, None) => return None,
        };
        Some(
            Finding::new(summary)
                .blame(Blame::Config)
                .evidence("offered_versions", offered)
                .evidence("alert", said),
        )
    }
}

/// See [`Rule::doc_short`].
struct HandshakeFailureUnexplained;

impl Rule for HandshakeFailureUnexplained {
    fn id(&self) -> &'static str {
        "handshake_failure_unexplained"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server answered the ClientHello with handshake_failure, and nothing shows what it missed."
    }

    fn doc_long(&self) -> &'static str {
        "The alert handshake_failure (RFC 8446 §6.2) covers cipher suites, groups, signature algorithms, \
         versions and, with some servers, a missing server name. What this listener accepts is not known well \
         enough to say which; the client's offer is printed so that it can be compared."
    }

    fn remedy(&self) -> &'static str {
        "Compare the offer with the server's configuration: cipher suites first, then groups, signature \
         algorithms and versions."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.last_client_hello()?;
        let (_, alert) = case.root.alert_by(Role::Server)?;
        if alert.description != AlertDescription::HANDSHAKE_FAILURE || !case.is_hello_refused() {
            return None;
        }
        let suites = words::list(hello.cipher_suites.iter().filter(|suite| !suite.is_grease()), 4);
        let groups = words::list(hello.supported_groups.iter().filter(|group| !group.is_grease()), 4);
        let mut finding = Finding::new(format!(
            "The server answered the ClientHello with the alert {}; the client offered TLS {} with {suites}.",
            words::alert(alert.description),
            offered_versions(hello),
        ))
        .blame(Blame::Config)
        .specificity(Specificity::Class)
        .evidence("alert", words::alert(alert.description))
        .evidence("offered_versions", offered_versions(hello))
        .evidence("offered_cipher_suites", suites)
        .evidence("offered_groups", groups);
        if hello.server_name.is_none() {
            finding = finding.alternative("sni_missing", "the ClientHello carries no server_name");
        }
        Some(
            finding
                .alternative("cipher_suite_mismatch", "the most common reason for this alert")
                .alternative("group_mismatch", "the server may support none of the offered groups")
                .alternative(
                    "signature_algorithm_mismatch",
                    "the server's key may fit none of the offered algorithms",
                ),
        )
    }
}

/// `1.3, 1.2`, or `up to 1.2` where the client does not list its versions.
fn offered_versions(hello: &ClientHello) -> String {
    let versions = words::list(hello.offered_versions(), 8);
    if hello.supported_versions.is_empty() { format!("up to {versions}") } else { versions }
}
