//! Captures of `captures/` through reader and engine: the verdict on each connection, and that neither
//! the file format nor a cut changes it; and `tlstrace replay` from outside.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use tlstrace::capture::file::CaptureReader;
use tlstrace::command::replay::{self, ReplayError, Summary};
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::verdict::Verdict;

#[test]
fn every_capture_gives_the_verdicts_that_are_expected_of_it() {
    let mut expected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let table = fs::read_to_string(directory().join("expected.tsv")).unwrap();
    for line in table.lines().skip(1) {
        let (capture, verdict) = line.split_once('\t').unwrap();
        expected.entry(capture).or_default().push(verdict);
    }
    for path in captures() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (verdicts, summary) = replay_bytes(&fs::read(&path).unwrap());
        let found: Vec<_> = verdicts.iter().map(describe).collect();
        assert_eq!(found, expected.remove(name).unwrap_or_default(), "{name}");
        assert_eq!(summary.unwrap().truncated_at, None, "{name}");
    }
    assert!(expected.is_empty(), "without a capture: {:?}", expected.keys());
}

#[test]
fn a_compressed_capture_is_the_same_capture() {
    for path in captures() {
        let plain = fs::read(path).unwrap();
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(&plain).unwrap();
        let (verdicts, summary) = replay_bytes(&plain);
        let (from_compressed, summary_of_compressed) = replay_bytes(&compressed.finish().unwrap());
        assert_eq!(
            from_compressed.iter().map(describe).collect::<Vec<_>>(),
            verdicts.iter().map(describe).collect::<Vec<_>>()
        );
        assert_eq!(summary_of_compressed.unwrap(), summary.unwrap());
    }
}

#[test]
fn a_cut_capture_is_read_up_to_the_cut() {
    let whole = fs::read(directory().join("1.2_resumption.pcap")).unwrap();
    let (_, summary) = replay_bytes(&whole);
    let frames = summary.unwrap().frames;
    for len in 24..whole.len() {
        let (_, summary) = replay_bytes(&whole[..len]);
        let summary = summary.unwrap();
        assert!(summary.frames < frames);
        assert!(summary.truncated_at.is_none_or(|at| at == len as u64));
    }
}

#[test]
fn a_snap_length_hides_bytes_but_not_that_they_are_missing() {
    let (verdicts, _) = replay_bytes(&fs::read(directory().join("ipv4_tls_constricted_1.pcap")).unwrap());
    assert!(verdicts.iter().any(|verdict| verdict.facts.capture.truncated > 0));
}

#[test]
fn time_is_that_of_the_capture() {
    // Resumption: two connections in a row; the second begins long before the clock of this test.
    let (verdicts, _) = replay_bytes(&fs::read(directory().join("1.2_resumption.pcap")).unwrap());
    let [first, second] = verdicts.as_slice() else { panic!("two connections") };
    assert!(first.facts.last_seen <= second.facts.first_seen);
    assert!(second.time().as_secs() < first.time().as_secs() + 60);
}

#[test]
fn what_stood_before_damage_is_judged() {
    let mut capture = fs::read(directory().join("closed_port.pcap")).unwrap();
    capture.extend([0xff; 16]);
    let (verdicts, summary) = replay_bytes(&capture);
    assert_eq!(verdicts.iter().map(|verdict| verdict.id).collect::<Vec<_>>(), ["port_closed"]);
    assert!(matches!(summary, Err(ReplayError::Read(_))), "{summary:?}");
}

#[test]
fn an_unknown_link_type_is_named() {
    let mut capture = fs::read(directory().join("closed_port.pcap")).unwrap();
    capture[20] = 105;
    let (_, summary) = replay_bytes(&capture);
    let message = summary.unwrap_err().to_string();
    assert_eq!(message, "no frame of test can be read: link type 105 is not supported");
}

#[test]
fn the_command_prints_lines_to_stdout_and_the_rest_to_stderr() {
    let output = tlstrace(&["--all", "-o", "json", "closed_port.pcap", "1.2_resumption.pcap"], Stdio::null());
    assert_eq!(output.status.code(), Some(0));
    let verdicts: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: Vec<_> =
        verdicts.iter().map(|verdict| verdict["tlstrace"]["verdict"].as_str().unwrap()).collect();
    assert_eq!(ids, ["port_closed", "ok", "ok"]);
    assert_eq!(verdicts[1]["tls"]["client"]["server_name"], "api.example.com");
    assert!(stderr(&output).starts_with("3 verdicts (2 ok, 1 port_closed); "), "{}", stderr(&output));
}

#[test]
fn a_dash_is_standard_input() {
    let capture = File::open(directory().join("closed_port.pcap")).unwrap();
    let output = tlstrace(&["-"], capture.into());
    assert!(stdout(&output).contains("port_closed"));
}

#[test]
fn info_verdicts_are_counted_and_not_shown() {
    let output = tlstrace(&["1.2_resumption.pcap"], Stdio::null());
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("not shown without --all: 2 ok"), "{}", stderr(&output));
}

#[test]
fn a_file_that_cannot_be_read_is_exit_1_and_the_others_are_read() {
    let output = tlstrace(&["nonesuch.pcap", "README.md", "closed_port.pcap"], Stdio::null());
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("port_closed"));
    let stderr = stderr(&output);
    assert!(stderr.contains("nonesuch.pcap"), "{stderr}");
    assert!(stderr.contains("README.md is not a capture file"), "{stderr}");
}

#[test]
fn count_ends_the_replay_and_fail_on_is_exit_4() {
    let output = tlstrace(&["--all", "--count", "1", "1.2_resumption.pcap", "nonesuch.pcap"], Stdio::null());
    assert_eq!((output.status.code(), stdout(&output).lines().count()), (Some(0), 1));
    let output = tlstrace(&["--fail-on", "port_*", "closed_port.pcap"], Stdio::null());
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn authorities_that_are_given_are_compared_with_each_chain() {
    let key = rcgen::KeyPair::generate().unwrap();
    let stranger = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let bundle = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authorities.pem");
    fs::write(&bundle, format!("An authority\n{}", stranger.pem())).unwrap();
    let bundle = bundle.to_str().unwrap();
    let lines = json_lines(&["--ca-file", bundle, "1.2_resumption.pcap"]);
    let warning = &lines[0]["tlstrace"]["warnings"][0];
    assert_eq!(warning["fact"], "certificate_not_anchored");
    assert_eq!(warning["detail"], "the chain leads to none of the 1 given authorities");
}

#[test]
fn a_bundle_without_authorities_is_exit_1_before_anything_is_read() {
    for (file, says) in [("README.md", "no certificate"), ("nonesuch.pem", "cannot read nonesuch.pem")] {
        let output = tlstrace(&["--ca-file", file, "closed_port.pcap"], Stdio::null());
        assert_eq!(output.status.code(), Some(1), "{file}");
        assert!(stderr(&output).contains(says) && stdout(&output).is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn direction_follows_from_what_is_local_and_is_unknown_otherwise() {
    let direction = |local: &[&str]| {
        let mut arguments: Vec<_> = local.iter().flat_map(|network| ["--local", network]).collect();
        arguments.push("ipv4_tls_constricted_1.pcap");
        json_lines(&arguments)[0]["network"]["direction"].as_str().map(str::to_owned)
    };
    assert_eq!(direction(&[]), None);
    assert_eq!(direction(&["192.168.0.0/16"]).unwrap(), "outbound");
    assert_eq!(direction(&["104.18.16.5"]).unwrap(), "inbound");
    assert_eq!(direction(&["192.168.0.0/16", "104.0.0.0/8"]).unwrap(), "internal");
    assert_eq!(direction(&["10.0.0.0/8"]).unwrap(), "external");
}

#[test]
fn what_was_read_to_learn_is_judged_once() {
    let learned = json_lines(&["--learn-first", "1.2_resumption.pcap", "closed_port.pcap"]);
    assert_eq!(learned, json_lines(&["1.2_resumption.pcap", "closed_port.pcap"]));
    let output = tlstrace(&["--learn-first", "-"], Stdio::null());
    assert_eq!(output.status.code(), Some(2), "standard input cannot be read twice");
}

fn json_lines(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = tlstrace(&[&["--all", "-o", "json"], arguments].concat(), Stdio::null());
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

fn captures() -> Vec<PathBuf> {
    let mut captures: Vec<_> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    captures.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    captures.sort();
    assert!(!captures.is_empty());
    captures
}

/// Runs `tlstrace replay` beside the captures.
fn tlstrace(arguments: &[&str], stdin: Stdio) -> process::Output {
    Command::new(env!("CARGO_BIN_EXE_tlstrace"))
        .arg("replay")
        .args(arguments)
        .current_dir(directory())
        .stdin(stdin)
        .output()
        .unwrap()
}

fn stdout(output: &process::Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &process::Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn replay_bytes(capture: &[u8]) -> (Vec<Verdict>, Result<Summary, ReplayError>) {
    let mut verdicts = Vec::new();
    let mut reader =
        CaptureReader::from_reader("test".to_owned(), Box::new(Cursor::new(capture.to_vec()))).unwrap();
    let mut engine = Engine::new(Settings::default());
    let summary = replay::feed(&mut reader, &mut engine, &mut |output| {
        let Output::Verdict(verdict) = output;
        verdicts.push(verdict);
        Ok(ControlFlow::Continue(()))
    });
    (verdicts, summary)
}

/// The columns of `expected.tsv` behind the capture's name.
fn describe(verdict: &Verdict) -> String {
    let facts = &verdict.facts;
    let version = facts.version().map_or("-".to_owned(), |version| version.to_string());
    [
        verdict.id,
        &facts.client().address.to_string(),
        &facts.server().address.to_string(),
        &version,
        &facts.server_name().unwrap_or("-".into()),
        facts.history.as_str(),
    ]
    .join("\t")
}
