//! Real handshakes by rustls, for what TLS 1.3 encrypts: the chain, the application protocol, and whether a client
//! certificate is asked for. The verifier accepts anything: the chain is what is looked for, and nothing is sent.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::{deadline, read};
use crate::engine::timestamp::Timestamp;
use crate::probe::answer::Trust;
use crate::probe::{Accepted, Answer, Refusal};
use crate::tls::alert::Alert;
use crate::tls::certificate::{CertificateCache, CertificateChain};
use crate::tls::codepoints::{AlertDescription, AlertLevel, CipherSuite, NamedGroup, ProtocolVersion};

/// How long a server has to refuse a client without certificate: in TLS 1.3 it does so after the client believes that
/// all is well (RFC 8446 §4.4.2.4).
const LATE_REFUSAL: Duration = Duration::from_secs(1);

/// Does handshakes.
pub(super) struct Handshakes {
    provider: Arc<CryptoProvider>,
    authorities: Option<RootCertStore>,
    certificates: CertificateCache,
}

impl Handshakes {
    /// With the authorities of a PEM file, chains are verified.
    pub(super) fn new(ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let authorities = ca_file.map(|file| {
            let mut store = RootCertStore::empty();
            let certificates =
                CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let certificates = certificates.with_context(|| format!("cannot read {}", file.display()))?;
            let (added, _) = store.add_parsable_certificates(certificates);
            anyhow::ensure!(added > 0, "there is no certificate in {}", file.display());
            Ok(store)
        });
        Ok(Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            authorities: authorities.transpose()?,
            certificates: CertificateCache::new(),
        })
    }

    /// Fresh bytes for a hello. Zeros if there are none to be had: nothing depends on them.
    pub(super) fn random(&self) -> [u8; 32] {
        let mut random = [0; 32];
        let _ = self.provider.secure_random.fill(&mut random);
        random
    }

    /// Does one handshake behind `header`.
    #[expect(clippy::too_many_arguments, reason = "what an attempt is made of, and the connection for it")]
    pub(super) async fn shake(
        &mut self,
        stream: &mut TcpStream,
        name: Option<&str>,
        alpn: &[Box<str>],
        header: &[u8],
        address: SocketAddr,
        until: Instant,
        now: Timestamp,
    ) -> Answer {
        let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
        let client_certificate = Arc::new(NoCertificate::default());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnything(Arc::clone(&self.provider))))
            .with_client_cert_resolver(Arc::clone(&client_certificate) as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.enable_sni = name.is_some();
        let name = match name {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(|error| failed(&error))?,
            None => ServerName::from(address.ip()),
        };
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))?;
        let _ = stream.write_all(header).await;

        let mut end = None;
        while end.is_none() && connection.is_handshaking() {
            end = step(stream, &mut connection, until).await.err();
        }
        let is_complete = !connection.is_handshaking();
        let is_requested = client_certificate.was_asked.load(Ordering::Relaxed);
        if is_complete && is_requested && end.is_none() {
            let until = until.min(deadline(LATE_REFUSAL));
            while end.is_none() {
                end = step(stream, &mut connection, until).await.err();
            }
            end = end.filter(|end| *end != Refusal::Silent);
        }
        connection.send_close_notify();
        let _ = flush(stream, &mut connection).await;
        match end {
            Some(end) if !is_complete && !is_requested => Err(end),
            end => Ok(self.accepted(&connection, is_requested, end, now)),
        }
    }

    fn accepted(
        &mut self,
        connection: &ClientConnection,
        is_requested: bool,
        refused_after: Option<Refusal>,
        now: Timestamp,
    ) -> Accepted {
        let chain = connection.peer_certificates();
        Accepted {
            version: connection
                .protocol_version()
                .map(|version| ProtocolVersion(version.into()))
                .unwrap_or_default(),
            cipher_suite: connection
                .negotiated_cipher_suite()
                .map(|suite| CipherSuite(suite.suite().into()))
                .unwrap_or_default(),
            group: connection.negotiated_key_exchange_group().map(|group| NamedGroup(group.name().into())),
            alpn: connection.alpn_protocol().map(Into::into),
            chain: chain.and_then(|chain| self.read(chain)).map(Arc::new),
            certificate_requested: Some(is_requested),
            refused_after,
            trust: chain.and_then(|chain| self.verify(chain, now)),
        }
    }

    /// As a TLS 1.2 Certificate message would bring it (RFC 5246 §7.4.2).
    fn read(&mut self, chain: &[CertificateDer<'_>]) -> Option<CertificateChain> {
        let mut list = Vec::new();
        for certificate in chain {
            list.extend(u24(certificate.len()));
            list.extend_from_slice(certificate);
        }
        let mut body = u24(list.len()).to_vec();
        body.extend(list);
        CertificateChain::decode(&body, &mut self.certificates).complete()
    }

    /// Whether the chain leads to one of the authorities. Names are another matter.
    fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Option<Trust> {
        let authorities = self.authorities.as_ref()?;
        let (leaf, intermediates) = chain.split_first()?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()));
        let result = ParsedCertificate::try_from(leaf).and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(&leaf, authorities, intermediates, now, algorithms)
        });
        Some(match result {
            Ok(()) => Trust::Trusted,
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Trust::UnknownIssuer,
            Err(error) => Trust::Refused(error.to_string()),
        })
    }
}

/// Sends what is to be sent, and takes what comes next.
async fn step(
    stream: &mut TcpStream,
    connection: &mut ClientConnection,
    until: Instant,
) -> Result<(), Refusal> {
    flush(stream, connection).await.map_err(|_| Refusal::Reset)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut bytes = read(stream, &mut buffer, until).await?;
    while !bytes.is_empty() {
        // Reading from a slice fails only when the connection holds more than it should.
        connection.read_tls(&mut bytes).map_err(|error| Refusal::Failed(error.to_string()))?;
        if let Err(error) = connection.process_new_packets() {
            // The alert for it.
            let _ = flush(stream, connection).await;
            return Err(match error {
                Error::AlertReceived(description) => Refusal::Alert(Alert {
                    level: AlertLevel::FATAL,
                    description: AlertDescription(description.into()),
                }),
                error => Refusal::Failed(error.to_string()),
            });
        }
        discard_plaintext(connection);
    }
    flush(stream, connection).await.map_err(|_| Refusal::Reset)
}

/// A server may speak first; what it says is not asked for.
fn discard_plaintext(connection: &mut ClientConnection) {
    let mut sink = [0; 1024];
    while std::io::Read::read(&mut connection.reader(), &mut sink).is_ok_and(|len| len > 0) {}
}

async fn flush(stream: &mut TcpStream, connection: &mut ClientConnection) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    stream.write_all(&bytes).await
}

fn u24(len: usize) -> [u8; 3] {
    let [_, length @ ..] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    length
}

/// Has no client certificate, and remembers whether it was asked for one.
#[derive(Debug, Default)]
struct NoCertificate {
    was_asked: AtomicBool,
}

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Accepts every chain and every signature: what is wrong with a chain is found out afterwards.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
