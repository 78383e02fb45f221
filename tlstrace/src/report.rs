//! From verdicts to lines: which are printed, through which sink, and what all of them together say.
//!
//! `watch` and `replay` share [`Report`]; [`Gate`] is what they have in common with those who bring entries of
//! their own.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use crate::aggregate::{Aggregate, Aggregates};
use crate::cli::settings::{Filter, Output, SummaryFormat};
use crate::engine::timestamp::Timestamp;
use crate::entry::{Details, Entry};
use crate::html::Material;
use crate::outlet::{Lost, Monitor};
use crate::sink::{Observer, Sink, TimeFormat};
use crate::summary::{CaptureTotals, Object, Summary, Text};
use crate::verdict::{Severity, Verdict};

/// Most interface names that are remembered.
const MAX_NAMES: usize = 4096;
/// Most verdict ids that are counted one by one.
const MAX_IDS: usize = 512;

/// Prints verdicts and keeps count of them.
pub struct Report<'a> {
    gate: Gate,
    /// Beside the summary, if there is to be an HTML report.
    material: Option<Material>,
    /// What is printed goes there, too.
    export: Option<Box<dyn Export>>,
    observer: Observer,
    sink: Box<dyn Sink>,
    aggregates: Aggregates,
    out: &'a mut dyn Write,
    /// What the sink wrote and did not go out yet.
    lines: Vec<u8>,
    /// Bytes of it that go out in one piece; 0 for every line by itself.
    at_once: usize,
}

/// Tells another program of what is printed. It never waits for it.
pub trait Export {
    /// Hands on a verdict.
    fn publish(&mut self, verdict: &Verdict, observer: &Observer) -> io::Result<()>;

    /// Hands on what stands for many verdicts.
    fn aggregate(&mut self, aggregate: &Aggregate, observer: &Observer) -> io::Result<()>;

    /// Hands on what was counted until `now`, as text of OpenMetrics.
    fn measure(&mut self, open_metrics: &str, now: Timestamp) -> io::Result<()>;

    /// Watches over what was handed on.
    fn monitor(&self) -> Monitor;
}

/// Decides which entries are printed, and counts all that are meant.
#[derive(Debug)]
pub struct Gate {
    output: Output,
    filter: Filter,
    printed: u64,
    has_failed: bool,
    tally: Tally,
    summary: Summary,
}

/// How many verdicts there were, by their id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    printed: BTreeMap<String, u64>,
    /// Printed as counts.
    aggregated: BTreeMap<String, u64>,
    /// Left out for want of `--all`.
    hidden: BTreeMap<String, u64>,
    /// Left out by a filter.
    filtered: u64,
}

impl<'a> Report<'a> {
    /// Prints to `out`. Each verdict is one call of [`Write::write_all`], if not [several at
    /// once](Self::writing_at_once); [`Report::flush`] hands on.
    pub fn new(output: Output, filter: Filter, observer: Observer, out: &'a mut dyn Write) -> Self {
        let sink = (output.sink)(output.style);
        Self::with_sink(sink, output, filter, observer, out)
    }

    /// As [`Report::new`], with a sink that is not registered.
    pub fn with_sink(
        sink: Box<dyn Sink>,
        output: Output,
        filter: Filter,
        observer: Observer,
        out: &'a mut dyn Write,
    ) -> Self {
        let material = output.report.is_some().then(Material::default);
        let aggregates = Aggregates::new(output.aggregate.clone(), output.max_rate);
        Self {
            gate: Gate::new(output, filter),
            material,
            export: None,
            observer,
            sink,
            aggregates,
            out,
            lines: Vec::new(),
            at_once: 0,
        }
    }

    /// Collects lines up to so many bytes before they go out, or to the next [`Report::flush`].
    #[must_use]
    pub fn writing_at_once(self, bytes: usize) -> Self {
        Self { at_once: bytes, ..self }
    }

    /// Hands on from now on what is printed.
    pub fn export_to(&mut self, export: Box<dyn Export>) {
        self.export = Some(export);
    }

    /// Hands on what was counted, if somebody is to be told: `measure` gives text of OpenMetrics.
    pub fn measure(&mut self, measure: impl FnOnce() -> String, now: Timestamp) -> io::Result<()> {
        self.export.as_mut().map_or(Ok(()), |export| export.measure(&measure(), now))
    }

    /// What was handed on in vain so far.
    pub fn lost_exports(&self) -> Lost {
        self.export.as_ref().map(|export| export.monitor().lost()).unwrap_or_default()
    }

    /// Waits for what is on its way, but not for who takes nothing; says what was handed on in vain.
    pub fn finish_exports(&self, patience: Duration) -> Lost {
        self.export.as_ref().map(|export| export.monitor().finish(patience)).unwrap_or_default()
    }

    /// Remembers the name of an interface, for verdicts on connections that were seen there.
    pub fn name_interface(&mut self, index: u32, name: &str) {
        let names = &mut self.observer.interfaces;
        names.insert(index, name.to_owned());
        // Indices only grow: the smallest belongs to an interface that is long gone.
        if names.len() > MAX_NAMES {
            names.pop_first();
        }
    }

    /// Takes what is on this side of the observer.
    pub fn set_local_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.observer.locality.addresses = addresses.into_iter().collect();
    }

    /// Prints the verdict, if it is meant and there is one more to print.
    pub fn publish(&mut self, verdict: &Verdict) -> io::Result<()> {
        let entry = Entry::of(verdict);
        if !self.gate.accepts(&entry) {
            return Ok(());
        }
        let redaction = &self.gate.output.redaction;
        let redacted = (!redaction.is_empty()).then(|| redaction.apply(verdict));
        let (verdict, entry) = match &redacted {
            Some(redacted) => (redacted, Entry::of(redacted)),
            None => (verdict, entry),
        };
        if let Some(material) = &mut self.material {
            material.add(&entry, || Details::of(verdict));
        }
        let due = self.aggregates.due(entry.time);
        self.print_aggregates(&due)?;
        let is_meant = self.gate.shows(&entry) || self.aggregates.are_for(&entry);
        if is_meant && self.aggregates.take(&entry) {
            self.gate.count_aggregated(&entry);
            return self.hand_on();
        }
        if !self.gate.admits(&entry) {
            return self.hand_on();
        }
        if let Some(export) = &mut self.export {
            export.publish(verdict, &self.observer)?;
        }
        self.sink.emit(verdict, &self.observer, &mut self.lines)?;
        self.hand_on()
    }

    /// When [`Report::advance_to`] will have something to print.
    pub fn deadline(&self) -> Option<Timestamp> {
        [self.sink.deadline(), self.aggregates.deadline()].into_iter().flatten().min()
    }

    /// Prints what was kept back until `now`.
    pub fn advance_to(&mut self, now: Timestamp) -> io::Result<()> {
        self.sink.advance_to(now, &mut self.lines)?;
        let due = self.aggregates.due(now);
        self.print_aggregates(&due)?;
        self.hand_on()
    }

    /// Tells the sink what the capture saw and lost so far.
    pub fn observe_capture(&mut self, totals: &CaptureTotals) {
        self.sink.observe_capture(totals);
    }

    /// Prints what was kept back, and the summary if it is to be data.
    pub fn finish(&mut self, capture: Option<&CaptureTotals>) -> io::Result<()> {
        self.sink.finish(&mut self.lines)?;
        let rest = self.aggregates.finish();
        self.print_aggregates(&rest)?;
        self.hand_on()?;
        self.summarise(capture)?;
        self.flush()
    }

    /// Prints the summary so far, if it is to be data.
    pub fn summarise(&mut self, capture: Option<&CaptureTotals>) -> io::Result<()> {
        self.gate.write_summary(capture, self.observer.hostname.as_deref(), &mut self.lines)?;
        self.hand_on()
    }

    /// Hands on what was printed so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_lines()?;
        self.out.flush()
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What an HTML report needs beside the summary, if there is to be one.
    pub fn material(&self) -> Option<&Material> {
        self.material.as_ref()
    }

    /// Who sees the traffic.
    pub fn observer(&self) -> &Observer {
        &self.observer
    }

    fn print_aggregates(&mut self, aggregates: &[Aggregate]) -> io::Result<()> {
        for aggregate in aggregates {
            if let Some(export) = &mut self.export {
                export.aggregate(aggregate, &self.observer)?;
            }
            self.sink.aggregate(aggregate, &self.observer, &mut self.lines)?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        if self.lines.len() < self.at_once { Ok(()) } else { self.write_lines() }
    }

    fn write_lines(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = self.out.write_all(&self.lines);
        self.lines.clear();
        written
    }
}

impl Gate {
    pub fn new(output: Output, filter: Filter) -> Self {
        let (tally, summary) = (Tally::default(), Summary::default());
        Self { output, filter, printed: 0, has_failed: false, tally, summary }
    }

    /// Whether the filters accept it and there is one more to print. To be asked before anything is redacted.
    pub fn accepts(&mut self, entry: &Entry<'_>) -> bool {
        if self.is_full() {
            return false;
        }
        let accepted = self.filter.accepts(entry);
        self.tally.filtered += u64::from(!accepted);
        accepted
    }

    /// Counts an entry that was accepted; says whether it is printed.
    pub fn admits(&mut self, entry: &Entry<'_>) -> bool {
        self.note(entry);
        let is_shown = self.shows(entry);
        let counts = if is_shown { &mut self.tally.printed } else { &mut self.tally.hidden };
        count(counts, &entry.verdict);
        self.printed += u64::from(is_shown);
        is_shown
    }

    /// Counts an entry that was accepted and is printed as one of many.
    fn count_aggregated(&mut self, entry: &Entry<'_>) {
        self.note(entry);
        count(&mut self.tally.aggregated, &entry.verdict);
    }

    fn note(&mut self, entry: &Entry<'_>) {
        self.has_failed |= self.output.fails_on(entry);
        self.summary.add(entry);
    }

    /// Whether an entry like this is worth a line.
    fn shows(&self, entry: &Entry<'_>) -> bool {
        entry.severity > Severity::Info || self.output.all || self.filter.names_verdicts()
    }

    /// Whether as many verdicts were printed as were asked for.
    pub fn is_full(&self) -> bool {
        self.output.count.is_some_and(|count| self.printed >= count)
    }

    /// Whether `--fail-on` named one of the verdicts.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What all accepted verdicts together say.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The summary for people, in lines; nothing if it is not wanted.
    pub fn summary_text(&self) -> String {
        if self.output.summary == SummaryFormat::None {
            return String::new();
        }
        Text { summary: &self.summary, offset: self.offset() }.to_string()
    }

    /// Of the times that are shown, in seconds east of UTC.
    pub fn offset(&self) -> i32 {
        match self.output.style.time {
            TimeFormat::Local { offset } => offset,
            TimeFormat::Utc | TimeFormat::Relative => 0,
        }
    }

    /// Writes the summary as a JSON line, if that is wanted.
    pub fn write_summary(
        &self,
        capture: Option<&CaptureTotals>,
        hostname: Option<&str>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if self.output.summary == SummaryFormat::Json {
            serde_json::to_writer(&mut *out, &Object { summary: &self.summary, capture, hostname })?;
            out.push(b'\n');
        }
        Ok(())
    }
}

impl Tally {
    /// Verdicts that were left out for want of `--all`: `8 ok, 2 no_tls`; `None` if there were none.
    pub fn hidden(&self) -> Option<String> {
        (!self.hidden.is_empty()).then(|| list(&self.hidden))
    }
}

impl fmt::Display for Tally {
    /// `4 verdicts (3 sni_missing, 1 port_closed), not shown without --all: 8 ok`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.printed.values().sum::<u64>() {
            0 => f.write_str("no verdict")?,
            1 => write!(f, "1 verdict ({})", list(&self.printed))?,
            many => write!(f, "{many} verdicts ({})", list(&self.printed))?,
        }
        if !self.aggregated.is_empty() {
            write!(f, ", as counts: {}", list(&self.aggregated))?;
        }
        if let Some(hidden) = self.hidden() {
            write!(f, ", not shown without --all: {hidden}")?;
        }
        if self.filtered > 0 {
            write!(f, ", {} left out by filters", self.filtered)?;
        }
        Ok(())
    }
}

fn count(counts: &mut BTreeMap<String, u64>, id: &str) {
    if let Some(count) = counts.get_mut(id) {
        *count += 1;
    } else {
        // Saved lines may bring any text as an id.
        let id = if counts.len() < MAX_IDS { id } else { "other" };
        *counts.entry(id.to_owned()).or_default() += 1;
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(id, count)| (std::cmp::Reverse(**count), *id));
    let shown = counts.into_iter().map(|(id, count)| format!("{count} {}", crate::sink::Clean(id)));
    shown.collect::<Vec<_>>().join(", ")
}
