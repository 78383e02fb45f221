//! The peers: each must put on the wire what the live tests say it does, seen from the other end.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::ALL_VERSIONS;
use tlstrace_peers::{
    Family, Identity, Pair, Segmented, Service, client_hello, close_after_client_hello, openssl,
    rustls_client, rustls_server, serve_plaintext, sni_gateway,
};

const PORT: u16 = 8443;
const KNOWN: &[&str] = &["known.example"];

fn server(family: Family) -> SocketAddr {
    (Pair::server_address(family), PORT).into()
}

fn connect(pair: &Pair, family: Family) -> TcpStream {
    let stream = pair.client.enter(|| TcpStream::connect(server(family))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn gateway(pair: &Pair, identity: &Identity) -> Service {
    Service::start(&pair.server, PORT, sni_gateway(KNOWN, rustls_server(identity, ALL_VERSIONS).unwrap()))
        .unwrap()
}

#[test]
#[ignore = "needs root"]
fn the_gateway_serves_a_name_it_knows_however_the_client_hello_is_segmented() {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(KNOWN).unwrap();
    let _gateway = gateway(&pair, &identity);
    for segment in [1, 100, 16 * 1024] {
        let mut client = rustls_client(&identity, ALL_VERSIONS, "known.example").unwrap();
        let mut socket = Segmented::new(connect(&pair, Family::Ipv4), segment).unwrap();
        let mut tls = rustls::Stream::new(&mut client, &mut socket);
        tls.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        tls.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
}

#[test]
#[ignore = "needs root"]
fn the_gateway_resets_without_a_byte_when_the_name_is_absent_or_unknown() {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(KNOWN).unwrap();
    let _gateway = gateway(&pair, &identity);
    // rustls sends no server_name for an IP address.
    for name in ["192.0.2.1", "unknown.example"] {
        let mut stream = connect(&pair, Family::Ipv6);
        stream.write_all(&client_hello(&identity, name).unwrap()).unwrap();
        let reset = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_closer_ends_with_a_fin_and_not_with_a_reset() {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(KNOWN).unwrap();
    let _closer = Service::start(&pair.server, PORT, close_after_client_hello).unwrap();
    let mut stream = connect(&pair, Family::Ipv4);
    stream.write_all(&client_hello(&identity, "known.example").unwrap()).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
#[ignore = "needs root"]
fn the_plaintext_server_answers_and_closes() {
    let pair = Pair::new().unwrap();
    let _server = Service::start(&pair.server, PORT, serve_plaintext(b"220 ready\r\n")).unwrap();
    let mut stream = connect(&pair, Family::Ipv6);
    stream.write_all(b"anything").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "220 ready\r\n");
}

#[test]
#[ignore = "needs root"]
fn openssl_talks_to_openssl_and_to_rustls_over_both_families() {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(KNOWN).unwrap();
    let _openssl = openssl::server(&pair.server, &identity, PORT, &[]).unwrap();
    let rustls = Service::start(&pair.server, 0, |stream| {
        let identity = Identity::issue(KNOWN).unwrap();
        tlstrace_peers::terminate_tls(stream, &rustls_server(&identity, ALL_VERSIONS).unwrap());
    })
    .unwrap();
    for family in Family::ALL {
        for port in [PORT, rustls.port()] {
            let address = (Pair::server_address(family), port).into();
            let output = openssl::client(&pair.client, address, &["-servername", "known.example", "-brief"])
                .output()
                .unwrap();
            let report = String::from_utf8_lossy(&output.stderr);
            assert!(report.contains("Protocol version: TLSv1.3"), "{family:?} port {port}: {report}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_segmented_write_is_one_segment_per_piece() {
    let pair = Pair::new().unwrap();
    let _receiver = Service::start(&pair.server, PORT, |mut stream| {
        stream.read_exact(&mut [0; 300]).unwrap();
        stream.write_all(b"all here").unwrap();
    })
    .unwrap();
    let before = segments_sent(&pair);
    let mut socket = Segmented::new(connect(&pair, Family::Ipv4), 1).unwrap();
    socket.write_all(&[0; 300]).unwrap();
    socket.read_exact(&mut [0; 8]).unwrap();
    let sent = segments_sent(&pair) - before;
    assert!(sent >= 300, "300 bytes went out in {sent} segments");
}

fn segments_sent(pair: &Pair) -> u64 {
    let statistics = pair.client.command("cat").arg("/proc/self/net/snmp").output().unwrap().stdout;
    let statistics = String::from_utf8(statistics).unwrap();
    let mut lines = statistics.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "OutSegs").unwrap().1.parse().unwrap()
}
