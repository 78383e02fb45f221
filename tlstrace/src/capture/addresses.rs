//! The addresses of this host, in the network namespace of the calling thread (rtnetlink).

use std::net::IpAddr;

use anyhow::Context as _;

use super::rtnetlink::{self, Address, Attributes};

/// All addresses of all interfaces.
pub fn list() -> anyhow::Result<Vec<IpAddr>> {
    let answer = rtnetlink::dump(&Address::default()).context("cannot list this host's addresses")?;
    let addresses = answer.iter().filter_map(|message| {
        let (header, attributes) = message.read::<Address>()?;
        own(header.family, attributes)
    });
    Ok(addresses.collect())
}

/// On a point-to-point link `IFA_ADDRESS` is the other end's (rtnetlink(7)).
fn own(family: u8, attributes: Attributes<'_>) -> Option<IpAddr> {
    let address = |kind| match i32::from(family) {
        libc::AF_INET => attributes.value::<[u8; 4]>(kind).map(IpAddr::from),
        libc::AF_INET6 => attributes.value::<[u8; 16]>(kind).map(IpAddr::from),
        _ => None,
    };
    address(libc::IFA_LOCAL).or_else(|| address(libc::IFA_ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rtnetlink::tests::attribute;

    #[test]
    fn loopback_is_an_address_of_this_host() {
        assert!(list().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn of_a_point_to_point_link_only_this_end_is_ours() {
        let other = attribute(libc::IFA_ADDRESS, &[10, 0, 0, 2]);
        let both = [&other[..], &attribute(libc::IFA_LOCAL, &[10, 0, 0, 1])].concat();
        let own = |family: i32, bytes| own(u8::try_from(family).unwrap(), Attributes::of(bytes));
        assert_eq!(own(libc::AF_INET, &other), Some([10, 0, 0, 2].into()));
        assert_eq!(own(libc::AF_INET, &both), Some([10, 0, 0, 1].into()));
        assert_eq!(own(libc::AF_INET6, &both), None);
    }
}
