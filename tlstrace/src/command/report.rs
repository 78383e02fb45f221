//! `tlstrace report`: saved JSON lines as one HTML file, and the same file for those who judge themselves.

use std::fs::File;
use std::io::{self, BufRead, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{Exit, fmt};
use crate::cli::notice;
use crate::cli::settings::{Filter, Report};
use crate::entry::Saved;
use crate::html::{Capture, Lines, Material, Page};
use crate::summary::{CaptureTotals, Summary, read_capture};

/// Longest line that is read; what is longer is none of tlstrace.
const MAX_LINE: u64 = 1 << 20;
/// Most sources of packets whose health is shown.
const MAX_CAPTURES: usize = 256;

/// Reads one file after another. One that cannot be read does not keep the others from being read.
pub(super) fn run(settings: &Report) -> anyhow::Result<Exit> {
    // What cannot be written is told before hours of lines are read.
    let destination = match &*settings.output {
        path if path == Path::new("-") => None,
        path => Some(Destination::open(path)?),
    };
    let mut reading = Reading::default();
    let mut is_failed = false;
    for file in &settings.files {
        let read = fmt::open(file).and_then(|mut input| {
            let name = || format!("cannot read {}", file.display());
            reading.read(&mut *input, &settings.filter).with_context(name)
        });
        if let Err(error) = read {
            is_failed = true;
            notice(format_args!("tlstrace: {error:#}"));
        }
    }
    let page = reading.page(settings.offset).to_html();
    match destination {
        Some(destination) => destination.write(&page)?,
        None => match io::stdout().lock().write_all(page.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot write to standard output");
            }
            Ok(()) | Err(_) => {}
        },
    }
    Ok(if is_failed { Exit::Failed } else { Exit::Done })
}

/// A file that can be written: opened before privileges are gone, and left as it is until there is a report.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    file: File,
}

impl Destination {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.with_context(|| format!("cannot write the report {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    pub(super) fn write(mut self, page: &str) -> anyhow::Result<()> {
        // A pipe or a device has no length.
        let is_file = self.file.metadata().is_ok_and(|metadata| metadata.is_file());
        let emptied = if is_file { self.file.set_len(0) } else { Ok(()) };
        emptied
            .and_then(|()| self.file.write_all(page.as_bytes()))
            .with_context(|| format!("cannot write the report {}", self.path.display()))
    }
}

/// Writes the report of somebody who has judged connections.
pub(super) fn write(
    destination: Option<Destination>,
    report: &crate::report::Report<'_>,
    totals: CaptureTotals,
    hostname: Option<String>,
) -> anyhow::Result<()> {
    let (Some(destination), Some(material)) = (destination, report.material()) else { return Ok(()) };
    let captures = [Capture { hostname, totals }];
    let gate = report.gate();
    let page =
        Page { summary: gate.summary(), material, captures: &captures, lines: None, offset: gate.offset() };
    destination.write(&page.to_html())
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    summary: Summary,
    material: Material,
    captures: Vec<Capture>,
    lines: Lines,
}

impl Reading {
    fn read(&mut self, input: &mut dyn BufRead, filter: &Filter) -> io::Result<()> {
        // A source tells of itself again and again, each time of all; those of another file are others.
        let known = self.captures.len();
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.lines.read += 1;
            let object = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
            match Saved::parse(line.get(object..).unwrap_or_default()) {
                Ok(Saved::Verdict(saved)) => {
                    let (entry, details) = *saved;
                    if filter.accepts(&entry) {
                        self.summary.add(&entry);
                        self.material.add(&entry, || details);
                    } else {
                        self.lines.filtered += 1;
                    }
                }
                // Only counts: a report is about connections.
                Ok(Saved::Aggregate(_)) => self.lines.filtered += 1,
                Ok(Saved::Summary(value)) => {
                    let Some((hostname, totals)) = read_capture(&value) else { continue };
                    let capture = Capture { hostname, totals };
                    let has_room = self.captures.len() < MAX_CAPTURES;
                    let mut of_file = self.captures.iter_mut().skip(known);
                    match of_file.find(|known| known.hostname == capture.hostname) {
                        Some(known) => *known = capture,
                        None if has_room => self.captures.push(capture),
                        None => {}
                    }
                }
                Err(_) => self.lines.foreign += 1,
            }
        }
    }

    fn page(&self, offset: i32) -> Page<'_> {
        let Self { summary, material, captures, lines } = self;
        Page { summary, material, captures, lines: Some(*lines), offset }
    }
}
