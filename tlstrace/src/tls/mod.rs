//! Pure decoders of TLS records, handshake messages, extensions, certificates and alerts.
//!
//! tls-parser and x509-parser decode where they are right; framing, the extension walk and the code points
//! that they lack are ours. Whatever a peer sends is data: nothing here panics, and a broken extension or
//! certificate never hides its neighbours.

pub mod alert;
pub mod certificate;
pub mod client_hello;
pub mod codepoints;
pub mod extensions;
pub mod fingerprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod handshake;
pub mod record;
pub mod server_hello;

mod reader;
#[cfg(test)]
pub(crate) mod testing;

/// What a decoder made of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// All of it was there.
    Complete(T),
    /// So far it is well formed, but bytes are missing at the end.
    Incomplete,
    /// No continuation would make it well formed.
    Malformed,
}

impl<T> Decoded<T> {
    /// The value, if it was complete.
    pub fn complete(self) -> Option<T> {
        match self {
            Self::Complete(value) => Some(value),
            Self::Incomplete | Self::Malformed => None,
        }
    }

    /// Applies `f` to a complete value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Decoded<U> {
        match self {
            Self::Complete(value) => Decoded::Complete(f(value)),
            Self::Incomplete => Decoded::Incomplete,
            Self::Malformed => Decoded::Malformed,
        }
    }
}
