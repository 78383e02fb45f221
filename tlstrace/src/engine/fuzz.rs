//! Fuzz bodies of the engine: record framing, what may stand before TLS, and whole conversations.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use smallvec::SmallVec;
use tlstrace_common::event::{Notes, TcpFlags};

use super::facts::ConnectionId;
use super::proxy::{self, ProxyHeader};
use super::records::{Observer, Protection, Reading, Records, WholeMessage};
use super::said::MEMORY;
use super::segment::{Chunk, Direction, Segment};
use super::stream::{Piece, Reader as _};
use super::timestamp::Timestamp;
use super::{Engine, Output, Settings};
use crate::fuzz::{Input, pieces};
use crate::sink::{self, SINKS, Style};
use crate::tls::codepoints::{AlertDescription, AlertLevel, ContentType, HandshakeType};
use crate::tls::record::{FirstBytes, RecordHeader, sniff};

/// Seed for the cuts, whether TLS 1.3 was selected, and a stream: what is read does not depend on the cuts.
pub(crate) fn records(data: &[u8]) {
    let mut input = Input::new(data);
    let (seed, protection) = (input.u32(), input.byte());
    let bytes = input.rest();
    let whole = read([bytes].into_iter(), protection);
    let cut = read(pieces(bytes, seed).into_iter(), protection);
    // Text ends where a segment ends, since TLS may begin with the next one; and three bytes that look like a record
    // are taken for one unless two more say otherwise.
    if whole.kind == Some(FirstBytes::TlsRecord) && cut.kind == whole.kind {
        assert_eq!(whole.events, cut.events);
        assert_eq!(whole.count, cut.count);
    }
    // Holes anywhere lose what they must and nothing else goes wrong.
    let mut records = Records::default();
    let mut log = Log::new(protection);
    let mut reading = Reading { records: &mut records, observer: &mut log };
    for (at, piece) in pieces(bytes, seed).into_iter().enumerate() {
        let is_hole = (seed >> (at % 32)) & 1 == 1 || reading.indifferent_to() > piece.len() as u64;
        reading.read(if is_hole { Piece::Missing(piece.len() as u64) } else { Piece::Bytes(piece) });
    }
    let _ = (records.is_lost(), records.unfinished());
    assert!(log.kept <= bytes.len(), "more was read than there is");
}

/// What stands in front of TLS: PROXY headers and the first bytes of other protocols.
pub(crate) fn prelude(data: &[u8]) {
    let kind = sniff(data);
    for cut in 0..data.len().min(20) {
        let begin = sniff(data.get(..cut).unwrap_or_default());
        // What can become nothing known stays so. But a word may be an IMAP client's tag, and until a space comes that
        // is no reason to wait.
        let is_word = data.iter().take(cut).all(u8::is_ascii_alphanumeric);
        assert!(
            is_word || begin != FirstBytes::Other || kind == FirstBytes::Other,
            "{cut} bytes: {begin:?}, all: {kind:?}"
        );
    }
    assert_eq!(kind, sniff(data.get(..16).unwrap_or(data)), "no more than 16 bytes are looked at");
    if let Some(header) = ProxyHeader::decode(data) {
        assert!(matches!(header.version, 1 | 2));
        assert!(header.source.is_some() == header.destination.is_some());
    }
    if let Some(len) = proxy::v2_len(data) {
        assert!(len >= 16);
    }
    // One segment, then a hello in one of its own, as after STARTTLS.
    let mut records = Records::default();
    let mut log = Log::new(0);
    let mut reading = Reading { records: &mut records, observer: &mut log };
    reading.read(Piece::Bytes(data));
    if records.awaits_tls() {
        records.begin_tls(&mut log);
        let hello = [&[22, 3, 1, 0, 4, 1, 0, 0, 0][..]].concat();
        Reading { records: &mut records, observer: &mut log }.read(Piece::Bytes(&hello));
        let is_seen = log
            .events
            .iter()
            .any(|event| matches!(event, Event::Message(kind, _) if *kind == HandshakeType::CLIENT_HELLO));
        assert!(is_seen, "TLS that begins with a segment is read after anything: {:?}", log.events);
    }
}

/// A program of steps for a few connections: segments of either side in and out of order, again, overlapping, with
/// holes, cut, contradicting; and time that passes.
pub(crate) fn engine(data: &[u8]) {
    const CONNECTIONS: usize = 6;
    let mut input = Input::new(data);
    let mut engine = Engine::new(Settings { max_connections: 4, ..Settings::default() });
    let mut checker = Checker::new();
    let mut now = Timestamp::from_nanos(1_800_000_000_000_000_000);
    let mut connections: Vec<_> = (0..CONNECTIONS).map(Conversation::new).collect();
    let mut held: Option<Packet> = None;
    while !input.is_empty() {
        let step = input.byte();
        let Some(conversation) = connections.get_mut(usize::from(step >> 4) % CONNECTIONS) else { return };
        let packet = match step & 0x0f {
            0 => conversation.packet(0, TcpFlags::SYN, &[], 0),
            1 => conversation.packet(1, TcpFlags::SYN | TcpFlags::ACK, &[], 0),
            side @ (2 | 3) => {
                let len = usize::from(input.byte());
                let bytes = input.bytes(len);
                conversation.packet(usize::from(side & 1), TcpFlags::ACK | TcpFlags::PSH, bytes, 0)
            }
            side @ (4 | 5) => {
                let sample = sample(input.byte());
                conversation.packet(usize::from(side & 1), TcpFlags::ACK | TcpFlags::PSH, sample, 0)
            }
            6 => conversation.packet(0, TcpFlags::FIN | TcpFlags::ACK, &[], 0),
            7 => conversation.packet(1, TcpFlags::FIN | TcpFlags::ACK, &[], 0),
            8 => conversation.packet(usize::from(input.byte() & 1), TcpFlags::RST | TcpFlags::ACK, &[], 0),
            9 => conversation.packet(usize::from(input.byte() & 1), TcpFlags::ACK, &[], 0),
            10 => {
                // Up to 65 seconds, or as little.
                now = now.after(Duration::from_millis(u64::from(input.u16())));
                engine.advance_to(now);
                checker.drain(&mut engine, now);
                continue;
            }
            // A retransmission, or an overlap with other content.
            11 => {
                conversation.step_back(usize::from(input.byte() & 1), u32::from(input.byte()));
                continue;
            }
            // A hole.
            12 => {
                conversation.step_back(usize::from(input.byte() & 1), u32::from(input.byte()).wrapping_neg());
                continue;
            }
            // A captured beginning, or nothing, of a longer payload.
            13 => {
                let (side, beyond) = (usize::from(input.byte() & 1), input.u16());
                let len = usize::from(input.byte());
                let bytes = input.bytes(len);
                conversation.packet(side, TcpFlags::ACK, bytes, u32::from(beyond))
            }
            // Anything at all.
            14 => {
                let mut packet = conversation.packet(usize::from(input.byte() & 1), input.byte(), &[], 0);
                packet.sequence = input.u32();
                packet.acknowledgement = input.u32();
                packet.notes = input.byte();
                packet
            }
            // The next one changes places with the one after it.
            _ => {
                if held.is_none() {
                    held = Some(conversation.packet(
                        usize::from(input.byte() & 1),
                        TcpFlags::ACK,
                        sample(input.byte()),
                        0,
                    ));
                }
                continue;
            }
        };
        now = now.after(Duration::from_micros(u64::from(step)));
        for packet in [Some(packet), held.take()].into_iter().flatten() {
            engine.advance_to(now);
            engine.handle_segment(&packet.segment(now));
            checker.drain(&mut engine, now);
            assert!(engine.tracked() <= 4);
        }
    }
    engine.finish();
    checker.drain(&mut engine, now);
    engine.finish();
    assert!(engine.poll_output().is_none(), "after the end nothing is left to be said");
    assert_eq!(engine.counts().verdicts, checker.verdicts);
    assert!(checker.revisions.len() as u64 <= engine.counts().connections);
}

/// What is promised of the verdicts.
struct Checker {
    /// The last revision of each connection, and when it was said.
    revisions: HashMap<ConnectionId, (u32, Timestamp)>,
    verdicts: u64,
    sinks: Vec<Box<dyn sink::Sink>>,
    line: Vec<u8>,
}

impl Checker {
    fn new() -> Self {
        let style = Style { verbose: true, ..Style::default() };
        let sinks = SINKS.iter().map(|kind| (kind.open)(style)).collect();
        Self { revisions: HashMap::new(), verdicts: 0, sinks, line: Vec::new() }
    }

    fn drain(&mut self, engine: &mut Engine, now: Timestamp) {
        while let Some(Output::Verdict(verdict)) = engine.poll_output() {
            self.verdicts += 1;
            let facts = &verdict.facts;
            assert!(facts.first_seen <= facts.last_seen && facts.last_seen <= now, "time runs backwards");
            assert!(verdict.time() <= now);
            let before = self.revisions.insert(facts.connection, (verdict.revision, verdict.time()));
            let is_another =
                |(before, said)| before < verdict.revision || facts.first_seen.since(said) >= MEMORY;
            assert!(before.is_none_or(is_another), "two verdicts on one connection");
            for sink in &mut self.sinks {
                self.line.clear();
                let written = sink.emit(&verdict, &sink::Observer::default(), &mut self.line);
                assert!(written.is_ok());
                let text = std::str::from_utf8(&self.line).unwrap_or("\u{7f}");
                assert!(
                    text.chars().all(|character| character == '\n' || !character.is_control()),
                    "{text:?}"
                );
                if text.starts_with('{') {
                    assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(), "{text}");
                }
            }
        }
    }
}

/// Both sides of a connection, by what they would send next.
struct Conversation {
    addresses: [SocketAddr; 2],
    next: [u32; 2],
}

impl Conversation {
    fn new(number: usize) -> Self {
        let port = 40_000 + u16::try_from(number).unwrap_or_default();
        // Three listeners, so that one learns from the other.
        let listener = 443 + u16::try_from(number % 3).unwrap_or_default();
        Self {
            addresses: [([10, 0, 0, 1], port).into(), ([192, 0, 2, 1], listener).into()],
            next: [0xffff_ff00, 7],
        }
    }

    fn packet(&mut self, side: usize, flags: u8, bytes: &[u8], beyond: u32) -> Packet {
        let [client, server] = self.addresses;
        let [of_client, of_server] = self.next;
        let (source, destination, sequence, acknowledgement) = if side == 0 {
            (client, server, of_client, of_server)
        } else {
            (server, client, of_server, of_client)
        };
        let payload_len = u32::try_from(bytes.len()).unwrap_or_default() + beyond;
        let counted = payload_len + u32::from(flags & (TcpFlags::SYN | TcpFlags::FIN) != 0);
        if let Some(next) = self.next.get_mut(side) {
            *next = next.wrapping_add(counted);
        }
        let notes = if beyond > 0 { Notes::TRUNCATED } else { 0 };
        Packet {
            source,
            destination,
            sequence,
            acknowledgement,
            flags,
            payload_len,
            notes,
            bytes: bytes.to_vec(),
        }
    }

    fn step_back(&mut self, side: usize, by: u32) {
        if let Some(next) = self.next.get_mut(side) {
            *next = next.wrapping_sub(by);
        }
    }
}

struct Packet {
    source: SocketAddr,
    destination: SocketAddr,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    payload_len: u32,
    notes: u8,
    bytes: Vec<u8>,
}

impl Packet {
    fn segment(&self, timestamp: Timestamp) -> Segment<'_> {
        let mut chunks = SmallVec::new();
        if !self.bytes.is_empty() {
            chunks.push(Chunk { offset: 0, bytes: &self.bytes });
        }
        Segment {
            timestamp,
            interface: 1,
            direction: Direction::Unknown,
            source: self.source,
            destination: self.destination,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            flags: self.flags,
            window: 512,
            options: 0,
            hop_limit: 64,
            ip_id: 1,
            vlan: 0,
            payload_len: self.payload_len,
            chunks,
            notes: self.notes,
            is_own: false,
        }
    }
}

/// Whole flights, which a fuzzer would take long to come by.
fn sample(which: u8) -> &'static [u8] {
    const SAMPLES: &[&[u8]] = &[
        include_bytes!("fuzz/client_hello.bin"),
        include_bytes!("fuzz/server_flight_12.bin"),
        include_bytes!("fuzz/server_flight_13.bin"),
        // handshake_failure, close_notify, a record of a TLS 1.3 alert's length, one of a Finished's.
        &[21, 3, 3, 0, 2, 2, 40],
        &[21, 3, 3, 0, 2, 1, 0],
        &[23, 3, 3, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[20, 3, 3, 0, 1, 1, 22, 3, 3, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ];
    SAMPLES.get(usize::from(which) % SAMPLES.len()).copied().unwrap_or_default()
}

/// What [`Records`] has told.
#[derive(Debug, PartialEq)]
enum Event {
    Proxy(ProxyHeader),
    Opaque(ContentType, u16),
    ChangeCipherSpec,
    Alert(AlertLevel, AlertDescription),
    Message(HandshakeType, Option<Vec<u8>>),
    SslV2(Option<Vec<u8>>),
    NotARecord,
}

struct Log {
    protection: u8,
    kind: Option<FirstBytes>,
    events: Vec<Event>,
    count: u32,
    kept: usize,
}

impl Log {
    fn new(protection: u8) -> Self {
        Self { protection, kind: None, events: Vec::new(), count: 0, kept: 0 }
    }
}

impl Observer for Log {
    fn protection(&self) -> Protection {
        match self.protection % 3 {
            0 => Protection::Unknown,
            1 => Protection::AfterChangeCipherSpec,
            _ => Protection::Never,
        }
    }

    fn first_bytes(&mut self, kind: FirstBytes, head: &[u8]) {
        assert!(head.len() <= 16);
        self.kind = Some(kind);
    }

    fn more_of_head(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= 16);
    }

    fn proxy_header(&mut self, header: &ProxyHeader) {
        self.events.push(Event::Proxy(*header));
    }

    fn opaque_record(&mut self, header: RecordHeader) {
        self.events.push(Event::Opaque(header.content_type, header.length));
    }

    fn change_cipher_spec(&mut self) {
        self.events.push(Event::ChangeCipherSpec);
    }

    fn alert(&mut self, level: AlertLevel, description: AlertDescription) {
        self.events.push(Event::Alert(level, description));
    }

    fn message(&mut self, message: WholeMessage<'_>) {
        let body = message.body.map(<[u8]>::to_vec);
        self.kept += body.as_ref().map_or(0, Vec::len);
        self.events.push(Event::Message(message.kind, body));
    }

    fn ssl_v2_hello(&mut self, message: Option<&[u8]>) {
        self.kept += message.map_or(0, <[u8]>::len);
        self.events.push(Event::SslV2(message.map(<[u8]>::to_vec)));
    }

    fn not_a_record(&mut self, _: &[u8]) {
        self.events.push(Event::NotARecord);
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>, protection: u8) -> Log {
    let mut records = Records::default();
    let mut log = Log::new(protection);
    for piece in pieces {
        Reading { records: &mut records, observer: &mut log }.read(Piece::Bytes(piece));
    }
    log.count = records.count();
    log
}
