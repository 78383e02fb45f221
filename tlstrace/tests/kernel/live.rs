//! The real program on a real interface with real peers: what happens on the wire, and the line that comes out.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use aya::programs::tc::{SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};
use tlstrace_peers::{
    Family, Identity, Line, Namespace, Pair, Process, Routed, Segmented, Service, client_hello,
    close_after_client_hello, connect_from, installed, openssl, rustls_client, rustls_server, sni_gateway,
    terminate_tls, watch,
};

use crate::skip;

pub(crate) const NAME: &str = "shop.example";
pub(crate) const PORT: u16 = 8443;
/// The source port of the (first) connection that a test judges.
const CLIENT_PORT: u16 = 40_001;
/// Far more than any verdict needs; a test that waits so long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs a case over IPv4 and over IPv6, as two tests.
macro_rules! over_both_families {
    ($($(#[$doc:meta])* fn $case:ident($live:ident: &mut Live) $body:block)+) => {$(
        $(#[$doc])*
        mod $case {
            use super::*;

            fn case($live: &mut Live) $body

            #[test]
            #[ignore = "needs root"]
            fn over_ipv4() {
                case(&mut Live::start(Family::Ipv4));
            }

            #[test]
            #[ignore = "needs root"]
            fn over_ipv6() {
                case(&mut Live::start(Family::Ipv6));
            }
        }
    )+};
}

over_both_families! {
    fn openssl_with_tls_1_3_is_ok(live: &mut Live) {
        let _server = live.openssl_server(&[]);
        live.openssl_client(&["-servername", NAME]);
        let verdict = live.verdict("ok");
        verdict.has("/tls/version", "1.3");
        verdict.has("/tls/client/server_name", NAME);
        verdict.has("/event/outcome", "success");
    }

    fn openssl_with_tls_1_2_is_ok(live: &mut Live) {
        let _server = live.openssl_server(&[]);
        live.openssl_client(&["-servername", NAME, "-tls1_2"]);
        let verdict = live.verdict("ok");
        verdict.has("/tls/version", "1.2");
        verdict.has("/tls/established", true);
    }

    fn rustls_on_both_ends_is_ok(live: &mut Live) {
        let _server = live.rustls_server();
        live.rustls_client(&[&TLS13], NAME, usize::MAX);
        let verdict = live.verdict("ok");
        verdict.has("/tls/version", "1.3");
        verdict.has("/tls/client/server_name", NAME);
    }

    fn a_client_hello_in_two_segments_is_read_as_one(live: &mut Live) {
        let _server = live.rustls_server();
        let half = client_hello(&live.identity, NAME).unwrap().len() / 2 + 1;
        live.rustls_client(&[&TLS12], NAME, half);
        live.verdict("ok").has("/tls/client/server_name", NAME);
    }

    fn a_client_hello_in_single_bytes_is_read_as_one(live: &mut Live) {
        let _server = live.rustls_server();
        live.rustls_client(&[&TLS13], NAME, 1);
        live.verdict("ok").has("/tls/client/server_name", NAME);
    }

    fn a_gateway_that_resets_a_client_hello_without_server_name_is_sni_missing(live: &mut Live) {
        let _gateway = live.gateway(&[NAME]);
        live.openssl_client(&["-noservername"]);
        let verdict = live.verdict("sni_missing");
        verdict.ended_by("server", "reset");
        verdict.has("/event/outcome", "failure");
        verdict.has("/tlstrace/severity", "error");
        verdict.has("/network/direction", "inbound");
        verdict.lacks("/tls/client/server_name");
        verdict.lacks("/tlstrace/alerts/0");
    }

    fn a_fatal_unrecognized_name_alert_is_sni_unrecognized(live: &mut Live) {
        let certificate = live.identity.certificate_file().display().to_string();
        let key = live.identity.key_file().display().to_string();
        let _server = live.openssl_server(
            &["-servername", NAME, "-servername_fatal", "-cert2", &certificate, "-key2", &key],
        );
        live.openssl_client(&["-servername", "other.example"]);
        let verdict = live.verdict("sni_unrecognized");
        verdict.ended_by("server", "alert");
        verdict.has("/tls/client/server_name", "other.example");
        verdict.has(
            "/tlstrace/alerts/0",
            json!({"side": "server", "level": "fatal", "code": 112, "name": "unrecognized_name", "encrypted": false}),
        );
    }

    fn a_tls_1_2_client_of_a_tls_1_3_server_is_protocol_version_mismatch(live: &mut Live) {
        let _server = live.openssl_server(&["-tls1_3"]);
        live.openssl_client(&["-servername", NAME, "-tls1_2"]);
        let verdict = live.verdict("protocol_version_mismatch");
        verdict.ended_by("server", "alert");
        verdict.has("/tlstrace/alerts/0/code", 70);
        verdict.lacks("/tls/version");
    }

    fn a_tls_1_1_client_of_a_tls_1_2_server_is_protocol_version_mismatch(live: &mut Live) {
        let _server = live.openssl_server(&["-tls1_2"]);
        live.openssl_client(&["-servername", NAME, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
        let verdict = live.verdict("protocol_version_mismatch");
        verdict.ended_by("server", "alert");
    }

    fn no_common_cipher_suite_is_a_handshake_failure(live: &mut Live) {
        let _server = live.openssl_server(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"]);
        live.openssl_client(&["-servername", NAME, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"]);
        // One refusal alone does not say which of the negotiated things was missing.
        let verdict = live.verdict_among(&["handshake_failure_unexplained", "cipher_suite_mismatch"]);
        verdict.ended_by("server", "alert");
        verdict.has("/tlstrace/alerts/0/code", 40);
    }

    fn a_reset_of_a_client_hello_with_server_name_is_reset_after_client_hello(live: &mut Live) {
        let _gateway = live.gateway(&[]);
        live.openssl_client(&["-servername", NAME]);
        let verdict = live.verdict("reset_after_client_hello");
        verdict.ended_by("server", "reset");
        verdict.has("/tls/client/server_name", NAME);
    }

    fn a_close_after_the_client_hello_is_closed_after_client_hello(live: &mut Live) {
        let _closer = Service::start(&live.pair.server, PORT, close_after_client_hello).unwrap();
        live.openssl_client(&["-servername", NAME]);
        live.verdict("closed_after_client_hello").ended_by("server", "close");
    }

    fn plaintext_http_is_http_on_tls_port_and_never_shown(live: &mut Live) {
        const MARKER: &str = "marker-in-a-plaintext-post";
        let _server = live.openssl_server(&[]);
        let mut stream = live.connect();
        let body = format!("POST /login HTTP/1.1\r\nHost: {NAME}\r\nCookie: {MARKER}\r\n\r\npassword={MARKER}");
        stream.write_all(body.as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 64]);
        drop(stream);
        live.verdict("http_on_tls_port");
        live.stop_and_expect_no_mention_of(MARKER);
    }

    fn application_data_is_never_shown(live: &mut Live) {
        const MARKER: &str = "marker-in-application-data";
        let _server = live.rustls_server();
        let mut tls = live.rustls_session(&[&TLS12], NAME, usize::MAX);
        for _ in 0..20 {
            tls.write_all(MARKER.as_bytes()).unwrap();
            tls.read_exact(&mut [0; MARKER.len()]).unwrap();
        }
        drop(tls);
        live.verdict("ok");
        live.stop_and_expect_no_mention_of(MARKER);
    }

    fn a_refused_syn_is_port_closed(live: &mut Live) {
        let refused = live.try_connect().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        live.verdict("port_closed").ended_by("server", "reset");
    }

    fn a_connection_without_a_byte_is_probe_tcp_connect(live: &mut Live) {
        let _gateway = live.gateway(&[NAME]);
        drop(live.connect());
        let verdict = live.verdict("probe_tcp_connect");
        verdict.has("/tlstrace/severity", "info");
        verdict.ended_by("client", "close");
    }

    fn the_verdict_comes_within_300_ms_of_the_reset(live: &mut Live) {
        let _gateway = live.gateway(&[NAME]);
        let mut stream = live.connect();
        // rustls sends no server_name for an IP address.
        stream.write_all(&client_hello(&live.identity, "192.0.2.1").unwrap()).unwrap();
        let reset = stream.read(&mut [0; 1]).unwrap_err();
        let reset_at = now();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        let latency = live.verdict("sni_missing").at.saturating_duration_since(reset_at);
        assert!(latency < Duration::from_millis(300), "the verdict came {latency:?} after the reset");
    }
}

#[test]
#[ignore = "needs root"]
fn a_thousand_handshakes_at_200_per_second_give_a_thousand_verdicts() {
    const CLIENTS: u16 = 4;
    const HANDSHAKES: u16 = 1000;
    const INTERVAL: Duration = Duration::from_millis(5);
    const FIRST_PORT: u16 = 20_000;

    let mut live = Live::start(Family::Ipv4);
    let _server = live.rustls_server();
    let (server, client) = (live.server(), Pair::client_address(Family::Ipv4));
    let (pair, identity) = (&live.pair, &live.identity);
    let start = now();
    thread::scope(|scope| {
        for first in 0..CLIENTS {
            scope.spawn(move || {
                for turn in (first..HANDSHAKES).step_by(CLIENTS.into()) {
                    thread::sleep((start + INTERVAL * turn.into()).saturating_duration_since(now()));
                    // A port of its own, so that no two connections have the same addresses.
                    let from = (client, FIRST_PORT + turn).into();
                    let stream = connect_from(&pair.client, from, server).unwrap();
                    let client = rustls_client(identity, ALL_VERSIONS, NAME).unwrap();
                    echo(&mut StreamOwned::new(client, stream));
                }
            });
        }
    });
    let mut verdicts = BTreeMap::new();
    for _ in 0..HANDSHAKES {
        let verdict = live.next_verdict();
        verdict.has("/tlstrace/verdict", "ok");
        let port = verdict.json.pointer("/client/port").and_then(Value::as_u64).unwrap();
        if let Some(earlier) = verdicts.insert(port, verdict.json.clone()) {
            panic!("two verdicts on one connection: {earlier:#} and {:#}", verdict.json);
        }
    }
    assert_eq!(live.stop(), Vec::<String>::new(), "more verdicts than connections");
}

#[test]
#[ignore = "needs root"]
fn sigint_and_sigterm_detach_and_print_a_summary_and_end_with_0() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut live = Live::start(Family::Ipv4);
        assert_ne!(programs_on_the_interface(&live.pair), 0, "nothing was attached");
        live.watch.signal(signal).unwrap();
        assert_eq!(live.watch.wait(PATIENCE).unwrap().code(), Some(0));
        assert_ne!(live.watch.stderr.rest(PATIENCE).unwrap(), Vec::<String>::new(), "no summary");
        assert_eq!(programs_on_the_interface(&live.pair), 0);
    }
}

#[test]
#[ignore = "needs root"]
fn after_sigkill_nothing_stays_on_the_interface() {
    let mut live = Live::start(Family::Ipv4);
    if tcx_programs(&live.pair).is_none() {
        return skip("this kernel has no TCX (Linux 6.6), and a clsact filter stays after SIGKILL");
    }
    live.watch.signal(Signal::SIGKILL).unwrap();
    live.watch.wait(PATIENCE).unwrap();
    assert_eq!(programs_on_the_interface(&live.pair), 0);
}

#[test]
#[ignore = "needs root"]
fn clsact_gives_the_same_verdict_and_leaves_no_filter() {
    let mut live = Live::start_with(Family::Ipv4, &["--attach", "clsact"]);
    assert_ne!(clsact_filters(&live.pair), "", "no filter was attached");
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-noservername"]);
    live.verdict("sni_missing").ended_by("server", "reset");
    live.stop();
    assert_eq!(clsact_filters(&live.pair), "");
}

#[test]
#[ignore = "needs root"]
fn when_its_only_interface_vanishes_tlstrace_says_which_and_ends_with_1() {
    let mut live = Live::start(Family::Ipv4);
    live.pair.server.ip(&["link", "delete", Pair::SERVER_INTERFACE]).unwrap();
    assert_eq!(live.watch.wait(PATIENCE).unwrap().code(), Some(1));
    let said = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
    assert!(said.contains(Pair::SERVER_INTERFACE), "{said}");
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_is_down_is_watched_from_when_it_comes_up() {
    let pair = Pair::new().unwrap();
    pair.server.ip(&["link", "set", Pair::SERVER_INTERFACE, "down"]).unwrap();
    let mut live = Live::on(pair, Family::Ipv4, &[]);
    live.pair.server.ip(&["link", "set", Pair::SERVER_INTERFACE, "up"]).unwrap();
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-noservername"]);
    live.verdict("sni_missing");
}

#[test]
#[ignore = "needs root"]
fn a_connection_that_passes_two_interfaces_has_one_verdict() {
    let hosts = Routed::new().unwrap();
    let identity = Identity::issue(&[NAME]).unwrap();
    let interfaces = ["-i", Routed::CLIENT_SIDE, "-i", Routed::SERVER_SIDE];
    let mut watch = watch_json(&hosts.node, &interfaces);
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _gateway = Service::start(&hosts.server, PORT, sni_gateway(&[NAME], config)).unwrap();
    for family in Family::ALL {
        let server = (Routed::server_address(family), PORT).into();
        for (arguments, id) in [(&["-servername", NAME][..], "ok"), (&["-noservername"], "sni_missing")] {
            openssl::client(&hosts.client, server, arguments).output().unwrap();
            let line = watch.stdout.next(PATIENCE).expect("a verdict").text;
            let verdict = serde_json::from_str::<Value>(&line).unwrap();
            assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&json!(id)), "{verdict:#}");
        }
    }
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.stdout.rest(PATIENCE).unwrap(), Vec::<String>::new(), "more verdicts than connections");
}

#[test]
#[ignore = "needs root"]
fn a_connection_whose_addresses_a_node_translates_has_one_verdict() {
    const PUBLIC_PORT: u16 = 443;
    if !installed("nft") {
        return skip("nftables is not installed");
    }
    let hosts = Routed::new().unwrap();
    let rules = format!(
        "table inet test {{ chain before {{ type nat hook prerouting priority dstnat; \
             iifname {outside} meta nfproto ipv4 tcp dport {PUBLIC_PORT} dnat ip to {}:{PORT}; \
             iifname {outside} meta nfproto ipv6 tcp dport {PUBLIC_PORT} dnat ip6 to [{}]:{PORT}; }}; \
         chain after {{ type nat hook postrouting priority srcnat; oifname {inside} masquerade; }}; }}",
        Routed::server_address(Family::Ipv4),
        Routed::server_address(Family::Ipv6),
        outside = Routed::CLIENT_SIDE,
        inside = Routed::SERVER_SIDE,
    );
    let output = hosts.node.command("nft").arg(rules).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let identity = Identity::issue(&[NAME]).unwrap();
    let interfaces = ["-i", Routed::CLIENT_SIDE, "-i", Routed::SERVER_SIDE];
    let mut watch = watch_json(&hosts.node, &interfaces);
    let mut expect = |family: Family, id: &str| {
        let line = watch.stdout.next(PATIENCE).expect("a verdict").text;
        let verdict = serde_json::from_str::<Value>(&line).unwrap();
        assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&json!(id)), "{verdict:#}");
        assert_eq!(verdict.pointer("/server/ip"), Some(&json!(Routed::node_address(family))), "{verdict:#}");
        assert_eq!(verdict.pointer("/server/port"), Some(&json!(PUBLIC_PORT)), "{verdict:#}");
        let behind = json!({"ip": Routed::server_address(family), "port": PORT});
        assert_eq!(verdict.pointer("/server/nat"), Some(&behind), "{verdict:#}");
        assert!(verdict.pointer("/client/nat/ip").is_some(), "{verdict:#}");
        assert_eq!(verdict.pointer("/observer/interface/name"), Some(&json!(Routed::CLIENT_SIDE)));
    };
    for family in Family::ALL {
        let server = (Routed::node_address(family), PUBLIC_PORT);
        let refused = hosts.client.enter(|| TcpStream::connect(server)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        expect(family, "port_closed");
    }
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _gateway = Service::start(&hosts.server, PORT, sni_gateway(&[NAME], config)).unwrap();
    for family in Family::ALL {
        let server = (Routed::node_address(family), PUBLIC_PORT).into();
        for (arguments, id) in [(&["-servername", NAME][..], "ok"), (&["-noservername"], "sni_missing")] {
            openssl::client(&hosts.client, server, arguments).output().unwrap();
            expect(family, id);
        }
    }
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.stdout.rest(PATIENCE).unwrap(), Vec::<String>::new(), "more verdicts than connections");
}

/// A client, a server, and `tlstrace watch` on the server's interface.
pub(crate) struct Live {
    // Before the pair: it is killed before its network goes away.
    pub(crate) watch: Process,
    pub(crate) pair: Pair,
    pub(crate) identity: Identity,
    pub(crate) family: Family,
    /// Where the next connection comes from.
    pub(crate) client_port: u16,
    /// Every verdict line that a test has read.
    pub(crate) said: Vec<String>,
}

impl Live {
    pub(crate) fn start(family: Family) -> Self {
        Self::start_with(family, &[])
    }

    pub(crate) fn start_with(family: Family, arguments: &[&str]) -> Self {
        Self::on(Pair::new().unwrap(), family, arguments)
    }

    pub(crate) fn on(pair: Pair, family: Family, arguments: &[&str]) -> Self {
        Self::watched_by(pair, family, |pair| {
            watch_json(&pair.server, &[&["-i", Pair::SERVER_INTERFACE], arguments].concat())
        })
    }

    pub(crate) fn watched_by(pair: Pair, family: Family, watch: impl FnOnce(&Pair) -> Process) -> Self {
        Self {
            watch: watch(&pair),
            pair,
            identity: Identity::issue(&[NAME]).unwrap(),
            family,
            client_port: CLIENT_PORT,
            said: Vec::new(),
        }
    }

    pub(crate) fn server(&self) -> SocketAddr {
        (Pair::server_address(self.family), PORT).into()
    }

    pub(crate) fn client(&self) -> SocketAddr {
        (Pair::client_address(self.family), self.client_port).into()
    }

    pub(crate) fn openssl_server(&self, arguments: &[&str]) -> Process {
        openssl::server(&self.pair.server, &self.identity, PORT, arguments).unwrap()
    }

    pub(crate) fn rustls_server(&self) -> Service {
        let config = rustls_server(&self.identity, ALL_VERSIONS).unwrap();
        Service::start(&self.pair.server, PORT, move |stream| terminate_tls(stream, &config)).unwrap()
    }

    pub(crate) fn gateway(&self, names: &'static [&'static str]) -> Service {
        let config = rustls_server(&self.identity, ALL_VERSIONS).unwrap();
        Service::start(&self.pair.server, PORT, sni_gateway(names, config)).unwrap()
    }

    /// One connection by `openssl s_client`, from [`Self::client_port`]. Whether it succeeds is for the verdict to say.
    pub(crate) fn openssl_client(&self, arguments: &[&str]) {
        let bind = self.client().to_string();
        let arguments = [&["-bind", &bind], arguments].concat();
        openssl::client(&self.pair.client, self.server(), &arguments).output().unwrap();
    }

    /// One connection by rustls, with an echo over it. `segment` is how many bytes each segment carries.
    pub(crate) fn rustls_client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        name: &str,
        segment: usize,
    ) {
        echo(&mut self.rustls_session(versions, name, segment));
    }

    pub(crate) fn rustls_session(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        name: &str,
        segment: usize,
    ) -> StreamOwned<ClientConnection, Segmented> {
        let client = rustls_client(&self.identity, versions, name).unwrap();
        StreamOwned::new(client, Segmented::new(self.connect(), segment).unwrap())
    }

    /// A TCP connection from [`Self::client_port`].
    pub(crate) fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    pub(crate) fn try_connect(&self) -> std::io::Result<TcpStream> {
        connect_from(&self.pair.client, self.client(), self.server())
    }

    pub(crate) fn next_verdict(&mut self) -> Verdict {
        let Some(Line { at, text }) = self.watch.stdout.next(PATIENCE) else {
            let _ = self.watch.signal(Signal::SIGINT);
            panic!("no verdict; tlstrace said: {:#?}", self.watch.stderr.rest(PATIENCE));
        };
        let json = serde_json::from_str(&text).expect(&text);
        self.said.push(text);
        Verdict { json, at }
    }

    /// The next verdict, which must be this one, on the connection from [`Self::client_port`] to [`PORT`].
    pub(crate) fn verdict(&mut self, id: &str) -> Verdict {
        self.verdict_among(&[id])
    }

    fn verdict_among(&mut self, ids: &[&str]) -> Verdict {
        let verdict = self.next_verdict();
        let id = verdict.json.pointer("/tlstrace/verdict").and_then(Value::as_str).unwrap();
        assert!(ids.contains(&id), "expected {ids:?}: {:#}", verdict.json);
        verdict.has("/tlstrace/schema", "tlstrace/1");
        verdict.has_endpoint("/client", self.client());
        verdict.has_endpoint("/server", self.server());
        verdict.has("/network/type", if self.family == Family::Ipv4 { "ipv4" } else { "ipv6" });
        verdict.has("/observer/interface/name", Pair::SERVER_INTERFACE);
        verdict
    }

    /// Ends tlstrace as a user does and returns the lines that nobody has read.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.watch.signal(Signal::SIGINT).unwrap();
        let rest = self.watch.stdout.rest(PATIENCE).unwrap();
        assert_eq!(self.watch.wait(PATIENCE).unwrap().code(), Some(0));
        rest
    }

    fn stop_and_expect_no_mention_of(&mut self, marker: &str) {
        let mut said = self.stop();
        said.append(&mut self.said);
        said.extend(self.watch.stderr.rest(PATIENCE).unwrap());
        for line in said {
            assert!(!line.contains(marker), "{line}");
        }
    }
}

/// What tlstrace said about one connection, and when it said so.
pub(crate) struct Verdict {
    pub(crate) json: Value,
    at: Instant,
}

impl Verdict {
    #[track_caller]
    pub(crate) fn has(&self, pointer: &str, expected: impl Into<Value>) {
        assert_eq!(self.json.pointer(pointer), Some(&expected.into()), "{pointer} of {:#}", self.json);
    }

    #[track_caller]
    pub(crate) fn lacks(&self, pointer: &str) {
        assert_eq!(self.json.pointer(pointer), None, "{pointer} of {:#}", self.json);
    }

    #[track_caller]
    pub(crate) fn ended_by(&self, side: &str, how: &str) {
        self.has("/tlstrace/ended_by", json!({"side": side, "how": how}));
    }

    #[track_caller]
    pub(crate) fn has_endpoint(&self, pointer: &str, address: SocketAddr) {
        self.has(&format!("{pointer}/ip"), address.ip().to_string());
        self.has(&format!("{pointer}/port"), address.port());
    }
}

pub(crate) fn watch_json(namespace: &Namespace, arguments: &[&str]) -> Process {
    let tlstrace = Path::new(env!("CARGO_BIN_EXE_tlstrace"));
    watch(namespace, tlstrace, &[&["-o", "json", "--all"], arguments].concat()).unwrap()
}

/// Does the handshake, sends a few bytes, waits for their echo, and closes in the order that TLS asks for.
pub(crate) fn echo(tls: &mut StreamOwned<ClientConnection, impl Read + Write>) {
    tls.write_all(b"ping").unwrap();
    tls.read_exact(&mut [0; 4]).unwrap();
    tls.conn.send_close_notify();
    tls.conn.complete_io(&mut tls.sock).unwrap();
}

pub(crate) fn programs_on_the_interface(pair: &Pair) -> usize {
    tcx_programs(pair).unwrap_or(0) + clsact_filters(pair).lines().count()
}

/// How many programs sit on the TCX hooks of the server's interface; `None` where the kernel has no TCX.
pub(crate) fn tcx_programs(pair: &Pair) -> Option<usize> {
    let count = |hook| {
        let (_, programs) = SchedClassifier::query_tcx(Pair::SERVER_INTERFACE, hook).ok()?;
        Some(programs.len())
    };
    pair.server.enter(|| Some(count(TcAttachType::Ingress)? + count(TcAttachType::Egress)?))
}

/// What `tc filter show` prints for both directions of the server's interface: nothing if there is no filter.
pub(crate) fn clsact_filters(pair: &Pair) -> String {
    let show = |hook: &str| {
        let mut tc = pair.server.command("tc");
        tc.args(["filter", "show", "dev", Pair::SERVER_INTERFACE, hook]).output().unwrap().stdout
    };
    String::from_utf8([show("ingress"), show("egress")].concat()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the latency of a live program is real time")]
fn now() -> Instant {
    Instant::now()
}
