//! Certificates and chains of TLS ≤ 1.2, as an observer needs them: names, dates, key, constraints, links.
//!
//! x509-parser decodes. A certificate is parsed once per distinct encoding (see [`CertificateCache`]), and one
//! that cannot be parsed never hides its neighbours. No path building and no trust here: an observer does not
//! know what a peer trusts.

mod cache;
mod distinguished_name;

use std::{fmt::Write, net::IpAddr, sync::Arc};

use sha2::{Digest, Sha256};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey as ParsedKey,
    x509::{SubjectPublicKeyInfo, X509Name},
};

pub use self::cache::CertificateCache;
use super::{
    Decoded, client_hello::ServerName, codepoints::NamedGroup, handshake::MessageHeader, reader::Reader,
};

/// A SHA-256 digest.
pub type Sha256Digest = [u8; 32];

/// The certificates of one Certificate message (RFC 5246 §7.4.2), as sent: the leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateChain {
    /// Those that could be parsed, in wire order. Use [`Self::leaf`] for the leaf: the first of these is
    /// another one if the leaf is in `unparsable`.
    pub certificates: Vec<Arc<Certificate>>,
    /// Those that could not be parsed.
    pub unparsable: Vec<UnparsableCertificate>,
    /// How many certificates were sent; more than [`Self::MAX_CERTIFICATES`] are counted, not read.
    pub count: u16,
    /// Bytes of the message, its 4-byte header included: `L12` of the TLS 1.3 size prediction is this value.
    pub length: u32,
    /// The list's lengths do not add up; what came before is kept.
    pub malformed: bool,
}

/// A certificate that is not valid DER, or not X.509.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnparsableCertificate {
    /// Its place in the chain; 0 is the leaf.
    pub position: u16,
    /// Bytes of its encoding.
    pub length: u32,
    /// SHA-256 of its encoding.
    pub sha256: Sha256Digest,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject in the form of RFC 4514, most specific name first; safe to print.
    pub subject: Box<str>,
    /// The issuer, likewise.
    pub issuer: Box<str>,
    /// The subject's last common name; safe to print.
    pub common_name: Option<Box<str>>,
    /// Start of validity, seconds since 1970.
    pub not_before: i64,
    /// End of validity, seconds since 1970.
    pub not_after: i64,
    /// `subjectAltName`, at most [`Self::MAX_NAMES`] of them, in order.
    pub names: Vec<SubjectAltName>,
    /// How many alternative names there are.
    pub name_count: u32,
    /// The subject's public key.
    pub key: PublicKey,
    /// The algorithm of the issuer's signature: `sha256WithRSAEncryption`, or an OID in dotted form.
    pub signature_algorithm: Box<str>,
    /// `extendedKeyUsage`; `None` without the extension: any use.
    pub extended_key_usage: Option<ExtendedKeyUsage>,
    /// `basicConstraints`; `None` without the extension.
    pub is_ca: Option<bool>,
    /// `keyUsage`; `None` without the extension: any use.
    pub key_usage: Option<KeyUsage>,
    /// SHA-256 of the encoding.
    pub sha256: Sha256Digest,
    /// Bytes of the encoding.
    pub length: u32,
    /// Subject and issuer are the same name.
    pub self_issued: bool,
    /// `subjectKeyIdentifier`.
    pub subject_key_id: Option<Box<[u8]>>,
    /// `authorityKeyIdentifier`, if it has a key identifier.
    pub authority_key_id: Option<Box<[u8]>>,
    /// The serial number in lower-case hexadecimal, without leading zeros; at most 64 digits of it.
    pub serial: Box<str>,
    /// One of the extensions above is malformed and counts as absent: nothing follows from its absence.
    pub has_malformed_extension: bool,
}

/// A subject alternative name (RFC 5280 §4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SubjectAltName {
    /// A DNS name, maybe with a wildcard; safe to print.
    Dns(Box<str>),
    /// An address.
    Ip(IpAddr),
    /// A URI, as SPIFFE uses it; safe to print.
    Uri(Box<str>),
    /// A mail address; safe to print.
    Email(Box<str>),
    /// Any other kind.
    Other,
}

/// A public key without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    /// What kind of key.
    pub algorithm: KeyAlgorithm,
    /// Its size in bits, if that means something.
    pub bits: Option<u32>,
}

/// Kinds of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// RSA, either OID.
    Rsa,
    /// An elliptic curve; `None` if it is not a named one that TLS knows.
    Ec(Option<NamedGroup>),
    /// RFC 8410.
    Ed25519,
    /// RFC 8410.
    Ed448,
    /// DSA.
    Dsa,
    /// ML-DSA (RFC 9881), by its name.
    MlDsa(&'static str),
    /// Another algorithm, by its OID.
    Other(Box<str>),
}

/// What the key may be used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtendedKeyUsage {
    /// `anyExtendedKeyUsage`.
    pub any: bool,
    /// `id-kp-serverAuth`.
    pub server_auth: bool,
    /// `id-kp-clientAuth`.
    pub client_auth: bool,
}

/// What the key may do (RFC 5280 §4.2.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of a bit string")]
pub struct KeyUsage {
    /// Sign handshakes.
    pub digital_signature: bool,
    /// Decrypt an RSA key exchange.
    pub key_encipherment: bool,
    /// Static (EC)DH.
    pub key_agreement: bool,
    /// Sign certificates.
    pub key_cert_sign: bool,
}

/// Does a certificate cover a name (RFC 9525 §6)?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameMatch {
    /// Yes, by an alternative name.
    Matches,
    /// Only by its common name, and it has no alternative names: some clients accept that, most do not.
    CommonNameOnly,
    /// No.
    Differs,
    /// Names beyond [`Certificate::MAX_NAMES`] were not looked at.
    Unknown,
}

impl CertificateChain {
    /// Certificates read of one chain.
    pub const MAX_CERTIFICATES: usize = 16;

    /// Reads the body of a TLS ≤ 1.2 Certificate message: what follows the 4-byte handshake header.
    ///
    /// `Incomplete` if the body ends before the list does. A list that does not add up is kept as far as it
    /// goes, with [`Self::malformed`] set.
    pub fn decode(body: &[u8], cache: &mut CertificateCache) -> Decoded<Self> {
        let mut reader = Reader::new(body);
        let Some(list) = reader.vector24() else { return Decoded::Incomplete };
        let mut chain = Self {
            length: u32::try_from(body.len() + MessageHeader::LEN).unwrap_or(u32::MAX),
            malformed: !reader.is_empty(),
            ..Self::default()
        };
        let mut list = Reader::new(list);
        while !list.is_empty() {
            let Some(der) = list.vector24() else {
                chain.malformed = true;
                break;
            };
            let position = chain.count;
            chain.count = chain.count.saturating_add(1);
            if usize::from(position) < Self::MAX_CERTIFICATES {
                chain.read_certificate(position, der, cache);
            }
        }
        Decoded::Complete(chain)
    }

    /// No certificate at all: a client's way to say that it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.malformed
    }

    /// The sender's own certificate, if it could be parsed.
    pub fn leaf(&self) -> Option<&Arc<Certificate>> {
        let is_unparsable = self.unparsable.iter().any(|certificate| certificate.position == 0);
        if is_unparsable { None } else { self.certificates.first() }
    }

    /// Is every certificate there, and parsed?
    pub fn is_fully_parsed(&self) -> bool {
        !self.malformed && self.certificates.len() == usize::from(self.count)
    }

    /// Was each certificate issued by the one after it, as RFC 5246 §7.4.2 asks? Names and key ids are
    /// compared; signatures are not verified. `None` if some certificate could not be parsed.
    pub fn links_in_order(&self) -> Option<bool> {
        let links =
            || self.certificates.array_windows().all(|[subject, issuer]| subject.is_issued_by(issuer));
        self.is_fully_parsed().then(links)
    }

    /// Does the leaf say that it issued itself, with no key id that says otherwise?
    pub fn is_self_signed_leaf(&self) -> bool {
        self.leaf().is_some_and(|leaf| leaf.is_self_signed())
    }

    /// Going up from the leaf in any order: the issuer that is not there. `None` if the chain reaches a
    /// certificate that issued itself, or some certificate could not be parsed.
    ///
    /// An absent issuer is usual where it is a root, which RFC 5246 §7.4.2 allows to be left out. Only a peer
    /// that does not have it misses it.
    pub fn missing_issuer(&self) -> Option<&str> {
        if !self.is_fully_parsed() {
            return None;
        }
        let mut current = self.leaf()?;
        // A chain that goes in circles is as long as it has certificates.
        for _ in 0..self.certificates.len() {
            if current.is_self_signed() {
                return None;
            }
            let is_issuer =
                |other: &&Arc<Certificate>| !Arc::ptr_eq(other, current) && current.is_issued_by(other);
            match self.certificates.iter().find(is_issuer) {
                Some(issuer) => current = issuer,
                None => return Some(&current.issuer),
            }
        }
        None
    }

    fn read_certificate(&mut self, position: u16, der: &[u8], cache: &mut CertificateCache) {
        let sha256 = Sha256::digest(der).into();
        match cache.get_or_parse(der, sha256) {
            Some(certificate) => self.certificates.push(certificate),
            None => self.unparsable.push(UnparsableCertificate { position, length: length_of(der), sha256 }),
        }
    }
}

impl Certificate {
    /// Alternative names kept of one certificate.
    pub const MAX_NAMES: usize = 256;

    /// Does it cover `name`, per RFC 9525 §6: a wildcard stands for the whole leftmost label and nothing
    /// else, an address matches only an address. Letter case and a final dot make no difference.
    pub fn matches_name(&self, name: &ServerName) -> NameMatch {
        let address = name.to_ip();
        let host = name.as_str();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let covers = |alternative: &SubjectAltName| match (alternative, address) {
            (SubjectAltName::Ip(ip), Some(address)) => *ip == address,
            (SubjectAltName::Dns(pattern), None) => covers_host(pattern, host),
            _ => false,
        };
        if self.names.iter().any(covers) {
            return NameMatch::Matches;
        }
        if self.name_count as usize > self.names.len() || self.has_malformed_extension {
            return NameMatch::Unknown;
        }
        let has_dns_name = self.names.iter().any(|name| matches!(name, SubjectAltName::Dns(_)));
        let common_name = self.common_name.as_deref().filter(|_| !has_dns_name && address.is_none());
        if common_name.is_some_and(|pattern| covers_host(pattern, host)) {
            return NameMatch::CommonNameOnly;
        }
        NameMatch::Differs
    }

    /// Was it issued by the holder of `issuer`, as far as names and key ids tell?
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        self.issuer == issuer.subject
            && key_ids_agree(self.authority_key_id.as_deref(), issuer.subject_key_id.as_deref())
    }

    /// Did it issue itself, as far as names and key ids tell?
    pub fn is_self_signed(&self) -> bool {
        self.self_issued && key_ids_agree(self.authority_key_id.as_deref(), self.subject_key_id.as_deref())
    }

    /// Is `time`, in seconds since 1970, within its validity (both ends included, RFC 5280 §4.1.2.5)?
    pub fn is_valid_at(&self, time: i64) -> bool {
        (self.not_before..=self.not_after).contains(&time)
    }

    fn parse(der: &[u8], sha256: Sha256Digest) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut certificate = Self {
            subject: distinguished_name::to_text(parsed.subject()),
            issuer: distinguished_name::to_text(parsed.issuer()),
            common_name: distinguished_name::common_name(parsed.subject()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            names: Vec::new(),
            name_count: 0,
            key: PublicKey::from_info(parsed.public_key()),
            signature_algorithm: signature_algorithm_name(
                &parsed.signature_algorithm.algorithm.to_id_string(),
            ),
            extended_key_usage: None,
            is_ca: None,
            key_usage: None,
            sha256,
            length: length_of(der),
            self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            subject_key_id: None,
            authority_key_id: None,
            serial: serial_text(parsed.raw_serial()),
            has_malformed_extension: false,
        };
        for extension in parsed.extensions() {
            certificate.read_extension(extension.parsed_extension());
        }
        Some(certificate)
    }

    fn read_extension(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                let names = &names.general_names;
                self.name_count = u32::try_from(names.len()).unwrap_or(u32::MAX);
                self.names = names.iter().take(Self::MAX_NAMES).map(SubjectAltName::from_general).collect();
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.extended_key_usage = Some(ExtendedKeyUsage {
                    any: usage.any,
                    server_auth: usage.server_auth,
                    client_auth: usage.client_auth,
                });
            }
            ParsedExtension::BasicConstraints(constraints) => self.is_ca = Some(constraints.ca),
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage {
                    digital_signature: usage.digital_signature(),
                    key_encipherment: usage.key_encipherment(),
                    key_agreement: usage.key_agreement(),
                    key_cert_sign: usage.key_cert_sign(),
                });
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.into()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.into());
            }
            ParsedExtension::ParseError { .. } => self.has_malformed_extension = true,
            _ => {}
        }
    }
}

impl ExtendedKeyUsage {
    /// May it prove a server's identity?
    pub const fn allows_server(self) -> bool {
        self.any || self.server_auth
    }

    /// May it prove a client's identity?
    pub const fn allows_client(self) -> bool {
        self.any || self.client_auth
    }
}

impl SubjectAltName {
    fn from_general(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DNSName(name) => Self::Dns(distinguished_name::printable(name)),
            GeneralName::URI(uri) => Self::Uri(distinguished_name::printable(uri)),
            GeneralName::RFC822Name(address) => Self::Email(distinguished_name::printable(address)),
            GeneralName::IPAddress(bytes) => {
                match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                    (Ok(v4), _) => Self::Ip(v4.into()),
                    (_, Ok(v6)) => Self::Ip(v6.into()),
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

impl PublicKey {
    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Self {
        let oid = info.algorithm.algorithm.to_id_string();
        let (algorithm, bits) = match oid.as_str() {
            "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => (KeyAlgorithm::Rsa, rsa_bits(info)),
            "1.2.840.10045.2.1" => {
                let curve = info.algorithm.parameters.as_ref().and_then(|oid| oid.as_oid().ok());
                let (group, bits) = curve.map_or((None, None), |curve| curve_by_oid(&curve.to_id_string()));
                (KeyAlgorithm::Ec(group), bits)
            }
            "1.3.101.112" => (KeyAlgorithm::Ed25519, Some(256)),
            "1.3.101.113" => (KeyAlgorithm::Ed448, Some(456)),
            "1.2.840.10040.4.1" => (KeyAlgorithm::Dsa, None),
            // FIPS 204, NIST's arc sigAlgs
            "2.16.840.1.101.3.4.3.17" => (KeyAlgorithm::MlDsa("ML-DSA-44"), None),
            "2.16.840.1.101.3.4.3.18" => (KeyAlgorithm::MlDsa("ML-DSA-65"), None),
            "2.16.840.1.101.3.4.3.19" => (KeyAlgorithm::MlDsa("ML-DSA-87"), None),
            _ => (KeyAlgorithm::Other(oid.into()), None),
        };
        Self { algorithm, bits }
    }
}

/// The text of a DER-encoded distinguished name, if it is one. For the authorities of a
/// `CertificateRequest`.
pub(super) fn distinguished_name_text(der: &[u8]) -> Option<Box<str>> {
    let (rest, name) = X509Name::from_der(der).ok()?;
    rest.is_empty().then(|| distinguished_name::to_text(&name))
}

/// Both `host` and `pattern` without a final dot; `host` is not an address.
fn covers_host(pattern: &str, host: &str) -> bool {
    let pattern = pattern.strip_suffix('.').unwrap_or(pattern);
    if host.is_empty() || pattern.is_empty() {
        return false;
    }
    let Some(parent) = pattern.strip_prefix("*.") else { return pattern.eq_ignore_ascii_case(host) };
    // The rest of the pattern is literal: RFC 9525 §6.3 knows one wildcard, and it is the whole first label.
    host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
}

/// Key ids disagree only if both are there.
fn key_ids_agree(authority: Option<&[u8]>, subject: Option<&[u8]>) -> bool {
    match (authority, subject) {
        (Some(authority), Some(subject)) => authority == subject,
        _ => true,
    }
}

/// x509-parser takes the first byte for padding whether it is or not.
fn rsa_bits(info: &SubjectPublicKeyInfo<'_>) -> Option<u32> {
    let (_, bare) = x509_parser::public_key::RSAPublicKey::from_der(&info.subject_public_key.data).ok()?;
    let modulus = match info.parsed() {
        Ok(ParsedKey::RSA(key)) => key.modulus,
        // RSASSA-PSS keys have the same encoding and are not looked at by x509-parser.
        _ => bare.modulus,
    };
    let first = modulus.iter().position(|&byte| byte != 0)?;
    let significant = modulus.get(first..)?;
    let bits = u32::try_from(significant.len()).ok()?.checked_mul(8)?;
    Some(bits - significant.first()?.leading_zeros())
}

/// A curve by its OID, with its size in bits.
fn curve_by_oid(oid: &str) -> (Option<NamedGroup>, Option<u32>) {
    let (group, bits) = match oid {
        "1.2.840.10045.3.1.1" => (NamedGroup::SECP192R1, 192),
        "1.3.132.0.33" => (NamedGroup::SECP224R1, 224),
        "1.2.840.10045.3.1.7" => (NamedGroup::SECP256R1, 256),
        "1.3.132.0.34" => (NamedGroup::SECP384R1, 384),
        "1.3.132.0.35" => (NamedGroup::SECP521R1, 521),
        "1.3.132.0.10" => (NamedGroup::SECP256K1, 256),
        "1.3.36.3.3.2.8.1.1.7" => (NamedGroup::BRAINPOOLP256R1, 256),
        "1.3.36.3.3.2.8.1.1.11" => (NamedGroup::BRAINPOOLP384R1, 384),
        "1.3.36.3.3.2.8.1.1.13" => (NamedGroup::BRAINPOOLP512R1, 512),
        "1.2.156.10197.1.301" => (NamedGroup::CURVESM2, 256),
        _ => return (None, None),
    };
    (Some(group), Some(bits))
}

/// The customary name of a signature algorithm (RFC 3279, RFC 4055, RFC 5758, RFC 8410, RFC 9881), or its OID.
fn signature_algorithm_name(oid: &str) -> Box<str> {
    let name = match oid {
        "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "sha1WithRSAEncryption",
        "1.2.840.113549.1.1.10" => "id-RSASSA-PSS",
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        "1.2.840.113549.1.1.12" => "sha384WithRSAEncryption",
        "1.2.840.113549.1.1.13" => "sha512WithRSAEncryption",
        "1.2.840.113549.1.1.14" => "sha224WithRSAEncryption",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10045.4.3.1" => "ecdsa-with-SHA224",
        "1.2.840.10045.4.3.2" => "ecdsa-with-SHA256",
        "1.2.840.10045.4.3.3" => "ecdsa-with-SHA384",
        "1.2.840.10045.4.3.4" => "ecdsa-with-SHA512",
        "1.2.840.10040.4.3" => "id-dsa-with-sha1",
        "2.16.840.1.101.3.4.3.1" => "id-dsa-with-sha224",
        "2.16.840.1.101.3.4.3.2" => "id-dsa-with-sha256",
        "1.3.101.112" => "id-Ed25519",
        "1.3.101.113" => "id-Ed448",
        "2.16.840.1.101.3.4.3.17" => "id-ml-dsa-44",
        "2.16.840.1.101.3.4.3.18" => "id-ml-dsa-65",
        "2.16.840.1.101.3.4.3.19" => "id-ml-dsa-87",
        "1.2.156.10197.1.501" => "sm2-with-SM3",
        unknown => unknown,
    };
    name.into()
}

/// RFC 5280 §4.1.2.2 allows 20 bytes; a hostile one has more.
fn serial_text(serial: &[u8]) -> Box<str> {
    let significant = serial.iter().position(|&byte| byte != 0).and_then(|first| serial.get(first..));
    let mut text = String::new();
    for byte in significant.unwrap_or(&[0]).iter().take(32) {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn length_of(der: &[u8]) -> u32 {
    u32::try_from(der.len()).unwrap_or(u32::MAX)
}
