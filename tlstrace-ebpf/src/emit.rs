//! Puts an event together and writes it into the ring.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_skb_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::programs::TcContext;
use tlstrace_common::config::Control;
use tlstrace_common::event::{ChunkHeader, MAX_CHUNKS, MAX_EVENT_LEN, Notes, SegmentHeader};
use tlstrace_common::framing::Payload;
use tlstrace_common::load::Load;
use tlstrace_common::packet::TcpPacket;
use tlstrace_common::skip::Counter;
use tlstrace_common::tcp::{self, OptionScan};

use crate::machine::{self, opaque};
use crate::skb::Paged;
use crate::stats;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Which way a packet goes through its interface.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Hook {
    Ingress = 0,
    Egress = 1,
}

/// Most bytes copied at once. Room for as many stays free behind an event, since the verifier does not
/// relate "how far" to "how many".
const BLOCK: usize = 2048;

/// An event as it grows. A per-CPU value is at most 32 KiB (`PCPU_MIN_UNIT_SIZE`).
#[repr(C)]
pub(crate) struct Scratch {
    /// Bytes of `event` in use.
    used: u32,
    /// Where in `event` the last chunk's header is, 0 if there is no chunk.
    chunk: u32,
    /// Offset in the payload of the byte behind the last chunk.
    chunk_end: u32,
    chunks: u32,
    /// Cursor of the framing loop: offset in the payload.
    pub(crate) at: u32,
    /// Notes gathered by the framing loop.
    pub(crate) notes: u32,
    scan: OptionScan,
    options: [u8; tcp::MAX_OPTIONS_LEN],
    event: [u8; MAX_EVENT_LEN + BLOCK],
}

const _: () = assert!(size_of::<Scratch>() <= 32 * 1024);

/// A segment's payload, and the event that parts of it are copied into.
pub(crate) struct Event<'a> {
    context: &'a TcContext,
    payload_offset: u32,
    payload_len: u32,
    pub(crate) scratch: &'a mut Scratch,
}

/// The settings that userspace makes while the program runs.
#[inline(always)]
pub(crate) fn control() -> Option<&'static mut Control> {
    // SAFETY: one word each is read or written; any value is valid.
    CONTROL.get_ptr_mut(0).map(|control| unsafe { &mut *control })
}

impl<'a> Event<'a> {
    /// An event without chunks.
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext, packet: &TcpPacket) -> Option<Self> {
        // SAFETY: the value is this CPU's, and no program of ours interrupts another on the same CPU.
        let scratch = unsafe { &mut *SCRATCH.get_ptr_mut(0)? };
        scratch.used = size_of::<SegmentHeader>() as u32;
        scratch.chunk = 0;
        scratch.chunk_end = 0;
        scratch.chunks = 0;
        scratch.at = 0;
        scratch.notes = 0;
        Some(Self {
            context,
            payload_offset: packet.tcp.payload_offset,
            payload_len: packet.tcp.payload_len,
            scratch,
        })
    }

    /// Whether anything was copied.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.scratch.chunks == 0
    }

    /// Writes the event into the ring, stamped `now`. Returns whether there was room.
    #[inline(always)]
    pub(crate) fn emit(mut self, packet: &TcpPacket, hook: Hook, now: u64) -> bool {
        let notes = self.scratch.notes as u8;
        let tcp_options = self.tcp_options(packet);
        // SAFETY: reads the context.
        let skb = unsafe { &*self.context.skb.skb };
        let event = self.scratch.event.as_mut_ptr();
        // SAFETY: the event begins with room for a header, aligned.
        let header = unsafe { &mut *event.cast::<SegmentHeader>() };
        header.timestamp_ns = now;
        header.source = packet.source.octets();
        header.destination = packet.destination.octets();
        header.sequence = packet.tcp.sequence;
        header.acknowledgement = packet.tcp.acknowledgement;
        header.payload_len = packet.tcp.payload_len;
        header.interface = skb.ifindex;
        header.source_port = packet.tcp.source_port;
        header.destination_port = packet.tcp.destination_port;
        header.window = packet.tcp.window;
        header.ip_id = packet.ip_id;
        header.vlan = if skb.vlan_present == 0 { packet.vlan } else { skb.vlan_tci as u16 & 0x0fff };
        header.tcp_flags = packet.tcp.flags;
        header.tcp_options = tcp_options;
        header.hop_limit = packet.hop_limit;
        header.direction = hook as u8;
        header.notes = notes;
        header.chunks = self.scratch.chunks as u8;
        let used = opaque(u64::from(self.scratch.used));
        if used > MAX_EVENT_LEN as u64 {
            return false;
        }
        // SAFETY: `used` bytes of the event were written, if not now then for an earlier event.
        let lost = unsafe {
            bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), event.cast(), used, wakeup())
        };
        if lost != 0 {
            stats::count(Counter::RingFull);
            return false;
        }
        stats::count(Counter::Events);
        stats::add(Counter::EventBytes, used);
        if notes & Notes::TRUNCATED != 0 {
            stats::count(Counter::EventTruncated);
        }
        true
    }

    /// [`tcp::options`] of the packet, fetched with one call.
    #[inline(always)]
    fn tcp_options(&mut self, packet: &TcpPacket) -> u8 {
        let len = opaque(u64::from(packet.tcp.payload_offset - packet.tcp.options_offset));
        if len > tcp::MAX_OPTIONS_LEN as u64 {
            return 0;
        }
        let len = opaque(len);
        if len == 0 {
            return 0;
        }
        // SAFETY: at most as many bytes as there is room for.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.context.as_ptr(),
                packet.tcp.options_offset,
                self.scratch.options.as_mut_ptr().cast(),
                len as u32,
            )
        };
        if failed != 0 {
            return 0;
        }
        let scratch = &mut *self.scratch;
        scratch.scan = OptionScan { at: 0, len: len as u32, found: 0 };
        for _ in 0..tcp::MAX_OPTIONS {
            machine::fence();
            if !scratch.scan.step(&scratch.options) {
                break;
            }
        }
        scratch.scan.found as u8
    }

    /// Appends payload bytes to the event, as a new chunk if they do not continue the last one.
    #[inline(always)]
    fn append(&mut self, at: u32, len: u32) -> u32 {
        let len = opaque(u64::from(len));
        if len > BLOCK as u64 {
            return 0;
        }
        let len = opaque(len);
        if len == 0 {
            return 0;
        }
        let mut used = opaque(u64::from(self.scratch.used));
        if used > (MAX_EVENT_LEN - size_of::<ChunkHeader>()) as u64 {
            return 0;
        }
        let event = self.scratch.event.as_mut_ptr();
        if self.scratch.chunk == 0 || self.scratch.chunk_end != at {
            if self.scratch.chunks >= MAX_CHUNKS as u32 {
                return 0;
            }
            self.scratch.chunk = used as u32;
            self.scratch.chunks += 1;
            self.scratch.chunk_end = at;
            // SAFETY: bounded above.
            unsafe { machine::store(event.add(used as usize), at) };
            used += size_of::<ChunkHeader>() as u64;
        }
        // SAFETY: at most `BLOCK` bytes at `MAX_EVENT_LEN` at most.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.context.as_ptr(),
                self.payload_offset + at,
                event.add(used as usize).cast(),
                len as u32,
            )
        };
        if failed != 0 {
            return 0;
        }
        self.scratch.used = (used + len) as u32;
        self.scratch.chunk_end += len as u32;
        let chunk = opaque(u64::from(self.scratch.chunk));
        if chunk <= MAX_EVENT_LEN as u64 {
            let chunk_len = self.scratch.used - chunk as u32 - size_of::<ChunkHeader>() as u32;
            // SAFETY: bounded above.
            unsafe { machine::store(event.add(chunk as usize + 4), chunk_len) };
        }
        len as u32
    }
}

impl Payload for Event<'_> {
    #[inline(always)]
    fn peek<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        if at + N as u32 > self.payload_len {
            return None;
        }
        Paged(self.context).load(self.payload_offset + at)
    }

    #[inline(always)]
    fn copy(&mut self, at: u32, len: u32) -> u32 {
        self.append(at, len.min(BLOCK as u32))
    }
}

/// The time, in nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// A wake-up costs 5 µs, so only a consumer that said that it sleeps is woken, and by one event.
#[inline(always)]
fn wakeup() -> u64 {
    let Some(control) = control() else { return u64::from(BPF_RB_FORCE_WAKEUP) };
    if control.consumer_sleeping == 0 {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    control.consumer_sleeping = 0;
    u64::from(BPF_RB_FORCE_WAKEUP)
}
