//! A ClientHello that was sent and got no TLS for an answer: reset, close, silence, a hole in the path.

use std::time::Duration;

use crate::engine::facts::{Ending, How, Phase, Role};
use crate::engine::history;
use crate::tls::codepoints::{AlertDescription, NamedGroup};
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[
    &ResetAfterClientHello,
    &ClosedAfterClientHello,
    &ServerSilent,
    &ClientHelloBlackholed,
    &ServerFlightBlackholed,
    &LargeClientHelloIntolerance,
    &ClientAbandoned,
    &TruncatedHandshake,
];

/// A client that gives up sooner was not waiting for a server that is slow.
const PATIENT: Duration = Duration::from_secs(2);
/// Failures of large hellos, and successes of small ones, that make a contrast.
const CONTRAST: u32 = 3;
/// Payload of a segment that no small message fills; what is lost because of its size is larger.
const FULL_SEGMENT: u64 = 1000;

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
        "A process that closes a socket with unread data makes its kernel send a RST (RFC 2525 §2.17), so \
         the server, or a proxy in front of it, decided before it read the ClientHello as TLS: no filter \
         chain for the server name (Envoy), a missing PROXY header, an access rule, overload. This \
         listener's history does not tell which."
    }

    fn remedy(&self) -> &'static str {
        "Look into the server's log at this time; Envoy logs such a connection as NR \
         filter_chain_not_found. Compare with a client that succeeds: server name, PROXY header, source \
         address."
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
            case.with_history(
                finding.alternative(
                    "proxy_header_missing",
                    "a listener that expects a PROXY header does the same",
                ),
            ),
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
        "The server read the ClientHello and sent a FIN, or a close_notify and a FIN, and not one byte of \
         a handshake. Servers that refuse without an alert (RFC 8446 §6 asks for one) do this: gRPC for \
         any refusal, load balancers whose backend is gone, and services that do not speak TLS."
    }

    fn remedy(&self) -> &'static str {
        "Look into the server's log at this time, and check that this port speaks TLS and has a healthy \
         backend."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        if !case.is_hello_refused() {
            return None;
        }
        let ending = case.root.ending?;
        let delay = case.since_client_hello(ending.time);
        let (how, seen) = match ending.how {
            How::Close if case.facts.server().bytes == 0 => {
                ("closed the connection", "FIN, no byte of payload")
            }
            How::Alert(alert) if alert.description == AlertDescription::CLOSE_NOTIFY => {
                ("said close_notify", "close_notify as the only record")
            }
            _ => return None,
        };
        let mut finding =
            Finding::new(format!("The server {how} {delay} after the ClientHello, without saying why."))
                .specificity(Specificity::Symptom)
                .evidence("server_close", seen)
                .alternative(
                    "protocol_version_mismatch",
                    "some servers close when they support no offered version",
                );
        if case.facts.server_name().is_none() {
            finding = finding.alternative("sni_missing", "the ClientHello carries no server_name");
        }
        Some(case.with_history(finding))
    }
}

/// See [`Rule::doc_short`].
struct ServerSilent;

impl Rule for ServerSilent {
    fn id(&self) -> &'static str {
        "server_silent"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server's host acknowledged the whole ClientHello and the server never answered it."
    }

    fn doc_long(&self) -> &'static str {
        "Acknowledgements come from the kernel: the ClientHello is in the server's socket buffer and the \
         process did not read it or did not get to an answer (RFC 9293 §3.10.7.4 acknowledges on receipt). \
         CPU starvation, a lock, a key operation that hangs, a secret that has not arrived, a full accept \
         queue."
    }

    fn remedy(&self) -> &'static str {
        "Look at the server process at this time: CPU throttling, stuck threads, its accept queue (`ss \
         -ltn`: Recv-Q), HSM or secret store latency."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let client = facts.client();
        // What the client sends when it gives up may not be acknowledged any more.
        let is_received = facts
            .client_hello
            .as_ref()
            .is_some_and(|hello| client.acked >= u64::from(hello.length).min(client.bytes));
        if !case.is_hello_unanswered() || !is_received {
            return None;
        }
        let since = facts.progress.client_hello?;
        let waited = case.ended_at().since(since);
        let enough = match case.root.ending {
            Some(ending) if ending.role == Role::Client => waited >= PATIENT,
            Some(_) => false,
            None => waited >= case.patience(),
        };
        if !enough {
            return None;
        }
        let finding = Finding::new(format!(
            "The server acknowledged the ClientHello and sent no answer within {}.",
            words::duration(waited)
        ))
        .blame(Blame::Server)
        .confidence(Confidence::Inferred)
        .ended_by(Role::Server, EndedHow::Silence)
        .evidence(
            "client_hello_acknowledged",
            format!("{} of {} bytes acknowledged", client.acked, client.bytes),
        );
        let (named, unnamed) = (case.listener.with_name, case.listener.without_name);
        let finding = if facts.server_name().is_none() && named.accepted > 0 && unnamed.accepted == 0 {
            finding.alternative("sni_missing", "only hellos with a server_name were answered here")
        } else {
            finding
        };
        Some(case.with_history(finding))
    }
}

/// See [`Rule::doc_short`].
struct ClientHelloBlackholed;

impl Rule for ClientHelloBlackholed {
    fn id(&self) -> &'static str {
        "client_hello_blackholed"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The ClientHello, or a part of it, never reached the server."
    }

    fn doc_long(&self) -> &'static str {
        "The same bytes were sent again and again and the server's acknowledgements stay in front of them. \
         Where a full segment is lost and smaller ones pass, the path drops packets that are too large for \
         it and the ICMP message that would say so is filtered (RFC 2923 §2.1, RFC 8899 §1); post-quantum \
         key shares make ClientHellos that large."
    }

    fn remedy(&self) -> &'static str {
        "Let ICMP type 3 code 4 and ICMPv6 type 2 pass, clamp the MSS, and align the MTU of tunnels and \
         overlays on this path; `ping -M do -s 1472` finds the limit."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let client = facts.client();
        if facts.server_answered() {
            return None;
        }
        if case.root.ending.is_some_and(|ending| ending.role == Role::Server) {
            return None;
        }
        let stuck = client.stuck_at.filter(|&at| at < client.bytes);
        if stuck.is_none() && !client.lost_on_path {
            return None;
        }
        let hole = stuck.unwrap_or(client.acked);
        let is_large = client.bytes > FULL_SEGMENT;
        let finding = Finding::new(format!(
            "The client sent its ClientHello of {} bytes, and the server acknowledged only {}{}.",
            client.bytes,
            client.acked,
            if client.retransmissions > 1 {
                format!(" of them after {} retransmissions", client.retransmissions)
            } else {
                " of them".to_owned()
            },
        ))
        .blame(Blame::Path)
        .confidence(if is_large { Confidence::Inferred } else { Confidence::Suspected })
        .ended_by(Role::Server, EndedHow::Silence)
        .evidence("acknowledgement_stays", format!("the server's acknowledgements stay at byte {hole}"));
        let finding = match &facts.client_hello {
            Some(hello) if hello.supported_groups.contains(&NamedGroup::X25519MLKEM768) => finding.evidence(
                "post_quantum_key_share",
                "the ClientHello offers X25519MLKEM768 and needs two segments",
            ),
            _ => finding,
        };
        Some(if is_large {
            finding
        } else {
            finding.alternative("server_silent", "the server's host may have gone down after TCP's handshake")
        })
    }
}

/// See [`Rule::doc_short`].
struct ServerFlightBlackholed;

impl Rule for ServerFlightBlackholed {
    fn id(&self) -> &'static str {
        "server_flight_blackholed"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server's flight, with its certificates, never reached the client."
    }

    fn doc_long(&self) -> &'static str {
        "The server sent its first flight and repeated the same bytes again and again while the client's \
         acknowledgements stay in front of them. Full segments are lost where smaller ones pass: the \
         path's MTU is smaller than the server thinks and the ICMP message that would say so is filtered \
         (RFC 2923 §2.1, RFC 8899 §1)."
    }

    fn remedy(&self) -> &'static str {
        "Let ICMP type 3 code 4 and ICMPv6 type 2 pass, clamp the MSS towards the client, and align the \
         MTU of tunnels and overlays; a shorter certificate chain only hides it."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let server = facts.server();
        if facts.phase() > Phase::ServerFlight || facts.client_hello.is_none() {
            return None;
        }
        // Whoever gives up may say goodbye (JSSE: user_canceled); any other alert has its own reason.
        if let Some(Ending { how: How::Alert(alert), .. }) = case.root.ending
            && !matches!(alert.description, AlertDescription::USER_CANCELED | AlertDescription::CLOSE_NOTIFY)
        {
            return None;
        }
        let stuck = server.stuck_at.filter(|&at| at < server.bytes);
        if stuck.is_none() && !server.lost_on_path {
            return None;
        }
        Some(
            Finding::new(format!(
                "The server sent {} bytes, and the client acknowledged only {} of them after {} retransmissions.",
                server.bytes, server.acked, server.retransmissions
            ))
            .blame(Blame::Path)
            .confidence(if server.bytes > FULL_SEGMENT { Confidence::Inferred } else { Confidence::Suspected })
            .ended_by(Role::Client, EndedHow::Silence)
            .evidence(
                "acknowledgement_stays",
                format!("the client's acknowledgements stay at byte {}", stuck.unwrap_or(server.acked)),
            )
            .alternative("client_abandoned", "the client's host may be gone"),
        )
    }
}

/// See [`Rule::doc_short`].
struct LargeClientHelloIntolerance;

impl Rule for LargeClientHelloIntolerance {
    fn id(&self) -> &'static str {
        "large_client_hello_intolerance"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "ClientHellos larger than one segment fail on this listener, where small ones succeed."
    }

    fn doc_long(&self) -> &'static str {
        "A post-quantum key share (X25519MLKEM768), a long ticket or padding makes the ClientHello larger \
         than one segment, and a server or middlebox that expects it in one read refuses it; TCP promises \
         no such thing (RFC 9293 §3.7). The evidence is the contrast between large and small ClientHellos \
         on one listener."
    }

    fn remedy(&self) -> &'static str {
        "Upgrade the server or middlebox that assumes a one-segment ClientHello (see tldr.fail); until \
         then turn X25519MLKEM768 off in the client."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let hello = facts.client_hello.as_ref()?;
        let listener = case.listener;
        if !history::is_large(hello) || listener.large_hello.accepted > 0 {
            return None;
        }
        let refused = case.is_hello_refused()
            && match case.root.ending?.how {
                How::Alert(alert) => matches!(
                    alert.description,
                    AlertDescription::DECODE_ERROR
                        | AlertDescription::ILLEGAL_PARAMETER
                        | AlertDescription::UNEXPECTED_MESSAGE
                        | AlertDescription::RECORD_OVERFLOW
                        | AlertDescription::INTERNAL_ERROR
                ),
                How::Reset(_) | How::Close => !facts.server_answered(),
            };
        if !refused || case.name_is_always_refused() {
            return None;
        }
        let failed = case.refused(listener.large_hello);
        let small = listener.small_hello;
        let clear = failed >= CONTRAST && small.accepted >= CONTRAST && small.accepted > small.refused;
        let how = case.refusal()?;
        Some(
            Finding::new(format!(
                "The client sent a ClientHello of {} bytes and the server {how}; smaller ones succeed here.",
                hello.length
            ))
            .blame(Blame::Server)
            .confidence(if clear { Confidence::Inferred } else { Confidence::Suspected })
            .specificity(if clear { Specificity::Cause } else { Specificity::Class })
            .evidence(
                "listener_history",
                format!(
                    "accepted {} of {} small ClientHellos, 0 of {failed} large ones",
                    small.accepted,
                    small.total()
                ),
            )
            .alternative("reset_after_client_hello", "the refused clients may have something else in common"),
        )
    }
}

/// See [`Rule::doc_short`].
struct ClientAbandoned;

impl Rule for ClientAbandoned {
    fn id(&self) -> &'static str {
        "client_abandoned"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The client gave up in the middle of the handshake, without an alert."
    }

    fn doc_long(&self) -> &'static str {
        "A FIN or RST came from the client while it was the server's turn to speak (RFC 8446 §6.1 asks for \
         an alert): the client's own time limit, a user who left, a connection that lost a race (RFC 8305 \
         §5), or a handshake that the client began only to look."
    }

    fn remedy(&self) -> &'static str {
        "Compare the time it waited with the client's time limit; look at the server's latency if many \
         clients give up."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Client)?;
        if facts.client_hello.is_none() || facts.phase() > Phase::ServerFlight {
            return None;
        }
        if matches!(ending.how, How::Alert(alert) if alert.description != AlertDescription::CLOSE_NOTIFY) {
            return None;
        }
        let how = if matches!(ending.how, How::Reset(_)) { "reset" } else { "closed" };
        let delay = case.since_client_hello(ending.time);
        let summary = if facts.server_answered() {
            format!(
                "The client {how} the connection {delay} after its ClientHello, in the middle of the handshake."
            )
        } else {
            format!(
                "The client {how} the connection {delay} after its ClientHello, before the server had answered."
            )
        };
        Some(
            Finding::new(summary)
                .blame(Blame::Unknown)
                .specificity(Specificity::Symptom)
                .confidence(Confidence::Inferred)
                .evidence("client_ended_first", words::ending(&ending)),
        )
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
        // Of a complete handshake `ok` says more, and most are: no sentence is made for nothing.
        let ending = case.root.ending.filter(|_| case.facts.progress.complete.is_none())?;
        if !case.spoke_tls() {
            return None;
        }
        Some(
            Finding::new(format!("{} in the middle of the handshake.", words::ending(&ending)))
                .specificity(Specificity::Fallback)
                .confidence(Confidence::Suspected),
        )
    }
}
