//! What a connection showed: the only thing that a rule may look at, besides the listener's history.
//!
//! Facts are kept per role, [`Role::Client`] being who sent, or should have sent, the ClientHello. They hold
//! no random, no ticket, no key share, no signature and no application data.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::tls::alert::Alert;
use crate::tls::certificate::CertificateChain;
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{ContentType, HandshakeType, NamedGroup, ProtocolVersion};
use crate::tls::handshake::CertificateRequest;
use crate::tls::record::FirstBytes;
use crate::tls::server_hello::ServerHello;

use super::proxy::ProxyHeader;
use super::resets::LocalReset;
use super::segment::Direction;
use super::timestamp::Timestamp;
use super::tls13::{ClientCertificate, Exchange};

/// Most encrypted records that are noted per direction.
pub const MAX_OPAQUE_RECORDS: usize = 32;
/// Most letters of a [`History`].
const MAX_HISTORY: usize = 64;
/// Letters that most have room in.
const USUAL_HISTORY: usize = 24;
/// Most endings that are kept of one connection.
pub(crate) const MAX_ENDINGS: usize = 16;

/// Who speaks TLS.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Client,
    Server,
}

impl Role {
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Everything that one connection showed.
#[derive(Clone, Debug)]
pub struct HandshakeFacts {
    pub connection: ConnectionId,
    /// Index of the interface that saw it first.
    pub interface: u32,
    /// Where the client's segments were seen by the hook.
    pub direction: Direction,
    /// First and last segment that counted.
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// When these facts were last judged: the end of the capture, or when waiting longer was no use.
    pub judged_at: Timestamp,
    pub tcp: Tcp,
    /// By [`Role`]: use [`HandshakeFacts::peer`].
    pub peers: [Peer; 2],
    pub proxy: Option<Box<ProxyHeader>>,
    /// Something other than TLS preceded the ClientHello and led up to it: STARTTLS, HTTP CONNECT.
    pub upgraded_from: Option<FirstBytes>,
    pub client_hello: Option<Box<ClientHello>>,
    pub client_hello_size: HelloSize,
    /// The ClientHello after a HelloRetryRequest.
    pub second_client_hello: Option<Box<ClientHello>>,
    pub hello_retry_request: Option<Box<ServerHello>>,
    pub second_hello_retry_request: bool,
    pub server_hello: Option<Box<ServerHello>>,
    pub certificate_request: Option<Box<CertificateRequest>>,
    /// Named group of a ServerKeyExchange (TLS 1.2 and below).
    pub server_key_exchange_group: Option<NamedGroup>,
    /// Who began another handshake after this one was complete (TLS 1.2 and below), and when.
    pub renegotiation: Option<(Role, Timestamp)>,
    /// Stages of the handshake and when they were reached.
    pub progress: Progress,
    /// Alerts, resets and FINs in causal order; the last symptom is rarely the cause.
    pub endings: Vec<Ending>,
    /// What this node's kernel says of the resets among them.
    pub reset_reports: Vec<LocalReset>,
    pub history: History,
    pub capture: CaptureCondition,
}

/// One side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// What address and port were seen to become when the connection passed a translation of addresses.
    pub translated: Option<Box<SocketAddr>>,
    /// What the side's stream began with.
    pub first_bytes: Option<FirstBytes>,
    /// At most 16 bytes, kept only where they are not TLS.
    pub head: Vec<u8>,
    /// Payload bytes seen on the wire.
    pub bytes: u64,
    /// Of them, acknowledged by the other side.
    pub acked: u64,
    /// Position of the first byte that the peer did not acknowledge and that was sent again at least twice.
    pub stuck_at: Option<u64>,
    /// The peer acknowledged no more than what lies before a hole after more had come: what is missing in the
    /// hole never reached it, nor this observer.
    pub lost_on_path: bool,
    pub first_payload: Option<Timestamp>,
    pub last_payload: Option<Timestamp>,
    /// Segments that carried new payload, up to the end of the first flight.
    pub segments: u32,
    pub retransmissions: u32,
    pub records: u32,
    pub certificates: Option<CertificateChain>,
    pub change_cipher_spec: Option<Timestamp>,
    /// Records that are encrypted or not looked into, up to [`MAX_OPAQUE_RECORDS`].
    pub opaque_records: Vec<OpaqueRecord>,
    /// All of them, also those past the limit.
    pub opaque_record_count: u32,
    pub alerts: Vec<Alert>,
    /// The handshake message that had begun and not ended.
    pub unfinished: Option<UnfinishedMessage>,
    /// Bytes stood where a record header was due and are not one.
    pub broke_framing: bool,
    pub hop_limit: u8,
    /// Whether any segment of this side was captured.
    pub seen: bool,
}

/// A record whose content is not visible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpaqueRecord {
    pub content_type: ContentType,
    /// The length field, without the 5-byte header.
    pub length: u16,
    pub time: Timestamp,
    /// How many opaque records the other side had sent by then.
    pub peer_records: u32,
    /// Offset in its stream of the segment in which its header ends.
    pub position: u64,
    /// How much of the other side's stream its sender had received, if it says so.
    pub received: Option<u64>,
}

impl OpaqueRecord {
    /// Whether its sender had received `other`, a record of the other side. Received is not read: a program may
    /// still write what it would not have written had it read first.
    pub fn had_received(&self, other: &Self) -> bool {
        self.time > other.time && self.received.is_none_or(|received| received > other.position)
    }
}

/// What the first ClientHello took on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HelloSize {
    /// TCP segments with new payload, up to its last byte.
    pub segments: u32,
    /// TLS records.
    pub records: u32,
}

/// A handshake message that never became whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnfinishedMessage {
    /// Unknown if not even its header came.
    pub kind: Option<HandshakeType>,
    /// Bytes that headers had announced and that did not come.
    pub missing: u32,
}

/// The TCP handshake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp {
    pub syn: Option<Timestamp>,
    pub syn_count: u32,
    pub syn_ack: Option<Timestamp>,
    pub syn_ack_count: u32,
    /// First segment of the client after the SYN-ACK.
    pub established: Option<Timestamp>,
    /// The client's SYN carried payload (RFC 7413).
    pub fast_open: bool,
    /// Whether both sides negotiated TCP timestamps.
    pub timestamps: bool,
}

/// When each stage of a handshake was reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub client_hello: Option<Timestamp>,
    pub server_hello: Option<Timestamp>,
    /// The last payload of the server's flight, before any ending, and the first of the client's answer to it.
    pub server_flight: Option<Timestamp>,
    pub client_flight: Option<Timestamp>,
    pub server_certificate: Option<Timestamp>,
    pub server_hello_done: Option<Timestamp>,
    pub client_certificate: Option<Timestamp>,
    pub client_key_exchange: Option<Timestamp>,
    pub client_certificate_verify: Option<Timestamp>,
    /// Finished of each side: seen as an encrypted record in the place where it must stand.
    pub client_finished: Option<Timestamp>,
    pub server_finished: Option<Timestamp>,
    /// The client's first encrypted record of TLS 1.3 is too short for a Finished: an alert.
    pub client_refused: bool,
    /// The handshake is complete as far as an observer can tell.
    pub complete: Option<Timestamp>,
    /// First application data of each side after its Finished.
    pub client_data: Option<Timestamp>,
    pub server_data: Option<Timestamp>,
    /// NewSessionTicket in the clear (TLS 1.2).
    pub session_ticket: bool,
    pub resumed: bool,
}

/// Something that ends a connection, or tells that it is about to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ending {
    pub role: Role,
    pub how: How,
    pub time: Timestamp,
    /// Offset in the sender's stream.
    pub position: u64,
    /// How much of the other side's stream the sender had received, a FIN counting as a byte.
    pub received: Option<u64>,
}

/// How a side ends a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    Alert(Alert),
    Reset(Reset),
    /// FIN.
    Close,
}

/// What a RST looked like, which tells who sent it and why (`DIAGNOSIS.md` §1.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reset {
    /// RST,ACK rather than a bare RST.
    pub ack: bool,
    pub window: u16,
    pub timestamps: bool,
    /// TTL or hop limit differs from the side's other segments.
    pub hop_limit_differs: bool,
    /// Its sequence number is not the one that the receiver expects.
    pub out_of_window: bool,
    /// It answers a SYN.
    pub refuses_syn: bool,
    /// Numbers as on the wire, by which a report about the RST is found; the acknowledgement is 0 without the ACK flag.
    pub sequence: u32,
    pub acknowledgement: u32,
    /// As [`super::segment::Segment::is_own`].
    pub is_own: bool,
    /// It [`is_own`](Self::is_own), and the kernel did not report it: somebody else made it.
    pub is_unreported: bool,
}

impl Reset {
    /// Linux sends RST,ACK with a window and, where negotiated, timestamps when a process closes a socket
    /// with unread data or with a zero linger time (RFC 9293 §3.10.4, RFC 2525 §2.17).
    pub fn is_active_abort(&self) -> bool {
        self.ack && self.window != 0
    }
}

/// What limited the view.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CaptureCondition {
    /// The beginning of the connection was not seen.
    pub midstream: bool,
    /// Holes in a stream that were never filled, and the bytes in them.
    pub gaps: u32,
    pub missing_bytes: u64,
    /// Events of this connection that the kernel could not deliver.
    pub lost: u32,
    /// The kernel could not deliver events while the connection was open; whether of this one is not known.
    pub lost_nearby: bool,
    /// Segments that were captured only in part.
    pub truncated: u32,
    /// Record boundaries were lost in a direction.
    pub desynchronised: bool,
    /// Segments of only one side were captured, although the other side answered.
    pub one_way: bool,
    /// The connection was forgotten for want of room.
    pub evicted: bool,
}

impl CaptureCondition {
    /// Whether anything that should have been captured was not.
    pub fn lost_something(&self) -> bool {
        let Self {
            midstream: _,
            gaps,
            missing_bytes: _,
            lost,
            lost_nearby,
            truncated,
            desynchronised,
            one_way,
            evicted,
        } = *self;
        gaps > 0 || lost > 0 || lost_nearby || truncated > 0 || desynchronised || one_way || evicted
    }
}

/// Names a connection for as long as verdicts about it may follow.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(pub u64);

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One letter per event, upper case for the client (the letters are listed in `OUTPUT.md`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History(SmallVec<[u8; USUAL_HISTORY]>);

impl History {
    /// Adds an ASCII letter.
    pub(crate) fn push(&mut self, role: Role, letter: u8) {
        if self.0.len() < MAX_HISTORY {
            self.0.push(match role {
                Role::Client => letter.to_ascii_uppercase(),
                Role::Server => letter.to_ascii_lowercase(),
            });
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl HandshakeFacts {
    pub fn peer(&self, role: Role) -> &Peer {
        let [client, server] = &self.peers;
        match role {
            Role::Client => client,
            Role::Server => server,
        }
    }

    pub(crate) fn peer_mut(&mut self, role: Role) -> &mut Peer {
        let [client, server] = &mut self.peers;
        match role {
            Role::Client => client,
            Role::Server => server,
        }
    }

    pub fn client(&self) -> &Peer {
        self.peer(Role::Client)
    }

    pub fn server(&self) -> &Peer {
        self.peer(Role::Server)
    }

    /// The version that the server selected.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.server_hello.as_ref().map(|hello| hello.version)
    }

    /// The ClientHello that counts: the second one after a HelloRetryRequest.
    pub fn last_client_hello(&self) -> Option<&ClientHello> {
        self.second_client_hello.as_deref().or(self.client_hello.as_deref())
    }

    /// The `server_name` as text, if the client sent one.
    pub fn server_name(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.client_hello.as_ref()?.server_name.as_ref().map(|name| name.as_str())
    }

    /// The group of the key exchange, whichever message told it.
    pub fn group(&self) -> Option<NamedGroup> {
        self.server_hello
            .as_ref()
            .and_then(|hello| hello.group)
            .or(self.server_key_exchange_group)
            .or_else(|| self.hello_retry_request.as_ref().and_then(|hello| hello.group))
    }

    /// Client and server behind the translation of addresses that the connection was seen to pass.
    pub fn translated(&self) -> Option<(SocketAddr, SocketAddr)> {
        let [client, server] = &self.peers;
        (client.translated.is_some() || server.translated.is_some()).then(|| {
            let outside = |peer: &Peer| peer.translated.as_deref().copied().unwrap_or(peer.address);
            (outside(client), outside(server))
        })
    }

    /// What this node's kernel says of a RST, if it was the one that sent it.
    pub fn report_of(&self, reset: &Reset) -> Option<&LocalReset> {
        self.reset_reports.iter().find(|report| reset.is(report))
    }

    /// Bytes on the wire of the messages that are kept, decoded.
    pub(crate) fn weight(&self) -> usize {
        let hellos = [&self.client_hello, &self.second_client_hello].into_iter().flatten();
        let chains = self.peers.iter().filter_map(|peer| peer.certificates.as_ref());
        let lengths = hellos.map(|hello| hello.length).chain(chains.map(|chain| chain.length));
        lengths.map(|length| length as usize).sum()
    }

    /// Whether the server sent any payload.
    pub fn server_answered(&self) -> bool {
        self.server().bytes > 0
    }

    /// Whether what was captured can be trusted to be all that there was.
    pub fn is_complete_capture(&self) -> bool {
        !self.capture.midstream && !self.capture.lost_something()
    }

    /// Whether the server asked for a client certificate and the client said that it has none: by its message,
    /// or in TLS 1.3 by the size of a record.
    pub fn has_empty_client_certificate(&self) -> bool {
        match &self.client().certificates {
            Some(chain) => chain.is_empty(),
            None => Exchange::of(self)
                .is_some_and(|exchange| exchange.client.certificate == ClientCertificate::Empty),
        }
    }

    /// How far the handshake came.
    pub fn phase(&self) -> Phase {
        let progress = &self.progress;
        if progress.complete.is_some() {
            Phase::Complete
        } else if progress.client_finished.is_some() || progress.client_key_exchange.is_some() {
            Phase::ClientFlight
        } else if progress.server_hello.is_some() || self.hello_retry_request.is_some() {
            Phase::ServerFlight
        } else if self.client_hello.is_some() {
            Phase::ClientHello
        } else if self.client().bytes > 0 || self.tcp.established.is_some() {
            Phase::Connected
        } else {
            Phase::Tcp
        }
    }
}

/// The last stage that was reached.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// TCP's handshake is not done.
    Tcp,
    /// TCP is up, no whole ClientHello yet.
    Connected,
    /// The ClientHello is out, the server has not chosen.
    ClientHello,
    /// The server has answered with a ServerHello or HelloRetryRequest.
    ServerFlight,
    /// The client has begun its second flight.
    ClientFlight,
    Complete,
}

impl Phase {
    /// As in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Connected => "connected",
            Self::ClientHello => "client_hello",
            Self::ServerFlight => "server_flight",
            Self::ClientFlight => "client_flight",
            Self::Complete => "complete",
        }
    }
}
