//! `tlstrace watch` inside a namespace.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Namespace, Process};

/// Starts `tlstrace watch` with the given arguments. Every hook is attached on return.
pub fn watch<S: AsRef<OsStr>>(namespace: &Namespace, tlstrace: &Path, arguments: &[S]) -> Result<Process> {
    let mut watch = Process::spawn(namespace.command(tlstrace).arg("watch").args(arguments))?;
    watch
        .stderr
        .find(Duration::from_secs(30), |line| line.starts_with("watching "))
        .context("tlstrace does not watch")?;
    Ok(watch)
}
