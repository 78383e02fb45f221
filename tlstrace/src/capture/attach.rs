//! Puts the programs on interfaces and takes them off again: TCX where the kernel has it (6.6), clsact
//! elsewhere. Nothing is ever removed that is not provably ours, and a qdisc never.
//!
//! What a killed run leaves on clsact is for [`filters`] to recognise.

use std::fmt;

use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{Link as _, LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use tlstrace_common::symbols;

use super::filters::{self, DIRECTIONS, FIRST_HANDLE, HANDLES, Listed, Place};
use super::interfaces::{Interface, LinkLayer};
use super::loader::{Programs, kernel_release};
use super::{Unavailable, errno};

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
        Mode::Tcx => attach_to(programs, interface, Hook::Tcx, names).map_err(|error| {
            if !lacks_tcx(&error) {
                return error;
            }
            error.context(Unavailable::NoTcx { release: kernel_release() })
        }),
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

fn attach_to(
    programs: &mut Programs,
    interface: &Interface,
    hook: Hook,
    names: [&str; 2],
) -> anyhow::Result<Attachment> {
    if hook == Hook::Clsact {
        add_clsact(&interface.name)?;
        filters::sweep(interface, true)?;
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
