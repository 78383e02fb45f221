//! What was said lately, by the name of the connection.
//!
//! A connection's id is made of its addresses and its first sequence number. When the connection has been forgotten, for
//! want of room or because its time was over, and its first segment comes once more, that begins a connection of the
//! same name. Whoever reads verdicts takes the name and the revision for unique, so a second verdict is a revision of the
//! first, or it is not given.

use std::time::Duration;

use crate::verdict::{Confidence, Judgement, Specificity};

use super::facts::{HandshakeFacts, How};
use super::recent::Recent;
use super::timestamp::Timestamp;

/// Most connections that are remembered.
pub(super) const MAX_SAID: u16 = 16_384;
/// After twice the lifetime of a segment (RFC 9293 §3.4.2) nothing of a connection can come again, and its sequence number
/// may be used anew.
pub(super) const MEMORY: Duration = Duration::from_mins(4);

/// The last verdict on each connection.
#[derive(Debug, Default)]
pub(super) struct Said(Recent<Last, MAX_SAID>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Last {
    pub(super) verdict: &'static str,
    pub(super) revision: u32,
    rank: (Specificity, Confidence),
    time: Timestamp,
    /// It ended in a RST: a client may then try again with the same sequence number, as Windows does.
    was_reset: bool,
}

impl Last {
    /// Whether what was seen when the connection appeared again says more, or is the outcome of another attempt.
    pub(super) fn is_bettered_by(&self, judgement: &Judgement) -> bool {
        judgement.finding.rank() > self.rank || self.was_reset && judgement.rule.id() != self.verdict
    }
}

impl Said {
    /// What was said last about a connection of this name, if that can be this one.
    pub(super) fn last(&self, facts: &HandshakeFacts) -> Option<&Last> {
        self.0.get(facts.connection).filter(|last| facts.first_seen.since(last.time) < MEMORY)
    }

    pub(super) fn note(
        &mut self,
        judgement: &Judgement,
        facts: &HandshakeFacts,
        revision: u32,
        time: Timestamp,
    ) {
        let last = Last {
            verdict: judgement.rule.id(),
            revision,
            rank: judgement.finding.rank(),
            time,
            was_reset: facts.endings.iter().any(|ending| matches!(ending.how, How::Reset(_))),
        };
        self.0.insert(facts.connection, last);
    }
}

#[cfg(test)]
mod tests {
    use smallvec::SmallVec;
    use tlstrace_common::event::TcpFlags;

    use super::*;
    use crate::engine::segment::{Direction, Segment};
    use crate::engine::{Engine, Output, Settings};

    fn segment(seconds: u64, port: u16, from_client: bool, flags: u8) -> Segment<'static> {
        let client = ([192, 0, 2, 1], port).into();
        let server = ([192, 0, 2, 2], 443).into();
        let (source, destination) = if from_client { (client, server) } else { (server, client) };
        Segment {
            timestamp: Timestamp::from_nanos((1_000 + seconds) * 1_000_000_000),
            interface: 1,
            direction: Direction::Unknown,
            source,
            destination,
            sequence: 7,
            acknowledgement: 8,
            flags,
            window: 0,
            options: 0,
            hop_limit: 64,
            ip_id: 1,
            vlan: 0,
            payload_len: 0,
            chunks: SmallVec::new(),
            notes: 0,
            is_own: false,
        }
    }

    /// A connection to a closed port, with nothing of it left in the table. Returns how many verdicts there were.
    fn refuse(engine: &mut Engine, seconds: u64, port: u16) -> usize {
        engine.handle_segment(&segment(seconds, port, true, TcpFlags::SYN));
        engine.handle_segment(&segment(seconds, port, false, TcpFlags::RST | TcpFlags::ACK));
        engine.finish();
        std::iter::from_fn(|| engine.poll_output())
            .filter(|Output::Verdict(verdict)| verdict.id == "port_closed" && verdict.revision == 0)
            .count()
    }

    #[test]
    fn a_connection_that_was_forgotten_has_no_second_verdict_while_its_segments_may_come_again() {
        let mut engine = Engine::new(Settings::default());
        assert_eq!([0, 1, 239, 480].map(|seconds| refuse(&mut engine, seconds, 1)), [1, 0, 0, 1]);
    }

    #[test]
    fn the_memory_of_what_was_said_is_bounded() {
        let mut engine = Engine::new(Settings::default());
        for port in 0..=MAX_SAID {
            assert_eq!(refuse(&mut engine, 0, port), 1);
        }
        assert_eq!(engine.said.0.len(), usize::from(MAX_SAID));
    }
}
