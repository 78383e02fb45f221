//! `cargo xtask bench replay`: TLS 1.2 handshakes per second from a capture to JSON lines, the memory
//! that it takes, and what other programs need for the same file in the same rounds; then a million
//! connections that are open at once.
//!
//! The capture is made of one handshake of the tests' captures, many times over with other client
//! addresses and ports, a hundred of them interleaved. It is in the page cache when it is read.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tlstrace::capture::file::CaptureReader;
use tlstrace::engine::timestamp::Timestamp;

use super::release_build;
use super::table::{Table, count_of, median};
use crate::cargo;

/// Handshakes per second through `tlstrace replay`, beside other programs.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Handshakes in the capture, in hundreds.
    #[arg(long, default_value_t = HUNDREDS, value_parser = clap::value_parser!(u32).range(10..=5000))]
    hundreds: u32,
    /// How often each program reads it.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connections that are open at once in the last case; 0 leaves it out.
    #[arg(long, default_value_t = OPEN, value_parser = clap::value_parser!(u32).range(0..=4_000_000))]
    open: u32,
    /// Do not run other programs.
    #[arg(long)]
    alone: bool,
}

const HUNDREDS: u32 = 200;
const ROUNDS: u32 = 5;
const OPEN: u32 = 1_000_000;

impl Default for Args {
    fn default() -> Self {
        Self { hundreds: HUNDREDS, rounds: ROUNDS, open: OPEN, alone: false }
    }
}

/// Programs that read the same file, with their arguments around its name.
const OTHERS: [(&str, &[&str], &[&str]); 2] = [
    ("tshark", &["-r"], &["-Y", "tls.handshake", "-T", "json", "-J", "tls"]),
    ("ssldump", &["-n", "-A", "-r"], &[]),
];

pub(super) fn run(args: &Args) -> Result<Table> {
    let tlstrace = &release_build("tlstrace")?;
    let directory = cargo::workspace().join("target");
    let template = Template::read(&cargo::workspace().join("tlstrace/tests/captures/gso_superpacket.pcap"))?;
    let replay = |capture: &Path| {
        let mut command = Command::new(tlstrace);
        command.args(["replay", "--all", "--output", "json"]).arg(capture);
        command
    };

    let captures = [args.hundreds / 10, args.hundreds].map(|hundreds| {
        let connections = hundreds * INTERLEAVED;
        (connections, directory.join(format!("bench-replay-{connections}.pcap")))
    });
    let mut cases = Vec::new();
    for (connections, path) in &captures {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        template.write(file, &template.frames, *connections, INTERLEAVED)?;
        cases.push(Case::new("tlstrace replay --all --output json", *connections, replay(path)));
    }
    let [_, (connections, capture)] = &captures;
    for (program, before, after) in
        OTHERS.into_iter().filter(|(program, ..)| !args.alone && is_there(program))
    {
        let mut command = Command::new(program);
        command.args(before).arg(capture).args(after);
        cases.push(Case::new([&[program], before, after].concat().join(" "), *connections, command));
    }
    // The first reading brings file and program into memory.
    for round in 0..=args.rounds {
        for case in &mut cases {
            let usage = measure(&mut case.command, |_| Ok(()))?;
            if round > 0 {
                case.usages.push(usage);
            }
        }
    }
    for (_, path) in &captures {
        fs::remove_file(path)?;
    }

    let columns = &["connections", "CPU seconds", "per second of a core", "largest memory, MiB"];
    let mut table = Table::new("from a capture to lines", columns);
    for case in &cases {
        case.tell(&mut table);
    }
    let ours = cases.get(1).map(Case::rate).unwrap_or_default();
    for other in cases.iter().skip(captures.len()) {
        let program = other.command.get_program().display();
        table.remark(format!("tlstrace is {:.0} times as fast as {program}", ours / other.rate()));
    }
    if args.open > 0 {
        let name = "tlstrace replay, ClientHellos without an answer";
        let mut case = Case::new(name, args.open, replay(Path::new("-")));
        let flood = |input: ChildStdin| template.write(input, template.offer(), args.open, args.open);
        let usage = measure(&mut case.command, flood)?;
        table.remark(format!("{name}: {}", usage.said.trim_end()));
        case.usages.push(usage);
        case.tell(&mut table);
    }
    Ok(table)
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// A program that reads so many connections.
struct Case {
    name: String,
    connections: u32,
    command: Command,
    usages: Vec<Usage>,
}

impl Case {
    fn new(name: impl Into<String>, connections: u32, command: Command) -> Self {
        Self { name: name.into(), connections, command, usages: Vec::new() }
    }

    fn rates(&self) -> Vec<f64> {
        self.usages.iter().map(|usage| f64::from(self.connections) / usage.cpu.as_secs_f64()).collect()
    }

    fn rate(&self) -> f64 {
        let mut rates = self.rates();
        rates.sort_by(f64::total_cmp);
        median(&rates)
    }

    fn tell(&self, table: &mut Table) {
        let seconds = self.usages.iter().map(|usage| usage.cpu.as_secs_f64()).collect();
        let memory = self.usages.iter().map(|usage| count_of(usage.memory_kib) / 1024.0).collect();
        table.push(&self.name, vec![vec![f64::from(self.connections)], seconds, self.rates(), memory]);
    }
}

/// What a program took.
struct Usage {
    /// In user and kernel mode, over all threads: what one core would have needed.
    cpu: Duration,
    /// Largest resident set.
    memory_kib: usize,
    /// On standard error.
    said: String,
}

/// Runs a program with its output thrown away, and `feed` to write its input.
fn measure(command: &mut Command, feed: impl FnOnce(ChildStdin) -> Result<()>) -> Result<Usage> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if let Some(input) = child.stdin.take() {
        feed(input)?;
    }
    let mut said = String::new();
    if let Some(mut errors) = child.stderr.take() {
        errors.read_to_string(&mut said)?;
    }
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let pid = i32::try_from(child.id()).context("a process number")?;
    // SAFETY: both pointers are to live variables of the types that wait4(2) writes; `child` is not waited for
    // elsewhere, so that the process number is still its own.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(waited == pid && status == 0, "{} failed", command.get_program().display());
    // SAFETY: wait4(2) filled it in, and zeroes would be valid too.
    let usage = unsafe { usage.assume_init() };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    let memory_kib = usize::try_from(usage.ru_maxrss)?;
    Ok(Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), memory_kib, said })
}

/// Connections that are open at once.
const INTERLEAVED: u32 = 100;
/// From the beginning of some connections to that of the next ones.
const SPACING: Duration = Duration::from_millis(100);
/// From one frame to the next.
const STEP: Duration = Duration::from_micros(1);

/// One handshake in Ethernet and IPv4, to be copied.
struct Template {
    /// Time of the first frame, in seconds since 1970: its certificates are valid then.
    begin: u64,
    frames: Vec<Vec<u8>>,
    /// Address and port of the client.
    client: [u8; 6],
}

impl Template {
    /// Where the source's address and port stand in a frame.
    const SOURCE: [usize; 2] = [26, 34];
    /// The same of the destination.
    const DESTINATION: [usize; 2] = [30, 36];

    fn read(path: &Path) -> Result<Self> {
        let mut reader = CaptureReader::open(path)?;
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut first = None;
        while let Some(frame) = reader.next_frame()? {
            first.get_or_insert(frame.timestamp);
            frames.push(frame.data.to_vec());
        }
        let syn = frames.first().context("the capture is empty")?;
        let mut client = [0; 6];
        let [address, port] = Self::SOURCE;
        client[..4].copy_from_slice(syn.get(address..address + 4).context("the first frame is cut")?);
        client[4..].copy_from_slice(syn.get(port..port + 2).context("the first frame is cut")?);
        let begin = first.map_or(0, Timestamp::as_secs);
        Ok(Self { begin, frames, client })
    }

    /// The frames up to the ClientHello: the first one that is longer than headers are.
    fn offer(&self) -> &[Vec<u8>] {
        const MAX_HEADERS_LEN: usize = 14 + 20 + 60;
        let hello = self.frames.iter().position(|frame| frame.len() > MAX_HEADERS_LEN);
        hello.and_then(|at| self.frames.get(..=at)).unwrap_or_default()
    }

    /// Writes a capture in which so many connections have these frames, and so many of them at a time.
    fn write(&self, out: impl Write, frames: &[Vec<u8>], connections: u32, interleaved: u32) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        // Magic, version 2.4, time zone, accuracy, snap length, Ethernet.
        for field in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1u32] {
            out.write_all(&field.to_le_bytes())?;
        }
        let mut time = Duration::from_secs(self.begin);
        for first in (0..connections).step_by(interleaved as usize) {
            for frame in frames {
                for connection in first..first + interleaved {
                    let len = u32::try_from(frame.len())?;
                    for field in [u32::try_from(time.as_secs())?, time.subsec_micros(), len, len] {
                        out.write_all(&field.to_le_bytes())?;
                    }
                    out.write_all(&self.rewritten(frame, connection))?;
                    time += STEP;
                }
            }
            time += SPACING;
        }
        out.flush()?;
        Ok(())
    }

    /// A frame of the connection of that number.
    fn rewritten(&self, frame: &[u8], number: u32) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let [a, b, c, d] = (0x0a00_0000 + number / 50_000).to_be_bytes();
        let [.., high, low] = (10_000 + number % 50_000).to_be_bytes();
        for [address, port] in [Self::SOURCE, Self::DESTINATION] {
            if frame.get(address..address + 4) == Some(&self.client[..4])
                && frame.get(port..port + 2) == Some(&self.client[4..])
            {
                frame[address..address + 4].copy_from_slice(&[a, b, c, d]);
                frame[port..port + 2].copy_from_slice(&[high, low]);
            }
        }
        frame
    }
}
