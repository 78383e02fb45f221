//! Scrapes from another host while connections come and go: by hand, and by a real Prometheus server.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::StreamOwned;
use rustls::version::TLS12;
use serde_json::Value;
use tlstrace_peers::{
    Family, Identity, Pair, Process, Segmented, Service, connect_from, installed, rustls_client,
    rustls_server, terminate_tls, watch,
};

use crate::live::{NAME, PATIENCE, PORT};
use crate::skip;

const METRICS_PORT: u16 = 9464;
const REFUSED: usize = 3;

#[test]
#[ignore = "needs root"]
fn a_scrape_counts_what_was_printed_over_ipv4() {
    scrape(Family::Ipv4);
}

#[test]
#[ignore = "needs root"]
fn a_scrape_counts_what_was_printed_over_ipv6_from_an_address_without_brackets() {
    scrape(Family::Ipv6);
}

#[test]
#[ignore = "needs root"]
fn a_prometheus_server_scrapes_it_and_evaluates_the_rules() {
    if !installed("prometheus") {
        return skip("prometheus is not installed");
    }
    let pair = Pair::new().unwrap();
    let server = Pair::server_address(Family::Ipv4);
    let address = format!("{server}:{METRICS_PORT}");
    let program = Path::new(env!("CARGO_BIN_EXE_tlstrace"));
    let arguments = ["-i", Pair::SERVER_INTERFACE, "-o", "json", "--metrics", &address];
    let mut watch = watch(&pair.server, program, &arguments).unwrap();
    let prometheus = Prometheus::start(&pair, &address);
    let mut last = Value::Null;
    for _ in 0..REFUSED {
        refuse(&pair, server);
        last = serde_json::from_str(&watch.stdout.next(PATIENCE).unwrap().text).unwrap();
    }
    let series = "tlstrace_handshakes_total{verdict=\"port_closed\",severity=\"error\",tls_version=\"none\"}";
    let value = |answer: &Value| answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned);
    prometheus.ask("query", &[("query", series)], |answer| value(answer) == Some(REFUSED.to_string()));
    let lost = "tlstrace_events_lost_total{reason=\"ring_full\"}";
    prometheus.ask("query", &[("query", lost)], |answer| value(answer).as_deref() == Some("0"));
    prometheus.ask("query", &[("query", "up")], |answer| value(answer).as_deref() == Some("1"));
    // From the number to the line that was printed.
    let range = [("query", series), ("start", "0"), ("end", "9999999999")];
    prometheus.ask("query_exemplars", &range, |answer| {
        let exemplars = answer["data"][0]["exemplars"].as_array();
        let newest = exemplars.and_then(|exemplars| exemplars.last());
        newest.is_some_and(|newest| newest["labels"]["connection_id"] == last["tlstrace"]["connection_id"])
    });
    prometheus.ask("rules", &[], |answer| {
        let rules = answer["data"]["groups"][0]["rules"].as_array();
        rules.is_some_and(|rules| rules.len() >= 6 && rules.iter().all(|rule| rule["health"] == "ok"))
    });
    finish(watch);
}

fn scrape(family: Family) {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(&[NAME]).unwrap();
    let server = Pair::server_address(family);
    let config = rustls_server(&identity, &[&TLS12]).unwrap();
    let _service = Service::start(&pair.server, PORT, move |stream| terminate_tls(stream, &config)).unwrap();
    let address = format!("{server}:{METRICS_PORT}");
    let program = Path::new(env!("CARGO_BIN_EXE_tlstrace"));
    let arguments = ["-i", Pair::SERVER_INTERFACE, "-o", "json", "--all", "--metrics", &address];
    let arguments = [&arguments[..], &["--metrics-certificates", "5"]].concat();
    let mut watch = watch(&pair.server, program, &arguments).unwrap();

    let client = rustls_client(&identity, &[&TLS12], NAME).unwrap();
    let from = (Pair::client_address(family), 40_001).into();
    let stream = connect_from(&pair.client, from, (server, PORT).into()).unwrap();
    let mut session = StreamOwned::new(client, Segmented::new(stream, usize::MAX).unwrap());
    session.write_all(b"ping").unwrap();
    session.read_exact(&mut [0; 4]).unwrap();
    drop(session);
    for _ in 0..REFUSED {
        refuse(&pair, server);
    }
    let (mut ok, mut refused) = (0, 0);
    while (ok, refused) < (1, REFUSED) {
        let line = watch.stdout.next(PATIENCE).unwrap().text;
        ok += usize::from(line.contains("\"verdict\":\"ok\""));
        refused += usize::from(line.contains("\"verdict\":\"port_closed\""));
    }

    assert!(get(&pair, family, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(&pair, family, "/readyz").starts_with("HTTP/1.1 200 "));
    let text = get(&pair, family, "/metrics");
    for line in [
        "tlstrace_handshakes_total{verdict=\"ok\",severity=\"info\",tls_version=\"1.2\"} 1\n",
        "tlstrace_handshakes_total{verdict=\"port_closed\",severity=\"error\",tls_version=\"none\"} 3\n",
        "tlstrace_handshake_duration_seconds_count 1\n",
        "tlstrace_packets_total{result=\"selected\"} ",
        "tlstrace_events_lost_total{reason=\"ring_full\"} 0\n",
        &format!("tlstrace_certificate_not_after_timestamp_seconds{{server_name=\"{NAME}\"}} "),
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains(&server.to_string()), "{text}");
    finish(watch);
}

/// A connection to a port on which nobody listens.
pub(crate) fn refuse(pair: &Pair, server: IpAddr) {
    let refused = pair.client.enter(|| TcpStream::connect(SocketAddr::from((server, PORT + 1))));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

fn get(pair: &Pair, family: Family, path: &str) -> String {
    get_from(pair, (Pair::server_address(family), METRICS_PORT).into(), path)
}

/// What is answered to the client's host; HTTP/1.0, so that it comes in one piece.
fn get_from(pair: &Pair, address: SocketAddr, path: &str) -> String {
    pair.client.enter(|| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

/// A Prometheus server on the client's host, with the rules of the Helm chart.
struct Prometheus<'a> {
    pair: &'a Pair,
    directory: PathBuf,
    process: Process,
}

impl<'a> Prometheus<'a> {
    const PAUSE: Duration = Duration::from_millis(50);
    const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

    fn start(pair: &'a Pair, target: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("tlstrace-prometheus-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/tlstrace/files/rules.yaml");
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: tlstrace, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.canonicalize().unwrap().display()
        );
        let file = directory.join("prometheus.yaml");
        fs::write(&file, config).unwrap();
        let mut command = pair.client.command("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={}", Self::ADDRESS));
        command.arg("--enable-feature=exemplar-storage");
        let mut process = Process::spawn(&mut command).unwrap();
        process
            .stderr
            .find(PATIENCE, |line| line.contains("Server is ready to receive web requests"))
            .unwrap();
        Self { pair, directory, process }
    }

    /// Asks its API until the answer is the one that is wanted: it tells nobody when it has scraped.
    fn ask(&self, endpoint: &str, parameters: &[(&str, &str)], is_wanted: impl Fn(&Value) -> bool) {
        let encode = |text: &str| -> String {
            let escape = |byte: u8| match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            };
            text.bytes().map(escape).collect()
        };
        let parameters = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value)));
        let path = format!("/api/v1/{endpoint}?{}", parameters.collect::<Vec<_>>().join("&"));
        let mut last = Value::Null;
        for _ in 0..PATIENCE.as_millis() / Self::PAUSE.as_millis() {
            let answer = get_from(self.pair, Self::ADDRESS, &path);
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            last = serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {answer}"));
            if is_wanted(&last) {
                return;
            }
            thread::sleep(Self::PAUSE);
        }
        panic!("{path}: {last}");
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It may still write there for a moment, until it is killed.
        let _ = self.process.signal(Signal::SIGKILL);
        let _ = self.process.wait(PATIENCE);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub(crate) fn finish(mut watch: Process) {
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
}
