//! The command line from outside: exit codes, where output goes, what the messages say.
//!
//! What needs root says so on stderr and does nothing without it; under `CI=true` it fails instead.
#![expect(clippy::unwrap_used, reason = "all of this is test code")]

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use tlstrace_peers::skip;

#[test]
fn what_cannot_be_understood_is_exit_2_and_a_hint() {
    for line in [
        "--no-such-option",
        "frobnicate",
        "--output xml",
        "--attach xdp",
        "--timeout soon",
        "--count 0",
        "--port 0",
        "--server 10.0.0.0/99",
        "--severity fatal",
        "--not",
        "watch --not --all",
        "probe",
        "probe 192.0.2.0/24",
        "probe 192.0.2.1-9",
        "probe a.example b.example",
        "probe a.example --proxy v3",
    ] {
        let output = tlstrace(line);
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains("--help"), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{line}: data goes to stdout, messages do not");
    }
}

#[test]
fn help_and_version_go_to_stdout_and_are_no_failure() {
    for (line, contains) in
        [("--help", "Exit codes"), ("--version", env!("CARGO_PKG_VERSION")), ("watch --help", "--netns")]
    {
        let output = tlstrace(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(contains), "{line}");
        assert!(output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn an_interface_that_does_not_exist_is_exit_1_and_named_beside_those_that_do() {
    let output = tlstrace("-i lo -i nonesuch0");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("no interface nonesuch0; there are: lo"), "{}", stderr(&output));
}

#[test]
fn a_network_namespace_that_does_not_exist_is_exit_1() {
    let output = tlstrace("--netns /nonesuch -i lo");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nonesuch"), "{}", stderr(&output));
}

#[test]
fn without_privilege_it_is_exit_3_and_the_message_says_what_to_do() {
    let mut command = command("-i lo");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
        if command.output().is_err() {
            return skip("nobody may not execute the program where it was built");
        }
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    for part in ["CAP_BPF and CAP_NET_ADMIN", "sudo", "--profile=sysadmin"] {
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}

#[test]
#[ignore = "needs root"]
fn a_watch_that_times_out_is_announced_summed_up_and_exit_0() {
    for hook in ["tcx", "clsact"] {
        // In a network namespace of its own (unshare(1)), which takes the clsact qdisc away with it.
        let line = format!("-i lo --attach {hook} --timeout 50ms --port 443,8000-8999");
        let mut command = Command::new("unshare");
        command.args(["--net", env!("CARGO_BIN_EXE_tlstrace")]).args(line.split_whitespace());
        let output = command.output().unwrap();
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let watching = stderr.lines().find(|line| line.starts_with("watching lo (")).unwrap();
        assert!(watching.contains(hook) && watching.ends_with("port 443, 8000-8999"), "{watching}");
        assert!(stderr.contains("nothing lost"), "{stderr}");
    }
}

const NOBODY: u32 = 65_534;

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    command.args(line.split_whitespace()).env_remove("TLSTRACE_LOG");
    command
}

fn tlstrace(line: &str) -> Output {
    command(line).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_root() -> bool {
    // A process's directory belongs to its effective user (proc(5)).
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
