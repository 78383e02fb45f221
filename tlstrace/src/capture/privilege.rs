//! What this process may do, and how it gives that up: capabilities (capabilities(7)), seccomp, `no_new_privs`.

use std::{fs, io};

use rustix::thread::{self, CapabilitySet, CapabilitySets};

use super::attach::Mode;

/// What the kernel says of this process's rights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Privilege {
    /// Capabilities in force.
    pub effective: CapabilitySet,
    /// Capabilities that the process could put in force.
    pub permitted: CapabilitySet,
    /// Capabilities that no program it executes can exceed.
    pub bounding: CapabilitySet,
    /// Whether a seccomp filter looks at system calls.
    pub is_filtered: bool,
}

impl Privilege {
    /// What loading the programs and attaching them to tc hooks takes. `CAP_SYS_ADMIN` stands in for all but `CAP_NET_ADMIN`.
    pub const NEEDED: CapabilitySet =
        CapabilitySet::BPF.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::PERFMON);

    /// Of the calling thread.
    pub fn read() -> Self {
        // Without /proc nothing is known: assume the best and let the kernel answer.
        fs::read_to_string("/proc/thread-self/status")
            .map_or_else(|_| Self::parse(""), |status| Self::parse(&status))
    }

    fn parse(status: &str) -> Self {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let set = |name| {
            let bits = field(name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
            CapabilitySet::from_bits_retain(bits.unwrap_or(u64::MAX))
        };
        Self {
            effective: set("CapEff:"),
            permitted: set("CapPrm:"),
            bounding: set("CapBnd:"),
            is_filtered: field("Seccomp:") == Some("2"),
        }
    }

    /// Whether the verifier forbids what it allows to others, pointer arithmetic for instance
    /// (`allow_ptr_leaks` of `kernel/bpf/verifier.c`).
    pub fn is_distrusted(self) -> bool {
        Self::lacking(self.effective).contains(CapabilitySet::PERFMON)
    }

    /// The capabilities without which nothing can be tried.
    pub(super) fn missing(self, mode: Mode) -> Option<String> {
        let mut missing = Self::lacking(self.effective).difference(CapabilitySet::PERFMON);
        if mode == Mode::Packet || mode == Mode::Auto && self.effective.contains(CapabilitySet::NET_RAW) {
            missing.remove(CapabilitySet::NET_ADMIN);
        }
        if mode == Mode::Packet {
            missing |= CapabilitySet::NET_RAW.difference(self.effective);
        }
        (!missing.is_empty()).then(|| names(missing).join(" and "))
    }

    /// What of [`Self::NEEDED`] is not covered by `held`.
    pub fn lacking(held: CapabilitySet) -> CapabilitySet {
        let implied = if held.contains(CapabilitySet::SYS_ADMIN) {
            CapabilitySet::BPF.union(CapabilitySet::PERFMON)
        } else {
            CapabilitySet::empty()
        };
        Self::NEEDED.difference(held.union(implied))
    }
}

/// `CAP_BPF`, `CAP_NET_ADMIN` …
pub fn names(set: CapabilitySet) -> Vec<String> {
    // In the order of the words, not of the bits.
    let mut names: Vec<_> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.sort();
    names
}

/// Whether `perf_event_open(2)` reaches the kernel: a seccomp filter answers before the kernel looks at its argument.
pub fn may_open_perf_events() -> bool {
    let (any_cpu, no_group, no_flags) = (-1, -1, 0);
    // SAFETY: the null pointer is what makes the call fail; nothing is read or written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::null::<libc::c_void>(),
            0,
            any_cpu,
            no_group,
            no_flags,
        )
    };
    result != -1 || io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

/// Puts only these capabilities in force. The others can be had back until [`renounce`].
pub(super) fn lower(keep: CapabilitySet) -> io::Result<()> {
    let held = thread::capabilities(None)?;
    thread::set_capabilities(None, CapabilitySets { effective: held.permitted & keep, ..held })?;
    Ok(())
}

/// Gives up all capabilities but these for good, of this thread and of those it will start, and what
/// executing a program could give back.
pub fn renounce(keep: CapabilitySet) -> io::Result<CapabilitySet> {
    thread::set_no_new_privs(true)?;
    let kept = thread::capabilities(None)?.permitted & keep;
    thread::set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_the_seccomp_mode_are_read_from_proc_status() {
        let root = Privilege::parse("Name:\ttlstrace\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n");
        assert_eq!(root.missing(Mode::Auto), None);
        assert!(!root.is_filtered);
        let toolbox = Privilege::parse("CapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        assert!(toolbox.is_filtered);
    }

    #[test]
    fn what_is_missing_is_named() {
        let nobody = Privilege::parse("CapEff:\t0000000000000000\n");
        assert_eq!(nobody.missing(Mode::Auto).unwrap(), "CAP_BPF and CAP_NET_ADMIN");
        assert_eq!(nobody.missing(Mode::Packet).unwrap(), "CAP_BPF and CAP_NET_RAW");
        let net_admin = Privilege { effective: CapabilitySet::NET_ADMIN, ..nobody };
        assert_eq!(net_admin.missing(Mode::Clsact).unwrap(), "CAP_BPF");
        let net_raw = Privilege { effective: CapabilitySet::BPF | CapabilitySet::NET_RAW, ..nobody };
        assert_eq!((net_raw.missing(Mode::Auto), net_raw.missing(Mode::Packet)), (None, None));
        assert_eq!(net_raw.missing(Mode::Tcx).unwrap(), "CAP_NET_ADMIN");
    }

    #[test]
    fn cap_sys_admin_stands_in_for_cap_bpf_and_cap_perfmon() {
        let held = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert!(Privilege::lacking(held).is_empty());
        assert_eq!(names(Privilege::lacking(CapabilitySet::SYS_ADMIN)), ["CAP_NET_ADMIN"]);
    }
}
