//! Every client stack, doing what a row wants.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
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
use crate::rustls_peer::{pem_certificates, pem_key};
use crate::{Namespace, Process};

/// Who connects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Client {
    OpenSsl,
    Rustls,
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
        matches!(self, Self::Agent(Language::Go))
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
            Self::Rustls | Self::Raw(_) | Self::Connects | Self::ConnectsAndResets => &[],
        }
    }
}

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
    /// Makes one connection and waits for its end. Returns what the client said of it.
    pub(super) fn connect(
        &self,
        client: Client,
        setup: &ClientSetup,
        versions: &[Tls],
        to: SocketAddr,
    ) -> Result<String> {
        let command = match client {
            Client::OpenSsl => self.openssl(setup, versions, to)?,
            Client::Curl => self.curl(setup, versions, to),
            Client::Wget => self.wget(setup, versions, to)?,
            Client::GnuTls => self.gnutls(setup, versions, to)?,
            Client::Nss => self.tstclnt(setup, versions, to)?,
            Client::Agent(language) => {
                let (_, agent) = self
                    .agents
                    .iter()
                    .find(|(spoken, _)| *spoken == language)
                    .with_context(|| format!("no {language:?} agent"))?;
                return agent.tell(&self.agent_command(setup, versions, to));
            }
            Client::Rustls => {
                return Ok(self
                    .rustls(setup, versions, to)
                    .err()
                    .map_or("done".to_owned(), |error| format!("{error:#}")));
            }
            Client::Raw(bytes) => {
                return Ok(self.raw(bytes, to).err().map_or("done".to_owned(), |error| error.to_string()));
            }
            Client::Connects => {
                // Not left to the last close: another thread's child may hold the socket for a moment.
                self.tcp(to)?.shutdown(Shutdown::Both)?;
                return Ok("done".to_owned());
            }
            Client::ConnectsAndResets => {
                socket_reset(&self.tcp(to)?)?;
                return Ok("done".to_owned());
            }
        };
        run(command)
    }

    fn tcp(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.namespace.enter(|| TcpStream::connect(to))
    }

    fn openssl(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Result<Command> {
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
        ] {
            command.args(value.map(|value| [option, value]).into_iter().flatten());
        }
        command.stdin(Stdio::from(File::open(self.pki.request())?));
        Ok(command)
    }

    fn curl(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Command {
        let mut command = self.namespace.command("curl");
        let port = to.port();
        let address = bracketed(to.ip());
        command.args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "8"]);
        match setup.name {
            Some(name) => command
                .args(["--connect-to", &format!("{name}:{port}:{address}:{port}")])
                .arg(format!("https://{name}:{port}/")),
            None => command.arg(format!("https://{address}:{port}/")),
        };
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
        if let Some(alpn) = setup.alpn {
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

    fn agent_command(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> String {
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
        words.join(" ")
    }

    fn rustls(&self, setup: &ClientSetup, versions: &[Tls], to: SocketAddr) -> Result<()> {
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
        let mut config = match setup.certificate {
            Some(certificate) => builder.with_client_auth_cert(
                pem_certificates(&self.pki.client_chain(certificate))?,
                pem_key(&self.pki.client_key(certificate))?,
            )?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.extend(setup.alpn.map(|alpn| alpn.as_bytes().to_vec()));
        // rustls sends no server_name for an address.
        let name = setup.name.map_or_else(|| to.ip().to_string(), str::to_owned);
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
        let tcp = self.tcp(to)?;
        tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut tls = StreamOwned::new(connection, tcp);
        let outcome = (|| {
            tls.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            // Answered, or echoed: either way there is an end to wait for.
            let _answered = tls.read(&mut [0; 4096])?;
            anyhow::Ok(())
        })();
        tls.conn.send_close_notify();
        while tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock)?;
        }
        outcome
    }

    fn raw(&self, bytes: &[u8], to: SocketAddr) -> std::io::Result<()> {
        let mut stream = self.tcp(to)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(bytes)?;
        let outcome = loop {
            match stream.read(&mut [0; 4096]) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        let _ = stream.shutdown(Shutdown::Both);
        outcome
    }
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
