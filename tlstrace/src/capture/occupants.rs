//! Who else sits on an interface's tc hooks.
//!
//! Programs that decide what becomes of packets (Cilium's) and programs that watch share these hooks. Which of them
//! are there decides where tlstrace may go, and what the user has to know.

use std::collections::BTreeSet;

use tlstrace_common::symbols;

use super::filters::{self, DIRECTIONS};
use super::interfaces::{self, Interface, Names};

/// The programs of others on both directions of an interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Occupants {
    /// Names of the programs on TCX, as far as the kernel tells.
    pub tcx: BTreeSet<String>,
    /// Names of the BPF filters of the clsact qdisc.
    pub clsact: BTreeSet<String>,
    /// There are programs on TCX whose names this process may not see (that takes `CAP_SYS_ADMIN`).
    pub has_nameless: bool,
    /// Cilium is at work in this network namespace.
    pub has_cilium_host: bool,
}

impl Occupants {
    /// Looks at `interface`, in the calling thread's network namespace. What cannot be found out is left out.
    pub fn of(interface: &Interface) -> Self {
        let mut occupants = Self::default();
        for direction in DIRECTIONS {
            match filters::tcx(interface, direction) {
                Ok(programs) => {
                    let programs = programs.unwrap_or_default().into_iter();
                    occupants.tcx.extend(programs.map(|program| match program.name.as_str() {
                        "" => format!("program {}", program.id),
                        name => name.escape_default().to_string(),
                    }));
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                    occupants.has_nameless = true;
                }
                // The interface is gone, perhaps: the attempt to attach will say so.
                Err(error) => log::debug!("TCX programs of {interface}: {error}"),
            }
            let filters = filters::list(interface.index, direction).unwrap_or_default();
            let programs = filters.iter().filter_map(filters::Listed::program);
            occupants.clsact.extend(programs.map(|program| program.name.escape_default().to_string()));
        }
        for names in [&mut occupants.tcx, &mut occupants.clsact] {
            names.retain(|name| !symbols::PROGRAMS.contains(&name.as_str()));
        }
        occupants.has_cilium_host = interfaces::list()
            .is_ok_and(|present| present.iter().any(|interface| interface.name == "cilium_host"));
        occupants
    }

    /// Cilium's programs here, if there are any: `cil_from_netdev, cil_to_netdev`.
    pub fn cilium(&self) -> Option<String> {
        let names = self.tcx.iter().chain(&self.clsact).filter(|name| name.starts_with("cil_"));
        let names: Vec<_> = names.cloned().collect();
        if !names.is_empty() {
            return Some(Names(&names).to_string());
        }
        // On a node with Cilium it is Cilium that fills its interfaces.
        (self.has_nameless && self.has_cilium_host).then(|| "a program that is probably Cilium's".to_owned())
    }

    /// All programs on TCX, or `None` if there are none.
    pub fn on_tcx(&self) -> Option<String> {
        let mut names: Vec<_> = self.tcx.iter().cloned().collect();
        if self.has_nameless {
            names.push("a program whose name only CAP_SYS_ADMIN may see".to_owned());
        }
        (!names.is_empty()).then(|| Names(&names).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn cilium_is_known_by_the_names_of_its_programs_on_either_hook() {
        let tcx = Occupants { tcx: names(&["retina", "cil_from_netdev"]), ..Occupants::default() };
        assert_eq!(tcx.cilium().unwrap(), "cil_from_netdev");
        let clsact = Occupants { clsact: names(&["cil_to_netdev-eth0"]), ..Occupants::default() };
        assert_eq!(clsact.cilium().unwrap(), "cil_to_netdev-eth0");
        let others = Occupants { tcx: names(&["retina"]), has_cilium_host: true, ..Occupants::default() };
        assert_eq!(others.cilium(), None);
    }

    #[test]
    fn programs_without_a_name_are_taken_for_ciliums_only_where_it_is_at_work() {
        let nameless = Occupants { has_nameless: true, ..Occupants::default() };
        assert_eq!(nameless.cilium(), None);
        assert!(Occupants { has_cilium_host: true, ..nameless }.cilium().is_some());
    }
}
