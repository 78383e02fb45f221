//! Connections that failed below TLS, or before the server said anything.

use crate::engine::facts::{Phase, Role};
use crate::verdict::{Blame, Case, Confidence, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] =
    &[&PortClosed, &ResetAfterClientHello, &ClosedAfterClientHello, &TruncatedHandshake];

/// See [`Rule::doc_short`].
struct PortClosed;

impl Rule for PortClosed {
    fn id(&self) -> &'static str {
        "port_closed"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Nothing listens on the server's port."
    }

    fn doc_long(&self) -> &'static str {
        "The server's host answered the SYN with a RST that acknowledges it (RFC 9293 §3.10.7.1): the host is \
         reachable and no socket listens on that address and port, or a firewall rejects with a reset."
    }

    fn remedy(&self) -> &'static str {
        "Check that the server runs and listens on this address and port, and that the Service's targetPort is \
         the container's port."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (_, reset) = case.root.reset_by(Role::Server)?;
        if !reset.refuses_syn {
            return None;
        }
        Some(
            Finding::new("The server's host refused the connection: nothing listens on that port.")
                .blame(Blame::Server)
                .evidence("syn_refused", "RST,ACK in answer to the SYN"),
        )
    }
}

/// See [`Rule::doc_short`].
struct ResetAfterClientHello;

impl Rule for ResetAfterClientHello {
    fn id(&self) -> &'static str {
        "reset_after_client_hello"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server reset the connection right after the ClientHello, without an alert."
    }

    fn doc_long(&self) -> &'static str {
        "A process that closes a socket with unread data makes its kernel send a RST (RFC 2525 §2.17), so the \
         server, or a proxy in front of it, decided before it read the ClientHello as TLS: no filter chain for \
         the server name (Envoy), a missing PROXY header, an access rule, overload. This listener's history \
         does not tell which."
    }

    fn remedy(&self) -> &'static str {
        "Look into the server's log at this time; Envoy logs such a connection as NR filter_chain_not_found. \
         Compare with a client that succeeds: server name, PROXY header, source address."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        if !case.is_hello_unanswered() {
            return None;
        }
        let (ending, reset) = case.root.reset_by(Role::Server)?;
        let delay = case.since_client_hello(ending.time);
        let finding = Finding::new(format!(
            "The server reset the connection {delay} after the ClientHello, without an alert."
        ))
        .specificity(Specificity::Symptom)
        .evidence("server_reset", words::reset(reset));
        let finding = if case.facts.server_name().is_some() {
            finding.alternative("sni_unrecognized", "the server may have nothing for this server_name")
        } else {
            finding.alternative("sni_missing", "the ClientHello carries no server_name")
        };
        Some(
            finding
                .alternative("proxy_header_missing", "a listener that expects a PROXY header does the same"),
        )
    }
}

/// See [`Rule::doc_short`].
struct ClosedAfterClientHello;

impl Rule for ClosedAfterClientHello {
    fn id(&self) -> &'static str {
        "closed_after_client_hello"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server closed the connection after the ClientHello, without an alert."
    }

    fn doc_long(&self) -> &'static str {
        "The server read the ClientHello and sent a FIN and not one byte of TLS. Servers that refuse without \
         an alert (RFC 8446 §6 asks for one) do this: gRPC for any refusal, load balancers whose backend is \
         gone, and services that do not speak TLS."
    }

    fn remedy(&self) -> &'static str {
        "Look into the server's log at this time, and check that this port speaks TLS and has a healthy backend."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        if !case.is_hello_unanswered() {
            return None;
        }
        let ending = case.root.close_by(Role::Server)?;
        let delay = case.since_client_hello(ending.time);
        let mut finding = Finding::new(format!(
            "The server closed the connection {delay} after the ClientHello, without an alert."
        ))
        .specificity(Specificity::Symptom)
        .evidence("server_close", "FIN, no byte of payload");
        if case.facts.server_name().is_none() {
            finding = finding.alternative("sni_missing", "the ClientHello carries no server_name");
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct TruncatedHandshake;

impl Rule for TruncatedHandshake {
    fn id(&self) -> &'static str {
        "truncated_handshake"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "One side ended the connection in the middle of the handshake and did not say why."
    }

    fn doc_long(&self) -> &'static str {
        "A FIN or RST came after TLS had begun and before the handshake was complete, without an alert \
         (RFC 8446 §6.1 asks for one), and nothing on the wire tells the reason."
    }

    fn remedy(&self) -> &'static str {
        "Look into the log of the side that ended the connection, at this time."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let ending = case.root.ending?;
        if !case.spoke_tls() || case.facts.phase() == Phase::Complete {
            return None;
        }
        Some(
            Finding::new(format!("{} in the middle of the handshake.", words::ending(&ending)))
                .specificity(Specificity::Fallback)
                .confidence(Confidence::Suspected),
        )
    }
}
