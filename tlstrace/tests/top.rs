//! `tlstrace top` in a terminal: what its user sees, and that the terminal is theirs again afterwards.

#![cfg(feature = "top")]
#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::env;
use std::io::{self, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tlstrace::top::screen::Screen;
use tlstrace_peers::terminal::{Command, Terminal};

/// Set where this program is run by its own test.
const PANICS: &str = "TLSTRACE_TEST_PANICS";
/// Longest wait for something to appear.
const PATIENCE: Duration = Duration::from_mins(1);
const NOTHING_YET: &str = "No handshake was seen yet";

#[test]
fn saved_lines_are_followed_and_keys_lead_to_the_remedy_and_back() {
    let (mut terminal, mut input) = with_piped_input();
    terminal.find(PATIENCE, NOTHING_YET).unwrap();
    assert!(terminal.screen().alternate_screen());
    assert!(!terminal.is_as_before().unwrap(), "keys are read one by one");

    input.write_all(b"pod/tlstrace-x ").unwrap();
    input.write_all(&saved("closed_port.pcap")).unwrap();
    terminal.find(PATIENCE, "127.0.0.1:7402").unwrap();
    terminal.find(PATIENCE, "port_closed").unwrap();

    input.write_all(&saved("go_srv_http_to_tls.pcap")).unwrap();
    terminal.find(PATIENCE, "http_on_tls_port").unwrap();
    terminal.press("\t\r").unwrap();
    terminal.find(PATIENCE, "How to confirm").unwrap();
    terminal.press("\u{1b}").unwrap();
    terminal.find(PATIENCE, "listeners 2").unwrap();
    terminal.press("/port_cl\r").unwrap();
    terminal.find(PATIENCE, "listeners 1 of 2").unwrap();
    terminal.find(PATIENCE, "newest first: 1 kind").unwrap();
    terminal.press("p").unwrap();
    terminal.find(PATIENCE, "PAUSED").unwrap();

    terminal.press("q").unwrap();
    assert_given_back(&mut terminal);
    let text = terminal.screen().contents();
    assert!(text.contains("2 of 2 handshakes failed"), "the sum stays on the screen: {text}");
}

#[test]
fn names_and_counts_in_the_lines_of_a_cluster_are_shown() {
    let (mut terminal, mut input) = with_piped_input();
    let line = String::from_utf8(saved("closed_port.pcap")).unwrap();
    let mut line: serde_json::Value = serde_json::from_str(line.lines().next().unwrap()).unwrap();
    let time = line["@timestamp"].clone();
    line["server"]["k8s"] = serde_json::json!({"pod": {"name": "web-7d9f"}, "namespace": {"name": "shop"},
        "workload": {"kind": "Deployment", "name": "web"}});
    let counted = serde_json::json!({"@timestamp": time, "event": {"start": time, "end": time},
        "server": line["server"], "tls": {"client": {"server_name": "web.example"}},
        "tlstrace": {"schema": "tlstrace-aggregate/1", "verdict": "ok", "severity": "info", "count": 1234}});
    write!(input, "[pod/tlstrace-x/tlstrace] {line}\n[pod/tlstrace-y/tlstrace] {counted}\n").unwrap();
    terminal.find(PATIENCE, "1,235 handshakes").unwrap();
    terminal.press("\t\r").unwrap();
    terminal.find(PATIENCE, "shop/web-7d9f, Deployment web").unwrap();
    terminal.press("q").unwrap();
    assert_given_back(&mut terminal);
}

#[test]
fn captures_are_judged_and_shown() {
    let file = directory().join("closed_port.pcap");
    let mut terminal = Terminal::spawn(tlstrace().arg("top").arg(file)).unwrap();
    for text in ["end of input", "port_closed", "nothing lost"] {
        terminal.find(PATIENCE, text).unwrap();
    }
    terminal.press("\u{3}").unwrap();
    assert_given_back(&mut terminal);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (mut terminal, _input) = with_piped_input();
        terminal.find(PATIENCE, NOTHING_YET).unwrap();
        terminal.signal(signal).unwrap();
        assert_given_back(&mut terminal);
    }
}

#[test]
fn a_panic_gives_the_terminal_back_before_its_message() {
    if env::var_os(PANICS).is_some() {
        let _screen = Screen::enter().unwrap();
        panic!("a bug that was put here");
    }
    let name = "a_panic_gives_the_terminal_back_before_its_message";
    let myself = Command::new(env::current_exe().unwrap());
    let mut terminal =
        Terminal::spawn(myself.args(["--exact", name, "--nocapture"]).env(PANICS, "1")).unwrap();
    terminal.wait_for(PATIENCE, |screen| screen.contents().contains("a bug that was put here")).unwrap();
    assert!(!terminal.screen().alternate_screen(), "{}", terminal.screen().contents());
    assert!(!terminal.wait(PATIENCE).unwrap().success());
    assert!(terminal.has_shown_other_screen(), "there was something to give back");
    assert!(terminal.is_as_before().unwrap());
}

#[test]
fn without_a_terminal_it_is_exit_2_and_the_message_says_what_to_use() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    let output = command.args(["top", "-"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tlstrace watch prints lines"));
}

fn tlstrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tlstrace"))
}

/// `tlstrace top -`, and what writes into it.
fn with_piped_input() -> (Terminal, PipeWriter) {
    let (reader, writer) = io::pipe().unwrap();
    let command = tlstrace().args(["top", "-"]).stdin(Stdio::from(reader));
    (Terminal::spawn(command).unwrap(), writer)
}

fn assert_given_back(terminal: &mut Terminal) {
    let status = terminal.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", terminal.screen().contents());
    assert!(terminal.has_shown_other_screen());
    assert!(terminal.is_as_before().unwrap());
}

/// A capture as saved lines.
fn saved(capture: &str) -> Vec<u8> {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    let output = command.args(["replay", "-o", "json"]).arg(directory().join(capture)).output().unwrap();
    assert!(!output.stdout.is_empty());
    output.stdout
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}
