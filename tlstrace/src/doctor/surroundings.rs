//! Where this process lives: network namespace, container, node, and who else runs here.

use std::{env, fs};

use super::{Finding, read};
use crate::capture::interfaces::{self, Interface};
use crate::capture::is_in_namespace_of_node;

pub(super) fn examine() -> Vec<Finding> {
    let interfaces = interfaces::list().unwrap_or_default();
    let mut findings = vec![network_namespace(), container()];
    findings.extend(node(&Node::look(), &interfaces));
    findings.push(other_instances());
    findings
}

fn network_namespace() -> Finding {
    const CHECK: &str = "network namespace";
    let own = fs::read_link("/proc/thread-self/ns/net")
        .map_or_else(|_| "not told".to_owned(), |link| link.display().to_string());
    match is_in_namespace_of_node() {
        Some(true) => Finding::ok(
            CHECK,
            "the node's; what stays inside a pod (its loopback, sidecars) takes --netns PID",
        ),
        Some(false) => Finding::warning(
            CHECK,
            format!("{own} is not that of process 1: only this namespace's packets are seen"),
            "--netns 1 for the node's, --netns PID for a pod's; in a manifest: hostNetwork: true",
        ),
        None => Finding::ok(
            CHECK,
            format!(
                "{own}; whether it is the node's cannot be told from here (as root in the node's process namespace, hostPID: \
                 true, it can)"
            ),
        ),
    }
}

fn container() -> Finding {
    const CHECK: &str = "container";
    // systemd's interface for containers; Docker's and Kubernetes's marks.
    let kind = match read("/run/systemd/container").or_else(|| env::var("container").ok()).as_deref() {
        Some("systemd-nspawn") => "systemd-nspawn, as the toolbox of Container-Optimized OS is",
        Some("podman") => "podman",
        Some("docker") => "Docker",
        Some("lxc") => "LXC",
        _ if env::var_os("KUBERNETES_SERVICE_HOST").is_some() => "a Kubernetes pod",
        _ if fs::exists("/.dockerenv").unwrap_or(false) => "Docker",
        _ => return Finding::ok(CHECK, "none that shows"),
    };
    Finding::ok(CHECK, kind)
}

/// What tells one kind of node from another.
struct Node {
    /// `os-release`, of the host where it can be seen.
    os: String,
    hostname: String,
    /// The machine's name, from its firmware.
    product: String,
}

impl Node {
    fn look() -> Self {
        // The toolbox has the host's root at /media/root, kubectl debug at /host.
        let os = ["/media/root/etc/os-release", "/host/etc/os-release", "/etc/os-release"];
        Self {
            os: os.into_iter().find_map(read).unwrap_or_default(),
            hostname: read("/proc/sys/kernel/hostname").unwrap_or_default(),
            product: read("/sys/class/dmi/id/product_name").unwrap_or_default(),
        }
    }
}

fn node(node: &Node, interfaces: &[Interface]) -> Vec<Finding> {
    let os =
        node.os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("an unnamed system");
    let is_gce = node.product.starts_with("Google");
    let place = if is_gce { " on Google Compute Engine" } else { "" };
    let mut findings = vec![Finding::ok("node", format!("{}{place}", os.trim_matches('"')))];
    // GKE names the nodes that it manages itself gk3-CLUSTER-…, the others gke-CLUSTER-…
    if node.hostname.starts_with("gk3-") {
        findings.push(Finding::warning(
            "gke autopilot",
            "this is an Autopilot node by its name: Autopilot refuses privileged workloads that are not on its list",
            "use a Standard cluster, or capture packets elsewhere and use `tlstrace replay`",
        ));
    }
    if interfaces.iter().any(|interface| interface.name == "cilium_host") {
        let owner = if is_gce { "GKE Dataplane V2" } else { "Cilium" };
        findings.push(Finding::warning(
            "dataplane",
            format!(
                "{owner} moves this node's packets with BPF programs of its own, and may hand them from one interface to \
                 another past the hooks: watch the node's network card, where both directions pass. Google calls other \
                 people's BPF programs on interfaces that it manages unsupported"
            ),
            "--attach packet touches no hook",
        ));
    }
    findings
}

fn other_instances() -> Finding {
    const CHECK: &str = "other instances";
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut others: Vec<u32> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own && read(&format!("/proc/{pid}/comm")).as_deref() == Some("tlstrace"))
        .collect();
    others.sort_unstable();
    if others.is_empty() {
        return Finding::ok(CHECK, "none");
    }
    let others: Vec<_> = others.iter().map(u32::to_string).collect();
    Finding::ok(CHECK, format!("tlstrace runs as process {}, which disturbs nobody", others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::interfaces::{Kind, LinkLayer};

    #[test]
    fn autopilot_is_known_by_the_nodes_name_and_dataplane_v2_by_its_interface() {
        let gke = |hostname: &str| Node {
            os: "NAME=COS\nPRETTY_NAME=\"Container-Optimized OS from Google\"\n".to_owned(),
            hostname: hostname.to_owned(),
            product: "Google Compute Engine".to_owned(),
        };
        let cilium = Interface {
            index: 3,
            name: "cilium_host".to_owned(),
            is_up: true,
            link: LinkLayer::Ethernet,
            kind: Kind::Veth,
            has_xdp: false,
            packets: 0,
        };
        let checks = |node_name, interfaces: &[Interface]| -> Vec<_> {
            node(&gke(node_name), interfaces).iter().map(|finding| finding.check).collect()
        };
        assert_eq!(checks("gke-one-pool-1", &[]), ["node"]);
        assert_eq!(checks("gk3-one-pool-1", &[]), ["node", "gke autopilot"]);
        assert_eq!(checks("gke-one-pool-1", &[cilium]), ["node", "dataplane"]);
    }
}
