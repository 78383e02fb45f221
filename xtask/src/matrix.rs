//! `cargo xtask matrix`: the live matrix (see `tlstrace_peers::matrix`), with every wrong verdict and the confusion table.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tlstrace_peers::matrix::{self, Scope};

use crate::cargo;
use crate::privilege::Privilege;

/// Let many TLS stacks fail at each other in throw-away network namespaces, and compare the verdicts with the truth
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also Go, Envoy and curl-cffi, if they are on the PATH, and every listener cold and warm over both IP versions
    #[arg(long)]
    wide: bool,
    /// Only rows of which the description ("expired: Nginx < Curl, TLS 1.3") contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Judge with this tlstrace instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let tlstrace = cargo::tlstrace(args.binary.as_deref())?;
    match Privilege::to_trace("the matrix")? {
        Privilege::Root => show(&tlstrace, args),
        sudo @ Privilege::Sudo => {
            let mut command = sudo.command(std::env::current_exe()?);
            command.args(["matrix", "--only", &args.only, "--binary"]).arg(tlstrace);
            command.args(args.wide.then_some("--wide"));
            let status = command.status().context("cannot run sudo")?;
            Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn show(tlstrace: &Path, args: &Args) -> Result<ExitCode> {
    let scope = if args.wide { Scope::Wide } else { Scope::Usual };
    let matrix = matrix::run(tlstrace, scope, &args.only)?;
    let mut out = io::stdout().lock();
    let mut wrong = 0;
    for outcome in matrix.outcomes.iter().filter(|outcome| !outcome.is_right()) {
        wrong += 1;
        writeln!(out, "{outcome}")?;
    }
    for (stack, reason) in &matrix.skipped {
        writeln!(out, "SKIPPED {stack}: {reason}")?;
    }
    writeln!(out, "\n{:34} {:34} times", "expected", "given")?;
    for ((expected, given), times) in matrix.confusion() {
        writeln!(out, "{expected:34} {given:34} {times:5}")?;
    }
    writeln!(out, "\n{} connections, {wrong} judged otherwise than the table says", matrix.outcomes.len())?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
