//! Network namespaces without a name, joined by veth pairs.
//!
//! A namespace is held open by a file descriptor instead of a mount under `/run/netns`, so that the kernel removes it,
//! with its interfaces, qdiscs and filters, as soon as nobody uses it any more: after a panic and after SIGKILL too.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use super::path_of;

/// A network namespace with its loopback interface up. Needs `CAP_SYS_ADMIN`.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a new, empty namespace. The calling thread stays where it is.
    pub fn new() -> Result<Self> {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace (this needs root)")?;
            File::open("/proc/thread-self/ns/net").context("cannot open the new network namespace")
        })
        .join()
        .unwrap_or_else(|panic| resume_unwind(panic))?;
        let namespace = Self { file };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The namespace that a process is in.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        Ok(Self { file: File::open(&path).with_context(|| format!("cannot open {path}"))? })
    }

    /// Runs `work` on a thread inside the namespace. A socket made there stays there, whichever thread uses it later.
    ///
    /// # Panics
    /// If the namespace cannot be entered, or with the panic of `work`.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .expect("an open network namespace can be entered");
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A command that will run inside the namespace, and be killed when the thread that spawned it ends.
    ///
    /// `/sys` is left alone, as by `nsenter --net` and unlike by `ip netns exec`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Where other programs find the namespace, for as long as this process holds it.
    pub fn path(&self) -> PathBuf {
        path_of(&self.file)
    }

    /// Runs `ip` of iproute2 inside the namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command("ip").args(arguments).output().context("cannot run `ip` of iproute2")?;
        ensure!(
            output.status.success(),
            "`ip {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Gives `interface` an address and brings it up. IPv6 addresses are usable at once (no duplicate detection).
    pub fn configure(&self, interface: &str, address: IpAddr) -> Result<()> {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        let address = format!("{address}/{prefix}");
        let mut arguments = vec!["address", "add", &address, "dev", interface];
        if prefix == 64 {
            arguments.push("nodad");
        }
        self.ip(&arguments)?;
        self.ip(&["link", "set", interface, "up"])
    }
}

/// Joins two namespaces by a veth pair with the given interface names. Both ends are down and without addresses.
pub fn link(near: &Namespace, near_name: &str, far: &Namespace, far_name: &str) -> Result<()> {
    let far_path = far.path().display().to_string();
    near.ip(&["link", "add", near_name, "type", "veth", "peer", "name", far_name, "netns", &far_path])
}

/// The IP version a case runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The address of host `host` in network `network` of the test networks `10.x.0.0/24` and `fd00:x::/64`.
    pub const fn address(self, network: u8, host: u8) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4(Ipv4Addr::new(10, network, 0, host)),
            Self::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfd00, network as u16, 0, 0, 0, 0, 0, host as u16)),
        }
    }
}

/// A client host and a server host, joined by one veth pair that speaks IPv4 and IPv6.
#[derive(Debug)]
pub struct Pair {
    pub client: Namespace,
    pub server: Namespace,
}

impl Pair {
    /// The client's end of the veth pair, in the client's namespace.
    pub const CLIENT_INTERFACE: &str = "client0";
    /// The server's end of the veth pair, in the server's namespace.
    pub const SERVER_INTERFACE: &str = "server0";

    const NETWORK: u8 = 99;

    pub fn new() -> Result<Self> {
        let pair = Self { client: Namespace::new()?, server: Namespace::new()? };
        link(&pair.client, Self::CLIENT_INTERFACE, &pair.server, Self::SERVER_INTERFACE)?;
        for family in Family::ALL {
            pair.client.configure(Self::CLIENT_INTERFACE, Self::client_address(family))?;
            pair.server.configure(Self::SERVER_INTERFACE, Self::server_address(family))?;
        }
        Ok(pair)
    }

    pub const fn client_address(family: Family) -> IpAddr {
        family.address(Self::NETWORK, 1)
    }

    pub const fn server_address(family: Family) -> IpAddr {
        family.address(Self::NETWORK, 2)
    }
}

/// A client and a server on two sides of a node that forwards, as a cluster's node does for a pod.
#[derive(Debug)]
pub struct Routed {
    pub client: Namespace,
    pub node: Namespace,
    pub server: Namespace,
}

impl Routed {
    /// The node's interface towards the client.
    pub const CLIENT_SIDE: &str = "eth0";
    /// The node's interface towards the server.
    pub const SERVER_SIDE: &str = "veth0";

    const CLIENT_NETWORK: u8 = 138;
    const SERVER_NETWORK: u8 = 4;

    pub fn new() -> Result<Self> {
        let routed = Self { client: Namespace::new()?, node: Namespace::new()?, server: Namespace::new()? };
        link(&routed.client, "eth0", &routed.node, Self::CLIENT_SIDE)?;
        link(&routed.server, "eth0", &routed.node, Self::SERVER_SIDE)?;
        for family in Family::ALL {
            let near_client = Self::node_address(family);
            let near_server = family.address(Self::SERVER_NETWORK, 1);
            routed.node.configure(Self::CLIENT_SIDE, near_client)?;
            routed.node.configure(Self::SERVER_SIDE, near_server)?;
            routed.client.configure("eth0", family.address(Self::CLIENT_NETWORK, 28))?;
            routed.server.configure("eth0", Self::server_address(family))?;
            let add_default_route = |host: &Namespace, gateway: IpAddr| {
                let version = if gateway.is_ipv4() { "-4" } else { "-6" };
                host.ip(&[version, "route", "add", "default", "via", &gateway.to_string()])
            };
            add_default_route(&routed.client, near_client)?;
            add_default_route(&routed.server, near_server)?;
        }
        routed
            .node
            .enter(|| {
                fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
                fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
            })
            .context("cannot make the node forward packets")?;
        Ok(routed)
    }

    pub const fn server_address(family: Family) -> IpAddr {
        family.address(Self::SERVER_NETWORK, 9)
    }

    /// The node's own address on the client's side.
    pub const fn node_address(family: Family) -> IpAddr {
        family.address(Self::CLIENT_NETWORK, 1)
    }
}
