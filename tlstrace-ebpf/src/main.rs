//! tlstrace's BPF programs: TC classifiers, and filters of packet sockets, that copy the segments of TLS
//! handshakes into a ring buffer, and leave every packet as it is; and a tracepoint that tells which RSTs are this
//! node's own.
//!
//! A packet passes `glance` or the walk over its headers, then the [`gate`] (may a handshake be under way in this
//! flow?), which nearly all leave by. What remains is left to a second program by a tail call: [`select`] (what of
//! this segment is wanted), then [`emit`]. It is nearly all that the verifier has to walk, and so it is verified
//! once for all interfaces and directions; and a packet socket is charged for its small filter only.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "a call costs more than most steps, and hides the packet's bounds from the verifier"
)]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand a program's context over so")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are wide, fields are narrow, and a check that cannot fail costs every packet"
)]

mod choice;
mod diagnostics;
mod emit;
mod flows;
mod gate;
mod machine;
mod reset;
mod select;
mod skb;
mod stats;

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{classifier, map, raw_tracepoint, socket_filter};
use aya_ebpf::maps::ProgramArray;
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

/// What the classifiers above leave to it.
#[classifier]
fn tlstrace_select(context: TcContext) -> i32 {
    // SAFETY: the context is valid as long as the program runs, and nothing else refers to it.
    select::rest(unsafe { &mut *context.skb.skb });
    TC_ACT_UNSPEC
}

#[socket_filter]
fn tlstrace_tap(context: SkBuffContext) -> i64 {
    tap(&context, Start::Ethernet)
}

#[socket_filter]
fn tlstrace_l3_tap(context: SkBuffContext) -> i64 {
    tap(&context, Start::Ip)
}

/// What the filters above leave to it.
#[socket_filter]
fn tlstrace_tapsel(context: SkBuffContext) -> i64 {
    // SAFETY: as in `tlstrace_select`.
    select::rest(unsafe { &mut *context.skb.skb });
    KEEP_NOTHING
}

/// One program each: those that tail calls lead to.
#[map]
static SELECT: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static TAP_SELECT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Tells of the RSTs that this node's kernel sends.
#[raw_tracepoint(tracepoint = "tcp_send_reset")]
fn tlstrace_reset(context: RawTracePointContext) -> i32 {
    reset::report(&context);
    0
}

/// Counts what became of the packet, and leaves its fate to the rest of the chain, whatever that was.
#[inline(always)]
fn run(context: TcContext, start: Start, hook: Hook) -> i32 {
    // SAFETY: the context is valid as long as the program runs, and nothing else refers to it.
    let skb = unsafe { &*context.skb.skb };
    match select::first(skb, start, hook) {
        Err(skip) => stats::settle(Err(skip)),
        // SAFETY: nothing is left behind that would have to be dropped.
        Ok(()) => unsafe { SELECT.tail_call(&context, 0) },
    }
    TC_ACT_UNSPEC
}

/// The same for a packet of which a packet socket gets a copy: the socket keeps nothing of it.
#[inline(always)]
fn tap(context: &SkBuffContext, start: Start) -> i64 {
    // SAFETY: as in `run`.
    let skb = unsafe { &*context.skb.skb };
    let hook = if skb.pkt_type == PACKET_OUTGOING { Hook::Egress } else { Hook::Ingress };
    select::postpone(start, hook);
    // SAFETY: as in `run`.
    unsafe { TAP_SELECT.tail_call(context, 0) };
    KEEP_NOTHING
}

/// What a socket filter returns that lets the socket have nothing of the packet.
const KEEP_NOTHING: i64 = 0;
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
