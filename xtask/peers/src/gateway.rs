//! A gateway that knows its listeners by `server_name` only, as Envoy does with filter chain matches on SNI.
//!
//! Envoy's `tls_inspector` reads the ClientHello with `MSG_PEEK`; when no filter chain matches, the listener closes the
//! socket with those bytes unread, and the kernel answers with RST,ACK and no alert
//! (<https://github.com/envoyproxy/envoy/issues/24935>, <https://github.com/envoyproxy/envoy/issues/25002>).

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use rustls::ServerConfig;
use rustls::server::Acceptor;

use super::terminate_tls;

/// Terminates TLS for the given server names and resets every other connection, be the name unknown or absent.
pub fn sni_gateway(
    names: &'static [&'static str],
    config: Arc<ServerConfig>,
) -> impl Fn(TcpStream) + Send + Sync + 'static {
    sni_filter(names, move |stream| terminate_tls(stream, &config))
}

/// Gives connections for the given server names to `serve`, with nothing read, and resets every other.
pub(super) fn sni_filter(
    names: &'static [&'static str],
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |stream| {
        let known = peek_client_hello(&stream)
            .and_then(|hello| server_name(&hello))
            .is_some_and(|name| names.contains(&name.as_str()));
        if known {
            serve(stream);
        }
        // Otherwise the stream is dropped here, with the ClientHello unread.
    }
}

/// Waits for a complete ClientHello and returns its records, leaving every byte in the socket.
/// `None` if what comes is not a TLS handshake record, or if the client closes first.
pub(super) fn peek_client_hello(stream: &TcpStream) -> Option<Vec<u8>> {
    const RECORD_HEADER: usize = 5;
    let mut records = 0;
    loop {
        let header = peek(stream, records + RECORD_HEADER)?;
        let [22, 3, _, length @ ..] = *header.get(records..)?.first_chunk::<RECORD_HEADER>()? else {
            return None;
        };
        records += RECORD_HEADER + usize::from(u16::from_be_bytes(length));
        let hello = peek(stream, records)?;
        if message_is_complete(&hello) {
            return Some(hello);
        }
    }
}

/// Waits until `wanted` bytes can be read, without reading them.
fn peek(stream: &TcpStream, wanted: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_WAITALL;
    (recv(stream.as_raw_fd(), &mut bytes, flags) == Ok(wanted)).then_some(bytes)
}

fn message_is_complete(records: &[u8]) -> bool {
    let mut acceptor = Acceptor::default();
    let fed = acceptor.read_tls(&mut &*records);
    // An error is an answer too: more bytes would not change it.
    fed.is_err() || !matches!(acceptor.accept(), Ok(None))
}

fn server_name(records: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &*records).ok()?;
    let accepted = acceptor.accept().ok()??;
    Some(accepted.client_hello().server_name()?.to_owned())
}
