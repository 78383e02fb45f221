//! Handshake messages: the 4-byte header (RFC 8446 §4) and the body of each type.

use super::{
    Decoded,
    certificate::{CertificateCache, CertificateChain},
    client_hello::ClientHello,
    codepoints::{CipherSuite, HandshakeType, NamedGroup, ProtocolVersion, SignatureScheme},
    server_hello::ServerHello,
};

/// The four bytes before every handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// What follows.
    pub kind: HandshakeType,
    /// Bytes of the body: 0 to 2^24 - 1. Not checked against any limit.
    pub length: u32,
}

impl MessageHeader {
    /// Bytes of a header.
    pub const LEN: usize = 4;

    /// Reads a header from the first four bytes. Never malformed: any type may be registered one day.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let _ = bytes;
        Decoded::Incomplete
    }
}

/// What the ServerHello fixed. The layout of later messages depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The version selected.
    pub version: ProtocolVersion,
    /// The suite selected.
    pub cipher_suite: CipherSuite,
}

/// One handshake message that was sent in the clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The client's offer.
    ClientHello(Box<ClientHello>),
    /// The server's pick, or its request for another offer.
    ServerHello(Box<ServerHello>),
    /// Certificates of either side (≤ 1.2).
    Certificate(CertificateChain),
    /// The server asks for a client certificate (≤ 1.2).
    CertificateRequest(CertificateRequest),
    /// The server's half of an ephemeral key exchange (≤ 1.2).
    ServerKeyExchange(ServerKeyExchange),
    /// End of the server's flight (≤ 1.2).
    ServerHelloDone,
    /// The client's half of the key exchange (≤ 1.2); the content is not looked at.
    ClientKeyExchange,
    /// The client proves its certificate's key (≤ 1.2).
    CertificateVerify {
        /// The algorithm; only in TLS 1.2.
        scheme: Option<SignatureScheme>,
    },
    /// A stapled OCSP response (≤ 1.2, RFC 6066 §8).
    CertificateStatus {
        /// Bytes of the response.
        len: u32,
    },
    /// A ticket for resumption; the content is not looked at.
    NewSessionTicket {
        /// Bytes of the ticket (≤ 1.2).
        len: u32,
    },
    /// The server asks for renegotiation (≤ 1.2).
    HelloRequest,
    /// The first protected message; in the clear only with a NULL cipher.
    Finished,
    /// RFC 8446 §4.6.3.
    KeyUpdate,
    /// RFC 8879.
    CompressedCertificate,
    /// RFC 8446 §4.3.1.
    EncryptedExtensions,
    /// Any other type.
    Other(HandshakeType),
}

/// What a server wants in a client certificate (RFC 5246 §7.4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Key and signature kinds, as numbers (1 is `rsa_sign`, 64 is `ecdsa_sign`).
    pub certificate_types: Vec<u8>,
    /// In wire order; empty before TLS 1.2.
    pub signature_schemes: Vec<SignatureScheme>,
    /// Names of the authorities that the server accepts, at most [`Self::MAX_AUTHORITIES`] of them.
    pub authorities: Vec<Box<str>>,
    /// How many names were sent.
    pub authority_count: u16,
}

impl CertificateRequest {
    /// Names kept of one request.
    pub const MAX_AUTHORITIES: usize = 64;
}

/// The server's half of an ephemeral key exchange, without its key and signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerKeyExchange {
    /// The curve (ECDHE).
    pub group: Option<NamedGroup>,
    /// Bits of the prime (DHE).
    pub dh_bits: Option<u16>,
    /// The signature's algorithm; only in TLS 1.2 and not with an anonymous suite.
    pub scheme: Option<SignatureScheme>,
}

impl Message {
    /// Reads the body of a message of type `kind`. Before the ServerHello, `selection` is `None`.
    pub fn decode(
        kind: HandshakeType,
        body: &[u8],
        selection: Option<Selection>,
        certificates: &mut CertificateCache,
    ) -> Decoded<Self> {
        let _ = (kind, body, selection, certificates);
        Decoded::Incomplete
    }
}
