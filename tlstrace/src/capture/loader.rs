//! Loads the BPF object that is built into the program, and says in words why that is refused.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read as _;
use std::{fmt, fs};

use anyhow::Context as _;
use aya::maps::{Array, MapData, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::raw_trace_point::RawTracePointLink;
use aya::programs::{Program, ProgramError, ProgramFd, RawTracePoint, SchedClassifier, SocketFilter};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use flate2::read::ZlibDecoder;
use rustix::thread::CapabilitySet;
use tlstrace_common::config::{Control, Layout};
use tlstrace_common::symbols;

use super::attach::Mode;
use super::choice::Choice;
use super::filters::Claim;
use super::privilege::Privilege;
use super::{Unavailable, errno};

/// The BPF programs, as `build.rs` compresses them.
static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tlstrace.bpf.o.z"));

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
/// `layout` is for [`Programs::attach_reset`], and does not matter otherwise. Programs are loaded, that is verified,
/// when they are first asked for.
pub(super) fn load(
    ring: u32,
    mode: Mode,
    choice: &Choice,
    layout: &Layout,
) -> anyhow::Result<(Programs, Maps)> {
    let privilege = Privilege::read();
    if let Some(missing) = privilege.missing(mode) {
        return Err(Unavailable::Privilege(missing).into());
    }
    // What is below the level costs the programs nothing: the verifier removes it.
    let level = log::max_level() as u8;
    let (by, ports) = choice.globals();
    let mut object = Vec::new();
    ZlibDecoder::new(COMPRESSED).read_to_end(&mut object).context("the BPF object is broken")?;
    let mut loader = EbpfLoader::new();
    choice.size(&mut loader);
    let mut ebpf = loader
        .map_max_entries(symbols::EVENTS, ring)
        .override_global(aya_log::LEVEL, &level, false)
        .override_global(symbols::LAYOUT, layout, true)
        .override_global(symbols::CHOICE, &by, true)
        .override_global(symbols::PORTS, &ports, true)
        .load(&object)
        .map_err(|error| refused(error, "create its BPF maps", &privilege))?;
    choice.fill(&mut ebpf)?;
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
    /// The classifier of that name, verified and ready to be attached.
    pub(super) fn classifier(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        Ok(self.joined(name, symbols::PROGRAM_SELECT, symbols::SELECT)?.try_into()?)
    }

    /// The socket filter of that name, verified and ready to be attached.
    pub(super) fn filter(&mut self, name: &str) -> anyhow::Result<&mut SocketFilter> {
        Ok(self.joined(name, symbols::PROGRAM_TAP_SELECT, symbols::TAP_SELECT)?.try_into()?)
    }

    /// Loads whatever an interface that appears later may need; says which capabilities attaching it will take.
    pub(super) fn prepare(&mut self, mode: Mode) -> anyhow::Result<CapabilitySet> {
        let held = Privilege::read().effective;
        let mut needed = CapabilitySet::empty();
        if mode != Mode::Packet && held.contains(CapabilitySet::NET_ADMIN) {
            symbols::PROGRAMS.iter().try_for_each(|name| self.classifier(name).map(drop))?;
            needed |= CapabilitySet::NET_ADMIN;
        }
        if matches!(mode, Mode::Packet | Mode::Auto) && held.contains(CapabilitySet::NET_RAW) {
            symbols::TAPS.iter().try_for_each(|name| self.filter(name).map(drop))?;
            needed |= CapabilitySet::NET_RAW;
        }
        Ok(needed)
    }

    /// A program, verified, whose tail calls through `array` lead to `rest`.
    fn joined(&mut self, name: &str, rest: &str, array: &str) -> anyhow::Result<&mut Program> {
        if self.program(rest)?.fd().is_err() {
            let fd = self.verified(rest)?.fd()?.try_clone()?;
            self.continue_with(array, &fd)?;
        }
        self.verified(name)
    }

    fn verified(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        let program = self.program(name)?;
        if program.fd().is_err() {
            let loaded = match program {
                Program::SchedClassifier(classifier) => classifier.load(),
                Program::SocketFilter(filter) => filter.load(),
                _ => Err(ProgramError::UnexpectedProgramType),
            };
            loaded.map_err(|error| not_loaded(name, error))?;
        }
        self.program(name)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("the BPF object has no program {name}"))
    }

    /// Says where the tail calls through a program array lead. The kernel empties the array when nobody has it open
    /// any more: a program that a killed run has left behind does nothing then but look at headers.
    fn continue_with(&mut self, array: &str, program: &ProgramFd) -> anyhow::Result<()> {
        let map = self.ebpf.map_mut(array).with_context(|| format!("the BPF object has no map {array}"))?;
        ProgramArray::try_from(map)?.set(0, program, 0).context("cannot join the BPF programs")
    }

    /// Loads the program of the tracepoint [`symbols::SEND_RESET`] and attaches it, for as long as the link lives.
    pub(super) fn attach_reset(&mut self) -> anyhow::Result<RawTracePointLink> {
        let program = self.ebpf.program_mut(symbols::PROGRAM_RESET);
        let program = program.context("the BPF object does not have its program")?;
        let program: &mut RawTracePoint = program.try_into()?;
        program.load().context("its program cannot be loaded")?;
        let link = program.attach(symbols::SEND_RESET).context("it cannot be attached to")?;
        Ok(program.take_link(link)?)
    }

    /// Marks the program's clsact filters as in use while `self` lives.
    pub(super) fn claim(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.claims.contains_key(name) {
            let id = self.classifier(name)?.info()?.id();
            let claim = Claim::new(id).with_context(|| format!("cannot claim BPF program {id}"))?;
            self.claims.insert(name.to_owned(), claim);
        }
        Ok(())
    }
}

/// Why the kernel does not take a program.
fn not_loaded(name: &str, error: ProgramError) -> anyhow::Error {
    let privilege = Privilege::read();
    if privilege.is_distrusted() {
        return anyhow::Error::new(error).context(Unavailable::Privilege("CAP_PERFMON".to_owned()));
    }
    match rejection(name, &error) {
        Some(rejection) => rejection,
        None => refused(error, "load its BPF programs", &privilege),
    }
}

/// Turns the kernel's refusal into [`Unavailable`] where the reason is known.
fn refused<E: Error + Send + Sync + 'static>(
    error: E,
    what: &'static str,
    privilege: &Privilege,
) -> anyhow::Error {
    let unavailable = match errno(&error) {
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

/// What to say when it was the verifier that refused: a bug of ours, not a missing right.
fn rejection(name: &str, error: &ProgramError) -> Option<anyhow::Error> {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return None };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().collect();
    // The reason stands at the end, after up to megabytes of instructions.
    let end = lines.get(lines.len().saturating_sub(8)..)?.join("\n  ");
    (!end.trim().is_empty()).then(|| {
        let release = kernel_release();
        anyhow::anyhow!(
            "the verifier of Linux {release} rejects the BPF program {name} ({io_error}). \
             Please report this with the end of its log:\n  {end}"
        )
    })
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

/// Of the running kernel, as `uname -r` prints it.
pub fn kernel_release() -> String {
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
