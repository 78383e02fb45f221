//! The hooks: whether the programs load and attach, which interfaces would be watched, and who sits there already.

use super::Finding;
use crate::capture::filters::{self, Fate, Program};
use crate::capture::interfaces::{self, Interface, Kind, LinkLayer, Selection};
use crate::capture::trial::Trial;
use crate::capture::{Hook, Unavailable};

/// What came of loading and attaching.
pub(super) fn trial(trial: &Trial) -> Vec<Finding> {
    const LOAD: &str = "load";
    const ATTACH: &str = "attach";
    let loaded = match &trial.loaded {
        Ok(programs) => programs,
        Err(error) => return vec![refused(LOAD, error)],
    };
    let most = loaded.iter().filter_map(|(_, instructions)| *instructions).max();
    let cost = most.map_or_else(String::new, |most| {
        format!("; the verifier followed up to {most} instructions of each")
    });
    let mut findings = vec![Finding::ok(LOAD, format!("{} programs and a ring buffer{cost}", loaded.len()))];
    let Some(attached) = &trial.attached else {
        findings.push(Finding::ok(ATTACH, "not tried: a network namespace to try it in takes CAP_SYS_ADMIN"));
        return findings;
    };
    let works = |hook| attached.iter().any(|(tried, result)| *tried == hook && result.is_ok());
    findings.push(match (works(Hook::Tcx), works(Hook::Clsact), attached.first()) {
        (true, true, _) => Finding::ok(ATTACH, "tcx and clsact, tried in a network namespace of its own"),
        (true, false, _) => Finding::ok(ATTACH, "tcx; clsact does not work, and is not needed"),
        (false, true, _) => Finding::ok(ATTACH, "clsact; this kernel has no tcx"),
        (false, false, Some((_, Err(error)))) => refused(ATTACH, error),
        (false, false, _) => Finding::ok(ATTACH, "not tried"),
    });
    findings
}

fn refused(check: &'static str, error: &anyhow::Error) -> Finding {
    match error.downcast_ref::<Unavailable>() {
        Some(unavailable) => {
            let text = unavailable.to_string();
            let (text, fix) = text.split_once('\n').unwrap_or((&text, "see above"));
            let fix: Vec<_> = fix.lines().map(str::trim).collect();
            Finding::problem(check, text.trim_end_matches(':'), fix.join("\n"))
        }
        None => Finding::problem(check, format!("{error:#}"), "please report this"),
    }
}

pub(super) fn examine(selection: &Selection) -> Vec<Finding> {
    const CHECK: &str = "interfaces";
    let chosen = match interfaces::list().and_then(|present| selection.choose(&present)) {
        Ok(chosen) => chosen,
        Err(error) => {
            return vec![Finding::warning(
                CHECK,
                format!("{error:#}"),
                "name those to watch: -i NAME, -i 'gke*', -i any",
            )];
        }
    };
    let described: Vec<_> = chosen.iter().map(describe).collect();
    let mut findings = vec![Finding::ok(CHECK, format!("would be watched: {}", described.join(", ")))];
    findings.extend(chosen.iter().flat_map(conditions));
    findings.extend(chosen.iter().map(occupants));
    findings
}

/// `eth0 (device)`, `gke1 (veth to another network namespace, down)`.
fn describe(interface: &Interface) -> String {
    let kind = match &interface.kind {
        Kind::Device => "device",
        Kind::Loopback => "loopback",
        Kind::Veth => "veth",
        Kind::VethToNamespace => "veth to another network namespace",
        Kind::Software(kind) => kind,
    };
    let state = if interface.is_up { "" } else { ", down" };
    format!("{interface} ({kind}{state})")
}

fn conditions(interface: &Interface) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let LinkLayer::Other(arphrd) = interface.link {
        findings.push(Finding::warning(
            "link layer",
            format!("packets on {interface} begin with a header that tlstrace does not know (ARPHRD type {arphrd})"),
            "watch the interface below or above it",
        ));
    }
    if interface.has_xdp {
        findings.push(Finding::warning(
            "xdp",
            format!(
                "an XDP program on {interface} sees packets first: what it drops or redirects is not seen"
            ),
            "watch the interface that it redirects to, or the pod's veth",
        ));
    }
    findings
}

/// Who is on the hooks of an interface already.
fn occupants(interface: &Interface) -> Finding {
    const CHECK: &str = "occupants";
    let mut tenants = Vec::new();
    let mut orphans = 0;
    for direction in filters::DIRECTIONS {
        let name = filters::direction(direction);
        match filters::tcx(interface, direction) {
            Ok(programs) => tenants.extend(in_order(name, &programs.unwrap_or_default())),
            Err(error) => tenants.push(format!("tcx {name} not told ({error}: it takes CAP_SYS_ADMIN)")),
        }
    }
    match filters::sweep(interface, false) {
        Ok(found) => {
            for (filter, fate) in found {
                orphans += usize::from(fate == Fate::Removable);
                tenants.push(format!("clsact {filter}"));
            }
        }
        Err(error) => tenants.push(format!("clsact not told ({error:#})")),
    }
    if orphans > 0 {
        return Finding::warning(
            CHECK,
            format!(
                "{interface}: {orphans} filters of a killed tlstrace are still there: {}",
                tenants.join("; ")
            ),
            "tlstrace cleanup",
        );
    }
    if tenants.is_empty() {
        return Finding::ok(CHECK, format!("{interface}: nobody else"));
    }
    let place = "tlstrace goes first on TCX, ends no chain and removes nobody";
    Finding::ok(CHECK, format!("{interface}: {}. {place}", tenants.join("; ")))
}

/// `tcx ingress: 1. cil_from_netdev, 2. other`.
fn in_order(direction: &str, programs: &[Program]) -> Option<String> {
    let names: Vec<_> =
        programs.iter().zip(1..).map(|(program, place)| format!("{place}. {}", program.name)).collect();
    (!names.is_empty()).then(|| format!("tcx {direction}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn a_refusal_is_split_into_what_is_wrong_and_what_to_do() {
        let error = anyhow::Error::new(Unavailable::Seccomp);
        let found = refused("load", &error);
        assert_eq!(found.status, Status::Problem);
        assert!(found.text.ends_with("it is that filter which refuses."), "{}", found.text);
        assert!(found.fix.unwrap().lines().any(|line| line.starts_with("TOOLBOX_ENV=")));
    }

    #[test]
    fn without_a_namespace_of_its_own_attaching_is_not_tried_and_said_so() {
        let tried = Trial { loaded: Ok(vec![("tlstrace_in", Some(12))]), attached: None };
        let found = trial(&tried);
        assert!(found.iter().all(|finding| finding.status == Status::Ok));
        assert!(found[1].text.starts_with("not tried"));
    }

    #[test]
    fn one_hook_that_works_is_enough() {
        let attached = vec![(Hook::Tcx, Err(anyhow::anyhow!("no"))), (Hook::Clsact, Ok(()))];
        let tried = Trial { loaded: Ok(Vec::new()), attached: Some(attached) };
        assert_eq!(trial(&tried)[1].status, Status::Ok);
        let neither =
            vec![(Hook::Tcx, Err(anyhow::anyhow!("no"))), (Hook::Clsact, Err(anyhow::anyhow!("no")))];
        let tried = Trial { loaded: Ok(Vec::new()), attached: Some(neither) };
        assert_eq!(trial(&tried)[1].status, Status::Problem);
    }
}
