//! Record headers (RFC 8446 §5.1), and what the first bytes of a stream are if they are not a record.

use super::{
    Decoded,
    codepoints::{ContentType, ProtocolVersion},
};

/// The five bytes before every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record carries, or 23 for anything encrypted in TLS 1.3.
    pub content_type: ContentType,
    /// The record version, frozen at 1.0 or 1.2 by most senders.
    pub version: ProtocolVersion,
    /// Bytes that follow the header: 0 to 18,432.
    pub length: u16,
}

impl RecordHeader {
    /// Bytes of a header.
    pub const LEN: usize = 5;
    /// The longest body: 2^14 + 2048, the bound on TLSCiphertext of RFC 5246 §6.2.3.
    pub const MAX_BODY: u16 = 16_384 + 2_048;

    /// Reads a header from the first five bytes.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let _ = bytes;
        Decoded::Incomplete
    }
}

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FirstBytes {
    /// A TLS record header.
    TlsRecord,
    /// An SSL 2.0 `CLIENT-HELLO`, which old clients used to offer newer versions too (RFC 5246 App. E.2).
    SslV2Hello,
    /// An HTTP/1 request other than CONNECT, or an HTTP/1 response.
    Http,
    /// An HTTP CONNECT request.
    HttpConnect,
    /// The HTTP/2 connection preface without TLS (RFC 9113 §3.4).
    Http2Preface,
    /// A PROXY protocol header, version 1.
    ProxyV1,
    /// A PROXY protocol header, version 2.
    ProxyV2,
    /// An SSH identification string (RFC 4253 §4.2).
    Ssh,
    /// An RDP connection request or confirm in TPKT framing.
    Rdp,
    /// A `220` greeting: SMTP or FTP.
    SmtpOrFtp,
    /// An IMAP greeting.
    Imap,
    /// A POP3 greeting.
    Pop3,
    /// PostgreSQL's `SSLRequest`.
    PostgresSslRequest,
    /// A MySQL or MariaDB initial handshake packet.
    MySqlGreeting,
    /// An LDAP message; StartTLS is one (RFC 4511 §4.14).
    Ldap,
    /// An XMPP stream header.
    Xmpp,
    /// Something else.
    Other,
    /// Not enough bytes to tell.
    TooShort,
}

/// Says what a stream begins with; 16 bytes are enough for any answer.
pub fn sniff(first_bytes: &[u8]) -> FirstBytes {
    let _ = first_bytes;
    FirstBytes::TooShort
}
