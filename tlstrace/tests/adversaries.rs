//! Adversaries: what somebody sends who means harm, and what becomes of the innocent connections beside it.
//!
//! Each attack must leave three things alone: memory (counted by the allocator), work (bytes asked of the allocator for
//! each byte on the wire, as time is not the same twice), and the verdicts on everybody else. What can be said of the
//! attack itself is in the scenarios.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::alloc::System;
use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use smallvec::smallvec;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tlstrace::engine::segment::{Chunk, Direction, Segment};
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::metrics::{Format, Metrics};
use tlstrace::sink::{Observer, SINKS, Sink, Style};
use tlstrace::tls::Decoded;
use tlstrace::tls::certificate::{CertificateCache, CertificateChain};
use tlstrace::verdict::Confidence;
use tlstrace_common::event::TcpFlags;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The allocator counts for the whole process, so that one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Connections that the table holds, so that it is soon full.
const TABLE: usize = 1024;
/// Most of the memory that an open connection takes whose buffers are empty.
const CONNECTION: usize = 4 * KIB;
/// What an engine may hold beside its table and its history: buffers, parsed messages, certificates, what was said.
const BESIDE: usize = 36 * MIB;
/// [`Settings::max_weight`].
const WEIGHT: usize = 16 * MIB;

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const FIN: u8 = TcpFlags::FIN | TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;

#[test]
fn a_flood_of_syns_takes_no_more_than_the_table_and_nobody_else_suffers() {
    let mut world = World::new();
    let mut attacker = 0;
    world.among_innocents(10, |world| {
        for _ in 0..300 {
            attacker += 1;
            let mut flow = Flow::new(spoofed(attacker), SERVER);
            world.send(&mut flow, Side::Client, SYN, &[]);
        }
    });
    world.takes_at_most(TABLE * CONNECTION + 2 * MIB);
}

#[test]
fn a_flood_that_pushes_out_innocent_connections_makes_nobody_say_what_is_not_so() {
    let mut world = World::new();
    let mut attacker = 0;
    let innocents = world.play_innocents(3, |world| {
        for _ in 0..=TABLE {
            attacker += 1;
            let mut flow = Flow::new(spoofed(attacker), SERVER);
            world.send(&mut flow, Side::Client, SYN, &[]);
        }
    });
    world.end();
    for innocent in innocents {
        world.says_nothing_wrong(innocent);
    }
    world.takes_at_most(TABLE * CONNECTION + 2 * MIB);
}

#[test]
fn half_a_client_hello_on_each_of_very_many_connections_takes_no_more_than_the_table() {
    let mut world = World::new();
    let hello = record(HANDSHAKE, &client_hello(&[server_name(b"slow.example")]));
    let mut attacker = 0;
    world.among_innocents(10, |world| {
        for _ in 0..40 {
            attacker += 1;
            let mut flow = Flow::new(spoofed(attacker), SERVER);
            world.connect(&mut flow);
            world.send(&mut flow, Side::Client, ACK, &hello[..hello.len() / 2]);
        }
    });
    world.takes_at_most(TABLE * CONNECTION + 2 * MIB);
}

#[test]
fn buffers_are_bounded_over_all_connections() {
    let mut world = World::new();
    // Longer than any real one, and short enough to be kept.
    let long = [&[1, 1, 0xff, 0][..], &[0; 16_000]].concat();
    let first = record(HANDSHAKE, &long);
    let more = record(HANDSHAKE, &[0; 16_000]);
    let mut flows: Vec<_> = (1..TABLE).map(|number| Flow::new(spoofed(number), SERVER)).collect();
    for flow in &mut flows {
        world.connect(flow);
        world.send(flow, Side::Client, ACK, &first);
    }
    for _ in 0..3 {
        for flow in &mut flows {
            world.send(flow, Side::Client, ACK, &more);
        }
    }
    world.among_innocents(1, |_| {});
    world.takes_at_most(TABLE * CONNECTION + BESIDE);
}

#[test]
fn what_is_held_behind_holes_is_bounded_over_all_connections() {
    let mut world = World::new();
    let mut flows: Vec<_> = (1..TABLE).map(|number| Flow::new(spoofed(number), SERVER)).collect();
    for flow in &mut flows {
        world.connect(flow);
        flow.next[0] = flow.next[0].wrapping_add(10);
        for _ in 0..8 {
            world.send(flow, Side::Client, ACK, &[22; 16_000]);
        }
    }
    world.among_innocents(1, |_| {});
    world.takes_at_most(TABLE * CONNECTION + BESIDE);
}

#[test]
fn a_client_hello_of_sixteen_mebibytes_is_not_kept() {
    let mut world = World::new();
    let mut flow = world.flow_of_interest(spoofed(1));
    world.connect(&mut flow);
    world.send(&mut flow, Side::Client, ACK, &record(HANDSHAKE, &[1, 0xff, 0xff, 0xff]));
    let body = record(HANDSHAKE, &[0; 16_384]);
    world.among_innocents(1, |world| {
        for _ in 0..100 {
            world.send(&mut flow, Side::Client, ACK, &body);
        }
    });
    world.takes_at_most(2 * MIB);
    world.works_at_most(1.0);
    world.says_nothing_certain(flow.client);
}

#[test]
fn ten_thousand_tiny_records_of_each_kind_are_bounded() {
    let mut world = World::new();
    let kinds: [(u8, &[u8]); 7] = [
        (HANDSHAKE, &[1]),
        (HANDSHAKE, &[]),
        (HANDSHAKE, &[0, 0, 0, 0]),
        (20, &[1]),
        (21, &[1, 112]),
        (21, &[2, 40]),
        (23, &[0]),
    ];
    for (number, (kind, body)) in kinds.into_iter().enumerate() {
        let many = record(kind, body).repeat(1000);
        for side in [Side::Client, Side::Server] {
            let mut flow = Flow::new(spoofed(2 * number + side as usize), SERVER);
            world.connect(&mut flow);
            world.send(&mut flow, Side::Client, ACK, &record(HANDSHAKE, &client_hello(&[])));
            for _ in 0..10 {
                world.send(&mut flow, side, ACK, &many);
            }
        }
    }
    world.among_innocents(1, |_| {});
    world.takes_at_most(2 * MIB);
}

#[test]
fn a_chain_of_two_hundred_certificates_and_bombs_of_asn_1_cost_what_they_weigh() {
    let _alone = alone();
    let mut cache = CertificateCache::new();
    let certificate = server_certificate();
    let names = |count: usize| der(0x30, &der(0x82, b"a").repeat(count));
    let nested = (0..5_000).fold(Vec::new(), |inner, _| der(0x30, &inner));
    let huge = [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &vec![0x30; 60_000]].concat();
    let unbounded = [0x30, 0x80].repeat(30_000);
    let bombs: [(&str, Vec<Vec<u8>>); 6] = [
        ("long chain", vec![certificate.clone(); 200]),
        ("long chain of different certificates", (0..200).map(|i| with_serial(&certificate, i)).collect()),
        ("nested", vec![nested]),
        ("huge length", vec![huge]),
        ("indefinite length", vec![unbounded]),
        ("names", vec![with_names(&names(100_000)); 2]),
    ];
    for (what, chain) in bombs {
        let list: Vec<u8> = chain.iter().flat_map(|der| prefixed(3, der)).collect();
        let body = prefixed(3, &list);
        let (held, asked) = (held(), asked());
        let decoded = CertificateChain::decode(&body, &mut cache);
        let asked = self::asked() - asked;
        assert!(asked <= 32 * body.len() + 64 * KIB, "{what}: {asked} bytes asked for {}", body.len());
        let Decoded::Complete(chain) = decoded else { panic!("{what}: {decoded:?}") };
        assert!(chain.certificates.len() <= CertificateChain::MAX_CERTIFICATES, "{what}");
        let held = self::held() - held;
        assert!(held <= 2 * body.len() + 64 * KIB, "{what}: {held} bytes held of {}", body.len());
    }
}

#[test]
fn the_cache_of_certificates_is_bounded_in_bytes_whatever_they_say() {
    let _alone = alone();
    let before = held();
    let mut cache = CertificateCache::new();
    // As much as can be said in few bytes.
    let certificate = with_names(&der(0x30, &der(0x82, b"a").repeat(256)));
    for serial in 0..3_000u32 {
        let body = prefixed(3, &prefixed(3, &with_serial(&certificate, serial)));
        let Decoded::Complete(chain) = CertificateChain::decode(&body, &mut cache) else { panic!() };
        assert!(chain.leaf().is_some_and(|leaf| leaf.names.len() == 256));
    }
    let held = held() - before;
    assert!(held <= 3 * CertificateCache::GENERATION_BYTES, "{held}");
}

#[test]
fn names_of_any_bytes_and_any_length_reach_no_terminal_and_no_label() {
    let mut world = World::new();
    let long = vec![b'a'; 65_000];
    let names: [&[u8]; 8] = [
        b"\x1b]0;owned\x07\x1b[2J",
        b"nul\0.example",
        b"line\r\nfeed{\"tlstrace\":1}",
        "\u{202e}elpmaxe\u{2066}.example".as_bytes(),
        b"\xff\xfe\x80",
        b"quote\"back\\slash<script>",
        b"",
        &long,
    ];
    for (number, name) in names.into_iter().enumerate() {
        let mut flow = Flow::new(spoofed(number), SERVER);
        world.connect(&mut flow);
        let hello = client_hello(&[server_name(name)]);
        let records: Vec<u8> = hello.chunks(16_000).flat_map(|part| record(HANDSHAKE, part)).collect();
        world.send(&mut flow, Side::Client, ACK, &records);
        // unrecognized_name
        world.send(&mut flow, Side::Server, ACK, &record(21, &[2, 112]));
        world.send(&mut flow, Side::Server, FIN, &[]);
        world.send(&mut flow, Side::Client, FIN, &[]);
    }
    world.among_innocents(1, |_| {});
    assert_eq!(world.verdicts, names.len() + 1);
    world.takes_at_most(4 * MIB);
}

#[test]
fn the_longest_hello_and_the_longest_chain_make_a_line_that_can_be_shipped() {
    let mut world = World::new();
    let suites = prefixed(2, &(0..32_000u16).flat_map(u16::to_be_bytes).collect::<Vec<_>>());
    let extensions: Vec<u8> =
        (1000..17_000u16).flat_map(|kind| [kind.to_be_bytes(), [0, 0]].concat()).collect();
    let hello = [&[3, 3][..], &[5; 32], &[0], &suites, &[1, 0], &prefixed(2, &extensions)].concat();
    let lists: Vec<Vec<u8>> = [10u16, 13, 50, 16, 43, 51, 27, 34]
        .into_iter()
        .map(|kind| {
            let list = match kind {
                // One protocol of one letter after another; versions have a length in one byte.
                16 => prefixed(2, &[1, b'x'].repeat(3_900)),
                43 => prefixed(1, &[3, 4].repeat(127)),
                51 => prefixed(2, &[0, 29, 0, 1, 7].repeat(1_500)),
                27 => prefixed(1, &[0, 9].repeat(127)),
                _ => prefixed(2, &(0..3_900u16).flat_map(u16::to_be_bytes).collect::<Vec<_>>()),
            };
            [&kind.to_be_bytes()[..], &prefixed(2, &list)].concat()
        })
        .collect();
    let chain = vec![with_names(&der(0x30, &der(0x82, &[b'a'; 200]).repeat(30))); 16];
    let hellos = [message(1, &hello), client_hello(&lists)]
        .map(|hello| hello.chunks(16_000).flat_map(|part| record(HANDSHAKE, part)).collect::<Vec<_>>());
    // Refused for everything that there is to refuse.
    for (number, alert) in [40, 47, 70, 71, 80, 86, 109, 110, 112, 115, 116, 120].into_iter().enumerate() {
        for (hello, client) in hellos.iter().zip([1000, 2000]) {
            let mut flow = Flow::new(spoofed(client + number), listener(number, 443));
            world.connect(&mut flow);
            world.send(&mut flow, Side::Client, ACK, hello);
            world.send(&mut flow, Side::Server, FIN, &record(21, &[2, alert]));
            world.send(&mut flow, Side::Client, FIN, &[]);
        }
    }
    for (number, hello) in hellos.iter().enumerate() {
        let mut flow = Flow::new(spoofed(number), SERVER);
        world.connect(&mut flow);
        world.send(&mut flow, Side::Client, ACK, hello);
        for part in server_flight(&chain).chunks(16_000) {
            world.send(&mut flow, Side::Server, ACK, part);
        }
        world.send(&mut flow, Side::Client, ACK, &record(21, &[2, 48]));
        world.send(&mut flow, Side::Client, FIN, &[]);
        world.send(&mut flow, Side::Server, FIN, &[]);
    }
    world.end();
    assert_eq!(world.verdicts, 2 * 12 + 2);
    for field in ["tls.client.supported_groups", "tlstrace.offer.key_shares", "tlstrace.server_certificates"]
    {
        assert!(world.cut.contains(field), "{field}: {:?}", world.cut);
    }
    assert!(!world.cut.contains("tls.server.names"), "the leaf's names have room");
}

#[test]
fn a_client_that_makes_up_names_does_not_make_a_listener_forgotten_nor_metrics_grow() {
    let mut world = World::new();
    // A listener that is known to want a name: three clients that send one are served.
    let gateway = listener(0, 443);
    let known = |world: &mut World, client: usize| {
        let mut flow =
            Flow::new((Ipv4Addr::from(0x0a01_0000 + u32::try_from(client).unwrap()), 5000).into(), gateway);
        world.handshake(&mut flow, &client_hello(&[server_name(b"shop.example")]), false);
    };
    (0..4).for_each(|client| known(&mut world, client));
    let series = world.series();
    for number in 0..3_000usize {
        let name = format!("{number:x}.made-up.example");
        let listener = if number % 2 == 0 { gateway } else { listener(1 + number % 1500, 443) };
        let mut flow = Flow::new(spoofed(number), listener);
        world.handshake(&mut flow, &client_hello(&[server_name(name.as_bytes())]), true);
    }
    // The verdicts differ from the first ones; what is named in them does not count.
    assert!(world.series() <= series + 4, "{} of {series}", world.series());
    world.takes_at_most(16 * MIB);

    let client = (Ipv4Addr::new(10, 1, 9, 9), 5000).into();
    let mut nameless = Flow { server: gateway, ..world.flow_of_interest(client) };
    world.connect(&mut nameless);
    world.send(&mut nameless, Side::Client, ACK, &record(HANDSHAKE, &client_hello(&[])));
    world.send(&mut nameless, Side::Server, RST | ACK, &[]);
    world.end();
    assert_eq!(world.verdict_on(nameless.client).0, "sni_missing", "what is known of the listener");
}

#[test]
fn servers_that_show_a_new_chain_for_every_name_do_not_fill_the_memory() {
    let mut world = World::new();
    let certificate = with_names(&der(0x30, &der(0x82, &[b'a'; 240]).repeat(250)));
    for number in 0..500u32 {
        let place = number as usize;
        let mut flow = Flow::new(spoofed(place), listener(place % 100, 443));
        let hello = client_hello(&[server_name(format!("{number:x}.example").as_bytes())]);
        let flight = server_flight(&[with_serial(&certificate, number)]);
        world.connect(&mut flow);
        world.send(&mut flow, Side::Client, ACK, &record(HANDSHAKE, &hello));
        world.send(&mut flow, Side::Server, ACK, &flight);
        world.finish_handshake(&mut flow);
    }
    world.among_innocents(1, |_| {});
    world.takes_at_most(BESIDE);
}

#[test]
fn alternating_claims_of_a_proxy_protocol_header_teach_nothing_that_was_not_accepted() {
    let mut world = World::new();
    for number in 0..2000usize {
        let mut flow = Flow::new(spoofed(number), SERVER);
        world.connect(&mut flow);
        let claim = format!("PROXY TCP4 10.{}.2.3 10.0.0.2 {} 443\r\n", number % 256, 1000 + number);
        let header = if number % 2 == 0 { claim.as_bytes() } else { V2_LOCAL };
        world.send(&mut flow, Side::Client, ACK, header);
        world.send(
            &mut flow,
            Side::Client,
            ACK,
            &record(HANDSHAKE, &client_hello(&[server_name(b"a.example")])),
        );
        world.send(&mut flow, Side::Server, RST | ACK, &[]);
    }
    world.among_innocents(4, |_| {});
    world.takes_at_most(4 * MIB);
}

#[test]
fn a_blind_reset_or_end_out_of_the_window_is_no_ending() {
    // What the receiver ignores (RFC 9293 §3.10.7.4), at every point of a handshake, from either side.
    for flags in [RST, RST | ACK, FIN] {
        for side in [Side::Client, Side::Server] {
            for at in 1..8 {
                let mut world = World::new();
                let mut flow = Flow::new(spoofed(1), SERVER);
                let mut step = 0;
                let clients = world.play_innocents(1, |world| {
                    step += 1;
                    if step == at {
                        // Somebody who does not see the connection guesses its addresses, and not its numbers.
                        let innocent = innocent(0);
                        flow = Flow::new(innocent, SERVER);
                        flow.next = [0x5000_0000, 0x9000_0000];
                        world.send(&mut flow, side, flags, &[]);
                        // The handshake takes its time.
                        world.wait(3_000);
                    }
                });
                world.end();
                let (verdict, _) = world.verdict_on(clients[0]);
                assert_eq!(verdict, "ok", "{flags:#x} at {at} from {side:?}");
            }
        }
    }
}

/// Who takes part in a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Client,
    Server,
}

/// A connection, by what either side sends next.
#[derive(Clone, Debug)]
struct Flow {
    client: SocketAddr,
    server: SocketAddr,
    next: [u32; 2],
}

impl Flow {
    fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, next: [0x1000_0000, 0x7000_0000] }
    }
}

/// An engine, everything that prints, and what they have cost.
struct World {
    engine: Engine,
    now: u64,
    /// What was said about whom the test asks after, and how often anything was.
    said: HashMap<SocketAddr, Vec<(&'static str, Confidence)>>,
    asked_for: HashSet<SocketAddr>,
    verdicts: usize,
    /// The fields that lines call cut.
    cut: HashSet<String>,
    sinks: Vec<Box<dyn Sink>>,
    metrics: Metrics,
    /// Allocated before the first segment, and most since.
    before: usize,
    peak: usize,
    asked: usize,
    /// Bytes of frames on the wire.
    wire: usize,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    fn new() -> Self {
        let alone = alone();
        let style = Style { verbose: true, ..Style::default() };
        let sinks = SINKS.iter().map(|kind| (kind.open)(style)).collect();
        let engine =
            Engine::new(Settings { max_connections: TABLE, max_weight: WEIGHT, ..Settings::default() });
        Self {
            engine,
            now: 1_800_000_000_000_000_000,
            said: HashMap::new(),
            asked_for: HashSet::new(),
            verdicts: 0,
            cut: HashSet::new(),
            sinks,
            metrics: Metrics::new().with_certificates(20),
            before: held(),
            peak: 0,
            asked: asked(),
            wire: 0,
            _alone: alone,
        }
    }

    /// A connection to [`SERVER`] whose verdicts are kept.
    fn flow_of_interest(&mut self, client: SocketAddr) -> Flow {
        self.asked_for.insert(client);
        Flow::new(client, SERVER)
    }

    fn send(&mut self, flow: &mut Flow, side: Side, flags: u8, payload: &[u8]) {
        self.now += 10_000;
        let (from, to) = (side as usize, 1 - side as usize);
        let ends = [flow.client, flow.server];
        let chunks =
            if payload.is_empty() { smallvec![] } else { smallvec![Chunk { offset: 0, bytes: payload }] };
        let segment = Segment {
            timestamp: Timestamp::from_nanos(self.now),
            interface: 1,
            direction: Direction::Ingress,
            source: ends[from],
            destination: ends[to],
            sequence: flow.next[from],
            acknowledgement: flow.next[to],
            flags,
            window: 512,
            options: 0,
            hop_limit: 64,
            ip_id: 0,
            vlan: 0,
            payload_len: u32::try_from(payload.len()).unwrap(),
            chunks,
            notes: 0,
            is_own: false,
        };
        self.engine.advance_to(segment.timestamp);
        self.engine.handle_segment(&segment);
        let counted = segment.payload_len + u32::from(flags & (TcpFlags::SYN | TcpFlags::FIN) != 0);
        flow.next[from] = flow.next[from].wrapping_add(counted);
        self.wire += 54 + payload.len();
        self.drain();
        self.peak = self.peak.max(held().saturating_sub(self.before));
        assert!(self.engine.tracked() <= TABLE);
    }

    fn drain(&mut self) {
        while let Some(Output::Verdict(verdict)) = self.engine.poll_output() {
            self.metrics.observe(&verdict);
            for sink in &mut self.sinks {
                let mut line = Vec::new();
                sink.emit(&verdict, &Observer::default(), &mut line).unwrap();
                let text = String::from_utf8(line).unwrap();
                assert!(!text.chars().any(|c| is_active(c) && c != '\n'), "{text:?}");
                assert!(text.len() < 128 * KIB, "a line of {} bytes", text.len());
                if text.starts_with('{') && text.contains(r#""cut":"#) {
                    let line: Value = serde_json::from_str(&text).unwrap();
                    let fields = line["tlstrace"]["cut"].as_array().unwrap();
                    self.cut.extend(fields.iter().map(|field| field.as_str().unwrap().to_owned()));
                }
            }
            self.verdicts += 1;
            let client = verdict.facts.client().address;
            if self.asked_for.contains(&client) {
                self.said.entry(client).or_default().push((verdict.id, verdict.confidence));
            }
        }
    }

    fn connect(&mut self, flow: &mut Flow) {
        self.send(flow, Side::Client, SYN, &[]);
        self.send(flow, Side::Server, SYN | ACK, &[]);
        self.send(flow, Side::Client, ACK, &[]);
    }

    /// A whole connection with TLS 1.2, which the server refuses or both sides finish.
    fn handshake(&mut self, flow: &mut Flow, hello: &[u8], is_refused: bool) {
        self.connect(flow);
        self.send(flow, Side::Client, ACK, &record(HANDSHAKE, hello));
        if is_refused {
            self.send(flow, Side::Server, ACK, &record(21, &[2, 112]));
            self.send(flow, Side::Server, FIN, &[]);
            self.send(flow, Side::Client, FIN, &[]);
        } else {
            self.send(flow, Side::Server, ACK, SERVER_FLIGHT);
            self.finish_handshake(flow);
        }
    }

    fn finish_handshake(&mut self, flow: &mut Flow) {
        for (side, flags, payload) in &after_the_server_flight() {
            self.send(flow, *side, *flags, payload);
        }
    }

    /// Has innocent clients shake hands, one after another, with something in between all their segments. Returns them.
    fn play_innocents(&mut self, count: usize, mut between: impl FnMut(&mut Self)) -> Vec<SocketAddr> {
        let hello = record(HANDSHAKE, &client_hello(&[server_name(b"innocent.example")]));
        let first = [
            (Side::Client, SYN, vec![]),
            (Side::Server, SYN | ACK, vec![]),
            (Side::Client, ACK, vec![]),
            (Side::Client, ACK, hello),
            (Side::Server, ACK, SERVER_FLIGHT.to_vec()),
        ];
        let steps = [&first[..], &after_the_server_flight()].concat();
        (0..count)
            .map(|number| {
                let mut flow = self.flow_of_interest(innocent(number));
                for (side, flags, payload) in &steps {
                    self.send(&mut flow, *side, *flags, payload);
                    between(self);
                }
                flow.client
            })
            .collect()
    }

    /// The same, and each of them must have its one verdict.
    fn among_innocents(&mut self, count: usize, between: impl FnMut(&mut Self)) {
        let innocents = self.play_innocents(count, between);
        self.end();
        for innocent in innocents {
            assert_eq!(self.verdict_on(innocent).0, "ok");
        }
    }

    /// The only verdict on a client.
    fn verdict_on(&self, client: SocketAddr) -> (&'static str, Confidence) {
        let verdicts = self.said.get(&client).map_or(&[][..], Vec::as_slice);
        let [verdict] = verdicts else { panic!("{} verdicts on {client}: {verdicts:?}", verdicts.len()) };
        *verdict
    }

    /// What is said of a client whose handshake went well is that, or that not enough is known.
    fn says_nothing_wrong(&self, client: SocketAddr) {
        for (verdict, _) in self.said.get(&client).into_iter().flatten() {
            assert!(matches!(*verdict, "ok" | "undetermined"), "{verdict}");
        }
    }

    /// Nobody knows what this was.
    fn says_nothing_certain(&self, client: SocketAddr) {
        for (verdict, confidence) in self.said.get(&client).into_iter().flatten() {
            assert!(*confidence < Confidence::Observed || *verdict == "undetermined", "{verdict}");
        }
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += milliseconds * 1_000_000;
        self.engine.advance_to(Timestamp::from_nanos(self.now));
        self.drain();
    }

    fn end(&mut self) {
        self.wait(60_000);
        self.engine.finish();
        self.drain();
    }

    #[expect(clippy::print_stdout, reason = "shown with --show-output: the figures of docs/robustness.md")]
    fn takes_at_most(&self, bytes: usize) {
        assert!(self.peak <= bytes, "{} KiB of {} KiB", self.peak / KIB, bytes / KIB);
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        println!("{test}: {} KiB on the wire, at most {} KiB held", self.wire / KIB, self.peak / KIB);
    }

    /// Bytes asked of the allocator for each byte on the wire.
    fn works_at_most(&self, most: f64) {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = (asked() - self.asked) as f64 / self.wire as f64;
        assert!(ratio <= most, "{ratio}");
    }

    /// Lines that a scrape has.
    fn series(&self) -> usize {
        self.metrics.render(Format::Prometheus).lines().filter(|line| !line.starts_with('#')).count()
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// Bytes that were ever asked for.
fn asked() -> usize {
    ALLOCATOR.stats().bytes_allocated
}

/// Controls, and what changes the direction of text or is not to be seen (Unicode's `Cc`, and part of `Cf`).
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 443);

fn innocent(number: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 7, 7, 7), 50_000 + u16::try_from(number).unwrap()).into()
}

/// Any address.
fn spoofed(number: usize) -> SocketAddr {
    let number = u32::try_from(number).unwrap();
    (Ipv4Addr::from(0x0b00_0000 + number), 1024 + u16::try_from(number % 60_000).unwrap()).into()
}

fn listener(number: usize, port: u16) -> SocketAddr {
    (Ipv4Addr::from(0x0a05_0000 + u32::try_from(number).unwrap()), port).into()
}

const HANDSHAKE: u8 = 22;

/// A real one of TLS 1.2: ServerHello to ServerHelloDone.
const SERVER_FLIGHT: &[u8] = include_bytes!("../src/engine/fuzz/server_flight_12.bin");

/// Version 2, LOCAL: a load balancer that asks how its server is.
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn after_the_server_flight() -> Vec<(Side, u8, Vec<u8>)> {
    let finished = [record(20, &[1]), record(HANDSHAKE, &[7; 40])].concat();
    let key_exchange = record(HANDSHAKE, &message(16, &[0; 66]));
    let data = record(23, &[0; 100]);
    vec![
        (Side::Client, ACK, [key_exchange, finished.clone()].concat()),
        (Side::Server, ACK, finished),
        (Side::Client, ACK, data.clone()),
        (Side::Server, ACK, data),
        (Side::Client, FIN, vec![]),
        (Side::Server, FIN, vec![]),
    ]
}

/// ServerHello (TLS 1.2 with ECDHE), Certificate, ServerHelloDone.
fn server_flight(chain: &[Vec<u8>]) -> Vec<u8> {
    let hello = [&[3, 3][..], &[9; 32], &[0], &[0xc0, 0x2f], &[0]].concat();
    let list: Vec<u8> = chain.iter().flat_map(|der| prefixed(3, der)).collect();
    let messages = [message(2, &hello), message(11, &prefixed(3, &list)), message(14, &[])].concat();
    messages.chunks(16_000).flat_map(|part| record(HANDSHAKE, part)).collect()
}

/// The leaf in [`SERVER_FLIGHT`].
fn server_certificate() -> Vec<u8> {
    let start = SERVER_FLIGHT.windows(2).position(|bytes| bytes == [0x30, 0x82]).unwrap();
    let length = usize::from(u16::from_be_bytes([SERVER_FLIGHT[start + 2], SERVER_FLIGHT[start + 3]]));
    SERVER_FLIGHT[start..start + 4 + length].to_vec()
}

/// The certificate with other bytes in its signature, so that it is another one.
fn with_serial(certificate: &[u8], serial: u32) -> Vec<u8> {
    let mut certificate = certificate.to_vec();
    let end = certificate.len();
    certificate[end - 4..].copy_from_slice(&serial.to_be_bytes());
    certificate
}

/// A certificate whose only extension is these alternative names.
fn with_names(names: &[u8]) -> Vec<u8> {
    let oid = |bytes: &[u8]| der(6, bytes);
    let name = der(0x30, &der(0x31, &der(0x30, &[oid(&[0x55, 4, 3]), der(0x0c, b"a")].concat())));
    let algorithm = der(0x30, &oid(&[0x2b, 0x65, 0x70]));
    let validity = der(0x30, &[der(0x17, b"200101000000Z"), der(0x17, b"400101000000Z")].concat());
    let key = der(0x30, &[algorithm.clone(), der(3, &[0; 33])].concat());
    let extension = der(0x30, &[oid(&[0x55, 0x1d, 0x11]), der(4, names)].concat());
    let parts = [
        der(0xa0, &der(2, &[2])),
        der(2, &[1]),
        algorithm.clone(),
        name.clone(),
        validity,
        name,
        key,
        der(0xa3, &der(0x30, &extension)),
    ];
    der(0x30, &[der(0x30, &parts.concat()), algorithm, der(3, &[0; 65])].concat())
}

/// Tag, length and content (X.690 §8.1).
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        0..0x80 => vec![length[3]],
        0x80..0x100 => vec![0x81, length[3]],
        0x100..0x1_0000 => [&[0x82], &length[2..]].concat(),
        _ => [&[0x84], &length[..]].concat(),
    };
    [&[tag][..], &length, content].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &prefixed(2, body)].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &prefixed(3, body)].concat()
}

fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let suites = prefixed(2, &[0xc0, 0x2f, 0xc0, 0x30]);
    let body = [&[3, 3][..], &[5; 32], &[0], &suites, &[1, 0], &prefixed(2, &extensions.concat())].concat();
    message(1, &body)
}

fn server_name(name: &[u8]) -> Vec<u8> {
    [&[0, 0][..], &prefixed(2, &prefixed(2, &[&[0][..], &prefixed(2, name)].concat()))].concat()
}

/// With its length in front, in so many bytes.
fn prefixed(width: usize, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[4 - width..], bytes].concat()
}
