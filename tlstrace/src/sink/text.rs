//! One line per verdict, for people: time, severity, verdict, client → server, who ended it, the sentence.
//!
//! Columns are as wide as what has been shown so far, within limits. On a terminal the sentence is broken where the
//! line ends, and repeats are folded. Everything that a peer chose is printed as [`Clean`] has it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use anstyle::{AnsiColor, Style as Ansi};

use crate::aggregate::Aggregate;
use crate::engine::timestamp::{Civil, Timestamp};
use crate::entry::{Details, Entry};
use crate::names::Identity;
use crate::verdict::{Confidence, Severity, Verdict};

use super::aggregate::{destination, sentence};
use super::clean::Clean;
use super::fold::{Folded, Folds};
use super::{Observer, Sink, Style, TimeFormat};

/// Widest that a column is padded to; longer content pushes the rest of its line to the right.
const MAX_WIDTH: Widths = Widths { verdict: 28, ends: 64, ended: 14 };
/// What stands before everything that belongs to the line above.
const INDENT: &str = "    ";

/// The text format.
#[derive(Debug)]
pub struct Text {
    style: Style,
    first: Option<Timestamp>,
    widths: Widths,
    folds: Folds,
    lines: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Widths {
    verdict: usize,
    ends: usize,
    ended: usize,
}

/// The columns of a line, safe to print.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: Timestamp,
    severity: Severity,
    verdict: String,
    client: String,
    /// Client's address without the port.
    client_ip: String,
    server: String,
    ended: String,
    /// How sure it is, and whether something was said before about the same connection.
    remark: String,
    sentence: String,
}

impl Text {
    pub fn new(style: Style) -> Self {
        Self { style, first: None, widths: Widths::default(), folds: Folds::default(), lines: String::new() }
    }

    /// Writes an entry; `details` are asked for where they are shown.
    pub fn show<'a>(
        &mut self,
        entry: &Entry<'_>,
        details: impl FnOnce() -> Details<'a>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.advance_to(entry.time, out)?;
        let row = Row::of(entry);
        let row = if self.style.fold { self.folds.take(entry, row) } else { Some(row) };
        let Some(row) = row else { return Ok(()) };
        self.lines.clear();
        let ends = format!("{} → {}", row.client, row.server);
        self.compose(&row, &ends, "").map_err(io::Error::other)?;
        if self.style.verbose {
            self.compose_details(&details()).map_err(io::Error::other)?;
        }
        out.write_all(self.lines.as_bytes())
    }

    /// Writes what stands for many verdicts.
    pub fn show_aggregate(&mut self, aggregate: &Aggregate, out: &mut Vec<u8>) -> io::Result<()> {
        let row = Row {
            at: aggregate.end,
            severity: aggregate.severity,
            verdict: Clean(&aggregate.verdict).to_string(),
            client: String::new(),
            client_ip: String::new(),
            server: String::new(),
            ended: String::new(),
            remark: String::new(),
            sentence: sentence(aggregate),
        };
        self.lines.clear();
        self.compose(&row, &destination(aggregate), "").map_err(io::Error::other)?;
        out.write_all(self.lines.as_bytes())
    }

    /// When repeats that were held back will be due.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.folds.deadline()
    }

    /// Writes the repeats that are due by `now`.
    pub fn advance_to(&mut self, now: Timestamp, out: &mut Vec<u8>) -> io::Result<()> {
        if self.folds.deadline().is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        let due = self.folds.due(now);
        self.write_folded(due, out)
    }

    /// Writes all repeats that were held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let rest = self.folds.finish();
        self.write_folded(rest, out)
    }

    fn write_folded(&mut self, folded: Vec<Folded>, out: &mut Vec<u8>) -> io::Result<()> {
        for Folded { repeats, clients, within, last } in folded {
            let client = match (repeats, clients) {
                (1, _) => last.client.clone(),
                (_, 1) => last.client_ip.clone(),
                (_, many) => format!("{many} clients"),
            };
            let ends = format!("{client} → {}", last.server);
            let count = match repeats {
                1 => String::new(),
                // Begun seconds count: repeats of half a second came "in 1 s".
                many => format!("×{many} in {} s: ", within.as_millis().div_ceil(1000).max(1)),
            };
            self.lines.clear();
            self.compose(&last, &ends, &count).map_err(io::Error::other)?;
            out.write_all(self.lines.as_bytes())?;
        }
        Ok(())
    }

    fn compose(&mut self, row: &Row, ends: &str, count: &str) -> std::fmt::Result {
        let first = *self.first.get_or_insert(row.at);
        let paint = Paint(self.style.colour);
        let severity = colour(row.severity);
        let time = time(row.at, first, self.style.time);
        let verdict = column(&row.verdict, &mut self.widths.verdict, MAX_WIDTH.verdict);
        let ends = column(ends, &mut self.widths.ends, MAX_WIDTH.ends);
        let ended = column(&row.ended, &mut self.widths.ended, MAX_WIDTH.ended);
        let plain = [&*time, "severity", &verdict, "  ", &ends, "  ", &ended];
        let mut width: usize = plain.iter().map(|part| part.chars().count()).sum();
        let line = &mut self.lines;
        write!(line, "{} ", paint.with(Ansi::new().dimmed(), &time))?;
        write!(line, "{}  {ends}", paint.with(severity, &format!("{:<7} {verdict}", row.severity)))?;
        if !ended.is_empty() {
            write!(line, "  {ended}")?;
        }
        if !row.remark.is_empty() {
            width += 2 + row.remark.chars().count();
            write!(line, "  {}", paint.with(Ansi::new().dimmed(), &row.remark))?;
        }
        let sentence = format!("{count}{}", row.sentence);
        match self.style.width {
            Some(room) if width + 2 + sentence.chars().count() > room => {
                line.truncate(line.trim_end().len());
                line.push('\n');
                write_wrapped(line, &sentence, INDENT, INDENT, room)
            }
            _ => writeln!(line, "  {sentence}"),
        }
    }

    fn compose_details(&mut self, details: &Details<'_>) -> std::fmt::Result {
        let Details { evidence, warnings, alternatives, remedy } = details;
        let kinds = [("evidence", evidence), ("warning", warnings), ("alternative", alternatives)];
        for (kind, details) in kinds {
            for detail in details {
                let text = format!("{}: {}", Clean(&detail.name), Clean(&detail.text));
                self.compose_detail(kind, &text)?;
            }
        }
        remedy.iter().try_for_each(|remedy| self.compose_detail("remedy", &Clean(remedy).to_string()))
    }

    fn compose_detail(&mut self, kind: &str, text: &str) -> std::fmt::Result {
        const TEXT_AT: &str = "                 ";
        let head = format!("{INDENT}{kind:<12} ");
        match self.style.width {
            Some(room) => write_wrapped(&mut self.lines, text, &head, TEXT_AT, room),
            None => writeln!(self.lines, "{head}{text}"),
        }
    }
}

impl Sink for Text {
    fn emit(&mut self, verdict: &Verdict, _observer: &Observer, out: &mut Vec<u8>) -> io::Result<()> {
        self.show(&Entry::of(verdict), || Details::of(verdict), out)
    }

    fn aggregate(
        &mut self,
        aggregate: &Aggregate,
        _observer: &Observer,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.show_aggregate(aggregate, out)
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.deadline()
    }

    fn advance_to(&mut self, now: Timestamp, out: &mut Vec<u8>) -> io::Result<()> {
        self.advance_to(now, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.finish(out)
    }
}

impl Row {
    fn of(entry: &Entry<'_>) -> Self {
        let mut remarks = Vec::new();
        if entry.confidence != Confidence::Observed {
            remarks.push(entry.confidence.to_string());
        }
        match &entry.replaces {
            Some(id) if *id == entry.verdict => remarks.push("revised: better informed".to_owned()),
            Some(id) => remarks.push(format!("revised: was {}", Clean(id))),
            None if entry.revision > 0 => remarks.push("revised".to_owned()),
            None => {}
        }
        let name = |identity: &Option<Arc<Identity>>| {
            let name = identity.as_ref().map(|identity| Clean(&identity.to_string()).to_string());
            name.filter(|name| !name.is_empty())
        };
        let (client, server) = (name(&entry.names.client), name(&entry.names.server));
        let client = client.as_ref();
        // Both kinds of address print IPv6 in brackets where a port follows.
        let server = server.map(|name| format!("{name}:{}", entry.server.port()));
        let mut listener = vec![server.unwrap_or_else(|| entry.server.to_string())];
        let process = entry.names.server.as_ref().and_then(|identity| identity.process.as_ref());
        listener.extend(process.map(|process| format!("{}[{}]", Clean(&process.command), process.pid)));
        Self {
            at: entry.time,
            severity: entry.severity,
            verdict: Clean(&entry.verdict).to_string(),
            client: client
                .map_or_else(|| entry.client.to_string(), |name| format!("{name}:{}", entry.client.port())),
            client_ip: client.map_or_else(|| entry.client.ip().to_string(), ToString::to_string),
            server: match &entry.server_name {
                Some(name) => format!("{} ({})", Clean(name), listener.join(", ")),
                None => listener.join(" "),
            },
            ended: entry
                .ended_by
                .map(|ended| format!("{} {}", ended.side.as_str(), ended.how))
                .unwrap_or_default(),
            remark: if remarks.is_empty() { String::new() } else { format!("({})", remarks.join(", ")) },
            sentence: Clean(&entry.summary).to_string(),
        }
    }
}

/// A column that is as wide as its widest content so far, up to `most`.
fn column(content: &str, width: &mut usize, most: usize) -> String {
    *width = content.chars().count().clamp(*width, most.max(*width));
    format!("{content:<width$}", width = *width)
}

/// Writes `text` in lines of at most `room` columns, the first behind `head`, the others behind `indent`.
fn write_wrapped(lines: &mut String, text: &str, head: &str, indent: &str, room: usize) -> std::fmt::Result {
    // A terminal that is narrower than this wraps by itself.
    let room = room.max(40);
    let mut at = head.chars().count();
    lines.push_str(head);
    let mut is_first = true;
    for word in text.split(' ') {
        let width = word.chars().count();
        if !is_first && at + 1 + width > room {
            write!(lines, "\n{indent}")?;
            at = indent.chars().count();
        } else if !is_first {
            lines.push(' ');
            at += 1;
        }
        lines.push_str(word);
        at += width;
        is_first = false;
    }
    lines.push('\n');
    Ok(())
}

fn time(time: Timestamp, first: Timestamp, format: TimeFormat) -> String {
    let millis = time.as_nanos() / 1_000_000 % 1000;
    let offset = match format {
        TimeFormat::Utc => 0,
        TimeFormat::Local { offset } => offset,
        TimeFormat::Relative => {
            let since = time.since(first);
            return format!("{:>4}.{:03}", since.as_secs(), since.subsec_millis());
        }
    };
    let Civil { hour, minute, second, .. } = Civil::of(time.as_secs().cast_signed() + i64::from(offset));
    format!("{hour:02}:{minute:02}:{second:02}.{millis:03}")
}

const fn colour(severity: Severity) -> Ansi {
    match severity {
        Severity::Error => AnsiColor::Red.on_default().bold(),
        Severity::Warning => AnsiColor::Yellow.on_default(),
        Severity::Info => AnsiColor::Green.on_default(),
    }
}

/// Whether to use colours.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, style: Ansi, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::facts::Role;
    use crate::verdict::{EndedBy, EndedHow};

    const PLAIN: Style =
        Style { colour: false, verbose: false, fold: false, width: None, time: TimeFormat::Utc };
    const FOLDING: Style = Style { fold: true, ..PLAIN };

    fn entry(after: Duration) -> Entry<'static> {
        Entry {
            time: Timestamp::from_nanos(1_795_341_600_000_000_000).after(after),
            confidence: Confidence::Inferred,
            client: "10.138.0.28:55356".parse().unwrap(),
            server: "10.4.0.9:8443".parse().unwrap(),
            ended_by: Some(EndedBy { side: Role::Server, how: EndedHow::Reset }),
            summary: "The client sent no server_name and the server reset the connection 0.3 ms later."
                .into(),
            ..Entry::sample()
        }
    }

    fn shown(style: Style, entries: &[Entry<'_>]) -> String {
        let mut text = Text::new(style);
        let mut out = Vec::new();
        for entry in entries {
            text.show(entry, Details::default, &mut out).unwrap();
        }
        text.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_grow_with_what_they_hold() {
        let ok = Entry {
            verdict: "ok".into(),
            severity: Severity::Info,
            confidence: Confidence::Observed,
            client: "[fd00::1:2]:40000".parse().unwrap(),
            server: "[fd00::9]:443".parse().unwrap(),
            server_name: Some("api.example.com".into()),
            ended_by: None,
            revision: 1,
            replaces: Some("undetermined".into()),
            summary: "It was completed.".into(),
            ..entry(Duration::from_millis(1_500))
        };
        insta::assert_snapshot!(shown(PLAIN, &[entry(Duration::ZERO), ok, entry(Duration::from_secs(2))]));
    }

    #[test]
    fn names_stand_for_addresses_and_keep_the_port() {
        let named = |identity: Identity| Some(Arc::new(identity));
        let [namespace, pod, service, node] =
            ["shop", "web-7d9f-x", "web", "gke-1"].map(|name| Some(name.into()));
        let pod = Identity { namespace: namespace.clone(), pod, ..Identity::default() };
        let service = Identity { namespace, service, ..Identity::default() };
        let process = Some(crate::names::Process { pid: 7, command: "envoy\u{1b}".into() });
        let process = Identity { process, ..Identity::default() };
        let node = Identity { node, ..Identity::default() };
        let entry = |client: Identity, server: Identity, server_name: Option<&'static str>| Entry {
            names: crate::names::Ends { client: named(client), server: named(server) },
            server_name: server_name.map(Into::into),
            ..entry(Duration::ZERO)
        };
        let name = Some("api.example.com");
        insta::assert_snapshot!(shown(
            PLAIN,
            &[
                entry(pod.clone(), service.clone(), None),
                entry(node, pod, name),
                entry(service, process.clone(), None),
                entry(Identity::default(), process, name),
            ]
        ));
    }

    #[test]
    fn a_terminal_gets_the_sentence_whole_and_within_its_width() {
        let style = Style { width: Some(120), ..PLAIN };
        let long = Entry { summary: "A sentence that goes on ".repeat(10).into(), ..entry(Duration::ZERO) };
        let text = shown(style, &[entry(Duration::ZERO), long]);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn repeats_are_folded_and_what_differs_is_not() {
        let mut entries: Vec<_> = (0..38).map(|i| entry(Duration::from_millis(i * 250))).collect();
        entries.push(Entry { verdict: "port_closed".into(), ..entry(Duration::from_secs(9)) });
        entries.push(entry(Duration::from_secs(11)));
        entries.push(Entry { client: "10.138.0.29:1".parse().unwrap(), ..entry(Duration::from_secs(12)) });
        insta::assert_snapshot!(shown(FOLDING, &entries));
    }

    #[test]
    fn what_is_held_back_comes_by_itself_when_its_time_is_over() {
        let mut text = Text::new(FOLDING);
        let mut out = Vec::new();
        for i in 0..3 {
            text.show(&entry(Duration::from_secs(i)), Details::default, &mut out).unwrap();
        }
        let deadline = text.deadline().unwrap();
        assert_eq!(deadline, entry(Duration::from_secs(10)).time);
        out.clear();
        text.advance_to(deadline, &mut out).unwrap();
        assert!(String::from_utf8(out.clone()).unwrap().contains("×2 in 10 s"));
        out.clear();
        text.advance_to(text.deadline().unwrap(), &mut out).unwrap();
        assert!(out.is_empty() && text.deadline().is_none(), "a quiet window says nothing and is the last");
    }

    #[test]
    fn hostile_names_stay_on_their_line_in_their_place() {
        let hostile = "\u{1b}]0;x\u{7}\n05:03:53 error\u{202e}\u{2028}";
        let detail = || crate::entry::Detail { name: hostile.into(), text: hostile.into() };
        let details = || Details {
            evidence: vec![detail()],
            warnings: vec![detail()],
            alternatives: vec![detail()],
            remedy: Some(hostile.into()),
        };
        let entry = Entry {
            verdict: hostile.into(),
            server_name: Some(hostile.into()),
            summary: hostile.into(),
            ..entry(Duration::ZERO)
        };
        for width in [None, Some(80)] {
            let mut out = Vec::new();
            let style = Style { verbose: true, width, ..FOLDING };
            Text::new(style).show(&entry, details, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c)));
            // What was sent cannot begin a line: those that are there begin with our own columns.
            let ours = |line: &str| line.starts_with("10:00:00.000 error") || line.starts_with(INDENT);
            assert!(text.lines().all(ours), "{text}");
        }
    }

    #[test]
    fn colours_follow_the_severity() {
        let text = shown(Style { colour: true, ..PLAIN }, &[entry(Duration::ZERO)]);
        assert!(text.contains("\u{1b}[1m\u{1b}[31merror   sni_missing\u{1b}[0m"), "{text:?}");
    }
}
