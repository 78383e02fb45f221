//! tlstrace's BPF programs: TC classifiers, and filters of packet sockets, that copy the segments of TLS
//! handshakes into a ring buffer, and leave every packet as it is; and a tracepoint that tells which RSTs are this
//! node's own.
//!
//! A packet passes `packet::walk` (headers), then the [`gate`] (may a handshake be under way in this
//! flow?), which nearly all leave by; then [`select`] (what of this segment is wanted), then [`emit`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "a call costs more than most steps, and hides the packet's bounds from the verifier"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are wide, fields are narrow, and a check that cannot fail costs every packet"
)]

mod choice;
mod diagnostics;
mod emit;
mod gate;
mod machine;
mod reset;
mod select;
mod skb;
mod stats;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{classifier, raw_tracepoint, socket_filter};
use aya_ebpf::programs::{RawTracePointContext, SkBuffContext, TcContext};
use tlstrace_common::link::Start;

use crate::emit::Hook;

#[classifier]
fn tlstrace_in(context: TcContext) -> i32 {
    run(context, Start::Ethernet, Hook::Ingress)
}

#[classifier]
fn tlstrace_out(context: TcContext) -> i32 {
    run(context, Start::Ethernet, Hook::Egress)
}

#[classifier]
fn tlstrace_l3_in(context: TcContext) -> i32 {
    run(context, Start::Ip, Hook::Ingress)
}

#[classifier]
fn tlstrace_l3_out(context: TcContext) -> i32 {
    run(context, Start::Ip, Hook::Egress)
}

#[socket_filter]
fn tlstrace_tap(context: SkBuffContext) -> i64 {
    tap(context, Start::Ethernet)
}

#[socket_filter]
fn tlstrace_l3_tap(context: SkBuffContext) -> i64 {
    tap(context, Start::Ip)
}

/// Tells of the RSTs that this node's kernel sends.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
#[expect(clippy::needless_pass_by_value, reason = "the macro calls it so")]
fn tlstrace_reset(context: RawTracePointContext) -> i32 {
    reset::report(&context);
    0
}

/// Counts what became of the packet, and leaves its fate to the rest of the chain, whatever that was.
#[inline(always)]
fn run(context: TcContext, start: Start, hook: Hook) -> i32 {
    let TcContext { skb } = context;
    // SAFETY: the context is valid as long as the program runs, and nothing else refers to it.
    let skb = unsafe { &mut *skb.skb };
    if let Some(outcome) = select::packet(skb, start, hook) {
        stats::settle(outcome);
    }
    TC_ACT_UNSPEC
}

/// The same for a packet of which a packet socket gets a copy: the socket keeps nothing of it.
#[inline(always)]
fn tap(context: SkBuffContext, start: Start) -> i64 {
    let SkBuffContext { skb } = context;
    // SAFETY: as in `run`.
    let skb = unsafe { &mut *skb.skb };
    let hook = if skb.pkt_type == PACKET_OUTGOING { Hook::Egress } else { Hook::Ingress };
    select::copied_packet(skb, start, hook);
    0
}

/// `PACKET_OUTGOING` of `linux/if_packet.h`.
const PACKET_OUTGOING: u32 = 4;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends some helpers to programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
