//! Unary calls of gRPC over a Unix socket: as much of it as asking a container runtime takes.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Request, header};
use prost::Message;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// Longest answer that is taken. Runtimes limit themselves to 16 MiB.
const MAX_ANSWER: usize = 32 << 20;
/// Flag for compression, and length.
const PREFIX: usize = 5;

/// A connection to a server.
pub(super) struct Channel {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Channel {
    /// Connects; needs a tokio runtime around it.
    pub(super) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let (requests, connection) =
            h2::client::Builder::new().initial_window_size(1 << 20).handshake(stream).await?;
        let connection = tokio::spawn(async {
            if let Err(error) = connection.await {
                log::debug!("connection to the container runtime: {error}");
            }
        });
        Ok(Self { requests, connection })
    }

    /// Calls `method` (`/package.Service/Method`) and waits for its answer.
    pub(super) async fn call<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> anyhow::Result<A> {
        self.try_call(method, request).await.with_context(|| format!("{method} failed"))
    }

    async fn try_call<A: Message + Default>(
        &mut self,
        method: &str,
        request: &impl Message,
    ) -> anyhow::Result<A> {
        let head = Request::post(format!("http://localhost{method}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        let mut body = BytesMut::with_capacity(PREFIX + request.encoded_len());
        body.put_u8(0);
        body.put_u32(u32::try_from(request.encoded_len())?);
        request.encode(&mut body)?;
        let (answer, mut sending) = self.requests.clone().ready().await?.send_request(head, false)?;
        sending.send_data(body.freeze(), true)?;
        let answer = answer.await?;
        ensure!(answer.status().is_success(), "HTTP status {}", answer.status());
        check_status(answer.headers())?;
        let mut incoming = answer.into_body();
        let mut body = BytesMut::new();
        while let Some(data) = incoming.data().await {
            let data = data?;
            ensure!(body.len() + data.len() <= MAX_ANSWER, "the answer is longer than {MAX_ANSWER} bytes");
            incoming.flow_control().release_capacity(data.len())?;
            body.extend_from_slice(&data);
        }
        if let Some(trailers) = incoming.trailers().await? {
            check_status(&trailers)?;
        }
        ensure!(body.len() >= PREFIX, "the answer is empty");
        ensure!(body.get_u8() == 0, "the answer is compressed");
        ensure!(usize::try_from(body.get_u32())? == body.len(), "the answer has another length than it says");
        Ok(A::decode(body)?)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// An error that the server reports, if these headers do.
fn check_status(headers: &HeaderMap) -> anyhow::Result<()> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match text("grpc-status") {
        Some(status) if status != "0" => {
            bail!("gRPC status {status}: {}", text("grpc-message").unwrap_or_default())
        }
        _ => Ok(()),
    }
}
