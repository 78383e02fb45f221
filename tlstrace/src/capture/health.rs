//! What the programs saw, ignored and lost, and when the user must be told.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use aya::maps::{MapData, MapError, PerCpuArray};
use tlstrace_common::skip::{Counter, Totals};

use crate::engine::Counts;
use crate::summary::CaptureTotals;

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
        let counts = Counter::ALL.into_iter().map(|counter| count(map, counter));
        Ok(Self { values: counts.collect::<Result<_, _>>()? })
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

/// Everything that was seen and missed since the start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conditions {
    pub counters: Counters,
    pub engine: Counts,
    /// Events that could not be decoded: the program and userspace disagree, a bug.
    pub malformed: u64,
}

/// What can explain that nothing is seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Surroundings {
    /// Packets that the watched interfaces carried, by their own account.
    pub carried: u64,
    /// Whether this is the node's network namespace, where that can be told.
    pub is_of_node: Option<bool>,
}

impl Conditions {
    /// Segments that the engine followed.
    fn followed(&self) -> u64 {
        self.engine.segments - self.engine.unfollowed.min(self.engine.segments)
    }

    /// All of it, for a summary.
    pub fn totals(&self) -> CaptureTotals {
        let Totals { packets, tcp, candidates } = self.counters.totals();
        CaptureTotals {
            packets,
            tcp,
            candidates: Some(candidates),
            events: Some(self.counters.get(Counter::Events)),
            losses: self.losses(),
            unread: self.unread(),
        }
    }

    /// Everything that was missed.
    fn losses(&self) -> Vec<(Cow<'static, str>, u64)> {
        let kernel = self.counters.losses().map(|(counter, count)| (counter.text().into(), count));
        let rest = [
            (self.engine.evicted, "connections forgotten for want of room"),
            (self.engine.one_way, "connections seen in one direction only"),
            (self.malformed, "events malformed"),
        ];
        let rest = rest.into_iter().filter(|(count, _)| *count > 0);
        kernel.chain(rest.map(|(count, what)| (what.into(), count))).collect()
    }

    /// Packets that may have mattered and were not read.
    fn unread(&self) -> Vec<(Cow<'static, str>, u64)> {
        let unread = [
            Counter::Fragment,
            Counter::Truncated,
            Counter::BadLength,
            Counter::TooManyExtensionHeaders,
            Counter::Quic,
            Counter::Encapsulated,
            Counter::LeftOut,
        ];
        let counts = unread.map(|counter| (counter.text().into(), self.counters.get(counter)));
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.totals().fmt(f)
    }
}

/// One counter of the `COUNTERS` map, summed over all CPUs.
pub(super) fn count(map: &PerCpuArray<MapData, u64>, counter: Counter) -> Result<u64, MapError> {
    map.get(&(counter as u32), 0).map(|cpus| cpus.iter().sum())
}

/// Decides what is worth a line on stderr.
#[derive(Debug)]
pub struct Health {
    told: Conditions,
    followed: u64,
    quiet_since: Duration,
    /// How long nothing must have been seen for the next line: each silence is told of less and less often.
    patience: Duration,
    /// How many packets the programs had seen, and the interfaces had carried, shortly after a silence began.
    /// Absent while there is none.
    before: Option<(u64, u64)>,
    /// How many connections of one direction were known when they were last told of.
    one_way: u64,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            told: Conditions::default(),
            followed: 0,
            quiet_since: Duration::ZERO,
            patience: Self::PATIENCE,
            before: None,
            one_way: 0,
        }
    }
}

impl Health {
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Longer than the pauses of an interface with little traffic.
    const SILENCE: Duration = Duration::from_secs(4);

    /// What to say at `now` (time since the start).
    pub fn look(
        &mut self,
        now: Duration,
        conditions: &Conditions,
        surroundings: impl Fn() -> Surroundings,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        for (counter, count) in conditions.counters.losses() {
            let new = count - self.told.counters.get(counter).min(count);
            if new > 0 {
                lines.push(format!("{new} {}{}", counter.text(), remedy(counter)));
            }
        }
        let Counts { evicted, one_way, .. } = conditions.engine;
        let new = evicted - self.told.engine.evicted.min(evicted);
        if new > 0 {
            lines.push(format!("{new} connections forgotten for want of room"));
        }
        // At the first, the second, the fourth …: where it happens at all it happens all the time.
        if one_way >= (2 * self.one_way).max(1) {
            self.one_way = one_way;
            lines.push(format!(
                "{one_way} connections so far were seen in one direction only: the other takes another way; watch the \
                 interface where both pass too (-i any)"
            ));
        }
        let packets = conditions.counters.totals().packets;
        let quiet = now.saturating_sub(self.quiet_since);
        if conditions.followed() > self.followed {
            self.followed = conditions.followed();
            self.quiet_since = now;
            self.patience = Self::PATIENCE;
            self.before = None;
        } else if quiet >= self.patience {
            let surroundings = surroundings();
            let (packets_before, carried_before) = self.before.unwrap_or((packets, surroundings.carried));
            let is_passed_by = packets == packets_before;
            let carried = surroundings.carried.saturating_sub(carried_before);
            let silence = Silence {
                quiet,
                carried: if is_passed_by { carried } else { 0 },
                is_of_node: surroundings.is_of_node,
            };
            lines.push(silence.explain(conditions));
            self.before = Some((packets, surroundings.carried));
            self.patience *= 6;
        } else if self.before.is_none() && quiet >= Self::SILENCE {
            self.before = Some((packets, surroundings().carried));
        }
        self.told = conditions.clone();
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

/// Nothing has been seen for a while.
struct Silence {
    quiet: Duration,
    /// Packets that the interfaces carried meanwhile, if the programs saw none of them.
    carried: u64,
    is_of_node: Option<bool>,
}

impl Silence {
    /// So many packets reach an interface that nobody talks to.
    const CHANCE: u64 = 10;

    fn explain(&self, conditions: &Conditions) -> String {
        let Totals { packets, tcp, candidates } = conditions.counters.totals();
        let Counts { unfollowed, hello_elsewhere, .. } = conditions.engine;
        let [quic, encapsulated, left_out] = [Counter::Quic, Counter::Encapsulated, Counter::LeftOut]
            .map(|counter| conditions.counters.get(counter));
        let reason = if self.carried > Self::CHANCE {
            format!(
                "the interfaces carried {} packets, and none reached tlstrace: another program in front of it ends the chain \
             or takes packets past it; `tlstrace doctor` names who is there, --attach packet needs no place in the chain",
                self.carried
            )
        } else if packets == 0 {
            let place = match self.is_of_node {
                Some(true) => "or inside a pod, in a network namespace of its own (--netns PID)?",
                Some(false) => "or in another network namespace (this is not the node's: --netns 1)?",
                None => "or in another network namespace (--netns)?",
            };
            format!("no packet passes here: is the traffic on another interface (-i), {place}")
        } else if let Some(port) = hello_elsewhere {
            format!(
                "nothing on the ports of --port, but TLS to port {port}: behind a Service the port on the wire is not the one in \
             the URL (leave --port out, or --port {port})"
            )
        } else if unfollowed > 0 || left_out > 0 {
            "connections begin, but none that --port and --server choose".to_owned()
        } else if candidates == 0 && encapsulated > 0 {
            format!(
                "there are {encapsulated} packets of tunnels (VXLAN, GENEVE, GRE, IP in IP), which are not looked into: what \
                 they carry passes the tunnel's own interface (-i cilium_vxlan, flannel.1 …) and those of the pods (-i any)"
            )
        } else if candidates == 0 && quic > 0 {
            format!("there are {quic} packets of QUIC handshakes: TLS over UDP, which tlstrace does not read")
        } else if tcp == 0 {
            "there is no TCP here: is the traffic on another interface (-i)?".to_owned()
        } else if candidates == 0 {
            "TCP connections are alive, and none has begun".to_owned()
        } else {
            "no handshake is under way".to_owned()
        };
        format!("nothing seen for {} s: {reason} (since the start: {conditions})", self.quiet.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(set: &[(Counter, u64)]) -> Conditions {
        let value = |counter| set.iter().find(|(name, _)| *name == counter).map_or(0, |(_, value)| *value);
        let counters = Counters { values: Counter::ALL.into_iter().map(value).collect() };
        Conditions { counters, ..Conditions::default() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What is said after ten seconds.
    fn silence(conditions: &Conditions, surroundings: Surroundings) -> String {
        let mut health = Health::default();
        health.look(seconds(4), &Conditions::default(), Surroundings::default);
        health.look(seconds(10), conditions, || surroundings).concat()
    }

    #[test]
    fn silence_is_told_of_after_ten_seconds_and_then_rarely() {
        let nothing = conditions(&[]);
        let mut health = Health::default();
        let told: Vec<_> = (1..120)
            .filter(|now| !health.look(seconds(*now), &nothing, Surroundings::default).is_empty())
            .collect();
        assert_eq!(told, [10, 60]);
    }

    #[test]
    fn silence_has_a_likely_reason() {
        let reason = |set: &[(Counter, u64)]| silence(&conditions(set), Surroundings::default());
        assert!(reason(&[]).contains("no packet passes here"));
        assert!(reason(&[(Counter::NotTcp, 5)]).contains("no TCP"));
        assert!(reason(&[(Counter::Quic, 5), (Counter::Established, 1)]).contains("5 packets of QUIC"));
        assert!(reason(&[(Counter::Encapsulated, 7)]).contains("7 packets of tunnels"));
        assert!(reason(&[(Counter::Established, 5)]).contains("none has begun"));
    }

    #[test]
    fn packets_that_an_interface_carried_and_no_program_saw_ended_in_front_of_it() {
        let surroundings = Surroundings { carried: 100, is_of_node: Some(true) };
        assert!(silence(&conditions(&[]), surroundings).contains("carried 100 packets, and none reached"));
        assert!(!silence(&conditions(&[(Counter::NotTcp, 1)]), surroundings).contains("in front"));
    }

    #[test]
    fn a_program_that_comes_in_front_later_is_noticed_too() {
        let mut health = Health::default();
        let mut seen = conditions(&[(Counter::Selected, 50)]);
        seen.engine.segments = 50;
        let mut look = |now, carried| {
            health.look(seconds(now), &seen, || Surroundings { carried, is_of_node: None }).concat()
        };
        assert_eq!(look(2, 50), "");
        assert_eq!(look(6, 60), "");
        assert!(look(12, 90).contains("carried 30 packets, and none reached"));
    }

    #[test]
    fn where_the_namespace_can_be_told_the_way_to_the_other_is_given() {
        let said = |is_of_node| silence(&conditions(&[]), Surroundings { carried: 0, is_of_node });
        assert!(said(Some(true)).contains("--netns PID"));
        assert!(said(Some(false)).contains("--netns 1"));
        assert!(said(None).contains("--netns)"));
    }

    #[test]
    fn tls_on_a_port_that_is_not_asked_for_is_no_sign_of_life_but_a_reason() {
        let engine = Counts { segments: 9, unfollowed: 9, hello_elsewhere: Some(8443), ..Counts::default() };
        let mapped = Conditions { engine, ..conditions(&[(Counter::Selected, 9)]) };
        assert!(silence(&mapped, Surroundings::default()).contains("TLS to port 8443"));
    }

    #[test]
    fn what_is_followed_ends_a_silence() {
        let mut health = Health::default();
        let mut now = Conditions::default();
        now.engine.segments = 1;
        assert!(health.look(seconds(9), &now, Surroundings::default).is_empty());
        assert!(health.look(seconds(18), &now, Surroundings::default).is_empty());
        assert_eq!(health.look(seconds(19), &now, Surroundings::default).len(), 1);
    }

    #[test]
    fn losses_are_told_of_once_and_by_their_number() {
        let mut health = Health::default();
        let mut lost = conditions(&[(Counter::RingFull, 7)]);
        lost.engine.segments = 1;
        let mut look = |now| health.look(seconds(now), &lost, Surroundings::default).concat();
        assert!(look(1).starts_with("7 events lost"));
        assert!(look(2).is_empty());
    }

    #[test]
    fn one_way_connections_are_told_of_when_their_number_has_doubled() {
        let mut health = Health::default();
        let mut told = |segments, one_way| {
            let engine = Counts { segments, one_way, ..Counts::default() };
            let conditions = Conditions { engine, ..Conditions::default() };
            !health.look(seconds(segments), &conditions, Surroundings::default).is_empty()
        };
        assert_eq!(
            (1..=8).map(|count| told(count, count)).collect::<Vec<_>>(),
            [true, true, false, true, false, false, false, true]
        );
    }

    #[test]
    fn the_sum_says_what_was_lost_and_what_was_not_read() {
        assert!(conditions(&[]).to_string().ends_with("; nothing lost"));
        let mut all = conditions(&[(Counter::Selected, 4), (Counter::RingFull, 1), (Counter::Fragment, 2)]);
        all.engine.one_way = 3;
        assert_eq!(
            all.to_string(),
            "6 packets, 4 TCP, 4 candidates for a handshake, 0 events; 1 events lost: the ring buffer was full, \
             3 connections seen in one direction only; not read: 2 IP fragments"
        );
    }
}
