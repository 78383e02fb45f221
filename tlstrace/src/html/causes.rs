//! Why handshakes failed, one case of each kind, and what to do.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use maud::{Markup, html};

use super::timeline::Colours;
use super::{MOST, Number, Page, Percent};
use crate::engine::timestamp::Timestamp;
use crate::entry::{Detail, Details, Entry};
use crate::sink::Clean;
use crate::summary::{Share, Times};
use crate::verdict::rules::{self, Rule};
use crate::verdict::{Confidence, Severity};

/// Most kinds of failure of which a case is kept; there are far fewer, but saved lines may bring any text.
const MAX_CASES: usize = 256;
/// Most bytes that are kept of a text, and most texts of a kind: likewise.
const MAX_TEXT: usize = 2048;
const MAX_ITEMS: usize = 16;

/// One case of each verdict.
#[derive(Debug, Default)]
pub(super) struct Causes {
    cases: BTreeMap<String, Case>,
}

/// A connection that failed.
#[derive(Debug)]
struct Case {
    confidence: Confidence,
    time: Timestamp,
    client: SocketAddr,
    server: SocketAddr,
    server_name: Option<String>,
    summary: String,
    details: Details<'static>,
}

impl Causes {
    /// Keeps the case that is surest, of such the first.
    pub(super) fn add<'a>(&mut self, entry: &Entry<'_>, details: impl FnOnce() -> Details<'a>) {
        match self.cases.get(&*entry.verdict) {
            Some(known)
                if (known.confidence, Reverse(known.time)) >= (entry.confidence, Reverse(entry.time)) =>
            {
                return;
            }
            None if self.cases.len() >= MAX_CASES => return,
            _ => {}
        }
        let case = Case {
            confidence: entry.confidence,
            time: entry.time,
            client: entry.client,
            server: entry.server,
            server_name: entry.server_name.as_deref().map(cut),
            summary: cut(&entry.summary),
            details: owned(details()),
        };
        self.cases.insert(cut(&entry.verdict), case);
    }

    /// What stands under the headline.
    pub(super) fn lead(&self, verdict: &str) -> Option<Markup> {
        let case = self.cases.get(verdict)?;
        Some(html! {
            p.lead { (Clean(&case.summary)) }
            @if let Some(remedy) = &case.details.remedy {
                p.remedy { strong { "What to do: " } (Clean(remedy)) }
            }
        })
    }
}

/// Every kind of failure, the most frequent first.
pub(super) fn section(page: &Page<'_>) -> Markup {
    let summary = page.summary;
    let verdicts = summary.verdicts();
    let failing: Vec<_> =
        verdicts.iter().filter(|(_, count)| count.severity > Severity::Info).copied().collect();
    if failing.is_empty() {
        return Markup::default();
    }
    let times = Times::new(summary, page.offset);
    let colours = Colours::of(summary);
    let incidents = summary.incidents().list();
    html! {
        section {
            h2 { "Causes" }
            @for (position, (verdict, count)) in failing.iter().take(MOST).enumerate() {
                article.cause {
                    div.head {
                        h3 { (colours.swatch(verdict)) code { (Clean(verdict)) } }
                        span class={ "severity " (count.severity.as_str()) } { (count.severity.as_str()) }
                        span.count {
                            (Number(count.count)) " · " (Share(count.count, summary.failures())) " of failures"
                        }
                    }
                    svg.share width="100%" height="4" aria-hidden="true" {
                        rect.track width="100%" height="4" {}
                        rect class=(colours.class(verdict)) width=(Percent(count.count, summary.failures()))
                            height="4" {}
                    }
                    @if let Some(rule) = rules::find(verdict) { p.meaning { (Rule::doc_short(rule)) } }
                    @let groups = incidents.iter().filter(|incident| *incident.verdict == **verdict);
                    @for incident in groups.take(3) {
                        p.group {
                            (Number(incident.failures)) @if incident.failures == 1 { " failure: " } @else { " failures: " }
                            (Clean(&incident.in_common().join(", ")))
                            @if incident.failures == 1 { ", at " (times.show(incident.last)) }
                            @else {
                                ", " (times.show(incident.first)) " to " (times.show(incident.last))
                            }
                        }
                    }
                    @if let Some(case) = page.material.causes.cases.get(*verdict) {
                        (show(case, position == 0, times))
                    }
                }
            }
            @if failing.len() > MOST { p.note { "and " (failing.len() - MOST) " more kinds" } }
        }
    }
}

fn show(case: &Case, is_open: bool, times: Times) -> Markup {
    let Details { evidence, warnings, alternatives, remedy } = &case.details;
    let facts = |title: &str, items: &[Detail<'_>]| {
        html! {
            @if !items.is_empty() {
                h4 { (title) }
                dl {
                    @for item in items {
                        dt { code { (Clean(&item.name)) } }
                        dd { (Clean(&item.text)) }
                    }
                }
            }
        }
    };
    html! {
        @if let Some(remedy) = remedy {
            p.remedy { strong { "What to do: " } (Clean(remedy)) }
        }
        details open[is_open] {
            summary { "A case of it, with evidence (" (case.confidence.as_str()) ")" }
            p.case {
                (times.show(case.time)) " · " (case.client) " → "
                @if let Some(name) = &case.server_name { (Clean(name)) " (" (case.server) ")" }
                @else { (case.server) }
            }
            p { (Clean(&case.summary)) }
            (facts("Evidence", evidence))
            (facts("What else it could be", alternatives))
            (facts("Beside the verdict", warnings))
        }
    }
}

fn owned(details: Details<'_>) -> Details<'static> {
    let items = |items: Vec<Detail<'_>>| {
        let items = items.into_iter().take(MAX_ITEMS);
        items.map(|item| Detail { name: cut(&item.name).into(), text: cut(&item.text).into() }).collect()
    };
    Details {
        evidence: items(details.evidence),
        warnings: items(details.warnings),
        alternatives: items(details.alternatives),
        remedy: details.remedy.map(|remedy| Cow::Owned(cut(&remedy))),
    }
}

/// A text that is not too long.
fn cut(text: &str) -> String {
    match text.get(..text.floor_char_boundary(MAX_TEXT)) {
        Some(head) if head.len() < text.len() => format!("{head}…"),
        _ => text.to_owned(),
    }
}
