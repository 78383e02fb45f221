//! What the sizes and the order of encrypted TLS 1.3 records give away.
//!
//! A record's length field is the inner plaintext, one byte of content type, padding and the AEAD's tag
//! (RFC 8446 §5.2). Handshake messages of known length therefore have known record lengths, as long as the
//! sender pads nothing or pads by a constant; `DIAGNOSIS.md` §4.1 lists what stacks really send. Sizes
//! are only ever used together with positions.

use crate::tls::certificate::CertificateChain;
use crate::tls::codepoints::CipherSuite;

use super::facts::{HandshakeFacts, OpaqueRecord};
use super::timestamp::Timestamp;

/// Content type byte inside every TLS 1.3 ciphertext.
const INNER_TYPE_LEN: u16 = 1;
const MESSAGE_HEADER_LEN: u16 = 4;
const ALERT_LEN: u16 = 2;
/// A Certificate message with an empty context and an empty list (RFC 8446 §4.4.2).
const EMPTY_CERTIFICATE_LEN: u16 = MESSAGE_HEADER_LEN + 1 + 3;
/// `EncryptedExtensions` hold no certificate; 65 bytes is the most that was seen of them.
const LONGER_THAN_EXTENSIONS: u16 = 400;
/// JSSE adds 16 bytes of padding to every record; nobody else was seen to pad by default.
const COMMON_PADDING: [u16; 2] = [0, 16];

/// Record lengths of the short messages under one cipher suite, without padding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sizes {
    pub alert: u16,
    pub finished: u16,
    pub empty_certificate: u16,
    pub end_of_early_data: u16,
}

impl Sizes {
    pub fn of(suite: CipherSuite) -> Self {
        let overhead = INNER_TYPE_LEN + suite.tag_len().unwrap_or(16);
        Self {
            alert: ALERT_LEN + overhead,
            finished: MESSAGE_HEADER_LEN + suite.hash_len().unwrap_or(32) + overhead,
            empty_certificate: EMPTY_CERTIFICATE_LEN + overhead,
            end_of_early_data: MESSAGE_HEADER_LEN + overhead,
        }
    }

    /// The padding that makes `length` a Finished, if one of the usual ones does.
    fn finished_padding(self, length: u16) -> Option<u16> {
        COMMON_PADDING.into_iter().find(|padding| self.finished + padding == length)
    }

    /// Whether a record of this length is an alert of a sender that pads by `padding`; where the padding is
    /// unknown, whether it is one of a sender with a usual padding.
    pub fn is_alert(self, length: u16, padding: Option<u16>) -> bool {
        match padding {
            Some(padding) => length == self.alert + padding,
            None => COMMON_PADDING.iter().any(|padding| length == self.alert + padding),
        }
    }
}

/// The encrypted records of both sides, read together.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    pub sizes: Sizes,
    pub client: ClientFlight,
    client_records: &'a [OpaqueRecord],
    server_records: &'a [OpaqueRecord],
}

impl<'a> Exchange<'a> {
    /// `None` unless the server selected TLS 1.3.
    pub fn of(facts: &'a HandshakeFacts) -> Option<Self> {
        let hello = facts.server_hello.as_ref().filter(|hello| hello.version.is_tls13())?;
        let sizes = Sizes::of(hello.cipher_suite);
        let early_data = facts.client_hello.as_ref().is_some_and(|hello| hello.early_data);
        let client_records = facts.client().opaque_records.as_slice();
        let lengths = client_records.iter().map(|record| record.length);
        let client = ClientFlight::read(lengths, sizes, early_data);
        Some(Self { sizes, client, client_records, server_records: &facts.server().opaque_records })
    }

    /// The server's records from `EncryptedExtensions` to Finished, and what it sent along with them.
    pub fn server_flight(&self) -> impl Iterator<Item = &'a OpaqueRecord> + use<'a> {
        let begin = u32::try_from(self.client.begin).unwrap_or(u32::MAX);
        self.server_records.iter().take_while(move |record| record.peer_records <= begin)
    }

    /// Whether the server's flight came to its end: a Finished stands in it, or it is one coalesced record
    /// that is too long for `EncryptedExtensions` alone.
    pub fn is_server_flight_complete(&self) -> bool {
        let ends = |record: &OpaqueRecord| self.sizes.finished_padding(record.length).is_some();
        self.server_flight().any(ends)
            || self.server_flight().count() == 1
                && self.server_flight().any(|record| record.length >= LONGER_THAN_EXTENSIONS)
    }

    /// Whether a record of the server's flight is as long as a Certificate message with this chain would be: what
    /// TLS 1.2 takes for it, an empty context, empty extensions per certificate (RFC 8446 §4.4.2), and what
    /// every record adds. Stapled responses and compression change the length, and then it does not fit.
    pub fn holds_chain(&self, chain: &CertificateChain) -> bool {
        const CONTEXT_LEN: u32 = 1;
        const EXTENSIONS_LEN: u32 = 2;
        let overhead =
            u32::from(self.sizes.alert - ALERT_LEN) + u32::from(self.server_padding().unwrap_or(0));
        let length = chain.length + CONTEXT_LEN + EXTENSIONS_LEN * u32::from(chain.count) + overhead;
        self.server_flight().any(|record| u32::from(record.length) == length)
    }

    /// The padding per record of the server, learned from its Finished message.
    pub fn server_padding(&self) -> Option<u16> {
        self.server_flight().filter_map(|record| self.sizes.finished_padding(record.length)).last()
    }

    /// What the server sent once the client's Finished was out.
    pub fn server_answer(&self) -> impl Iterator<Item = &'a OpaqueRecord> + use<'a> {
        let finished = self.client.finished.and_then(|index| u32::try_from(index).ok());
        self.server_records
            .iter()
            .filter(move |record| finished.is_some_and(|finished| record.peer_records > finished))
    }

    /// What the server sent once the client's second flight had begun: JSSE refuses a Certificate before it reads
    /// the Finished behind it.
    pub fn server_reaction(&self) -> impl Iterator<Item = &'a OpaqueRecord> + use<'a> {
        let begin = u32::try_from(self.client.begin).unwrap_or(u32::MAX);
        self.server_records.iter().filter(move |record| record.peer_records > begin)
    }

    /// When the client's second flight began, early data left aside.
    pub fn client_flight_began(&self) -> Option<Timestamp> {
        self.client_records.get(self.client.begin).map(|record| record.time)
    }

    /// The record of an alert's size that ends a server's flight in which nothing is long enough for a Certificate
    /// and nothing is a Finished. A server that speaks before its Finished can only mean to give up.
    pub fn server_alert_before_certificate(&self) -> Option<&'a OpaqueRecord> {
        let (last, before) = self.server_records.split_last()?;
        let has_come_far = before.iter().any(|record| {
            record.length >= LONGER_THAN_EXTENSIONS || self.sizes.finished_padding(record.length).is_some()
        });
        (!has_come_far && self.sizes.is_alert(last.length, None)).then_some(last)
    }

    /// What the client sent after its Finished.
    pub fn client_answer(&self) -> impl Iterator<Item = &'a OpaqueRecord> + use<'a> {
        let begin = self.client.finished.map_or(usize::MAX, |index| index + 1);
        self.client_records.iter().skip(begin)
    }

    /// The client's Finished.
    pub fn client_finished(&self) -> Option<&'a OpaqueRecord> {
        self.client_records.get(self.client.finished?)
    }

    /// The record that stands where the client's Finished must and is too short for one: an alert.
    pub fn client_alert(&self) -> Option<&'a OpaqueRecord> {
        self.client_records.get(self.client.alert?)
    }

    /// Whether a record of the server is as long as an alert.
    pub fn is_server_alert(&self, record: &OpaqueRecord) -> bool {
        self.sizes.is_alert(record.length, self.server_padding())
    }

    /// Whether a record of the client is as long as an alert.
    pub fn is_client_alert(&self, record: &OpaqueRecord) -> bool {
        self.sizes.is_alert(record.length, self.client.padding)
    }
}

/// What the client sent after the server's flight, told from the lengths of its encrypted records.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClientFlight {
    /// Index of the first record after early data.
    pub begin: usize,
    pub certificate: ClientCertificate,
    /// Index of the record that holds, or ends with, the Finished message.
    pub finished: Option<usize>,
    /// Index of a record that stands where a Finished must and is too short for one: an alert.
    pub alert: Option<usize>,
    /// Padding per record, learned from the Finished message, whose length is known.
    pub padding: Option<u16>,
}

/// A client certificate in TLS 1.3, as far as sizes tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClientCertificate {
    /// None was sent: the Finished came first.
    #[default]
    NotSent,
    /// The server asked and the client had none.
    Empty,
    /// A Certificate and a `CertificateVerify` stood before the Finished.
    Sent,
    /// One record that is larger than a Finished: a coalesced flight, or padding.
    Unclear,
}

impl ClientFlight {
    /// Reads the lengths of the client's encrypted records since its ClientHello.
    pub fn read(lengths: impl Iterator<Item = u16> + Clone, sizes: Sizes, early_data: bool) -> Self {
        let mut flight = Self::default();
        if early_data {
            let end = lengths.clone().position(|length| length == sizes.end_of_early_data);
            let finished = lengths.clone().position(|length| sizes.finished_padding(length).is_some());
            flight.begin = match (end, finished) {
                (Some(end), _) => end + 1,
                // Early data was refused: what follows it is the flight (RFC 8446 §4.2.10).
                (None, Some(finished)) => finished,
                (None, None) => return Self { begin: lengths.count(), ..flight },
            };
        }
        let begin = flight.begin;
        let mut rest = lengths.skip(begin);
        let (Some(first), second) = (rest.next(), rest.next()) else { return flight };
        if let Some(padding) = sizes.finished_padding(first) {
            flight.finished = Some(begin);
            flight.padding = Some(padding);
            return flight;
        }
        if first < sizes.finished {
            let empty = COMMON_PADDING.into_iter().find(|padding| first == sizes.empty_certificate + padding);
            match (empty, second) {
                (Some(padding), Some(second)) if second == sizes.finished + padding => {
                    flight.certificate = ClientCertificate::Empty;
                    flight.finished = Some(begin + 1);
                    flight.padding = Some(padding);
                }
                // An empty Certificate whose Finished has not been seen yet.
                (Some(_), None) => {}
                _ => flight.alert = Some(begin),
            }
            return flight;
        }
        // rustls puts its whole flight into one record. An empty Certificate adds its own length and no more.
        let coalesced = first.checked_sub(EMPTY_CERTIFICATE_LEN);
        if let Some(padding) = coalesced.and_then(|length| sizes.finished_padding(length)) {
            flight.certificate = ClientCertificate::Empty;
            flight.finished = Some(begin);
            flight.padding = Some(padding);
            return flight;
        }
        // Larger than a Finished: a Certificate, a coalesced flight, or padding to a block size.
        let third = rest.next();
        for (i, length) in [(1, second), (2, third)] {
            if let Some(padding) = length.and_then(|length| sizes.finished_padding(length)) {
                flight.certificate = ClientCertificate::Sent;
                flight.finished = Some(begin + i);
                flight.padding = Some(padding);
                return flight;
            }
        }
        flight.certificate = ClientCertificate::Unclear;
        flight.finished = Some(begin);
        flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AES_128_GCM_SHA256: CipherSuite = CipherSuite(0x1301);
    const AES_256_GCM_SHA384: CipherSuite = CipherSuite(0x1302);
    const AES_128_CCM_8_SHA256: CipherSuite = CipherSuite(0x1305);

    fn read(lengths: &[u16], suite: CipherSuite, early_data: bool) -> ClientFlight {
        ClientFlight::read(lengths.iter().copied(), Sizes::of(suite), early_data)
    }

    #[test]
    fn sizes_follow_from_the_suite() {
        let gcm = Sizes::of(AES_128_GCM_SHA256);
        assert_eq!((gcm.alert, gcm.finished, gcm.empty_certificate, gcm.end_of_early_data), (19, 53, 25, 21));
        assert_eq!(Sizes::of(AES_256_GCM_SHA384).finished, 69);
        let ccm8 = Sizes::of(AES_128_CCM_8_SHA256);
        assert_eq!((ccm8.alert, ccm8.finished, ccm8.empty_certificate), (11, 45, 17));
    }

    #[test]
    fn a_finished_comes_first_where_no_certificate_was_asked_for() {
        let flight = read(&[53, 90], AES_128_GCM_SHA256, false);
        assert_eq!((flight.finished, flight.padding, flight.alert), (Some(0), Some(0), None));
        let padded = read(&[85, 35], AES_256_GCM_SHA384, false);
        assert_eq!((padded.finished, padded.padding), (Some(0), Some(16)));
    }

    #[test]
    fn a_record_too_short_for_a_finished_is_an_alert() {
        assert_eq!(read(&[19], AES_128_GCM_SHA256, false).alert, Some(0));
        assert_eq!(read(&[35], AES_256_GCM_SHA384, false).alert, Some(0));
        assert_eq!(read(&[11], AES_128_CCM_8_SHA256, false).alert, Some(0));
    }

    #[test]
    fn an_empty_certificate_is_followed_by_its_finished() {
        let flight = read(&[25, 69, 18], AES_256_GCM_SHA384, false);
        assert_eq!(flight.certificate, ClientCertificate::Empty);
        assert_eq!(flight.finished, Some(1));
        assert_eq!(read(&[25], AES_256_GCM_SHA384, false).alert, None);
    }

    #[test]
    fn an_empty_certificate_and_its_finished_may_share_a_record() {
        let flight = read(&[61, 35], AES_128_GCM_SHA256, false);
        assert_eq!((flight.certificate, flight.finished), (ClientCertificate::Empty, Some(0)));
        assert_eq!(read(&[77], AES_256_GCM_SHA384, false).certificate, ClientCertificate::Empty);
    }

    #[test]
    fn certificate_and_verify_stand_before_the_finished() {
        let flight = read(&[860, 281, 69], AES_256_GCM_SHA384, false);
        assert_eq!((flight.certificate, flight.finished), (ClientCertificate::Sent, Some(2)));
    }

    #[test]
    fn early_data_is_no_alert() {
        let accepted = read(&[22, 21, 53], AES_128_GCM_SHA256, true);
        assert_eq!((accepted.finished, accepted.alert), (Some(2), None));
        let refused = read(&[22, 53], AES_128_GCM_SHA256, true);
        assert_eq!((refused.finished, refused.alert), (Some(1), None));
        assert_eq!(read(&[22], AES_128_GCM_SHA256, true).alert, None);
    }
}
