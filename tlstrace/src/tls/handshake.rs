//! Handshake messages: the 4-byte header (RFC 8446 §4) and the body of each type.

use tls_parser::{
    ECParametersContent, parse_dh_params, parse_ecdh_params, parse_tls_handshake_certificatestatus,
};

use super::{
    Decoded,
    certificate::{CertificateCache, CertificateChain, distinguished_name_text},
    client_hello::ClientHello,
    codepoints::{
        Authentication, CipherSuite, HandshakeType, KeyExchange, NamedGroup, ProtocolVersion, SignatureScheme,
    },
    reader::Reader,
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
        match bytes.first_chunk() {
            Some(&[kind, a, b, c]) => Decoded::Complete(Self {
                kind: HandshakeType(kind),
                length: u32::from_be_bytes([0, a, b, c]),
            }),
            None => Decoded::Incomplete,
        }
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
    /// Reads the body of a message of type `kind`: what follows the 4-byte header. Before the ServerHello,
    /// `selection` is `None`.
    ///
    /// `Incomplete` if the body ends before the message does, which is a fault of the peer if the body has
    /// the length that the header announced.
    pub fn decode(
        kind: HandshakeType,
        body: &[u8],
        selection: Option<Selection>,
        certificates: &mut CertificateCache,
    ) -> Decoded<Self> {
        match kind {
            HandshakeType::CLIENT_HELLO => {
                ClientHello::decode(body).map(|hello| Self::ClientHello(Box::new(hello)))
            }
            HandshakeType::SERVER_HELLO => {
                ServerHello::decode(body).map(|hello| Self::ServerHello(Box::new(hello)))
            }
            HandshakeType::CERTIFICATE => CertificateChain::decode(body, certificates).map(Self::Certificate),
            HandshakeType::CERTIFICATE_REQUEST => {
                CertificateRequest::decode(body, selection).map(Self::CertificateRequest)
            }
            HandshakeType::SERVER_KEY_EXCHANGE => {
                ServerKeyExchange::decode(body, selection).map(Self::ServerKeyExchange)
            }
            HandshakeType::SERVER_HELLO_DONE => Self::empty(body, Self::ServerHelloDone),
            HandshakeType::HELLO_REQUEST => Self::empty(body, Self::HelloRequest),
            HandshakeType::CLIENT_KEY_EXCHANGE => Decoded::Complete(Self::ClientKeyExchange),
            HandshakeType::CERTIFICATE_VERIFY => {
                let mut reader = Reader::new(body);
                let scheme = if reads_scheme(selection) { reader.u16().map(SignatureScheme) } else { None };
                match reader.vector16() {
                    Some(_signature) if reader.is_empty() => {
                        Decoded::Complete(Self::CertificateVerify { scheme })
                    }
                    Some(_) => Decoded::Malformed,
                    None => Decoded::Incomplete,
                }
            }
            HandshakeType::CERTIFICATE_STATUS => match parse_tls_handshake_certificatestatus(body) {
                Ok((_, status)) => Decoded::Complete(Self::CertificateStatus { len: len_u32(status.blob) }),
                Err(_) => Decoded::Incomplete,
            },
            HandshakeType::NEW_SESSION_TICKET => {
                let mut reader = Reader::new(body);
                let Some(_lifetime_hint) = reader.array::<4>() else { return Decoded::Incomplete };
                match reader.vector16() {
                    Some(ticket) => Decoded::Complete(Self::NewSessionTicket { len: len_u32(ticket) }),
                    None => Decoded::Incomplete,
                }
            }
            HandshakeType::FINISHED => Decoded::Complete(Self::Finished),
            HandshakeType::KEY_UPDATE => Decoded::Complete(Self::KeyUpdate),
            HandshakeType::COMPRESSED_CERTIFICATE => Decoded::Complete(Self::CompressedCertificate),
            HandshakeType::ENCRYPTED_EXTENSIONS => Decoded::Complete(Self::EncryptedExtensions),
            other => Decoded::Complete(Self::Other(other)),
        }
    }

    fn empty(body: &[u8], message: Self) -> Decoded<Self> {
        if body.is_empty() { Decoded::Complete(message) } else { Decoded::Malformed }
    }
}

impl CertificateRequest {
    /// Names kept of one request.
    pub const MAX_AUTHORITIES: usize = 64;

    fn decode(body: &[u8], selection: Option<Selection>) -> Decoded<Self> {
        // By version, where tls-parser tries one layout after the other.
        let mut reader = Reader::new(body);
        let Some(certificate_types) = reader.vector8() else { return Decoded::Incomplete };
        let mut signature_schemes = Vec::new();
        if reads_scheme(selection) {
            let Some(schemes) = reader.vector16() else { return Decoded::Incomplete };
            let (pairs, _) = schemes.as_chunks();
            signature_schemes = pairs.iter().map(|&pair| SignatureScheme(u16::from_be_bytes(pair))).collect();
        }
        let Some(names) = reader.vector16() else { return Decoded::Incomplete };
        let mut names = Reader::new(names);
        let mut request =
            Self { certificate_types: certificate_types.to_vec(), signature_schemes, ..Self::default() };
        while !names.is_empty() {
            let Some(name) = names.vector16() else { return Decoded::Malformed };
            request.authority_count = request.authority_count.saturating_add(1);
            if request.authorities.len() < Self::MAX_AUTHORITIES {
                request.authorities.extend(distinguished_name_text(name));
            }
        }
        if reader.is_empty() { Decoded::Complete(request) } else { Decoded::Malformed }
    }
}

impl ServerKeyExchange {
    fn decode(body: &[u8], selection: Option<Selection>) -> Decoded<Self> {
        let Some(selection) = selection else {
            // Without the ServerHello there is no telling what the bytes mean.
            return Decoded::Complete(Self::default());
        };
        // A PSK suite sends its identity hint first (RFC 4279 §3, RFC 5489 §2).
        let mut reader = Reader::new(body);
        let suite = selection.cipher_suite;
        if suite.authentication() == Some(Authentication::Psk) && reader.vector16().is_none() {
            return Decoded::Incomplete;
        }
        let (mut exchange, rest) = match suite.key_exchange() {
            Some(KeyExchange::Ecdhe) => match parse_ecdh_params(reader.rest()) {
                Ok((rest, params)) => {
                    let group = match params.curve_params.params_content {
                        ECParametersContent::NamedGroup(group) => Some(NamedGroup(group.0)),
                        ECParametersContent::ExplicitPrime(_) => None,
                    };
                    (Self { group, ..Self::default() }, rest)
                }
                Err(error) => return undecoded(&error),
            },
            Some(KeyExchange::Dhe) => match parse_dh_params(reader.rest()) {
                Ok((rest, params)) => (Self { dh_bits: bits(params.dh_p), ..Self::default() }, rest),
                Err(error) => return undecoded(&error),
            },
            _ => return Decoded::Complete(Self::default()),
        };
        let is_signed = matches!(
            suite.authentication(),
            Some(Authentication::Rsa | Authentication::Ecdsa | Authentication::Dss)
        );
        if is_signed && reads_scheme(Some(selection)) {
            exchange.scheme = Reader::new(rest).u16().map(SignatureScheme);
        }
        Decoded::Complete(exchange)
    }
}

/// From TLS 1.2 on, a signature says which algorithm it is of (RFC 5246 §4.7). That is also the layout to
/// assume if the ServerHello was not seen.
fn reads_scheme(selection: Option<Selection>) -> bool {
    selection.is_none_or(|selection| selection.version >= ProtocolVersion::TLS1_2)
}

fn undecoded<T>(error: &tls_parser::nom::Err<tls_parser::nom::error::Error<&[u8]>>) -> Decoded<T> {
    if error.is_incomplete() { Decoded::Incomplete } else { Decoded::Malformed }
}

/// Bits of a big-endian number.
fn bits(number: &[u8]) -> Option<u16> {
    let first = number.iter().position(|&byte| byte != 0)?;
    let significant = number.get(first..)?;
    let bits = significant.len().checked_mul(8)? - significant.first()?.leading_zeros() as usize;
    u16::try_from(bits).ok()
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::testing::{self, body};

    const ECDHE_RSA: Selection =
        Selection { version: ProtocolVersion::TLS1_2, cipher_suite: CipherSuite(0xc030) };

    fn decode(kind: HandshakeType, body: &[u8], selection: Option<Selection>) -> Decoded<Message> {
        Message::decode(kind, body, selection, &mut CertificateCache::new())
    }

    #[test]
    fn a_header_is_a_type_and_three_bytes_of_length() {
        let header = MessageHeader { kind: HandshakeType::CERTIFICATE, length: 0x01_02_03 };
        assert_eq!(MessageHeader::decode(&[11, 1, 2, 3, 99]), Decoded::Complete(header));
        assert_eq!(MessageHeader::decode(&[11, 1, 2]), Decoded::Incomplete);
    }

    #[test]
    fn a_certificate_request_names_types_algorithms_and_authorities() {
        let message = testing::certificate_request();
        let Decoded::Complete(Message::CertificateRequest(request)) =
            decode(HandshakeType::CERTIFICATE_REQUEST, body(&message), Some(ECDHE_RSA))
        else {
            panic!("not decoded")
        };
        assert_eq!(request.certificate_types, [1, 2, 64]);
        assert_eq!(request.signature_schemes[0].name(), Some("ecdsa_secp256r1_sha256"));
        assert_eq!(request.signature_schemes.last().unwrap().name(), Some("dsa_sha512"));
        assert_eq!(request.authorities, [Box::from("CN=Lab Root")]);
        assert_eq!(request.authority_count, 1);
    }

    #[test]
    fn a_certificate_request_of_tls_1_1_has_no_algorithms() {
        let old = Selection { version: ProtocolVersion::TLS1_1, ..ECDHE_RSA };
        let Decoded::Complete(Message::CertificateRequest(request)) =
            decode(HandshakeType::CERTIFICATE_REQUEST, &[1, 1, 0, 0], Some(old))
        else {
            panic!("not decoded")
        };
        assert_eq!((request.certificate_types, request.signature_schemes.len()), (vec![1], 0));
    }

    #[test]
    fn a_server_key_exchange_shows_group_and_scheme_for_the_suite_that_was_selected() {
        let message = testing::server_key_exchange();
        let expected = ServerKeyExchange {
            group: Some(NamedGroup::X25519),
            dh_bits: None,
            scheme: Some(SignatureScheme::RSA_PSS_RSAE_SHA256),
        };
        assert_eq!(
            decode(HandshakeType::SERVER_KEY_EXCHANGE, body(&message), Some(ECDHE_RSA)),
            Decoded::Complete(Message::ServerKeyExchange(expected))
        );
        // Without the ServerHello the same bytes mean nothing.
        assert_eq!(
            decode(HandshakeType::SERVER_KEY_EXCHANGE, body(&message), None),
            Decoded::Complete(Message::ServerKeyExchange(ServerKeyExchange::default()))
        );
    }

    #[test]
    fn a_finite_field_exchange_shows_the_size_of_its_prime() {
        let dhe = Selection { version: ProtocolVersion::TLS1_0, cipher_suite: CipherSuite(0x0033) };
        let mut params = vec![0, 129, 0];
        params.extend([0xff; 128]);
        params.extend([0, 1, 2, 0, 1, 9]);
        let expected = ServerKeyExchange { dh_bits: Some(1024), ..ServerKeyExchange::default() };
        assert_eq!(
            decode(HandshakeType::SERVER_KEY_EXCHANGE, &params, Some(dhe)),
            Decoded::Complete(Message::ServerKeyExchange(expected))
        );
    }

    #[test]
    fn tickets_and_empty_messages_show_their_length_and_nothing_else() {
        let message = testing::new_session_ticket();
        assert_eq!(
            decode(HandshakeType::NEW_SESSION_TICKET, body(&message), Some(ECDHE_RSA)),
            Decoded::Complete(Message::NewSessionTicket { len: 208 })
        );
        assert_eq!(
            decode(HandshakeType::SERVER_HELLO_DONE, &[], Some(ECDHE_RSA)),
            Decoded::Complete(Message::ServerHelloDone)
        );
        assert_eq!(decode(HandshakeType::SERVER_HELLO_DONE, &[0], Some(ECDHE_RSA)), Decoded::Malformed);
        assert_eq!(
            decode(HandshakeType(99), b"anything", None),
            Decoded::Complete(Message::Other(HandshakeType(99)))
        );
    }

    #[test]
    fn every_prefix_of_every_message_is_incomplete_or_malformed() {
        for (kind, message) in [
            (HandshakeType::CERTIFICATE, testing::certificate_chain()),
            (HandshakeType::CERTIFICATE_REQUEST, testing::certificate_request()),
            (HandshakeType::SERVER_KEY_EXCHANGE, testing::server_key_exchange()[..44].to_vec()),
            (HandshakeType::NEW_SESSION_TICKET, testing::new_session_ticket()),
        ] {
            let is_partial = kind == HandshakeType::SERVER_KEY_EXCHANGE;
            for len in 0..body(&message).len() {
                match decode(kind, &body(&message)[..len], Some(ECDHE_RSA)) {
                    // Its signature is not looked at.
                    Decoded::Complete(_) => assert!(is_partial && len > 35, "{kind} of {len} bytes"),
                    Decoded::Incomplete | Decoded::Malformed => {}
                }
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(
            kind in prop_oneof![0u8..30, any::<u8>()],
            version in prop_oneof![Just(0x0300u16), Just(0x0301), Just(0x0303), Just(0x0304), any::<u16>()],
            suite in any::<u16>(),
            bytes in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            let selection = Selection { version: ProtocolVersion(version), cipher_suite: CipherSuite(suite) };
            let _ = decode(HandshakeType(kind), &bytes, Some(selection));
            let _ = decode(HandshakeType(kind), &bytes, None);
        }
    }
}
