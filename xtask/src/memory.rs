//! How much memory a process holds, as the kernel adds it up in `/proc/PID/smaps_rollup`.

use std::fs;

use anyhow::{Context as _, Result};

/// Sizes in KiB.
pub(crate) struct Memory {
    /// Resident set size.
    pub(crate) rss_kib: u64,
    /// Proportional set size: pages that others have mapped, too, count in part.
    pub(crate) pss_kib: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |what: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(what));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).context("smaps_rollup")
        };
        Ok(Self { rss_kib: kib("Rss:")?, pss_kib: kib("Pss:")? })
    }
}
