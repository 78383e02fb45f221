//! Names of maps and programs, as the object file and userspace both spell them.
//!
//! The kernel keeps 15 bytes of a name: none is longer.

/// Classifier of ingress on interfaces whose packets begin with an Ethernet header.
pub const PROGRAM_IN: &str = "tlstrace_in";
/// Classifier of egress on interfaces whose packets begin with an Ethernet header.
pub const PROGRAM_OUT: &str = "tlstrace_out";
/// Classifier of ingress on interfaces whose packets begin with the IP header (tun, WireGuard).
pub const PROGRAM_L3_IN: &str = "tlstrace_l3_in";
/// Classifier of egress on interfaces whose packets begin with the IP header (tun, WireGuard).
pub const PROGRAM_L3_OUT: &str = "tlstrace_l3_out";

/// Program of the tracepoint [`SEND_RESET`].
pub const PROGRAM_RESET: &str = "tlstrace_reset";
/// The kernel's tracepoint `tcp:tcp_send_reset`.
pub const SEND_RESET: &str = "tcp_send_reset";

/// All classifiers.
pub const PROGRAMS: [&str; 4] = [PROGRAM_IN, PROGRAM_OUT, PROGRAM_L3_IN, PROGRAM_L3_OUT];

/// Filter of packet sockets, for both directions, on interfaces whose packets begin with an Ethernet header.
pub const PROGRAM_TAP: &str = "tlstrace_tap";
/// Filter of packet sockets on interfaces whose packets begin with the IP header.
pub const PROGRAM_L3_TAP: &str = "tlstrace_l3_tap";

/// All filters of packet sockets.
pub const TAPS: [&str; 2] = [PROGRAM_TAP, PROGRAM_L3_TAP];

/// What the classifiers leave a packet to that may belong to a handshake. It is attached nowhere.
pub const PROGRAM_SELECT: &str = "tlstrace_select";
/// The same for the filters of packet sockets.
pub const PROGRAM_TAP_SELECT: &str = "tlstrace_tapsel";

/// Program array of one element, [`PROGRAM_SELECT`].
pub const SELECT: &str = "SELECT";
/// Program array of one element, [`PROGRAM_TAP_SELECT`].
pub const TAP_SELECT: &str = "TAP_SELECT";
/// Ring buffer of [`crate::event`]s.
pub const EVENTS: &str = "EVENTS";
/// Per-CPU array of `u64`, indexed by [`crate::skip::Counter`].
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`crate::config::Control`].
pub const CONTROL: &str = "CONTROL";
/// Per-CPU array of one buffer in which an event is put together.
pub const SCRATCH: &str = "SCRATCH";
/// Global: a [`crate::config::Layout`].
pub const LAYOUT: &str = "LAYOUT";
/// Global: a [`crate::choice::Choice`].
pub const CHOICE: &str = "CHOICE";
/// Global: [`crate::choice::Ports`].
pub const PORTS: &str = "PORTS";
/// Trie from networks to [`crate::choice::LISTED`] or [`crate::choice::EXCLUDED`].
pub const SERVERS: &str = "SERVERS";
