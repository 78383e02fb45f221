//! What each listener has accepted and refused so far.
//!
//! A refusal on the wire rarely says why; that the same listener accepts others who differ in one respect
//! does. Only handshakes that completed, and were seen from their beginning, teach what a listener accepts,
//! so that nobody can teach by offering. What a listener *selected* is a lower bound of what it supports:
//! rules say "has been seen to accept".
//!
//! Everything is bounded, decays with the time of the segments, and is forgotten least recently used first,
//! what never accepted anything before what did.

mod counted;
mod lru;
mod visits;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::tls::certificate::{CertificateChain, KeyAlgorithm, Sha256Digest};
use crate::tls::client_hello::{ClientHello, ServerName};
use crate::tls::codepoints::{CipherSuite, NamedGroup, ProtocolVersion};

use super::facts::{HandshakeFacts, Role};
use super::timestamp::Timestamp;
pub use counted::Counted;
use counted::Distinct;
use lru::Lru;
pub use visits::Visits;

/// Most listeners that are remembered.
const MAX_LISTENERS: usize = 1024;
/// Most server names that are remembered per listener.
const MAX_NAMES: usize = 256;
/// Most clients whose visits are remembered per listener.
const MAX_VISITORS: usize = 64;
/// Most failed attempts, and most offers of ECH, that are remembered per listener.
const MAX_RECENT: usize = 32;
/// After so long, what was counted counts half.
const HALF_LIFE: Duration = Duration::from_hours(6);
/// From so many handshakes of so many clients on, what was never selected counts as not accepted.
const WELL_KNOWN_HANDSHAKES: u32 = 20;
const WELL_KNOWN_CLIENTS: u32 = 3;
/// Bytes from which a ClientHello may not fit into one segment: the smallest MTU of IPv6 (RFC 8200 §5)
/// without the headers of IPv6 and of TCP with timestamps, and without the record header.
const LARGE_CLIENT_HELLO: u32 = 1280 - 40 - 32 - 5;

/// All listeners.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    listeners: Lru<SocketAddr, Box<ListenerHistory>, MAX_LISTENERS>,
    unknown: ListenerHistory,
    /// Counts what is learned: the order in which things were used.
    clock: u64,
    /// Most bytes that the names of all listeners take, with their certificates.
    max_weight: usize,
    /// Bytes that names have taken since it was last seen what all of them take.
    growth: usize,
    /// It knows the outcome of every connection before it is judged, and counts none again.
    is_closed: bool,
}

/// How much a history has to say about connections like one. When one of its parts has grown, those that were
/// refused before may be judged better.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Knowledge([u8; 9]);

/// One listener: a server address and port.
#[derive(Clone, Debug, Default)]
pub struct ListenerHistory {
    /// Hellos with and without `server_name`.
    pub with_name: Tally,
    pub without_name: Tally,
    /// Connections with and without a PROXY header in front.
    pub with_proxy_header: Tally,
    pub without_proxy_header: Tally,
    /// Hellos that fit into one segment anywhere, and larger ones.
    pub small_hello: Tally,
    pub large_hello: Tally,
    /// Connections that spoke something else and were answered in kind: this listener does not speak TLS, or
    /// not at once.
    pub other_protocol: u32,
    /// Handshakes in which the server asked for a client certificate in the clear.
    pub certificate_requests: u32,
    /// Hellos that are waiting for the first byte of an answer now.
    pub waiting: u32,
    /// When a ClientHello was last answered, and when one was last given up unanswered.
    pub last_answer: Option<Timestamp>,
    pub last_silence: Option<Timestamp>,
    selected: Selections,
    names: Lru<Box<str>, NameHistory, MAX_NAMES>,
    visitors: Lru<IpAddr, Visits, MAX_VISITORS>,
    failures: VecDeque<Failure>,
    ech_offers: VecDeque<(IpAddr, Timestamp)>,
    aged: Timestamp,
}

/// One `server_name` on a listener.
#[derive(Clone, Debug, Default)]
pub struct NameHistory {
    pub tally: Tally,
    pub selected: Selections,
    /// The chain that TLS 1.2 and below showed last.
    pub chain: Option<Arc<CertificateChain>>,
}

/// What a listener selected in handshakes that completed.
#[derive(Clone, Debug, Default)]
pub struct Selections {
    pub versions: Counted<ProtocolVersion>,
    pub suites: Counted<(ProtocolVersion, CipherSuite)>,
    pub groups: Counted<NamedGroup>,
    /// In the clear only: TLS 1.2 and below.
    pub alpn: Counted<Box<[u8]>>,
    clients: Distinct,
}

/// How often something was accepted (the handshake completed) and refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub accepted: u32,
    pub refused: u32,
}

/// An attempt that failed a short time ago.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    pub client: IpAddr,
    pub time: Timestamp,
    /// The verdict's id.
    pub verdict: &'static str,
    /// The highest version that was offered.
    pub version: ProtocolVersion,
}

impl Tally {
    /// Some were refused and none accepted.
    pub fn is_always_refused(self) -> bool {
        self.accepted == 0 && self.refused > 0
    }

    pub fn total(self) -> u32 {
        self.accepted.saturating_add(self.refused)
    }

    fn count(&mut self, accepted: bool) {
        let counter = if accepted { &mut self.accepted } else { &mut self.refused };
        *counter = counter.saturating_add(1);
    }

    fn halve(&mut self, times: u32) {
        self.accepted = self.accepted.checked_shr(times).unwrap_or(0);
        self.refused = self.refused.checked_shr(times).unwrap_or(0);
    }
}

impl Selections {
    /// Handshakes that completed.
    pub fn handshakes(&self) -> u32 {
        self.versions.total()
    }

    /// Different clients among them, roughly.
    pub fn clients(&self) -> u32 {
        self.clients.estimate()
    }

    /// Whether enough was seen to conclude from what was never selected.
    pub fn is_well_known(&self) -> bool {
        self.handshakes() >= WELL_KNOWN_HANDSHAKES && self.clients() >= WELL_KNOWN_CLIENTS
    }

    fn learn(&mut self, facts: &HandshakeFacts) {
        let Some(hello) = &facts.server_hello else { return };
        self.versions.add(&hello.version);
        self.suites.add(&(hello.version, hello.cipher_suite));
        if let Some(group) = facts.group() {
            self.groups.add(&group);
        }
        if let Some(protocol) = &hello.alpn {
            self.alpn.add(protocol);
        }
        self.clients.add(facts.client().address.ip());
    }

    fn halve(&mut self, times: u32) {
        self.versions.halve(times);
        self.suites.halve(times);
        self.groups.halve(times);
        self.alpn.halve(times);
    }
}

impl NameHistory {
    /// SHA-256 of the leaf certificate.
    pub fn leaf(&self) -> Option<Sha256Digest> {
        leaf_of(self.chain.as_deref()?)
    }

    /// Kind of the leaf certificate's key.
    pub fn key(&self) -> Option<&KeyAlgorithm> {
        self.chain.as_ref()?.leaf().map(|leaf| &leaf.key.algorithm)
    }

    fn has_proven_itself(&self) -> bool {
        self.tally.accepted > 0
    }

    /// Bytes of memory, about: what others hold too counts in part.
    fn weight(&self) -> usize {
        let certificates = self.chain.iter().flat_map(|chain| &chain.certificates);
        let shares = certificates.map(|certificate| certificate.weight() / Arc::strong_count(certificate));
        size_of::<Self>() + shares.sum::<usize>()
    }

    fn learn(&mut self, facts: &HandshakeFacts, accepted: bool) {
        if let Some(chain) = &facts.server().certificates
            && let Some(leaf) = leaf_of(chain)
        {
            match self.leaf() {
                Some(known) if known == leaf => {}
                // Another certificate may come with another configuration.
                Some(_) => *self = Self { chain: Some(Arc::new(chain.clone())), ..Self::default() },
                None => self.chain = Some(Arc::new(chain.clone())),
            }
        }
        self.tally.count(accepted);
        if accepted {
            self.selected.learn(facts);
        }
    }
}

impl ListenerHistory {
    /// What became of hellos with this server name.
    pub fn name(&self, name: &str) -> Option<&NameHistory> {
        self.names.get(&*lowercase(name.into()))
    }

    /// What became of hellos like this one: with its server name, or without one.
    pub fn name_of(&self, hello: &ClientHello) -> Option<&NameHistory> {
        self.names.get(&*name_key(hello.server_name.as_ref()))
    }

    /// What was selected for hellos like this one; where its name is not known, for any.
    pub fn selected_for(&self, hello: &ClientHello) -> &Selections {
        self.name_of(hello)
            .map(|name| &name.selected)
            .filter(|selected| selected.handshakes() > 0)
            .unwrap_or(&self.selected)
    }

    /// Handshakes that completed here.
    pub fn accepted(&self) -> u32 {
        self.with_name.accepted.saturating_add(self.without_name.accepted)
    }

    /// Different clients whose handshakes completed here, roughly.
    pub fn clients(&self) -> u32 {
        self.selected.clients()
    }

    /// Handshakes complete here only behind a PROXY header.
    pub fn requires_proxy_header(&self) -> bool {
        self.with_proxy_header.accepted > 0 && self.without_proxy_header.accepted == 0
    }

    /// Handshakes of this client that completed and carried no data.
    pub fn visits_of(&self, client: IpAddr) -> Option<&Visits> {
        self.visitors.get(&client)
    }

    /// The latest failure of `client` within `window` before `time`.
    pub fn failure_of(&self, client: IpAddr, time: Timestamp, window: Duration) -> Option<&Failure> {
        self.failures.iter().rev().find(|failure| {
            failure.client == client && failure.time <= time && time.since(failure.time) <= window
        })
    }

    /// The interval at which `client` failed with `verdict`, one more such failure at `now` included, if it is
    /// regular.
    pub fn failing_period(&self, client: IpAddr, verdict: &'static str, now: Timestamp) -> Option<Duration> {
        let mut visits = Visits::default();
        let like_this =
            |failure: &&Failure| failure.client == client && failure.verdict == verdict && failure.time < now;
        for failure in self.failures.iter().filter(like_this) {
            visits.add(failure.time);
        }
        visits.period(now)
    }

    fn knowledge(&self, hello: Option<&ClientHello>) -> Knowledge {
        // From the first on there is contrast, and a few make it firm (see the rules).
        let level = |tally: Tally| match tally.accepted {
            0 => 0,
            1..3 => 1,
            3.. => 2,
        };
        let name = hello.and_then(|hello| self.name_of(hello));
        Knowledge([
            level(self.with_name),
            level(self.without_name),
            level(self.with_proxy_header),
            level(self.without_proxy_header),
            level(self.large_hello),
            name.map_or(0, |name| level(name.tally)),
            name.map_or(0, |name| u8::from(name.chain.is_some())),
            hello.map_or(0, |hello| u8::from(self.selected_for(hello).is_well_known())),
            u8::from(self.selected.is_well_known()),
        ])
    }

    /// Whether `client` offered ECH again within `window` after `time`.
    pub fn offered_ech_after(&self, client: IpAddr, time: Timestamp, window: Duration) -> bool {
        self.ech_offers.iter().any(|(other, at)| *other == client && *at > time && at.since(time) <= window)
    }

    /// Learns for a while what is recent. Returns whether there is something to [count](Self::count).
    fn learn(&mut self, facts: &HandshakeFacts, verdict: Option<&'static str>) -> bool {
        if verdict == Some("server_silent") {
            self.last_silence = Some(facts.last_seen);
        }
        let Some(hello) = &facts.client_hello else { return true };
        let accepted = facts.progress.complete.is_some();
        if !facts.is_complete_capture() || !accepted && facts.endings.is_empty() {
            return false;
        }
        if let Some(verdict) = verdict.filter(|_| !accepted) {
            let client = facts.client().address.ip();
            let failure = Failure { client, time: facts.last_seen, verdict, version: hello.max_version() };
            push_bounded(&mut self.failures, failure);
        }
        true
    }

    /// Learns for good, as the `clock`th. Returns how many bytes of memory more this takes.
    fn count(&mut self, facts: &HandshakeFacts, clock: u64) -> usize {
        let Some(hello) = &facts.client_hello else {
            self.learn_other_protocol(facts);
            return 0;
        };
        let accepted = facts.progress.complete.is_some();
        let name = match hello.server_name {
            Some(_) => &mut self.with_name,
            None => &mut self.without_name,
        };
        let proxy = match facts.proxy {
            Some(_) => &mut self.with_proxy_header,
            None => &mut self.without_proxy_header,
        };
        let size = if is_large(hello) { &mut self.large_hello } else { &mut self.small_hello };
        for tally in [name, proxy, size] {
            tally.count(accepted);
        }
        let key = name_key(hello.server_name.as_ref());
        let before = self.names.get(&*key).map_or(0, NameHistory::weight);
        let name = self.names.touch(key.into(), clock, NameHistory::has_proven_itself);
        name.learn(facts, accepted);
        let growth = name.weight().saturating_sub(before);
        if accepted {
            self.selected.learn(facts);
            if facts.certificate_request.is_some() {
                self.certificate_requests = self.certificate_requests.saturating_add(1);
            }
        }
        growth
    }

    /// Forgets what was recent.
    fn close(&mut self) {
        self.waiting = 0;
        (self.last_answer, self.last_silence) = (None, None);
        self.visitors = Lru::default();
        self.failures.clear();
        self.ech_offers.clear();
    }

    /// Something that is not TLS, answered by something that is not TLS.
    fn learn_other_protocol(&mut self, facts: &HandshakeFacts) {
        let plain = |role| {
            let peer = facts.peer(role);
            peer.bytes > 0 && !peer.head.is_empty() && peer.alerts.is_empty()
        };
        let refused =
            facts.server().head.starts_with(b"HTTP/1.") && facts.server().head.get(9) != Some(&b'2');
        if plain(Role::Client) && plain(Role::Server) && !refused {
            self.other_protocol = self.other_protocol.saturating_add(1);
        }
    }

    /// Lets what was counted fade.
    fn age(&mut self, now: Timestamp) {
        if self.aged == Timestamp::default() {
            self.aged = now;
        }
        let halves = now.since(self.aged).as_secs() / HALF_LIFE.as_secs();
        if halves == 0 {
            return;
        }
        self.aged = now;
        let halves = u32::try_from(halves).unwrap_or(u32::MAX);
        for tally in [
            &mut self.with_name,
            &mut self.without_name,
            &mut self.with_proxy_header,
            &mut self.without_proxy_header,
            &mut self.small_hello,
            &mut self.large_hello,
        ] {
            tally.halve(halves);
        }
        for counter in [&mut self.other_protocol, &mut self.certificate_requests] {
            *counter = counter.checked_shr(halves).unwrap_or(0);
        }
        self.selected.halve(halves);
        for name in self.names.values_mut() {
            name.tally.halve(halves);
            name.selected.halve(halves);
        }
    }
}

impl Knowledge {
    /// Whether any of it has grown since it was like `before`.
    pub(crate) fn has_grown_since(self, before: Self) -> bool {
        self.0.iter().zip(before.0).any(|(now, before)| *now > before)
    }
}

impl History {
    /// With another bound on the bytes that server names may take with their certificates.
    pub(crate) fn weighing_at_most(self, max_weight: usize) -> Self {
        Self { max_weight, ..self }
    }

    /// What is known of the listener of a connection, as of `now`.
    pub(crate) fn listener(&mut self, facts: &HandshakeFacts, now: Timestamp) -> &ListenerHistory {
        match self.listeners.get_mut(&facts.server().address) {
            Some(listener) => {
                listener.age(now);
                listener
            }
            None => &self.unknown,
        }
    }

    /// A ClientHello is complete and waits for its answer.
    pub(crate) fn hello_began_to_wait(&mut self, facts: &HandshakeFacts) {
        let listener = self.entry(facts);
        listener.waiting = listener.waiting.saturating_add(1);
        if facts.client_hello.as_ref().is_some_and(|hello| hello.encrypted_client_hello) {
            let offer = (facts.client().address.ip(), facts.last_seen);
            push_bounded(&mut listener.ech_offers, offer);
        }
    }

    /// A ClientHello waits no longer.
    pub(crate) fn hello_ceased_to_wait(&mut self, facts: &HandshakeFacts) {
        let listener = self.entry(facts);
        listener.waiting = listener.waiting.saturating_sub(1);
        if facts.server_answered() {
            listener.last_answer = Some(facts.last_seen);
        }
    }

    /// Learns from a connection that was judged; `verdict` is `None` where there was nothing to say. Returns
    /// whether its outcome was known and counted.
    pub(crate) fn learn(&mut self, facts: &HandshakeFacts, verdict: Option<&'static str>) -> bool {
        // A scan of closed ports teaches nothing and must not push out what is known.
        if facts.client().bytes == 0 || !self.entry(facts).learn(facts, verdict) {
            return false;
        }
        if !self.is_closed {
            let clock = self.clock;
            self.growth += self.entry(facts).count(facts, clock);
            if self.growth > self.max_weight / 8 {
                self.lose_weight();
            }
        }
        true
    }

    /// Forgets names if all of them together take too much: what never accepted anything first, then what was not used
    /// for the longest time, whoever's it is.
    fn lose_weight(&mut self) {
        self.growth = 0;
        let names = self.listeners.iter().flat_map(|(_, listener)| listener.names.iter());
        let mut ranks: Vec<_> =
            names.map(|(used, name)| ((name.has_proven_itself(), used), name.weight())).collect();
        ranks.sort_unstable_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let mut weight = 0;
        let first_to_go = ranks.iter().find(|(_, name)| {
            weight += name;
            weight > self.max_weight
        });
        if let Some(&(limit, _)) = first_to_go {
            for listener in self.listeners.values_mut() {
                listener.names.retain(|used, name| (name.has_proven_itself(), used) > limit);
            }
        }
    }

    /// How much is known that bears on connections like this one.
    pub(crate) fn knowledge(&self, facts: &HandshakeFacts) -> Knowledge {
        let listener = self.listeners.get(&facts.server().address).map_or(&self.unknown, |listener| listener);
        listener.knowledge(facts.client_hello.as_deref())
    }

    /// Has it count no more: it has seen what will be judged.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.listeners.values_mut().for_each(|listener| listener.close());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Notes a connection that is over and carried nothing but a handshake.
    pub(crate) fn note_visit(&mut self, facts: &HandshakeFacts) {
        let progress = &facts.progress;
        if progress.client_finished.is_some() && progress.client_data.is_none() && !facts.endings.is_empty() {
            let clock = self.clock;
            let visitors = &mut self.entry(facts).visitors;
            visitors
                .touch(facts.client().address.ip(), clock, |visits| visits.count() > 1)
                .add(facts.first_seen);
        }
    }

    fn entry(&mut self, facts: &HandshakeFacts) -> &mut ListenerHistory {
        self.clock += 1;
        self.listeners.touch(facts.server().address, self.clock, |listener| listener.accepted() > 0)
    }
}

/// Whether a ClientHello may need more than one segment.
pub fn is_large(hello: &ClientHello) -> bool {
    hello.length > LARGE_CLIENT_HELLO
}

fn leaf_of(chain: &CertificateChain) -> Option<Sha256Digest> {
    chain.leaf().map(|leaf| leaf.sha256)
}

/// Names are compared without regard to case (RFC 6066 §3, RFC 4343); hellos without one share the empty one.
fn name_key(name: Option<&ServerName>) -> Cow<'_, str> {
    name.map(|name| lowercase(name.as_str())).unwrap_or_default()
}

fn lowercase(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name }
}

fn push_bounded<T>(recent: &mut VecDeque<T>, item: T) {
    if recent.len() >= MAX_RECENT {
        recent.pop_front();
    }
    recent.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_fades() {
        let mut listener = ListenerHistory::default();
        let start = Timestamp::from_nanos(1_000_000_000_000_000_000);
        listener.age(start);
        listener.with_name = Tally { accepted: 8, refused: 1 };
        listener.age(start.after(HALF_LIFE));
        assert_eq!(listener.with_name, Tally { accepted: 4, refused: 0 });
        listener.age(start.after(HALF_LIFE * 100));
        assert_eq!(listener.with_name, Tally::default());
    }
}
