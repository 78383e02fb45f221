//! `cargo xtask bench`: figures, measured on this machine. One file a bench; without a name, all that can run
//! here.

mod decode;
mod kernel;
mod live;
mod replay;
mod table;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result};
use nix::unistd::Uid;

use crate::cargo;
use table::Table;

/// Measure how fast it is, beside other programs where they are installed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Option<Bench>,
    /// Write the figures to this file, too: every round's.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Bench {
    Decode(decode::Args),
    Kernel(kernel::Args),
    Live(live::Args),
    Replay(replay::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if cfg!(debug_assertions) {
        return run_release_build();
    }
    let mut tables = Vec::new();
    let mut add = |more: Vec<Table>| {
        let mut out = io::stdout().lock();
        let mut shown = more.iter().filter(|table| !table.is_empty());
        shown.try_for_each(|table| writeln!(out, "{table}"))?;
        tables.extend(more);
        io::Result::Ok(())
    };
    match &args.bench {
        Some(Bench::Decode(args)) => add(vec![decode::run(args)?])?,
        Some(Bench::Kernel(args)) => add(vec![kernel::run(args)?])?,
        Some(Bench::Live(args)) => add(live::run(args)?)?,
        Some(Bench::Replay(args)) => add(vec![replay::run(args)?])?,
        None => {
            // Each as soon as it is there: all of it takes a quarter of an hour.
            add(vec![decode::run(&decode::Args::default())?])?;
            add(vec![replay::run(&replay::Args::default())?])?;
            if Uid::effective().is_root() {
                add(vec![kernel::run(&kernel::Args::default())?])?;
                add(live::run(&live::Args::default())?)?;
            } else {
                writeln!(io::stderr(), "nothing live is measured: only root may load BPF programs")?;
            }
        }
    }
    if let Some(path) = &args.json {
        let tables: Vec<_> = tables.iter().map(Table::to_json).collect();
        let text = serde_json::to_string_pretty(&tables)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Puts a tlstrace under the loads of the live bench, once each.
pub(crate) fn exercise(tlstrace: &Path) -> Result<()> {
    live::run(&live::Args::of_tlstrace(tlstrace)).map(drop)
}

/// Becomes this very command, compiled as a release is.
fn run_release_build() -> Result<()> {
    let xtask = release_build("xtask")?;
    let error = Command::new(&xtask).args(env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot run {}", xtask.display()))
}

/// Path of a program, compiled as a release is. The other one is built along with it: alone, each would ask for
/// other features of what they share, and have it compiled once more.
fn release_build(program: &str) -> Result<PathBuf> {
    let executables =
        cargo::build(&["build", "--release", "--package", "xtask", "--package", "tlstrace", "--bins"])?;
    let executable = executables.into_iter().find(|executable| executable.name == program);
    Ok(executable.with_context(|| format!("cargo built no {program}"))?.path)
}
