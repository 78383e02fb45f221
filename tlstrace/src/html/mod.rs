//! The report: one HTML file for the incident document, of `tlstrace report` and `--report`.
//!
//! It needs no network and no script, and its policy forbids both. Every text in it passes through `maud`, which
//! escapes whatever it is given, and what peers have chosen through [`Clean`] before.

#![forbid(unsafe_code)]

mod causes;
mod latency;
mod tables;
mod timeline;

use std::fmt::{self, Display, Formatter};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use sha2::{Digest as _, Sha256};

use crate::entry::{Details, Entry};
use crate::sink::Clean;
use crate::summary::{CaptureTotals, Incident, Share, Summary, Times};

use causes::Causes;
use latency::Phases;

const STYLE: &str = include_str!("style.css");
/// Most values of one kind that are listed.
const MOST: usize = 20;

/// What a report needs of each verdict beside what a [`Summary`] counts. It is bounded, too.
#[derive(Debug, Default)]
pub struct Material {
    causes: Causes,
    phases: Phases,
    /// Connections of which something was missed that a verdict may rest on.
    partial: u64,
}

/// What one source of packets says of itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Capture {
    pub hostname: Option<String>,
    pub totals: CaptureTotals,
}

/// How many saved lines a report was made from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lines {
    pub read: u64,
    /// Those that tlstrace has not written.
    pub foreign: u64,
    /// Verdicts that a filter left out.
    pub filtered: u64,
}

/// A report, to be rendered.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    pub summary: &'a Summary,
    pub material: &'a Material,
    pub captures: &'a [Capture],
    /// `None` where all that was judged is counted, printed or not.
    pub lines: Option<Lines>,
    /// Seconds east of UTC.
    pub offset: i32,
}

impl Material {
    /// Takes what there is of a verdict.
    pub fn add<'a>(&mut self, entry: &Entry<'_>, details: impl FnOnce() -> Details<'a>) {
        if entry.is_failure() {
            self.causes.add(entry, details);
        }
        // A revision has the times of the verdict before.
        if entry.revision == 0 {
            self.phases.add(entry);
            self.partial += u64::from(!entry.is_whole);
        }
    }
}

impl Page<'_> {
    /// The whole file.
    pub fn to_html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(policy());
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    title { "tlstrace: " (self.title()) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header { (self.headline()) }
                    main {
                        (self.figures())
                        (timeline::section(self))
                        (causes::section(self))
                        (tables::sections(self))
                        (latency::section(self))
                        (tables::certificates(self))
                        (tables::health(self))
                    }
                    footer {
                        "tlstrace " (env!("CARGO_PKG_VERSION")) " · times in " (self.zone())
                        " · " code { "tlstrace explain ID" } " tells more of each verdict"
                    }
                }
            }
        };
        page.into_string()
    }

    /// The incident that most failures belong to.
    fn incident(&self) -> Option<Incident> {
        self.summary.incidents().list().first().map(|incident| Incident::clone(incident))
    }

    fn title(&self) -> String {
        let failures = self.summary.failures();
        match self.incident() {
            Some(incident) => {
                format!("{} of {failures} failures: {}", incident.failures, Clean(&incident.verdict))
            }
            None => format!("no failure among {} handshakes", self.summary.handshakes()),
        }
    }

    fn headline(&self) -> Markup {
        let summary = self.summary;
        let Some(incident) = self.incident() else {
            let handshakes = summary.handshakes();
            return html! {
                p.kicker { "TLS handshakes" (self.period()) }
                @if handshakes == 0 {
                    h1 { "No handshake was judged" }
                } @else {
                    h1 { "No failure among " (Number(handshakes)) " handshakes" }
                }
            };
        };
        let phrases = incident.in_common().join(", ");
        let times = Times::new(summary, self.offset);
        html! {
            p.kicker { "TLS handshakes" (self.period()) }
            h1 {
                @if summary.failures() == 1 { "One failure: " }
                @else { (Number(incident.failures)) " of " (Number(summary.failures())) " failures: " }
                code { (Clean(&incident.verdict)) }
            }
            p.common {
                (Clean(&phrases))
                @if incident.failures == 1 {
                    ", at " (times.show(incident.last))
                } @else {
                    ", since " (times.show(incident.first)) ", last at " (times.show(incident.last))
                }
            }
            @if let Some(lead) = self.material.causes.lead(&incident.verdict) {
                (lead)
            }
        }
    }

    fn period(&self) -> Markup {
        let Some((first, last)) = self.summary.period() else { return Markup::default() };
        let times = Times::new(self.summary, self.offset);
        let (from, to) = (times.date(first), times.date(last));
        let clock = |time| {
            let shown = times.show(time);
            shown.rsplit(' ').next().unwrap_or_default().to_owned()
        };
        html! {
            " · " (from) " " (clock(first)) " to "
            @if from != to { (to) " " }
            (clock(last)) " " (self.zone())
        }
    }

    fn figures(&self) -> Markup {
        let summary = self.summary;
        let (handshakes, failures) = (summary.handshakes(), summary.failures());
        let lost: u64 =
            self.captures.iter().flat_map(|capture| &capture.totals.losses).map(|(_, count)| count).sum();
        let latency = summary.latency();
        html! {
            section.figures aria-label="Figures" {
                (figure("handshakes", &html! { (Number(handshakes)) }, &html! {
                    (Number(summary.successes())) " completed"
                }))
                (figure("failures", &html! { (Number(failures)) }, &html! {
                    @if self.knows_successes() { (Share(failures, handshakes)) " of handshakes" }
                    @else { "of what was saved" }
                }))
                (figure("listeners failing", &html! { (tables::failing(summary.listeners())) }, &html! {
                    "of " (tables::seen(summary.listeners()))
                }))
                (figure("clients failing", &html! { (tables::failing(summary.clients())) }, &html! {
                    "of " (tables::seen(summary.clients()))
                }))
                @if let (Some(p50), Some(p99)) = (latency.quantile(50), latency.quantile(99)) {
                    (figure("median handshake", &html! { (Span(p50)) }, &html! { "p99 " (Span(p99)) }))
                }
                @if !self.captures.is_empty() {
                    (figure("lost", &html! { (Number(lost)) }, &html! {
                        (Number(self.material.partial)) " seen in part"
                    }))
                }
            }
            @if !self.knows_successes() && handshakes > 0 {
                p.note {
                    "No completed handshake is among the lines: shares are of what was saved. "
                    code { "--all" } " saves the others, too."
                }
            }
        }
    }

    /// Whether success can be told from what was not saved.
    fn knows_successes(&self) -> bool {
        self.lines.is_none() || self.summary.successes() > 0
    }

    fn zone(&self) -> String {
        if self.offset == 0 {
            return "UTC".to_owned();
        }
        let (sign, east) = (if self.offset < 0 { '−' } else { '+' }, self.offset.unsigned_abs());
        format!("UTC{sign}{:02}:{:02}", east / 3600, east / 60 % 60)
    }
}

/// Nothing may be fetched or run, and the only style is ours.
fn policy() -> String {
    let digest = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
}

fn figure(label: &str, value: &Markup, detail: &Markup) -> Markup {
    html! {
        div.figure {
            div.label { (label) }
            div.value { (value) }
            div.detail { (detail) }
        }
    }
}

/// `12,345`.
#[derive(Clone, Copy)]
struct Number(u64);

impl Render for Number {
    fn render_to(&self, buffer: &mut String) {
        let digits = self.0.to_string();
        for (position, digit) in digits.chars().enumerate() {
            if position > 0 && (digits.len() - position).is_multiple_of(3) {
                buffer.push(',');
            }
            buffer.push(digit);
        }
    }
}

/// A part of a whole for an attribute of SVG: `12.34%`.
#[derive(Clone, Copy)]
struct Percent(u64, u64);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let hundredths = u128::from(self.0) * 10_000 / u128::from(self.1.max(1));
        write!(f, "{}.{:02}%", hundredths / 100, hundredths % 100)
    }
}

/// A duration with two digits that count: `90 µs`, `1.2 ms`, `12 ms`, `1.5 s`, `2.5 min`.
#[derive(Clone, Copy)]
struct Span(std::time::Duration);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let (unit, name) = match micros {
            0..1000 => return write!(f, "{micros} µs"),
            1000..1_000_000 => (1000, "ms"),
            1_000_000..60_000_000 => (1_000_000, "s"),
            _ => (60_000_000, "min"),
        };
        match micros / unit {
            whole @ 0..10 => write!(f, "{whole}.{} {name}", micros % unit * 10 / unit),
            whole => write!(f, "{whole} {name}"),
        }
    }
}

#[cfg(test)]
mod tests;
