//! Does a chain lead to an authority that the user trusts?
//!
//! Paths are built through what the server sent, in any order, by names, key identifiers and signatures (RFC 5280
//! §6.1). Dates, names and usages are asked elsewhere: an expired certificate is another finding. Every certificate
//! of the user's file is an anchor, self-signed or not, as for most TLS stacks.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, error::X509Error, pem::Pem, prelude::FromDer};

use super::{Certificate, Sha256Digest};

/// Longest path that is looked for; chains of the public web have two to four certificates.
const MAX_PATH: usize = 8;
/// Chains whose answer is remembered.
const MAX_REMEMBERED: usize = 4096;

/// Authorities that the user trusts.
#[derive(Debug)]
pub struct TrustAnchors {
    by_subject: HashMap<Box<str>, Vec<Anchor>>,
    count: usize,
}

#[derive(Debug)]
struct Anchor {
    der: Box<[u8]>,
    certificate: Arc<Certificate>,
}

/// Why no trust anchors could be read.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    #[error("it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----) that can be read")]
    Empty,
    #[error("its block {0} is damaged: {1}")]
    Damaged(usize, String),
}

/// What trust anchors say about a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// There are no trust anchors.
    #[default]
    NotAsked,
    /// The chain leads to this one.
    Anchored(Arc<Certificate>),
    /// The chain leads to none of them.
    Astray {
        /// How many there are.
        anchors: usize,
        /// One of them has the name of the issuer that the chain ends below, and another key.
        same_name: bool,
    },
}

impl TrustAnchors {
    /// Of certificates in DER. What cannot be read is left out, since bundles of the public web hold oddities.
    pub fn new(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut anchors = Self { by_subject: HashMap::new(), count: 0 };
        for der in certificates {
            let Some(certificate) = Certificate::parse(&der) else { continue };
            let of_name = anchors.by_subject.entry(certificate.subject.clone()).or_default();
            if of_name.iter().all(|known| known.certificate.sha256 != certificate.sha256) {
                of_name.push(Anchor { der: der.into(), certificate: Arc::new(certificate) });
                anchors.count += 1;
            }
        }
        anchors
    }

    /// Reads a bundle: PEM blocks with anything between them, as OpenSSL's `-CAfile`.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, TrustError> {
        let mut certificates = Vec::new();
        for (at, block) in Pem::iter_from_buffer(bundle).enumerate() {
            let block = block.map_err(|error| TrustError::Damaged(at + 1, error.to_string()))?;
            if matches!(block.label.as_str(), "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") {
                certificates.push(block.contents);
            }
        }
        let anchors = Self::new(certificates);
        if anchors.is_empty() { Err(TrustError::Empty) } else { Ok(anchors) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What they say about a chain, given the encodings of its certificates, the leaf first.
    pub fn judge(&self, chain: &[&[u8]]) -> Trust {
        let parsed: Vec<_> = chain.iter().filter_map(|der| Some((*der, Certificate::parse(der)?))).collect();
        let mut same_name = false;
        // Depth first, each certificate once: a chain that goes in circles ends.
        let mut reached = vec![false; parsed.len()];
        let mut path = vec![0];
        while let Some(at) = path.pop() {
            let Some((der, certificate)) = parsed.get(at) else { break };
            let Some(seen) = reached.get_mut(at).filter(|seen| !**seen) else { continue };
            *seen = true;
            if let Some(anchor) = self.anchor_of(der, certificate, &mut same_name) {
                return Trust::Anchored(anchor);
            }
            if reached.iter().filter(|seen| **seen).count() >= MAX_PATH {
                break;
            }
            let issuers = parsed.iter().enumerate().filter(|(other, (issuer_der, issuer))| {
                *other != at && certificate.is_issued_by(issuer) && is_signed_by(der, issuer_der)
            });
            path.extend(issuers.map(|(other, _)| other));
        }
        Trust::Astray { anchors: self.count, same_name }
    }

    /// The anchor that issued a certificate, or that it is.
    fn anchor_of(
        &self,
        der: &[u8],
        certificate: &Certificate,
        same_name: &mut bool,
    ) -> Option<Arc<Certificate>> {
        let itself = self.by_subject.get(&certificate.subject).into_iter().flatten();
        if let Some(same) = itself.into_iter().find(|anchor| anchor.certificate.sha256 == certificate.sha256)
        {
            return Some(Arc::clone(&same.certificate));
        }
        let of_name = self.by_subject.get(&certificate.issuer)?;
        let issuer = of_name
            .iter()
            .find(|anchor| certificate.is_issued_by(&anchor.certificate) && is_signed_by(der, &anchor.der));
        *same_name |= issuer.is_none();
        issuer.map(|anchor| Arc::clone(&anchor.certificate))
    }
}

/// Whether the key of `issuer` made the signature of `subject`. One of a kind that cannot be verified here counts as
/// good: names and key identifiers were compared before.
fn is_signed_by(subject: &[u8], issuer: &[u8]) -> bool {
    let (Ok((_, subject)), Ok((_, issuer))) =
        (X509Certificate::from_der(subject), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    // The verifier takes no RSA key below 2048 bits.
    let is_small = matches!(issuer.public_key().parsed(), Ok(x509_parser::public_key::PublicKey::RSA(key))
        if key.key_size() < 2048);
    match subject.verify_signature(Some(issuer.public_key())) {
        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
        Err(_) => is_small,
    }
}

/// Trust anchors, and what they said about chains that come again and again.
#[derive(Debug)]
pub(super) struct RememberedTrust {
    anchors: Arc<TrustAnchors>,
    answers: HashMap<Sha256Digest, Trust>,
}

impl RememberedTrust {
    pub(super) fn new(anchors: Arc<TrustAnchors>) -> Self {
        Self { anchors, answers: HashMap::new() }
    }

    pub(super) fn judge(&mut self, chain: &[&[u8]]) -> Trust {
        let mut digest = Sha256::new();
        for der in chain {
            digest.update(Sha256::digest(der));
        }
        if self.answers.len() >= MAX_REMEMBERED {
            self.answers.clear();
        }
        match self.answers.entry(digest.finalize().into()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(free) => free.insert(self.anchors.judge(chain)).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    struct Authority {
        der: Vec<u8>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    fn authority(name: &str, parent: Option<&Authority>) -> Authority {
        let (params, key) = (params(name, true), KeyPair::generate().unwrap());
        let certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer),
            None => params.self_signed(&key),
        };
        Authority { der: certificate.unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
    }

    fn leaf(authority: &Authority) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        params("leaf", false).signed_by(&key, &authority.issuer).unwrap().der().to_vec()
    }

    fn bundle(certificates: &[&[u8]]) -> TrustAnchors {
        TrustAnchors::new(certificates.iter().map(|der| der.to_vec()))
    }

    fn is_anchored(trust: &Trust) -> bool {
        matches!(trust, Trust::Anchored(_))
    }

    #[test]
    fn a_chain_leads_to_a_root_through_what_was_sent_in_any_order() {
        let root = authority("Root", None);
        let middle = authority("Middle", Some(&root));
        let low = authority("Low", Some(&middle));
        let leaf = leaf(&low);
        let anchors = bundle(&[&authority("Other", None).der, &root.der]);
        assert_eq!(anchors.len(), 2);
        assert!(is_anchored(&anchors.judge(&[&leaf, &low.der, &middle.der])));
        assert!(is_anchored(&anchors.judge(&[&leaf, &middle.der, &low.der, &root.der])));
        assert_eq!(anchors.judge(&[&leaf, &middle.der]), Trust::Astray { anchors: 2, same_name: false });
        assert!(is_anchored(&bundle(&[&low.der]).judge(&[&leaf])), "an intermediate is an anchor, too");
        assert!(is_anchored(&bundle(&[&leaf]).judge(&[&leaf])), "and so is the leaf itself");
    }

    #[test]
    fn a_root_of_the_same_name_with_another_key_is_another_root() {
        let (old, new) = (authority("Root", None), authority("Root", None));
        let leaf = leaf(&new);
        assert_eq!(bundle(&[&old.der]).judge(&[&leaf]), Trust::Astray { anchors: 1, same_name: true });
        assert!(is_anchored(&bundle(&[&old.der, &new.der]).judge(&[&leaf])));
    }

    #[test]
    fn circles_end() {
        let a = authority("A", None);
        let b = authority("B", Some(&a));
        // B says that A issued it, and this A that B did.
        let (params, key) = (params("A", true), KeyPair::generate().unwrap());
        let a_by_b = params.signed_by(&key, &b.issuer).unwrap().der().to_vec();
        let anchors = bundle(&[&authority("Other", None).der]);
        assert!(!is_anchored(&anchors.judge(&[&b.der, &a_by_b, &a.der, &b.der])));
        assert!(!is_anchored(&anchors.judge(&[b"garbage"])) && !is_anchored(&anchors.judge(&[])));
    }

    #[test]
    fn a_bundle_may_hold_anything_between_its_certificates() {
        let key = KeyPair::generate().unwrap();
        let one = params("One", true).self_signed(&key).unwrap().pem();
        let other = params("Other", true).self_signed(&key).unwrap().pem();
        let private = key.serialize_pem();
        let bundle = format!("# One\n{one}\n# a key\n{private}\nOther\n{other}{one}");
        assert_eq!(TrustAnchors::from_pem(bundle.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_bundle_is_said_so() {
        let no_certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for bad in [&b""[..], b"text", no_certificate] {
            assert_eq!(TrustAnchors::from_pem(bad).unwrap_err(), TrustError::Empty);
        }
        let damaged = b"-----BEGIN CERTIFICATE-----\nAA!A\n-----END CERTIFICATE-----\n";
        assert!(matches!(TrustAnchors::from_pem(damaged).unwrap_err(), TrustError::Damaged(1, _)));
    }
}
