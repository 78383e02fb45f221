//! The addresses of this host, in the network namespace of the calling thread (rtnetlink).

use std::net::IpAddr;

use anyhow::Context as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::netlink;

/// All addresses of all interfaces.
pub fn list() -> anyhow::Result<Vec<IpAddr>> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answer = netlink::dump(request).context("cannot list this host's addresses")?;
    let addresses = answer.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address) => own(&address),
        _ => None,
    });
    Ok(addresses.collect())
}

/// On a point-to-point link `IFA_ADDRESS` is the other end's (rtnetlink(7)).
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_address_of_this_host() {
        assert!(list().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn of_a_point_to_point_link_only_this_end_is_ours() {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Address([10, 0, 0, 2].into()));
        assert_eq!(own(&message), Some([10, 0, 0, 2].into()));
        message.attributes.push(AddressAttribute::Local([10, 0, 0, 1].into()));
        assert_eq!(own(&message), Some([10, 0, 0, 1].into()));
    }
}
