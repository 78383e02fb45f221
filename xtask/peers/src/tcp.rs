//! TCP as a test wants it: from a chosen port, in segments of a chosen size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, send, socket,
};

use super::Namespace;

/// Connects from the given address and port of the namespace.
pub fn connect_from(namespace: &Namespace, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    namespace.enter(|| {
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok(TcpStream::from(socket))
    })
}

/// A socket that sends every write in TCP segments of at most `size` bytes, however full the congestion window is.
#[derive(Debug)]
pub struct Segmented {
    stream: TcpStream,
    size: usize,
}

impl Segmented {
    pub fn new(stream: TcpStream, size: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, size })
    }
}

impl Read for Segmented {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Segmented {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.chunks(self.size) {
            // MSG_EOR keeps the kernel from adding later bytes to the same segment while this one waits to be sent.
            send(self.stream.as_raw_fd(), piece, MsgFlags::MSG_EOR | MsgFlags::MSG_NOSIGNAL)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
