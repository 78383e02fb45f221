//! Does all that watching takes, where nobody is disturbed: what `tlstrace doctor` believes.

use std::thread;

use anyhow::Context as _;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tlstrace_common::config::Layout;
use tlstrace_common::symbols;

use super::attach::{Hook, Mode, attach};
use super::choice::Choice;
use super::loader::{self, Programs};
use super::{flatten, interfaces};

/// What came of it.
#[derive(Debug)]
pub struct Trial {
    /// The programs with how many instructions the verifier followed, where the kernel (5.16) tells; or why one
    /// cannot be loaded.
    pub loaded: anyhow::Result<Vec<(&'static str, Option<u32>)>>,
    /// What can be attached to, if a namespace could be had to try it in, and why not.
    pub attached: Option<Vec<(Hook, anyhow::Result<()>)>>,
}

const SMALLEST_RING: u32 = 64 * 1024;

/// Loads all programs, and attaches to the loopback interface of a network namespace that is made for this.
pub fn run() -> Trial {
    // A thread of its own, since namespaces are per thread and there is no way back.
    let trial = thread::spawn(|| {
        // SAFETY: only the network namespace changes, and only this thread's; descriptors stay shared.
        let is_apart = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
        // The programs are verified with the maps that they use.
        let (mut programs, _maps) =
            match loader::load(SMALLEST_RING, Mode::default(), &Choice::default(), &Layout::default()) {
                Ok(loaded) => loaded,
                Err(error) => return Trial { loaded: Err(error), attached: None },
            };
        let loaded = symbols::PROGRAMS
            .into_iter()
            .chain([symbols::PROGRAM_SELECT])
            .map(|name| Ok((name, programs.classifier(name)?.info()?.verified_instruction_count())))
            .collect();
        let attached = is_apart.ok().map(|()| {
            [(Hook::Tcx, Mode::Tcx), (Hook::Clsact, Mode::Clsact)]
                .map(|(hook, mode)| (hook, attach_to_loopback(&mut programs, mode)))
                .into()
        });
        Trial { loaded, attached }
    });
    trial.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn attach_to_loopback(programs: &mut Programs, mode: Mode) -> anyhow::Result<()> {
    let interfaces = interfaces::list()?;
    let loopback = interfaces.first().context("a new network namespace has no interface")?;
    attach(programs, loopback, mode).map(drop).map_err(flatten)
}
