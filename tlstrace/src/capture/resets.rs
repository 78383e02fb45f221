//! What this node's kernel says of the RSTs that it sends: why, and which process made it.
//!
//! The tracepoint `tcp:tcp_send_reset` carries a reason from Linux 6.10 on. It is optional: without it, or without the
//! right to use it, verdicts rest on what the RST looks like.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use aya::programs::raw_trace_point::RawTracePointLink;
use tlstrace_common::config::Layout;
use tlstrace_common::event::ResetReport;
use tlstrace_common::symbols;

use super::btf::Btf;
use super::clock::Clock;
use super::loader::Programs;
use crate::engine::resets::{LocalReset, Process};
use crate::engine::segment::address;
use crate::engine::timestamp::Timestamp;

/// What has to be known of the kernel to read its reports.
pub(super) struct Kernel {
    pub(super) layout: Layout,
    reasons: BTreeMap<u32, Arc<str>>,
}

impl Kernel {
    /// Looks into the kernel's type information. The error says why there can be no reports.
    pub(super) fn read() -> anyhow::Result<Self> {
        let btf = Btf::of_kernel().context("the kernel's type information (BTF) cannot be read")?;
        // `sk`, `skb`, `reason`.
        if btf.tracepoint_arguments(symbols::SEND_RESET) != Some(3) {
            bail!("this kernel gives no reasons for its resets (Linux 6.10 does)");
        }
        let reasons = btf.enumerators("sk_rst_reason").context("this kernel does not name its reasons")?;
        let reasons = reasons
            .into_iter()
            .map(|(number, name)| (number, Arc::from(name.strip_prefix("SK_RST_REASON_").unwrap_or(name))));
        Ok(Self { reasons: reasons.collect(), layout: layout(&btf)? })
    }
}

/// Where the programs find what they report.
fn layout(btf: &Btf) -> anyhow::Result<Layout> {
    let offset = |structure, member| {
        btf.offset_of(structure, member).with_context(|| format!("this kernel has no {structure}.{member}"))
    };
    Ok(Layout {
        family: offset("sock_common", "skc_family")?,
        state: offset("sock_common", "skc_state")?,
        local_v4: offset("sock_common", "skc_rcv_saddr")?,
        local_v6: offset("sock_common", "skc_v6_rcv_saddr")?,
        local_port: offset("sock_common", "skc_num")?,
        remote_v4: offset("sock_common", "skc_daddr")?,
        remote_v6: offset("sock_common", "skc_v6_daddr")?,
        remote_port: offset("sock_common", "skc_dport")?,
        snd_nxt: offset("tcp_sock", "snd_nxt")?,
        rcv_nxt: offset("tcp_sock", "rcv_nxt")?,
        head: offset("sk_buff", "head")?,
        network_header: offset("sk_buff", "network_header")?,
        transport_header: offset("sk_buff", "transport_header")?,
        group_leader: offset("task_struct", "group_leader")?,
        command: offset("task_struct", "comm")?,
        padding: 0,
    })
}

/// The attached tracepoint, and what its reports mean. Dropping it detaches.
pub(super) struct Reports {
    _link: RawTracePointLink,
    kernel: Kernel,
    own: Own,
    /// How many RSTs had not been reported for want of room, when that was last looked at.
    unreported: u64,
    /// No report is missing since then. Reports begin before any packet is seen.
    complete_since: Timestamp,
}

impl Reports {
    /// Attaches the tracepoint.
    pub(super) fn start(kernel: Kernel, programs: &mut Programs) -> anyhow::Result<Self> {
        Ok(Self {
            _link: programs.attach_reset()?,
            kernel,
            own: Own::read(),
            unreported: 0,
            complete_since: Timestamp::default(),
        })
    }

    /// A report in the engine's terms.
    pub(super) fn translate(&self, report: &ResetReport, clock: &Clock) -> LocalReset {
        let reason = self.kernel.reasons.get(&report.reason).cloned();
        let is_by_process = report.answers == 0
            && reason.as_deref().is_some_and(|reason| is_act_of_process(reason, report.state));
        LocalReset {
            timestamp: clock.at(report.timestamp_ns),
            local: SocketAddr::new(address(report.local), report.local_port),
            remote: SocketAddr::new(address(report.remote), report.remote_port),
            sequence: report.sequence,
            acknowledgement: report.acknowledgement,
            reason,
            process: is_by_process.then(|| Process { pid: report.pid, command: command(report.command) }),
        }
    }

    /// Whether a RST that leaves from `source` would have been reported, had this kernel's TCP sent it.
    pub(super) fn covers(&self, source: IpAddr, hop_limit: u8) -> bool {
        self.own.addresses.contains(&source) && self.own.hop_limit(source) == Some(hop_limit)
    }

    /// Since when no report is missing, if at `now` so many were.
    pub(super) fn told_since(&mut self, now: Timestamp, unreported: u64) -> Timestamp {
        if self.unreported != unreported {
            self.unreported = unreported;
            self.complete_since = now;
        }
        self.complete_since
    }

    /// Takes the addresses of this network namespace.
    pub(super) fn set_own_addresses(&mut self, addresses: &[IpAddr]) {
        self.own = Own { addresses: addresses.iter().copied().collect(), ..Own::read() };
    }
}

/// Whether a socket is aborted for this reason in the context of the process that closed it, rather than by a timer
/// or on the arrival of a segment (`__tcp_close` and `tcp_disconnect` of `net/ipv4/tcp.c`).
fn is_act_of_process(reason: &str, state: u8) -> bool {
    match reason {
        "TCP_ABORT_ON_CLOSE" | "TCP_ABORT_ON_LINGER" | "TCP_DISCONNECT_WITH_DATA" => true,
        // A timer gives this reason too, but to sockets that are not closed yet.
        "TCP_STATE" => state == TCP_CLOSE,
        _ => false,
    }
}

/// `net/tcp_states.h`
const TCP_CLOSE: u8 = 7;

fn command(bytes: [u8; 16]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// What marks the packets that this network namespace itself sends.
#[derive(Default)]
struct Own {
    addresses: HashSet<IpAddr>,
    /// A forwarded packet has a smaller one.
    ttl: Option<u8>,
    hop_limit: Option<u8>,
}

impl Own {
    /// All but the addresses. What cannot be read is not known, and nothing follows from it.
    fn read() -> Self {
        let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            addresses: HashSet::new(),
            ttl: number("/proc/sys/net/ipv4/ip_default_ttl"),
            hop_limit: number("/proc/sys/net/ipv6/conf/default/hop_limit"),
        }
    }

    fn hop_limit(&self, source: IpAddr) -> Option<u8> {
        if source.is_ipv4() { self.ttl } else { self.hop_limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_at_its_zero_and_may_be_anything() {
        assert_eq!(command(*b"envoy\0gibberish\0"), "envoy");
        assert_eq!(command(*b"sixteen-bytes-xx"), "sixteen-bytes-xx");
        assert_eq!(command([0xff; 16]).chars().count(), 16);
    }

    #[test]
    fn only_what_a_process_does_names_a_process() {
        assert!(is_act_of_process("TCP_ABORT_ON_CLOSE", 0));
        assert!(is_act_of_process("TCP_STATE", TCP_CLOSE));
        let fin_wait_2 = 5;
        assert!(!is_act_of_process("TCP_STATE", fin_wait_2));
        assert!(!is_act_of_process("NO_SOCKET", TCP_CLOSE));
        assert!(!is_act_of_process("TCP_KEEPALIVE_TIMEOUT", 1));
    }
}
