//! One line per verdict, for people: time, severity, verdict, client → server, who ended it, the sentence.
//!
//! Everything that a peer chose (names, distinguished names) is printed without control characters.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;

use crate::engine::timestamp::{Civil, Timestamp};
use crate::verdict::{Severity, Verdict};

use super::{Observer, Sink, Style, TimeFormat};

/// The text format.
pub(super) struct Text {
    style: Style,
    first: Option<Timestamp>,
    line: String,
}

impl Text {
    pub(super) fn new(style: Style) -> Self {
        Self { style, first: None, line: String::new() }
    }

    fn compose(&mut self, verdict: &Verdict) -> std::fmt::Result {
        let facts = &verdict.facts;
        let first = *self.first.get_or_insert(facts.first_seen);
        self.line.clear();
        let line = &mut self.line;
        write_time(line, verdict.time(), first, self.style.time)?;
        let (on, off) = if self.style.colour { (colour(verdict.severity), "\x1b[0m") } else { ("", "") };
        write!(line, " {on}{:<7} {}{off}  ", verdict.severity, verdict.id)?;
        write!(line, "{} → ", Address(facts.client().address))?;
        match facts.server_name() {
            Some(name) => write!(line, "{} ({})", Clean(&name), Address(facts.server().address))?,
            None => write!(line, "{}", Address(facts.server().address))?,
        }
        if let Some(ended) = verdict.ended_by {
            write!(line, "  {} {}", ended.side.as_str(), ended.how)?;
        }
        if verdict.confidence != crate::verdict::Confidence::Observed {
            write!(line, "  ({})", verdict.confidence)?;
        }
        match verdict.replaces {
            Some(id) if id == verdict.id => write!(line, "  (revised: better informed)")?,
            Some(id) => write!(line, "  (revised: was {id})")?,
            None => {}
        }
        writeln!(line, "  {}", Clean(&verdict.summary))?;
        if self.style.verbose {
            for evidence in &verdict.evidence {
                writeln!(line, "    evidence     {}: {}", evidence.fact, Clean(&evidence.detail))?;
            }
            for warning in &verdict.warnings {
                writeln!(line, "    warning      {}: {}", warning.fact, Clean(&warning.detail))?;
            }
            for alternative in &verdict.alternatives {
                writeln!(line, "    alternative  {}: {}", alternative.verdict, Clean(&alternative.why))?;
            }
            if verdict.severity > Severity::Info {
                writeln!(line, "    remedy       {}", verdict.remedy)?;
            }
        }
        Ok(())
    }
}

impl Sink for Text {
    fn emit(&mut self, verdict: &Verdict, _observer: &Observer, out: &mut dyn Write) -> io::Result<()> {
        self.compose(verdict).map_err(io::Error::other)?;
        out.write_all(self.line.as_bytes())
    }
}

fn write_time(line: &mut String, time: Timestamp, first: Timestamp, format: TimeFormat) -> std::fmt::Result {
    let millis = time.as_nanos() / 1_000_000 % 1000;
    let offset = match format {
        TimeFormat::Utc => 0,
        TimeFormat::Local { offset } => offset,
        TimeFormat::Relative => {
            let since = time.since(first);
            return write!(line, "{:>4}.{:03}", since.as_secs(), since.subsec_millis());
        }
    };
    let Civil { hour, minute, second, .. } = Civil::of(time.as_secs().cast_signed() + i64::from(offset));
    write!(line, "{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "\x1b[31m",
        Severity::Warning => "\x1b[33m",
        Severity::Info => "\x1b[32m",
    }
}

/// An address with its port, IPv6 in brackets.
struct Address(SocketAddr);

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Text without control characters, so that nothing that a peer sends can move a terminal's cursor.
pub(crate) struct Clean<'a>(pub(crate) &'a str);

impl std::fmt::Display for Clean<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|c| {
            // Bidirectional overrides reorder what surrounds them.
            let dangerous = c.is_control()
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if dangerous { write!(f, "{}", c.escape_unicode()) } else { f.write_char(c) }
        })
    }
}
