//! A child process whose output is read line by line as it comes, and which does not outlive its owner.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running child with both outputs captured. Killed and reaped on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Process {
    /// Starts `command`. Its standard input is empty unless the command says otherwise.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        Ok(Self { child, stdout: Lines::read(stdout), stderr: Lines::read(stderr) })
    }

    /// The writing end of the child's standard input, once, if the command says that it is piped.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// How the child ended and the last thing it said, if it has ended.
    pub fn exited(&mut self) -> Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let said = self.stderr.rest(Duration::from_secs(1)).unwrap_or_default();
        Ok(Some(format!("{status}: {}", said.join("; "))))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id fits an i32")?;
        kill(Pid::from_raw(pid), signal).context("cannot signal the child")
    }

    /// Waits until the process has closed its standard output and ended. Its remaining lines stay readable.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        self.stdout.keep_all(within)?;
        self.child.wait().context("cannot wait for the child")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the child has already been reaped, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of output, without its line feed, and when it was read.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

/// The lines of one output stream, in order.
#[derive(Debug)]
pub struct Lines {
    receiver: Receiver<Line>,
    /// Lines that `keep_all` has read over.
    kept: VecDeque<Line>,
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(bytes) = line else { return };
                let line = Line { at: now(), text: String::from_utf8_lossy(&bytes).into_owned() };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { receiver, kept: VecDeque::new() }
    }

    /// The next line; `None` if the stream ends or `within` passes first.
    pub fn next(&mut self, within: Duration) -> Option<Line> {
        self.receive(now() + within).ok()
    }

    /// The first line that `wanted` accepts. Lines before it are dropped, and shown in the error if it never comes.
    pub fn find(&mut self, within: Duration, mut wanted: impl FnMut(&str) -> bool) -> Result<Line> {
        let deadline = now() + within;
        let mut seen = Vec::new();
        let obstacle = loop {
            match self.receive(deadline) {
                Ok(line) if wanted(&line.text) => return Ok(line),
                Ok(line) => seen.push(line.text),
                Err(RecvTimeoutError::Timeout) => break format!("did not come within {within:?}"),
                Err(RecvTimeoutError::Disconnected) => break "never came".to_owned(),
            }
        };
        bail!("the expected line {obstacle}; instead:\n{}", seen.join("\n"))
    }

    /// All lines up to the end of the stream.
    pub fn rest(&mut self, within: Duration) -> Result<Vec<String>> {
        self.keep_all(within)?;
        Ok(self.kept.drain(..).map(|line| line.text).collect())
    }

    /// Waits for the end of the stream without taking a line away.
    fn keep_all(&mut self, within: Duration) -> Result<()> {
        let deadline = now() + within;
        let mut lines = VecDeque::new();
        let end = loop {
            match self.receive(deadline) {
                Ok(line) => lines.push_back(line),
                Err(end) => break end,
            }
        };
        self.kept = lines;
        ensure!(end == RecvTimeoutError::Disconnected, "the process still runs after {within:?}");
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Line, RecvTimeoutError> {
        match self.kept.pop_front() {
            Some(line) => Ok(line),
            None => self.receiver.recv_timeout(deadline.saturating_duration_since(now())),
        }
    }
}

/// Says loudly that the current test did not test anything, and why: `cargo xtask test` reads this line, counts it, and
/// fails for it in CI. Return from the test after it.
pub fn skip(reason: &str) {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not `eprintln!`: the harness swallows what that writes when the test passes.
    writeln!(io::stderr(), "SKIPPED {test}: {reason}").expect("stderr is open");
}

/// Whether `program` is on the PATH.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

#[expect(clippy::disallowed_methods, reason = "deadlines and latencies of real processes are real time")]
fn now() -> Instant {
    Instant::now()
}
