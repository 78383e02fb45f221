//! Who sent a RST, by the word of the kernel that sent it.
//!
//! The tracepoint tells why from Linux 6.10 on; an older kernel has nothing to say, and the tests of what it says are
//! skipped.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use tlstrace_peers::{Family, Pair, Process, Service, client_hello, installed};

use crate::live::{Live, NAME, PATIENCE, PORT, Verdict};
use crate::skip;

#[test]
#[ignore = "needs root"]
fn the_process_that_closed_its_socket_with_the_client_hello_unread_is_named() {
    let Some(mut live) = start() else { return };
    let _gateway = live.gateway(&[NAME]);
    for family in Family::ALL {
        live.family = family;
        live.openssl_client(&["-noservername"]);
        let verdict = live.verdict("sni_missing");
        verdict.has("/tlstrace/reset_by", this_process("TCP_ABORT_ON_CLOSE"));
        let said = evidence(&verdict, "kernel_reset");
        assert!(said.contains("closed the socket before it had read the whole ClientHello"), "{said}");
        assert!(said.contains(&command()), "{said}");
        live.client_port += 1;
    }
}

#[test]
#[ignore = "needs root"]
fn a_linger_time_of_zero_names_the_process_too() {
    let Some(mut live) = start() else { return };
    let _server = Service::start(&live.pair.server, PORT, |mut stream: TcpStream| {
        // The whole ClientHello, so that nothing is left unread.
        let _ = stream.read(&mut [0; 16 * 1024]);
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
    })
    .unwrap();
    live.openssl_client(&["-servername", NAME]);
    let verdict = live.verdict("reset_after_client_hello");
    verdict.has("/tlstrace/reset_by/pid", std::process::id());
    verdict.has("/tlstrace/reset_by/command", command());
}

#[test]
#[ignore = "needs root"]
fn a_refused_syn_is_for_want_of_a_socket_and_nobodys_act() {
    let Some(mut live) = start() else { return };
    for family in Family::ALL {
        live.family = family;
        live.try_connect().unwrap_err();
        let verdict = live.verdict("port_closed");
        verdict.has("/tlstrace/reset_by", json!({"reason": "NO_SOCKET"}));
        live.client_port += 1;
    }
}

#[test]
#[ignore = "needs root"]
fn a_reset_that_a_firewall_rule_makes_is_not_the_servers() {
    let Some(mut live) = start() else { return };
    if !installed("nft") {
        return skip("nftables is not installed");
    }
    nft(
        &live.pair,
        "table inet test { chain input { type filter hook input priority 0; \
         tcp dport 8443 tcp flags & psh == psh reject with tcp reset; }; }",
    );
    // The kernel reports the resets of all namespaces, and those of other tests are between the same addresses.
    live.client_port = 40_777;
    let _server = live.rustls_server();
    let mut stream = live.connect();
    stream.write_all(&client_hello(&live.identity, NAME).unwrap()).unwrap();
    stream.read(&mut [0; 1]).unwrap_err();
    let verdict = live.verdict("injected_reset");
    verdict.lacks("/tlstrace/reset_by");
    evidence(&verdict, "kernel_sent_no_reset");
}

#[test]
#[ignore = "needs root"]
fn without_the_kernels_type_information_there_is_a_note_and_the_same_verdict() {
    let mut note = String::new();
    let mut live = Live::watched_by(Pair::new().unwrap(), Family::Ipv4, |pair| {
        let tlstrace = env!("CARGO_BIN_EXE_tlstrace");
        let watch = format!(
            "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec {tlstrace} -o json --all -i {}",
            Pair::SERVER_INTERFACE
        );
        let mut command = pair.server.command("unshare");
        let mut process = Process::spawn(command.args(["--mount", "sh", "-c", &watch])).unwrap();
        note = process.stderr.find(PATIENCE, |line| line.contains("which process sends a RST")).unwrap().text;
        process.stderr.find(PATIENCE, |line| line.starts_with("watching ")).unwrap();
        process
    });
    assert!(note.contains("type information"), "{note}");
    let _gateway = live.gateway(&[NAME]);
    live.openssl_client(&["-noservername"]);
    let verdict = live.verdict("sni_missing");
    verdict.ended_by("server", "reset");
    verdict.lacks("/tlstrace/reset_by");
}

/// `None` where the kernel gives no reasons.
fn start() -> Option<Live> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(10)) {
        skip("this kernel gives no reasons for its resets (Linux 6.10 does)");
        return None;
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        skip("this kernel shows no BTF");
        return None;
    }
    Some(Live::start(Family::Ipv4))
}

fn nft(pair: &Pair, rules: &str) {
    let output = pair.server.command("nft").arg(rules).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn this_process(reason: &str) -> Value {
    json!({"reason": reason, "pid": std::process::id(), "command": command()})
}

/// What this process calls itself; its threads have names of their own.
fn command() -> String {
    std::fs::read_to_string(format!("/proc/{}/comm", std::process::id())).unwrap().trim().to_owned()
}

#[track_caller]
fn evidence(verdict: &Verdict, fact: &str) -> String {
    let evidence = verdict.json.pointer("/tlstrace/evidence").and_then(Value::as_array).unwrap();
    let found = evidence.iter().find(|evidence| evidence["fact"] == fact);
    let found = found.unwrap_or_else(|| panic!("no {fact}: {:#}", verdict.json));
    found["detail"].as_str().unwrap().to_owned()
}
