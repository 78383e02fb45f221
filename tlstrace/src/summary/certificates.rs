//! Server certificates that were seen in the clear, and when they expire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::timestamp::Timestamp;
use crate::entry::{Entry, Leaf};

/// What is left of a certificate that is about to expire.
pub const EXPIRES_SOON: Duration = Duration::from_hours(30 * 24);
/// Most certificates; when there are more, the one that lasts longest is forgotten.
const MAX_CERTIFICATES: usize = 1024;

/// Certificates, by their end of validity.
#[derive(Debug, Default)]
pub struct Certificates {
    seen: BTreeMap<(i64, String), Certificate>,
}

/// Where a certificate was seen last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    pub server: SocketAddr,
    pub server_name: Option<String>,
    pub last_seen: Timestamp,
}

impl Certificates {
    pub(super) fn add(&mut self, leaf: &Leaf<'_>, entry: &Entry<'_>) {
        let server_name = entry.server_name.as_deref();
        // Nearly always known: then nothing is copied that has not changed.
        let known = self
            .seen
            .range_mut((leaf.not_after, String::new())..)
            .take_while(|((not_after, _), _)| *not_after == leaf.not_after)
            .find(|((_, subject), _)| *subject == leaf.subject);
        if let Some((_, known)) = known {
            if known.server_name.as_deref() != server_name {
                known.server_name = server_name.map(ToOwned::to_owned);
            }
            (known.server, known.last_seen) = (entry.server, entry.time);
            return;
        }
        let certificate = Certificate {
            server: entry.server,
            server_name: server_name.map(ToOwned::to_owned),
            last_seen: entry.time,
        };
        self.seen.insert((leaf.not_after, leaf.subject.clone().into_owned()), certificate);
        if self.seen.len() > MAX_CERTIFICATES {
            self.seen.pop_last();
        }
    }

    /// Those that end within `within` of `now`, or have ended, soonest first: end (seconds since 1970), subject,
    /// and where it was seen.
    pub fn expiring(
        &self,
        now: Timestamp,
        within: Duration,
    ) -> impl Iterator<Item = (i64, &str, &Certificate)> {
        let limit = now.after(within).as_secs().cast_signed();
        self.iter().take_while(move |(not_after, ..)| *not_after <= limit)
    }

    /// All, soonest end first.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &str, &Certificate)> {
        self.seen.iter().map(|((not_after, subject), certificate)| (*not_after, &**subject, certificate))
    }
}
