//! Who is behind an address: pod, namespace, workload, container, node, Service, or a process of this host.
//!
//! [`Directory`] is a table in memory, and pure: it knows who had which address and when, and gives a name only where
//! there is no doubt. Whoever fills it does so in a thread of its own; to name the ends of a verdict is to read it, so
//! that nothing ever waits for a look-up.

#[cfg(feature = "cri")]
pub mod cri;
mod directory;
mod identity;
#[cfg(feature = "k8s")]
pub mod kubernetes;
mod processes;
#[cfg(any(feature = "cri", feature = "k8s"))]
mod workload;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::facts::Peer;
use crate::engine::timestamp::Timestamp;
use crate::verdict::{Severity, Verdict};

pub use directory::{Claim, Directory, Owner, Source};
pub use identity::{Ends, Identity, Port, Process, Workload};
pub use processes::{Listeners, follow_listeners};

/// What is known by now, shared by those who find it out and those who print it: a clone is the same table.
#[derive(Clone, Debug, Default)]
pub struct Names {
    directory: Arc<Mutex<Directory>>,
    listeners: Arc<Mutex<Listeners>>,
}

impl Names {
    /// Who has an address in a cluster.
    pub fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who listens on this host.
    pub fn listeners(&self) -> &Arc<Mutex<Listeners>> {
        &self.listeners
    }

    /// Who the ends of the verdict's connection are.
    pub fn ends(&self, verdict: &Verdict) -> Ends {
        let facts = &*verdict.facts;
        let period = (facts.first_seen, facts.last_seen);
        let directory = self.directory();
        let client = match facts.proxy.and_then(|header| header.source) {
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
    let names = [peer.translated, Some(peer.address)].into_iter().flatten();
    names.filter_map(|end| directory.name(end, first, last)).reduce(|behind, before| {
        if behind.namespace == before.namespace || behind.pod.is_none() { behind.or(before) } else { behind }
    })
}
