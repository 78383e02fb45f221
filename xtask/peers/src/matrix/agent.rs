//! Peers in other languages: one process a namespace, told line by line to listen and to connect.
//!
//! A command is `listen` or `connect`, then `key=value` words: `port`, `versions` (`1.2,1.3`), and, where wanted, `address`,
//! `name`, `certificate` with `key`, `authority` (whom to trust; without it nobody is asked), `alpn` (`h2,http/1.1`),
//! `ciphers`, `session` (a name under which a session is kept and resumed). The answer is one line: `listening`, `done`, or
//! `failed` and why. A failure to connect is a result like any other.

use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{Namespace, Process};

const PATIENCE: Duration = Duration::from_mins(1);

/// The languages, and the program that each needs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Language {
    Python,
    Node,
    Java,
    Go,
    /// Python again, with the TLS of a browser: `curl_cffi`. A client only.
    Chrome,
}

impl Language {
    pub(super) const ALL: [Self; 5] = [Self::Python, Self::Node, Self::Java, Self::Go, Self::Chrome];

    /// What runs it, and what compiles it if that is something else.
    pub(super) const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Python => &["python3"],
            Self::Node => &["node"],
            Self::Java => &["java", "javac"],
            Self::Go => &["go"],
            // A command that comes with the module, where the Python on the PATH has it.
            Self::Chrome => &["python3", "curl-cffi"],
        }
    }

    /// Writes, and if need be compiles, the agents of all languages that are here.
    pub(super) fn prepare(directory: &Path, here: impl Fn(Self) -> bool) -> Result<()> {
        for language in Self::ALL.into_iter().filter(|&language| here(language)) {
            let (name, source) = language.source();
            let path = directory.join(name);
            std::fs::write(&path, source)?;
            let mut compiler = match language {
                Self::Python | Self::Node | Self::Chrome => continue,
                Self::Java => Command::new("javac"),
                Self::Go => Command::new("go"),
            };
            match language {
                Self::Java => compiler.arg("-d").arg(directory),
                _ => compiler.args(["build", "-o"]).arg(directory.join("agent-go")),
            };
            let output =
                compiler.arg(&path).stdin(Stdio::null()).output().context("cannot compile an agent")?;
            ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Python => ("agent.py", include_str!("agents/agent.py")),
            Self::Node => ("agent.js", include_str!("agents/agent.js")),
            Self::Java => ("Agent.java", include_str!("agents/Agent.java")),
            Self::Go => ("agent.go", include_str!("agents/agent.go")),
            Self::Chrome => ("chrome.py", include_str!("agents/chrome.py")),
        }
    }
}

/// A running agent. Commands are carried out one after the other.
pub(super) struct Agent {
    inner: Mutex<(Process, ChildStdin)>,
}

impl Agent {
    pub(super) fn start(language: Language, namespace: &Namespace, directory: &Path) -> Result<Self> {
        let mut command = match language {
            Language::Python | Language::Chrome => namespace.command("python3"),
            Language::Node => namespace.command("node"),
            Language::Java => namespace.command("java"),
            Language::Go => namespace.command(directory.join("agent-go")),
        };
        match language {
            Language::Python | Language::Node | Language::Chrome => {
                command.arg(directory.join(language.source().0))
            }
            // The interpreter and the fast compiler: a JVM that optimises for minutes helps nobody here.
            Language::Java => {
                command.args(["-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"]).arg(directory).arg("Agent")
            }
            Language::Go => &mut command,
        };
        let mut process = Process::spawn(command.stdin(Stdio::piped()))?;
        let input = process.stdin().context("standard input is piped")?;
        Ok(Self { inner: Mutex::new((process, input)) })
    }

    /// Sends a command and waits for its answer.
    pub(super) fn tell(&self, command: &str) -> Result<String> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (process, input) = &mut *inner;
        writeln!(input, "{command}")?;
        let answer = process.stdout.next(PATIENCE).with_context(|| format!("no answer to: {command}"))?;
        Ok(answer.text)
    }
}
