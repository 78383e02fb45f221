//! Puts the programs on interfaces and takes them off again: TCX where the kernel has it (6.6), clsact
//! elsewhere, a packet socket where neither is there or neither is polite. Nothing is ever removed that is not
//! provably ours, and a qdisc never.
//!
//! What a killed run leaves on clsact is for [`filters`] to recognise. A TCX link and a packet socket end with the
//! process that holds them.

use std::fmt;
use std::os::fd::OwnedFd;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use rustix::thread::CapabilitySet;
use tlstrace_common::symbols;

use super::filters::{self, DIRECTIONS, FIRST_HANDLE, HANDLES, Listed, Place};
use super::interfaces::{Interface, LinkLayer};
use super::loader::{Programs, kernel_release};
use super::occupants::Occupants;
use super::privilege::Privilege;
use super::{Unavailable, errno, packet_socket};

/// Which hook the user asks for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// TCX, then clsact, then a packet socket: the first that is to be had. On interfaces that Cilium manages the
    /// packet socket comes first, since Google does not support foreign tc programs on those of Dataplane V2.
    #[default]
    Auto,
    Tcx,
    Clsact,
    Packet,
}

/// The hook that was taken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Hook {
    Tcx,
    Clsact,
    Packet,
}

/// Both directions of one interface. Dropping it detaches.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) interface: Interface,
    pub(super) hook: Hook,
    /// Why it is this hook, if there was a choice.
    pub(super) reason: Option<String>,
    /// What the user should know of it.
    pub(super) note: Option<String>,
    _held: Held,
}

/// What keeps the programs where they are.
#[derive(Debug)]
enum Held {
    Filters { _filters: Vec<Filter> },
    Socket { _socket: OwnedFd },
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
    if let LinkLayer::Other(arphrd) = interface.link {
        return Err(AttachError::UnknownLinkLayer { name: interface.name.clone(), arphrd });
    }
    let attached = match mode {
        Mode::Auto => climb(programs, interface),
        Mode::Tcx => attach_to(programs, interface, Hook::Tcx).map_err(|error| {
            if !lacks_tcx(&error) {
                return error;
            }
            error.context(Unavailable::NoTcx { release: kernel_release() })
        }),
        Mode::Clsact => attach_to(programs, interface, Hook::Clsact),
        Mode::Packet => attach_to(programs, interface, Hook::Packet),
    };
    attached.map_err(|error| match errno(&*error) {
        _ if is_gone(&error) => AttachError::Gone(interface.name.clone()),
        Some(libc::EPERM | libc::EACCES) if !error.is::<Unavailable>() => {
            AttachError::Failed { name: interface.name.clone(), error: error.context(Unavailable::Refused) }
        }
        _ => AttachError::Failed { name: interface.name.clone(), error },
    })
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx, first in the chain",
            Self::Clsact => "clsact",
            Self::Packet => "packet socket",
        })
    }
}

/// Lowest number first. One that is taken by a filter of another kind cannot be shared.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=4;

/// One program on one direction of one interface.
#[derive(Debug)]
struct Filter {
    link: Option<SchedClassifierLink>,
    /// For clsact: what must be there still when the filter is removed.
    listed: Option<Listed>,
}

/// Takes the first hook that is to be had, and says why it is that one.
fn climb(programs: &mut Programs, interface: &Interface) -> anyhow::Result<Attachment> {
    let held = Privilege::read().effective;
    let occupants = Occupants::of(interface);
    let mut reasons = Vec::new();
    if let Some(names) = occupants.cilium() {
        let reason = format!("{names} has the tc hooks, where Dataplane V2 supports no others");
        if held.contains(CapabilitySet::NET_RAW) {
            match attach_to(programs, interface, Hook::Packet) {
                Ok(attachment) => return Ok(Attachment { reason: Some(reason), ..attachment }),
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) => reasons.push(format!("{reason}, but a packet socket was refused: {error:#}")),
            }
        } else {
            reasons.push(format!("{reason}, but a packet socket takes CAP_NET_RAW"));
        }
    }
    if held.contains(CapabilitySet::NET_ADMIN) {
        for hook in [Hook::Tcx, Hook::Clsact] {
            match attach_to(programs, interface, hook) {
                Ok(attachment) => {
                    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
                    return Ok(Attachment { reason, ..attachment });
                }
                // Where the kernel has TCX, what it says of it is meant.
                Err(error) if is_gone(&error) || hook == Hook::Tcx && !lacks_tcx(&error) => {
                    return Err(error);
                }
                Err(error) => {
                    log::info!("{hook} on {interface}: {error:#}");
                    reasons.push(match hook {
                        Hook::Tcx => format!("Linux {} has no TCX", kernel_release()),
                        _ => format!("clsact was refused ({error:#})"),
                    });
                }
            }
        }
    } else {
        reasons.push("the tc hooks take CAP_NET_ADMIN".to_owned());
    }
    let attachment = attach_to(programs, interface, Hook::Packet)?;
    Ok(Attachment { reason: Some(reasons.join("; ")), ..attachment })
}

fn attach_to(programs: &mut Programs, interface: &Interface, hook: Hook) -> anyhow::Result<Attachment> {
    let is_ethernet = interface.link == LinkLayer::Ethernet;
    let held = match hook {
        Hook::Packet => {
            let name = if is_ethernet { symbols::PROGRAM_TAP } else { symbols::PROGRAM_L3_TAP };
            Held::Socket { _socket: packet_socket::tap(programs.filter(name)?, interface.index)? }
        }
        Hook::Tcx | Hook::Clsact => {
            let names = if is_ethernet {
                [symbols::PROGRAM_IN, symbols::PROGRAM_OUT]
            } else {
                [symbols::PROGRAM_L3_IN, symbols::PROGRAM_L3_OUT]
            };
            Held::Filters { _filters: put(programs, interface, hook, names)? }
        }
    };
    let note = neighbours(interface, hook);
    Ok(Attachment { interface: interface.clone(), hook, reason: None, note, _held: held })
}

/// What others on the same hooks mean for what is seen.
fn neighbours(interface: &Interface, hook: Hook) -> Option<String> {
    let names = Occupants::of(interface).on_tcx()?;
    match hook {
        Hook::Tcx => Some(format!(
            "{interface} carries {names} too: tlstrace comes first, and leaves every packet to what follows"
        )),
        Hook::Clsact => Some(format!(
            "{interface} carries {names} on TCX: packets that end there never reach clsact (--attach tcx comes first)"
        )),
        Hook::Packet => None,
    }
}

fn put(
    programs: &mut Programs,
    interface: &Interface,
    hook: Hook,
    names: [&str; 2],
) -> anyhow::Result<Vec<Filter>> {
    if hook == Hook::Clsact {
        add_clsact(&interface.name)?;
        filters::sweep(interface, true)?;
    }
    let mut filters = Vec::with_capacity(names.len());
    for (name, direction) in names.into_iter().zip(DIRECTIONS) {
        filters.push(if hook == Hook::Clsact {
            programs.claim(name)?;
            attach_clsact(programs.classifier(name)?, name, interface, direction)?
        } else {
            attach_tcx(programs.classifier(name)?, interface, direction)?
        });
    }
    Ok(filters)
}

fn is_gone(error: &anyhow::Error) -> bool {
    matches!(errno(&**error), Some(libc::ENODEV | libc::ENXIO))
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
                    let runs = filters::Program { id: program_id, name: name.to_owned() };
                    let listed = Listed::new(place, runs);
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

impl Drop for Filter {
    fn drop(&mut self) {
        let (Some(link), Some(listed)) = (self.link.take(), self.listed.take()) else { return };
        let place = listed.place;
        let found = filters::list(place.interface, place.direction).unwrap_or_default();
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
