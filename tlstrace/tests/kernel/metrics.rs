//! A scrape from another host while connections come and go.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use nix::sys::signal::Signal;
use rustls::StreamOwned;
use rustls::version::TLS12;
use tlstrace_peers::{
    Family, Identity, Pair, Process, Segmented, Service, connect_from, rustls_client, rustls_server,
    terminate_tls, watch,
};

use crate::live::{NAME, PATIENCE, PORT};

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
        let refused = pair.client.enter(|| TcpStream::connect(SocketAddr::from((server, PORT + 1))));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
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

fn get(pair: &Pair, family: Family, path: &str) -> String {
    pair.client.enter(|| {
        let address = SocketAddr::from((Pair::server_address(family), METRICS_PORT));
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}

fn finish(mut watch: Process) {
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
}
