//! From objects of the API to claims on addresses. Pure: what came when is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::objects::{EndpointSlice, Metadata, Object, Pod, SERVICE_NAME, Service};
use crate::engine::facts::Role;
use crate::engine::timestamp::Timestamp;
use crate::names::directory::{Claim, Directory, LINGER, Owner, Source};
use crate::names::gateway::Gateway;
use crate::names::identity::{Identity, Port, Workload};
use crate::names::workload;
use crate::verdict::explain::Product;

/// How far the cluster's clocks and this host's may be apart, and what whole seconds cut off.
const CLOCKS: Duration = Duration::from_secs(2);
/// A pod is an endpoint of a Service some time after it has its address.
const BEFORE_READY: Duration = Duration::from_mins(1);

/// What is known of the cluster.
pub(super) struct Store {
    /// The node that this is.
    node: Arc<str>,
    pods: HashMap<Owner, Known>,
    /// By the slice's uid: what it says of each pod.
    slices: HashMap<Owner, Vec<Member>>,
    /// The slices that a pod is in.
    memberships: HashMap<Owner, HashSet<Owner>>,
    services: HashMap<Owner, Vec<IpAddr>>,
}

/// A pod of this node.
struct Known {
    identity: Arc<Identity>,
    addresses: Vec<IpAddr>,
    containers: BTreeMap<u16, Listening>,
    created: Timestamp,
    seen: Timestamp,
}

/// A container that says which ports it has.
#[derive(Clone)]
struct Listening {
    container: Arc<str>,
    gateway: Option<Gateway>,
}

/// A pod behind a Service.
struct Member {
    pod: Owner,
    identity: Arc<Identity>,
    addresses: Vec<IpAddr>,
    service: Option<Arc<str>>,
    ports: Vec<u16>,
    is_certain: bool,
    seen: Timestamp,
}

impl Store {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            pods: HashMap::new(),
            slices: HashMap::new(),
            memberships: HashMap::new(),
            services: HashMap::new(),
        }
    }
}

impl Store {
    /// Where pods of this node are ingress gateways of Apigee hybrid.
    pub(super) fn apigee_namespaces(&self) -> Vec<Arc<str>> {
        let identities = self.pods.values().map(|known| &known.identity);
        let ingress = identities.filter(|identity| {
            let gateway = identity.gateway();
            gateway.and_then(|gateway| gateway.product_as(Role::Server)) == Some(Product::ApigeeHybrid)
        });
        let namespaces: BTreeSet<_> = ingress.filter_map(|identity| identity.namespace.clone()).collect();
        namespaces.into_iter().collect()
    }
}

/// How objects of a kind change what is known.
pub(super) trait Follow<T: Object> {
    /// What `T` tells of.
    const SOURCE: Source;

    /// One is there, or has changed.
    fn set(&mut self, directory: &mut Directory, object: &T, now: Timestamp);

    /// One is gone.
    fn remove(&mut self, directory: &mut Directory, uid: &str, gone: Gone);

    /// Those that are known.
    fn uids(&self) -> Vec<Owner>;
}

/// When something went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    /// It was there until then at least.
    pub(super) certain: Timestamp,
    pub(super) now: Timestamp,
}

impl Gone {
    fn release(self, directory: &mut Directory, owner: &str) {
        directory.release(owner, self.certain, self.now.after(LINGER));
    }
}

impl Follow<Pod> for Store {
    const SOURCE: Source = Source::Pods;

    fn set(&mut self, directory: &mut Directory, pod: &Pod, now: Timestamp) {
        let metadata = pod.metadata();
        self.set_node(directory, pod, now);
        if pod.spec.host_network {
            return;
        }
        if matches!(&*pod.status.phase, "Succeeded" | "Failed") {
            return Follow::<Pod>::remove(self, directory, &metadata.uid, Gone { certain: now, now });
        }
        let addresses = pod.status.pod_ips.iter().map(|address| &address.ip).chain(&pod.status.pod_ip);
        let mut addresses: Vec<IpAddr> = addresses.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        directory.keep_only(&metadata.uid, &addresses, now);
        let containers = pod.spec.containers.iter();
        let ports = containers.flat_map(|container| {
            let gateway = Gateway::of_image(&container.image);
            container.ports.iter().map(move |port| {
                (port.container_port, Listening { container: Arc::clone(&container.name), gateway })
            })
        });
        let label = |name: &str| metadata.labels.get(name).map(|value| &**value);
        let only = match &*pod.spec.containers {
            [only] => Some(only),
            _ => None,
        };
        let identity = Identity {
            namespace: Some(Arc::clone(&metadata.namespace)),
            pod: Some(Arc::clone(&metadata.name)),
            container: only.map(|only| Arc::clone(&only.name)),
            gateway: Gateway::of_labels(label).or_else(|| Gateway::of_image(&only?.image)),
            workload: workload_of(metadata),
            node: Some(Arc::clone(&self.node)),
            ..Identity::default()
        };
        let known = self.pods.get(&metadata.uid).filter(|known| known.addresses == addresses);
        let known = Known {
            identity: Arc::new(identity),
            seen: known.map_or(now, |known| known.seen),
            addresses,
            containers: ports.collect(),
            created: time(metadata.creation_timestamp.as_deref()).unwrap_or(now).before(CLOCKS),
        };
        self.pods.insert(Arc::clone(&metadata.uid), known);
        self.claim(directory, &metadata.uid);
        if let Some(deletion) = time(metadata.deletion_timestamp.as_deref()) {
            // The time is that at which the grace period ends; containers may end as soon as it begins.
            let grace = Duration::from_secs(metadata.deletion_grace_period_seconds.unwrap_or(30));
            directory.doubt(&metadata.uid, deletion.before(grace).before(CLOCKS).min(now));
        }
    }

    fn remove(&mut self, directory: &mut Directory, uid: &str, gone: Gone) {
        if self.pods.remove(uid).is_some() {
            gone.release(directory, uid);
        }
    }

    fn uids(&self) -> Vec<Owner> {
        self.pods.keys().map(Arc::clone).collect()
    }
}

impl Follow<EndpointSlice> for Store {
    const SOURCE: Source = Source::Endpoints;

    fn set(&mut self, directory: &mut Directory, slice: &EndpointSlice, now: Timestamp) {
        let metadata = slice.metadata();
        let service = metadata.labels.get(SERVICE_NAME).map(Arc::clone);
        let ports: Vec<u16> = slice.ports.iter().filter_map(|port| port.port).collect();
        let before = self.slices.remove(&metadata.uid).unwrap_or_default();
        let seen: HashMap<_, _> = before
            .iter()
            .map(|member| ((Arc::clone(&member.pod), member.addresses.clone()), member.seen))
            .collect();
        let members: Vec<Member> = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| {
                let target = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod")?;
                let addresses: Vec<_> =
                    endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect();
                let identity = Identity {
                    namespace: Some(Arc::clone(&target.namespace)),
                    pod: Some(Arc::clone(&target.name)),
                    node: endpoint.node_name.clone(),
                    ..Identity::default()
                };
                let conditions = &endpoint.conditions;
                Some(Member {
                    pod: Arc::clone(&target.uid),
                    identity: Arc::new(identity),
                    seen: seen.get(&(Arc::clone(&target.uid), addresses.clone())).copied().unwrap_or(now),
                    addresses,
                    service: service.clone(),
                    ports: ports.clone(),
                    is_certain: conditions.ready != Some(false) && conditions.terminating != Some(true),
                })
            })
            .collect();
        let pods: HashSet<Owner> =
            before.iter().chain(&members).map(|member| Arc::clone(&member.pod)).collect();
        for member in &before {
            self.leave(&member.pod, &metadata.uid);
        }
        for member in &members {
            self.memberships.entry(Arc::clone(&member.pod)).or_default().insert(Arc::clone(&metadata.uid));
        }
        if !members.is_empty() {
            self.slices.insert(Arc::clone(&metadata.uid), members);
        }
        for pod in pods {
            self.update_member(directory, &pod, Gone { certain: now, now });
        }
    }

    fn remove(&mut self, directory: &mut Directory, uid: &str, gone: Gone) {
        for member in self.slices.remove(uid).unwrap_or_default() {
            self.leave(&member.pod, uid);
            self.update_member(directory, &member.pod, gone);
        }
    }

    fn uids(&self) -> Vec<Owner> {
        self.slices.keys().map(Arc::clone).collect()
    }
}

impl Follow<Service> for Store {
    const SOURCE: Source = Source::Services;

    fn set(&mut self, directory: &mut Directory, service: &Service, now: Timestamp) {
        let metadata = service.metadata();
        let texts = service.spec.cluster_ips.iter().chain(&service.spec.cluster_ip);
        // That of a headless one is `None`.
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        directory.keep_only(&metadata.uid, &addresses, now);
        let identity = Arc::new(Identity {
            namespace: Some(Arc::clone(&metadata.namespace)),
            service: Some(Arc::clone(&metadata.name)),
            ..Identity::default()
        });
        let created = time(metadata.creation_timestamp.as_deref()).unwrap_or(now).before(CLOCKS);
        for address in &addresses {
            directory.claim(
                Source::Services,
                Claim {
                    address: *address,
                    owner: Arc::clone(&metadata.uid),
                    identity: Arc::clone(&identity),
                    ports: Arc::default(),
                    possible_since: created,
                    certain_since: now,
                },
            );
        }
        self.services.insert(Arc::clone(&metadata.uid), addresses);
    }

    fn remove(&mut self, directory: &mut Directory, uid: &str, gone: Gone) {
        if self.services.remove(uid).is_some() {
            gone.release(directory, uid);
        }
    }

    fn uids(&self) -> Vec<Owner> {
        self.services.keys().map(Arc::clone).collect()
    }
}

impl Store {
    /// The addresses of this node, which pods in its network share.
    fn set_node(&self, directory: &mut Directory, pod: &Pod, now: Timestamp) {
        let addresses = pod.status.host_ips.iter().map(|address| &address.ip).chain(&pod.status.host_ip);
        for address in addresses.filter_map(|text| text.parse().ok()) {
            directory.claim(
                Source::Pods,
                Claim {
                    address,
                    owner: Arc::clone(&self.node),
                    identity: Arc::new(Identity {
                        node: Some(Arc::clone(&self.node)),
                        ..Identity::default()
                    }),
                    ports: Arc::default(),
                    possible_since: Timestamp::default(),
                    certain_since: now,
                },
            );
        }
    }

    fn leave(&mut self, pod: &str, slice: &str) {
        if let Some(slices) = self.memberships.get_mut(pod) {
            slices.remove(slice);
            if slices.is_empty() {
                self.memberships.remove(pod);
            }
        }
    }

    /// What the slices say of a pod.
    fn members<'a>(&'a self, pod: &'a str) -> impl Iterator<Item = &'a Member> {
        let slices = self.memberships.get(pod).into_iter().flatten();
        slices.filter_map(|slice| self.slices.get(slice)).flatten().filter(move |member| *member.pod == *pod)
    }

    /// Tells what the slices say of a pod by now. Pods of this node speak for themselves.
    fn update_member(&self, directory: &mut Directory, pod: &Owner, gone: Gone) {
        if self.pods.contains_key(pod) {
            return self.claim(directory, pod);
        }
        let is_local = |member: &Member| member.identity.node.as_deref() == Some(&*self.node);
        let members: Vec<_> = self.members(pod).filter(|member| !is_local(member)).collect();
        let addresses: Vec<_> = members.iter().flat_map(|member| member.addresses.iter().copied()).collect();
        if addresses.is_empty() {
            return gone.release(directory, pod);
        }
        directory.keep_only(pod, &addresses, gone.now);
        let ports: Arc<[Port]> = self.ports(pod, &BTreeMap::new()).into();
        for member in &members {
            for address in &member.addresses {
                directory.claim(
                    Source::Endpoints,
                    Claim {
                        address: *address,
                        owner: Arc::clone(pod),
                        identity: Arc::clone(&member.identity),
                        ports: Arc::clone(&ports),
                        possible_since: member.seen.before(BEFORE_READY),
                        certain_since: member.seen,
                    },
                );
            }
        }
        if !members.iter().any(|member| member.is_certain) {
            directory.doubt(pod, gone.now);
        }
    }

    /// Claims the addresses of a pod of this node.
    fn claim(&self, directory: &mut Directory, uid: &Owner) {
        let Some(known) = self.pods.get(uid) else { return };
        let ports: Arc<[Port]> = self.ports(uid, &known.containers).into();
        for address in &known.addresses {
            directory.claim(
                Source::Pods,
                Claim {
                    address: *address,
                    owner: Arc::clone(uid),
                    identity: Arc::clone(&known.identity),
                    ports: Arc::clone(&ports),
                    possible_since: known.created,
                    certain_since: known.seen,
                },
            );
        }
    }

    /// Containers and Services by port: one entry more for each Service beyond the first.
    fn ports(&self, pod: &str, containers: &BTreeMap<u16, Listening>) -> Vec<Port> {
        let mut services: BTreeMap<u16, Vec<Arc<str>>> = BTreeMap::new();
        for member in self.members(pod) {
            for port in &member.ports {
                let of_port = services.entry(*port).or_default();
                of_port.extend(
                    member
                        .service
                        .iter()
                        .filter(|service| !of_port.contains(service))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
        }
        let numbers: BTreeSet<u16> = containers.keys().chain(services.keys()).copied().collect();
        let mut ports = Vec::new();
        for number in numbers {
            let mut of_port = services.remove(&number).unwrap_or_default().into_iter();
            let listening = containers.get(&number);
            ports.push(Port {
                number,
                container: listening.map(|listening| Arc::clone(&listening.container)),
                service: of_port.next(),
                gateway: listening.and_then(|listening| listening.gateway),
            });
            ports.extend(of_port.map(|service| Port {
                number,
                container: None,
                service: Some(service),
                gateway: None,
            }));
        }
        ports
    }
}

/// What a pod's labels tell, else the controller that owns it.
fn workload_of(metadata: &Metadata) -> Option<Workload> {
    let label = |name: &str| metadata.labels.get(name).map(|value| &**value);
    workload::of_labels(&metadata.name, label).or_else(|| {
        let owner = metadata.owner_references.iter().find(|owner| owner.controller)?;
        Some(Workload { kind: Arc::clone(&owner.kind), name: Arc::clone(&owner.name) })
    })
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    Timestamp::parse(text?)
}
