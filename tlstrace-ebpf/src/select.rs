//! What of a packet is wanted: the path that every packet takes, cheapest questions first.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::TcContext;
use tlstrace_common::event::{Notes, TcpFlags};
use tlstrace_common::flow::{self, FlowKey, Sender};
use tlstrace_common::framing::{Mode, Payload, Place, Stream};
use tlstrace_common::limits;
use tlstrace_common::link::{self, Start};
use tlstrace_common::load::Load;
use tlstrace_common::packet::{self, TcpPacket};
use tlstrace_common::skip::{Counter, Skip};
use tlstrace_common::{net, tcp};

use crate::emit::{self, Event, Hook};
use crate::skb::{Linear, Paged};
use crate::{gate, stats};

#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(1 << 16, 0);

/// A flow that is followed.
#[repr(C)]
#[derive(Clone, Copy)]
struct Flow {
    /// By [`Sender`].
    streams: [Stream; 2],
    /// Segments with payload.
    segments: u32,
    /// Those that were reported although they are not TLS.
    not_tls: u32,
    /// [`Flow::FINISHED`] and the like.
    flags: u32,
    /// Epoch in which the gate counted the flow.
    entered: u32,
}

impl Flow {
    /// Enough was seen.
    const FINISHED: u32 = 0x01;
    /// The gate does not count the flow any more.
    const LEFT_GATE: u32 = 0x02;
    /// An event of this flow was lost since the last one that was not.
    const LOSS: u32 = 0x04;
    /// FIN was seen, by sender.
    const FIN: [u32; 2] = [0x08, 0x10];
}

/// Segments with these flags are never skipped for their flow being an established one.
const RARE: u8 = TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN;

/// Selects a packet's event, if any, and writes it.
#[inline(always)]
pub(crate) fn packet(context: &TcContext, start: Start, hook: Hook) -> Result<(), Skip> {
    let packet = headers(context, start)?;
    let hash = flow::hash(&packet);
    if packet.tcp.flags & RARE == 0 && !gate::is_open(hash) && !warm_up(context, &packet) {
        return Err(Skip::Established);
    }
    let packet = packet;
    candidate(context, &packet, hash, hook)
}

/// The walk over the headers, in place where they are linear and IPv6 has no extension headers.
#[inline(always)]
fn headers(context: &TcContext, start: Start) -> Result<TcpPacket, Skip> {
    let linear = Linear::new(context);
    match plain_headers(&linear, start) {
        Ok(Some(packet)) => Ok(packet),
        Err(Skip::Truncated) if Linear::is_partial(context) => rare_headers(context, start),
        Ok(None) => rare_headers(context, start),
        Err(skip) => Err(skip),
    }
}

/// `None` if there are IPv6 extension headers.
#[inline(always)]
fn plain_headers(load: &impl Load, start: Start) -> Result<Option<TcpPacket>, Skip> {
    let link = link::walk(load, start)?;
    let datagram = net::header(load, &link)?;
    if datagram.has_extensions() {
        return Ok(None);
    }
    let tcp = tcp::walk(load, &datagram)?;
    Ok(Some(TcpPacket::new(&link, &datagram, tcp)))
}

/// The walk over all kinds of headers, wherever they are.
#[inline(never)]
fn rare_headers(context: &TcContext, start: Start) -> Result<TcpPacket, Skip> {
    packet::walk(&Paged(context), start)
}

/// Shortly after attaching, whether the segment begins a handshake on a connection that was opened
/// before.
#[inline(always)]
fn warm_up(context: &TcContext, packet: &TcpPacket) -> bool {
    if packet.tcp.payload_len == 0 || emit::control().is_none_or(|control| control.warm_up == 0) {
        return false;
    }
    false
}

#[inline(never)]
fn candidate(context: &TcContext, packet: &TcpPacket, hash: u32, hook: Hook) -> Result<(), Skip> {
    let event = Event::new(context, packet).ok_or(Skip::NoPayload)?;
    event.emit(packet, hook, emit::now());
    Ok(())
}
