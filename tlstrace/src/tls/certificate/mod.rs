//! Certificates and chains of TLS ≤ 1.2, as an observer needs them: names, dates, key, constraints, links.
//!
//! x509-parser decodes. A certificate is parsed once per distinct encoding (see [`CertificateCache`]), and one
//! that cannot be parsed never hides its neighbours. What a peer trusts, an observer knows only if the user says so
//! ([`trust`]).

mod cache;
mod distinguished_name;
pub mod trust;

use std::{fmt::Write, net::IpAddr, sync::Arc};

use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey as ParsedKey,
    x509::{SubjectPublicKeyInfo, X509Name},
};

pub use self::cache::CertificateCache;
use self::trust::Trust;
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
    /// Whether it leads to an authority that the user trusts.
    pub trust: Trust,
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
    /// Its hash is MD5 or SHA-1, which collide (RFC 9155 §1).
    pub has_weak_signature: bool,
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

impl std::fmt::Display for KeyAlgorithm {
    /// `RSA`, `EC secp256r1`, `Ed25519`, or an OID in dotted form.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa => f.write_str("RSA"),
            Self::Ec(Some(curve)) => write!(f, "EC {curve}"),
            Self::Ec(None) => f.write_str("EC"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Ed448 => f.write_str("Ed448"),
            Self::Dsa => f.write_str("DSA"),
            Self::MlDsa(name) => write!(f, "{name}"),
            Self::Other(oid) => write!(f, "{oid}"),
        }
    }
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
        let mut encodings: SmallVec<[&[u8]; 4]> = SmallVec::new();
        while !list.is_empty() {
            let Some(der) = list.vector24() else {
                chain.malformed = true;
                break;
            };
            let position = chain.count;
            chain.count = chain.count.saturating_add(1);
            if usize::from(position) < Self::MAX_CERTIFICATES {
                chain.read_certificate(position, der, cache);
                encodings.push(der);
            }
        }
        if chain.leaf().is_some() {
            chain.trust = cache.trust(&encodings);
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
        match cache.get_or_parse(der) {
            Some(certificate) => self.certificates.push(certificate),
            None => self.unparsable.push(UnparsableCertificate {
                position,
                length: length_of(der),
                sha256: Sha256::digest(der).into(),
            }),
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

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        /// What the allocator adds to a short text.
        const OVERHEAD: usize = 16;
        let texts = self.names.iter().map(|name| match name {
            SubjectAltName::Dns(text) | SubjectAltName::Uri(text) | SubjectAltName::Email(text) => {
                text.len() + OVERHEAD
            }
            SubjectAltName::Ip(_) | SubjectAltName::Other => 0,
        });
        let names = self.names.capacity() * size_of::<SubjectAltName>() + texts.sum::<usize>();
        size_of::<Self>() + names + self.subject.len() + self.issuer.len() + 4 * OVERHEAD
    }

    fn parse(der: &[u8]) -> Option<Self> {
        let (rest, parsed) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let signature_algorithm =
            signature_algorithm_name(&parsed.signature_algorithm.algorithm.to_id_string());
        let mut certificate = Self {
            subject: distinguished_name::to_text(parsed.subject()),
            issuer: distinguished_name::to_text(parsed.issuer()),
            common_name: distinguished_name::common_name(parsed.subject()),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            names: Vec::new(),
            name_count: 0,
            key: PublicKey::from_info(parsed.public_key()),
            has_weak_signature: {
                let name = signature_algorithm.to_ascii_lowercase();
                name.contains("md5") || name.contains("sha1")
            },
            signature_algorithm,
            extended_key_usage: None,
            is_ca: None,
            key_usage: None,
            sha256: Sha256::digest(der).into(),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tls::testing::{self, body};

    fn parse(der: &[u8]) -> Certificate {
        Certificate::parse(der).unwrap()
    }

    fn chain_of(certificates: &[&[u8]]) -> CertificateChain {
        let mut list = Vec::new();
        for der in certificates {
            list.extend(&length_of(der).to_be_bytes()[1..]);
            list.extend(*der);
        }
        let mut body = length_of(&list).to_be_bytes()[1..].to_vec();
        body.extend(list);
        decode(&body)
    }

    fn decode(body: &[u8]) -> CertificateChain {
        CertificateChain::decode(body, &mut CertificateCache::new()).complete().unwrap()
    }

    /// The leaf and its issuer, out of the chain.
    fn lab_certificates() -> (Vec<u8>, Vec<u8>) {
        let message = testing::certificate_chain();
        let mut list = Reader::new(&body(&message)[3..]);
        let leaf = list.vector24().unwrap().to_vec();
        (leaf, list.vector24().unwrap().to_vec())
    }

    fn name(name: &str) -> ServerName {
        ServerName::new(name.as_bytes())
    }

    #[test]
    fn a_chain_shows_names_dates_keys_and_links() {
        let message = testing::certificate_chain();
        let chain = decode(body(&message));
        assert_eq!((chain.count, chain.length as usize), (2, message.len()));
        let leaf = chain.leaf().unwrap();
        assert_eq!((&*leaf.subject, &*leaf.issuer), ("CN=api.example.com", "CN=Lab Int"));
        assert_eq!(leaf.common_name.as_deref(), Some("api.example.com"));
        assert_eq!((leaf.not_before, leaf.not_after), (1_795_314_596, 1_826_850_596));
        assert!(leaf.is_valid_at(1_795_314_596) && !leaf.is_valid_at(1_826_850_597));
        assert_eq!(leaf.names, [SubjectAltName::Dns("api.example.com".into())]);
        assert_eq!(leaf.key, PublicKey { algorithm: KeyAlgorithm::Rsa, bits: Some(2048) });
        assert_eq!(&*leaf.signature_algorithm, "sha256WithRSAEncryption");
        assert!(!leaf.self_issued && !leaf.has_malformed_extension);
        assert_eq!(chain.certificates[1].is_ca, Some(true));
        assert_eq!(chain.links_in_order(), Some(true));
        assert_eq!(chain.missing_issuer(), Some("CN=Lab Root"));
        assert!(!chain.is_self_signed_leaf() && !chain.malformed);
    }

    #[test]
    fn a_chain_in_the_wrong_order_still_leads_to_the_missing_issuer() {
        let (leaf, intermediate) = lab_certificates();
        let odd = testing::certificate_odd_names();
        let shuffled = chain_of(&[&leaf, &odd, &intermediate]);
        assert_eq!(shuffled.links_in_order(), Some(false));
        assert_eq!(shuffled.missing_issuer(), Some("CN=Lab Root"));
        assert_eq!(chain_of(&[&leaf]).missing_issuer(), Some("CN=Lab Int"));
    }

    #[test]
    fn an_unparsable_certificate_is_counted_and_hides_nothing() {
        let (leaf, intermediate) = lab_certificates();
        let chain = chain_of(&[&leaf, b"not a certificate", &intermediate]);
        assert_eq!((chain.count, chain.certificates.len()), (3, 2));
        assert_eq!((chain.unparsable[0].position, chain.unparsable[0].length), (1, 17));
        assert_eq!(&*chain.leaf().unwrap().subject, "CN=api.example.com");
        assert_eq!((chain.links_in_order(), chain.missing_issuer()), (None, None));

        let headless = chain_of(&[b"", &intermediate]);
        assert!(headless.leaf().is_none());
        assert!(!headless.is_self_signed_leaf());
    }

    #[test]
    fn an_empty_list_is_a_chain_and_a_list_that_does_not_add_up_is_kept_as_far_as_it_goes() {
        assert!(decode(&[0, 0, 0]).is_empty());
        let (leaf, _) = lab_certificates();
        let mut list = [&length_of(&leaf).to_be_bytes()[1..], &leaf, &[0, 9, 9, 1]].concat();
        list.splice(0..0, length_of(&list).to_be_bytes()[1..].to_vec());
        let chain = decode(&list);
        assert!(chain.malformed && chain.leaf().is_some() && !chain.is_empty());
        assert_eq!(chain.links_in_order(), None);
    }

    #[test]
    fn no_more_certificates_are_read_than_the_limit_and_all_are_counted() {
        let (leaf, _) = lab_certificates();
        let chain = chain_of(&vec![leaf.as_slice(); 200]);
        assert_eq!((chain.count, chain.certificates.len()), (200, CertificateChain::MAX_CERTIFICATES));
        assert_eq!(chain.links_in_order(), None);
    }

    #[test]
    fn odd_names_come_out_escaped() {
        let certificate = parse(&testing::certificate_odd_names());
        assert_eq!(
            &*certificate.subject,
            "1.2.840.113549.1.9.1=ops@odd.example,CN=Bücher+CN=*.odd.example,OU=line\\1b\\\\,OU=\\#first,\
             O=\\ Example\\, \\\"Inc.\\\" \\<x\\>,C=DE"
        );
        assert!(certificate.self_issued && certificate.is_self_signed());
        assert_eq!(certificate.names.len(), 9);
        assert!(certificate.names.contains(&SubjectAltName::Dns("Esc\\1b.example".into())));
        assert!(certificate.names.contains(&SubjectAltName::Ip([192, 0, 2, 7].into())));
        assert!(
            certificate
                .names
                .contains(&SubjectAltName::Uri("spiffe://cluster.local/ns/default/sa/web".into()))
        );
        assert_eq!(certificate.key.algorithm, KeyAlgorithm::Ec(Some(NamedGroup::SECP256R1)));
        assert_eq!(certificate.key.bits, Some(256));
        assert_eq!(&*certificate.signature_algorithm, "ecdsa-with-SHA256");
        assert_eq!(certificate.is_ca, Some(false));
        let usage = certificate.extended_key_usage.unwrap();
        assert!(usage.allows_server() && usage.allows_client() && !usage.any);
        assert!(certificate.key_usage.is_some_and(|usage| usage.digital_signature && !usage.key_cert_sign));
        assert_eq!(&*certificate.serial, "0a1b2c");
    }

    #[test]
    fn names_match_as_rfc_9525_says() {
        let certificate = parse(&testing::certificate_odd_names());
        for (host, expected) in [
            ("www.odd.example", NameMatch::Matches),
            ("WWW.ODD.EXAMPLE.", NameMatch::Matches),
            ("odd.example", NameMatch::Matches),
            ("a.www.odd.example", NameMatch::Differs),
            (".odd.example", NameMatch::Differs),
            // A wildcard is a whole label.
            ("foo.wild.example", NameMatch::Differs),
            ("f*.wild.example", NameMatch::Matches),
            // `*` alone covers nothing.
            ("localhost", NameMatch::Differs),
            ("192.0.2.7", NameMatch::Matches),
            ("192.0.2.8", NameMatch::Differs),
            ("2001:db8:0::7", NameMatch::Matches),
            ("", NameMatch::Differs),
        ] {
            assert_eq!(certificate.matches_name(&name(host)), expected, "{host:?}");
        }
    }

    #[test]
    fn a_common_name_counts_only_without_alternative_names_and_is_reported_as_such() {
        let certificate = parse(&testing::certificate_common_name_only());
        assert_eq!(certificate.matches_name(&name("host.cn.example")), NameMatch::CommonNameOnly);
        assert_eq!(certificate.matches_name(&name("other.cn.example")), NameMatch::Differs);
        assert_eq!(certificate.key, PublicKey { algorithm: KeyAlgorithm::Ed25519, bits: Some(256) });
        // Has alternative names: "Bücher" is not looked at.
        let odd = parse(&testing::certificate_odd_names());
        assert_eq!(odd.matches_name(&ServerName::new("Bücher".as_bytes())), NameMatch::Differs);
    }

    #[test]
    fn names_that_were_not_read_leave_a_mismatch_open() {
        let certificate = Certificate { name_count: 1000, ..parse(&testing::certificate_odd_names()) };
        assert_eq!(certificate.matches_name(&name("elsewhere.example")), NameMatch::Unknown);
        assert_eq!(certificate.matches_name(&name("www.odd.example")), NameMatch::Matches);
    }

    #[test]
    fn a_certificate_is_parsed_once_and_the_cache_stays_bounded() {
        let mut cache = CertificateCache::new();
        let message = testing::certificate_chain();
        let first = CertificateChain::decode(body(&message), &mut cache).complete().unwrap();
        let again = CertificateChain::decode(body(&message), &mut cache).complete().unwrap();
        assert!(Arc::ptr_eq(&first.certificates[0], &again.certificates[0]));
        assert_eq!(cache.len(), 2);

        let mut filler = vec![0; 64 << 10];
        let per_generation = CertificateCache::GENERATION_BYTES / filler.len();
        for n in 0..4 * per_generation {
            filler[..8].copy_from_slice(&n.to_be_bytes());
            assert!(cache.get_or_parse(&filler).is_none());
        }
        assert!(cache.len() <= 2 * (per_generation + 1));
    }

    #[test]
    fn every_prefix_of_a_chain_is_incomplete() {
        let message = testing::certificate_chain();
        let mut cache = CertificateCache::new();
        for len in 0..body(&message).len() {
            assert_eq!(CertificateChain::decode(&body(&message)[..len], &mut cache), Decoded::Incomplete);
        }
    }

    #[test]
    fn every_prefix_of_a_certificate_is_unparsable() {
        let der = testing::certificate_odd_names();
        for len in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..len]), None, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = CertificateChain::decode(&bytes, &mut CertificateCache::new());
            let _ = distinguished_name_text(&bytes);
        }

        #[test]
        fn a_certificate_with_any_byte_changed_never_panics_and_prints_no_control_characters(
            at in 0usize..690, to in any::<u8>(),
        ) {
            let mut der = testing::certificate_odd_names();
            der[at] = to;
            if let Some(certificate) = Certificate::parse(&der) {
                let printed = format!("{}{}{:?}", certificate.subject, certificate.issuer, certificate.names);
                prop_assert!(!printed.chars().any(char::is_control));
                let _ = certificate.matches_name(&name("www.odd.example"));
            }
        }
    }
}
