//! A packet socket (packet(7)) whose filter is our program: it sees every packet of an interface and keeps none.
//!
//! Nothing is put into the interface's chains of tc programs. On ingress the filter runs before them, on egress behind
//! them. The socket, and with it the filter, ends with the process however that ends.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya::programs::SocketFilter;

/// Lets `filter` see the packets of both directions of the interface with that index, in the calling thread's
/// network namespace. Dropping the socket ends that. Needs `CAP_NET_RAW`.
pub(super) fn tap(filter: &SocketFilter, interface: u32) -> anyhow::Result<OwnedFd> {
    let socket = open()?;
    // Before it is bound: no packet passes without the filter.
    filter.attach(&socket)?;
    bind(&socket, interface)?;
    Ok(socket)
}

/// A socket that gets nothing yet, for want of a protocol. `SOCK_RAW`: packets begin with their link header, as they
/// do for a tc program.
fn open() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) touches no memory of ours.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    // SAFETY: integers only, of which 0 is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET.cast_unsigned().try_into().map_err(io::Error::other)?;
    let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
    address.sll_protocol = all.to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: `address` is as long as `len` says and lives through the call.
    match unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
