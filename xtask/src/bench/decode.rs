//! `cargo xtask bench decode`: nanoseconds and instructions of each decoder, and of one whole handshake
//! through the engine, with and without output.
//!
//! Nanoseconds are of the thread's CPU time, which a busy machine inflates less than the clock on the wall,
//! in rounds that take every case in turn. Instructions are counted by callgrind in a child process per case,
//! as the difference of two runs with different numbers of repetitions.

use std::fs;
use std::hint::black_box;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use tls_parser::{
    TlsMessage, TlsMessageHandshake, parse_tls_client_hello_extensions, parse_tls_message_handshake,
};
use tlstrace::capture::file::{self, CaptureReader, Frame};
use tlstrace::engine::segment::Segment;
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::sink::{Observer, SINKS, Sink, Style};
use tlstrace::tls::certificate::{CertificateCache, CertificateChain};
use tlstrace::tls::client_hello::ClientHello;
use tlstrace::tls::fingerprint;
use tlstrace::tls::handshake::MessageHeader;
use tlstrace::tls::server_hello::ServerHello;
use tlstrace_common::encapsulation::LinkKind;

use super::table::{Table, count_of};
use crate::cargo;

/// Nanoseconds and instructions per message and per handshake.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How often each case is timed.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Do not count instructions.
    #[arg(long)]
    no_instructions: bool,
    /// Repeat the cases so often and print nothing: for a profiler.
    #[arg(long, value_name = "TIMES")]
    repeat: Option<u32>,
}

const ROUNDS: u32 = 25;

impl Default for Args {
    fn default() -> Self {
        Self { rounds: ROUNDS, only: String::new(), no_instructions: false, repeat: None }
    }
}

pub(super) fn run(args: &Args) -> Result<Table> {
    let inputs = Inputs::read()?;
    let mut cases = cases(&inputs)?;
    cases.retain(|case| case.name.contains(&args.only));
    let mut table = Table::new("one message, one handshake", &["bytes", "ns", "instructions"]);
    if let Some(times) = args.repeat {
        for case in &mut cases {
            case.repeat(times);
        }
        return Ok(table);
    }

    let with_instructions = !args.no_instructions && has_valgrind();
    if !with_instructions && !args.no_instructions {
        writeln!(io::stderr(), "instructions are not counted: valgrind is not installed")?;
    }
    let times = time(&mut cases, args.rounds)?;
    for (case, times) in cases.iter().zip(times) {
        let count = if with_instructions { vec![instructions(&case.name)?] } else { Vec::new() };
        table.push(&case.name, vec![vec![count_of(case.bytes)], times, count]);
    }
    Ok(table)
}

/// Something to be measured.
struct Case<'a> {
    name: String,
    /// What it reads.
    bytes: usize,
    once: Box<dyn FnMut() + 'a>,
}

impl<'a> Case<'a> {
    fn new(name: impl Into<String>, bytes: usize, once: impl FnMut() + 'a) -> Self {
        Self { name: name.into(), bytes, once: Box::new(once) }
    }

    fn repeat(&mut self, times: u32) {
        (0..times).for_each(|_| (self.once)());
    }
}

fn cases(inputs: &Inputs) -> Result<Vec<Case<'_>>> {
    let mut cases = Vec::new();
    for (name, message) in &inputs.client_hellos {
        let (message, body) = (message.as_slice(), body(message)?);
        cases.push(Case::new(format!("ClientHello of {name}"), message.len(), || {
            black_box(ClientHello::decode(black_box(body)));
        }));
        cases.push(Case::new(format!("  tls-parser, {name}, no extensions"), message.len(), || {
            black_box(parse_tls_message_handshake(black_box(message)).is_ok());
        }));
        cases.push(Case::new(format!("  tls-parser, {name}, with extensions"), message.len(), || {
            if let Ok((_, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) =
                parse_tls_message_handshake(black_box(message))
            {
                black_box(hello.ext.map(parse_tls_client_hello_extensions).is_some());
            }
        }));
    }
    for (name, message) in &inputs.server_hellos {
        let body = body(message)?;
        cases.push(Case::new(format!("ServerHello, {name}"), message.len(), || {
            black_box(ServerHello::decode(black_box(body)));
        }));
    }

    let (chain, chain_len) = (body(&inputs.certificate_chain)?, inputs.certificate_chain.len());
    cases.push(Case::new("chain of 2 certificates, not cached", chain_len, || {
        black_box(CertificateChain::decode(black_box(chain), &mut CertificateCache::new()));
    }));
    let mut cache = CertificateCache::new();
    cases.push(Case::new("chain of 2 certificates, cached", chain_len, move || {
        black_box(CertificateChain::decode(black_box(chain), &mut cache));
    }));

    for (name, message) in &inputs.client_hellos {
        let hello = ClientHello::decode(body(message)?).complete().context("a ClientHello")?;
        let same = hello.clone();
        cases.push(Case::new(format!("JA3 of {name}"), message.len(), move || {
            black_box(fingerprint::ja3(black_box(&hello)));
        }));
        cases.push(Case::new(format!("JA4 of {name}"), message.len(), move || {
            black_box(fingerprint::ja4(black_box(&same)));
        }));
    }

    for (name, connection) in &inputs.connections {
        for output in ["", "json", "text"] {
            let sink =
                SINKS.iter().find(|kind| kind.name == output).map(|kind| (kind.open)(Style::default()));
            let mut handshake = Handshake::new(connection, sink)?;
            let bytes = connection.iter().map(|frame| frame.data.len()).sum();
            let suffix = if output.is_empty() { "no output" } else { output };
            cases.push(Case::new(format!("{name} handshake, {suffix}"), bytes, move || handshake.next()));
        }
    }
    Ok(cases)
}

/// What follows the header of a handshake message.
fn body(message: &[u8]) -> Result<&[u8]> {
    message.get(MessageHeader::LEN..).context("a message without header")
}

/// What is decoded: messages and captures of the library's tests.
struct Inputs {
    client_hellos: Vec<(&'static str, Vec<u8>)>,
    server_hellos: Vec<(&'static str, Vec<u8>)>,
    certificate_chain: Vec<u8>,
    connections: Vec<(&'static str, Vec<OwnedFrame>)>,
}

impl Inputs {
    fn read() -> Result<Self> {
        let library = cargo::workspace().join("tlstrace");
        let message = |name: &str| from_hex(&library.join(format!("src/tls/testing/{name}.hex")));
        let connection = |name: &str| first_connection(&library.join("tests/captures").join(name));
        Ok(Self {
            client_hellos: vec![
                ("Chrome", message("client_hello_chrome")?),
                ("curl", message("client_hello_curl")?),
                ("Go", message("client_hello_go")?),
            ],
            server_hellos: vec![
                ("TLS 1.2", message("server_hello_tls12")?),
                ("TLS 1.3", message("server_hello_tls13")?),
            ],
            certificate_chain: message("certificate_chain")?,
            connections: vec![
                ("TLS 1.2", connection("gso_superpacket.pcap")?),
                ("TLS 1.3", connection("1.3_early_data.pcap")?),
            ],
        })
    }
}

fn from_hex(path: &Path) -> Result<Vec<u8>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digits: Vec<u32> = text.chars().filter_map(|character| character.to_digit(16)).collect();
    let bytes = digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]));
    Ok(bytes.collect::<Result<_, _>>()?)
}

/// A frame of a capture that outlives its reader.
struct OwnedFrame {
    timestamp: Timestamp,
    link_type: u32,
    data: Vec<u8>,
}

impl OwnedFrame {
    fn segment(&self) -> Result<Segment<'_>> {
        let kind = LinkKind::from_link_type(self.link_type).context("a link type that is not supported")?;
        let frame = Frame {
            timestamp: self.timestamp,
            link_type: self.link_type,
            interface: 0,
            wire_len: u32::try_from(self.data.len())?,
            data: &self.data,
        };
        file::segment(&frame, kind).map_err(|_| anyhow::anyhow!("a frame without TCP segment"))
    }
}

/// The frames of the connection that a capture begins with.
fn first_connection(path: &Path) -> Result<Vec<OwnedFrame>> {
    let mut reader = CaptureReader::open(path)?;
    let mut frames = Vec::new();
    let mut client = None;
    while let Some(Frame { timestamp, link_type, data, .. }) = reader.next_frame()? {
        let frame = OwnedFrame { timestamp, link_type, data: data.to_vec() };
        let (source, destination) = frame.segment().map(|segment| (segment.source, segment.destination))?;
        let client = *client.get_or_insert(source);
        if source == client || destination == client {
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// One handshake again and again through the same engine, each time from another port and later. The
/// certificates are cached and few connections are open, as on a quiet gateway.
struct Handshake<'a> {
    segments: Vec<Segment<'a>>,
    client: SocketAddr,
    engine: Engine,
    observer: Observer,
    sink: Option<Box<dyn Sink>>,
    /// What the sink wrote last.
    line: Vec<u8>,
    number: u16,
    verdicts: u64,
}

impl<'a> Handshake<'a> {
    /// From the beginning of one connection to that of the next: what is known of one that has ended is
    /// forgotten in time.
    const SPACING: Duration = Duration::from_secs(1);
    const PORTS: u16 = 50_000;

    fn new(frames: &'a [OwnedFrame], sink: Option<Box<dyn Sink>>) -> Result<Self> {
        let segments = frames.iter().map(OwnedFrame::segment).collect::<Result<Vec<_>>>()?;
        let client = segments.first().context("the capture is empty")?.source;
        let engine = Engine::new(Settings::default());
        let observer = Observer::default();
        let (line, number, verdicts) = (Vec::new(), 0, 0);
        let mut handshake = Self { segments, client, engine, observer, sink, line, number, verdicts };
        handshake.next();
        ensure!(
            handshake.verdicts == 1,
            "{} verdicts on the first connection of a capture",
            handshake.verdicts
        );
        Ok(handshake)
    }

    fn next(&mut self) {
        self.number = (self.number + 1) % Self::PORTS;
        let port = 10_000 + self.number;
        for segment in &mut self.segments {
            segment.timestamp = segment.timestamp.after(Self::SPACING);
            for address in [&mut segment.source, &mut segment.destination] {
                if *address == self.client {
                    address.set_port(port);
                }
            }
        }
        self.client.set_port(port);
        let mut time = Timestamp::default();
        for segment in &self.segments {
            time = segment.timestamp;
            if self.engine.poll_timeout().is_some_and(|deadline| deadline <= segment.timestamp) {
                self.engine.handle_timeout(segment.timestamp);
            }
            self.engine.handle_segment(black_box(segment));
        }
        // A connection that was closed is judged when nothing more has come for a while.
        self.engine.handle_timeout(time.after(Self::SPACING / 2));
        while let Some(output) = self.engine.poll_output() {
            self.verdicts += 1;
            let Output::Verdict(verdict) = &output;
            if let Some(sink) = &mut self.sink {
                self.line.clear();
                // Nothing can go wrong in writing to memory.
                let _ = sink.emit(verdict, &self.observer, &mut self.line);
            }
            black_box(output);
        }
    }
}

/// A round of one case takes about so long.
const ROUND: Duration = Duration::from_millis(5);

/// Nanoseconds of every round of every case.
fn time(cases: &mut [Case<'_>], rounds: u32) -> Result<Vec<Vec<f64>>> {
    let mut times = vec![Vec::new(); cases.len()];
    let mut repetitions = Vec::new();
    for case in cases.iter_mut() {
        let mut count = 16;
        while cpu_time(|| case.repeat(count))? < ROUND {
            count *= 2;
        }
        repetitions.push(count);
    }
    for _ in 0..rounds {
        for ((case, count), times) in cases.iter_mut().zip(&repetitions).zip(&mut times) {
            times.push(cpu_time(|| case.repeat(*count))?.as_secs_f64() * 1e9 / f64::from(*count));
        }
    }
    Ok(times)
}

/// What `work` takes of this thread's time on a CPU.
fn cpu_time(work: impl FnOnce()) -> Result<Duration> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let start = now()?;
    work();
    Ok(now()?.saturating_sub(start))
}

fn has_valgrind() -> bool {
    let mut valgrind = Command::new("valgrind");
    valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    valgrind.status().is_ok_and(|status| status.success())
}

/// Repetitions of the two runs whose difference counts.
const FEW: usize = 100;
const MANY: usize = 600;

/// Instructions of one repetition of a case.
fn instructions(name: &str) -> Result<f64> {
    let (few, many) = (collected(name, FEW)?, collected(name, MANY)?);
    Ok(count_of(many.saturating_sub(few) / (MANY - FEW)))
}

/// Instructions of a whole process that repeats a case so often.
fn collected(name: &str, times: usize) -> Result<usize> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["bench", "decode", "--only", name, "--repeat", &times.to_string()])
        .output()
        .context("cannot run valgrind")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    let collected = messages.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected
        .filter(|_| output.status.success())
        .with_context(|| format!("callgrind counted nothing of {name}:\n{messages}"))
}
