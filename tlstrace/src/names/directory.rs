//! Who had which address, and when.
//!
//! Addresses of pods are used again, within seconds on a busy node, and whoever tells of it tells late. So an address
//! has *tenures*: each was certainly held for some time, and possibly for some time before and after. A name is given
//! to a connection only if a single tenure can have had the address at any time of it, and certainly had it when it
//! began. In doubt there is no name.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::identity::{Identity, Port};
use crate::engine::timestamp::Timestamp;

/// Most tenures that are kept: the pods and Services of the largest clusters.
const MAX_TENURES: usize = 1 << 18;
/// Most tenures that are remembered after their end: ten minutes of a node on which 1,600 pods come and go per minute.
const MAX_ENDED: usize = 1 << 14;
/// How long a tenure is remembered after its end. Connections are judged earlier; of older ones nobody is named.
const REMEMBERED: Duration = Duration::from_mins(10);
/// A pod that was deleted by force goes on for its grace period; its address is free no earlier.
pub(super) const LINGER: Duration = Duration::from_mins(1);

/// Who tells of a tenure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Pods of this node, told by its container runtime or by the cluster.
    Pods = 0,
    /// What is behind Services on other nodes.
    Endpoints = 1,
    Services = 2,
}

/// Who holds an address, by something that nobody else ever has: a uid, the id of a sandbox.
pub type Owner = Arc<str>;

/// That somebody has an address.
#[derive(Clone, Debug)]
pub struct Claim {
    pub address: IpAddr,
    pub owner: Owner,
    pub identity: Arc<Identity>,
    /// What is known of single ports beyond `identity`.
    pub ports: Arc<[Port]>,
    /// It cannot have had the address before.
    pub possible_since: Timestamp,
    /// It has had the address at least since.
    pub certain_since: Timestamp,
}

/// The table. Time is that of this host.
#[derive(Debug, Default)]
pub struct Directory {
    by_address: HashMap<IpAddr, SmallVec<[Tenure; 1]>>,
    by_owner: HashMap<Owner, SmallVec<[IpAddr; 2]>>,
    tenures: usize,
    /// Addresses with ended tenures, in the order in which these are to be forgotten.
    ended: VecDeque<(Timestamp, IpAddr)>,
    /// What ended before may have been forgotten.
    forgotten: Timestamp,
    standings: [Standing; 3],
    refused: u64,
}

#[derive(Clone, Debug)]
struct Tenure {
    source: Source,
    owner: Owner,
    identity: Arc<Identity>,
    ports: Arc<[Port]>,
    possible_since: Timestamp,
    certain_since: Timestamp,
    certain_until: Option<Timestamp>,
    possible_until: Option<Timestamp>,
}

/// How far a source can be trusted.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Since then no tenure can have gone unnoticed.
    complete_since: Option<Timestamp>,
    /// What it told last may not hold for what began later.
    trusted_until: Option<Timestamp>,
    /// When it last told everything.
    confirmed: Timestamp,
}

impl Directory {
    /// Names whoever certainly had the address during a connection, from its first segment to its last.
    pub fn name(&self, end: SocketAddr, first: Timestamp, last: Timestamp) -> Option<Identity> {
        let tenure = self.holder(end.ip(), first, last)?;
        let mut identity = (*tenure.identity).clone();
        let mut ports = tenure.ports.iter().filter(|port| port.number == end.port());
        if let Some(port) = ports.next() {
            // Where two Services lead to one port, packets do not tell which of them was asked.
            let is_only = ports.all(|other| other.service.is_none());
            identity.container = port.container.clone().or(identity.container);
            identity.service = port.service.clone().filter(|_| is_only).or(identity.service);
            identity.gateway = identity.gateway.or(port.gateway);
        }
        Some(identity)
    }

    fn holder(&self, address: IpAddr, first: Timestamp, last: Timestamp) -> Option<&Tenure> {
        if first < self.forgotten {
            return None;
        }
        let mut possible = self.by_address.get(&address)?.iter().filter(|tenure| {
            tenure.possible_since <= last && tenure.possible_until.is_none_or(|until| until >= first)
        });
        let tenure = possible.next()?;
        if possible.next().is_some() {
            return None;
        }
        let Standing { complete_since, trusted_until, .. } = *self.standing(tenure.source);
        // If nobody else can have come unnoticed, the one who came had it from the beginning.
        let had_it = tenure.certain_since <= first
            || tenure.possible_since <= first
                && complete_since.is_some_and(|complete| complete <= tenure.possible_since);
        let has_it = [tenure.certain_until, trusted_until].into_iter().flatten().all(|until| first <= until);
        (had_it && has_it).then_some(tenure)
    }

    /// Takes a claim, or what is new about it.
    pub fn claim(&mut self, source: Source, claim: Claim) {
        let Claim { address, owner, identity, ports, possible_since, certain_since } = claim;
        let tenures = self.by_address.entry(address).or_default();
        if let Some(known) =
            tenures.iter_mut().find(|tenure| tenure.owner == owner && tenure.possible_until.is_none())
        {
            known.identity = identity;
            known.ports = ports;
            known.possible_since = known.possible_since.min(possible_since);
            known.certain_since = known.certain_since.min(certain_since);
            return;
        }
        if self.tenures >= MAX_TENURES {
            self.refused += 1;
            if tenures.is_empty() {
                self.by_address.remove(&address);
            }
            return;
        }
        for other in tenures.iter_mut() {
            other.yield_to(certain_since);
        }
        tenures.push(Tenure {
            source,
            owner: Arc::clone(&owner),
            identity,
            ports,
            possible_since,
            certain_since,
            certain_until: None,
            possible_until: None,
        });
        self.tenures += 1;
        self.by_owner.entry(owner).or_default().push(address);
    }

    /// Notes that the owner may have no address any more from `at` on.
    pub fn doubt(&mut self, owner: &str, at: Timestamp) {
        self.tenures_of(owner, |tenure| {
            tenure.certain_until = Some(tenure.certain_until.map_or(at, |until| until.min(at)));
        });
    }

    /// Notes that the owner is gone, certainly by `until`, and did have its addresses until `certain` at least.
    pub fn release(&mut self, owner: &str, certain: Timestamp, until: Timestamp) {
        self.end(owner, None, certain, until);
    }

    /// Notes that the owner has only these addresses (any more). Of a change one is told late.
    pub fn keep_only(&mut self, owner: &str, addresses: &[IpAddr], at: Timestamp) {
        self.end(owner, Some(addresses), at.before(LINGER), at.after(LINGER));
    }

    fn end(&mut self, owner: &str, except: Option<&[IpAddr]>, certain: Timestamp, until: Timestamp) {
        let Some((key, addresses)) = self.by_owner.remove_entry(owner) else { return };
        let is_kept = |address: &IpAddr| except.is_some_and(|except| except.contains(address));
        for address in addresses.iter().filter(|address| !is_kept(address)) {
            let Some(tenures) = self.by_address.get_mut(address) else { continue };
            let successor = tenures
                .iter()
                .filter(|tenure| *tenure.owner != *owner && tenure.certain_since >= certain)
                .map(|tenure| tenure.certain_since)
                .min();
            for tenure in tenures.iter_mut().filter(|tenure| *tenure.owner == *owner) {
                let certain = tenure.certain_until.map_or(certain, |known| known.min(certain));
                tenure.certain_until = Some(certain);
                tenure.possible_until = Some(until.min(successor.unwrap_or(until)));
            }
            self.ended.push_back((until, *address));
        }
        self.forget(certain);
        let kept: SmallVec<[IpAddr; 2]> = addresses.into_iter().filter(is_kept).collect();
        if !kept.is_empty() {
            self.by_owner.insert(key, kept);
        }
    }

    fn tenures_of(&mut self, owner: &str, mut change: impl FnMut(&mut Tenure)) {
        for address in self.by_owner.get(owner).into_iter().flatten() {
            let tenures = self.by_address.get_mut(address).into_iter().flatten();
            tenures.filter(|tenure| *tenure.owner == *owner).for_each(&mut change);
        }
    }

    /// Takes all that a source knows at `now`. Whoever it does not know any more was gone by then.
    pub fn replace(&mut self, source: Source, now: Timestamp, claims: Vec<Claim>) {
        let known: HashSet<Owner> = claims.iter().map(|claim| Arc::clone(&claim.owner)).collect();
        let of_source = |tenure: &Tenure| tenure.source == source && tenure.possible_until.is_none();
        let gone: Vec<Owner> = self
            .by_address
            .values()
            .flatten()
            .filter(|tenure| of_source(tenure) && !known.contains(&tenure.owner))
            .map(|tenure| Arc::clone(&tenure.owner))
            .collect();
        let certain = self.last_trusted(source);
        for owner in gone {
            self.release(&owner, certain, now);
        }
        for claim in claims {
            self.claim(source, claim);
        }
        self.begin(source, now);
    }

    /// Notes that a source has told everything at `now`, and will tell of every change.
    pub fn begin(&mut self, source: Source, now: Timestamp) {
        *self.standing_mut(source) =
            Standing { complete_since: Some(now), trusted_until: None, confirmed: now };
        self.forget(now);
    }

    /// Until when all that a source has told certainly held.
    pub fn last_trusted(&self, source: Source) -> Timestamp {
        let Standing { trusted_until, confirmed, .. } = *self.standing(source);
        trusted_until.unwrap_or(confirmed)
    }

    /// Notes that what a source has told may not hold for what begins after `at`.
    pub fn suspend(&mut self, source: Source, at: Timestamp) {
        let standing = self.standing_mut(source);
        standing.trusted_until = Some(standing.trusted_until.map_or(at, |until| until.min(at)));
    }

    /// Notes that a source tells again, and that nothing was missed.
    pub fn resume(&mut self, source: Source) {
        self.standing_mut(source).trusted_until = None;
    }

    /// Forgets what ended long ago.
    pub fn forget(&mut self, now: Timestamp) {
        while let Some(&(until, address)) = self.ended.front() {
            if self.ended.len() <= MAX_ENDED && now.since(until) < REMEMBERED {
                break;
            }
            self.ended.pop_front();
            self.forgotten = self.forgotten.max(until);
            let Some(tenures) = self.by_address.get_mut(&address) else { continue };
            let before = tenures.len();
            tenures.retain(|tenure| tenure.possible_until.is_none_or(|end| end > until));
            self.tenures -= before - tenures.len();
            if tenures.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// How many tenures there are, and how many claims found no room.
    pub fn size(&self) -> (usize, u64) {
        (self.tenures, self.refused)
    }

    fn standing(&self, source: Source) -> &Standing {
        let [pods, endpoints, services] = &self.standings;
        match source {
            Source::Pods => pods,
            Source::Endpoints => endpoints,
            Source::Services => services,
        }
    }

    fn standing_mut(&mut self, source: Source) -> &mut Standing {
        let [pods, endpoints, services] = &mut self.standings;
        match source {
            Source::Pods => pods,
            Source::Endpoints => endpoints,
            Source::Services => services,
        }
    }
}

impl Tenure {
    /// Another certainly has the address from `since` on. This one was gone by then, if it is known to be going.
    fn yield_to(&mut self, since: Timestamp) {
        if self.certain_until.is_some_and(|until| until < since) {
            self.possible_until = Some(self.possible_until.map_or(since, |until| until.min(since)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "10.4.0.9";

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_795_341_600_000_000_000).after(Duration::from_secs(seconds))
    }

    fn claim(owner: &str, address: &str, possible: u64, certain: u64) -> Claim {
        Claim {
            address: address.parse().unwrap(),
            owner: owner.into(),
            identity: Arc::new(Identity { pod: Some(owner.into()), ..Identity::default() }),
            ports: Arc::default(),
            possible_since: at(possible),
            certain_since: at(certain),
        }
    }

    /// Since second 0 all pods are known.
    fn directory() -> Directory {
        let mut directory = Directory::default();
        directory.replace(Source::Pods, at(0), Vec::new());
        directory
    }

    fn name(directory: &Directory, first: u64, last: u64) -> Option<String> {
        let end = SocketAddr::new(ADDRESS.parse().unwrap(), 443);
        directory.name(end, at(first), at(last)).map(|identity| identity.pod.unwrap().to_string())
    }

    #[test]
    fn who_had_the_address_is_told_by_when_and_not_by_who_has_it_now() {
        let mut directory = directory();
        directory.claim(Source::Pods, claim("a", ADDRESS, 10, 11));
        directory.doubt("a", at(100));
        directory.release("a", at(105), at(105).after(LINGER));
        directory.claim(Source::Pods, claim("b", ADDRESS, 103, 110));
        assert_eq!(name(&directory, 50, 51).as_deref(), Some("a"));
        assert_eq!(name(&directory, 111, 112).as_deref(), Some("b"));
        for doubtful in [(5, 6), (101, 102), (104, 104), (108, 108), (50, 111)] {
            assert_eq!(name(&directory, doubtful.0, doubtful.1), None, "{doubtful:?}");
        }
    }

    #[test]
    fn two_who_both_claim_it_have_no_name() {
        let mut directory = directory();
        directory.claim(Source::Pods, claim("a", ADDRESS, 10, 11));
        directory.claim(Source::Pods, claim("b", ADDRESS, 20, 21));
        assert_eq!(name(&directory, 15, 15).as_deref(), Some("a"));
        assert_eq!(name(&directory, 30, 30), None);
        directory.release("a", at(40), at(40).after(LINGER));
        assert_eq!(name(&directory, 30, 30), None, "nobody said when a's time was over");
        assert_eq!(name(&directory, 101, 101).as_deref(), Some("b"));
    }

    #[test]
    fn a_name_that_came_late_is_good_for_earlier_unless_something_may_have_been_missed() {
        let mut directory = directory();
        directory.claim(Source::Pods, claim("a", ADDRESS, 10, 20));
        assert_eq!(name(&directory, 12, 13).as_deref(), Some("a"));
        let mut later = Directory::default();
        later.replace(Source::Pods, at(15), vec![claim("a", ADDRESS, 10, 15)]);
        assert_eq!(name(&later, 12, 13), None, "who had it before is not known");
        assert_eq!(name(&later, 16, 17).as_deref(), Some("a"));
    }

    #[test]
    fn what_a_silent_source_said_does_not_hold_for_later() {
        let mut directory = directory();
        directory.claim(Source::Pods, claim("a", ADDRESS, 10, 11));
        directory.suspend(Source::Pods, at(20));
        assert_eq!(name(&directory, 19, 25).as_deref(), Some("a"));
        assert_eq!(name(&directory, 21, 21), None);
        directory.resume(Source::Pods);
        assert_eq!(name(&directory, 21, 21).as_deref(), Some("a"));
        directory.suspend(Source::Pods, at(30));
        directory.replace(Source::Pods, at(40), vec![claim("b", ADDRESS, 35, 40)]);
        assert_eq!(name(&directory, 29, 29).as_deref(), Some("a"));
        assert_eq!(name(&directory, 36, 36), None);
        assert_eq!(name(&directory, 41, 41).as_deref(), Some("b"));
    }

    #[test]
    fn a_port_tells_its_container_and_its_service_if_that_is_one() {
        let mut directory = directory();
        let port = |number, container: Option<&str>, service: Option<&str>| Port {
            number,
            container: container.map(Into::into),
            service: service.map(Into::into),
            gateway: None,
        };
        let ports = [
            port(443, Some("envoy"), Some("web")),
            port(80, None, Some("web")),
            port(80, None, Some("web-internal")),
        ];
        directory.claim(Source::Pods, Claim { ports: ports.into(), ..claim("a", ADDRESS, 10, 11) });
        let name = |port| {
            let end = SocketAddr::new(ADDRESS.parse().unwrap(), port);
            let identity = directory.name(end, at(12), at(12)).unwrap();
            (identity.container.as_deref().map(str::to_owned), identity.service.as_deref().map(str::to_owned))
        };
        assert_eq!(name(443), (Some("envoy".to_owned()), Some("web".to_owned())));
        assert_eq!(name(80), (None, None));
        assert_eq!(name(81), (None, None));
    }

    #[test]
    fn of_those_that_are_gone_so_many_are_remembered_and_of_what_was_before_nothing_is_said() {
        let mut directory = directory();
        directory.claim(Source::Pods, claim("a", ADDRESS, 1, 1));
        for number in 0..MAX_ENDED as u64 + 1000 {
            let owner = number.to_string();
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()));
            directory.claim(Source::Pods, Claim { address, ..claim(&owner, ADDRESS, 2, 2) });
            directory.release(&owner, at(3), at(3).after(Duration::from_millis(number)));
        }
        assert_eq!(directory.size(), (MAX_ENDED + 1, 0));
        assert_eq!(directory.by_owner.len(), 1);
        assert_eq!(name(&directory, 3, 3), None);
        assert_eq!(name(&directory, 5, 5).as_deref(), Some("a"));
    }

    enum Message {
        Claim { address: u64, certain: u64, created: u64 },
        Doubt,
        Release,
    }

    /// 500 pods come and go per minute for an hour, on a node that gives out 250 addresses in turn, as `host-local` and
    /// clouds do, and every message is late by up to three seconds. Whoever is named is who it was.
    #[test]
    fn however_fast_addresses_change_hands_nobody_gets_anothers_name_and_memory_is_bounded() {
        const PODS_PER_MINUTE: u64 = 500;
        const MINUTES: u64 = 60;
        const ADDRESSES: u64 = 250;
        let millis = |millis: u64| at(0).after(Duration::from_millis(millis));
        // xorshift64*
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
        };
        let mut free: VecDeque<u64> = (0..ADDRESSES).collect();
        let mut held: VecDeque<(u64, u64, u64)> = VecDeque::new();
        let mut truth: HashMap<u64, Vec<(u64, u64, u64)>> = HashMap::new();
        let mut messages = Vec::new();
        for pod in 0..PODS_PER_MINUTE * MINUTES {
            let created = 1000 + pod * 60_000 / PODS_PER_MINUTE;
            while held.front().is_some_and(|(_, _, ends)| *ends <= created) {
                let (_, address, _) = held.pop_front().unwrap();
                free.push_back(address);
            }
            // The node is full: this one waits for ever.
            let Some(address) = free.pop_front() else { continue };
            let begins = created + random(500);
            let asked = begins + 5000 + random(10_000);
            let ends = asked + random(500);
            held.push_back((pod, address, ends));
            held.make_contiguous().sort_by_key(|(_, _, ends)| *ends);
            truth.entry(address).or_default().push((begins, ends, pod));
            let mut late = |at: u64| at + random(3000);
            let (told, doubted) = (late(begins), late(asked));
            let doubted = doubted.max(told);
            messages.push((told, pod, Message::Claim { address, certain: told, created }));
            messages.push((doubted, pod, Message::Doubt));
            messages.push((late(ends).max(doubted), pod, Message::Release));
        }
        messages.sort_by_key(|(at, _, _)| *at);

        let mut directory = directory();
        let (mut asked, mut named, mut largest) = (0, 0, 0);
        let address_of = |number: u64| IpAddr::from([10, 4, 0, u8::try_from(number).unwrap()]);
        for (now, pod, message) in messages {
            let owner = pod.to_string();
            match message {
                Message::Claim { address, certain, created } => {
                    let mut claim = claim(&owner, ADDRESS, 0, 0);
                    claim.address = address_of(address);
                    (claim.possible_since, claim.certain_since) = (millis(created), millis(certain));
                    directory.claim(Source::Pods, claim);
                }
                Message::Doubt => directory.doubt(&owner, millis(now.saturating_sub(3500))),
                Message::Release => directory.release(&owner, millis(now), millis(now).after(LINGER)),
            }
            largest = largest.max(directory.size().0);
            // A connection of up to two seconds, judged a while later.
            let last = now.saturating_sub(random(20_000));
            let first = last.saturating_sub(random(2000));
            let address = random(ADDRESSES);
            let holders = truth.get(&address).into_iter().flatten();
            let holder = holders.clone().find(|(begins, ends, _)| *begins <= first && first < *ends);
            let Some((_, _, holder)) = holder else { continue };
            asked += 1;
            let end = SocketAddr::new(address_of(address), 443);
            if let Some(identity) = directory.name(end, millis(first), millis(last)) {
                named += 1;
                assert_eq!(identity.pod.as_deref(), Some(&*holder.to_string()), "{first}..{last} at {now}");
            }
        }
        assert!(asked > 10_000, "{asked}");
        assert!(named * 3 > asked, "only {named} of {asked} were named");
        // Ten minutes of what is over, and what is there.
        assert!(largest < 6000, "{largest}");
    }
}
