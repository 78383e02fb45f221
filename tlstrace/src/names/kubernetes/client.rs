//! Reading from a cluster's API: HTTP/2 over TLS, with a service account's token or what a kubeconfig file has.
//!
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/>

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Ping, PingPong, RecvStream};
use http::{Request, StatusCode, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_rustls::TlsConnector;

use super::kubeconfig::Kubeconfig;
use crate::capture::clock::Clock;
use crate::engine::timestamp::Timestamp;

/// Where a pod finds what its service account may show.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest answer, and longest line of a watch. An object of the API has at most 1.5 MiB.
const MAX_LENGTH: usize = 32 << 20;
/// How long a connection takes at most, and an answer to a question.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the API is, and who asks.
#[derive(Clone, Debug)]
pub struct Cluster {
    host: String,
    port: u16,
    /// What stands before every path.
    prefix: String,
    /// The name on the API's certificate, if it is not the host's.
    server_name: Option<String>,
    credentials: Credentials,
    /// The node that this is.
    pub node: String,
}

/// Where the credentials are. They are read anew for every connection: tokens expire.
#[derive(Clone, Debug)]
enum Credentials {
    /// A directory with `token` and `ca.crt`.
    Directory(PathBuf),
    /// A kubeconfig file, and what it held first: it may be another user's, whose files a thread without rights cannot
    /// read.
    File(PathBuf, Shown),
}

/// What was read.
#[derive(Clone)]
struct Shown {
    /// PEM.
    authorities: Vec<u8>,
    token: Option<String>,
    /// Certificates and their key, both PEM.
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Cluster {
    /// The one of a kubeconfig file; or else as a pod of the cluster finds it, if this is one, with the credentials of a
    /// directory: `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT`. The node is `NODE_NAME` or has the host's name.
    pub fn find(credentials: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let hostname = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let Some(node) = variable("NODE_NAME").or_else(hostname) else { return Ok(None) };
        let credentials = credentials.unwrap_or_else(|| SERVICE_ACCOUNT.into());
        if credentials.is_file() {
            return Self::of_kubeconfig(credentials, node.trim()).map(Some);
        }
        let host = variable("KUBERNETES_SERVICE_HOST");
        let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
        let place = host.zip(port).filter(|_| credentials.join("token").exists());
        Ok(place.map(|(host, port)| Self::new(&host, port, credentials, node.trim())))
    }

    /// One whose API is at this address, asked with the `token` and the `ca.crt` of a directory.
    pub fn new(host: &str, port: u16, directory: PathBuf, node: &str) -> Self {
        let credentials = Credentials::Directory(directory);
        let (host, prefix, node) = (host.to_owned(), String::new(), node.to_owned());
        Self { host, port, prefix, server_name: None, credentials, node }
    }

    /// That of the current context of a kubeconfig file.
    pub fn of_kubeconfig(file: PathBuf, node: &str) -> anyhow::Result<Self> {
        let Kubeconfig { host, port, prefix, server_name, authorities, token, client } =
            Kubeconfig::read(&file)?;
        let credentials = Credentials::File(file, Shown { authorities, token, client });
        let node = node.to_owned();
        Ok(Self { host, port, prefix, server_name, credentials, node })
    }

    /// Where it is.
    pub fn address(&self) -> String {
        let Self { host, port, prefix, .. } = self;
        if host.contains(':') {
            format!("https://[{host}]:{port}{prefix}")
        } else {
            format!("https://{host}:{port}{prefix}")
        }
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        time::timeout(PATIENCE, self.try_connect()).await.context("no connection in time")?
    }

    async fn try_connect(&self) -> anyhow::Result<Connection> {
        let shown = self.credentials.read()?;
        let stream = TcpStream::connect((&*self.host, self.port)).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.server_name.as_ref().unwrap_or(&self.host).clone())?;
        let tls = TlsConnector::from(Arc::new(shown.tls()?)).connect(name, stream).await?;
        let (requests, mut connection) =
            h2::client::Builder::new().initial_window_size(1 << 20).handshake(tls).await?;
        let clock = Clock::start();
        let alive = Arc::new(AtomicU64::new(clock.now().as_nanos()));
        let pings = connection.ping_pong().ok_or_else(|| anyhow!("a connection has pings"))?;
        let heartbeat = beat(pings, clock, Arc::clone(&alive));
        let task = tokio::spawn(async {
            tokio::select! {
                ended = connection => log::debug!("connection to the cluster's API: {ended:?}"),
                () = heartbeat => log::debug!("the cluster's API is silent"),
            }
        });
        let authorization = shown.token.map(|token| format!("Bearer {}", token.trim()));
        Ok(Connection { requests, address: self.address(), authorization, task, alive })
    }
}

impl Credentials {
    fn read(&self) -> anyhow::Result<Shown> {
        Ok(match self {
            Self::Directory(directory) => Shown {
                authorities: fs::read(directory.join("ca.crt")).context("cannot read ca.crt")?,
                token: Some(fs::read_to_string(directory.join("token")).context("cannot read the token")?),
                client: None,
            },
            Self::File(file, first) => match Kubeconfig::read(file) {
                Ok(Kubeconfig { authorities, token, client, .. }) => Shown { authorities, token, client },
                Err(error) => {
                    log::debug!("{error:#}");
                    first.clone()
                }
            },
        })
    }
}

impl fmt::Debug for Shown {
    /// Not what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl Shown {
    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authorities) {
            roots.add(certificate.context("the authority's certificate")?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots);
        let mut config = match &self.client {
            Some((certificates, key)) => {
                let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).context("the client's key")?;
                config.with_client_auth_cert(certificates.context("the client's certificate")?, key)?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// A connection to the API. It ends with this, and if it is silent.
pub(super) struct Connection {
    requests: SendRequest<Bytes>,
    address: String,
    authorization: Option<String>,
    task: JoinHandle<()>,
    alive: Arc<AtomicU64>,
}

impl Connection {
    /// When it was last known to be alive.
    pub(super) fn alive(&self) -> Timestamp {
        Timestamp::from_nanos(self.alive.load(Ordering::Relaxed))
    }

    /// The body of what is at a path.
    pub(super) async fn get(&self, path: &str) -> Result<Body, GetError> {
        let answer = async {
            let mut request = Request::get(format!("{}{path}", self.address));
            if let Some(authorization) = &self.authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let request = request
                .header(header::ACCEPT, "application/json")
                .header(header::USER_AGENT, concat!("tlstrace/", env!("CARGO_PKG_VERSION")))
                .body(())?;
            let (answer, _) = self.requests.clone().ready().await?.send_request(request, true)?;
            anyhow::Ok(answer.await?)
        };
        let answer = time::timeout(PATIENCE, answer).await.context("no answer in time")??;
        match answer.status() {
            StatusCode::OK => Ok(Body { stream: answer.into_body(), buffer: BytesMut::new(), searched: 0 }),
            StatusCode::GONE => Err(GetError::Expired),
            StatusCode::NOT_FOUND => Err(GetError::Missing),
            StatusCode::FORBIDDEN => Err(anyhow!("{path}: not allowed to list and watch (RBAC)").into()),
            status => Err(anyhow!("{path}: HTTP status {status}").into()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    /// What was asked for is older than what the API remembers: everything is to be listed again.
    #[error("the version has expired")]
    Expired,
    /// There is no such kind of object.
    #[error("the API has no such path")]
    Missing,
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// An answer that is still coming.
pub(super) struct Body {
    stream: RecvStream,
    buffer: BytesMut,
    /// So many bytes of the buffer hold no line feed.
    searched: usize,
}

impl Body {
    /// All of it.
    pub(super) async fn whole(mut self) -> anyhow::Result<BytesMut> {
        while time::timeout(PATIENCE, self.more()).await.context("no answer in time")?? {}
        Ok(self.buffer)
    }

    /// The next line; `None` at the end. Nothing is lost if this is not waited for.
    pub(super) async fn line(&mut self) -> anyhow::Result<Option<BytesMut>> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = unsearched.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self) -> anyhow::Result<bool> {
        let Some(data) = self.stream.data().await else { return Ok(false) };
        let data = data?;
        ensure!(self.buffer.len() + data.len() <= MAX_LENGTH, "more than {MAX_LENGTH} bytes in one piece");
        self.stream.flow_control().release_capacity(data.len())?;
        self.buffer.extend_from_slice(&data);
        Ok(true)
    }
}

/// Asks whether the other side is there, until it is not.
async fn beat(mut pings: PingPong, mut clock: Clock, alive: Arc<AtomicU64>) {
    loop {
        time::sleep(PATIENCE).await;
        clock.resynchronise();
        let asked = clock.now();
        let answer = time::timeout(PATIENCE, pings.ping(Ping::opaque())).await;
        if !matches!(answer, Ok(Ok(_))) {
            return;
        }
        alive.store(asked.as_nanos(), Ordering::Relaxed);
    }
}

/// The error that a watch reports as an object.
pub(super) fn reported(code: u16, message: &str) -> GetError {
    if code == StatusCode::GONE.as_u16() {
        return GetError::Expired;
    }
    GetError::Failed(anyhow!("the watch was ended: {code} {message}"))
}

/// Refuses to go on without a version.
pub(super) fn version(text: &str) -> anyhow::Result<String> {
    if text.is_empty() {
        bail!("an object without resourceVersion");
    }
    Ok(text.to_owned())
}
