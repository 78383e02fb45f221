//! `tlstrace watch`: live verdicts.

use std::fs;
use std::io::{self, BufWriter};

use anyhow::Context as _;

use super::{Exit, engine_settings};
use crate::capture::health::Conditions;
use crate::capture::{self, Capture, privilege};
use crate::cli::notice;
use crate::cli::settings::Watch;
use crate::engine::Engine;
use crate::report::Report;
use crate::run::{self, End, Signals};
use crate::sink::Observer;

/// Watches until something ends it.
pub(super) fn run(settings: Watch) -> anyhow::Result<Exit> {
    if let Some(namespace) = &settings.network_namespace {
        capture::enter(namespace)?;
    }
    // One thread: the engine is one, and the network namespace belongs to the thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the tokio runtime")?.block_on(watch(settings))
}

async fn watch(settings: Watch) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let mut engine = Engine::new(engine_settings(&settings.filter, &settings.judging)?);
    let mut notes = Vec::new();
    let mut capture = Capture::start(settings.capture, &mut notes)?;
    for note in notes {
        notice(note);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    match capture.renounce_privileges() {
        Ok(kept) => log::info!("capabilities kept: {:?}", privilege::names(kept)),
        Err(error) => log::warn!("the capabilities that are needed no more could not be given up: {error:#}"),
    }
    let locality = settings.judging.locality;
    let observer = Observer { hostname: hostname(), locality, ..Observer::default() };
    notice(format_args!("watching {}; {}", capture.describe(), settings.filter.describe_ports()));
    let mut report = Report::new(settings.output, settings.filter, observer, &mut out);

    let end = run::run(&mut capture, &mut engine, &mut report, &mut signals, settings.timeout).await?;

    if end == End::ClosedPipe {
        return Ok(Exit::Done);
    }
    notice(format_args!("{} on {} connections", report.tally(), engine.counts().connections));
    notice(Conditions {
        counters: capture.counters()?,
        engine: engine.counts(),
        malformed: capture.ring.malformed(),
    });
    Ok(match end {
        End::NoInterface => Exit::Failed,
        _ if report.has_failed() => Exit::FailOn,
        End::Signal | End::Timeout | End::Count | End::ClosedPipe => Exit::Done,
    })
}

/// The node's name, or the pod's inside one.
fn hostname() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
