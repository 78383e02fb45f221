//! Fuzz bodies of the decoders: no bytes hang or break them, and none hide what stands beside.

use rustls::server::Acceptor;
use tls_parser::{TlsMessageHandshake, parse_tls_message_handshake};

use super::Decoded;
use super::certificate::{Certificate, CertificateCache, CertificateChain, SubjectAltName};
use super::client_hello::{ClientHello, Problem, ServerName};
use super::codepoints::{
    CipherSuite, ExtensionType, HandshakeType, NamedGroup, ProtocolVersion, SignatureScheme,
};
use super::fingerprint;
use super::handshake::{Message, MessageHeader, Selection};
use super::record::{RecordHeader, sniff};
use super::server_hello::ServerHello;
use crate::fuzz::Input;

/// Suites whose key exchanges are laid out differently.
const SUITES: [u16; 8] = [0x1301, 0xc02f, 0xc02b, 0x009e, 0x002f, 0x00aa, 0xc035, 0x0034];

/// Type, selection, body.
pub(crate) fn message(data: &[u8]) {
    let mut input = Input::new(data);
    let (kind, selection) = (HandshakeType(input.byte()), input.byte());
    let suite = SUITES.get(usize::from(selection >> 4 & 7)).copied().unwrap_or_default();
    let selection = (selection & 0x80 == 0).then(|| Selection {
        version: ProtocolVersion(0x0300 | u16::from(selection & 7)),
        cipher_suite: CipherSuite(suite),
    });
    let body = input.rest();
    let mut certificates = CertificateCache::new();
    let whole = Message::decode(kind, body, selection, &mut certificates);
    for cut in [body.len() / 2, body.len().saturating_sub(1), body.len().min(40)] {
        let prefix = body.get(..cut).unwrap_or_default();
        let _ = Message::decode(kind, prefix, selection, &mut certificates);
    }
    match whole {
        Decoded::Complete(Message::CertificateRequest(request)) => {
            assert!(request.authorities.len() <= usize::from(request.authority_count));
            assert!(request.authorities.iter().all(|name| is_harmless(name)));
        }
        Decoded::Complete(Message::ServerHello(hello)) => assert!(hello.extensions.len() * 4 <= body.len()),
        Decoded::Complete(Message::Certificate(chain)) => check_chain(&chain),
        _ => {}
    }
}

/// A ClientHello's body: read as tls-parser and rustls read it, where they do.
pub(crate) fn client_hello(data: &[u8]) {
    let ours = ClientHello::decode(data);
    if let Some(truncated) = ClientHello::decode_truncated(data) {
        assert!(truncated.is_truncated());
    }
    let _ = ClientHello::decode_ssl_v2(data);
    let _ = sniff(data);
    let Ok(length) = u16::try_from(data.len() + MessageHeader::LEN) else { return };
    let mut message = vec![1, 0];
    message.extend((length - 4).to_be_bytes());
    message.extend(data);

    if let Decoded::Complete(hello) = &ours {
        // Two bytes each, and GREASE and duplicates included, all of them stand in the message.
        assert!(2 * hello.cipher_suites.len() + 4 * hello.extensions.len() <= data.len());
        assert!(hello.problems.len() <= 16);
        assert!(hello.server_name.as_ref().is_none_or(|name| is_harmless(&name.as_str())));
        let ja4 = fingerprint::ja4(hello);
        assert!(is_harmless(&ja4) && is_harmless(&fingerprint::ja3(hello)), "{ja4}");
    }
    if let Ok((rest, tls_parser::TlsMessage::Handshake(TlsMessageHandshake::ClientHello(theirs)))) =
        parse_tls_message_handshake(&message)
        && rest.is_empty()
        // tls-parser does not mind what stands behind a list that ends early.
        && let Decoded::Complete(ours) = &ours
    {
        assert_eq!(ours.legacy_version.0, theirs.version.0);
        let theirs_suites: Vec<_> = theirs.ciphers.iter().map(|suite| CipherSuite(suite.0)).collect();
        assert_eq!(ours.cipher_suites.to_vec(), theirs_suites);
        assert_eq!(usize::from(ours.session_id_len), theirs.session_id.map_or(0, <[u8]>::len));
        assert_eq!(ours.compression_methods.len(), theirs.comp.len());
    }
    let mut record = vec![22, 3, 1];
    record.extend(length.to_be_bytes());
    record.extend(&message);
    if length > RecordHeader::MAX_BODY {
        return;
    }
    let mut acceptor = Acceptor::default();
    if acceptor.read_tls(&mut record.as_slice()).is_ok()
        && let Ok(Some(accepted)) = acceptor.accept()
    {
        let theirs = accepted.client_hello();
        let Decoded::Complete(ours) = ours else { panic!("rustls accepts what is {ours:?}") };
        let name = ours.server_name.as_ref().map(|name| name.as_str().into_owned());
        if let Some(theirs) = theirs.server_name() {
            // rustls takes an address for no name, and some versions of it drop a final dot.
            let without_dot = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            assert_eq!(name.as_deref().map(without_dot), Some(without_dot(theirs)));
        }
        let suites: Vec<_> =
            theirs.cipher_suites().iter().map(|suite| CipherSuite(u16::from(*suite))).collect();
        assert_eq!(ours.cipher_suites.to_vec(), suites);
        let schemes: Vec<_> =
            theirs.signature_schemes().iter().map(|scheme| SignatureScheme(u16::from(*scheme))).collect();
        assert_eq!(ours.signature_schemes.to_vec(), schemes);
        if let Some(groups) = theirs.named_groups() {
            let groups: Vec<_> = groups.iter().map(|group| NamedGroup(u16::from(*group))).collect();
            assert_eq!(ours.supported_groups.to_vec(), groups);
        }
        if let Some(alpn) = theirs.alpn() {
            assert!(alpn.eq(ours.alpn.iter().map(|protocol| &**protocol)));
        }
    }
}

/// Type and content of one extension, between two others that must be read whatever it is.
pub(crate) fn extension(data: &[u8]) {
    const GROUPS: [u8; 4] = [0, 2, 0, 29];
    const SCHEMES: [u8; 4] = [0, 2, 4, 3];
    let mut input = Input::new(data);
    let kind = ExtensionType(input.u16());
    let content = input.rest();
    let Ok(len) = u16::try_from(content.len()) else { return };
    if content.len() > 60_000 {
        return;
    }
    let mut list = Vec::new();
    for (kind, content) in [
        (ExtensionType::SUPPORTED_GROUPS, &GROUPS[..]),
        (kind, content),
        (ExtensionType::SIGNATURE_ALGORITHMS, &SCHEMES[..]),
    ] {
        list.extend(kind.0.to_be_bytes());
        list.extend(u16::try_from(content.len()).unwrap_or(len).to_be_bytes());
        list.extend(content);
    }
    let extensions = [&u16::try_from(list.len()).unwrap_or_default().to_be_bytes()[..], &list].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    body.extend(&extensions);
    let hello = ClientHello::decode(&body).complete();
    let Some(hello) = hello else { panic!("one extension keeps a hello from being read") };
    assert_eq!(hello.extensions.len(), 3);
    assert_eq!(hello.supported_groups.as_slice(), [NamedGroup::X25519]);
    if kind != ExtensionType::SIGNATURE_ALGORITHMS {
        assert_eq!(hello.signature_schemes.as_slice(), [SignatureScheme::ECDSA_SECP256R1_SHA256]);
    }
    assert!(!hello.problems.contains(&Problem::BrokenExtensionList));
    let _ = (fingerprint::ja3(&hello), fingerprint::ja4(&hello));

    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0xc0, 0x2f, 0]);
    body.extend(&extensions);
    let hello = ServerHello::decode(&body).complete();
    assert_eq!(hello.map(|hello| hello.extensions.len()), Some(3));
}

/// One certificate, alone and twice in a chain.
pub(crate) fn certificate(data: &[u8]) {
    let mut certificates = CertificateCache::new();
    let _ = CertificateChain::decode(data, &mut certificates);
    let mut list = Vec::new();
    for _ in 0..2 {
        let [_, length @ ..] = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
        list.extend(length);
        list.extend(data);
    }
    let [_, length @ ..] = u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut body = length.to_vec();
    body.extend(list);
    let chain = CertificateChain::decode(&body, &mut certificates).complete();
    let Some(chain) = chain else { panic!("a chain whose lengths add up is not read") };
    assert!(!chain.malformed);
    assert_eq!(chain.count, 2);
    assert_eq!(chain.certificates.len() + chain.unparsable.len(), 2);
    check_chain(&chain);
}

fn check_chain(chain: &CertificateChain) {
    assert!(chain.certificates.len() <= CertificateChain::MAX_CERTIFICATES);
    let _ = (chain.links_in_order(), chain.missing_issuer(), chain.is_self_signed_leaf());
    for certificate in &chain.certificates {
        assert!(is_harmless(&certificate.subject) && is_harmless(&certificate.issuer));
        assert!(certificate.common_name.as_deref().is_none_or(is_harmless));
        assert!(certificate.serial.len() <= 64);
        assert!(certificate.names.len() <= Certificate::MAX_NAMES);
        for name in &certificate.names {
            if let SubjectAltName::Dns(text) | SubjectAltName::Uri(text) | SubjectAltName::Email(text) = name
            {
                assert!(is_harmless(text));
            }
        }
        for name in ["api.example.com", "", ".", "192.0.2.1", "*.example.com", "[::1]"] {
            let _ = certificate.matches_name(&ServerName::new(name.as_bytes()));
        }
    }
}

/// Nothing in it moves a cursor.
fn is_harmless(text: &str) -> bool {
    text.chars().all(|character| !character.is_control())
}
