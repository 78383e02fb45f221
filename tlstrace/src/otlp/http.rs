//! As much of HTTP/1.1 (RFC 9112) as a collector takes: one `POST` a connection, of which the status and one field of the
//! answer matter.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::Endpoint;

/// For a connection, and for each time that the collector is to take or to say something.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are waited for, and most header fields.
const MAX_ANSWER: usize = 16 << 10;
const MAX_FIELDS: usize = 64;

/// What was answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long the server asks to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Sends a JSON document to a path below the endpoint's.
pub(super) fn post(endpoint: &Endpoint, path: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(endpoint.authority())?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = format!(
        "POST {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tlstrace/{}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        endpoint.path(),
        endpoint.authority(),
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut received = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part)?;
        received.extend_from_slice(part.get(..read).unwrap_or_default());
        if let Some(answer) = answer(&received)? {
            return Ok(answer);
        }
        if read == 0 || received.len() > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
    }
}

/// Reads a whole answer; `None` if it goes on. What stands in its body says no more than its status.
fn answer(mut received: &[u8]) -> io::Result<Option<Answer>> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let parsed =
            head.parse(received).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let body = received.get(length..).unwrap_or_default();
        let field = |name: &str| {
            let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            str::from_utf8(field.value).ok()?.trim().parse::<u64>().ok()
        };
        match head.code {
            // Interim answers come before the one that counts (RFC 9110 §15.2).
            Some(100..200) => received = body,
            // To close with bytes unread would be a reset.
            _ if field("content-length")
                .is_some_and(|length| (body.len() as u64) < length.min(MAX_ANSWER as u64)) =>
            {
                return Ok(None);
            }
            status => {
                let retry_after = field("retry-after").map(Duration::from_secs);
                return Ok(Some(Answer { status: status.unwrap_or_default(), retry_after }));
            }
        }
    }
}

fn connect(authority: &str) -> io::Result<TcpStream> {
    let has_port = authority.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok());
    let with_port =
        if has_port && !authority.ends_with(']') { authority.to_owned() } else { format!("{authority}:80") };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in with_port.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let whole =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..whole.len() {
            assert_eq!(answer(&whole.as_bytes()[..end]).unwrap(), None, "{end}");
        }
        let expected = Answer { status: 503, retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(answer(whole.as_bytes()).unwrap(), Some(expected));
        assert_eq!(answer(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap().status, 200);
        assert!(answer(b"SSH-2.0-OpenSSH\r\n").is_err());
    }
}
