//! `tlstrace doctor` where everything is allowed, and where something is not.

use std::process::Command;
use std::{fs, io, thread};

use nix::sys::signal::Signal;
use serde_json::Value;
use tlstrace_peers::Pair;

use crate::guest::{FOREIGN_FILTER, run, tc};
use crate::live::{PATIENCE, programs_on_the_interface, watch_json};

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
