//! A TCP listener inside a namespace that gives each connection to a handler, and two handlers that know no TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};

use super::Namespace;
use super::gateway::peek_client_hello;

/// A listening service. It listens when `start` returns and stops accepting on drop.
#[derive(Debug)]
pub struct Service {
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
    port: u16,
}

impl Service {
    /// Listens on `port` (0: a free one) of every IPv4 and IPv6 address of the namespace. Each connection gets a thread.
    pub fn start(
        namespace: &Namespace,
        port: u16,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Result<Self> {
        // `[::]` takes IPv4 too: net.ipv6.bindv6only is 0 in a new namespace.
        let listener = namespace
            .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("cannot listen on port {port}"))?;
        let port = listener.local_addr()?.port();
        let listener = Arc::new(listener);
        let acceptor = thread::spawn({
            let listener = Arc::clone(&listener);
            let handler = Arc::new(handler);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    let handler = Arc::clone(&handler);
                    thread::spawn(move || handler(stream));
                }
            }
        });
        Ok(Self { listener, acceptor: Some(acceptor), port })
    }

    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Wakes the thread in accept(2) with EINVAL.
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Reads the whole ClientHello, then closes without a word: nothing is left unread, so the kernel sends a FIN, not a RST.
pub fn close_after_client_hello(mut stream: TcpStream) {
    if let Some(hello) = peek_client_hello(&stream) {
        let _ = stream.read_exact(&mut vec![0; hello.len()]);
    }
}

/// A server that answers whatever comes first with `answer` and closes.
pub fn serve_plaintext(answer: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        let _ = answer_once(&mut stream, answer);
    }
}

/// A server that speaks first, answers what comes with a refusal as SMTP does, and closes.
pub(super) fn greet(greeting: &'static [u8]) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |mut stream| {
        if stream.write_all(greeting).is_ok() {
            let _ = answer_once(&mut stream, b"500 not understood\r\n");
        }
    }
}

fn answer_once(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    if stream.read(&mut [0; 16 * 1024])? == 0 {
        return Ok(());
    }
    stream.write_all(answer)?;
    stream.shutdown(Shutdown::Write)?;
    // Until the client has gone, so that what it still sends meets no RST.
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}
