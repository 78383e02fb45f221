//! The subcommands, one file each, and how their ends become exit codes.

mod cleanup;
mod config;
mod doctor;
mod explain;
mod fmt;
mod probe;
pub mod replay;
mod report;
mod shell;
#[cfg(feature = "top")]
mod top;
mod watch;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;

use crate::capture::Unavailable;
use crate::cli::args::{Args, Command, fold_not};
use crate::cli::config::{Config, ConfigError};
use crate::cli::settings::{Filter, Judging};
use crate::cli::{self, notice, settings};
use crate::engine;
use crate::tls::certificate::trust::TrustAnchors;

/// How the program ended, by its exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Done = 0,
    /// Runtime error.
    Failed = 1,
    Usage = 2,
    /// A privilege or a kernel feature is missing.
    Unavailable = 3,
    /// A verdict that `--fail-on` names.
    FailOn = 4,
}

/// Runs the command line, the program's name being its first element.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let exit = dispatch(arguments).unwrap_or_else(|error| report_error(&error));
    ExitCode::from(exit as u8)
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Exit> {
    let line = fold_not(arguments);
    let Args { command, watch } = Args::try_parse_from(&line)?;
    match command.unwrap_or(Command::Watch(watch)) {
        Command::Watch(mut args) => {
            if let Some(file) = &args.config {
                args = Config::read(file)?.complete(line)?;
            }
            cli::log::init(args.output.style.verbose);
            watch::run(settings::Watch::new(args)?)
        }
        Command::Probe(args) => probe::run(&cli::probe::Probe::new(args)?),
        Command::Doctor(args) => {
            cli::log::init(0);
            doctor::run(&args.into())
        }
        Command::Cleanup(args) => {
            cli::log::init(0);
            cleanup::run(&args.into())
        }
        Command::Replay(args) => {
            cli::log::init(args.output.style.verbose);
            replay::run(settings::Replay::new(args)?)
        }
        #[cfg(feature = "top")]
        Command::Top(args) => {
            cli::log::init(0);
            top::run(&settings::Top::new(args)?)
        }
        Command::Fmt(args) => {
            cli::log::init(args.style.verbose);
            fmt::run(settings::Fmt::new(args)?)
        }
        Command::Report(args) => {
            cli::log::init(0);
            report::run(&settings::Report::new(args)?)
        }
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::manual(),
        Command::Explain(args) => explain::run(&args),
    }
}

/// What the engine is to know, from the command line.
fn engine_settings(filter: &Filter, judging: &Judging) -> anyhow::Result<engine::Settings> {
    let read = |path: &PathBuf| {
        let bundle = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let anchors = TrustAnchors::from_pem(&bundle);
        anchors.map(Arc::new).with_context(|| format!("{} is of no use as --ca-file", path.display()))
    };
    Ok(engine::Settings {
        ports: filter.ports().to_vec(),
        trust_anchors: judging.ca_file.as_ref().map(read).transpose()?,
        ..engine::Settings::default()
    })
}

/// Tells the user what went wrong.
fn report_error(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Help and version are "errors" of clap's, too: those go to stdout and are no failure.
        let _ = error.print();
        return if error.exit_code() == 0 { Exit::Done } else { Exit::Usage };
    }
    if error.is::<ConfigError>() {
        notice(format_args!("tlstrace: {error:#}"));
        return Exit::Usage;
    }
    if let Some(unavailable) = error.downcast_ref::<Unavailable>() {
        notice(format_args!("tlstrace: {unavailable}"));
        for cause in error.chain().skip(1) {
            log::info!("because: {cause}");
        }
        return Exit::Unavailable;
    }
    notice(format_args!("tlstrace: {error:#}"));
    Exit::Failed
}
