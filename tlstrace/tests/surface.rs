//! What people and scripts meet: help, text, summary, Cloud Logging lines, saved lines read back, full disks.
//!
//! Snapshots are beside this file; `INSTA_UPDATE=always cargo test -p tlstrace --test surface` writes them anew, to
//! be read before they are committed.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Captures of which most fail, in different ways.
const FAILING: &[&str] = &[
    "closed_port.pcap",
    "go_srv_http_to_tls.pcap",
    "nginx_reject_handshake_no_sni.pcap",
    "sll_tls.pcap",
    "1.2_resumption.pcap",
];

#[test]
fn help_is_as_it_was_read_last() {
    for command in [
        "",
        "watch",
        "replay",
        "top",
        "fmt",
        "report",
        "probe",
        "doctor",
        "cleanup",
        "explain",
        "config",
        "completions",
        "man",
    ] {
        let output = tlstrace(&[&[command][usize::from(command.is_empty())..], &["--help"]].concat());
        insta::assert_snapshot!(format!("help_{command}"), stdout(&output));
    }
}

#[test]
fn every_shell_gets_a_completion_script_that_knows_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = stdout(&tlstrace(&["completions", shell]));
        assert!(script.contains("replay") && script.contains("fail-on"), "{shell}");
    }
}

#[test]
fn the_manual_has_the_options_of_every_command() {
    let page = stdout(&tlstrace(&["man"]));
    for part in [".TH TLSTRACE", "TLSTRACE WATCH", "TLSTRACE FMT", "\\-\\-interface", "print\\-default"] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[test]
fn text_is_as_it_was_read_last() {
    let files = captures(FAILING);
    let output = replay(&["--all", "--time", "utc"], &files);
    insta::assert_snapshot!("text", stdout(&output));
    insta::assert_snapshot!("summary", stderr(&output));
    insta::assert_snapshot!("verbose", stdout(&replay(&["--verbose"], &files)));
}

#[test]
fn repeats_fold_in_text_and_never_in_json() {
    let twice = captures(&["closed_port.pcap", "closed_port.pcap", "closed_port.pcap"]);
    let folded = stdout(&replay(&["--fold", "always"], &twice));
    assert_eq!(folded.lines().count(), 2, "{folded}");
    assert!(folded.contains("×2 in "), "{folded}");
    assert_eq!(stdout(&replay(&[], &twice)).lines().count(), 3);
    assert_eq!(stdout(&replay(&["--fold", "always", "-o", "json"], &twice)).lines().count(), 3);
}

#[test]
fn successes_are_counted_and_failures_printed_if_that_is_asked_for() {
    let files = captures(FAILING);
    let line =
        |line: &Value| (line["tlstrace"]["schema"] == "tlstrace/1", line["tlstrace"]["count"].as_u64());
    let all = json_lines(&replay(&["-o", "json", "--all"], &files));
    let successes = all.iter().filter(|line| line["tlstrace"]["verdict"] == "ok").count();
    let failures = json_lines(&replay(&["-o", "json"], &files)).len();
    assert!(successes > 1 && failures > 1);
    let lines = json_lines(&replay(&["-o", "json", "--aggregate", "ok=1h"], &files));
    let (printed, counted): (Vec<_>, Vec<_>) =
        lines.iter().map(line).partition(|(is_verdict, _)| *is_verdict);
    assert_eq!(printed.len(), failures);
    assert_eq!(counted.iter().filter_map(|(_, count)| *count).sum::<u64>(), successes as u64);

    let one = &captures(&["1.2_resumption.pcap"]);
    let live = stdout(&replay(&["--aggregate", "ok=1h"], one));
    insta::assert_snapshot!("aggregate", live);
    let saved = stdout(&replay(&["--aggregate", "ok=1h", "-o", "json"], one));
    assert_eq!(stdout(&fmt(["--time", "utc"].iter(), &saved)), live);
}

#[test]
fn nothing_is_lost_beyond_the_rate_but_counted() {
    let files = all_captures();
    let all = json_lines(&replay(&["-o", "json", "--all"], &files)).len() as u64;
    let output = replay(&["-o", "json", "--all", "--max-rate", "1"], &files);
    let lines = json_lines(&output);
    let counts = lines.iter().map(|line| line["tlstrace"]["count"].as_u64().unwrap_or(1));
    assert_eq!(counts.sum::<u64>(), all);
    assert!(lines.iter().any(|line| line["tlstrace"]["suppressed"] == true));
    assert!((lines.len() as u64) < all);
}

#[test]
fn logs_of_two_nodes_become_one() {
    let (one, two) = (captures(FAILING), captures(&FAILING[1..]));
    let json = |files: &[PathBuf], node: &str| -> String {
        let mut lines = json_lines(&replay(&["-o", "json", "--all"], files));
        for line in &mut lines {
            line["observer"]["hostname"] = node.into();
        }
        lines.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
    };
    let folder = std::env::temp_dir().join(format!("tlstrace-merge-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (of_one, of_two) = (folder.join("one"), folder.join("two"));
    fs::write(&of_one, json(&one, "node-1")).unwrap();
    fs::write(&of_two, json(&two, "node-2")).unwrap();
    let paths = [&of_one, &of_two].map(|path| path.display().to_string());
    let output = tlstrace(&["fmt", "--merge", "-o", "json", &paths[0], &paths[1]]);
    fs::remove_dir_all(folder).unwrap();
    let merged = json_lines(&output);
    let ids = |lines: &[Value]| {
        let mut ids: Vec<_> =
            lines.iter().map(|line| line["tlstrace"]["connection_id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&merged), ids(&json_lines(&replay(&["-o", "json", "--all"], &one))));
    assert!(merged.is_sorted_by_key(|line| line["@timestamp"].as_str().unwrap().to_owned()));
}

#[test]
fn a_terminal_gets_colours_folds_and_lines_of_its_width() {
    let mut script = Command::new("script");
    let line = format!(
        "stty cols 100 rows 40; {0} replay {1} {1} {1} 2>&1",
        env!("CARGO_BIN_EXE_tlstrace"),
        directory().join("closed_port.pcap").display()
    );
    // script(1) gives the command a terminal of its own.
    let output = script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let text = stdout(&output);
    assert!(text.contains("\u{1b}[31m") && text.contains("×2 in "), "{text}");
    let verdicts = text.lines().filter(|line| line.contains("127.0.0.1:7402") || line.starts_with("    "));
    assert!(verdicts.clone().count() >= 3, "{text}");
    assert!(verdicts.clone().all(|line| width(line) <= 100), "{text}");
}

#[test]
fn cloud_logging_finds_its_fields() {
    let output = replay(&["-o", "gcp", "--severity", "error"], &captures(FAILING));
    let lines = json_lines(&output);
    assert!(!lines.is_empty());
    for line in lines {
        assert_eq!(line["severity"], "ERROR");
        assert_eq!(line["time"], line["@timestamp"]);
        let (id, summary) = (&line["tlstrace"]["verdict"], &line["tlstrace"]["summary"]);
        let message = format!("{}: {}", id.as_str().unwrap(), summary.as_str().unwrap());
        assert_eq!(line["message"], *message);
        assert_eq!(line["logging.googleapis.com/labels"]["verdict"], *id);
        let connection = line["tlstrace"]["connection_id"].as_str().unwrap();
        assert_eq!(line["logging.googleapis.com/insertId"], format!("{connection}-0"));
        assert_eq!(line["logging.googleapis.com/operation"]["id"], connection);
    }
}

#[test]
fn saved_lines_read_like_live_ones() {
    let files = all_captures();
    for arguments in [&["--all"][..], &["--all", "--verbose"], &["--all", "--fold", "always"]] {
        let live = replay(arguments, &files);
        for format in ["json", "gcp"] {
            let saved = stdout(&replay(&["--all", "-o", format], &files));
            let read = fmt(arguments.iter().filter(|argument| **argument != "--all"), &saved);
            assert_eq!(stdout(&read), stdout(&live), "{format} {arguments:?}");
            // The sum is the same, too, but for what only the capture knows.
            let summary = |output: &Output| stderr(output).lines().skip(1).collect::<Vec<_>>().join("\n");
            assert_eq!(summary(&read), summary(&live));
        }
    }
}

#[test]
fn what_stands_around_saved_lines_stays() {
    let saved = stdout(&replay(&["-o", "json"], &captures(&["closed_port.pcap"])));
    let verdict = saved.trim_end();
    let log = format!(
        "watching eth0\n[pod/tlstrace-x/agent] {verdict}\n2026-11-22T10:00:00Z {verdict}\n\
         {{\"other\":\"json\"}}\n{{\"jsonPayload\":{verdict},\"severity\":\"ERROR\"}}\n{{\"cut\n"
    );
    let output = fmt(["--color", "never"].iter(), &log);
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[3], lines[5]), ("watching eth0", "{\"other\":\"json\"}", "{\"cut"));
    assert!(lines[1].starts_with("[pod/tlstrace-x/agent] ") && lines[1].contains("port_closed"), "{text}");
    assert!(lines[2].starts_with("2026-11-22T10:00:00Z ") && lines[2].contains("port_closed"), "{text}");
    assert!(lines[4].contains("port_closed"), "{text}");
    assert!(stderr(&output).starts_with("3 verdicts (3 port_closed)"), "{}", stderr(&output));
}

#[test]
fn saved_lines_are_filtered_and_kept_as_they_are() {
    let saved = stdout(&replay(&["--all", "-o", "json"], &all_captures()));
    let output = fmt(["-o", "json", "--verdict", "ok", "--sni", "api.*", "--fail-on", "ok"].iter(), &saved);
    assert_eq!(output.status.code(), Some(4));
    let text = stdout(&output);
    assert!(text.lines().count() >= 2);
    for line in text.lines() {
        assert!(saved.lines().any(|saved| saved == line), "{line}");
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["tlstrace"]["verdict"], "ok");
    }
}

#[test]
fn the_summary_is_the_last_line_of_the_data_when_it_is_asked_for() {
    let output = replay(&["-o", "json", "--summary", "json"], &captures(FAILING));
    let mut lines = json_lines(&output);
    let summary = lines.pop().unwrap();
    assert_eq!(summary["tlstrace"]["schema"], "tlstrace-summary/1");
    assert_eq!(summary["tlstrace"]["failures"], lines.len());
    assert!(lines.iter().all(|line| line["tlstrace"]["schema"] == "tlstrace/1"));
    let none = replay(&["--summary", "none"], &captures(FAILING));
    assert_eq!(stderr(&none).lines().count(), 1, "{}", stderr(&none));
}

#[test]
fn what_is_redacted_is_nowhere() {
    let files = all_captures();
    let open = json_lines(&replay(&["--all", "-o", "json"], &files));
    let strings = |pointer: &str| -> Vec<String> {
        let found = open.iter().filter_map(|line| line.pointer(pointer)?.as_str().map(ToOwned::to_owned));
        found.collect()
    };
    let (names, clients) = (strings("/tls/client/server_name"), strings("/client/ip"));
    assert!(names.len() > 5 && clients.len() > 5);
    let servers = strings("/server/ip");
    let report = tempfile().join("redacted.html");
    for format in ["text", "json", "gcp"] {
        let arguments = ["--all", "--verbose", "--summary", "json", "--redact", "sni,client", "-o", format];
        let output = replay(&[&arguments[..], &["--report", report.to_str().unwrap()]].concat(), &files);
        let said = stdout(&output) + &stderr(&output) + &fs::read_to_string(&report).unwrap();
        for name in &names {
            assert!(!said.to_lowercase().contains(&name.to_lowercase()), "{name} in {format}");
        }
        for client in clients.iter().filter(|client| !servers.contains(client) && !is_network(client)) {
            let is_there = said.match_indices(&**client).any(|(at, _)| {
                let after = said[at + client.len()..].chars().next();
                let before = said[..at].chars().next_back();
                // Not a part of another address.
                ![before, after].into_iter().flatten().any(|c| c.is_ascii_hexdigit() || c == '.')
            });
            assert!(!is_there, "{client} in {format}");
        }
    }
    let lines = json_lines(&replay(&["--all", "-o", "json", "--redact", "sni"], &files));
    let stand_ins: std::collections::BTreeSet<_> =
        lines.iter().filter_map(|line| line.pointer("/tls/client/server_name")?.as_str()).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!(stand_ins.len(), distinct.len(), "names stay apart");
}

#[test]
fn filters_see_what_is_redacted() {
    let arguments = ["--all", "-o", "json", "--sni", "api.example.com"];
    let lines =
        |redact: &[&str]| json_lines(&replay(&[&arguments, redact].concat(), &captures(FAILING))).len();
    assert!(lines(&[]) > 0);
    assert_eq!(lines(&["--redact", "sni"]), lines(&[]));
}

#[test]
fn a_full_disk_is_exit_1_and_said() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = command(&["replay", "--all", "-o", "json"]);
    let output = command.args(all_captures()).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("No space left"), "{}", stderr(&output));
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = command(&["replay", "--all", "-o", "json"]);
    let output = command.args(all_captures()).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(!stderr(&output).contains("roken pipe"), "{}", stderr(&output));
}

#[test]
fn a_configuration_that_is_not_understood_is_exit_2_and_names_its_line() {
    let directory = tempfile();
    let file = directory.join("tlstrace.toml");
    fs::write(&file, "[output]\nall = true\ncolour = 'always'\n").unwrap();
    let path = file.to_str().unwrap();
    for arguments in [&["config", "check", path][..], &["watch", "--config", path], &["--config", path]] {
        let output = tlstrace(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("line 3") && stderr(&output).contains("colour"),
            "{}",
            stderr(&output)
        );
    }
    fs::write(&file, stdout(&tlstrace(&["config", "print-default"]))).unwrap();
    assert_eq!(tlstrace(&["config", "check", path]).status.code(), Some(0));
    fs::remove_dir_all(directory).unwrap();
}

/// Columns that a line takes on a terminal.
fn width(line: &str) -> usize {
    let after_escapes = line.split('\u{1b}').enumerate().map(|(i, part)| match i {
        0 => part,
        _ => part.split_once('m').map_or("", |(_, text)| text),
    });
    after_escapes.map(|text| text.trim_end_matches('\r').chars().count()).sum()
}

/// An empty directory of this test's own.
fn tempfile() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("surface-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn is_network(address: &str) -> bool {
    address.ends_with(".0") || address.ends_with("::")
}

fn replay(arguments: &[&str], files: &[PathBuf]) -> Output {
    let output = command(&["replay"]).args(arguments).args(files).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

/// `tlstrace fmt` with this on its standard input.
fn fmt<'a>(arguments: impl Iterator<Item = &'a &'a str>, input: &str) -> Output {
    let path = tempfile().join(format!("{:?}.jsonl", std::thread::current().id()));
    File::create(&path).unwrap().write_all(input.as_bytes()).unwrap();
    let output = command(&["fmt"]).args(arguments).stdin(File::open(&path).unwrap()).output().unwrap();
    fs::remove_file(path).unwrap();
    output
}

fn tlstrace(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    command.args(arguments).env_remove("TLSTRACE_LOG").env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn captures(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| directory().join(name)).collect()
}

fn all_captures() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng"));
    files.sort();
    files
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}
