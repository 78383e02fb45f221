//! Where verdicts go: one file a format, registered in [`SINKS`].

#![forbid(unsafe_code)]

mod aggregate;
mod clean;
mod fold;
mod gcp;
mod json;
mod rendered;
mod text;
mod writer;

use std::collections::BTreeMap;
use std::io;

use crate::aggregate::Aggregate;
use crate::engine::locality::Locality;
use crate::engine::timestamp::Timestamp;
use crate::summary::CaptureTotals;
use crate::verdict::Verdict;

pub use clean::Clean;
pub use text::Text;

/// Writes verdicts in one format.
pub trait Sink {
    /// Writes one verdict, as seen by `observer`, or keeps it back for later. Does not flush.
    fn emit(&mut self, verdict: &Verdict, observer: &Observer, out: &mut Vec<u8>) -> io::Result<()>;

    /// Writes what stands for many verdicts, where there are lines. Does not flush.
    fn aggregate(
        &mut self,
        _aggregate: &Aggregate,
        _observer: &Observer,
        _out: &mut Vec<u8>,
    ) -> io::Result<()> {
        Ok(())
    }

    /// When [`Sink::advance_to`] will have something to write.
    fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Writes what was kept back until `now`.
    fn advance_to(&mut self, _now: Timestamp, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    /// Takes notice of what the capture saw and lost so far. Most formats tell it at the end, if at all.
    fn observe_capture(&mut self, _totals: &CaptureTotals) {}

    /// Writes everything that was kept back: no verdict follows.
    fn finish(&mut self, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// Who sees the traffic.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    pub hostname: Option<String>,
    /// Interface names by index.
    pub interfaces: BTreeMap<u32, String>,
    /// What is on this side of it.
    pub locality: Locality,
}

/// How the text output looks. Other formats have no taste.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Style {
    pub colour: bool,
    /// Evidence, alternatives and remedy under each line.
    pub verbose: bool,
    /// Repeats within a few seconds become one line.
    pub fold: bool,
    /// Columns of the terminal, if it is one.
    pub width: Option<usize>,
    pub time: TimeFormat,
}

/// How points in time are shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TimeFormat {
    /// `10:00:00.123` in UTC.
    #[default]
    Utc,
    /// The same, so many seconds east of UTC.
    Local { offset: i32 },
    /// Seconds since the first verdict.
    Relative,
}

/// Makes a sink.
pub type OpenSink = fn(Style) -> Box<dyn Sink>;

/// A registered output format.
pub struct SinkKind {
    /// Value of `--output`.
    pub name: &'static str,
    /// One line for `--help`.
    pub doc: &'static str,
    pub open: OpenSink,
}

/// Every output format; the first is the default.
pub const SINKS: &[SinkKind] = &[
    SinkKind {
        name: "text",
        doc: "one line a verdict, for people",
        open: |style| Box::new(Text::new(style)),
    },
    SinkKind {
        name: "json",
        doc: "one JSON object a line, schema tlstrace/1",
        open: |_| Box::new(json::Json::default()),
    },
    SinkKind {
        name: "gcp",
        doc: "the same with the fields that Cloud Logging looks for",
        open: |_| Box::new(gcp::Gcp::default()),
    },
];
