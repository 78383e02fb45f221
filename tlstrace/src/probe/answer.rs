//! What an endpoint answers to a hello, read with the decoders that also read what others send.

use std::sync::Arc;

use crate::tls::Decoded;
use crate::tls::alert::Alert;
use crate::tls::certificate::{CertificateCache, CertificateChain};
use crate::tls::codepoints::{
    AlertDescription, CipherSuite, ContentType, HandshakeType, NamedGroup, ProtocolVersion,
};
use crate::tls::handshake::{Message, MessageHeader, Selection};
use crate::tls::record::{FirstBytes, RecordHeader, sniff};

/// What came of one attempt.
pub type Answer = Result<Accepted, Refusal>;

/// A ServerHello, or a HelloRetryRequest, and what came with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Accepted {
    pub version: ProtocolVersion,
    pub cipher_suite: CipherSuite,
    /// The key exchange group; of a HelloRetryRequest, the one asked for.
    pub group: Option<NamedGroup>,
    pub alpn: Option<Box<[u8]>>,
    /// The server's certificates, where they could be seen.
    pub chain: Option<Arc<CertificateChain>>,
    /// Whether the server asked for a client certificate; `None` where that could not be seen.
    pub certificate_requested: Option<bool>,
    /// What the server did against a handshake without client certificate.
    pub refused_after: Option<Refusal>,
    /// What the trust store of `--ca-file` says about the chain.
    pub trust: Option<Trust>,
}

/// What a verifier says about a chain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    Trusted,
    UnknownIssuer,
    /// In the verifier's words.
    Refused(String),
}

/// Why there was no ServerHello.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    Alert(Alert),
    /// A FIN.
    Closed,
    /// A RST.
    Reset,
    /// Nothing, until the time was over.
    Silent,
    /// The answer was not TLS: what it looks like, and how it begins.
    NotTls {
        kind: FirstBytes,
        head: Box<[u8]>,
    },
    /// The answer was not as RFC 8446 or RFC 5246 want it.
    Malformed(&'static str),
    /// A real handshake failed on our side.
    Failed(String),
    /// No TCP connection came about.
    Unreachable(Unreachable),
}

/// Why there was no TCP connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unreachable {
    /// A RST answered the SYN.
    Refused,
    /// Nobody answered the SYN.
    TimedOut,
    /// In the system's words.
    Other(String),
}

/// Bytes of one answer that are read; a chain of certificates has some thousands.
const MAX_ANSWER: usize = 256 * 1024;
/// Bytes of an answer that is not TLS that are kept.
const HEAD_LEN: usize = 16;

/// Reads an answer as it comes.
#[derive(Debug, Default)]
pub struct AnswerReader {
    /// What is left of the records.
    bytes: Vec<u8>,
    /// What is left of the handshake messages.
    messages: Vec<u8>,
    total: usize,
    seen: Option<Accepted>,
    certificates: CertificateCache,
}

impl AnswerReader {
    /// Takes more bytes. As soon as everything is known that can be, says what it is.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.total += bytes.len();
        if self.total > MAX_ANSWER {
            return Some(self.seen.take().ok_or(Refusal::Malformed("it does not end")));
        }
        self.bytes.extend_from_slice(bytes);
        loop {
            let header = match RecordHeader::decode(&self.bytes) {
                Decoded::Complete(header) => header,
                Decoded::Incomplete => return None,
                Decoded::Malformed => return Some(self.not_a_record()),
            };
            let end = RecordHeader::LEN + usize::from(header.length);
            let body = self.bytes.get(RecordHeader::LEN..end)?.to_vec();
            self.bytes.drain(..end);
            if let Some(answer) = self.record(header, &body) {
                return Some(answer);
            }
        }
    }

    /// Nothing more will come, because of `end`.
    pub fn end(mut self, end: Refusal) -> Answer {
        if let Some(seen) = self.seen.take() {
            return Ok(seen);
        }
        // A banner shorter than a record header is one all the same.
        let kind = sniff(&self.bytes);
        match kind {
            FirstBytes::TlsRecord => Err(end),
            FirstBytes::TooShort if self.bytes.is_empty() => Err(end),
            _ => self.not_a_record(),
        }
    }

    fn not_a_record(&mut self) -> Answer {
        if let Some(seen) = self.seen.take() {
            return Ok(seen);
        }
        let head = self.bytes.get(..HEAD_LEN).unwrap_or(&self.bytes);
        Err(Refusal::NotTls { kind: sniff(head), head: head.into() })
    }

    fn record(&mut self, header: RecordHeader, body: &[u8]) -> Option<Answer> {
        match header.content_type {
            ContentType::HANDSHAKE => {
                self.messages.extend_from_slice(body);
                self.read_messages()
            }
            ContentType::ALERT => match Alert::decode(body) {
                // A warning about the name goes before the ServerHello (RFC 6066 §3).
                Decoded::Complete(alert)
                    if !alert.is_fatal() && alert.description == AlertDescription::UNRECOGNIZED_NAME =>
                {
                    None
                }
                Decoded::Complete(alert) => Some(self.seen.take().ok_or(Refusal::Alert(alert))),
                _ => Some(self.seen.take().ok_or(Refusal::Malformed("an alert is not two bytes long"))),
            },
            _ => Some(
                self.seen
                    .take()
                    .ok_or(Refusal::Malformed("it begins with neither a handshake message nor an alert")),
            ),
        }
    }

    fn read_messages(&mut self) -> Option<Answer> {
        loop {
            let header = MessageHeader::decode(&self.messages).complete()?;
            let end = MessageHeader::LEN + usize::try_from(header.length).ok()?;
            let body = self.messages.get(MessageHeader::LEN..end)?.to_vec();
            self.messages.drain(..end);
            if let Some(answer) = self.message(header.kind, &body) {
                return Some(answer);
            }
        }
    }

    fn message(&mut self, kind: HandshakeType, body: &[u8]) -> Option<Answer> {
        let selection = self
            .seen
            .as_ref()
            .map(|seen| Selection { version: seen.version, cipher_suite: seen.cipher_suite });
        let message = Message::decode(kind, body, selection, &mut self.certificates).complete();
        let Some(seen) = &mut self.seen else {
            let Some(Message::ServerHello(hello)) = message else {
                return Some(Err(Refusal::Malformed("its first message is no ServerHello that can be read")));
            };
            let accepted = Accepted {
                version: hello.version,
                cipher_suite: hello.cipher_suite,
                group: hello.group,
                alpn: hello.alpn.clone(),
                ..Accepted::default()
            };
            if hello.version.is_tls13() {
                return Some(Ok(accepted));
            }
            self.seen = Some(Accepted { certificate_requested: Some(false), ..accepted });
            return None;
        };
        match message {
            Some(Message::Certificate(chain)) => seen.chain = Some(Arc::new(chain)),
            Some(Message::ServerKeyExchange(exchange)) => seen.group = exchange.group,
            Some(Message::CertificateRequest(_)) => seen.certificate_requested = Some(true),
            Some(Message::ServerHelloDone) => return self.seen.take().map(Ok),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::codepoints::AlertLevel;
    use crate::tls::testing;

    fn record(content_type: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![content_type, 3, 3];
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn feed_bytewise(bytes: &[u8]) -> (AnswerReader, Option<Answer>) {
        let mut reader = AnswerReader::default();
        let answer = bytes.iter().find_map(|byte| reader.feed(&[*byte]));
        (reader, answer)
    }

    #[test]
    fn the_flight_of_tls_1_2_is_read_to_its_end_wherever_it_is_cut() {
        let mut flight = record(22, &testing::server_hello_tls12());
        // A certificate message is spread over records of 100 bytes.
        for piece in testing::certificate_chain().chunks(100) {
            flight.extend(record(22, piece));
        }
        flight.extend(record(22, &testing::server_key_exchange()));
        let (_, none) = feed_bytewise(&flight);
        assert_eq!(none, None, "ServerHelloDone is still to come");
        flight.extend(record(22, &[14, 0, 0, 0]));
        let accepted = feed_bytewise(&flight).1.unwrap().unwrap();
        assert_eq!(accepted.version, ProtocolVersion::TLS1_2);
        assert!(accepted.chain.unwrap().leaf().is_some());
        assert!(accepted.group.is_some());
        assert_eq!(accepted.certificate_requested, Some(false));
    }

    #[test]
    fn tls_1_3_shows_no_more_than_its_server_hello() {
        let accepted = feed_bytewise(&record(22, &testing::server_hello_tls13())).1.unwrap().unwrap();
        assert_eq!(accepted.version, ProtocolVersion::TLS1_3);
        assert_eq!((accepted.chain, accepted.certificate_requested), (None, None));
        let retry = feed_bytewise(&record(22, &testing::hello_retry_request())).1.unwrap().unwrap();
        assert!(retry.group.is_some(), "a HelloRetryRequest accepts the group it asks for");
    }

    #[test]
    fn refusals_are_told_apart() {
        let alert = Alert { level: AlertLevel::FATAL, description: AlertDescription::HANDSHAKE_FAILURE };
        assert_eq!(feed_bytewise(&record(21, &[2, 40])).1, Some(Err(Refusal::Alert(alert))));
        for end in [Refusal::Closed, Refusal::Reset, Refusal::Silent] {
            assert_eq!(AnswerReader::default().end(end.clone()), Err(end));
        }
        let (_, http) = feed_bytewise(b"HTTP/1.1 400 Bad Request\r\n");
        assert!(matches!(http, Some(Err(Refusal::NotTls { .. }))), "{http:?}");
        let (reader, none) = feed_bytewise(b"220 ");
        assert!(none.is_none_or(|answer| answer.is_err()));
        drop(reader);
        assert!(matches!(feed_bytewise(&record(23, &[0; 20])).1, Some(Err(Refusal::Malformed(_)))));
    }

    #[test]
    fn a_warning_about_the_name_is_no_refusal() {
        let mut bytes = record(21, &[1, 112]);
        bytes.extend(record(22, &testing::server_hello_tls13()));
        assert!(feed_bytewise(&bytes).1.unwrap().is_ok());
    }

    #[test]
    fn an_answer_without_end_is_given_up() {
        let mut reader = AnswerReader::default();
        // A message of 2^24 - 1 bytes.
        let endless = record(22, &[0xff; 16_000]);
        assert!((0..100).any(|_| reader.feed(&endless).is_some()));
        assert!(reader.bytes.len() + reader.messages.len() < MAX_ANSWER + 20_000);
    }
}
