//! Every server stack, set up as a row wants it. Stacks that serve many ports from one process do.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::agent::{Agent, Language};
use super::oddities::{self, SecondHello};
use super::pki::{NAME, Pki};
use super::setup::{ServerSetup, Tls};
use super::starttls::Protocol;
use super::{Listener, rustls_versions};
use crate::gateway::sni_filter;
use crate::rustls_peer::{answer_tls, pem_certificates, pem_key};
use crate::{Namespace, Process, Service, close_after_client_hello, serve_plaintext};

/// Who listens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Server {
    OpenSsl,
    Rustls,
    Nginx,
    Apache,
    Lighttpd,
    Haproxy,
    GnuTls,
    Stunnel,
    Nss,
    Agent(Language),
    Envoy,
    /// Resets every hello that does not ask for the name, as Envoy does.
    Gateway,
    /// Reads the hello and closes.
    Closes,
    /// Closes with the hello unread, which resets.
    Resets,
    /// Reads the hello and says nothing until the client has gone.
    Silent,
    /// Answers in plain text.
    Plaintext(&'static [u8]),
    /// Speaks first.
    Banner(&'static [u8]),
    /// Speaks this before TLS.
    StartTls(Protocol),
    /// Understands no ClientHello that is larger than one segment.
    ReadsOnce,
    /// Asks for another ClientHello.
    Retries(SecondHello),
    /// Nobody listens.
    Nobody,
}

impl Server {
    /// Not part of Debian, or too slow to start for the usual run.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::Envoy | Self::Agent(Language::Go))
    }

    /// The programs without which it cannot be had.
    pub(super) const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::OpenSsl => &["openssl"],
            Self::Nginx => &["nginx"],
            Self::Apache => &["apache2"],
            Self::Lighttpd => &["lighttpd"],
            Self::Haproxy => &["haproxy"],
            Self::GnuTls => &["gnutls-serv"],
            Self::Stunnel => &["stunnel"],
            Self::Nss => &["selfserv", "certutil", "pk12util"],
            Self::Agent(language) => language.programs(),
            Self::Envoy => &["envoy"],
            _ => &[],
        }
    }
}

/// A server that runs until this is dropped.
pub(super) enum Running {
    Process {
        _process: Process,
    },
    Service {
        _service: Service,
    },
    /// Elsewhere, with other listeners, or nowhere.
    Elsewhere,
}

/// Servers that all rows share.
pub(super) struct Shared {
    _processes: Vec<Process>,
    _backend: Service,
    _agents: Vec<Agent>,
}

/// Where stunnel's plain text goes.
const BACKEND: u16 = 9001;
/// lighttpd will have a port of its own, too, which is in the clear.
const LIGHTTPD_PLAIN: u16 = 9002;
/// Where Debian has Apache's.
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";
const READY: Duration = Duration::from_mins(1);

impl Shared {
    pub(super) fn start(namespace: &Namespace, pki: &Pki, listeners: &[Listener]) -> Result<Self> {
        let mut processes = Vec::new();
        let backend = Service::start(namespace, BACKEND, serve_plaintext(b"HTTP/1.0 200 OK\r\n\r\nhello\n"))?;
        let of =
            |server| listeners.iter().filter(move |listener| listener.server == server).collect::<Vec<_>>();
        let shared = [
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::Stunnel,
            Server::Envoy,
        ];
        for server in shared {
            let listeners = of(server);
            let (Some(first), Some(last)) = (listeners.first(), listeners.last()) else { continue };
            let mut command = match server {
                Server::Nginx => nginx(namespace, pki, &listeners)?,
                Server::Apache => apache(namespace, pki, &listeners)?,
                Server::Lighttpd => lighttpd(namespace, pki, &listeners)?,
                Server::Haproxy => haproxy(namespace, pki, &listeners)?,
                Server::Stunnel => stunnel(namespace, pki, &listeners)?,
                _ => envoy(namespace, pki, &listeners)?,
            };
            let mut process = Process::spawn(&mut command)?;
            for port in [first.port, last.port] {
                await_listener(namespace, port, &mut process)?;
            }
            processes.push(process);
        }
        let mut agents = Vec::new();
        for language in [Language::Python, Language::Node, Language::Java, Language::Go] {
            let listeners = of(Server::Agent(language));
            if listeners.is_empty() {
                continue;
            }
            let agent = Agent::start(language, namespace, pki.directory())?;
            for listener in listeners {
                let answer = agent.tell(&listen_command(pki, listener))?;
                anyhow::ensure!(answer == "listening", "{language:?}: {answer}");
            }
            agents.push(agent);
        }
        Ok(Self { _processes: processes, _backend: backend, _agents: agents })
    }
}

/// Starts a listener that has a process, or a thread, of its own.
pub(super) fn start(
    namespace: &Namespace,
    pki: &Pki,
    nss: Option<&Path>,
    listener: &Listener,
) -> Result<Running> {
    let (setup, port) = (&listener.setup, listener.port);
    let service = |handler: Box<dyn Fn(TcpStream) + Send + Sync>| {
        Ok(Running::Service { _service: Service::start(namespace, port, handler)? })
    };
    let mut command = match listener.server {
        Server::OpenSsl => openssl(namespace, pki, setup, port),
        Server::GnuTls => gnutls(namespace, pki, setup, port),
        Server::Nss => selfserv(namespace, pki, nss.context("no NSS database")?, setup, port),
        Server::Rustls => {
            let config = rustls_config(pki, setup)?;
            return service(Box::new(move |stream| answer_tls(stream, &config)));
        }
        Server::Gateway => {
            let config = rustls_config(pki, setup)?;
            return service(Box::new(sni_filter(&[NAME], move |stream| answer_tls(stream, &config))));
        }
        Server::Closes => return service(Box::new(close_after_client_hello)),
        Server::Resets => return service(Box::new(sni_filter(&[], drop))),
        Server::Silent => {
            return service(Box::new(
                |mut stream: TcpStream| while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {},
            ));
        }
        Server::StartTls(protocol) => {
            let config = rustls_config(pki, setup)?;
            return service(Box::new(move |mut stream| {
                if protocol.precede(&mut stream).is_some() {
                    answer_tls(stream, &config);
                }
            }));
        }
        Server::ReadsOnce => {
            let config = rustls_config(pki, setup)?;
            return service(Box::new(move |stream| oddities::read_once(stream, &config)));
        }
        Server::Retries(then) => return service(Box::new(move |stream| oddities::retry(stream, then))),
        Server::Plaintext(answer) => return service(Box::new(serve_plaintext(answer))),
        Server::Banner(banner) => return service(Box::new(crate::service::greet(banner))),
        _ => return Ok(Running::Elsewhere),
    };
    let mut process = Process::spawn(command.stdin(Stdio::piped()))?;
    await_listener(namespace, port, &mut process)?;
    Ok(Running::Process { _process: process })
}

fn versions(setup: &ServerSetup, of: impl Fn(Tls) -> &'static str, between: &str) -> String {
    setup.versions.iter().map(|&version| of(version)).collect::<Vec<_>>().join(between)
}

fn openssl(namespace: &Namespace, pki: &Pki, setup: &ServerSetup, port: u16) -> Command {
    let (chain, key) = (pki.server_chain(setup.certificate), pki.server_key(setup.certificate));
    let mut command = namespace.command("openssl");
    command.args(["s_server", "-www", "-accept", &port.to_string()]);
    command.arg("-cert").arg(&chain).arg("-key").arg(&key);
    if let Some(issuers) = pki.server_issuers(setup.certificate) {
        command.arg("-cert_chain").arg(issuers);
    }
    match setup.versions {
        [only] => command.arg(if *only == Tls::V12 { "-tls1_2" } else { "-tls1_3" }),
        _ => &mut command,
    };
    if setup.client_auth {
        command.args(["-Verify", "3", "-verify_return_error", "-CAfile"]).arg(pki.root());
    }
    if setup.strict_name {
        command.args(["-servername", NAME, "-servername_fatal"]);
        command.arg("-cert2").arg(&chain).arg("-key2").arg(&key);
    }
    for (option, value) in [("-alpn", setup.alpn), ("-cipher", setup.ciphers), ("-groups", setup.group)] {
        command.args(value.map(|value| [option, value]).into_iter().flatten());
    }
    command
}

fn gnutls(namespace: &Namespace, pki: &Pki, setup: &ServerSetup, port: u16) -> Command {
    let mut command = namespace.command("gnutls-serv");
    let versions =
        versions(setup, |version| if version == Tls::V12 { "+VERS-TLS1.2" } else { "+VERS-TLS1.3" }, ":");
    let group = match setup.group {
        Some("P-384") => ":-GROUP-ALL:+GROUP-SECP384R1",
        _ => "",
    };
    let ciphers = if setup.ciphers.is_some() { ":-CIPHER-ALL:+CHACHA20-POLY1305" } else { "" };
    command.args(["--http", "-p", &port.to_string()]);
    command.args(["--priority", &format!("NORMAL:-VERS-ALL:{versions}{group}{ciphers}")]);
    command.arg("--x509certfile").arg(pki.server_chain(setup.certificate));
    command.arg("--x509keyfile").arg(pki.server_key(setup.certificate));
    if setup.client_auth {
        command.args(["--require-client-cert", "--verify-client-cert", "--x509cafile"]).arg(pki.root());
    }
    if setup.strict_name {
        command.args(["--sni-hostname", NAME, "--sni-hostname-fatal"]);
    }
    if let Some(alpn) = setup.alpn {
        command.args(["--alpn", alpn, "--alpn-fatal"]);
    }
    command
}

fn selfserv(namespace: &Namespace, pki: &Pki, database: &Path, setup: &ServerSetup, port: u16) -> Command {
    let mut command = namespace.command("selfserv");
    // With session tickets, without which it resumes no TLS 1.3.
    command.args(["-u", "-d", &format!("sql:{}", database.display()), "-f"]).arg(pki.nss_password());
    command.args([
        "-p",
        &port.to_string(),
        "-n",
        setup.certificate.as_str(),
        "-e",
        setup.certificate.as_str(),
    ]);
    let bound = |version: Option<&Tls>| format!("tls{}", version.map_or("1.2", |version| version.as_str()));
    let (least, most) = (bound(setup.versions.first()), bound(setup.versions.last()));
    command.args(["-V", &format!("{least}:{most}")]);
    if setup.client_auth {
        command.args(["-r", "-r"]);
    }
    command
}

fn rustls_config(pki: &Pki, setup: &ServerSetup) -> Result<Arc<ServerConfig>> {
    let mut provider = rustls::crypto::ring::default_provider();
    if setup.ciphers.is_some() {
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || format!("{:?}", suite.suite()).contains("CHACHA20"));
    }
    if setup.group.is_some() {
        provider.kx_groups.retain(|group| group.name() == rustls::NamedGroup::secp384r1);
    }
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&rustls_versions(setup.versions))?;
    let builder = if setup.client_auth {
        let mut roots = RootCertStore::empty();
        for certificate in pem_certificates(&pki.root())? {
            roots.add(certificate)?;
        }
        builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?,
        )
    } else {
        builder.with_no_client_auth()
    };
    let chain = pem_certificates(&pki.server_chain(setup.certificate))?;
    let mut config = builder.with_single_cert(chain, pem_key(&pki.server_key(setup.certificate))?)?;
    config.alpn_protocols.extend(setup.alpn.map(|alpn| alpn.as_bytes().to_vec()));
    if setup.early_data {
        config.max_early_data_size = 1024;
    }
    Ok(Arc::new(config))
}

fn listen_command(pki: &Pki, listener: &Listener) -> String {
    let setup = &listener.setup;
    let mut command = format!(
        "listen port={} versions={} certificate={} key={}",
        listener.port,
        versions(setup, Tls::as_str, ","),
        pki.server_chain(setup.certificate).display(),
        pki.server_key(setup.certificate).display(),
    );
    if setup.client_auth {
        let _ = write!(command, " authority={}", pki.root().display());
    }
    for (key, value) in [("alpn", setup.alpn), ("ciphers", setup.ciphers)] {
        let _ = value.map(|value| write!(command, " {key}={value}"));
    }
    command
}

fn nginx(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    let directory = pki.directory().join("nginx");
    fs::create_dir(&directory)?;
    let mut text = String::from(
        "daemon off; master_process off; pid nginx.pid; error_log stderr emerg;\nevents {}\nhttp {\naccess_log off;\n\
         client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; \
         scgi_temp_path scgi;\n",
    );
    for Listener { setup, port, .. } in listeners {
        let proxy = if setup.proxy_protocol { " proxy_protocol" } else { "" };
        let mut listen = format!("listen [::]:{port} ssl{proxy}");
        let protocols =
            versions(setup, |version| if version == Tls::V12 { "TLSv1.2" } else { "TLSv1.3" }, " ");
        let name = if setup.strict_name {
            writeln!(
                text,
                "server {{ {listen} ipv6only=off default_server; ssl_protocols {protocols}; ssl_reject_handshake on; }}"
            )?;
            NAME
        } else {
            // Options of the socket are given once.
            listen.push_str(" ipv6only=off");
            "_"
        };
        writeln!(
            text,
            "server {{ {listen}; server_name {name}; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols {protocols};",
            pki.server_chain(setup.certificate).display(),
            pki.server_key(setup.certificate).display(),
        )?;
        if setup.client_auth {
            writeln!(text, "ssl_verify_client on; ssl_client_certificate {};", pki.root().display())?;
        }
        if let Some(ciphers) = setup.ciphers {
            writeln!(text, "ssl_ciphers {ciphers};")?;
        }
        if let Some(group) = setup.group {
            writeln!(text, "ssl_ecdh_curve {group};")?;
        }
        if setup.early_data {
            text.push_str("ssl_early_data on;\n");
        }
        text.push_str("location / { return 200 'hello\n'; } }\n");
    }
    text.push_str("}\n");
    fs::write(directory.join("nginx.conf"), text)?;
    let mut command = namespace.command("nginx");
    command.arg("-p").arg(&directory).args(["-c", "nginx.conf"]);
    Ok(command)
}

fn apache(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    let directory = pki.directory().join("apache");
    fs::create_dir(&directory)?;
    let mut text = format!(
        "ServerRoot {}\nPidFile apache.pid\nErrorLog /dev/stderr\nLogLevel emerg\nServerName {NAME}\nKeepAlive Off\n\
         User nobody\nGroup nogroup\nMutex posixsem\nSSLSessionCache none\n",
        directory.display()
    );
    for module in ["mpm_event", "authz_core", "ssl"] {
        // Before the mutexes and the sessions of mod_ssl.
        text.insert_str(0, &format!("LoadModule {module}_module {APACHE_MODULES}/mod_{module}.so\n"));
    }
    for Listener { setup, port, .. } in listeners {
        let protocols =
            versions(setup, |version| if version == Tls::V12 { "+TLSv1.2" } else { "+TLSv1.3" }, " ");
        writeln!(
            text,
            "Listen {port}\n<VirtualHost *:{port}>\nSSLEngine on\nSSLProtocol -all {protocols}\n\
             SSLCertificateFile {}\nSSLCertificateKeyFile {}",
            pki.server_chain(setup.certificate).display(),
            pki.server_key(setup.certificate).display(),
        )?;
        if setup.client_auth {
            writeln!(
                text,
                "SSLVerifyClient require\nSSLVerifyDepth 3\nSSLCACertificateFile {}",
                pki.root().display()
            )?;
        }
        if let Some(ciphers) = setup.ciphers {
            writeln!(text, "SSLCipherSuite {ciphers}")?;
        }
        if let Some(group) = setup.group {
            writeln!(text, "SSLOpenSSLConfCmd Groups {group}")?;
        }
        text.push_str("</VirtualHost>\n");
    }
    let file = directory.join("apache.conf");
    fs::write(&file, text)?;
    let mut command = namespace.command("apache2");
    // One process: what a master leaves behind when it is killed would go on listening.
    command.args(["-X", "-f"]).arg(file);
    Ok(command)
}

fn lighttpd(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    let mut text = format!(
        "server.document-root = \"{}\"\nserver.modules = (\"mod_openssl\")\nserver.bind = \"127.0.0.1\"\n\
         server.port = {LIGHTTPD_PLAIN}\n",
        pki.directory().display()
    );
    for Listener { setup, port, .. } in listeners {
        let bound =
            |version: Option<&Tls>| format!("TLSv{}", version.map_or("1.2", |version| version.as_str()));
        let (least, most) = (bound(setup.versions.first()), bound(setup.versions.last()));
        let mut commands = format!("\"MinProtocol\" => \"{least}\", \"MaxProtocol\" => \"{most}\"");
        for (option, value) in [("CipherString", setup.ciphers), ("Groups", setup.group)] {
            let _ = value.map(|value| write!(commands, ", \"{option}\" => \"{value}\""));
        }
        writeln!(
            text,
            "$SERVER[\"socket\"] == \"[::]:{port}\" {{\nserver.set-v6only = \"disable\"\nssl.engine = \"enable\"\n\
             ssl.pemfile = \"{}\"\nssl.privkey = \"{}\"\nssl.openssl.ssl-conf-cmd = ({commands})",
            pki.server_chain(setup.certificate).display(),
            pki.server_key(setup.certificate).display(),
        )?;
        if setup.client_auth {
            writeln!(
                text,
                "ssl.ca-file = \"{}\"\nssl.verifyclient.activate = \"enable\"\nssl.verifyclient.enforce = \"enable\"",
                pki.root().display()
            )?;
        }
        text.push_str("}\n");
    }
    let file = pki.directory().join("lighttpd.conf");
    fs::write(&file, text)?;
    let mut command = namespace.command("lighttpd");
    command.args(["-D", "-f"]).arg(file);
    Ok(command)
}

fn haproxy(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    let mut text =
        String::from("defaults\nmode http\ntimeout client 10s\ntimeout connect 5s\ntimeout server 5s\n");
    for Listener { setup, port, .. } in listeners {
        let bundle = pki.server_bundle(setup.certificate);
        write!(text, "frontend f{port}\nbind :::{port} v4v6 ssl crt {}", bundle.display())?;
        let bound =
            |version: Option<&Tls>| format!("TLSv{}", version.map_or("1.2", |version| version.as_str()));
        let (least, most) = (bound(setup.versions.first()), bound(setup.versions.last()));
        write!(text, " ssl-min-ver {least} ssl-max-ver {most}")?;
        if setup.client_auth {
            write!(text, " verify required ca-file {}", pki.root().display())?;
        }
        if setup.strict_name {
            text.push_str(" strict-sni");
        }
        if setup.proxy_protocol {
            text.push_str(" accept-proxy");
        }
        if setup.early_data {
            text.push_str(" allow-0rtt");
        }
        for (option, value) in [("alpn", setup.alpn), ("ciphers", setup.ciphers), ("curves", setup.group)] {
            let _ = value.map(|value| write!(text, " {option} {value}"));
        }
        text.push_str("\nhttp-request return status 200 content-type text/plain string hello\n");
    }
    let file = pki.directory().join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = namespace.command("haproxy");
    command.args(["-db", "-f"]).arg(file);
    Ok(command)
}

fn stunnel(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    let mut text = String::from("foreground = yes\npid =\ndebug = err\n");
    for Listener { setup, port, .. } in listeners {
        let bound =
            |version: Option<&Tls>| format!("TLSv{}", version.map_or("1.2", |version| version.as_str()));
        let (least, most) = (bound(setup.versions.first()), bound(setup.versions.last()));
        writeln!(
            text,
            "[s{port}]\naccept = :::{port}\nconnect = 127.0.0.1:{BACKEND}\ncert = {}\nkey = {}\nsslVersionMin = {least}\nsslVersionMax = {most}",
            pki.server_chain(setup.certificate).display(),
            pki.server_key(setup.certificate).display(),
        )?;
        if setup.client_auth {
            writeln!(text, "verifyChain = yes\nCAfile = {}", pki.root().display())?;
        }
        for (option, value) in [("ciphers", setup.ciphers), ("curves", setup.group)] {
            let _ = value.map(|value| writeln!(text, "{option} = {value}"));
        }
    }
    let file = pki.directory().join("stunnel.conf");
    fs::write(&file, text)?;
    let mut command = namespace.command("stunnel");
    command.arg(file);
    Ok(command)
}

fn envoy(namespace: &Namespace, pki: &Pki, listeners: &[&Listener]) -> Result<Command> {
    use serde_json::json;
    let file = |path: std::path::PathBuf| json!({"filename": path});
    let listeners: Vec<_> = listeners
        .iter()
        .map(|Listener { setup, port, .. }| {
            let bound = |version: Option<&Tls>| match version {
                Some(Tls::V12) | None => "TLSv1_2",
                Some(Tls::V13) => "TLSv1_3",
            };
            let mut common = json!({
                "tls_params": {
                    "tls_minimum_protocol_version": bound(setup.versions.first()),
                    "tls_maximum_protocol_version": bound(setup.versions.last()),
                },
                "tls_certificates": [{
                    "certificate_chain": file(pki.server_chain(setup.certificate)),
                    "private_key": file(pki.server_key(setup.certificate)),
                }],
            });
            if let Some(ciphers) = setup.ciphers {
                common["tls_params"]["cipher_suites"] = json!([ciphers]);
            }
            if let Some(group) = setup.group {
                common["tls_params"]["ecdh_curves"] = json!([group]);
            }
            if setup.client_auth {
                common["validation_context"] = json!({"trusted_ca": file(pki.root())});
            }
            let socket = json!({
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": common,
                    "require_client_certificate": setup.client_auth,
                },
            });
            let answer = json!({
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "matrix",
                    "http_protocol_options": {"accept_http_10": true},
                    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
                        "match": {"prefix": "/"},
                        "direct_response": {"status": 200, "body": {"inline_string": "hello\n"}},
                    }]}]},
                    "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                },
            });
            let mut chain = json!({"transport_socket": socket, "filters": [answer]});
            let mut filters = Vec::new();
            if setup.proxy_protocol {
                filters.push(json!({"name": "envoy.filters.listener.proxy_protocol", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}));
            }
            if setup.strict_name {
                chain["filter_chain_match"] = json!({"server_names": [NAME]});
                filters.push(json!({"name": "envoy.filters.listener.tls_inspector", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}));
            }
            json!({
                "name": format!("l{port}"),
                "address": {"socket_address": {"address": "::", "port_value": port, "ipv4_compat": true}},
                "listener_filters": filters,
                "filter_chains": [chain],
            })
        })
        .collect();
    let file = pki.directory().join("envoy.json");
    fs::write(&file, json!({"static_resources": {"listeners": listeners}}).to_string())?;
    let mut command = namespace.command("envoy");
    command.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]).arg(file);
    Ok(command)
}

/// Waits until a socket listens on `port`, without a connection that somebody would have to judge.
#[expect(clippy::disallowed_methods, reason = "the start of another program takes real time")]
fn await_listener(namespace: &Namespace, port: u16, process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + READY;
    let wanted = format!(":{port:04X} ");
    while Instant::now() < deadline {
        let tables = namespace.enter(|| {
            ["tcp", "tcp6"]
                .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default())
        });
        // Local address, remote address, and state 0A: TCP_LISTEN.
        let listens = |line: &str| {
            line.split_once(&wanted).is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some("0A"))
        };
        if tables.iter().flat_map(|table| table.lines()).any(listens) {
            return Ok(());
        }
        if let Some(line) = process.exited()? {
            bail!("the server for port {port} has ended: {line}");
        }
        // The kernel tells nobody when a socket begins to listen.
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("nobody listens on port {port} after {READY:?}")
}
