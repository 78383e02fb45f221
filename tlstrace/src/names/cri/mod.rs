//! Pods of this node, from its container runtime (containerd, CRI-O) over the socket of the CRI.
//!
//! The runtime is asked when a network interface has come or gone, which is how pods come and go, and else rarely.
//! Between such a change and the answer nothing that was told before is trusted.

mod api;
mod grpc;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time;

use super::directory::{Claim, Source};
use super::gateway::Gateway;
use super::identity::Identity;
use super::{Names, workload};
use crate::capture::clock::Clock;
use crate::capture::links::LinkChanges;
use crate::engine::timestamp::Timestamp;
use grpc::Channel;

/// How often the runtime is asked if nothing happens.
const EVERY: Duration = Duration::from_secs(30);
/// Least time between two questions.
const SHORTEST: Duration = Duration::from_millis(500);
/// When the runtime is asked again after a change: a pod's interface comes before the runtime calls the pod ready.
const AFTER_CHANGE: [Duration; 3] = [SHORTEST, Duration::from_secs(2), Duration::from_secs(5)];
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most sandboxes that are followed.
const MAX_SANDBOXES: usize = 4096;
/// What a sandbox's time of creation may be later than its address.
const BEFORE_CREATION: Duration = Duration::from_mins(1);

/// Where runtimes have their sockets: containerd, CRI-O, k3s, MicroK8s.
const SOCKETS: [&str; 4] = [
    "run/containerd/containerd.sock",
    "run/crio/crio.sock",
    "run/k3s/containerd/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
];
/// Where the node's file system is: here, under the mounts of `kubectl debug node` and of COS's `toolbox`, or behind
/// process 1.
const ROOTS: [&str; 4] = ["/", "/host", "/media/root", "/proc/1/root"];

/// The socket of this node's container runtime.
pub fn find_socket() -> Option<PathBuf> {
    let sockets = ROOTS.iter().flat_map(|root| SOCKETS.iter().map(|socket| Path::new(root).join(socket)));
    sockets.into_iter().find(|socket| socket.exists())
}

/// Fills the directory with this node's pods, in a thread of its own.
///
/// To be called in the node's network namespace.
pub fn follow(socket: PathBuf, names: Names) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut follower = Follower::new(socket, names);
    // What is there already can be named from the beginning.
    runtime.block_on(follower.ask())?;
    thread::Builder::new().name("pods".to_owned()).spawn(move || {
        if let Err(error) = crate::capture::keep_no_rights() {
            log::info!("rights could not be given up: {error}");
            return;
        }
        if let Err(error) = runtime.block_on(follower.run()) {
            log::warn!("pods are not named any more: {error:#}");
        }
    })?;
    Ok(())
}

struct Follower {
    socket: PathBuf,
    names: Names,
    clock: Clock,
    /// What does not change as long as a sandbox lives, by its id.
    known: HashMap<String, Sandbox>,
    asked: Option<Timestamp>,
}

#[derive(Clone)]
struct Sandbox {
    addresses: Vec<IpAddr>,
    possible_since: Timestamp,
    certain_since: Timestamp,
}

impl Follower {
    fn new(socket: PathBuf, names: Names) -> Self {
        Self { socket, names, clock: Clock::start(), known: HashMap::new(), asked: None }
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let mut links = LinkChanges::listen().context("cannot listen for interface changes")?;
        let mut last = self.clock.now();
        // Something may have changed before anybody listened.
        let mut due = vec![last];
        loop {
            let next = due.iter().min().copied().unwrap_or(last.after(EVERY)).max(last.after(SHORTEST));
            tokio::select! {
                () = links.next() => {
                    let now = self.clock.now();
                    self.names.directory().suspend(Source::Pods, now);
                    // What was due for an earlier change is done with this one.
                    due.clear();
                    due.push(now);
                    due.extend(AFTER_CHANGE.map(|after| now.after(after)));
                }
                () = time::sleep(next.since(self.clock.now())) => {
                    self.clock.resynchronise();
                    last = self.clock.now();
                    due.retain(|at| *at > last);
                    if let Err(error) = self.ask().await {
                        log::info!("{}: {error:#}", self.socket.display());
                        self.names.directory().suspend(Source::Pods, last);
                    }
                }
            }
        }
    }

    /// Asks for everything and tells the directory.
    async fn ask(&mut self) -> anyhow::Result<()> {
        let asked = self.clock.now();
        let socket = self.socket.clone();
        let claims = time::timeout(PATIENCE, async {
            let mut runtime = Channel::connect(&socket).await?;
            self.claims(&mut runtime, asked).await
        });
        let claims = claims.await.context("no answer in time")??;
        self.names.directory().replace(Source::Pods, asked, claims);
        self.asked = Some(asked);
        Ok(())
    }

    /// The pods that have addresses of their own, as of `asked`.
    async fn claims(&mut self, runtime: &mut Channel, asked: Timestamp) -> anyhow::Result<Vec<Claim>> {
        let sandboxes: api::ListPodSandboxResponse =
            runtime.call("/runtime.v1.RuntimeService/ListPodSandbox", &api::ListPodSandboxRequest {}).await?;
        let containers: api::ListContainersResponse =
            runtime.call("/runtime.v1.RuntimeService/ListContainers", &api::ListContainersRequest {}).await?;
        let mut by_sandbox: HashMap<&str, Vec<&api::Container>> = HashMap::new();
        for container in &containers.containers {
            by_sandbox.entry(&container.pod_sandbox_id).or_default().push(container);
        }
        let mut known = HashMap::new();
        let mut claims = Vec::new();
        let ready = sandboxes.items.iter().filter(|sandbox| sandbox.state == api::SANDBOX_READY);
        for sandbox in ready.take(MAX_SANDBOXES) {
            let containers = by_sandbox.get(&*sandbox.id).map(Vec::as_slice).unwrap_or_default();
            let mut of_sandbox = if let Some(of_sandbox) = self.known.remove(&sandbox.id) {
                of_sandbox
            } else {
                let request = api::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone() };
                let status = runtime.call("/runtime.v1.RuntimeService/PodSandboxStatus", &request).await;
                // It may be gone by now.
                let Ok(api::PodSandboxStatusResponse { status: Some(status) }) = status else { continue };
                // If it had been there when the runtime was asked before, it would be known.
                let since = self.asked.unwrap_or(timestamp(sandbox.created_at).before(BEFORE_CREATION));
                Sandbox { addresses: addresses(&status), possible_since: since, certain_since: asked }
            };
            // Containers are created in sandboxes that have their addresses.
            let created = containers.iter().map(|container| timestamp(container.created_at)).min();
            of_sandbox.certain_since = of_sandbox.certain_since.min(created.unwrap_or(asked));
            let identity = Arc::new(identity(sandbox, containers));
            claims.extend(of_sandbox.addresses.iter().map(|address| Claim {
                address: *address,
                owner: sandbox.id.as_str().into(),
                identity: Arc::clone(&identity),
                ports: Arc::default(),
                possible_since: of_sandbox.possible_since,
                certain_since: of_sandbox.certain_since,
            }));
            // Where it has none yet, the runtime is asked again.
            if !of_sandbox.addresses.is_empty() {
                known.insert(sandbox.id.clone(), of_sandbox);
            }
        }
        self.known = known;
        Ok(claims)
    }
}

/// None if the pod shares those of the node.
fn addresses(status: &api::PodSandboxStatus) -> Vec<IpAddr> {
    let options = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    if options.is_some_and(|options| options.network == api::OF_NODE) {
        return Vec::new();
    }
    let network = status.network.iter();
    let texts = network.flat_map(|network| {
        std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|address| &address.ip))
    });
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn identity(sandbox: &api::PodSandbox, containers: &[&api::Container]) -> Identity {
    let name = |name: &str| (!name.is_empty()).then(|| Arc::from(name));
    let mut running = containers.iter().filter(|container| container.state == api::CONTAINER_RUNNING);
    let only = running.next().filter(|_| running.next().is_none());
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let label = |name: &str| sandbox.labels.get(name).map(String::as_str);
    Identity {
        namespace: name(&metadata.namespace),
        pod: name(&metadata.name),
        container: only.and_then(|container| name(&container.metadata.as_ref()?.name)),
        workload: workload::of_labels(&metadata.name, label),
        gateway: Gateway::of_labels(label).or_else(|| {
            let image = only?.image.as_ref()?;
            Gateway::of_image(&image.user_specified_image).or_else(|| Gateway::of_image(&image.image))
        }),
        ..Identity::default()
    }
}

fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
