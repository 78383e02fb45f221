//! The machine: kernel, architecture, clock, and the file systems that the kernel shows itself in.

use super::{Finding, read};
use crate::capture::{clock, kernel_release};

/// Oldest kernel that tlstrace is made for.
const FLOOR: (u32, u32) = (5, 15);
/// First kernel with TCX.
const TCX: (u32, u32) = (6, 6);
/// First kernel whose `tcp_send_reset` says why.
const RESET_REASON: (u32, u32) = (6, 10);

pub(super) fn kernel() -> Finding {
    judge_kernel(&kernel_release())
}

fn judge_kernel(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let Some(version) = version(release) else {
        return Finding::warning(
            CHECK,
            format!("Linux {release}: not a version that can be read"),
            "tlstrace needs Linux 5.15 or later",
        );
    };
    if version < FLOOR {
        return Finding::problem(
            CHECK,
            format!("Linux {release} is older than 5.15"),
            "use a node with Linux 5.15 or later; `tlstrace replay` reads packet captures without any of it",
        );
    }
    let hook = if version < TCX { "clsact; TCX came with 6.6" } else { "TCX" };
    Finding::ok(CHECK, format!("Linux {release} ({hook})"))
}

/// `6.1` of `6.1.0-18-cloud-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn architecture() -> Finding {
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => Finding::ok("architecture", arch),
        arch => Finding::warning(
            "architecture",
            format!("tlstrace has not been tried on {arch}"),
            "prefer an x86_64 or aarch64 node",
        ),
    }
}

pub(super) fn examine() -> Vec<Finding> {
    let mounts = read("/proc/self/mounts").unwrap_or_default();
    vec![
        wall_clock(),
        btf(),
        bpffs(&mounts),
        tracefs(&mounts),
        unprivileged_bpf(),
        jit(),
        limits(&read("/proc/self/limits").unwrap_or_default()),
        noexec(&mounts),
    ]
}

/// The verdicts on certificates compare dates with this machine's clock.
fn wall_clock() -> Finding {
    const CHECK: &str = "clock";
    /// 2026-01-01, before which no tlstrace was built.
    const EARLIEST: u64 = 1_767_225_600;
    let now = clock::Clock::start().now();
    if now.as_nanos() / 1_000_000_000 < EARLIEST {
        return Finding::warning(
            CHECK,
            format!(
                "it is {now}, says the clock, which is in the past: certificates will seem not yet valid"
            ),
            "set the clock, or start an NTP client",
        );
    }
    if clock::is_synchronised() {
        Finding::ok(CHECK, format!("{now}, synchronised"))
    } else {
        Finding::ok(CHECK, format!("{now}; the kernel does not know of an NTP client that steers it"))
    }
}

fn btf() -> Finding {
    let is_there = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    Finding::ok("btf", if is_there { "the kernel describes its types" } else { "absent, and not needed" })
}

fn bpffs(mounts: &str) -> Finding {
    let text = match mounted(mounts, "bpf").first() {
        Some(path) => format!("mounted at {path}; tlstrace pins nothing there"),
        None => "not mounted, and not needed: tlstrace pins nothing".to_owned(),
    };
    Finding::ok("bpffs", text)
}

/// Who sent a reset: `tcp:tcp_send_reset` has a reason from Linux 6.10 on.
fn tracefs(mounts: &str) -> Finding {
    const CHECK: &str = "tcp_send_reset";
    const EFFECT: &str = "verdicts then do not say which process reset a connection, and why";
    let mut roots = mounted(mounts, "tracefs");
    roots.extend(mounted(mounts, "debugfs").into_iter().map(|root| format!("{root}/tracing")));
    if roots.is_empty() {
        return Finding::warning(
            CHECK,
            format!("tracefs is not mounted (`ip netns exec` hides it, too): {EFFECT}"),
            "mount -t tracefs nodev /sys/kernel/tracing (in the toolbox of Container-Optimized OS: \
             --bind=/sys:/sys in TOOLBOX_BIND); instead of `ip netns exec`, use --netns",
        );
    }
    let format = roots.iter().find_map(|root| read(&format!("{root}/events/tcp/tcp_send_reset/format")));
    match format {
        Some(format) if format.contains(" reason;") => {
            Finding::ok(CHECK, "the kernel says who resets connections, and why")
        }
        Some(_) => Finding::ok(
            CHECK,
            format!("without a reason before Linux {}.{}: {EFFECT}", RESET_REASON.0, RESET_REASON.1),
        ),
        None => Finding::warning(
            CHECK,
            format!("the tracepoint cannot be read in {}: {EFFECT}", roots.join(", ")),
            "run tlstrace as root, on a kernel with CONFIG_FTRACE",
        ),
    }
}

fn unprivileged_bpf() -> Finding {
    const CHECK: &str = "unprivileged_bpf_disabled";
    Finding::ok(
        CHECK,
        match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
            Some("0") => "0: bpf() is open to all, which tlstrace does not need",
            Some("1" | "2") => "bpf() takes CAP_BPF, which tlstrace has to have anyway",
            _ => "not told",
        },
    )
}

fn jit() -> Finding {
    const CHECK: &str = "jit";
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Finding::warning(
            CHECK,
            "BPF programs are interpreted: each packet costs several times as much",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        // In another network namespace than the first the file is not there.
        Some(_) => Finding::ok(CHECK, "BPF programs are compiled"),
        None => Finding::ok(CHECK, "not told in this network namespace"),
    }
}

/// Two descriptors an interface, and a few for the rest. Memory of BPF maps counts against the control group from
/// Linux 5.11 on, not against `RLIMIT_MEMLOCK`.
fn limits(limits: &str) -> Finding {
    const CHECK: &str = "limits";
    const ENOUGH: u64 = 256;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    match soft.map(str::parse::<u64>) {
        Some(Ok(files)) if files < ENOUGH => Finding::warning(
            CHECK,
            format!("at most {files} open files: enough for {} interfaces", files.saturating_sub(32) / 2),
            "ulimit -n 4096",
        ),
        Some(_) => Finding::ok(CHECK, format!("{} open files", soft.unwrap_or_default())),
        None => Finding::ok(CHECK, "not told"),
    }
}

/// Where the program could not be started from.
fn noexec(mounts: &str) -> Finding {
    let paths = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, _, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let is_meant = ["/", "/home", "/root", "/tmp", "/var", "/opt", "/mnt"].contains(&path);
        (is_meant && options.split(',').any(|option| option == "noexec")).then_some(path)
    });
    let paths: Vec<_> = paths.collect();
    Finding::ok(
        "noexec",
        if paths.is_empty() {
            "no usual place for programs is mounted noexec".to_owned()
        } else {
            format!(
                "no program starts from {}: put tlstrace elsewhere (on Container-Optimized OS /var/lib/toolbox or \
             /mnt/disks)",
                paths.join(", ")
            )
        },
    )
}

/// Where file systems of a type are mounted.
fn mounted(mounts: &str, kind: &str) -> Vec<String> {
    let paths = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, found) = (fields.next()?, fields.next()?, fields.next()?);
        (found == kind).then(|| path.to_owned())
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn the_floor_is_5_15_and_tcx_begins_with_6_6() {
        let judged = |release| {
            let Finding { status, text, .. } = judge_kernel(release);
            (status, text.contains("clsact"))
        };
        assert_eq!(judged("5.10.0-28-cloud-amd64"), (Status::Problem, false));
        assert_eq!(judged("5.15.0-1051-gke"), (Status::Ok, true));
        assert_eq!(judged("6.1.58+"), (Status::Ok, true));
        assert_eq!(judged("6.6.0"), (Status::Ok, false));
        assert_eq!(judged("7.0"), (Status::Ok, false));
        assert_eq!(judged("unknown").0, Status::Warning);
    }

    #[test]
    fn mounts_tell_where_tracefs_is_and_where_nothing_can_be_executed() {
        let mounts = "overlay / overlay rw 0 0\ntmpfs /tmp tmpfs rw,nosuid,noexec 0 0\n\
                      tracefs /sys/kernel/tracing tracefs rw 0 0\n/dev/sda1 /home ext4 rw,noexec 0 0\n";
        assert_eq!(mounted(mounts, "tracefs"), ["/sys/kernel/tracing"]);
        assert!(noexec(mounts).text.contains("/tmp, /home"), "{}", noexec(mounts).text);
        assert_eq!(tracefs("").status, Status::Warning);
    }

    #[test]
    fn few_descriptors_are_worth_a_warning() {
        let line = |files| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax open files            {files}   4096   files\n"
            )
        };
        assert_eq!(limits(&line("64")).status, Status::Warning);
        assert_eq!(limits(&line("1024")).status, Status::Ok);
        assert_eq!(limits(&line("unlimited")).status, Status::Ok);
    }
}
