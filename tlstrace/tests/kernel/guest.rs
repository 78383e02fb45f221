//! A guest on somebody else's machine: what tlstrace may do there, what it leaves behind, what it disturbs.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace::capture::file::CaptureReader;
use tlstrace_peers::{
    Family, Identity, Namespace, Pair, Process, Routed, Service, client_hello, connect_from, installed, link,
    rustls_client, rustls_server, sni_gateway, terminate_tls,
};

use crate::live::{Live, NAME, PATIENCE, PORT, clsact_filters, echo, programs_on_the_interface, watch_json};
use crate::skip;

/// What verifying every program may take on a busy machine.
const START: Duration = Duration::from_mins(1);
/// Bits of linux/capability.h.
const CAP_NET_ADMIN: u64 = 1 << 12;
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
    assert_eq!(Status::of(&live.watch).permitted & !CAP_BPF, CAP_NET_ADMIN);
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
fn two_hundred_pods_that_come_and_go_are_each_seen_and_leave_nothing() {
    const PODS: u16 = 200;
    const FIRST_PORT: u16 = 20_000;
    let (node_address, pod_address) = (Family::Ipv4.address(77, 1), Family::Ipv4.address(77, 2));
    let (node, pod) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let identity = Identity::issue(&[NAME]).unwrap();
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _server = Service::start(&node, PORT, move |stream| terminate_tls(stream, &config)).unwrap();
    // One that stays, so that there is something to watch from the beginning.
    node.ip(&["link", "add", "gke-first", "type", "veth", "peer", "name", "first"]).unwrap();
    let mut command = node.command(env!("CARGO_BIN_EXE_tlstrace"));
    command.args(["watch", "-i", "gke*", "-o", "json", "--all"]).env("TLSTRACE_LOG", "info");
    let mut watch = Process::spawn(&mut command).unwrap();
    watch.stderr.find(START, |line| line.starts_with("watching ")).unwrap();
    let directory = format!("/proc/{}/fd", watch.id());
    let descriptors = || fs::read_dir(&directory).unwrap().count();
    let before = descriptors();

    let mut said = Vec::new();
    let mut log = |wanted: &str| {
        let mut others = Vec::new();
        let found = watch.stderr.find(PATIENCE, |line| {
            let is_wanted = line.contains(wanted);
            if !is_wanted && !line.starts_with("info: ") {
                others.push(line.to_owned());
            }
            is_wanted
        });
        said.append(&mut others);
        found.unwrap();
    };
    for turn in 0..PODS {
        let veth = format!("gke{turn}");
        link(&node, &veth, &pod, "eth0").unwrap();
        node.configure(&veth, node_address).unwrap();
        pod.configure("eth0", pod_address).unwrap();
        log(&format!("Came(\"{veth}\")"));
        let stream =
            connect_from(&pod, (pod_address, FIRST_PORT + turn).into(), (node_address, PORT).into()).unwrap();
        echo(&mut StreamOwned::new(rustls_client(&identity, ALL_VERSIONS, NAME).unwrap(), stream));
        node.ip(&["link", "delete", &veth]).unwrap();
        log(&format!("Gone(\"{veth}\")"));
    }
    assert_eq!(descriptors(), before, "descriptors leak");
    watch.signal(Signal::SIGINT).unwrap();
    let verdicts = watch.stdout.rest(PATIENCE).unwrap();
    let seen: BTreeSet<_> = verdicts
        .iter()
        .map(|line| {
            let verdict: Value = serde_json::from_str(line).unwrap();
            assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&"ok".into()), "{verdict:#}");
            let port = verdict.pointer("/client/port").and_then(Value::as_u64).unwrap();
            let interface = verdict.pointer("/observer/interface/name").and_then(Value::as_str).unwrap();
            assert_eq!(interface, format!("gke{}", port - u64::from(FIRST_PORT)));
            port
        })
        .collect();
    assert_eq!(seen.len(), usize::from(PODS), "of so many pods not all were seen");
    said.extend(watch.stderr.rest(PATIENCE).unwrap().into_iter().filter(|line| !line.starts_with("info: ")));
    assert!(said.len() < usize::from(PODS) / 2, "one line for many: {said:#?}");
    assert!(!said.iter().any(|line| line.contains("cannot") || line.contains("error")), "{said:#?}");
}

#[test]
#[ignore = "needs root"]
fn a_tun_device_whose_packets_begin_with_the_ip_header_is_watched_like_any_other() {
    let (client, server) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let (client_address, server_address) = (Family::Ipv4.address(78, 1), Family::Ipv4.address(78, 2));
    let (near, far) = match (tun(&client), tun(&server)) {
        (Ok(near), Ok(far)) => (near, far),
        (Err(error), _) | (_, Err(error)) => return skip(&format!("no tun device can be made: {error}")),
    };
    client.configure("tun0", client_address).unwrap();
    server.configure("tun0", server_address).unwrap();
    let wires = [
        thread::spawn({
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            move || carry(near, far)
        }),
        thread::spawn(move || carry(far, near)),
    ];
    let identity = Identity::issue(&[NAME]).unwrap();
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _gateway = Service::start(&server, PORT, sni_gateway(&[NAME], config)).unwrap();
    for hook in ["tcx", "clsact"] {
        let mut watch = watch_json(&server, &["-i", "any", "--attach", hook]);
        // rustls sends no server_name for an IP address.
        let mut stream = client.enter(|| TcpStream::connect((server_address, PORT))).unwrap();
        stream.write_all(&client_hello(&identity, "192.0.2.1").unwrap()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let verdict = watch.stdout.next(PATIENCE).expect("a verdict").text;
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&"sni_missing".into()), "{verdict:#}");
        assert_eq!(verdict.pointer("/observer/interface/name"), Some(&"tun0".into()));
        watch.signal(Signal::SIGINT).unwrap();
        watch.wait(PATIENCE).unwrap();
    }
    client.ip(&["link", "delete", "tun0"]).unwrap();
    server.ip(&["link", "delete", "tun0"]).unwrap();
    for wire in wires {
        wire.join().unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn the_interfaces_of_the_default_routes_of_both_families_are_watched_by_default() {
    let (host, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    for (name, family) in [("four0", Family::Ipv4), ("six0", Family::Ipv6)] {
        link(&host, name, &other, name).unwrap();
        host.configure(name, family.address(79, 1)).unwrap();
        let version = if family == Family::Ipv4 { "-4" } else { "-6" };
        let gateway = family.address(79, 2).to_string();
        host.ip(&[version, "route", "add", "default", "via", &gateway, "dev", name]).unwrap();
    }
    link(&host, "none0", &other, "none0").unwrap();
    assert_eq!(watched(&host, &[]), ["four0", "six0"]);
    assert_eq!(watched(&host, &["-i", "any"]), ["four0", "none0", "six0"]);
    assert_eq!(watched(&host, &["-i", "any", "-i", "lo"]), ["four0", "lo", "none0", "six0"]);
    assert_eq!(watched(&host, &["-i", "s*", "-i", "none0"]), ["none0", "six0"]);
}

#[test]
#[ignore = "needs root"]
fn a_network_namespace_is_entered_by_process_and_by_file() {
    let pair = Pair::new().unwrap();
    let inside = pair.server.command("sleep").arg("60").spawn().unwrap();
    let inside = Killed(inside);
    // `nsenter` has become `sleep` when the namespace of its process is the other one.
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    while namespace(&inside.0.id().to_string()) == namespace("self") {
        thread::yield_now();
    }
    for netns in [inside.0.id().to_string(), pair.server.path().display().to_string()] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
        command.args(["watch", "-o", "json", "-i", Pair::SERVER_INTERFACE, "--netns", &netns]);
        let mut watch = Process::spawn(&mut command).unwrap();
        watch.stderr.find(START, |line| line.starts_with("watching ")).unwrap();
        let refused = pair.client.enter(|| TcpStream::connect((Pair::server_address(Family::Ipv4), PORT)));
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(watch.stdout.next(PATIENCE).unwrap().text.contains("port_closed"));
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
            let (sent, received) = (sent.stop(), received.stop());
            assert!(sent.len() > 1500, "{} packets", sent.len());
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

#[test]
#[ignore = "needs root"]
fn doctor_finds_nothing_wrong_where_everything_is_allowed_and_disturbs_nobody() {
    let pair = Pair::new().unwrap();
    let report = Diagnosis::of(&run(&pair.server, &["doctor", "-o", "json", "-i", Pair::SERVER_INTERFACE]));
    assert_eq!(report.exit_code, 0);
    for check in ["kernel", "capabilities", "seccomp", "load", "attach", "interfaces", "occupants"] {
        assert_eq!(report.status(check), "ok", "{check}: {:#}", report.json);
    }
    assert!(report.text("interfaces").contains(Pair::SERVER_INTERFACE));
    assert!(report.text("occupants").contains("nobody else"));
    if fs::read_link("/proc/1/ns/net").is_ok() {
        assert_eq!(report.status("network namespace"), "warning", "it is the test's, not that of process 1");
    }
    assert_eq!(programs_on_the_interface(&pair), 0);
    let qdiscs = pair.server.command("tc").args(["qdisc", "show"]).output().unwrap().stdout;
    assert!(!String::from_utf8(qdiscs).unwrap().contains("clsact"));
}

#[test]
#[ignore = "needs root"]
fn doctor_names_who_sits_on_the_hooks_and_what_a_killed_run_left() {
    let pair = Pair::new().unwrap();
    tc(&pair.server, &["qdisc", "add", "dev", Pair::SERVER_INTERFACE, "clsact"]);
    tc(&pair.server, &FOREIGN_FILTER);
    let doctor =
        || Diagnosis::of(&run(&pair.server, &["doctor", "-o", "json", "-i", Pair::SERVER_INTERFACE]));
    assert!(doctor().text("occupants").contains("priority 1 handle 0x1: bpf"));
    let mut killed = watch_json(&pair.server, &["-i", Pair::SERVER_INTERFACE, "--attach", "clsact"]);
    killed.signal(Signal::SIGKILL).unwrap();
    killed.wait(PATIENCE).unwrap();
    let report = doctor();
    assert_eq!((report.status("occupants"), report.fix("occupants")), ("warning", "tlstrace cleanup"));
    assert_eq!(report.exit_code, 0, "a warning is no problem");
}

#[test]
#[ignore = "needs root"]
fn where_seccomp_refuses_bpf_doctor_and_watch_say_what_to_write_into_toolboxrc() {
    let refused = |arguments: &[&str]| {
        thread::scope(|scope| {
            let run = || {
                refuse(&[libc::SYS_bpf, libc::SYS_perf_event_open]);
                Command::new(env!("CARGO_BIN_EXE_tlstrace")).args(arguments).output().unwrap()
            };
            scope.spawn(run).join().unwrap()
        })
    };
    let report = Diagnosis::of(&refused(&["doctor", "-o", "json", "-i", "lo"]));
    assert_eq!(report.exit_code, 3);
    assert_eq!((report.status("seccomp"), report.status("load")), ("problem", "problem"));
    assert_eq!(report.status("capabilities"), "ok");
    let text = refused(&["doctor", "-i", "lo"]);
    let watch = refused(&["watch", "-i", "lo"]);
    assert_eq!((text.status.code(), watch.status.code()), (Some(3), Some(3)));
    for said in [text.stdout, watch.stderr] {
        let said = String::from_utf8(said).unwrap();
        for line in [
            "~/.toolboxrc",
            "TOOLBOX_ENV=\"--system-call-filter=bpf --system-call-filter=perf_event_open\"",
            "--bind=/sys:/sys --bind=/proc:/proc",
        ] {
            assert!(said.contains(line), "{line}: {said}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn doctor_says_which_capabilities_a_container_was_not_given() {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all", env!("CARGO_BIN_EXE_tlstrace")]);
    let report = Diagnosis::of(&command.args(["doctor", "-o", "json", "-i", "lo"]).output().unwrap());
    assert_eq!(report.exit_code, 3);
    assert_eq!(report.status("capabilities"), "problem");
    assert!(report.text("capabilities").starts_with("CAP_BPF, CAP_PERFMON missing"), "{:#}", report.json);
    assert!(report.fix("capabilities").contains("--profile=sysadmin"));
}

#[test]
#[ignore = "needs root"]
fn where_no_packet_passes_it_asks_for_the_right_interface_or_namespace() {
    let empty = Namespace::new().unwrap();
    let mut watch = watch_json(&empty, &["-i", "lo"]);
    let said = heartbeat(&mut watch);
    assert!(said.contains("no packet passes here") && said.contains("--netns"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_program_in_front_that_ends_the_chain_is_suspected() {
    let live = Live::start_with(Family::Ipv4, &["--attach", "clsact"]);
    for direction in ["ingress", "egress"] {
        // In the same priority the latest filter comes first.
        let mut filter = FOREIGN_FILTER;
        filter[4] = direction;
        filter[14] = "1,6 0 0 0";
        tc(&live.pair.server, &filter);
    }
    let Live { mut watch, pair, .. } = live;
    let talk = || {
        for _ in 0..20 {
            let refused =
                pair.client.enter(|| TcpStream::connect((Pair::server_address(Family::Ipv4), PORT)));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    };
    talk();
    let mut said = String::new();
    // What passed before the filters were there may have been seen: the second silence tells.
    while !said.contains("in front") {
        said = heartbeat(&mut watch);
        talk();
    }
    assert!(said.contains("none reached tlstrace"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn tls_on_another_port_than_that_of_the_service_is_named() {
    let mut live = Live::start_with(Family::Ipv4, &["--port", "443"]);
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-servername", NAME]);
    let said = heartbeat(&mut live.watch);
    assert!(said.contains(&format!("TLS to port {PORT}")) && said.contains("--port"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn quic_is_recognised_and_named_as_what_is_not_read() {
    let mut live = Live::start(Family::Ipv4);
    let socket = live.pair.client.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    // An Initial packet's first bytes (RFC 9000 §17.2.2): a long header, version 1, two connection ids.
    let mut initial = vec![0; 1200];
    initial[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
    socket.send_to(&initial, (Pair::server_address(Family::Ipv4), 443)).unwrap();
    let said = heartbeat(&mut live.watch);
    assert!(said.contains("1 packets of QUIC handshakes"), "{said}");
    live.stop();
    let summary = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
    assert!(summary.contains("not read: 1 packets of QUIC"), "{summary}");
}

#[test]
#[ignore = "needs root"]
fn half_a_conversation_is_counted_as_such() {
    let mut live = Live::start(Family::Ipv4);
    let Pair { client, server } = &live.pair;
    link(client, "back0", server, "back0").unwrap();
    client.ip(&["link", "set", "back0", "up"]).unwrap();
    server.ip(&["link", "set", "back0", "up"]).unwrap();
    // What the server sends takes the other way.
    let client_address = Pair::client_address(Family::Ipv4).to_string();
    let source = Pair::server_address(Family::Ipv4).to_string();
    server.ip(&["route", "add", &format!("{client_address}/32"), "dev", "back0", "src", &source]).unwrap();
    let _server = live.rustls_server();
    live.rustls_client(&[&rustls::version::TLS13], NAME, usize::MAX);
    live.stop();
    let summary = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
    assert!(summary.contains("1 connections seen in one direction only"), "{summary}");
}

/// What is said when nothing has been seen for ten seconds.
fn heartbeat(watch: &mut Process) -> String {
    watch.stderr.find(Duration::from_secs(90), |line| line.starts_with("nothing seen for ")).unwrap().text
}

/// A filter of somebody else's at priority 1 and handle 0x1 that lets every packet go on along the chain.
const FOREIGN_FILTER: [&str; 15] = [
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

fn tc(namespace: &Namespace, arguments: &[&str]) {
    let output = namespace.command("tc").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run(namespace: &Namespace, arguments: &[&str]) -> std::process::Output {
    namespace.command(env!("CARGO_BIN_EXE_tlstrace")).args(arguments).output().unwrap()
}

/// What `tlstrace doctor -o json` said.
struct Diagnosis {
    exit_code: i32,
    json: Value,
}

impl Diagnosis {
    fn of(output: &std::process::Output) -> Self {
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        Self { exit_code: output.status.code().unwrap(), json }
    }

    fn field(&self, check: &str, name: &str) -> &str {
        let findings = self.json["findings"].as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding
            .and_then(|finding| finding[name].as_str())
            .unwrap_or_else(|| panic!("{check}: {:#}", self.json))
    }

    fn status(&self, check: &str) -> &str {
        self.field(check, "status")
    }

    fn text(&self, check: &str) -> &str {
        self.field(check, "text")
    }

    fn fix(&self, check: &str) -> &str {
        self.field(check, "fix")
    }
}

/// Has seccomp (seccomp(2)) answer these system calls of the calling thread, and of processes that it starts, with
/// EPERM, as the toolbox of Container-Optimized OS does.
fn refuse(calls: &[libc::c_long]) {
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let instruction = |code: u32, k, jf| libc::sock_filter { code: code.try_into().unwrap(), jt: 0, jf, k };
    // The number is the first field of struct seccomp_data.
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for call in calls {
        let number = u32::try_from(*call).unwrap();
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 1));
        program.push(instruction(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned(), 0));
    }
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0));
    let program =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: both structures live throughout the calls, and the filter is as long as is said.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Names of the interfaces that tlstrace says it watches, in order.
fn watched(namespace: &Namespace, arguments: &[&str]) -> Vec<String> {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_tlstrace"));
    let mut watch = Process::spawn(command.arg("watch").args(arguments)).unwrap();
    let line = watch.stderr.find(START, |line| line.starts_with("watching ")).unwrap().text;
    let names = line.strip_prefix("watching ").unwrap().split(" (").next().unwrap();
    let mut names: Vec<_> = names.split(", ").map(str::to_owned).collect();
    names.sort();
    names
}

/// A tun device named `tun0` (Documentation/networking/tuntap.rst), which lives as long as the file.
fn tun(namespace: &Namespace) -> io::Result<File> {
    namespace.enter(|| {
        // Where the device is opened is where it will be.
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: a structure of integers, for which 0 is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI).try_into().unwrap();
        // SAFETY: the descriptor is open and the structure lives throughout the call.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) } {
            0 => Ok(file),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// Passes on packets until a device is gone.
fn carry(mut from: File, mut to: File) {
    let mut packet = vec![0; 65_536];
    while let Ok(length) = from.read(&mut packet) {
        if to.write_all(&packet[..length]).is_err() {
            return;
        }
    }
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `tcpdump` on a host's `eth0`, for what goes to one address.
struct Recorder {
    tcpdump: Process,
    file: PathBuf,
}

impl Recorder {
    fn start(namespace: &Namespace, to: IpAddr) -> Self {
        let file = std::env::temp_dir().join(format!("tlstrace-{}-{:p}.pcap", std::process::id(), namespace));
        let mut command = namespace.command("tcpdump");
        command.args(["-n", "-i", "eth0", "-B", "65536", "-Z", "root", "-w"]).arg(&file);
        command.args(["dst", "host", &to.to_string(), "and", "(", "tcp", "or", "udp", ")"]);
        let mut tcpdump = Process::spawn(&mut command).unwrap();
        tcpdump.stderr.find(PATIENCE, |line| line.contains("listening on")).unwrap();
        Self { tcpdump, file }
    }

    /// The IP packets, sorted, without what a router changes: the hop limit, and IPv4's checksum over it.
    fn stop(mut self) -> Vec<Vec<u8>> {
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
