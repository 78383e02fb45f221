//! Every reason why a packet is ignored or lost: the enum is the reason, the counter and its text.
//!
//! The program adds to exactly one [`Counter`] per packet that says what became of it: that of its
//! [`Skip`], or [`Counter::Selected`]. Sums such as "all packets" are left to the reader
//! ([`Totals`]), since each further count costs every packet a nanosecond.

/// Why a packet gave no event.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Skip {
    /// Neither IPv4 nor IPv6.
    NotIp = 0,
    /// IP, but not TCP.
    NotTcp,
    /// The long header of a QUIC packet (RFC 9000 §17.2), as in its handshake: TLS over UDP.
    Quic,
    /// What carries other packets: VXLAN, GENEVE, GRE, IP in IP.
    Encapsulated,
    /// A fragment: its TCP header or its payload is in another packet.
    Fragment,
    /// The packet ends inside its headers.
    Truncated,
    /// A header states a length that cannot be: shorter than itself, or longer than what it is in.
    BadLength,
    /// More IPv6 extension headers than are stepped over.
    TooManyExtensionHeaders,
    /// No handshake can be under way in this flow: nothing began lately whose hash is the same.
    Established,
    /// A connection begins that is left out by its ports or its server's address.
    LeftOut,
    /// A segment without payload, of a flow that is not followed.
    NoPayload,
    /// The flow was followed, and enough of it has been seen.
    Finished,
    /// The same packet is seen on another interface, which owns this direction of the flow.
    OtherInterface,
    /// The segment lies wholly inside bytes that stay in the kernel, such as an encrypted record's body.
    Opaque,
    /// The segment has nothing new, and as many of its kind were reported as is of use.
    Repetitive,
}

impl Skip {
    /// All variants, in the order of their counters.
    pub const ALL: [Self; 15] = [
        Self::NotIp,
        Self::NotTcp,
        Self::Quic,
        Self::Encapsulated,
        Self::Fragment,
        Self::Truncated,
        Self::BadLength,
        Self::TooManyExtensionHeaders,
        Self::Established,
        Self::LeftOut,
        Self::NoPayload,
        Self::Finished,
        Self::OtherInterface,
        Self::Opaque,
        Self::Repetitive,
    ];

    /// The counter of packets skipped for this reason.
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::NotIp => Counter::NotIp,
            Self::NotTcp => Counter::NotTcp,
            Self::Quic => Counter::Quic,
            Self::Encapsulated => Counter::Encapsulated,
            Self::Fragment => Counter::Fragment,
            Self::Truncated => Counter::Truncated,
            Self::BadLength => Counter::BadLength,
            Self::TooManyExtensionHeaders => Counter::TooManyExtensionHeaders,
            Self::Established => Counter::Established,
            Self::LeftOut => Counter::LeftOut,
            Self::NoPayload => Counter::NoPayload,
            Self::Finished => Counter::Finished,
            Self::OtherInterface => Counter::OtherInterface,
            Self::Opaque => Counter::Opaque,
            Self::Repetitive => Counter::Repetitive,
        }
    }

    /// Name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        self.counter().as_str()
    }

    /// What it means, as a phrase that follows "packets".
    pub const fn text(self) -> &'static str {
        self.counter().text()
    }
}

/// Index into the `COUNTERS` map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Counter {
    NotIp = 0,
    NotTcp,
    Quic,
    Encapsulated,
    Fragment,
    Truncated,
    BadLength,
    TooManyExtensionHeaders,
    Established,
    LeftOut,
    NoPayload,
    Finished,
    OtherInterface,
    Opaque,
    Repetitive,
    /// Packets that were selected: each gave an event, or was lost for [`Counter::RingFull`].
    Selected,
    /// Events written to the ring.
    Events,
    /// Bytes of those events.
    EventBytes,
    /// Events lost because the ring had no room.
    RingFull,
    /// Flows not followed, or not to the end of their TLS handshake, because the flow table had no place for them.
    FlowTableFull,
    /// Segments behind a hole, of which no byte could be copied because record boundaries were unknown.
    Unframed,
    /// Events that lack bytes for want of room.
    EventTruncated,
    /// Flows that began to be followed.
    FlowsFollowed,
    /// Flows of which enough was seen.
    FlowsFinished,
    /// RSTs of this node's kernel of which userspace was not told, for want of room in the ring.
    ResetUnreported,
}

impl Counter {
    /// All counters, in the order of their index.
    pub const ALL: [Self; 25] = [
        Self::NotIp,
        Self::NotTcp,
        Self::Quic,
        Self::Encapsulated,
        Self::Fragment,
        Self::Truncated,
        Self::BadLength,
        Self::TooManyExtensionHeaders,
        Self::Established,
        Self::LeftOut,
        Self::NoPayload,
        Self::Finished,
        Self::OtherInterface,
        Self::Opaque,
        Self::Repetitive,
        Self::Selected,
        Self::Events,
        Self::EventBytes,
        Self::RingFull,
        Self::FlowTableFull,
        Self::Unframed,
        Self::EventTruncated,
        Self::FlowsFollowed,
        Self::FlowsFinished,
        Self::ResetUnreported,
    ];

    /// Name, as in metrics and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Quic => "quic",
            Self::Encapsulated => "encapsulated",
            Self::Fragment => "fragment",
            Self::Truncated => "truncated",
            Self::BadLength => "bad_length",
            Self::TooManyExtensionHeaders => "too_many_extension_headers",
            Self::Established => "established",
            Self::LeftOut => "left_out",
            Self::NoPayload => "no_payload",
            Self::Finished => "finished",
            Self::OtherInterface => "other_interface",
            Self::Opaque => "opaque",
            Self::Repetitive => "repetitive",
            Self::Selected => "selected",
            Self::Events => "events",
            Self::EventBytes => "event_bytes",
            Self::RingFull => "ring_full",
            Self::FlowTableFull => "flow_table_full",
            Self::Unframed => "unframed",
            Self::EventTruncated => "event_truncated",
            Self::FlowsFollowed => "flows_followed",
            Self::FlowsFinished => "flows_finished",
            Self::ResetUnreported => "reset_unreported",
        }
    }

    /// What it counts, as a phrase that follows the number.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotIp => "packets that are neither IPv4 nor IPv6",
            Self::NotTcp => "IP packets that are not TCP",
            Self::Quic => "packets of QUIC handshakes",
            Self::Encapsulated => "packets of tunnels, not looked into",
            Self::Fragment => "IP fragments",
            Self::Truncated => "packets that end inside their headers",
            Self::BadLength => "packets whose headers state an impossible length",
            Self::TooManyExtensionHeaders => "IPv6 packets with too many extension headers",
            Self::Established => "segments of connections without a handshake under way",
            Self::LeftOut => "beginnings of connections that --port or --server leave out",
            Self::NoPayload => "segments without payload, of connections not followed",
            Self::Finished => "segments of connections of which enough was seen",
            Self::OtherInterface => "segments already seen on another interface",
            Self::Opaque => "segments wholly inside an encrypted or uninteresting record",
            Self::Repetitive => "segments that only repeat what was reported",
            Self::Selected => "segments selected",
            Self::Events => "events written",
            Self::EventBytes => "bytes of events written",
            Self::RingFull => "events lost: the ring buffer was full",
            Self::FlowTableFull => "handshakes not followed to the end: the flow table was full",
            Self::Unframed => "segments behind a hole in their stream, not copied",
            Self::EventTruncated => "events shortened for want of room",
            Self::FlowsFollowed => "connections followed",
            Self::FlowsFinished => "connections of which enough was seen",
            Self::ResetUnreported => "resets by this node's kernel not reported: the ring buffer had no room",
        }
    }

    /// Whether the count means that something was missed.
    pub const fn is_loss(self) -> bool {
        matches!(self, Self::RingFull | Self::FlowTableFull | Self::Unframed | Self::EventTruncated)
    }
}

/// Sums over the counters that the program does not keep itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Packets that the programs saw.
    pub packets: u64,
    /// Those with a readable TCP header.
    pub tcp: u64,
    /// Those that may have been part of a handshake.
    pub candidates: u64,
}

impl Totals {
    /// Adds up counters, read by `count`: the sum over all CPUs of one element of the `COUNTERS` map.
    pub fn new(count: impl Fn(Counter) -> u64) -> Self {
        let skipped = |reasons: &[Skip]| reasons.iter().map(|skip| count(skip.counter())).sum::<u64>();
        let (without_tcp, with_tcp) = Skip::ALL.split_at(Skip::Established as usize);
        let tcp = skipped(with_tcp) + count(Counter::Selected);
        Self {
            packets: skipped(without_tcp) + tcp,
            tcp,
            candidates: tcp - count(Counter::Established) - count(Counter::LeftOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_skips_stand_at_their_index() {
        for (index, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, index);
        }
        for (index, skip) in Skip::ALL.into_iter().enumerate() {
            assert_eq!(skip as usize, index);
            assert_eq!(skip.counter() as usize, index);
        }
    }

    #[test]
    fn every_packet_is_in_the_total_once_and_events_are_not() {
        let totals = Totals::new(|counter| if counter == Counter::Events { 100 } else { 1 });
        assert_eq!(totals, Totals { packets: 16, tcp: 8, candidates: 6 });
    }
}
