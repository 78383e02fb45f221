//! Certificates and chains of TLS ≤ 1.2, as an observer needs them: names, dates, key, constraints, links.
//!
//! x509-parser decodes. A certificate is parsed once per distinct encoding (see [`CertificateCache`]), and one
//! that cannot be parsed never hides its neighbours. No path building and no trust here: an observer does not
//! know what a peer trusts.

use std::{net::IpAddr, sync::Arc};

use super::{Decoded, client_hello::ServerName};

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
    pub sha256: [u8; 32],
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
    pub sha256: [u8; 32],
    /// Bytes of the encoding.
    pub length: u32,
    /// Subject and issuer are the same name.
    pub self_issued: bool,
    /// `subjectKeyIdentifier`.
    pub subject_key_id: Option<Box<[u8]>>,
    /// `authorityKeyIdentifier`, if it has a key identifier.
    pub authority_key_id: Option<Box<[u8]>>,
    /// The serial number in lower-case hexadecimal.
    pub serial: Box<str>,
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
    /// An elliptic curve, by its name or OID.
    Ec(Box<str>),
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

    /// Reads the body of a TLS ≤ 1.2 Certificate message.
    pub fn decode(body: &[u8], cache: &mut CertificateCache) -> Decoded<Self> {
        let _ = (body, cache);
        Decoded::Incomplete
    }

    /// No certificate at all: a client's way to say that it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sender's own certificate, if it could be parsed.
    pub fn leaf(&self) -> Option<&Arc<Certificate>> {
        None
    }

    /// Is each certificate followed by its issuer, as RFC 5246 §7.4.2 asks? `None` if some certificate
    /// could not be parsed. Names and key ids are compared; signatures are not verified.
    pub fn links_in_order(&self) -> Option<bool> {
        None
    }

    /// Is it a single certificate that issued itself?
    pub fn is_self_signed_leaf(&self) -> bool {
        false
    }

    /// The name of the issuer at which the chain from the leaf up breaks off, although the certificate there
    /// was not issued by itself. Usual when that issuer is a well-known root, which need not be sent.
    pub fn missing_issuer(&self) -> Option<&str> {
        None
    }
}

impl Certificate {
    /// Alternative names kept of one certificate.
    pub const MAX_NAMES: usize = 256;

    /// Does it cover `name`, per RFC 9525: a wildcard stands for the whole leftmost label and nothing else, an
    /// address matches only an address.
    pub fn matches_name(&self, name: &ServerName) -> NameMatch {
        let _ = name;
        NameMatch::Unknown
    }

    /// Was it signed by the holder of `issuer`, as far as names and key ids tell?
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let _ = issuer;
        false
    }
}

/// Certificates that were parsed before, by SHA-256 of their encoding; bounded.
#[derive(Debug, Default)]
pub struct CertificateCache {}
