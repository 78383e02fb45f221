//! `schema/tlstrace-1.json` and the JSON lines say the same: every line that captures and scenarios give is
//! valid, every object is closed, and what the schema names exists.
//!
//! The validator knows the few keywords of JSON Schema (draft 2020-12) that the schema uses, and fails on
//! any other, so that nothing in the schema goes unchecked. The `jsonschema` crate would bring 45 more.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

#[path = "scenarios/certificates.rs"]
mod certificates;
#[expect(dead_code, reason = "scenarios are played here in one way, and one connection at a time")]
#[path = "scenarios/wire.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tlstrace::aggregate::{Aggregate, Quantiles};
use tlstrace::engine::timestamp::Timestamp;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::entry::Saved;
use tlstrace::names::{Ends, Identity, Process, Workload};
use tlstrace::sink::{Observer, SINKS, Style};
use tlstrace::summary::{CaptureTotals, Object, Summary};
use tlstrace::verdict::{Severity, rules};
use wire::{Player, Variation};

#[test]
fn every_line_is_valid_and_all_that_the_schema_names_is_printed() {
    let schema = Schema::read();
    let mut seen = BTreeSet::new();
    let scenarios = files("scenarios", &["toml"]);
    for line in replay_captures("json").into_iter().chain(scenarios.iter().flat_map(|path| play(path))) {
        assert_eq!(schema.problems(&line), Vec::<String>::new(), "{line}");
        names(&line, &mut seen);
    }
    let mut unused = schema.properties();
    unused.retain(|name| !seen.contains(name) && !RARE.contains(&&**name));
    assert!(unused.is_empty(), "no line shows {unused:?}");
}

/// Properties that neither a capture nor a scenario shows.
const RARE: &[&str] = &["cut", "problems", "signature_algorithms_cert"];

#[test]
fn a_list_that_is_cut_is_named() {
    let cut_of = |suites: usize, protocols: usize| {
        let suites = vec!["1301"; suites].join(",");
        let protocols = vec!["h2"; protocols].join(",");
        let hello = format!("> hello sni=a.example suites={suites} alpn={protocols}");
        let steps = ["> syn", "< syn,ack", "> ack", &hello, "< alert fatal 40", "< fin", "> fin"];
        let line = play_steps(&steps.map(str::to_owned)).remove(0);
        assert_eq!(Schema::read().problems(&line), Vec::<String>::new(), "{line}");
        line["tlstrace"]["cut"].clone()
    };
    assert_eq!(cut_of(256, 32), Value::Null);
    assert_eq!(cut_of(257, 32), json!(["tls.client.supported_ciphers"]));
    assert_eq!(cut_of(4, 33), json!(["tls.client.alpn"]));
}

#[test]
fn a_line_for_cloud_logging_is_a_valid_line_with_fields_of_its_own() {
    let schema = Schema::read();
    for mut line in replay_captures("gcp") {
        let fields = line.as_object_mut().unwrap();
        for name in ["severity", "message", "time"] {
            assert!(fields.remove(name).is_some_and(|value| value.is_string()), "{name}");
        }
        fields.retain(|name, _| !name.starts_with("logging.googleapis.com/"));
        assert_eq!(schema.problems(&line), Vec::<String>::new(), "{line}");
    }
}

#[test]
fn names_that_were_saved_are_read_back() {
    let mut line = play(&files("scenarios", &["toml"])[0]).pop().unwrap();
    let read = |line: &Value| {
        let Ok(Saved::Verdict(saved)) = Saved::parse(line.to_string().as_bytes()) else { panic!("{line}") };
        saved.0.names
    };
    assert_eq!(read(&line), Ends { client: None, server: Some(Arc::new(everything_known())) });
    line["server"].as_object_mut().unwrap().retain(|name, _| !["k8s", "process"].contains(&&**name));
    assert_eq!(read(&line).server.unwrap().pod.as_deref(), Some("web-7d9f-x"), "the line says it too");
}

#[test]
fn a_summary_is_valid_and_shows_all_that_its_schema_names() {
    let schema = Schema::read_from("tlstrace-summary-1.json");
    let mut summary = Summary::default();
    let lines = replay_captures("json");
    for line in &lines {
        let Ok(Saved::Verdict(saved)) = Saved::parse(line.to_string().as_bytes()) else { panic!("{line}") };
        summary.add(&saved.0);
    }
    let losses = vec![("events lost".into(), 1)];
    let totals = CaptureTotals { candidates: Some(1), events: Some(1), losses, ..CaptureTotals::default() };
    let object = Object { summary: &summary, capture: Some(&totals), hostname: Some("node-1") };
    let object = serde_json::to_value(object).unwrap();
    assert_eq!(schema.problems(&object), Vec::<String>::new(), "{object:#}");
    let mut seen = BTreeSet::new();
    names(&object, &mut seen);
    let mut unused = schema.properties();
    unused.retain(|name| !seen.contains(name));
    assert!(unused.is_empty(), "the summary shows no {unused:?}");
}

#[test]
fn an_aggregate_is_valid_shows_all_that_its_schema_names_and_is_read_back() {
    let schema = Schema::read_from("tlstrace-aggregate-1.json");
    let end = Timestamp::from_nanos(1_795_341_600_000_000_000);
    let millis = Duration::from_millis;
    let aggregate = Aggregate {
        start: end,
        end: end.after(millis(10_000)),
        verdict: "ok".into(),
        severity: Severity::Info,
        server: Some(([192, 0, 2, 1], 443).into()),
        server_name: Some("api.example.com".into()),
        identity: Some(Arc::new(Identity { process: None, ..everything_known() })),
        count: 412,
        handshake: Some(Quantiles { p50: millis(3), p90: millis(4), p99: millis(12) }),
        is_suppressed: false,
    };
    let observer = Observer { hostname: Some("node-1".into()), ..Observer::default() };
    let bare =
        Aggregate { server: None, server_name: None, identity: None, handshake: None, ..aggregate.clone() };
    let mut seen = BTreeSet::new();
    for aggregate in [aggregate, bare] {
        for kind in SINKS.iter().filter(|kind| kind.name != "text") {
            let mut line = Vec::new();
            (kind.open)(Style::default()).aggregate(&aggregate, &observer, &mut line).unwrap();
            let Ok(Saved::Aggregate(read)) = Saved::parse(&line) else { panic!("{}", kind.name) };
            assert_eq!(*read, aggregate);
            if kind.name == "json" {
                let line = serde_json::from_slice(&line).unwrap();
                assert_eq!(schema.problems(&line), Vec::<String>::new(), "{line:#}");
                names(&line, &mut seen);
            }
        }
    }
    let mut unused = schema.properties();
    unused.retain(|name| !seen.contains(name));
    assert!(unused.is_empty(), "no aggregate shows {unused:?}");
}

#[test]
fn the_verdicts_of_the_schema_are_those_of_the_registry() {
    let schema = Schema::read();
    let listed: Vec<_> = schema.definition("verdict")["enum"].as_array().unwrap().clone();
    let registered: Vec<_> = rules::all().map(|rule| Value::from(rule.id())).collect();
    assert_eq!(listed, registered);
}

#[test]
fn every_object_of_the_schema_is_closed() {
    fn check(schema: &Value) {
        if schema["type"] == "object" {
            assert_eq!(schema["additionalProperties"], false, "{schema}");
        }
        match schema {
            Value::Object(fields) => fields.values().for_each(check),
            Value::Array(items) => items.iter().for_each(check),
            _ => {}
        }
    }
    check(&Schema::read().0);
    check(&Schema::read_from("tlstrace-summary-1.json").0);
    check(&Schema::read_from("tlstrace-aggregate-1.json").0);
}

#[test]
fn a_line_that_drifts_is_noticed() {
    let schema = Schema::read();
    let line = play(&files("scenarios", &["toml"])[0]).pop().unwrap();
    let problems = |change: &dyn Fn(&mut Value)| {
        let mut line = line.clone();
        change(&mut line);
        schema.problems(&line).len()
    };
    assert_eq!(problems(&|_| {}), 0);
    assert_eq!(problems(&|line| line["tlstrace"]["news"] = true.into()), 1);
    assert_eq!(problems(&|line| line["tlstrace"]["verdict"] = "nonesuch".into()), 1);
    assert_eq!(problems(&|line| line["client"]["port"] = 65_536.into()), 1);
    assert_eq!(problems(&|line| line["event"]["duration"] = "1".into()), 1);
    assert_eq!(problems(&|line| line["tlstrace"]["connection_id"] = "1".into()), 1);
    assert_eq!(problems(&|line| line["@timestamp"] = "yesterday".into()), 1);
    let removed = problems(&|line| {
        line["tlstrace"].as_object_mut().unwrap().remove("summary");
    });
    assert_eq!(removed, 1);
}

/// What the command prints about the captures.
fn replay_captures(format: &str) -> Vec<Value> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tlstrace"))
        .args(["replay", "--all", "-o", format])
        .args(files("captures", &["pcap", "pcapng"]))
        .output()
        .unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The lines of a scenario's own connection, on an interface and a host that have names.
fn play(path: &Path) -> Vec<Value> {
    let scenario: toml::Table = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let steps: Vec<String> = scenario["steps"].clone().try_into().unwrap();
    play_steps(&steps)
}

fn play_steps(steps: &[String]) -> Vec<Value> {
    let mut engine = Engine::new(Settings::default());
    // So that a line can show all that there is.
    Player::new(Variation::Translated).play(steps, &mut engine);
    engine.finish();
    let observer = Observer {
        hostname: Some("node-1".into()),
        interfaces: BTreeMap::from([(1, "eth0".into())]),
        ..Observer::default()
    };
    let json = SINKS.iter().find(|kind| kind.name == "json").unwrap();
    let mut lines = Vec::new();
    while let Some(Output::Verdict(mut verdict)) = engine.poll_output() {
        verdict.names = Ends { client: None, server: Some(Arc::new(everything_known())) };
        let mut line = Vec::new();
        (json.open)(Style::default()).emit(&verdict, &observer, &mut line).unwrap();
        lines.push(serde_json::from_slice(&line).unwrap());
    }
    lines
}

fn everything_known() -> Identity {
    let name = |name: &str| Some(name.into());
    Identity {
        namespace: name("shop"),
        pod: name("web-7d9f-x"),
        container: name("envoy"),
        workload: Some(Workload { kind: "Deployment".into(), name: "web".into() }),
        node: name("node-1"),
        service: name("web"),
        process: Some(Process { pid: 7, command: "envoy".into() }),
        gateway: None,
    }
}

fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| extensions.iter().any(|want| kind == *want)));
    files.sort();
    files
}

/// The names of all fields in a value.
fn names(value: &Value, names_seen: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                names_seen.insert(name.clone());
                names(value, names_seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| names(item, names_seen)),
        _ => {}
    }
}

/// The schema as JSON.
struct Schema(Value);

impl Schema {
    fn read() -> Self {
        Self::read_from("tlstrace-1.json")
    }

    fn read_from(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(name);
        Self(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    }

    fn definition(&self, name: &str) -> &Value {
        self.0["$defs"].get(name).unwrap_or_else(|| panic!("no definition is called {name}"))
    }

    /// The names of all properties.
    fn properties(&self) -> Vec<String> {
        fn collect(schema: &Value, found: &mut Vec<String>) {
            match schema {
                Value::Object(keywords) => {
                    let properties = keywords.get("properties").and_then(Value::as_object);
                    found.extend(properties.into_iter().flat_map(Map::keys).cloned());
                    keywords.values().for_each(|schema| collect(schema, found));
                }
                Value::Array(items) => items.iter().for_each(|schema| collect(schema, found)),
                _ => {}
            }
        }
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found
    }

    fn problems(&self, line: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.validate(&self.0, line, "", &mut problems);
        problems
    }

    fn validate(&self, schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
        for (keyword, wanted) in schema.as_object().unwrap() {
            let number = || wanted.as_i64().unwrap();
            let len = || value.as_str().map(|text| i64::try_from(text.chars().count()).unwrap());
            let is_met = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" | "additionalProperties" => true,
                "$ref" => {
                    let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.validate(self.definition(name), value, path, problems);
                    true
                }
                "type" => match wanted.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    other => panic!("no type is called {other}"),
                },
                "enum" => wanted.as_array().unwrap().contains(value),
                "const" => wanted == value,
                "minimum" => value.as_i64().is_none_or(|value| value >= number()),
                "maximum" => value.as_i64().is_none_or(|value| value <= number()),
                "minLength" => len().is_none_or(|len| len >= number()),
                "maxLength" => len().is_none_or(|len| len <= number()),
                "format" => {
                    assert_eq!(wanted, "date-time");
                    value.as_str().is_none_or(is_date_time)
                }
                "required" => {
                    let mut names = wanted.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                    names.all(|name| value.get(name).is_some())
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        match wanted.get(name) {
                            Some(schema) => self.validate(schema, value, &format!("{path}/{name}"), problems),
                            // `additionalProperties` is false wherever there are properties: see the test.
                            None => problems.push(format!("{path}/{name} is not in the schema")),
                        }
                    }
                    true
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.validate(wanted, item, &format!("{path}/{i}"), problems);
                    }
                    true
                }
                other => panic!("the validator does not know {other}"),
            };
            if !is_met {
                problems.push(format!("{path} is {value}, against {keyword} {wanted}"));
            }
        }
    }
}

/// RFC 3339 in UTC, as the sink writes it: `2026-11-22T10:00:00Z`, with or without a fraction.
fn is_date_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    ["0000-00-00T00:00:00Z", "0000-00-00T00:00:00.000000Z"].contains(&&*shape)
}
