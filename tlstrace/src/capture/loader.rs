//! Loads the BPF object that is built into the program, and says in words why that is refused.

use std::collections::BTreeMap;
use std::error::Error;
use std::{fmt, fs};

use anyhow::Context as _;
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use tlstrace_common::config::Control;
use tlstrace_common::symbols;

use super::attach::Claim;
use super::{Unavailable, errno};

/// The BPF programs, compiled from `tlstrace-ebpf` and committed (`cargo xtask ebpf`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tlstrace-ebpf/object/tlstrace.bpf.o"
));

/// The loaded object: its programs.
pub(super) struct Programs {
    ebpf: Ebpf,
    claims: BTreeMap<String, Claim>,
}

/// The loaded object: its maps, as userspace uses them.
pub(super) struct Maps {
    pub(super) events: RingBuf<MapData>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) control: Array<MapData, Control>,
    /// The programs' own log.
    pub(super) log: Option<EbpfLogger<&'static dyn log::Log>>,
}

/// Creates the maps, with room for `ring` bytes of events (a power of two, at least a page).
///
/// Programs are loaded, that is verified, when [`Programs::get`] first asks for them.
pub(super) fn load(ring: u32) -> anyhow::Result<(Programs, Maps)> {
    let privilege = Privilege::read();
    if let Some(missing) = privilege.missing() {
        return Err(Unavailable::Privilege(missing).into());
    }
    // What is below the level costs the programs nothing: the verifier removes it.
    let level = log::max_level() as u8;
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(symbols::EVENTS, ring)
        .override_global(aya_log::LEVEL, &level, false)
        .load(OBJECT)
        .map_err(|error| refused(error, "create its BPF maps", &privilege))?;
    let maps = Maps {
        events: RingBuf::try_from(take(&mut ebpf, symbols::EVENTS)?)?,
        counters: PerCpuArray::try_from(take(&mut ebpf, symbols::COUNTERS)?)?,
        control: Array::try_from(take(&mut ebpf, symbols::CONTROL)?)?,
        log: EbpfLogger::init(&mut ebpf)
            .inspect_err(|error| log::debug!("the BPF programs' own log is not available: {error}"))
            .ok(),
    };
    Ok((Programs { ebpf, claims: BTreeMap::new() }, maps))
}

impl Programs {
    /// The program of that name, verified and ready to be attached.
    pub(super) fn get(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(name);
        let program = program.with_context(|| format!("the BPF object has no program {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(error, "load its BPF programs", &Privilege::read()))?;
        }
        Ok(program)
    }

    /// Marks the program's clsact filters as in use while `self` lives.
    pub(super) fn claim(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.claims.contains_key(name) {
            let id = self.get(name)?.info()?.id();
            let claim = Claim::new(id).with_context(|| format!("cannot claim BPF program {id}"))?;
            self.claims.insert(name.to_owned(), claim);
        }
        Ok(())
    }
}

/// What the kernel says of this process's rights.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Privilege {
    /// Effective capabilities, one bit each (linux/capability.h).
    capabilities: u64,
    /// Whether a seccomp filter looks at system calls.
    is_filtered: bool,
}

impl Privilege {
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;

    fn read() -> Self {
        // Without /proc nothing is known: assume the best and let the kernel answer.
        match fs::read_to_string("/proc/self/status") {
            Ok(status) => Self::parse(&status),
            Err(_) => Self { capabilities: u64::MAX, is_filtered: false },
        }
    }

    fn parse(status: &str) -> Self {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Self {
            capabilities: field("CapEff:")
                .and_then(|hex| u64::from_str_radix(hex, 16).ok())
                .unwrap_or(u64::MAX),
            is_filtered: field("Seccomp:") == Some("2"),
        }
    }

    fn has(self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }

    /// The capabilities that are needed and not there.
    fn missing(self) -> Option<String> {
        let mut missing = Vec::new();
        if !self.has(Self::CAP_BPF) && !self.has(Self::CAP_SYS_ADMIN) {
            missing.push("CAP_BPF");
        }
        if !self.has(Self::CAP_NET_ADMIN) {
            missing.push("CAP_NET_ADMIN");
        }
        (!missing.is_empty()).then(|| missing.join(" and "))
    }
}

/// Turns the kernel's refusal into [`Unavailable`] where the reason is known.
fn refused<E: Error + Send + Sync + 'static>(
    error: E,
    what: &'static str,
    privilege: &Privilege,
) -> anyhow::Error {
    let unavailable = match errno(&error) {
        Some(libc::EPERM | libc::EACCES) if is_verifier(&error) => None,
        Some(libc::EPERM | libc::EACCES) if privilege.is_filtered => Some(Unavailable::Seccomp),
        Some(libc::EPERM | libc::EACCES) => Some(Unavailable::Refused),
        Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => {
            Some(Unavailable::Kernel { what, release: kernel_release(), reason: chain(&error) })
        }
        _ => None,
    };
    let error = anyhow::Error::new(error).context(format!("cannot {what}"));
    match unavailable {
        Some(unavailable) => error.context(unavailable),
        None => error,
    }
}

/// Whether the verifier rejected a program (EACCES, with a log): a bug, not a missing right.
fn is_verifier(error: &(dyn Error + 'static)) -> bool {
    use aya::programs::ProgramError;
    matches!(
        error.downcast_ref::<ProgramError>(),
        Some(ProgramError::LoadError { verifier_log, .. }) if !verifier_log.to_string().trim().is_empty()
    )
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<aya::maps::Map> {
    ebpf.take_map(name).with_context(|| format!("the BPF object has no map {name}"))
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ebpf.programs().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_and_the_seccomp_mode_are_read_from_proc_status() {
        let root = Privilege::parse("Name:\ttlstrace\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n");
        assert_eq!(root.missing(), None);
        assert!(!root.is_filtered);
        let toolbox = Privilege::parse("CapEff:\t000001ffffffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        assert!(toolbox.is_filtered);
    }

    #[test]
    fn what_is_missing_is_named() {
        let nobody = Privilege::parse("CapEff:\t0000000000000000\n");
        assert_eq!(nobody.missing().unwrap(), "CAP_BPF and CAP_NET_ADMIN");
        let net_admin = Privilege { capabilities: 1 << Privilege::CAP_NET_ADMIN, is_filtered: false };
        assert_eq!(net_admin.missing().unwrap(), "CAP_BPF");
    }

    #[test]
    fn cap_sys_admin_stands_in_for_cap_bpf() {
        let old = Privilege {
            capabilities: 1 << Privilege::CAP_SYS_ADMIN | 1 << Privilege::CAP_NET_ADMIN,
            is_filtered: false,
        };
        assert_eq!(old.missing(), None);
    }
}
