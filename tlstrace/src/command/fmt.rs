//! `tlstrace fmt`: saved JSON lines as text, filtered and summed up like live ones.
//!
//! What stands before the object on its line (a pod's name, a time) stays before the text; lines without one pass
//! through.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Read as _, Write};
use std::path::Path;

use anyhow::Context as _;

use super::Exit;
use crate::cli::notice;
use crate::cli::settings::Fmt;
use crate::entry::{Details, Entry, Saved};
use crate::report::Gate;
use crate::sink::Clean;
use crate::sink::Text;

/// Longest line that is read as JSON; of a longer one every part passes through.
const MAX_LINE: u64 = 1 << 20;

/// Prints one file after another. One that cannot be read does not keep the others from being read.
pub(super) fn run(settings: Fmt) -> anyhow::Result<Exit> {
    let Fmt { files, raw, output, filter } = settings;
    let mut printer = Printer {
        raw,
        text: Text::new(output.style),
        gate: Gate::new(output, filter),
        is_terminal: io::stdout().is_terminal(),
        out: BufWriter::new(io::stdout().lock()),
    };
    let mut is_failed = false;
    let mut printed = Ok(());
    for file in &files {
        let mut input = match open(file) {
            Ok(input) => input,
            Err(error) => {
                is_failed = true;
                notice(format_args!("tlstrace: {error:#}"));
                continue;
            }
        };
        printed = printer.print_all(&mut *input);
        if printed.is_err() || printer.gate.is_full() {
            break;
        }
    }
    match printed.and_then(|()| printer.finish()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Done),
        printed => printed?,
    }
    notice(printer.gate.tally());
    let text = printer.gate.summary_text();
    if !text.is_empty() {
        notice(text.trim_end());
    }
    Ok(match (is_failed, printer.gate.has_failed()) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::FailOn,
        (false, false) => Exit::Done,
    })
}

struct Printer<W: Write> {
    raw: bool,
    text: Text,
    gate: Gate,
    is_terminal: bool,
    out: W,
}

impl<W: Write> Printer<W> {
    fn print_all(&mut self, input: &mut dyn BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while !self.gate.is_full() {
            line.clear();
            if input.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            self.print(&line)?;
            // Whoever feeds standard input may go on for hours, and somebody may be waiting for this line.
            self.out.flush()?;
        }
        Ok(())
    }

    fn print(&mut self, line: &[u8]) -> io::Result<()> {
        let object = line.iter().position(|byte| *byte == b'{');
        let (prefix, object) = line.split_at(object.unwrap_or(line.len()));
        match Saved::parse(object) {
            Ok(Saved::Verdict(saved)) => self.print_verdict(prefix, &saved.0, saved.1, line),
            Ok(Saved::Summary(_)) if self.raw => self.out.write_all(line),
            // It was that of another selection; this one has its own at the end.
            Ok(Saved::Summary(_)) => Ok(()),
            Err(_) => self.pass(line),
        }
    }

    fn print_verdict(
        &mut self,
        prefix: &[u8],
        entry: &Entry<'_>,
        details: Details<'_>,
        line: &[u8],
    ) -> io::Result<()> {
        if !(self.gate.accepts(entry) && self.gate.admits(entry)) {
            return Ok(());
        }
        if self.raw {
            return self.out.write_all(line);
        }
        let mut shown = Vec::new();
        self.text.show(entry, || details, &mut shown)?;
        if !(prefix.is_empty() || shown.is_empty()) {
            write!(self.out, "{}", Clean(&String::from_utf8_lossy(prefix)))?;
        }
        self.out.write_all(&shown)
    }

    /// A terminal is not moved by what a stranger logged.
    fn pass(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_terminal {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
            writeln!(self.out, "{}", Clean(&text))
        } else {
            self.out.write_all(line)
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.text.finish(&mut self.out)?;
        let mut summary = Vec::new();
        self.gate.write_summary(None, None, &mut summary)?;
        self.out.write_all(&summary)?;
        self.out.flush()
    }
}

/// Opens a file of lines; `-` is standard input.
pub(super) fn open(file: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    Ok(Box::new(BufReader::new(opened)))
}
