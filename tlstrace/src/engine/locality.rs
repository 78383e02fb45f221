//! Which addresses are this side's, and so whether a connection comes in, goes out, or passes by.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many of the address's leading bits count.
    pub const fn prefix(&self) -> u32 {
        self.prefix
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= self.prefix
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// `10.0.0.1`, `10.0.0.0/8`, `fd00::/64`.
    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("`{text}` is neither an address nor a network such as 10.0.0.0/8");
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(error)?,
        };
        Ok(Self { address, prefix })
    }
}

/// The addresses of this host and of the networks that the user counts to it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Locality {
    pub addresses: BTreeSet<IpAddr>,
    pub networks: Vec<Network>,
}

/// Where a connection goes: the client is the one who sends the ClientHello. Values of the Elastic Common Schema's
/// `network.direction`, seen from the perimeter around what is local.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To a local server ("northbound" at a gateway).
    Inbound,
    /// From a local client to a remote server ("southbound").
    Outbound,
    /// Both ends are local.
    Internal,
    /// Neither is: the connection is forwarded.
    External,
}

impl Direction {
    /// As in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl Locality {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address) || self.networks.iter().any(|network| network.contains(address))
    }

    /// `None` if nothing is known to be local.
    pub fn direction(&self, client: IpAddr, server: IpAddr) -> Option<Direction> {
        if self.addresses.is_empty() && self.networks.is_empty() {
            return None;
        }
        Some(match (self.contains(client), self.contains(server)) {
            (false, true) => Direction::Inbound,
            (true, false) => Direction::Outbound,
            (true, true) => Direction::Internal,
            (false, false) => Direction::External,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_share_its_prefix() {
        let contains =
            |text: &str, address: &str| text.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.1", "10.0.0.1"));
        assert!(!contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("fd00::/64", "fd00::1234"));
        assert!(contains("0.0.0.0/0", "192.0.2.1"));
        assert!(!contains("0.0.0.0/0", "::1"));
        for bad in ["10.0.0.0/33", "10.0.0", "fd00::/129", "example.com", "10.0.0.0/"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn direction_is_told_by_which_end_is_local() {
        let direction = |locality: &Locality, client: &str, server: &str| {
            locality.direction(client.parse().unwrap(), server.parse().unwrap())
        };
        let host = Locality {
            addresses: ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()].into(),
            networks: vec!["10.4.0.0/14".parse().unwrap()],
        };
        assert_eq!(direction(&host, "198.51.100.1", "192.0.2.7"), Some(Direction::Inbound));
        assert_eq!(direction(&host, "2001:db8::7", "2001:db8::1"), Some(Direction::Outbound));
        assert_eq!(direction(&host, "10.5.0.1", "198.51.100.1"), Some(Direction::Outbound));
        assert_eq!(direction(&host, "10.5.0.1", "192.0.2.7"), Some(Direction::Internal));
        assert_eq!(direction(&host, "198.51.100.1", "198.51.100.2"), Some(Direction::External));
        assert_eq!(direction(&Locality::default(), "10.5.0.1", "192.0.2.7"), None);
    }
}
