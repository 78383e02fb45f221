//! One direction of a TCP connection, put back in order.
//!
//! A [`Stream`] takes segments as they were captured and hands the payload on in sequence order, each
//! byte at most once. The first copy of a byte wins, as it does in Linux. What was on the wire but not
//! captured (an encrypted record's body, a short snapshot length) is handed on as [`Piece::Missing`],
//! so that whoever reads records can step over it and stay in sync. A hole, bytes that were never seen,
//! holds everything back until it is filled or [`Stream::give_up_hole`] says that it will not be.
//!
//! Offsets are 64 bits wide and count from the first payload byte, so sequence numbers may wrap.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use smallvec::SmallVec;

use super::segment::Segment;
use super::timestamp::Timestamp;

/// Repetitions closer together than this are copies of one packet, which a mirror port or a capture on all
/// interfaces makes: timers that send again start at 200 ms in Linux (`TCP_RTO_MIN`).
pub(crate) const RESENT_APART: Duration = Duration::from_millis(10);
/// Most bytes that one direction holds back behind a hole.
const MAX_PENDING_BYTES: usize = 128 * 1024;
/// Most pieces that one direction holds back behind a hole.
const MAX_PENDING_PIECES: usize = 256;
/// Most ranges below the end that are remembered as not seen yet.
const MAX_UNSEEN: usize = 32;
/// How far from the expected position a segment may lie and still belong to this stream: the largest
/// scaled window (RFC 7323 §2.3).
const MAX_DISTANCE: u64 = 1 << 30;

/// What comes next in a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// So many bytes were on the wire and were not captured.
    Missing(u64),
}

/// Reads a stream in order.
pub(crate) trait Reader {
    fn read(&mut self, piece: Piece<'_>);

    /// How many of the next bytes the reader will throw away, whatever they are.
    fn indifferent_to(&self) -> u64;

    /// Whether the reader will throw away all that comes, so that nothing of it can be lost.
    fn has_ended(&self) -> bool;
}

/// Position and shape of one direction of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// Sequence number of offset 0, once it is known.
    base: Option<u32>,
    /// Everything below was handed on.
    next: u64,
    /// Captured and missing ranges above a hole, by offset, without overlap.
    pending: BTreeMap<u64, Held>,
    pending_bytes: usize,
    /// One past the highest payload byte that was seen on the wire.
    end: u64,
    /// Ranges below the end that were not on the wire yet, whether anybody wants to read them or not. What
    /// fills them was reordered, not sent again.
    unseen: SmallVec<[Range<u64>; 1]>,
    /// Offset that a FIN occupies.
    fin: Option<u64>,
    /// One past the highest byte that the peer acknowledged (a FIN counts as a byte).
    acked: u64,
    retransmissions: u32,
    /// When there was new payload last.
    last_news: Timestamp,
    /// Payload bytes given up as never captured.
    lost: u64,
    gaps: u32,
    /// The peer acknowledged something while a hole was open, and not what is in it.
    hole_refused: bool,
    /// A hole was given up that the peer does not have either.
    lost_on_path: bool,
}

#[derive(Clone, Debug)]
enum Held {
    Bytes(Box<[u8]>),
    Missing(u64),
}

impl Held {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Missing(len) => *len,
        }
    }
}

impl Stream {
    /// Fixes offset 0 at the byte after a SYN with sequence number `isn`.
    pub(crate) fn begin(&mut self, isn: u32) {
        self.base.get_or_insert(isn.wrapping_add(1));
    }

    /// Sequence number of the SYN, if it is known.
    pub(crate) fn isn(&self) -> Option<u32> {
        self.base.map(|base| base.wrapping_sub(1))
    }

    /// Offset of `sequence`, negative where it lies before the first byte (a keep-alive, an old SYN).
    pub(crate) fn offset_of(&self, sequence: u32) -> Option<i64> {
        let base = self.base?;
        // The position that a 32-bit number is nearest to.
        let reference = self.next.max(self.end);
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers are modulo 2^32")]
        let distance = sequence.wrapping_sub(base).wrapping_sub(reference as u32).cast_signed();
        Some(reference.cast_signed() + i64::from(distance))
    }

    /// Takes a segment's payload and hands on what is in order.
    ///
    /// Returns whether the segment brought bytes that had not been seen before.
    pub(crate) fn take(&mut self, segment: &Segment<'_>, reader: &mut impl Reader) -> bool {
        let sequence = segment.sequence.wrapping_add(u32::from(segment.is_syn()));
        self.base.get_or_insert(sequence);
        let Some(offset) = self.offset_of(sequence) else { return false };
        let len = u64::from(segment.payload_len);
        let Ok(start) = u64::try_from(offset) else {
            // Begins before the first byte: a keep-alive, or data before a mid-stream pick-up.
            return false;
        };
        if start.abs_diff(self.next) > MAX_DISTANCE {
            return false;
        }
        let news = self.see(start..start.saturating_add(len));
        if news {
            self.last_news = self.last_news.max(segment.timestamp);
        } else if len > 0
            && !self.is_probe(start, len)
            && segment.timestamp.since(self.last_news) >= RESENT_APART
        {
            self.retransmissions = self.retransmissions.saturating_add(1);
        }
        if segment.is_fin() {
            self.fin.get_or_insert(start.saturating_add(len));
        }
        let mut covered = 0;
        for chunk in &segment.chunks {
            let at = u64::from(chunk.offset);
            if at < covered || at > len {
                continue;
            }
            self.place(start + covered, Piece::Missing(at - covered), reader);
            let bytes =
                chunk.bytes.get(..usize::try_from(len - at).unwrap_or(usize::MAX)).unwrap_or(chunk.bytes);
            self.place(start + at, Piece::Bytes(bytes), reader);
            covered = at + bytes.len() as u64;
        }
        self.place(start + covered, Piece::Missing(len - covered), reader);
        self.release(reader);
        news
    }

    /// Whether `len` bytes at offset `start` are a keep-alive: one byte, just before the next one (RFC 9293 §3.8.4).
    /// The BPF program reports none, and cannot tell them from the last byte sent again.
    pub(crate) fn is_probe(&self, start: u64, len: u64) -> bool {
        len == 1 && start + 1 == self.end
    }

    /// Notes an acknowledgement by the peer.
    pub(crate) fn acknowledge(&mut self, acknowledgement: u32) {
        if let Some(offset) = self.offset_of(acknowledgement)
            && let Ok(offset) = u64::try_from(offset)
            && offset <= self.end.max(self.next).saturating_add(MAX_DISTANCE)
        {
            self.acked = self.acked.max(offset);
            self.hole_refused = self.has_hole() && !self.hole_was_received();
        }
    }

    /// Whether something is held back by a hole.
    pub(crate) fn has_hole(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the peer acknowledged bytes that were never seen here: the capture lost them.
    pub(crate) fn hole_was_received(&self) -> bool {
        self.pending.keys().next().is_some_and(|&start| self.acked >= start)
    }

    /// Stops waiting for the bytes in front of what is held back.
    pub(crate) fn give_up_hole(&mut self, reader: &mut impl Reader) {
        if let Some(&start) = self.pending.keys().next() {
            let missing = start.saturating_sub(self.next);
            if missing > 0 {
                if self.hole_refused {
                    self.lost_on_path = true;
                } else if !reader.has_ended() {
                    self.lost = self.lost.saturating_add(missing);
                    self.gaps = self.gaps.saturating_add(1);
                }
                self.next = start;
                reader.read(Piece::Missing(missing));
            }
            self.release(reader);
        }
    }

    /// Bytes of memory behind a hole.
    pub(crate) fn held(&self) -> usize {
        self.pending_bytes + self.pending.len() * size_of::<(u64, Held)>()
    }

    /// Whether bytes are missing that the peer does not have either.
    pub(crate) fn lost_on_path(&self) -> bool {
        self.lost_on_path
    }

    /// One past the highest payload byte seen.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Everything below was read or passed over.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// One past the highest byte that the peer acknowledged.
    pub(crate) fn acked(&self) -> u64 {
        self.acked
    }

    /// Offset of the FIN, if one was seen.
    pub(crate) fn fin(&self) -> Option<u64> {
        self.fin
    }

    /// Segments that repeated bytes already seen.
    pub(crate) fn retransmissions(&self) -> u32 {
        self.retransmissions
    }

    /// Holes given up, and the bytes in them.
    pub(crate) fn gaps(&self) -> (u32, u64) {
        (self.gaps, self.lost)
    }

    /// Notes that a range was on the wire. Returns whether any of it had not been before.
    fn see(&mut self, range: Range<u64>) -> bool {
        let mut news = range.end > self.end;
        if !self.unseen.is_empty() {
            for gap in std::mem::take(&mut self.unseen) {
                let before = gap.start..gap.end.min(range.start);
                let after = gap.start.max(range.end)..gap.end;
                news |= gap.start < range.end && range.start < gap.end;
                self.unseen.extend([before, after].into_iter().filter(|rest| !rest.is_empty()));
            }
        }
        if range.start > self.end {
            self.unseen.push(self.end..range.start);
        }
        if self.unseen.len() > MAX_UNSEEN {
            self.unseen.drain(..self.unseen.len() - MAX_UNSEEN);
        }
        self.end = self.end.max(range.end);
        news
    }

    /// Puts a piece at `start`: reads it now if it is next, keeps it if there is a hole in front.
    fn place(&mut self, start: u64, piece: Piece<'_>, reader: &mut impl Reader) {
        let piece = match piece {
            Piece::Missing(0) | Piece::Bytes([]) => return,
            piece => piece,
        };
        if start <= self.next {
            self.read_from(start, piece, reader);
        } else {
            self.hold(start, piece);
            while self.pending_bytes > MAX_PENDING_BYTES || self.pending.len() > MAX_PENDING_PIECES {
                self.give_up_hole(reader);
            }
        }
    }

    /// Reads the part of a piece that lies at or beyond the position.
    fn read_from(&mut self, start: u64, piece: Piece<'_>, reader: &mut impl Reader) {
        let seen = self.next - start;
        let piece = match piece {
            Piece::Bytes(bytes) => match usize::try_from(seen).ok().and_then(|seen| bytes.get(seen..)) {
                None | Some([]) => return,
                Some(rest) => {
                    self.next += rest.len() as u64;
                    Piece::Bytes(rest)
                }
            },
            Piece::Missing(len) => {
                if len <= seen {
                    return;
                }
                self.next += len - seen;
                Piece::Missing(len - seen)
            }
        };
        reader.read(piece);
        self.pass_over(reader);
    }

    /// Steps over what the reader does not want, whether it has arrived or not.
    fn pass_over(&mut self, reader: &mut impl Reader) {
        let indifferent = reader.indifferent_to();
        if indifferent > 0 {
            self.next += indifferent;
            reader.read(Piece::Missing(indifferent));
        }
    }

    /// Reads what is held and no longer behind a hole.
    fn release(&mut self, reader: &mut impl Reader) {
        while let Some(entry) = self.pending.first_entry() {
            if *entry.key() > self.next {
                break;
            }
            let (start, held) = entry.remove_entry();
            match held {
                Held::Bytes(bytes) => {
                    self.pending_bytes -= bytes.len();
                    self.read_from(start, Piece::Bytes(&bytes), reader);
                }
                Held::Missing(len) => self.read_from(start, Piece::Missing(len), reader),
            }
        }
    }

    /// Keeps the parts of a piece that no earlier copy covers.
    fn hold(&mut self, start: u64, piece: Piece<'_>) {
        let len = match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Missing(len) => len,
        };
        let end = start.saturating_add(len);
        let mut at = self
            .pending
            .range(..=start)
            .next_back()
            .map_or(start, |(&before, held)| start.max(before.saturating_add(held.len())));
        while at < end {
            let next = self.pending.range(at..).next().map(|(&start, held)| (start, held.len()));
            let stop = next.map_or(end, |(start, _)| start.min(end));
            if at < stop {
                let held = match piece {
                    Piece::Missing(_) => Held::Missing(stop - at),
                    Piece::Bytes(bytes) => {
                        let from = usize::try_from(at - start).unwrap_or(usize::MAX);
                        let to = usize::try_from(stop - start).unwrap_or(usize::MAX);
                        let Some(part) = bytes.get(from..to) else { return };
                        self.pending_bytes += part.len();
                        Held::Bytes(part.into())
                    }
                };
                self.pending.insert(at, held);
            }
            at = next.map_or(end, |(start, len)| stop.max(start.saturating_add(len)));
        }
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::engine::segment::{Chunk, Direction};
    use crate::engine::timestamp::Timestamp;

    #[derive(Default)]
    struct Collected(Vec<u8>);

    impl Reader for Collected {
        fn read(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Bytes(bytes) => self.0.extend_from_slice(bytes),
                Piece::Missing(len) => {
                    self.0.extend(std::iter::repeat_n(b'?', usize::try_from(len).unwrap()));
                }
            }
        }

        fn indifferent_to(&self) -> u64 {
            0
        }

        fn has_ended(&self) -> bool {
            false
        }
    }

    const LATER: Timestamp = Timestamp::from_nanos(200_000_000);

    fn segment(sequence: u32, bytes: &[u8]) -> Segment<'_> {
        Segment {
            timestamp: Timestamp::default(),
            interface: 1,
            direction: Direction::Unknown,
            source: ([10, 0, 0, 1], 1000).into(),
            destination: ([10, 0, 0, 2], 443).into(),
            sequence,
            acknowledgement: 0,
            flags: 0,
            window: 0,
            options: 0,
            hop_limit: 64,
            ip_id: 0,
            vlan: 0,
            payload_len: u32::try_from(bytes.len()).unwrap(),
            chunks: smallvec![Chunk { offset: 0, bytes }],
            notes: 0,
            is_own: false,
        }
    }

    fn read(isn: u32, segments: &[(u32, &[u8])]) -> Vec<u8> {
        let mut stream = Stream::default();
        let mut collected = Collected::default();
        stream.begin(isn);
        for (offset, bytes) in segments {
            stream.take(&segment(isn.wrapping_add(1).wrapping_add(*offset), bytes), &mut collected);
        }
        collected.0
    }

    #[test]
    fn segments_in_any_order_give_the_same_bytes() {
        let want = b"abcdefgh";
        assert_eq!(read(7, &[(0, b"abc"), (3, b"def"), (6, b"gh")]), want);
        assert_eq!(read(7, &[(6, b"gh"), (3, b"def"), (0, b"abc")]), want);
        assert_eq!(read(7, &[(3, b"def"), (0, b"abc"), (6, b"gh"), (0, b"abcdefgh")]), want);
    }

    #[test]
    fn the_first_copy_of_a_byte_wins() {
        assert_eq!(read(7, &[(2, b"CD"), (1, b"xyzw"), (0, b"a")]), b"axCDw");
        assert_eq!(read(7, &[(0, b"ab"), (0, b"XYc")]), b"abc");
    }

    #[test]
    fn sequence_numbers_wrap_inside_a_stream() {
        assert_eq!(read(0xffff_fffd, &[(0, b"ab"), (4, b"ef"), (2, b"cd")]), b"abcdef");
    }

    #[test]
    fn bytes_that_were_not_captured_are_missing_and_do_not_hold_back_the_rest() {
        let mut stream = Stream::default();
        let mut collected = Collected::default();
        let mut partial = segment(1, b"ab");
        partial.payload_len = 6;
        partial.chunks.push(Chunk { offset: 4, bytes: b"ef" });
        stream.take(&partial, &mut collected);
        stream.take(&segment(7, b"gh"), &mut collected);
        assert_eq!(collected.0, b"ab??efgh");
    }

    #[test]
    fn a_hole_is_counted_when_it_is_given_up() {
        let mut stream = Stream::default();
        let mut collected = Collected::default();
        stream.begin(0);
        stream.take(&segment(1, b"ab"), &mut collected);
        stream.take(&segment(5, b"ef"), &mut collected);
        assert!(stream.has_hole() && !stream.hole_was_received());
        stream.acknowledge(7);
        assert!(stream.hole_was_received());
        stream.give_up_hole(&mut collected);
        assert_eq!(collected.0, b"ab??ef");
        assert_eq!(stream.gaps(), (1, 2));
    }

    #[test]
    fn what_comes_late_is_news_and_no_retransmission() {
        let mut stream = Stream::default();
        let mut collected = Collected::default();
        stream.begin(0);
        let mut news_at = |offset: u32, bytes| stream.take(&segment(1 + offset, bytes), &mut collected);
        assert!(news_at(4, b"ef") && news_at(0, b"ab") && news_at(2, b"cd"));
        assert!(!news_at(2, b"cd") && !news_at(4, b"e"));
        assert_eq!(stream.retransmissions(), 0, "copies, as a mirror port makes them");
        let mut late = |offset: u32, bytes| {
            let segment = Segment { timestamp: LATER, ..segment(1 + offset, bytes) };
            stream.take(&segment, &mut collected)
        };
        assert!(!late(2, b"cd") && !late(4, b"e"));
        assert_eq!(stream.retransmissions(), 2);
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut stream = Stream::default();
        let mut collected = Collected::default();
        stream.begin(0);
        for i in 0..10_000u32 {
            stream.take(&segment(3 + 2 * i, b"x"), &mut collected);
        }
        assert!(stream.pending.len() <= MAX_PENDING_PIECES);
        assert!(stream.unseen.len() <= MAX_UNSEEN);
    }

    #[test]
    fn a_keep_alive_is_no_data() {
        assert_eq!(read(9, &[(u32::MAX, b"k"), (0, b"ab"), (1, b"b")]), b"ab");
        let mut stream = Stream::default();
        stream.take(&segment(1, b"ab"), &mut Collected::default());
        for (sequence, bytes, retransmissions) in [(2, &b"b"[..], 0), (1, b"a", 1), (1, b"ab", 2)] {
            let segment = Segment { timestamp: LATER, ..segment(sequence, bytes) };
            stream.take(&segment, &mut Collected::default());
            assert_eq!(stream.retransmissions(), retransmissions);
        }
    }
}
