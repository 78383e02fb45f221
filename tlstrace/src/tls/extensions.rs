//! The extension list of a hello: walked here, so that one broken extension leaves the others alone.
//!
//! tls-parser decodes the contents that it gets right. Lists are read here, because what a broken list begins
//! with still counts, and because key shares and ECH are unknown to tls-parser 0.12.

use std::fmt;

use tls_parser::{TlsExtension, parse_tls_client_hello_extension, parse_tls_server_hello_extension};

use super::{codepoints::ExtensionType, reader::Reader};

/// Something in a message that is not as its specification says, and that did not keep the rest from being
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The content of this extension is malformed. It counts as present; of its fields, those before the
    /// fault are known.
    BrokenExtension(ExtensionType),
    /// This extension came more than once, against RFC 8446 §4.2; the first one counts.
    DuplicateExtension(ExtensionType),
    /// The last extension does not fit into the list, or the list not into the message.
    BrokenExtensionList,
    /// The list of cipher suites has an odd length; its last byte was dropped.
    OddCipherSuites,
    /// Bytes are left after the end of the message.
    TrailingBytes,
    /// The message was cut off: what was read stands, what is absent may have been in the missing part.
    Truncated,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenExtension(kind) => write!(f, "extension {kind} is malformed"),
            Self::DuplicateExtension(kind) => write!(f, "extension {kind} came more than once"),
            Self::BrokenExtensionList => f.write_str("the extensions do not fit their length"),
            Self::OddCipherSuites => f.write_str("the cipher suites have an odd length"),
            Self::TrailingBytes => f.write_str("bytes are left after the end of the message"),
            Self::Truncated => f.write_str("the message was cut off"),
        }
    }
}

/// Problems kept of one message; a hostile one can have thousands.
const MAX_PROBLEMS: usize = 16;

/// Notes `problem`, unless there are enough of them.
pub(super) fn note(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(problem);
    }
}

/// One extension of a list.
#[derive(Clone, Copy)]
pub(super) struct Extension<'a> {
    pub(super) kind: ExtensionType,
    pub(super) content: &'a [u8],
    /// Type, length and content, as tls-parser wants them.
    whole: &'a [u8],
}

impl<'a> Extension<'a> {
    /// The content as tls-parser reads it in a ClientHello. Not for GREASE, whose mask it has too wide.
    pub(super) fn parse_in_client_hello(&self) -> Option<TlsExtension<'a>> {
        parse_tls_client_hello_extension(self.whole).ok().map(|(_, extension)| extension)
    }

    /// The content as tls-parser reads it in a ServerHello. Not for 21 and 22, which it mixes up.
    pub(super) fn parse_in_server_hello(&self) -> Option<TlsExtension<'a>> {
        parse_tls_server_hello_extension(self.whole).ok().map(|(_, extension)| extension)
    }
}

/// What follows the fixed part of a hello: `Extension extensions<0..2^16-1>`, or nothing.
pub(super) struct ExtensionList<'a> {
    /// The list, as far as it is there.
    pub(super) list: &'a [u8],
    /// The list ends before its length says.
    pub(super) is_cut_off: bool,
    /// Something follows the list.
    pub(super) has_trailing_bytes: bool,
}

impl<'a> ExtensionList<'a> {
    /// Takes what follows the fixed part of a hello. A message without extensions ends there
    /// (RFC 5246 §7.4.1.2).
    pub(super) fn new(rest: &'a [u8]) -> Self {
        let mut reader = Reader::new(rest);
        if let Some(list) = reader.vector16() {
            return Self { list, is_cut_off: false, has_trailing_bytes: !reader.is_empty() };
        }
        let list = rest.get(2..).unwrap_or_default();
        Self { list, is_cut_off: !rest.is_empty(), has_trailing_bytes: false }
    }

    /// Calls `visit` with every extension, in wire order; says whether the list was sound.
    ///
    /// Of extensions that are looked into, only the first of a kind is visited; the others go to
    /// `duplicate`. An extension whose content is cut off goes to `cut_off`.
    pub(super) fn walk(&self, mut visit: impl FnMut(Visit<'a>)) {
        let mut reader = Reader::new(self.list);
        let mut seen = Seen::default();
        while !reader.is_empty() {
            let start = reader.rest();
            let Some(kind) = reader.u16().map(ExtensionType) else {
                return visit(Visit::EndsEarly(None));
            };
            let Some(content) = reader.vector16() else {
                return visit(Visit::EndsEarly(Some(kind)));
            };
            let whole = start.get(..start.len() - reader.rest().len()).unwrap_or_default();
            let extension = Extension { kind, content, whole };
            visit(if seen.insert(kind) { Visit::First(extension) } else { Visit::Again(kind) });
        }
    }
}

/// One step of [`ExtensionList::walk`].
pub(super) enum Visit<'a> {
    /// An extension of a kind that was not there before.
    First(Extension<'a>),
    /// Another one of the same kind.
    Again(ExtensionType),
    /// The list ends within an extension, of this kind if that much can be read.
    EndsEarly(Option<ExtensionType>),
}

/// Which of the extensions that are looked into have been seen: a set that costs no allocation.
#[derive(Default)]
struct Seen(u128);

impl Seen {
    fn insert(&mut self, kind: ExtensionType) -> bool {
        let bit = match kind {
            ExtensionType::ENCRYPTED_CLIENT_HELLO => 1 << 64,
            ExtensionType::RENEGOTIATION_INFO => 1 << 65,
            ExtensionType(small @ 0..=63) => 1 << small,
            // Never looked into: whether it came before makes no difference.
            _ => return true,
        };
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}

/// Reads `T list<..>` of two-byte values behind a length of one or two bytes. What is there of a broken list
/// is kept; the flag says whether it was sound.
pub(super) fn u16_list<T, L: FromIterator<T>>(
    content: &[u8],
    length_bytes: u8,
    wrap: fn(u16) -> T,
) -> (L, bool) {
    let mut reader = Reader::new(content);
    let list = if length_bytes == 1 { reader.vector8() } else { reader.vector16() };
    let (list, fits) = match list {
        Some(list) => (list, reader.is_empty()),
        None => (content.get(usize::from(length_bytes)..).unwrap_or_default(), false),
    };
    let (pairs, odd) = list.as_chunks();
    (pairs.iter().map(|&pair| wrap(u16::from_be_bytes(pair))).collect(), fits && odd.is_empty())
}
