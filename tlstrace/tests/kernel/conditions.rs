//! What tlstrace says when it sees nothing, or half.

use std::io;
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_peers::{
    Family, Identity, Namespace, Pair, Process, Service, connect_from, link, rustls_client, rustls_server,
    terminate_tls,
};

use crate::guest::{FOREIGN_FILTER, tc};
use crate::live::{Live, NAME, PATIENCE, PORT, echo, watch_json};

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
    let is_over = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let refused =
                    pair.client.enter(|| TcpStream::connect((Pair::server_address(Family::Ipv4), PORT)));
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let said = heartbeat(&mut watch);
        is_over.store(true, Ordering::Relaxed);
        said
    });
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
fn what_is_not_chosen_by_server_or_port_is_left_out_in_the_kernel_and_counted() {
    let elsewhere = PORT + 1;
    for family in [Family::Ipv4, Family::Ipv6] {
        let server = Pair::server_address(family).to_string();
        let chosen = ["--port", &PORT.to_string(), "--server", &server, "--not", "--server", "192.0.2.0/24"];
        let mut live = Live::start_with(family, &chosen);
        let _gateway = live.gateway(&[NAME]);
        let _silent = Service::start(&live.pair.server, elsewhere, drop).unwrap();
        for _ in 0..10 {
            let other = (Pair::server_address(family), elsewhere);
            live.pair.client.enter(|| TcpStream::connect(other)).unwrap();
        }
        live.openssl_client(&["-servername", NAME]);
        let verdict: Value = serde_json::from_str(&live.watch.stdout.next(PATIENCE).unwrap().text).unwrap();
        assert_eq!(verdict.pointer("/server/port"), Some(&PORT.into()), "{verdict:#}");
        live.watch.signal(Signal::SIGINT).unwrap();
        let said = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
        let counted = said.split_once(" beginnings of connections that --port or --server leave out");
        let (before, _) = counted.unwrap_or_else(|| panic!("{said}"));
        // SYN, and SYN and ACK, of all but those that are let through, one in a second.
        let count: u32 = before.rsplit(' ').next().unwrap().parse().unwrap();
        assert!((2..=18).contains(&count) && count.is_multiple_of(2), "{count}");
    }
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
fn what_a_tunnel_carries_is_counted_outside_and_judged_on_its_own_interface() {
    let pair = Pair::new().unwrap();
    let (client, server) = (Family::Ipv4.address(88, 1), Family::Ipv4.address(88, 2));
    let [near, far] =
        [Pair::client_address(Family::Ipv4), Pair::server_address(Family::Ipv4)].map(|ip| ip.to_string());
    for (host, device, local, remote, address) in [
        (&pair.client, Pair::CLIENT_INTERFACE, &near, &far, client),
        (&pair.server, Pair::SERVER_INTERFACE, &far, &near, server),
    ] {
        let vxlan =
            ["type", "vxlan", "id", "42", "dev", device, "local", local, "remote", remote, "dstport", "4789"];
        host.ip(&[&["link", "add", "vxlan0"], &vxlan[..]].concat()).unwrap();
        host.configure("vxlan0", address).unwrap();
    }
    let identity = Identity::issue(&[NAME]).unwrap();
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _server = Service::start(&pair.server, PORT, move |stream| terminate_tls(stream, &config)).unwrap();
    let mut outside = watch_json(&pair.server, &["-i", Pair::SERVER_INTERFACE]);
    let mut inside = watch_json(&pair.server, &["-i", "vxlan0"]);

    let stream = connect_from(&pair.client, (client, 0).into(), (server, PORT).into()).unwrap();
    echo(&mut StreamOwned::new(rustls_client(&identity, ALL_VERSIONS, NAME).unwrap(), stream));
    let verdict: Value = serde_json::from_str(&inside.stdout.next(PATIENCE).unwrap().text).unwrap();
    assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&"ok".into()), "{verdict:#}");
    let said = heartbeat(&mut outside);
    assert!(said.contains("packets of tunnels (VXLAN") && said.contains("-i any"), "{said}");
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
