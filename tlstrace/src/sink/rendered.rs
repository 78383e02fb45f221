//! Parts of JSON lines that many lines have in common, as they were written the first time: what a kind of
//! client offers, and a server's certificates.
//!
//! A busy listener sees few kinds of clients and few chains, and most of a line is made of them. What is kept
//! is bounded; what is looked up is compared, not only its hash.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use serde::Serialize;

use super::writer::{Part, Verbatim};

/// Most parts that are kept of one kind. When there are more, all are forgotten: simpler than to choose, and
/// rare enough.
const MAX_KEPT: usize = 512;
/// Most bytes of all that is kept of one kind.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Rendered parts by what they show.
#[derive(Debug)]
pub(super) struct Rendered<K> {
    by_hash: HashMap<u64, (K, Part), RandomState>,
    bytes: usize,
}

impl<K> Default for Rendered<K> {
    fn default() -> Self {
        Self { by_hash: HashMap::default(), bytes: 0 }
    }
}

impl<K> Rendered<K> {
    /// The part for what is shown, `shown`: as it was rendered before for an equal key, or as `render` gives it.
    pub(super) fn get<T: Serialize>(
        &mut self,
        shown: impl Hash,
        is_key: impl Fn(&K) -> bool,
        key: impl FnOnce() -> K,
        render: impl FnOnce() -> T,
    ) -> serde_json::Result<Verbatim<'_>> {
        let hash = self.by_hash.hasher().hash_one(shown);
        let is_known = self.by_hash.get(&hash).is_some_and(|(known, _)| is_key(known));
        if !is_known {
            if self.by_hash.len() >= MAX_KEPT || self.bytes > MAX_BYTES {
                self.by_hash.clear();
                self.bytes = 0;
            }
            let part = Part::of(&render())?;
            // What is shown takes about as much in memory as in text.
            self.bytes += 2 * part.as_bytes().len();
            self.by_hash.insert(hash, (key(), part));
        }
        match self.by_hash.get(&hash) {
            Some((_, part)) => Ok(Verbatim(part.as_bytes())),
            None => Ok(Verbatim(Part::NULL)),
        }
    }
}
