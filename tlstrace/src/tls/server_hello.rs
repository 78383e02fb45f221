//! ServerHello and HelloRetryRequest: what a server picks (RFC 8446 §4.1.3, §4.1.4).

use smallvec::SmallVec;
use tls_parser::TlsExtension;

pub use super::client_hello::SessionId;
use super::{
    Decoded,
    codepoints::{CipherSuite, ExtensionType, NamedGroup, ProtocolVersion},
    extensions::{Extension, ExtensionList, Problem, Visit, note},
    reader::Reader,
};

/// What a server picked. Its random is looked at for the two constants of RFC 8446 §4.1.3 and not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is the presence of one extension")]
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
    pub extensions: SmallVec<[ExtensionType; 8]>,
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
    ///
    /// `Incomplete` if the body ends before the message does.
    pub fn decode(body: &[u8]) -> Decoded<Self> {
        let mut reader = Reader::new(body);
        let Some(version) = reader.u16().map(ProtocolVersion) else { return Decoded::Incomplete };
        let Some(random) = reader.array::<32>() else { return Decoded::Incomplete };
        // TLS 1.3 up to draft 21 had neither session id nor compression here, and up to draft 15 its final
        // version number, which the final RFC forbids in this place.
        let is_short = version == ProtocolVersion::TLS1_3 || (DRAFT_00..DRAFT_22).contains(&version);
        let session_id = if is_short {
            &[]
        } else {
            match reader.rest().first() {
                None => return Decoded::Incomplete,
                Some(33..) => return Decoded::Malformed,
                Some(_) => {}
            }
            let Some(session_id) = reader.vector8() else { return Decoded::Incomplete };
            session_id
        };
        let Some(cipher_suite) = reader.u16().map(CipherSuite) else { return Decoded::Incomplete };
        let compression = if is_short { Some(0) } else { reader.u8() };
        let Some(compression) = compression else { return Decoded::Incomplete };
        let list = ExtensionList::new(reader.rest());
        if list.is_cut_off {
            return Decoded::Incomplete;
        }
        let mut hello = Self {
            legacy_version: version,
            version,
            cipher_suite,
            is_hello_retry_request: random == &HELLO_RETRY_REQUEST,
            session_id: SessionId::new(session_id),
            session_id_len: u8::try_from(session_id.len()).unwrap_or(u8::MAX),
            compression,
            ..Self::default()
        };
        hello.read_extensions(&list);
        if !hello.version.is_tls13() {
            hello.downgrade = Downgrade::from_random(random);
        }
        Decoded::Complete(hello)
    }

    fn read_extensions(&mut self, list: &ExtensionList<'_>) {
        if list.has_trailing_bytes {
            note(&mut self.problems, Problem::TrailingBytes);
        }
        list.walk(|visit| match visit {
            Visit::First(extension) => {
                self.extensions.push(extension.kind);
                if self.read_extension(extension).is_none() {
                    note(&mut self.problems, Problem::BrokenExtension(extension.kind));
                }
            }
            Visit::Again(kind) => {
                self.extensions.push(kind);
                note(&mut self.problems, Problem::DuplicateExtension(kind));
            }
            Visit::EndsEarly(kind) => {
                self.extensions.extend(kind);
                note(&mut self.problems, Problem::BrokenExtensionList);
            }
        });
    }

    /// `None` if the content is not as it should be.
    fn read_extension(&mut self, extension: Extension<'_>) -> Option<()> {
        let content = extension.content;
        let mut reader = Reader::new(content);
        let is_sound = match extension.kind {
            ExtensionType::SUPPORTED_VERSIONS => {
                self.version = ProtocolVersion(reader.u16()?);
                reader.is_empty()
            }
            ExtensionType::KEY_SHARE | ExtensionType::KEY_SHARE_BEFORE_DRAFT_23 => {
                self.group = Some(NamedGroup(reader.u16()?));
                // A HelloRetryRequest has the group alone (RFC 8446 §4.2.8).
                (self.is_hello_retry_request || reader.vector16().is_some()) && reader.is_empty()
            }
            ExtensionType::APPLICATION_LAYER_PROTOCOL_NEGOTIATION => {
                let TlsExtension::ALPN(protocols) = extension.parse_in_server_hello()? else { return None };
                let [protocol] = protocols.as_slice() else { return None };
                self.alpn = Some((*protocol).into());
                true
            }
            ExtensionType::PRE_SHARED_KEY => {
                self.psk_selected = true;
                content.len() == 2
            }
            ExtensionType::RENEGOTIATION_INFO => {
                self.renegotiation_info = true;
                extension.parse_in_server_hello().is_some()
            }
            ExtensionType::COOKIE => {
                self.cookie = true;
                reader.vector16().is_some() && reader.is_empty()
            }
            ExtensionType::EXTENDED_MASTER_SECRET => {
                self.extended_master_secret = true;
                content.is_empty()
            }
            ExtensionType::ENCRYPT_THEN_MAC => {
                self.encrypt_then_mac = true;
                content.is_empty()
            }
            ExtensionType::SESSION_TICKET => {
                self.session_ticket = true;
                content.is_empty()
            }
            ExtensionType::STATUS_REQUEST => {
                self.status_request = true;
                content.is_empty()
            }
            _ => true,
        };
        is_sound.then_some(())
    }
}

impl Downgrade {
    fn from_random(random: &[u8; 32]) -> Option<Self> {
        match random.last_chunk() {
            Some(b"DOWNGRD\x01") => Some(Self::To12),
            Some(b"DOWNGRD\x00") => Some(Self::ToOlder),
            _ => None,
        }
    }
}

const DRAFT_00: ProtocolVersion = ProtocolVersion(0x7f00);
const DRAFT_22: ProtocolVersion = ProtocolVersion(0x7f16);

/// SHA-256 of "HelloRetryRequest", the random that marks one (RFC 8446 §4.1.3).
const HELLO_RETRY_REQUEST: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
    0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::{
        client_hello::ClientHello,
        testing::{self, body, server_hello_with},
    };

    fn decode(body: &[u8]) -> ServerHello {
        ServerHello::decode(body).complete().unwrap()
    }

    #[test]
    fn tls_1_3_is_selected_by_extension_and_echoes_the_session_id() {
        let hello = decode(body(&testing::server_hello_tls13()));
        assert_eq!((hello.legacy_version, hello.version), (ProtocolVersion::TLS1_2, ProtocolVersion::TLS1_3));
        assert_eq!(hello.cipher_suite.name(), Some("TLS_AES_256_GCM_SHA384"));
        assert_eq!(hello.group, Some(NamedGroup::X25519));
        assert!(!hello.is_hello_retry_request && !hello.psk_selected);
        assert_eq!(hello.downgrade, None);
        let client = ClientHello::decode(body(&testing::client_hello_curl())).complete().unwrap();
        assert_eq!(hello.session_id, client.session_id);
    }

    #[test]
    fn tls_1_2_shows_its_extensions_in_the_clear() {
        let hello = decode(body(&testing::server_hello_tls12()));
        assert_eq!(hello.version, ProtocolVersion::TLS1_2);
        assert_eq!(hello.cipher_suite.name(), Some("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"));
        assert!(hello.renegotiation_info && hello.extended_master_secret && !hello.session_ticket);
        assert_eq!((hello.group, hello.compression), (None, 0));
        assert_eq!(hello.problems, []);
    }

    #[test]
    fn a_hello_retry_request_asks_for_a_group() {
        let hello = decode(body(&testing::hello_retry_request()));
        assert!(hello.is_hello_retry_request);
        assert_eq!(hello.version, ProtocolVersion::TLS1_3);
        assert_eq!(hello.group, Some(NamedGroup::SECP384R1));
        assert_eq!(hello.problems, []);
    }

    #[test]
    fn a_downgrade_is_seen_below_tls_1_3_only() {
        let hello = decode(body(&testing::server_hello_downgrade()));
        assert_eq!(hello.downgrade, Some(Downgrade::To12));
        let mut random = [0; 32];
        random[24..].copy_from_slice(b"DOWNGRD\0");
        assert_eq!(decode(&server_hello_with(random, &[])).downgrade, Some(Downgrade::ToOlder));
        assert_eq!(decode(&server_hello_with(random, &[(43, &[3, 4])])).downgrade, None);
    }

    #[test]
    fn extensions_21_and_22_are_told_apart() {
        let hello = decode(&server_hello_with([0; 32], &[(22, b""), (16, b"\0\x03\x02h2"), (41, &[0, 0])]));
        assert!(hello.encrypt_then_mac && hello.psk_selected);
        assert_eq!(hello.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(hello.problems, []);
        assert!(!decode(&server_hello_with([0; 32], &[(21, b"")])).encrypt_then_mac);
    }

    #[test]
    fn one_broken_extension_leaves_the_others_alone() {
        let hello = decode(&server_hello_with([0; 32], &[(16, b"\0\x09\x02h2"), (23, b""), (43, &[3])]));
        assert!(hello.extended_master_secret);
        assert_eq!(hello.version, ProtocolVersion::TLS1_2);
        assert_eq!(hello.problems.len(), 2);
    }

    #[test]
    fn every_prefix_is_incomplete_or_ends_before_the_extensions() {
        for message in [
            testing::server_hello_tls12(),
            testing::server_hello_tls13(),
            testing::server_hello_downgrade(),
            testing::hello_retry_request(),
        ] {
            for len in 0..body(&message).len() {
                match ServerHello::decode(&body(&message)[..len]) {
                    Decoded::Complete(hello) => assert_eq!(hello.extensions.as_slice(), [], "{len} bytes"),
                    other => assert_eq!(other, Decoded::Incomplete, "{len} bytes"),
                }
            }
        }
    }

    #[test]
    fn drafts_of_tls_1_3_have_no_session_id() {
        let mut draft = vec![0x7f, 0x12];
        draft.extend([0xaa; 32]);
        draft.extend([0x13, 0x01, 0, 9, 0, 40, 0, 5, 0, 0x1d, 0, 1, 0x55]);
        let hello = decode(&draft);
        assert_eq!(hello.version, ProtocolVersion(0x7f12));
        assert_eq!(hello.cipher_suite, CipherSuite(0x1301));
        assert_eq!(hello.group, Some(NamedGroup::X25519));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ServerHello::decode(&bytes);
        }

        #[test]
        fn a_hello_with_any_byte_changed_never_panics(at in 0usize..118, to in any::<u8>()) {
            let mut message = testing::server_hello_tls13();
            message[4 + at] = to;
            let _ = ServerHello::decode(body(&message));
        }
    }
}
