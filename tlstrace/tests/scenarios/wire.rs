//! The language of scenarios: one step a line, `>` from the client and `<` from the server.
//!
//! ```text
//! > syn | < syn,ack | > ack | < fin | < rst,ack window=64 ts | > rst      flags, nothing else
//! > hello sni=api.example.com max=1.2 suites=0xc02f groups=0x001d sigs=0x0403 alpn=h2 versions=0x0304
//!         early psk ech ticket=200 pad=1500                               a ClientHello
//! < server_hello version=1.2 suite=0xc02f group=0x001d alpn=h2 downgrade psk sid
//! < hello_retry group=0x0017
//! < alert fatal 40         < ccs        < finished        < record 23 19      (type, length)
//! < message 14 0           a handshake message of this type with a body of so many zero bytes
//! < certificate good       a Certificate message; the chains are in `certificates.rs`
//! < certificate_13 good    an encrypted record as long as TLS 1.3 makes this chain's Certificate message
//! < certificate_request client_ca               the authorities that the server accepts, comma-separated
//! > data 100 200           application_data records of these lengths
//! > text GET / HTTP/1.1    these characters and CRLF
//! > raw 160301             these bytes
//! + 5s | + 20ms            time passes; every step takes 100 µs by itself
//! ! < TCP_ABORT_ON_CLOSE envoy                  the kernel reports this side's RST (and the process), before it or after
//! ! complete               of all resets so far the kernel has reported those that it sent
//! ```
//! Modifiers at the end of a step: `with fin` (or `rst`, `ack`) sets flags on its last segment; `unseen` sends
//! it past the observer; `blind` leaves the acknowledgement where it was, as a crossing segment does; `cut`
//! captures only half of it; `enough` captures a record's header and says that the program has seen enough of this
//! side; `mss=N` cuts it into segments of so many bytes; `again` repeats the previous payload of that side, with
//! `first=N` only so many bytes of it; `ttl=N` and `at=N` (sequence offset) disguise it; `own` says that the kernel
//! would report it. A record carries the version of its message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use smallvec::smallvec;
use tlstrace::engine::Engine;
use tlstrace::engine::resets::{LocalReset, Process};
use tlstrace::engine::segment::{Chunk, Direction, Segment};
use tlstrace::engine::timestamp::Timestamp;
use tlstrace_common::event::{Notes, TcpFlags, TcpOptions};

use crate::certificates;

/// How a scenario is played.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Variation {
    AsWritten,
    SingleBytes,
    Doubled,
    TwoInterfaces,
    /// Seen before and after a node that translates both addresses.
    Translated,
    /// The same between addresses of IPv6.
    Ipv6,
}

impl Variation {
    pub(crate) const ALL: [Self; 6] = [
        Self::AsWritten,
        Self::SingleBytes,
        Self::Doubled,
        Self::TwoInterfaces,
        Self::Translated,
        Self::Ipv6,
    ];
}

/// Whom a scenario is played to.
pub(crate) trait Audience {
    fn segment(&mut self, segment: &Segment<'_>);

    /// Time has passed, to this point.
    fn time(&mut self, now: Timestamp);

    /// The kernel says that it sent a RST.
    fn report(&mut self, _: LocalReset) {}

    /// The kernel has said so of every RST that it sent before this point.
    fn complete(&mut self, _: Timestamp) {}
}

impl Audience for Engine {
    fn segment(&mut self, segment: &Segment<'_>) {
        self.handle_segment(segment);
    }

    fn time(&mut self, now: Timestamp) {
        self.handle_timeout(now);
    }

    fn report(&mut self, report: LocalReset) {
        self.handle_local_reset(report);
    }

    fn complete(&mut self, until: Timestamp) {
        self.vouch_for_resets(Timestamp::default(), until);
    }
}

/// Plays the steps of one connection after the other.
pub(crate) struct Player {
    variation: Variation,
    now: u64,
    port: u16,
    client: SocketAddr,
    server: SocketAddr,
    /// First sequence numbers of client and server.
    isn: [u32; 2],
    /// Next sequence number of client and server.
    next: [u32; 2],
    /// What each side has acknowledged of the other.
    acked: [u32; 2],
    previous: [Vec<u8>; 2],
}

/// Near enough to the end that every connection wraps.
const ISN: [u32; 2] = [0xffff_ff80, 0xffff_fff0];
const STEP: u64 = 100_000;
const RECORD_HEADER_LEN: usize = 5;

impl Player {
    pub(crate) fn new(variation: Variation) -> Self {
        Self {
            variation,
            now: 1_795_341_600_000_000_000,
            port: 40_000,
            client: (address(variation, Ipv4Addr::new(10, 0, 0, 1)), 40_000).into(),
            server: (address(variation, Ipv4Addr::new(10, 0, 0, 2)), 8443).into(),
            isn: ISN,
            next: ISN,
            acked: [0; 2],
            previous: [Vec::new(), Vec::new()],
        }
    }

    pub(crate) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Client and server as they are seen behind the translation of their addresses.
    pub(crate) fn translated(&self) -> (SocketAddr, SocketAddr) {
        let client = (Ipv4Addr::new(10, 9, 0, 1), self.client.port() + 10_000);
        (client.into(), (Ipv4Addr::new(10, 4, 0, 9), 9443).into())
    }

    /// Begins another connection.
    pub(crate) fn connect(&mut self, client: Option<Ipv4Addr>) {
        self.port += 1;
        let client = client.unwrap_or(Ipv4Addr::new(10, 0, 0, 1));
        self.client = (address(self.variation, client), self.port).into();
        self.begin(ISN);
    }

    /// Begins another connection between the same ports.
    pub(crate) fn reconnect(&mut self) {
        self.begin(self.isn.map(|isn| isn.wrapping_add(1_000_000)));
    }

    fn begin(&mut self, isn: [u32; 2]) {
        self.isn = isn;
        self.next = isn;
        self.acked = [0; 2];
        self.previous = [Vec::new(), Vec::new()];
    }

    /// Lets enough time pass for a verdict.
    pub(crate) fn pause(&mut self, audience: &mut impl Audience) {
        self.now += 3_000_000_000;
        audience.time(Timestamp::from_nanos(self.now));
    }

    pub(crate) fn play(&mut self, steps: &[String], audience: &mut impl Audience) {
        for step in steps {
            self.step(step, audience);
        }
    }

    fn step(&mut self, step: &str, audience: &mut impl Audience) {
        let step = step.split('#').next().unwrap_or_default().trim();
        let (side, rest) = step.split_at(1);
        let rest = rest.trim();
        let side = match side {
            ">" => 0,
            "<" => 1,
            "+" => {
                self.now += u64::try_from(parse_duration(rest).as_nanos()).unwrap();
                audience.time(Timestamp::from_nanos(self.now));
                return;
            }
            "!" => return self.report(rest, audience),
            _ => panic!("a step begins with >, <, + or !: {step:?}"),
        };
        let mut sent = Sent::parse(rest, &self.previous[side]);
        self.now += STEP;
        audience.time(Timestamp::from_nanos(self.now));
        if !sent.blind {
            self.acked[side] = self.next[1 - side];
        }
        if !sent.payload.is_empty() {
            self.previous[side].clone_from(&sent.payload);
        }
        let start = match sent.at {
            Some(at) => self.isn[side].wrapping_add(1).wrapping_add(at.cast_unsigned()),
            None if sent.again => self.next[side].wrapping_sub(len(&sent.payload)),
            None => self.next[side],
        };
        sent.payload.truncate(sent.first);
        if sent.flags & (TcpFlags::SYN | TcpFlags::RST) == 0 {
            sent.flags |= TcpFlags::ACK;
        }
        if !sent.unseen {
            self.send(side, start, &sent, audience);
        }
        if sent.at.is_none() && !sent.again {
            let consumed = u32::from(sent.flags & (TcpFlags::SYN | TcpFlags::FIN) != 0);
            self.next[side] = start.wrapping_add(len(&sent.payload)).wrapping_add(consumed);
        }
    }

    /// What the kernel says of a RST, in the words of a step.
    fn report(&self, words: &str, audience: &mut impl Audience) {
        let words: Vec<_> = words.split_whitespace().collect();
        let (side, reason, command) = match *words {
            ["complete"] => {
                return audience.complete(Timestamp::from_nanos(self.now).after(Duration::from_secs(1)));
            }
            [side, reason] => (side, reason, None),
            [side, reason, command] => (side, reason, Some(command)),
            _ => panic!("not a report: {words:?}"),
        };
        let side = usize::from(side == "<");
        audience.report(LocalReset {
            timestamp: Timestamp::from_nanos(self.now),
            local: if side == 0 { self.client } else { self.server },
            remote: if side == 0 { self.server } else { self.client },
            sequence: self.next[side],
            acknowledgement: self.next[1 - side],
            reason: Some(reason.into()),
            process: command.map(|command| Process { pid: 4242, command: command.to_owned() }),
        });
    }

    /// Hands on a step's segments, as the variation wants it.
    fn send(&self, side: usize, start: u32, sent: &Sent, audience: &mut impl Audience) {
        let size = match self.variation {
            Variation::SingleBytes if sent.flags & TcpFlags::SYN == 0 => 1,
            _ => sent.mss,
        };
        let mut parts: Vec<&[u8]> = sent.payload.chunks(size.min(sent.payload.len().max(1))).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let mut sequence = start;
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            let left = if sent.enough {
                RECORD_HEADER_LEN.saturating_sub(sequence.wrapping_sub(start) as usize)
            } else {
                usize::MAX
            };
            if left == 0 {
                return;
            }
            let is_enough = left <= part.len();
            let flags = if last { sent.flags } else { TcpFlags::ACK };
            let sequence_of_part = sequence;
            let captured = if sent.cut { &part[..part.len() / 2] } else { &part[..left.min(part.len())] };
            let segment = |interface| Segment {
                timestamp: Timestamp::from_nanos(self.now),
                interface,
                direction: if side == 0 { Direction::Ingress } else { Direction::Egress },
                source: if side == 0 { self.client } else { self.server },
                destination: if side == 0 { self.server } else { self.client },
                sequence: sequence_of_part,
                acknowledgement: if flags & TcpFlags::ACK != 0 { self.acked[side] } else { 0 },
                flags,
                window: sent.window,
                options: if sent.timestamps { TcpOptions::TIMESTAMPS } else { 0 },
                hop_limit: sent.ttl,
                ip_id: 0,
                vlan: 0,
                payload_len: len(part),
                chunks: if captured.is_empty() {
                    smallvec![]
                } else {
                    smallvec![Chunk { offset: 0, bytes: captured }]
                },
                notes: if is_enough { Notes::LAST } else { 0 },
                is_own: sent.own,
            };
            if self.variation == Variation::Translated {
                let (client, server) = self.translated();
                let (source, destination) = if side == 0 { (client, server) } else { (server, client) };
                // The packet loses a hop on its way through the node.
                let (direction, hop_limit) = if side == 0 {
                    (Direction::Egress, sent.ttl - 1)
                } else {
                    (Direction::Ingress, sent.ttl + 1)
                };
                let behind = Segment { source, destination, direction, hop_limit, ..segment(2) };
                let passing = if side == 0 { [segment(1), behind] } else { [behind, segment(1)] };
                for segment in &passing {
                    audience.segment(segment);
                }
                sequence = sequence.wrapping_add(len(part));
                continue;
            }
            audience.segment(&segment(1));
            match self.variation {
                // A SYN, FIN or RST that is doubled is a retransmission like any other.
                Variation::Doubled if !part.is_empty() && !sent.again => audience.segment(&segment(1)),
                Variation::TwoInterfaces => audience.segment(&segment(2)),
                _ => {}
            }
            sequence = sequence.wrapping_add(len(part));
        }
    }
}

fn address(variation: Variation, address: Ipv4Addr) -> IpAddr {
    match variation {
        Variation::Ipv6 => {
            let [a, b] = [0, 16].map(|shift| u16::try_from(address.to_bits() >> shift & 0xffff).unwrap());
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, b, a).into()
        }
        _ => address.into(),
    }
}

/// One step's meaning.
struct Sent {
    flags: u8,
    payload: Vec<u8>,
    window: u16,
    timestamps: bool,
    ttl: u8,
    unseen: bool,
    blind: bool,
    cut: bool,
    enough: bool,
    again: bool,
    own: bool,
    at: Option<i32>,
    mss: usize,
    first: usize,
}

impl Sent {
    fn parse(text: &str, previous: &[u8]) -> Self {
        let mut sent = Self {
            flags: 0,
            payload: Vec::new(),
            window: 502,
            timestamps: true,
            ttl: 64,
            unseen: false,
            blind: false,
            cut: false,
            enough: false,
            again: false,
            own: false,
            at: None,
            mss: usize::MAX,
            first: usize::MAX,
        };
        if let Some(line) = text.strip_prefix("text ") {
            sent.payload = format!("{line}\r\n").into_bytes();
            return sent;
        }
        let mut words = Vec::new();
        let mut with = false;
        for word in text.split_whitespace() {
            match word {
                "with" => with = true,
                _ if with => {
                    sent.flags |= flags(word).unwrap_or_else(|| panic!("no flags: {word}"));
                    with = false;
                }
                "unseen" => sent.unseen = true,
                "blind" => sent.blind = true,
                "cut" => sent.cut = true,
                "enough" => sent.enough = true,
                "again" => sent.again = true,
                "own" => sent.own = true,
                "ts" => sent.timestamps = true,
                _ => match word.split_once('=') {
                    Some(("window", value)) => sent.window = value.parse().unwrap(),
                    Some(("ttl", value)) => sent.ttl = value.parse().unwrap(),
                    Some(("at", value)) => sent.at = Some(value.parse().unwrap()),
                    Some(("mss", value)) => sent.mss = value.parse().unwrap(),
                    Some(("first", value)) => sent.first = value.parse().unwrap(),
                    _ => words.push(word),
                },
            }
        }
        if sent.again && words.is_empty() {
            sent.payload = previous.to_vec();
            return sent;
        }
        if let [word] = *words
            && let Some(bits) = flags(word)
        {
            sent.flags |= bits;
            // A bare RST has neither window nor options.
            if bits == TcpFlags::RST {
                sent.window = 0;
                sent.timestamps = false;
            }
            return sent;
        }
        sent.payload = payload(&words);
        sent
    }
}

fn flags(word: &str) -> Option<u8> {
    word.split(',').try_fold(0, |bits, flag| {
        Some(
            bits | match flag {
                "syn" => TcpFlags::SYN,
                "ack" => TcpFlags::ACK,
                "fin" => TcpFlags::FIN,
                "rst" => TcpFlags::RST,
                _ => return None,
            },
        )
    })
}

fn payload(words: &[&str]) -> Vec<u8> {
    let arguments = Arguments(words.get(1..).unwrap_or_default());
    match *words {
        ["hello", ..] => record(22, 0x0301, &message(1, &client_hello(&arguments))),
        ["server_hello", ..] => record(22, 0x0303, &message(2, &server_hello(&arguments, false))),
        ["hello_retry", ..] => record(22, 0x0303, &message(2, &server_hello(&arguments, true))),
        ["alert", level, code] => {
            record(21, 0x0303, &[if level == "fatal" { 2 } else { 1 }, code.parse().unwrap()])
        }
        ["ccs"] => record(20, 0x0303, &[1]),
        ["finished"] => record(22, 0x0303, &[0xee; 40]),
        ["record", kind, length] => {
            record(kind.parse().unwrap(), 0x0303, &vec![0xee; length.parse().unwrap()])
        }
        ["data", ref lengths @ ..] => lengths
            .iter()
            .flat_map(|length| record(23, 0x0303, &vec![0xee; length.parse().unwrap()]))
            .collect(),
        ["message", kind, length] => {
            record(22, 0x0303, &message(kind.parse().unwrap(), &vec![0; length.parse().unwrap()]))
        }
        ["certificate", name] => record(22, 0x0303, &message(11, &certificate_list(name))),
        ["certificate_13", name] => {
            // Handshake header, context, list header, extensions per certificate, inner type, tag.
            let list = certificates::chain(name).iter().map(|der| 3 + der.len() + 2).sum::<usize>();
            record(23, 0x0303, &vec![0xee; 4 + 1 + 3 + list + 1 + 16])
        }
        ["certificate_request", authorities] => {
            record(22, 0x0303, &message(13, &certificate_request(authorities)))
        }
        ["raw", hex] => unhex(hex),
        ["raw", hex, length] => {
            let mut bytes = unhex(hex);
            bytes.resize(length.parse().unwrap(), 0);
            bytes
        }
        _ => panic!("not a step: {words:?}"),
    }
}

/// `key=value` and bare words of a step.
struct Arguments<'a>(&'a [&'a str]);

impl<'a> Arguments<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.split_once('=').filter(|(name, _)| *name == key)).map(|(_, v)| v)
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    /// A list of 16-bit numbers.
    fn numbers(&self, key: &str, default: &[u16]) -> Vec<u16> {
        match self.get(key) {
            None => default.to_vec(),
            Some("") => Vec::new(),
            Some(list) => list.split(',').map(number).collect(),
        }
    }
}

fn client_hello(arguments: &Arguments<'_>) -> Vec<u8> {
    let legacy = arguments.get("max").map_or(0x0303, version).min(0x0303);
    let default_versions: &[u16] = if arguments.get("max").is_some() { &[] } else { &[0x0304, 0x0303] };
    let versions = arguments.numbers("versions", default_versions);
    let suites = arguments.numbers("suites", &[0x1301, 0x1302, 0xc02f, 0xc030]);
    let groups = arguments.numbers("groups", &[0x001d, 0x0017]);
    let schemes = arguments.numbers("sigs", &[0x0403, 0x0804, 0x0401]);
    let mut extensions = Vec::new();
    if let Some(name) = arguments.get("sni") {
        let mut entry = vec![0];
        entry.extend(prefixed16(name.as_bytes()));
        extensions.extend(extension(0, &prefixed16(&entry)));
    }
    if !groups.is_empty() {
        extensions.extend(extension(10, &prefixed16(&bytes_of(&groups))));
    }
    if !schemes.is_empty() {
        extensions.extend(extension(13, &prefixed16(&bytes_of(&schemes))));
    }
    if let Some(protocols) = arguments.get("alpn") {
        let list: Vec<u8> = protocols.split(',').flat_map(|name| prefixed8(name.as_bytes())).collect();
        extensions.extend(extension(16, &prefixed16(&list)));
    }
    if let Some(length) = arguments.get("ticket") {
        extensions.extend(extension(35, &vec![0x77; length.parse().unwrap()]));
    }
    if !versions.is_empty() {
        extensions.extend(extension(43, &prefixed8(&bytes_of(&versions))));
        let share = |group: u16| [&group.to_be_bytes()[..], &prefixed16(&[0x55; 32])].concat();
        let shares: Vec<u8> = groups.first().copied().map(share).unwrap_or_default();
        extensions.extend(extension(51, &prefixed16(&shares)));
    }
    if arguments.has("early") {
        extensions.extend(extension(42, &[]));
    }
    if arguments.has("ech") {
        extensions.extend(extension(0xfe0d, &[0; 64]));
    }
    if let Some(length) = arguments.get("pad") {
        extensions.extend(extension(21, &vec![0; length.parse().unwrap()]));
    }
    if arguments.has("psk") || arguments.has("early") {
        let identity = [&prefixed16(&[0x99; 32])[..], &[0; 4]].concat();
        let binders = prefixed8(&[0x11; 32]);
        extensions.extend(extension(45, &[1, 1]));
        extensions.extend(extension(41, &[prefixed16(&identity), prefixed16(&binders)].concat()));
    }
    let mut body = legacy.to_be_bytes().to_vec();
    body.extend([0xaa; 32]);
    body.extend(prefixed8(&[0xbb; 32]));
    body.extend(prefixed16(&bytes_of(&suites)));
    body.extend(prefixed8(&[0]));
    body.extend(prefixed16(&extensions));
    body
}

fn server_hello(arguments: &Arguments<'_>, retry: bool) -> Vec<u8> {
    let selected = arguments.get("version").map_or(0x0304, version);
    let suite = arguments.get("suite").map_or(if selected == 0x0304 { 0x1301 } else { 0xc02f }, number);
    let mut random = if retry { HELLO_RETRY_RANDOM.to_vec() } else { vec![0xcc; 32] };
    if arguments.has("downgrade") {
        random.truncate(24);
        random.extend(b"DOWNGRD\x01");
    }
    let mut extensions = Vec::new();
    if selected == 0x0304 {
        extensions.extend(extension(43, &selected.to_be_bytes()));
        let group = arguments.get("group").map_or(0x001d, number);
        let share = group.to_be_bytes().to_vec();
        let share = if retry { share } else { [share, prefixed16(&[0x44; 32])].concat() };
        extensions.extend(extension(51, &share));
    }
    if arguments.has("psk") {
        extensions.extend(extension(41, &[0, 0]));
    }
    if let Some(protocol) = arguments.get("alpn") {
        extensions.extend(extension(16, &prefixed16(&prefixed8(protocol.as_bytes()))));
    }
    let echoes = selected == 0x0304 || arguments.has("sid");
    let mut body = selected.min(0x0303).to_be_bytes().to_vec();
    body.extend(random);
    body.extend(prefixed8(if echoes { &[0xbb; 32] } else { &[] }));
    body.extend(suite.to_be_bytes());
    body.push(0);
    body.extend(prefixed16(&extensions));
    body
}

fn certificate_list(name: &str) -> Vec<u8> {
    prefixed24(&certificates::chain(name).iter().flat_map(|der| prefixed24(der)).collect::<Vec<_>>())
}

fn certificate_request(authorities: &str) -> Vec<u8> {
    let names: Vec<u8> =
        authorities.split(',').flat_map(|name| prefixed16(certificates::client_authority(name))).collect();
    [prefixed8(&[1, 64]), prefixed16(&bytes_of(&[0x0403, 0x0401])), prefixed16(&names)].concat()
}

/// SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
const HELLO_RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

fn record(kind: u8, version: u16, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &version.to_be_bytes(), &prefixed16(body)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = len(body).to_be_bytes();
    [&[kind, length[1], length[2], length[3]][..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed16(body)].concat()
}

fn prefixed8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

fn prefixed16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn prefixed24(bytes: &[u8]) -> Vec<u8> {
    [&len(bytes).to_be_bytes()[1..], bytes].concat()
}

fn bytes_of(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn version(text: &str) -> u16 {
    match text {
        "1.3" => 0x0304,
        "1.2" => 0x0303,
        "1.1" => 0x0302,
        "1.0" => 0x0301,
        "ssl3" => 0x0300,
        _ => number(text),
    }
}

fn number(text: &str) -> u16 {
    match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn parse_duration(text: &str) -> Duration {
    let (value, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap());
    let value = value.parse().unwrap();
    match unit.trim() {
        "us" => Duration::from_micros(value),
        "ms" => Duration::from_millis(value),
        "s" => Duration::from_secs(value),
        _ => panic!("not a duration: {text:?}"),
    }
}

fn len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}
