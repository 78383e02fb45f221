//! Certificates that were parsed before.

use std::{collections::HashMap, sync::Arc};

use super::{
    Certificate, Sha256Digest,
    trust::{RememberedTrust, Trust, TrustAnchors},
};

/// Certificates that were parsed before, by the SHA-256 of their encoding, and those that could not be.
///
/// Bounded in bytes of encodings, twice [`Self::GENERATION_BYTES`] at most: when the younger of two
/// generations is full, the older is dropped and takes its place. What is in use stays in, by being copied to
/// the younger one.
#[derive(Debug, Default)]
pub struct CertificateCache {
    young: HashMap<Sha256Digest, Option<Arc<Certificate>>>,
    old: HashMap<Sha256Digest, Option<Arc<Certificate>>>,
    young_bytes: usize,
    trust: Option<RememberedTrust>,
}

impl CertificateCache {
    /// Bytes of encodings that one generation stands for. At one to two kilobytes a certificate, this is some
    /// thousands of them.
    pub const GENERATION_BYTES: usize = 4 << 20;

    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty cache that asks `anchors` about every chain.
    pub fn trusting(anchors: Arc<TrustAnchors>) -> Self {
        Self { trust: Some(RememberedTrust::new(anchors)), ..Self::default() }
    }

    /// Certificates held, unparsable ones included.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.keys().filter(|key| !self.young.contains_key(*key)).count()
    }

    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// What the trust anchors say about a chain, the leaf first.
    pub(super) fn trust(&mut self, chain: &[&[u8]]) -> Trust {
        self.trust.as_mut().map_or(Trust::NotAsked, |trust| trust.judge(chain))
    }

    /// The certificate with this encoding and digest; `None` if it cannot be parsed.
    pub(super) fn get_or_parse(&mut self, der: &[u8], sha256: Sha256Digest) -> Option<Arc<Certificate>> {
        if let Some(found) = self.young.get(&sha256) {
            return found.clone();
        }
        let certificate = match self.old.remove(&sha256) {
            Some(found) => found,
            None => Certificate::parse(der, sha256).map(Arc::new),
        };
        if self.young_bytes > Self::GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += der.len() + size_of::<Certificate>();
        self.young.insert(sha256, certificate.clone());
        certificate
    }
}
