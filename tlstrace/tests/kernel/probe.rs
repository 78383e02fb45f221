//! `tlstrace probe` against real servers, each of which accepts some things and refuses others.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::ALL_VERSIONS;
use rustls::version::TLS13;
use serde_json::Value;
use tlstrace_peers::{
    Family, Identity, Pair, Process, Service, installed, openssl, rustls_server, serve_plaintext,
    sni_gateway, terminate_tls,
};

use crate::live::NAME;
use crate::skip;

const PORT: u16 = 8443;

/// A server's namespace, a certificate for [`NAME`], and what the probe has printed.
struct Probed {
    pair: Pair,
    identity: Identity,
}

impl Probed {
    fn new() -> Self {
        Self { pair: Pair::new().unwrap(), identity: Identity::issue(&[NAME]).unwrap() }
    }

    fn openssl(&self, arguments: &[&str]) -> Process {
        openssl::server(&self.pair.server, &self.identity, PORT, arguments).unwrap()
    }

    fn command(&self, family: Family, arguments: &[&str]) -> Command {
        let address = Pair::server_address(family).to_string();
        let mut command = self.pair.client.command(env!("CARGO_BIN_EXE_tlstrace"));
        command.args(["probe", &format!("{NAME}:{PORT}"), "--connect", &address]);
        command.args(["--pace", "1ms", "-o", "json"]).args(arguments);
        command
    }

    fn probe(&self, family: Family, arguments: &[&str]) -> Report {
        let output = self.command(family, arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Report(serde_json::from_slice(&output.stdout).unwrap())
    }
}

/// What the probe has printed.
struct Report(Value);

impl Report {
    fn explains(&self, verdict: &str) -> bool {
        let explains = self.0["explains"].as_array().unwrap();
        explains.iter().any(|explanation| explanation["verdict"] == verdict)
    }

    /// The results by offer, of one aspect.
    fn result(&self, aspect: &str, offer: &str) -> &str {
        let checks = self.0["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["aspect"] == aspect && check["offer"] == offer);
        check.unwrap_or_else(|| panic!("{aspect} {offer} was not asked: {:#}", self.0))["result"]
            .as_str()
            .unwrap()
    }

    fn problems(&self) -> String {
        self.0["certificate"]["problems"].to_string()
    }
}

#[test]
#[ignore = "needs root"]
fn a_gateway_that_knows_its_listeners_by_name_explains_sni_missing() {
    let probed = Probed::new();
    let config = rustls_server(&probed.identity, ALL_VERSIONS).unwrap();
    let _gateway = Service::start(&probed.pair.server, PORT, sni_gateway(&[NAME], config)).unwrap();
    for family in Family::ALL {
        let report = probed.probe(family, &[]);
        assert!(report.explains("sni_missing") && report.explains("sni_unrecognized"), "{:#}", report.0);
        assert_eq!(report.result("server_name", NAME), "accepted");
        assert_eq!(report.result("server_name", "none"), "refused");
        assert!(!report.explains("hostname_mismatch") && !report.explains("large_client_hello_intolerance"));
    }
    let wrong = probed.probe(Family::Ipv4, &["--sni", "other.example"]);
    assert!(wrong.0["refused"].is_string(), "nothing but {NAME} is known: {:#}", wrong.0);
    assert!(wrong.explains("reset_after_client_hello"));
}

#[test]
#[ignore = "needs root"]
fn openssl_with_tls_1_2_only_shows_its_chain_and_refuses_the_other_versions() {
    let probed = Probed::new();
    let _server = probed.openssl(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
    let report = probed.probe(Family::Ipv4, &[]);
    assert_eq!(report.result("version", "1.2"), "accepted");
    assert_eq!(report.result("version", "1.3"), "refused");
    assert_eq!(report.result("cipher_suite", "ECDHE-ECDSA AEAD"), "accepted");
    assert_eq!(report.result("cipher_suite", "RSA key exchange"), "refused");
    assert_eq!(report.result("group", "secp384r1"), "accepted");
    for verdict in ["protocol_version_mismatch", "cipher_suite_mismatch"] {
        assert!(report.explains(verdict), "{verdict}");
    }
    // The chain ends below a throw-away authority, whose name does not say that it is a root.
    assert!(report.problems().contains("throw-away CA"), "{}", report.problems());
    assert_eq!(report.0["certificate"]["names"][0], NAME);
    assert_eq!(report.0["client_certificate"], "not_requested");
}

#[test]
#[ignore = "needs root"]
fn groups_are_asked_for_one_by_one() {
    for (version, of_others) in [("-tls1_3", "refused"), ("-tls1_2", "otherwise")] {
        let probed = Probed::new();
        let _server = probed.openssl(&[version, "-curves", "P-384:P-256"]);
        let report = probed.probe(Family::Ipv4, &[]);
        assert_eq!(report.result("group", "secp384r1"), "accepted", "{version}");
        assert_eq!(report.result("group", "secp256r1"), "accepted", "{version}");
        // In TLS 1.2 the curve of the certificate is on offer too, and taken instead.
        assert_eq!(report.result("group", "x25519"), of_others, "{version}");
        assert_eq!(report.explains("group_mismatch"), version == "-tls1_3");
    }
}

#[test]
#[ignore = "needs root"]
fn a_chain_that_tls_1_3_encrypts_is_seen_and_verified() {
    let probed = Probed::new();
    let config = rustls_server(&probed.identity, &[&TLS13]).unwrap();
    let _server =
        Service::start(&probed.pair.server, PORT, move |stream| terminate_tls(stream, &config)).unwrap();
    let authority = probed.identity.authority_file();
    let authority = authority.to_str().unwrap();
    let report = probed.probe(Family::Ipv6, &["--ca-file", authority]);
    assert_eq!(report.result("version", "1.2"), "refused");
    assert_eq!(report.0["certificate"]["trusted"], true);
    assert_eq!(report.problems(), "[]");
    // The server takes any name, and has one certificate.
    let other = probed.probe(Family::Ipv6, &["--ca-file", authority, "--sni", "other.example"]);
    assert!(other.explains("hostname_mismatch"), "{:#}", other.0);
    let stranger = Identity::issue(&[NAME]).unwrap();
    let stranger = probed.probe(Family::Ipv6, &["--ca-file", stranger.authority_file().to_str().unwrap()]);
    assert_eq!(stranger.0["certificate"]["trusted"], false);
}

#[test]
#[ignore = "needs root"]
fn application_protocols_are_asked_for_one_by_one() {
    for versions in [&["-tls1_2"][..], &["-tls1_3"]] {
        let probed = Probed::new();
        let _server = probed.openssl(&[&["-alpn", "h2"], versions].concat());
        let report = probed.probe(Family::Ipv4, &["--alpn", "h2", "--alpn", "mqtt"]);
        assert_eq!(report.result("alpn", "h2"), "accepted", "{versions:?}");
        assert_eq!(report.result("alpn", "mqtt"), "refused", "{versions:?}");
        assert!(report.explains("alpn_mismatch"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_required_client_certificate_is_told_from_one_that_is_optional() {
    for (version, option, state) in [
        ("-tls1_3", "-Verify", "required"),
        ("-tls1_2", "-Verify", "required"),
        ("-tls1_3", "-verify", "optional"),
        ("-tls1_2", "-verify", "optional"),
    ] {
        let probed = Probed::new();
        let _server = probed.openssl(&[version, option, "1"]);
        let report = probed.probe(Family::Ipv4, &[]);
        assert_eq!(report.0["client_certificate"], state, "{version} {option}");
        assert_eq!(report.explains("client_certificate_missing"), state == "required");
    }
}

#[test]
#[ignore = "needs root"]
fn a_listener_that_wants_a_proxy_header_is_found_out() {
    if !installed("haproxy") {
        return skip("haproxy is not installed");
    }
    let probed = Probed::new();
    let pem = pem_of(&probed.identity);
    let config = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         frontend f\n bind :::{PORT} v4v6 ssl crt {} accept-proxy\n default_backend b\n\
         backend b\n server s 127.0.0.1:1\n",
        pem.path().display()
    );
    let config = TemporaryFile::new(&config);
    let mut command = probed.pair.server.command("haproxy");
    let mut haproxy = Process::spawn(command.args(["-W", "-db", "-f"]).arg(config.path())).unwrap();
    // Its master says so when the worker, which inherits the bound sockets, has been forked.
    haproxy.stderr.find(Duration::from_secs(10), |line| line.contains("Loading success")).unwrap();
    let report = probed.probe(Family::Ipv4, &[]);
    assert!(report.explains("proxy_header_missing"), "{:#}", report.0);
    assert_eq!(report.result("version", "1.3"), "accepted");
    let with_header = probed.probe(Family::Ipv6, &["--proxy", "v2"]);
    assert!(!with_header.explains("proxy_header_missing"), "{:#}", with_header.0);
}

#[test]
#[ignore = "needs root"]
fn a_server_that_cannot_read_a_large_hello_is_found_out() {
    let probed = Probed::new();
    let config = rustls_server(&probed.identity, ALL_VERSIONS).unwrap();
    let _server = Service::start(&probed.pair.server, PORT, move |stream| {
        if hello_len(&stream).is_some_and(|len| len < 1460) {
            terminate_tls(stream, &Arc::clone(&config));
        }
    })
    .unwrap();
    let report = probed.probe(Family::Ipv4, &[]);
    assert!(report.explains("large_client_hello_intolerance"), "{:#}", report.0);
}

#[test]
#[ignore = "needs root"]
fn what_does_not_speak_tls_and_what_is_not_there_is_said_so() {
    let probed = Probed::new();
    let absent = probed.command(Family::Ipv4, &[]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(Report(serde_json::from_slice(&absent.stdout).unwrap()).explains("port_closed"));
    let http = serve_plaintext(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let _server = Service::start(&probed.pair.server, PORT, http).unwrap();
    let report = probed.probe(Family::Ipv4, &[]);
    assert!(report.explains("tls_on_plaintext_port"), "{:#}", report.0);
    assert_eq!(report.0["connections"], 1);
}

/// The length of the record that the client sends first, left in the socket.
fn hello_len(stream: &TcpStream) -> Option<u16> {
    let mut header = [0; 5];
    let len = stream.peek(&mut header).ok()?;
    let [_, _, _, high, low] = header;
    (len == header.len()).then(|| u16::from_be_bytes([high, low]))
}

/// Certificate and key in one file, as `HAProxy` wants them.
fn pem_of(identity: &Identity) -> TemporaryFile {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let text = [read(&identity.certificate_file()), read(&identity.key_file())].concat();
    TemporaryFile::new(&text)
}

/// A file that goes with its owner.
struct TemporaryFile(std::path::PathBuf);

impl TemporaryFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("tlstrace-probe-{}-{}.pem", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
