//! `cargo xtask soak`: does `tlstrace watch` stay as it is for as long as it runs?
//!
//! A steady mixed load in throw-away network namespaces: handshakes that succeed and are refused, ports that are closed,
//! HTTP, clients that stall, and hosts that come and go with their interfaces. Memory, file descriptors and verdicts are
//! looked at again and again. It fails if memory or descriptors grow, or if a connection has neither a verdict nor a loss
//! that was counted.

use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_peers::{
    Family, Identity, Namespace, Pair, Process, Service, client_hello, link, rustls_client, rustls_server,
    sni_gateway, watch,
};

use crate::cargo;
use crate::memory::Memory;
use crate::privilege::Privilege;

/// Watch a steady load for a long time, and fail if memory or file descriptors grow or if a verdict is missing
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Connections per second
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Watch with this tlstrace instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tlstrace = cargo::tlstrace(args.binary.as_deref())?;
    match Privilege::to_trace("the soak")? {
        Privilege::Root => soak(&tlstrace, args)?,
        sudo @ Privilege::Sudo => {
            let mut command = sudo.command(std::env::current_exe()?);
            command.args(["soak", "--minutes", &args.minutes.to_string(), "--rate", &args.rate.to_string()]);
            let status = command.arg("--binary").arg(tlstrace).status().context("cannot run sudo")?;
            ensure!(status.success(), "the soak failed");
        }
    }
    Ok(ExitCode::SUCCESS)
}

const NAME: &str = "shop.example";
const PORT: u16 = 8443;
const CLOSED_PORT: u16 = 8444;
/// How often to look.
const SAMPLES: u32 = 40;
/// In the first part tables fill and the allocator finds its size.
const WARM_UP: usize = 10;
/// Memory may vary by so much, in KiB, and by a tenth.
const TOLERANCE_KIB: u64 = 2048;
/// A verdict on a client that stalls, or on a handshake of which nothing more is heard, takes its time.
const LAST_VERDICTS: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(15);

/// How things are at one moment.
struct Sample {
    rss_kib: u64,
    pss_kib: u64,
    descriptors: usize,
}

fn soak(tlstrace: &Path, args: &Args) -> Result<()> {
    let duration = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    let pair = Pair::new()?;
    let identity = Identity::issue(&[NAME])?;
    let config = rustls_server(&identity, ALL_VERSIONS)?;
    let _gateway = Service::start(&pair.server, PORT, sni_gateway(&[NAME], config))?;
    let mut watch = watch(&pair.server, tlstrace, &["-i", "any", "-o", "json", "--all"])?;

    let load =
        Load { pair: &pair, identity: &identity, made: AtomicU64::new(0), is_over: AtomicBool::new(false) };
    let mut verdicts = Verdicts::default();
    let samples = thread::scope(|scope| {
        let _end = EndOnDrop(&load.is_over);
        scope.spawn(|| load.come_and_go(Duration::from_secs(3)));
        let client = scope.spawn(|| pair.client.enter(|| load.keep_up(args.rate)));
        let start = now();
        let mut samples = Vec::new();
        show("     time  connections  verdicts  RSS KiB  PSS KiB  descriptors")?;
        for number in 1..=SAMPLES {
            let until = start + duration * number / SAMPLES;
            verdicts.take(&mut watch, until)?;
            ensure!(!client.is_finished(), "the load has ended by itself");
            samples.push(load.sample(&watch, now() - start, verdicts.first)?);
        }
        load.is_over.store(true, Ordering::Relaxed);
        anyhow::Ok(samples)
    })?;

    // Until all that is still open has been judged.
    let made = load.made.load(Ordering::Relaxed);
    let deadline = now() + LAST_VERDICTS;
    while verdicts.first < made && now() < deadline {
        verdicts.take(&mut watch, now() + Duration::from_millis(100))?;
    }
    watch.signal(Signal::SIGINT)?;
    ensure!(watch.wait(PATIENCE)?.success(), "tlstrace failed");
    verdicts.add(watch.stdout.rest(PATIENCE)?)?;
    let said = watch.stderr.rest(PATIENCE)?;
    let totals = said.iter().find(|line| line.contains(" events; ")).context("no summary")?;
    show(&format!("{made} connections, {} verdicts, {} revisions", verdicts.first, verdicts.revisions))?;
    show(totals)?;

    ensure!(verdicts.first <= made, "more verdicts than connections");
    let is_lossless = totals.contains("; nothing lost");
    ensure!(verdicts.first == made || !is_lossless, "verdicts are missing, and nothing is said to be lost");
    no_drift(&samples)
}

/// What grew, if anything did.
fn no_drift(samples: &[Sample]) -> Result<()> {
    let (_, steady) = samples.split_at_checked(WARM_UP).context("too few samples")?;
    let (earlier, later) = steady.split_at(steady.len() / 2);
    for (what, value) in
        [("RSS", (|sample| sample.rss_kib) as fn(&Sample) -> u64), ("PSS", |sample| sample.pss_kib)]
    {
        let [before, after] = [earlier, later].map(|samples| median(samples.iter().map(value)));
        ensure!(
            after <= before + before / 10 + TOLERANCE_KIB,
            "{what} grew from {before} to {after} KiB: a leak"
        );
    }
    let [before, after] =
        [earlier, later].map(|samples| median(samples.iter().map(|sample| sample.descriptors as u64)));
    ensure!(after <= before + 1, "file descriptors grew from {before} to {after}: a leak");
    Ok(())
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Verdicts that were printed: the first on each connection, and what was said later.
#[derive(Default)]
struct Verdicts {
    first: u64,
    revisions: u64,
}

impl Verdicts {
    /// Counts what is printed until then.
    fn take(&mut self, watch: &mut Process, until: Instant) -> Result<()> {
        while let Some(line) = watch.stdout.next(until.saturating_duration_since(now())) {
            self.add([line.text])?;
        }
        if let Some(end) = watch.exited()? {
            bail!("tlstrace has ended: {end}");
        }
        Ok(())
    }

    fn add(&mut self, lines: impl IntoIterator<Item = String>) -> Result<()> {
        for line in lines {
            let verdict: Value = serde_json::from_str(&line).context("a line that is no JSON")?;
            let is_revision = verdict.pointer("/tlstrace/revision").and_then(Value::as_u64) > Some(0);
            *(if is_revision { &mut self.revisions } else { &mut self.first }) += 1;
        }
        Ok(())
    }
}

/// Has the load end whatever happens, so that its threads do not go on.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Load<'a> {
    pair: &'a Pair,
    identity: &'a Identity,
    /// Connections that were tried.
    made: AtomicU64,
    is_over: AtomicBool,
}

impl Load<'_> {
    /// Connections of all kinds in turn, so many a second. To be called in the client's namespace.
    fn keep_up(&self, rate: f64) -> Result<()> {
        let interval = Duration::try_from_secs_f64(1.0 / rate).context("--rate")?;
        let hello = client_hello(self.identity, NAME)?;
        let half = hello.get(..hello.len() / 2).unwrap_or_default();
        // Clients that have sent half a hello, until they give up.
        let mut stalled = std::collections::VecDeque::new();
        let mut next = now();
        for number in 0_u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            self.made.fetch_add(1, Ordering::Relaxed);
            match number % 8 {
                0..4 => self.handshake(NAME),
                4 => self.handshake("unknown.example"),
                5 => {
                    let refused = TcpStream::connect((Pair::server_address(Family::Ipv4), CLOSED_PORT));
                    ensure!(refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
                }
                6 => {
                    let mut stream = connect()?;
                    let _ =
                        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").and_then(|()| stream.read(&mut [0; 64]));
                }
                _ => {
                    let mut stream = connect()?;
                    stream.write_all(half)?;
                    stalled.push_back(stream);
                    if stalled.len() > 50 {
                        stalled.pop_front();
                    }
                }
            }
            next += interval;
            thread::sleep(next.saturating_duration_since(now()));
        }
        Ok(())
    }

    fn handshake(&self, name: &str) {
        let shake = || -> Result<()> {
            let client = rustls_client(self.identity, ALL_VERSIONS, name)?;
            let mut tls = StreamOwned::new(client, connect()?);
            tls.write_all(b"ping")?;
            tls.read_exact(&mut [0; 4])?;
            tls.sock.shutdown(Shutdown::Write)?;
            Ok(tls.sock.read_to_end(&mut Vec::new()).map(drop)?)
        };
        // Those that are refused are part of the load.
        let _ = shake();
    }

    /// Hosts that come with an interface, are refused once, and go.
    fn come_and_go(&self, pause: Duration) -> Result<()> {
        const NETWORK: u8 = 123;
        for number in 0_u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let host = Namespace::new()?;
            let near = format!("pod{}", number % 1000);
            link(&host, "eth0", &self.pair.server, &near)?;
            let address = Family::Ipv4.address(NETWORK, 1);
            self.pair.server.configure(&near, address)?;
            host.configure("eth0", Family::Ipv4.address(NETWORK, 2))?;
            thread::sleep(pause);
            self.made.fetch_add(1, Ordering::Relaxed);
            let refused = host.enter(|| TcpStream::connect(SocketAddr::new(address, CLOSED_PORT)));
            ensure!(refused.is_err(), "a port that should be closed is open");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn sample(&self, watch: &Process, at: Duration, verdicts: u64) -> Result<Sample> {
        let Memory { rss_kib, pss_kib } = Memory::of(watch.id())?;
        let descriptors = fs::read_dir(format!("/proc/{}/fd", watch.id()))?.count();
        let sample = Sample { rss_kib, pss_kib, descriptors };
        let (seconds, connections) = (at.as_secs(), self.made.load(Ordering::Relaxed));
        show(&format!(
            "{seconds:7} s  {connections:11}  {verdicts:8}  {rss_kib:7}  {pss_kib:7}  {descriptors:11}"
        ))?;
        Ok(sample)
    }
}

fn connect() -> io::Result<TcpStream> {
    TcpStream::connect((Pair::server_address(Family::Ipv4), PORT))
}

fn show(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

#[expect(clippy::disallowed_methods, reason = "a soak takes real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(growth: u64) -> Vec<Sample> {
        let sample =
            |number: u64| Sample { rss_kib: 20_000 + growth * number, pss_kib: 10_000, descriptors: 12 };
        (0..u64::from(SAMPLES)).map(sample).collect()
    }

    #[test]
    fn steady_memory_is_no_drift_and_growing_memory_is() {
        assert!(no_drift(&samples(0)).is_ok());
        assert!(no_drift(&samples(10)).is_ok());
        assert!(no_drift(&samples(500)).is_err());
    }
}
