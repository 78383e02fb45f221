//! `cargo xtask test`: all tests, first those that need no privilege, then, as root, those marked `#[ignore = "needs root"]`.
//!
//! Nothing is skipped quietly: an ignored test that did not run, and a test that printed `SKIPPED name: reason`, are
//! listed at the end, and fail the run when `CI=true`, where everything that a test needs is supposed to be there.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::cargo::{self, cargo};
use crate::privilege::Privilege;

const NEEDS_ROOT: &str = "needs root";

/// Run every test, those that need root and a kernel included
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run() -> Result<ExitCode> {
    heading("tests that need no privilege")?;
    let mut total = run_tests(cargo().args(["test", "--no-fail-fast"]))?;

    match Privilege::acquire() {
        Ok(privilege) => {
            total.ignored.retain(|_, reason| !reason.starts_with(NEEDS_ROOT));
            for program in cargo::build(&["test", "--no-run"])? {
                if has_ignored_tests(&program)? {
                    heading(&format!("tests that need root, in {}", program.name))?;
                    let mut command = privilege.command(&program.path);
                    total.add(run_tests(command.arg("--ignored").current_dir(&program.package))?);
                }
            }
        }
        Err(obstacle) => {
            for reason in total.ignored.values_mut().filter(|reason| reason.starts_with(NEEDS_ROOT)) {
                *reason = format!("{NEEDS_ROOT}: {obstacle}");
            }
        }
    }
    total.conclude()
}

/// What test programs have said about their tests.
#[derive(Debug, Default)]
struct Report {
    /// As the harness counts: with the tests that ended early because they could not run here.
    passed: usize,
    failed: usize,
    /// Tests that said so themselves, with the reason. The harness takes them for passed.
    skipped: BTreeMap<String, String>,
    /// Tests that the harness did not start, with the reason of their attribute.
    ignored: BTreeMap<String, String>,
}

impl Report {
    fn read_line(&mut self, line: &str) {
        if let Some(skip) = line.strip_prefix("SKIPPED ") {
            let (test, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
            self.skipped.insert(test.to_owned(), reason.to_owned());
        } else if let Some((test, reason)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... ignored"))
        {
            self.ignored.insert(test.to_owned(), reason.trim_start_matches(", ").to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |what: &str| {
                let before = counts.split(what).next().unwrap_or_default();
                before.split_whitespace().next_back().and_then(|number| number.parse::<usize>().ok())
            };
            self.passed += count(" passed;").unwrap_or(0);
            self.failed += count(" failed;").unwrap_or(0);
        }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
        self.ignored.extend(other.ignored);
    }

    /// Prints the skipped tests and the sums, and says whether that is good enough.
    fn conclude(&self) -> Result<ExitCode> {
        let mut out = io::stdout().lock();
        writeln!(out)?;
        for (test, reason) in self.skipped.iter().chain(&self.ignored) {
            writeln!(out, "SKIPPED {test}: {reason}")?;
        }
        let skipped = self.skipped.len() + self.ignored.len();
        let passed = self.passed.saturating_sub(self.skipped.len());
        let too_many_skipped = skipped > 0 && env::var("CI").is_ok_and(|ci| ci == "true");
        if too_many_skipped {
            writeln!(out, "CI=true allows no skipped test")?;
        }
        writeln!(out, "{passed} passed, {} failed, {skipped} skipped", self.failed)?;
        Ok(if self.failed > 0 || too_many_skipped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Whether a test program has tests that plain `cargo test` leaves out.
fn has_ignored_tests(program: &cargo::Executable) -> Result<bool> {
    let list = Command::new(&program.path).args(["--list", "--ignored", "--format", "terse"]).output()?;
    Ok(list.stdout.iter().any(|byte| !byte.is_ascii_whitespace()))
}

/// Runs test programs, shows their output as it comes, and reads it.
fn run_tests(command: &mut Command) -> Result<Report> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let report = thread::scope(|scope| {
        let err = scope.spawn(|| read_through(err, io::stderr()));
        let mut report = read_through(out, io::stdout())?;
        report.add(err.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        anyhow::Ok(report)
    })?;
    let status = child.wait()?;
    if !status.success() && report.failed == 0 {
        bail!("{command:?} ended with {status}, and not because a test failed");
    }
    Ok(report)
}

/// Copies lines to `to` and reads them. They are bytes: a test may print anything.
fn read_through(from: Option<impl Read>, mut to: impl Write) -> Result<Report> {
    let mut report = Report::default();
    let mut from = BufReader::new(from.context("the output is piped")?);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        report.read_line(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(report)
}

fn heading(text: &str) -> Result<()> {
    writeln!(io::stdout(), "\n== {text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_report_counts_what_the_harness_prints_and_what_tests_say_themselves() {
        let mut report = Report::default();
        for line in [
            "test live::one ... ok",
            "test live::two ... ignored, needs root",
            "test src/lib.rs - example (line 3) ... ignored",
            "SKIPPED live::three: nginx is not installed",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.67s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            report.read_line(line);
        }
        assert_eq!((report.passed, report.failed), (15, 1));
        assert_eq!(report.skipped["live::three"], "nginx is not installed");
        assert_eq!(report.ignored["live::two"], "needs root");
        assert_eq!(report.ignored["src/lib.rs - example (line 3)"], "");
    }
}
