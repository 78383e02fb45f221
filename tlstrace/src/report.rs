//! From verdicts to lines: which are printed, through which sink, and how many there were of each.
//!
//! `watch` and `replay` share it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;

use crate::cli::settings::{Filter, Output, Subject};
use crate::sink::{Observer, Sink};
use crate::verdict::{Severity, Verdict};

/// Most interface names that are remembered.
const MAX_NAMES: usize = 4096;

/// Prints verdicts and keeps count of them.
pub struct Report<'a> {
    output: Output,
    filter: Filter,
    observer: Observer,
    sink: Box<dyn Sink>,
    out: &'a mut dyn Write,
    printed: u64,
    has_failed: bool,
    tally: Tally,
}

/// How many verdicts there were, by their id.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    printed: BTreeMap<&'static str, u64>,
    /// Left out for want of `--all`.
    hidden: BTreeMap<&'static str, u64>,
    /// Left out by a filter.
    filtered: u64,
}

impl<'a> Report<'a> {
    /// Prints to `out`, which should have a buffer: lines are flushed by [`Report::flush`].
    pub fn new(output: Output, filter: Filter, observer: Observer, out: &'a mut dyn Write) -> Self {
        let sink = (output.sink)(output.style);
        Self { output, filter, observer, sink, out, printed: 0, has_failed: false, tally: Tally::default() }
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
        if self.is_full() {
            return Ok(());
        }
        let server_name = verdict.facts.server_name();
        let subject = Subject::of(verdict, server_name.as_deref());
        if !self.filter.accepts(&subject) {
            self.tally.filtered += 1;
            return Ok(());
        }
        self.has_failed |= self.output.fails_on(&subject);
        if verdict.severity == Severity::Info && !self.output.all && !self.filter.names_verdicts() {
            *self.tally.hidden.entry(verdict.id).or_default() += 1;
            return Ok(());
        }
        *self.tally.printed.entry(verdict.id).or_default() += 1;
        self.printed += 1;
        self.sink.emit(verdict, &self.observer, self.out)
    }

    /// Hands on what was printed so far.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
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
}

impl fmt::Display for Tally {
    /// `4 verdicts (3 sni_missing, 1 port_closed), not shown without --all: 8 ok`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(id, count)| (std::cmp::Reverse(**count), **id));
            counts.into_iter().map(|(id, count)| format!("{count} {id}")).collect::<Vec<_>>().join(", ")
        };
        match self.printed.values().sum::<u64>() {
            0 => f.write_str("no verdict")?,
            1 => write!(f, "1 verdict ({})", list(&self.printed))?,
            many => write!(f, "{many} verdicts ({})", list(&self.printed))?,
        }
        if !self.hidden.is_empty() {
            write!(f, ", not shown without --all: {}", list(&self.hidden))?;
        }
        if self.filtered > 0 {
            write!(f, ", {} left out by filters", self.filtered)?;
        }
        Ok(())
    }
}
