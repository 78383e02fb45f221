//! Puts the programs on interfaces and takes them off again: TCX where the kernel has it (6.6), clsact
//! elsewhere. Nothing is ever removed that is not provably ours, and a qdisc never.
//!
//! A TCX link ends with the process that holds it. A clsact filter outlives it: hence [`Claim`], by which
//! a later run recognises what a killed one has left behind.

use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use anyhow::Context as _;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use tlstrace_common::symbols;

use super::interfaces::{Interface, LinkLayer};
use super::loader::Programs;
use super::{Unavailable, errno, netlink};

/// Which hook the user asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// TCX, and clsact where the kernel has no TCX.
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// The hook that was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    Tcx,
    Clsact,
}

/// Both directions of one interface. Dropping it detaches.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) interface: Interface,
    pub(super) hook: Hook,
    _filters: Vec<Filter>,
}

/// Why an interface cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// It is not there any more: pods come and go.
    #[error("{0} is gone")]
    Gone(String),
    #[error(
        "packets on {name} begin with a header that tlstrace does not know (ARPHRD type {arphrd} of linux/if_arp.h)"
    )]
    UnknownLinkLayer { name: String, arphrd: u16 },
    #[error("cannot attach to {name}: {error:#}")]
    Failed { name: String, error: anyhow::Error },
}

/// Attaches to both directions of `interface`, in the calling thread's network namespace.
pub(super) fn attach(
    programs: &mut Programs,
    interface: &Interface,
    mode: Mode,
) -> Result<Attachment, AttachError> {
    let names = match interface.link {
        LinkLayer::Ethernet => [symbols::PROGRAM_IN, symbols::PROGRAM_OUT],
        LinkLayer::Ip => [symbols::PROGRAM_L3_IN, symbols::PROGRAM_L3_OUT],
        LinkLayer::Other(arphrd) => {
            return Err(AttachError::UnknownLinkLayer { name: interface.name.clone(), arphrd });
        }
    };
    let attached = match mode {
        Mode::Tcx => attach_to(programs, interface, Hook::Tcx, names),
        Mode::Clsact => attach_to(programs, interface, Hook::Clsact, names),
        Mode::Auto => attach_to(programs, interface, Hook::Tcx, names).or_else(|error| {
            if !lacks_tcx(&error) {
                return Err(error);
            }
            log::info!("no TCX on this kernel ({error:#}): using clsact on {}", interface.name);
            attach_to(programs, interface, Hook::Clsact, names)
        }),
    };
    attached.map_err(|error| match errno(&*error) {
        Some(libc::ENODEV | libc::ENXIO) => AttachError::Gone(interface.name.clone()),
        Some(libc::EPERM | libc::EACCES) => {
            AttachError::Failed { name: interface.name.clone(), error: error.context(Unavailable::Refused) }
        }
        _ => AttachError::Failed { name: interface.name.clone(), error },
    })
}

/// Removes the clsact filters that killed runs have left on `interface`; says how many there were.
///
/// Filters of a run that lives, and everything that is not tlstrace's, stay; so does the qdisc.
pub fn sweep(interface: &Interface) -> anyhow::Result<usize> {
    let mut removed = 0;
    for direction in DIRECTIONS {
        let filters = list(interface.index, direction).context("cannot list the filters")?;
        for filter in filters.into_iter().filter(Listed::is_of_tlstrace) {
            // Held until the filter is gone, so that its number cannot get a new owner meanwhile.
            let Ok(_claim) = Claim::new(filter.program_id) else { continue };
            let Place { priority, handle, .. } = filter.place;
            SchedClassifierLink::attached(&interface.name, direction, priority, handle, None)?.detach()?;
            log::info!("removed the filter of a killed run from {interface}: {filter:?}");
            removed += 1;
        }
    }
    Ok(removed)
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx, first in the chain",
            Self::Clsact => "clsact",
        })
    }
}

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];

/// Handle of a clsact filter of ours: far from 0x1, which is what Cilium uses and what an automatic handle
/// at priority 1 becomes (datadog-agent#13762).
const FIRST_HANDLE: u16 = 0x7415;
/// How many programs of ours find room beside each other on one hook: handles are every second number.
const HANDLES: u16 = 8;
/// Lowest number first. One that is taken by a filter of another kind cannot be shared.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=4;

/// One program on one direction of one interface.
#[derive(Debug)]
struct Filter {
    link: Option<SchedClassifierLink>,
    /// For clsact: what must be there still when the filter is removed.
    listed: Option<Listed>,
}

/// Where a clsact filter sits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    interface: u32,
    direction: TcAttachType,
    priority: u16,
    handle: TcHandle,
}

/// A BPF filter as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Listed {
    place: Place,
    program_id: u32,
    name: String,
}

impl Listed {
    /// Whether a run of this program put it there; another run's, perhaps.
    fn is_of_tlstrace(&self) -> bool {
        let handle = u32::from(self.place.handle);
        let first = u32::from(FIRST_HANDLE);
        symbols::PROGRAMS.contains(&self.name.as_str())
            && (first..first + 2 * u32::from(HANDLES)).contains(&handle)
    }
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

fn attach_to(
    programs: &mut Programs,
    interface: &Interface,
    hook: Hook,
    names: [&str; 2],
) -> anyhow::Result<Attachment> {
    if hook == Hook::Clsact {
        add_clsact(&interface.name)?;
        sweep(interface)?;
    }
    let mut filters = Vec::with_capacity(names.len());
    for (name, direction) in names.into_iter().zip(DIRECTIONS) {
        filters.push(match hook {
            Hook::Tcx => attach_tcx(programs.get(name)?, interface, direction)?,
            Hook::Clsact => {
                programs.claim(name)?;
                attach_clsact(programs.get(name)?, name, interface, direction)?
            }
        });
    }
    Ok(Attachment { interface: interface.clone(), hook, _filters: filters })
}

fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &Interface,
    direction: TcAttachType,
) -> Result<Filter, ProgramError> {
    // First: Cilium's programs end the chain (cilium#36775).
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(&interface.name, direction, options)?;
    Ok(Filter { link: Some(program.take_link(id)?), listed: None })
}

/// Whether the kernel is older than `BPF_LINK_CREATE` with `BPF_TCX_INGRESS` (6.6, commit e420bed02507).
fn lacks_tcx(error: &anyhow::Error) -> bool {
    matches!(errno(&**error), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

fn attach_clsact(
    program: &mut SchedClassifier,
    name: &str,
    interface: &Interface,
    direction: TcAttachType,
) -> anyhow::Result<Filter> {
    let program_id = program.info()?.id();
    let mut refusal = None;
    for priority in PRIORITIES {
        for slot in 0..HANDLES {
            let handle = TcHandle::new(0, FIRST_HANDLE + 2 * slot);
            let options = NlOptions { priority, handle, classid: None };
            match program.attach_with_options(&interface.name, direction, TcAttachOptions::Netlink(options)) {
                Ok(id) => {
                    let place = Place { interface: interface.index, direction, priority, handle };
                    let listed = Listed { place, program_id, name: name.to_owned() };
                    return Ok(Filter { link: Some(program.take_link(id)?), listed: Some(listed) });
                }
                Err(error) => match errno(&error) {
                    // The handle is taken: another tlstrace runs.
                    Some(libc::EEXIST) => refusal = Some(error),
                    // The priority is taken, by another kind of filter or for one protocol only.
                    Some(libc::EINVAL) => {
                        refusal = Some(error);
                        break;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }
    let refusal = refusal.map_or_else(|| anyhow::anyhow!("nothing tried"), anyhow::Error::from);
    Err(refusal.context("no free place among the filters of the clsact qdisc"))
}

fn add_clsact(interface: &str) -> anyhow::Result<()> {
    match tc::qdisc_add_clsact(interface) {
        // Somebody else's, or an `ingress` qdisc, in whose case attaching to egress says so.
        Err(error) if errno(&error) != Some(libc::EEXIST) => Err(error.into()),
        _ => Ok(()),
    }
}

/// The BPF filters of one direction. Those of another kind are left out.
fn list(interface: u32, direction: TcAttachType) -> io::Result<Vec<Listed>> {
    // The parents of linux/pkt_sched.h: TC_H_CLSACT with TC_H_MIN_INGRESS or TC_H_MIN_EGRESS.
    let parent = match direction {
        TcAttachType::Ingress => 0xffff_fff2,
        TcAttachType::Egress => 0xffff_fff3,
        TcAttachType::Custom(parent) => parent,
    };
    let index = i32::try_from(interface).map_err(io::Error::other)?;
    let mut request = TcMessage::with_index(index);
    request.header.parent = parent.into();
    let messages = netlink::dump(RouteNetlinkMessage::GetTrafficFilter(request))?;
    let filters = messages.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewTrafficFilter(filter) => listed(interface, direction, &filter),
        _ => None,
    });
    Ok(filters.collect())
}

fn listed(interface: u32, direction: TcAttachType, filter: &TcMessage) -> Option<Listed> {
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let bpf =
        || options.iter().filter_map(|option| if let TcOption::Bpf(bpf) = option { Some(bpf) } else { None });
    let program_id = bpf().find_map(|option| match option {
        TcFilterBpfOption::ProgId(id) => Some(*id),
        _ => None,
    })?;
    let name = bpf().find_map(|option| match option {
        TcFilterBpfOption::ProgName(name) => Some(name.clone()),
        _ => None,
    })?;
    let handle = TcHandle::new(filter.header.handle.major, filter.header.handle.minor);
    // The lower half is the protocol.
    let priority = u16::try_from(filter.header.info >> 16).ok()?;
    Some(Listed { place: Place { interface, direction, priority, handle }, program_id, name })
}

impl Drop for Filter {
    fn drop(&mut self) {
        let (Some(link), Some(listed)) = (self.link.take(), self.listed.take()) else { return };
        let place = listed.place;
        let found = list(place.interface, place.direction).unwrap_or_default();
        if found.contains(&listed) {
            if let Err(error) = link.detach() {
                log::warn!("filter {place:?} could not be removed: {error}");
            }
        } else {
            // The interface is gone, or somebody else's filter is in our place: dropping the link would remove it.
            std::mem::forget(link);
        }
    }
}
