//! A program that watches the server's interface: how it is started, when it is ready, what it has seen, and what
//! it takes.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::loaded_programs;
use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use tlstrace_peers::{Namespace, Pair, installed};

use super::generator::Connection;
use super::now;
use crate::memory::Memory;

/// A program that can watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Program {
    Tlstrace,
    Tcpdump,
    Tshark,
    Ssldump,
}

/// What it is to print a line about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    /// Each handshake, however much later.
    Handshakes,
    /// Each handshake that both sides accept, at once.
    Accepted,
    /// Each connection that is reset, at once.
    Resets,
}

impl Program {
    pub(super) const ALL: [Self; 4] = [Self::Tlstrace, Self::Tcpdump, Self::Tshark, Self::Ssldump];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tlstrace => "tlstrace",
            Self::Tcpdump => "tcpdump",
            Self::Tshark => "tshark",
            Self::Ssldump => "ssldump",
        }
    }

    pub(super) fn is_there(self) -> bool {
        self == Self::Tlstrace || installed(self.name())
    }

    /// The arguments for a task; none if it cannot do it, or only after its own fashion.
    fn arguments(self, task: Task) -> Option<&'static [&'static str]> {
        Some(match (self, task) {
            (Self::Tlstrace, _) => &["watch", "-i", Pair::SERVER_INTERFACE, "--output", "json", "--all"],
            (Self::Tcpdump, Task::Handshakes) => {
                &["-Z", "root", "-n", "-i", Pair::SERVER_INTERFACE, "-w", "/dev/null", "tcp port 443"]
            }
            (Self::Tcpdump, Task::Resets) => &[
                "-Z",
                "root",
                "-n",
                "-l",
                "-i",
                Pair::SERVER_INTERFACE,
                "src port 443 and tcp[tcpflags] & tcp-rst != 0",
            ],
            (Self::Tshark, Task::Handshakes) => &[
                "-n",
                "-i",
                Pair::SERVER_INTERFACE,
                "-f",
                "tcp port 443",
                "-Y",
                "tls.handshake",
                "-T",
                "json",
                "-J",
                "tls",
            ],
            (Self::Tshark, Task::Resets) => &[
                "-n",
                "-l",
                "-i",
                Pair::SERVER_INTERFACE,
                "-f",
                "tcp port 443",
                "-Y",
                "tcp.flags.reset == 1 && tcp.srcport == 443",
                "-T",
                "fields",
                "-e",
                "ip.src",
                "-e",
                "tcp.dstport",
            ],
            (Self::Ssldump, Task::Handshakes) => &["-n", "-A", "-i", Pair::SERVER_INTERFACE, "tcp port 443"],
            _ => return None,
        })
    }

    /// Whether it can do the task.
    pub(super) fn can(self, task: Task) -> bool {
        self.arguments(task).is_some()
    }

    /// Whether it prints something about each handshake.
    pub(super) const fn prints(self) -> bool {
        !matches!(self, Self::Tcpdump)
    }

    /// What a line of its output is about, if it is one of those that count.
    fn sight(self, line: &str) -> Option<Sight> {
        let on = |client: &str, server: &str| {
            let host = server.rsplit('.').next()?.parse().ok()?;
            Some(Sight::On((client.parse().ok()?, host)))
        };
        match self {
            Self::Tlstrace => {
                let client = between(line, "\"client\":{", "}")?;
                let server = between(line, "\"server\":{", "}")?;
                on(
                    between(client, "\"port\":", ",").or_else(|| behind(client, "\"port\":"))?,
                    between(server, "\"ip\":\"", "\"")?,
                )
            }
            // `… IP 10.99.0.100.443 > 10.99.0.1.40000: Flags [R.], …`
            Self::Tcpdump => {
                let server = between(line, " IP ", " > ")?.strip_suffix(".443")?;
                on(between(line, " > ", ":")?.rsplit('.').next()?, server)
            }
            Self::Tshark => match line.split_once('\t') {
                Some((server, client)) => on(client.trim_end(), server),
                None => line.trim_start().starts_with("\"tls.handshake.type\": \"2\"").then_some(Sight::Of),
            },
            Self::Ssldump => (line.trim() == "ServerHello").then_some(Sight::Of),
        }
    }
}

fn behind<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn between<'a>(text: &'a str, mark: &str, end: &str) -> Option<&'a str> {
    behind(text, mark)?.split_once(end).map(|(inner, _)| inner)
}

/// What a line shows.
enum Sight {
    /// A handshake, of whichever connection.
    Of,
    On(Connection),
}

/// A program that runs.
pub(super) struct Observer {
    program: Program,
    child: Child,
    /// From its start until it was attached.
    pub(super) started_in: Duration,
    seen: Arc<AtomicU64>,
    lines: Option<JoinHandle<Vec<(Connection, Instant)>>>,
    said: Option<JoinHandle<String>>,
}

/// Until a program is attached, and until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);
/// A program that prints nothing for so long has printed all.
const QUIET: Duration = Duration::from_secs(3);
/// For so long it may go on to print after the load.
const MOST_LAG: Duration = Duration::from_secs(30);

impl Observer {
    /// Starts it in the namespace. It is attached on return.
    pub(super) fn start(
        program: Program,
        task: Task,
        namespace: &Namespace,
        tlstrace: &Path,
    ) -> Result<Self> {
        let path = if program == Program::Tlstrace { tlstrace } else { Path::new(program.name()) };
        let arguments = program.arguments(task).with_context(|| format!("{program:?} cannot do {task:?}"))?;
        let mut command = namespace.command(path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = now();
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.name()))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut stderr = BufReader::new(child.stderr.take().context("stderr is piped")?);
        let seen = Arc::new(AtomicU64::new(0));
        let lines = thread::spawn({
            let seen = Arc::clone(&seen);
            move || read(program, stdout, &seen)
        });
        let mut observer =
            Self { program, child, started_in: Duration::ZERO, seen, lines: Some(lines), said: None };
        if program == Program::Tlstrace {
            let mut line = String::new();
            while !line.starts_with("watching ") {
                line.clear();
                ensure!(stderr.read_line(&mut line)? > 0, "tlstrace does not watch");
            }
        } else {
            observer.await_packet_socket(start)?;
        }
        observer.started_in = now() - start;
        observer.said = Some(thread::spawn(move || {
            let mut said = String::new();
            let _ = stderr.read_to_string(&mut said);
            said
        }));
        if program != Program::Tlstrace {
            // The socket is bound; what maps its ring and starts to read takes a moment more.
            thread::sleep(Duration::from_millis(500));
        }
        Ok(observer)
    }

    /// The others do not all say when they watch; but all do it by a packet socket.
    fn await_packet_socket(&mut self, start: Instant) -> Result<()> {
        let sockets = format!("/proc/{}/net/packet", self.child.id());
        while now() - start < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} has ended: {status}", self.program.name());
            }
            let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
            // Until it has entered the namespace, the sockets listed are others'.
            let is_inside = namespace(&self.child.id().to_string()) != namespace("self");
            // Behind the line of headings.
            let is_open = fs::read_to_string(&sockets).is_ok_and(|text| text.lines().count() > 1);
            if is_inside && is_open {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("{} does not watch", self.program.name())
    }

    /// What it has taken so far, over all its processes and threads.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let times = processes(self.child.id()).into_iter().map(|pid| -> Result<Duration> {
            Ok(clock_getcpuclockid(Pid::from_raw(pid.try_into()?))?.now()?.into())
        });
        times.sum()
    }

    /// Proportional set size of all its processes, in KiB.
    pub(super) fn pss_kib(&self) -> Result<u64> {
        processes(self.child.id()).into_iter().map(|pid| Ok(Memory::of(pid)?.pss_kib)).sum()
    }

    /// What its BPF programs have taken since the kernel's statistics were switched on.
    pub(super) fn bpf_time(&self) -> Result<Duration> {
        let directory = PathBuf::from(format!("/proc/{}/fdinfo", self.child.id()));
        let mut ids = HashSet::new();
        for entry in fs::read_dir(directory)? {
            // A descriptor may be gone by now.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            let id = info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok());
            ids.extend(id);
        }
        let programs = loaded_programs().filter_map(Result::ok);
        Ok(programs.filter(|info| ids.contains(&info.id())).map(|info| info.run_time()).sum())
    }

    /// Waits until it has printed so many handshakes, or prints no more.
    pub(super) fn settle(&self, expected: u64) {
        if !self.program.prints() {
            thread::sleep(Duration::from_millis(500));
            return;
        }
        let start = now();
        let mut last = (self.seen.load(Ordering::Relaxed), start);
        while last.0 < expected && last.1.elapsed() < QUIET && start.elapsed() < MOST_LAG {
            thread::sleep(Duration::from_millis(50));
            let seen = self.seen.load(Ordering::Relaxed);
            if seen != last.0 {
                last = (seen, now());
            }
        }
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<Report> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGINT)?;
        let deadline = now() + PATIENCE;
        while self.child.try_wait()?.is_none() && now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        // One that does not end is ended.
        self.child.kill()?;
        let join_failed = || anyhow::anyhow!("a thread has panicked");
        let lines = self.lines.take().context("not yet ended")?.join().map_err(|_| join_failed())?;
        let said = self.said.take().context("it was ready")?.join().map_err(|_| join_failed())?;
        let dropped = said
            .lines()
            .find_map(|line| line.strip_suffix(" packets dropped by kernel")?.trim().parse().ok());
        let totals = said.lines().find(|line| line.contains(" events; ")).map(ToOwned::to_owned);
        Ok(Report { seen: self.seen.load(Ordering::Relaxed), lines, dropped, totals })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Both fail only if it has already ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program has printed.
pub(super) struct Report {
    /// Handshakes.
    pub(super) seen: u64,
    /// When the first line on each connection came, where lines name it.
    pub(super) lines: Vec<(Connection, Instant)>,
    /// Packets that it says it did not get.
    pub(super) dropped: Option<u64>,
    /// What tlstrace says that it got and lost.
    pub(super) totals: Option<String>,
}

/// Reads lines until the program ends.
fn read(program: Program, stream: impl Read, seen: &AtomicU64) -> Vec<(Connection, Instant)> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut line = Vec::new();
    let (mut known, mut lines) = (HashSet::new(), Vec::new());
    while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        let sight = std::str::from_utf8(&line).ok().and_then(|line| program.sight(line.trim_end()));
        let is_new = match sight {
            None => false,
            Some(Sight::Of) => true,
            Some(Sight::On(connection)) => {
                // A later line on the same connection says more about it.
                let is_new = known.insert(connection);
                if is_new {
                    lines.push((connection, now()));
                }
                is_new
            }
        };
        seen.fetch_add(u64::from(is_new), Ordering::Relaxed);
        line.clear();
    }
    lines
}

/// A process and all that it has started.
fn processes(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    [pid].into_iter().chain(children.flat_map(processes)).collect()
}
