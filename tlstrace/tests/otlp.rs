//! What a collector gets with `--otlp`, and what becomes of what it does not take. A real one is asked in
//! `tests/kernel/otlp.rs`.

#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tlstrace::aggregate::{Aggregate, Quantiles};
use tlstrace::capture::file::CaptureReader;
use tlstrace::command::replay::feed;
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::metrics::{Format, Metrics, Reading};
use tlstrace::otlp::Exporter;
use tlstrace::report::Export as _;
use tlstrace::sink::Observer;
use tlstrace::verdict::{Severity, Verdict};

const PATIENCE: Duration = Duration::from_secs(10);
const TAKEN: &str = "200 OK";
const START: Timestamp = Timestamp::from_nanos(1_795_341_600_000_000_000);

#[test]
fn a_verdict_is_a_log_record_with_the_fields_of_its_line() {
    let collector = Collector::start(&[TAKEN]);
    let verdict = verdict();
    let mut exporter = collector.exporter();
    exporter.publish(&verdict, &Observer::default()).unwrap();
    let (path, request) = collector.next();
    assert_eq!(path, "/prefix/v1/logs");
    insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
    assert_eq!(exporter.monitor().finish(PATIENCE).failed, 0);
}

#[test]
fn what_stands_for_many_verdicts_is_one_log_record_with_the_fields_of_its_line() {
    let collector = Collector::start(&[TAKEN]);
    let aggregate = Aggregate {
        start: START,
        end: START.after(Duration::from_secs(10)),
        verdict: "ok".to_owned(),
        severity: Severity::Info,
        server: Some(([192, 0, 2, 1], 8443).into()),
        server_name: Some("api.example.com".to_owned()),
        identity: None,
        count: 1234,
        handshake: Some([3, 4, 12].map(Duration::from_millis)).map(|[p50, p90, p99]| Quantiles {
            p50,
            p90,
            p99,
        }),
        is_suppressed: false,
    };
    let mut exporter = collector.exporter();
    exporter.aggregate(&aggregate, &Observer::default()).unwrap();
    let (path, request) = collector.next();
    assert_eq!(path, "/prefix/v1/logs");
    insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
    assert_eq!(exporter.monitor().finish(PATIENCE).failed, 0);
}

#[test]
fn metrics_have_the_names_kinds_and_numbers_of_a_scrape() {
    let collector = Collector::start(&[TAKEN]);
    let metrics = Metrics::new().with_certificates(3);
    for _ in 0..2 {
        metrics.observe(&verdict());
    }
    metrics.update(|_| 7, &Reading { tracked: 4, ..Reading::default() });
    let text = metrics.render(Format::OpenMetrics);
    let mut exporter = collector.exporter();
    exporter.measure(&text, Timestamp::from_nanos(1_795_341_610_000_000_000)).unwrap();
    let (path, request) = collector.next();
    assert_eq!(path, "/prefix/v1/metrics");
    let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let metric = |name: &str| metrics.iter().find(|metric| metric["name"] == name).unwrap();
    let handshakes = &metric("tlstrace_handshakes")["sum"];
    assert_eq!(
        (&handshakes["isMonotonic"], &handshakes["aggregationTemporality"]),
        (&true.into(), &2.into())
    );
    let point = &handshakes["dataPoints"][0];
    assert_eq!(point["asInt"], 2);
    assert_eq!(point["startTimeUnixNano"], START.as_nanos().to_string());
    assert_eq!(point["timeUnixNano"], "1795341610000000000");
    let label = |name: &str| {
        let attributes = point["attributes"].as_array().unwrap();
        attributes.iter().find(|attribute| attribute["key"] == name).unwrap()["value"]["stringValue"].clone()
    };
    assert_eq!((label("verdict"), label("severity")), ("port_closed".into(), "error".into()));
    assert_eq!(metric("tlstrace_tracked_connections")["gauge"]["dataPoints"][0]["asInt"], 4);
    let durations = metric("tlstrace_handshake_duration_seconds");
    assert_eq!(durations["unit"], "s");
    let point = &durations["histogram"]["dataPoints"][0];
    let lengths = ["explicitBounds", "bucketCounts"].map(|list| point[list].as_array().unwrap().len());
    assert_eq!(lengths, [13, 14], "{point}");
    // Every series of the text is there, and as many as there are.
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.contains("_duration_"));
    let points = |metric: &Value| {
        let kind = ["sum", "gauge"].into_iter().find(|kind| metric[kind].is_object());
        kind.map_or(0, |kind| metric[kind]["dataPoints"].as_array().unwrap().len())
    };
    assert_eq!(metrics.iter().map(points).sum::<usize>(), series.count());
}

#[test]
fn what_is_to_be_sent_again_is_and_what_was_refused_for_good_is_counted() {
    let again = "503 Service Unavailable\r\nRetry-After: 0";
    let collector = Collector::start(&[
        again,
        "429 Too Many Requests\r\nRetry-After: 0",
        TAKEN,
        "400 Bad Request",
        TAKEN,
    ]);
    let mut exporter = collector.exporter();
    let verdict = verdict();
    exporter.publish(&verdict, &Observer::default()).unwrap();
    let requests = [(); 3].map(|()| collector.next());
    assert!(requests.iter().all(|request| *request == requests[0]), "the same, three times");
    assert_eq!(exporter.monitor().lost().failed, 0);
    exporter.publish(&verdict, &Observer::default()).unwrap();
    collector.next();
    // The collector lives on, and so does the export.
    exporter.publish(&verdict, &Observer::default()).unwrap();
    let lost = exporter.monitor().finish(PATIENCE);
    assert_eq!((lost.failed, lost.no_room), (1, 0), "{lost:?}");
    assert!(lost.error.as_ref().unwrap().contains("answered 400"), "{lost:?}");
}

#[test]
fn a_collector_that_does_not_answer_costs_records_and_neither_time_nor_memory() {
    // Connections wait in the kernel, and nobody takes them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let mut exporter = Exporter::start(&endpoint, None, START, || {}).unwrap();
    let verdict = verdict();
    let published = 20_000;
    for _ in 0..published {
        exporter.publish(&verdict, &Observer::default()).unwrap();
    }
    let lost = exporter.monitor().lost();
    assert!(lost.no_room > published / 2 && lost.no_room < published, "{lost:?}");
    let lost = exporter.monitor().finish(Duration::from_millis(50));
    assert_eq!(lost.no_room + lost.failed, published, "{lost:?}");
}

/// One that answers as it was told, one answer after another.
struct Collector {
    endpoint: String,
    requests: Receiver<(String, Value)>,
}

impl Collector {
    fn start(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/prefix/", listener.local_addr().unwrap());
        let answers: Vec<_> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for answer in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
                }
                let head = head.to_ascii_lowercase();
                assert!(head.contains("\r\ncontent-type: application/json\r\n"), "{head}");
                let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                // The one who asked may have given up by the time that nobody waits for.
                let _ = sender.send((path, serde_json::from_slice(&body).unwrap()));
                let answer =
                    format!("HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { endpoint, requests }
    }

    fn exporter(&self) -> Exporter {
        Exporter::start(&self.endpoint.parse().unwrap(), Some("node-1"), START, || {}).unwrap()
    }

    fn next(&self) -> (String, Value) {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

/// A connection to a port on which nobody listens.
fn verdict() -> Verdict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/closed_port.pcap");
    let mut engine = Engine::new(Settings::default());
    let mut verdicts = Vec::new();
    feed(&mut CaptureReader::open(&path).unwrap(), &mut engine, &mut |Output::Verdict(verdict)| {
        verdicts.push(verdict);
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    verdicts.remove(0)
}
