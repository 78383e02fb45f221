//! How long the parts of a handshake took.

use serde::{Deserialize, Serialize};

use crate::engine::facts::HandshakeFacts;
use crate::engine::timestamp::Timestamp;

/// Durations in microseconds, as `timings_us` of `tlstrace/1` has them. What was not reached, or not seen, has none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Timings {
    /// SYN to the end of TCP's handshake: both legs, as seen from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_rtt: Option<u64>,
    /// SYN to SYN-ACK: the server's leg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_rtt: Option<u64>,
    /// SYN-ACK to ACK: the client's leg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_rtt: Option<u64>,
    /// End of TCP's handshake to the whole ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_hello: Option<u64>,
    /// First byte of the ClientHello to its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_hello_transfer: Option<u64>,
    /// ClientHello to the server's first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_hello: Option<u64>,
    /// From there to the end of the server's flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_flight: Option<u64>,
    /// From there to the client's answer: its round trip and its verification of the certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_flight: Option<u64>,
    /// The client's Finished to what the server sent next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_finish: Option<u64>,
    /// ClientHello to the end of the handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<u64>,
}

impl Timings {
    pub fn of(facts: &HandshakeFacts) -> Self {
        let micros = |from: Option<Timestamp>, to: Option<Timestamp>| {
            Some(to?.as_nanos().saturating_sub(from?.as_nanos()) / 1000)
        };
        let progress = &facts.progress;
        let tcp = &facts.tcp;
        Self {
            tcp_rtt: micros(tcp.syn, tcp.established),
            server_rtt: micros(tcp.syn, tcp.syn_ack),
            client_rtt: micros(tcp.syn_ack, tcp.established),
            client_hello: micros(tcp.established, progress.client_hello),
            client_hello_transfer: micros(facts.client().first_payload, progress.client_hello)
                .filter(|&micros| micros > 0),
            server_hello: micros(progress.client_hello, facts.server().first_payload),
            server_flight: micros(facts.server().first_payload, progress.server_flight),
            client_flight: micros(progress.server_flight, progress.client_flight),
            server_finish: micros(
                progress.client_finished,
                progress.server_data.or(progress.server_finished),
            ),
            handshake: micros(progress.client_hello, progress.complete),
        }
    }
}
