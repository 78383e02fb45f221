//! Alerts in the clear: two bytes, level and description (RFC 8446 §6).

use super::{
    Decoded,
    codepoints::{AlertDescription, AlertLevel},
};

/// An alert as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Alert {
    /// How bad the sender says it is. TLS 1.3 goes by the description alone.
    pub level: AlertLevel,
    /// What the sender says is wrong.
    pub description: AlertDescription,
}

impl Alert {
    /// Reads the body of an alert record. An encrypted alert is longer than two bytes, and `Malformed`.
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

    /// Does the sender call it fatal?
    pub fn is_fatal(self) -> bool {
        self.level == AlertLevel::FATAL
    }
}

impl AlertDescription {
    /// What it says, as a phrase in the past tense that reads after "The client …" or "The server …".
    ///
    /// It is what the alert means by its specification (RFC 8446 §6, RFC 5246 §7.2), not why it was sent.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::CLOSE_NOTIFY => "ended the connection in good order",
            Self::UNEXPECTED_MESSAGE => "got a message that did not belong there",
            Self::BAD_RECORD_MAC => "could not decrypt a record",
            Self::DECRYPTION_FAILED => "could not decrypt a record",
            Self::RECORD_OVERFLOW => "got a record that was too long",
            Self::DECOMPRESSION_FAILURE => "could not decompress a record",
            Self::HANDSHAKE_FAILURE => "found no set of parameters that both sides accept",
            Self::NO_CERTIFICATE => "had no certificate to offer",
            Self::BAD_CERTIFICATE => "called the certificate corrupt or not valid for its purpose",
            Self::UNSUPPORTED_CERTIFICATE => "did not support the certificate's type",
            Self::CERTIFICATE_REVOKED => "found the certificate revoked",
            Self::CERTIFICATE_EXPIRED => "found the certificate expired or not yet valid",
            Self::CERTIFICATE_UNKNOWN => "refused the certificate without saying why",
            Self::ILLEGAL_PARAMETER => "got a field that was out of range or contradicted another",
            Self::UNKNOWN_CA => "did not trust the authority that issued the certificate",
            Self::ACCESS_DENIED => "accepted the certificate and denied access to its holder",
            Self::DECODE_ERROR => "could not decode a message",
            Self::DECRYPT_ERROR => "could not verify a signature or a Finished message",
            Self::TOO_MANY_CIDS_REQUESTED => "was asked for too many connection ids",
            Self::EXPORT_RESTRICTION => "met export restrictions",
            Self::PROTOCOL_VERSION => "did not support any protocol version on offer",
            Self::INSUFFICIENT_SECURITY => "required stronger parameters than those on offer",
            Self::INTERNAL_ERROR => "failed for an internal reason",
            Self::INAPPROPRIATE_FALLBACK => "refused a retry with a lower version than both sides support",
            Self::USER_CANCELED => "cancelled the handshake",
            Self::NO_RENEGOTIATION => "refused to renegotiate",
            Self::MISSING_EXTENSION => "missed a mandatory extension",
            Self::UNSUPPORTED_EXTENSION => "got an extension that it had not asked for",
            Self::CERTIFICATE_UNOBTAINABLE => "could not fetch the certificate from the given URL",
            Self::UNRECOGNIZED_NAME => "did not recognise the server name",
            Self::BAD_CERTIFICATE_STATUS_RESPONSE => "refused the stapled OCSP response",
            Self::BAD_CERTIFICATE_HASH_VALUE => "found that the certificate did not have the given hash",
            Self::UNKNOWN_PSK_IDENTITY => "did not know the pre-shared key",
            Self::CERTIFICATE_REQUIRED => "required a client certificate and got none",
            Self::GENERAL_ERROR => "failed for a reason that no other alert names",
            Self::NO_APPLICATION_PROTOCOL => "did not support any application protocol on offer",
            Self::ECH_REQUIRED => "required Encrypted ClientHello to be accepted",
            _ => "sent an alert that is not registered",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_exactly_two_bytes() {
        let alert = Alert { level: AlertLevel::FATAL, description: AlertDescription::UNKNOWN_CA };
        assert_eq!(Alert::decode(&[2, 48]), Decoded::Complete(alert));
        assert_eq!(Alert::decode(&[]), Decoded::Incomplete);
        assert_eq!(Alert::decode(&[2]), Decoded::Incomplete);
        assert_eq!(Alert::decode(&[0; 26]), Decoded::Malformed);
        assert!(alert.is_fatal());
    }

    #[test]
    fn every_registered_description_has_a_meaning_and_no_other_has() {
        let unregistered = AlertDescription(200).meaning();
        for description in (0..=255).map(AlertDescription) {
            assert_eq!(description.name().is_some(), description.meaning() != unregistered, "{description}");
        }
    }
}
