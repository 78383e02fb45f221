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
    /// Bytes that follow the header: 0 to [`Self::MAX_BODY`].
    pub length: u16,
}

impl RecordHeader {
    /// Bytes of a header.
    pub const LEN: usize = 5;
    /// The longest body in bytes: 2^14 + 2048, the bound on `TLSCiphertext` of RFC 5246 §6.2.3.
    pub const MAX_BODY: u16 = 16_384 + 2_048;

    /// Reads a header from the first five bytes; what follows is not looked at.
    ///
    /// `Malformed` as soon as the content type is not 20 to 24, the major version is not 3, or the length
    /// exceeds [`Self::MAX_BODY`].
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let byte = |at| bytes.get(at).copied();
        let impossible = byte(0).is_some_and(|content_type| !(20..=24).contains(&content_type))
            || byte(1).is_some_and(|major| major != 3)
            || byte(3).is_some_and(|high| high > Self::MAX_BODY.to_be_bytes()[0]);
        if impossible {
            return Decoded::Malformed;
        }
        let Some(&[content_type, major, minor, high, low]) = bytes.first_chunk() else {
            return Decoded::Incomplete;
        };
        let length = u16::from_be_bytes([high, low]);
        if length > Self::MAX_BODY {
            return Decoded::Malformed;
        }
        Decoded::Complete(Self {
            content_type: ContentType(content_type),
            version: ProtocolVersion(u16::from_be_bytes([major, minor])),
            length,
        })
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
    /// An RDP connection request or confirm in TPKT framing (MS-RDPBCGR §2.2.1).
    Rdp,
    /// SMTP or FTP: a `220` greeting, or a client's first command.
    SmtpOrFtp,
    /// IMAP: a greeting, or a client's first command.
    Imap,
    /// POP3: a greeting, or a client's first command.
    Pop3,
    /// PostgreSQL's `SSLRequest`, `GSSENCRequest` or version 3 startup message.
    PostgresSslRequest,
    /// A MySQL or `MariaDB` initial handshake packet.
    MySqlGreeting,
    /// An LDAP message; `StartTLS` is one (RFC 4511 §4.14).
    Ldap,
    /// An XMPP stream header (RFC 6120 §4.2).
    Xmpp,
    /// Something else.
    Other,
    /// Not enough bytes to tell.
    TooShort,
}

/// Says what a stream begins with. No answer needs more than the first 16 bytes, so none of what follows is
/// looked at.
pub fn sniff(first_bytes: &[u8]) -> FirstBytes {
    let bytes = first_bytes.get(..16).unwrap_or(first_bytes);
    let mut cut_short = false;
    for &(kind, looks_like) in SNIFFERS {
        match looks_like(bytes) {
            Likeness::Yes => return kind,
            Likeness::SoFar => cut_short = true,
            Likeness::No => {}
        }
    }
    if cut_short { FirstBytes::TooShort } else { FirstBytes::Other }
}

/// Could these bytes be the beginning of something?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Likeness {
    No,
    /// They end before it is decided.
    SoFar,
    Yes,
}

type Sniffer = fn(&[u8]) -> Likeness;

/// The first that says yes wins: the specific before the general.
const SNIFFERS: &[(FirstBytes, Sniffer)] = &[
    (FirstBytes::TlsRecord, looks_like_tls),
    (FirstBytes::SslV2Hello, looks_like_ssl_v2),
    (FirstBytes::ProxyV1, |b| starts_with_any(b, &["PROXY "])),
    (FirstBytes::ProxyV2, |b| starts_with(b, b"\r\n\r\n\0\r\nQUIT\n")),
    (FirstBytes::Http2Preface, |b| starts_with_any(b, &["PRI * HTTP/2.0"])),
    (FirstBytes::HttpConnect, |b| starts_with_any(b, &["CONNECT "])),
    (FirstBytes::Http, |b| starts_with_any(b, HTTP)),
    (FirstBytes::Ssh, |b| starts_with_any(b, &["SSH-"])),
    (FirstBytes::SmtpOrFtp, |b| starts_with_any(b, SMTP_OR_FTP)),
    (FirstBytes::Imap, looks_like_imap),
    (FirstBytes::Pop3, |b| starts_with_any(b, &["+OK", "CAPA\r\n", "STLS\r\n"])),
    (FirstBytes::Xmpp, |b| starts_with_any(b, &["<?xml", "<stream:"])),
    (FirstBytes::PostgresSslRequest, looks_like_postgres),
    (FirstBytes::Rdp, looks_like_rdp),
    (FirstBytes::MySqlGreeting, looks_like_mysql),
    (FirstBytes::Ldap, looks_like_ldap),
];

/// RFC 9110 §9.3, PATCH, the `WebDAV` methods that clients begin with, and a response.
const HTTP: &[&str] = &[
    "GET ",
    "HEAD ",
    "POST ",
    "PUT ",
    "DELETE ",
    "OPTIONS ",
    "TRACE ",
    "PATCH ",
    "PROPFIND ",
    "REPORT ",
    "MKCOL ",
    "HTTP/1.",
];

const SMTP_OR_FTP: &[&str] = &["220 ", "220-", "EHLO ", "HELO ", "LHLO ", "AUTH TLS", "AUTH SSL", "FEAT\r\n"];

fn looks_like_tls(bytes: &[u8]) -> Likeness {
    // Minor versions beyond 4 have never been on the wire, and would claim any `16 03 xx`.
    if bytes.get(2).is_some_and(|&minor| minor > 4) {
        return Likeness::No;
    }
    match RecordHeader::decode(bytes) {
        Decoded::Complete(_) => Likeness::Yes,
        // Three bytes are as good as five when no more come.
        Decoded::Incomplete if bytes.len() >= 3 => Likeness::Yes,
        Decoded::Incomplete => Likeness::SoFar,
        Decoded::Malformed => Likeness::No,
    }
}

fn looks_like_ssl_v2(bytes: &[u8]) -> Likeness {
    let byte = |at| bytes.get(at).copied();
    let is_v2_or_v3 = |major| byte(3).is_none_or(|found| found == major);
    let impossible = byte(0).is_some_and(|high| high & 0x80 == 0)
        || byte(2).is_some_and(|kind| kind != 1)
        || !(is_v2_or_v3(3) && byte(4).is_none_or(|minor| minor <= 4)
            || is_v2_or_v3(0) && byte(4).is_none_or(|minor| minor == 2));
    verdict(!impossible, bytes, 5)
}

fn looks_like_imap(bytes: &[u8]) -> Likeness {
    let greeting = starts_with_any(bytes, &["* OK", "* PREAUTH", "* BYE"]);
    if greeting != Likeness::No {
        return greeting;
    }
    // A client tags its commands: `a001 CAPABILITY`.
    let mut words = bytes.splitn(2, |&byte| byte == b' ');
    let (Some(tag), Some(command)) = (words.next(), words.next()) else { return Likeness::No };
    if tag.is_empty() || !tag.iter().all(u8::is_ascii_alphanumeric) {
        return Likeness::No;
    }
    starts_with_any(command, &["STARTTLS", "CAPABILITY", "ID ("])
}

fn looks_like_postgres(bytes: &[u8]) -> Likeness {
    let ssl_request = starts_with(bytes, &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
    let gss_request = starts_with(bytes, &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]);
    // Length, protocol 3.0, "user"
    let startup = bytes.first_chunk().map_or_else(
        || verdict(bytes.iter().take(2).all(|&byte| byte == 0), bytes, 4),
        |&[a, b, _, _]: &[u8; 4]| {
            if (a, b) == (0, 0) {
                starts_with(bytes.get(4..).unwrap_or_default(), &[0, 3, 0, 0])
            } else {
                Likeness::No
            }
        },
    );
    [ssl_request, gss_request, startup].into_iter().fold(Likeness::No, either)
}

fn looks_like_rdp(bytes: &[u8]) -> Likeness {
    // TPKT version 3, reserved 0, length; X.224 length; connection request or confirm.
    let byte = |at| bytes.get(at).copied();
    let possible = byte(0).is_none_or(|version| version == 3)
        && byte(1).is_none_or(|reserved| reserved == 0)
        && byte(2).is_none_or(|high| high == 0)
        && byte(5).is_none_or(|code| code == 0xe0 || code == 0xd0);
    verdict(possible, bytes, 6)
}

fn looks_like_mysql(bytes: &[u8]) -> Likeness {
    // Three bytes of length, sequence 0, protocol 10, then a version such as "8.0" or "5.5.5-10".
    let byte = |at| bytes.get(at).copied();
    let possible = byte(0).is_none_or(|low| low >= 20)
        && byte(1).is_none_or(|middle| middle <= 1)
        && byte(2).is_none_or(|high| high == 0)
        && byte(3).is_none_or(|sequence| sequence == 0)
        && byte(4).is_none_or(|protocol| protocol == 10)
        && byte(5).is_none_or(|first| first.is_ascii_digit());
    verdict(possible, bytes, 6)
}

fn looks_like_ldap(bytes: &[u8]) -> Likeness {
    // SEQUENCE { INTEGER messageID, protocolOp }
    let Some((&0x30, rest)) = bytes.split_first() else { return verdict(bytes.is_empty(), bytes, 1) };
    let Some((&length, rest)) = rest.split_first() else { return Likeness::SoFar };
    let length_bytes = match length {
        0..=0x7f => 0,
        0x81..=0x84 => usize::from(length & 0x0f),
        _ => return Likeness::No,
    };
    let Some(message) = rest.get(length_bytes..) else { return Likeness::SoFar };
    let operation = match message {
        [0x02, 1, _, operation, ..] => operation,
        [0x02, 2, _, _, operation, ..] => operation,
        [0x02, 3, _, _, _, operation, ..] => operation,
        [0x02, 4, _, _, _, _, operation, ..] => operation,
        [] | [0x02] | [0x02, 1..=4, ..] => return Likeness::SoFar,
        _ => return Likeness::No,
    };
    // Any APPLICATION tag of RFC 4511 §4.
    verdict((0x40..=0x59).contains(operation) || (0x60..=0x79).contains(operation), bytes, 1)
}

/// `possible` holds for every byte that is there; it is decided once there are `decisive` of them.
fn verdict(possible: bool, bytes: &[u8], decisive: usize) -> Likeness {
    match possible {
        false => Likeness::No,
        true if bytes.len() < decisive => Likeness::SoFar,
        true => Likeness::Yes,
    }
}

fn starts_with(bytes: &[u8], prefix: &[u8]) -> Likeness {
    if bytes.starts_with(prefix) {
        Likeness::Yes
    } else if prefix.starts_with(bytes) {
        Likeness::SoFar
    } else {
        Likeness::No
    }
}

fn starts_with_any(bytes: &[u8], prefixes: &[&str]) -> Likeness {
    prefixes.iter().map(|prefix| starts_with(bytes, prefix.as_bytes())).fold(Likeness::No, either)
}

fn either(a: Likeness, b: Likeness) -> Likeness {
    match (a, b) {
        (Likeness::Yes, _) | (_, Likeness::Yes) => Likeness::Yes,
        (Likeness::SoFar, _) | (_, Likeness::SoFar) => Likeness::SoFar,
        (Likeness::No, Likeness::No) => Likeness::No,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_from_five_bytes_and_the_rest_is_ignored() {
        let expected = RecordHeader {
            content_type: ContentType::HANDSHAKE,
            version: ProtocolVersion::TLS1_0,
            length: 0x0200,
        };
        let bytes = [0x16, 0x03, 0x01, 0x02, 0x00, 0xff];
        assert_eq!(RecordHeader::decode(&bytes), Decoded::Complete(expected));
        for len in 0..5 {
            assert_eq!(RecordHeader::decode(&bytes[..len]), Decoded::Incomplete, "{len} bytes");
        }
    }

    #[test]
    fn a_header_with_an_impossible_type_version_or_length_is_malformed_as_early_as_possible() {
        for bytes in [&[0x19][..], &[0x13], b"G", &[0x16, 0x02], &[0x16, 0x03, 0x01, 0x49]] {
            assert_eq!(RecordHeader::decode(bytes), Decoded::Malformed, "{bytes:02x?}");
        }
        assert_eq!(RecordHeader::decode(&[0x17, 3, 3, 0x48, 0x01]), Decoded::Malformed);
        assert!(matches!(RecordHeader::decode(&[0x17, 3, 3, 0x48, 0x00]), Decoded::Complete(_)));
        assert!(matches!(RecordHeader::decode(&[0x17, 3, 3, 0, 0]), Decoded::Complete(_)));
    }

    #[test]
    fn protocols_are_recognised_by_their_first_bytes() {
        use FirstBytes::*;
        let cases: &[(&[u8], FirstBytes)] = &[
            (&[0x16, 3, 1, 2, 0, 1], TlsRecord),
            (&[0x15, 3, 3, 0, 2, 2, 40], TlsRecord),
            (&[0x16, 3, 1], TlsRecord),
            (&[0x80, 0x2e, 1, 3, 1, 0], SslV2Hello),
            (&[0x80, 0x2e, 1, 0, 2, 0], SslV2Hello),
            (b"GET / HTTP/1.1\r\n", Http),
            (b"PROPFIND /dav HT", Http),
            (b"HTTP/1.1 400 Bad", Http),
            (b"CONNECT example.", HttpConnect),
            (b"PRI * HTTP/2.0\r\n", Http2Preface),
            (b"PROXY TCP4 192.0", ProxyV1),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", ProxyV2),
            (b"SSH-2.0-OpenSSH", Ssh),
            (&[3, 0, 0, 0x13, 0x0e, 0xe0, 0, 0, 0, 0], Rdp),
            (b"220 mail.example", SmtpOrFtp),
            (b"EHLO client.exam", SmtpOrFtp),
            (b"* OK [CAPABILITY", Imap),
            (b"a001 STARTTLS\r\n", Imap),
            (b"+OK POP3 ready", Pop3),
            (&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f], PostgresSslRequest),
            (&[0, 0, 0, 0x29, 0, 3, 0, 0, b'u'], PostgresSslRequest),
            (b"\x4a\0\0\0\x0a8.0.36", MySqlGreeting),
            (b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16", Ldap),
            (b"<?xml version='1", Xmpp),
            (b"<stream:stream t", Xmpp),
            (b"\x05\x01\x00", Other),
            (b"hello there", Other),
            (b"", TooShort),
            (&[0x16], TooShort),
            (b"GE", TooShort),
            (b"\r\n\r\n", TooShort),
        ];
        for &(bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_longer_look_never_takes_back_an_answer_that_was_given() {
        for whole in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            b"* OK ready",
            b"\x30\x1d\x02\x01\x01\x77\x18\x80",
            &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f],
            &[0x80, 0x2e, 1, 3, 1, 0],
        ] {
            let last = sniff(whole);
            for len in 0..whole.len() {
                let early = sniff(&whole[..len]);
                assert!(
                    early == last || early == FirstBytes::TooShort,
                    "{early:?} from {len} bytes of {last:?}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = RecordHeader::decode(&bytes);
            // What lies beyond the sixteenth byte cannot matter.
            prop_assert_eq!(sniff(&bytes), sniff(bytes.get(..16).unwrap_or(&bytes)));
        }
    }
}
