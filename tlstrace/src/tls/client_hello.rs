//! ClientHello: what a client offers (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2, and the SSL 2.0 form of App. E.2).

use std::{borrow::Cow, fmt};

pub use super::extensions::Problem;
use super::{
    Decoded,
    codepoints::{CipherSuite, ExtensionType, NamedGroup, ProtocolVersion, SignatureScheme},
};

/// What a client offers. Randoms, ticket contents, pre-shared key identities and key exchange values are not
/// kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version field; frozen at 1.2 by clients that can do more.
    pub legacy_version: ProtocolVersion,
    /// The session id, to be compared with the server's.
    pub session_id: SessionId,
    /// Its length: 0 to 32 bytes.
    pub session_id_len: u8,
    /// In wire order, GREASE included.
    pub cipher_suites: Vec<CipherSuite>,
    /// In wire order.
    pub compression_methods: Vec<u8>,
    /// In wire order, GREASE included.
    pub extensions: Vec<ExtensionType>,
    /// The host name of extension `server_name` (RFC 6066 §3).
    pub server_name: Option<ServerName>,
    /// As in the extension, GREASE included; empty without it.
    pub supported_versions: Vec<ProtocolVersion>,
    /// In wire order, GREASE included.
    pub supported_groups: Vec<NamedGroup>,
    /// In wire order, GREASE included.
    pub key_shares: Vec<KeyShare>,
    /// In wire order.
    pub signature_schemes: Vec<SignatureScheme>,
    /// `signature_algorithms_cert`, in wire order.
    pub signature_schemes_cert: Vec<SignatureScheme>,
    /// The protocols offered, in wire order (RFC 7301).
    pub alpn: Vec<Box<[u8]>>,
    /// In wire order (RFC 8422 §5.1.2).
    pub ec_point_formats: Vec<u8>,
    /// `psk_key_exchange_modes` (RFC 8446 §4.2.9).
    pub psk_modes: Vec<u8>,
    /// How many pre-shared keys are offered.
    pub psk_identities: u16,
    /// Does the client send data before the server has answered?
    pub early_data: bool,
    /// Bytes of the session ticket; 0 asks for one (RFC 5077 §3.2).
    pub session_ticket_len: Option<u16>,
    /// The algorithms of `compress_certificate` (RFC 8879 §3).
    pub compress_certificate: Vec<u16>,
    /// ECH is present: a real one or GREASE, which cannot be told apart (RFC 9849).
    pub encrypted_client_hello: bool,
    /// RFC 7627.
    pub extended_master_secret: bool,
    /// The extension; see [`Self::has_renegotiation_scsv`] for the signaling suite.
    pub renegotiation_info: bool,
    /// The largest record that the client takes, in bytes (RFC 8449).
    pub record_size_limit: Option<u16>,
    /// The client asks for a stapled OCSP response.
    pub status_request: bool,
    /// Bytes of padding (RFC 7685).
    pub padding_len: Option<u16>,
    /// RFC 8446 §4.2.6.
    pub post_handshake_auth: bool,
    /// A cookie from a HelloRetryRequest is returned.
    pub cookie: bool,
    /// Bytes of the whole message, its 4-byte header included.
    pub length: u32,
    /// Did it come in SSL 2.0 form?
    pub ssl_v2: bool,
    /// What was not as it should be.
    pub problems: Vec<Problem>,
}

/// One offered key exchange value, without the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyShare {
    /// The group it belongs to.
    pub group: NamedGroup,
    /// Bytes of the value.
    pub len: u16,
}

impl ClientHello {
    /// Reads the body of a ClientHello: what follows the 4-byte handshake header.
    pub fn decode(body: &[u8]) -> Decoded<Self> {
        let _ = body;
        Decoded::Incomplete
    }

    /// Reads what there is of a ClientHello whose end is missing. `None` if not even the cipher suites are
    /// there, or if it is malformed. [`Problem::Truncated`] marks the result.
    pub fn decode_truncated(body: &[u8]) -> Option<Self> {
        let _ = body;
        None
    }

    /// Reads an SSL 2.0 `CLIENT-HELLO` from the first byte of its two-byte header (RFC 5246 App. E.2).
    pub fn decode_ssl_v2(message: &[u8]) -> Decoded<Self> {
        let _ = message;
        Decoded::Incomplete
    }

    /// The versions that the client is known to offer, best first, GREASE left out. Without
    /// `supported_versions` that is `legacy_version` alone: how far below it the client would go, it does
    /// not say. See [`Self::offers`].
    pub fn offered_versions(&self) -> Vec<ProtocolVersion> {
        Vec::new()
    }

    /// The highest version offered.
    pub fn max_version(&self) -> ProtocolVersion {
        self.legacy_version
    }

    /// Could a server select `version`? Without `supported_versions` anything up to `legacy_version` might
    /// do.
    pub fn offers(&self, version: ProtocolVersion) -> bool {
        version == self.legacy_version
    }

    /// Did the client say that this is a second try with a lower version (RFC 7507)?
    pub fn has_fallback_scsv(&self) -> bool {
        self.cipher_suites.contains(&CipherSuite::FALLBACK_SCSV)
    }

    /// Did the client signal secure renegotiation by cipher suite (RFC 5746 §3.3)?
    pub fn has_renegotiation_scsv(&self) -> bool {
        self.cipher_suites.contains(&CipherSuite::EMPTY_RENEGOTIATION_INFO_SCSV)
    }
}

/// A session id that can be compared and nothing else: it is a resumption secret of sorts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionId {
    len: u8,
    hash: u64,
}

impl SessionId {
    /// Is there none?
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({} bytes)", self.len)
    }
}

/// A host name as a client sent it: any bytes at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName {
    raw: Box<[u8]>,
    len: u16,
}

impl ServerName {
    /// Bytes kept of a name. A DNS name is at most 253 bytes long.
    pub const MAX_KEPT: usize = 255;

    /// Takes a name from the wire; of one longer than [`Self::MAX_KEPT`] the beginning is kept.
    pub fn new(raw: &[u8]) -> Self {
        let kept = raw.get(..Self::MAX_KEPT).unwrap_or(raw);
        Self { raw: kept.into(), len: u16::try_from(raw.len()).unwrap_or(u16::MAX) }
    }

    /// The bytes, at most [`Self::MAX_KEPT`] of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Bytes that were sent.
    pub fn sent_len(&self) -> u16 {
        self.len
    }

    /// The name for people and machines: printable ASCII as it is, anything else (and `\`) as `\xNN`.
    pub fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    /// Is it an IP address, which RFC 6066 §3 forbids here?
    pub fn is_ip_literal(&self) -> bool {
        false
    }
}
