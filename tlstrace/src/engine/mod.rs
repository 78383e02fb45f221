//! The pure engine: segments in, verdicts out. No clock, no socket, no task: time is the timestamp
//! inside each segment.
//!
//! ```text
//! Segment ▶ Connection { Stream ▶ Records ▶ HandshakeFacts } ▶ judge(facts, listener history) ▶ Output
//! ```
//!
//! Every call of [`Engine::handle_segment`], [`Engine::handle_timeout`] and [`Engine::finish`] is followed
//! by a complete drain of [`Engine::poll_output`].

#![forbid(unsafe_code)]

mod connection;
mod deadlines;
mod doubts;
pub mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod history;
pub mod locality;
pub mod proxy;
pub(crate) mod recent;
mod records;
pub mod resets;
mod said;
pub mod segment;
mod stream;
mod table;
pub mod timestamp;
pub mod tls13;
mod translation;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::tls::certificate::CertificateCache;
use crate::tls::certificate::trust::TrustAnchors;
use crate::verdict::{self, Judgement, Verdict};

use connection::{Connection, Stage};
use doubts::{Doubt, Doubts};
use facts::HandshakeFacts;
use history::History;
use resets::{LocalReset, LocalResets};
use said::Said;
use segment::Segment;
use table::{ConnectionKey, Slot, Table, Tracked};
use timestamp::Timestamp;
use translation::{MAX_COPIES, RecentSyns};

/// What bounds the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connections that are followed at once; when there are more, those without payload go first.
    pub max_connections: usize,
    /// Bytes that long messages and what waits for lost segments may take, of all connections together; half as many
    /// the names and certificates of listeners.
    pub max_weight: usize,
    /// Server ports to follow; empty means any.
    pub ports: Vec<std::ops::RangeInclusive<u16>>,
    /// Authorities whose certificates the clients are supposed to accept.
    pub trust_anchors: Option<Arc<TrustAnchors>>,
    /// Ids of rules that are not asked: what would be said without them.
    pub without_rules: Vec<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_weight: 64 * 1024 * 1024,
            ports: Vec::new(),
            trust_anchors: None,
            without_rules: Vec::new(),
        }
    }
}

impl Settings {
    /// Bytes that an ordinary open connection takes, about.
    const CONNECTION: usize = 4096;

    /// Lowers the bounds so that a process with so many bytes of memory lives through any traffic: three eighths for
    /// connections, an eighth and a sixteenth for what is heavy, and the rest for everything else.
    #[must_use]
    pub fn within(mut self, memory: u64) -> Self {
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        self.max_connections = self.max_connections.min(memory / 8 * 3 / Self::CONNECTION).max(1024);
        self.max_weight = self.max_weight.min(memory / 8).max(4 * 1024 * 1024);
        self
    }
}

/// What the engine has to say.
#[derive(Clone, Debug)]
pub enum Output {
    Verdict(Verdict),
}

/// How much the engine has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    pub segments: u64,
    pub connections: u64,
    /// Of them, those that turned out to be another one behind a translation of addresses.
    pub translated: u64,
    pub verdicts: u64,
    /// Connections forgotten for want of room.
    pub evicted: u64,
    /// Connections of which one side was never captured, although the other side answered it.
    pub one_way: u64,
    /// Segments of ports other than those to follow.
    pub unfollowed: u64,
    /// Where such a segment carried a ClientHello: the port it went to.
    pub hello_elsewhere: Option<u16>,
}

impl Counts {
    /// Connections, each counted once under whatever addresses it was seen.
    pub fn distinct_connections(&self) -> u64 {
        self.connections.saturating_sub(self.translated)
    }
}

/// What an engine learned about listeners.
#[derive(Clone, Debug, Default)]
pub struct Lessons(History);

impl Lessons {
    /// Ends the learning: an engine with these lessons knows the outcome of what it judges, and counts nothing twice.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.0.close();
        self
    }
}

/// Follows connections and judges them.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    table: Table,
    syns: RecentSyns,
    history: History,
    doubts: Doubts,
    said: Said,
    certificates: CertificateCache,
    resets: LocalResets,
    outputs: VecDeque<Output>,
    counts: Counts,
    now: Timestamp,
    /// Until when events were lost.
    lossy_until: Timestamp,
}

impl Engine {
    pub fn new(settings: Settings) -> Self {
        Self::with_lessons(settings, Lessons::default())
    }

    /// One that knows what another has learned.
    pub fn with_lessons(settings: Settings, lessons: Lessons) -> Self {
        Self {
            table: Table::new(settings.max_connections, settings.max_weight),
            syns: RecentSyns::default(),
            history: lessons.0.weighing_at_most(settings.max_weight / 2),
            doubts: Doubts::default(),
            said: Said::default(),
            certificates: settings.trust_anchors.clone().map(CertificateCache::trusting).unwrap_or_default(),
            settings,
            resets: LocalResets::default(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
            now: Timestamp::default(),
            lossy_until: Timestamp::default(),
        }
    }

    /// What it learned.
    pub fn into_lessons(self) -> Lessons {
        Lessons(self.history)
    }

    /// Takes one segment. Time is the segment's; segments that are a little out of order do no harm.
    pub fn handle_segment(&mut self, segment: &Segment<'_>) {
        self.counts.segments += 1;
        self.now = self.now.max(segment.timestamp);
        if segment.is_own {
            self.resets.expect(segment.timestamp);
        }
        if !self.is_followed(segment) {
            self.counts.unfollowed += 1;
            if segment.begins_with_client_hello() {
                self.counts.hello_elsewhere = Some(segment.destination.port());
            }
            return;
        }
        let key = ConnectionKey::of(segment);
        if let Some(slot) = self.table.find(&key) {
            if !self.table.is_replaced_by(slot, segment) {
                return self.feed(slot, segment);
            }
            self.conclude(slot);
            self.table.remove(slot);
        }
        if segment.is_rst() {
            // Nothing is known of it and nothing more will come.
            return;
        }
        if self.table.is_full() && !segment.is_syn() && segment.payload_len == 0 {
            // It says nothing that would be worth another connection's place.
            return;
        }
        let (slot, evicted) = self.table.insert(key, Connection::new(segment));
        self.counts.connections += 1;
        if segment.is_syn() && !segment.is_ack() {
            self.expect_copy(slot, segment);
        }
        if let Some(evicted) = evicted {
            self.evict(evicted);
        }
        self.feed(slot, segment);
    }

    /// Takes the kernel's word for a RST that it sent; it may come before or after the segment.
    pub fn handle_local_reset(&mut self, reset: LocalReset) {
        self.resets.add(reset);
    }

    /// Whether [`Engine::vouch_for_resets`] would help to judge what was seen lately.
    pub fn expects_reset_report(&self) -> bool {
        self.resets.is_expecting(self.now)
    }

    /// Says that all RSTs that this node's kernel sent after `since` and before `until` have been handed over, so that
    /// any other was sent by somebody else.
    pub fn vouch_for_resets(&mut self, since: Timestamp, until: Timestamp) {
        self.resets.vouch(since, until);
    }

    /// Judges what has come due by `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        while let Some(slot) = self.table.pop_due(self.now) {
            if self.table.is_judged(slot) {
                self.table.remove(slot);
            } else {
                self.conclude(slot);
            }
        }
    }

    /// Events of unknown connections were lost, some of them shortly before `until`: of no connection that had begun
    /// by then, and is judged from now on, is all known.
    pub fn note_loss(&mut self, until: Timestamp) {
        self.lossy_until = self.lossy_until.max(until);
    }

    /// Acts on every deadline up to `now`, at the time of each. Called with the time of each segment before it is
    /// handled, it makes what is said independent of how late the segments come to the engine.
    pub fn advance_to(&mut self, now: Timestamp) {
        let mut fired = None;
        while let Some(deadline) = self.poll_timeout().filter(|deadline| *deadline <= now) {
            // A deadline that stays, or goes back, has to wait for the packets.
            let is_later = fired.is_none_or(|fired| deadline > fired);
            self.handle_timeout(if is_later { deadline } else { now });
            if !is_later {
                return;
            }
            fired = Some(deadline);
        }
    }

    /// When [`Engine::handle_timeout`] should be called next. Calling it earlier or later does no harm.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.table.next_deadline()
    }

    /// The next thing to say, if there is any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The input ends: judges every connection with what is known, in the order in which they began.
    pub fn finish(&mut self) {
        for slot in self.table.slots_by_age() {
            self.conclude(slot);
            self.table.remove(slot);
        }
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Connections that are being followed now.
    pub fn tracked(&self) -> usize {
        self.table.len()
    }

    fn is_followed(&self, segment: &Segment<'_>) -> bool {
        self.settings.ports.is_empty()
            || self.settings.ports.iter().any(|ports| {
                ports.contains(&segment.destination.port()) || ports.contains(&segment.source.port())
            })
    }

    fn feed(&mut self, slot: Slot, segment: &Segment<'_>) {
        let Some(connection) = self.table.open_mut(slot) else {
            return self.table.touch(slot, segment.timestamp);
        };
        connection.handle(segment, &mut self.certificates);
        follow_waiting(connection, &mut self.history);
        let is_due = connection.is_accepted() && connection.stage == Stage::Open;
        self.table.weigh_after(slot, segment);
        while let Some(heavy) = self.table.pop_too_heavy() {
            self.evict(heavy);
        }
        if segment.is_syn() && segment.is_ack() {
            self.join_copies(slot, false);
        }
        if is_due {
            self.conclude(slot);
        } else {
            self.table.reschedule(slot);
        }
    }

    /// Notes that a connection that begins may be one that is known under other addresses, or may be seen under others.
    fn expect_copy(&mut self, slot: Slot, segment: &Segment<'_>) {
        let original = self.syns.find(segment).filter(|original| {
            self.table.open_mut(original.slot).is_some_and(|connection| {
                let has_room = connection.copies.len() < MAX_COPIES;
                if has_room {
                    connection.copies.push(slot);
                }
                has_room
            })
        });
        if original.is_none() {
            self.syns.add(segment, slot);
        }
        if let Some(connection) = self.table.open_mut(slot) {
            connection.original = original;
        }
    }

    /// Finds out which of the connections that began with the same SYN as this one are the same, and keeps the one
    /// that was seen first.
    fn join_copies(&mut self, slot: Slot, is_over: bool) {
        let Some(connection) = self.table.open(slot) else { return };
        let first = connection.original.map_or(slot, |original| original.slot);
        let Some(original) = self.table.open(first) else { return };
        let is_copy = |copy: &Slot| {
            self.table.open(*copy).is_some_and(|connection| connection.is_copy_of(original, is_over))
        };
        let copies: SmallVec<[Slot; MAX_COPIES]> = original.copies.iter().copied().filter(is_copy).collect();
        for slot in copies {
            let Some(mut copy) = self.table.take(slot) else { continue };
            copy.stage = Stage::Provisional;
            follow_waiting(&mut copy, &mut self.history);
            self.counts.translated += 1;
            if let Some(original) = self.table.open_mut(first) {
                original.note_copy(&copy);
            }
            self.table.put_back(slot, Tracked::Judged(copy.mark_as_copy()));
        }
    }

    fn evict(&mut self, mut connection: Box<Connection>) {
        self.counts.evicted += 1;
        connection.facts.capture.evicted = true;
        self.publish(connection);
    }

    /// Says what is to be said about a connection now. Of one that is judged for good, the table keeps only
    /// that it was, so that its last segments are recognised.
    fn conclude(&mut self, slot: Slot) {
        self.join_copies(slot, true);
        if let Some(connection) = self.table.take(slot) {
            let judged = connection.mark();
            match self.publish(connection) {
                Some(connection) => self.table.put_back(slot, Tracked::Open(connection)),
                None => self.table.put_back(slot, Tracked::Judged(judged)),
            }
        }
    }

    /// Publishes a verdict. Returns the connection if a later verdict may follow.
    fn publish(&mut self, mut connection: Box<Connection>) -> Option<Box<Connection>> {
        connection.settle_facts(self.now, &mut self.certificates);
        self.resets.join(&mut connection.facts);
        connection.facts.capture.lost_nearby = connection.facts.first_seen <= self.lossy_until;
        let judgement = self.judge(&connection.facts, connection.learned);
        let id = judgement.as_ref().map(|judgement| judgement.rule.id());
        let stays = id == Some("ok") && !connection.is_accepted() && connection.facts.endings.is_empty();
        let earlier = std::mem::replace(&mut connection.said, id);
        self.counts.one_way += u64::from(earlier.is_none() && connection.facts.capture.one_way);
        connection.stage = Stage::Provisional;
        follow_waiting(&mut connection, &mut self.history);
        let knows_more = !connection.learned && self.learn(&mut connection, id);
        if !stays {
            self.history.note_visit(&connection.facts);
        }
        let listener = connection.facts.server().address;
        // It has been quiet for so long that there is nothing to add.
        let is_news = id != Some("ok") || earlier.is_none();
        let connection = match judgement.filter(|_| is_news) {
            Some(judgement) => self.say(judgement, connection, earlier, stays),
            None => None,
        };
        if knows_more {
            self.reconsider(listener);
        }
        connection
    }

    fn say(
        &mut self,
        judgement: Judgement,
        mut connection: Box<Connection>,
        earlier: Option<&'static str>,
        stays: bool,
    ) -> Option<Box<Connection>> {
        let last = self.said.last(&connection.facts).copied();
        let reappears = last.filter(|_| earlier.is_none());
        if let Some(last) = reappears.filter(|last| !last.is_bettered_by(&judgement)) {
            connection.said = Some(last.verdict);
            return stays.then_some(connection);
        }
        if reappears.is_some() {
            self.doubts.forget(connection.facts.connection);
        }
        let earlier = earlier.or(reappears.map(|last| last.verdict));
        if earlier.is_some() {
            connection.revision = last.map_or(connection.revision, |last| last.revision) + 1;
        }
        let (revision, is_counted) = (connection.revision, connection.learned);
        let (facts, connection) = if stays {
            (connection.facts.clone(), Some(connection))
        } else {
            let facts = connection.take_facts();
            self.table.recycle(connection);
            (facts, None)
        };
        self.put_out(judgement, Arc::new(facts), is_counted, earlier.map(|earlier| (revision, earlier)));
        connection
    }

    /// Has the listener's history learn from a connection. Returns whether it now bears on others.
    fn learn(&mut self, connection: &mut Connection, verdict: Option<&'static str>) -> bool {
        let facts = &connection.facts;
        if !self.doubts.concern(facts.server().address) {
            connection.learned = self.history.learn(facts, verdict);
            return false;
        }
        let before = self.history.knowledge(facts);
        connection.learned = self.history.learn(facts, verdict);
        self.history.knowledge(facts).has_grown_since(before)
    }

    /// Judges anew what was left in doubt about a listener, and says what is new.
    fn reconsider(&mut self, listener: SocketAddr) {
        for doubt in self.doubts.take(listener, self.now) {
            let judgement = self
                .judge(&doubt.facts, doubt.is_counted)
                .filter(|judgement| doubt.is_bettered_by(judgement));
            let Some(judgement) = judgement else {
                self.doubts.push(doubt);
                continue;
            };
            let revision = self.said.last(&doubt.facts).map_or(doubt.revision, |last| last.revision) + 1;
            self.put_out(judgement, doubt.facts, doubt.is_counted, Some((revision, doubt.verdict)));
        }
    }

    fn judge(&mut self, facts: &HandshakeFacts, is_learned: bool) -> Option<Judgement> {
        let is_counted = is_learned || self.history.is_closed();
        let listener = self.history.listener(facts, self.now);
        verdict::judge(facts, listener, is_counted, &self.settings.without_rules)
    }

    /// Says it, as a revision of the verdict with an id, or as the first.
    fn put_out(
        &mut self,
        judgement: Judgement,
        facts: Arc<HandshakeFacts>,
        is_counted: bool,
        revises: Option<(u32, &'static str)>,
    ) {
        let revision = revises.map_or(0, |(revision, _)| revision);
        self.said.note(&judgement, &facts, revision, self.now);
        if let Some(doubt) = Doubt::of(&judgement, &facts, revision, is_counted) {
            self.doubts.push(doubt);
        }
        let verdict = Verdict::new(judgement, facts);
        let verdict = match revises {
            Some((revision, earlier)) => verdict.revising(revision, earlier),
            None => verdict,
        };
        self.counts.verdicts += 1;
        self.outputs.push_back(Output::Verdict(verdict));
    }
}

/// Keeps count of every ClientHello that waits for an answer.
fn follow_waiting(connection: &mut Connection, history: &mut History) {
    let waits = connection.stage == Stage::Open && connection.waits_for_server();
    if waits && !connection.counted_as_waiting {
        history.hello_began_to_wait(&connection.facts);
    } else if !waits && connection.counted_as_waiting {
        history.hello_ceased_to_wait(&connection.facts);
    }
    connection.counted_as_waiting = waits;
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;
    use tlstrace_common::event::TcpFlags;

    use super::*;

    /// A segment without payload from a client's `port`.
    fn segment(port: u16, flags: u8) -> Segment<'static> {
        Segment {
            timestamp: Timestamp::from_nanos(1_000_000_000),
            interface: 1,
            direction: segment::Direction::Unknown,
            source: ([192, 0, 2, 1], port).into(),
            destination: ([192, 0, 2, 2], 443).into(),
            sequence: 1,
            acknowledgement: 1,
            flags,
            window: 512,
            options: 0,
            hop_limit: 64,
            ip_id: 1,
            vlan: 0,
            payload_len: 0,
            chunks: SmallVec::new(),
            notes: 0,
            is_own: false,
        }
    }

    #[test]
    fn a_full_table_makes_room_for_who_begins_and_for_nobody_who_says_nothing() {
        let mut engine = Engine::new(Settings { max_connections: 4, ..Settings::default() });
        for port in 1..=4 {
            engine.handle_segment(&segment(port, TcpFlags::SYN));
        }
        engine.handle_segment(&segment(5, TcpFlags::ACK));
        assert_eq!((engine.tracked(), engine.counts().evicted), (4, 0));
        engine.handle_segment(&segment(6, TcpFlags::SYN));
        assert_eq!((engine.tracked(), engine.counts().evicted), (4, 1));
    }

    #[test]
    fn what_is_over_keeps_no_half_message_in_its_room() {
        let mut engine = Engine::new(Settings::default());
        engine.handle_segment(&segment(1, TcpFlags::SYN));
        // A ClientHello of 65,536 bytes, of which a quarter comes.
        let mut half = vec![22, 3, 1, 0x40, 0, 1, 1, 0, 0];
        half.resize(5 + 0x4000, 0);
        let mut hello = segment(1, TcpFlags::ACK);
        hello.sequence = 2;
        hello.payload_len = half.len().try_into().unwrap();
        hello.chunks.push(segment::Chunk { offset: 0, bytes: half.leak() });
        engine.handle_segment(&hello);
        assert_eq!(engine.table.spare_weight(), 0);
        let mut reset = segment(1, TcpFlags::RST);
        reset.sequence = 2 + hello.payload_len;
        reset.timestamp = reset.timestamp.after(std::time::Duration::from_millis(1));
        engine.handle_segment(&reset);
        engine.handle_timeout(reset.timestamp.after(std::time::Duration::from_secs(5)));
        assert_eq!((engine.counts().verdicts, engine.table.spare_weight()), (1, 0));
    }

    #[test]
    fn a_table_that_is_full_for_a_long_time_remembers_no_deadlines_but_its_own() {
        let mut engine = Engine::new(Settings { max_connections: 4, ..Settings::default() });
        for port in 1..1000 {
            engine.handle_segment(&segment(port, TcpFlags::SYN));
            assert!(engine.table.deadlines() <= 16);
        }
    }
}
