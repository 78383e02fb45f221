//! The TCP sockets that listen, in the network namespace of the calling thread (`sock_diag(7)`).

use std::net::SocketAddr;

use anyhow::Context as _;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink;

/// A socket that listens.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ListeningSocket {
    /// The unspecified address stands for all.
    pub address: SocketAddr,
    /// What `/proc/PID/fd` calls it.
    pub inode: u32,
}

/// All of them.
pub fn list() -> anyhow::Result<Vec<ListeningSocket>> {
    let families = [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())];
    let mut found = Vec::new();
    for (family, socket_id) in families {
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id,
        });
        let answer = netlink::dump(NETLINK_SOCK_DIAG, request);
        let answer = answer.context("cannot list the sockets that listen")?;
        found.extend(answer.into_iter().filter_map(|message| match message {
            SockDiagMessage::InetResponse(socket) => {
                let id = &socket.header.socket_id;
                let address = SocketAddr::new(id.source_address, id.source_port);
                Some(ListeningSocket { address, inode: socket.header.inode })
            }
            _ => None,
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_socket_that_listens_is_among_them() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            assert!(list().unwrap().iter().any(|socket| socket.address == address && socket.inode > 0));
        }
    }
}
