//! Questions that several rules ask about a case.

use std::time::Duration;

use crate::engine::facts::{Ending, How, Phase, Role};
use crate::engine::history::Tally;
use crate::engine::timestamp::Timestamp;
use crate::engine::tls13::Exchange;
use crate::tls::codepoints::{AlertDescription, ContentType};

use super::rules::{Aspect, Offer};
use super::{Case, Confidence, Finding, KnownChain, words};

/// Silence that lasts shorter may be the end of the capture.
const PATIENCE: Duration = Duration::from_secs(10);

impl<'a> Case<'a> {
    /// The encrypted records, if the server selected TLS 1.3.
    pub fn exchange(&self) -> Option<&Exchange<'a>> {
        self.exchange.get_or_init(|| Exchange::of(self.facts)).as_ref()
    }

    /// When the connection ended, or was given up.
    pub fn ended_at(&self) -> Timestamp {
        self.root.ending.map_or(self.facts.judged_at, |ending| ending.time)
    }

    /// How long it had been since `time` when the case was judged.
    pub fn waited_since(&self, time: Timestamp) -> Duration {
        self.facts.judged_at.since(time)
    }

    /// How long silence must last to mean something.
    pub fn patience(&self) -> Duration {
        PATIENCE
    }

    /// The certificates that the server presented: as seen, or, where TLS 1.3 hides them, as known from the
    /// listener's history if the size of a record fits.
    pub fn server_chain(&self) -> Option<KnownChain<'_>> {
        if let Some(chain) = &self.facts.server().certificates {
            return Some(KnownChain { chain, from_history: false });
        }
        let hello = self.facts.client_hello.as_ref()?;
        let chain = self.listener.name_of(hello)?.chain.as_deref()?;
        let fits = self.exchange()?.holds_chain(chain);
        fits.then_some(KnownChain { chain, from_history: true })
    }

    /// How the server ended the connection, as a phrase after "the server".
    pub fn refusal(&self) -> Option<String> {
        let ending = self.root.ending.filter(|ending| ending.role == Role::Server)?;
        Some(match ending.how {
            How::Alert(_) => words::ending_of(&ending),
            How::Reset(_) | How::Close if self.facts.client_hello.is_some() => {
                let delay = self.since_client_hello(ending.time);
                format!("{} {delay} later, without an alert", words::ending_of(&ending))
            }
            How::Reset(_) | How::Close => format!("{} without a word", words::ending_of(&ending)),
        })
    }

    /// The server answered the ClientHello with `handshake_failure`.
    pub fn is_handshake_failure(&self) -> bool {
        let alert = self.root.alert_by(Role::Server);
        self.facts.server_hello.is_none()
            && self.facts.client_hello.is_some()
            && alert.is_some_and(|(_, alert)| alert.description == AlertDescription::HANDSHAKE_FAILURE)
    }

    /// How many of a kind were refused here, this connection, which is one of them, included.
    pub fn refused(&self, tally: Tally) -> u32 {
        tally.refused.saturating_add(u32::from(!self.is_counted))
    }

    /// Others with a `server_name` were accepted on this listener, and with this one nobody.
    pub fn is_only_this_name_refused(&self) -> bool {
        let Some(hello) = &self.facts.client_hello else { return false };
        let this = self.listener.name_of(hello).map(|name| name.tally).unwrap_or_default();
        hello.server_name.is_some() && this.accepted == 0 && self.listener.with_name.accepted > 0
    }

    /// The `server_name`, or its absence, tells this hello from all that were accepted here.
    pub fn name_is_always_refused(&self) -> bool {
        let Some(hello) = &self.facts.client_hello else { return false };
        self.listener.name_of(hello).is_none_or(|name| name.tally.accepted == 0)
    }

    /// TLS 1.3: after the ServerHello the server sent one record of an alert's size and nothing else, and then
    /// the connection ended, while the client had sent nothing encrypted.
    pub fn server_alerted_after_server_hello(&self) -> bool {
        self.server_alerted_before_certificate() && self.facts.server().opaque_records.len() == 1
    }

    /// The same, with or without `EncryptedExtensions` before the alert: JSSE sends them first.
    pub fn server_alerted_before_certificate(&self) -> bool {
        let facts = self.facts;
        let early = facts.client_hello.as_ref().is_some_and(|hello| hello.early_data);
        let Some(record) = self.exchange().and_then(Exchange::server_alert_before_certificate) else {
            return false;
        };
        record.content_type == ContentType::APPLICATION_DATA
            && (early || record.peer_records == 0)
            && facts.is_complete_capture()
            && self
                .root
                .ending
                .is_some_and(|ending| ending.role == Role::Server || ending.time >= record.time)
    }

    /// TLS 1.3: the client sent nothing after its Finished but a record of an alert's size.
    pub fn client_alerted_after_finished(&self) -> bool {
        let Some(exchange) = self.exchange() else { return false };
        let mut answer = exchange.client_answer();
        answer.next().is_some_and(|record| exchange.is_client_alert(record)) && answer.next().is_none()
    }

    /// After the client's Finished the server, too, ended the connection first: it may have refused.
    pub fn was_refused_late(&self) -> bool {
        self.root.ending.is_some_and(|ending| ending.role == Role::Server)
    }

    /// The client closed while nothing was wrong yet: it owed or awaited a message and left.
    pub fn is_close_by_client_alone(&self) -> bool {
        let facts = self.facts;
        self.root.close_by(Role::Client).is_some()
            && facts.second_client_hello.is_none()
            && !facts.second_hello_retry_request
            && facts.phase() < Phase::ClientFlight
            && self.since_hello_retry().is_none_or(|since| since > PATIENCE)
    }

    /// The interval at which this client fails with `verdict` on this listener, if it does so regularly.
    pub fn failing_period(&self, verdict: &'static str) -> Option<Duration> {
        self.listener.failing_period(self.facts.client().address.ip(), verdict, self.facts.last_seen)
    }

    /// Adds how this listener treats others.
    pub fn with_history(&self, finding: Finding) -> Finding {
        let listener = self.listener;
        let (named, unnamed) = (listener.with_name, listener.without_name);
        let (accepted, total) = (listener.accepted(), named.total() + unnamed.total());
        if total == 0 {
            return finding;
        }
        finding.evidence(
            "listener_history",
            format!(
                "{accepted} of {total} handshakes completed here before, from {} clients",
                listener.clients()
            ),
        )
    }

    /// Adds the versions that this listener has selected for others.
    pub(super) fn with_accepted_versions(&self, finding: Finding) -> Finding {
        let Some(hello) = &self.facts.client_hello else { return finding };
        let selected = self.listener.selected_for(hello);
        if selected.handshakes() == 0 {
            return finding;
        }
        let versions = words::list(
            selected.versions.by_frequency().iter().map(|(version, n)| format!("TLS {version} ×{n}")),
            4,
        );
        finding.evidence(
            "listener_history",
            format!("this listener has been seen to accept {versions}, from {} clients", selected.clients()),
        )
    }

    /// Adds, to a finding about one aspect of the offer, the others that may be at fault.
    pub(super) fn with_doubts(&self, mut finding: Finding, aspect: Aspect) -> Finding {
        let Some(hello) = self.facts.last_client_hello() else { return finding };
        let selected = self.listener.selected_for(hello);
        let key = self.listener.name_of(hello).and_then(|name| name.key());
        for other in Aspect::ALL {
            if other == aspect {
                continue;
            }
            if Offer::of(hello).misses(other, selected, key) {
                finding = finding.alternative(other.verdict(), "nothing in common in this respect either");
            } else if selected.handshakes() == 0 {
                finding = finding.alternative(other.verdict(), "the alert does not say");
            }
        }
        if hello.server_name.is_none() && self.listener.without_name.accepted == 0 {
            finding = finding.alternative("sni_missing", "the ClientHello carries no server_name");
        }
        if finding.confidence == Confidence::Suspected && finding.alternatives.is_empty() {
            finding = finding.alternative(
                "handshake_failure_unexplained",
                "what else this listener accepts is not known yet",
            );
        }
        finding
    }

    fn since_hello_retry(&self) -> Option<Duration> {
        let asked = self.facts.server().first_payload?;
        self.root.ending.map(|ending: Ending| ending.time.since(asked))
    }
}
