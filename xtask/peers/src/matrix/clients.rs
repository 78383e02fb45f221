//! Every client stack, doing what a row wants.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

use super::agent::{Agent, Language};
use super::pki::Pki;
use super::rustls_versions;
use super::setup::{ClientSetup, Tls};
use super::starttls::Protocol;
use crate::rustls_peer::{pem_certificates, pem_key};
use crate::{Namespace, Process, Segmented};

/// Who connects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Client {
    OpenSsl,
    Rustls,
    /// rustls, in segments smaller than any ClientHello.
    Segmented,
    Curl,
    Wget,
    GnuTls,
    Nss,
    Agent(Language),
    /// Sends bytes, and reads until the server closes or is silent for a second.
    Raw(&'static [u8]),
    /// Connects and closes.
    Connects,
    /// Connects and resets.
    ConnectsAndResets,
}

impl Client {
    /// Not part of Debian.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::Agent(Language::Go | Language::Chrome))
    }

    /// One run makes two connections where there is a session to resume.
    pub(super) const fn resumes_by_itself(self) -> bool {
        matches!(self, Self::Curl)
    }

    /// The programs without which it cannot be had.
    pub(super) const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::OpenSsl => &["openssl"],
            Self::Curl => &["curl"],
            Self::Wget => &["wget"],
            Self::GnuTls => &["gnutls-cli"],
            Self::Nss => &["tstclnt", "certutil", "pk12util"],
            Self::Agent(language) => language.programs(),
            Self::Rustls | Self::Segmented | Self::Raw(_) | Self::Connects | Self::ConnectsAndResets => &[],
        }
    }
}

/// What a client keeps of its first connection, to resume it in later ones.
pub(super) struct Session {
    name: String,
    rustls: Mutex<Option<ClientConfig>>,
}

impl Session {
    pub(super) fn new(name: String) -> Self {
        Self { name, rustls: Mutex::new(None) }
    }
}

/// What a client did.
#[derive(Debug)]
pub(super) struct Connected {
    /// What it said of it.
    pub(super) said: String,
    /// Its port, if the socket was this process's own and a verdict knows the client by it.
    pub(super) from: Option<u16>,
}

const SMALL_SEGMENT: usize = 100;
/// Longer than any client is asked to wait.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where clients are.
pub(super) struct Clients<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) pki: &'a Pki,
    pub(super) nss: Option<&'a Path>,
    pub(super) agents: Vec<(Language, Agent)>,
}

impl Clients<'_> {
    /// Makes one connection and waits for its end.
    pub(super) fn connect(
        &self,
        client: Client,
        setup: &ClientSetup,
        versions: &[Tls],
        to: SocketAddr,
        session: Option<&Session>,
    ) -> Result<Connected> {
        let command = match client {
            Client::OpenSsl => self.openssl(setup, versions, to, session)?,
            Client::Curl => self.curl(setup, versions, to, session.is_some()),
            Client::Wget => self.wget(setup, versions, to)?,
            Client::GnuTls => self.gnutls(setup, versions, to)?,
            Client::Nss => self.tstclnt(setup, versions, to)?,
            Client::Agent(language) => {
                let (_, agent) = self
                    .agents
                    .iter()
                    .find(|(spoken, _)| *spoken == language)
                    .with_context(|| format!("no {language:?} agent"))?;
                let said = agent.tell(&self.agent_command(setup, versions, to, session))?;
                return Ok(Connected { said, from: None });
            }
            Client::Rustls => return self.own(to, |tcp| self.rustls(setup, versions, tcp, to, session)),
            Client::Segmented => {
                return self.own(to, |tcp| {
                    self.rustls(setup, versions, Segmented::new(tcp, SMALL_SEGMENT)?, to, session)
                });
            }
            Client::Raw(bytes) => {
                let connected = self.own(to, |tcp| raw(bytes, tcp))?;
                // A PROXY header brings another address and port for the client.
                let from = connected.from.filter(|_| !bytes.starts_with(b"PROXY"));
                return Ok(Connected { from, ..connected });
            }
            // Not left to the last close: another thread's child may hold the socket for a moment.
            Client::Connects => return self.own(to, |tcp| Ok(tcp.shutdown(Shutdown::Both)?)),
            Client::ConnectsAndResets => return self.own(to, |tcp| socket_reset(&tcp)),
        };
        Ok(Connected { said: run(command)?, from: None })
    }

    /// Makes a connection of this process's own.
    fn own(&self, to: SocketAddr, speak: impl FnOnce(TcpStream) -> Result<()>) -> Result<Connected> {
        let tcp = match self.tcp(to) {
            Ok(tcp) => tcp,
            Err(error) => return Ok(Connected { said: error.to_string(), from: None }),
        };
        let from = Some(tcp.local_addr()?.port());
        tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
        let said = speak(tcp).err().map_or("done".to_owned(), |error| format!("{error:#}"));
        Ok(Connected { said, from })
    }

    fn tcp(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.namespace.enter(|| TcpStream::connect(to))
    }

    fn openssl(
        &self,
        setup: &ClientSetup,
        versions: &[Tls],
        to: SocketAddr,
        session: Option<&Session>,
    ) -> Result<Command> {
        let mut command = self.namespace.command("openssl");
        command.args(["s_client", "-ign_eof", "-connect", &to.to_string()]);
        match setup.name {
            Some(name) => command.args(["-servername", name]),
            None => command.arg("-noservername"),
        };
        if let [only] = versions {
            command.arg(if *only == Tls::V12 { "-tls1_2" } else { "-tls1_3" });
        }
        if setup.verifies {
            command.args(["-verify_return_error", "-CAfile"]).arg(self.pki.root());
            if let Some(name) = setup.name {
                command.args(["-verify_hostname", name]);
            }
        }
        if let Some(certificate) = setup.certificate {
            command.arg("-cert").arg(self.pki.client_chain(certificate));
            command.arg("-key").arg(self.pki.client_key(certificate));
        }
        for (option, value) in [
            ("-alpn", setup.alpn),
            ("-cipher", setup.ciphers),
            ("-groups", setup.group),
            ("-sigalgs", setup.signatures),
            ("-starttls", setup.starttls.map(Protocol::as_str)),
        ] {
            command.args(value.map(|value| [option, value]).into_iter().flatten());
        }
        command.args(setup.falls_back.then_some("-fallback_scsv"));
        if let Some(session) = session {
            let file = self.pki.directory().join(&session.name);
            let is_first = !file.exists();
            command.arg(if is_first { "-sess_out" } else { "-sess_in" }).arg(file);
            if setup.early_data && !is_first {
                command.arg("-early_data").arg(self.pki.empty_line());
            }
        }
        command.stdin(Stdio::from(File::open(self.pki.request())?));
        Ok(command)
    }

    fn curl(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr, twice: bool) -> Command {
        let mut command = self.namespace.command("curl");
        let port = to.port();
        let address = bracketed(to.ip());
        command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "8"]);
        let url = match setup.name {
            Some(name) => {
                command.args(["--connect-to", &format!("{name}:{port}:{address}:{port}")]);
                format!("https://{name}:{port}/")
            }
            None => format!("https://{address}:{port}/"),
        };
        if twice {
            // Or the second request would take the first one's connection.
            command.args(["--http1.1", "--header", "Connection: close", &url]);
        }
        command.arg(url);
        if let [only] = versions {
            command.args([&format!("--tlsv{}", only.as_str()), "--tls-max", only.as_str()]);
        }
        if setup.verifies {
            command.arg("--cacert").arg(self.pki.root());
        } else {
            command.arg("--insecure");
        }
        if let Some(certificate) = setup.certificate {
            command.arg("--cert").arg(self.pki.client_chain(certificate));
            command.arg("--key").arg(self.pki.client_key(certificate));
        }
        if setup.proxy_header {
            command.arg("--haproxy-protocol");
        }
        if setup.alpn == Some("http/1.1") {
            command.arg("--http1.1");
        }
        for (option, value) in [("--ciphers", setup.ciphers), ("--curves", setup.group)] {
            command.args(value.map(|value| [option, value]).into_iter().flatten());
        }
        command
    }

    /// wget knows no other way to say where a name is than the name service.
    fn wget(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Result<Command> {
        let name = setup.name.context("wget always sends a name")?;
        let hosts = self.pki.directory().join(format!("hosts-{}-{}", to.port(), to.is_ipv4()));
        std::fs::write(&hosts, format!("{} {name}\n", to.ip()))?;
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
        command.args([
            "wget",
            "--quiet",
            "--no-config",
            "--no-proxy",
            "--tries=1",
            "--timeout=8",
            "--output-document=-",
        ]);
        if let [only] = versions {
            command.arg(format!("--ciphers={}", gnutls_priority(*only)));
        }
        if setup.verifies {
            command.arg("--ca-certificate").arg(self.pki.root());
        } else {
            command.arg("--no-check-certificate");
        }
        if let Some(certificate) = setup.certificate {
            command.arg("--certificate").arg(self.pki.client_chain(certificate));
            command.arg("--private-key").arg(self.pki.client_key(certificate));
        }
        command.arg(format!("https://{name}:{}/", to.port()));
        Ok(command)
    }

    fn gnutls(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Result<Command> {
        let mut command = self.namespace.command("gnutls-cli");
        command.args(["-p", &to.port().to_string(), &to.ip().to_string()]);
        match setup.name {
            Some(name) => command.args(["--sni-hostname", name, "--verify-hostname", name]),
            None => command.arg("--disable-sni"),
        };
        if let [only] = versions {
            command.args(["--priority", gnutls_priority(*only)]);
        }
        if setup.verifies {
            command.arg("--x509cafile").arg(self.pki.root());
        } else {
            command.arg("--insecure");
        }
        if let Some(certificate) = setup.certificate {
            command.arg("--x509certfile").arg(self.pki.client_chain(certificate));
            command.arg("--x509keyfile").arg(self.pki.client_key(certificate));
        }
        for alpn in setup.alpn.iter().flat_map(|alpn| alpn.split(',')) {
            command.args(["--alpn", alpn]);
        }
        command.stdin(Stdio::from(File::open(self.pki.request())?));
        Ok(command)
    }

    fn tstclnt(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Result<Command> {
        let mut command = self.namespace.command("tstclnt");
        command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]);
        let database = self.nss.context("no NSS database")?;
        command.args(["-d", &format!("sql:{}", database.display()), "-W"]).arg(self.pki.nss_password());
        if let Some(name) = setup.name {
            command.args(["-a", name]);
        }
        if let [only] = versions {
            command.args(["-V", &format!("tls{0}:tls{0}", only.as_str())]);
        }
        if !setup.verifies {
            command.arg("-o");
        }
        if let Some(certificate) = setup.certificate {
            command.args(["-n", &format!("client-{}", certificate.as_str())]);
        }
        command.arg("-A").arg(self.pki.request());
        Ok(command)
    }

    fn agent_command(
        &self,
        setup: &ClientSetup,
        versions: &[Tls],
        to: SocketAddr,
        session: Option<&Session>,
    ) -> String {
        let versions = versions.iter().map(|version| version.as_str()).collect::<Vec<_>>().join(",");
        let mut words = vec![
            "connect".to_owned(),
            format!("address={}", to.ip()),
            format!("port={}", to.port()),
            format!("versions={versions}"),
        ];
        words.extend(setup.name.map(|name| format!("name={name}")));
        if setup.verifies {
            words.push(format!("authority={}", self.pki.root().display()));
        }
        if let Some(certificate) = setup.certificate {
            words.push(format!("certificate={}", self.pki.client_chain(certificate).display()));
            words.push(format!("key={}", self.pki.client_key(certificate).display()));
        }
        words.extend(setup.alpn.map(|alpn| format!("alpn={alpn}")));
        words.extend(setup.ciphers.map(|ciphers| format!("ciphers={ciphers}")));
        words.extend(session.map(|session| format!("session={}", session.name)));
        words.join(" ")
    }

    fn rustls_config(&self, setup: &ClientSetup, versions: &[Tls]) -> Result<ClientConfig> {
        let mut provider = rustls::crypto::ring::default_provider();
        if setup.ciphers.is_some() {
            provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES_128"));
        }
        if setup.group.is_some() {
            provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::X25519);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&rustls_versions(versions))?;
        let builder = if setup.verifies {
            let mut roots = RootCertStore::empty();
            for certificate in pem_certificates(&self.pki.root())? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustEverybody))
        };
        Ok(match setup.certificate {
            Some(certificate) => builder.with_client_auth_cert(
                pem_certificates(&self.pki.client_chain(certificate))?,
                pem_key(&self.pki.client_key(certificate))?,
            )?,
            None => builder.with_no_client_auth(),
        })
    }

    fn rustls(
        &self,
        setup: &ClientSetup,
        versions: &[Tls],
        tcp: impl Read + Write,
        to: SocketAddr,
        session: Option<&Session>,
    ) -> Result<()> {
        // A configuration remembers sessions, and so does its clone.
        let mut config = match session {
            Some(session) => match &mut *session.rustls.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(config) => config.clone(),
                none => none.insert(self.rustls_config(setup, versions)?).clone(),
            },
            None => self.rustls_config(setup, versions)?,
        };
        config.enable_early_data = setup.early_data;
        let protocols = setup.alpn.iter().flat_map(|alpn| alpn.split(','));
        config.alpn_protocols.extend(protocols.map(|alpn| alpn.as_bytes().to_vec()));
        // rustls sends no server_name for an address.
        let name = match setup.name {
            Some(name) => ServerName::try_from(name)?,
            None => ServerName::from(to.ip()),
        };
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let mut tls = StreamOwned::new(connection, tcp);
        let outcome = (|| {
            if let Some(mut early) = tls.conn.early_data() {
                early.write_all(b"\r\n")?;
            }
            tls.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            // Who closes first says something about the answer, so that the first word is left to the server.
            while tls.read(&mut [0; 4096])? > 0 {}
            anyhow::Ok(())
        })();
        tls.conn.send_close_notify();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock)?;
        }
        outcome
    }
}

/// Until the server closes or is silent for a second.
fn raw(bytes: &[u8], mut tcp: TcpStream) -> Result<()> {
    tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
    tcp.write_all(bytes)?;
    let outcome = loop {
        match tcp.read(&mut [0; 4096]) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error.into()),
        }
    };
    let _ = tcp.shutdown(Shutdown::Both);
    outcome
}

fn socket_reset(stream: &TcpStream) -> Result<()> {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &linger)?;
    Ok(())
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

const fn gnutls_priority(version: Tls) -> &'static str {
    match version {
        Tls::V12 => "NORMAL:-VERS-ALL:+VERS-TLS1.2",
        Tls::V13 => "NORMAL:-VERS-ALL:+VERS-TLS1.3",
    }
}

/// Runs a client to its end and returns the last thing it said on stderr.
fn run(mut command: Command) -> Result<String> {
    let mut process = Process::spawn(&mut command)?;
    let status = process.wait(PATIENCE).with_context(|| format!("{command:?} does not end"))?;
    let said =
        process.stderr.rest(PATIENCE)?.into_iter().rev().find(|line| !line.is_empty()).unwrap_or_default();
    Ok(format!("{status} {said}"))
}

/// For clients that are to get past the certificate.
#[derive(Debug)]
struct TrustEverybody;

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
