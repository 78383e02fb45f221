//! Connections that failed below TLS, before a ClientHello was complete.

use std::time::Duration;

use crate::engine::facts::{How, Reset, Role};
use crate::tls::codepoints::HandshakeType;
use crate::tls::record::FirstBytes;
use crate::verdict::{Blame, Case, Confidence, EndedHow, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[
    &SynTimeout,
    &PortClosed,
    &AcceptQueueFull,
    &TcpHandshakeIncomplete,
    &ResetBeforeClientHello,
    &ClientHelloTimeout,
    &ClientHelloTruncated,
    &InjectedReset,
];

/// A server that ends a silent connection sooner did not wait for the client (`DIAGNOSIS.md` D5: timers of
/// listeners are 10 s and more, tests use shorter ones).
const IDLE: Duration = Duration::from_secs(2);
/// An unanswered SYN and an unanswered ClientHello so close together have the same cause.
const SAME_TIME: Duration = Duration::from_mins(1);

/// See [`Rule::doc_short`].
struct SynTimeout;

impl Rule for SynTimeout {
    fn id(&self) -> &'static str {
        "syn_timeout"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "Nobody answered the client's SYN."
    }

    fn doc_long(&self) -> &'static str {
        "The SYN was sent at least three times and neither a SYN-ACK nor a RST came (RFC 9293 §3.8.1, RFC \
         6298 §2): a firewall or network policy drops it, there is no route, or the host is down."
    }

    fn remedy(&self) -> &'static str {
        "Check firewall rules, NetworkPolicy, routes and that the address is the right one; an ICMP answer \
         may say who drops it."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let tcp = case.facts.tcp;
        if !is_syn_unanswered(case) {
            return None;
        }
        let waited = case.waited_since(tcp.syn?);
        Some(
            Finding::new(format!(
                "The server did not answer {} SYNs within {}.",
                tcp.syn_count,
                words::duration(waited)
            ))
            .blame(Blame::Path)
            .specificity(Specificity::Class)
            .ended_by(Role::Server, EndedHow::Silence)
            .evidence("syn_retransmitted", format!("{} SYNs, no SYN-ACK, no RST", tcp.syn_count)),
        )
    }
}

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
        "The server's host answered the SYN with a RST that acknowledges it (RFC 9293 §3.10.7.1): the host \
         is reachable and no socket listens on that address and port, or a firewall rejects with a reset."
    }

    fn remedy(&self) -> &'static str {
        "Check that the server runs and listens on this address and port, and that the Service's \
         targetPort is the container's port."
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
struct AcceptQueueFull;

impl Rule for AcceptQueueFull {
    fn id(&self) -> &'static str {
        "accept_queue_full"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The listener is alive and does not accept: its queue of completed connections is full."
    }

    fn doc_long(&self) -> &'static str {
        "The kernel completes TCP handshakes and acknowledges data for a listener whether the process \
         accepts them or not; when the backlog is full it drops further SYNs (listen(2), \
         tcp_abort_on_overflow=0). Here SYNs went unanswered while ClientHellos on the same listener were \
         acknowledged and not answered."
    }

    fn remedy(&self) -> &'static str {
        "Find out why the server process does not call accept (deadlock, CPU starvation, file descriptor \
         limit); raise its backlog and net.core.somaxconn only after that."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let syn = facts.tcp.syn?;
        let listener = case.listener;
        let others_wait = listener.waiting > 0
            || listener.last_silence.is_some_and(|at| facts.judged_at.since(at) < SAME_TIME);
        let others_served = listener.last_answer.is_some_and(|at| at > syn);
        if !is_syn_unanswered(case) || !others_wait || others_served {
            return None;
        }
        Some(
            Finding::new(format!(
                "The server did not answer {} SYNs while it left other ClientHellos on this listener unanswered.",
                facts.tcp.syn_count
            ))
            .blame(Blame::Server)
            .confidence(Confidence::Inferred)
            .ended_by(Role::Server, EndedHow::Silence)
            .evidence("syn_retransmitted", format!("{} SYNs, no SYN-ACK, no RST", facts.tcp.syn_count))
            .evidence(
                "listener_history",
                format!("{} ClientHellos wait for an answer here, none was answered meanwhile", listener.waiting),
            )
            .alternative("syn_timeout", "the path may have begun to drop packets"),
        )
    }
}

/// See [`Rule::doc_short`].
struct TcpHandshakeIncomplete;

impl Rule for TcpHandshakeIncomplete {
    fn id(&self) -> &'static str {
        "tcp_handshake_incomplete"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The server's SYN-ACK was never acknowledged."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered the SYN and the client never completed the handshake (RFC 9293 §3.5): a scan, \
         a client that is gone, or an asymmetric route on which the SYN-ACK is lost."
    }

    fn remedy(&self) -> &'static str {
        "Ignore scans; otherwise look for the SYN-ACK on the client's side: the return path drops it."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let tcp = facts.tcp;
        if tcp.syn_ack.is_none() || tcp.established.is_some() {
            return None;
        }
        let finding = if let Some((_, reset)) = case.root.reset_by(Role::Client) {
            Finding::new("The client reset the connection in answer to the SYN-ACK.")
                .blame(Blame::Client)
                .evidence("client_reset", words::reset(reset))
        } else if case.root.ending.is_none() && tcp.syn_ack_count >= 2 {
            Finding::new(format!("The client did not answer {} SYN-ACKs.", tcp.syn_ack_count))
                .confidence(Confidence::Inferred)
                .ended_by(Role::Client, EndedHow::Silence)
                .evidence("syn_ack_retransmitted", format!("{} SYN-ACKs, no ACK", tcp.syn_ack_count))
        } else {
            return None;
        };
        Some(finding.specificity(Specificity::Class))
    }
}

/// See [`Rule::doc_short`].
struct ResetBeforeClientHello;

impl Rule for ResetBeforeClientHello {
    fn id(&self) -> &'static str {
        "reset_before_client_hello"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The server ended the connection right after TCP's handshake, before the client had sent a byte."
    }

    fn doc_long(&self) -> &'static str {
        "A RST or FIN came from the server with no payload in either direction: the listener, or what \
         stands in front of it, does not want this client at all (an access rule, a connection limit, a \
         backend that is gone), or it expects nobody there (RFC 9293 §3.10.7)."
    }

    fn remedy(&self) -> &'static str {
        "Check connection limits, access rules and the health of the backend behind this listener."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Server)?;
        let up = facts.tcp.syn_ack?;
        if facts.client().bytes + facts.server().bytes > 0 {
            return None;
        }
        let after = ending.time.since(up);
        if after >= IDLE {
            return None;
        }
        let how = if ending.how == How::Close { "closed" } else { "reset" };
        let mut finding = Finding::new(format!(
            "The server {how} the connection {} after TCP's handshake, before the client had sent a byte.",
            words::duration(after)
        ))
        .blame(Blame::Server)
        .specificity(Specificity::Symptom)
        .evidence("no_payload", "no byte of payload in either direction");
        if let How::Reset(reset) = ending.how {
            finding = finding.evidence("server_reset", words::reset(reset));
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct ClientHelloTimeout;

impl Rule for ClientHelloTimeout {
    fn id(&self) -> &'static str {
        "client_hello_timeout"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The client connected and sent nothing, and the server gave up waiting."
    }

    fn doc_long(&self) -> &'static str {
        "TCP's handshake completed, no byte came, and the server closed or reset the idle connection. The \
         time it waited is the listener's own limit (Envoy: listener_filters_timeout, nginx: \
         client_header_timeout, HAProxy: timeout client). Load balancers and browsers that connect ahead \
         of need cause this, and so does a client that waits for the server to speak first."
    }

    fn remedy(&self) -> &'static str {
        "Harmless for connections made ahead of need; otherwise find out why the client sends no ClientHello."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Server)?;
        let up = facts.tcp.syn_ack.or(facts.tcp.established)?;
        if facts.client().bytes + facts.server().bytes > 0 || ending.time.since(up) < IDLE {
            return None;
        }
        let waited = words::duration(ending.time.since(up));
        let speaks_tls = case.listener.accepted() > 0;
        if !speaks_tls && case.listener.other_protocol > 0 {
            return None;
        }
        Some(
            Finding::new(format!("The client sent no byte, and the server gave up after {waited}."))
                .blame(Blame::Client)
                .confidence(if speaks_tls { Confidence::Observed } else { Confidence::Inferred })
                .evidence("idle", format!("no payload for {waited}")),
        )
    }
}

/// See [`Rule::doc_short`].
struct ClientHelloTruncated;

impl Rule for ClientHelloTruncated {
    fn id(&self) -> &'static str {
        "client_hello_truncated"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The ClientHello began and never completed."
    }

    fn doc_long(&self) -> &'static str {
        "The client's stream ends inside the ClientHello (RFC 8446 §4.1.2): the client gave up, crashed or \
         was cut off while it wrote. Alerts that servers send on hearing of the end (OpenSSL decode_error, \
         JSSE handshake_failure) follow from it."
    }

    fn remedy(&self) -> &'static str {
        "Look at the client: what made it stop while it was sending its ClientHello."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let client = facts.client();
        // More than what was read came if a server answers it, or if it was no record.
        let went_on = client.broke_framing || facts.progress.server_hello.is_some();
        if facts.client_hello.is_some() || went_on || client.lost_on_path || client.stuck_at.is_some() {
            return None;
        }
        let unfinished = client.unfinished?;
        let began = unfinished.kind == Some(HandshakeType::CLIENT_HELLO)
            || unfinished.kind.is_none() && client.first_bytes == Some(FirstBytes::TlsRecord);
        if !began {
            return None;
        }
        let begin = client.first_payload?;
        let (how, side) = match case.root.ending {
            Some(ending) => (words::ending_of(&ending), ending.role),
            None if case.waited_since(client.last_payload?) >= case.patience() => {
                ("went silent".to_owned(), Role::Client)
            }
            None => return None,
        };
        let who = words::side(side);
        let finding = Finding::new(format!(
            "{who} {how} {} after the ClientHello had begun; at least {} bytes of it never came.",
            words::duration(case.ended_at().since(begin)),
            unfinished.missing.max(1),
        ))
        .blame(Blame::Client)
        .evidence(
            "client_hello_incomplete",
            format!("{} bytes came, at least {} are missing", client.bytes, unfinished.missing),
        );
        Some(if case.root.ending.is_none() { finding.ended_by(side, EndedHow::Silence) } else { finding })
    }
}

/// See [`Rule::doc_short`].
struct InjectedReset;

impl Rule for InjectedReset {
    fn id(&self) -> &'static str {
        "injected_reset"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "A RST arrived that the endpoint did not send."
    }

    fn doc_long(&self) -> &'static str {
        "The RST's hop count differs from the other packets of the side that it claims to come from, or \
         that side went on sending as if there were no RST (RFC 5961 §3 is why blind resets often fail), or \
         the side is this node and its kernel says that it sent none. \
         Firewalls, intrusion prevention, load balancers that time out and censors do this."
    }

    fn remedy(&self) -> &'static str {
        "Look for a firewall, IPS or load balancer on the path that resets connections; compare TTLs hop \
         by hop."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let ending = case.root.ending?;
        let How::Reset(reset) = ending.how else { return None };
        if case.facts.progress.complete.is_some() {
            return None;
        }
        let sender = words::side(ending.role);
        let other = if ending.role == Role::Client { "client" } else { "server" };
        let contradicted = case.root.is_contradicted;
        let is_doubtful = reset.hop_limit_differs || contradicted;
        if case.facts.report_of(&reset).is_some() || !is_doubtful && !reset.is_unreported {
            return None;
        }
        if reset.is_unreported {
            return Some(unreported_reset(case, reset, ending.role, is_doubtful));
        }
        let why = if contradicted { "and went on sending" } else { "with another TTL than its packets" };
        let mut finding = Finding::new(format!(
            "{sender} seems to have reset the connection {why}: something on the path sent the RST."
        ))
        .blame(Blame::Path)
        .confidence(Confidence::Inferred)
        .evidence("reset_shape", words::reset(reset))
        .alternative(
            "reset_after_client_hello",
            "a proxy or NAT that speaks for the endpoint changes the TTL, too",
        );
        if contradicted {
            finding = finding.evidence("sender_went_on", format!("the {other} sent more payload after it"));
        }
        Some(finding)
    }
}

/// This node's kernel tells of the resets that its TCP sends, and told nothing of this one.
fn unreported_reset(case: &Case<'_>, reset: Reset, sender: Role, is_doubtful: bool) -> Finding {
    let (sender, other) = match sender {
        Role::Client => ("client", "server"),
        Role::Server => ("server", "client"),
    };
    let finding = Finding::new(format!(
        "This node sent the {other} a RST in the name of the {sender}, whose own TCP did not: a firewall rule here, or a \
         program with a raw socket, reset the connection."
    ))
    .blame(Blame::Path)
    .confidence(if is_doubtful { Confidence::Observed } else { Confidence::Inferred })
    .evidence("reset_shape", words::reset(reset))
    .evidence("kernel_sent_no_reset", "the kernel reports every RST that its TCP sends, and not this one");
    if case.root.is_contradicted {
        finding.evidence("sender_went_on", format!("the {sender} sent more payload after it"))
    } else {
        finding
    }
}

/// The SYN was sent three times or more and the server's host said nothing.
fn is_syn_unanswered(case: &Case<'_>) -> bool {
    let facts = case.facts;
    let tcp = facts.tcp;
    tcp.syn_count >= 3
        && tcp.syn_ack.is_none()
        && tcp.established.is_none()
        && facts.server().hop_limit == 0
        && case.root.ending.is_none()
}
