//! Who is behind an address: pod, namespace, workload, container, node, Service, or a process of this host.
//!
//! [`Directory`] is a table in memory, and pure: it knows who had which address and when, and gives a name only where
//! there is no doubt. Whoever fills it does so in a thread of its own; to name the ends of a verdict is to read it, so
//! that nothing ever waits for a look-up.

pub mod apigee;
#[cfg(feature = "cri")]
pub mod cri;
mod directory;
mod gateway;
mod identity;
#[cfg(feature = "k8s")]
pub mod kubernetes;
mod processes;
#[cfg(any(feature = "cri", feature = "k8s"))]
mod workload;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::facts::{Peer, Role};
use crate::engine::timestamp::Timestamp;
use crate::verdict::explain::Product;
use crate::verdict::{Severity, Verdict};

use apigee::Routes;
pub use directory::{Claim, Directory, Owner, Source};
pub use gateway::Gateway;
pub use identity::{Ends, Identity, Port, Process, Workload};
pub use processes::{Listeners, follow_listeners};

/// What is known by now, shared by those who find it out and those who print it: a clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct Names {
    directory: Arc<Mutex<Directory>>,
    listeners: Arc<Mutex<Listeners>>,
    routes: Option<Arc<Mutex<Routes>>>,
}

impl Names {
    /// Such that routes of Apigee hybrid are of interest, too.
    pub fn with_routes() -> Self {
        Self { routes: Some(Arc::default()), ..Self::default() }
    }

    /// Who has an address in a cluster.
    pub fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens on this host.
    pub fn listeners(&self) -> &Arc<Mutex<Listeners>> {
        &self.listeners
    }

    /// The routes of gateways of this node, if they are of interest.
    pub fn routes(&self) -> Option<MutexGuard<'_, Routes>> {
        let routes = self.routes.as_deref()?;
        Some(routes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds to a verdict what is known of the ends of its connection.
    pub fn complete(&self, verdict: &mut Verdict) {
        verdict.names = self.ends(verdict);
        if verdict.severity == Severity::Info {
            return;
        }
        let Some((routes, server)) = self.routes().zip(verdict.names.server.as_deref()) else { return };
        let product = server.gateway().and_then(|gateway| gateway.product_as(Role::Server));
        let namespace = server.namespace.as_deref().filter(|_| product == Some(Product::ApigeeHybrid));
        let name = verdict.facts.server_name();
        let evidence = namespace
            .map(|namespace| routes.evidence(verdict.id, namespace, name.as_deref(), verdict.time()))
            .unwrap_or_default();
        drop(name);
        verdict.evidence.extend(evidence);
    }

    /// Who the ends of the verdict's connection are.
    fn ends(&self, verdict: &Verdict) -> Ends {
        let facts = &*verdict.facts;
        let period = (facts.first_seen, facts.last_seen);
        let directory = self.directory();
        let client = match facts.proxy.as_ref().and_then(|header| header.source) {
            // The connection itself is a load balancer's.
            Some(inner) => directory.name(inner, period.0, period.1),
            None => name_of(facts.client(), &directory, period),
        };
        let mut server = name_of(facts.server(), &directory, period);
        drop(directory);
        // A pod listens in a network namespace of its own.
        let is_pod = server.as_ref().is_some_and(|identity| identity.pod.is_some());
        if verdict.severity > Severity::Info && !is_pod {
            let process = self.listening_process(facts.server().address, period.0);
            if process.is_some() {
                server = Some(Identity { process, ..server.unwrap_or_default() });
            }
        }
        Ends { client: client.map(Arc::new), server: server.map(Arc::new) }
    }

    fn listening_process(&self, end: SocketAddr, first: Timestamp) -> Option<Process> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.owner_of(end, first)
    }
}

/// Whose address an end has, on either side of a translation: before it a Service's, behind it a pod's.
fn name_of(peer: &Peer, directory: &Directory, (first, last): (Timestamp, Timestamp)) -> Option<Identity> {
    let names = [peer.translated.as_deref(), Some(&peer.address)].into_iter().flatten();
    names.filter_map(|end| directory.name(*end, first, last)).reduce(|behind, before| {
        if behind.namespace == before.namespace || behind.pod.is_none() { behind.or(before) } else { behind }
    })
}
