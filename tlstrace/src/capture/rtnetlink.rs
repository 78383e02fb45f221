//! rtnetlink (rtnetlink(7)): what the kernel says of interfaces, addresses, routes and filters.
//!
//! A message is a fixed part and attributes, of which only those that somebody asks for are decoded: what another
//! kernel has put in beside them, or gives another form, keeps nobody from the rest.

use std::ffi::CStr;
use std::io;

use netlink_packet_core::{
    DecodeError, NLA_HEADER_SIZE, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::netlink::{self, Subscription};

/// A message, of which [`Message::read`] makes sense.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    body: Vec<u8>,
}

/// The fixed part of a message.
pub(super) trait Header: FromBytes + IntoBytes + Immutable {
    /// `RTM_NEW…`, with which something is listed or announced. What goes is announced with the next number, and
    /// the one after that is the request for a list (`linux/rtnetlink.h`).
    const NEW: u16;
}

/// An interface: `struct ifinfomsg` of `linux/rtnetlink.h`; its attributes are the `IFLA_` of `linux/if_link.h`.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct Link {
    pub(super) family: u8,
    pub(super) padding: u8,
    /// `ARPHRD_` number (`linux/if_arp.h`).
    pub(super) link_layer: u16,
    pub(super) index: u32,
    /// `IFF_` bits (`linux/if.h`).
    pub(super) flags: u32,
    pub(super) change: u32,
}

/// An address of an interface: `struct ifaddrmsg` of `linux/if_addr.h`; its attributes are the `IFA_` there.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct Address {
    pub(super) family: u8,
    pub(super) prefix_len: u8,
    pub(super) flags: u8,
    pub(super) scope: u8,
    pub(super) index: u32,
}

/// A route: `struct rtmsg` of `linux/rtnetlink.h`; its attributes are the `RTA_` there.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct Route {
    pub(super) family: u8,
    /// Bits of the destination that count; none for a default route.
    pub(super) destination_len: u8,
    pub(super) source_len: u8,
    pub(super) tos: u8,
    pub(super) table: u8,
    pub(super) protocol: u8,
    pub(super) scope: u8,
    /// `RTN_` number.
    pub(super) kind: u8,
    pub(super) flags: u32,
}

/// A filter: `struct tcmsg` of `linux/rtnetlink.h`; its attributes are the `TCA_` there.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes)]
#[repr(C)]
pub(super) struct Filter {
    pub(super) family: u8,
    pub(super) padding: [u8; 3],
    /// Of the interface.
    pub(super) index: u32,
    pub(super) handle: u32,
    pub(super) parent: u32,
    /// The priority, and in the lower half the protocol.
    pub(super) info: u32,
}

/// The attributes of a message, or within an attribute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes<'a>(&'a [u8]);

/// All that there is of the kind of `request`, in the calling thread's network namespace.
pub(super) fn dump<H: Header>(request: &H) -> io::Result<Vec<Message>> {
    netlink::dump(NETLINK_ROUTE, Message { kind: H::NEW + 2, body: request.as_bytes().to_vec() })
}

/// What becomes of interfaces, from now on; needs a tokio runtime around it.
pub(super) fn follow_links() -> io::Result<Subscription> {
    /// `linux/rtnetlink.h`.
    const RTNLGRP_LINK: u32 = 1;

    Subscription::join(NETLINK_ROUTE, RTNLGRP_LINK)
}

impl Message {
    /// If it says that there is an `H`: that, and the attributes.
    pub(super) fn read<H: Header>(&self) -> Option<(H, Attributes<'_>)> {
        self.read_as(H::NEW)
    }

    /// If it says that an `H` is no more: that, and the attributes.
    pub(super) fn read_gone<H: Header>(&self) -> Option<(H, Attributes<'_>)> {
        self.read_as(H::NEW + 1)
    }

    fn read_as<H: Header>(&self, kind: u16) -> Option<(H, Attributes<'_>)> {
        let (header, rest) = H::read_from_prefix(&self.body).ok()?;
        (self.kind == kind).then_some((header, Attributes(rest)))
    }
}

impl Header for Link {
    const NEW: u16 = libc::RTM_NEWLINK;
}

impl Header for Address {
    const NEW: u16 = libc::RTM_NEWADDR;
}

impl Header for Route {
    const NEW: u16 = libc::RTM_NEWROUTE;
}

impl Header for Filter {
    const NEW: u16 = libc::RTM_NEWTFILTER;
}

impl<'a> Attributes<'a> {
    /// The first of that number.
    pub(super) fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        let mut known = NlasIterator::new(self.0).map_while(Result::ok);
        let found = known.find(|attribute| attribute.kind() == kind)?;
        let end = usize::from(found.length());
        found.into_inner().get(NLA_HEADER_SIZE..end)
    }

    /// What an attribute begins with, as the kernel lays it out: a number, or a `#[repr(C)]` of them.
    pub(super) fn value<T: FromBytes>(self, kind: u16) -> Option<T> {
        T::read_from_prefix(self.bytes(kind)?).ok().map(|(value, _)| value)
    }

    /// A string that ends in 0.
    pub(super) fn string(self, kind: u16) -> Option<String> {
        let text = CStr::from_bytes_until_nul(self.bytes(kind)?).ok()?;
        Some(text.to_string_lossy().into_owned())
    }

    /// The attributes within one.
    pub(super) fn nested(self, kind: u16) -> Option<Self> {
        self.bytes(kind).map(Self)
    }

    /// The attributes that these bytes are.
    #[cfg(test)]
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An attribute as on the wire.
    pub(in crate::capture) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_attribute_is_found_behind_one_that_nobody_knows() {
        let nested = [attribute(1, b"veth\0"), attribute(2, &[])].concat();
        // The highest bit is NLA_F_NESTED, which not every kernel sets.
        let bytes = [attribute(4711, &[1, 2, 3]), attribute(0x8012, &nested)].concat();
        let attributes = Attributes::of(&bytes);
        assert_eq!(attributes.nested(0x12).unwrap().string(1).as_deref(), Some("veth"));
        assert_eq!(attributes.value::<u16>(4711), Some(u16::from_ne_bytes([1, 2])));
        assert_eq!(attributes.bytes(3), None);
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_is_not_there() {
        let whole = [attribute(3, b"eth0\0"), attribute(4, &[1, 2, 3, 4])].concat();
        for end in 0..whole.len() {
            let attributes = Attributes::of(&whole[..end]);
            assert_eq!(attributes.string(3).is_some(), end >= 9, "{end}");
            assert_eq!(attributes.value::<u32>(4), None);
        }
        assert_eq!(Attributes::of(&[2, 0, 3, 0]).bytes(3), None);
        assert_eq!(Attributes::of(&attribute(3, b"eth0")).string(3), None, "it does not end in 0");
        assert_eq!(Attributes::of(&attribute(4, &[1, 2])).value::<u32>(4), None);
        let message = Message { kind: libc::RTM_NEWLINK, body: vec![0; 15] };
        assert!(message.read::<Link>().is_none());
    }
}
