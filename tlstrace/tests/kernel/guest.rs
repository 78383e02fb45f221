//! A guest on somebody else's machine: what tlstrace may do there, what it leaves behind, what it disturbs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tlstrace_peers::{Family, Pair, Process, installed};

use crate::live::{Live, NAME, PATIENCE, programs_on_the_interface};
use crate::skip;

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
    for name in ["later0", "later1"] {
        live.watch.stderr.find(PATIENCE, |line| line.starts_with("watching") && line.contains(name)).unwrap();
    }
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
            watch.stderr.find(PATIENCE, |line| line.starts_with("watching ")).unwrap();
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
