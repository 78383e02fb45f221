//! `tlstrace config`: what a configuration file may say, and whether one is right.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;

use clap::{CommandFactory as _, FromArgMatches as _};

use super::Exit;
use crate::cli::args::{Args, ConfigArgs, ConfigCommand};
use crate::cli::config::{Config, DEFAULT};
use crate::cli::{notice, settings};

/// Prints or checks.
pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<Exit> {
    match &args.command {
        ConfigCommand::PrintDefault => {
            io::stdout().lock().write_all(DEFAULT.as_bytes())?;
            Ok(Exit::Done)
        }
        ConfigCommand::Check { file } => check(file),
    }
}

fn check(file: &Path) -> anyhow::Result<Exit> {
    let nothing_given = Args::command().try_get_matches_from([OsString::from("tlstrace")])?;
    let mut args = Args::from_arg_matches(&nothing_given)?.watch;
    Config::read(file)?.apply(&mut args, &nothing_given);
    settings::Watch::new(args)?;
    notice(format_args!("{} is right", file.display()));
    Ok(Exit::Done)
}
