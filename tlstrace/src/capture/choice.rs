//! Which connections the BPF programs leave out, so that those cost nothing further.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::Context as _;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::{Ebpf, EbpfLoader};
use tlstrace_common::choice::{self, EXCLUDED, LISTED};
use tlstrace_common::symbols;

use crate::engine::locality::Network;

/// Connections that are chosen by what their SYN shows. Nothing given means all.
///
/// Who is not chosen may be seen nevertheless: about one connection a second, and what began before the capture.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// One of the two ports must be in one of these.
    pub ports: Vec<RangeInclusive<u16>>,
    /// The server's address must be in one of these.
    pub servers: Vec<Network>,
    /// The server's address must be in none of these.
    pub not_servers: Vec<Network>,
}

impl Choice {
    /// Prepares the object so that its programs choose. The loader borrows what is returned.
    pub(super) fn globals(&self) -> (choice::Choice, choice::Ports) {
        let by_server = match (self.servers.is_empty(), self.not_servers.is_empty()) {
            (true, true) => 0,
            (false, _) => choice::Choice::ONLY_LISTED,
            (true, false) => choice::Choice::ALL_BUT_EXCLUDED,
        };
        let mut ports = choice::Ports::NONE;
        self.ports.iter().cloned().flatten().for_each(|port| ports.insert(port));
        (choice::Choice { by_port: (!self.ports.is_empty()).into(), by_server }, ports)
    }

    /// Makes room for the networks.
    pub(super) fn size(&self, loader: &mut EbpfLoader<'_>) {
        let networks = self.servers.len() + self.not_servers.len();
        loader.map_max_entries(symbols::SERVERS, u32::try_from(networks.max(1)).unwrap_or(u32::MAX));
    }

    /// Tells the programs the networks.
    pub(super) fn fill(&self, ebpf: &mut Ebpf) -> anyhow::Result<()> {
        let map = ebpf.map_mut(symbols::SERVERS).context("the BPF object has no map for networks")?;
        let mut trie = LpmTrie::<_, [u8; 16], u32>::try_from(map)?;
        // What is excluded comes last: of two equal networks it is the one that counts.
        let networks = self.servers.iter().map(|network| (network, LISTED));
        for (network, kind) in networks.chain(self.not_servers.iter().map(|network| (network, EXCLUDED))) {
            trie.insert(&key(network), kind, 0).context("cannot tell the BPF programs a network")?;
        }
        Ok(())
    }
}

fn key(network: &Network) -> Key<[u8; 16]> {
    let (address, prefix) = match network.address() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), 96 + network.prefix()),
        IpAddr::V6(address) => (address, network.prefix()),
    };
    Key::new(prefix, address.octets())
}
