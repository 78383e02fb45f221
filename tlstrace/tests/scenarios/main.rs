//! Scenarios: segments in, verdict out, as data that a network engineer can read and send us.
//!
//! Every `*.toml` beside this file is one scenario; `wire.rs` holds the language of its steps. Each one is
//! played as it is, cut into single bytes, with every segment doubled, and seen on two interfaces, between which
//! addresses are translated or not: the verdict must not depend on any of that.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

mod certificates;
mod wire;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tlstrace::engine::locality::Locality;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::entry::{self, Redaction};
use tlstrace::names::{Gateway, Identity};
use tlstrace::sink::{Observer, SINKS, Style};
use tlstrace::tls::certificate::trust::TrustAnchors;
use tlstrace::verdict::rules;
use tlstrace::verdict::{Confidence, Severity, Verdict};
use wire::{Player, Variation};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What this shows, and where it was seen.
    about: String,
    /// Authorities that the user says the clients trust: `root` for `authority root` of `certificates.rs`.
    #[serde(default)]
    trusts: Vec<String>,
    /// Everything is played once before, to learn what the listener accepts.
    #[serde(default)]
    learn_first: bool,
    /// Connections that the engine sees before, on the same listener.
    #[serde(default)]
    before: Vec<Connection>,
    /// The connection that is judged, and the client's address, if it matters.
    steps: Vec<String>,
    client: Option<Ipv4Addr>,
    /// The client is a pod of this node with this label, as in `app=apigee-runtime`.
    client_pod: Option<String>,
    /// Connections that come right after it.
    #[serde(default)]
    after: Vec<Connection>,
    expect: Expectation,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connection {
    /// How often, each time from another client port.
    #[serde(default = "once")]
    repeat: u32,
    /// The client's address; 10.0.0.1 unless told otherwise.
    client: Option<Ipv4Addr>,
    /// Between the same ports as the one before.
    #[serde(default)]
    again: bool,
    /// How many clients take turns, from `client` (or 10.1.0.1) on.
    clients: Option<u8>,
    /// Time before each of them, such as `10s`.
    pause: Option<String>,
    /// A handshake that completes and carries data: what the ClientHello and the ServerHello say, as in
    /// `sni=a.example | version=1.2 suite=0xc030`. Instead of `steps`.
    accept: Option<String>,
    #[serde(default)]
    steps: Vec<String>,
}

/// What the last verdict must say. What is not named may be anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// The verdict's id; `none` if there must be no verdict.
    verdict: String,
    severity: Option<String>,
    blame: Option<String>,
    confidence: Option<String>,
    /// Such as `server reset`; `nobody` if the connection must not have ended.
    ended_by: Option<String>,
    reason: Option<String>,
    /// How many earlier verdicts there were about the same connection.
    revision: Option<u32>,
    /// Ids of the verdicts before the last one, on this connection and others between the same ports.
    earlier: Option<Vec<String>>,
    /// The id of the verdict that the last one revises; `none` if it does not.
    replaces: Option<String>,
    /// The alerts of the JSON line: `client certificate_expired`, or `server encrypted`.
    alerts: Option<Vec<String>>,
    history: Option<String>,
    server_name: Option<String>,
    /// The JSON line's `network.direction`.
    direction: Option<String>,
    /// Parts of what to do about it.
    #[serde(default)]
    remedy: Vec<String>,
    /// Facts of the evidence, or `fact ~ part of its detail`; likewise the next two. Of warnings there must be no more.
    #[serde(default)]
    evidence: Vec<String>,
    #[serde(default)]
    alternatives: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
    /// Facts of the evidence and ids of alternatives that would be wrong here.
    #[serde(default)]
    lacks: Vec<String>,
    /// Parts of the summary.
    #[serde(default)]
    says: Vec<String>,
}

fn once() -> u32 {
    1
}

/// The rest of a handshake that completes, with data both ways.
const REST_OF_12: &[&str] = &[
    "< message 14 0",
    "> message 16 66",
    "> ccs",
    "> finished",
    "< ccs",
    "< finished",
    "> data 100",
    "< data 100",
    "> fin",
    "< fin",
];
const REST_OF_13: &[&str] =
    &["< ccs", "< data 900", "< data 53", "> ccs", "> data 53", "> data 100", "< data 200", "> fin", "< fin"];

impl Connection {
    fn all_steps(&self) -> Vec<String> {
        let Some(accept) = &self.accept else { return self.steps.clone() };
        let (hello, server_hello) = accept.split_once('|').unwrap();
        let rest = if server_hello.contains("version=1.2") { REST_OF_12 } else { REST_OF_13 };
        let first = [
            "> syn",
            "< syn,ack",
            "> ack",
            &format!("> hello {hello}"),
            &format!("< server_hello {server_hello}"),
        ];
        first.iter().chain(rest).map(|step| (*step).to_owned()).collect()
    }

    fn client_of(&self, turn: u32) -> Option<Ipv4Addr> {
        let Some(clients) = self.clients else { return self.client };
        let first = self.client.unwrap_or(Ipv4Addr::new(10, 1, 0, 1));
        Some(Ipv4Addr::from_bits(first.to_bits() + turn % u32::from(clients)))
    }

    fn play(&self, player: &mut Player, engine: &mut Engine) {
        let steps = self.all_steps();
        for turn in 0..self.repeat {
            if let Some(pause) = &self.pause {
                player.play(&[format!("+ {pause}")], engine);
            }
            if self.again {
                player.reconnect();
            } else {
                player.connect(self.client_of(turn));
            }
            player.play(&steps, engine);
        }
    }
}

fn scenarios() -> Vec<(PathBuf, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario =
                toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, scenario)
        })
        .collect()
}

/// The verdicts about the scenario's own connection.
fn play(scenario: &Scenario, variation: Variation, without: Option<&'static str>) -> Vec<Verdict> {
    let anchors =
        scenario.trusts.iter().map(|name| certificates::chain(&format!("authority {name}"))[0].clone());
    let settings = Settings {
        trust_anchors: (!scenario.trusts.is_empty()).then(|| Arc::new(TrustAnchors::new(anchors))),
        without_rules: without.into_iter().collect(),
        ..Settings::default()
    };
    let mut engine = Engine::new(settings.clone());
    if scenario.learn_first {
        play_to(&mut engine, scenario, variation);
        engine = Engine::with_lessons(settings, engine.into_lessons().close());
    }
    play_to(&mut engine, scenario, variation)
}

fn play_to(engine: &mut Engine, scenario: &Scenario, variation: Variation) -> Vec<Verdict> {
    let mut player = Player::new(variation);
    for connection in &scenario.before {
        connection.play(&mut player, engine);
        player.pause(engine);
    }
    while engine.poll_output().is_some() {}
    player.connect(scenario.client);
    player.play(&scenario.steps, engine);
    let client = player.client();
    let translated = player.translated();
    for connection in &scenario.after {
        connection.play(&mut player, engine);
    }
    engine.finish();
    let mut verdicts = Vec::new();
    let mut others = Vec::new();
    while let Some(output) = engine.poll_output() {
        let Output::Verdict(mut verdict) = output;
        verdict.names.client = scenario.client_pod.as_deref().map(pod);
        let is_about = |address| verdict.facts.peers.iter().any(|peer| peer.address == address);
        if is_about(client) {
            verdicts.push(verdict);
        } else if is_about(translated.0) {
            others.push(verdict);
        }
    }
    // Of a connection whose SYN was not seen nobody can say that it is the same as another.
    let is_known = |verdict: &Verdict| !verdict.facts.capture.midstream;
    assert!(
        others.is_empty() || !verdicts.iter().all(is_known),
        "{}: there is a verdict more behind the translation: {others:?}",
        scenario.about
    );
    let addresses = (variation == Variation::Translated).then_some(translated);
    for verdict in verdicts.iter().filter(|verdict| is_known(verdict)) {
        assert_eq!(verdict.facts.translated(), addresses, "{}", scenario.about);
        let hidden = json_line(&Redaction::new(false, true).apply(verdict)).to_string();
        assert!(!hidden.contains(&translated.0.ip().to_string()), "{hidden}");
    }
    verdicts
}

/// Who has this label.
fn pod(label: &str) -> Arc<Identity> {
    let (name, value) = label.split_once('=').unwrap();
    let gateway = Gateway::of_labels(|asked| (asked == name).then_some(value));
    Arc::new(Identity { gateway, ..Identity::default() })
}

fn check(expect: &Expectation, verdicts: &[Verdict]) -> Result<(), String> {
    let Some((verdict, earlier)) = verdicts.split_last() else {
        return if expect.verdict == "none" { Ok(()) } else { Err("gave no verdict".to_owned()) };
    };
    let ended_by = verdict
        .ended_by
        .map_or("nobody".to_owned(), |ended| format!("{} {}", ended.side.as_str(), ended.how));
    let history = verdict.facts.history.as_str();
    let name = verdict.facts.server_name();
    let line = json_line(verdict);
    let mut problems = Vec::new();
    let mut compare = |what: &str, want: Option<&str>, got: Option<&str>| {
        if want.is_some() && want != got {
            problems.push(format!("{what} is {got:?}, not {want:?}"));
        }
    };
    compare("verdict", Some(&expect.verdict), Some(verdict.id));
    compare("severity", expect.severity.as_deref(), Some(verdict.severity.as_str()));
    compare("blame", expect.blame.as_deref(), Some(verdict.blame.as_str()));
    compare("confidence", expect.confidence.as_deref(), Some(verdict.confidence.as_str()));
    compare("ended_by", expect.ended_by.as_deref(), Some(&ended_by));
    compare("reason", expect.reason.as_deref(), verdict.reason);
    compare("history", expect.history.as_deref(), Some(history));
    let revision = verdict.revision.to_string();
    compare("revision", expect.revision.map(|revision| revision.to_string()).as_deref(), Some(&revision));
    compare("replaces", expect.replaces.as_deref(), Some(verdict.replaces.unwrap_or("none")));
    compare("server_name", expect.server_name.as_deref(), name.as_deref());
    compare("direction", expect.direction.as_deref(), line["network"]["direction"].as_str());
    if let Some(want) = &expect.alerts
        && *want != alerts(&line)
    {
        problems.push(format!("alerts are {:?}, not {want:?}", alerts(&line)));
    }
    if let Some(want) = &expect.earlier
        && !want.iter().eq(earlier.iter().map(|verdict| verdict.id))
    {
        problems.push(format!("earlier verdicts are {earlier:?}, not {want:?}"));
    }
    problems.extend(verdicts.iter().filter_map(|verdict| invariants(verdict).err()));
    let mut contains = |what: &str, want: &[String], got: Vec<(&str, &str)>| {
        for want in want {
            let (name, part) = want.split_once(" ~ ").unwrap_or((want, ""));
            if !got.iter().any(|(fact, detail)| *fact == name && detail.contains(part)) {
                problems.push(format!("{what} {want:?} is missing among {got:?}"));
            }
        }
    };
    contains("evidence", &expect.evidence, verdict.evidence.iter().map(|e| (e.fact, &*e.detail)).collect());
    let alternatives = verdict.alternatives.iter().map(|a| (a.verdict, &*a.why));
    contains("alternative", &expect.alternatives, alternatives.collect());
    contains("warning", &expect.warnings, verdict.warnings.iter().map(|w| (w.fact, &*w.detail)).collect());
    if let Some(warning) = verdict.warnings.get(expect.warnings.len()) {
        problems.push(format!("there is a warning more: {warning:?}"));
    }
    let stated = verdict.evidence.iter().map(|evidence| evidence.fact);
    for wrong in stated.chain(verdict.alternatives.iter().map(|alternative| alternative.verdict)) {
        if expect.lacks.iter().any(|lacks| lacks == wrong) {
            problems.push(format!("{wrong} is stated"));
        }
    }
    let remedy = entry::remedy(verdict);
    for (what, want, got) in
        [("summary", &expect.says, &*verdict.summary), ("remedy", &expect.remedy, &*remedy)]
    {
        for part in want.iter().filter(|part| !got.contains(part.as_str())) {
            problems.push(format!("the {what} lacks {part:?}"));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(format!("{}\n      {} [{history}]", problems.join("; "), verdict.summary))
    }
}

/// What every verdict must be, whatever its cause (`DIAGNOSIS.md` §12.2).
fn invariants(verdict: &Verdict) -> Result<(), String> {
    let id = verdict.id;
    if verdict.severity == Severity::Error && verdict.evidence.is_empty() {
        return Err(format!("{id} has no evidence"));
    }
    if verdict.confidence == Confidence::Suspected
        && verdict.alternatives.is_empty()
        && id != "truncated_handshake"
    {
        return Err(format!("{id} is suspected and has no alternative"));
    }
    for kind in SINKS {
        let mut text = Vec::new();
        let style = Style { verbose: true, ..Style::default() };
        (kind.open)(style).emit(verdict, &Observer::default(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(format!("{id} as {} moves the cursor: {text:?}", kind.name));
        }
    }
    Ok(())
}

fn json_line(verdict: &Verdict) -> serde_json::Value {
    let mut line = Vec::new();
    let json = SINKS.iter().find(|kind| kind.name == "json").unwrap();
    let addresses = verdict.names.client.iter().map(|_| verdict.facts.client().address.ip()).collect();
    let locality = Locality { addresses, ..Locality::default() };
    (json.open)(Style::default())
        .emit(verdict, &Observer { locality, ..Observer::default() }, &mut line)
        .unwrap();
    serde_json::from_slice(&line).unwrap()
}

/// What the JSON line lists under `tlstrace.alerts`.
fn alerts(line: &serde_json::Value) -> Vec<String> {
    let text = |alert: &serde_json::Value| {
        let what = if alert["encrypted"] == true { "encrypted" } else { alert["name"].as_str().unwrap() };
        format!("{} {what}", alert["side"].as_str().unwrap())
    };
    line["tlstrace"]["alerts"].as_array().into_iter().flatten().map(text).collect()
}

#[test]
fn every_scenario_gives_its_verdict_however_it_is_cut_and_repeated() {
    let mut failures = Vec::new();
    for (path, scenario) in scenarios() {
        for variation in Variation::ALL {
            if let Err(problem) = check(&scenario.expect, &play(&scenario, variation, None)) {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                failures.push(format!("{name} ({variation:?}): {problem}\n      {}", scenario.about));
            }
        }
    }
    assert!(failures.is_empty(), "\n  {}", failures.join("\n  "));
}

#[test]
fn every_rule_has_a_scenario() {
    let covered: BTreeSet<String> =
        scenarios().into_iter().map(|(_, scenario)| scenario.expect.verdict).collect();
    let missing: Vec<_> = rules::all().map(rules::Rule::id).filter(|id| !covered.contains(*id)).collect();
    assert!(missing.is_empty(), "no scenario expects {missing:?}");
}

#[test]
fn without_its_rule_a_scenario_fails() {
    let scenarios = scenarios();
    let idle: Vec<_> = rules::all()
        .map(rules::Rule::id)
        .filter(|id| {
            scenarios.iter().filter(|(_, scenario)| scenario.expect.verdict == *id).all(|(_, scenario)| {
                check(&scenario.expect, &play(scenario, Variation::AsWritten, Some(*id))).is_ok()
            })
        })
        .collect();
    assert!(idle.is_empty(), "nothing changes without {idle:?}");
}

#[test]
fn every_verdict_of_the_catalogue_is_registered() {
    let registered: BTreeSet<_> = rules::all().map(rules::Rule::id).collect();
    assert_eq!(registered, CATALOGUE.split_whitespace().collect());
}

/// Ids are part of the interface: none is renamed, and a new one is entered here.
const CATALOGUE: &str = "
    syn_timeout port_closed accept_queue_full tcp_handshake_incomplete reset_before_client_hello
    reset_after_client_hello closed_after_client_hello server_silent client_hello_timeout client_hello_truncated
    client_hello_blackholed server_flight_blackholed large_client_hello_intolerance injected_reset client_abandoned
    truncated_handshake

    http_on_tls_port tls_on_plaintext_port starttls_expected proxy_header_unexpected proxy_header_missing
    sslv2_client_hello non_tls_protocol

    sni_missing sni_unrecognized sni_ip_literal

    protocol_version_mismatch cipher_suite_mismatch group_mismatch signature_algorithm_mismatch alpn_mismatch
    insufficient_security inappropriate_fallback downgrade_detected hello_retry_failed ech_rejected
    server_certificate_unavailable handshake_failure_unexplained protocol_error renegotiation_refused

    server_certificate_expired server_certificate_not_yet_valid client_clock_wrong hostname_mismatch
    server_chain_incomplete server_chain_misordered server_certificate_self_signed server_ca_unknown
    server_certificate_revoked server_certificate_unsupported ocsp_response_rejected server_certificate_rejected
    client_closed_after_handshake

    client_certificate_missing client_certificate_expired client_certificate_revoked client_certificate_unsupported
    client_certificate_untrusted client_certificate_key_mismatch client_certificate_rejected

    ok probe_tcp_connect probe_tls_handshake client_canceled undetermined
";
