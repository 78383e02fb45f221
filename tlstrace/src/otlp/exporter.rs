//! Makes requests of verdicts and metrics, in a thread of its own.

use std::borrow::Cow;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::aggregate::Aggregate;
use crate::engine::timestamp::Timestamp;
use crate::outlet::{Monitor, Outlet};
use crate::report::Export;
use crate::sink::{Observer, SINKS, Sink, Style};
use crate::verdict::Verdict;

use super::http::{self, Answer};
use super::{Endpoint, logs, metrics};

/// Bytes that may wait for the collector.
const CAPACITY: usize = 4 << 20;
/// Pauses before a request is made again (OTLP, *Retryable Response Codes*). After the last, its records are dropped.
const PAUSES: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];
/// Longest pause that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Sends to a collector.
pub struct Exporter {
    json: Box<dyn Sink>,
    out: Outlet,
    message: Vec<u8>,
    start: Timestamp,
}

impl Exporter {
    /// Begins to send. `prepare` runs in the thread that does, before anything else; `start` is when counting begins.
    pub fn start(
        endpoint: &Endpoint,
        hostname: Option<&str>,
        start: Timestamp,
        prepare: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let client = Client { endpoint: endpoint.clone(), resource: resource(hostname), partial: Vec::new() };
        let out = Outlet::made_by(CAPACITY, || {
            prepare();
            client
        })?;
        let kind = SINKS.iter().find(|kind| kind.name == "json").ok_or(io::ErrorKind::Unsupported)?;
        let json = (kind.open)(Style::default());
        Ok(Self { json, out, message: Vec::new(), start })
    }

    fn send(&mut self) -> io::Result<()> {
        self.out.write_all(&self.message)?;
        self.out.flush()
    }
}

impl Export for Exporter {
    fn publish(&mut self, verdict: &Verdict, observer: &Observer) -> io::Result<()> {
        self.message.clear();
        self.json.emit(verdict, observer, &mut self.message)?;
        self.send()
    }

    fn aggregate(&mut self, aggregate: &Aggregate, observer: &Observer) -> io::Result<()> {
        self.message.clear();
        self.json.aggregate(aggregate, observer, &mut self.message)?;
        self.send()
    }

    fn measure(&mut self, open_metrics: &str, now: Timestamp) -> io::Result<()> {
        self.message.clear();
        let since = self.start.as_nanos();
        let message = json!({ "metrics": open_metrics, "since": since, "now": now.as_nanos() });
        serde_json::to_writer(&mut self.message, &message)?;
        self.message.push(b'\n');
        self.send()
    }

    fn monitor(&self) -> Monitor {
        self.out.monitor()
    }
}

/// Who sends.
fn resource(hostname: Option<&str>) -> Value {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let mut attributes =
        vec![attribute("service.name", "tlstrace"), attribute("service.version", env!("CARGO_PKG_VERSION"))];
    attributes.extend(hostname.map(|hostname| attribute("host.name", hostname)));
    json!({ "attributes": attributes })
}

/// What of it.
pub(super) fn scope() -> Value {
    json!({ "name": "tlstrace", "version": env!("CARGO_PKG_VERSION") })
}

/// Makes requests of lines. One that fails for good is an error, so that its lines count as lost.
struct Client {
    endpoint: Endpoint,
    resource: Value,
    /// The beginning of a line.
    partial: Vec<u8>,
}

impl Client {
    fn send(&self, lines: &[u8]) -> io::Result<()> {
        let mut records = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let Ok(message) = serde_json::from_slice::<Message<'_>>(line) else { continue };
            match message {
                Message::Metrics { metrics, since, now } => {
                    let request = metrics::request(&metrics, since, now, &self.resource);
                    self.post("/v1/metrics", &request)?;
                }
                Message::Line(line) => records.extend(logs::record(&line)),
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        self.post("/v1/logs", &logs::request(&records, &self.resource))
    }

    /// Makes a request until it is taken, or refused for good.
    fn post(&self, path: &str, request: &Value) -> io::Result<()> {
        let body = serde_json::to_vec(request)?;
        let mut pauses = PAUSES.into_iter();
        loop {
            let (obstacle, asked_for) = match http::post(&self.endpoint, path, &body) {
                Ok(Answer { status: 200..300, .. }) => return Ok(()),
                Ok(Answer { status, retry_after }) => {
                    let obstacle = format!("{}{path} answered {status}", self.endpoint);
                    // Those that OTLP says to retry.
                    if !matches!(status, 429 | 502..=504) {
                        return Err(io::Error::other(obstacle));
                    }
                    (obstacle, retry_after)
                }
                Err(error) => (format!("{}{path}: {error}", self.endpoint), None),
            };
            let Some(pause) = pauses.next() else { return Err(io::Error::other(obstacle)) };
            log::info!("{obstacle}");
            thread::sleep(asked_for.unwrap_or(pause).min(LONGEST_PAUSE));
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            self.partial.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        let mut lines = std::mem::take(&mut self.partial);
        lines.extend_from_slice(bytes.get(..=end).unwrap_or(bytes));
        self.send(&lines)?;
        Ok(end + 1)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line on its way to the thread that sends.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message<'a> {
    /// Text of OpenMetrics, and when counting began and was looked at, in nanoseconds since 1970.
    Metrics { metrics: Cow<'a, str>, since: u64, now: u64 },
    /// A verdict, or what stands for many.
    Line(Value),
}
