//! Just enough of netlink (netlink(7)): dumps, and multicast messages.

use std::io;
use std::marker::PhantomData;

use bytes::BytesMut;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use super::pollable;

/// The kernel sends dumps in datagrams of at most 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;

/// Asks the part of the kernel that listens to `protocol` (a `NETLINK_` number) for everything that matches `request`,
/// in the calling thread's network namespace.
pub(super) fn dump<M>(protocol: isize, request: M) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable,
    NetlinkPayload<M>: From<M>,
{
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut found = Vec::new();
    let mut buffer = BytesMut::new();
    loop {
        receive(&socket, &mut buffer)?;
        for payload in Payloads::of(&buffer) {
            match payload {
                NetlinkPayload::InnerMessage(message) => found.push(message),
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
    }
}

/// What is said to everybody who listens.
pub(super) struct Subscription {
    socket: AsyncFd<Socket>,
    buffer: BytesMut,
}

impl Subscription {
    /// Joins `group` of `protocol` (a `NETLINK_` number); needs a tokio runtime around it.
    pub(super) fn join(protocol: isize, group: u32) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.add_membership(group)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket: pollable(socket)?, buffer: BytesMut::new() })
    }

    /// Waits for the next datagram. `ENOBUFS` says that some were lost: ask for everything again.
    pub(super) async fn next<M: NetlinkDeserializable>(&mut self) -> io::Result<Vec<M>> {
        let Self { socket, buffer } = self;
        loop {
            let mut guard = socket.readable().await?;
            if let Ok(received) = guard.try_io(|socket| receive(socket.get_ref(), buffer)) {
                received?;
                let messages = Payloads::of(buffer).filter_map(|payload| match payload {
                    NetlinkPayload::InnerMessage(message) => Some(message),
                    _ => None,
                });
                return Ok(messages.collect());
            }
        }
    }
}

fn receive(socket: &Socket, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(DATAGRAM);
    socket.recv(buffer, 0).map(drop)
}

/// The messages of one datagram. One that cannot be decoded (a newer kernel's) is logged and passed over.
struct Payloads<'a, M>(&'a [u8], PhantomData<M>);

impl<'a, M> Payloads<'a, M> {
    fn of(datagram: &'a [u8]) -> Self {
        Self(datagram, PhantomData)
    }
}

impl<M: NetlinkDeserializable> Iterator for Payloads<'_, M> {
    type Item = NetlinkPayload<M>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let length = usize::try_from(NetlinkBuffer::new_checked(self.0).ok()?.length()).ok()?;
            let (message, _) = self.0.split_at_checked(length)?;
            // Messages begin at multiples of four (NLMSG_ALIGNTO).
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
            match NetlinkMessage::deserialize(message) {
                Ok(message) => return Some(message.payload),
                Err(error) => log::debug!("netlink message passed over: {error}"),
            }
        }
    }
}
