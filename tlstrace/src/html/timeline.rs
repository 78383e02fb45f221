//! Failures over time, by verdict: stacked bars in SVG, whose widths are shares and whose heights are pixels, so that
//! text keeps its size on every screen.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};

use super::{Number, Page, Percent};
use crate::engine::timestamp::Civil;
use crate::sink::Clean;
use crate::summary::{Step, Summary, Timeline, Times};
use crate::verdict::Severity;

/// Kinds of failure with a colour of their own.
const COLOURS: usize = 7;
/// Pixels.
const HEIGHT: u64 = 180;
const HEIGHT_OF_ALL: u64 = 36;
/// Fewest steps that the axis shows, so that one bar is not a wall.
const FEWEST: u64 = 16;
/// Most labels of the time axis.
const LABELS: i64 = 6;
/// Distances between labels in milliseconds.
const DISTANCES: [i64; 27] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    DAY,
    2 * DAY,
    7 * DAY,
    28 * DAY,
    84 * DAY,
    364 * DAY,
    3640 * DAY,
];
const DAY: i64 = 86_400_000;

/// Which colour stands for which kind of failure.
pub(super) struct Colours<'a> {
    ranks: BTreeMap<&'a str, usize>,
    counts: Vec<(&'a str, u64)>,
}

impl<'a> Colours<'a> {
    pub(super) fn of(summary: &'a Summary) -> Self {
        let verdicts = summary.verdicts().into_iter();
        let failing = verdicts.filter(|(_, count)| count.severity > Severity::Info);
        let counts: Vec<_> = failing.map(|(verdict, count)| (verdict, count.count)).collect();
        let ranks = counts.iter().take(COLOURS).enumerate().map(|(rank, (verdict, _))| (*verdict, rank));
        Self { ranks: ranks.collect(), counts }
    }

    pub(super) fn class(&self, verdict: &str) -> String {
        format!("k{}", self.rank(verdict))
    }

    pub(super) fn swatch(&self, verdict: &str) -> Markup {
        swatch(&self.class(verdict))
    }

    /// Those without a colour of their own share the last.
    fn rank(&self, verdict: &str) -> usize {
        self.ranks.get(verdict).copied().unwrap_or(COLOURS)
    }

    fn legend(&self) -> Markup {
        let others: u64 = self.counts.iter().skip(COLOURS).map(|(_, count)| count).sum();
        html! {
            ul.legend {
                @for (verdict, count) in self.counts.iter().take(COLOURS) {
                    li { (self.swatch(verdict)) code { (Clean(verdict)) } " " (Number(*count)) }
                }
                @if others > 0 {
                    li { (swatch(&format!("k{COLOURS}"))) "others " (Number(others)) }
                }
            }
        }
    }
}

fn swatch(class: &str) -> Markup {
    html! { svg.swatch width="10" height="10" aria-hidden="true" { rect class=(class) width="10" height="10" rx="2" {} } }
}

/// The failures of every step, and beneath them all handshakes.
pub(super) fn section(page: &Page<'_>) -> Markup {
    let timeline = page.summary.timeline();
    // When a single one happened is said beside it.
    if page.summary.failures() <= 1 {
        return Markup::default();
    }
    let Some(axis) = Axis::of(timeline, page.offset) else { return Markup::default() };
    let colours = Colours::of(page.summary);
    let times = Times::new(page.summary, page.offset);
    let most = timeline.steps().map(|(_, step)| failures(step)).max().unwrap_or_default();
    let top = round_up(most);
    let most_of_all = timeline.steps().map(|(_, step)| step.handshakes).max().unwrap_or_default();
    let shows_all = page.knows_successes() && page.summary.successes() > 0;
    let length = length(timeline.length());
    let label = format!("Failures in each {length}, at most {most}");
    let lines = if top.is_multiple_of(2) { vec![top, top / 2] } else { vec![top] };
    html! {
        section {
            h2 { "Failures over time" }
            (colours.legend())
            p.note { "Failures in each " (length) }
            svg.timeline width="100%" height=(HEIGHT + 22) role="img" aria-label=(label) {
                @for value in lines {
                    @let y = 2 + (HEIGHT - HEIGHT * value / top);
                    line.grid x1="0" x2="100%" y1=(y) y2=(y) {}
                    text.value x="0" y=(y + 11) { (Number(value)) }
                }
                @for (number, step) in timeline.steps() {
                    (bar(step, axis.place(number), top, &colours, &times.show(timeline.begin(number))))
                }
                line.axis x1="0" x2="100%" y1=(HEIGHT + 2) y2=(HEIGHT + 2) {}
                @for (position, label) in axis.labels().into_iter().enumerate() {
                    text class={ "time" @if position % 2 == 1 { " odd" } } x=(label.0) y=(HEIGHT + 18) { (label.1) }
                }
            }
            @if shows_all {
                p.note { "All handshakes, at most " (Number(most_of_all)) " in a bar" }
                svg.timeline width="100%" height=(HEIGHT_OF_ALL + 2) role="img"
                    aria-label=(format!("All handshakes, at most {most_of_all} in a step")) {
                    @for (number, step) in timeline.steps() {
                        @let height = (HEIGHT_OF_ALL * step.handshakes).div_ceil(most_of_all.max(1));
                        @let (x, width) = axis.place(number);
                        rect.all x=(x) width=(width) y=(HEIGHT_OF_ALL - height) height=(height) {
                            title { (times.show(timeline.begin(number))) ": " (Number(step.handshakes)) " handshakes" }
                        }
                    }
                    line.axis x1="0" x2="100%" y1=(HEIGHT_OF_ALL) y2=(HEIGHT_OF_ALL) {}
                }
            }
        }
    }
}

fn bar(step: &Step, place: (Percent, Percent), top: u64, colours: &Colours<'_>, time: &str) -> Markup {
    let mut ranked: Vec<_> = step.failures.iter().filter(|(_, count)| **count > 0).collect();
    ranked.sort_by_key(|(verdict, _)| colours.rank(verdict));
    let mut below = 0;
    html! {
        @for (verdict, count) in ranked {
            @let from = HEIGHT * below / top;
            @let to = (HEIGHT * { below += count; below } / top).max(from + 1);
            rect class=(colours.class(verdict)) x=(place.0) width=(place.1) y=(2 + HEIGHT - to) height=(to - from) {
                title { (time) ": " (Number(*count)) " " (Clean(verdict)) }
            }
        }
    }
}

fn failures(step: &Step) -> u64 {
    step.failures.values().sum()
}

/// How long a step is, after "each": `minute`, `5 minutes`.
fn length(length: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second"), (1, "millisecond")];
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "millisecond"));
    match millis / unit {
        1 => name.to_owned(),
        many => format!("{many} {name}s"),
    }
}

/// The next number of one or two digits and noughts, of which all but 1 have a whole half.
fn round_up(value: u64) -> u64 {
    const FACTORS: [u64; 14] = [1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60];
    let mut unit: u64 = 1;
    loop {
        let found = FACTORS.into_iter().map(|factor| unit.saturating_mul(factor));
        if let Some(found) = found.into_iter().find(|rounded| *rounded >= value) {
            return found;
        }
        unit = unit.saturating_mul(10);
    }
}

/// The time axis.
struct Axis {
    /// Number of the first step that has room, and how many have.
    first: u64,
    steps: u64,
    /// Where it begins and ends, in milliseconds of local time.
    begin: i64,
    end: i64,
}

impl Axis {
    fn of(timeline: &Timeline, offset: i32) -> Option<Self> {
        let (first, last) = timeline.range()?;
        let used = last - first + 1;
        let steps = used.max(FEWEST);
        let first = first.saturating_sub((steps - used) / 2);
        let millis = |step| {
            let millis = timeline.begin(step).as_nanos() / 1_000_000;
            millis.cast_signed() + i64::from(offset) * 1000
        };
        Some(Self { first, steps, begin: millis(first), end: millis(first + steps) })
    }

    /// Where a step begins and how wide its bar is.
    fn place(&self, step: u64) -> (Percent, Percent) {
        let begin = (step.saturating_sub(self.first)) * 100;
        (Percent(begin + 8, self.steps * 100), Percent(84, self.steps * 100))
    }

    fn labels(&self) -> Vec<(Percent, String)> {
        let span = (self.end - self.begin).max(1);
        let distance = DISTANCES.into_iter().find(|distance| span / distance <= LABELS);
        let distance = distance.unwrap_or(span);
        let first = (self.begin.div_euclid(distance) + 1) * distance;
        let mut labels = Vec::new();
        let mut at = first;
        while at < self.end {
            let position = Percent((at - self.begin).unsigned_abs(), span.unsigned_abs());
            labels.push((position, label(at, distance)));
            at += distance;
        }
        labels
    }
}

/// As fine as the distance to the next asks for.
fn label(millis: i64, distance: i64) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(millis.div_euclid(1000));
    match distance {
        ..1000 => format!("{minute:02}:{second:02}.{}", millis.rem_euclid(1000) / 100),
        1000..60_000 => format!("{hour:02}:{minute:02}:{second:02}"),
        60_000..DAY if millis.rem_euclid(DAY) != 0 => format!("{hour:02}:{minute:02}"),
        _ if distance < 84 * DAY => format!("{month:02}-{day:02}"),
        _ => format!("{year}-{month:02}"),
    }
}
