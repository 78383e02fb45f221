//! What of a packet is wanted: the path that every packet takes, cheapest questions first.

use aya_ebpf::bindings::__sk_buff;
use tlstrace_common::event::{Notes, TcpFlags};
use tlstrace_common::flow::{self, FlowKey, Sender};
use tlstrace_common::framing::{Mode, Payload, Place, ProxyHeader, Stream, is_client_hello, proxy_header};
use tlstrace_common::glance::{Glance, glance};
use tlstrace_common::limits;
use tlstrace_common::link::{self, Start};
use tlstrace_common::load::Load;
use tlstrace_common::packet::TcpPacket;
use tlstrace_common::skip::{Counter, Skip};
use tlstrace_common::{net, tcp};

use crate::emit::{self, Event, Hook, Segment, Task};
use crate::flows::Flow;
use crate::machine;
use crate::skb::{Linear, Paged};
use crate::{choice, diagnostics, flows, gate, stats};

/// The path of every packet: says why there is nothing more to do with it, or prepares the [`Task`] for [`rest`].
#[inline(always)]
pub(crate) fn first(skb: &__sk_buff, start: Start, hook: Hook) -> Result<(), Skip> {
    let linear = Linear::new(skb);
    if let Some(Glance { hash, flags }) = glance(&linear, start)
        && flags & RARE == 0
        && !gate::is_open(hash)
        && !is_warming_up()
    {
        return Err(Skip::Established);
    }
    match plain_headers(&linear, start) {
        Ok(Some(packet)) => {
            let hash = pass_gate(skb, &packet)?;
            if let Some(scratch) = emit::scratch() {
                scratch.task.is_unread = 0;
                scratch.task.hash = hash;
                scratch.event.begin(&packet, hook);
                scratch.event.read_head(&linear, &packet);
            }
        }
        // What seems cut may only lie outside the linear part.
        Err(skip) if skip != Skip::Truncated => return Err(skip),
        _ => postpone(start, hook),
    }
    Ok(())
}

/// Leaves everything to [`rest`], which reads nothing in place: the filter of a packet socket may not.
#[inline(always)]
pub(crate) fn postpone(start: Start, hook: Hook) {
    if let Some(scratch) = emit::scratch() {
        scratch.task = Task {
            is_unread: 1,
            hash: 0,
            is_ip: (start == Start::Ip).into(),
            is_egress: (hook == Hook::Egress).into(),
        };
    }
}

/// Selects a packet's event, if any, writes it, and counts what became of the packet.
#[inline(always)]
pub(crate) fn rest(skb: &mut __sk_buff) {
    let Some(scratch) = emit::scratch() else { return };
    let Task { is_unread, hash, is_ip, is_egress } = scratch.task;
    // SAFETY: the context is valid.
    let hash = if is_unread == 0 { u64::from(hash) } else { unsafe { tlstrace_rare(skb, is_ip, is_egress) } };
    if hash != SETTLED {
        stats::settle(candidate(skb, &mut scratch.event, hash as u32));
    }
}

/// The walk over the headers of nearly all packets: `None` if there are IPv6 extension headers.
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

/// The other packets: with IPv6 extension headers, with headers that are not in the linear part, or at a
/// packet socket.
/// Returns [`SETTLED`], or the hash of a segment that passes the gate.
///
/// # Safety
///
/// `skb` must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_rare(skb: *mut __sk_buff, is_ip: u32, is_egress: u32) -> u64 {
    // SAFETY: the caller's.
    let Some(skb) = (unsafe { skb.as_mut() }) else { return SETTLED };
    let start = if is_ip == 0 { Start::Ethernet } else { Start::Ip };
    let hook = if is_egress == 0 { Hook::Ingress } else { Hook::Egress };
    match rare_headers(skb, start).and_then(|packet| Ok((pass_gate(skb, &packet)?, packet))) {
        Ok((hash, packet)) => {
            if let Some(scratch) = emit::scratch() {
                scratch.event.begin(&packet, hook);
            }
            u64::from(hash)
        }
        Err(skip) => {
            stats::settle(Err(skip));
            SETTLED
        }
    }
}

#[inline(always)]
fn rare_headers(skb: &__sk_buff, start: Start) -> Result<TcpPacket, Skip> {
    let load = Paged(skb);
    let link = link::walk(&load, start)?;
    // In memory, so that the verifier finds one round of the loop like the other.
    let datagram = &mut emit::scratch().ok_or(Skip::Truncated)?.datagram;
    *datagram = net::header(&load, &link)?;
    for _ in machine::rounds(net::MAX_EXTENSION_HEADERS) {
        machine::fence();
        if !datagram.has_extensions() {
            break;
        }
        net::extension(&load, datagram)?;
    }
    machine::fence();
    if datagram.has_extensions() {
        return Err(Skip::TooManyExtensionHeaders);
    }
    let tcp = tcp::walk(&load, datagram)?;
    Ok(TcpPacket::new(&link, datagram, tcp))
}

/// No hash: the outcome has been counted.
const SETTLED: u64 = u64::MAX;

/// Lets a segment through to where it costs something, if its flow may be in a handshake. Returns the
/// flow's hash.
#[inline(always)]
fn pass_gate(skb: &__sk_buff, packet: &TcpPacket) -> Result<u32, Skip> {
    let hash = flow::hash(packet);
    if packet.tcp.flags & RARE == 0 && !gate::is_open(hash) && !warm_up(skb, packet) {
        return Err(Skip::Established);
    }
    Ok(hash)
}

/// Segments with these flags are not skipped for their flow being an established one.
const RARE: u8 = TcpFlags::SYN | TcpFlags::RST | TcpFlags::FIN;
/// Both are set in the server's first segment, at which no flow is known that it would be part of.
const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;

/// Shortly after attaching, whether the segment begins a handshake on a connection that was opened
/// before.
#[inline(always)]
fn warm_up(skb: &__sk_buff, packet: &TcpPacket) -> bool {
    packet.tcp.payload_len != 0 && is_warming_up() && begins_with_client_hello(skb, packet)
}

#[inline(always)]
fn is_warming_up() -> bool {
    emit::control().is_some_and(|control| control.warm_up != 0)
}

#[inline(always)]
fn begins_with_client_hello(skb: &__sk_buff, packet: &TcpPacket) -> bool {
    packet.tcp.payload_len >= 6 && Paged(skb).load(packet.tcp.payload_offset).is_some_and(is_client_hello)
}

/// What becomes of a segment that may belong to a handshake.
#[inline(always)]
fn candidate(skb: &mut __sk_buff, event: &mut Event, hash: u32) -> Result<(), Skip> {
    let flags = event.packet.tcp.flags;
    let (key, sender) = FlowKey::of(&event.packet);
    let mut now = 0;
    if flags & TcpFlags::SYN != 0 {
        now = emit::now();
        if choice::leaves_out(&event.packet, hash, now) {
            return Err(Skip::LeftOut);
        }
        connect(&event.packet, hash, now);
    }
    let known = if flags & SYN_ACK == SYN_ACK { None } else { flows::find(&key, hash) };
    let mut flow = match known {
        Some(flow) if flags & TcpFlags::SYN == 0 => {
            if flow.flags & Flow::FINISHED != 0 {
                return Err(Skip::Finished);
            }
            if event.packet.tcp.payload_len == 0 && flags & RARE == 0 && !flow.wants_acknowledgement(sender) {
                return Err(Skip::Repetitive);
            }
            Some(flow)
        }
        earlier => {
            // A connection between the same endpoints, which the client has done with.
            if let Some(flow) = earlier {
                flows::remove(flow, hash);
            }
            begin_flow(skb, event, &key, sender, hash)?
        }
    };
    let outcome = match &mut flow {
        Some(flow) => choose(skb, event, flow, sender),
        None => Ok(()),
    };
    if outcome.is_ok() {
        let is_written = event.write(skb, if now == 0 { emit::now() } else { now });
        if let Some(flow) = &mut flow {
            flow.flags = flow.flags & !Flow::LOSS | if is_written { 0 } else { Flow::LOSS };
        }
    }
    if let Some(flow) = flow {
        account(flow, &event.packet, sender, hash);
    }
    outcome
}

/// A connection begins: opens the gate.
#[inline(always)]
fn connect(packet: &TcpPacket, hash: u32, now: u64) {
    gate::set_epoch(now);
    if packet.tcp.flags & TcpFlags::ACK != 0 {
        // The SYN was counted, unless it took another way.
        if !gate::is_open(hash) {
            gate::enter(hash);
            gate::set_client_isn(hash, packet.tcp.acknowledgement.wrapping_sub(1));
        }
        return;
    }
    gate::enter(hash);
    gate::set_client_isn(hash, packet.tcp.sequence);
}

/// The flow that begins with this segment; `None` if none does and the segment is reported all the same.
#[inline(always)]
fn begin_flow(
    skb: &mut __sk_buff,
    event: &mut Event,
    key: &FlowKey,
    sender: Sender,
    hash: u32,
) -> Result<Option<&'static mut Flow>, Skip> {
    let tcp = &event.packet.tcp;
    if begins_stream(skb, &event.packet, hash) {
        let flow = insert_flow(key, &event.packet, sender, hash);
        if flow.is_some() {
            stats::count(Counter::FlowsFollowed);
            diagnostics::followed(skb, event);
        } else {
            event.note(Notes::UNFRAMED);
        }
        return Ok(flow);
    }
    if tcp.flags & RARE == 0 {
        if tcp.payload_len != 0 {
            return Err(Skip::Established);
        }
        if !ends_tcp_handshake(&event.packet, hash) {
            return Err(Skip::NoPayload);
        }
    } else if tcp.flags & TcpFlags::SYN == 0 && !gate::is_open(hash) {
        return Err(Skip::Established);
    }
    Ok(None)
}

/// Whether a segment of an unknown flow is the first payload of a stream: because its SYN was seen just
/// before it, or because it speaks for itself.
#[inline(always)]
fn begins_stream(skb: &__sk_buff, packet: &TcpPacket, hash: u32) -> bool {
    if packet.tcp.payload_len == 0 || packet.tcp.flags & TcpFlags::RST != 0 {
        return false;
    }
    if packet.tcp.flags & TcpFlags::SYN == 0 {
        let first = gate::client_isn(hash).wrapping_add(1);
        if packet.tcp.sequence.wrapping_sub(first) < limits::MAX_FIRST_WINDOW
            || packet.tcp.acknowledgement.wrapping_sub(first) < limits::MAX_FIRST_WINDOW
        {
            return true;
        }
    }
    begins_with_client_hello(skb, packet)
}

/// Whether an acknowledgement without payload is the client's first: the end of TCP's handshake.
#[inline(always)]
fn ends_tcp_handshake(packet: &TcpPacket, hash: u32) -> bool {
    packet.tcp.sequence == gate::client_isn(hash).wrapping_add(1)
}

/// A place for a flow whose first payload is in this segment, if there is one.
#[inline(always)]
fn insert_flow(key: &FlowKey, packet: &TcpPacket, sender: Sender, hash: u32) -> Option<&'static mut Flow> {
    let sequence = payload_sequence(packet);
    let client_first = gate::client_isn(hash).wrapping_add(1);
    let is_from_client = sequence.wrapping_sub(client_first) < limits::MAX_FIRST_WINDOW;
    if !gate::is_open(hash) {
        gate::enter(hash);
    }
    let flow = flows::insert(key, hash)?;
    let (stream, peer) = flow.split(sender);
    stream.place_at(if is_from_client { client_first } else { sequence });
    if packet.tcp.flags & TcpFlags::ACK != 0 {
        peer.place_at(packet.tcp.acknowledgement);
    }
    Some(flow)
}

/// Whether a segment of a followed flow is reported, with what of it is wanted copied.
#[inline(always)]
fn choose(skb: &mut __sk_buff, event: &mut Event, flow: &mut Flow, sender: Sender) -> Result<(), Skip> {
    if flow.flags & Flow::LOSS != 0 {
        event.note(Notes::LOSS_BEFORE);
    }
    let tcp = &event.packet.tcp;
    let is_rare = tcp.flags & RARE != 0;
    let has_payload = tcp.payload_len != 0 && tcp.flags & TcpFlags::RST == 0;
    flow.segments += u32::from(has_payload);
    let segments = flow.segments;
    let (stream, peer) = flow.split(sender);
    let owner = event.place(skb);
    if stream.owner == 0 {
        stream.owner = owner;
    }
    if stream.owner != owner {
        return Err(Skip::OtherInterface);
    }
    if !has_payload {
        stream.acknowledgements = stream.acknowledgements.saturating_add(1);
        return Ok(());
    }
    let outcome =
        if stream.mode() == Mode::DONE { Err(Skip::Finished) } else { payload(skb, event, stream, peer) };
    if is_rare {
        return Ok(());
    }
    if segments > limits::MAX_NOT_TLS_REPORTED && event.notes() & Notes::NOT_TLS != 0 {
        return Err(Skip::Repetitive);
    }
    outcome
}

/// Follows the payload of a segment, and copies of it what is wanted.
#[inline(always)]
fn payload(
    skb: &mut __sk_buff,
    event: &mut Event,
    stream: &mut Stream,
    peer: &mut Stream,
) -> Result<(), Skip> {
    let sequence = payload_sequence(&event.packet);
    let len = event.packet.tcp.payload_len;
    let start = match stream.place(sequence, len) {
        Place::New(at) => at,
        Place::Probe => return Err(Skip::Repetitive),
        Place::Old => {
            match stream.fill(sequence, len) {
                Some((at, len)) => {
                    Segment { skb, event }.copy(at, len);
                }
                None => event.note(Notes::RETRANSMISSION),
            }
            return Ok(());
        }
        Place::BehindHole if stream.mode() == Mode::NOT_TLS => {
            stream.place_at(sequence);
            0
        }
        Place::BehindHole => {
            stats::count(Counter::Unframed);
            event.note(Notes::UNFRAMED);
            return Ok(());
        }
    };
    event.at = start;
    if stream.mode() != Mode::TLS {
        begin(skb, event, stream, peer);
    }
    records(skb, event, stream);
    stream.advance(event.at - start);
    // Once, since another CPU may follow the peer's stream.
    if stream.is_without_certificate() && !peer.is_without_certificate() {
        peer.expect_refusal();
    }
    if event.is_empty() && event.notes() & !Notes::LOSS_BEFORE == 0 { Err(Skip::Opaque) } else { Ok(()) }
}

/// Looks whether TLS begins at the cursor, and moves the cursor to where records are to be followed.
#[inline(always)]
fn begin(skb: &mut __sk_buff, event: &mut Event, stream: &mut Stream, peer: &mut Stream) {
    let len = event.packet.tcp.payload_len;
    let was_unseen = stream.mode() == Mode::UNSEEN;
    if was_unseen {
        let at = event.at;
        let (proxy_len, wanted) = match proxy_header(event.head(skb, at, len - at)) {
            None => (0, 0),
            Some(ProxyHeader::Binary { len, wanted }) => (len, wanted),
            Some(ProxyHeader::Line) => {
                let len = event.line_len(skb, at, len - at);
                (len, len)
            }
        };
        if proxy_len != 0 && proxy_len <= len - at {
            Segment { skb, event }.copy(at, wanted);
            event.at = at + proxy_len;
        }
    }
    let at = event.at;
    if at >= len {
        return;
    }
    let head = event.head(skb, at, len - at);
    stream.begin(head, len - at);
    if stream.mode() == Mode::NOT_TLS {
        event.note(Notes::NOT_TLS);
        stream.copy_not_tls(&mut Segment { skb, event }, at, len - at);
        event.at = len;
    } else if !was_unseen {
        peer.expect_tls(event.packet.tcp.acknowledgement);
    }
}

/// Most records that are followed in one segment.
const MAX_STEPS: u32 = 128;

/// Follows records from the cursor on.
#[inline(always)]
fn records(skb: &mut __sk_buff, event: &mut Event, stream: &mut Stream) {
    let len = event.packet.tcp.payload_len;
    for _ in machine::rounds(MAX_STEPS) {
        machine::fence();
        if event.at >= len || stream.mode() != Mode::TLS {
            return;
        }
        // SAFETY: all are valid.
        unsafe { tlstrace_step(skb, event, stream) };
    }
    if event.at < len && stream.mode() == Mode::TLS {
        event.note(Notes::TRUNCATED);
    }
}

/// [`Stream::step`] from the cursor on. The verifier walks every round of a loop by itself: what is in a global
/// function is walked once, and no round is more than a call.
///
/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_step(skb: *mut __sk_buff, event: *mut Event, stream: *mut Stream) -> u32 {
    // SAFETY: the caller's.
    if let (Some(skb), Some(event), Some(stream)) = unsafe { (skb.as_mut(), event.as_mut(), stream.as_mut()) }
    {
        let at = event.at;
        let left = event.packet.tcp.payload_len.saturating_sub(at);
        let step = stream.step(&mut Segment { skb, event }, at, left);
        event.note(step.notes);
        event.at = at + step.passed;
    }
    0
}

/// After a segment: is that the end of the flow, or enough of it?
#[inline(always)]
fn account(flow: &mut Flow, packet: &TcpPacket, sender: Sender, hash: u32) {
    let [low, high] = &flow.streams;
    let is_not_tls = low.mode() != Mode::TLS
        && low.mode() != Mode::DONE
        && high.mode() != Mode::TLS
        && high.mode() != Mode::DONE;
    let is_enough = |done: &Stream, other: &Stream| {
        done.mode() == Mode::DONE
            && (other.mode() == Mode::DONE || other.encrypted() >= limits::ENOUGH_ENCRYPTED_RECORDS)
    };
    if is_enough(low, high)
        || is_enough(high, low)
        || is_not_tls && flow.segments >= limits::MAX_NOT_TLS_SEGMENTS
        || flow.segments >= limits::MAX_SEGMENTS
    {
        flow.flags |= Flow::FINISHED;
        stats::count(Counter::FlowsFinished);
        flow.leave_gate(hash);
    } else if packet.tcp.flags & TcpFlags::RST != 0 {
        let stream = &flow.streams[sender as usize & 1];
        // A reset elsewhere in the window does not end the connection (RFC 5961 §3.2). Behind a FIN, which
        // takes a sequence number, there is nothing to end.
        if stream.next_sequence() == Some(packet.tcp.sequence) || flow.flags & Flow::BOTH_FIN != 0 {
            flow.leave_gate(hash);
        }
    } else if packet.tcp.flags & TcpFlags::FIN != 0 {
        let stream = &flow.streams[sender as usize & 1];
        let end = payload_sequence(packet).wrapping_add(packet.tcp.payload_len);
        // Elsewhere in the window it ends nothing yet, and may be forged (RFC 9293 §3.10.7.4). The position in a
        // stream of which enough was seen is not kept.
        if stream.mode() == Mode::DONE || stream.next_sequence() == Some(end) {
            flow.flags |= Flow::FIN << (sender as u32);
        }
        if flow.flags & Flow::BOTH_FIN == Flow::BOTH_FIN {
            flow.leave_gate(hash);
        }
    }
}

/// Sequence number of the first byte of payload: a SYN takes one of its own.
#[inline(always)]
fn payload_sequence(packet: &TcpPacket) -> u32 {
    packet.tcp.sequence.wrapping_add(u32::from(packet.tcp.flags & TcpFlags::SYN != 0))
}
