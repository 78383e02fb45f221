//! One connection: its two streams, what they showed, and when it is time to judge.

use std::net::SocketAddr;
use std::time::Duration;

use tlstrace_common::event::Notes;

use crate::tls::Decoded;
use crate::tls::alert::Alert;
use crate::tls::certificate::CertificateCache;
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{
    AlertDescription, AlertLevel, ContentType, HandshakeType, KeyExchange, NamedGroup, ProtocolVersion,
};
use crate::tls::handshake::{Message, Selection};
use crate::tls::record::{FirstBytes, RecordHeader};

use super::facts::{
    CaptureCondition, ConnectionId, Ending, HandshakeFacts, HelloSize, History, How, MAX_ENDINGS,
    MAX_OPAQUE_RECORDS, OpaqueRecord, Peer, Progress, Reset, Role, Tcp, UnfinishedMessage,
};
use super::proxy::ProxyHeader;
use super::records::{Observer, Protection, Reading, Records, WholeMessage};
use super::segment::Segment;
use super::stream::{RESENT_APART, Stream};
use super::table::{End, Slot};
use super::timestamp::Timestamp;
use super::tls13::{ClientCertificate, Exchange};
use super::translation::Original;

/// After the last sign that a connection ends, so long is waited for what was reordered on its way here.
const SETTLE: Duration = Duration::from_millis(150);
/// The same when both sides are done, so that nothing more can come.
const SETTLE_CLOSED: Duration = Duration::from_millis(60);
/// A client may close its half and still wait for the answer.
const SETTLE_HALF_CLOSED: Duration = Duration::from_secs(2);
/// A complete handshake counts as accepted when neither side has objected for so long. A TLS 1.3 server
/// refuses a client certificate only after the client believes that all is well.
const SETTLE_COMPLETE: Duration = Duration::from_secs(1);
/// How long a SYN may go unanswered: long enough for two retransmissions (1 s, 3 s, RFC 6298 §2).
const SYN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a begun handshake may stand still.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection without any payload is remembered.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// How long a judged connection is remembered, so that its last segments are not taken for a new one.
const LINGER: Duration = Duration::from_mins(1);
/// A hole that the receiver does not have was lost by the capture; so long is waited for a reordered event.
const HOLE_PATIENCE: Duration = Duration::from_millis(100);
/// No receiver offers more during a handshake: Linux begins with 64 KiB and widens the window with what was read.
const MAX_WINDOW: i64 = 1 << 20;
/// What the hellos, certificates and buffers of nearly all connections take, in bytes.
const ORDINARY_WEIGHT: usize = 8 * 1024;
/// `ECCurveType` of a ServerKeyExchange that names its curve (RFC 8422 §5.4).
const NAMED_CURVE: u8 = 3;
/// Bytes kept of a stream that does not begin with TLS.
const MAX_HEAD_LEN: usize = 16;
/// Alerts kept per side.
const MAX_ALERTS: usize = 8;

/// Whether a connection is still being watched.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// No verdict yet.
    Open,
    /// `ok` was said, and the connection has carried no data: a late close may tell more.
    Provisional,
}

/// What is kept of a connection that was judged for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) last_seen: Timestamp,
    /// First sequence number, if it is known, of each end, in the order of the table's keys.
    isns: [Option<u32>; 2],
    /// Another connection under other addresses: remembered for as long as that one may be idle.
    is_copy: bool,
    /// It ended in a RST: a client may then try again with the same sequence number.
    was_reset: bool,
}

impl Judged {
    pub(crate) fn deadline(&self) -> Timestamp {
        self.last_seen.after(if self.is_copy { IDLE_TIMEOUT + LINGER } else { LINGER })
    }

    /// Whether a SYN begins another connection between the same ports.
    pub(crate) fn is_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let [low, high] = self.isns;
        let isn = if End::from(segment.source).is_below(segment.destination.into()) { low } else { high };
        segment.is_syn() && !segment.is_rst() && (self.was_reset || isn != Some(segment.sequence))
    }
}

/// State of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) facts: HandshakeFacts,
    pub(crate) stage: Stage,
    pub(crate) revision: u32,
    /// The verdict that was given last.
    pub(crate) said: Option<&'static str>,
    /// The listener's history has learned from it.
    pub(crate) learned: bool,
    /// The listener's history counts its ClientHello among those that wait for an answer.
    pub(crate) counted_as_waiting: bool,
    /// What it may be a copy of, and which others may be copies of it.
    pub(crate) original: Option<Original>,
    pub(crate) copies: Vec<Slot>,
    sides: [Side; 2],
    hole_since: Option<Timestamp>,
    /// A segment acknowledged something, so both sides have spoken.
    answered: bool,
}

/// One direction: its bytes in order, and the records in them.
#[derive(Debug, Default)]
struct Side {
    stream: Stream,
    records: Records,
    /// The interface whose copy of this direction counts: the first that saw it.
    owner: Option<u32>,
    resent: Resent,
}

/// The segment that is being sent again.
#[derive(Clone, Copy, Debug, Default)]
struct Resent {
    position: u64,
    times: u32,
    last: Timestamp,
}

impl Connection {
    /// Begins with a segment; its sender is the client until something says otherwise.
    pub(crate) fn new(segment: &Segment<'_>) -> Self {
        let from_server = segment.is_syn() && segment.is_ack();
        let (client, server) = if from_server {
            (segment.destination, segment.source)
        } else if segment.is_syn() || segment.destination.port() <= segment.source.port() {
            (segment.source, segment.destination)
        } else {
            (segment.destination, segment.source)
        };
        let mut facts =
            nothing_of(ConnectionId(identify(client, server, segment)), [client, server], segment.timestamp);
        facts.interface = segment.interface;
        facts.capture.midstream = !segment.is_syn();
        Self {
            facts,
            stage: Stage::Open,
            revision: 0,
            said: None,
            learned: false,
            counted_as_waiting: false,
            original: None,
            copies: Vec::new(),
            sides: Default::default(),
            hole_since: None,
            answered: false,
        }
    }

    /// Takes out what it showed, and lets go of the rest: half a message, say, is of no use any more, and only open
    /// connections are weighed.
    pub(crate) fn take_facts(&mut self) -> HandshakeFacts {
        self.sides = Default::default();
        self.copies = Vec::new();
        let facts = &self.facts;
        let addresses = [facts.client().address, facts.server().address];
        let nothing = nothing_of(facts.connection, addresses, facts.first_seen);
        std::mem::replace(&mut self.facts, nothing)
    }

    /// Whether a SYN begins another connection between the same ports.
    pub(crate) fn is_replaced_by(&self, segment: &Segment<'_>) -> bool {
        let role = self.role_of(segment);
        segment.is_syn()
            && !segment.is_rst()
            && match self.side(role).stream.isn() {
                Some(isn) => isn != segment.sequence,
                None => self.facts.peer(role).bytes > 0,
            }
    }

    /// What to remember of it when it is judged.
    pub(crate) fn mark(&self) -> Judged {
        let [client, server] = &self.sides;
        let isns = [client.stream.isn(), server.stream.isn()];
        let [client, server] = [self.facts.client(), self.facts.server()].map(|peer| End::from(peer.address));
        let [first, second] = isns;
        Judged {
            last_seen: self.facts.last_seen,
            isns: if client.is_below(server) { [first, second] } else { [second, first] },
            is_copy: false,
            was_reset: self.facts.endings.iter().any(|ending| matches!(ending.how, How::Reset(_))),
        }
    }

    /// What to remember of it when it is another one's copy, which may be judged much later.
    pub(crate) fn mark_as_copy(&self) -> Judged {
        Judged { is_copy: true, ..self.mark() }
    }

    /// Whether this is `original` under other addresses, given that their SYNs agree: the answers to them must be the
    /// same too. That there is none says something only when it `is_over`, and only of the same packet.
    pub(crate) fn is_copy_of(&self, original: &Self, is_over: bool) -> bool {
        let both = [self, original];
        match both.map(|connection| connection.side(Role::Server).stream.isn()) {
            [Some(own), Some(theirs)] => return own == theirs,
            [None, None] => {}
            _ => return false,
        }
        let [own, theirs] = both.map(|connection| {
            connection.facts.endings.iter().find_map(|ending| match ending.how {
                How::Reset(reset) if reset.refuses_syn && reset.ack => Some(reset.acknowledgement),
                _ => None,
            })
        });
        let is_refused = own.is_some() && own == theirs;
        let is_silent = is_over && both.iter().all(|connection| !connection.facts.server().seen);
        (is_refused || is_silent) && self.original.is_some_and(|original| original.is_same_packet)
    }

    /// Keeps the addresses under which a copy was seen.
    pub(crate) fn note_copy(&mut self, copy: &Self) {
        for role in [Role::Client, Role::Server] {
            let address = copy.facts.peer(role).address;
            let peer = self.facts.peer_mut(role);
            if peer.address != address {
                peer.translated = Some(Box::new(address));
            }
        }
    }

    /// Learns from a segment.
    pub(crate) fn handle(&mut self, segment: &Segment<'_>, certificates: &mut CertificateCache) {
        let role = self.role_of(segment);
        if *self.side_mut(role).owner.get_or_insert(segment.interface) != segment.interface {
            return;
        }
        if segment.is_fin() && self.is_astray(segment, role) {
            return;
        }
        self.facts.last_seen = self.facts.last_seen.max(segment.timestamp);
        if role == Role::Client {
            self.facts.direction = segment.direction;
        }
        self.facts.peer_mut(role).seen = true;
        self.answered |= segment.is_ack() && !segment.is_rst();
        self.note_capture(segment);
        self.handshake_of_tcp(segment, role);
        if segment.is_ack() && !segment.is_rst() {
            let peer = &mut self.side_mut(role.peer()).stream;
            peer.acknowledge(segment.acknowledgement);
            let acked = peer.acked();
            self.facts.peer_mut(role.peer()).acked = acked;
        }
        let role = if segment.payload_len > 0 && !segment.is_rst() {
            self.payload(segment, role, certificates)
        } else {
            if segment.is_fin() {
                let mut learner = Learner::new(&mut self.facts, certificates, role, segment);
                let side = side_of(&mut self.sides, role);
                side.stream
                    .take(segment, &mut Reading { records: &mut side.records, observer: &mut learner });
            }
            role
        };
        note_completion(&mut self.facts);
        if segment.is_fin() && !self.has_closed(role) {
            self.facts.history.push(role, b'N');
            let position = self.side(role).stream.fin().unwrap_or_default();
            self.end(segment, role, How::Close, position);
        }
        if segment.is_rst() {
            self.reset(segment, role);
        }
        self.watch_hole(segment.timestamp, certificates);
        note_completion(&mut self.facts);
    }

    /// Whether a segment lies so far from the stream that its receiver ignores it (RFC 9293 §3.10.7.4).
    fn is_astray(&self, segment: &Segment<'_>, role: Role) -> bool {
        let Some(end) = self.side(role).stream.offset_of(segment.sequence) else { return false };
        let end = end + i64::from(segment.payload_len);
        let (oldest, sent) = self.expected(role);
        let is_exact = self.knows_all(segment, role);
        end < oldest || is_exact && end > sent.saturating_add(MAX_WINDOW)
    }

    /// Between which offsets a side's next byte is for the other side, as far as is known: what was acknowledged, and what
    /// was sent, its FIN included. Of an encrypted record the header says how much that is.
    fn expected(&self, role: Role) -> (i64, i64) {
        let stream = &self.side(role).stream;
        let sent = stream.end().max(stream.position()) + u64::from(stream.fin().is_some());
        (stream.acked().min(sent).cast_signed(), sent.cast_signed())
    }

    /// Whether all that a side has sent is known, so that what lies beyond is not its own.
    fn knows_all(&self, segment: &Segment<'_>, role: Role) -> bool {
        let is_lossless = self.facts.capture.lost == 0 && segment.notes & Notes::LOSS_BEFORE == 0;
        is_lossless && self.side(role).records.is_framed()
    }

    /// What of its memory others could use, in bytes: nothing of an ordinary connection.
    pub(crate) fn weight(&self) -> usize {
        let buffers: usize = self.sides.iter().map(|side| side.stream.held() + side.records.held()).sum();
        (buffers + self.facts.weight()).saturating_sub(ORDINARY_WEIGHT)
    }

    /// When the engine should look at this connection again, if no segment comes before.
    pub(crate) fn deadline(&self) -> Timestamp {
        let facts = &self.facts;
        match self.stage {
            Stage::Provisional if facts.endings.is_empty() => return facts.last_seen.after(LINGER),
            Stage::Provisional | Stage::Open => {}
        }
        if !facts.endings.is_empty()
            && let Some(last) = self.believed_endings().map(|ending| ending.time).max()
        {
            return last.after(self.settle());
        }
        let progress = &facts.progress;
        if let Some(complete) = progress.complete.or(progress.client_finished.filter(|_| self.is_tls13())) {
            return if self.is_accepted() { facts.last_seen } else { complete.after(SETTLE_COMPLETE) };
        }
        if !self.carried_payload() {
            return match (facts.tcp.syn, facts.tcp.syn_ack, facts.tcp.established) {
                (Some(syn), None, None) => {
                    syn.after(SYN_TIMEOUT).max(facts.last_seen.after(SETTLE_HALF_CLOSED))
                }
                (_, Some(syn_ack), None) => syn_ack.after(SYN_TIMEOUT),
                _ => facts.last_seen.after(IDLE_TIMEOUT),
            };
        }
        facts.last_seen.after(HANDSHAKE_TIMEOUT)
    }

    /// Gives up whatever is still awaited, so that the facts say all that is known.
    pub(crate) fn settle_facts(&mut self, now: Timestamp, certificates: &mut CertificateCache) {
        self.facts.judged_at = now;
        let mut capture = CaptureCondition { gaps: 0, missing_bytes: 0, ..self.facts.capture };
        for role in [Role::Client, Role::Server] {
            while self.side(role).stream.has_hole() {
                self.give_up_hole(role, self.facts.last_seen, certificates);
            }
            let Side { stream, records, resent, .. } = side_of(&mut self.sides, role);
            let (gaps, missing) = stream.gaps();
            capture.gaps = capture.gaps.saturating_add(gaps);
            capture.missing_bytes = capture.missing_bytes.saturating_add(missing);
            // What the receiver misses, too, the capture did not lose.
            capture.desynchronised |= records.is_lost() && !stream.lost_on_path();
            let peer = self.facts.peer_mut(role);
            peer.unfinished = records
                .unfinished()
                .map(|message| UnfinishedMessage { kind: message.kind, missing: message.missing });
            peer.records = records.count();
            peer.retransmissions = stream.retransmissions();
            peer.lost_on_path = stream.lost_on_path();
            peer.stuck_at =
                (resent.times >= 2 && stream.acked() <= resent.position).then_some(resent.position);
        }
        capture.one_way = self.answered && self.facts.peers.iter().any(|peer| !peer.seen);
        self.facts.capture = capture;
        note_completion(&mut self.facts);
    }

    /// Whether the handshake is over and both sides carry on. After an empty client certificate that remains to
    /// be seen: nginx completes the handshake and refuses the request.
    pub(crate) fn is_accepted(&self) -> bool {
        is_accepted(&self.facts)
    }

    /// Whether a whole ClientHello has had neither an answer nor an end.
    pub(crate) fn waits_for_server(&self) -> bool {
        self.facts.client_hello.is_some()
            && !self.facts.server_answered()
            && self.believed_endings().next().is_none()
    }

    /// Whether either side sent any payload.
    pub(crate) fn carried_payload(&self) -> bool {
        self.facts.peers.iter().any(|peer| peer.bytes > 0)
    }

    fn settle(&self) -> Duration {
        let facts = &self.facts;
        let reset = self.believed_endings().any(|ending| matches!(ending.how, How::Reset(_)));
        if reset || (self.has_closed(Role::Client) && self.has_closed(Role::Server)) {
            return SETTLE_CLOSED;
        }
        let alert = facts.endings.iter().any(|ending| matches!(ending.how, How::Alert(_)));
        if !alert && self.has_closed(Role::Client) && !facts.server_answered() {
            return SETTLE_HALF_CLOSED;
        }
        SETTLE
    }

    /// Those that their receiver can have believed: a RST elsewhere in the window ends nothing, and the conversation may go
    /// on (RFC 5961 §3.2).
    fn believed_endings(&self) -> impl Iterator<Item = &Ending> {
        let is_ignored =
            |ending: &&Ending| matches!(ending.how, How::Reset(Reset { out_of_window: true, .. }));
        self.facts.endings.iter().filter(move |ending| !is_ignored(ending))
    }

    fn has_closed(&self, role: Role) -> bool {
        self.facts.endings.iter().any(|ending| ending.role == role && ending.how == How::Close)
    }

    fn is_tls13(&self) -> bool {
        self.facts.version().is_some_and(ProtocolVersion::is_tls13)
    }

    fn role_of(&self, segment: &Segment<'_>) -> Role {
        if segment.source == self.facts.client().address { Role::Client } else { Role::Server }
    }

    fn side(&self, role: Role) -> &Side {
        let [client, server] = &self.sides;
        match role {
            Role::Client => client,
            Role::Server => server,
        }
    }

    fn side_mut(&mut self, role: Role) -> &mut Side {
        side_of(&mut self.sides, role)
    }

    fn note_capture(&mut self, segment: &Segment<'_>) {
        let capture = &mut self.facts.capture;
        if segment.notes & Notes::LOSS_BEFORE != 0 {
            capture.lost = capture.lost.saturating_add(1);
        }
        if segment.is_truncated() {
            capture.truncated = capture.truncated.saturating_add(1);
        }
    }

    fn handshake_of_tcp(&mut self, segment: &Segment<'_>, role: Role) {
        let now = segment.timestamp;
        let tcp = &mut self.facts.tcp;
        if segment.is_rst() {
            return;
        }
        if segment.is_syn() {
            if segment.is_ack() {
                tcp.syn_ack.get_or_insert(now);
                tcp.syn_ack_count = tcp.syn_ack_count.saturating_add(1);
                tcp.timestamps = segment.has_timestamps();
            } else {
                tcp.syn.get_or_insert(now);
                tcp.syn_count = tcp.syn_count.saturating_add(1);
                tcp.fast_open |= segment.payload_len > 0;
            }
            self.side_mut(role).stream.begin(segment.sequence);
        } else if tcp.syn.is_some() || tcp.syn_ack.is_some() {
            // Any segment after the handshake, by either side, shows that it is over.
            tcp.established.get_or_insert(now);
        }
        let peer = self.facts.peer_mut(role);
        if peer.hop_limit == 0 {
            peer.hop_limit = segment.hop_limit;
        }
    }

    /// Takes payload. Returns the role of its sender, which the payload may have told.
    fn payload(&mut self, segment: &Segment<'_>, role: Role, certificates: &mut CertificateCache) -> Role {
        let now = segment.timestamp;
        let sequence = segment.sequence.wrapping_add(u32::from(segment.is_syn()));
        let [client, server] = &mut self.sides;
        let (side, other) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        let next = side.stream.position().cast_signed();
        let begins_tls = side.records.awaits_tls()
            && begins_record(segment, self.facts.client_hello.is_some())
            && side.stream.offset_of(sequence).is_none_or(|at| at == next);
        let mut learner = Learner::new(&mut self.facts, certificates, role, segment);
        if begins_tls {
            side.records.begin_tls(&mut learner);
            if self.facts.client_hello.is_none() {
                let server = self.facts.server().first_bytes;
                self.facts.upgraded_from = server.or(self.facts.client().first_bytes);
            }
        }
        let mut learner = Learner::new(&mut self.facts, certificates, role, segment);
        learner.position = side.stream.offset_of(sequence).and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        learner.received =
            other.stream.offset_of(segment.acknowledgement).and_then(|at| u64::try_from(at).ok());
        let position = learner.position;
        let news =
            side.stream.take(segment, &mut Reading { records: &mut side.records, observer: &mut learner });
        // In front of a hole, reading is not where the program was when it had enough.
        if segment.notes & Notes::LAST != 0 && !side.stream.has_hole() {
            side.records.end(segment.notes & Notes::UNFRAMED != 0, &mut learner);
        }
        let inverted = learner.roles_inverted;
        let end = side.stream.end();
        if !news && position < end && !side.stream.is_probe(position, segment.payload_len.into()) {
            let Resent { position: stuck, times, last } = side.resent;
            let acked = side.stream.acked();
            let last = last.max(self.facts.peer(role).last_payload.unwrap_or_default());
            let is_copy = now.since(last) < RESENT_APART;
            // What follows the first missing byte is sent again only because that one is.
            if times == 0 || stuck < acked || position < stuck {
                if acked <= position && (times > 0 || !is_copy) {
                    side.resent = Resent { position, times: 1, last: now };
                }
            } else if stuck == position && !is_copy {
                side.resent = Resent { position, times: times.saturating_add(1), last: now };
            }
        }
        let peer = self.facts.peer_mut(role);
        peer.bytes = end;
        if news {
            peer.segments = peer.segments.saturating_add(1);
            peer.first_payload.get_or_insert(now);
            peer.last_payload = Some(now);
            // What the server says after an ending answers that, and is no part of its flight.
            let has_ended = self
                .facts
                .endings
                .iter()
                .any(|ending| !matches!(ending.how, How::Reset(reset) if reset.out_of_window));
            let progress = &mut self.facts.progress;
            if progress.server_hello.is_some() && progress.client_flight.is_none() {
                match role {
                    Role::Client => progress.client_flight = Some(now),
                    Role::Server if !has_ended => progress.server_flight = Some(now),
                    Role::Server => {}
                }
            }
        }
        if inverted {
            self.invert_roles();
            return role.peer();
        }
        role
    }

    /// The ClientHello came from the side that was taken for the server.
    fn invert_roles(&mut self) {
        self.facts.peers.swap(0, 1);
        self.sides.swap(0, 1);
        for ending in &mut self.facts.endings {
            ending.role = ending.role.peer();
        }
    }

    fn reset(&mut self, segment: &Segment<'_>, role: Role) {
        let facts = &self.facts;
        let refuses_syn = role == Role::Server && facts.tcp.syn_ack.is_none() && facts.tcp.syn.is_some();
        let [client, server] = &self.sides;
        let (side, other) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        let offset = side.stream.offset_of(segment.sequence);
        // Before there is a window, the acknowledgement has to be that of the SYN (RFC 9293 §3.10.7.3).
        let answers_syn = segment.is_ack()
            && other
                .stream
                .offset_of(segment.acknowledgement)
                .is_some_and(|at| (0..=other.stream.end().cast_signed()).contains(&at));
        let (oldest, sent) = self.expected(role);
        let expected = oldest..=if self.knows_all(segment, role) { sent } else { i64::MAX };
        let reset = Reset {
            ack: segment.is_ack(),
            window: segment.window,
            timestamps: segment.has_timestamps(),
            hop_limit_differs: {
                let usual = facts.peer(role).hop_limit;
                usual != 0 && segment.hop_limit != 0 && usual != segment.hop_limit
            },
            out_of_window: if refuses_syn {
                !answers_syn
            } else {
                offset.is_some_and(|offset| !expected.contains(&offset))
            },
            refuses_syn,
            sequence: segment.sequence,
            acknowledgement: if segment.is_ack() { segment.acknowledgement } else { 0 },
            is_own: segment.is_own,
            is_unreported: false,
        };
        let position = offset.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(sent.unsigned_abs());
        let received = segment
            .is_ack()
            .then(|| other.stream.offset_of(segment.acknowledgement))
            .flatten()
            .and_then(|at| u64::try_from(at).ok());
        self.facts.history.push(role, b'Z');
        insert_causally(
            &mut self.facts.endings,
            Ending { role, how: How::Reset(reset), time: segment.timestamp, position, received },
        );
    }

    fn end(&mut self, segment: &Segment<'_>, role: Role, how: How, position: u64) {
        let other = &self.side(role.peer()).stream;
        let received = other.offset_of(segment.acknowledgement).and_then(|at| u64::try_from(at).ok());
        let ending = Ending { role, how, time: segment.timestamp, position, received };
        insert_causally(&mut self.facts.endings, ending);
    }

    /// Gives up a hole whose bytes the receiver has: the capture lost them, and nobody will send them again.
    fn watch_hole(&mut self, now: Timestamp, certificates: &mut CertificateCache) {
        let lost = [Role::Client, Role::Server].into_iter().find(|&role| {
            let stream = &self.side(role).stream;
            stream.has_hole() && stream.hole_was_received()
        });
        let Some(role) = lost else {
            self.hole_since = None;
            return;
        };
        let since = *self.hole_since.get_or_insert(now);
        if now.since(since) >= HOLE_PATIENCE {
            self.give_up_hole(role, now, certificates);
            self.hole_since = None;
        }
    }

    fn give_up_hole(&mut self, role: Role, now: Timestamp, certificates: &mut CertificateCache) {
        let side = side_of(&mut self.sides, role);
        let mut learner = Learner {
            facts: &mut self.facts,
            certificates,
            role,
            now,
            position: side.stream.position(),
            received: None,
            roles_inverted: false,
        };
        side.stream.give_up_hole(&mut Reading { records: &mut side.records, observer: &mut learner });
    }
}

/// What a connection between client and server has shown when it has shown nothing yet.
fn nothing_of(connection: ConnectionId, [client, server]: [SocketAddr; 2], now: Timestamp) -> HandshakeFacts {
    HandshakeFacts {
        connection,
        interface: 0,
        direction: super::segment::Direction::Unknown,
        first_seen: now,
        last_seen: now,
        judged_at: now,
        tcp: Tcp::default(),
        peers: [Peer::new(client), Peer::new(server)],
        proxy: None,
        upgraded_from: None,
        client_hello: None,
        client_hello_size: HelloSize::default(),
        second_client_hello: None,
        hello_retry_request: None,
        second_hello_retry_request: false,
        server_hello: None,
        certificate_request: None,
        server_key_exchange_group: None,
        renegotiation: None,
        progress: Progress::default(),
        endings: Vec::new(),
        reset_reports: Vec::new(),
        history: History::default(),
        capture: CaptureCondition::default(),
    }
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            translated: None,
            first_bytes: None,
            head: Vec::new(),
            bytes: 0,
            acked: 0,
            stuck_at: None,
            lost_on_path: false,
            first_payload: None,
            last_payload: None,
            segments: 0,
            retransmissions: 0,
            records: 0,
            certificates: None,
            change_cipher_spec: None,
            opaque_records: Vec::new(),
            opaque_record_count: 0,
            alerts: Vec::new(),
            unfinished: None,
            broke_framing: false,
            hop_limit: 0,
            seen: false,
        }
    }
}

/// See [`Connection::is_accepted`].
fn is_accepted(facts: &HandshakeFacts) -> bool {
    let progress = &facts.progress;
    progress.complete.is_some()
        && !facts.has_empty_client_certificate()
        && if facts.version().is_some_and(ProtocolVersion::is_tls13) {
            progress.client_data.is_some() && progress.server_data.is_some()
        } else {
            progress.client_data.is_some() || progress.server_data.is_some()
        }
}

/// Notices when the handshake is complete as far as records tell.
fn note_completion(facts: &mut HandshakeFacts) {
    let Some(hello) = &facts.server_hello else { return };
    if hello.version.is_tls13() {
        note_tls13(facts);
    } else if facts.progress.complete.is_none()
        && let (Some(client), Some(server)) = (facts.progress.client_finished, facts.progress.server_finished)
    {
        facts.progress.complete = Some(client.max(server));
    }
}

/// Reads the TLS 1.3 part of a handshake from the sizes of its records.
fn note_tls13(facts: &mut HandshakeFacts) {
    let Some(exchange) = Exchange::of(facts) else { return };
    let finished = exchange.client_finished().map(|record| record.time);
    let alert = exchange.client_alert().is_some();
    let certificate = exchange.client.certificate;
    // Alerts are no data; where the client's padding is unknown, both usual alert sizes are doubtful.
    // A first record that is longer than a Finished may be a Certificate whose Finished is still to come.
    let is_settled = certificate != ClientCertificate::Unclear || exchange.client_answer().count() > 2;
    let client_data = exchange
        .client_answer()
        .find(|record| is_settled && !exchange.is_client_alert(record))
        .map(|record| record.time);
    // The server takes the client's Finished before it sends what comes after it; what it sent before is its
    // first flight. A server that answers early data speaks before.
    let server_data = exchange
        .server_answer()
        .find(|record| !exchange.sizes.is_alert(record.length, None))
        .map(|record| record.time);
    let progress = &mut facts.progress;
    let news = [
        (
            Role::Client,
            b'X',
            finished.is_some() && certificate != ClientCertificate::NotSent,
            progress.client_finished.is_some(),
        ),
        (Role::Client, b'F', finished.is_some(), progress.client_finished.is_some()),
        (Role::Client, b'E', alert, progress.client_refused),
        (Role::Client, b'D', client_data.is_some(), progress.client_data.is_some()),
        (Role::Server, b'D', server_data.is_some(), progress.server_data.is_some()),
    ];
    progress.client_refused |= alert;
    progress.client_finished = progress.client_finished.or(finished);
    progress.client_data = progress.client_data.or(client_data);
    progress.server_data = progress.server_data.or(server_data);
    progress.complete = progress.complete.or(server_data);
    for (role, letter, _, _) in news.into_iter().filter(|&(_, _, now, before)| now && !before) {
        facts.history.push(role, letter);
    }
}

fn side_of(sides: &mut [Side; 2], role: Role) -> &mut Side {
    let [client, server] = sides;
    match role {
        Role::Client => client,
        Role::Server => server,
    }
}

/// Puts an ending where it belongs: after what its sender had seen, before what had seen it.
fn insert_causally(endings: &mut Vec<Ending>, ending: Ending) {
    if endings.len() >= MAX_ENDINGS {
        return;
    }
    let at = endings.iter().rposition(|earlier| !precedes(&ending, earlier)).map_or(0, |index| index + 1);
    endings.insert(at, ending);
}

/// Whether `a` happened before `b` although it was captured later.
fn precedes(a: &Ending, b: &Ending) -> bool {
    if a.role == b.role {
        return a.position < b.position;
    }
    // The sender of `b` had received what `a` is.
    b.received.is_some_and(|received| received > a.position) && a.received.is_none_or(|got| got <= b.position)
}

/// Whether a segment begins with what can be a TLS record; an alert only answers a ClientHello.
fn begins_record(segment: &Segment<'_>, may_be_alert: bool) -> bool {
    let Some(chunk) = segment.chunks.first() else { return false };
    let header = chunk.bytes.get(..RecordHeader::LEN).unwrap_or(chunk.bytes);
    chunk.offset == 0
        && match RecordHeader::decode(header) {
            Decoded::Complete(header) => header.version.0 <= 0x0304 && header.length > 0,
            // A ClientHello, and what answers it, may come in single bytes.
            Decoded::Incomplete => header.first().is_some_and(|&first| {
                first == ContentType::HANDSHAKE.0 || may_be_alert && first == ContentType::ALERT.0
            }),
            Decoded::Malformed => false,
        }
}

/// A name that is the same whenever and wherever this connection is seen: FNV-1a over both ends and the
/// first sequence number.
fn identify(client: SocketAddr, server: SocketAddr, segment: &Segment<'_>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for address in [client, server] {
        match address.ip() {
            std::net::IpAddr::V4(ip) => add(&ip.octets()),
            std::net::IpAddr::V6(ip) => add(&ip.octets()),
        }
        add(&address.port().to_be_bytes());
    }
    add(&segment.sequence.to_be_bytes());
    hash
}

/// Writes what a direction shows into the facts.
struct Learner<'a> {
    facts: &'a mut HandshakeFacts,
    certificates: &'a mut CertificateCache,
    role: Role,
    now: Timestamp,
    /// Offset of the segment in its stream.
    position: u64,
    /// How much of the other side's stream its sender had received.
    received: Option<u64>,
    roles_inverted: bool,
}

impl<'a> Learner<'a> {
    fn new(
        facts: &'a mut HandshakeFacts,
        certificates: &'a mut CertificateCache,
        role: Role,
        segment: &Segment<'_>,
    ) -> Self {
        Self {
            facts,
            certificates,
            role,
            now: segment.timestamp,
            position: 0,
            received: None,
            roles_inverted: false,
        }
    }

    /// Whether the records read so far are all that the connection is judged by. It is judged when the segment has been
    /// read; what else that brings is no more part of the handshake than what the next one brings.
    fn is_over(&mut self) -> bool {
        note_completion(self.facts);
        is_accepted(self.facts)
    }

    fn push(&mut self, letter: u8) {
        self.facts.history.push(self.role, letter);
    }

    fn client_hello(&mut self, hello: Box<ClientHello>) {
        if self.role == Role::Server && self.facts.client_hello.is_none() {
            self.role = Role::Client;
            self.roles_inverted = true;
        }
        self.push(b'C');
        if self.facts.client_hello.is_none() {
            self.facts.client_hello = Some(hello);
            self.facts.progress.client_hello = Some(self.now);
        } else if self.facts.hello_retry_request.is_some() {
            self.facts.second_client_hello.get_or_insert(hello);
        }
    }

    fn selection(&self) -> Option<Selection> {
        let hello = self.facts.server_hello.as_ref()?;
        Some(Selection { version: hello.version, cipher_suite: hello.cipher_suite })
    }
}

impl Observer for Learner<'_> {
    fn protection(&self) -> Protection {
        match self.facts.version() {
            Some(version) if version.is_tls13() => Protection::Never,
            Some(_) => Protection::AfterChangeCipherSpec,
            None if self.facts.hello_retry_request.is_some() => Protection::Never,
            None => Protection::Unknown,
        }
    }

    fn first_bytes(&mut self, kind: FirstBytes, head: &[u8]) {
        let peer = self.facts.peer_mut(self.role);
        peer.first_bytes.get_or_insert(kind);
        if !matches!(kind, FirstBytes::TlsRecord | FirstBytes::SslV2Hello) && peer.head.is_empty() {
            peer.head = head.to_vec();
        }
    }

    fn more_of_head(&mut self, bytes: &[u8]) {
        let head = &mut self.facts.peer_mut(self.role).head;
        let room = MAX_HEAD_LEN.saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn proxy_header(&mut self, header: &ProxyHeader) {
        self.facts.proxy.get_or_insert_with(|| Box::new(*header));
    }

    fn opaque_record(&mut self, header: RecordHeader) {
        let now = self.now;
        let version = self.facts.version();
        let is_over = header.content_type == ContentType::ALERT && self.is_over();
        let progress = &mut self.facts.progress;
        let (finished, data) = match self.role {
            Role::Client => (&mut progress.client_finished, &mut progress.client_data),
            Role::Server => (&mut progress.server_finished, &mut progress.server_data),
        };
        let letter = match header.content_type {
            ContentType::HANDSHAKE if finished.is_none() => {
                *finished = Some(now);
                Some(b'F')
            }
            ContentType::HANDSHAKE if progress.complete.is_some() => {
                self.facts.renegotiation.get_or_insert((self.role, now));
                None
            }
            // Application data of TLS 1.2 and below; in TLS 1.3 sizes tell, see `note_tls13`.
            ContentType::APPLICATION_DATA if !version.is_some_and(ProtocolVersion::is_tls13) => {
                let first = data.is_none();
                if version.is_some() && finished.is_some() {
                    data.get_or_insert(now);
                }
                first.then_some(b'D')
            }
            ContentType::ALERT if !is_over => Some(b'E'),
            _ => None,
        };
        if let Some(letter) = letter {
            self.push(letter);
        }
        let peer_records = self.facts.peer(self.role.peer()).opaque_record_count;
        let (position, received) = (self.position, self.received);
        let peer = self.facts.peer_mut(self.role);
        peer.opaque_record_count = peer.opaque_record_count.saturating_add(1);
        if peer.opaque_records.len() < MAX_OPAQUE_RECORDS {
            peer.opaque_records.push(OpaqueRecord {
                content_type: header.content_type,
                length: header.length,
                time: now,
                peer_records,
                position,
                received,
            });
        }
    }

    fn change_cipher_spec(&mut self) {
        self.push(b'I');
        let now = self.now;
        self.facts.peer_mut(self.role).change_cipher_spec.get_or_insert(now);
        let facts = &mut *self.facts;
        // A server that goes on without a certificate has resumed a session (RFC 5246 §7.3).
        if self.role == Role::Server
            && let Some(hello) = &facts.server_hello
            && !hello.version.is_tls13()
            && facts.progress.server_certificate.is_none()
            && facts.progress.server_hello_done.is_none()
        {
            facts.progress.resumed = true;
        }
    }

    fn alert(&mut self, level: AlertLevel, description: AlertDescription) {
        if self.is_over() {
            return;
        }
        self.push(b'L');
        let alert = Alert { level, description };
        let peer = self.facts.peer_mut(self.role);
        if peer.alerts.len() < MAX_ALERTS {
            peer.alerts.push(alert);
        }
        // Every TLS 1.3 alert ends the connection whatever its level says (RFC 8446 §6); before, a warning
        // does not, but for the two that announce the end (RFC 5246 §7.2).
        let warning = level == AlertLevel::WARNING
            && !self.facts.version().is_some_and(ProtocolVersion::is_tls13)
            && !matches!(description, AlertDescription::CLOSE_NOTIFY | AlertDescription::USER_CANCELED);
        if !warning {
            let (role, time) = (self.role, self.now);
            let ending = Ending {
                role,
                how: How::Alert(alert),
                time,
                position: self.position,
                received: self.received,
            };
            insert_causally(&mut self.facts.endings, ending);
        }
    }

    fn message(&mut self, WholeMessage { kind, body, records }: WholeMessage<'_>) {
        let now = self.now;
        if kind == HandshakeType::CLIENT_HELLO && self.facts.client_hello.is_none() {
            // The segment that completes it is counted when it has been read.
            self.facts.client_hello_size =
                HelloSize { segments: self.facts.peer(self.role).segments.saturating_add(1), records };
        }
        let selection = self.selection();
        if self.unread(kind, selection, body) {
            return;
        }
        let message = body.map(|body| Message::decode(kind, body, selection, self.certificates));
        let Some(Decoded::Complete(message)) = message else {
            return self.undecoded(kind, body);
        };
        let progress = &mut self.facts.progress;
        match message {
            Message::ClientHello(hello) => self.client_hello(hello),
            Message::ServerHello(hello) if hello.is_hello_retry_request => {
                self.push(b'J');
                if self.facts.hello_retry_request.is_some() {
                    self.facts.second_hello_retry_request = true;
                } else {
                    self.facts.hello_retry_request = Some(hello);
                }
            }
            Message::ServerHello(hello) => {
                self.push(b'S');
                if self.facts.server_hello.is_none() {
                    self.facts.progress.server_hello = Some(now);
                    self.facts.progress.resumed |= hello.psk_selected;
                    self.facts.server_hello = Some(hello);
                }
            }
            Message::Certificate(chain) => {
                match self.role {
                    Role::Client => progress.client_certificate.get_or_insert(now),
                    Role::Server => progress.server_certificate.get_or_insert(now),
                };
                self.push(b'X');
                self.facts.peer_mut(self.role).certificates.get_or_insert(chain);
            }
            Message::CertificateRequest(request) => {
                self.push(b'R');
                self.facts.certificate_request.get_or_insert_with(|| Box::new(request));
            }
            Message::ServerHelloDone => {
                progress.server_hello_done.get_or_insert(now);
                self.push(b'Y');
            }
            Message::ServerKeyExchange(_)
            | Message::ClientKeyExchange
            | Message::CertificateVerify { .. }
            | Message::NewSessionTicket { .. }
            | Message::CertificateStatus { .. }
            | Message::HelloRequest
            | Message::Finished
            | Message::KeyUpdate
            | Message::CompressedCertificate
            | Message::EncryptedExtensions
            | Message::Other(_) => {}
        }
    }

    fn ssl_v2_hello(&mut self, message: Option<&[u8]>) {
        if let Some(Decoded::Complete(hello)) = message.map(ClientHello::decode_ssl_v2) {
            self.client_hello(Box::new(hello));
        }
    }

    fn not_a_record(&mut self, bytes: &[u8]) {
        let peer = self.facts.peer_mut(self.role);
        peer.broke_framing = true;
        if peer.head.is_empty() {
            peer.head = bytes.to_vec();
        }
    }
}

impl Learner<'_> {
    /// Messages whose bodies are stepped over: that they came is all there is to know. Returns whether this
    /// was one.
    fn unread(&mut self, kind: HandshakeType, selection: Option<Selection>, body: Option<&[u8]>) -> bool {
        let now = self.now;
        let progress = &mut self.facts.progress;
        let letter = match kind {
            HandshakeType::SERVER_KEY_EXCHANGE => {
                let ecdhe = selection.is_some_and(|selection| {
                    selection.cipher_suite.key_exchange() == Some(KeyExchange::Ecdhe)
                });
                if ecdhe && let Some(&[NAMED_CURVE, high, low, ..]) = body {
                    self.facts.server_key_exchange_group = Some(NamedGroup(u16::from_be_bytes([high, low])));
                }
                b'K'
            }
            HandshakeType::CLIENT_KEY_EXCHANGE => {
                progress.client_key_exchange.get_or_insert(now);
                b'K'
            }
            HandshakeType::CERTIFICATE_VERIFY => {
                progress.client_certificate_verify.get_or_insert(now);
                b'V'
            }
            HandshakeType::NEW_SESSION_TICKET => {
                progress.session_ticket = true;
                b'T'
            }
            _ => return false,
        };
        self.push(letter);
        true
    }

    /// A message that was stepped over, lost or malformed still happened.
    fn undecoded(&mut self, kind: HandshakeType, body: Option<&[u8]>) {
        let now = self.now;
        let progress = &mut self.facts.progress;
        let letter = match kind {
            HandshakeType::CLIENT_HELLO => {
                if let Some(hello) = body.and_then(ClientHello::decode_truncated) {
                    return self.client_hello(Box::new(hello));
                }
                progress.client_hello.get_or_insert(now);
                b'C'
            }
            HandshakeType::SERVER_HELLO => {
                progress.server_hello.get_or_insert(now);
                b'S'
            }
            HandshakeType::CERTIFICATE => {
                match self.role {
                    Role::Client => progress.client_certificate.get_or_insert(now),
                    Role::Server => progress.server_certificate.get_or_insert(now),
                };
                b'X'
            }
            HandshakeType::CERTIFICATE_REQUEST => b'R',
            _ => return,
        };
        self.push(letter);
    }
}
