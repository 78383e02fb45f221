//! `cargo xtask bench replay`: TLS 1.2 handshakes per second from a capture to JSON lines, the memory
//! that it takes, and how long tshark needs for the same file.
//!
//! The capture is made of one handshake of the tests' captures, many times over with other client
//! addresses and ports, a hundred of them interleaved. It is in the page cache when it is read.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tlstrace::capture::file::CaptureReader;
use tlstrace::engine::timestamp::Timestamp;

use crate::cargo;

/// Handshakes per second through `tlstrace replay`, beside tshark.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Handshakes in the capture, in hundreds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=5000))]
    hundreds: u32,
    /// Do not run tshark.
    #[arg(long)]
    no_tshark: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let executables = cargo::build(&["build", "--release", "--package", "tlstrace", "--bin", "tlstrace"])?;
    let tlstrace = &executables.first().context("cargo built no program")?.path;
    let workspace = cargo::workspace();
    let template = Template::read(&workspace.join("tlstrace/tests/captures/gso_superpacket.pcap"))?;

    let capture = workspace.join("target/bench-replay.pcap");

    let mut out = io::stdout().lock();
    writeln!(out, "{:34}{:>12}{:>12}{:>14}{:>12}", "", "handshakes", "CPU time", "handshakes/s", "memory")?;
    let mut line = |what: &str, hundreds: u32, usage: &Usage| -> Result<f64> {
        let handshakes = hundreds * 100;
        let rate = f64::from(handshakes) / usage.cpu.as_secs_f64();
        let memory = usage.memory_kib / 1024;
        writeln!(
            out,
            "{what:34}{handshakes:>12}{:>10.2} s{rate:>14.0}{memory:>8} MiB",
            usage.cpu.as_secs_f64()
        )?;
        Ok(rate)
    };
    let mut rate = 0.0;
    for hundreds in [args.hundreds / 10, args.hundreds] {
        template.write(&capture, hundreds)?;
        let mut replay = Command::new(tlstrace);
        replay.args(["replay", "--all", "--output", "json"]).arg(&capture);
        // The first run brings the file and the program into memory.
        measure(&mut replay)?;
        rate = line("tlstrace replay --all -o json", hundreds, &measure(&mut replay)?)?;
    }
    if !args.no_tshark {
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&capture).args(["-Y", "tls.handshake", "-T", "json", "-J", "tls"]);
        let of_tshark = line("tshark -Y tls.handshake -T json", args.hundreds, &measure(&mut tshark)?)?;
        writeln!(out, "tlstrace is {:.0} times as fast", rate / of_tshark)?;
    }
    fs::remove_file(&capture)?;
    Ok(())
}

/// What a program took.
struct Usage {
    /// In user and kernel mode, over all threads: what one core would have needed.
    cpu: Duration,
    /// Largest resident set.
    memory_kib: u64,
}

/// Runs a program with its output thrown away.
fn measure(command: &mut Command) -> Result<Usage> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
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
    Ok(Usage { cpu: time(usage.ru_utime) + time(usage.ru_stime), memory_kib: usage.ru_maxrss.unsigned_abs() })
}

/// Connections that are open at once.
const INTERLEAVED: u32 = 100;
/// From the beginning of a hundred connections to that of the next hundred.
const SPACING: Duration = Duration::from_millis(100);

/// One handshake in Ethernet and IPv4, to be copied.
struct Template {
    /// Time of the first frame, in seconds since 1970: its certificates are valid then.
    begin: u64,
    /// Time since the first frame, and the frame.
    frames: Vec<(Duration, Vec<u8>)>,
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
        let mut frames: Vec<(Duration, Vec<u8>)> = Vec::new();
        let mut first = None;
        while let Some(frame) = reader.next_frame()? {
            let since = frame.timestamp.since(*first.get_or_insert(frame.timestamp));
            frames.push((since, frame.data.to_vec()));
        }
        let (_, syn) = frames.first().context("the capture is empty")?;
        let mut client = [0; 6];
        let [address, port] = Self::SOURCE;
        client[..4].copy_from_slice(syn.get(address..address + 4).context("the first frame is cut")?);
        client[4..].copy_from_slice(syn.get(port..port + 2).context("the first frame is cut")?);
        let begin = first.map_or(0, Timestamp::as_secs);
        Ok(Self { begin, frames, client })
    }

    /// Writes a capture of so many hundred handshakes.
    fn write(&self, path: &Path, hundreds: u32) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = BufWriter::new(file);
        // Magic, version 2.4, time zone, accuracy, snap length, Ethernet.
        for field in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1u32] {
            out.write_all(&field.to_le_bytes())?;
        }
        for hundred in 0..hundreds {
            for (since, frame) in &self.frames {
                for connection in 0..INTERLEAVED {
                    let time = SPACING * hundred + *since + Duration::from_micros(10) * connection;
                    let seconds = u32::try_from(self.begin + time.as_secs())?;
                    let len = u32::try_from(frame.len())?;
                    for field in [seconds, time.subsec_micros(), len, len] {
                        out.write_all(&field.to_le_bytes())?;
                    }
                    out.write_all(&self.rewritten(frame, hundred * INTERLEAVED + connection))?;
                }
            }
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
