//! The PROXY protocol header that load balancers put in front of a connection
//! (<https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest version 1 line, CRLF included (§2.1).
pub(crate) const MAX_V1_LEN: usize = 107;
/// Signature of version 2 (§2.2).
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Command LOCAL (§2.2).
const V2_LOCAL: u8 = 0;
/// Signature, version and command, family, length.
const V2_HEADER_LEN: u16 = 16;

/// A PROXY header: whom a load balancer speaks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyHeader {
    /// 1 or 2.
    pub version: u8,
    /// Version 2's LOCAL command: the load balancer speaks for itself, as in a health check.
    pub local: bool,
    /// The original client, where the header says.
    pub source: Option<SocketAddr>,
    /// What the original client connected to.
    pub destination: Option<SocketAddr>,
}

impl ProxyHeader {
    /// Reads a whole header; `None` if it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(V2_SIGNATURE) { Self::decode_v2(bytes) } else { Self::decode_v1(bytes) }
    }

    fn decode_v1(bytes: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\r', '\n']);
        let mut words = line.split(' ');
        if words.next() != Some("PROXY") {
            return None;
        }
        let mut header = Self { version: 1, local: false, source: None, destination: None };
        if words.next()? == "UNKNOWN" {
            return Some(header);
        }
        let source: IpAddr = words.next()?.parse().ok()?;
        let destination: IpAddr = words.next()?.parse().ok()?;
        header.source = Some((source, words.next()?.parse().ok()?).into());
        header.destination = Some((destination, words.next()?.parse().ok()?).into());
        Some(header)
    }

    fn decode_v2(bytes: &[u8]) -> Option<Self> {
        let (_, rest) = bytes.split_first_chunk::<12>()?;
        let (&[command, family, ..], addresses) = rest.split_first_chunk::<4>()?;
        let mut header =
            Self { version: 2, local: matches!(command & 0x0f, V2_LOCAL), source: None, destination: None };
        match family >> 4 {
            1 => {
                let (source, rest) = addresses.split_first_chunk::<4>()?;
                let (destination, rest) = rest.split_first_chunk::<4>()?;
                let (ports, _) = rest.split_first_chunk::<4>()?;
                header.set(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), *ports);
            }
            2 => {
                let (source, rest) = addresses.split_first_chunk::<16>()?;
                let (destination, rest) = rest.split_first_chunk::<16>()?;
                let (ports, _) = rest.split_first_chunk::<4>()?;
                header.set(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), *ports);
            }
            _ => {}
        }
        Some(header)
    }

    fn set(&mut self, source: IpAddr, destination: IpAddr, [a, b, c, d]: [u8; 4]) {
        self.source = Some((source, u16::from_be_bytes([a, b])).into());
        self.destination = Some((destination, u16::from_be_bytes([c, d])).into());
    }
}

/// Length of a version 2 header, from its first 16 bytes.
pub(crate) fn v2_len(head: &[u8]) -> Option<u16> {
    let len = head.get(14..16)?.first_chunk::<2>()?;
    u16::from_be_bytes(*len).checked_add(V2_HEADER_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_1_line_names_both_ends() {
        let header = ProxyHeader::decode(b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n").unwrap();
        assert_eq!(header.source, Some(([192, 0, 2, 7], 5000).into()));
        assert_eq!(header.destination, Some(([198, 51, 100, 1], 443).into()));
        assert_eq!(ProxyHeader::decode(b"PROXY UNKNOWN\r\n").unwrap().source, None);
        assert_eq!(ProxyHeader::decode(b"PROXY TCP4 nonsense\r\n"), None);
    }

    #[test]
    fn a_version_2_header_names_both_ends_or_says_local() {
        let mut bytes = V2_SIGNATURE.to_vec();
        bytes.extend([0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0x13, 0x88, 1, 0xbb]);
        assert_eq!(v2_len(&bytes), Some(28));
        let header = ProxyHeader::decode(&bytes).unwrap();
        assert_eq!((header.local, header.source), (false, Some(([192, 0, 2, 7], 5000).into())));
        let mut local = V2_SIGNATURE.to_vec();
        local.extend([0x20, 0x00, 0, 0]);
        assert!(ProxyHeader::decode(&local).unwrap().local);
        for cut in 0..bytes.len() {
            assert_eq!(ProxyHeader::decode(bytes.get(..cut).unwrap()), None);
        }
    }
}
