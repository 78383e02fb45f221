//! The ClientHello of a probe, made byte by byte (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2), and the PROXY header in front of them.

use std::net::{IpAddr, SocketAddr};

use crate::tls::codepoints::{
    CipherSuite, ContentType, ExtensionType, HandshakeType, NamedGroup, ProtocolVersion, SignatureScheme,
};

/// What a hello offers. The parts that do not fit its versions are left out of the bytes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Hello {
    /// Lowest version offered; it can only be told to servers that read `supported_versions`.
    pub lowest: ProtocolVersion,
    /// Highest version offered.
    pub highest: ProtocolVersion,
    pub suites: &'static [CipherSuite],
    /// Key exchange groups; in TLS 1.2 also the curves of certificates (RFC 8422 §5.1.1).
    pub groups: Vec<NamedGroup>,
    pub share: Share,
    pub server_name: Option<Box<str>>,
    pub alpn: Vec<Box<str>>,
    /// The message is padded to this many bytes (RFC 7685), if it is not longer anyway.
    pub padded_to: u16,
    pub proxy: Option<ProxyVersion>,
}

/// Which key shares a TLS 1.3 hello brings along.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Share {
    /// None: the server asks for one of the groups by a HelloRetryRequest (RFC 8446 §4.2.8), if it likes any.
    None,
    X25519,
    /// X25519MLKEM768 and X25519, as browsers do: the hello does not fit into one TCP segment.
    PostQuantum,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// TLS 1.3 suites (RFC 8446 App. B.4).
pub const TLS13: &[CipherSuite] = &[CipherSuite(0x1301), CipherSuite(0x1302), CipherSuite(0x1303)];

/// What TLS 1.2 and older have in use, the better ones first, behind the suites of TLS 1.3.
pub const BROAD: &[CipherSuite] = &suites([
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xccaa, 0x009e, 0x009f, 0xc009,
    0xc013, 0xc00a, 0xc014, 0xc023, 0xc027, 0xc024, 0xc028, 0x0033, 0x0039, 0x0067, 0x006b, 0x009c, 0x009d,
    0x002f, 0x0035, 0x003c, 0x003d, 0xc008, 0xc012, 0x0016, 0x000a, 0xc007, 0xc011, 0x0005, 0x0004,
]);

/// Families of TLS 1.2 suites, by the names that people know them by.
pub const FAMILIES: &[(&str, &[CipherSuite])] = &[
    ("ECDHE-ECDSA AEAD", &suites([0xc02b, 0xc02c, 0xcca9])),
    ("ECDHE-RSA AEAD", &suites([0xc02f, 0xc030, 0xcca8])),
    ("ECDHE CBC", &suites([0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024, 0xc027, 0xc028])),
    ("DHE", &suites([0x009e, 0x009f, 0xccaa, 0x0033, 0x0039, 0x0067, 0x006b])),
    ("RSA key exchange", &suites([0x009c, 0x009d, 0x002f, 0x0035, 0x003c, 0x003d])),
    ("3DES", &suites([0xc008, 0xc012, 0x0016, 0x000a])),
    ("RC4", &suites([0xc007, 0xc011, 0x0005, 0x0004])),
    (
        "anonymous, NULL or EXPORT",
        &suites([0x0034, 0x003a, 0x006c, 0x006d, 0xc018, 0xc019, 0x003b, 0x0002, 0xc010, 0x0003, 0x0008]),
    ),
];

/// ECDHE suites of TLS 1.2: the ones for which a group is agreed on.
pub const ECDHE: &[CipherSuite] =
    &suites([0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc009, 0xc013, 0xc00a, 0xc014]);

/// Groups from before post-quantum key exchange.
pub const CLASSICAL: &[NamedGroup] = &[
    NamedGroup::X25519,
    NamedGroup::SECP256R1,
    NamedGroup::SECP384R1,
    NamedGroup::SECP521R1,
    NamedGroup::X448,
    NamedGroup::FFDHE2048,
    NamedGroup::FFDHE3072,
];

/// What a browser offers.
pub const POST_QUANTUM: &[NamedGroup] =
    &[NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::SECP256R1, NamedGroup::SECP384R1];

const SIGNATURES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_SECP256R1_SHA256,
    SignatureScheme::RSA_PSS_RSAE_SHA256,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::ECDSA_SECP384R1_SHA384,
    SignatureScheme::RSA_PSS_RSAE_SHA384,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::ECDSA_SECP521R1_SHA512,
    SignatureScheme::RSA_PSS_RSAE_SHA512,
    SignatureScheme::RSA_PKCS1_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_PSS_SHA256,
    SignatureScheme::RSA_PSS_PSS_SHA384,
    SignatureScheme::RSA_PSS_PSS_SHA512,
    SignatureScheme::ECDSA_SHA1,
    SignatureScheme::RSA_PKCS1_SHA1,
];

/// Bytes of an ML-KEM-768 encapsulation key (FIPS 203, table 3).
const MLKEM768_KEY_LEN: usize = 1184;
/// The base point of Curve25519 (RFC 7748 §4.1): a public value like any other, and no secret is derived from it.
const X25519_VALUE: [u8; 32] = {
    let mut value = [0; 32];
    value[0] = 9;
    value
};

impl Hello {
    /// The record with the message, behind the PROXY header if there is one.
    pub fn encode(&self, random: &[u8; 32], from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let mut bytes = self.proxy.map(|version| version.header(from, to)).unwrap_or_default();
        let message = self.message(random);
        bytes.push(ContentType::HANDSHAKE.0);
        // TLS 1.0 is what old servers want to see here whatever is offered (RFC 8446 §5.1).
        let record_version = self.highest.min(ProtocolVersion::TLS1_0);
        bytes.extend(record_version.0.to_be_bytes());
        vector16(&mut bytes, &message);
        bytes
    }

    /// The message with its 4-byte header.
    pub fn message(&self, random: &[u8; 32]) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend(self.highest.min(ProtocolVersion::TLS1_2).0.to_be_bytes());
        body.extend(random);
        // A session id is what middleboxes expect of a TLS 1.3 client (RFC 8446 App. D.4).
        if self.offers_tls13() {
            vector8(&mut body, random);
        } else {
            vector8(&mut body, &[]);
        }
        let suites = self.suites.iter().filter(|suite| self.offers_tls13() || !suite.is_tls13());
        let suites = suites.chain([&CipherSuite::EMPTY_RENEGOTIATION_INFO_SCSV]);
        vector16(&mut body, &suites.flat_map(|suite| suite.0.to_be_bytes()).collect::<Vec<_>>());
        vector8(&mut body, &[0]);
        // SSL 3.0 has no extensions.
        if self.highest > ProtocolVersion::SSL3 {
            let mut extensions = self.extensions();
            let length = HEADER_LEN + body.len() + 2 + extensions.len();
            let padding = usize::from(self.padded_to).saturating_sub(length + 4);
            if padding > 0 {
                extension(&mut extensions, ExtensionType::PADDING, &vec![0; padding]);
            }
            vector16(&mut body, &extensions);
        }
        let [_, length @ ..] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut message = vec![HandshakeType::CLIENT_HELLO.0];
        message.extend(length);
        message.extend(body);
        message
    }

    fn offers_tls13(&self) -> bool {
        self.highest >= ProtocolVersion::TLS1_3
    }

    fn extensions(&self) -> Vec<u8> {
        let mut list = Vec::new();
        if let Some(name) = &self.server_name {
            let mut entry = vec![0];
            vector16(&mut entry, name.as_bytes());
            extension(&mut list, ExtensionType::SERVER_NAME, &in_vector16(&entry));
        }
        if !self.groups.is_empty() {
            let groups: Vec<u8> = self.groups.iter().flat_map(|group| group.0.to_be_bytes()).collect();
            extension(&mut list, ExtensionType::SUPPORTED_GROUPS, &in_vector16(&groups));
            extension(&mut list, ExtensionType::EC_POINT_FORMATS, &[1, 0]);
        }
        if self.highest >= ProtocolVersion::TLS1_2 {
            let schemes: Vec<u8> = SIGNATURES.iter().flat_map(|scheme| scheme.0.to_be_bytes()).collect();
            extension(&mut list, ExtensionType::SIGNATURE_ALGORITHMS, &in_vector16(&schemes));
        }
        if !self.alpn.is_empty() {
            let mut protocols = Vec::new();
            for protocol in &self.alpn {
                vector8(&mut protocols, protocol.as_bytes());
            }
            let content = in_vector16(&protocols);
            extension(&mut list, ExtensionType::APPLICATION_LAYER_PROTOCOL_NEGOTIATION, &content);
        }
        extension(&mut list, ExtensionType::EXTENDED_MASTER_SECRET, &[]);
        if self.offers_tls13() {
            let lowest = self.lowest.max(ProtocolVersion::TLS1_0).0;
            let versions: Vec<u8> = (lowest..=self.highest.0).rev().flat_map(u16::to_be_bytes).collect();
            let mut content = Vec::new();
            vector8(&mut content, &versions);
            extension(&mut list, ExtensionType::SUPPORTED_VERSIONS, &content);
            extension(&mut list, ExtensionType::PSK_KEY_EXCHANGE_MODES, &[1, 1]);
            extension(&mut list, ExtensionType::KEY_SHARE, &in_vector16(&self.key_shares()));
        }
        list
    }

    fn key_shares(&self) -> Vec<u8> {
        let mut shares = Vec::new();
        if self.share == Share::PostQuantum {
            shares.extend(NamedGroup::X25519MLKEM768.0.to_be_bytes());
            // An encapsulation key of zeros passes the modulus check that a server must make (FIPS 203 §7.2).
            let mut value = vec![0; MLKEM768_KEY_LEN];
            value.extend(X25519_VALUE);
            vector16(&mut shares, &value);
        }
        if self.share != Share::None {
            shares.extend(NamedGroup::X25519.0.to_be_bytes());
            vector16(&mut shares, &X25519_VALUE);
        }
        shares
    }
}

impl ProxyVersion {
    /// A header that speaks for a connection from `from` to `to`
    /// (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt> §2).
    pub fn header(self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        match self {
            Self::V1 => {
                let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port())
                    .into_bytes()
            }
            Self::V2 => {
                let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
                // Version 2, command PROXY; the family, over TCP.
                header.extend([0x21, if from.is_ipv4() { 0x11 } else { 0x21 }]);
                let mut addresses = Vec::new();
                for end in [from, to] {
                    match end.ip() {
                        IpAddr::V4(ip) => addresses.extend(ip.octets()),
                        IpAddr::V6(ip) => addresses.extend(ip.octets()),
                    }
                }
                addresses.extend(from.port().to_be_bytes());
                addresses.extend(to.port().to_be_bytes());
                vector16(&mut header, &addresses);
                header
            }
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

const HEADER_LEN: usize = 4;

const fn suites<const N: usize>(numbers: [u16; N]) -> [CipherSuite; N] {
    let mut suites = [CipherSuite(0); N];
    let mut at = 0;
    while at < N {
        suites[at] = CipherSuite(numbers[at]);
        at += 1;
    }
    suites
}

fn extension(list: &mut Vec<u8>, kind: ExtensionType, content: &[u8]) {
    list.extend(kind.0.to_be_bytes());
    vector16(list, content);
}

/// `opaque content<0..2^8-1>`; what is longer is cut off.
fn vector8(bytes: &mut Vec<u8>, content: &[u8]) {
    let len = u8::try_from(content.len()).unwrap_or(u8::MAX);
    bytes.push(len);
    bytes.extend(content.iter().take(usize::from(len)));
}

/// `opaque content<0..2^16-1>`; what is longer is cut off.
fn vector16(bytes: &mut Vec<u8>, content: &[u8]) {
    let len = u16::try_from(content.len()).unwrap_or(u16::MAX);
    bytes.extend(len.to_be_bytes());
    bytes.extend(content.iter().take(usize::from(len)));
}

fn in_vector16(content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(content.len() + 2);
    vector16(&mut bytes, content);
    bytes
}

#[cfg(test)]
impl Hello {
    /// A hello that every server of today reads. Tests change what they are about.
    pub(crate) fn sample() -> Self {
        Self {
            lowest: ProtocolVersion::TLS1_2,
            highest: ProtocolVersion::TLS1_3,
            suites: BROAD,
            groups: CLASSICAL.to_vec(),
            share: Share::X25519,
            server_name: Some("api.example.com".into()),
            alpn: vec!["h2".into()],
            padded_to: 0,
            proxy: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::proxy::ProxyHeader;
    use crate::tls::client_hello::ClientHello;

    fn decode(hello: &Hello) -> ClientHello {
        let message = hello.message(&[7; 32]);
        let decoded = ClientHello::decode(&message[4..]).complete().unwrap();
        assert_eq!(decoded.problems, []);
        decoded
    }

    #[test]
    fn what_is_offered_is_what_our_own_decoder_reads() {
        let decoded = decode(&Hello::sample());
        assert_eq!(decoded.offered_versions(), [ProtocolVersion::TLS1_3, ProtocolVersion::TLS1_2]);
        assert_eq!(decoded.server_name.unwrap().as_str(), "api.example.com");
        assert_eq!(decoded.alpn, [Box::from(*b"h2")] as [Box<[u8]>; 1]);
        assert_eq!(decoded.supported_groups.as_slice(), CLASSICAL);
        assert_eq!(decoded.key_shares[0].len, 32);
        assert_eq!(&decoded.cipher_suites[..BROAD.len()], BROAD);
    }

    #[test]
    fn old_versions_offer_nothing_that_came_later() {
        let old =
            Hello { lowest: ProtocolVersion::SSL3, highest: ProtocolVersion::TLS1_1, ..Hello::sample() };
        let decoded = decode(&old);
        assert_eq!(decoded.max_version(), ProtocolVersion::TLS1_1);
        assert!(decoded.cipher_suites.iter().all(|suite| !suite.is_tls13()));
        assert!(decoded.signature_schemes.is_empty() && decoded.key_shares.is_empty());
        let oldest = Hello { highest: ProtocolVersion::SSL3, ..old };
        let decoded = decode(&oldest);
        assert_eq!((decoded.legacy_version, decoded.extensions.len()), (ProtocolVersion::SSL3, 0));
    }

    #[test]
    fn a_large_hello_is_as_large_as_asked_for() {
        assert_eq!(decode(&Hello { padded_to: 2000, ..Hello::sample() }).length, 2000);
        let post_quantum =
            Hello { groups: POST_QUANTUM.to_vec(), share: Share::PostQuantum, ..Hello::sample() };
        let decoded = decode(&post_quantum);
        assert!(decoded.length > 1460, "{}", decoded.length);
        assert_eq!(decoded.key_shares[0].group, NamedGroup::X25519MLKEM768);
        assert_eq!(decoded.key_shares[0].len, 1216);
    }

    #[test]
    fn a_hello_without_key_share_has_an_empty_list_of_them() {
        let decoded = decode(&Hello { share: Share::None, ..Hello::sample() });
        assert!(decoded.key_shares.is_empty() && decoded.extensions.contains(&ExtensionType::KEY_SHARE));
    }

    #[test]
    fn proxy_headers_name_both_ends() {
        for (from, to) in
            [("192.0.2.7:5000", "198.51.100.1:443"), ("[2001:db8::7]:5000", "[2001:db8::1]:443")]
        {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            for version in [ProxyVersion::V1, ProxyVersion::V2] {
                let header = ProxyHeader::decode(&version.header(from, to)).unwrap();
                assert_eq!((header.source, header.destination), (Some(from), Some(to)), "{version:?}");
                let bytes = Hello { proxy: Some(version), ..Hello::sample() }.encode(&[0; 32], from, to);
                assert!(bytes.starts_with(&version.header(from, to)));
            }
        }
    }
}
