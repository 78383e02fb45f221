//! One connection: send what is to be sent, read until the answer is known.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::handshake::Handshakes;
use crate::capture::clock::Clock;
use crate::cli::probe::Probe;
use crate::engine::timestamp::Timestamp;
use crate::probe::answer::{AnswerReader, Unreachable};
use crate::probe::hello::Hello;
use crate::probe::plan::{Attempt, Outcome};
use crate::probe::{Answer, Refusal};

/// `user_canceled` (RFC 8446 §6.1), then `close_notify`: an end in good order, so that logs call it what it is.
const GOODBYE: &[u8] = &[21, 3, 1, 0, 2, 1, 90, 21, 3, 1, 0, 2, 1, 0];

/// Makes connections.
pub(super) struct Connector {
    timeout: Duration,
    clock: Clock,
    handshakes: Handshakes,
}

impl Connector {
    pub(super) fn new(settings: &Probe) -> anyhow::Result<Self> {
        let handshakes = Handshakes::new(settings.ca_file.as_deref()).context("cannot prepare handshakes")?;
        Ok(Self { timeout: settings.timeout, clock: Clock::start(), handshakes })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes one connection to `address`.
    pub(super) async fn attempt(&mut self, attempt: &Attempt, address: SocketAddr) -> Outcome {
        let mut stream = match timeout(self.timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return unreachable(&error),
            Err(_) => return unreachable(&io::ErrorKind::TimedOut.into()),
        };
        let begin = self.clock.now();
        let deadline = deadline(self.timeout);
        let answer = match attempt {
            Attempt::Hello(hello) => self.hello(&mut stream, hello, address, deadline).await,
            Attempt::Handshake { server_name, alpn, proxy } => {
                let header = match (proxy, stream.local_addr()) {
                    (Some(version), Ok(from)) => version.header(from, address),
                    _ => Vec::new(),
                };
                let name = server_name.as_deref();
                self.handshakes.shake(&mut stream, name, alpn, &header, address, deadline, begin).await
            }
        };
        Outcome { answer, after: self.clock.now().since(begin) }
    }

    async fn hello(
        &self,
        stream: &mut TcpStream,
        hello: &Hello,
        address: SocketAddr,
        deadline: Instant,
    ) -> Answer {
        let from = stream.local_addr().unwrap_or(address);
        let bytes = hello.encode(&self.handshakes.random(), from, address);
        // Where this fails the server has hung up, and may have said why before.
        let _ = stream.write_all(&bytes).await;
        let mut reader = AnswerReader::default();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let end = match read(stream, &mut buffer, deadline).await {
                Ok(bytes) => match reader.feed(bytes) {
                    None => continue,
                    Some(answer) => {
                        let _ = stream.write_all(GOODBYE).await;
                        return answer;
                    }
                },
                Err(end) => end,
            };
            return reader.end(end);
        }
    }
}

/// What comes next, or how the connection ended.
pub(super) async fn read<'a>(
    stream: &mut TcpStream,
    buffer: &'a mut [u8],
    deadline: Instant,
) -> Result<&'a [u8], Refusal> {
    match timeout_at(deadline, stream.read(buffer)).await {
        Ok(Ok(0)) => Err(Refusal::Closed),
        Ok(Ok(len)) => Ok(buffer.get(..len).unwrap_or_default()),
        Ok(Err(_)) => Err(Refusal::Reset),
        Err(_) => Err(Refusal::Silent),
    }
}

pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout
}

fn unreachable(error: &io::Error) -> Outcome {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => Unreachable::Refused,
        io::ErrorKind::TimedOut => Unreachable::TimedOut,
        _ => Unreachable::Other(error.to_string()),
    };
    Outcome { answer: Err(Refusal::Unreachable(why)), after: Duration::ZERO }
}
