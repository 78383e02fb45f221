//! A guest on somebody else's machine: what tlstrace may do there, what it leaves behind, what it disturbs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace::capture::file::CaptureReader;
use tlstrace_peers::{
    Family, Identity, Namespace, Pair, Process, Routed, Service, installed, rustls_client, rustls_server,
    terminate_tls,
};

use crate::live::{Live, NAME, PATIENCE, PORT, clsact_filters, echo, programs_on_the_interface, watch_json};
use crate::skip;

/// What verifying every program may take on a busy machine.
pub(crate) const START: Duration = Duration::from_mins(1);

/// Bits of linux/capability.h.
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_BPF: u64 = 1 << 39;

#[test]
#[ignore = "needs root"]
fn once_it_watches_it_has_no_capability_and_can_gain_none() {
    let mut live = Live::start(Family::Ipv4);
    let status = Status::of(&live.watch);
    assert_eq!((status.effective & !CAP_BPF, status.permitted & !CAP_BPF), (0, 0));
    assert!(status.has_no_new_privs);
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-noservername"]);
    live.verdict("sni_missing");
    live.stop();
    assert_eq!(programs_on_the_interface(&live.pair), 0);
}

#[test]
#[ignore = "needs root"]
fn of_a_busy_cpu_it_gets_more_than_who_started_it() {
    let live = Live::start(Family::Ipv4);
    assert_eq!(niceness(&live.watch.id().to_string()), niceness("self") - 4);
}

#[test]
#[ignore = "needs root"]
fn filters_of_clsact_are_removed_with_the_one_capability_that_this_takes() {
    let mut live = Live::start_with(Family::Ipv4, &["--attach", "clsact"]);
    assert_eq!(Status::of(&live.watch).permitted & !CAP_BPF, CAP_NET_ADMIN);
    live.stop();
    assert_eq!(programs_on_the_interface(&live.pair), 0);
}

#[test]
#[ignore = "needs root"]
fn where_interfaces_come_and_go_it_can_still_attach_to_new_ones() {
    let mut live = Live::start_with(Family::Ipv4, &["-i", "later*"]);
    // A new interface may be one where only a packet socket is in nobody's way.
    assert_eq!(Status::of(&live.watch).permitted & !CAP_BPF, CAP_NET_ADMIN | CAP_NET_RAW);
    live.pair.server.ip(&["link", "add", "later0", "type", "veth", "peer", "name", "later1"]).unwrap();
    let mut awaited = vec!["later0", "later1"];
    let told = live.watch.stderr.find(PATIENCE, |line| {
        awaited.retain(|name| !(line.starts_with("watching ") && line.contains(name)));
        awaited.is_empty()
    });
    told.unwrap();
}

#[test]
#[ignore = "needs root"]
fn file_capabilities_are_enough_without_root() {
    if !installed("setcap") {
        return skip("setcap (libcap2-bin) is not installed");
    }
    let copy = Copy::new();
    let granted =
        Command::new("setcap").arg("cap_bpf,cap_net_admin,cap_perfmon=ep").arg(&copy.0).status().unwrap();
    if !granted.success() {
        return skip("the file system of temporary files keeps no capabilities");
    }
    for hook in ["tcx", "clsact"] {
        let pair = Pair::new().unwrap();
        let mut live = Live::watched_by(pair, Family::Ipv4, |pair| {
            let mut command = pair.server.command("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&copy.0);
            command.args(["-o", "json", "--all", "-i", Pair::SERVER_INTERFACE, "--attach", hook]);
            let mut watch = Process::spawn(&mut command).unwrap();
            watch.stderr.find(START, |line| line.starts_with("watching ")).unwrap();
            watch
        });
        assert_eq!(Status::of(&live.watch).uid, 65_534);
        let _gateway = live.gateway(&[NAME]);
        live.openssl_client(&["-noservername"]);
        live.verdict("sni_missing");
        live.stop();
        assert_eq!(programs_on_the_interface(&live.pair), 0);
    }
}

#[test]
#[ignore = "needs root"]
fn two_instances_on_one_interface_see_the_same_and_either_may_leave_first() {
    for hook in ["tcx", "clsact"] {
        let mut first = Live::start_with(Family::Ipv4, &["--attach", hook]);
        let arguments = ["-i", Pair::SERVER_INTERFACE, "--attach", hook];
        let mut second = watch_json(&first.pair.server, &arguments);
        let _gateway = first.gateway(&[NAME]);
        first.openssl_client(&["-noservername"]);
        first.verdict("sni_missing");
        assert!(second.stdout.next(PATIENCE).unwrap().text.contains("sni_missing"), "{hook}");
        first.stop();
        first.client_port += 1;
        first.openssl_client(&["-noservername"]);
        assert!(second.stdout.next(PATIENCE).unwrap().text.contains("sni_missing"), "{hook}");
        // An upgrade: the new one starts before the old one has gone, and the old one is killed.
        let third = watch_json(&first.pair.server, &arguments);
        second.signal(Signal::SIGKILL).unwrap();
        second.wait(PATIENCE).unwrap();
        first.watch = third;
        first.client_port += 1;
        first.openssl_client(&["-noservername"]);
        first.verdict("sni_missing");
        first.stop();
        // Of the killed one clsact filters stay, until the next start.
        let mut last = watch_json(&first.pair.server, &arguments);
        last.signal(Signal::SIGTERM).unwrap();
        assert_eq!(last.wait(PATIENCE).unwrap().code(), Some(0));
        assert_eq!(programs_on_the_interface(&first.pair), 0, "{hook}");
    }
}

#[test]
#[ignore = "needs root"]
fn what_passes_is_bit_identical_with_and_without_tlstrace() {
    if !installed("tcpdump") {
        return skip("tcpdump is not installed");
    }
    for mode in [None, Some("tcx"), Some("clsact")] {
        let hosts = Routed::new().unwrap();
        let watch = mode.map(|hook| {
            watch_json(&hosts.node, &["-i", Routed::CLIENT_SIDE, "-i", Routed::SERVER_SIDE, "--attach", hook])
        });
        let identity = Identity::issue(&[NAME]).unwrap();
        let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
        let _server =
            Service::start(&hosts.server, PORT, move |stream| terminate_tls(stream, &config)).unwrap();
        for family in Family::ALL {
            let server = Routed::server_address(family);
            let (sent, received) =
                (Recorder::start(&hosts.client, server), Recorder::start(&hosts.server, server));
            let stream = hosts.client.enter(|| TcpStream::connect((server, PORT))).unwrap();
            let mut tls = StreamOwned::new(rustls_client(&identity, ALL_VERSIONS, NAME).unwrap(), stream);
            let mut answer = vec![0; 10_000];
            for block in 0..100u8 {
                tls.write_all(&vec![block; answer.len()]).unwrap();
                tls.read_exact(&mut answer).unwrap();
                assert!(answer.iter().all(|byte| *byte == block));
            }
            let datagrams = hosts.client.enter(|| {
                let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
                UdpSocket::bind((any, 0))
            });
            let datagrams = datagrams.unwrap();
            for size in 0..1400 {
                datagrams.send_to(&vec![0x5a; size], (server, 443)).unwrap();
            }
            echo(&mut tls);
            assert_eq!(tls.read(&mut answer).unwrap(), 0, "the server closes too");
            // Its FIN, too: acknowledged later than the last datagram, that would be one packet more on one side.
            assert_eq!(tls.sock.read(&mut answer).unwrap(), 0);
            // And ours: closing waits for its acknowledgement. On a busy machine it would else be sent again, after
            // one recording has ended and before the other has.
            let patience = libc::linger { l_onoff: 1, l_linger: 60 };
            setsockopt(&tls.sock, sockopt::Linger, &patience).unwrap();
            drop(tls);
            datagrams.send_to(b"the end", (server, Recorder::END)).unwrap();
            let (sent, received) = (sent.stop(), received.stop());
            assert!(sent.len() > 1400, "{} packets", sent.len());
            assert!(
                sent == received,
                "{mode:?} {family:?}: {} sent, {} received",
                sent.len(),
                received.len()
            );
        }
        if let Some(mut watch) = watch {
            watch.signal(Signal::SIGINT).unwrap();
            assert_eq!(watch.stdout.rest(PATIENCE).unwrap().len(), 2, "one verdict per family");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn cleanup_removes_what_a_killed_run_left_and_nothing_else() {
    let pair = Pair::new().unwrap();
    tc(&pair.server, &["qdisc", "add", "dev", Pair::SERVER_INTERFACE, "clsact"]);
    // Where Cilium's own filter would be.
    tc(&pair.server, &FOREIGN_FILTER);
    let foreign = clsact_filters(&pair);
    assert!(foreign.contains("handle 0x1"), "{foreign}");
    let clsact = ["-i", Pair::SERVER_INTERFACE, "--attach", "clsact"];
    let mut killed = watch_json(&pair.server, &clsact);
    killed.signal(Signal::SIGKILL).unwrap();
    killed.wait(PATIENCE).unwrap();
    let left = clsact_filters(&pair);
    assert_eq!(left.matches("name tlstrace_").count(), 2, "{left}");

    let fates = |arguments: &[&str]| {
        let output = run(&pair.server, &[&["cleanup", "-o", "json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let fates = lines.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name| line[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(text("interface"), Pair::SERVER_INTERFACE);
            (text("program"), text("fate"))
        });
        fates.collect::<Vec<_>>()
    };
    let of = |program: &str, fate: &str| (program.to_owned(), fate.to_owned());
    let mut found = fates(&["--dry-run"]);
    found.sort();
    assert_eq!(found, [of("", "foreign"), of("tlstrace_in", "removable"), of("tlstrace_out", "removable")]);
    assert_eq!(clsact_filters(&pair), left, "a dry run changes nothing");

    assert_eq!(fates(&[]).iter().filter(|(_, fate)| fate == "removed").count(), 2);
    assert_eq!(clsact_filters(&pair), foreign);
    assert_eq!(fates(&[]), [of("", "foreign")]);

    let running = watch_json(&pair.server, &clsact);
    let with_filters = clsact_filters(&pair);
    assert_eq!(fates(&[]).iter().filter(|(_, fate)| fate == "in_use").count(), 2);
    assert_eq!(clsact_filters(&pair), with_filters);
    drop(running);
}

/// A filter of somebody else's at priority 1 and handle 0x1 that lets every packet go on along the chain.
pub(crate) const FOREIGN_FILTER: [&str; 15] = [
    "filter",
    "add",
    "dev",
    Pair::SERVER_INTERFACE,
    "ingress",
    "prio",
    "1",
    "handle",
    "0x1",
    "protocol",
    "all",
    "bpf",
    "direct-action",
    "bytecode",
    "1,6 0 0 4294967295",
];

pub(crate) fn tc(namespace: &Namespace, arguments: &[&str]) {
    let output = namespace.command("tc").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn run(namespace: &Namespace, arguments: &[&str]) -> std::process::Output {
    namespace.command(env!("CARGO_BIN_EXE_tlstrace")).args(arguments).output().unwrap()
}

/// `tcpdump` on a host's `eth0`, for what goes to one address.
struct Recorder {
    tcpdump: Process,
    file: PathBuf,
}

impl Recorder {
    /// A datagram to this port (discard, RFC 863) is the last packet of a recording.
    const END: u16 = 9;

    fn start(namespace: &Namespace, to: IpAddr) -> Self {
        let file = std::env::temp_dir().join(format!("tlstrace-{}-{:p}.pcap", std::process::id(), namespace));
        let mut command = namespace.command("tcpdump");
        command
            .args([
                "-n",
                "-i",
                "eth0",
                // A slot of the kernel's buffer takes a whole snapshot: of the largest packet that offloading makes,
                // and room for all of the transfer.
                "-s",
                "70000",
                "-B",
                "262144",
                "-Z",
                "root",
                "--immediate-mode",
                "-l",
                "--print",
                "-w",
            ])
            .arg(&file);
        command.args(["dst", "host", &to.to_string(), "and", "(", "tcp", "or", "udp", ")"]);
        let mut tcpdump = Process::spawn(&mut command).unwrap();
        tcpdump.stderr.find(PATIENCE, |line| line.contains("listening on")).unwrap();
        Self { tcpdump, file }
    }

    /// The IP packets, sorted, without what a router changes: the hop limit, and IPv4's checksum over it.
    fn stop(mut self) -> Vec<Vec<u8>> {
        // What is still in the kernel's buffer when tcpdump is interrupted is not in the file.
        let end = format!(".{}: UDP", Self::END);
        self.tcpdump.stdout.find(PATIENCE, |line| line.contains(&end)).unwrap();
        self.tcpdump.signal(Signal::SIGINT).unwrap();
        let said = self.tcpdump.stderr.rest(PATIENCE).unwrap().join("\n");
        assert!(
            said.contains("\n0 packets dropped by kernel") || said.starts_with("0 packets dropped"),
            "{said}"
        );
        let mut reader = CaptureReader::open(&self.file).unwrap();
        let mut packets = Vec::new();
        while let Some(frame) = reader.next_frame().unwrap() {
            let mut packet = frame.data[14..].to_vec();
            if packet[0] >> 4 == 4 {
                packet[8] = 0;
                packet[10..12].fill(0);
            } else {
                packet[7] = 0;
            }
            packets.push(packet);
        }
        packets.sort();
        let _ = fs::remove_file(&self.file);
        packets
    }
}

/// What `/proc/PID/status` says.
struct Status {
    uid: u32,
    effective: u64,
    permitted: u64,
    has_no_new_privs: bool,
}

impl Status {
    fn of(process: &Process) -> Self {
        let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap()
        };
        let set = |name| u64::from_str_radix(field(name), 16).unwrap();
        Self {
            uid: field("Uid:").parse().unwrap(),
            effective: set("CapEff:"),
            permitted: set("CapPrm:"),
            has_no_new_privs: field("NoNewPrivs:") == "1",
        }
    }
}

/// The field of that name in `/proc/PID/stat`, the seventeenth behind the command's name.
fn niceness(pid: &str) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// A copy of the program where nobody may execute it, as long as the value lives.
struct Copy(PathBuf);

impl Copy {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("tlstrace-copy-{}", std::process::id()));
        fs::copy(Path::new(env!("CARGO_BIN_EXE_tlstrace")), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
