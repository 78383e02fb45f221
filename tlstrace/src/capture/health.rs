//! What the programs saw, ignored and lost, and when the user must be told.

use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray};
use tlstrace_common::skip::{Counter, Totals};

/// How often to look.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The counters of the BPF programs, each summed over all CPUs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    values: Vec<u64>,
}

impl Counters {
    /// Reads the `COUNTERS` map.
    pub(super) fn read(map: &PerCpuArray<MapData, u64>) -> Result<Self, MapError> {
        let sum = |counter: Counter| map.get(&(counter as u32), 0).map(|cpus| cpus.iter().sum());
        Ok(Self { values: Counter::ALL.into_iter().map(sum).collect::<Result<_, _>>()? })
    }

    pub fn get(&self, counter: Counter) -> u64 {
        self.values.get(counter as usize).copied().unwrap_or(0)
    }

    pub fn totals(&self) -> Totals {
        Totals::new(|counter| self.get(counter))
    }

    /// Everything that was missed, by reason.
    pub fn losses(&self) -> impl Iterator<Item = (Counter, u64)> {
        let losses = Counter::ALL.into_iter().filter(|counter| counter.is_loss());
        losses.map(|counter| (counter, self.get(counter))).filter(|(_, count)| *count > 0)
    }
}

/// Decides what is worth a line on stderr.
#[derive(Debug)]
pub struct Health {
    told: Counters,
    events: u64,
    quiet_since: Duration,
    /// How long nothing must have been seen for the next line: each silence is told of less and less often.
    patience: Duration,
}

impl Health {
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Begins to watch; `counters` are those of the beginning.
    pub fn new(counters: Counters) -> Self {
        Self { told: counters, events: 0, quiet_since: Duration::ZERO, patience: Self::PATIENCE }
    }

    /// What to say at `now` (time since the start), when `events` have been taken out of the ring so far.
    pub fn look(&mut self, now: Duration, counters: &Counters, events: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (counter, count) in counters.losses() {
            let new = count - self.told.get(counter).min(count);
            if new > 0 {
                lines.push(format!("{new} {}{}", counter.text(), remedy(counter)));
            }
        }
        if events > self.events {
            self.events = events;
            self.quiet_since = now;
            self.patience = Self::PATIENCE;
        } else if now.saturating_sub(self.quiet_since) >= self.patience {
            lines.push(silence(now.saturating_sub(self.quiet_since), counters));
            self.patience *= 6;
        }
        self.told = counters.clone();
        lines
    }
}

fn remedy(counter: Counter) -> &'static str {
    match counter {
        Counter::RingFull => {
            " (verdicts of the connections concerned may be missing or `undetermined`; --ring-size makes room)"
        }
        _ => "",
    }
}

fn silence(quiet: Duration, counters: &Counters) -> String {
    let Totals { packets, tcp, candidates } = counters.totals();
    let reason = if packets == 0 {
        "no packet passes here: is the traffic on another interface (-i), or in another network namespace (--netns)?"
    } else if tcp == 0 {
        "there is no TCP here: is the traffic on another interface (-i), or inside a tunnel?"
    } else if candidates == 0 {
        "TCP connections are alive, and none has begun"
    } else {
        "no handshake is under way"
    };
    let drops: u64 = counters.losses().map(|(_, count)| count).sum();
    format!(
        "nothing seen for {} s: {reason} (since the start: {packets} packets, {tcp} TCP, {candidates} candidates for a handshake, {drops} drops)",
        quiet.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(set: &[(Counter, u64)]) -> Counters {
        let value = |counter| set.iter().find(|(name, _)| *name == counter).map_or(0, |(_, value)| *value);
        Counters { values: Counter::ALL.into_iter().map(value).collect() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_told_of_after_ten_seconds_and_then_rarely() {
        let nothing = counters(&[]);
        let mut health = Health::new(nothing.clone());
        let told: Vec<_> =
            (1..120).filter(|now| !health.look(seconds(*now), &nothing, 0).is_empty()).collect();
        assert_eq!(told, [10, 60]);
    }

    #[test]
    fn silence_has_a_likely_reason() {
        let look =
            |set: &[(Counter, u64)]| Health::new(counters(&[])).look(seconds(10), &counters(set), 0).concat();
        assert!(look(&[]).contains("no packet passes here"));
        assert!(look(&[(Counter::NotTcp, 5)]).contains("no TCP"));
        assert!(look(&[(Counter::Established, 5)]).contains("none has begun"));
    }

    #[test]
    fn events_end_a_silence() {
        let nothing = counters(&[]);
        let mut health = Health::new(nothing.clone());
        assert!(health.look(seconds(9), &nothing, 1).is_empty());
        assert!(health.look(seconds(18), &nothing, 1).is_empty());
        assert_eq!(health.look(seconds(19), &nothing, 1).len(), 1);
    }

    #[test]
    fn losses_are_told_of_once_and_by_their_number() {
        let mut health = Health::new(counters(&[]));
        let lost = counters(&[(Counter::RingFull, 7)]);
        assert!(health.look(seconds(1), &lost, 1).concat().starts_with("7 events lost"));
        assert!(health.look(seconds(2), &lost, 2).is_empty());
    }
}
