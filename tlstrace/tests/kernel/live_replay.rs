//! The same bytes give the same verdict and the same facts, whether they come from the ring or from a file, and
//! whichever hook saw them.
//!
//! A session of many handshakes is watched and, on the same interface, recorded with tcpdump; the replay of the
//! recording must say the same, object by object. Only clocks and places may differ, see [`comparable`]. Instead of
//! tcpdump, another tlstrace may watch at a packet socket.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_peers::{
    Family, Pair, Process, Segmented, Service, client_hello, close_after_client_hello, connect_from,
    installed, openssl, rustls_client, rustls_server, serve_plaintext, terminate_tls,
};

use crate::live::{Live, NAME, PATIENCE, PORT, Verdict, echo, watch_json};
use crate::{privacy, skip};

/// Nobody listens there: a connection to it is the last one of a session.
const CLOSED_PORT: u16 = 9;

#[test]
#[ignore = "needs root"]
fn a_session_over_ipv4_is_judged_alike_live_and_replayed() {
    live_and_replayed(Family::Ipv4);
}

#[test]
#[ignore = "needs root"]
fn a_session_over_ipv6_is_judged_alike_live_and_replayed() {
    live_and_replayed(Family::Ipv6);
}

#[test]
#[ignore = "needs root"]
fn a_session_over_ipv4_is_judged_alike_on_tcx_and_at_a_packet_socket() {
    on_one_cpu(|| play(Session::start(Family::Ipv4, Witness::tap)));
}

#[test]
#[ignore = "needs root"]
fn a_session_over_ipv6_is_judged_alike_on_tcx_and_at_a_packet_socket() {
    on_one_cpu(|| play(Session::start(Family::Ipv6, Witness::tap)));
}

fn live_and_replayed(family: Family) {
    if !installed("tcpdump") {
        return skip("tcpdump is not installed");
    }
    on_one_cpu(|| play(Session::start(family, Witness::recorder)));
}

fn play(mut session: Session) {
    session.openssl_meets_openssl();
    session.openssl_refuses_a_hello();
    session.openssl_refuses_a_certificate();
    session.client_certificates();
    session.rustls_segments_and_data();
    session.gateway_and_closers();
    session.not_tls_at_first();
    session.not_tls_at_all();
    session.confidential();
    session.all_at_once();
    session.end();
}

/// A network with an interface that is watched and witnessed at once.
struct Session {
    live: Live,
    witness: Witness,
}

/// What sees the same packets as [`Session::live`].
enum Witness {
    Recorder { tcpdump: Process, recording: PathBuf },
    Tap(Process),
}

/// Handshakes. Each connection has a client's port of its own, and its verdict is awaited.
impl Session {
    fn openssl_meets_openssl(&mut self) {
        let _server = self.live.openssl_server(&[]);
        self.openssl(&["-servername", NAME]);
        self.openssl(&["-servername", NAME, "-tls1_2"]);
        self.openssl(&["-noservername"]);
        self.openssl(&["-servername", NAME, "-alpn", "h2,http/1.1", "-status"]);
        let ticket = scratch("ticket");
        let ticket = ticket.to_str().unwrap();
        self.openssl(&["-servername", NAME, "-tls1_2", "-sess_out", ticket]);
        self.openssl(&["-servername", NAME, "-tls1_2", "-sess_in", ticket]);
        fs::remove_file(ticket).unwrap();
    }

    fn openssl_refuses_a_hello(&mut self) {
        {
            let certificate = self.live.identity.certificate_file().display().to_string();
            let key = self.live.identity.key_file().display().to_string();
            let _server = self.live.openssl_server(&[
                "-servername",
                NAME,
                "-servername_fatal",
                "-cert2",
                &certificate,
                "-key2",
                &key,
            ]);
            self.openssl(&["-servername", "other.example"]);
            self.openssl(&["-servername", "other.example", "-tls1_2"]);
        }
        {
            let _server = self.live.openssl_server(&["-tls1_3"]);
            self.openssl(&["-servername", NAME, "-tls1_2"]);
        }
        {
            let cipher = "ECDHE-ECDSA-AES256-GCM-SHA384";
            let _server = self.live.openssl_server(&["-tls1_2", "-cipher", cipher, "-alpn", "h2"]);
            self.openssl(&["-servername", NAME, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
            self.openssl(&["-servername", NAME, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"]);
            self.openssl(&["-servername", NAME, "-alpn", "http/1.1"]);
        }
        let _server = self.live.openssl_server(&["-groups", "P-384"]);
        self.openssl(&["-servername", NAME, "-groups", "X25519"]);
        self.openssl(&["-servername", NAME, "-groups", "X25519", "-tls1_2"]);
        // A key share for the first group only: HelloRetryRequest.
        self.openssl(&["-servername", NAME, "-groups", "X25519:P-384"]);
    }

    fn openssl_refuses_a_certificate(&mut self) {
        let authority = self.live.identity.authority_file().display().to_string();
        let _server = self.live.openssl_server(&[]);
        for version in ["-tls1_2", "-tls1_3"] {
            let hello = ["-servername", NAME, version, "-verify_return_error"];
            let trusting = [&hello[..], &["-CAfile", &authority]].concat();
            self.openssl(&hello);
            self.openssl(&trusting);
            // A clock of the year 4147: the certificate expired.
            self.openssl(&[&trusting[..], &["-attime", "68719476736"]].concat());
            self.openssl(&[&trusting[..], &["-verify_hostname", "other.example"]].concat());
        }
    }

    fn client_certificates(&mut self) {
        let certificate = self.live.identity.certificate_file().display().to_string();
        let key = self.live.identity.key_file().display().to_string();
        for arguments in [&["-Verify", "1"][..], &["-Verify", "1", "-verify_return_error"]] {
            let _server = self.live.openssl_server(arguments);
            for version in ["-tls1_2", "-tls1_3"] {
                self.openssl(&["-servername", NAME, version]);
                self.openssl(&["-servername", NAME, version, "-cert", &certificate, "-key", &key]);
            }
        }
    }

    fn rustls_segments_and_data(&mut self) {
        let _server = self.live.rustls_server();
        let half = client_hello(&self.live.identity, NAME).unwrap().len() / 2 + 1;
        for version in [&TLS12, &TLS13] {
            for segment in [1, half, usize::MAX] {
                self.connection(|live| live.rustls_client(&[version], NAME, segment));
            }
            self.connection(|live| {
                let mut tls = live.rustls_session(&[version], NAME, usize::MAX);
                let mut block = [0x5a; 8192];
                for _ in 0..64 {
                    tls.write_all(&block).unwrap();
                    tls.read_exact(&mut block).unwrap();
                }
            });
        }
    }

    fn gateway_and_closers(&mut self) {
        {
            let _gateway = self.live.gateway(&[NAME]);
            for name in [&["-noservername"][..], &["-servername", "other.example"], &["-servername", NAME]] {
                self.openssl(name);
            }
            self.connection(|live| drop(live.connect()));
            // A part of a hello, and the client is gone.
            self.connection(|live| {
                let hello = client_hello(&live.identity, NAME).unwrap();
                live.connect().write_all(&hello[..hello.len() / 2]).unwrap();
            });
        }
        {
            let _closer = Service::start(&self.live.pair.server, PORT, close_after_client_hello).unwrap();
            self.openssl(&["-servername", NAME]);
        }
        let _silent = Service::start(&self.live.pair.server, PORT, |mut stream| {
            while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
        })
        .unwrap();
        self.connection(|live| {
            live.connect().write_all(&client_hello(&live.identity, NAME).unwrap()).unwrap();
        });
    }

    fn not_tls_at_first(&mut self) {
        let config = rustls_server(&self.live.identity, ALL_VERSIONS).unwrap();
        let starttls = {
            let config = config.clone();
            Service::start(&self.live.pair.server, PORT, move |mut stream| {
                for answer in ["220 mail ready\r\n", "250-mail\r\n250 STARTTLS\r\n", "220 go ahead\r\n"] {
                    stream.write_all(answer.as_bytes()).unwrap();
                    if !answer.contains("go ahead") {
                        read_line(&mut stream);
                    }
                }
                terminate_tls(stream, &config);
            })
            .unwrap()
        };
        self.openssl(&["-starttls", "smtp", "-servername", NAME]);
        self.openssl(&["-starttls", "smtp", "-servername", NAME, "-tls1_2"]);
        drop(starttls);
        let balanced = Service::start(&self.live.pair.server, PORT, {
            let config = config.clone();
            move |mut stream| {
                read_line(&mut stream);
                terminate_tls(stream, &config);
            }
        })
        .unwrap();
        for segment in [7, usize::MAX] {
            self.connection(|live| {
                let mut stream = live.connect();
                let (version, [from, to]) = match live.family {
                    Family::Ipv4 => ("TCP4", ["192.0.2.7", "192.0.2.8"]),
                    Family::Ipv6 => ("TCP6", ["2001:db8::7", "2001:db8::8"]),
                };
                let port = live.client_port;
                stream
                    .write_all(format!("PROXY {version} {from} {to} {port} {PORT}\r\n").as_bytes())
                    .unwrap();
                let client = rustls_client(&live.identity, ALL_VERSIONS, NAME).unwrap();
                echo(&mut StreamOwned::new(client, Segmented::new(stream, segment).unwrap()));
            });
        }
        drop(balanced);
        let _balanced = Service::start(&self.live.pair.server, PORT, move |mut stream| {
            stream.read_exact(&mut [0; PROXY_V2_LEN]).unwrap();
            terminate_tls(stream, &config);
        })
        .unwrap();
        self.connection(|live| {
            let mut stream = live.connect();
            stream.write_all(&proxy_v2(live.family, live.client_port)).unwrap();
            let client = rustls_client(&live.identity, ALL_VERSIONS, NAME).unwrap();
            echo(&mut StreamOwned::new(client, stream));
        });
    }

    fn not_tls_at_all(&mut self) {
        {
            let _server = self.live.openssl_server(&[]);
            for request in [
                "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
                "SSH-2.0-OpenSSH_9.6\r\n",
                "\x16\x03\x01\x40\x01 no handshake",
                "?",
            ] {
                let mut stream = self.live.connect();
                stream.write_all(request.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                // The answer, if any, and then the end of the connection, which may be a reset.
                while stream.read(&mut [0; 256]).is_ok_and(|length| length > 0) {}
                // Not awaited: nothing is said about what may not have been meant to be TLS.
                self.live.client_port += 1;
            }
        }
        let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
        let _server = Service::start(&self.live.pair.server, PORT, serve_plaintext(answer)).unwrap();
        self.openssl(&["-servername", NAME]);
    }

    /// What the BPF program leaves out, and a file holds.
    fn confidential(&mut self) {
        for (_, lines) in privacy::conversations() {
            self.connection(|live| privacy::converse(live, lines));
        }
    }

    /// Connections whose packets mix.
    fn all_at_once(&mut self) {
        const CLIENTS: u16 = 12;
        let _gateway = self.live.gateway(&[NAME]);
        let first = self.live.client_port;
        thread::scope(|scope| {
            let (pair, identity, server) = (&self.live.pair, &self.live.identity, self.live.server());
            for turn in 0..CLIENTS {
                let from = SocketAddr::new(self.live.client().ip(), first + turn);
                scope.spawn(move || {
                    let stream = connect_from(&pair.client, from, server).unwrap();
                    // rustls sends no server_name for an IP address.
                    let name = if turn % 3 == 0 { "192.0.2.1" } else { NAME };
                    let client = rustls_client(identity, ALL_VERSIONS, name).unwrap();
                    let mut tls = StreamOwned::new(client, stream);
                    if tls.write_all(b"ping").is_ok() && name == NAME {
                        tls.read_exact(&mut [0; 4]).unwrap();
                    }
                });
            }
        });
        let mut awaited: BTreeSet<_> = (first..first + CLIENTS).collect();
        while !awaited.is_empty() {
            awaited.remove(&client_port(&self.live.next_verdict()));
        }
        self.live.client_port += CLIENTS;
    }
}

impl Session {
    fn start(family: Family, witness: impl FnOnce(&Pair) -> Witness) -> Self {
        let pair = Pair::new().unwrap();
        let witness = witness(&pair);
        // A file knows no processes.
        Self { live: Live::on(pair, family, &["--numeric"]), witness }
    }

    /// One connection from a port of its own, and its verdict.
    fn connection(&mut self, connect: impl FnOnce(&Live)) {
        connect(&self.live);
        while client_port(&self.live.next_verdict()) != self.live.client_port {}
        self.live.client_port += 1;
    }

    fn openssl(&mut self, arguments: &[&str]) {
        self.connection(|live| {
            let bind = live.client().to_string();
            let arguments = [&["-bind", &bind], arguments].concat();
            openssl::client(&live.pair.client, live.server(), &arguments).output().unwrap();
        });
    }

    /// Ends watching, and compares.
    fn end(mut self) {
        let last = self.live.client_port;
        self.connection(|live| {
            let closed = SocketAddr::new(live.server().ip(), CLOSED_PORT);
            let refused = connect_from(&live.pair.client, live.client(), closed).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        });
        let witnessed = self.witness.testify(last);
        let mut live_lines = std::mem::take(&mut self.live.said);
        live_lines.extend(self.live.stop());
        let knows_places = matches!(self.witness, Witness::Tap(_));
        let [watched, witnessed] = [live_lines, witnessed].map(|lines| by_client(&lines, knows_places));

        let mut differences = Vec::new();
        for client in watched.keys().chain(witnessed.keys()).collect::<BTreeSet<_>>() {
            let [live, other] = [watched.get(client), witnessed.get(client)].map(|of| of.cloned().into());
            compare(&client.to_string(), &live, &other, &mut differences);
        }
        let verdicts: BTreeSet<_> = witnessed
            .values()
            .flatten()
            .map(|verdict| verdict.pointer("/tlstrace/verdict").unwrap().to_string())
            .collect();
        assert!(
            differences.is_empty(),
            "live (-) and {} (+) differ:\n{}",
            self.witness.describe(),
            differences.join("\n")
        );
        assert!(verdicts.len() >= 15, "the session has too little variety: {verdicts:?}");
        if let Witness::Recorder { recording, .. } = &self.witness {
            fs::remove_file(recording).unwrap();
        }
    }
}

impl Witness {
    fn recorder(pair: &Pair) -> Self {
        let recording = scratch("pcap");
        Self::Recorder { tcpdump: record(pair, &recording), recording }
    }

    fn tap(pair: &Pair) -> Self {
        Self::Tap(watch_json(
            &pair.server,
            &["-i", Pair::SERVER_INTERFACE, "--attach", "packet", "--numeric"],
        ))
    }

    fn describe(&self) -> String {
        match self {
            Self::Recorder { recording, .. } => format!("replayed from {}", recording.display()),
            Self::Tap(_) => "at a packet socket".to_owned(),
        }
    }

    /// All verdicts up to the one on the connection from client port `last` to [`CLOSED_PORT`].
    fn testify(&mut self, last: u16) -> Vec<String> {
        match self {
            Self::Recorder { tcpdump, recording } => {
                // tcpdump prints a packet when it has written it.
                let is_last = |line: &str| line.contains(&format!(".{CLOSED_PORT} >")) && line.contains("[R");
                tcpdump.stdout.find(PATIENCE, is_last).unwrap();
                tcpdump.signal(Signal::SIGINT).unwrap();
                tcpdump.wait(PATIENCE).unwrap();
                let replay = Command::new(env!("CARGO_BIN_EXE_tlstrace"))
                    .args(["replay", "--all", "-o", "json"])
                    .arg(recording)
                    .output()
                    .unwrap();
                assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
                String::from_utf8(replay.stdout).unwrap().lines().map(str::to_owned).collect()
            }
            Self::Tap(watch) => {
                let mut lines = Vec::<String>::new();
                while lines.last().is_none_or(|line| client(&parsed(line)).port() != last) {
                    lines.push(watch.stdout.next(PATIENCE).expect("the last verdict").text);
                }
                watch.signal(Signal::SIGINT).unwrap();
                lines.extend(watch.stdout.rest(PATIENCE).unwrap());
                lines
            }
        }
    }
}

/// Runs `work` on a thread that stays on one CPU, with every thread and process that it starts.
///
/// On several, packets of both directions cross: a packet on its way out passes the TC hook before the packet socket,
/// and one on its way in passes them the other way round, so that each sees an order of its own.
fn on_one_cpu(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            let this = Pid::from_raw(0);
            let allowed = sched_getaffinity(this).unwrap();
            let first = (0..CpuSet::count()).find(|&cpu| allowed.is_set(cpu).unwrap()).unwrap();
            let mut one = CpuSet::new();
            one.set(first).unwrap();
            sched_setaffinity(this, &one).unwrap();
            work();
        });
        pinned.join().unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Starts tcpdump on the server's interface; it captures on return.
fn record(pair: &Pair, file: &Path) -> Process {
    let mut command = pair.server.command("tcpdump");
    // Packets are taken one by one (no buffer that a signal would discard), written, and then printed.
    command.args(["--immediate-mode", "-U", "-l", "-n", "--print", "-Z", "root"]);
    command.args(["-i", Pair::SERVER_INTERFACE, "-B", "65536", "-w"]).arg(file);
    let mut tcpdump = Process::spawn(&mut command).unwrap();
    tcpdump.stderr.find(PATIENCE, |line| line.contains("listening on")).unwrap();
    tcpdump
}

/// A file of this test only, each of which has a thread.
fn scratch(what: &str) -> PathBuf {
    let thread = thread::current().id();
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("live_replay.{thread:?}.{what}"))
}

/// Longer than what leaves the kernel of it.
const PROXY_V2_LEN: usize = 200;

/// A version 2 PROXY protocol header with addresses, and with one TLV that says nothing (`PP2_TYPE_NOOP`).
fn proxy_v2(family: Family, client_port: u16) -> Vec<u8> {
    let (kind, addresses) = match family {
        Family::Ipv4 => (0x11, 8),
        Family::Ipv6 => (0x21, 32),
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    header.extend([kind, 0, 184]);
    header.extend(vec![0x11; addresses]);
    header.extend([client_port.to_be_bytes(), PORT.to_be_bytes()].concat());
    header.extend([4, 0, u8::try_from(PROXY_V2_LEN - header.len() - 3).unwrap()]);
    header.resize(PROXY_V2_LEN, 0);
    header
}

fn read_line(stream: &mut TcpStream) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() && byte != *b"\n" {}
}

fn client_port(verdict: &Verdict) -> u16 {
    client(&verdict.json).port()
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

pub(crate) fn client(verdict: &Value) -> SocketAddr {
    let ip = verdict.pointer("/client/ip").and_then(Value::as_str).unwrap().parse().unwrap();
    let port = verdict.pointer("/client/port").and_then(Value::as_u64).unwrap();
    SocketAddr::new(ip, port.try_into().unwrap())
}

/// What was said about each connection, in order.
fn by_client(lines: &[String], knows_places: bool) -> BTreeMap<SocketAddr, Vec<Value>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for verdict in lines.iter().map(|line| parsed(line)) {
        all.entry(client(&verdict)).or_default().push(comparable(verdict, knows_places));
    }
    all
}

/// A verdict without times, since packet socket and TC hook see a packet one after the other, and, unless both sides
/// know it, without what a file cannot know (the interface's name, the way of a packet through it, which process
/// sent a RST).
fn comparable(mut verdict: Value, knows_places: bool) -> Value {
    let fields = verdict.as_object_mut().unwrap();
    fields.remove("@timestamp").unwrap();
    if !knows_places {
        fields.remove("observer");
        fields["network"].as_object_mut().unwrap().remove("direction");
    }
    fields["event"].as_object_mut().unwrap().remove("duration").unwrap();
    let trace = fields["tlstrace"].as_object_mut().unwrap();
    if let Some(by) = trace.remove("reset_by") {
        trace["evidence"].as_array_mut().unwrap().retain(|evidence| evidence["fact"] != "kernel_reset");
        if let Some(command) = by.get("command").and_then(Value::as_str) {
            let summary = trace["summary"].as_str().unwrap();
            let (before, _) = summary.rsplit_once(&format!(" {command} (pid ")).unwrap();
            trace["summary"] = before.into();
        }
    }
    for (_, micros) in fields["tlstrace"]["timings_us"].as_object_mut().unwrap() {
        *micros = "_".into();
    }
    without_durations(&mut verdict);
    verdict
}

/// Replaces numbers in front of a unit of time: `after 12.5 ms` becomes `after _ ms`.
fn without_durations(value: &mut Value) {
    match value {
        Value::String(text) => {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            for at in 0..words.len() {
                let is_number = words[at].parse::<f64>().is_ok();
                let unit = words.get(at + 1).map(|unit| unit.trim_end_matches(|c: char| !c.is_alphabetic()));
                if is_number && matches!(unit, Some("s" | "ms" | "µs")) {
                    "_".clone_into(&mut words[at]);
                }
            }
            *text = words.join(" ");
        }
        Value::Array(items) => items.iter_mut().for_each(without_durations),
        Value::Object(fields) => fields.values_mut().for_each(without_durations),
        _ => {}
    }
}

/// Lists where two values differ, each with its path.
fn compare(path: &str, live: &Value, file: &Value, differences: &mut Vec<String>) {
    match (live, file) {
        (Value::Object(live), Value::Object(file)) => {
            for key in live.keys().chain(file.keys()).collect::<BTreeSet<_>>() {
                let [live, file] = [live.get(key), file.get(key)].map(|of| of.unwrap_or(&Value::Null));
                compare(&format!("{path}/{key}"), live, file, differences);
            }
        }
        (Value::Array(live), Value::Array(file)) if live.len() == file.len() => {
            for (at, (live, file)) in live.iter().zip(file).enumerate() {
                compare(&format!("{path}/{at}"), live, file, differences);
            }
        }
        _ if live == file => {}
        _ => differences.push(format!("{path}\n  - {live}\n  + {file}")),
    }
}
