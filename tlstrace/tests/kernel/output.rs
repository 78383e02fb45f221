//! Readers that are slow, stopped or gone, while traffic goes on: the ring is drained all the same, and what could not
//! be printed is counted; and how a running trace is asked how things are.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;
use tlstrace_peers::{Family, Pair, Process};

use crate::live::{PATIENCE, PORT};

/// Too few for the events of all connections, enough for those of [`BATCH`].
const RING: &str = "1048576";
const BATCH: u32 = 1000;
/// Their verdicts are more than the queue holds, and their events more than the ring does.
const CONNECTIONS: u32 = 20 * BATCH;

#[test]
#[ignore = "needs root"]
fn a_paused_reader_stops_neither_the_ring_nor_the_summary_and_what_is_lost_is_counted() {
    let pair = Pair::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let mut watch = watch_into(&pair, &writer, &["-o", "json", "--ring-size", RING]);
    drop(writer);
    let warns = |line: &str| line.contains("standard output is not read fast enough");
    let mut is_warned = false;
    for batch in 1..=CONNECTIONS / BATCH {
        refuse(&pair, BATCH);
        // Nothing is read, and still every verdict is found, and told of when asked.
        while tally_beside(&mut watch, |line| is_warned |= warns(line)) < batch * BATCH {}
    }
    if !is_warned {
        watch.stderr.find(PATIENCE, warns).unwrap();
    }
    let reading = thread::spawn(move || {
        let lines = BufReader::new(reader).lines();
        let whole = lines.filter(|line| serde_json::from_str::<Value>(line.as_ref().unwrap()).is_ok());
        whole.count()
    });
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
    let printed = u32::try_from(reading.join().unwrap()).unwrap();
    let said = watch.stderr.rest(PATIENCE).unwrap().join("\n");
    let lost = said.split(" verdicts not printed: standard output was not read fast enough").next().unwrap();
    let lost: u32 = lost.rsplit(' ').next().unwrap().parse().expect(&said);
    assert!(printed > 0 && lost > 0, "{said}");
    assert_eq!(printed + lost, CONNECTIONS, "{said}");
    assert!(!said.contains("events lost"), "the ring did not overflow: {said}");
}

#[test]
#[ignore = "needs root"]
fn an_end_does_not_wait_for_a_reader_that_has_stopped() {
    let pair = Pair::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let mut watch = watch_into(&pair, &writer, &["-o", "json"]);
    refuse(&pair, BATCH);
    while tally(&mut watch) < BATCH {}
    watch.signal(Signal::SIGTERM).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
    drop((reader, writer));
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_does_not_end_a_trace_and_is_said_at_once_and_at_the_end() {
    let pair = Pair::new().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut watch = watch_into(&pair, &full, &["-o", "json"]);
    refuse(&pair, 10);
    let said = watch.stderr.find(PATIENCE, |line| line.contains("No space left on device")).unwrap().text;
    assert!(said.contains("verdicts were not printed"), "{said}");
    while tally(&mut watch) < 10 {}
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(1));
    let said = watch.stderr.rest(PATIENCE).unwrap().join("\n");
    assert!(said.contains("10 verdicts not printed: standard output could not be written"), "{said}");
}

#[test]
#[ignore = "needs root"]
fn sigusr1_asks_for_the_summary_also_as_data() {
    let pair = Pair::new().unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let mut watch = watch_into(&pair, &writer, &["-o", "json", "--summary", "json"]);
    drop(writer);
    refuse(&pair, 3);
    let mut lines =
        BufReader::new(reader).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    for _ in 0..3 {
        assert_eq!(lines.next().unwrap()["tlstrace"]["verdict"], "port_closed");
    }
    watch.signal(Signal::SIGUSR1).unwrap();
    let summary = lines.next().unwrap();
    assert_eq!(summary["tlstrace"]["schema"], "tlstrace-summary/1");
    assert_eq!(summary["tlstrace"]["incidents"][0]["failures"], 3);
    assert_eq!(summary["tlstrace"]["listeners"][0]["name"], server().to_string());
    assert!(summary["tlstrace"]["capture"]["packets"].as_u64() >= Some(6));
    watch.stderr.find(PATIENCE, |line| line.contains("3 of 3 failures: port_closed")).unwrap();
    watch.signal(Signal::SIGINT).unwrap();
    let last = lines.last().unwrap();
    assert_eq!(last["tlstrace"]["schema"], "tlstrace-summary/1");
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
}

#[test]
#[ignore = "needs root"]
fn a_report_is_written_at_the_end_also_when_nobody_reads_the_verdicts() {
    let pair = Pair::new().unwrap();
    let file = std::env::temp_dir().join(format!("tlstrace-report-{}.html", std::process::id()));
    let (reader, writer) = io::pipe().unwrap();
    let mut watch = watch_into(&pair, &writer, &["-o", "json", "--report", file.to_str().unwrap()]);
    drop((reader, writer));
    refuse(&pair, 1);
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
    let page = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(page.contains("One failure: <code>port_closed</code>"), "{page}");
    assert!(page.contains(&server().to_string()) && page.contains("<dt>packets</dt>"), "{page}");
}

/// How many verdicts there were, as SIGUSR1 has it said.
fn tally(watch: &mut Process) -> u32 {
    tally_beside(watch, |_| {})
}

/// The same; `other` is shown the lines that come before.
fn tally_beside(watch: &mut Process, mut other: impl FnMut(&str)) -> u32 {
    watch.signal(Signal::SIGUSR1).unwrap();
    let is_tally = |line: &str| {
        other(line);
        line.contains(" on ") && line.ends_with(" connections")
    };
    let line = watch.stderr.find(PATIENCE, is_tally).unwrap().text;
    line.split(' ').next().unwrap().parse().unwrap_or(0)
}

fn server() -> SocketAddr {
    (Pair::server_address(Family::Ipv4), PORT).into()
}

/// So many connections to a port on which nobody listens.
fn refuse(pair: &Pair, connections: u32) {
    pair.client.enter(|| {
        for _ in 0..connections {
            assert_eq!(TcpStream::connect(server()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

/// `tlstrace watch` on the server's interface, its standard output being `output`.
fn watch_into(pair: &Pair, output: &impl AsFd, arguments: &[&str]) -> Process {
    let output = format!("/proc/{}/fd/{}", std::process::id(), output.as_fd().as_raw_fd());
    let mut command: Command = pair.server.command("sh");
    command.args(["-c", "exec \"$@\" > \"$OUTPUT\"", "sh"]).env("OUTPUT", output);
    command.arg(Path::new(env!("CARGO_BIN_EXE_tlstrace"))).args(["watch", "-i", Pair::SERVER_INTERFACE]);
    let mut watch = Process::spawn(command.args(arguments)).unwrap();
    watch.stderr.find(PATIENCE, |line| line.starts_with("watching ")).unwrap();
    watch
}
