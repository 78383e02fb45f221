//! The extension list of a hello: walked here, so that one broken extension leaves the others alone, and each
//! content parsed by itself.

use super::codepoints::ExtensionType;

/// Something in a message that is not as its specification says, and that did not keep the rest from being
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// The content of this extension is malformed: it counts as present, and its fields as unknown.
    BrokenExtension(ExtensionType),
    /// This extension came twice (RFC 8446 §4.2 forbids it); the first one counts.
    DuplicateExtension(ExtensionType),
    /// The extension list does not fit its length.
    BrokenExtensionList,
    /// A list of two-byte values has an odd length; the last byte is dropped.
    OddLength,
    /// Bytes are left after the end of the message.
    TrailingBytes,
    /// The message was cut off: what was read stands, what is absent may have been in the missing part.
    Truncated,
}
