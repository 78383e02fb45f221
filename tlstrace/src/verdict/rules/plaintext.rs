//! What arrived was not TLS.

use crate::engine::facts::Role;
use crate::tls::record::FirstBytes;
use crate::verdict::{Blame, Case, Confidence, Finding, Severity};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[&HttpOnTlsPort];

/// See [`Rule::doc_short`].
struct HttpOnTlsPort;

impl Rule for HttpOnTlsPort {
    fn id(&self) -> &'static str {
        "http_on_tls_port"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client spoke plaintext HTTP to a port that speaks TLS."
    }

    fn doc_long(&self) -> &'static str {
        "The first bytes are an HTTP request, and the listener answered as TLS servers do: with an alert \
         (RFC 8446 §6), with status 400, or by hanging up without a byte. That the listener speaks TLS is \
         known for certain from an alert or from other handshakes, and supposed otherwise."
    }

    fn remedy(&self) -> &'static str {
        "Use https:// in the client's URL, or send plaintext to the listener's plaintext port."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let client = case.facts.client();
        if case.facts.client_hello.is_some()
            || !matches!(
                client.first_bytes,
                Some(FirstBytes::Http | FirstBytes::HttpConnect | FirstBytes::Http2Preface)
            )
        {
            return None;
        }
        let server = case.facts.server();
        let spoke_tls = server.first_bytes == Some(FirstBytes::TlsRecord);
        let known = case.listener.accepted() > 0;
        // Whoever closes first: an HTTP server would have answered a client that closed its half.
        let silent_refusal = server.bytes == 0 && case.facts.endings.iter().any(|e| e.role == Role::Server);
        let bad_request = server.head.starts_with(b"HTTP/1.") && server.head.get(8..12) == Some(b" 400");
        let method = client.head.split(|&b| b == b' ').next().unwrap_or_default();
        let finding = Finding::new(format!(
            "The client sent a plaintext HTTP request ({}) to a port that speaks TLS.",
            String::from_utf8_lossy(method.get(..8).unwrap_or(method))
        ))
        .blame(Blame::Client)
        .evidence("plaintext_http", "the first bytes are an HTTP request");
        if spoke_tls {
            Some(finding.evidence("tls_answer", "the server answered with a TLS record"))
        } else if known && (silent_refusal || bad_request) {
            let accepted = case.listener.accepted();
            Some(finding.evidence("listener_history", format!("{accepted} TLS handshakes completed here")))
        } else if silent_refusal {
            Some(
                finding
                    .confidence(Confidence::Inferred)
                    .evidence("no_answer", "the server ended the connection without a byte"),
            )
        } else if bad_request && case.listener.plaintext_answers == 0 {
            Some(
                finding
                    .confidence(Confidence::Suspected)
                    .evidence("bad_request", "the server answered with status 400"),
            )
        } else {
            None
        }
    }
}
