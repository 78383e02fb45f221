//! Failures that belong together: the same verdict, without a long pause, and what else they have in common.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::engine::timestamp::Timestamp;
use crate::entry::Entry;

/// A pause after which the next failure of a kind is another incident.
const PAUSE: Duration = Duration::from_mins(10);
/// Most incidents that are over and still told of.
const MAX_PAST: usize = 64;
/// Most values that [`Few`] tells apart.
const FEW: usize = 64;

/// Incidents by verdict: the current one of each, and those that are over.
#[derive(Debug, Default)]
pub struct Incidents {
    current: BTreeMap<Arc<str>, Incident>,
    past: Vec<Incident>,
}

/// Failures of one kind.
#[derive(Clone, Debug)]
pub struct Incident {
    pub verdict: Arc<str>,
    pub failures: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    pub ja4: Few<String>,
    pub server_names: Few<String>,
    pub servers: Few<SocketAddr>,
    pub clients: Few<IpAddr>,
    /// Some of the failures had no server name, or no fingerprint: no ClientHello was seen.
    pub has_nameless: bool,
    pub has_unprinted: bool,
    networks: Networks,
}

/// The values that were seen, as long as they are few.
#[derive(Clone, Debug)]
pub struct Few<T> {
    values: std::collections::BTreeSet<T>,
    has_more: bool,
}

/// The smallest networks that hold all clients of a family.
#[derive(Clone, Copy, Debug, Default)]
struct Networks {
    v4: Option<(u32, u32)>,
    v6: Option<(u128, u32)>,
}

impl Incidents {
    /// All, the one with most failures first.
    pub fn list(&self) -> Vec<&Incident> {
        let mut all: Vec<_> = self.current.values().chain(&self.past).collect();
        all.retain(|incident| incident.failures > 0);
        all.sort_by_key(|incident| (std::cmp::Reverse(incident.failures), std::cmp::Reverse(incident.last)));
        all
    }

    pub(super) fn add(&mut self, verdict: &Arc<str>, entry: &Entry<'_>) {
        let incident = self
            .current
            .entry(Arc::clone(verdict))
            .or_insert_with(|| Incident::new(Arc::clone(verdict), entry.time));
        if entry.time.since(incident.last) > PAUSE {
            let over = std::mem::replace(incident, Incident::new(Arc::clone(verdict), entry.time));
            incident.add(entry);
            self.past.push(over);
            if self.past.len() > MAX_PAST {
                self.past.sort_by_key(|incident| std::cmp::Reverse(incident.failures));
                self.past.truncate(MAX_PAST);
            }
        } else {
            incident.add(entry);
        }
    }

    pub(super) fn take_back(&mut self, verdict: &str) {
        if let Some(incident) = self.current.get_mut(verdict) {
            incident.failures = incident.failures.saturating_sub(1);
        }
    }
}

impl Incident {
    fn new(verdict: Arc<str>, time: Timestamp) -> Self {
        Self {
            verdict,
            failures: 0,
            first: time,
            last: time,
            ja4: Few::default(),
            server_names: Few::default(),
            servers: Few::default(),
            clients: Few::default(),
            has_nameless: false,
            has_unprinted: false,
            networks: Networks::default(),
        }
    }

    fn add(&mut self, entry: &Entry<'_>) {
        self.failures += 1;
        self.first = self.first.min(entry.time);
        self.last = self.last.max(entry.time);
        match &entry.ja4 {
            Some(ja4) => self.ja4.add(ja4, |ja4| ja4.clone().into_owned()),
            None => self.has_unprinted = true,
        }
        match &entry.server_name {
            Some(name) => self.server_names.add(name, |name| name.clone().into_owned()),
            None => self.has_nameless = true,
        }
        self.servers.add(&entry.server, |server| *server);
        self.clients.add(&entry.client.ip(), |client| *client);
        self.networks.add(entry.client.ip());
    }

    /// The smallest network that holds all clients, if it is small enough to say something: `10.8.0.0/14`.
    pub fn network(&self) -> Option<String> {
        match (self.networks.v4, self.networks.v6) {
            (Some((address, prefix @ 8..)), None) => {
                Some(format!("{}/{prefix}", Ipv4Addr::from_bits(address)))
            }
            (None, Some((address, prefix @ 16..))) => {
                Some(format!("{}/{prefix}", Ipv6Addr::from_bits(address)))
            }
            _ => None,
        }
    }

    /// What the failures have in common, as phrases: `one JA4`, `10.8.0.0/14`, `to api.example.com`.
    pub fn in_common(&self) -> Vec<String> {
        let mut phrases = Vec::new();
        match self.ja4.count() {
            Some(0) => {}
            Some(1) if self.has_unprinted => {}
            Some(1) => phrases.push("one JA4".to_owned()),
            _ => phrases.push(format!("{} JA4s", self.ja4)),
        }
        match (self.clients.one(), self.network()) {
            (Some(client), _) => phrases.push(format!("from {client}")),
            (None, Some(network)) => phrases.push(format!("{network} ({} clients)", self.clients)),
            (None, None) => phrases.push(format!("{} clients", self.clients)),
        }
        match (self.server_names.one().filter(|_| !self.has_nameless), self.servers.one()) {
            (Some(name), _) => phrases.push(format!("to {name}")),
            (None, Some(server)) => phrases.push(format!("to {server}")),
            (None, None) => phrases.push(format!("{} servers", self.servers)),
        }
        phrases
    }
}

impl<T: Ord> Few<T> {
    /// The value, if it is the only one.
    pub fn one(&self) -> Option<&T> {
        self.values.first().filter(|_| self.count() == Some(1))
    }

    /// How many there are; `None`: more than are told apart.
    pub fn count(&self) -> Option<usize> {
        (!self.has_more).then_some(self.values.len())
    }

    /// Those that are known, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub(crate) fn add<Q>(&mut self, value: &Q, own: impl FnOnce(&Q) -> T)
    where
        Q: PartialEq<T> + ?Sized,
    {
        if self.values.iter().any(|known| value == known) {
            return;
        }
        if self.values.len() < FEW {
            self.values.insert(own(value));
        } else {
            self.has_more = true;
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { values: std::collections::BTreeSet::new(), has_more: false }
    }
}

impl<T: Ord> fmt::Display for Few<T> {
    /// `3`, or `more than 64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            Some(count) => write!(f, "{count}"),
            None => write!(f, "more than {FEW}"),
        }
    }
}

impl Networks {
    fn add(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let address = address.to_bits();
                let (network, prefix) = self.v4.unwrap_or((address, 32));
                let prefix = prefix.min((network ^ address).leading_zeros());
                let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
                self.v4 = Some((network & mask, prefix));
            }
            IpAddr::V6(address) => {
                let address = address.to_bits();
                let (network, prefix) = self.v6.unwrap_or((address, 128));
                let prefix = prefix.min((network ^ address).leading_zeros());
                let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
                self.v6 = Some((network & mask, prefix));
            }
        }
    }
}
