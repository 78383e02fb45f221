//! Not failures: handshakes that succeeded, probes, and what cannot be judged.

use crate::engine::facts::{Phase, Role};
use crate::verdict::{Blame, Case, Confidence, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[&Ok, &ProbeTcpConnect, &Undetermined];

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
        if facts.progress.complete.is_none() && facts.progress.client_finished.is_none() {
            return None;
        }
        if facts.progress.complete.is_none() && facts.progress.server_hello.is_none() {
            return None;
        }
        let resumed = if facts.progress.resumed { "resumed a session" } else { "completed the handshake" };
        Some(
            Finding::new(format!("The client {resumed} with TLS {}, {}.", hello.version, hello.cipher_suite))
                .confidence(if facts.progress.complete.is_some() {
                    Confidence::Observed
                } else {
                    Confidence::Inferred
                })
                .specificity(Specificity::Symptom),
        )
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
        "The client connected and closed without sending a byte: a health check, a scanner, a race that was lost."
    }

    fn doc_long(&self) -> &'static str {
        "TCP's handshake completed and the client closed or reset with no payload in either direction. TCP \
         health checks do this all the time, and so does the slower of two connections of happy eyeballs \
         (RFC 8305 §5)."
    }

    fn remedy(&self) -> &'static str {
        "Nothing to do, unless a client that should speak TLS does nothing else."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Client)?;
        // A server that answers the close with an alert was not greeted either.
        let was_greeted = facts.server().first_payload.is_some_and(|first| first < ending.time);
        if facts.tcp.syn_ack.is_none() || facts.client().bytes > 0 || was_greeted {
            return None;
        }
        Some(
            Finding::new("The client connected and closed without sending a byte.".to_owned())
                .evidence("no_payload", words::ending(&ending)),
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
        } else if capture.lost > 0 || capture.gaps > 0 || capture.desynchronised {
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
