//! Not failures: handshakes that succeeded, probes, and what cannot be judged.

use std::borrow::Cow;
use std::time::Duration;

use crate::engine::facts::{Ending, Phase, Role};
use crate::tls::codepoints::{AlertDescription, AlertLevel};
use crate::tls::record::FirstBytes;
use crate::verdict::{Blame, Case, Confidence, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] =
    &[&Ok, &ProbeTcpConnect, &ProbeTlsHandshake, &ClientCanceled, &Undetermined];

/// A leg of a handshake that takes longer than this is worth a warning (`DIAGNOSIS.md` §10).
const SLOW: Duration = Duration::from_secs(1);
/// So many retransmissions during a handshake are worth a warning.
const MANY_RETRANSMISSIONS: u32 = 3;

/// See [`Rule::doc_short`].
struct Ok;

impl Rule for Ok {
    fn id(&self) -> &'static str {
        "ok"
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn doc_short(&self) -> &'static str {
        "The handshake completed."
    }

    fn doc_long(&self) -> &'static str {
        "Both Finished messages were seen where they must stand (RFC 5246 §7.4.9), or, in TLS 1.3, the \
         client's Finished by position and size and nothing that refuses it afterwards (RFC 8446 §4.4.4)."
    }

    fn remedy(&self) -> &'static str {
        "Nothing to do."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let hello = facts.server_hello.as_ref()?;
        // Only TLS 1.3 lets a client finish last, and then nothing may have refused it in the clear.
        let client_is_done = facts.progress.client_finished.is_some()
            && hello.version.is_tls13()
            && case
                .root
                .alert_by(Role::Server)
                .is_none_or(|(_, alert)| alert.description == AlertDescription::CLOSE_NOTIFY);
        if facts.progress.complete.is_none() && !client_is_done {
            return None;
        }
        let resumed = if facts.progress.resumed { "resumed a session" } else { "completed the handshake" };
        let (version, cipher): (Cow<'_, str>, Cow<'_, str>) =
            (hello.version.into(), hello.cipher_suite.into());
        // Nearly every line says this: `format!` would take longer than to find out that it is so.
        let finding =
            Finding::new(["The client ", resumed, " with TLS ", &version, ", ", &cipher, "."].concat())
                .confidence(if facts.progress.complete.is_some() {
                    Confidence::Observed
                } else {
                    Confidence::Inferred
                })
                .specificity(Specificity::Symptom);
        Some(with_warnings(case, finding))
    }
}

/// See [`Rule::doc_short`].
struct ProbeTcpConnect;

impl Rule for ProbeTcpConnect {
    fn id(&self) -> &'static str {
        "probe_tcp_connect"
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn doc_short(&self) -> &'static str {
        "The client connected and closed without sending a byte: a health check, a scanner, a race that \
         was lost."
    }

    fn doc_long(&self) -> &'static str {
        "TCP's handshake completed and the client closed or reset with no payload in either direction, a \
         PROXY header at most. TCP health checks do this all the time, and so does the slower of two \
         connections of happy eyeballs (RFC 8305 §5)."
    }

    fn remedy(&self) -> &'static str {
        "Nothing to do, unless a client that should speak TLS does nothing else."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Client)?;
        let proxy_header_only = facts.proxy.is_some()
            && facts.client_hello.is_none()
            && facts.client().unfinished.is_none()
            && matches!(facts.client().first_bytes, Some(FirstBytes::ProxyV1 | FirstBytes::ProxyV2));
        let nothing = facts.client().bytes == 0;
        // A server that answers the close with an alert was not greeted either.
        let was_greeted = facts.server().first_payload.is_some_and(|first| first < ending.time);
        let connected = facts.tcp.syn_ack.is_some() && facts.tcp.established.is_some();
        if !connected || !(nothing || proxy_header_only) || was_greeted {
            return None;
        }
        Some(
            Finding::new(if nothing {
                "The client connected and closed without sending a byte.".to_owned()
            } else {
                "The client sent a PROXY header and closed without sending a byte of its own.".to_owned()
            })
            .evidence("no_payload", words::ending(&ending)),
        )
    }
}

/// See [`Rule::doc_short`].
struct ProbeTlsHandshake;

impl Rule for ProbeTlsHandshake {
    fn id(&self) -> &'static str {
        "probe_tls_handshake"
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn doc_short(&self) -> &'static str {
        "The client completes handshakes at regular intervals and sends nothing: a health check."
    }

    fn doc_long(&self) -> &'static str {
        "At least five handshakes of one client on this listener completed and carried no application \
         data, at intervals that vary by less than a fifth. Load balancers and monitors that check the TLS \
         layer do this. Addresses prove nothing: load balancers send user traffic from the same ones."
    }

    fn remedy(&self) -> &'static str {
        "Nothing to do."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let progress = &facts.progress;
        if progress.client_finished.is_none() || progress.client_data.is_some() || case.was_refused_late() {
            return None;
        }
        let visits = case.listener.visits_of(facts.client().address.ip())?;
        let period = visits.period(facts.first_seen)?;
        Some(
            Finding::new(format!(
                "The client completed a handshake and sent nothing, as it does every {}.",
                words::duration(period)
            ))
            .confidence(Confidence::Inferred)
            .evidence(
                "periodic_handshakes",
                format!(
                    "{} handshakes without data, one every {}",
                    visits.count() + 1,
                    words::duration(period)
                ),
            ),
        )
    }
}

/// See [`Rule::doc_short`].
struct ClientCanceled;

impl Rule for ClientCanceled {
    fn id(&self) -> &'static str {
        "client_canceled"
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn doc_short(&self) -> &'static str {
        "The client cancelled the handshake on purpose."
    }

    fn doc_long(&self) -> &'static str {
        "The alert user_canceled (RFC 8446 §6.1), usually followed by close_notify: a user stopped the \
         page, or an application its request."
    }

    fn remedy(&self) -> &'static str {
        "Nothing to do, unless many clients cancel because the server is slow."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let (ending, alert) = case.root.alert_by(Role::Client)?;
        if alert.description != AlertDescription::USER_CANCELED || case.facts.phase() == Phase::Complete {
            return None;
        }
        Some(
            Finding::new(format!(
                "The client cancelled the handshake {} after its ClientHello.",
                case.since_client_hello(ending.time)
            ))
            .blame(Blame::Client)
            .specificity(Specificity::Class)
            .evidence("alert", words::alert(alert.description)),
        )
    }
}

/// See [`Rule::doc_short`].
struct Undetermined;

impl Rule for Undetermined {
    fn id(&self) -> &'static str {
        "undetermined"
    }

    fn severity(&self) -> Severity {
        Severity::Info
    }

    fn doc_short(&self) -> &'static str {
        "Not enough was seen to judge."
    }

    fn doc_long(&self) -> &'static str {
        "Part of the conversation was not captured: it began before the capture, only one direction is \
         visible here, packets were lost on the way to the observer, the connection table was full, or the \
         capture ended. The field reason says which."
    }

    fn remedy(&self) -> &'static str {
        "Capture where both directions pass, from before the connection begins."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        if !case.spoke_tls() || case.facts.phase() == Phase::Complete {
            return None;
        }
        let capture = case.facts.capture;
        // Where all was seen up to an ending, other rules say what kind of ending.
        if case.root.ending.is_some() && !capture.lost_something() && !capture.midstream {
            return None;
        }
        let (reason, text) = if capture.evicted {
            ("table_full", "the table of connections was full")
        } else if capture.lost > 0 || capture.lost_nearby || capture.gaps > 0 || capture.desynchronised {
            ("lost_packets", "part of the conversation was not captured")
        } else if capture.truncated > 0 {
            ("truncated_capture", "packets were captured only in part")
        } else if capture.one_way {
            ("one_way_visibility", "only one direction was seen")
        } else if capture.midstream && case.facts.client_hello.is_none() {
            ("midstream", "the connection began before the capture")
        } else {
            ("truncated_capture", "the capture ended before the handshake did")
        };
        Some(
            Finding::new(format!("The handshake cannot be judged: {text}."))
                .blame(Blame::Unknown)
                .specificity(Specificity::Fallback)
                .reason(reason),
        )
    }
}

/// Adds what is worth knowing about a handshake that succeeded.
fn with_warnings(case: &Case<'_>, mut finding: Finding) -> Finding {
    let facts = case.facts;
    if let Some(retry) = &facts.hello_retry_request {
        let group = retry.group.map_or_else(|| "another".to_owned(), |group| group.to_string());
        finding = finding.warning(
            "hello_retry_round_trip",
            format!("the server asked for a key share for {group}, which cost a round trip"),
        );
    }
    if facts.server().alerts.iter().any(|alert| {
        alert.level == AlertLevel::WARNING && alert.description == AlertDescription::UNRECOGNIZED_NAME
    }) {
        finding = finding.warning(
            "sni_unrecognized_warning",
            "the server does not know the server_name and went on; some clients refuse that",
        );
    }
    if let Some(Ending { role, .. }) = case.root.suspicious_reset {
        let who = role.as_str();
        finding = finding.warning(
            "injected_reset",
            format!("a RST in the name of the {who} arrived, and the connection went on"),
        );
    }
    if let (Some(server), Some(client)) = (&facts.server_hello, &facts.client_hello)
        && server.downgrade.is_some()
        && client.max_version() <= server.version
    {
        finding = finding.warning(
            "negotiated_below_server_maximum",
            format!("the server supports more than TLS {}, the client does not", server.version),
        );
    }
    let retransmissions = facts.client().retransmissions + facts.server().retransmissions;
    if retransmissions >= MANY_RETRANSMISSIONS {
        finding = finding.warning("retransmissions", format!("{retransmissions} segments were sent again"));
    }
    if let Some((leg, took)) = slowest_leg(case).filter(|(_, took)| *took >= SLOW) {
        finding = finding.warning("slow_handshake", format!("{leg} took {}", words::duration(took)));
    }
    finding
}

/// The leg of the handshake that took longest.
fn slowest_leg(case: &Case<'_>) -> Option<(&'static str, Duration)> {
    let facts = case.facts;
    let progress = &facts.progress;
    let tcp = facts.tcp;
    let legs = [
        ("the server's TCP handshake", tcp.syn, tcp.syn_ack),
        ("the server's answer to the ClientHello", progress.client_hello, facts.server().first_payload),
        (
            "the client's check of the server's flight",
            progress.server_hello_done.or(progress.server_hello),
            progress.client_key_exchange.or(progress.client_finished),
        ),
        ("the server's Finished", progress.client_finished, progress.server_finished),
    ];
    legs.into_iter()
        .filter_map(|(leg, begin, end)| Some((leg, end?.since(begin?))))
        .max_by_key(|(_, took)| *took)
}
