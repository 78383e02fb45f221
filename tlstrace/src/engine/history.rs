//! What each listener has accepted and refused so far.
//!
//! A refusal on the wire rarely says why; that the same listener accepts others who differ in one respect
//! does. Only completed handshakes count as accepted, so that a client cannot teach by offering.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::facts::HandshakeFacts;

/// Most listeners that are remembered.
const MAX_LISTENERS: usize = 4096;
/// Most server names that are remembered per listener.
const MAX_NAMES: usize = 256;

/// All listeners.
#[derive(Debug, Default)]
pub(crate) struct History {
    listeners: HashMap<SocketAddr, ListenerHistory>,
    unknown: ListenerHistory,
}

/// One listener: a server address and port.
#[derive(Clone, Debug, Default)]
pub struct ListenerHistory {
    /// ClientHellos with and without server_name.
    pub with_name: Tally,
    pub without_name: Tally,
    /// By server name.
    names: HashMap<Box<str>, Tally>,
    /// Plaintext HTTP that was answered as such: this listener does not speak TLS.
    pub plaintext_answers: u64,
}

/// How often something was accepted (the handshake completed) and refused.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub accepted: u64,
    pub refused: u64,
}

impl ListenerHistory {
    /// What became of hellos with this server name.
    pub fn name(&self, name: &str) -> Tally {
        self.names.get(name).copied().unwrap_or_default()
    }

    /// Handshakes that completed here.
    pub fn accepted(&self) -> u64 {
        self.with_name.accepted + self.without_name.accepted
    }
}

impl History {
    pub(crate) fn listener(&self, facts: &HandshakeFacts) -> &ListenerHistory {
        self.listeners.get(&facts.server().address).unwrap_or(&self.unknown)
    }

    pub(crate) fn learn(&mut self, facts: &HandshakeFacts, _verdict: &str) {
        let address = facts.server().address;
        if self.listeners.len() >= MAX_LISTENERS && !self.listeners.contains_key(&address) {
            return;
        }
        let Some(hello) = &facts.client_hello else { return };
        let accepted = facts.progress.complete.is_some();
        let refused = !accepted && !facts.endings.is_empty() && facts.is_complete_capture();
        let listener = self.listeners.entry(address).or_default();
        let count = |tally: &mut Tally| {
            tally.accepted += u64::from(accepted);
            tally.refused += u64::from(refused);
        };
        match &hello.server_name {
            None => count(&mut listener.without_name),
            Some(name) => {
                count(&mut listener.with_name);
                let name = name.as_str();
                if listener.names.len() < MAX_NAMES || listener.names.contains_key(&*name) {
                    count(listener.names.entry(name.into()).or_default());
                }
            }
        }
    }
}
