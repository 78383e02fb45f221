//! Who sent a RST: the kernel says, with its reason, and in the context of the process that closed the socket.
//!
//! A raw tracepoint: it needs neither tracefs, which containers and `ip netns exec` hide, nor `perf_event_open`, which
//! seccomp filters refuse. Its arguments are the kernel's own structures, whose layout userspace reads from BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use aya_ebpf::programs::RawTracePointContext;
use tlstrace_common::config::Layout;
use tlstrace_common::event::{Kind, ResetReport, TcpFlags};
use tlstrace_common::skip::Counter;

use crate::{emit, stats};

/// Set by userspace before the program is loaded.
#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout {
    family: 0,
    state: 0,
    local_v4: 0,
    local_v6: 0,
    local_port: 0,
    remote_v4: 0,
    remote_v6: 0,
    remote_port: 0,
    snd_nxt: 0,
    rcv_nxt: 0,
    head: 0,
    network_header: 0,
    transport_header: 0,
    group_leader: 0,
    command: 0,
    padding: 0,
};

/// `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, enum sk_rst_reason reason)`, as of Linux 6.10.
/// `skb` is what a RST answers; without it a socket was aborted.
#[inline(always)]
pub(crate) fn report(context: &RawTracePointContext) {
    // SAFETY: a plain value; volatile, since the loader writes it.
    let layout = unsafe { (&raw const LAYOUT).read_volatile() };
    let (socket, segment): (u64, u64) = (context.arg(0), context.arg(1));
    let mut report = ResetReport {
        timestamp_ns: emit::now(),
        kind: Kind::RESET,
        reason: context.arg(2),
        ..ResetReport::default()
    };
    let is_read = if segment == 0 {
        abort(&mut report, socket, &layout)
    } else {
        answer(&mut report, segment, &layout)
    };
    if is_read.is_none() {
        return;
    }
    if !emit::write_aside(&report) {
        stats::count(Counter::ResetUnreported);
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket was aborted, by the process that is running or by a timer.
#[inline(always)]
fn abort(report: &mut ResetReport, socket: u64, layout: &Layout) -> Option<()> {
    match read::<u16>(socket, layout.family)? {
        AF_INET => {
            report.local = mapped(read(socket, layout.local_v4)?);
            report.remote = mapped(read(socket, layout.remote_v4)?);
        }
        AF_INET6 => {
            report.local = read(socket, layout.local_v6)?;
            report.remote = read(socket, layout.remote_v6)?;
        }
        _ => return None,
    }
    report.local_port = read(socket, layout.local_port)?;
    report.remote_port = u16::from_be(read(socket, layout.remote_port)?);
    report.state = read(socket, layout.state)?;
    report.sequence = read(socket, layout.snd_nxt)?;
    report.acknowledgement = read(socket, layout.rcv_nxt)?;
    // SAFETY: helpers without arguments.
    let (ids, task) = unsafe { (bpf_get_current_pid_tgid(), bpf_get_current_task()) };
    report.pid = (ids >> 32) as u32;
    // The thread's own name is that of a worker; its leader's is the program's.
    report.command = read(read(task, layout.group_leader)?, layout.command)?;
    Some(())
}

/// The RST answers a segment (RFC 9293 §3.5.2).
#[inline(always)]
fn answer(report: &mut ResetReport, segment: u64, layout: &Layout) -> Option<()> {
    let head: u64 = read(segment, layout.head)?;
    let network = head + u64::from(read::<u16>(segment, layout.network_header)?);
    let transport = head + u64::from(read::<u16>(segment, layout.transport_header)?);
    if read::<u8>(network, 0)? >> 4 == 4 {
        report.remote = mapped(read(network, 12)?);
        report.local = mapped(read(network, 16)?);
    } else {
        report.remote = read(network, 8)?;
        report.local = read(network, 24)?;
    }
    report.answers = 1;
    report.remote_port = u16::from_be(read(transport, 0)?);
    report.local_port = u16::from_be(read(transport, 2)?);
    let flags: u8 = read(transport, 13)?;
    if flags & TcpFlags::ACK != 0 {
        report.sequence = u32::from_be(read(transport, 8)?);
    } else {
        let counted = u32::from(flags & TcpFlags::SYN != 0) + u32::from(flags & TcpFlags::FIN != 0);
        report.acknowledgement = u32::from_be(read(transport, 4)?).wrapping_add(counted);
    }
    Some(())
}

#[inline(always)]
fn read<T>(structure: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address; all that is read are integers and arrays of them.
    unsafe { bpf_probe_read_kernel((structure + u64::from(offset)) as *const T) }.ok()
}

#[inline(always)]
fn mapped(address: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = address;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}
