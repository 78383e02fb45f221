//! What Prometheus gets, and what is made of it: the text, the alert rules and the dashboard of the Helm chart.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tlstrace::capture::file::CaptureReader;
use tlstrace::command::replay::feed;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::metrics::{Format, Metrics, Reading};
use tlstrace::verdict::Verdict;
use tlstrace_peers::skip;

const RULES: &str = "rules.yaml";
const DASHBOARD: &str = "dashboard.json";

#[test]
fn a_connection_counts_once_by_its_first_verdict_and_labels_name_nobody() {
    let metrics = Metrics::new();
    let verdicts = observe(&metrics);
    let first: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.revision == 0).collect();
    let mut revised = Verdict::clone(first.first().unwrap());
    revised.revision = 1;
    metrics.observe(&revised);
    let text = metrics.render(Format::OpenMetrics);
    assert_eq!(sum(&text, "tlstrace_handshakes_total"), first.len() as u64, "{text}");
    let complete = first.iter().filter(|verdict| verdict.facts.progress.complete.is_some()).count() as u64;
    assert_eq!(sum(&text, "tlstrace_handshake_duration_seconds_count"), complete, "{text}");
    assert!(complete > 0 && sum(&text, "tlstrace_alerts_total") > 0, "{text}");
    for verdict in verdicts {
        for peer in &verdict.facts.peers {
            assert!(!text.contains(&peer.address.ip().to_string()), "{text}");
        }
        if let Some(name) = verdict.facts.server_name() {
            assert!(!text.contains(&*name), "{text}");
        }
    }
}

#[test]
fn every_metric_of_the_contract_is_exported() {
    let exported = exported();
    for name in [
        "tlstrace_handshakes_total",
        "tlstrace_handshake_duration_seconds",
        "tlstrace_alerts_total",
        "tlstrace_certificate_not_after_timestamp_seconds",
        "tlstrace_packets_total",
        "tlstrace_events_lost_total",
        "tlstrace_tracked_connections",
        "tlstrace_build_info",
    ] {
        assert!(exported.contains(name), "{name} is not among {exported:?}");
    }
}

#[test]
fn rules_and_dashboard_ask_only_for_what_there_is() {
    let exported = exported();
    for file in [RULES, DASHBOARD] {
        let text = fs::read_to_string(chart(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let asked: BTreeSet<_> = words.filter(|word| word.starts_with("tlstrace_")).collect();
        assert!(asked.len() > 3, "{file}: {asked:?}");
        for metric in asked {
            let base = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(exported.contains(base), "{file} asks for {metric}");
        }
        for id in text.split("verdict=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(tlstrace::verdict::rules::find(id).is_some(), "{file}: there is no verdict {id}");
        }
    }
    let dashboard = fs::read_to_string(chart(DASHBOARD)).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
}

#[test]
fn promtool_has_nothing_against_the_metrics() {
    let metrics = Metrics::new().with_certificates(10);
    observe(&metrics);
    metrics.update(|_| 0, &Reading::default());
    promtool(&["check", "metrics"], &metrics.render(Format::Prometheus));
}

#[test]
fn promtool_has_nothing_against_the_rules() {
    promtool(&["check", "rules", chart(RULES).to_str().unwrap()], "");
}

#[test]
fn each_alert_fires_when_it_should_and_not_otherwise() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules.yaml");
    let rules = fs::read_to_string(chart(RULES)).unwrap();
    let tested = fs::read_to_string(&cases).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tested.contains(&format!("alertname: {alert}\n")), "no case is about {alert}");
    }
    promtool(&["test", "rules", cases.to_str().unwrap()], "");
}

#[test]
fn the_last_failure_of_a_kind_is_an_exemplar_that_names_its_line_for_who_understands_it() {
    let metrics = Metrics::new();
    let verdicts = observe(&metrics);
    let open = metrics.render(Format::OpenMetrics);
    let samples: Vec<_> =
        open.lines().filter(|line| line.starts_with("tlstrace_handshakes_total{")).collect();
    for sample in samples {
        let is_failure = !sample.contains("severity=\"info\"");
        let exemplar =
            sample.split_once(" # {connection_id=\"").map(|(_, rest)| rest.split('"').next().unwrap());
        assert_eq!(exemplar.is_some(), is_failure, "{sample}");
        let of = |verdict: &&Verdict| exemplar == Some(&*verdict.facts.connection.to_string());
        if let Some(verdict) = verdicts.iter().find(of) {
            assert!(sample.contains(&format!("{{verdict=\"{}\",", verdict.id)), "{sample}");
        }
        assert!(!is_failure || verdicts.iter().any(|verdict| of(&verdict)), "{sample}");
    }
    assert!(!metrics.render(Format::Prometheus).contains("connection_id"), "the older format has none");
}

/// Has everything in the captures counted.
fn observe(metrics: &Metrics) -> Vec<Verdict> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut verdicts = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.extension().is_some_and(|extension| extension.to_str().unwrap().starts_with("pcap")) {
            continue;
        }
        let mut engine = Engine::new(Settings::default());
        let mut reader = CaptureReader::open(&path).unwrap();
        feed(&mut reader, &mut engine, &mut |Output::Verdict(verdict)| {
            metrics.observe(&verdict);
            verdicts.push(verdict);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    }
    verdicts
}

/// Of all series of a metric.
fn sum(text: &str, metric: &str) -> u64 {
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(metric));
    let values = samples.map(|line| line.split(" # ").next().unwrap().rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// Names of all metrics: those without a value are not described.
fn exported() -> BTreeSet<String> {
    let metrics = Metrics::new().with_certificates(10);
    observe(&metrics);
    metrics.update(|_| 0, &Reading::default());
    let text = metrics.render(Format::Prometheus);
    let described = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    described.map(str::to_owned).collect()
}

fn chart(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/tlstrace/files").join(file)
}

fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => return skip("promtool is not installed"),
        child => child.unwrap(),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}{input}", String::from_utf8_lossy(&said));
}
