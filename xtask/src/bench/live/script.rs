//! What both sides of a connection send, recorded once from real TLS stacks, to be replayed at little cost.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS12;
use rustls::{ServerConfig, ServerConnection};
use tlstrace_peers::{Identity, client_hello, rustls_client};

const NAME: &str = "shop.example";

/// The flights of one connection, and how it ends.
pub(super) struct Script {
    pub(super) flights: Vec<Flight>,
    pub(super) ending: Ending,
}

/// What one side sends before it waits for the other.
pub(super) struct Flight {
    pub(super) from: Side,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Client,
    Server,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Ending {
    /// The client closes, then the server.
    Close,
    /// The server resets the connection, with the ClientHello unread.
    Reset,
}

impl Script {
    /// A full handshake of TLS 1.2 with a chain of two certificates, a request, an answer, `close_notify` of both.
    pub(super) fn handshake() -> Result<Self> {
        let identity = Identity::issue(&[NAME])?;
        let mut client = rustls_client(&identity, &[&TLS12], NAME)?;
        let chain =
            [identity.certificate_file(), identity.authority_file()].map(CertificateDer::from_pem_file);
        let chain = chain.into_iter().collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(identity.key_file())?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS12])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let mut server = ServerConnection::new(Arc::new(config))?;

        let mut flights = Vec::new();
        let mut step = 0;
        loop {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes)?;
            }
            server.read_tls(&mut &*bytes)?;
            server.process_new_packets()?;
            if !bytes.is_empty() {
                flights.push(Flight { from: Side::Client, bytes });
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes)?;
            }
            client.read_tls(&mut &*bytes)?;
            client.process_new_packets()?;
            if !bytes.is_empty() {
                flights.push(Flight { from: Side::Server, bytes });
            }
            if client.is_handshaking() || server.is_handshaking() {
                continue;
            }
            match step {
                0 => client.writer().write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")?,
                1 => server.writer().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
                2 => client.send_close_notify(),
                _ => break,
            }
            step += 1;
        }
        let script = Self { flights, ending: Ending::Close };
        ensure!(script.request().is_some(), "the recorded handshake has no request");
        Ok(script)
    }

    /// A ClientHello without `server_name` that the server, as Envoy does, answers with a reset.
    pub(super) fn refusal() -> Result<Self> {
        // rustls sends no `server_name` for an IP address.
        let address = "192.0.2.1";
        let bytes = client_hello(&Identity::issue(&[NAME])?, address)?;
        Ok(Self { flights: vec![Flight { from: Side::Client, bytes }], ending: Ending::Reset })
    }

    /// The flight with the client's first application data: what tlstrace takes the handshake for accepted by.
    pub(super) fn request(&self) -> Option<usize> {
        const APPLICATION_DATA: u8 = 23;
        let is_request =
            |flight: &Flight| flight.from == Side::Client && flight.bytes.first() == Some(&APPLICATION_DATA);
        self.flights.iter().position(is_request)
    }

    /// The flights up to the end of the handshake.
    pub(super) fn opening(&self) -> Result<&[Flight]> {
        let end = self.request().context("a script without request")?;
        Ok(self.flights.get(..end).unwrap_or_default())
    }
}

/// Sends one side's flights and reads, but does not look at, those of the other.
pub(super) fn play(
    stream: &mut TcpStream,
    side: Side,
    flights: &[Flight],
    mut before_sending: impl FnMut(usize),
) -> io::Result<()> {
    let mut buffer = [0; 8192];
    for (number, flight) in flights.iter().enumerate() {
        if flight.from == side {
            before_sending(number);
            stream.write_all(&flight.bytes)?;
        } else {
            let mut left = flight.bytes.len();
            while left > 0 {
                let len = left.min(buffer.len());
                match stream.read(&mut buffer[..len])? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => left -= count,
                }
            }
        }
    }
    Ok(())
}
