//! What the chores ask of cargo: to build something, and to say where it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A program that cargo has built.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The name of the binary or of the test target.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The directory of the package, in which cargo runs its tests.
    pub(crate) package: PathBuf,
}

/// `cargo`, the one that runs this xtask, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Runs a building subcommand of cargo and returns the executables it made, in cargo's order.
pub(crate) fn build(arguments: &[&str]) -> Result<Vec<Executable>> {
    let output = cargo()
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "`cargo {}` failed", arguments.join(" "));
    let messages = String::from_utf8(output.stdout).context("cargo's messages are not UTF-8")?;
    Ok(messages.lines().filter_map(|line| executable(&serde_json::from_str(line).ok()?)).collect())
}

/// `binary`, or tlstrace as built now.
pub(crate) fn tlstrace(binary: Option<&Path>) -> Result<PathBuf> {
    binary.map_or_else(build_tlstrace, |file| Ok(file.to_owned()))
}

/// Builds tlstrace and returns its path.
fn build_tlstrace() -> Result<PathBuf> {
    let executables = build(&["build", "--package", "tlstrace"])?;
    let tlstrace = executables.into_iter().find(|executable| executable.name == "tlstrace");
    Ok(tlstrace.context("cargo built no `tlstrace`")?.path)
}

fn executable(message: &Value) -> Option<Executable> {
    let manifest = PathBuf::from(message.get("manifest_path")?.as_str()?);
    Some(Executable {
        name: message.pointer("/target/name")?.as_str()?.to_owned(),
        path: message.get("executable")?.as_str()?.into(),
        package: manifest.parent()?.to_owned(),
    })
}
