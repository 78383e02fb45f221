//! Which bytes of a stream are copied: TLS records are followed one by one, and what may leave the
//! kernel of each is decided from its header and its first bytes.
//!
//! The state is per direction and carried on from segment to segment, so that a record may be split
//! anywhere, even inside its header. Where the position in the sequence of records is not known, nothing
//! is copied: a guess could copy application data.

use crate::event::Notes;
use crate::limits;

/// The payload of one segment, and room for copies of its bytes.
pub trait Payload {
    /// The `N` bytes at offset `at` of the payload, or `None` where it ends before. `N` is at most 8.
    fn peek<const N: usize>(&mut self, at: u32) -> Option<[u8; N]>;

    /// Copies `len` bytes from offset `at` of the payload, or as many as there is room for.
    ///
    /// Returns how many those are.
    fn copy(&mut self, at: u32, len: u32) -> u32;
}

/// One direction of a flow: where its records begin, and what of them is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stream {
    /// The bytes of the current record's header so far, the latest one lowest.
    head: u64,
    /// Sequence number of the first byte that was not passed yet; meaningful with [`Stream::is_placed`].
    next_sequence: u32,
    /// Bytes of the current record's body that are still to come.
    record_left: u32,
    /// Of these, how many are to be copied.
    copy_left: u32,
    /// Bytes copied so far.
    copied: u32,
    /// Sequence number of a missing part of a record that is to be copied should it come.
    hole_sequence: u32,
    /// Length of that part, 0 if there is none.
    hole_len: u32,
    /// Which hook owns this direction, 0 if none does.
    pub owner: u32,
    mode: Mode,
    /// How many bytes of the current record's header `head` holds.
    head_len: u8,
    /// Headers of encrypted records that were reported.
    encrypted: u8,
    flags: u8,
    /// Acknowledgements without payload that were reported.
    pub acknowledgements: u8,
    padding: [u8; 7],
}

const _: () = assert!(size_of::<Stream>() == 48);

/// What is known of a stream.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mode(u8);

impl Mode {
    /// No payload has been seen.
    pub const UNSEEN: Self = Self(0);
    /// Records are followed.
    pub const TLS: Self = Self(1);
    /// The stream began with something else; TLS may follow, as after STARTTLS.
    pub const NOT_TLS: Self = Self(2);
    /// Enough was seen.
    pub const DONE: Self = Self(3);
}

/// Where a segment stands in its stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// New bytes begin at this offset of the payload.
    New(u32),
    /// All bytes were passed before.
    Old,
    /// A keep-alive or window probe: at most one byte, just before the next one.
    Probe,
    /// Bytes before it are missing, and with them the boundaries of records.
    BehindHole,
}

/// What [`Stream::step`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// How many bytes of the payload were passed.
    pub passed: u32,
    /// [`Notes`] bits to add to the event.
    pub notes: u8,
}

/// Content type 20 (RFC 8446 §5.1): the lowest one.
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Content type 24 (RFC 6520), the highest one.
const HEARTBEAT: u8 = 24;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const NEW_SESSION_TICKET: u8 = 4;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_VERIFY: u8 = 15;
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// Header of a Certificate message with an empty list (RFC 5246 §7.4.6).
const EMPTY_CERTIFICATE: [u8; 4] = [11, 0, 0, 3];

const RECORD_HEADER_LEN: u8 = 5;
const HANDSHAKE_HEADER_LEN: u32 = 4;
/// Curve type, named curve, length of the public key (RFC 8422 §5.4).
const SERVER_KEY_EXCHANGE_WANTED: u32 = HANDSHAKE_HEADER_LEN + 4;
/// 2¹⁴ and what TLS ≤ 1.2 allows a cipher to add (RFC 5246 §6.2.3).
const MAX_RECORD_LEN: u32 = (1 << 14) + 2048;

const PROXY_V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const PROXY_V2_HEADER_LEN: u32 = 16;
/// Addresses and ports of two IPv6 endpoints.
const PROXY_V2_ADDRESSES_LEN: u32 = 36;
/// Longest PROXY protocol header of version 1, with its line break.
pub const PROXY_LINE_MAX_LEN: u32 = 107;

/// How far ahead a segment may be to count as one behind a hole.
const MAX_AHEAD: u32 = 1 << 30;

/// Whether a record that begins with `head` is a ClientHello's: how TLS begins inside a stream that was
/// something else.
#[inline(always)]
pub const fn is_client_hello(head: [u8; 6]) -> bool {
    matches!(head, [HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO])
}

impl Stream {
    /// `next_sequence` is known.
    const PLACED: u8 = 0x01;
    /// The current record's body begins next: what to copy of it is still to be decided.
    const UNDECIDED: u8 = 0x02;
    /// ChangeCipherSpec was passed.
    const CIPHER_CHANGED: u8 = 0x04;
    /// An encrypted handshake record was passed, of the type that only TLS ≤ 1.2 has.
    const ENCRYPTED_HANDSHAKE: u8 = 0x08;
    /// The client was asked for a certificate and has none: nginx completes the handshake, and refuses the request.
    const WITHOUT_CERTIFICATE: u8 = 0x10;

    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of encrypted records whose headers were reported.
    pub const fn encrypted(&self) -> u8 {
        self.encrypted
    }

    /// Whether the client was asked for a certificate and has none, as far as this direction knows.
    pub const fn is_without_certificate(&self) -> bool {
        self.flags & Self::WITHOUT_CERTIFICATE != 0
    }

    /// Lets this direction know that [the client has no certificate](Self::is_without_certificate): application data of
    /// TLS ≤ 1.2 is no sign then that all is well.
    #[inline(always)]
    pub const fn expect_refusal(&mut self) {
        self.flags |= Self::WITHOUT_CERTIFICATE;
    }

    /// Sequence number of the next byte, if it is known.
    pub const fn next_sequence(&self) -> Option<u32> {
        if self.flags & Self::PLACED != 0 { Some(self.next_sequence) } else { None }
    }

    /// Tells the stream where it continues, as the peer's acknowledgement has it.
    #[inline(always)]
    pub const fn place_at(&mut self, sequence: u32) {
        self.next_sequence = sequence;
        self.flags |= Self::PLACED;
    }

    /// From `sequence` on, this stream is TLS after all: the peer's ClientHello says so.
    #[inline(always)]
    pub const fn expect_tls(&mut self, sequence: u32) {
        if self.mode.0 == Mode::NOT_TLS.0 {
            self.mode = Mode::TLS;
            self.next_sequence = sequence;
            self.flags = Self::PLACED;
            self.head_len = 0;
            self.record_left = 0;
            self.hole_len = 0;
        }
    }

    /// Finds the place of a segment with payload. Bytes that are passed for good are
    /// [`Stream::advance`]d over.
    #[inline(always)]
    pub fn place(&mut self, sequence: u32, len: u32) -> Place {
        if self.flags & Self::PLACED == 0 {
            self.place_at(sequence);
        }
        let ahead = sequence.wrapping_sub(self.next_sequence);
        if ahead == 0 {
            return Place::New(0);
        }
        if ahead < MAX_AHEAD {
            return self.place_ahead(ahead);
        }
        let behind = ahead.wrapping_neg();
        if behind >= len {
            return if behind == 1 { Place::Probe } else { Place::Old };
        }
        Place::New(behind)
    }

    /// Looks at the bytes at which TLS may begin, and decides whether it does. `len` bytes of payload begin
    /// with `head`, which is filled up with zeroes if they are fewer.
    #[inline(always)]
    pub const fn begin(&mut self, head: [u8; HEAD_LEN], len: u32) {
        let [kind, major, third, fourth, fifth, sixth, ..] = head;
        let length = u16::from_be_bytes([fourth, fifth]) as u32;
        if self.mode.0 == Mode::NOT_TLS.0 {
            if is_client_hello([kind, major, third, fourth, fifth, sixth]) {
                self.mode = Mode::TLS;
            }
        } else if is_content_type(kind)
            // With fewer bytes, the record header is checked as it comes.
            && (len < RECORD_HEADER_LEN as u32 || major == 3 && length != 0 && length <= MAX_RECORD_LEN)
        {
            self.mode = Mode::TLS;
        } else if kind & 0x80 != 0 && third == CLIENT_HELLO && fourth <= 3 {
            // A ClientHello in the format of SSL 2 (RFC 5246 appendix E.2).
            self.record_left = u16::from_be_bytes([kind & 0x7f, major]) as u32 + 2;
            self.copy_left = self.record_left;
            self.mode = Mode::TLS;
        } else {
            self.mode = Mode::NOT_TLS;
        }
    }

    /// Passes a part of the payload, some of the `left` bytes from offset `at` on: what is here of a record.
    ///
    /// Passes at least one byte, unless it copied nothing for want of room; then the next call will.
    /// Nothing is to be passed any more when [`Stream::mode`] is not [`Mode::TLS`].
    #[inline(always)]
    pub fn step(&mut self, payload: &mut impl Payload, at: u32, left: u32) -> Step {
        let mut passed = 0;
        let mut notes = 0;
        if self.record_left == 0 {
            let Some(header_len) = self.header(payload, at) else {
                self.mode = Mode::DONE;
                return Step { passed: left, notes: Notes::UNFRAMED | Notes::LAST };
            };
            if self.head_len == 0 {
                notes = self.begin_record();
            }
            notes |= self.copy(payload, at, header_len).1;
            passed = header_len;
            if self.record_left == 0 || self.mode != Mode::TLS || passed >= left {
                return Step { passed, notes };
            }
        }
        let at = at + passed;
        if self.flags & Self::UNDECIDED != 0 {
            self.flags &= !Self::UNDECIDED;
            notes |= self.decide(payload, at);
        }
        let part = (left - passed).min(self.record_left);
        if self.copy_left == 0 {
            self.record_left -= part;
            return Step { passed: passed + part, notes };
        }
        let wanted = part.min(self.copy_left).min(limits::MAX_COPIED.saturating_sub(self.copied));
        let (copied, note) = self.copy(payload, at, wanted);
        self.copy_left = if copied == 0 { 0 } else { self.copy_left.saturating_sub(copied) };
        self.record_left = self.record_left.saturating_sub(copied);
        Step { passed: passed + copied, notes: notes | note }
    }

    /// Notes that `passed` bytes of the payload from the stream's next byte on were passed.
    #[inline(always)]
    pub const fn advance(&mut self, passed: u32) {
        self.next_sequence = self.next_sequence.wrapping_add(passed);
    }

    /// The part of an old segment that is wanted after all, because it fills a hole in a record that is
    /// copied: offset in the payload and length.
    #[inline(always)]
    pub fn fill(&mut self, sequence: u32, len: u32) -> Option<(u32, u32)> {
        if self.hole_len == 0 {
            return None;
        }
        let before = self.hole_sequence.wrapping_sub(sequence);
        let (offset, skipped) = if before < MAX_AHEAD { (before, 0) } else { (0, before.wrapping_neg()) };
        if offset >= len || skipped >= self.hole_len {
            return None;
        }
        let filled = (len - offset).min(self.hole_len - skipped);
        // What lies before the filled part is forgotten: a sender repeats a hole from its start.
        self.hole_sequence = self.hole_sequence.wrapping_add(skipped + filled);
        self.hole_len -= skipped + filled;
        self.copied = self.copied.saturating_add(filled);
        Some((offset, filled))
    }

    /// Copies the first bytes of a stream that is not TLS, as long as the program may.
    #[inline(always)]
    pub fn copy_not_tls(&mut self, payload: &mut impl Payload, at: u32, left: u32) {
        if self.copied < limits::MAX_NOT_TLS {
            self.copied += payload.copy(at, left.min(limits::MAX_NOT_TLS - self.copied));
        }
    }

    #[inline(always)]
    fn place_ahead(&mut self, ahead: u32) -> Place {
        if self.mode != Mode::TLS || self.record_left < ahead {
            return Place::BehindHole;
        }
        // The hole lies inside the record, whose end is known.
        if self.flags & Self::UNDECIDED != 0 {
            self.flags &= !Self::UNDECIDED;
            self.copy_left = 0;
        }
        self.hole_sequence = self.next_sequence;
        self.hole_len = self.copy_left.min(ahead);
        self.copy_left -= self.hole_len;
        self.record_left -= ahead;
        self.advance(ahead);
        Place::New(0)
    }

    /// Copies `len` bytes of the payload if there is room, and returns how many it did, and what is to be noted of that.
    #[inline(always)]
    fn copy(&mut self, payload: &mut impl Payload, at: u32, len: u32) -> (u32, u8) {
        let copied = payload.copy(at, len);
        self.copied = self.copied.saturating_add(copied);
        (copied, if copied < len || len == 0 { Notes::TRUNCATED } else { 0 })
    }

    /// Takes all of a record header at offset `at`, or its next byte, and returns how many bytes that is.
    /// `None` if it is no record header.
    #[inline(always)]
    fn header(&mut self, payload: &mut impl Payload, at: u32) -> Option<u32> {
        if self.head_len == 0
            && let Some([kind, major, minor, l1, l0]) = payload.peek::<5>(at)
        {
            self.head = u64::from(u32::from_be_bytes([kind, major, minor, l1])) << 8 | u64::from(l0);
            let fits = is_content_type(kind) && major == 3 && self.length() <= MAX_RECORD_LEN;
            return if fits { Some(u32::from(RECORD_HEADER_LEN)) } else { None };
        }
        let [byte] = payload.peek::<1>(at)?;
        let fits = match self.head_len {
            0 => is_content_type(byte),
            1 => byte == 3,
            3 => u32::from(byte) <= MAX_RECORD_LEN >> 8,
            _ => true,
        };
        self.head = self.head << 8 | u64::from(byte);
        self.head_len = if self.head_len + 1 < RECORD_HEADER_LEN { self.head_len + 1 } else { 0 };
        if fits { Some(1) } else { None }
    }

    /// Begins the record whose header is complete.
    #[inline(always)]
    const fn begin_record(&mut self) -> u8 {
        self.record_left = self.length();
        self.copy_left = 0;
        match self.content_type() {
            HANDSHAKE | CHANGE_CIPHER_SPEC => {
                self.flags |= Self::UNDECIDED;
                0
            }
            ALERT if self.record_left == 2 => {
                self.copy_left = 2;
                0
            }
            // TLS 1.3 has no encrypted record of type 22: this is application data of TLS ≤ 1.2.
            kind if kind != ALERT
                && self.flags & (Self::ENCRYPTED_HANDSHAKE | Self::WITHOUT_CERTIFICATE)
                    == Self::ENCRYPTED_HANDSHAKE =>
            {
                self.encrypted_record();
                self.mode = Mode::DONE;
                Notes::LAST
            }
            _ => self.encrypted_record(),
        }
    }

    /// Decides what to copy of the record whose body begins at offset `at`.
    #[inline(always)]
    fn decide(&mut self, payload: &mut impl Payload, at: u32) -> u8 {
        let len = self.record_left;
        if self.content_type() == CHANGE_CIPHER_SPEC {
            self.flags |= Self::CIPHER_CHANGED;
            self.copy_left = 1;
            return 0;
        }
        let start = payload.peek::<4>(at);
        if self.flags & Self::CIPHER_CHANGED == 0 {
            if let Some(EMPTY_CERTIFICATE) = start {
                self.expect_refusal();
            }
            self.copy_left = match start {
                Some([NEW_SESSION_TICKET | CERTIFICATE_VERIFY | CLIENT_KEY_EXCHANGE, ..]) => {
                    len.min(HANDSHAKE_HEADER_LEN)
                }
                Some([SERVER_KEY_EXCHANGE, ..]) => len.min(SERVER_KEY_EXCHANGE_WANTED),
                _ => len,
            };
            return 0;
        }
        // After HelloRetryRequest, TLS 1.3 has cleartext hellos behind a ChangeCipherSpec.
        if let Some([CLIENT_HELLO | SERVER_HELLO, l2, l1, l0]) = start
            && u32::from_be_bytes([0, l2, l1, l0]) + HANDSHAKE_HEADER_LEN == len
        {
            self.copy_left = len;
            return 0;
        }
        self.copy_left = 0;
        self.flags |= Self::ENCRYPTED_HANDSHAKE;
        self.encrypted_record()
    }

    #[inline(always)]
    const fn encrypted_record(&mut self) -> u8 {
        self.encrypted = self.encrypted.saturating_add(1);
        if self.encrypted < limits::MAX_ENCRYPTED_RECORDS {
            return 0;
        }
        self.mode = Mode::DONE;
        Notes::LAST
    }

    #[inline(always)]
    const fn content_type(&self) -> u8 {
        let [_, _, _, content_type, ..] = self.head.to_be_bytes();
        content_type
    }

    #[inline(always)]
    const fn length(&self) -> u32 {
        (self.head & 0xffff) as u32
    }
}

#[inline(always)]
const fn is_content_type(byte: u8) -> bool {
    byte >= CHANGE_CIPHER_SPEC && byte <= HEARTBEAT
}

/// How many bytes [`Stream::begin`] and [`proxy_header`] look at.
pub const HEAD_LEN: usize = 16;

/// A PROXY protocol header in front of TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProxyHeader {
    /// Version 1: a line.
    Line,
    /// Version 2, of this many bytes, of which so many are wanted: type-length-values are not.
    Binary { len: u32, wanted: u32 },
}

/// Whether a stream that begins with `head` begins with a PROXY protocol header.
#[inline(always)]
pub fn proxy_header(head: [u8; HEAD_LEN]) -> Option<ProxyHeader> {
    if head[..12] == PROXY_V2_SIGNATURE {
        let len = PROXY_V2_HEADER_LEN + u32::from(u16::from_be_bytes([head[14], head[15]]));
        return Some(ProxyHeader::Binary {
            len,
            wanted: len.min(PROXY_V2_HEADER_LEN + PROXY_V2_ADDRESSES_LEN),
        });
    }
    (head[..6] == *b"PROXY ").then_some(ProxyHeader::Line)
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec;
    use std::vec::Vec;

    /// A segment, and the ranges of it that were copied.
    struct Segment<'a> {
        bytes: &'a [u8],
        copied: Vec<bool>,
    }

    impl Payload for Segment<'_> {
        fn peek<const N: usize>(&mut self, at: u32) -> Option<[u8; N]> {
            self.bytes.get(at as usize..)?.first_chunk().copied()
        }

        fn copy(&mut self, at: u32, len: u32) -> u32 {
            self.copied[at as usize..(at + len) as usize].fill(true);
            len
        }
    }

    /// Passes a stream in segments of these lengths, and tells of each byte whether it was copied.
    fn copied(stream_bytes: &[u8], segments: impl IntoIterator<Item = usize>) -> (Vec<bool>, Stream) {
        let mut stream = Stream::default();
        let mut rest = stream_bytes;
        let mut copied = Vec::new();
        for len in segments {
            let (bytes, tail) = rest.split_at(len);
            rest = tail;
            let len = u32::try_from(len).unwrap();
            let mut segment = Segment { bytes, copied: vec![false; bytes.len()] };
            assert_eq!(stream.place(u32::try_from(copied.len()).unwrap(), len), Place::New(0));
            let mut at = 0;
            if stream.mode() == Mode::UNSEEN {
                let mut head = [0; HEAD_LEN];
                let known = bytes.len().min(HEAD_LEN);
                head[..known].copy_from_slice(&bytes[..known]);
                stream.begin(head, len);
            }
            while at < len && stream.mode() == Mode::TLS {
                at += stream.step(&mut segment, at, len - at).passed;
            }
            stream.advance(len);
            copied.extend(segment.copied);
        }
        assert!(rest.is_empty());
        (copied, stream)
    }

    fn record(content_type: u8, body: &[u8]) -> Vec<u8> {
        let [l1, l0] = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[content_type, 3, 3, l1, l0], body].concat()
    }

    fn message(message_type: u8, len: u8) -> Vec<u8> {
        [&[message_type, 0, 0, len][..], &vec![0xab; usize::from(len)]].concat()
    }

    /// A server's flight of TLS 1.2, and application data.
    fn flight() -> Vec<u8> {
        [
            record(HANDSHAKE, &message(SERVER_HELLO, 40)),
            record(HANDSHAKE, &message(11, 90)),
            record(HANDSHAKE, &message(SERVER_KEY_EXCHANGE, 30)),
            record(HANDSHAKE, &message(NEW_SESSION_TICKET, 50)),
            record(CHANGE_CIPHER_SPEC, &[1]),
            record(HANDSHAKE, &[0xee; 40]),
            record(23, &[0xee; 60]),
            record(23, &[0xee; 60]),
        ]
        .concat()
    }

    #[test]
    fn what_is_copied_does_not_depend_on_how_the_stream_is_cut() {
        let bytes = flight();
        let (whole, stream) = copied(&bytes, [bytes.len()]);
        assert_eq!(stream.mode(), Mode::DONE);
        assert!(!whole.iter().zip(&bytes).any(|(copied, byte)| *copied && *byte == 0xee));
        let (single, _) = copied(&bytes, vec![1; bytes.len()]);
        // Of a message whose type is all that is known, nothing is withheld.
        assert!(whole.iter().zip(&single).all(|(whole, single)| !whole || *single));
        for split in 1..bytes.len() {
            let (parts, _) = copied(&bytes, [split, bytes.len() - split]);
            for (index, (part, whole)) in parts.iter().zip(&whole).enumerate() {
                assert!(*part || !*whole, "byte {index} with a cut at {split}");
                assert!(!*part || bytes[index] != 0xee, "byte {index} with a cut at {split}");
            }
        }
    }

    #[test]
    fn a_stream_is_done_with_its_first_data_unless_the_client_had_no_certificate() {
        let rest = [
            record(HANDSHAKE, &message(CLIENT_KEY_EXCHANGE, 30)),
            record(CHANGE_CIPHER_SPEC, &[1]),
            record(HANDSHAKE, &[0xee; 40]),
            record(23, &[0xee; 60]),
        ]
        .concat();
        let (_, with) = copied(&rest, [rest.len()]);
        assert_eq!((with.mode(), with.is_without_certificate()), (Mode::DONE, false));
        let empty = [record(HANDSHAKE, &[11, 0, 0, 3, 0, 0, 0]), rest].concat();
        let (bytes, without) = copied(&empty, [empty.len()]);
        assert_eq!((without.mode(), without.is_without_certificate()), (Mode::TLS, true));
        assert!(!bytes.iter().zip(&empty).any(|(copied, byte)| *copied && *byte == 0xee));
    }

    #[test]
    fn no_change_of_a_byte_makes_the_framing_panic_or_stand_still() {
        let bytes = flight();
        for value in 0..=u8::MAX {
            for index in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[index] = value;
                let _ = copied(&bytes, [bytes.len()]);
            }
        }
    }

    #[test]
    fn a_segment_is_placed_by_its_sequence_number_even_where_that_wraps() {
        let mut stream = Stream::default();
        stream.place_at(0xffff_fff0);
        assert_eq!(stream.place(0xffff_fff0, 100), Place::New(0));
        stream.advance(100);
        assert_eq!(stream.next_sequence(), Some(0x54));
        assert_eq!(stream.place(0xffff_fff0, 100), Place::Old);
        assert_eq!(stream.place(0x53, 1), Place::Probe);
        assert_eq!(stream.place(0x50, 10), Place::New(4));
        assert_eq!(stream.place(0x55, 10), Place::BehindHole);
    }
}
