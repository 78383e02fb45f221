//! ServerHello and HelloRetryRequest: what a server picks (RFC 8446 §4.1.3, §4.1.4).

pub use super::client_hello::SessionId;
use super::{
    Decoded,
    codepoints::{CipherSuite, ExtensionType, NamedGroup, ProtocolVersion},
    extensions::Problem,
};

/// What a server picked. Its random is looked at for the two constants of RFC 8446 §4.1.3 and not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// The version field; 1.2 in TLS 1.3.
    pub legacy_version: ProtocolVersion,
    /// The version selected: `supported_versions` if it is there, else `legacy_version`.
    pub version: ProtocolVersion,
    /// The suite selected.
    pub cipher_suite: CipherSuite,
    /// Is it a HelloRetryRequest?
    pub is_hello_retry_request: bool,
    /// The group of the server's key share, or the one that a HelloRetryRequest asks for.
    pub group: Option<NamedGroup>,
    /// The protocol selected (RFC 7301); encrypted in TLS 1.3.
    pub alpn: Option<Box<[u8]>>,
    /// The session id, to be compared with the client's.
    pub session_id: SessionId,
    /// Its length: 0 to 32 bytes.
    pub session_id_len: u8,
    /// RFC 7627.
    pub extended_master_secret: bool,
    /// RFC 5746.
    pub renegotiation_info: bool,
    /// A new session ticket will follow (RFC 5077 §3.2).
    pub session_ticket: bool,
    /// One of the client's pre-shared keys was accepted (TLS 1.3).
    pub psk_selected: bool,
    /// A stapled OCSP response will follow (≤ 1.2).
    pub status_request: bool,
    /// RFC 7366.
    pub encrypt_then_mac: bool,
    /// A HelloRetryRequest's cookie is present.
    pub cookie: bool,
    /// In wire order.
    pub extensions: Vec<ExtensionType>,
    /// The sentinel in the random's last eight bytes.
    pub downgrade: Option<Downgrade>,
    /// 0 is none.
    pub compression: u8,
    /// What was not as it should be.
    pub problems: Vec<Problem>,
}

/// A server that can do better says so in its random (RFC 8446 §4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Downgrade {
    /// It can do TLS 1.3 and picked 1.2.
    To12,
    /// It can do TLS 1.2 and picked something older.
    ToOlder,
}

impl ServerHello {
    /// Reads the body of a ServerHello: what follows the 4-byte handshake header.
    pub fn decode(body: &[u8]) -> Decoded<Self> {
        let _ = body;
        Decoded::Incomplete
    }
}
