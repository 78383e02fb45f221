//! What goes wrong on a node: memory that runs out, disks that fill, interfaces that flap, restarts under traffic, floods.
//! What is lost is counted, what is said is right, and the traffic does not notice.
//!
//! A full ring and a paused process are in `loss`, readers that stop and `/dev/full` in `output`, interfaces that vanish in
//! `live` and `interfaces`, several instances in `guest`, and jumps of the clock at its edge, in `capture::clock`.

use std::collections::HashSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::{ALL_VERSIONS, StreamOwned};
use serde_json::Value;
use tlstrace_common::event::{Notes, TcpFlags};
use tlstrace_common::link::Start;
use tlstrace_common::skip::Counter;
use tlstrace_common::table::{self, WAYS};
use tlstrace_common::{flow, packet};
use tlstrace_peers::{Family, Pair, Process, client_hello, rustls_client};

use crate::frame::{Frame, Network};
use crate::harness::{Event, Programs};
use crate::interfaces::tun;
use crate::live::{Live, NAME, PATIENCE, echo, watch_json};
use crate::{frame, skip};

#[test]
#[ignore = "needs root"]
fn more_flows_than_there_are_places_for_lose_nothing_that_is_not_counted() {
    let mut programs = Programs::load();
    let hello = frame::client_hello(300);
    let (first, second) = hello.split_at(150);
    let flows = flows_of_one_bucket(WAYS + 24);
    let mut reported = 0;
    let mut send = |programs: &mut Programs, flags: u8, sequence: u32, payload: &[u8]| {
        for flow in &flows {
            let frame = Frame { flags, sequence, payload: payload.to_vec(), ..flow.clone() };
            let events = programs.run(&frame);
            let is_told = |event: &Event| {
                payload.is_empty() || event.has_note(Notes::UNFRAMED) || event.whole() == payload
            };
            assert!(events.iter().all(is_told), "{events:?}");
            reported += events.len();
        }
    };
    send(&mut programs, TcpFlags::SYN, 7, &[]);
    send(&mut programs, TcpFlags::ACK, 8, first);
    assert_eq!(programs.count(Counter::FlowTableFull), 24);
    // Of those that were forgotten it is not known any more where in a record they are, and that is noted.
    send(&mut programs, TcpFlags::ACK, 8 + 150, second);
    assert_eq!(reported, 3 * flows.len(), "{:?}", programs.counts());
}

#[test]
#[ignore = "needs root"]
fn of_flows_that_are_over_the_first_is_forgotten_first() {
    let mut programs = Programs::load();
    let flows = flows_of_one_bucket(WAYS + 8);
    for flow in &flows {
        begin_and_reset(&mut programs, flow);
    }
    // A FIN is looked at in any case, and told of where the flow is known.
    let is_known = |flow: &Frame| {
        let fin = Frame { flags: TcpFlags::FIN | TcpFlags::ACK, sequence: begun(), ..flow.clone() };
        !programs.run(&fin).is_empty()
    };
    let known: Vec<_> = flows.iter().map(is_known).collect();
    assert_eq!(known, [vec![false; 8], vec![true; WAYS]].concat());
}

#[test]
#[ignore = "needs root"]
fn flows_that_are_over_make_room_for_others_and_handshakes_in_progress_need_not() {
    let mut programs = Programs::load();
    let rest = frame::client_hello(200);
    let flows = flows_of_one_bucket(4 * WAYS);
    let (patient, others) = flows.split_first().unwrap();
    begin(&mut programs, patient);
    for flow in others {
        begin_and_reset(&mut programs, flow);
    }
    let next = Frame { flags: TcpFlags::ACK, sequence: begun(), payload: rest.clone(), ..patient.clone() };
    let events = programs.run(&next);
    assert_eq!((events[0].whole(), events[0].header.notes), (&rest[..], 0));
    assert_eq!(programs.count(Counter::FlowTableFull), 0);
}

/// Opens a connection and sends a ClientHello.
fn begin(programs: &mut Programs, flow: &Frame) {
    let hello = frame::client_hello(300);
    programs.run(&Frame { flags: TcpFlags::SYN, ..flow.clone() });
    let segment = Frame { flags: TcpFlags::ACK, sequence: 8, payload: hello.clone(), ..flow.clone() };
    assert_eq!(programs.run(&segment)[0].whole(), hello);
}

fn begin_and_reset(programs: &mut Programs, flow: &Frame) {
    begin(programs, flow);
    programs.run(&Frame { flags: TcpFlags::RST, sequence: begun(), ..flow.clone() });
}

/// The client's next sequence number after [`begin`].
fn begun() -> u32 {
    8 + u32::try_from(frame::client_hello(300).len()).unwrap()
}

/// SYNs' frames of flows that compete for the same places of the table.
fn flows_of_one_bucket(count: usize) -> Vec<Frame> {
    let bucket = |frame: &Frame| {
        let bytes = frame.bytes();
        table::bucket(flow::hash(&packet::walk(&&bytes[..], Start::Ethernet).unwrap()))
    };
    let frame = |number| Frame { sequence: 7, ..Frame::new(Network::v4_from(10, number, [10, 255, 0, 1])) };
    let wanted = bucket(&frame(0));
    (0..).map(frame).filter(|frame| bucket(frame) == wanted).take(count).collect()
}

#[test]
#[ignore = "needs root"]
fn within_a_memory_limit_a_flood_of_half_open_handshakes_ends_nothing_and_hides_nobody() {
    const LIMIT: u64 = 128 << 20;
    const FLOOD: u32 = 30_000;
    let Some(group) = MemoryGroup::new(LIMIT) else {
        return skip("there is no memory control group to be made here");
    };
    let pair = Pair::new().unwrap();
    let mut device = match tun(&pair.server) {
        Ok(device) => device,
        Err(error) => return skip(&format!("no tun device can be made: {error}")),
    };
    pair.server.configure("tun0", Family::Ipv4.address(78, 2)).unwrap();
    let mut live = Live::watched_by(pair, Family::Ipv4, |pair| {
        group.watch(pair, &["-i", Pair::SERVER_INTERFACE, "-i", "tun0", "-o", "json"])
    });
    let _gateway = live.gateway(&[NAME]);
    let hello = client_hello(&live.identity, "flood.example").unwrap();
    for number in 0..FLOOD {
        let network = Network::v4_from(11, number, [10, 78, 0, 77]);
        let syn = Frame { flags: TcpFlags::SYN, sequence: 7, has_ethernet: false, ..Frame::new(network) };
        let payload = Frame { flags: TcpFlags::ACK, sequence: 8, payload: hello.clone(), ..syn.clone() };
        for packet in [syn, payload] {
            device.write_all(&packet.bytes()).unwrap();
        }
        if number % 1000 == 999 {
            // Not more than the ring holds: that is another fault.
            while counts(&mut live.watch)[1] <= number {}
        }
        if number % 10_000 == 5_000 {
            live.openssl_client(&["-noservername"]);
            live.client_port += 1;
        }
    }
    let said = live.stop();
    let summary = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
    let mine = said.iter().filter(|line| line.contains("10.99.0.1")).map(|line| {
        let verdict: Value = serde_json::from_str(line).unwrap();
        verdict.pointer("/tlstrace/verdict").and_then(Value::as_str).unwrap().to_owned()
    });
    assert_eq!(mine.collect::<Vec<_>>(), ["sni_missing"; 3], "{summary}");
    assert!(summary.contains("connections forgotten for want of room"), "{summary}");
    let peak = group.peak();
    assert!(peak.is_none_or(|peak| peak <= LIMIT), "{peak:?}");
}

#[test]
#[ignore = "needs root"]
fn on_a_disk_that_fills_up_every_line_is_whole_or_counted() {
    const CONNECTIONS: u32 = 100;
    let pair = Pair::new().unwrap();
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("full-disk");
    fs::create_dir_all(&scratch).unwrap();
    let directory = scratch.to_str().unwrap();
    let mut command = pair.server.command("unshare");
    // A mount that goes with the process.
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size=64k full '{directory}' && exec \"$@\" > '{directory}/out'"));
    command.args(["sh", env!("CARGO_BIN_EXE_tlstrace"), "watch", "-i", Pair::SERVER_INTERFACE, "-o", "json"]);
    let mut watch = Process::spawn(&mut command).unwrap();
    watch.stderr.find(PATIENCE, |line| line.starts_with("watching ")).unwrap();
    let server = (Pair::server_address(Family::Ipv4), crate::live::PORT);
    pair.client.enter(|| (0..CONNECTIONS).for_each(|_| drop(std::net::TcpStream::connect(server))));
    watch.stderr.find(PATIENCE, |line| line.contains("No space left on device")).unwrap();
    while counts(&mut watch)[0] < CONNECTIONS {}
    let output = fs::read_to_string(format!("/proc/{}/root{directory}/out", watch.id())).unwrap();
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(1));
    let said = watch.stderr.rest(PATIENCE).unwrap().join("\n");
    let lost = said.split(" verdicts not printed").next().unwrap().rsplit([' ', '\n']).next().unwrap();
    let lost: u32 = lost.parse().expect(&said);
    let whole = output.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
    assert!(whole > 10, "{output}");
    assert_eq!(u32::try_from(whole).unwrap() + lost, CONNECTIONS, "{said}");
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_flaps_goes_on_being_watched_and_nothing_wrong_is_said() {
    for hook in ["tcx", "clsact"] {
        let mut live = Live::start_with(Family::Ipv4, &["--attach", hook]);
        let _gateway = live.gateway(&[NAME]);
        for _ in 0..3 {
            // A handshake that is under way when the cable is pulled, and goes on when it is back.
            let session = rustls_client(&live.identity, ALL_VERSIONS, NAME).unwrap();
            let mut tls = StreamOwned::new(session, live.connect());
            live.pair.server.ip(&["link", "set", Pair::SERVER_INTERFACE, "down"]).unwrap();
            live.pair.server.ip(&["link", "set", Pair::SERVER_INTERFACE, "up"]).unwrap();
            echo(&mut tls);
            drop(tls);
            live.verdict("ok");
            live.client_port += 1;
        }
        live.stop();
        let said = live.watch.stderr.rest(PATIENCE).unwrap().join("\n");
        assert!(said.contains("nothing lost"), "{said}");
    }
}

#[test]
#[ignore = "needs root"]
fn traffic_does_not_notice_a_kill_and_a_restart_and_from_then_on_every_verdict_is_there() {
    for hook in ["tcx", "clsact"] {
        let mut live = Live::start_with(Family::Ipv4, &["--attach", hook]);
        let _gateway = live.gateway(&[NAME]);
        let (made, is_over) = (AtomicU32::new(0), AtomicBool::new(false));
        let (first_port, server) = (live.client_port, live.server());
        let verdicts = thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let port = first_port + u16::try_from(made.load(Ordering::Relaxed)).unwrap();
                    let from = (Pair::client_address(Family::Ipv4), port).into();
                    let stream = tlstrace_peers::connect_from(&live.pair.client, from, server).unwrap();
                    let client = rustls_client(&live.identity, ALL_VERSIONS, NAME).unwrap();
                    let mut tls = StreamOwned::new(client, stream);
                    // Every one of them succeeds.
                    echo(&mut tls);
                    tls.sock.shutdown(Shutdown::Write).unwrap();
                    tls.sock.read_to_end(&mut Vec::new()).unwrap();
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
            let wait_for_more = |count: u32| {
                let until = made.load(Ordering::Relaxed) + count;
                while made.load(Ordering::Relaxed) < until {
                    thread::sleep(Duration::from_millis(5));
                    assert!(!traffic.is_finished(), "the traffic suffered");
                }
            };
            wait_for_more(5);
            live.watch.signal(Signal::SIGKILL).unwrap();
            live.watch.wait(PATIENCE).unwrap();
            wait_for_more(5);
            let mut watch = watch_json(&live.pair.server, &["-i", Pair::SERVER_INTERFACE, "--attach", hook]);
            let begun = made.load(Ordering::Relaxed) + 1;
            wait_for_more(10);
            is_over.store(true, Ordering::Relaxed);
            traffic.join().unwrap();
            let last = first_port + u16::try_from(made.load(Ordering::Relaxed)).unwrap() - 1;
            let mut verdicts = HashSet::new();
            while !verdicts.contains(&last) {
                let line = watch.stdout.next(PATIENCE).expect("a verdict").text;
                let verdict: Value = serde_json::from_str(&line).unwrap();
                let port = u16::try_from(verdict.pointer("/client/port").and_then(Value::as_u64).unwrap());
                let id = verdict.pointer("/tlstrace/verdict").and_then(Value::as_str).unwrap();
                // One may have been under way when it started.
                let is_whole = u32::from(port.unwrap() - first_port) >= begun;
                assert!(id == "ok" || !is_whole && id == "undetermined", "{verdict:#}");
                verdicts.insert(port.unwrap());
            }
            let whole = first_port + u16::try_from(begun).unwrap();
            assert!((whole..=last).all(|port| verdicts.contains(&port)), "{whole} to {last}: {verdicts:?}");
            watch.signal(Signal::SIGINT).unwrap();
            watch.wait(PATIENCE).unwrap();
            verdicts.len()
        });
        assert!(verdicts >= 9, "{verdicts}");
    }
}

/// How many verdicts and connections there were, as SIGUSR1 has it said.
fn counts(watch: &mut Process) -> [u32; 2] {
    watch.signal(Signal::SIGUSR1).unwrap();
    let is_tally = |line: &str| line.contains(" on ") && line.ends_with(" connections");
    let line = watch.stderr.find(PATIENCE, is_tally).unwrap().text;
    let words: Vec<_> = line.split(' ').collect();
    [words[0], words[words.len() - 2]].map(|number| number.parse().unwrap_or(0))
}

/// A control group with a limit of memory (cgroups(7)), of version 1 or 2.
struct MemoryGroup {
    path: PathBuf,
    is_unified: bool,
}

impl MemoryGroup {
    fn new(limit: u64) -> Option<Self> {
        [("/sys/fs/cgroup", true), ("/sys/fs/cgroup/memory", false)].into_iter().find_map(
            |(root, is_unified)| {
                let controllers = fs::read_to_string(Path::new(root).join("cgroup.controllers"));
                if is_unified && !controllers.is_ok_and(|controllers| controllers.contains("memory")) {
                    return None;
                }
                let path = Path::new(root).join(format!("tlstrace-test-{}", std::process::id()));
                fs::create_dir(&path).ok()?;
                let group = Self { path, is_unified };
                let file = if is_unified { "memory.max" } else { "memory.limit_in_bytes" };
                fs::write(group.path.join(file), limit.to_string()).ok()?;
                Some(group)
            },
        )
    }

    /// `tlstrace watch` on the server, in this group from its beginning.
    fn watch(&self, pair: &Pair, arguments: &[&str]) -> Process {
        let mut command: Command = pair.server.command("sh");
        command.args(["-c", "echo $$ > \"$GROUP\" && exec \"$@\"", "sh"]);
        command.env("GROUP", self.path.join("cgroup.procs"));
        command.args([env!("CARGO_BIN_EXE_tlstrace"), "watch"]).args(arguments);
        let mut watch = Process::spawn(&mut command).unwrap();
        // It reads its own program again and again, where that does not fit in as well.
        watch.stderr.find(4 * PATIENCE, |line| line.starts_with("watching ")).unwrap();
        watch
    }

    /// Most bytes that were used, where the kernel tells (version 2: Linux 5.19).
    fn peak(&self) -> Option<u64> {
        let file = if self.is_unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Only a group with a process in it refuses.
        let _ = fs::remove_dir(&self.path);
    }
}
