//! Frames and TLS records for tests, byte by byte.

/// A TCP segment in a frame, to be changed field by field.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// (EtherType of the tag, identifier), outermost first.
    pub(crate) vlans: Vec<(u16, u16)>,
    pub(crate) network: Network,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) tcp_options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Instead of the true one: IPv4 total length, or IPv6 payload length.
    pub(crate) ip_len: Option<u16>,
    /// Instead of the true one, in words.
    pub(crate) data_offset: Option<u8>,
    /// Bytes of padding behind the datagram.
    pub(crate) padding: usize,
    pub(crate) has_ethernet: bool,
}

/// The network header.
#[derive(Clone, Debug)]
pub(crate) enum Network {
    V4 {
        source: [u8; 4],
        destination: [u8; 4],
        options: Vec<u8>,
        fragment: u16,
        protocol: u8,
    },
    /// Extension headers: (their number, their bytes behind "next header").
    V6 {
        source: [u8; 16],
        destination: [u8; 16],
        extensions: Vec<(u8, Vec<u8>)>,
        protocol: u8,
    },
}

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;

impl Network {
    pub(crate) fn v4() -> Self {
        Self::v4_from(10, 1, [10, 0, 0, 2])
    }

    /// From the host of this number, of 24 bits, in an IPv4 network of 8 bits.
    pub(crate) fn v4_from(network: u8, number: u32, destination: [u8; 4]) -> Self {
        let [_, a, b, c] = number.to_be_bytes();
        Self::V4 {
            source: [network, a, b, c],
            destination,
            options: Vec::new(),
            fragment: 0x4000,
            protocol: TCP,
        }
    }

    pub(crate) fn v6() -> Self {
        let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        Self::V6 { source: address(1), destination: address(2), extensions: Vec::new(), protocol: TCP }
    }

    fn swapped(&self) -> Self {
        let mut swapped = self.clone();
        match &mut swapped {
            Self::V4 { source, destination, .. } => std::mem::swap(source, destination),
            Self::V6 { source, destination, .. } => std::mem::swap(source, destination),
        }
        swapped
    }

    fn ether_type(&self) -> u16 {
        match self {
            Self::V4 { .. } => 0x0800,
            Self::V6 { .. } => 0x86dd,
        }
    }

    fn bytes(&self, transport_len: usize, stated_len: Option<u16>) -> Vec<u8> {
        let short = |len: usize| u16::try_from(len).unwrap();
        match self {
            Self::V4 { source, destination, options, fragment, protocol } => {
                let header_len = 20 + options.len();
                let total = stated_len.unwrap_or_else(|| short(header_len + transport_len));
                let mut bytes = vec![0x40 | u8::try_from(header_len / 4).unwrap(), 0];
                bytes.extend(total.to_be_bytes());
                bytes.extend([0x12, 0x34]);
                bytes.extend(fragment.to_be_bytes());
                bytes.extend([64, *protocol, 0, 0]);
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend(options);
                bytes
            }
            Self::V6 { source, destination, extensions, protocol } => {
                let extensions_len: usize = extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
                let payload = stated_len.unwrap_or_else(|| short(extensions_len + transport_len));
                let next = |index: usize| extensions.get(index).map_or(*protocol, |(number, _)| *number);
                let mut bytes = vec![0x60, 0, 0, 0];
                bytes.extend(payload.to_be_bytes());
                bytes.extend([next(0), 64]);
                bytes.extend(source);
                bytes.extend(destination);
                for (index, (_, rest)) in extensions.iter().enumerate() {
                    bytes.push(next(index + 1));
                    bytes.extend(rest);
                }
                bytes
            }
        }
    }
}

impl Frame {
    /// A segment of the client without payload and without flags.
    pub(crate) fn new(network: Network) -> Self {
        Self {
            vlans: Vec::new(),
            network,
            source_port: 40_000,
            destination_port: 443,
            sequence: 0,
            acknowledgement: 0,
            flags: 0,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            ip_len: None,
            data_offset: None,
            padding: 0,
            has_ethernet: true,
        }
    }

    /// The same frame in the other direction.
    pub(crate) fn swapped(&self) -> Self {
        Self {
            network: self.network.swapped(),
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self.clone()
        }
    }

    /// Length of everything in front of the payload.
    pub(crate) fn header_len(&self) -> usize {
        self.bytes().len() - self.payload.len() - self.padding
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let data_offset =
            self.data_offset.unwrap_or_else(|| u8::try_from(5 + self.tcp_options.len() / 4).unwrap());
        let mut transport = Vec::new();
        transport.extend(self.source_port.to_be_bytes());
        transport.extend(self.destination_port.to_be_bytes());
        transport.extend(self.sequence.to_be_bytes());
        transport.extend(self.acknowledgement.to_be_bytes());
        transport.extend([data_offset << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        transport.extend(&self.tcp_options);
        transport.extend(&self.payload);

        let mut bytes = Vec::new();
        if self.has_ethernet {
            bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            for (ether_type, identifier) in &self.vlans {
                bytes.extend(ether_type.to_be_bytes());
                bytes.extend(identifier.to_be_bytes());
            }
            bytes.extend(self.network.ether_type().to_be_bytes());
        }
        bytes.extend(self.network.bytes(transport.len(), self.ip_len));
        bytes.extend(transport);
        bytes.extend(vec![0; self.padding]);
        bytes
    }
}

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// A TLS record.
pub(crate) fn record(content_type: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![content_type, 3, 3];
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A handshake message with a body of `len` bytes that all differ from their neighbours.
pub(crate) fn message(message_type: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![message_type];
    bytes.extend(&u32::try_from(len).unwrap().to_be_bytes()[1..]);
    bytes.extend((0..len).map(|index| u8::try_from(index % 251).unwrap()));
    bytes
}

/// A record with a ClientHello of `len` bytes.
pub(crate) fn client_hello(len: usize) -> Vec<u8> {
    record(HANDSHAKE, &message(1, len))
}

/// A record with a ServerHello of `len` bytes.
pub(crate) fn server_hello(len: usize) -> Vec<u8> {
    record(HANDSHAKE, &message(2, len))
}
