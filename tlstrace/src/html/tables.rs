//! Where handshakes failed, which certificates end, and what the capture missed.

use std::borrow::Cow;
use std::hash::Hash;

use maud::{Markup, html};

use super::timeline::Colours;
use super::{Capture, MOST, Number, Page, Percent, Span};
use crate::engine::timestamp::Timestamp;
use crate::sink::Clean;
use crate::summary::{EXPIRES_SOON, Share, Table, Times};
use crate::verdict::words;

const DAY: i64 = 86_400;

/// How many have a failure; a `+` where some were forgotten.
pub(super) fn failing<K: Clone + Eq + Hash + Ord>(table: &Table<K>) -> Markup {
    let failing = table.iter().filter(|(_, tally)| tally.failures > 0).count();
    html! { (Number(failing as u64)) @if table.forgotten_failing() > 0 { "+" } }
}

/// How many were seen.
pub(super) fn seen<K: Clone + Eq + Hash + Ord>(table: &Table<K>) -> Markup {
    html! { @if table.forgotten() > 0 { "more than " } (Number(table.len() as u64)) }
}

/// Tables by listener, server name and client.
pub(super) fn sections(page: &Page<'_>) -> Markup {
    let summary = page.summary;
    if summary.failures() == 0 {
        return Markup::default();
    }
    html! {
        (table(page, "Listeners", "listener", summary.listeners(), ToString::to_string))
        (table(page, "Server names", "server name", summary.server_names(), |name| Clean(name).to_string()))
        (table(page, "Clients", "client", summary.clients(), ToString::to_string))
    }
}

fn table<K: Clone + Eq + Hash + Ord>(
    page: &Page<'_>,
    title: &str,
    what: &str,
    table: &Table<K>,
    show: impl Fn(&K) -> String,
) -> Markup {
    let all = page.summary.failures();
    let failing = table.failing(usize::MAX);
    if failing.is_empty() {
        return Markup::default();
    }
    let times = Times::new(page.summary, page.offset);
    let colours = Colours::of(page.summary);
    let time = |time: Option<Timestamp>| time.map(|time| times.show(time)).unwrap_or_default();
    let has_latency = failing.iter().take(MOST).any(|(_, tally)| tally.latency.is_some());
    html! {
        section {
            h2 { (title) }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { (what) }
                            th.number { "failures" }
                            th.bar {}
                            th.number { "of all" }
                            @if page.knows_successes() {
                                th.number { "handshakes" }
                                th.number { "failed" }
                            }
                            th { "mostly" }
                            th { "first" }
                            th { "last" }
                            @if has_latency { th.number { "p50" } th.number { "p99" } }
                        }
                    }
                    tbody {
                        @for (key, tally) in failing.iter().take(MOST) {
                            @let top = tally.top_verdict().map_or("", |(verdict, _)| verdict);
                            tr {
                                th scope="row" { span.name { (show(key)) } }
                                td.number { (Number(tally.failures)) }
                                td.bar {
                                    svg width="100%" height="8" aria-hidden="true" {
                                        rect.track width="100%" height="8" rx="2" {}
                                        rect class=(colours.class(top)) width=(Percent(tally.failures, all))
                                            height="8" rx="2" {}
                                    }
                                }
                                td.number { (Share(tally.failures, all)) }
                                @if page.knows_successes() {
                                    td.number { (Number(tally.handshakes)) }
                                    td.number { (Share(tally.failures, tally.handshakes)) }
                                }
                                td { code { (Clean(top)) } }
                                td.time { (time(tally.first_failure)) }
                                td.time { (time(tally.last_failure)) }
                                @if has_latency {
                                    @for percent in [50, 99] {
                                        td.number {
                                            @if let Some(latency) = &tally.latency
                                                && let Some(quantile) = latency.quantile(percent)
                                            { (Span(quantile)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            @if failing.len() > MOST {
                p.note { "and " (Number((failing.len() - MOST) as u64)) " more with a failure" }
            }
            @if table.forgotten_failing() > 0 {
                p.note { (Number(table.forgotten_failing())) " that failed least were forgotten for want of room" }
            }
        }
    }
}

/// All certificates that were seen, as far as there is room, soonest end first.
pub(super) fn certificates(page: &Page<'_>) -> Markup {
    let Some((_, now)) = page.summary.period() else { return Markup::default() };
    let seen = page.summary.certificates();
    if seen.iter().next().is_none() {
        return Markup::default();
    }
    let now = now.as_secs().cast_signed();
    let soon = EXPIRES_SOON.as_secs().cast_signed();
    let count = seen.iter().count();
    let left = |not_after: i64| match not_after - now {
        left @ ..0 => ("error", format!("ended {} days ago", -left / DAY)),
        left if left <= soon => ("warning", format!("in {} days", left / DAY)),
        left => ("fine", format!("in {} days", left / DAY)),
    };
    html! {
        section {
            h2 { "Certificates" }
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "not after" }
                            th { "at the end of the period" }
                            th { "subject" }
                            th { "listener" }
                            th { "server name" }
                        }
                    }
                    tbody {
                        @for (not_after, subject, certificate) in seen.iter().take(MOST) {
                            @let (class, left) = left(not_after);
                            tr {
                                td.time { (words::date(not_after)) }
                                td { span class={ "severity " (class) } { (left) } }
                                td { span.name { (Clean(subject)) } }
                                td { (certificate.server) }
                                td {
                                    @if let Some(name) = &certificate.server_name { span.name { (Clean(name)) } }
                                }
                            }
                        }
                    }
                }
            }
            @if count > MOST { p.note { "and " (count - MOST) " that end later" } }
            p.note { "Only what servers sent in the clear: TLS 1.3 hides certificates." }
        }
    }
}

/// What the verdicts rest on.
pub(super) fn health(page: &Page<'_>) -> Markup {
    let counts = |counts: &[(Cow<'static, str>, u64)]| {
        html! {
            @if counts.is_empty() { "none" }
            @else {
                ul { @for (what, count) in counts { li { (Number(*count)) " " (Clean(what)) } } }
            }
        }
    };
    let one = |capture: &Capture| {
        let totals = &capture.totals;
        html! {
            @if let Some(hostname) = &capture.hostname { h3 { (Clean(hostname)) } }
            dl {
                dt { "packets" }
                dd {
                    (Number(totals.packets)) ", " (Number(totals.tcp)) " of TCP"
                    @if let Some(candidates) = totals.candidates {
                        ", " (Number(candidates)) " candidates for a handshake"
                    }
                    @if let Some(events) = totals.events { ", " (Number(events)) " events" }
                }
                dt { "lost" }
                dd { (counts(&totals.losses)) }
                dt { "not read" }
                dd { (counts(&totals.unread)) }
            }
        }
    };
    let partial = page.material.partial;
    html! {
        section {
            h2 { "Capture" }
            @if let Some(lines) = page.lines {
                p {
                    (Number(lines.read)) " lines read"
                    @if lines.foreign > 0 { ", " (Number(lines.foreign)) " of them not of tlstrace" }
                    @if lines.filtered > 0 { ", " (Number(lines.filtered)) " left out by filters" }
                    "."
                }
            }
            @if page.summary.handshakes() > 0 {
                p {
                    @if partial == 0 { "Of every connection all was captured that its verdict may rest on." }
                    @else {
                        "Of " (Number(partial)) @if partial == 1 { " connection" } @else { " connections" } " something was missed that a verdict may rest on; "
                        "such verdicts say no more than what was seen allows."
                    }
                }
            }
            @if page.captures.is_empty() {
                p.note {
                    "The lines do not say how many packets were seen and lost: "
                    code { "--summary json" } " has them say so."
                }
            }
            @for capture in page.captures.iter().take(MOST) { (one(capture)) }
            @if page.captures.len() > MOST { p.note { "and " (page.captures.len() - MOST) " more" } }
        }
    }
}
