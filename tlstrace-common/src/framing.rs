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
    /// The `N` bytes at offset `at` of the payload, or `None` where it ends before.
    fn peek<const N: usize>(&self, at: u32) -> Option<[u8; N]>;

    /// Copies bytes from offset `at` of the payload: `len` of them or, if `len` is large, fewer.
    ///
    /// Returns how many were copied, which is 0 where there is no room.
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
const PROXY_V1_MAX_LEN: u32 = 107;

/// How far ahead a segment may be to count as one behind a hole.
const MAX_AHEAD: u32 = 1 << 30;

impl Stream {
    /// `next_sequence` is known.
    const PLACED: u8 = 0x01;
    /// The current record's body begins next: what to copy of it is still to be decided.
    const UNDECIDED: u8 = 0x02;
    /// ChangeCipherSpec was passed.
    const CIPHER_CHANGED: u8 = 0x04;
    /// An encrypted handshake record was passed, of the type that only TLS ≤ 1.2 has.
    const ENCRYPTED_HANDSHAKE: u8 = 0x08;
    /// The current "record" is a PROXY header: a new stream begins behind it.
    const PROXY: u8 = 0x10;

    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Number of encrypted records whose headers were reported.
    pub const fn encrypted(&self) -> u8 {
        self.encrypted
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

    /// From `sequence` on, this stream is TLS: the peer's ClientHello says so.
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

    /// Looks at the first bytes of a stream and decides what it is.
    #[inline(always)]
    pub fn begin(&mut self, payload: &impl Payload, at: u32, len: u32) -> Mode {
        self.head_len = 0;
        self.mode = Mode::NOT_TLS;
        let Some([first]) = payload.peek(at) else { return self.mode };
        if let Some(head) = payload.peek::<5>(at) {
            let [kind, major, _, l1, l0] = head;
            if is_content_type(kind) && major == 3 {
                let length = u32::from(u16::from_be_bytes([l1, l0]));
                if length != 0 && length <= MAX_RECORD_LEN {
                    self.mode = Mode::TLS;
                }
            } else if kind & 0x80 != 0 && head[2] == CLIENT_HELLO && head[3] <= 3 {
                // A ClientHello in the format of SSL 2 (RFC 5246 appendix E.2).
                self.record_left = (u32::from(kind & 0x7f) << 8 | u32::from(major)) + 2;
                self.copy_left = self.record_left;
                self.mode = Mode::TLS;
            } else if kind == b'P' || kind == b'\r' {
                self.begin_proxy(payload, at, len);
            }
        } else if is_content_type(first) {
            // Too short to tell: the record header is checked as it comes.
            self.mode = Mode::TLS;
        }
        self.mode
    }

    /// Whether a ClientHello begins at offset `at`: how TLS begins within a stream that was something
    /// else.
    #[inline(always)]
    pub fn is_client_hello(payload: &impl Payload, at: u32) -> bool {
        matches!(payload.peek(at), Some([HANDSHAKE, 3, 0..=4, _, _, CLIENT_HELLO]))
    }

    /// Passes a part of the payload: some of the `left` bytes from offset `at` on.
    ///
    /// Passes at least one byte, unless it copied nothing for want of room; then the next call will.
    /// Nothing is to be passed any more when [`Stream::mode`] is not [`Mode::TLS`].
    #[inline(always)]
    pub fn step(&mut self, payload: &mut impl Payload, at: u32, left: u32) -> Step {
        if self.record_left == 0 { self.header(payload, at, left) } else { self.body(payload, at, left) }
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

    #[inline(always)]
    fn begin_proxy(&mut self, payload: &impl Payload, at: u32, len: u32) {
        let Some(start) = payload.peek::<16>(at) else { return };
        let total = if start[..12] == PROXY_V2_SIGNATURE {
            PROXY_V2_HEADER_LEN + u32::from(u16::from_be_bytes([start[14], start[15]]))
        } else if start[..6] == *b"PROXY " {
            proxy_v1_len(payload, at, len)
        } else {
            0
        };
        if total != 0 {
            self.record_left = total;
            self.copy_left = total.min(PROXY_V2_HEADER_LEN + PROXY_V2_ADDRESSES_LEN);
            if start[0] == b'P' {
                self.copy_left = total;
            }
            self.flags |= Self::PROXY;
            self.mode = Mode::TLS;
        }
    }

    #[inline(always)]
    fn header(&mut self, payload: &mut impl Payload, at: u32, left: u32) -> Step {
        if self.flags & Self::PROXY != 0 {
            self.flags &= !Self::PROXY;
            if self.begin(payload, at, left) != Mode::TLS {
                return Step { passed: left, notes: Notes::NOT_TLS };
            }
            if self.record_left != 0 {
                return Step { passed: 0, notes: 0 };
            }
        }
        if self.head_len == 0
            && let Some([kind, major, minor, l1, l0]) = payload.peek::<5>(at)
        {
            self.head = u64::from(u32::from_be_bytes([kind, major, minor, l1])) << 8 | u64::from(l0);
            if !is_content_type(kind) || major != 3 || self.length() > MAX_RECORD_LEN {
                return self.desynchronized(left);
            }
            return self.record(payload, at, 5);
        }
        let Some([byte]) = payload.peek::<1>(at) else { return self.desynchronized(left) };
        let fits = match self.head_len {
            0 => is_content_type(byte),
            1 => byte == 3,
            3 => u32::from(byte) <= MAX_RECORD_LEN >> 8,
            _ => true,
        };
        if !fits {
            return self.desynchronized(left);
        }
        self.head = self.head << 8 | u64::from(byte);
        self.head_len += 1;
        if self.head_len == RECORD_HEADER_LEN {
            self.head_len = 0;
            return self.record(payload, at, 1);
        }
        self.copied = self.copied.saturating_add(1);
        Step { passed: 1, notes: if payload.copy(at, 1) == 0 { Notes::TRUNCATED } else { 0 } }
    }

    /// Begins the record whose header ends with the `len` bytes at offset `at`.
    #[inline(always)]
    fn record(&mut self, payload: &mut impl Payload, at: u32, len: u32) -> Step {
        self.record_left = self.length();
        self.copy_left = 0;
        self.copied = self.copied.saturating_add(len);
        let mut notes = if payload.copy(at, len) == 0 { Notes::TRUNCATED } else { 0 };
        match self.content_type() {
            HANDSHAKE | CHANGE_CIPHER_SPEC => self.flags |= Self::UNDECIDED,
            ALERT if self.record_left == 2 => self.copy_left = 2,
            _ => {
                notes |= self.encrypted_record();
                if self.flags & Self::ENCRYPTED_HANDSHAKE != 0 && self.content_type() != ALERT {
                    // TLS 1.3 has no encrypted record of type 22: this is application data of TLS ≤ 1.2.
                    self.mode = Mode::DONE;
                    notes |= Notes::LAST;
                }
            }
        }
        Step { passed: len, notes }
    }

    #[inline(always)]
    fn body(&mut self, payload: &mut impl Payload, at: u32, left: u32) -> Step {
        let mut notes = 0;
        if self.flags & Self::UNDECIDED != 0 {
            self.flags &= !Self::UNDECIDED;
            notes = self.decide(payload, at);
        }
        let mut passed = left.min(self.record_left);
        if self.copy_left != 0 {
            let room = limits::MAX_COPIED.saturating_sub(self.copied);
            let wanted = passed.min(self.copy_left).min(room);
            passed = if wanted == 0 { 0 } else { payload.copy(at, wanted) };
            if passed == 0 {
                self.copy_left = 0;
                notes |= Notes::TRUNCATED;
            }
            self.copy_left = self.copy_left.saturating_sub(passed);
            self.copied = self.copied.saturating_add(passed);
        }
        self.record_left = self.record_left.saturating_sub(passed);
        Step { passed, notes }
    }

    /// Decides what to copy of the record whose body begins at offset `at`.
    #[inline(always)]
    fn decide(&mut self, payload: &impl Payload, at: u32) -> u8 {
        let len = self.record_left;
        if self.content_type() == CHANGE_CIPHER_SPEC {
            self.flags |= Self::CIPHER_CHANGED;
            self.copy_left = 1;
            return 0;
        }
        let start = payload.peek::<4>(at);
        if self.flags & Self::CIPHER_CHANGED == 0 {
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

    /// What should be a record header is none: the rest of the stream is not followed.
    #[inline(always)]
    const fn desynchronized(&mut self, left: u32) -> Step {
        self.mode = Mode::DONE;
        Step { passed: left, notes: Notes::UNFRAMED | Notes::LAST }
    }

    #[inline(always)]
    const fn content_type(&self) -> u8 {
        (self.head >> 32) as u8
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

/// Length of a PROXY protocol header, version 1, with its CRLF; 0 if it does not end within the payload.
#[inline(always)]
fn proxy_v1_len(payload: &impl Payload, at: u32, len: u32) -> u32 {
    for offset in 0..PROXY_V1_MAX_LEN {
        if offset >= len {
            break;
        }
        if let Some([b'\n']) = payload.peek(at + offset) {
            return offset + 1;
        }
    }
    0
}
