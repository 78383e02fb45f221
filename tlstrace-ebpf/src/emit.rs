//! Puts an event together and writes it into the ring.
//!
//! The functions without name mangling are *global functions* to the verifier: it walks each of them
//! once, for any arguments, instead of once per path that leads to a call. Without that, the loops in
//! them would multiply with everything before them.

use aya_ebpf::bindings::{
    __sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query, bpf_skb_load_bytes,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray, RingBuf};
use tlstrace_common::config::Control;
use tlstrace_common::event::{
    ChunkHeader, Kind, MAX_CHUNKS, MAX_EVENT_LEN, MAX_EVENT_PAYLOAD, Notes, ResetReport, SegmentHeader,
    TcpOptions,
};
use tlstrace_common::framing::{HEAD_LEN, PROXY_LINE_MAX_LEN, Payload};
use tlstrace_common::load::Load as _;
use tlstrace_common::net::Datagram;
use tlstrace_common::packet::TcpPacket;
use tlstrace_common::skip::Counter;
use tlstrace_common::tcp::{self, OptionScan};

use crate::machine::{self, opaque};
use crate::skb::Linear;
use crate::{diagnostics, stats};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 22, 0);

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Which way a packet goes through its interface.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Hook {
    Ingress = Kind::INGRESS as isize,
    Egress = Kind::EGRESS as isize,
}

/// Most bytes copied at once. Room for as many stays free behind an event, since the verifier does not
/// relate "how far" to "how many".
const BLOCK: usize = 2048;

/// What does not fit on the stack. A per-CPU value is at most 32 KiB (`PCPU_MIN_UNIT_SIZE`).
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) event: Event,
    /// The network header of a packet with IPv6 extension headers.
    pub(crate) datagram: Datagram,
    /// What the first program leaves to the second one.
    pub(crate) task: Task,
}

/// What the second program has to begin with.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Task {
    /// Nonzero: with the headers, which could not be read in place. Otherwise the event has begun.
    pub(crate) is_unread: u32,
    /// The flow's hash, if the headers were read.
    pub(crate) hash: u32,
    /// Nonzero if the packet begins with its IP header.
    pub(crate) is_ip: u32,
    /// Nonzero if the packet leaves through its interface.
    pub(crate) is_egress: u32,
}

const _: () = assert!(size_of::<Scratch>() <= 32 * 1024);

/// A segment, and the event about it as it grows.
#[repr(C)]
pub(crate) struct Event {
    pub(crate) packet: TcpPacket,
    /// Bytes of `bytes` in use.
    used: u32,
    chunks: u32,
    /// The last chunk, which is still growing, and not among `bytes` yet: offset in the payload, and length.
    pending_at: u32,
    pending_len: u32,
    /// Cursor of a loop over the payload.
    pub(crate) at: u32,
    /// [`Notes`] so far.
    notes: u32,
    hook: u32,
    /// The part of the payload that is in `window`: offset and length.
    window_at: u32,
    window_len: u32,
    scan: OptionScan,
    window: Aligned<WINDOW>,
    line: [u8; LINE_ROOM],
    /// Nonzero if the TCP options are in `options`.
    has_options: u64,
    options: Aligned<{ tcp::MAX_OPTIONS_LEN }>,
    bytes: [u64; (MAX_EVENT_LEN + BLOCK) / 8],
}

/// Bytes that LLVM may store by words.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// How much of the payload is fetched when a byte of it is looked at: a record's header and the first
/// bytes of its body, at the price of one byte.
const WINDOW: usize = 32;

/// A power of two that a line of the PROXY protocol fits in.
const LINE_ROOM: usize = 128;

/// The settings that userspace makes while the program runs.
#[inline(always)]
pub(crate) fn control() -> Option<&'static mut Control> {
    // SAFETY: one word each is read or written; any value is valid.
    CONTROL.get_ptr_mut(0).map(|control| unsafe { &mut *control })
}

/// The time, in nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// This CPU's scratch memory.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the value is this CPU's, and no program of ours interrupts another on the same CPU.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

impl Event {
    /// Makes it an event about `packet`, without chunks.
    #[inline(always)]
    pub(crate) fn begin(&mut self, packet: &TcpPacket, hook: Hook) {
        self.packet = *packet;
        self.used = size_of::<SegmentHeader>() as u32;
        self.chunks = 0;
        self.pending_len = 0;
        self.notes = 0;
        self.hook = hook as u32;
        self.window_len = 0;
        self.has_options = 0;
    }

    /// Takes the options and the first bytes of the payload from where they can be read in place, which saves calls
    /// later on.
    #[inline(always)]
    pub(crate) fn read_head(&mut self, linear: &Linear, packet: &TcpPacket) {
        let tcp = &packet.tcp;
        // Behind a shorter payload may lie what pads the frame.
        if tcp.payload_len < WINDOW as u32 {
            return;
        }
        if let Some(bytes) = linear.load(tcp.payload_offset) {
            self.window = Aligned(bytes);
            self.window_at = 0;
            self.window_len = WINDOW as u32;
        }
        // With what follows them, instead of as many as there are: that takes no loop.
        if let Some(bytes) = linear.load(tcp.options_offset) {
            let options: *mut Aligned<{ tcp::MAX_OPTIONS as usize }> = (&raw mut self.options).cast();
            // SAFETY: the array begins with as many bytes.
            unsafe { options.write(Aligned(bytes)) };
            self.has_options = 1;
        }
    }

    /// [`Notes`] so far.
    #[inline(always)]
    pub(crate) fn notes(&self) -> u8 {
        self.notes as u8
    }

    /// Adds [`Notes`].
    #[inline(always)]
    pub(crate) fn note(&mut self, notes: u8) {
        self.notes |= u32::from(notes);
    }

    /// Whether anything was copied.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks == 0 && self.pending_len == 0
    }

    /// The interface and the direction in which the packet passes it, as one number that is not 0.
    #[inline(always)]
    pub(crate) fn place(&self, skb: &__sk_buff) -> u32 {
        skb.ifindex << 1 | self.hook & 1
    }

    /// Length of the line at offset `at` of the payload with its line break; 0 if it does not end within
    /// the `left` bytes there are, or is too long for a PROXY header.
    #[inline(always)]
    pub(crate) fn line_len(&mut self, skb: &mut __sk_buff, at: u32, left: u32) -> u32 {
        // SAFETY: both are valid.
        unsafe { tlstrace_line(skb, self, at, left) }
    }

    /// Writes the event into the ring, stamped `now`. Returns whether there was room.
    #[inline(always)]
    pub(crate) fn write(&mut self, skb: &mut __sk_buff, now: u64) -> bool {
        self.flush(skb);
        self.write_header(skb, now);
        let used = opaque(u64::from(self.used));
        if used > MAX_EVENT_LEN as u64 {
            return false;
        }
        let ring = (&raw const EVENTS).cast_mut().cast();
        // SAFETY: `used` bytes of the event were written, if not now then for an earlier event.
        let lost = unsafe { bpf_ringbuf_output(ring, (&raw mut self.bytes).cast(), used, wakeup()) };
        if lost != 0 {
            diagnostics::ring_full(skb, stats::add(Counter::RingFull, 1));
            return false;
        }
        stats::count(Counter::Events);
        stats::add(Counter::EventBytes, used);
        if self.notes() & Notes::TRUNCATED != 0 {
            stats::count(Counter::EventTruncated);
        }
        true
    }

    /// Up to 16 bytes at offset `at` of the payload, `left` of which there are; the rest is zero.
    #[inline(always)]
    pub(crate) fn head(&mut self, skb: &mut __sk_buff, at: u32, left: u32) -> [u8; HEAD_LEN] {
        if self.window_at != at || self.window_len != WINDOW as u32 {
            // SAFETY: bytes.
            unsafe { machine::clear(&mut self.window) };
            self.fetch(skb, at, left);
        }
        // SAFETY: the window is longer than a head.
        unsafe { *(&raw const self.window).cast() }
    }

    /// Fetches the part of the payload that begins at offset `at`, and of which `left` bytes are left.
    #[inline(always)]
    fn fetch(&mut self, skb: &mut __sk_buff, at: u32, left: u32) {
        let len = left.min(WINDOW as u32);
        let window = (&raw mut self.window).cast();
        // SAFETY: as many bytes as there is room for.
        let is_fetched = unsafe { load_bytes(skb, self.packet.tcp.payload_offset + at, window, len, WINDOW) };
        self.window_at = at;
        self.window_len = if is_fetched { len } else { 0 };
    }

    /// [`tcp::options`] of the packet.
    #[inline(always)]
    fn tcp_options(&mut self, skb: &mut __sk_buff) -> u8 {
        if self.has_options != 0 && tcp::are_timestamps(&self.options.0, self.packet.tcp.options_len()) {
            return TcpOptions::TIMESTAMPS;
        }
        // SAFETY: both are valid.
        unsafe { tlstrace_options(skb, self) as u8 }
    }

    /// The same by a walk over the options, which are fetched with one call unless they are there.
    #[inline(always)]
    fn scan_options(&mut self, skb: &mut __sk_buff) -> u8 {
        let len = self.packet.tcp.options_len();
        let options = (&raw mut self.options.0).cast();
        let offset = self.packet.tcp.options_offset;
        // SAFETY: as many bytes as there is room for.
        if self.has_options == 0 && unsafe { !load_bytes(skb, offset, options, len, tcp::MAX_OPTIONS_LEN) } {
            return 0;
        }
        self.scan = OptionScan { at: 0, len, found: 0 };
        for _ in machine::rounds(tcp::MAX_OPTIONS) {
            machine::fence();
            if !self.scan.step(&self.options.0) {
                break;
            }
        }
        self.scan.found()
    }

    #[inline(always)]
    fn write_header(&mut self, skb: &mut __sk_buff, now: u64) {
        let tcp_options = self.tcp_options(skb);
        let packet = &self.packet;
        // SAFETY: the event begins with room for a header, aligned.
        let header = unsafe { &mut *(&raw mut self.bytes).cast::<SegmentHeader>() };
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
        header.kind = self.hook as u8;
        header.notes = self.notes as u8;
        header.chunks = self.chunks as u8;
    }

    /// Moves the pending chunk into the event.
    #[inline(always)]
    fn flush(&mut self, skb: &mut __sk_buff) {
        let bytes = (&raw mut self.bytes).cast::<u8>();
        let used = opaque(u64::from(self.used));
        if self.pending_len == 0 || used > (MAX_EVENT_LEN - size_of::<ChunkHeader>()) as u64 {
            return;
        }
        // SAFETY: bounded just above.
        unsafe {
            let header = bytes.add(used as usize);
            machine::store(header, self.pending_at);
            machine::store(header.add(4), self.pending_len);
        }
        self.chunks += 1;
        self.used = used as u32 + size_of::<ChunkHeader>() as u32;
        for _ in machine::rounds((MAX_EVENT_PAYLOAD / BLOCK) as u32) {
            machine::fence();
            let used = opaque(u64::from(self.used));
            if self.pending_len == 0 || used > MAX_EVENT_LEN as u64 {
                break;
            }
            let len = self.pending_len.min(BLOCK as u32);
            let offset = self.packet.tcp.payload_offset + self.pending_at;
            // SAFETY: at most `BLOCK` bytes at `MAX_EVENT_LEN` at most.
            unsafe { load_bytes(skb, offset, bytes.add(used as usize), len, BLOCK) };
            self.used = used as u32 + len;
            self.pending_at += len;
            self.pending_len -= len;
        }
    }
}

/// What the framing of records sees of a segment.
pub(crate) struct Segment<'a> {
    pub(crate) skb: &'a mut __sk_buff,
    pub(crate) event: &'a mut Event,
}

impl Payload for Segment<'_> {
    #[inline(always)]
    fn peek<const N: usize>(&mut self, at: u32) -> Option<[u8; N]> {
        let left = self.event.packet.tcp.payload_len.saturating_sub(at);
        if left < N as u32 {
            return None;
        }
        let mut offset = at.wrapping_sub(self.event.window_at);
        if offset >= WINDOW as u32 || offset + N as u32 > self.event.window_len {
            // SAFETY: both are valid.
            unsafe { tlstrace_fetch(self.skb, self.event, at, left) };
            if self.event.window_len < N as u32 {
                return None;
            }
            offset = 0;
        }
        let offset = opaque(u64::from(offset));
        if offset > (WINDOW - N) as u64 {
            return None;
        }
        // SAFETY: bounded just above.
        Some(unsafe { machine::load((&raw const self.event.window) as usize + offset as usize) })
    }

    #[inline(always)]
    fn copy(&mut self, at: u32, len: u32) -> u32 {
        if self.event.pending_len != 0 && self.event.pending_at + self.event.pending_len != at {
            // SAFETY: both are valid.
            unsafe { tlstrace_flush(self.skb, self.event) };
        }
        if self.event.pending_len == 0 {
            if self.event.chunks >= MAX_CHUNKS as u32 {
                return 0;
            }
            self.event.pending_at = at;
        }
        let end = self.event.used + size_of::<ChunkHeader>() as u32 + self.event.pending_len;
        let len = len.min((MAX_EVENT_LEN as u32).saturating_sub(end));
        self.event.pending_len += len;
        len
    }
}

/// [`Event::scan_options`].
///
/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_options(skb: *mut __sk_buff, event: *mut Event) -> u32 {
    // SAFETY: the caller's.
    let (Some(skb), Some(event)) = (unsafe { (skb.as_mut(), event.as_mut()) }) else { return 0 };
    event.scan_options(skb).into()
}

/// [`Event::fetch`].
///
/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_fetch(skb: *mut __sk_buff, event: *mut Event, at: u32, left: u32) -> u32 {
    // SAFETY: the caller's.
    if let (Some(skb), Some(event)) = unsafe { (skb.as_mut(), event.as_mut()) } {
        event.fetch(skb, at, left);
    }
    0
}

/// [`Event::flush`].
///
/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_flush(skb: *mut __sk_buff, event: *mut Event) -> u32 {
    // SAFETY: the caller's.
    if let (Some(skb), Some(event)) = unsafe { (skb.as_mut(), event.as_mut()) } {
        event.flush(skb);
    }
    0
}

/// [`Event::line_len`].
///
/// # Safety
///
/// The pointers must be valid or null.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn tlstrace_line(skb: *mut __sk_buff, event: *mut Event, at: u32, left: u32) -> u32 {
    // SAFETY: the caller's.
    let (Some(skb), Some(event)) = (unsafe { (skb.as_mut(), event.as_mut()) }) else { return 0 };
    let len = left.min(PROXY_LINE_MAX_LEN);
    // SAFETY: as many bytes as there is room for.
    unsafe {
        let line = (&raw mut event.line).cast();
        if !load_bytes(skb, event.packet.tcp.payload_offset + at, line, len, LINE_ROOM) {
            return 0;
        }
    }
    for round in machine::rounds(PROXY_LINE_MAX_LEN) {
        // Two ends, lest LLVM make one of them and compare for equality: that bounds nothing to older verifiers.
        let offset = opaque(round);
        if offset >= u64::from(len) {
            break;
        }
        if event.line[offset as usize % LINE_ROOM] == b'\n' {
            return offset as u32 + 1;
        }
    }
    0
}

/// Copies `len` bytes of the packet, from `offset` on, to `to`. Returns whether it did: not if there are
/// fewer, or none is wanted, or more than `room`.
///
/// # Safety
///
/// There must be room for `room` bytes.
#[inline(always)]
unsafe fn load_bytes(skb: &mut __sk_buff, offset: u32, to: *mut u8, len: u32, room: usize) -> bool {
    // One comparison of what is one less: older verifiers (Linux 6.1) do not conclude from "not 0" that it is at least 1.
    let less = opaque(u64::from(len).wrapping_sub(1));
    if less >= room as u64 {
        return false;
    }
    let len = less + 1;
    // SAFETY: the caller's room.
    unsafe { bpf_skb_load_bytes((&raw mut *skb).cast(), offset, to.cast(), len as u32) == 0 }
}

/// Writes an event that may be missed: it takes no room that segments may need, and wakes nobody. Returns whether it
/// was written.
#[inline(always)]
pub(crate) fn write_aside(event: &ResetReport) -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the ring is a map, and the event a plain value.
    unsafe {
        let used = bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA));
        let size = bpf_ringbuf_query(ring, u64::from(BPF_RB_RING_SIZE));
        used < size / 2
            && bpf_ringbuf_output(
                ring,
                (&raw const *event).cast_mut().cast(),
                size_of::<ResetReport>() as u64,
                u64::from(BPF_RB_NO_WAKEUP),
            ) == 0
    }
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
