//! A real OpenTelemetry collector on another host: Rotel (`pip install rotel`), which prints what it takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tlstrace_peers::{Family, Pair, Process, installed, watch};

use crate::live::PATIENCE;
use crate::metrics::{finish, refuse};
use crate::skip;

const COLLECTOR: &str = "rotel-agent";
const PORT: u16 = 4318;

#[test]
#[ignore = "needs root"]
fn a_collector_takes_verdicts_and_metrics() {
    if !installed(COLLECTOR) {
        return skip("rotel-agent is not installed");
    }
    let pair = Pair::new().unwrap();
    let mut collector = collector(&pair);
    let mut watch = watch_to_collector(&pair);
    refuse(&pair, Pair::server_address(Family::Ipv4));
    let line: Value = serde_json::from_str(&watch.stdout.next(PATIENCE).unwrap().text).unwrap();
    let connection = line["tlstrace"]["connection_id"].as_str().unwrap();
    let mut said = Vec::new();
    let mut until = |collector: &mut Process, wanted: &str| {
        collector.stdout.find(PATIENCE, |line| {
            said.push(line.to_owned());
            line.contains(wanted)
        })
    };
    until(&mut collector, "Flags:").unwrap();
    finish(watch);
    // At the end it tells what was counted, however short a time ago it did.
    until(&mut collector, "Name: tlstrace_build_info").unwrap();
    until(&mut collector, "Value: 1").unwrap();
    let said = said.join("\n");
    for part in [
        "service.name: Str(tlstrace)",
        "SeverityText: ERROR",
        "Body: Str(port_closed: ",
        &format!("tlstrace.connection_id: Str({connection})"),
        "tlstrace_handshakes",
        "verdict: Str(port_closed)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(said.matches("Body: ").count(), 1, "{said}");
}

#[test]
#[ignore = "needs root"]
fn a_trace_without_its_collector_goes_on_ends_in_time_and_says_what_was_lost() {
    let pair = Pair::new().unwrap();
    let mut watch = watch_to_collector(&pair);
    refuse(&pair, Pair::server_address(Family::Ipv4));
    assert!(watch.stdout.next(PATIENCE).unwrap().text.contains("port_closed"));
    let rights: BTreeSet<_> = threads(&watch).iter().map(|status| field(status, "CapPrm:")).collect();
    assert_eq!(rights.len(), 1, "the thread that sends has given up what the others have: {rights:?}");
    watch.signal(Signal::SIGINT).unwrap();
    assert_eq!(watch.wait(PATIENCE).unwrap().code(), Some(0));
    let said = watch.stderr.rest(PATIENCE).unwrap().join("\n");
    assert!(said.contains("2 records not exported: the collector did not take them in time"), "{said}");
}

/// What the kernel says of each thread.
fn threads(process: &Process) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let statuses: Vec<_> =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap()).collect();
    assert!(statuses.len() >= 3, "{statuses:?}");
    statuses
}

fn field(status: &str, name: &str) -> String {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
}

/// On the client's host.
fn collector(pair: &Pair) -> Process {
    let mut command = pair.client.command(COLLECTOR);
    command.args(["start", "--exporter", "blackhole", "--log-format", "text"]);
    command.args(["--debug-log", "logs", "--debug-log", "metrics", "--debug-log-verbosity", "detailed"]);
    command.arg(format!("--otlp-http-endpoint={}:{PORT}", Pair::client_address(Family::Ipv4)));
    Process::spawn(&mut command).unwrap()
}

fn watch_to_collector(pair: &Pair) -> Process {
    let program = Path::new(env!("CARGO_BIN_EXE_tlstrace"));
    let collector = format!("http://{}:{PORT}", Pair::client_address(Family::Ipv4));
    let arguments =
        ["-n", "-i", Pair::SERVER_INTERFACE, "-o", "json", "--not", "--verdict", "ok", "--otlp", &collector];
    watch(
        &pair.server,
        program,
        &[&arguments[..], &["--server", &Pair::server_address(Family::Ipv4).to_string()]].concat(),
    )
    .unwrap()
}
