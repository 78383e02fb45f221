//! Where the time of completed handshakes went.

use std::time::Duration;

use maud::{Markup, html};

use super::{Number, Page, Percent, Span};
use crate::entry::{Entry, Timings};
use crate::summary::Latency;

/// A part of a handshake.
struct Phase {
    name: &'static str,
    meaning: &'static str,
    /// It is within the one before, of which it is a part.
    is_part: bool,
    of: fn(&Timings) -> Option<u64>,
}

/// In the order in which they pass.
const PHASES: [Phase; 10] = [
    Phase { name: "TCP", meaning: "SYN to the end of TCP's handshake", is_part: false, of: |t| t.tcp_rtt },
    Phase { name: "server's leg", meaning: "SYN to SYN-ACK", is_part: true, of: |t| t.server_rtt },
    Phase { name: "client's leg", meaning: "SYN-ACK to ACK", is_part: true, of: |t| t.client_rtt },
    Phase {
        name: "ClientHello",
        meaning: "end of TCP's handshake to the whole ClientHello",
        is_part: false,
        of: |t| t.client_hello,
    },
    Phase {
        name: "transfer",
        meaning: "its first byte to its last",
        is_part: true,
        of: |t| t.client_hello_transfer,
    },
    Phase {
        name: "server's answer",
        meaning: "ClientHello to the server's first byte",
        is_part: false,
        of: |t| t.server_hello,
    },
    Phase {
        name: "server's flight",
        meaning: "from there to the end of the flight",
        is_part: false,
        of: |t| t.server_flight,
    },
    Phase {
        name: "client's answer",
        meaning: "from there to the client's answer: its round trip, and its verification of the certificate",
        is_part: false,
        of: |t| t.client_flight,
    },
    Phase {
        name: "server's finish",
        meaning: "the client's Finished to what the server sent next",
        is_part: false,
        of: |t| t.server_finish,
    },
    Phase {
        name: "TLS handshake",
        meaning: "ClientHello to the end of the handshake",
        is_part: false,
        of: |t| t.handshake,
    },
];

/// How long each of [`PHASES`] took.
#[derive(Debug, Default)]
pub(super) struct Phases([Latency; PHASES.len()]);

/// What half, most and nearly all did not exceed.
#[derive(Clone, Copy)]
struct Quantiles {
    p50: Duration,
    p90: Duration,
    p99: Duration,
}

impl Phases {
    /// Counts a handshake, if it was completed: of others, some phases end with the failure.
    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        if entry.timings.handshake.is_none() {
            return;
        }
        for (phase, latency) in PHASES.iter().zip(&mut self.0) {
            if let Some(micros) = (phase.of)(&entry.timings) {
                latency.add(Duration::from_micros(micros));
            }
        }
    }
}

impl Quantiles {
    fn of(latency: &Latency) -> Option<Self> {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| latency.quantile(percent));
        Some(Self { p50: p50?, p90: p90?, p99: p99? })
    }
}

pub(super) fn section(page: &Page<'_>) -> Markup {
    let phases = PHASES.iter().zip(&page.material.phases.0);
    let rows: Vec<_> = phases
        .filter_map(|(phase, latency)| Some((phase, latency.count(), Quantiles::of(latency)?)))
        .collect();
    if rows.is_empty() {
        return Markup::default();
    }
    let scale = Scale::of(rows.iter().map(|(.., quantiles)| quantiles));
    html! {
        section {
            h2 { "Latency of completed handshakes" }
            p.note { "Dots are p50 (full), p90 and p99, on a logarithmic scale." }
            div.scroll {
                table.latency {
                    thead {
                        tr {
                            th { "phase" }
                            th.number { "p50" }
                            th.number { "p90" }
                            th.number { "p99" }
                            th.plot { (scale.labels()) }
                            th.number { "measured" }
                        }
                    }
                    tbody {
                        @for (phase, count, quantiles) in &rows {
                            tr.part[phase.is_part] {
                                th scope="row" { (phase.name) span.meaning { (phase.meaning) } }
                                td.number { (Span(quantiles.p50)) }
                                td.number { (Span(quantiles.p90)) }
                                td.number { (Span(quantiles.p99)) }
                                td.plot { (scale.plot(*quantiles)) }
                                td.number { (Number(*count)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A logarithmic scale.
struct Scale {
    least: u64,
    most: u64,
}

impl Scale {
    fn of<'a>(all: impl Iterator<Item = &'a Quantiles>) -> Self {
        let (mut least, mut most) = (u64::MAX, 0);
        for quantiles in all {
            least = least.min(logarithm(quantiles.p50));
            most = most.max(logarithm(quantiles.p99));
        }
        Self { least, most }
    }

    fn place(&self, duration: Duration) -> Percent {
        let span = (self.most - self.least).max(1);
        // Room for half a dot at both ends.
        Percent((logarithm(duration) - self.least) * 94 + 3 * span, span * 100)
    }

    /// Powers of ten within it.
    fn decades(&self) -> impl Iterator<Item = Duration> {
        let decades = (0..10).map(|power| Duration::from_micros(10_u64.pow(power)));
        decades.filter(|decade| (self.least..=self.most).contains(&logarithm(*decade)))
    }

    fn labels(&self) -> Markup {
        html! {
            svg.dots width="100%" height="14" {
                @for decade in self.decades() { text x=(self.place(decade)) y="11" { (round(decade)) } }
            }
        }
    }

    fn plot(&self, quantiles: Quantiles) -> Markup {
        let Quantiles { p50, p90, p99 } = quantiles;
        html! {
            svg.dots width="100%" height="14" aria-hidden="true" {
                @for decade in self.decades() {
                    line.track x1=(self.place(decade)) x2=(self.place(decade)) y1="-4" y2="18" {}
                }
                line.range x1=(self.place(p50)) x2=(self.place(p99)) y1="7" y2="7" {}
                circle.p99 cx=(self.place(p99)) cy="7" r="3" {}
                circle.p90 cx=(self.place(p90)) cy="7" r="3.5" {}
                circle.p50 cx=(self.place(p50)) cy="7" r="4.5" {}
            }
        }
    }
}

/// A power of ten microseconds: `100 µs`, `1 ms`.
fn round(decade: Duration) -> String {
    match u64::try_from(decade.as_micros()).unwrap_or(u64::MAX) {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{} ms", micros / 1000),
        micros => format!("{} s", micros / 1_000_000),
    }
}

/// To the base 2, in 64ths, straight between powers of two.
fn logarithm(duration: Duration) -> u64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    let beyond = u128::from(micros - (1 << octave)) * 64 / (1 << octave);
    u64::from(octave) * 64 + u64::try_from(beyond).unwrap_or_default()
}
