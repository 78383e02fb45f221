//! `cargo xtask fuzz`: libFuzzer on every target of `tlstrace/fuzz`, one after another, and a table of what it did.
//!
//! Needs a nightly toolchain and `cargo install cargo-fuzz`. What is found in between lies in `tlstrace/fuzz/work`, which
//! is not committed; `--keep` takes the smallest inputs that reach all of it into `tlstrace/fuzz/corpus`, which is, and
//! which plain `cargo test` plays. `--seed` fills the former from captures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tlstrace::capture::file::{self, CaptureReader};
use tlstrace_common::encapsulation::LinkKind;

use crate::cargo::workspace;

/// Longest input, in bytes: some records, some messages, some frames.
const MAX_LEN: usize = 4096;
/// Most bytes of a target's committed corpus.
const MAX_CORPUS: usize = 64 * 1024;

/// Fuzz what reads bytes from others
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets; all of them by default
    targets: Vec<String>,
    /// Minutes for each
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Take the inputs that matter into the committed corpus afterwards
    #[arg(long)]
    keep: bool,
    /// First take inputs from the capture files of these directories
    #[arg(long, value_name = "DIRECTORY")]
    seed: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = workspace().join("tlstrace/fuzz");
    for directory in &args.seed {
        seed(directory, &folder.join("work"))?;
    }
    let targets = if args.targets.is_empty() { targets(&folder)? } else { args.targets.clone() };
    let mut table = String::from(
        "| target | executions | minutes | coverage (edges) | corpus |\n|---|---|---|---|---|\n",
    );
    for target in &targets {
        let [work, corpus] = ["work", "corpus"].map(|kind| folder.join(kind).join(target));
        fs::create_dir_all(&work)?;
        fs::create_dir_all(&corpus)?;
        let seconds = format!("-max_total_time={}", (args.minutes * 60.0).round());
        let run = fuzz(&folder, target, &[&work, &corpus], &[&seconds])?;
        if args.keep {
            keep(&folder, target, &work, &corpus)?;
        }
        let kept = fs::read_dir(&corpus)?.count();
        let minutes = args.minutes;
        let Run { executions, coverage } = run;
        writeln!(table, "| `{target}` | {executions} | {minutes} | {coverage} | {kept} |")?;
    }
    io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

/// What a run says at its end.
#[derive(Default)]
struct Run {
    executions: String,
    coverage: String,
}

fn fuzz(folder: &Path, target: &str, corpora: &[&Path], options: &[&str]) -> Result<Run> {
    let mut command = Command::new("cargo");
    // There is no unsafe code behind these targets, so bounds and overflows are checked by the language.
    command.args(["+nightly", "fuzz", "run", "--sanitizer", "none", "--fuzz-dir"]).arg(folder).arg(target);
    command.args(corpora).arg("--").arg(format!("-max_len={MAX_LEN}"));
    command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]).args(options);
    // The toolchain that runs this is another one than that which fuzzes.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").current_dir(folder);
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot run cargo")?;
    let lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
    let mut run = Run::default();
    let mut last = Vec::new();
    for line in lines {
        let line = line?;
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            count.trim().clone_into(&mut run.executions);
        }
        let mut words = line.split_whitespace();
        if words.by_ref().any(|word| word == "cov:") {
            words.next().unwrap_or_default().clone_into(&mut run.coverage);
        }
        if !line.starts_with('#') {
            last.push(line);
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "{target} failed:\n{}", last.join("\n"));
    writeln!(io::stderr(), "{target}: {} executions, coverage {}", run.executions, run.coverage)?;
    Ok(run)
}

/// The smallest inputs that reach what all inputs reach, as far as they fit.
fn keep(folder: &Path, target: &str, work: &Path, corpus: &Path) -> Result<()> {
    let merged = folder.join("work").join(format!(".{target}"));
    fs::create_dir_all(&merged)?;
    fuzz(folder, target, &[&merged, corpus, work], &["-set_cover_merge=1"])?;
    fs::remove_dir_all(corpus)?;
    fs::create_dir_all(corpus)?;
    let mut inputs =
        fs::read_dir(&merged)?.map(|entry| Ok(fs::read(entry?.path())?)).collect::<Result<Vec<_>>>()?;
    inputs.sort_by_key(Vec::len);
    let mut total = 0;
    for input in inputs {
        total += input.len();
        if total > MAX_CORPUS {
            break;
        }
        save(corpus, &input)?;
    }
    fs::remove_dir_all(&merged)?;
    Ok(())
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Inputs for the targets out of every capture file of a directory.
fn seed(directory: &Path, work: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng") {
            let bytes = fs::read(&path)?;
            seed_from(&path, &bytes, &|target, input| {
                let folder = work.join(target);
                fs::create_dir_all(&folder)?;
                save(&folder, input.get(..MAX_LEN).unwrap_or(input))
            })?;
        }
    }
    Ok(())
}

type Save<'a> = dyn Fn(&str, &[u8]) -> Result<()> + 'a;

fn seed_from(path: &Path, bytes: &[u8], save: &Save<'_>) -> Result<()> {
    save("capture_file", bytes)?;
    let mut streams: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    // A capture that others made may be anything.
    let Ok(mut reader) = CaptureReader::open(path) else { return Ok(()) };
    let mut frames = 0;
    while let Ok(Some(frame)) = reader.next_frame() {
        let Some(kind) = LinkKind::from_link_type(frame.link_type) else { continue };
        frames += 1;
        if frames <= 4 {
            let link_type = u16::try_from(frame.link_type).unwrap_or_default().to_be_bytes();
            save("walk", &[&link_type, &[0, 0], frame.data].concat())?;
        }
        if let Ok(segment) = file::segment(&frame, kind) {
            let stream = streams.entry((segment.source, segment.destination)).or_default();
            if stream.len() < 16 * 1024 {
                segment.chunks.iter().for_each(|chunk| stream.extend_from_slice(chunk.bytes));
            }
        }
    }
    for stream in streams.values().filter(|stream| !stream.is_empty()).take(8) {
        save("records", &[&[1, 2, 3, 4, 0][..], stream].concat())?;
        save("answer", &[&[1, 2, 3, 4][..], stream].concat())?;
        save("prelude", stream.get(..200).unwrap_or(stream))?;
        for (kind, body) in messages(stream) {
            // TLS 1.2 with an ECDHE suite.
            save("message", &[&[kind, 0x13][..], &body].concat())?;
            match kind {
                1 => {
                    save("client_hello", &body)?;
                    for extension in extensions(&body) {
                        save("extension", &extension)?;
                    }
                }
                // The first certificate of the list.
                11 => save("certificate", body.get(6..).unwrap_or_default())?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Type and body of the plaintext handshake messages at the beginning of a stream.
fn messages(mut stream: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut handshake = Vec::new();
    while let Some((&[22, 3, _, high, low], rest)) = stream.split_first_chunk() {
        let Some((body, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low]))) else {
            break;
        };
        handshake.extend_from_slice(body);
        stream = rest;
    }
    let mut messages = Vec::new();
    let mut rest = handshake.as_slice();
    while let Some((&[kind, a, b, c], tail)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((body, tail)) = tail.split_at_checked(length) else { break };
        messages.push((kind, body.to_vec()));
        rest = tail;
    }
    messages
}

/// Type and content of a ClientHello's extensions.
fn extensions(body: &[u8]) -> Vec<Vec<u8>> {
    let read = || -> Option<Vec<Vec<u8>>> {
        let session_id = usize::from(*body.get(34)?);
        let suites_at = 35 + session_id;
        let suites = usize::from(u16::from_be_bytes(*body.get(suites_at..)?.first_chunk()?));
        let compression_at = suites_at + 2 + suites;
        let mut rest = body.get(compression_at + 1 + usize::from(*body.get(compression_at)?) + 2..)?;
        let mut extensions = Vec::new();
        while let Some((&[a, b, high, low], tail)) = rest.split_first_chunk() {
            let (content, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
            extensions.push([&[a, b][..], content].concat());
            rest = tail;
        }
        Some(extensions)
    };
    read().unwrap_or_default()
}

/// Under the name of its digest, as libFuzzer does.
fn save(folder: &Path, input: &[u8]) -> Result<()> {
    let digest = Sha256::digest(input);
    let mut name = String::new();
    for byte in digest.iter().take(8) {
        write!(name, "{byte:02x}")?;
    }
    fs::write(folder.join(name), input)?;
    Ok(())
}
