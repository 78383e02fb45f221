//! Who sits on the TC hooks of an interface: TCX programs, and the filters of clsact, tlstrace's own among them.
//!
//! A TCX link ends with the process that holds it. A clsact filter outlives it: hence `Claim`, by which
//! a later run recognises what a killed one has left behind, and [`sweep`], which removes it and nothing else.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context as _;
use aya::programs::tc::{SchedClassifierLink, TcHandle};
use aya::programs::{Link as _, SchedClassifier, TcAttachType};
use tlstrace_common::symbols;

use super::errno;
use super::interfaces::Interface;
use super::rtnetlink::{self, Attributes, Filter};

/// Both hooks of an interface.
pub const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Handle of a clsact filter of ours: far from 0x1, which is what Cilium uses and what an automatic handle
/// at priority 1 becomes (datadog-agent#13762).
pub(super) const FIRST_HANDLE: u16 = 0x7415;
/// How many programs of ours find room beside each other on one hook: handles are every second number.
pub(super) const HANDLES: u16 = 8;

/// Where a clsact filter sits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) interface: u32,
    pub(super) direction: TcAttachType,
    pub(super) priority: u16,
    pub(super) handle: TcHandle,
}

/// A BPF program by what the kernel says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    pub id: u32,
    /// At most 15 bytes, which is what the kernel keeps; of a filter, what its owner called it.
    pub name: String,
}

/// A clsact filter as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    pub(super) place: Place,
    /// `bpf`, `matchall`, `u32` …
    kind: String,
    /// What a BPF filter runs.
    program: Option<Program>,
}

/// What [`sweep`] did with a filter, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// A killed run had left it; it is gone.
    Removed,
    /// A killed run has left it; it stays because nothing was to be changed.
    Removable,
    /// A run that lives uses it.
    InUse,
    /// It is not tlstrace's, by its name or by its handle.
    Foreign,
}

/// Says "the filters of this program are in use" as long as the process lives: an abstract socket name
/// (unix(7)), which belongs to the network namespace as the interfaces do, and which no kill leaves behind.
#[derive(Debug)]
pub(super) struct Claim {
    _socket: UnixDatagram,
}

impl Claim {
    /// Fails with `AddrInUse` if another process makes the claim.
    pub(super) fn new(program_id: u32) -> io::Result<Self> {
        let name = SocketAddr::from_abstract_name(format!("tlstrace/{program_id}"))?;
        UnixDatagram::bind_addr(&name).map(|socket| Self { _socket: socket })
    }
}

/// Looks at all clsact filters of `interface` and removes those that killed runs have left, if `is_to_remove`.
///
/// Filters of a run that lives, and everything that is not tlstrace's, stay; so does the qdisc.
pub fn sweep(interface: &Interface, is_to_remove: bool) -> anyhow::Result<Vec<(Listed, Fate)>> {
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        for filter in list(interface.index, direction).context("cannot list the filters")? {
            let fate = judge(interface, &filter, is_to_remove)
                .with_context(|| format!("cannot remove the filter at {filter} of {interface}"))?;
            found.push((filter, fate));
        }
    }
    Ok(found)
}

/// The programs on a TCX hook in the order in which they run; `None` where the kernel has no TCX.
/// `EPERM` where the kernel would not tell without `CAP_SYS_ADMIN`.
pub fn tcx(interface: &Interface, direction: TcAttachType) -> io::Result<Option<Vec<Program>>> {
    match SchedClassifier::query_tcx(&interface.name, direction) {
        Ok((_, programs)) => Ok(Some(
            programs
                .iter()
                .map(|program| Program {
                    id: program.id(),
                    name: program.name_as_str().unwrap_or_default().to_owned(),
                })
                .collect(),
        )),
        Err(error) => match errno(&error) {
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(None),
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Err(io::Error::other(error.to_string())),
        },
    }
}

/// The clsact filters of one direction.
pub(super) fn list(interface: u32, direction: TcAttachType) -> io::Result<Vec<Listed>> {
    // The parents of linux/pkt_sched.h: TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS.
    let parent = match direction {
        TcAttachType::Ingress => 0xffff_fff2,
        TcAttachType::Egress => 0xffff_fff3,
        TcAttachType::Custom(parent) => parent,
    };
    let request = Filter { index: interface, parent, ..Filter::default() };
    let answer = rtnetlink::dump(&request)?;
    let filters = answer.iter().filter_map(|message| {
        let (header, attributes) = message.read()?;
        listed(interface, direction, &header, attributes)
    });
    Ok(filters.collect())
}

/// `ingress` or `egress`.
pub const fn direction(of: TcAttachType) -> &'static str {
    match of {
        TcAttachType::Ingress => "ingress",
        TcAttachType::Egress => "egress",
        TcAttachType::Custom(_) => "custom",
    }
}

impl Listed {
    /// A BPF filter as it is to be listed.
    pub(super) fn new(place: Place, program: Program) -> Self {
        Self { place, kind: BPF.to_owned(), program: Some(program) }
    }

    pub const fn direction(&self) -> &'static str {
        direction(self.place.direction)
    }

    /// `bpf`, `matchall`, `u32` …
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What a BPF filter runs.
    pub const fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }

    pub const fn priority(&self) -> u16 {
        self.place.priority
    }

    /// The minor number in its lower half.
    pub fn handle(&self) -> u32 {
        self.place.handle.into()
    }

    /// The id of its program, if a run of tlstrace put it there; another run's, perhaps.
    fn program_of_tlstrace(&self) -> Option<u32> {
        let program = self.program.as_ref()?;
        let first = u32::from(FIRST_HANDLE);
        (symbols::PROGRAMS.contains(&program.name.as_str())
            && (first..first + 2 * u32::from(HANDLES)).contains(&self.handle()))
        .then_some(program.id)
    }
}

impl fmt::Display for Listed {
    /// `ingress priority 1 handle 0x7415: bpf tlstrace_in (program 12)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} priority {} handle {:#x}: {}",
            self.direction(),
            self.priority(),
            self.handle(),
            self.kind
        )?;
        match &self.program {
            Some(program) => write!(f, " {} (program {})", program.name, program.id),
            None => Ok(()),
        }
    }
}

impl Fate {
    /// Name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Removable => "removable",
            Self::InUse => "in_use",
            Self::Foreign => "foreign",
        }
    }

    /// In words.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Removed => "removed: a killed run had left it behind",
            Self::Removable => "would be removed: a killed run has left it behind",
            Self::InUse => "left alone: a running tlstrace uses it",
            Self::Foreign => "left alone: not tlstrace's",
        }
    }
}

const BPF: &str = "bpf";

fn judge(interface: &Interface, filter: &Listed, is_to_remove: bool) -> anyhow::Result<Fate> {
    let Some(program) = filter.program_of_tlstrace() else { return Ok(Fate::Foreign) };
    // Held until the filter is gone, so that its number cannot get a new owner meanwhile.
    let Ok(_claim) = Claim::new(program) else { return Ok(Fate::InUse) };
    if !is_to_remove {
        return Ok(Fate::Removable);
    }
    let Place { direction, priority, handle, .. } = filter.place;
    SchedClassifierLink::attached(&interface.name, direction, priority, handle, None)?.detach()?;
    log::info!("removed the filter of a killed run from {interface}: {filter}");
    Ok(Fate::Removed)
}

fn listed(
    interface: u32,
    direction: TcAttachType,
    filter: &Filter,
    attributes: Attributes<'_>,
) -> Option<Listed> {
    /// `linux/pkt_cls.h`.
    const TCA_BPF_NAME: u16 = 7;
    const TCA_BPF_ID: u16 = 11;

    let kind = attributes.string(libc::TCA_KIND)?;
    // Some kinds list their table beside the entries in it.
    if filter.handle == 0 {
        return None;
    }
    let handle = TcHandle::from(filter.handle);
    // The lower half is the protocol.
    let priority = u16::try_from(filter.info >> 16).ok()?;
    let place = Place { interface, direction, priority, handle };
    // Other kinds have other options.
    let bpf = attributes.nested(libc::TCA_OPTIONS).filter(|_| kind == BPF);
    let program = bpf.and_then(|bpf| {
        let name = bpf.string(TCA_BPF_NAME).unwrap_or_default();
        Some(Program { id: bpf.value(TCA_BPF_ID)?, name })
    });
    Some(Listed { place, kind, program })
}
