//! The HTTP server of `--metrics`: `GET` and `HEAD` of three paths, one request a connection (RFC 9112).
//!
//! It shares its thread with the capture, so a request is bounded in size and time, and so are connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};

use super::{Format, Metrics};

/// Most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// Most bytes of a request line and its header fields.
const MAX_HEAD: usize = 8 << 10;
/// For everything, from a connection's first byte to its last.
const DEADLINE: Duration = Duration::from_secs(5);
/// A loop that has not been heard of for so long is not alive.
const SILENCE: Duration = Duration::from_secs(10);

/// What is exported, and whether the program is up to it.
#[derive(Debug, Default)]
pub struct Exporter {
    pub metrics: Metrics,
    heartbeat: Mutex<Option<Instant>>,
}

/// A port that nobody answers yet.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Exporter {
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, heartbeat: Mutex::default() }
    }

    /// The loop is alive, and something is attached or not.
    pub fn beat(&self, is_attached: bool) {
        let now = is_attached.then(Instant::now);
        *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether the last beat was a good one, and lately.
    pub fn is_ready(&self) -> bool {
        let heartbeat = *self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner);
        heartbeat.is_some_and(|last| last.elapsed() < SILENCE)
    }

    fn answer(&self, head: &[u8]) -> Vec<u8> {
        match Request::parse(head) {
            Ok(request) => {
                let (status, kind, body) = self.page(&request);
                response(status, kind, &body, request.is_head)
            }
            Err(status) => response(status, TEXT, &format!("{status}\n"), false),
        }
    }

    fn page(&self, request: &Request<'_>) -> (&'static str, &'static str, String) {
        match request.path {
            "/metrics" => (OK, request.format.content_type(), self.metrics.render(request.format)),
            "/healthz" => (OK, TEXT, "ok\n".to_owned()),
            "/readyz" if self.is_ready() => (OK, TEXT, "ready\n".to_owned()),
            "/readyz" => ("503 Service Unavailable", TEXT, "no interface is watched\n".to_owned()),
            _ => ("404 Not Found", TEXT, "here are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }
}

impl Endpoint {
    /// Listens, in the network namespace that the thread is in.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// With the port that the kernel chose, if it was to choose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests for as long as it is polled; needs a tokio runtime around it.
    pub async fn serve(self, exporter: Arc<Exporter>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let exporter = Arc::clone(&exporter);
                    tokio::spawn(async move {
                        let _slot = slot;
                        if let Ok(Err(error)) = time::timeout(DEADLINE, exchange(stream, &exporter)).await {
                            log::debug!("a request for metrics failed: {error}");
                        }
                    });
                }
                Err(error) => {
                    // Such as too many open files, which takes a while to pass.
                    log::debug!("cannot accept a request for metrics: {error}");
                    time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn exchange(mut stream: TcpStream, exporter: &Exporter) -> io::Result<()> {
    let mut head = Vec::new();
    let answer = loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break exporter.answer(head.get(..end).unwrap_or_default());
        }
        if head.len() >= MAX_HEAD {
            break response("431 Request Header Fields Too Large", TEXT, "too large\n", false);
        }
        let room = MAX_HEAD - head.len();
        if (&mut stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await?;
    // To close with bytes unread would be a reset, and might cost the peer the answer (RFC 9112 §9.6).
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

const OK: &str = "200 OK";
const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Request<'a> {
    is_head: bool,
    path: &'a str,
    format: Format,
}

impl<'a> Request<'a> {
    /// Reads a request line and header fields; the error is a status.
    fn parse(head: &'a [u8]) -> Result<Self, &'static str> {
        let bad = "400 Bad Request";
        let mut lines = str::from_utf8(head).map_err(|_| bad)?.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad);
        };
        if !version.starts_with("HTTP/1.") {
            return Err("505 HTTP Version Not Supported");
        }
        let is_head = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err("405 Method Not Allowed"),
        };
        // What is sent to a proxy must be understood too (RFC 9112 §3.2.2).
        let target = match target.strip_prefix("http://") {
            Some(absolute) => absolute.find('/').and_then(|at| absolute.get(at..)).unwrap_or("/"),
            None => target,
        };
        let path = target.split('?').next().unwrap_or_default();
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let is_open = fields.any(|(name, value)| {
            name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
        });
        Ok(Self { is_head, path, format: if is_open { Format::OpenMetrics } else { Format::Prometheus } })
    }
}

fn response(status: &str, kind: &str, body: &str, is_head: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = body.len();
    let body = if is_head { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, TcpStream};
    use std::thread;

    use super::*;

    /// What comes back for `request` over a real connection.
    fn ask(exporter: Exporter, request: &str) -> String {
        ask_at(Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap(), exporter, request)
    }

    fn ask_at(endpoint: Endpoint, exporter: Exporter, request: &str) -> String {
        let mut stream = TcpStream::connect(endpoint.address()).unwrap();
        let request = request.to_owned();
        let peer = thread::spawn(move || {
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serving = tokio::spawn(endpoint.serve(Arc::new(exporter)));
            let answer = tokio::task::spawn_blocking(|| peer.join().unwrap()).await.unwrap();
            serving.abort();
            answer
        })
    }

    fn status(request: &str) -> String {
        ask(Exporter::default(), request).lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_scrape_gets_the_format_that_it_understands_and_its_length() {
        let older = ask(Exporter::default(), "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        let (head, body) = older.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("tlstrace_build_info{"), "{body}");
        let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let open =
            ask(Exporter::default(), &format!("GET /metrics?x HTTP/1.1\r\nHost: a\r\n{accept}\r\n\r\n"));
        assert!(
            open.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"),
            "{open}"
        );
    }

    #[test]
    fn ready_is_who_watches_something_and_lives() {
        let readyz = "GET /readyz HTTP/1.0\r\n\r\n";
        assert!(status(readyz).contains(" 503 "));
        let exporter = Exporter::default();
        exporter.beat(true);
        assert!(ask(exporter, readyz).contains(" 200 "));
        let exporter = Exporter::default();
        exporter.beat(true);
        exporter.beat(false);
        assert!(ask(exporter, readyz).contains(" 503 "));
    }

    #[test]
    fn a_loop_that_is_not_heard_of_is_not_ready() {
        let exporter = Exporter::default();
        *exporter.heartbeat.lock().unwrap() = Instant::now().checked_sub(SILENCE);
        assert!(!exporter.is_ready());
    }

    #[test]
    fn what_is_asked_wrongly_is_told_so() {
        for (request, code) in [
            ("GET /healthz HTTP/1.1\r\n\r\n", "200"),
            ("GET http://node:9464/healthz HTTP/1.1\r\n\r\n", "200"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
            ("GET /metrics\r\n\r\n", "400"),
            ("GET  /metrics HTTP/1.1\r\n\r\n", "400"),
            ("GET /metrics HTTP/2.0\r\n\r\n", "505"),
        ] {
            assert!(status(request).starts_with(&format!("HTTP/1.1 {code} ")), "{request}");
        }
        assert_eq!(Request::parse(b"GET /\xff HTTP/1.1"), Err("400 Bad Request"));
        let head = ask(Exporter::default(), "HEAD /healthz HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn a_head_without_end_is_not_read_to_its_end() {
        let request = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n", "a".repeat(2 * MAX_HEAD));
        assert!(status(&request).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn who_says_nothing_keeps_others_from_asking_for_no_longer_than_the_deadline() {
        let endpoint = Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let idle = (0..MAX_CONNECTIONS).map(|_| TcpStream::connect(endpoint.address()).unwrap());
        let mut idle: Vec<_> = idle.collect();
        assert!(ask_at(endpoint, Exporter::default(), "GET /healthz HTTP/1.1\r\n\r\n").contains(" 200 "));
        assert_eq!(idle[0].read(&mut [0]).unwrap(), 0, "hung up on");
    }
}
