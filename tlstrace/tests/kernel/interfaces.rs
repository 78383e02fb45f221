//! Which interfaces are watched, and that none is missed that comes, and none leaks that goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread::{self, JoinHandle};

use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_peers::{
    Family, Identity, Namespace, Pair, Process, Service, client_hello, connect_from, link, rustls_client,
    rustls_server, sni_gateway, terminate_tls,
};

use crate::guest::START;
use crate::live::{NAME, PATIENCE, PORT, echo, watch_json};
use crate::skip;

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
    // Some are open for moments only, when this looks or when it looked before. A leak would leave one a pod.
    let after = descriptors();
    assert!(after < before + usize::from(PODS) / 10, "{before} descriptors became {after}");
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
    let wires =
        [(&near, &far), (&far, &near)].map(|(from, to)| wire(from, to, |packet| Some(packet.to_vec())));
    let identity = Identity::issue(&[NAME]).unwrap();
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    let _gateway = Service::start(&server, PORT, sni_gateway(&[NAME], config)).unwrap();
    for hook in ["tcx", "clsact"] {
        let mut watch = watch_json(&server, &["-i", "any", "--attach", hook]);
        let verdict = sni_missing(&client, server_address, &identity, &mut watch);
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
fn vlan_tags_in_band_and_ipv6_extension_headers_are_stepped_over() {
    let [client, server, bridge] = [(); 3].map(|()| Namespace::new().unwrap());
    let tap = |namespace, name| device(namespace, name, libc::IFF_TAP).unwrap();
    if let Err(error) = tun(&client) {
        return skip(&format!("no tun device can be made: {error}"));
    }
    bridge.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]).unwrap();
    bridge.ip(&["link", "set", "br0", "up"]).unwrap();
    let mut cables = Vec::new();
    for (number, (host, port)) in (1..).zip([(&client, "port0"), (&server, "port1")]) {
        let (end, on_bridge) = (tap(host, "tap0"), tap(&bridge, port));
        host.ip(&["link", "set", "tap0", "mtu", "1400"]).unwrap();
        for family in FAMILIES {
            host.configure("tap0", family.address(79, number)).unwrap();
        }
        bridge.ip(&["link", "set", port, "master", "br0", "up"]).unwrap();
        cables.push((end, on_bridge));
    }
    // Only now: a device that is not up takes nothing.
    let mut wires = Vec::new();
    for (end, on_bridge) in &cables {
        wires.push(wire(end, on_bridge, |frame| Some(widened(frame))));
        wires.push(wire(on_bridge, end, untagged));
    }
    let identity = Identity::issue(&[NAME]).unwrap();
    let config = rustls_server(&identity, ALL_VERSIONS).unwrap();
    for family in FAMILIES {
        let server_address = family.address(79, 2);
        let config = config.clone();
        let gateway = Service::start(&server, PORT, sni_gateway(&[NAME], config)).unwrap();
        for hook in ["tcx", "clsact", "packet"] {
            let mut watch = watch_json(&bridge, &["-i", "port1", "--attach", hook]);
            let verdict = sni_missing(&client, server_address, &identity, &mut watch);
            assert_eq!(verdict.pointer("/server/ip"), Some(&server_address.to_string().into()));
            watch.signal(Signal::SIGINT).unwrap();
            watch.wait(PATIENCE).unwrap();
        }
        drop(gateway);
    }
    for (namespace, device) in [(&client, "tap0"), (&server, "tap0"), (&bridge, "port0"), (&bridge, "port1")]
    {
        namespace.ip(&["link", "delete", device]).unwrap();
    }
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

/// Has a client be reset by a gateway for want of a server name, and gives the verdict on it.
fn sni_missing(client: &Namespace, server: IpAddr, identity: &Identity, watch: &mut Process) -> Value {
    let mut stream = client.enter(|| TcpStream::connect((server, PORT))).unwrap();
    // rustls sends no server_name for an IP address.
    stream.write_all(&client_hello(identity, "192.0.2.1").unwrap()).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let verdict = watch.stdout.next(PATIENCE).expect("a verdict").text;
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(verdict.pointer("/tlstrace/verdict"), Some(&"sni_missing".into()), "{verdict:#}");
    verdict
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

/// A tun device named `tun0`, which lives as long as the file.
pub(crate) fn tun(namespace: &Namespace) -> io::Result<File> {
    device(namespace, "tun0", libc::IFF_TUN)
}

/// A device of which the packets that it sends can be read, and those that it receives written
/// (Documentation/networking/tuntap.rst). It is gone when its last descriptor is.
fn device(namespace: &Namespace, name: &str, kind: libc::c_int) -> io::Result<File> {
    namespace.enter(|| {
        // Where the device is opened is where it will be.
        let file = File::options().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: a structure of integers, for which 0 is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (kind | libc::IFF_NO_PI).try_into().unwrap();
        // SAFETY: the descriptor is open and the structure lives throughout the call.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) } {
            0 => Ok(file),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

/// Passes on packets, each as `change` makes it, or without it, until a device is gone. The descriptors that it has are
/// its own: when one device goes, the other stays until the caller gives it up, too.
fn wire(
    from: &File,
    to: &File,
    change: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
) -> JoinHandle<()> {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        let mut packet = vec![0; 65_536];
        while let Ok(length) = from.read(&mut packet) {
            if change(&packet[..length]).is_some_and(|packet| to.write_all(&packet).is_err()) {
                return;
            }
        }
    })
}

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Ethertypes of IEEE 802.1ad and 802.1Q with their tags: VLAN 5, and in it VLAN 9.
const TAGS: [u8; 8] = [0x88, 0xa8, 0, 5, 0x81, 0, 0, 9];
/// Source and destination of an Ethernet frame.
const MACS_LEN: usize = 12;

/// The frame with two VLAN tags, and TCP over IPv6 behind a header of destination options (RFC 8200 §4.6).
fn widened(frame: &[u8]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(MACS_LEN);
    let rest = match rest {
        [0x86, 0xdd, header @ ..] if header.len() >= 40 && header[6] == 6 => {
            let mut header = header.to_vec();
            let options = [6, 0, 1, 4, 0, 0, 0, 0];
            let length = u16::from_be_bytes([header[4], header[5]]) + 8;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = 60;
            header.splice(40..40, options);
            [&[0x86, 0xdd][..], &header].concat()
        }
        other => other.to_vec(),
    };
    [macs, &TAGS, &rest].concat()
}

/// The frame without its tags; those without any are the bridge's own.
fn untagged(frame: &[u8]) -> Option<Vec<u8>> {
    let (macs, rest) = frame.split_at(MACS_LEN);
    rest.strip_prefix(&TAGS).map(|rest| [macs, rest].concat())
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
