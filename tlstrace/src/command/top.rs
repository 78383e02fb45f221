//! `tlstrace top`: the screen over live packets, captures or saved lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, IsTerminal as _, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use tokio::sync::Notify;

use super::{Exit, engine_settings, replay, watch};
use crate::capture;
use crate::capture::file::{self, CaptureReader};
use crate::cli::settings::{self, Live, Top, TopSource};
use crate::cli::{QueuedNotices, notice};
use crate::engine::{self, Engine, Output};
use crate::entry::Saved;
use crate::names::Names;
use crate::outlet::Outlet;
use crate::report::Report;
use crate::run::{self, End, Signals};
use crate::sink::Observer;
use crate::top::State;
use crate::top::board::Board;
use crate::top::screen::Display;
use crate::verdict::words;

/// Longest line that is read as JSON.
const MAX_LINE: u64 = 1 << 20;

/// Shows until the user has seen enough.
pub(super) fn run(settings: &Top) -> anyhow::Result<Exit> {
    if !io::stdout().is_terminal() {
        return Err(settings::usage("tlstrace top needs a terminal; tlstrace watch prints lines").into());
    }
    let board = Board::new(State::new(settings.offset));
    let result = match &settings.source {
        TopSource::Live(live, names) => {
            let names =
                names.as_ref().map(|sources| watch::look_up(sources, &settings.filter)).transpose()?;
            if let Some(namespace) = &live.network_namespace {
                capture::enter(namespace)?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("cannot start the tokio runtime")?;
            runtime.block_on(show_live(settings, live, names, &board))
        }
        TopSource::Files(files) => show_files(settings, files, &board),
    };
    let text = board.lock().summary_text();
    if !text.is_empty() {
        notice(text.trim_end());
    }
    result
}

async fn show_live(settings: &Top, live: &Live, names: Option<Names>, board: &Board) -> anyhow::Result<Exit> {
    let enough = Arc::new(Notify::new());
    let mut signals = Signals::listen()?.or(Arc::clone(&enough));
    let mut engine = watch::engine(&settings.filter, &settings.judging)?;
    names.iter().for_each(watch::look_at_processes);
    let mut capture = watch::start(live.capture.clone(), |note| board.lock().note(&note))?;
    board.lock().set_source(&capture.describe());
    // Nobody reads it: what is shown is on the board.
    let mut out = Outlet::new(io::sink()).context("cannot start a thread")?;
    let printer = out.monitor();
    let observer = Observer { locality: settings.judging.locality.clone(), ..Observer::default() };
    let (output, filter) = (settings.output.clone(), settings.filter.clone());
    let mut report = Report::with_sink(Box::new(board.clone()), output, filter, observer, &mut out);
    let printing =
        run::Printing { report: &mut report, printer: &printer, exporter: None, names: names.as_ref() };

    let display = Display::start(board.clone(), settings.output.style.colour, enough)?;
    let notices = QueuedNotices::to(board.clone()).context("cannot start a thread")?;
    let end = run::run(&mut capture, &mut engine, printing, &mut signals, live.timeout).await;
    let left = display.leave();
    drop(notices);
    let end = end?;
    left.context("cannot use the terminal")?;
    notice(run::totals(&capture, &engine, &printer.lost(), &report.lost_exports())?);
    Ok(if end == End::NoInterface { Exit::Failed } else { Exit::Done })
}

fn show_files(settings: &Top, files: &[PathBuf], board: &Board) -> anyhow::Result<Exit> {
    board.lock().set_source(&words::list(files.iter().map(|file| name(file)), 1));
    let engine = engine_settings(&settings.filter, &settings.judging)?;
    let (of_reader, files, settings) = (board.clone(), files.to_vec(), settings.clone());
    let is_coloured = settings.output.style.colour;
    let display = Display::start(board.clone(), is_coloured, Arc::default())?;
    let notices = QueuedNotices::to(board.clone()).context("cannot start a thread")?;
    // It may wait for standard input when the user has seen enough, and ends with the program.
    let reader = thread::Builder::new().name("reader".to_owned()).spawn(move || {
        let mut failed = Vec::new();
        for file in &files {
            if let Err(error) = read(file, &settings, &engine, &of_reader) {
                of_reader.lock().note(&format!("{error:#}"));
                failed.push(error);
            }
        }
        of_reader.lock().end();
        failed
    })?;
    let shown = display.wait();
    drop(notices);
    shown.context("cannot use the terminal")?;
    let mut is_failed = false;
    if reader.is_finished() {
        let failed = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        for error in failed {
            is_failed = true;
            notice(format_args!("tlstrace: {error:#}"));
        }
    }
    Ok(if is_failed { Exit::Failed } else { Exit::Done })
}

/// Reads a capture, or saved lines: what it is shows in its first bytes.
fn read(file: &Path, settings: &Top, engine: &engine::Settings, board: &Board) -> anyhow::Result<()> {
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot open {}", name(file)))?)
    };
    let cannot_read = || format!("cannot read {}", name(file));
    let mut head = Vec::new();
    source.by_ref().take(file::MAGIC_LEN).read_to_end(&mut head).with_context(cannot_read)?;
    let is_capture = file::is_capture(&head);
    let source = Cursor::new(head).chain(source);
    if is_capture {
        let reader = CaptureReader::from_reader(name(file), Box::new(source))?;
        judge(reader, Engine::new(engine.clone()), settings, board)
    } else if settings.output.redaction.is_empty() {
        take_lines(&mut BufReader::new(source), settings, board).with_context(cannot_read)
    } else {
        anyhow::bail!("{} is no capture file: --redact hides nothing in saved lines", name(file))
    }
}

fn judge(mut reader: CaptureReader, mut engine: Engine, settings: &Top, board: &Board) -> anyhow::Result<()> {
    let (output, filter) = (settings.output.clone(), settings.filter.clone());
    let observer = Observer { locality: settings.judging.locality.clone(), ..Observer::default() };
    let mut out = io::sink();
    let mut report = Report::with_sink(Box::new(board.clone()), output, filter, observer, &mut out);
    let fed = replay::feed(&mut reader, &mut engine, &mut |output| {
        let Output::Verdict(verdict) = output;
        report.publish(&verdict)?;
        Ok(ControlFlow::Continue(()))
    });
    let summary = fed?;
    let mut state = board.lock();
    state.add_capture(&summary.totals());
    state.note(&format!("{}: {summary}", reader.name()));
    if let Some(at) = summary.truncated_at {
        state.note(&format!("{} ends in the middle of a packet, at byte {at}", reader.name()));
    }
    Ok(())
}

fn take_lines(input: &mut dyn BufRead, settings: &Top, board: &Board) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        // What stands before the object is of whoever handed it on: a pod's name, a time.
        let object = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
        match Saved::parse(line.get(object..).unwrap_or_default()) {
            Ok(Saved::Verdict(saved)) if settings.filter.accepts(&saved.0) => {
                let (entry, details) = *saved;
                board.lock().add(&entry, || details);
            }
            Ok(Saved::Aggregate(aggregate)) if settings.filter.accepts_aggregate(&aggregate) => {
                board.lock().add_aggregate(&aggregate);
            }
            Ok(Saved::Verdict(_) | Saved::Aggregate(_) | Saved::Summary(_)) => {}
            Err(_) => {
                let text = String::from_utf8_lossy(&line);
                if !text.trim().is_empty() {
                    board.lock().note(text.trim());
                }
            }
        }
    }
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}
