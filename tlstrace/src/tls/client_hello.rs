//! ClientHello: what a client offers (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2, and the SSL 2.0 form of App. E.2).

use std::{
    borrow::Cow,
    fmt::{self, Write},
    hash::{DefaultHasher, Hasher},
    net::{IpAddr, Ipv6Addr},
};

use smallvec::{SmallVec, smallvec};
use tls_parser::{SNIType, TlsExtension};

pub use super::extensions::Problem;
use super::{
    Decoded,
    codepoints::{CipherSuite, ExtensionType, NamedGroup, ProtocolVersion, SignatureScheme},
    extensions::{Extension, ExtensionList, Visit, note, u16_list},
    handshake::MessageHeader,
    reader::Reader,
};

/// What a client offers. Randoms, ticket contents, pre-shared key identities and key exchange values are not
/// kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is the presence of one extension")]
pub struct ClientHello {
    /// The version field; frozen at 1.2 by clients that can do more.
    pub legacy_version: ProtocolVersion,
    /// The session id, to be compared with the server's.
    pub session_id: SessionId,
    /// Its length: 0 to 32 bytes.
    pub session_id_len: u8,
    /// In wire order, GREASE included.
    pub cipher_suites: SmallVec<[CipherSuite; 24]>,
    /// In wire order.
    pub compression_methods: SmallVec<[u8; 16]>,
    /// In wire order, GREASE included.
    pub extensions: SmallVec<[ExtensionType; 20]>,
    /// The host name of extension `server_name` (RFC 6066 §3).
    pub server_name: Option<ServerName>,
    /// As in the extension, GREASE included; empty without it.
    pub supported_versions: SmallVec<[ProtocolVersion; 8]>,
    /// In wire order, GREASE included.
    pub supported_groups: SmallVec<[NamedGroup; 8]>,
    /// In wire order, GREASE included.
    pub key_shares: Vec<KeyShare>,
    /// In wire order.
    pub signature_schemes: SmallVec<[SignatureScheme; 16]>,
    /// `signature_algorithms_cert`, in wire order.
    pub signature_schemes_cert: Vec<SignatureScheme>,
    /// The protocols offered, in wire order (RFC 7301).
    pub alpn: Vec<Box<[u8]>>,
    /// In wire order (RFC 8422 §5.1.2).
    pub ec_point_formats: SmallVec<[u8; 16]>,
    /// `psk_key_exchange_modes` (RFC 8446 §4.2.9).
    pub psk_modes: SmallVec<[u8; 16]>,
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
    /// Bytes of the whole message, its 4-byte header included (SSL 2.0: without its 2-byte header).
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
    ///
    /// `Incomplete` if the body ends before the message does. A body of the length that its header
    /// announced which is `Incomplete` all the same is malformed; [`Self::decode_truncated`] has what can be
    /// read of it.
    pub fn decode(body: &[u8]) -> Decoded<Self> {
        let (mut hello, rest) = match Self::decode_fixed_part(body) {
            Decoded::Complete(parts) => parts,
            Decoded::Incomplete => return Decoded::Incomplete,
            Decoded::Malformed => return Decoded::Malformed,
        };
        let list = ExtensionList::new(rest);
        if list.is_cut_off {
            return Decoded::Incomplete;
        }
        hello.read_extensions(&list);
        Decoded::Complete(hello)
    }

    /// Reads what there is of a ClientHello whose end is missing. `None` if not even the compression methods
    /// are there, or if it is malformed. [`Problem::Truncated`] marks the result, and `length` is what was
    /// there. An extension that was cut off is listed and not looked into.
    pub fn decode_truncated(body: &[u8]) -> Option<Self> {
        let (mut hello, rest) = Self::decode_fixed_part(body).complete()?;
        note(&mut hello.problems, Problem::Truncated);
        hello.read_extensions(&ExtensionList::new(rest));
        Some(hello)
    }

    /// Reads an SSL 2.0 `CLIENT-HELLO` from the first byte of its two-byte header (RFC 5246 App. E.2). Cipher
    /// kinds that only SSL 2.0 has are left out, so that `cipher_suites` of a client that can do nothing
    /// newer is empty.
    pub fn decode_ssl_v2(message: &[u8]) -> Decoded<Self> {
        let Some((&[high, low], rest)) = message.split_first_chunk() else { return Decoded::Incomplete };
        if high & 0x80 == 0 {
            return Decoded::Malformed;
        }
        let length = u16::from_be_bytes([high & 0x7f, low]);
        let (body, is_whole) = match rest.get(..usize::from(length)) {
            Some(body) => (body, true),
            None => (rest, false),
        };
        // A record that is all there and ends too early is malformed, not incomplete.
        let cut_off = || if is_whole { Decoded::Malformed } else { Decoded::Incomplete };
        let mut reader = Reader::new(body);
        let Some(&[kind]) = reader.array() else { return cut_off() };
        if kind != 1 {
            return Decoded::Malformed;
        }
        let Some(version) = reader.u16() else { return cut_off() };
        let (Some(specs_len), Some(session_id_len), Some(challenge_len)) =
            (reader.u16(), reader.u16(), reader.u16())
        else {
            return cut_off();
        };
        // §5.2.1: a challenge is 16 to 32 bytes, a session id is absent or 16, a spec is 3.
        if specs_len % 3 != 0 || session_id_len > 32 || challenge_len > 32 {
            return Decoded::Malformed;
        }
        let (Some(specs), Some(session_id), Some(_challenge)) = (
            reader.take(usize::from(specs_len)),
            reader.take(usize::from(session_id_len)),
            reader.take(usize::from(challenge_len)),
        ) else {
            return cut_off();
        };
        if !is_whole {
            return Decoded::Incomplete;
        }
        let (specs, _) = specs.as_chunks();
        let cipher_suites = specs
            .iter()
            .filter(|[class, _, _]| *class == 0)
            .map(|&[_, high, low]| CipherSuite(u16::from_be_bytes([high, low])));
        Decoded::Complete(Self {
            legacy_version: ProtocolVersion(version),
            session_id: SessionId::new(session_id),
            session_id_len: u8::try_from(session_id.len()).unwrap_or(u8::MAX),
            cipher_suites: cipher_suites.collect(),
            compression_methods: smallvec![0],
            length: u32::from(length),
            ssl_v2: true,
            problems: if reader.is_empty() { Vec::new() } else { vec![Problem::TrailingBytes] },
            ..Self::default()
        })
    }

    /// The versions that the client says it offers, in wire order, GREASE left out. Without
    /// `supported_versions` that is `legacy_version` alone: how far below it the client would go, it does
    /// not say. See [`Self::offers`].
    pub fn offered_versions(&self) -> Vec<ProtocolVersion> {
        if self.supported_versions.is_empty() {
            return vec![self.max_version()];
        }
        self.supported_versions.iter().copied().filter(|version| !version.is_grease()).collect()
    }

    /// The highest version offered. Without `supported_versions` no more than TLS 1.2 can be
    /// (RFC 8446 §4.2.1), whatever `legacy_version` says.
    pub fn max_version(&self) -> ProtocolVersion {
        let offered = self.supported_versions.iter().copied().filter(|version| !version.is_grease());
        offered
            // 1.3 beats its drafts, a draft beats 1.2, anything known beats what is not.
            .max_by_key(|&version| match version {
                ProtocolVersion::TLS1_3 => (3, version),
                draft if draft.is_tls13() => (2, draft),
                known if known.name().is_some() => (1, known),
                unknown => (0, unknown),
            })
            .unwrap_or_else(|| self.legacy_version.min(ProtocolVersion::TLS1_2))
    }

    /// Could a server select `version`? Without `supported_versions` anything from SSL 3.0 up to
    /// `legacy_version` might do: a client that wants no less than some version cannot say so.
    pub fn offers(&self, version: ProtocolVersion) -> bool {
        if !self.supported_versions.is_empty() {
            return !version.is_grease() && self.supported_versions.contains(&version);
        }
        let lowest = if self.ssl_v2 { ProtocolVersion::SSL2 } else { ProtocolVersion::SSL3 };
        version.name().is_some() && (lowest..=self.max_version()).contains(&version)
    }

    /// Did the client say that this is a second try with a lower version (RFC 7507)?
    pub fn has_fallback_scsv(&self) -> bool {
        self.cipher_suites.contains(&CipherSuite::FALLBACK_SCSV)
    }

    /// Did the client signal secure renegotiation by cipher suite (RFC 5746 §3.3)?
    pub fn has_renegotiation_scsv(&self) -> bool {
        self.cipher_suites.contains(&CipherSuite::EMPTY_RENEGOTIATION_INFO_SCSV)
    }

    /// Was the end of the message missing?
    pub fn is_truncated(&self) -> bool {
        self.problems.contains(&Problem::Truncated)
    }

    /// Everything before the extensions, and the bytes after it.
    fn decode_fixed_part(body: &[u8]) -> Decoded<(Self, &[u8])> {
        let mut reader = Reader::new(body);
        let Some(version) = reader.u16() else { return Decoded::Incomplete };
        let Some(_random) = reader.array::<32>() else { return Decoded::Incomplete };
        let Some(&session_id_len) = reader.rest().first() else { return Decoded::Incomplete };
        if session_id_len > 32 {
            return Decoded::Malformed;
        }
        let Some(session_id) = reader.vector8() else { return Decoded::Incomplete };
        let Some(suites) = reader.vector16() else { return Decoded::Incomplete };
        let Some(compression_methods) = reader.vector8() else { return Decoded::Incomplete };
        let (suites, odd) = suites.as_chunks();
        let hello = Self {
            legacy_version: ProtocolVersion(version),
            session_id: SessionId::new(session_id),
            session_id_len,
            cipher_suites: suites.iter().map(|&pair| CipherSuite(u16::from_be_bytes(pair))).collect(),
            compression_methods: compression_methods.into(),
            length: u32::try_from(body.len() + MessageHeader::LEN).unwrap_or(u32::MAX),
            problems: if odd.is_empty() { Vec::new() } else { vec![Problem::OddCipherSuites] },
            ..Self::default()
        };
        Decoded::Complete((hello, reader.rest()))
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
                if !list.is_cut_off {
                    note(&mut self.problems, Problem::BrokenExtensionList);
                }
            }
        });
    }

    /// `None` if the content is not as it should be.
    fn read_extension(&mut self, extension: Extension<'_>) -> Option<()> {
        let content = extension.content;
        let mut reader = Reader::new(content);
        let is_sound = match extension.kind {
            ExtensionType::SERVER_NAME => {
                let TlsExtension::SNI(names) = extension.parse_in_client_hello()? else { return None };
                let name = names.iter().find(|(kind, _)| *kind == SNIType::HostName);
                let (_, name) = name.filter(|(_, name)| !name.is_empty())?;
                self.server_name = Some(ServerName::new(name));
                reader.vector16().is_some() && reader.is_empty()
            }
            ExtensionType::SUPPORTED_VERSIONS => {
                let (versions, is_sound) = u16_list(content, 1, ProtocolVersion);
                self.supported_versions = versions;
                is_sound
            }
            ExtensionType::SUPPORTED_GROUPS => {
                let (groups, is_sound) = u16_list(content, 2, NamedGroup);
                self.supported_groups = groups;
                is_sound
            }
            ExtensionType::SIGNATURE_ALGORITHMS => {
                let (schemes, is_sound) = u16_list(content, 2, SignatureScheme);
                self.signature_schemes = schemes;
                is_sound
            }
            ExtensionType::SIGNATURE_ALGORITHMS_CERT => {
                let (schemes, is_sound) = u16_list(content, 2, SignatureScheme);
                self.signature_schemes_cert = schemes;
                is_sound
            }
            ExtensionType::COMPRESS_CERTIFICATE => {
                let (algorithms, is_sound) = u16_list(content, 1, |algorithm| algorithm);
                self.compress_certificate = algorithms;
                is_sound
            }
            ExtensionType::KEY_SHARE | ExtensionType::KEY_SHARE_BEFORE_DRAFT_23 => {
                let mut shares = Reader::new(reader.vector16()?);
                while let Some(group) = shares.u16() {
                    let value = shares.vector16()?;
                    // A vector behind a two-byte length is never longer than that.
                    let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
                    self.key_shares.push(KeyShare { group: NamedGroup(group), len });
                }
                shares.is_empty() && reader.is_empty()
            }
            ExtensionType::APPLICATION_LAYER_PROTOCOL_NEGOTIATION => {
                let mut protocols = Reader::new(reader.vector16()?);
                while !protocols.is_empty() {
                    self.alpn.push(protocols.vector8()?.into());
                }
                !self.alpn.is_empty() && reader.is_empty()
            }
            ExtensionType::PRE_SHARED_KEY => {
                let mut identities = Reader::new(reader.vector16()?);
                while !identities.is_empty() {
                    identities.vector16()?;
                    let _obfuscated_ticket_age = identities.array::<4>()?;
                    self.psk_identities = self.psk_identities.saturating_add(1);
                }
                let mut binders = Reader::new(reader.vector16()?);
                let mut is_sound = reader.is_empty();
                while !binders.is_empty() {
                    is_sound &= binders.vector8()?.len() >= 32;
                }
                is_sound
            }
            ExtensionType::EC_POINT_FORMATS => {
                self.ec_point_formats = reader.vector8()?.into();
                !self.ec_point_formats.is_empty() && reader.is_empty()
            }
            ExtensionType::PSK_KEY_EXCHANGE_MODES => {
                self.psk_modes = reader.vector8()?.into();
                !self.psk_modes.is_empty() && reader.is_empty()
            }
            ExtensionType::RECORD_SIZE_LIMIT => {
                self.record_size_limit = Some(reader.u16()?);
                reader.is_empty()
            }
            ExtensionType::SESSION_TICKET => {
                self.session_ticket_len = u16::try_from(content.len()).ok();
                true
            }
            ExtensionType::PADDING => {
                self.padding_len = u16::try_from(content.len()).ok();
                true
            }
            ExtensionType::STATUS_REQUEST => {
                self.status_request = true;
                // RFC 6066 §8: OCSP has two vectors, and other types are unknown.
                match reader.u8()? {
                    1 => reader.vector16().and(reader.vector16()).is_some() && reader.is_empty(),
                    _ => true,
                }
            }
            ExtensionType::EARLY_DATA => {
                self.early_data = true;
                content.is_empty()
            }
            ExtensionType::COOKIE => {
                self.cookie = true;
                reader.vector16().is_some() && reader.is_empty()
            }
            ExtensionType::EXTENDED_MASTER_SECRET => {
                self.extended_master_secret = true;
                content.is_empty()
            }
            ExtensionType::POST_HANDSHAKE_AUTH => {
                self.post_handshake_auth = true;
                content.is_empty()
            }
            ExtensionType::RENEGOTIATION_INFO => {
                self.renegotiation_info = true;
                extension.parse_in_client_hello().is_some()
            }
            ExtensionType::ENCRYPTED_CLIENT_HELLO => {
                self.encrypted_client_hello = true;
                true
            }
            _ => true,
        };
        is_sound.then_some(())
    }
}

/// A session id that can be compared and nothing else: it is a resumption secret of sorts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionId {
    len: u8,
    hash: u64,
}

impl SessionId {
    pub(super) fn new(id: &[u8]) -> Self {
        // Any hash will do that a peer gains nothing from breaking: it is only ever compared with the other
        // side's on the same connection.
        let mut hasher = DefaultHasher::new();
        hasher.write(id);
        Self { len: u8::try_from(id.len()).unwrap_or(u8::MAX), hash: hasher.finish() }
    }

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
        let is_plain = |&byte: &u8| byte.is_ascii_graphic() && byte != b'\\';
        if self.raw.iter().all(is_plain)
            && let Ok(plain) = std::str::from_utf8(&self.raw)
        {
            return Cow::Borrowed(plain);
        }
        let mut escaped = String::with_capacity(self.raw.len() * 2);
        for byte in &self.raw {
            if is_plain(byte) {
                escaped.push(char::from(*byte));
            } else {
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        }
        Cow::Owned(escaped)
    }

    /// Is it an IP address, which RFC 6066 §3 forbids here?
    pub fn is_ip_literal(&self) -> bool {
        self.to_ip().is_some()
    }

    /// The address, if it is one; IPv6 with or without brackets.
    pub fn to_ip(&self) -> Option<IpAddr> {
        let name = std::str::from_utf8(&self.raw).ok()?;
        let unbracketed = || name.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
        name.parse().ok().or_else(|| unbracketed().map(IpAddr::V6))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::testing::{self, body, client_hello_with};

    fn decode(body: &[u8]) -> ClientHello {
        ClientHello::decode(body).complete().unwrap()
    }

    fn names<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }

    #[test]
    fn a_post_quantum_hello_of_chrome_is_read_in_full() {
        let message = testing::client_hello_chrome();
        let hello = decode(body(&message));
        assert_eq!(hello.legacy_version, ProtocolVersion::TLS1_2);
        assert_eq!(hello.session_id_len, 32);
        assert_eq!(hello.length as usize, message.len());
        assert_eq!(hello.server_name.as_ref().unwrap().as_str(), "clients2.google.com");
        assert_eq!(hello.supported_versions.len(), 3);
        assert!(hello.supported_versions[0].is_grease());
        assert_eq!(names(&hello.offered_versions()), ["1.3", "1.2"]);
        assert_eq!(hello.max_version(), ProtocolVersion::TLS1_3);
        assert!(hello.cipher_suites[0].is_grease());
        assert_eq!(hello.cipher_suites[1].name(), Some("TLS_AES_128_GCM_SHA256"));
        assert_eq!(hello.cipher_suites.len(), 16);
        assert_eq!(
            names(&hello.supported_groups[1..]),
            ["X25519MLKEM768", "x25519", "secp256r1", "secp384r1"]
        );
        let shares: Vec<_> = hello.key_shares[1..].iter().map(|share| (share.group, share.len)).collect();
        assert_eq!(shares, [(NamedGroup::X25519MLKEM768, 1216), (NamedGroup::X25519, 32)]);
        assert_eq!(names(&hello.signature_schemes)[..2], ["ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256"]);
        assert_eq!(hello.alpn, [Box::from(*b"h2"), Box::from(*b"http/1.1")] as [Box<[u8]>; 2]);
        assert_eq!(hello.ec_point_formats.as_slice(), [0]);
        assert_eq!(hello.psk_modes.as_slice(), [1]);
        assert_eq!(hello.compress_certificate, [2]);
        assert!(hello.encrypted_client_hello && hello.extended_master_secret && hello.status_request);
        assert!(hello.renegotiation_info && !hello.has_renegotiation_scsv());
        assert_eq!(hello.session_ticket_len, Some(0));
        assert_eq!(hello.extensions.len(), 18);
        assert_eq!(hello.problems, []);
    }

    #[test]
    fn a_resumption_with_early_data_shows_counts_and_nothing_of_the_ticket() {
        let message = testing::client_hello_early_data();
        let hello = decode(body(&message));
        assert!(hello.early_data);
        assert_eq!(hello.psk_identities, 1);
        assert_eq!(hello.psk_modes.as_slice(), [1]);
        assert!(hello.has_renegotiation_scsv() && !hello.has_fallback_scsv());
        assert_eq!(hello.problems, []);
    }

    #[test]
    fn padding_and_post_handshake_authentication_of_curl_are_seen() {
        let hello = decode(body(&testing::client_hello_curl()));
        assert!(hello.post_handshake_auth);
        assert!(hello.padding_len.is_some_and(|len| len > 0));
    }

    #[test]
    fn every_prefix_of_a_hello_is_incomplete_and_shows_what_it_has() {
        for message in [
            testing::client_hello_chrome(),
            testing::client_hello_curl(),
            testing::client_hello_early_data(),
            testing::client_hello_go(),
        ] {
            let whole = decode(body(&message));
            for len in 0..body(&message).len() {
                let prefix = &body(&message)[..len];
                // A hello may also end before its extensions.
                if let Some(hello) = ClientHello::decode(prefix).complete() {
                    assert_eq!(hello.cipher_suites, whole.cipher_suites);
                    assert_eq!(hello.extensions.as_slice(), []);
                    continue;
                }
                assert_eq!(ClientHello::decode(prefix), Decoded::Incomplete, "{len} bytes");
                if let Some(part) = ClientHello::decode_truncated(prefix) {
                    assert!(part.is_truncated());
                    assert_eq!(part.problems, [Problem::Truncated], "{len} bytes");
                    assert_eq!(part.cipher_suites, whole.cipher_suites);
                    assert!(whole.extensions.starts_with(&part.extensions), "{len} bytes");
                    assert!(part.server_name.is_none() || part.server_name == whole.server_name);
                }
            }
        }
    }

    #[test]
    fn a_hello_without_extensions_is_whole() {
        let mut bare = client_hello_with(&[]);
        bare.truncate(bare.len() - 2);
        let hello = decode(&bare);
        assert_eq!((hello.extensions.len(), hello.problems.len()), (0, 0));
        assert!(hello.server_name.is_none());
    }

    #[test]
    fn one_broken_extension_leaves_the_others_alone() {
        let sni = b"\0\x06\0\0\x03a.b";
        let alpn = b"\0\x03\x02h2";
        for (kind, broken) in [
            (10, &b"\0\x05\0\x1d\0\x17"[..]),
            (13, b"\0"),
            (43, b"\x07\x03\x04"),
            (51, b"\0\x06\0\x1d\0\xff\x01\x02"),
            (41, b""),
            (11, b"\x09\0"),
            (45, b""),
            (28, b"\x40"),
            (27, b"\x03\0\x02\0"),
            (23, b"surprise"),
            // What tls-parser lets stand behind a list.
            (11, b"\x01\0\0"),
            (45, b"\x01\x01\x01"),
            (28, b"\x40\0\0"),
            (51, b"\0\x05\0\x1d\0\x01\x02\x03"),
            (5, b"\x01\0\0\0\0\0"),
            (5, b"\x01\x40\0\0\0"),
            (44, b"\0\x01\x02\x03"),
        ] {
            let hello = decode(&client_hello_with(&[(0, sni), (kind, broken), (16, alpn)]));
            assert_eq!(hello.problems, [Problem::BrokenExtension(ExtensionType(kind))]);
            assert_eq!(hello.server_name.unwrap().as_str(), "a.b");
            assert_eq!(hello.alpn.len(), 1);
            assert_eq!(hello.extensions.len(), 3);
        }
    }

    #[test]
    fn bytes_behind_a_list_of_names_are_noted_and_the_names_count() {
        for (kind, broken) in [(0, &b"\0\x06\0\0\x03a.b\0"[..]), (16, b"\0\x03\x02h2\0")] {
            let hello = decode(&client_hello_with(&[(kind, broken)]));
            assert_eq!(hello.problems, [Problem::BrokenExtension(ExtensionType(kind))]);
            assert!(hello.server_name.is_some() || hello.alpn.len() == 1);
        }
    }

    #[test]
    fn what_a_broken_list_begins_with_still_counts() {
        let hello = decode(&client_hello_with(&[
            (10, b"\0\x09\0\x1d\0\x17"),
            (51, b"\0\x09\0\x1d\0\x01x\0\x17\xff\xff"),
        ]));
        assert_eq!(hello.supported_groups.as_slice(), [NamedGroup::X25519, NamedGroup::SECP256R1]);
        assert_eq!(hello.key_shares, [KeyShare { group: NamedGroup::X25519, len: 1 }]);
        assert_eq!(hello.problems.len(), 2);
    }

    #[test]
    fn an_extension_that_overruns_the_list_is_named_and_the_rest_stands() {
        let mut hello = client_hello_with(&[(23, b""), (0, b"\0\x06\0\0\x03a.b")]);
        let at = hello.len() - 10;
        hello[at] = 0xff;
        let hello = decode(&hello);
        assert!(hello.extended_master_secret);
        assert_eq!(
            hello.extensions.as_slice(),
            [ExtensionType::EXTENDED_MASTER_SECRET, ExtensionType::SERVER_NAME]
        );
        assert_eq!(hello.problems, [Problem::BrokenExtensionList]);
        assert!(!hello.is_truncated());
    }

    #[test]
    fn the_first_of_two_extensions_of_a_kind_counts() {
        let hello = decode(&client_hello_with(&[(0, b"\0\x06\0\0\x03a.b"), (0, b"\0\x06\0\0\x03c.d")]));
        assert_eq!(hello.server_name.unwrap().as_str(), "a.b");
        assert_eq!(hello.problems, [Problem::DuplicateExtension(ExtensionType::SERVER_NAME)]);
    }

    #[test]
    fn thousands_of_duplicates_are_not_remembered() {
        let many = vec![(23, &b""[..]); 16_000];
        let hello = decode(&client_hello_with(&many));
        assert!(hello.problems.len() <= 16);
    }

    #[test]
    fn bytes_after_the_extensions_are_noted() {
        let mut hello = client_hello_with(&[(23, b"")]);
        hello.push(0);
        assert_eq!(decode(&hello).problems, [Problem::TrailingBytes]);
    }

    #[test]
    fn a_session_id_of_more_than_32_bytes_is_malformed() {
        let mut hello = client_hello_with(&[]);
        hello[34] = 33;
        assert_eq!(ClientHello::decode(&hello), Decoded::Malformed);
    }

    #[test]
    fn grease_is_exactly_the_sixteen_values_of_rfc_8701() {
        let grease: Vec<u16> = (0..=u16::MAX).filter(|&value| CipherSuite(value).is_grease()).collect();
        assert_eq!(grease.len(), 16);
        assert!(grease.contains(&0x0a0a) && grease.contains(&0xfafa));
        // tls-parser's mask takes this extension for GREASE; it must not matter here.
        let hello = decode(&client_hello_with(&[(0x1a2a, b"x"), (23, b"")]));
        assert_eq!(hello.extensions[0], ExtensionType(0x1a2a));
        assert!(hello.extended_master_secret);
    }

    #[test]
    fn versions_on_offer_come_from_the_extension_or_reach_up_to_the_version_field() {
        let modern = decode(&client_hello_with(&[(43, &[6, 0x1a, 0x1a, 3, 4, 3, 3])]));
        assert!(modern.offers(ProtocolVersion::TLS1_3) && modern.offers(ProtocolVersion::TLS1_2));
        assert!(!modern.offers(ProtocolVersion::TLS1_1) && !modern.offers(ProtocolVersion(0x1a1a)));

        let old = decode(&client_hello_with(&[]));
        assert_eq!(old.offered_versions(), [ProtocolVersion::TLS1_2]);
        assert!(old.offers(ProtocolVersion::TLS1_0) && !old.offers(ProtocolVersion::TLS1_3));

        let draft = decode(&client_hello_with(&[(43, &[4, 0x7f, 0x1c, 3, 3])]));
        assert_eq!(draft.max_version(), ProtocolVersion(0x7f1c));

        let mut beyond = client_hello_with(&[]);
        beyond[1] = 4;
        assert_eq!(decode(&beyond).max_version(), ProtocolVersion::TLS1_2);
    }

    #[test]
    fn an_ssl_v2_hello_shows_the_version_and_the_tls_suites_it_offers() {
        let mut hello = vec![0x80, 0, 1, 3, 1, 0, 9, 0, 0, 0, 16];
        hello.extend([0, 0, 0x39, 7, 0, 0xc0, 0, 0, 0x2f]);
        hello.extend([0x22; 16]);
        hello[1] = u8::try_from(hello.len() - 2).unwrap();
        let decoded = ClientHello::decode_ssl_v2(&hello).complete().unwrap();
        assert_eq!(decoded.cipher_suites.as_slice(), [CipherSuite(0x0039), CipherSuite(0x002f)]);
        assert_eq!(decoded.max_version(), ProtocolVersion::TLS1_0);
        assert!(decoded.ssl_v2 && decoded.offers(ProtocolVersion::SSL2));
        assert_eq!(decoded.session_id_len, 0);
        for len in 0..hello.len() {
            assert_eq!(ClientHello::decode_ssl_v2(&hello[..len]), Decoded::Incomplete, "{len} bytes");
        }
        hello[6] = 8;
        assert_eq!(ClientHello::decode_ssl_v2(&hello), Decoded::Malformed, "suites of 8 bytes");
    }

    #[test]
    fn a_server_name_is_printed_without_loss_and_without_control_characters() {
        let name = ServerName::new(b"a\\b\x1b[31m\xff.example");
        assert_eq!(name.as_str(), "a\\x5cb\\x1b[31m\\xff.example");
        assert_eq!(ServerName::new(b"plain.example").as_str(), "plain.example");
        let long = ServerName::new(&[b'a'; 10_000]);
        assert_eq!((long.as_bytes().len(), long.sent_len()), (255, 10_000));
    }

    #[test]
    fn addresses_are_told_from_names() {
        for address in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
            assert!(ServerName::new(address.as_bytes()).is_ip_literal(), "{address}");
        }
        for name in ["example.com", "1.2.3", "1.2.3.4.example", "[192.0.2.1]"] {
            assert!(!ServerName::new(name.as_bytes()).is_ip_literal(), "{name}");
        }
    }

    #[test]
    fn session_ids_can_be_compared_and_not_read() {
        let id = SessionId::new(&[7; 32]);
        assert_eq!(id, SessionId::new(&[7; 32]));
        assert_ne!(id, SessionId::new(&[8; 32]));
        assert_ne!(SessionId::new(&[0; 4]), SessionId::new(&[0; 5]));
        assert!(SessionId::default().len == 0 && SessionId::new(&[]).is_empty());
        assert_eq!(format!("{id:?}"), "SessionId(32 bytes)");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = ClientHello::decode(&bytes);
            let _ = ClientHello::decode_truncated(&bytes);
            let _ = ClientHello::decode_ssl_v2(&bytes);
        }

        #[test]
        fn a_hello_with_any_byte_changed_never_panics(at in 0usize..1720, to in any::<u8>()) {
            let mut message = testing::client_hello_chrome();
            message[4 + at] = to;
            let _ = ClientHello::decode(body(&message));
        }

        #[test]
        fn arbitrary_extensions_never_hide_a_later_one(
            kind in (0u16..66).prop_filter("not what is looked for", |&kind| kind != 16),
            content in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let hello = decode(&client_hello_with(&[(kind, &content), (16, b"\0\x03\x02h2")]));
            prop_assert_eq!(&*hello.alpn[0], b"h2");
            prop_assert_eq!(hello.extensions.len(), 2);
        }
    }
}
