//! Which connections the user has chosen by port or by the server's address. One that is not is left out at its
//! SYN: it does not enter the [`gate`], so that the rest of it costs what any established flow does.
//!
//! What passes here is not yet chosen for good: userspace asks again, and knows more (such as ports of saved
//! lines, and clients behind a PROXY header, for which reason clients are not chosen by here).

use aya_ebpf::macros::map;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use tlstrace_common::choice::{ADDRESS_BITS, Choice, LISTED, Ports};
use tlstrace_common::event::TcpFlags;
use tlstrace_common::net::Address;
use tlstrace_common::packet::TcpPacket;

use crate::gate;
use crate::machine::Words;

/// Both are set by userspace before the programs are loaded: what is not asked for costs nothing, since the verifier
/// removes it.
#[unsafe(no_mangle)]
static CHOICE: Choice = Choice::ANY;
#[unsafe(no_mangle)]
static PORTS: Ports = Ports::NONE;

/// Networks of servers.
#[map]
static SERVERS: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);

/// When a connection that is not chosen was let through last.
static SAMPLED: Words<1> = Words::new();
/// About one in so long, as a power of two in nanoseconds: userspace is to see where there is TLS instead.
const SAMPLE_SHIFT: u32 = 30;

/// Whether the connection that begins with this SYN, or SYN and ACK, is left out.
#[inline(always)]
pub(crate) fn leaves_out(packet: &TcpPacket, hash: u32, now: u64) -> bool {
    // SAFETY: a plain value; volatile, since the loader writes it.
    let choice = unsafe { (&raw const CHOICE).read_volatile() };
    if choice.by_port == 0 && choice.by_server == 0 {
        return false;
    }
    if packet.tcp.flags & TcpFlags::ACK != 0 {
        // The SYN decided, if it came this way.
        let is_chosen = is_chosen_by_port(&choice, packet) && is_chosen_by_server(&choice, packet.source);
        return !is_chosen && !gate::is_open(hash);
    }
    if is_chosen_by_port(&choice, packet) && is_chosen_by_server(&choice, packet.destination) {
        return false;
    }
    let now = (now >> SAMPLE_SHIFT) as u32;
    // Two CPUs may both let one through.
    let is_left_out = SAMPLED.get(0) == now;
    SAMPLED.set(0, now);
    is_left_out
}

#[inline(always)]
fn is_chosen_by_port(choice: &Choice, packet: &TcpPacket) -> bool {
    choice.by_port == 0 || has_port(packet.tcp.destination_port) || has_port(packet.tcp.source_port)
}

#[inline(always)]
fn has_port(port: u16) -> bool {
    let (word, bit) = Ports::place(port);
    let words = (&raw const PORTS).cast::<u32>();
    // SAFETY: there is a word for each port; volatile, since the loader writes it.
    unsafe { words.wrapping_add(word).read_volatile() & bit != 0 }
}

#[inline(always)]
fn is_chosen_by_server(choice: &Choice, server: Address) -> bool {
    if choice.by_server == 0 {
        return true;
    }
    match SERVERS.get(Key::new(ADDRESS_BITS, server.octets())) {
        Some(kind) => *kind == LISTED,
        None => choice.by_server == Choice::ALL_BUT_EXCLUDED,
    }
}
