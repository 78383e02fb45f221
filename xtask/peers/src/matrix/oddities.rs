//! Servers that do what no server should, and some do.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use rustls::ServerConfig;

use crate::rustls_peer::answer_tls;

/// Takes what one read of one segment's size returns for the whole ClientHello, and closes if it is not
/// (<https://tldr.fail/>): with the rest unread, which resets.
pub(super) fn read_once(stream: TcpStream, config: &Arc<ServerConfig>) {
    const ONE_SEGMENT: usize = 1400;
    let mut bytes = [0; ONE_SEGMENT];
    if recv(stream.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK).is_ok_and(|read| read < ONE_SEGMENT) {
        answer_tls(stream, config);
    }
}

/// What a server does with the ClientHello that it has asked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum SecondHello {
    /// Asks for another one, which no client may take (RFC 8446 §4.1.4).
    AsksAgain,
    Closes,
}

/// Asks for a key share for P-384, whatever the client has offered. A good choice: most clients know that group, and none
/// sends a share for it at first.
pub(super) fn retry(mut stream: TcpStream, then: SecondHello) {
    let _ = (|| {
        let request = hello_retry_request(&client_hello(&mut stream)?)?;
        stream.write_all(&request).ok()?;
        client_hello(&mut stream)?;
        if then == SecondHello::AsksAgain {
            stream.write_all(&request).ok()?;
            while stream.read(&mut [0; 1024]).ok()? > 0 {}
        }
        Some(())
    })();
}

/// The next handshake record. A `change_cipher_spec` may come before it (RFC 8446 appendix D.4).
fn client_hello(stream: &mut TcpStream) -> Option<Vec<u8>> {
    loop {
        let mut header = [0; 5];
        stream.read_exact(&mut header).ok()?;
        let [kind, _, _, length @ ..] = header;
        let mut record = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut record).ok()?;
        match kind {
            22 => return Some(record),
            20 => {}
            _ => return None,
        }
    }
}

fn hello_retry_request(client_hello: &[u8]) -> Option<Vec<u8>> {
    /// RFC 8446 §4.1.3.
    const RANDOM: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2,
        0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    /// Type and length, `legacy_version` and random.
    const BEFORE_SESSION_ID: usize = 4 + 2 + 32;
    let session_id = client_hello.get(BEFORE_SESSION_ID..)?;
    let session_id = session_id.get(..=usize::from(*session_id.first()?))?;
    // TLS_AES_128_GCM_SHA256, no compression; supported_versions: TLS 1.3; key_share: secp384r1.
    let rest = [0x13, 0x01, 0, 0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 24];
    let body = [&[3, 3], &RANDOM[..], session_id, &rest].concat();
    let length = u8::try_from(body.len()).ok()?;
    Some([&[22, 3, 3, 0, length + 4, 2, 0, 0, length], &*body].concat())
}
