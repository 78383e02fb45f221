//! `tlstrace replay`: capture files through the same engine as live packets, without any privilege.
//!
//! Time is capture time: the engine's timers fire when the file's packets have passed them, so a replay
//! gives the verdicts that a live run would have given. Each file has an engine of its own; with `--learn-first`
//! all of them know what all files together teach about each listener.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use tlstrace_common::encapsulation::LinkKind;
use tlstrace_common::skip::Skip;

use super::{Exit, engine_settings, report};
use crate::capture::file::{self, CaptureReader, Frame, ReadError};
use crate::cli::notice;
use crate::cli::settings::Replay;
use crate::engine::segment::Segment;
use crate::engine::{Engine, Lessons, Output, Settings};
use crate::report::Report;
use crate::sink::Observer;
use crate::summary::CaptureTotals;

/// Bytes of lines that are written at once.
const OUT_ROOM: usize = 64 * 1024;

/// Replays one file after another. One that cannot be read does not keep the others from being read.
pub(super) fn run(settings: Replay) -> anyhow::Result<Exit> {
    let Replay { files, learn_first, judging, output, filter } = settings;
    let engine_settings = engine_settings(&filter, &judging)?;
    let destination = output.report.as_deref().map(report::Destination::open).transpose()?;
    // Not `Stdout`, which looks for the last end of a line in all that is written.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let observer = Observer { locality: judging.locality, ..Observer::default() };
    let mut report = Report::new(output, filter, observer, &mut out).writing_at_once(OUT_ROOM);
    let mut summary = Summary::default();
    let mut is_failed = false;
    let lessons = if learn_first { learn(&files, &engine_settings) } else { Lessons::default() };
    for file in &files {
        let engine = Engine::with_lessons(engine_settings.clone(), lessons.clone());
        match replay(file, engine, &mut report) {
            Ok(of_file) => summary.add(&of_file),
            Err(ReplayError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error @ ReplayError::Output(_)) => return Err(error.into()),
            Err(error) => {
                is_failed = true;
                notice(format_args!("tlstrace: {:#}", anyhow::Error::from(error)));
            }
        }
        if report.gate().is_full() {
            break;
        }
    }
    match report.finish(Some(&summary.totals())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    notice(format_args!("{}; {summary}", report.gate().tally()));
    let text = report.gate().summary_text();
    if !text.is_empty() {
        notice(text.trim_end());
    }
    report::write(destination, &report, summary.totals(), None)?;
    Ok(match (is_failed, report.gate().has_failed()) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::FailOn,
        (false, false) => Exit::Done,
    })
}

/// What was in a capture.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    pub frames: u64,
    pub segments: u64,
    /// Frames without a TCP segment that could be read, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Frames whose `LINKTYPE_` value is not supported, by that value.
    pub unsupported_links: BTreeMap<u32, u64>,
    /// See [`CaptureReader::truncated_at`].
    pub truncated_at: Option<u64>,
    /// See [`crate::engine::Counts::evicted`].
    pub evicted: u64,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("no frame of {name} can be read: link type {link_type} is not supported")]
    UnsupportedLink {
        name: String,
        /// The first of them, a `LINKTYPE_` value.
        link_type: u32,
    },
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// What takes the engine's outputs; it may stop the replay.
pub type OnOutput<'a> = dyn FnMut(Output) -> io::Result<ControlFlow<()>> + 'a;

/// Feeds a whole capture to the engine, and at its end has the engine judge what is left.
///
/// When the file turns out to be damaged, all that stood before the damage is judged first.
pub fn feed(
    reader: &mut CaptureReader,
    engine: &mut Engine,
    on_output: &mut OnOutput<'_>,
) -> Result<Summary, ReplayError> {
    let mut summary = Summary::default();
    let read = loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                let Some(kind) = summary.count(&frame) else { continue };
                let segment = file::segment(&frame, kind);
                match &segment {
                    Ok(segment) => {
                        summary.segments += 1;
                        if advance(engine, segment, on_output)?.is_break() {
                            return Ok(summary);
                        }
                    }
                    Err(skip) => *summary.skipped.entry(Skip::text(*skip)).or_default() += 1,
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    engine.finish();
    summary.evicted = engine.counts().evicted;
    if drain(engine, on_output)?.is_break() {
        return Ok(summary);
    }
    read?;
    summary.truncated_at = reader.truncated_at();
    match summary.unsupported_links.keys().next() {
        Some(&link_type) if summary.unsupported_links.values().sum::<u64>() == summary.frames => {
            Err(ReplayError::UnsupportedLink { name: reader.name().to_owned(), link_type })
        }
        _ => Ok(summary),
    }
}

/// What all the files teach about listeners. A file that cannot be read is told of when it is to be judged.
fn learn(files: &[PathBuf], settings: &Settings) -> Lessons {
    let mut lessons = Lessons::default();
    for file in files {
        let mut engine = Engine::with_lessons(settings.clone(), lessons);
        let read = CaptureReader::open(file).map_err(ReplayError::from);
        let read = read
            .and_then(|mut reader| feed(&mut reader, &mut engine, &mut |_| Ok(ControlFlow::Continue(()))));
        if let Err(error) = read {
            log::info!("{} taught nothing more: {error}", file.display());
        }
        lessons = engine.into_lessons();
    }
    lessons.close()
}

fn replay(file: &Path, mut engine: Engine, report: &mut Report<'_>) -> Result<Summary, ReplayError> {
    let mut reader = CaptureReader::open(file)?;
    // What feeds standard input may still be capturing, and somebody may be waiting for the lines.
    let is_live = file == Path::new("-");
    let result = feed(&mut reader, &mut engine, &mut |output| {
        let Output::Verdict(verdict) = output;
        report.publish(&verdict)?;
        if is_live {
            report.flush()?;
        }
        Ok(if report.gate().is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    report.flush().map_err(ReplayError::Output)?;
    let summary = result?;
    let name = reader.name();
    if let Some(at) = summary.truncated_at {
        notice(format_args!("{name} ends in the middle of a packet, at byte {at}; it was read up to there"));
    }
    for (link_type, frames) in &summary.unsupported_links {
        notice(format_args!(
            "{name}: {frames} packets were left out: link type {link_type} is not supported"
        ));
    }
    Ok(summary)
}

impl Summary {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.segments += other.segments;
        self.evicted += other.evicted;
        for (reason, count) in &other.skipped {
            *self.skipped.entry(reason).or_default() += count;
        }
    }

    /// What a summary of verdicts says of them.
    pub fn totals(&self) -> CaptureTotals {
        CaptureTotals { packets: self.frames, tcp: self.segments, ..CaptureTotals::default() }
    }

    /// Counts a frame and tells what it begins with, if that is supported.
    fn count(&mut self, frame: &Frame<'_>) -> Option<LinkKind> {
        self.frames += 1;
        let kind = LinkKind::from_link_type(frame.link_type);
        if kind.is_none() {
            *self.unsupported_links.entry(frame.link_type).or_default() += 1;
        }
        kind
    }
}

impl fmt::Display for Summary {
    /// `10 packets, 8 TCP segments, 2 IP packets that are not TCP`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} packets, {} TCP segments", self.frames, self.segments)?;
        self.skipped.iter().try_for_each(|(reason, count)| write!(f, ", {count} {reason}"))?;
        if self.evicted > 0 {
            write!(f, "; {} connections forgotten for want of room", self.evicted)?;
        }
        Ok(())
    }
}

fn advance(
    engine: &mut Engine,
    segment: &Segment<'_>,
    on_output: &mut OnOutput<'_>,
) -> Result<ControlFlow<()>, ReplayError> {
    engine.advance_to(segment.timestamp);
    engine.handle_segment(segment);
    drain(engine, on_output)
}

fn drain(engine: &mut Engine, on_output: &mut OnOutput<'_>) -> Result<ControlFlow<()>, ReplayError> {
    while let Some(output) = engine.poll_output() {
        if on_output(output).map_err(ReplayError::Output)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
