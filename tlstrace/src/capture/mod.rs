//! Where packets come in: everything that touches the kernel, and the only unsafe code of the tree.
//!
//! [`Capture`] is the live source: BPF programs on interfaces, and the ring buffer that they fill.

pub mod addresses;
mod attach;
mod btf;
mod choice;
pub mod clock;
pub mod file;
pub mod filters;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod health;
pub mod interfaces;
pub mod links;
pub mod listeners;
mod loader;
pub mod memory;
mod netlink;
pub mod occupants;
mod packet_socket;
pub mod priority;
pub mod privilege;
mod resets;
pub mod ring;
mod rtnetlink;
pub mod trial;
pub mod turnover;

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io, thread};

use anyhow::Context as _;
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::ProgramError;
use aya::programs::tc::TcError;
use aya_log::EbpfLogger;
use rustix::thread::CapabilitySet;
use tlstrace_common::config::{Control, Layout};
use tlstrace_common::event::{Event, TcpFlags};
use tlstrace_common::skip::Counter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time;

pub use self::attach::{AttachError, Hook, Mode};
use self::attach::{Attachment, attach};
pub use self::choice::Choice;
use self::clock::Clock;
use self::health::{Counters, Surroundings};
use self::interfaces::{Change, Interface, Monitor, Names, Selection};
use self::loader::Programs;
pub use self::loader::kernel_release;
use self::resets::Reports;
use self::ring::{Ring, Wait};
use self::turnover::Turn;
use crate::engine::resets::LocalReset;
use crate::engine::segment::{Direction, Segment};
use crate::engine::timestamp::Timestamp;

/// What to capture, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    pub interfaces: Selection,
    pub attach: Mode,
    pub choice: Choice,
    /// Room in the ring buffer, in bytes: a power of two, at least a page.
    pub ring_size: u32,
}

/// A network namespace, by what the user calls it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NetworkNamespace {
    /// That of a process.
    Process(u32),
    /// A file such as `/run/netns/NAME`.
    Path(PathBuf),
}

/// Why this process cannot trace here, with the remedy in words.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error(
        "tlstrace needs {0} to load its BPF programs and attach them. Run it as root:\n  \
         sudo tlstrace …\n  \
         on a GKE node: kubectl debug node/NODE -it --profile=sysadmin --image=IMAGE -- tlstrace …  \
         (the profile netadmin is too weak)"
    )]
    Privilege(String),
    #[error(
        "the kernel refuses bpf() although the capabilities are there, and a seccomp filter is active: it is that \
         filter which refuses.\n  \
         In the toolbox of Container-Optimized OS, write into ~/.toolboxrc\n    \
         TOOLBOX_ENV=\"--system-call-filter=bpf --system-call-filter=perf_event_open\"\n  \
         add --bind=/sys:/sys --bind=/proc:/proc to TOOLBOX_BIND there, and start the toolbox anew;\n  \
         or use kubectl debug node/NODE -it --profile=sysadmin --image=IMAGE -- tlstrace …"
    )]
    Seccomp,
    #[error(
        "the kernel refuses bpf() although the capabilities are there: they may hold in a user namespace only (a \
         rootless container), or kernel lockdown or a security module forbids it.\n  \
         Run tlstrace on the host: sudo tlstrace …\n  \
         on a GKE node: kubectl debug node/NODE -it --profile=sysadmin --image=IMAGE -- tlstrace …"
    )]
    Refused,
    #[error(
        "this kernel (Linux {release}) cannot {what}: {reason}\n  \
         tlstrace needs Linux 5.15 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF; `tlstrace replay` \
         reads packet captures without any of it"
    )]
    Kernel { what: &'static str, release: String, reason: String },
    #[error(
        "this kernel (Linux {release}) has no TCX, which came with Linux 6.6: use --attach auto or clsact"
    )]
    NoTcx { release: String },
}

/// The live source of segments. Dropping it detaches.
pub struct Capture {
    ring: Ring,
    /// What the kernel says of the RSTs that it sends, where it says anything.
    reports: Option<Reports>,
    monitor: Monitor,
    log: Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>,
    settings: Settings,
    control: Array<MapData, Control>,
    announced: Control,
    counters: PerCpuArray<MapData, u64>,
    /// Looked at early: later it would take a capability.
    is_of_node: Option<bool>,
    /// By interface index.
    attachments: BTreeMap<u32, Attachment>,
    programs: Programs,
}

/// What comes out of the ring.
#[derive(Debug)]
pub enum Input<'a> {
    Segment(Segment<'a>),
    Reset(LocalReset),
}

/// What happened while [`Capture::wait`] waited.
#[derive(Debug)]
pub enum Wake {
    /// It is time to drain the ring.
    Ring,
    /// Interfaces came, changed or went. An error says that some changes were missed.
    Interfaces(io::Result<Vec<Change>>),
}

impl Capture {
    /// Loads the programs and attaches them to all interfaces that are selected; needs a tokio runtime around it.
    ///
    /// `notes` receives what the user should know although it is no error.
    pub fn start(settings: Settings, notes: &mut Vec<String>) -> anyhow::Result<Self> {
        // Listen first: an interface that comes meanwhile is then found twice, not never.
        let monitor = Monitor::start()?;
        let chosen = settings.interfaces.choose(&interfaces::list()?)?;
        let kernel = resets::Kernel::read();
        let no_layout = Layout::default();
        let layout = kernel.as_ref().map_or(&no_layout, |kernel| &kernel.layout);
        let (mut programs, maps) =
            loader::load(settings.ring_size, settings.attach, &settings.choice, layout)?;
        let reports = kernel.and_then(|kernel| Reports::start(kernel, &mut programs));
        let reports = reports
            .inspect_err(|error| notes.push(format!("not known: which process sends a RST ({error:#})")))
            .ok();
        let log = maps.log.map(pollable).transpose();
        let mut capture = Self {
            ring: Ring::new(maps.events)?,
            reports,
            monitor,
            log: log.context("cannot poll the log of the BPF programs")?,
            settings,
            control: maps.control,
            announced: Control { consumer_sleeping: 0, warm_up: 1 },
            counters: maps.counters,
            is_of_node: is_in_namespace_of_node(),
            attachments: BTreeMap::new(),
            programs,
        };
        capture.announce()?;
        let mut failure = None;
        for interface in &chosen {
            match capture.add(interface) {
                Ok(note) => notes.extend(note),
                // Of many interfaces one may vanish or be of a strange kind; a refusal would hit them all.
                Err(error) if chosen.len() > 1 && !matches!(error, AttachError::Failed { .. }) => {
                    notes.push(error.to_string());
                    failure = Some(error);
                }
                Err(error) => return Err(flatten(error)),
            }
        }
        match failure {
            Some(error) if capture.attachments.is_empty() => Err(flatten(error)),
            _ => Ok(capture),
        }
    }

    /// Interfaces, their hooks, and why those: "eth0, gke123 (tcx, first in the chain)".
    pub fn describe(&self) -> String {
        let mut places = BTreeMap::<_, Vec<_>>::new();
        for Attachment { interface, hook, reason, .. } in self.attachments.values() {
            places.entry((*hook, reason.as_deref())).or_default().push(interface.name.clone());
        }
        let parts: Vec<_> = places
            .into_iter()
            .map(|((hook, reason), names)| match reason {
                None => format!("{} ({hook})", Names(&names)),
                Some(reason) => format!("{} ({hook}: {reason})", Names(&names)),
            })
            .collect();
        Names(&parts).to_string()
    }

    /// Hands over what is in the ring, oldest first and at most [`ring::BATCH`] events; says how many there were.
    pub fn drain(&mut self, clock: &Clock, mut handle: impl FnMut(Input<'_>)) -> usize {
        let Self { ring, reports, .. } = self;
        ring.drain(|event| match event {
            Event::Segment(event) => {
                let mut segment = ring::segment(event, clock);
                segment.is_own = segment.direction == Direction::Egress
                    && segment.has(TcpFlags::RST)
                    && reports
                        .as_ref()
                        .is_some_and(|reports| reports.covers(segment.source.ip(), segment.hop_limit));
                handle(Input::Segment(segment));
            }
            Event::Reset(report) => {
                if let Some(reports) = reports {
                    handle(Input::Reset(reports.translate(report, clock)));
                }
            }
        })
    }

    /// Events that could not be decoded: the program and userspace disagree, a bug.
    pub fn malformed(&self) -> u64 {
        self.ring.malformed()
    }

    /// Since when, at `now`, every RST of this node's kernel has been handed over.
    pub fn resets_told_since(&mut self, now: Timestamp) -> anyhow::Result<Option<Timestamp>> {
        let Some(reports) = &mut self.reports else { return Ok(None) };
        let unreported = health::count(&self.counters, Counter::ResetUnreported)
            .context("cannot read the BPF programs' counters")?;
        Ok(Some(reports.told_since(now, unreported)))
    }

    /// Takes the addresses of this network namespace: only a RST that leaves under one of them can be missed in the
    /// kernel's reports.
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) {
        if let Some(reports) = &mut self.reports {
            reports.set_own_addresses(addresses);
        }
    }

    /// Interfaces that are watched, by their index.
    pub fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        self.attachments.values().map(|attachment| &attachment.interface)
    }

    /// Whether nothing is watched and nothing can be expected to appear.
    pub fn has_ended(&self) -> bool {
        self.attachments.is_empty() && !self.settings.interfaces.is_open()
    }

    /// Lets a tick pass, and the thread with everything on it: a turn of the runtime, which polls all that may happen,
    /// takes longer than most looks at the ring.
    pub fn tick(&mut self, tick: Duration) -> io::Result<()> {
        self.announce_sleep(false)?;
        thread::sleep(tick);
        Ok(())
    }

    /// Gives everything else its turn, and waits as long as `wait` allows; a tick has passed already, see
    /// [`Capture::tick`]. Cancelling it loses nothing.
    pub async fn wait(&mut self, wait: Wait) -> io::Result<Wake> {
        self.announce_sleep(matches!(wait, Wait::Announce | Wait::Sleep))?;
        let Self { ring, monitor, log, .. } = self;
        let look = async {
            match wait {
                Wait::No | Wait::Tick(_) => tokio::task::yield_now().await,
                Wait::Announce => time::sleep(ring::TICK).await,
                Wait::Sleep => std::future::pending().await,
            }
        };
        tokio::pin!(look);
        loop {
            let woken = async {
                match wait {
                    Wait::No | Wait::Tick(_) => std::future::pending().await,
                    Wait::Announce | Wait::Sleep => ring.woken().await,
                }
            };
            tokio::select! {
                () = woken => return Ok(Wake::Ring),
                () = &mut look => return Ok(Wake::Ring),
                changes = monitor.changes() => return Ok(Wake::Interfaces(changes)),
                () = flush(log) => {}
            }
        }
    }

    /// Tells the programs whether to wake us.
    fn announce_sleep(&mut self, is_sleeping: bool) -> io::Result<()> {
        let sleeping = u32::from(is_sleeping);
        // Anew each time but for polling: a wake-up that came to nothing has taken it back.
        if is_sleeping || self.announced.consumer_sleeping != sleeping {
            self.announced.consumer_sleeping = sleeping;
            self.announce()?;
        }
        Ok(())
    }

    /// Follows a change; says what came of it.
    pub fn apply(&mut self, change: Change) -> Option<Turn> {
        match change {
            Change::Gone { index } => {
                let gone = self.attachments.remove(&index)?.interface;
                Some(Turn::Gone(gone.name))
            }
            Change::Present(interface) => {
                if let Some(attachment) = self.attachments.get_mut(&interface.index) {
                    // Packets are counted from when it was attached to.
                    let interface = Interface { packets: attachment.interface.packets, ..interface };
                    let was = std::mem::replace(&mut attachment.interface, interface);
                    let is = &attachment.interface;
                    return (was.is_up != is.is_up)
                        .then(|| Turn::State { name: is.name.clone(), is_up: is.is_up });
                }
                if !self.settings.interfaces.takes_newcomer(&interface.name) {
                    return None;
                }
                match self.add(&interface) {
                    Ok(_) => Some(Turn::Came(interface.name)),
                    Err(error @ AttachError::Gone(_)) => {
                        log::info!("{error}");
                        None
                    }
                    Err(error) => Some(Turn::Refused(error.to_string())),
                }
            }
        }
    }

    /// Looks for changes that no message told of.
    pub fn catch_up(&mut self) -> anyhow::Result<Vec<Change>> {
        let present = interfaces::list()?;
        let is_present = |index: u32| present.iter().any(|interface| interface.index == index);
        let gone = self.attachments.keys().filter(|index| !is_present(**index));
        let gone: Vec<_> = gone.map(|index| Change::Gone { index: *index }).collect();
        Ok(gone.into_iter().chain(present.into_iter().map(Change::Present)).collect())
    }

    /// Whether connections that began before the programs were there are looked at too. If not, connections are
    /// followed from their SYN only, and the data of others is left alone.
    pub fn set_warm_up(&mut self, is_warming_up: bool) -> io::Result<()> {
        self.announced.warm_up = is_warming_up.into();
        self.announce()
    }

    /// What can explain that nothing is seen.
    pub fn surroundings(&self) -> Surroundings {
        let present = interfaces::list().unwrap_or_default();
        let carried = present.iter().filter_map(|interface| {
            let before = self.attachments.get(&interface.index)?.interface.packets;
            Some(interface.packets.saturating_sub(before))
        });
        Surroundings { carried: carried.sum(), is_of_node: self.is_of_node }
    }

    /// The programs' counters, summed over the CPUs.
    pub fn counters(&self) -> anyhow::Result<Counters> {
        Counters::read(&self.counters).context("cannot read the BPF programs' counters")
    }

    /// How many events did not fit into the ring.
    pub fn lost_events(&self) -> anyhow::Result<u64> {
        let lost = health::count(&self.counters, Counter::RingFull);
        lost.context("cannot read the BPF programs' counters")
    }

    /// Gives up, for good, every capability that is not needed to go on, and says which were kept.
    ///
    /// To be called from the process's only thread: capabilities are per thread.
    pub fn renounce_privileges(&mut self) -> anyhow::Result<CapabilitySet> {
        let mut keep = CapabilitySet::empty();
        if self.settings.interfaces.can_grow() {
            // Verified while that is still allowed.
            keep |= self.programs.prepare(self.settings.attach)?;
        }
        if self.attachments.values().any(|attachment| attachment.hook == Hook::Clsact) {
            // To remove the filters; a TCX link ends with its descriptor.
            keep |= CapabilitySet::NET_ADMIN;
        }
        privilege::lower(keep)?;
        // Before Linux 5.19 a kernel that keeps bpf() from the unprivileged keeps them from their own maps too
        // (commit c8644cd0efe7).
        if self.announce().is_err() || self.counters().is_err() {
            keep |= CapabilitySet::BPF;
        }
        Ok(privilege::renounce(keep)?)
    }

    /// Takes the programs off all interfaces. What they wrote can still be drained.
    pub fn detach(&mut self) {
        self.attachments.clear();
        self.reports = None;
    }

    fn add(&mut self, interface: &Interface) -> Result<Option<String>, AttachError> {
        let mut attachment = attach(&mut self.programs, interface, self.settings.attach)?;
        // Attaching goes by name, and the name may have passed to another interface meanwhile.
        if interfaces::index_of(&interface.name) != Some(interface.index) {
            return Err(AttachError::Gone(interface.name.clone()));
        }
        let note = attachment.note.take();
        self.attachments.insert(interface.index, attachment);
        let down = (!interface.is_up)
            .then(|| format!("{interface} is down: attached, but it carries nothing until it is up"));
        Ok(down.or(note))
    }

    fn announce(&mut self) -> io::Result<()> {
        self.control.set(0, self.announced, 0).map_err(io::Error::other)
    }
}

/// Makes the calling thread see another network namespace. To be called before threads are started.
pub fn enter(namespace: &NetworkNamespace) -> anyhow::Result<()> {
    let path = match namespace {
        NetworkNamespace::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
        NetworkNamespace::Path(path) => path.clone(),
    };
    let file =
        fs::File::open(&path).with_context(|| format!("cannot open network namespace {}", path.display()))?;
    // SAFETY: setns(2) takes a descriptor, which `file` keeps open, and touches no memory of ours.
    if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let code = error.raw_os_error();
    let error =
        anyhow::Error::new(error).context(format!("cannot enter network namespace {}", path.display()));
    Err(match code {
        Some(libc::EPERM) => error.context(Unavailable::Privilege("CAP_SYS_ADMIN (for --netns)".to_owned())),
        _ => error,
    })
}

/// Gives up, of the calling thread, all rights but those to find out which process holds a socket.
pub fn keep_rights_to_look_at_processes() -> io::Result<()> {
    privilege::renounce(CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH).map(drop)
}

/// Gives up all rights of the calling thread.
pub fn keep_no_rights() -> io::Result<()> {
    privilege::renounce(CapabilitySet::empty()).map(drop)
}

/// Whether the calling thread is in the network namespace of process 1, where that is the node's first process and may
/// be looked at.
pub fn is_in_namespace_of_node() -> Option<bool> {
    /// Inode of the first process id namespace of every Linux (`PROC_PID_INIT_INO` of `linux/proc_ns.h`).
    const NODE: &str = "pid:[4026531836]";
    if fs::read_link("/proc/self/ns/pid").ok()?.to_str() != Some(NODE) {
        return None;
    }
    Some(fs::read_link("/proc/1/ns/net").ok()? == fs::read_link("/proc/thread-self/ns/net").ok()?)
}

/// Registers a descriptor with the tokio runtime around it, to be told when it can be read.
fn pollable<T: AsFd + AsRawFd>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what implements `AsFd` keeps its descriptor open as long as it lives, and the types given here
    // always return the same one.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Passes on what the BPF programs logged.
async fn flush(log: &mut Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>) {
    let Some(log) = log else { return std::future::pending().await };
    match log.readable_mut().await {
        Ok(mut guard) => {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
        Err(_) => std::future::pending().await,
    }
}

/// [`Unavailable`] must be found again by a downcast.
fn flatten(error: AttachError) -> anyhow::Error {
    match error {
        AttachError::Failed { name, error } if error.is::<Unavailable>() => {
            log::debug!("attaching to {name}: {error:#}");
            error
        }
        error => error.into(),
    }
}

/// The system's error number behind an error of aya's, whose own chain does not always show it.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        let tc = match error.downcast_ref::<ProgramError>() {
            Some(ProgramError::TcError(error)) => Some(error),
            _ => error.downcast_ref::<TcError>(),
        };
        match tc {
            Some(TcError::NetlinkError(error)) => return error.raw_os_error(),
            Some(TcError::IoError(error)) => return error.raw_os_error(),
            _ => next = error.source(),
        }
    }
    None
}
