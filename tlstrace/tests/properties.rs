//! What must not matter: how a stream was cut, repeated, reordered and framed on its way to the engine.
//!
//! Every capture of `captures/` and the steps of every scenario are streams. Each property changes streams in
//! a way that TCP or TLS calls meaningless, and compares all that the JSON lines say but for times, prose
//! and the counts of segments and records. Whatever is cut off or damaged, nothing panics.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

#[path = "scenarios/certificates.rs"]
mod certificates;
#[expect(dead_code, reason = "scenarios are played here as they are written, and one connection at a time")]
#[path = "scenarios/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;
use smallvec::smallvec;
use tlstrace::capture::file::{self, CaptureReader};
use tlstrace::engine::segment::{Chunk, Segment};
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::sink::{Observer, SINKS, Style};
use tlstrace_common::encapsulation::LinkKind;
use tlstrace_common::event::TcpFlags;
use wire::{Audience, Player, Variation};

/// Segments further apart than this (in nanoseconds) do not change places and do not grow together.
const NEARBY: u64 = 50_000_000;

/// Extensions of captures.
const CAPTURES: &[&str] = &["pcap", "pcapng"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn segmentation_does_not_matter(stream in any_stream(), mut choices in any_choices()) {
        stream.must_be_the_same_as(&recut(&stream.packets, &mut choices))?;
    }

    #[test]
    fn segments_that_come_twice_do_not_matter(stream in any_stream(), mut choices in any_choices()) {
        stream.must_be_the_same_as(&duplicate(&stream.packets, &mut choices))?;
    }

    #[test]
    fn the_order_of_segments_within_a_flight_does_not_matter(
        stream in any_stream(),
        mut choices in any_choices(),
    ) {
        let pieces = recut(&stream.packets, &mut choices);
        stream.must_be_the_same_as(&swap_neighbours(&pieces, &mut choices))?;
    }

    #[test]
    fn record_boundaries_within_handshake_messages_do_not_matter(
        stream in any_stream(),
        mut choices in any_choices(),
    ) {
        stream.must_be_the_same_as(&split_records(&stream.packets, &mut choices))?;
    }

    #[test]
    fn a_second_copy_with_other_content_does_not_matter(
        stream in any_stream(),
        mut choices in any_choices(),
    ) {
        let pieces = recut(&stream.packets, &mut choices);
        stream.must_be_the_same_as(&overlap(&pieces, &mut choices))?;
    }

    #[test]
    fn a_second_interface_does_not_matter(stream in any_stream(), mut choices in any_choices()) {
        stream.must_be_the_same_as(&see_twice(&stream.packets, &mut choices))?;
    }

    #[test]
    fn all_of_it_together_does_not_matter(stream in any_stream(), mut choices in any_choices()) {
        let mut packets = split_records(&stream.packets, &mut choices);
        for change in [recut, swap_neighbours, duplicate, see_twice] {
            packets = change(&packets, &mut choices);
        }
        stream.must_be_the_same_as(&packets)?;
    }

    #[test]
    fn a_stream_that_is_cut_inside_a_segment_gives_a_verdict_or_none(
        stream in any_stream(),
        mut choices in any_choices(),
    ) {
        let mut packets = stream.packets.clone();
        packets.truncate(1 + choices.below(packets.len()));
        if let Some(last) = packets.last_mut() {
            last.truncate(choices.below(last.bytes.len() + 1));
        }
        stream.must_begin_with(&packets)?;
    }

    #[test]
    fn no_damage_makes_anything_panic(stream in any_stream(), mut choices in any_choices()) {
        let damaged = damage(&recut(&stream.packets, &mut choices), &mut choices);
        lines(&damaged, stream.end);
    }
}

#[test]
fn every_prefix_of_a_stream_gives_a_verdict_or_none() {
    for stream in STREAMS.iter() {
        for len in 0..stream.packets.len() {
            stream.must_begin_with(&stream.packets[..len]).unwrap();
        }
    }
}

/// One segment with the bytes that were captured of it.
#[derive(Clone, Debug)]
struct Packet {
    header: Segment<'static>,
    bytes: Vec<u8>,
}

impl Packet {
    fn of(segment: &Segment<'_>) -> Self {
        let mut bytes = Vec::new();
        for chunk in &segment.chunks {
            assert_eq!(chunk.offset as usize, bytes.len(), "what was not captured is at the end");
            bytes.extend_from_slice(chunk.bytes);
        }
        let header = without_payload(segment);
        Self { header, bytes }
    }

    fn play(&self, audience: &mut impl Audience) {
        let mut segment = without_payload(&self.header);
        if !self.bytes.is_empty() {
            segment.chunks = smallvec![Chunk { offset: 0, bytes: &self.bytes }];
        }
        audience.segment(&segment);
    }

    fn has(&self, flags: u8) -> bool {
        self.header.flags & flags != 0
    }

    /// Carries payload and no flag that has a place of its own.
    fn is_plain_data(&self) -> bool {
        self.header.payload_len > 0 && !self.has(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
    }

    fn is_whole(&self) -> bool {
        self.bytes.len() == self.header.payload_len as usize
    }

    fn flow(&self) -> Flow {
        (self.header.source, self.header.destination)
    }

    /// Sequence number of the payload's first byte.
    fn start(&self) -> u32 {
        self.header.sequence.wrapping_add(u32::from(self.has(TcpFlags::SYN)))
    }

    fn end(&self) -> u32 {
        self.start().wrapping_add(self.header.payload_len)
    }

    /// Whether `next` goes on where this ends, in the same flight.
    fn is_continued_by(&self, next: &Self) -> bool {
        self.is_plain_data()
            && self.flow() == next.flow()
            && self.header.interface == next.header.interface
            && self.header.acknowledgement == next.header.acknowledgement
            && self.end() == next.start()
            && next.header.timestamp.since(self.header.timestamp).as_nanos() < u128::from(NEARBY)
    }

    /// Leaves the first `len` bytes of the payload.
    fn truncate(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap();
        if len < self.header.payload_len {
            self.header.payload_len = len;
            self.header.flags &= !TcpFlags::FIN;
        }
        self.bytes.truncate(len as usize);
    }

    /// Leaves the payload from `len` on.
    fn skip(&mut self, len: usize) {
        let len_on_wire = u32::try_from(len).unwrap();
        self.header.sequence = self.header.sequence.wrapping_add(len_on_wire);
        self.header.payload_len -= len_on_wire;
        self.bytes.drain(..len.min(self.bytes.len()));
    }
}

/// The segment's header, with another lifetime: that of its chunks cannot be shortened, since `SmallVec` is
/// invariant.
fn without_payload<'a>(segment: &Segment<'_>) -> Segment<'a> {
    let Segment { timestamp, interface, direction, source, destination, sequence, .. } = *segment;
    let Segment { acknowledgement, flags, window, options, hop_limit, ip_id, .. } = *segment;
    let Segment { vlan, payload_len, notes, is_own, .. } = *segment;
    Segment {
        timestamp,
        interface,
        direction,
        source,
        destination,
        sequence,
        acknowledgement,
        flags,
        window,
        options,
        hop_limit,
        ip_id,
        vlan,
        payload_len,
        chunks: smallvec![],
        notes,
        is_own,
    }
}

/// Source and destination.
type Flow = (SocketAddr, SocketAddr);

/// A capture or a scenario, and what the engine says about it as it is.
struct Stream {
    name: String,
    packets: Vec<Packet>,
    /// When the observer went away.
    end: Timestamp,
    lines: Vec<Value>,
}

impl Stream {
    fn new(name: &Path, packets: Vec<Packet>, end: Timestamp) -> Self {
        let name = name.file_name().unwrap().to_string_lossy().into_owned();
        let lines = lines(&packets, end);
        Self { name, packets, end, lines }
    }

    fn must_be_the_same_as(&self, packets: &[Packet]) -> Result<(), TestCaseError> {
        let (want, got) = (self.lines.iter().map(comparable), lines(packets, self.end));
        let (want, got) = (want.collect::<Vec<_>>(), got.iter().map(comparable).collect::<Vec<_>>());
        prop_assert_eq!(differences(&want, &got), Vec::<String>::new(), "{}", self.name);
        Ok(())
    }

    /// What the beginning of a stream shows does not contradict the rest.
    fn must_begin_with(&self, packets: &[Packet]) -> Result<(), TestCaseError> {
        for line in lines(packets, self.end) {
            let Some(whole) = self.lines.iter().rfind(|whole| id(whole) == id(&line)) else { continue };
            let name = &line["tls"]["client"]["server_name"];
            prop_assert!(name.is_null() || *name == whole["tls"]["client"]["server_name"], "{}", self.name);
        }
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn id(line: &Value) -> &Value {
    &line["tlstrace"]["connection_id"]
}

static STREAMS: LazyLock<Vec<Stream>> = LazyLock::new(|| {
    let captures = files("captures", CAPTURES).into_iter().map(|path| {
        let packets = read_capture(&path);
        let end = packets.iter().map(|packet| packet.header.timestamp).max().unwrap();
        Stream::new(&path, packets, end)
    });
    let scenarios = files("scenarios", &["toml"]).into_iter().map(|path| {
        let recording = play_scenario(&path);
        Stream::new(&path, recording.packets, recording.end)
    });
    // What the BPF program leaves out depends on the order in which it saw the segments.
    let is_raw = |stream: &Stream| stream.packets.iter().all(|packet| packet.header.notes == 0);
    captures.chain(scenarios).filter(is_raw).collect()
});

fn any_stream() -> impl Strategy<Value = &'static Stream> {
    // Captures come first; they are fewer, and there is more in each.
    let captures = files("captures", CAPTURES).len();
    prop_oneof![1 => 0..captures, 2 => captures..STREAMS.len()].prop_map(|index| &STREAMS[index])
}

fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| extensions.iter().any(|want| kind == *want)));
    files.sort();
    files
}

fn read_capture(path: &Path) -> Vec<Packet> {
    let mut reader = CaptureReader::open(path).unwrap();
    let mut packets = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let kind = LinkKind::from_link_type(frame.link_type).unwrap();
        packets.extend(file::segment(&frame, kind).ok().map(|segment| Packet::of(&segment)));
    }
    packets
}

/// The scenario's own connection, without those before and after it.
fn play_scenario(path: &Path) -> Recording {
    let scenario: toml::Table = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let steps: Vec<String> = scenario["steps"].clone().try_into().unwrap();
    let mut recording = Recording::default();
    let mut player = Player::new(Variation::AsWritten);
    player.play(&steps, &mut recording);
    recording
}

/// Keeps what is played to it.
#[derive(Default)]
struct Recording {
    packets: Vec<Packet>,
    end: Timestamp,
}

impl Audience for Recording {
    fn segment(&mut self, segment: &Segment<'_>) {
        self.packets.push(Packet::of(segment));
    }

    fn time(&mut self, now: Timestamp) {
        self.end = now;
    }
}

/// What a fresh engine says about these packets. Timers fire when packets have passed them.
fn lines(packets: &[Packet], end: Timestamp) -> Vec<Value> {
    let mut engine = Engine::new(Settings::default());
    for packet in packets {
        pass_time(&mut engine, packet.header.timestamp);
        packet.play(&mut engine);
    }
    pass_time(&mut engine, end);
    engine.time(end);
    engine.finish();
    let mut lines = Vec::new();
    while let Some(Output::Verdict(verdict)) = engine.poll_output() {
        for kind in SINKS {
            let mut line = Vec::new();
            (kind.open)(Style::default()).emit(&verdict, &Observer::default(), &mut line).unwrap();
            if kind.name == "json" {
                lines.push(serde_json::from_slice(&line).unwrap());
            }
        }
    }
    lines
}

fn pass_time(engine: &mut Engine, now: Timestamp) {
    let mut fired = None;
    while let Some(deadline) = engine.poll_timeout().filter(|deadline| *deadline <= now) {
        if fired.is_some_and(|fired| deadline <= fired) {
            break;
        }
        engine.time(deadline);
        fired = Some(deadline);
    }
}

/// A line without times, prose that tells them, and what counts segments, repetitions and records.
fn comparable(line: &Value) -> Value {
    let mut line = line.clone();
    let mut remove = |path: &str| {
        let (parent, key) = path.rsplit_once('/').unwrap();
        if let Some(Value::Object(parent)) = line.pointer_mut(parent) {
            parent.remove(key);
        }
    };
    for path in ["/@timestamp", "/event/duration", "/tlstrace/timings_us", "/tlstrace/summary"] {
        remove(path);
    }
    for path in ["/tlstrace/offer/segments", "/tlstrace/offer/records"] {
        remove(path);
    }
    if let Some(warnings) = line["tlstrace"]["warnings"].as_array_mut() {
        warnings.retain(|warning| warning["fact"] != "retransmissions");
    }
    for item in line["tlstrace"]["evidence"].as_array_mut().into_iter().flatten() {
        item["detail"].take();
    }
    line
}

fn differences(want: &[Value], got: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    compare(&mut found, "", &want.into(), &got.into());
    found
}

fn compare(found: &mut Vec<String>, path: &str, want: &Value, got: &Value) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let at = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                compare(found, &format!("{path}/{key}"), &at(a), &at(b));
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                compare(found, &format!("{path}/{i}"), a, b);
            }
        }
        _ if want == got => {}
        _ => found.push(format!("{path} is {got}, not {want}")),
    }
}

/// Decisions of a change, one after the other; smaller ones change less.
#[derive(Clone, Debug)]
struct Choices {
    bytes: Vec<u8>,
    next: usize,
}

fn any_choices() -> impl Strategy<Value = Choices> {
    prop::collection::vec(any::<u8>(), 1..64).prop_map(|bytes| Choices { bytes, next: 0 })
}

impl Choices {
    /// A number below `bound`, or 0.
    fn below(&mut self, bound: usize) -> usize {
        let mut byte = || {
            self.next += 1;
            usize::from(self.bytes[self.next % self.bytes.len()])
        };
        let wide = if bound > 256 { byte() << 8 | byte() } else { byte() };
        wide.checked_rem(bound).unwrap_or(0)
    }
}

/// Other segments with the same bytes: some grow together, some are cut, some into single bytes.
fn recut(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let mut merged: Vec<Packet> = Vec::new();
    for packet in packets {
        match merged.last_mut() {
            Some(last)
                if choices.below(2) == 1
                    && last.is_whole()
                    && packet.header.payload_len > 0
                    && !packet.has(TcpFlags::RST)
                    && last.is_continued_by(packet) =>
            {
                last.bytes.extend_from_slice(&packet.bytes);
                last.header.payload_len += packet.header.payload_len;
                last.header.flags |= packet.header.flags;
                last.header.notes |= packet.header.notes;
                last.header.timestamp = packet.header.timestamp;
            }
            _ => merged.push(packet.clone()),
        }
    }
    merged.into_iter().flat_map(|packet| cut(packet, choices)).collect()
}

fn cut(packet: Packet, choices: &mut Choices) -> Vec<Packet> {
    let len = packet.bytes.len();
    if len < 2 || packet.has(TcpFlags::SYN | TcpFlags::RST) {
        return vec![packet];
    }
    let mut cuts = match choices.below(4) {
        0 => vec![],
        1 => vec![choices.below(len)],
        2 => (0..8).map(|_| choices.below(len)).collect(),
        // Single bytes at the start, where headers are, and then pieces.
        _ => (1..len.min(80)).chain((80..len).step_by(1 + choices.below(64))).collect(),
    };
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces = Vec::new();
    let mut rest = packet;
    let mut at = 0;
    for cut in cuts.into_iter().filter(|&cut| cut > 0) {
        let mut piece = rest.clone();
        piece.truncate(cut - at);
        pieces.push(piece);
        rest.skip(cut - at);
        at = cut;
    }
    pieces.push(rest);
    pieces
}

/// Some segments come twice. A retransmission by the sender means something, so those stay as they are.
fn duplicate(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    after_new_data(packets, choices, Packet::clone)
}

/// Some bytes come again with other content, alone or in front of what follows them. What came first was
/// delivered.
fn overlap(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let other = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ 0xff).collect::<Vec<_>>();
    let mut packets = packets.to_vec();
    for i in (1..packets.len()).rev() {
        let [first, second] = &mut packets[i - 1..=i] else { unreachable!() };
        let is_alike = first.is_whole() && first.is_continued_by(second) && second.is_plain_data();
        if is_alike && choices.below(2) == 1 {
            second.bytes.splice(..0, other(&first.bytes));
            second.header.sequence = first.header.sequence;
            second.header.payload_len += first.header.payload_len;
        }
    }
    after_new_data(&packets, choices, |packet| Packet {
        header: packet.header.clone(),
        bytes: other(&packet.bytes),
    })
}

fn after_new_data(
    packets: &[Packet],
    choices: &mut Choices,
    copy: impl Fn(&Packet) -> Packet,
) -> Vec<Packet> {
    let mut ends = HashMap::new();
    let mut result = Vec::new();
    for packet in packets {
        result.push(packet.clone());
        let end = ends.entry(packet.flow()).or_insert(packet.start());
        let is_news = packet.end().wrapping_sub(*end).cast_signed() > 0;
        if is_news {
            *end = packet.end();
            if packet.is_plain_data() && choices.below(2) == 1 {
                result.push(copy(packet));
            }
        }
    }
    result
}

/// Neighbours of one flight change places; the times stay where they are.
fn swap_neighbours(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let begun: Vec<Flow> = packets.iter().filter(|p| p.has(TcpFlags::SYN)).map(Packet::flow).collect();
    let mut packets = packets.to_vec();
    for i in 1..packets.len() {
        let [first, second] = &mut packets[i - 1..=i] else { unreachable!() };
        if choices.below(2) == 1
            && second.is_plain_data()
            && first.is_continued_by(second)
            // Where a stream was picked up in the middle, its first segment is where it begins.
            && begun.contains(&first.flow())
        {
            std::mem::swap(first, second);
            std::mem::swap(&mut first.header.timestamp, &mut second.header.timestamp);
        }
    }
    packets
}

/// Another interface sees every segment a little later, and before anything that comes after a pause.
fn see_twice(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let mut result = Vec::new();
    let mut late: Vec<Packet> = Vec::new();
    for (i, packet) in packets.iter().enumerate() {
        result.push(packet.clone());
        let mut copy = packet.clone();
        copy.header.interface += 1000;
        late.push(copy);
        let is_before_pause = packets.get(i + 1).is_some_and(|next| {
            next.header.timestamp.since(packet.header.timestamp).as_nanos() >= u128::from(NEARBY)
        });
        if choices.below(3) != 2 || packet.has(TcpFlags::SYN) || is_before_pause {
            for mut copy in late.drain(..) {
                copy.header.timestamp = packet.header.timestamp;
                result.push(copy);
            }
        }
    }
    result.extend(late);
    result
}

/// Frames plaintext handshake records again, as more and shorter ones (RFC 8446 §5.1).
fn split_records(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let flows: Vec<Flow> = packets.iter().map(Packet::flow).collect();
    let mut reframed = HashMap::new();
    for flow in flows {
        if !reframed.contains_key(&flow)
            && let Some(whole) = Reassembled::of(packets, flow)
        {
            reframed.insert(flow, whole.reframe(choices));
        }
    }
    let mut packets = packets.to_vec();
    for packet in &mut packets {
        let (source, destination) = packet.flow();
        if let Some(reframed) = reframed.get(&(destination, source))
            && packet.has(TcpFlags::ACK)
        {
            packet.header.acknowledgement = reframed.position(packet.header.acknowledgement);
        }
        if let Some(reframed) = reframed.get(&(source, destination)) {
            let (start, end) = (reframed.position(packet.start()), reframed.position(packet.end()));
            packet.header.sequence = start.wrapping_sub(u32::from(packet.has(TcpFlags::SYN)));
            if packet.header.payload_len > 0 {
                packet.header.payload_len = end.wrapping_sub(start);
                packet.bytes = reframed.bytes_of(start, end).to_vec();
            }
        }
    }
    packets
}

/// All bytes of one direction, where they are known and nobody contradicts.
struct Reassembled {
    base: u32,
    bytes: Vec<u8>,
}

impl Reassembled {
    fn of(packets: &[Packet], flow: Flow) -> Option<Self> {
        let of_flow = || packets.iter().filter(|packet| packet.flow() == flow);
        let base = of_flow().find(|packet| packet.has(TcpFlags::SYN))?.start();
        let mut bytes = Vec::new();
        for packet in of_flow() {
            if !packet.is_whole() || packet.has(TcpFlags::SYN) && packet.start() != base {
                return None;
            }
            if packet.bytes.is_empty() {
                continue;
            }
            let at = packet.start().wrapping_sub(base) as usize;
            let known = bytes.len().checked_sub(at)?.min(packet.bytes.len());
            if bytes[at..at + known] != packet.bytes[..known] {
                return None;
            }
            bytes.extend_from_slice(&packet.bytes[known..]);
        }
        Some(Self { base, bytes })
    }

    fn reframe(self, choices: &mut Choices) -> Reframed {
        let Self { base, mut bytes } = self;
        let mut headers = Vec::new();
        let mut at = 0;
        while let Some(&[kind, 3, minor, high, low]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if kind == 20 || !(20..=24).contains(&kind) || bytes.len() < at + 5 + len {
                break;
            }
            if kind == 22 && len > 1 {
                let mut cuts: Vec<_> = (0..choices.below(4)).map(|_| 1 + choices.below(len - 1)).collect();
                cuts.sort_unstable();
                cuts.dedup();
                cuts.push(len);
                let mut from = 0;
                for (i, cut) in cuts.into_iter().enumerate() {
                    let [high, low] = u16::try_from(cut - from).unwrap().to_be_bytes();
                    if i == 0 {
                        bytes[at + 3..at + 5].copy_from_slice(&[high, low]);
                    } else {
                        headers.push((at + 5 + from, [22, 3, minor, high, low]));
                    }
                    from = cut;
                }
            }
            at += 5 + len;
        }
        let mut framed = Vec::new();
        let mut from = 0;
        for &(position, header) in &headers {
            framed.extend_from_slice(&bytes[from..position]);
            framed.extend(header);
            from = position;
        }
        framed.extend_from_slice(&bytes[from..]);
        Reframed { base, headers: headers.into_iter().map(|(position, _)| position).collect(), bytes: framed }
    }
}

/// The same direction with more record headers.
struct Reframed {
    base: u32,
    /// Where headers were added, by offset without them.
    headers: Vec<usize>,
    bytes: Vec<u8>,
}

impl Reframed {
    /// Where a sequence number lies now. A header belongs to the byte that follows it.
    fn position(&self, sequence: u32) -> u32 {
        let offset = sequence.wrapping_sub(self.base).cast_signed();
        let before = |position: &&usize| i64::try_from(**position).unwrap() < i64::from(offset);
        let headers = self.headers.iter().filter(before).count();
        sequence.wrapping_add(5 * u32::try_from(headers).unwrap())
    }

    fn bytes_of(&self, start: u32, end: u32) -> &[u8] {
        &self.bytes[start.wrapping_sub(self.base) as usize..end.wrapping_sub(self.base) as usize]
    }
}

/// Anything may be wrong: bytes, numbers, flags, lengths, times, order, and what is missing.
fn damage(packets: &[Packet], choices: &mut Choices) -> Vec<Packet> {
    let mut packets = packets.to_vec();
    for _ in 0..=choices.below(12) {
        let at = choices.below(packets.len());
        let other = choices.below(packets.len());
        let number = u32::from_be_bytes(std::array::from_fn(|_| u8::try_from(choices.below(256)).unwrap()));
        let Some(packet) = packets.get_mut(at) else { break };
        match choices.below(10) {
            0..=3 => {
                let position = choices.below(packet.bytes.len());
                if let Some(byte) = packet.bytes.get_mut(position) {
                    *byte = number.to_be_bytes()[0];
                }
            }
            4 => packet.header.sequence = number,
            5 => packet.header.acknowledgement = number,
            6 => packet.header.flags = number.to_be_bytes()[0],
            7 => packet.bytes.truncate(choices.below(packet.bytes.len())),
            8 => packets.swap(at, other),
            _ => {
                packets.remove(at);
            }
        }
    }
    packets
}
