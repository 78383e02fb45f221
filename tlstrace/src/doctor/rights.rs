//! What this process may do: capabilities, user namespace, seccomp, security modules.

use rustix::thread::CapabilitySet;

use super::{Finding, read};
use crate::capture::Unavailable;
use crate::capture::privilege::{self, Privilege};
use crate::capture::trial::Trial;

pub(super) fn examine(privilege: Privilege, trial: &Trial) -> Vec<Finding> {
    let refuses = matches!(
        trial.loaded.as_ref().err().and_then(|error| error.downcast_ref::<Unavailable>()),
        Some(Unavailable::Seccomp)
    );
    vec![
        capabilities(privilege),
        user_namespace(&read("/proc/self/uid_map").unwrap_or_default()),
        seccomp(privilege, refuses),
        security_modules(),
        lockdown(read("/sys/kernel/security/lockdown").as_deref()),
    ]
}

fn capabilities(privilege: Privilege) -> Finding {
    const CHECK: &str = "capabilities";
    let missing = Privilege::lacking(privilege.effective);
    if missing.is_empty() {
        let held = privilege.effective & Privilege::NEEDED;
        let mut text = privilege::names(held | (privilege.effective & CapabilitySet::SYS_ADMIN)).join(", ");
        if !privilege.effective.contains(CapabilitySet::SYS_ADMIN) {
            text += "; without CAP_SYS_ADMIN neither --netns nor a list of other programs";
        }
        if !privilege.effective.contains(CapabilitySet::NET_RAW) {
            text += "; without CAP_NET_RAW no --attach packet";
        }
        return Finding::ok(CHECK, text);
    }
    let names = privilege::names(missing).join(", ");
    if !Privilege::lacking(privilege.bounding).is_empty() {
        return Finding::problem(
            CHECK,
            format!("{names} missing, and kept from this container, root or not"),
            "on the host: sudo tlstrace …; on a GKE node: kubectl debug node/NODE -it --profile=sysadmin --image=IMAGE -- \
             tlstrace … (the profile netadmin is too weak); in a manifest: securityContext.capabilities.add: \
             [BPF, NET_ADMIN, PERFMON]",
        );
    }
    if Privilege::lacking(privilege.permitted).is_empty() {
        return Finding::problem(CHECK, format!("{names} permitted but not in force"), "sudo tlstrace …");
    }
    Finding::problem(
        CHECK,
        format!("{names} missing"),
        "sudo tlstrace …; or once, as root: setcap cap_bpf,cap_net_admin,cap_perfmon+ep tlstrace",
    )
}

/// In a user namespace capabilities hold for its own things only, and `bpf()` is not among them.
fn user_namespace(uid_map: &str) -> Finding {
    const CHECK: &str = "user namespace";
    let fields: Vec<_> = uid_map.split_whitespace().collect();
    match fields.as_slice() {
        [] => Finding::ok(CHECK, "not told"),
        ["0", "0", "4294967295"] => Finding::ok(CHECK, "the host's"),
        _ => Finding::problem(
            CHECK,
            "one of its own (a rootless container): capabilities hold inside it only, and bpf() is outside",
            "run tlstrace on the host: sudo tlstrace …",
        ),
    }
}

fn seccomp(privilege: Privilege, refuses: bool) -> Finding {
    const CHECK: &str = "seccomp";
    if !privilege.is_filtered {
        return Finding::ok(CHECK, "no filter");
    }
    if refuses {
        return Finding::problem(
            CHECK,
            "a filter refuses bpf()",
            "in the toolbox of Container-Optimized OS, write into ~/.toolboxrc\n\
             TOOLBOX_ENV=\"--system-call-filter=bpf --system-call-filter=perf_event_open\"\n\
             TOOLBOX_BIND=\"--bind=/sys:/sys --bind=/proc:/proc\"\n\
             and start the toolbox anew; or use kubectl debug node/NODE -it --profile=sysadmin --image=IMAGE -- tlstrace …; \
             with Docker: --security-opt seccomp=unconfined",
        );
    }
    if !Privilege::lacking(privilege.effective).is_empty() {
        return Finding::ok(
            CHECK,
            "a filter is active; what it refuses shows once the capabilities are there",
        );
    }
    if !privilege::may_open_perf_events() {
        return Finding::warning(
            CHECK,
            "a filter lets bpf() pass and refuses perf_event_open(): verdicts do not say which process reset a connection",
            "in the toolbox of Container-Optimized OS: --system-call-filter=perf_event_open in TOOLBOX_ENV of ~/.toolboxrc",
        );
    }
    Finding::ok(CHECK, "a filter is active and lets bpf() pass")
}

fn security_modules() -> Finding {
    const CHECK: &str = "security modules";
    let label = read("/proc/self/attr/apparmor/current").or_else(|| read("/proc/self/attr/current"));
    let label = label.map(|label| label.trim_end_matches('\0').to_owned()).filter(|label| !label.is_empty());
    let modules = read("/sys/kernel/security/lsm").unwrap_or_else(|| "not told".to_owned());
    match label {
        Some(label) if label.ends_with("(enforce)") => Finding::warning(
            CHECK,
            format!("confined by the AppArmor profile {label}, which may refuse what is tried below"),
            "run it unconfined: --security-opt apparmor=unconfined, or appArmorProfile: {type: Unconfined}",
        ),
        Some(label) => Finding::ok(CHECK, format!("{modules}; this process is {label}")),
        None => Finding::ok(CHECK, modules),
    }
}

/// `[none] integrity confidentiality`: the mode in brackets is in force (`kernel_lockdown.7`).
fn lockdown(modes: Option<&str>) -> Finding {
    const CHECK: &str = "lockdown";
    let mode = modes.and_then(|modes| modes.split_once('[')?.1.split_once(']')).map(|(mode, _)| mode);
    match mode {
        None => Finding::ok(CHECK, "not told"),
        Some("confidentiality") => Finding::warning(
            CHECK,
            "confidentiality: programs may not read kernel memory, and tracefs is closed; tlstrace reads packets only, but \
             then does not say which process reset a connection",
            "boot without lockdown=confidentiality, if that is wanted",
        ),
        Some(mode) => Finding::ok(CHECK, mode),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    fn privilege(effective: CapabilitySet) -> Privilege {
        Privilege { effective, permitted: effective, bounding: CapabilitySet::all(), is_filtered: false }
    }

    #[test]
    fn missing_capabilities_are_named_with_the_way_to_them() {
        let found = capabilities(privilege(CapabilitySet::NET_ADMIN));
        assert_eq!(found.status, Status::Problem);
        assert_eq!(found.text, "CAP_BPF, CAP_PERFMON missing");
        assert!(found.fix.unwrap().contains("setcap"));
        let container =
            Privilege { bounding: CapabilitySet::NET_ADMIN, ..privilege(CapabilitySet::NET_ADMIN) };
        assert!(capabilities(container).fix.unwrap().contains("--profile=sysadmin"));
    }

    #[test]
    fn three_capabilities_are_enough_and_what_they_do_not_allow_is_said() {
        let found = capabilities(privilege(Privilege::NEEDED));
        assert_eq!(found.status, Status::Ok);
        assert!(found.text.contains("--netns") && found.text.contains("--attach packet"), "{}", found.text);
    }

    #[test]
    fn a_filter_that_refuses_is_a_problem_with_the_lines_for_toolboxrc() {
        let filtered = Privilege { is_filtered: true, ..privilege(Privilege::NEEDED) };
        let found = seccomp(filtered, true);
        assert_eq!(found.status, Status::Problem);
        let fix = found.fix.unwrap();
        for line in [
            "TOOLBOX_ENV=\"--system-call-filter=bpf --system-call-filter=perf_event_open\"",
            "TOOLBOX_BIND=\"--bind=/sys:/sys --bind=/proc:/proc\"",
        ] {
            assert!(fix.lines().any(|found| found == line), "{fix}");
        }
        assert_eq!(seccomp(filtered, false).status, Status::Ok);
    }

    #[test]
    fn a_user_namespace_and_lockdown_are_read_from_the_kernels_words() {
        assert_eq!(user_namespace("         0          0 4294967295").status, Status::Ok);
        assert_eq!(user_namespace("0 100000 65536").status, Status::Problem);
        assert_eq!(lockdown(Some("none [integrity] confidentiality")).text, "integrity");
        assert_eq!(lockdown(Some("none integrity [confidentiality]")).status, Status::Warning);
    }
}
