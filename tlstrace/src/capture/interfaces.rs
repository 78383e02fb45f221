//! Network interfaces: which there are, which are meant, and how they come and go (rtnetlink).
//!
//! Everything here is about the network namespace of the calling thread.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;

use anyhow::Context as _;
use zerocopy::FromBytes;

use super::netlink::Subscription;
use super::rtnetlink::{self, Attributes, Link, Message, Route};
use crate::cli::glob::Glob;

/// A network interface as it was when it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's index, which a new interface of the same name does not share.
    pub index: u32,
    pub name: String,
    pub is_up: bool,
    pub link: LinkLayer,
    pub kind: Kind,
    /// Whether an XDP program sees packets before any TC hook does.
    pub has_xdp: bool,
    /// Packets that it has received and sent since it exists.
    pub packets: u64,
}

/// What stands behind an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A device, or something that says no more.
    Device,
    Loopback,
    /// One end of a veth pair whose other end is in the same network namespace.
    Veth,
    /// One end of a veth pair whose other end is in another network namespace: on a node, a pod's (ingress is what
    /// the pod sends); inside a pod, the node's. Whose addresses are local tells the two apart.
    VethToNamespace,
    /// Of another software kind, as `ip -details link` names it: `bridge`, `tun`, `wireguard` …
    Software(String),
}

/// What a packet begins with when a TC hook sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkLayer {
    /// An Ethernet header; also on loopback.
    Ethernet,
    /// The IP header.
    Ip,
    /// Something that the BPF program cannot read, by its `ARPHRD_` number (`linux/if_arp.h`).
    Other(u16),
}

/// Which interfaces to watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Selection {
    /// Those that carry a default route, except loopback.
    DefaultRoute,
    /// All that there are and will be; loopback only if it is meant too.
    Any { loopback: bool },
    /// Those whose name matches one of these.
    Named(Vec<Glob>),
}

/// Why a [`Selection`] selects nothing.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum SelectionError {
    #[error("there is no interface {name}; there are: {}", Names(.present))]
    Missing { name: String, present: Vec<String> },
    #[error("no interface matches {pattern}; there are: {}", Names(.present))]
    NoMatch { pattern: String, present: Vec<String> },
    #[error(
        "no interface carries a default route, so there is no telling which to watch: name it with -i; there are: {}",
        Names(.present)
    )]
    NoDefaultRoute { present: Vec<String> },
}

/// What became of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is new, or something about it is.
    Present(Interface),
    /// It was removed, or moved to another network namespace.
    Gone { index: u32 },
}

/// All interfaces, in the order of their indices.
pub fn list() -> anyhow::Result<Vec<Interface>> {
    let links = rtnetlink::dump(&Link::default()).context("cannot list the network interfaces")?;
    let mut interfaces: Vec<_> = links.iter().filter_map(interface).collect();
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

impl Selection {
    /// Those of `present` that are selected. A name that does not exist is an error even where others do;
    /// a pattern only if nothing at all matches.
    pub fn choose(&self, present: &[Interface]) -> anyhow::Result<Vec<Interface>> {
        match self {
            Self::DefaultRoute => {
                let carriers = default_route_carriers().context("cannot list the routes")?;
                let chosen = present.iter().filter(|interface| carriers.contains(&interface.index));
                let chosen: Vec<_> = chosen.cloned().collect();
                if chosen.is_empty() {
                    return Err(SelectionError::NoDefaultRoute { present: names(present) }.into());
                }
                Ok(chosen)
            }
            Self::Any { .. } => {
                Ok(present.iter().filter(|interface| self.takes_newcomer(&interface.name)).cloned().collect())
            }
            Self::Named(patterns) => Ok(named(patterns, present)?),
        }
    }

    /// Whether an interface that appears while the program runs is to be watched too.
    pub fn takes_newcomer(&self, name: &str) -> bool {
        match self {
            Self::DefaultRoute => false,
            Self::Any { loopback } => *loopback || name != LOOPBACK,
            Self::Named(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
        }
    }

    /// Whether an interface may be attached to later. The only interface that is named ends the capture when
    /// it goes.
    pub fn can_grow(&self) -> bool {
        match self {
            Self::DefaultRoute => false,
            Self::Any { .. } => true,
            Self::Named(patterns) => self.is_open() || patterns.len() > 1,
        }
    }

    /// Whether it can be expected that interfaces come and go.
    pub fn is_open(&self) -> bool {
        match self {
            Self::DefaultRoute => false,
            Self::Any { .. } => true,
            Self::Named(patterns) => patterns.iter().any(|pattern| !pattern.is_literal()),
        }
    }
}

/// The index of the interface that has this name now.
pub fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends in 0 and lives throughout the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Tells what becomes of the interfaces.
pub struct Monitor {
    subscription: Subscription,
}

impl Monitor {
    /// Begins to listen; needs a tokio runtime around it.
    pub fn start() -> anyhow::Result<Self> {
        let subscription = rtnetlink::follow_links().context("cannot listen for interface changes")?;
        Ok(Self { subscription })
    }

    /// Waits for the next changes. An error means that some were missed.
    pub async fn changes(&mut self) -> std::io::Result<Vec<Change>> {
        let messages = self.subscription.next::<Message>().await?;
        let gone = |message: &Message| {
            let (link, _) = message.read_gone::<Link>()?;
            // A port that leaves its bridge is a DELLINK of the bridge's family: the interface lives on.
            is_of_no_family(&link).then_some(Change::Gone { index: link.index })
        };
        let change = |message| interface(message).map(Change::Present).or_else(|| gone(message));
        Ok(messages.iter().filter_map(change).collect())
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// "a, b, c".
pub(super) struct Names<'a>(pub(super) &'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        f.write_str(&self.0.join(", "))
    }
}

fn named(patterns: &[Glob], present: &[Interface]) -> Result<Vec<Interface>, SelectionError> {
    for pattern in patterns.iter().filter(|pattern| pattern.is_literal()) {
        if !present.iter().any(|interface| pattern.matches(&interface.name)) {
            return Err(SelectionError::Missing { name: pattern.to_string(), present: names(present) });
        }
    }
    let chosen = present.iter().filter(|interface| patterns.iter().any(|p| p.matches(&interface.name)));
    let chosen: Vec<_> = chosen.cloned().collect();
    if chosen.is_empty() {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        return Err(SelectionError::NoMatch { pattern: patterns.join(", "), present: names(present) });
    }
    Ok(chosen)
}

fn names(interfaces: &[Interface]) -> Vec<String> {
    interfaces.iter().map(|interface| interface.name.clone()).collect()
}

fn interface(message: &Message) -> Option<Interface> {
    /// `linux/if_link.h`.
    const IFLA_XDP_ATTACHED: u16 = 2;

    let (link, attributes) = message.read::<Link>()?;
    // Bridges send messages of their own family about their ports, in another form.
    if !is_of_no_family(&link) {
        return None;
    }
    let xdp = attributes.nested(libc::IFLA_XDP).and_then(|xdp| xdp.value::<u8>(IFLA_XDP_ATTACHED));
    // `struct rtnl_link_stats64` begins with the packets received and sent.
    let [received, sent] = attributes.value::<[u64; 2]>(libc::IFLA_STATS64).unwrap_or_default();
    Some(Interface {
        index: link.index,
        name: attributes.string(libc::IFLA_IFNAME)?,
        is_up: has(&link, libc::IFF_UP),
        link: link_layer(link.link_layer),
        kind: kind(&link, attributes),
        has_xdp: xdp.is_some_and(|attached| attached != 0),
        packets: received.wrapping_add(sent),
    })
}

fn is_of_no_family(link: &Link) -> bool {
    i32::from(link.family) == libc::AF_UNSPEC
}

/// Whether it has that flag, an `IFF_` bit.
fn has(link: &Link, flag: libc::c_int) -> bool {
    link.flags & flag.cast_unsigned() != 0
}

fn kind(link: &Link, attributes: Attributes<'_>) -> Kind {
    if has(link, libc::IFF_LOOPBACK) {
        return Kind::Loopback;
    }
    let kind = attributes.nested(libc::IFLA_LINKINFO).and_then(|info| info.string(libc::IFLA_INFO_KIND));
    match kind {
        None => Kind::Device,
        Some(kind) if kind != "veth" => Kind::Software(kind),
        Some(_) if attributes.bytes(libc::IFLA_LINK_NETNSID).is_some() => Kind::VethToNamespace,
        Some(_) => Kind::Veth,
    }
}

/// Its name in every network namespace (drivers/net/loopback.c).
const LOOPBACK: &str = "lo";

/// From an `ARPHRD_` number of `linux/if_arp.h`.
fn link_layer(arphrd: u16) -> LinkLayer {
    match arphrd {
        // Ethernet, loopback.
        1 | 772 => LinkLayer::Ethernet,
        // PPP, raw IP, IP in IP, IPv6 tunnel, SIT, GRE, GRE over IPv6, none (tun, WireGuard).
        512 | 519 | 768 | 769 | 776 | 778 | 823 | 0xfffe => LinkLayer::Ip,
        other => LinkLayer::Other(other),
    }
}

/// One of several gateways of a route: `struct rtnexthop` of linux/rtnetlink.h. Attributes follow.
#[derive(FromBytes)]
#[repr(C)]
struct NextHop {
    /// With the attributes.
    length: u16,
    flags: u8,
    weight: u8,
    index: u32,
}

/// Indices of the interfaces that a default route of any table leads to, loopback excepted.
fn default_route_carriers() -> std::io::Result<BTreeSet<u32>> {
    let mut carriers = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).map_err(std::io::Error::other)?;
        for message in rtnetlink::dump(&Route { family, ..Route::default() })? {
            let Some((route, attributes)) = message.read::<Route>() else { continue };
            // An unreachable default route (IPv6 has one on lo) carries nothing.
            if route.destination_len != 0 || route.kind != libc::RTN_UNICAST {
                continue;
            }
            carriers.extend(leads_to(attributes));
        }
    }
    // Loopback has index 1 in every network namespace (net/core/dev.h: LOOPBACK_IFINDEX).
    carriers.remove(&1);
    Ok(carriers)
}

/// Indices of the interfaces of a route: one, or one for each gateway.
fn leads_to(route: Attributes<'_>) -> Vec<u32> {
    let mut indices = Vec::from_iter(route.value::<u32>(libc::RTA_OIF));
    let mut hops = route.bytes(libc::RTA_MULTIPATH).unwrap_or_default();
    while let Ok((hop, _)) = NextHop::read_from_prefix(hops) {
        indices.push(hop.index);
        let length = usize::from(hop.length).max(size_of::<NextHop>()).next_multiple_of(4);
        hops = hops.get(length..).unwrap_or_default();
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rtnetlink::tests::attribute;

    fn present() -> Vec<Interface> {
        let named = |(index, name): (u32, &str)| Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            link: LinkLayer::Ethernet,
            kind: Kind::Device,
            has_xdp: false,
            packets: 0,
        };
        [(1, "lo"), (2, "eth0"), (7, "gke1a"), (9, "gke2b")].map(named).to_vec()
    }

    fn choose(patterns: &[&str]) -> Result<Vec<String>, SelectionError> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        named(&patterns, &present()).map(|chosen| names(&chosen))
    }

    #[test]
    fn names_and_patterns_select_each_interface_once() {
        assert_eq!(choose(&["gke*", "eth0", "gke1a"]).unwrap(), ["eth0", "gke1a", "gke2b"]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_named_beside_those_that_do() {
        let error = choose(&["eth0", "eth9"]).unwrap_err().to_string();
        assert_eq!(error, "there is no interface eth9; there are: lo, eth0, gke1a, gke2b");
    }

    #[test]
    fn a_pattern_without_match_is_an_error_only_where_nothing_else_matches() {
        assert_eq!(choose(&["cali*", "eth0"]).unwrap(), ["eth0"]);
        assert!(choose(&["cali*"]).unwrap_err().to_string().starts_with("no interface matches cali*"));
    }

    #[test]
    fn any_is_all_but_loopback_unless_that_is_named_too() {
        let any = |loopback| {
            let chosen = Selection::Any { loopback }.choose(&present()).unwrap();
            (names(&chosen), Selection::Any { loopback }.takes_newcomer("new0"))
        };
        assert_eq!(any(false), (["eth0", "gke1a", "gke2b"].map(str::to_owned).to_vec(), true));
        assert_eq!(any(true).0.len(), 4);
    }

    #[test]
    fn only_a_single_name_and_the_default_route_are_a_closed_set() {
        let named =
            |patterns: &[&str]| Selection::Named(patterns.iter().map(|pattern| Glob::new(pattern)).collect());
        assert!(!Selection::DefaultRoute.can_grow() && !named(&["eth0"]).can_grow());
        assert!(named(&["eth0", "eth1"]).can_grow() && named(&["eth*"]).can_grow());
    }

    #[test]
    fn loopback_is_listed_and_begins_with_an_ethernet_header() {
        let interfaces = list().unwrap();
        let loopback = interfaces.iter().find(|interface| interface.index == 1).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.link), ("lo", LinkLayer::Ethernet));
        assert_eq!(loopback.kind, Kind::Loopback);
    }

    #[test]
    fn loopback_never_counts_as_carrying_the_default_route() {
        assert!(!default_route_carriers().unwrap().contains(&1));
    }

    #[test]
    fn a_route_of_several_gateways_leads_to_the_interface_of_each() {
        let hop = |index: u8, attributes: &[u8]| {
            let length = u8::try_from(8 + attributes.len()).unwrap();
            [&[length, 0, 0, 0, index, 0, 0, 0], attributes].concat()
        };
        let gateway = attribute(libc::RTA_GATEWAY, &[10, 0, 0, 1]);
        let hops = [hop(7, &gateway), hop(9, &[])].concat();
        let several = attribute(libc::RTA_MULTIPATH, &hops);
        let one = attribute(libc::RTA_OIF, &[3, 0, 0, 0]);
        assert_eq!(leads_to(Attributes::of(&one)), [3]);
        assert_eq!(leads_to(Attributes::of(&several)), [7, 9]);
        let lying = attribute(libc::RTA_MULTIPATH, &[0, 0, 0, 0, 7, 0, 0, 0, 255]);
        assert_eq!(leads_to(Attributes::of(&lying)), [7], "a hop that has no length, and half of one");
    }
}
