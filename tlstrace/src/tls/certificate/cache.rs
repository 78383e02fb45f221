//! Certificates that were parsed before.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    Certificate,
    trust::{RememberedTrust, Trust, TrustAnchors},
};

/// Certificates that were parsed before, by their encoding, and those that could not be. Encodings are
/// compared as a whole: a digest takes ten times as long, and anything shorter could be forged.
///
/// Bounded in bytes, twice [`Self::GENERATION_BYTES`] at most: when the younger of two generations is full,
/// the older is dropped and takes its place. What is in use stays in, by being moved to the younger one.
#[derive(Debug, Default)]
pub struct CertificateCache {
    young: Generation,
    old: Generation,
    young_bytes: usize,
    trust: Option<RememberedTrust>,
}

type Generation = HashMap<Box<[u8]>, Option<Arc<Certificate>>, RandomState>;

impl CertificateCache {
    /// Bytes of encodings, and of what was read of them, in one generation. At one to two kilobytes a
    /// certificate, this is some thousands of them.
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

    /// The certificate with this encoding; `None` if it cannot be parsed.
    pub(super) fn get_or_parse(&mut self, der: &[u8]) -> Option<Arc<Certificate>> {
        if let Some(found) = self.young.get(der) {
            return found.clone();
        }
        let (der, certificate) =
            self.old.remove_entry(der).unwrap_or_else(|| (der.into(), Certificate::parse(der).map(Arc::new)));
        if self.young_bytes > Self::GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += der.len() + certificate.as_ref().map_or(0, |certificate| certificate.weight());
        self.young.insert(der, certificate.clone());
        certificate
    }
}
