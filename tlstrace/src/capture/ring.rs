//! The ring buffer's reading end: bytes to [`Segment`]s, and when to sleep.
//!
//! A wake-up costs the sender of a packet some 5 µs, so the BPF program gives one only if userspace has
//! said that it sleeps (`Control::consumer_sleeping`). Between "I am going to sleep" and sleeping there is a
//! moment in which the program may have read the old value: hence [`Pace`], which looks once more.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use tlstrace_common::event::{self, DecodeError, Event, Kind};
use tokio::io::unix::AsyncFd;

use super::clock::Clock;
use super::pollable;
use crate::engine::segment::{Chunk, Direction, Segment, address};

/// How long to wait before looking again while events flow: short beside what a reader notices, long beside a look, of
/// which sleeping and waking alone take some 10 µs.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// The same under load: what a look finds in no cache is shared by more events.
const TICK_UNDER_LOAD: Duration = Duration::from_millis(4);
/// Events in a millisecond from which on there is load: of some 9,000 handshakes a second.
const LOAD: u128 = 100;

/// Most events to take in one go, so that signals and timeouts have their turn under load.
pub const BATCH: usize = 1024;

/// The reading end of the `EVENTS` ring.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
    malformed: u64,
}

impl Ring {
    /// Takes over the ring; needs a tokio runtime around it.
    pub(super) fn new(ring: RingBuf<MapData>) -> anyhow::Result<Self> {
        Ok(Self { ring: pollable(ring).context("cannot poll the ring buffer")?, malformed: 0 })
    }

    /// Hands over what is in the ring, oldest first and at most [`BATCH`] events; says how many there were.
    pub(super) fn drain(&mut self, mut handle: impl FnMut(&Event<'_>)) -> usize {
        let ring = self.ring.get_mut();
        for taken in 0..BATCH {
            let Some(item) = ring.next() else { return taken };
            match event::decode(&item) {
                Ok(event) => handle(&event),
                Err(error) => {
                    self.malformed += 1;
                    log_malformed(self.malformed, error, &item);
                }
            }
        }
        BATCH
    }

    /// Waits for the kernel's wake-up. May return early.
    pub async fn woken(&self) {
        // An error means that the runtime is shutting down; the loop is told by other means.
        if let Ok(mut guard) = self.ring.readable().await {
            guard.clear_ready();
        }
    }

    /// Events that could not be decoded: the program and userspace disagree, a bug.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// What to do when the ring has been drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// There may be more: look again at once, after a turn for everything else.
    No,
    /// Look again after so long; the kernel gives no wake-up.
    Tick(Duration),
    /// Announce that the consumer sleeps, and look again after a tick or a wake-up.
    Announce,
    /// Sleep until the wake-up.
    Sleep,
}

/// Decides between polling and sleeping.
#[derive(Debug)]
pub struct Pace {
    empty: u32,
    tick: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { empty: 0, tick: TICK }
    }
}

impl Pace {
    /// Empty looks before sleep is announced: long enough for the next flight of a handshake on a local network.
    const PATIENCE: u32 = 8;

    /// What to do after a drain that found `events`.
    pub fn after_drain(&mut self, events: usize) -> Wait {
        self.empty = if events > 0 { 0 } else { self.empty.saturating_add(1) };
        if events == BATCH {
            return Wait::No;
        }
        let is_load = events as u128 >= LOAD * self.tick.as_millis();
        self.tick = if is_load { TICK_UNDER_LOAD } else { TICK };
        match self.empty {
            0..Self::PATIENCE => Wait::Tick(self.tick),
            // The look a tick after the announcement finds the event of a program that read the old value just
            // before: a program runs for microseconds.
            Self::PATIENCE => Wait::Announce,
            _ => Wait::Sleep,
        }
    }
}

/// A segment in the engine's terms.
pub(super) fn segment<'a>(event: &event::Segment<'a>, clock: &Clock) -> Segment<'a> {
    let header = &event.header;
    Segment {
        timestamp: clock.at(header.timestamp_ns),
        interface: header.interface,
        direction: match header.kind {
            Kind::INGRESS => Direction::Ingress,
            Kind::EGRESS => Direction::Egress,
            _ => Direction::Unknown,
        },
        source: SocketAddr::new(address(header.source), header.source_port),
        destination: SocketAddr::new(address(header.destination), header.destination_port),
        sequence: header.sequence,
        acknowledgement: header.acknowledgement,
        flags: header.tcp_flags,
        window: header.window,
        options: header.tcp_options,
        hop_limit: header.hop_limit,
        ip_id: header.ip_id,
        vlan: header.vlan,
        payload_len: header.payload_len,
        chunks: event.chunks().map(|(offset, bytes)| Chunk { offset, bytes }).collect(),
        notes: header.notes,
        is_own: false,
    }
}

/// Every one is counted; the log has the first, the second, the fourth …
fn log_malformed(count: u64, error: DecodeError, bytes: &[u8]) {
    if count.is_power_of_two() {
        log::error!("malformed event of {} bytes ({count} so far): {error}", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_announced_before_it_is_taken_and_the_ring_looked_at_in_between() {
        let mut pace = Pace::default();
        assert_eq!(pace.after_drain(BATCH), Wait::No);
        assert_eq!(pace.after_drain(3), Wait::Tick(TICK));
        let waits: Vec<_> = std::iter::repeat_with(|| pace.after_drain(0)).take(40).collect();
        let announced = waits.iter().position(|wait| *wait == Wait::Announce).unwrap();
        assert!(waits.iter().take(announced).all(|wait| *wait == Wait::Tick(TICK)));
        assert!(waits.iter().skip(announced + 1).all(|wait| *wait == Wait::Sleep));
        assert_eq!(pace.after_drain(1), Wait::Tick(TICK), "an event after the announcement means polling");
    }

    #[test]
    fn looks_are_fewer_as_long_as_there_is_load() {
        let mut pace = Pace::default();
        let mut after = |events| pace.after_drain(events);
        assert_eq!(
            [99, 100, 400, 400].map(&mut after),
            [TICK, TICK_UNDER_LOAD, TICK_UNDER_LOAD, TICK_UNDER_LOAD].map(Wait::Tick)
        );
        assert_eq!(
            [399, 99].map(after),
            [TICK, TICK].map(Wait::Tick),
            "the rate counts, and not what a longer tick brings"
        );
    }
}
