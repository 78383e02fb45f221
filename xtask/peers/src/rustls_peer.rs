//! rustls on either end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};

use super::Identity;

/// A server configuration for [`terminate_tls`]. ALPN: none, client certificates: none.
pub fn rustls_server(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_single_cert(identity.chain(), identity.key())?;
    Ok(Arc::new(config))
}

/// A client that trusts the identity's authority, for `server_name`; a name that is an IP address sends no SNI.
pub fn rustls_client(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    server_name: &str,
) -> Result<ClientConnection> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority())?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(server_name.to_owned()).context("not a server name")?;
    Ok(ClientConnection::new(Arc::new(config), name)?)
}

/// The first flight of a rustls client: one record with a ClientHello for `server_name`.
pub fn client_hello(identity: &Identity, server_name: &str) -> Result<Vec<u8>> {
    let mut hello = Vec::new();
    rustls_client(identity, rustls::ALL_VERSIONS, server_name)?.write_tls(&mut hello)?;
    Ok(hello)
}

/// Handler of a [`Service`](super::Service): does the handshake, echoes until the client closes, closes in turn.
pub fn terminate_tls(stream: TcpStream, config: &Arc<ServerConfig>) {
    // What a peer does wrong is the subject of the tests, not an error of this server.
    let _ = echo(stream, config);
}

/// Handler of a [`Service`](super::Service): does the handshake, answers the first request, and closes.
pub(super) fn answer_tls(stream: TcpStream, config: &Arc<ServerConfig>) {
    let _ = answer(stream, config);
}

fn answer(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let outcome = tls.read(&mut [0; 4096]).and_then(|_| tls.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello\n"));
    close(tls)?;
    Ok(outcome?)
}

/// Sends `close_notify`, or the alert that a failed handshake has left in the queue, and waits for the client's end.
fn close(mut tls: StreamOwned<ServerConnection, TcpStream>) -> Result<()> {
    tls.conn.send_close_notify();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut tls.sock)?;
    }
    tls.sock.shutdown(Shutdown::Write)?;
    // Until the client has gone, so that what it still sends meets no RST.
    while tls.sock.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

/// The certificates of a PEM file.
pub(super) fn pem_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(file)?.collect::<Result<_, _>>()?)
}

/// The key of a PEM file.
pub(super) fn pem_key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_file(file)?)
}

fn echo(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<()> {
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut buffer = [0; 16 * 1024];
    let outcome = loop {
        match tls.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => tls.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) => break Err(error.into()),
        }
    };
    close(tls)?;
    outcome
}
