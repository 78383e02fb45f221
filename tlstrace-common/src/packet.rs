//! The whole walk: from a packet's first byte to its TCP payload.

use crate::link::{self, Link, Start};
use crate::load::Load;
use crate::net::{self, Address, Datagram};
use crate::skip::Skip;
use crate::tcp::{self, Tcp};

/// A TCP segment, as its headers describe it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPacket {
    pub source: Address,
    pub destination: Address,
    /// IPv4 TTL or IPv6 hop limit.
    pub hop_limit: u8,
    /// IPv4 identification, 0 for IPv6.
    pub ip_id: u16,
    /// VLAN identifier of the outermost tag in band, 0 if there is none.
    pub vlan: u16,
    pub tcp: Tcp,
}

/// Steps over all headers of a packet, or says why there is no TCP segment in it.
#[inline(always)]
pub fn walk(load: &impl Load, start: Start) -> Result<TcpPacket, Skip> {
    let link = link::walk(load, start)?;
    let datagram = net::walk(load, &link)?;
    let tcp = tcp::walk(load, &datagram)?;
    Ok(TcpPacket::new(&link, &datagram, tcp))
}

impl TcpPacket {
    #[inline(always)]
    pub const fn new(link: &Link, datagram: &Datagram, tcp: Tcp) -> Self {
        Self {
            source: datagram.source,
            destination: datagram.destination,
            hop_limit: datagram.hop_limit,
            ip_id: datagram.ip_id,
            vlan: link.vlan,
            tcp,
        }
    }
}
