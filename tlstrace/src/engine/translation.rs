//! One connection under several addresses: what a node that translates addresses (RFC 2663 §4) has on one side of it
//! and on the other.
//!
//! Linux's NAT and kube-proxy's rewrite addresses and ports and leave sequence numbers alone, so a connection has the
//! same two initial sequence numbers wherever it is seen. The SYN makes another a candidate; that it is the same is
//! known when the answers are the same too (`Connection::is_copy_of`).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::segment::{Direction, Segment};
use super::table::Slot;
use super::timestamp::Timestamp;

/// How long a SYN takes through a node at most, neighbour resolution (RFC 4861 §10) included.
const PASSAGE: Duration = Duration::from_secs(1);
/// Most SYNs that are remembered. What passes a node comes out after far fewer others.
const MAX_SYNS: usize = 4096;
/// Most connections that wait to be known as copies of one.
pub(crate) const MAX_COPIES: usize = 4;

/// The SYNs of the last moment.
#[derive(Debug, Default)]
pub(crate) struct RecentSyns {
    seen: HashMap<Mark, Syn, RandomState>,
    order: VecDeque<(Timestamp, Mark)>,
}

/// What of a SYN no translation changes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Mark {
    sequence: u32,
    window: u16,
    options: u8,
    payload_len: u32,
}

#[derive(Clone, Copy, Debug)]
struct Syn {
    slot: Slot,
    time: Timestamp,
    interface: u32,
    direction: Direction,
    hop_limit: u8,
    ip_id: u16,
}

/// The connection that another may be a copy of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original {
    pub(crate) slot: Slot,
    /// Its SYN can be the very same packet, a few hops on: as much as can be known where nobody answers.
    pub(crate) is_same_packet: bool,
}

impl RecentSyns {
    /// The connection of a SYN that differs from this one in its addresses only, and that another hook has just seen.
    pub(crate) fn find(&self, segment: &Segment<'_>) -> Option<Original> {
        let syn = self.seen.get(&Mark::of(segment))?;
        let is_elsewhere = (syn.interface, syn.direction) != (segment.interface, segment.direction);
        (is_elsewhere && segment.timestamp.since(syn.time) < PASSAGE).then_some(Original {
            slot: syn.slot,
            is_same_packet: segment.ip_id == syn.ip_id && segment.hop_limit <= syn.hop_limit,
        })
    }

    /// Remembers the SYN of a new connection.
    pub(crate) fn add(&mut self, segment: &Segment<'_>, slot: Slot) {
        let time = segment.timestamp;
        while let Some(&(seen, mark)) = self.order.front()
            && (self.order.len() >= MAX_SYNS || time.since(seen) >= PASSAGE)
        {
            self.order.pop_front();
            if self.seen.get(&mark).is_some_and(|syn| syn.time == seen) {
                self.seen.remove(&mark);
            }
        }
        let Segment { interface, direction, hop_limit, ip_id, .. } = *segment;
        let mark = Mark::of(segment);
        self.seen.insert(mark, Syn { slot, time, interface, direction, hop_limit, ip_id });
        self.order.push_back((time, mark));
    }
}

impl Mark {
    fn of(segment: &Segment<'_>) -> Self {
        let Segment { sequence, window, options, payload_len, .. } = *segment;
        Self { sequence, window, options, payload_len }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use smallvec::smallvec;
    use tlstrace_common::event::TcpFlags;

    use super::*;
    use crate::engine::{Engine, Output, Settings};

    const START: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
    const CLIENT_ISN: u32 = 0x1234_5678;
    const SERVER_ISN: u32 = 0x8765_4321;

    /// What comes from the client in front of the node, and behind it under other addresses.
    fn before() -> Segment<'static> {
        Segment {
            timestamp: START,
            interface: 1,
            direction: Direction::Ingress,
            source: (Ipv4Addr::new(10, 0, 0, 1), 40_000).into(),
            destination: (Ipv4Addr::new(10, 0, 0, 2), 443).into(),
            sequence: CLIENT_ISN,
            acknowledgement: 0,
            flags: TcpFlags::SYN,
            window: 64_240,
            options: 0,
            hop_limit: 64,
            ip_id: 7,
            vlan: 0,
            payload_len: 0,
            chunks: smallvec![],
            notes: 0,
            is_own: false,
        }
    }

    fn behind() -> Segment<'static> {
        Segment {
            interface: 2,
            direction: Direction::Egress,
            source: (Ipv4Addr::new(10, 9, 0, 1), 50_000).into(),
            destination: (Ipv4Addr::new(10, 4, 0, 9), 8443).into(),
            hop_limit: 63,
            ..before()
        }
    }

    fn answered(to: Segment<'static>, flags: u8, sequence: u32) -> Segment<'static> {
        Segment {
            source: to.destination,
            destination: to.source,
            flags: flags | TcpFlags::ACK,
            sequence,
            acknowledgement: CLIENT_ISN + 1,
            ..to
        }
    }

    fn later(segment: Segment<'static>, time: Duration) -> Segment<'static> {
        Segment { timestamp: segment.timestamp.after(time), ..segment }
    }

    /// Plays segments until nothing is awaited; returns how many connections were found to be copies, and the verdicts.
    fn play(segments: &[Segment<'_>]) -> (u64, Vec<&'static str>) {
        let mut engine = Engine::new(Settings::default());
        for segment in segments {
            engine.advance_to(segment.timestamp);
            engine.handle_segment(segment);
        }
        while let Some(deadline) = engine.poll_timeout() {
            engine.handle_timeout(deadline);
        }
        let outputs = std::iter::from_fn(|| engine.poll_output());
        let verdicts = outputs.map(|Output::Verdict(verdict)| verdict.id).collect();
        (engine.counts().translated, verdicts)
    }

    #[test]
    fn the_answers_tell_whether_two_connections_with_the_same_syn_are_one() {
        let syn_ack = TcpFlags::SYN;
        let answers = |own, theirs| {
            play(&[before(), behind(), answered(behind(), syn_ack, own), answered(before(), syn_ack, theirs)])
                .0
        };
        assert_eq!(answers(SERVER_ISN, SERVER_ISN), 1);
        assert_eq!(answers(SERVER_ISN, SERVER_ISN + 1), 0);
    }

    #[test]
    fn a_refusal_on_both_sides_is_one_and_on_one_side_is_its_own() {
        let refused = |segment| answered(segment, TcpFlags::RST, 0);
        assert_eq!(
            play(&[before(), behind(), refused(behind()), refused(before())]),
            (1, vec!["port_closed"])
        );
        assert_eq!(play(&[before(), behind(), refused(behind())]), (0, vec!["port_closed"]));
    }

    #[test]
    fn where_nobody_answers_the_syn_must_be_the_same_packet() {
        let silent = |behind: Segment<'static>| {
            let again = [1, 3]
                .map(Duration::from_secs)
                .map(|time| [&before(), &behind].map(|syn| later(syn.clone(), time)));
            play(&[&[before(), behind.clone()], again.as_flattened()].concat())
        };
        let one = (1, vec!["syn_timeout"]);
        assert_eq!(silent(behind()), one);
        assert_eq!(
            silent(Segment { interface: 1, ..behind() }),
            one,
            "out of the interface that it came in by"
        );
        let two = (0, vec!["syn_timeout"; 2]);
        assert_eq!(silent(Segment { ip_id: 8, ..behind() }), two, "another packet");
        assert_eq!(silent(Segment { hop_limit: 65, ..behind() }), two, "on its way to the first");
        assert_eq!(silent(Segment { window: 1024, ..behind() }), two, "another stack's");
        let scan = Segment { interface: 1, direction: Direction::Ingress, ..behind() };
        assert_eq!(silent(scan), two, "a scanner that sends the same number everywhere");
        assert_eq!(silent(later(behind(), PASSAGE)), two, "too late to be the same");
    }

    #[test]
    fn the_memory_of_syns_is_bounded() {
        let mut syns = RecentSyns::default();
        let mut engine = Engine::new(Settings::default());
        engine.handle_segment(&before());
        let slot = engine.table.find(&crate::engine::table::ConnectionKey::of(&before())).unwrap();
        for sequence in 0..u32::try_from(2 * MAX_SYNS).unwrap() {
            // Half of them in the place of another.
            syns.add(&Segment { sequence: sequence / 2, ..before() }, slot);
            assert!(syns.order.len() <= MAX_SYNS && syns.seen.len() <= MAX_SYNS);
        }
        syns.add(&later(before(), PASSAGE), slot);
        assert_eq!((syns.order.len(), syns.seen.len()), (1, 1));
    }
}
