//! `tlstrace fmt`: saved JSON lines as text, filtered and summed up like live ones.
//!
//! What stands before the object on its line (a pod's name, a time) stays before the text; lines without one pass
//! through. With `--merge` the lines of several nodes become one log.

mod merge;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use self::merge::{DISORDER, Item, Merge};
use super::Exit;
use crate::cli::notice;
use crate::cli::settings::Fmt;
use crate::engine::timestamp::Timestamp;
use crate::entry::{Details, Entry, Saved};
use crate::report::Gate;
use crate::sink::Clean;
use crate::sink::Text;

/// Longest line that is read as JSON; of a longer one every part passes through.
const MAX_LINE: u64 = 1 << 20;

/// Prints one file after another. One that cannot be read does not keep the others from being read.
pub(super) fn run(settings: Fmt) -> anyhow::Result<Exit> {
    let Fmt { files, raw, merge, output, filter } = settings;
    let mut printer = Printer {
        raw,
        text: Text::new(output.style),
        gate: Gate::new(output, filter),
        is_terminal: io::stdout().is_terminal(),
        out: BufWriter::new(io::stdout().lock()),
    };
    let mut is_failed = false;
    let mut open = |file: &PathBuf| match open(file) {
        Ok(input) => Some(input),
        Err(error) => {
            is_failed = true;
            notice(format_args!("tlstrace: {error:#}"));
            None
        }
    };
    let printed = if merge {
        printer.merge(files.iter().filter_map(open).collect())
    } else {
        files.iter().filter_map(&mut open).try_for_each(|mut input| printer.print_all(&mut *input))
    };
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

    /// Prints the lines of all inputs in the order of time. Reads on where time is behind, so that none runs ahead.
    fn merge(&mut self, inputs: Vec<Box<dyn BufRead>>) -> io::Result<()> {
        let is_only = inputs.len() == 1;
        let mut inputs: Vec<_> = inputs
            .into_iter()
            .enumerate()
            .map(|(number, input)| (Timestamp::default(), number, input))
            .collect();
        let mut merge = Merge::default();
        let mut line = Vec::new();
        while !self.gate.is_full() {
            let behind = inputs.iter_mut().enumerate().min_by_key(|(_, (time, ..))| *time);
            let Some((at, (time, number, input))) = behind else { break };
            line.clear();
            if input.take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                inputs.remove(at);
                continue;
            }
            // The last of a file, behind which another file's may come.
            if !line.ends_with(b"\n") && (line.len() as u64) < MAX_LINE {
                line.push(b'\n');
            }
            let object = line.iter().position(|byte| *byte == b'{');
            let (prefix, object) = line.split_at(object.unwrap_or(line.len()));
            match Saved::parse(object) {
                Ok(Saved::Verdict(saved)) => {
                    let (entry, details) = *saved;
                    *time = entry.time.max(*time);
                    let object: Value = serde_json::from_slice(object)?;
                    let observer = object.pointer("/observer/hostname").and_then(Value::as_str);
                    let observer = observer.map_or_else(|| number.to_string(), str::to_owned);
                    let (prefix, line) = (prefix.to_vec(), Some(line.clone()));
                    merge.add(Item { entry, details, prefix, object, line, observer });
                }
                _ => self.print(&line)?,
            }
            let until = inputs.iter().map(|(time, ..)| *time).min().unwrap_or_default();
            // A single input may be a log that is followed, which is in order and must not wait for what comes next.
            while let Some(item) =
                if is_only { merge.next() } else { merge.next_before(until.before(DISORDER)) }
            {
                self.print_merged(item)?;
            }
            self.out.flush()?;
        }
        while !self.gate.is_full()
            && let Some(item) = merge.next()
        {
            self.print_merged(item)?;
        }
        if merge.duplicates > 0 {
            notice(format_args!(
                "{} lines were about connections that another line is about",
                merge.duplicates
            ));
        }
        Ok(())
    }

    fn print_merged(&mut self, item: Item) -> io::Result<()> {
        let Item { entry, details, prefix, object, line, .. } = item;
        let line = match line {
            Some(line) => line,
            None => [&prefix, &*serde_json::to_vec(&object)?, b"\n"].concat(),
        };
        self.print_verdict(&prefix, &entry, details, &line)
    }

    fn print(&mut self, line: &[u8]) -> io::Result<()> {
        let object = line.iter().position(|byte| *byte == b'{');
        let (prefix, object) = line.split_at(object.unwrap_or(line.len()));
        match Saved::parse(object) {
            Ok(Saved::Verdict(saved)) => self.print_verdict(prefix, &saved.0, saved.1, line),
            Ok(Saved::Aggregate(_)) if self.raw => self.out.write_all(line),
            // They were counted when they were printed; here there is nothing to filter by.
            Ok(Saved::Aggregate(aggregate)) => {
                self.prefix(prefix)?;
                let mut shown = Vec::new();
                self.text.show_aggregate(&aggregate, &mut shown)?;
                self.out.write_all(&shown)
            }
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
        if !shown.is_empty() {
            self.prefix(prefix)?;
        }
        self.out.write_all(&shown)
    }

    /// What stood before the object on its line.
    fn prefix(&mut self, prefix: &[u8]) -> io::Result<()> {
        if prefix.is_empty() {
            Ok(())
        } else {
            write!(self.out, "{}", Clean(&String::from_utf8_lossy(prefix)))
        }
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
        let mut rest = Vec::new();
        self.text.finish(&mut rest)?;
        self.gate.write_summary(None, None, &mut rest)?;
        self.out.write_all(&rest)?;
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
