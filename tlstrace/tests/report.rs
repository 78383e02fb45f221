//! The HTML report: from saved lines, from a capture, and as a browser shows it.

#![expect(clippy::unwrap_used, reason = "a test panics where it cannot go on")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::read::ZlibDecoder;
use serde_json::{Value, json};
use tlstrace_peers::{installed, skip};

/// What a browser paints where nothing else is, by the preferred colour scheme.
const LIGHT: [u8; 3] = [0xf6, 0xf7, 0xf9];
const DARK: [u8; 3] = [0x12, 0x16, 0x1c];

#[test]
fn saved_lines_and_the_run_that_saved_them_report_the_same() {
    let directory = Directory::new("same");
    let live = directory.file("live.html");
    let arguments = ["--all", "-o", "json", "--summary", "json", "--report", live.to_str().unwrap()];
    let lines = replay(&arguments, &captures());
    let saved = report(&[], &lines.stdout);
    let body = |page: &str| {
        let (before, after) = page.split_once("lines read").unwrap_or((page, ""));
        let capture = before.rfind("<h2>Capture").unwrap();
        assert!(after.is_empty() || after.contains("<dt>packets</dt>"), "{after}");
        before[..capture].to_owned()
    };
    let (live, saved) = (body(&fs::read_to_string(&live).unwrap()), body(&saved));
    assert!(live == saved, "{live}\n\n{saved}");
    assert!(
        live.contains("Failures over time") && live.contains("Latency of completed handshakes"),
        "{live}"
    );
}

#[test]
fn filters_choose_what_is_reported_and_what_is_not_ours_is_counted() {
    let lines = replay(&["--all", "-o", "json"], &captures());
    let lines = [&b"starting up\n"[..], &lines.stdout, b"{\"level\":\"info\"}\n"].concat();
    let page = report(&["--verdict", "sni_missing"], &lines);
    assert!(page.contains("sni_missing") && !page.contains("port_closed"), "{page}");
    assert!(page.contains(", 2 of them not of tlstrace, "), "{page}");
    assert!(page.contains(" left out by filters."), "{page}");
}

#[test]
fn a_file_that_cannot_be_read_does_not_keep_others_from_it_and_is_exit_1() {
    let directory = Directory::new("exit");
    let (input, output) = (directory.file("lines.jsonl"), directory.file("report.html"));
    fs::write(&input, replay(&["-o", "json"], &captures()).stdout).unwrap();
    fs::write(&output, "x".repeat(1 << 20)).unwrap();
    let run = tlstrace(&["report", "/nonexistent", input.to_str().unwrap(), "-o", output.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("/nonexistent"));
    let page = fs::read_to_string(&output).unwrap();
    assert!(page.contains("port_closed") && page.ends_with("</html>"), "what was there before is gone");
    let run = tlstrace(&["replay", "--report", "/nonexistent/report.html", input.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&run.stderr).contains("cannot write the report /nonexistent/report.html")
    );
}

#[test]
fn a_browser_shows_it_in_both_colour_schemes_and_runs_nothing_that_peers_sent() {
    if !installed("chromium") {
        return skip("chromium is not installed");
    }
    let directory = Directory::new("browser");
    let lines = replay(&["--all", "-o", "json", "--summary", "json"], &captures());
    let lines = [lines.stdout, hostile()].concat();
    let page = directory.file("report.html");
    fs::write(&page, report(&[], &lines)).unwrap();

    let document = chromium(&directory, &page, &["--dump-dom"]);
    let document = String::from_utf8(document.stdout).unwrap();
    assert!(document.contains("&lt;img src=x onerror=alert(1)&gt;"), "{document}");
    let shown = document.split_once("<body>").unwrap().1;
    for element in ["<img", "<script", "<iframe", "<link", "<b>"] {
        assert!(!shown.contains(element), "{element} in {shown}");
    }
    for element in ["<h1>", "<svg class=\"timeline\"", "<table>", "sni_missing"] {
        assert!(shown.contains(element), "{element} in {shown}");
    }

    let image = directory.file("page.png");
    for (scheme, background) in [("1", LIGHT), ("0", DARK)] {
        let screenshot = format!("--screenshot={}", image.display());
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        chromium(&directory, &page, &[&screenshot, &scheme, "--window-size=1200,2000"]);
        // The policy lets no other style apply than the one whose digest it holds.
        assert_eq!(first_pixel(&fs::read(&image).unwrap()), background);
        fs::remove_file(&image).unwrap();
    }
}

/// A verdict of which every text is markup.
fn hostile() -> Vec<u8> {
    let lines = replay(&["--verdict", "sni_missing", "-o", "json"], &captures()).stdout;
    let mut line: Value = serde_json::from_slice(lines.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let markup = "</style></svg><b><img src=x onerror=alert(1)><script>alert(2)</script>";
    line["tls"]["client"]["server_name"] = json!(markup);
    line["tls"]["client"]["ja4"] = json!(markup);
    line["tls"]["server"] = json!({ "subject": markup, "not_after": "2020-01-01T00:00:00Z" });
    let trace = line["tlstrace"].as_object_mut().unwrap();
    for field in ["verdict", "summary", "remedy"] {
        trace.insert(field.to_owned(), json!(markup));
    }
    trace.insert("evidence".to_owned(), json!([{ "fact": markup, "detail": markup }]));
    trace.insert("alternatives".to_owned(), json!([{ "verdict": markup, "why": markup }]));
    line.to_string().into_bytes()
}

/// Opens a page in a browser that has no network and no memory.
fn chromium(directory: &Directory, page: &Path, arguments: &[&str]) -> Output {
    let profile = format!("--user-data-dir={}", directory.file("profile").display());
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", &profile]);
    let output = command.args(arguments).arg(format!("file://{}", page.display())).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Red, green and blue of the upper left corner of a PNG (ISO/IEC 15948): there, every filter leaves bytes as they are.
fn first_pixel(png: &[u8]) -> [u8; 3] {
    let mut chunks = &png[8..];
    let mut pixels = Vec::new();
    while let [a, b, c, d, rest @ ..] = chunks {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if rest.starts_with(b"IDAT") {
            pixels.extend_from_slice(&rest[4..4 + length]);
        }
        chunks = &rest[4 + length + 4..];
    }
    let mut first = [0; 4];
    ZlibDecoder::new(&*pixels).read_exact(&mut first).unwrap();
    [first[1], first[2], first[3]]
}

/// Captures of which most fail, in different ways.
fn captures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let names =
        ["closed_port.pcap", "nginx_reject_handshake_no_sni.pcap", "sll_tls.pcap", "1.2_resumption.pcap"];
    names.map(|name| directory.join(name)).to_vec()
}

fn replay(arguments: &[&str], files: &[PathBuf]) -> Output {
    let files = files.iter().map(|file| file.to_str().unwrap());
    let arguments: Vec<_> = ["replay"].into_iter().chain(arguments.iter().copied()).chain(files).collect();
    let output = tlstrace(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The report of lines that come over standard input.
fn report(arguments: &[&str], lines: &[u8]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    command.arg("report").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn tlstrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tlstrace")).args(arguments).output().unwrap()
}

/// A directory of the test's own, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tlstrace-report-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
