//! Phrases that rules share: how long, how many, which alert.

use std::borrow::Cow;
use std::time::Duration;

use crate::engine::facts::{Ending, HandshakeFacts, How, Reset, Role};
use crate::engine::resets::{LocalReset, Process};
use crate::engine::timestamp::Civil;
use crate::tls::certificate::{Certificate, SubjectAltName};
use crate::tls::codepoints::AlertDescription;

/// A duration as people say it: `0.3 ms`, `12 ms`, `1.5 s`.
pub fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..10_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        10_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

/// `handshake_failure (40)`.
pub fn alert(description: AlertDescription) -> String {
    match description.name() {
        Some(name) => format!("{name} ({})", description.0),
        None => format!("alert {}", description.0),
    }
}

/// `The server sent a FIN`.
pub fn ending(ending: &Ending) -> Cow<'static, str> {
    let who = side(ending.role);
    match (ending.how, ending.role) {
        (How::Alert(sent), _) => format!("{who} sent the alert {}", alert(sent.description)).into(),
        (How::Reset(_), Role::Client) => "The client reset the connection".into(),
        (How::Reset(_), Role::Server) => "The server reset the connection".into(),
        (How::Close, Role::Client) => "The client closed the connection".into(),
        (How::Close, Role::Server) => "The server closed the connection".into(),
    }
}

/// What a side did, as a phrase after its name.
pub fn ending_of(ending: &Ending) -> String {
    match ending.how {
        How::Alert(sent) => format!("answered with the alert {}", alert(sent.description)),
        How::Reset(_) => "reset the connection".to_owned(),
        How::Close => "closed the connection".to_owned(),
    }
}

/// Bytes from the wire as text that does no harm: what is not printable ASCII becomes `\\xNN`.
pub fn printable(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The first bytes of a stream that is not TLS: enough to tell a protocol, too few for a password behind its first
/// command.
pub fn head(bytes: &[u8]) -> String {
    const SHOWN: usize = 8;
    printable(bytes.get(..SHOWN).unwrap_or(bytes))
}

/// Who issued a client's certificate. The name of an issuer that is the subject itself is personal.
pub fn client_issuer(certificate: &Certificate) -> &str {
    if certificate.self_issued { "its own subject" } else { &certificate.issuer }
}

/// What a RST looked like.
pub fn reset(reset: Reset) -> String {
    let shape = if reset.is_active_abort() {
        "RST,ACK with a window: the socket was closed with unread data"
    } else if reset.ack {
        "RST,ACK"
    } else {
        "bare RST"
    };
    if reset.hop_limit_differs {
        format!("{shape}; its TTL differs from the server's other packets")
    } else {
        shape.to_owned()
    }
}

/// A process, as its kernel calls it: `envoy (pid 4242)`.
pub fn process(process: &Process) -> String {
    format!("{} (pid {})", printable(process.command.as_bytes()), process.pid)
}

/// What this node's kernel says of a RST that it sent.
pub fn local_reset(report: &LocalReset, facts: &HandshakeFacts) -> String {
    let reason = report.reason.as_deref().unwrap_or("no reason given");
    let is_hello_unread = facts.client_hello.is_some() && facts.server().bytes == 0;
    let why = match (reason, &report.process) {
        ("TCP_ABORT_ON_CLOSE", Some(by)) if is_hello_unread => {
            format!("{} closed the socket before it had read the whole ClientHello", process(by))
        }
        ("TCP_ABORT_ON_CLOSE", Some(by)) => {
            format!("{} closed the socket with received data unread", process(by))
        }
        // Where `disconnect` is called on the way: `SO_LINGER` with a time of 0, connect(2) to `AF_UNSPEC`.
        ("TCP_ABORT_ON_LINGER" | "TCP_STATE", Some(by)) => {
            format!("{} aborted the connection (a linger time of zero does this)", process(by))
        }
        (_, Some(by)) => format!("{} aborted the connection", process(by)),
        ("NO_SOCKET", None) => "no socket belongs to this connection".to_owned(),
        (_, None) => "not at the wish of a process".to_owned(),
    };
    format!("this node's kernel sent the RST ({reason}): {why}")
}

/// A day, as dates of certificates are read: `2026-11-22`.
///
/// `seconds` are since 1970.
pub fn date(seconds: i64) -> String {
    let Civil { year, month, day, .. } = Civil::of(seconds);
    format!("{year:04}-{month:02}-{day:02}")
}

/// An alternative name as text; `None` for kinds without one.
pub fn alternative_name(name: &SubjectAltName) -> Option<Cow<'_, str>> {
    match name {
        SubjectAltName::Dns(name) | SubjectAltName::Uri(name) | SubjectAltName::Email(name) => {
            Some(Cow::Borrowed(name))
        }
        SubjectAltName::Ip(ip) => Some(ip.to_string().into()),
        SubjectAltName::Other => None,
    }
}

/// `The client`.
pub fn side(role: Role) -> &'static str {
    match role {
        Role::Client => "The client",
        Role::Server => "The server",
    }
}

/// The first few of a list, and how many more there are.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut items = items.into_iter();
    let shown: Vec<_> = items.by_ref().take(most).map(|item| item.to_string()).collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_digits_that_matter() {
        assert_eq!(duration(Duration::from_micros(312)), "0.3 ms");
        assert_eq!(duration(Duration::from_micros(12_345)), "12 ms");
        assert_eq!(duration(Duration::from_millis(15_020)), "15.0 s");
    }

    #[test]
    fn a_list_says_how_much_it_leaves_out() {
        assert_eq!(list([1, 2, 3], 3), "1, 2, 3");
        assert_eq!(list([1, 2, 3], 2), "1, 2 and 1 more");
    }
}
