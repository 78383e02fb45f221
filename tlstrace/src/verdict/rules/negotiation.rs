//! The two sides speak TLS and cannot agree on its parameters.
//!
//! The alert `handshake_failure` says only that. What the listener selected for others, compared with this
//! client's offer ([`Offer`]), says more; where that is not known, an offer that is narrow in one respect
//! only raises a suspicion.

use std::time::Duration;

use crate::engine::facts::{How, Role};
use crate::engine::history::Selections;
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{AlertDescription, ProtocolVersion};
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::Rule;
use super::offer::{Aspect, Offer, bytes_list, offered_versions};

pub(super) const RULES: &[&dyn Rule] = &[
    &ProtocolVersionMismatch,
    &CipherSuiteMismatch,
    &GroupMismatch,
    &SignatureAlgorithmMismatch,
    &AlpnMismatch,
    &InsufficientSecurity,
    &InappropriateFallback,
    &DowngradeDetected,
    &HelloRetryFailed,
    &HandshakeFailureUnexplained,
];

const ENCRYPTED_ALERT: &str = "a record of an alert's size ends the server's flight before its certificate";

/// A client that falls back does so at once.
const FALLBACK_WINDOW: Duration = Duration::from_secs(10);

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
        "One side refused the other's versions: with the alert protocol_version (RFC 8446 §4.1.3, §6.2), \
         the server after the ClientHello or the client after a ServerHello that picked a version which it \
         did not offer; or with handshake_failure, close_notify or a bare close, where the versions that \
         this listener has selected for others are not among those on offer."
    }

    fn remedy(&self) -> &'static str {
        "Enable TLS 1.2 or 1.3 on the side that lacks it; lower the other side's minimum only knowingly."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let hello = facts.client_hello.as_ref()?;
        let finding = |offered: &str| {
            Finding::new(String::new()).blame(Blame::Config).evidence("offered_versions", offered.to_owned())
        };
        let ending = case.root.ending?;
        if let (Role::Client, Some(version)) = (ending.role, facts.version()) {
            // A client that hears something other than TLS may say protocol_version, too: there is no version then.
            let said = match ending.how {
                How::Alert(alert) if alert.description == AlertDescription::PROTOCOL_VERSION => true,
                _ if facts.progress.client_finished.is_some() => return None,
                _ => false,
            };
            if !said && hello.offers(version) {
                return None;
            }
            let offered = offered_versions(hello);
            let confidence = if said { Confidence::Observed } else { Confidence::Inferred };
            let mut finding = finding(&offered).confidence(confidence);
            finding.summary = format!(
                "The server selected TLS {version} and the client, which offered {offered}, {}.",
                words::ending_of(&ending)
            );
            return Some(finding);
        }
        if !case.is_hello_refused() {
            return None;
        }
        let how = case.refusal()?;
        let offered = offered_versions(hello);
        let finding = finding(&offered);
        if let How::Alert(alert) = ending.how
            && alert.description == AlertDescription::PROTOCOL_VERSION
        {
            let mut finding =
                case.with_accepted_versions(finding.evidence("alert", words::alert(alert.description)));
            finding.summary = format!("The client offered TLS {offered} and the server {how}.");
            return Some(finding);
        }
        let hides_versions = match ending.how {
            How::Alert(alert) => matches!(
                alert.description,
                AlertDescription::HANDSHAKE_FAILURE | AlertDescription::CLOSE_NOTIFY
            ),
            How::Close => !facts.server_answered(),
            How::Reset(_) => false,
        };
        if !hides_versions {
            return None;
        }
        let selected = case.listener.selected_for(hello);
        let offer = Offer::of(hello);
        let disjoint = offer.misses(Aspect::Version, selected, None);
        let confidence = if disjoint && selected.is_well_known() {
            Confidence::Inferred
        } else if disjoint
            || offer.narrowest() == Some(Aspect::Version)
                && selected.handshakes() == 0
                && case.is_handshake_failure()
        {
            Confidence::Suspected
        } else {
            return None;
        };
        let mut finding = case.with_accepted_versions(finding.confidence(confidence));
        finding.summary = if disjoint {
            format!(
                "The client offered TLS {offered} and the server {how}; it has been seen to accept {} only.",
                words::list(selected.versions.values(), 4)
            )
        } else {
            format!("The client offered TLS {offered} and the server {how}.")
        };
        Some(case.with_doubts(finding, Aspect::Version))
    }
}

/// See [`Rule::doc_short`].
struct CipherSuiteMismatch;

impl Rule for CipherSuiteMismatch {
    fn id(&self) -> &'static str {
        "cipher_suite_mismatch"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Client and server have no cipher suite in common."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered with handshake_failure (RFC 8446 §4.1.1, RFC 5246 §7.4.1.3), and none of the \
         suites on offer is among those that this listener has selected for others. Without such history \
         it is suspected where the offer holds a single suite, or none that RFC 9325 §4.2 and RFC 8446 \
         §9.1 ask for, and is otherwise broad. A server that hangs up without an alert, as gRPC does, is \
         suspected of it where its listener is well known."
    }

    fn remedy(&self) -> &'static str {
        "Compare the two lists and enable a common suite, best an ECDHE one with AES-GCM; the client's is \
         printed here."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (hello, selected, confidence, disjoint) = mismatch(case, Aspect::Suite)?;
        let suites = Offer::of(hello).suites();
        let offered = words::list(&suites, 3);
        let accepted = words::list(
            selected.suites.by_frequency().iter().map(|((_, suite), n)| format!("{suite} ×{n}")),
            4,
        );
        let how = case.refusal()?;
        let finding = Finding::new(if disjoint {
            format!("The client offered {offered} and the server {how}; it has been seen to accept other suites only.")
        } else {
            format!("The client offered only {offered} and the server {how}.")
        })
        .confidence(confidence)
        .evidence("offered_cipher_suites", words::list(&suites, 24));
        let finding =
            if disjoint { finding.evidence("listener_history", from(&accepted, selected)) } else { finding };
        let finding = if case.is_handshake_failure() {
            finding
        } else {
            finding.alternative("closed_after_client_hello", "the server may have hung up for another reason")
        };
        Some(case.with_doubts(finding.blame(Blame::Config), Aspect::Suite))
    }
}

/// See [`Rule::doc_short`].
struct GroupMismatch;

impl Rule for GroupMismatch {
    fn id(&self) -> &'static str {
        "group_mismatch"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Client and server have no key-exchange group in common."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered with handshake_failure, and none of the groups on offer (RFC 8446 §4.2.7, RFC \
         8422 §5.1.1) is among those that this listener has selected for others. Without such history it \
         is suspected where the offer holds a single group and is otherwise broad. JSSE says \
         unexpected_message and GnuTLS internal_error in its place."
    }

    fn remedy(&self) -> &'static str {
        "Enable a common group on one side: secp256r1 and x25519 are supported nearly everywhere (nginx: \
         ssl_ecdh_curve, Envoy: ecdh_curves)."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (hello, selected, confidence, disjoint) = mismatch(case, Aspect::Group)?;
        let groups = Offer::of(hello).groups();
        let offered = words::list(&groups, 4);
        let accepted =
            words::list(selected.groups.by_frequency().iter().map(|(group, n)| format!("{group} ×{n}")), 4);
        let how = case.refusal()?;
        let finding = Finding::new(if disjoint {
            format!("The client offered the groups {offered} and the server {how}; it has been seen to accept others only.")
        } else {
            format!("The client offered only the group {offered} and the server {how}.")
        })
        .confidence(confidence)
        .evidence("offered_groups", words::list(&groups, 24));
        let finding =
            if disjoint { finding.evidence("listener_history", from(&accepted, selected)) } else { finding };
        let finding = if case.is_handshake_failure() {
            finding
        } else {
            finding.alternative("protocol_error", "the server may have stumbled over something else")
        };
        Some(case.with_doubts(finding.blame(Blame::Config), Aspect::Group))
    }
}

/// See [`Rule::doc_short`].
struct SignatureAlgorithmMismatch;

impl Rule for SignatureAlgorithmMismatch {
    fn id(&self) -> &'static str {
        "signature_algorithm_mismatch"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server's key fits none of the signature algorithms that the client accepts."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered with handshake_failure, and the client's signature_algorithms (RFC 8446 \
         §4.2.3, RFC 5246 §7.4.1.4.1) or its TLS 1.2 cipher suites have no room for the kind of key in \
         this listener's certificate. Without such history it is suspected where the offer lacks the \
         algorithms of RFC 8446 §9.1 and is otherwise broad. JSSE and rustls find out only after the \
         ServerHello of TLS 1.3, and their alert is encrypted."
    }

    fn remedy(&self) -> &'static str {
        "Give the server a certificate of the other kind (or both, RSA and ECDSA), or let the client \
         accept rsa_pss_rsae_sha256 and ecdsa_secp256r1_sha256."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (hello, selected, confidence, disjoint) = mismatch(case, Aspect::Signature)?;
        let schemes = words::list(&hello.signature_schemes, 4);
        let is_encrypted = case.server_alerted_before_certificate();
        let how = if is_encrypted {
            "sent its ServerHello, then an encrypted alert".to_owned()
        } else {
            case.refusal()?
        };
        let key = case.listener.name_of(hello).and_then(|name| name.key()).map(|key| format!("{key:?}"));
        let finding = Finding::new(match &key {
            Some(key) if disjoint => {
                format!(
                    "The client accepts the signatures {schemes} and the server, whose key is {key}, {how}."
                )
            }
            _ => format!("The client accepts only the signatures {schemes} and the server {how}."),
        })
        .confidence(confidence)
        .evidence("offered_signature_algorithms", words::list(&hello.signature_schemes, 24));
        let finding = match key {
            Some(key) => finding.evidence(
                "listener_history",
                from(&format!("a certificate with a key of kind {key}"), selected),
            ),
            None => finding,
        };
        let finding = if is_encrypted {
            finding
                .ended_by(Role::Server, EndedHow::Alert)
                .evidence("encrypted_alert", ENCRYPTED_ALERT)
                .alternative("alpn_mismatch", "some servers refuse the offered protocols in this place")
        } else {
            finding
        };
        Some(case.with_doubts(finding.blame(Blame::Config), Aspect::Signature))
    }
}

/// See [`Rule::doc_short`].
struct AlpnMismatch;

impl Rule for AlpnMismatch {
    fn id(&self) -> &'static str {
        "alpn_mismatch"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Client and server have no application protocol in common."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered with the alert no_application_protocol (RFC 7301 §3.2). In TLS 1.3 some \
         servers send it encrypted, right after the ServerHello: one record of an alert's size where \
         EncryptedExtensions are due, then the end (RFC 8446 §4.3.1)."
    }

    fn remedy(&self) -> &'static str {
        "Make the lists of both sides overlap: offer h2 and http/1.1, and for gRPC h2; check the server's \
         alpn_protocols."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let hello = facts.client_hello.as_ref()?;
        if let Some((_, alert)) = case.root.alert_by(Role::Server) {
            if alert.description != AlertDescription::NO_APPLICATION_PROTOCOL {
                return None;
            }
            let offered = bytes_list(&hello.alpn);
            return Some(
                Finding::new(format!(
                    "The client offered the protocols {offered} and the server answered with the alert {}.",
                    words::alert(alert.description)
                ))
                .blame(Blame::Config)
                .evidence("offered_alpn", offered),
            );
        }
        if hello.alpn.is_empty() || !case.server_alerted_after_server_hello() {
            return None;
        }
        let selected = case.listener.selected_for(hello);
        let disjoint =
            !selected.alpn.is_empty() && !hello.alpn.iter().any(|protocol| selected.alpn.contains(protocol));
        if selected.alpn.values().any(|protocol| hello.alpn.contains(protocol)) {
            return None;
        }
        let others_excluded = hello.server_name.is_some() && Offer::of(hello).narrowest().is_none();
        let offered = bytes_list(&hello.alpn);
        Some(
            Finding::new(format!(
                "The client offered the protocols {offered}; the server sent its ServerHello, then an encrypted alert."
            ))
            .blame(Blame::Config)
            .confidence(if disjoint || others_excluded { Confidence::Inferred } else { Confidence::Suspected })
            .ended_by(Role::Server, EndedHow::Alert)
            .evidence("offered_alpn", offered)
            .evidence("encrypted_alert", ENCRYPTED_ALERT)
            .alternative("signature_algorithm_mismatch", "JSSE and rustls send handshake_failure in this place")
            .alternative("handshake_failure_unexplained", "what the alert says is encrypted"),
        )
    }
}

/// See [`Rule::doc_short`].
struct InsufficientSecurity;

impl Rule for InsufficientSecurity {
    fn id(&self) -> &'static str {
        "insufficient_security"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "One side refused because the parameters on offer are too weak for it."
    }

    fn doc_long(&self) -> &'static str {
        "The alert insufficient_security (RFC 8446 §6.2): the server requires stronger cipher suites or \
         parameters than the client offers, or the client found the server's choice too weak."
    }

    fn remedy(&self) -> &'static str {
        "Update the weaker side's cipher suites, groups and key sizes."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (ending, alert) =
            case.root.alert_by(Role::Server).or_else(|| case.root.alert_by(Role::Client))?;
        if alert.description != AlertDescription::INSUFFICIENT_SECURITY {
            return None;
        }
        let hello = case.facts.client_hello.as_ref()?;
        let suites = words::list(Offer::of(hello).suites(), 3);
        Some(
            Finding::new(format!(
                "{} answered with the alert {}; the client offered {suites}.",
                words::side(ending.role),
                words::alert(alert.description)
            ))
            .blame(Blame::Config)
            .evidence("offered_cipher_suites", words::list(Offer::of(hello).suites(), 24)),
        )
    }
}

/// See [`Rule::doc_short`].
struct InappropriateFallback;

impl Rule for InappropriateFallback {
    fn id(&self) -> &'static str {
        "inappropriate_fallback"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client retried with a lower version than both sides support, and the server saw that."
    }

    fn doc_long(&self) -> &'static str {
        "The ClientHello carries TLS_FALLBACK_SCSV and offers less than the server's highest version, and \
         the server answered with the alert inappropriate_fallback (RFC 7507 §3). The client's first \
         attempt, with its full offer, failed for another reason: that one is to be found."
    }

    fn remedy(&self) -> &'static str {
        "Find out why the client's first attempt failed (packet loss, an intolerant middlebox); do not \
         turn the protection off."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (_, alert) = case.root.alert_by(Role::Server)?;
        if alert.description != AlertDescription::INAPPROPRIATE_FALLBACK {
            return None;
        }
        let hello = case.facts.client_hello.as_ref()?;
        let mut finding = Finding::new(format!(
            "The client retried with TLS {} at most and the server answered with the alert {}.",
            hello.max_version(),
            words::alert(alert.description)
        ))
        .blame(Blame::Client)
        .evidence("offered_versions", offered_versions(hello));
        finding = if hello.has_fallback_scsv() {
            finding.evidence("fallback_scsv", "the ClientHello contains TLS_FALLBACK_SCSV (0x5600)")
        } else {
            finding.confidence(Confidence::Inferred)
        };
        let client = case.facts.client().address.ip();
        if let Some(first) = case.listener.failure_of(client, case.facts.first_seen, FALLBACK_WINDOW) {
            finding = finding.evidence(
                "earlier_attempt",
                format!(
                    "{} with TLS {}, {} before",
                    first.verdict,
                    first.version,
                    words::duration(case.facts.first_seen.since(first.time))
                ),
            );
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct DowngradeDetected;

impl Rule for DowngradeDetected {
    fn id(&self) -> &'static str {
        "downgrade_detected"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client noticed that the version had been pushed down, and refused."
    }

    fn doc_long(&self) -> &'static str {
        "The last bytes of the ServerHello's random say that the server supports more than it selected \
         (RFC 8446 §4.1.3), and the client, which does too, answered with illegal_parameter. If it offered \
         more, something between them changed the offer, or the server's implementation contradicts \
         itself. If it offered less and said so (TLS_FALLBACK_SCSV), it had fallen back after another \
         failure, and the server does not know RFC 7507."
    }

    fn remedy(&self) -> &'static str {
        "Look for a middlebox that rewrites ClientHellos; if there is none, update the server. Where the \
         client fell back, find out why its first attempt failed."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let server = facts.server_hello.as_ref()?;
        let hello = facts.client_hello.as_ref()?;
        let (_, alert) = case.root.alert_by(Role::Client)?;
        if server.downgrade.is_none() || alert.description != AlertDescription::ILLEGAL_PARAMETER {
            return None;
        }
        let finding = if hello.max_version() > server.version {
            Finding::new(format!(
                "The server selected TLS {} and marked it as a downgrade; the client, which offered {}, refused.",
                server.version,
                offered_versions(hello)
            ))
            .blame(Blame::Path)
        } else if hello.has_fallback_scsv() {
            Finding::new(format!(
                "The client fell back to TLS {} and refused it when the server's mark showed that both sides support more.",
                server.version
            ))
            .blame(Blame::Client)
            .evidence("fallback_scsv", "the ClientHello contains TLS_FALLBACK_SCSV (0x5600)")
        } else {
            return None;
        };
        Some(
            finding
                .evidence(
                    "downgrade_sentinel",
                    "the ServerHello's random ends in the sentinel of RFC 8446 §4.1.3",
                )
                .evidence("alert", words::alert(alert.description)),
        )
    }
}

/// See [`Rule::doc_short`].
struct HelloRetryFailed;

impl Rule for HelloRetryFailed {
    fn id(&self) -> &'static str {
        "hello_retry_failed"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server asked for another ClientHello and the handshake did not survive it."
    }

    fn doc_long(&self) -> &'static str {
        "The server sent a HelloRetryRequest (RFC 8446 §4.1.4) and then one side ended the handshake \
         before a ServerHello: the second ClientHello was wrong, late or too large, or the server sent a \
         second HelloRetryRequest, which a client must refuse with unexpected_message."
    }

    fn remedy(&self) -> &'static str {
        "Update the side that ended it; offering a key share for a group that the server prefers avoids \
         the retry."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let retry = facts.hello_retry_request.as_ref()?;
        let ending = case.root.ending?;
        if facts.server_hello.is_some() || case.is_close_by_client_alone() {
            return None;
        }
        let group = retry
            .group
            .map_or_else(|| "another ClientHello".to_owned(), |group| format!("a key share for {group}"));
        let twice = facts.second_hello_retry_request;
        let finding = Finding::new(format!(
            "The server asked for {group}{}, and the {} {}.",
            if twice { " a second time" } else { "" },
            ending.role.as_str(),
            words::ending_of(&ending)
        ))
        .blame(match (twice, ending.role) {
            (true, _) | (_, Role::Client) => Blame::Server,
            (false, Role::Server) => Blame::Client,
        })
        .evidence("hello_retry_request", format!("asked for {group}"));
        Some(if facts.second_client_hello.is_some() || twice {
            finding
        } else {
            finding.confidence(Confidence::Inferred).evidence("second_client_hello", "none came")
        })
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
        "The server answered with handshake_failure, and nothing shows what it missed."
    }

    fn doc_long(&self) -> &'static str {
        "The alert handshake_failure (RFC 8446 §6.2) covers cipher suites, groups, signature algorithms, \
         versions and, with some servers, a missing server name. What this listener accepts is not known \
         well enough to say which; the client's offer is printed so that it can be compared. Some servers \
         send it encrypted after the ServerHello of TLS 1.3, where only its place and size are visible."
    }

    fn remedy(&self) -> &'static str {
        "Compare the offer with the server's configuration: cipher suites first, then groups, signature \
         algorithms and versions."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let hello = case.facts.last_client_hello()?;
        let encrypted = case.server_alerted_before_certificate();
        if !encrypted && !case.is_handshake_failure() {
            return None;
        }
        let suites = words::list(Offer::of(hello).suites(), 3);
        let finding = Finding::new(if encrypted {
            format!(
                "The server sent its ServerHello, then an encrypted alert; the client offered TLS {}.",
                offered_versions(hello)
            )
        } else {
            format!(
                "The server answered the ClientHello with the alert handshake_failure (40); the client offered TLS {} with {suites}.",
                offered_versions(hello),
            )
        })
        .blame(Blame::Config)
        .specificity(Specificity::Class)
        .evidence("offered_versions", offered_versions(hello))
        .evidence("offered_cipher_suites", words::list(Offer::of(hello).suites(), 24))
        .evidence("offered_groups", words::list(Offer::of(hello).groups(), 24))
        .evidence("offered_signature_algorithms", words::list(&hello.signature_schemes, 24));
        let mut finding = case.with_history(finding);
        let lacks = lacks(hello);
        if !lacks.is_empty() {
            finding = finding.evidence("offer_lacks", lacks);
        }
        if encrypted {
            finding = finding
                .confidence(Confidence::Inferred)
                .ended_by(Role::Server, EndedHow::Alert)
                .evidence("encrypted_alert", ENCRYPTED_ALERT);
        }
        if hello.server_name.is_none() {
            finding = finding.alternative("sni_missing", "the ClientHello carries no server_name");
        }
        if !encrypted {
            finding = finding.alternative("cipher_suite_mismatch", "the most common reason for this alert");
            if hello.supported_versions.as_slice() == [ProtocolVersion::TLS1_3] {
                finding =
                    finding.alternative("protocol_version_mismatch", "the client offers nothing but TLS 1.3");
            }
            finding =
                finding.alternative("group_mismatch", "the server may support none of the offered groups");
        }
        Some(finding.alternative(
            "signature_algorithm_mismatch",
            "the server's key may fit none of the offered algorithms",
        ))
    }
}

/// Extensions that some servers insist on and this offer lacks.
fn lacks(hello: &ClientHello) -> String {
    let is_old = hello.offered_versions().iter().any(|version| !version.is_tls13());
    let lacks = [
        (
            is_old && !hello.renegotiation_info && !hello.has_renegotiation_scsv(),
            "renegotiation_info and its signalling suite (RFC 5746 §3.4)",
        ),
        (is_old && !hello.extended_master_secret, "extended_master_secret (RFC 7627 §5.2)"),
    ];
    words::list(lacks.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)), 2)
}

/// A refusal right after the ClientHello that this aspect of the offer explains: the offer, what the
/// listener has selected, how sure that is, and whether the two are disjoint.
fn mismatch<'a>(
    case: &Case<'a>,
    aspect: Aspect,
) -> Option<(&'a ClientHello, &'a Selections, Confidence, bool)> {
    let hello = case.facts.last_client_hello()?;
    let is_said = case.is_handshake_failure();
    if !is_said && !may_hide_mismatch(case, aspect) {
        return None;
    }
    let listener = case.listener;
    let selected = listener.selected_for(hello);
    let key = listener.name_of(hello).and_then(|name| name.key());
    let offer = Offer::of(hello);
    if offer.misses(aspect, selected, key) {
        let is_known = selected.is_well_known() && !offer.misses(Aspect::Version, selected, key);
        // That a server which hung up did so for this is a guess, and none at all where little is known.
        let is_silent = case.root.close_by(Role::Server).is_some() && case.facts.server_hello.is_none();
        if !is_said && !is_known {
            return None;
        }
        let sure = is_known && !is_silent;
        return Some((
            hello,
            selected,
            if sure { Confidence::Inferred } else { Confidence::Suspected },
            true,
        ));
    }
    // What is known of the listener fits this aspect, or says more than a look at the offer alone.
    if !is_said || selected.handshakes() > 0 || offer.narrowest() != Some(aspect) {
        return None;
    }
    Some((hello, selected, Confidence::Suspected, false))
}

/// Refusals that some servers give for a mismatch in place of `handshake_failure`: gRPC a FIN, JSSE
/// `unexpected_message` and GnuTLS `internal_error` where no group fits, JSSE and rustls an encrypted alert after the
/// ServerHello where their key fits no algorithm (`DIAGNOSIS.md` §3.4, D12).
fn may_hide_mismatch(case: &Case<'_>, aspect: Aspect) -> bool {
    if case.server_alerted_before_certificate() {
        return aspect == Aspect::Signature;
    }
    case.is_hello_refused()
        && match case.root.ending.map(|ending| ending.how) {
            Some(How::Close) => !case.facts.server_answered(),
            Some(How::Alert(alert)) => {
                aspect == Aspect::Group
                    && matches!(
                        alert.description,
                        AlertDescription::UNEXPECTED_MESSAGE | AlertDescription::INTERNAL_ERROR
                    )
            }
            Some(How::Reset(_)) | None => false,
        }
}

/// What others got, and how many they were.
fn from(accepted: &str, selected: &Selections) -> String {
    format!("this listener has been seen to accept {accepted}, from {} clients", selected.clients())
}
