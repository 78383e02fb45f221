//! What peers tell each other in confidence is in nothing that `tlstrace watch` says: in no format, at no verbosity, in no
//! summary, metric or report, and in nothing that it sends to a collector.
//!
//! Each connection carries a marker in the clear where it must not be read: ciphers would hide it from us anyway. That
//! it does not even leave the kernel is for `test_run` to show.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair, SanType};
use tlstrace_peers::{Family, Pair, Service, watch};

use crate::frame::record;
use crate::live::{Live, NAME, PORT};

/// Nothing like it occurs by chance, also not in part.
const MARKER: &str = "xQ7jzK9bvW4pYh2R";
/// Where the collector listens.
const COLLECTOR: u16 = 4318;
/// So many bytes of the marker are too many.
const TELLING: usize = 6;

#[test]
#[ignore = "needs root"]
fn what_is_confidential_is_in_no_json_and_no_log() {
    say_nothing_confidential(Family::Ipv4, "json");
}

#[test]
#[ignore = "needs root"]
fn what_is_confidential_is_in_no_text_and_no_log() {
    say_nothing_confidential(Family::Ipv6, "text");
}

#[test]
#[ignore = "needs root"]
fn what_is_confidential_is_in_no_entry_of_cloud_logging_and_no_log() {
    say_nothing_confidential(Family::Ipv6, "gcp");
}

fn say_nothing_confidential(family: Family, format: &str) {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("privacy.{format}.html"));
    let metrics = SocketAddr::from((Pair::server_address(family), 9464));
    let pair = Pair::new().unwrap();
    let (_collector, exported) = collector(&pair);
    let endpoint = format!("http://{}", SocketAddr::from((Pair::client_address(family), COLLECTOR)));
    let mut live = Live::watched_by(pair, family, |pair| {
        let address = metrics.to_string();
        let arguments = ["-o", format, "--all", "-vvvv", "-i", Pair::SERVER_INTERFACE, "--summary", "json"];
        let exports = ["--metrics", &address, "--metrics-certificates", "9", "--otlp", &endpoint];
        let arguments = [&arguments[..], &exports, &["--report", report.to_str().unwrap()]].concat();
        watch(&pair.server, Path::new(env!("CARGO_BIN_EXE_tlstrace")), &arguments).unwrap()
    });
    let mut expected = Vec::new();
    for (id, lines) in conversations() {
        converse(&live, lines);
        expected.push((live.client_port, id));
        live.client_port += 1;
    }
    for is_self_signed in [false, true] {
        expected.extend(client_certificates(&mut live, is_self_signed));
    }

    let scrape = live.pair.client.enter(|| {
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(scrape.contains("tlstrace_handshakes_total{"), "{scrape}");
    live.watch.signal(Signal::SIGUSR1).unwrap();
    let verdicts = live.stop();
    let page = fs::read_to_string(&report).unwrap();
    fs::remove_file(&report).unwrap();
    assert!(page.contains("client_certificate_untrusted"));
    for (port, id) in expected {
        let is_it = |line: &&String| line.contains(&port.to_string()) && line.contains(id);
        assert!(verdicts.iter().any(|line| is_it(&line)), "no {id} on port {port}: {verdicts:#?}");
    }
    let log = live.watch.stderr.rest(crate::live::PATIENCE).unwrap();
    let exported = exported.lock().unwrap();
    for part in ["client_certificate_untrusted", "tlstrace_handshakes"] {
        assert!(exported.iter().any(|request| request.contains(part)), "no {part}: {exported:#?}");
    }
    let texts = [scrape.lines(), page.lines()].into_iter().flatten();
    for line in verdicts.iter().chain(&log).chain(&*exported).map(String::as_str).chain(texts) {
        for part in MARKER.as_bytes().windows(TELLING) {
            let text = String::from_utf8(part.to_vec()).unwrap();
            let hexadecimal = format!("{part:02x?}").replace(['[', ',', ' ', ']'], "");
            let list = format!("{part:?}");
            for spelling in [&*text, &hexadecimal, list.trim_matches(['[', ']'])] {
                assert!(!line.contains(spelling), "{spelling} in {line}");
            }
        }
    }
}

/// An OpenTelemetry collector at the client that keeps every request. It is told all of them before `watch` ends.
fn collector(pair: &Pair) -> (Service, Arc<Mutex<Vec<String>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    let service = Service::start(&pair.client, COLLECTOR, move |stream| {
        let mut stream = BufReader::new(stream);
        let (mut request, mut length) = (String::new(), 0);
        while !request.ends_with("\r\n\r\n") {
            let begin = request.len();
            assert_ne!(stream.read_line(&mut request).unwrap(), 0, "{request}");
            if let Some(value) = request[begin..].to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        kept.lock().unwrap().push(request + str::from_utf8(&body).unwrap());
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    });
    (service.unwrap(), requests)
}

/// What one side says in a conversation, and the other hears before it says the next line.
pub(crate) enum Line {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

/// Conversations with the marker in them, and the verdict on each if they take place in this order.
pub(crate) fn conversations() -> Vec<(&'static str, Vec<Line>)> {
    vec![
        ("ok", tls_1_2_with_a_ticket()),
        ("ok", tls_1_3_with_early_data()),
        ("ok", tls_after_a_password()),
        ("http_on_tls_port", plaintext_http()),
        ("tls_on_plaintext_port", plaintext_answer()),
    ]
}

fn tls_1_2_with_a_ticket() -> Vec<Line> {
    let mut flight = record(HANDSHAKE, &server_hello(&[extension(SESSION_TICKET, b"")]));
    flight.extend(record(
        HANDSHAKE,
        &message(NEW_SESSION_TICKET, &[&[0; 4][..], &vector(&marked(160))].concat()),
    ));
    flight.extend(finished());
    let hello = [extension(SERVER_NAME, &server_name()), extension(SESSION_TICKET, &marked(160))];
    vec![
        Line::Client(record(HANDSHAKE, &client_hello(&hello))),
        Line::Server(flight),
        Line::Client(finished()),
        Line::Client(data()),
        Line::Server(data()),
        Line::Client(data()),
    ]
}

/// With a ticket too: there it is the identity of a pre-shared key (RFC 8446 §4.2.11).
fn tls_1_3_with_early_data() -> Vec<Line> {
    let identity = [vector(&marked(160)), vec![0; 4]].concat();
    let binder = [vec![32], marked(32)].concat();
    let hello = [
        extension(SERVER_NAME, &server_name()),
        extension(SUPPORTED_VERSIONS, &[2, 3, 4]),
        extension(KEY_SHARE, &vector(&[&[0, 29][..], &vector(&marked(32))].concat())),
        extension(PSK_KEY_EXCHANGE_MODES, &[1, 1]),
        extension(EARLY_DATA, b""),
        extension(PRE_SHARED_KEY, &[vector(&identity), vector(&binder)].concat()),
    ];
    let mut first_flight = record(HANDSHAKE, &client_hello(&hello));
    first_flight.extend(record(CHANGE_CIPHER_SPEC, &[1]));
    first_flight.extend(data());
    let selected = [
        extension(SUPPORTED_VERSIONS, &[3, 4]),
        extension(KEY_SHARE, &[&[0, 29][..], &vector(&marked(32))].concat()),
        extension(PRE_SHARED_KEY, &[0, 0]),
    ];
    let mut flight = record(HANDSHAKE, &server_hello(&selected));
    flight.extend(record(CHANGE_CIPHER_SPEC, &[1]));
    flight.extend(record(APPLICATION_DATA, &marked(40)));
    flight.extend(record(APPLICATION_DATA, &marked(70)));
    vec![
        Line::Client(first_flight),
        Line::Server(flight),
        Line::Client(record(APPLICATION_DATA, &marked(21))),
        Line::Client(record(APPLICATION_DATA, &marked(69))),
        Line::Client(data()),
        Line::Server(data()),
        Line::Client(data()),
    ]
}

/// Of SMTP, which then goes on with STARTTLS.
fn tls_after_a_password() -> Vec<Line> {
    let say = |text: &str| format!("{text}\r\n").into_bytes();
    let mut lines = vec![
        Line::Server(say("220 mail ready")),
        Line::Client(say(&format!("EHLO {MARKER}"))),
        Line::Server(say(&format!("250-{MARKER}\r\n250 STARTTLS"))),
        Line::Client(say(&format!("AUTH PLAIN {MARKER}"))),
        Line::Server(say("538 encryption required")),
        Line::Client(say("STARTTLS")),
        Line::Server(say("220 go ahead")),
    ];
    lines.extend(tls_1_2_with_a_ticket());
    lines
}

fn plaintext_http() -> Vec<Line> {
    let request = format!(
        "POST /{MARKER} HTTP/1.1\r\nHost: {NAME}\r\nCookie: {MARKER}\r\nContent-Length: 16\r\n\r\n{MARKER}"
    );
    let answer = format!("HTTP/1.1 400 {MARKER}\r\nContent-Length: 16\r\n\r\n{MARKER}");
    vec![Line::Client(request.into_bytes()), Line::Server(answer.into_bytes()), Line::Client(marked(100))]
}

/// Eight bytes of what is not TLS are shown, to tell protocols apart.
fn plaintext_answer() -> Vec<Line> {
    let hello = client_hello(&[extension(SERVER_NAME, &server_name())]);
    vec![Line::Client(record(HANDSHAKE, &hello)), Line::Server(format!("* HELLO {MARKER}").into_bytes())]
}

/// Two connections with TLS 1.2, where a client's certificate is in the clear: the first is accepted although nobody
/// knows the issuer, the second is refused for that. Returns their ports and verdicts.
fn client_certificates(live: &mut Live, is_self_signed: bool) -> Vec<(u16, &'static str)> {
    let file = ClientCertificate::issue(live.family, is_self_signed);
    let path = file.0.to_str().unwrap();
    let mut ports = Vec::new();
    for (id, refuse) in [("ok", &[][..]), ("client_certificate_untrusted", &["-verify_return_error"][..])] {
        let _server = live.openssl_server(&[&["-tls1_2", "-Verify", "1"], refuse].concat());
        live.openssl_client(&["-servername", NAME, "-cert", path, "-key", path]);
        ports.push((live.client_port, id));
        live.client_port += 1;
    }
    ports
}

/// Certificate and key in a file. Subject, email address and names hold the marker, and so does the issuer if it is
/// self-signed.
struct ClientCertificate(PathBuf);

impl ClientCertificate {
    fn issue(family: Family, is_self_signed: bool) -> Self {
        let mut params = CertificateParams::new([format!("{MARKER}.example")]).unwrap();
        params.distinguished_name.push(DnType::CommonName, MARKER);
        params.distinguished_name.push(DnType::OrganizationName, format!("Friends of {MARKER}"));
        params.subject_alt_names.push(SanType::Rfc822Name(format!("{MARKER}@{NAME}").try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        let certificate = if is_self_signed {
            params.self_signed(&key).unwrap()
        } else {
            let authority =
                CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap());
            params.signed_by(&key, &authority.unwrap()).unwrap()
        };
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("privacy.{family:?}.pem"));
        fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        Self(path)
    }
}

impl Drop for ClientCertificate {
    fn drop(&mut self) {
        // In the build directory, where the next run would overwrite it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Has the peers say these lines in turn, from [`Live::client_port`]; then the client closes, and then the server.
pub(crate) fn converse(live: &Live, lines: Vec<Line>) {
    fn read(stream: &mut TcpStream, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        stream.read_exact(&mut read).unwrap();
        assert!(read == bytes);
    }
    let lines = Arc::new(lines);
    let _server = Service::start(&live.pair.server, PORT, {
        let lines = lines.clone();
        move |mut stream| {
            for line in &*lines {
                match line {
                    Line::Client(bytes) => read(&mut stream, bytes),
                    Line::Server(bytes) => stream.write_all(bytes).unwrap(),
                }
            }
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
    })
    .unwrap();
    let mut stream = live.connect();
    for line in &*lines {
        match line {
            Line::Client(bytes) => stream.write_all(bytes).unwrap(),
            Line::Server(bytes) => read(&mut stream, bytes),
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

const NEW_SESSION_TICKET: u8 = 4;

const SERVER_NAME: u16 = 0;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const PSK_KEY_EXCHANGE_MODES: u16 = 45;
const KEY_SHARE: u16 = 51;

/// So many bytes of the marker, over and over.
fn marked(len: usize) -> Vec<u8> {
    MARKER.bytes().cycle().take(len).collect()
}

/// Application data: a small record, and a larger one.
fn data() -> Vec<u8> {
    [record(APPLICATION_DATA, &marked(30)), record(APPLICATION_DATA, &marked(3000))].concat()
}

/// ChangeCipherSpec, and what should be an encrypted Finished.
fn finished() -> Vec<u8> {
    [record(CHANGE_CIPHER_SPEC, &[1]), record(HANDSHAKE, &marked(40))].concat()
}

/// Random number and session identifier are of the marker.
fn client_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let cipher_suites = vector(&[0x13, 1, 0xc0, 0x2b]);
    let start = [&[3, 3][..], &marked(32), &[32], &marked(32), &cipher_suites, &[1, 0]].concat();
    message(1, &[start, vector(&extensions.concat())].concat())
}

/// Selects `TLS_AES_128_GCM_SHA256` if there is an extension that selects TLS 1.3, otherwise
/// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`; echoes the session identifier, which resumes.
fn server_hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let is_tls13 =
        extensions.iter().any(|extension| extension.starts_with(&SUPPORTED_VERSIONS.to_be_bytes()));
    let cipher_suite = if is_tls13 { [0x13, 1] } else { [0xc0, 0x2b] };
    let start = [&[3, 3][..], &marked(32), &[32], &marked(32), &cipher_suite, &[0]].concat();
    message(2, &[start, vector(&extensions.concat())].concat())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(body)].concat()
}

fn server_name() -> Vec<u8> {
    vector(&[&[0][..], &vector(NAME.as_bytes())].concat())
}

/// With its length in front, in two bytes.
fn vector(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}
