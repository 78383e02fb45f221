//! What is known of one end of a connection.

use std::fmt;
use std::sync::Arc;

use super::gateway::Gateway;
use crate::engine::facts::Role;

/// Names of whoever has an address. Texts are as a cluster or a process gave them, and not safe for a terminal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    pub namespace: Option<Arc<str>>,
    pub pod: Option<Arc<str>>,
    /// The container that listens, where the pod says so or has one only.
    pub container: Option<Arc<str>>,
    pub workload: Option<Workload>,
    pub node: Option<Arc<str>>,
    /// The Service that leads here.
    pub service: Option<Arc<str>>,
    /// On this host, and in none of its pods.
    pub process: Option<Process>,
    /// What its pod is known to be; see [`Self::gateway`].
    pub gateway: Option<Gateway>,
}

/// What a pod was made for: its outermost owner that is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// `Deployment`, `DaemonSet`, `StatefulSet`, `Job`, …
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

/// A process that listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    pub pid: u32,
    /// What the process calls itself: not to be trusted.
    pub command: Arc<str>,
}

/// What only holds for one port of an address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Port {
    pub number: u16,
    pub container: Option<Arc<str>>,
    pub service: Option<Arc<str>>,
    /// What the container is known to be.
    pub gateway: Option<Gateway>,
}

/// Names of both ends of a connection, where they are known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ends {
    pub client: Option<Arc<Identity>>,
    pub server: Option<Arc<Identity>>,
}

impl Identity {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The product that its pod or process is, if that is known.
    pub fn gateway(&self) -> Option<Gateway> {
        self.gateway.or_else(|| Gateway::of_command(&self.process.as_ref()?.command))
    }

    /// Takes from `other` what is not known yet.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            namespace: self.namespace.or(other.namespace),
            pod: self.pod.or(other.pod),
            container: self.container.or(other.container),
            workload: self.workload.or(other.workload),
            node: self.node.or(other.node),
            service: self.service.or(other.service),
            process: self.process.or(other.process),
            gateway: self.gateway.or(other.gateway),
        }
    }
}

impl fmt::Display for Identity {
    /// What stands for an address: `shop/web-7d9f`, `shop/svc/web` or `node/gke-1`; nothing if it has no such name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        match self {
            Self { pod: Some(pod), .. } => write!(f, "{namespace}/{pod}"),
            Self { service: Some(service), .. } => write!(f, "{namespace}/svc/{service}"),
            Self { node: Some(node), .. } => write!(f, "node/{node}"),
            _ => Ok(()),
        }
    }
}

impl Ends {
    /// The one in this role.
    pub fn of(&self, role: Role) -> Option<&Identity> {
        match role {
            Role::Client => self.client.as_deref(),
            Role::Server => self.server.as_deref(),
        }
    }

    /// Those that are known, the client first.
    pub fn known(&self) -> impl Iterator<Item = &Identity> {
        [&self.client, &self.server].into_iter().flatten().map(|identity| &**identity)
    }

    /// The end that a line about the connection is filed under: the server, unless only the client is a pod.
    pub fn subject(&self) -> Option<&Identity> {
        let is_pod = |identity: &&Identity| identity.pod.is_some();
        let [client, server] = [self.client.as_deref(), self.server.as_deref()];
        server.filter(is_pod).or(client.filter(is_pod)).or(server).or(client)
    }
}
