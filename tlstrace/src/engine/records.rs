//! From one direction's bytes to TLS records and handshake messages.
//!
//! [`Records`] reads a [`Stream`](super::stream::Stream) and tells an [`Observer`] what it finds. It keeps
//! only what it needs: the body of an encrypted record, of a key exchange or of a session ticket is stepped
//! over without being looked at, and bytes that the capture left out do not cost more than the message they
//! belong to. Records may be split anywhere, down to single bytes; a message may span records and a record
//! may hold many messages (RFC 8446 §5.1).

use smallvec::SmallVec;

use crate::tls::Decoded;
use crate::tls::codepoints::{AlertDescription, AlertLevel, ContentType, HandshakeType};
use crate::tls::record::{FirstBytes, RecordHeader, sniff};

use super::proxy;
use super::stream::{Piece, Reader};

/// Most bytes of the beginning of a stream that are looked at to tell what it is.
const HEAD_LEN: usize = 16;
/// Most bytes kept of one handshake message. A longer one is stepped over and reported as lost.
const MAX_MESSAGE_LEN: u32 = 128 * 1024;
/// Bytes kept of a version 2 PROXY protocol header: as the capture does, up to the end of two IPv6 addresses and ports.
/// TLVs are stepped over, captured or not.
const PROXY_KEPT_LEN: usize = 16 + 36;

/// Learns what a direction carries.
pub(crate) trait Observer {
    /// What the protection of handshake records after a ChangeCipherSpec is.
    fn protection(&self) -> Protection;

    /// The first bytes of the stream, at most 16.
    fn first_bytes(&mut self, kind: FirstBytes, head: &[u8]);

    /// More of what is not TLS, until 16 bytes of it are known.
    fn more_of_head(&mut self, bytes: &[u8]);

    /// A PROXY protocol header in front of everything else.
    fn proxy_header(&mut self, header: &proxy::ProxyHeader);

    /// A record whose body is encrypted, or is of a type that is not looked into.
    fn opaque_record(&mut self, header: RecordHeader);

    fn change_cipher_spec(&mut self);

    fn alert(&mut self, level: AlertLevel, description: AlertDescription);

    /// A whole handshake message.
    fn message(&mut self, message: WholeMessage<'_>);

    /// A hello in SSLv2 format, with its 2-byte header.
    fn ssl_v2_hello(&mut self, message: Option<&[u8]>);

    /// Record framing ended: what came where a record header was due cannot be one.
    fn not_a_record(&mut self, bytes: &[u8]);
}

/// A handshake message that has come to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeMessage<'a> {
    pub(crate) kind: HandshakeType,
    /// The body without the 4-byte header, as far as it is looked at. `None`: parts of it were not captured.
    pub(crate) body: Option<&'a [u8]>,
    /// Records that it was spread over.
    pub(crate) records: u32,
}

/// Whether handshake records that follow a ChangeCipherSpec are encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Protection {
    /// No ServerHello has fixed the version: the records themselves must tell.
    Unknown,
    /// TLS 1.2 and below: encrypted from the ChangeCipherSpec on (RFC 5246 §7.1).
    AfterChangeCipherSpec,
    /// TLS 1.3: a handshake record is plaintext wherever it stands; what is encrypted has type
    /// `application_data` (RFC 8446 §5.2, appendix D.4).
    Never,
}

/// Reader of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    state: State,
    /// Partial unit: the head of the stream, a record header, a message header, an alert.
    partial: SmallVec<[u8; HEAD_LEN]>,
    message: Message,
    change_cipher_spec_seen: bool,
    /// Bytes of the stream's head that the observer has.
    head_len: usize,
    records: u32,
    handshake_records: u32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Nothing is known yet.
    #[default]
    Head,
    /// A PROXY v1 line, up to CRLF.
    ProxyLine,
    /// A PROXY v2 header, of which so many bytes are still to come.
    ProxyBinary(u16),
    /// An SSLv2 hello of so many bytes, header included.
    SslV2(u32),
    /// Text or anything else in front of a possible TLS stream.
    Prelude,
    RecordHeader,
    Body {
        header: RecordHeader,
        left: u16,
        kind: Body,
    },
    /// Framing was lost; a plausible record at the start of a segment finds it again.
    Lost,
    /// Framing ended for good.
    Ended,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Body {
    Skip,
    Alert,
    Handshake,
    /// A handshake record after a ChangeCipherSpec while the version is unknown: its first bytes tell.
    Unclear,
}

/// A handshake message on its way.
#[derive(Clone, Debug, Default)]
struct Message {
    /// As much as there is of the 4-byte header, until it is whole.
    header: SmallVec<[u8; MESSAGE_HEADER_LEN]>,
    kind: Option<HandshakeType>,
    /// Bytes of the body still to come.
    left: u32,
    /// Bytes of the body still to be kept, at its start.
    wanted: u32,
    /// Number of the handshake record that it began in.
    first_record: u32,
    body: Vec<u8>,
    lost: bool,
}

/// What had begun and not ended when a stream stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unfinished {
    /// The message that was cut, if its header was seen.
    pub(crate) kind: Option<HandshakeType>,
    /// Bytes that were still to come, as far as headers had announced them.
    pub(crate) missing: u32,
}

/// A [`Records`] together with whom it tells.
pub(crate) struct Reading<'a, O> {
    pub(crate) records: &'a mut Records,
    pub(crate) observer: &'a mut O,
}

impl<O: Observer> Reader for Reading<'_, O> {
    fn read(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Bytes(bytes) => self.records.bytes(bytes, self.observer),
            Piece::Missing(len) => self.records.missing(len, self.observer),
        }
    }

    fn indifferent_to(&self) -> u64 {
        self.records.indifferent_to()
    }

    fn has_ended(&self) -> bool {
        self.records.state == State::Ended
    }
}

impl Records {
    /// Whether a record that starts with a segment would be believed now: after text, after a hole, or after
    /// bytes too few to tell what they are, which cannot begin a record (PostgreSQL answers `S`).
    pub(crate) fn awaits_tls(&self) -> bool {
        match self.state {
            State::Prelude | State::Lost => true,
            State::Head => {
                self.partial.first().is_some_and(|&first| !(20..=24).contains(&first) && first < 0x80)
            }
            _ => false,
        }
    }

    /// Begins record framing at the next byte.
    pub(crate) fn begin_tls(&mut self, observer: &mut impl Observer) {
        if self.state == State::Head {
            observer.first_bytes(FirstBytes::Other, &self.partial);
        }
        self.partial.clear();
        self.message = Message::default();
        self.state = State::RecordHeader;
    }

    /// The capture has seen enough of this direction and leaves out the rest. What is missing from here on is no
    /// loss. If `is_broken`, that is because no record header stood where one was due.
    pub(crate) fn end(&mut self, is_broken: bool, observer: &mut impl Observer) {
        if is_broken && self.state != State::Ended {
            observer.not_a_record(&[]);
        }
        self.partial.clear();
        self.message = Message::default();
        self.state = State::Ended;
    }

    /// Whether framing was lost to bytes that were never captured.
    pub(crate) fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether every byte counts: it is not known to be something else than TLS, and reading has not ended.
    pub(crate) fn is_framed(&self) -> bool {
        !matches!(self.state, State::Prelude | State::Lost | State::Ended)
    }

    /// Bytes of memory that hold what is incomplete.
    pub(crate) fn held(&self) -> usize {
        self.message.body.capacity() + self.partial.capacity()
    }

    /// Records whose header was read.
    pub(crate) fn count(&self) -> u32 {
        self.records
    }

    /// What is incomplete, if something is.
    pub(crate) fn unfinished(&self) -> Option<Unfinished> {
        if let Some(kind) = self.message.kind {
            return Some(Unfinished { kind: Some(kind), missing: self.message.left });
        }
        match self.state {
            State::Head if !self.partial.is_empty() => Some(Unfinished { kind: None, missing: 1 }),
            State::RecordHeader if !self.partial.is_empty() => Some(Unfinished { kind: None, missing: 1 }),
            State::Body { left, kind: Body::Alert | Body::Handshake | Body::Unclear, .. } => {
                Some(Unfinished { kind: None, missing: u32::from(left) })
            }
            State::SslV2(len) => Some(Unfinished { kind: Some(HandshakeType::CLIENT_HELLO), missing: len }),
            _ => None,
        }
    }

    /// How many of the next bytes are of no interest.
    fn indifferent_to(&self) -> u64 {
        match self.state {
            State::Body { left, kind: Body::Skip, .. } => u64::from(left),
            State::Body { left, kind: Body::Handshake, .. }
                if self.message.kind.is_some() && self.message.wanted == 0 =>
            {
                u64::from(u32::from(left).min(self.message.left))
            }
            _ => 0,
        }
    }

    fn bytes(&mut self, mut bytes: &[u8], observer: &mut impl Observer) {
        while !bytes.is_empty() {
            let taken = match self.state {
                State::Head => self.head(bytes, observer),
                State::ProxyLine => self.proxy_line(bytes, observer),
                State::ProxyBinary(left) => self.proxy_binary(bytes, left, observer),
                State::SslV2(len) => self.ssl_v2(bytes, len, observer),
                State::RecordHeader => self.record_header(bytes, observer),
                State::Body { header, left, kind } => {
                    let body = bytes.get(..usize::from(left)).unwrap_or(bytes);
                    self.body(header, left, kind, body, observer)
                }
                State::Prelude => {
                    let wanted = HEAD_LEN.saturating_sub(self.head_len);
                    let more = bytes.get(..wanted).unwrap_or(bytes);
                    if !more.is_empty() {
                        self.head_len += more.len();
                        observer.more_of_head(more);
                    }
                    return;
                }
                State::Lost | State::Ended => return,
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Collects the first bytes until they tell what the stream is. Returns the bytes taken.
    fn head(&mut self, bytes: &[u8], observer: &mut impl Observer) -> usize {
        let before = self.partial.len();
        let room = HEAD_LEN - before;
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let kind = sniff(&self.partial);
        let wants_more = matches!(kind, FirstBytes::TooShort | FirstBytes::ProxyV2);
        if wants_more && self.partial.len() < HEAD_LEN {
            return self.partial.len() - before;
        }
        let head = std::mem::take(&mut self.partial);
        observer.first_bytes(kind, &head);
        self.head_len = head.len();
        self.state = match kind {
            FirstBytes::TlsRecord => State::RecordHeader,
            FirstBytes::SslV2Hello => State::SslV2(ssl_v2_len(&head)),
            FirstBytes::ProxyV1 => State::ProxyLine,
            FirstBytes::ProxyV2 => State::ProxyBinary(proxy::v2_len(&head).unwrap_or(u16::MAX)),
            _ => State::Prelude,
        };
        // What was collected is read again in its new meaning, and only that much of it is in `bytes`
        // which was not collected before.
        if self.state == State::Prelude {
            return bytes.len();
        }
        if before > 0 {
            self.bytes(head.get(..before).unwrap_or_default(), observer);
        }
        0
    }

    fn proxy_line(&mut self, bytes: &[u8], observer: &mut impl Observer) -> usize {
        for (i, &byte) in bytes.iter().enumerate() {
            self.partial.push(byte);
            if byte == b'\n' {
                self.proxy_done(observer);
                return i + 1;
            }
            if self.partial.len() > proxy::MAX_V1_LEN {
                observer.not_a_record(&[]);
                self.state = State::Prelude;
                return bytes.len();
            }
        }
        bytes.len()
    }

    fn proxy_binary(&mut self, bytes: &[u8], left: u16, observer: &mut impl Observer) -> usize {
        let taken = bytes.len().min(usize::from(left));
        let kept = taken.min(PROXY_KEPT_LEN.saturating_sub(self.partial.len()));
        self.partial.extend_from_slice(bytes.get(..kept).unwrap_or_default());
        self.advance_proxy(left, taken, observer);
        taken
    }

    fn advance_proxy(&mut self, left: u16, taken: usize, observer: &mut impl Observer) {
        let left = left.saturating_sub(u16::try_from(taken).unwrap_or(u16::MAX));
        self.state = State::ProxyBinary(left);
        if left == 0 {
            self.proxy_done(observer);
        }
    }

    fn proxy_done(&mut self, observer: &mut impl Observer) {
        if let Some(header) = proxy::ProxyHeader::decode(&self.partial) {
            observer.proxy_header(&header);
        }
        self.partial.clear();
        self.state = State::Head;
    }

    fn ssl_v2(&mut self, bytes: &[u8], len: u32, observer: &mut impl Observer) -> usize {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let taken = bytes.len().min(wanted.saturating_sub(self.partial.len()));
        self.partial.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if self.partial.len() >= wanted {
            observer.ssl_v2_hello(Some(&self.partial));
            self.partial.clear();
            self.state = State::RecordHeader;
        }
        taken
    }

    fn record_header(&mut self, bytes: &[u8], observer: &mut impl Observer) -> usize {
        if self.partial.is_empty()
            && let Some(whole) = bytes.get(..RecordHeader::LEN)
            && let Decoded::Complete(header) = RecordHeader::decode(whole)
        {
            self.begin_body(header, observer);
            return RecordHeader::LEN;
        }
        let before = self.partial.len();
        self.partial.extend_from_slice(bytes.get(..RecordHeader::LEN - before).unwrap_or(bytes));
        let taken = self.partial.len() - before;
        match RecordHeader::decode(&self.partial) {
            Decoded::Incomplete => {}
            Decoded::Malformed => {
                observer.not_a_record(&self.partial);
                self.partial.clear();
                self.state = State::Ended;
            }
            Decoded::Complete(header) => {
                self.partial.clear();
                self.begin_body(header, observer);
            }
        }
        taken
    }

    fn begin_body(&mut self, header: RecordHeader, observer: &mut impl Observer) {
        self.records = self.records.saturating_add(1);
        let kind = match header.content_type {
            ContentType::CHANGE_CIPHER_SPEC => {
                self.change_cipher_spec_seen = true;
                observer.change_cipher_spec();
                Body::Skip
            }
            // A plaintext alert is two bytes in every version, an encrypted one never is: type, level,
            // description and an authentication tag or a block of padding.
            ContentType::ALERT if header.length == 2 => Body::Alert,
            ContentType::HANDSHAKE if !self.change_cipher_spec_seen => Body::Handshake,
            ContentType::HANDSHAKE => match observer.protection() {
                Protection::Never => Body::Handshake,
                Protection::AfterChangeCipherSpec => Body::Skip,
                Protection::Unknown => Body::Unclear,
            },
            _ => Body::Skip,
        };
        match kind {
            Body::Handshake => self.handshake_records = self.handshake_records.saturating_add(1),
            Body::Skip if header.content_type != ContentType::CHANGE_CIPHER_SPEC => {
                observer.opaque_record(header);
            }
            Body::Skip | Body::Alert | Body::Unclear => {}
        }
        self.state = if header.length == 0 {
            State::RecordHeader
        } else {
            State::Body { header, left: header.length, kind }
        };
    }

    fn body(
        &mut self,
        header: RecordHeader,
        left: u16,
        kind: Body,
        bytes: &[u8],
        observer: &mut impl Observer,
    ) -> usize {
        match kind {
            Body::Skip => self.advance(header, left, kind, bytes.len()),
            Body::Alert => {
                self.partial.extend_from_slice(bytes);
                if let [level, description] = *self.partial {
                    observer.alert(AlertLevel(level), AlertDescription(description));
                    self.partial.clear();
                }
                self.advance(header, left, kind, bytes.len())
            }
            Body::Unclear => {
                let before = self.partial.len();
                self.partial.extend_from_slice(bytes.get(..MESSAGE_HEADER_LEN - before).unwrap_or(bytes));
                let taken = self.partial.len() - before;
                if let Some(start) = self.partial.first_chunk::<MESSAGE_HEADER_LEN>() {
                    let plaintext = is_hello_in_one_record(*start, header.length);
                    let start = *start;
                    self.partial.clear();
                    if plaintext {
                        self.handshake_records = self.handshake_records.saturating_add(1);
                        self.message_bytes(&start, observer);
                    } else {
                        observer.opaque_record(header);
                    }
                    let kind = if plaintext { Body::Handshake } else { Body::Skip };
                    return self.advance(header, left, kind, taken);
                }
                if taken == usize::from(left) {
                    observer.opaque_record(header);
                    self.partial.clear();
                }
                self.advance(header, left, kind, taken)
            }
            Body::Handshake => {
                let taken = self.message_bytes(bytes, observer);
                self.advance(header, left, kind, taken)
            }
        }
    }

    fn advance(&mut self, header: RecordHeader, left: u16, kind: Body, taken: usize) -> usize {
        let left = left.saturating_sub(u16::try_from(taken).unwrap_or(u16::MAX));
        self.state = if left == 0 { State::RecordHeader } else { State::Body { header, left, kind } };
        taken
    }

    /// Reads message headers and bodies out of a handshake record. Returns the bytes taken, which is less
    /// than all when what follows is of no interest.
    fn message_bytes(&mut self, bytes: &[u8], observer: &mut impl Observer) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(kind) = self.message.kind else {
                let before = self.message.header.len();
                if before == 0 {
                    self.message.first_record = self.handshake_records;
                    if let Some((&[kind, a, b, c], tail)) = rest.split_first_chunk::<MESSAGE_HEADER_LEN>() {
                        rest = tail;
                        self.begin_message(HandshakeType(kind), u32::from_be_bytes([0, a, b, c]), observer);
                        continue;
                    }
                }
                let (head, tail) = rest.split_at(rest.len().min(MESSAGE_HEADER_LEN - before));
                self.message.header.extend_from_slice(head);
                rest = tail;
                if let [kind, a, b, c] = *self.message.header {
                    self.begin_message(HandshakeType(kind), u32::from_be_bytes([0, a, b, c]), observer);
                }
                continue;
            };
            let (part, tail) =
                rest.split_at(rest.len().min(usize::try_from(self.message.left).unwrap_or(usize::MAX)));
            rest = tail;
            let keep = part.len().min(usize::try_from(self.message.wanted).unwrap_or(usize::MAX));
            let kept = part.get(..keep).unwrap_or_default();
            self.message.wanted -= u32::try_from(keep).unwrap_or(self.message.wanted);
            self.message.left -= u32::try_from(part.len()).unwrap_or(self.message.left);
            if self.message.left == 0 && self.message.body.is_empty() {
                // It came in one piece, as nearly all do, and need not be kept to be read.
                self.tell(kind, kept, observer);
                continue;
            }
            self.message.body.extend_from_slice(kept);
            if self.message.left == 0 {
                self.end_message(kind, observer);
            }
        }
        bytes.len()
    }

    fn begin_message(&mut self, kind: HandshakeType, length: u32, observer: &mut impl Observer) {
        self.message.header.clear();
        self.message.kind = Some(kind);
        self.message.left = length;
        self.message.wanted = wanted_of(kind, length);
        self.message.lost = self.message.wanted < wanted_prefix(kind, length);
        if length == 0 {
            self.end_message(kind, observer);
        }
    }

    fn end_message(&mut self, kind: HandshakeType, observer: &mut impl Observer) {
        let body = std::mem::take(&mut self.message.body);
        self.tell(kind, &body, observer);
    }

    /// Tells of a message whose kept part is `body`, and makes ready for the next one.
    fn tell(&mut self, kind: HandshakeType, body: &[u8], observer: &mut impl Observer) {
        let body = (!self.message.lost).then_some(body);
        let records = self.handshake_records.saturating_sub(self.message.first_record).saturating_add(1);
        observer.message(WholeMessage { kind, body, records });
        self.message.kind = None;
        self.message.lost = false;
    }

    fn missing(&mut self, len: u64, observer: &mut impl Observer) {
        let mut len = len;
        while len > 0 {
            let State::Body { header, left, kind } = self.state else {
                match self.state {
                    State::ProxyBinary(left) if self.partial.len() >= PROXY_KEPT_LEN => {
                        let taken = u16::try_from(len).unwrap_or(u16::MAX).min(left);
                        len -= u64::from(taken);
                        self.advance_proxy(left, usize::from(taken), observer);
                        continue;
                    }
                    State::Prelude | State::Ended | State::Lost => {}
                    _ => {
                        self.partial.clear();
                        self.message = Message::default();
                        self.state = State::Lost;
                    }
                }
                return;
            };
            let taken = u16::try_from(len).unwrap_or(u16::MAX).min(left);
            len -= u64::from(taken);
            match kind {
                Body::Skip => {}
                Body::Alert => self.partial.clear(),
                // The capture keeps the body of such a record only where it is plaintext.
                Body::Unclear => {
                    self.partial.clear();
                    observer.opaque_record(header);
                    self.advance(header, left, Body::Skip, usize::from(taken));
                    continue;
                }
                Body::Handshake => self.message_missing(u32::from(taken), observer),
            }
            self.advance(header, left, kind, usize::from(taken));
        }
    }

    /// Steps over `len` bytes of handshake messages that were not captured.
    fn message_missing(&mut self, len: u32, observer: &mut impl Observer) {
        let mut len = len;
        while len > 0 {
            let Some(kind) = self.message.kind else {
                // A message header is missing: what follows in this record cannot be told apart. The next
                // record may begin a message, so that is where reading goes on.
                self.message = Message::default();
                return;
            };
            let part = len.min(self.message.left);
            self.message.lost |= self.message.wanted > 0;
            self.message.wanted = self.message.wanted.saturating_sub(part);
            self.message.left -= part;
            len -= part;
            if self.message.left == 0 {
                self.end_message(kind, observer);
            }
        }
    }
}

/// Length of a handshake message's header: type and 24-bit length (RFC 8446 §4).
const MESSAGE_HEADER_LEN: usize = 4;

/// How much of the message's start is looked at. Bodies that privacy forbids to keep are not.
fn wanted_prefix(kind: HandshakeType, length: u32) -> u32 {
    match kind {
        // Only the curve: type, named curve, length of the public key (RFC 8422 §5.4).
        HandshakeType::SERVER_KEY_EXCHANGE => length.min(4),
        // Lifetime hints, tickets, key material and signatures.
        HandshakeType::NEW_SESSION_TICKET
        | HandshakeType::CLIENT_KEY_EXCHANGE
        | HandshakeType::CERTIFICATE_VERIFY
        | HandshakeType::CERTIFICATE_STATUS
        | HandshakeType::FINISHED => 0,
        _ => length,
    }
}

/// [`wanted_prefix`], nothing where it is more than is kept.
fn wanted_of(kind: HandshakeType, length: u32) -> u32 {
    let wanted = wanted_prefix(kind, length);
    if wanted > MAX_MESSAGE_LEN { 0 } else { wanted }
}

/// Whether a handshake record begins with a hello that fills it.
fn is_hello_in_one_record(start: [u8; MESSAGE_HEADER_LEN], record_len: u16) -> bool {
    let [kind, a, b, c] = start;
    let length = u32::from_be_bytes([0, a, b, c]);
    matches!(HandshakeType(kind), HandshakeType::CLIENT_HELLO | HandshakeType::SERVER_HELLO)
        && length + 4 == u32::from(record_len)
}

/// Length of an SSLv2 record with a 2-byte header, header included (the SSL 2.0 draft, and RFC 5246 E.2).
fn ssl_v2_len(head: &[u8]) -> u32 {
    match head {
        [high, low, ..] => (u32::from(high & 0x7f) << 8 | u32::from(*low)) + 2,
        _ => 2,
    }
}
