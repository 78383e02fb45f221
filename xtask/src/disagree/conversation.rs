//! What the two sides of a captured connection said, and how it goes over the wire once more.
//!
//! A connection is told anew, between addresses of its own, so that any number of them fit into one file and each is
//! found again by them. What headers and tunnels were around it is not kept: of those, `tlstrace-common` has the tests.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use tlstrace::capture::file::{self, CaptureReader};
use tlstrace::engine::facts::Role;
use tlstrace_common::encapsulation::LinkKind;
use tlstrace_common::event::TcpFlags;

/// Bytes that are kept of a connection: handshakes, and some data.
const MAX_BYTES: usize = 48 * 1024;
/// Connections that are kept of a capture.
const MAX_CONNECTIONS: usize = 12;

/// What was said, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    pub(super) turns: Vec<(Role, Vec<u8>)>,
    /// Who then closed, or reset, the connection.
    pub(super) endings: Vec<(Role, u8)>,
}

impl Conversation {
    /// The connections of a capture that begin with a ClientHello, as far as nothing of them is missing.
    pub(super) fn read_all(capture: &Path) -> Vec<Self> {
        // A capture that others made may be anything.
        let Ok(mut reader) = CaptureReader::open(capture) else { return Vec::new() };
        let mut readings: Vec<Reading> = Vec::new();
        let mut known: HashMap<(SocketAddr, SocketAddr), usize> = HashMap::new();
        while let Ok(Some(frame)) = reader.next_frame() {
            let Some(kind) = LinkKind::from_link_type(frame.link_type) else { continue };
            let Ok(segment) = file::segment(&frame, kind) else { continue };
            let ends = (segment.source, segment.destination);
            let index = *known.entry((ends.0.min(ends.1), ends.0.max(ends.1))).or_insert_with(|| {
                readings.push(Reading::default());
                readings.len() - 1
            });
            if let Some(reading) = readings.get_mut(index) {
                let bytes = segment.chunks.first().map_or(&[][..], |chunk| chunk.bytes);
                let is_whole = bytes.len() == segment.payload_len as usize;
                reading.take(segment.source, segment.flags, segment.sequence, bytes, is_whole);
            }
        }
        let conversations = readings.into_iter().map(|reading| reading.conversation);
        conversations.filter(Self::begins_with_client_hello).take(MAX_CONNECTIONS).collect()
    }

    fn begins_with_client_hello(&self) -> bool {
        matches!(self.turns.first(), Some((Role::Client, bytes)) if matches!(bytes[..], [22, 3, _, _, _, 1, ..]))
    }

    fn len(&self) -> usize {
        self.turns.iter().map(|(_, bytes)| bytes.len()).sum()
    }
}

/// A connection while its capture is read.
#[derive(Default)]
struct Reading {
    conversation: Conversation,
    /// The side that spoke first, and the sequence number that is next of each.
    client: Option<SocketAddr>,
    next: HashMap<SocketAddr, u32>,
    is_over: bool,
}

impl Reading {
    fn take(&mut self, source: SocketAddr, flags: u8, sequence: u32, bytes: &[u8], is_whole: bool) {
        if self.is_over {
            return;
        }
        if flags & TcpFlags::SYN != 0 {
            if flags & TcpFlags::ACK == 0 {
                self.client = Some(source);
            }
            self.next.insert(source, sequence.wrapping_add(1));
            return;
        }
        if bytes.is_empty() && flags & (TcpFlags::FIN | TcpFlags::RST) == 0 {
            return;
        }
        let client = *self.client.get_or_insert(source);
        let role = if source == client { Role::Client } else { Role::Server };
        let next = self.next.entry(source).or_insert(sequence);
        let known = next.wrapping_sub(sequence) as usize;
        // What lies in the future is behind a hole.
        if !is_whole || known > 1 << 20 || self.conversation.len() > MAX_BYTES {
            self.is_over = true;
            return;
        }
        if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) {
            *next = next.wrapping_add(u32::try_from(new.len()).unwrap_or_default());
            match self.conversation.turns.last_mut() {
                Some((last, said)) if *last == role => said.extend_from_slice(new),
                _ => self.conversation.turns.push((role, new.to_vec())),
            }
        }
        if flags & TcpFlags::RST != 0 {
            self.conversation.endings.push((role, TcpFlags::RST));
            self.is_over = true;
        } else if flags & TcpFlags::FIN != 0 {
            self.conversation.endings.push((role, TcpFlags::FIN));
            self.is_over = self.conversation.endings.len() > 1;
        }
    }
}

/// One segment of a conversation.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) role: Role,
    pub(super) flags: u8,
    pub(super) sequence: u32,
    acknowledgement: u32,
    pub(super) payload: Vec<u8>,
}

/// Initial sequence numbers of client and server.
const INITIAL: [u32; 2] = [1_000_000, 3_000_000_000];

/// A connection from its SYN to its end, in segments of at most `size` bytes.
pub(super) fn packets(conversation: &Conversation, size: usize) -> Vec<Packet> {
    let mut next = INITIAL;
    let mut packets = Vec::new();
    let mut send = |role: Role, flags: u8, payload: &[u8]| {
        let (own, other) = if role == Role::Client { (0, 1) } else { (1, 0) };
        let acknowledgement = if flags & TcpFlags::ACK == 0 { 0 } else { next[other] };
        packets.push(Packet { role, flags, sequence: next[own], acknowledgement, payload: payload.to_vec() });
        let control = u32::from(flags & (TcpFlags::SYN | TcpFlags::FIN) != 0);
        next[own] = next[own].wrapping_add(control + u32::try_from(payload.len()).unwrap_or_default());
    };
    send(Role::Client, TcpFlags::SYN, &[]);
    send(Role::Server, TcpFlags::SYN | TcpFlags::ACK, &[]);
    send(Role::Client, TcpFlags::ACK, &[]);
    for (role, said) in &conversation.turns {
        for part in said.chunks(size.max(1)) {
            send(*role, TcpFlags::ACK | TcpFlags::PSH, part);
        }
        send(role.peer(), TcpFlags::ACK, &[]);
    }
    for (role, how) in &conversation.endings {
        send(*role, TcpFlags::ACK | how, &[]);
    }
    packets
}

/// What a side said, up to the first hole, and whether there is one.
pub(super) fn stream(packets: &[Packet], role: Role) -> (Vec<u8>, bool) {
    let mut said: Vec<_> = packets.iter().filter(|packet| packet.role == role).collect();
    let Some(syn) = said.iter().find(|packet| packet.flags & TcpFlags::SYN != 0) else {
        return (Vec::new(), true);
    };
    let first = syn.sequence.wrapping_add(1);
    let offset = |packet: &Packet| packet.sequence.wrapping_sub(first) as usize;
    said.retain(|packet| !packet.payload.is_empty());
    said.sort_by_key(|packet| offset(packet));
    let mut bytes = Vec::new();
    for packet in said {
        let Some(known) = bytes.len().checked_sub(offset(packet)) else { return (bytes, true) };
        bytes.extend_from_slice(packet.payload.get(known..).unwrap_or_default());
    }
    (bytes, false)
}

/// The client's address in the connection of this number. The server's is always the same, at the port of HTTPS, so that
/// tshark takes it for TLS.
pub(super) fn client_address(number: u32) -> SocketAddr {
    let first = Ipv4Addr::new(10, 0, 0, 1).to_bits();
    SocketAddr::new(Ipv4Addr::from_bits(first + number).into(), 40_000)
}

pub(super) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 443);

/// A capture file of connections, whose numbers are their places.
pub(super) fn pcap(connections: &[Vec<Packet>]) -> Vec<u8> {
    /// `LINKTYPE_RAW`: frames begin with the IP header.
    const RAW: u32 = 101;
    let mut file = Vec::new();
    // Magic number, version 2.4, no time zone, no accuracy, longest frame, link type.
    for field in [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 262_144, RAW] {
        file.extend(field.to_be_bytes());
    }
    for (number, packets) in (0..).zip(connections) {
        // Close together, so that no verdict is passed in between.
        for (microsecond, packet) in (0..).step_by(10).zip(packets) {
            let frame = frame(number, packet);
            let length = u32::try_from(frame.len()).unwrap_or_default();
            for field in [1_700_000_000 + number * 10, microsecond % 1_000_000, length, length] {
                file.extend(field.to_be_bytes());
            }
            file.extend(frame);
        }
    }
    file
}

/// IPv4 and TCP without options; checksums are left out, as hardware fills them in and captures often lack them.
fn frame(number: u32, packet: &Packet) -> Vec<u8> {
    let (client, server) = (client_address(number), SERVER);
    let (source, destination) = if packet.role == Role::Client { (client, server) } else { (server, client) };
    let length = u16::try_from(40 + packet.payload.len()).unwrap_or(u16::MAX);
    let mut frame = vec![0x45, 0];
    frame.extend(length.to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    for end in [source, destination] {
        if let IpAddr::V4(address) = end.ip() {
            frame.extend(address.octets());
        }
    }
    frame.extend(source.port().to_be_bytes());
    frame.extend(destination.port().to_be_bytes());
    frame.extend(packet.sequence.to_be_bytes());
    frame.extend(packet.acknowledgement.to_be_bytes());
    frame.extend([5 << 4, packet.flags, 0xff, 0xff, 0, 0, 0, 0]);
    frame.extend(&packet.payload);
    frame
}
