//! `tlstrace config`: what a configuration file may say, and whether one is right.

use std::io::{self, Write as _};
use std::path::Path;

use super::Exit;
use crate::cli::args::{ConfigArgs, ConfigCommand};
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
    let args = Config::read(file)?.complete(vec!["tlstrace".into()])?;
    settings::Watch::new(args)?;
    notice(format_args!("{} is right", file.display()));
    Ok(Exit::Done)
}
