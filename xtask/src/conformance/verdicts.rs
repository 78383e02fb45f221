//! Lab captures against their labels: which verdict each failure should get, and who is to blame.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tlstrace::engine::facts::Role;
use tlstrace::verdict::{Confidence, Severity, Verdict};

use super::{Report, percentage, verdicts_of};

/// What a verdict is worth, best first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Grade {
    Best,
    Tolerable,
    /// The label is `ok`, which is about the ClientHello being understood: the handshake did not complete.
    NoHandshake,
    /// `undetermined`, or none at all.
    None,
    /// Wrong, but said to be a suspicion.
    WrongSuspected,
    WrongConfident,
}

impl Grade {
    const ALL: [Self; 6] = [
        Self::Best,
        Self::Tolerable,
        Self::NoHandshake,
        Self::None,
        Self::WrongSuspected,
        Self::WrongConfident,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Tolerable => "tolerable",
            Self::NoHandshake => "ok without handshake",
            Self::None => "none or undetermined",
            Self::WrongSuspected => "wrong, suspected",
            Self::WrongConfident => "wrong, confident",
        }
    }
}

struct Label<'a> {
    file: &'a str,
    best: Vec<&'a str>,
    tolerable: Vec<&'a str>,
    blame: Vec<&'a str>,
}

pub(super) fn compare(lab: &Path, only: &str) -> anyhow::Result<Report> {
    let path = lab.join("labels.tsv");
    let labels = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut counts: BTreeMap<Grade, usize> = BTreeMap::new();
    let mut misses = String::new();
    let mut files = 0;
    for label in labels.lines().skip(1).filter_map(label).filter(|label| label.file.contains(only)) {
        files += 1;
        let verdicts = verdicts_of(&lab.join(format!("{}.pcap", label.file)))?;
        let grades: Vec<_> = verdicts.iter().map(|verdict| grade(&label, verdict)).collect();
        let grade = overall(&grades);
        *counts.entry(grade).or_default() += 1;
        let blame_differs = verdicts.iter().zip(&grades).any(|(verdict, grade)| {
            let blame = verdict.blame.as_str();
            *grade == Grade::Best && !label.blame.is_empty() && !label.blame.contains(&blame)
        });
        if grade > Grade::Tolerable || blame_differs {
            let found: Vec<_> = verdicts.iter().map(describe).collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            let expected = label.best.join(" or ");
            let what = if grade > Grade::Tolerable { grade.as_str() } else { "blame" };
            let blame = label.blame.join(" or ");
            writeln!(misses, "{what:22}{}: {found}; should be {expected} {blame}", label.file)?;
        }
    }
    let mut text = String::new();
    for grade in Grade::ALL {
        writeln!(text, "{:22}{:5}", grade.as_str(), counts.get(&grade).copied().unwrap_or_default())?;
    }
    writeln!(text, "{:22}{files:5}\n\n{misses}", "files")?;
    let right = [Grade::Best, Grade::Tolerable].iter().filter_map(|grade| counts.get(grade)).sum();
    let unfinished = counts.get(&Grade::NoHandshake).copied().unwrap_or_default();
    Ok(Report { text, least_agreement: percentage(right, files - unfinished) })
}

/// Connections that worked and are called failures.
pub(super) struct FalseAlarms {
    pub(super) text: String,
    pub(super) count: usize,
}

/// Looks for them in all captures.
pub(super) fn false_alarms(captures: &Path, only: &str) -> anyhow::Result<FalseAlarms> {
    let (mut connections, mut worked, mut count, mut lines) = (0, 0, 0, String::new());
    for path in pcaps(captures)? {
        let name = path.strip_prefix(captures).unwrap_or(&path).display().to_string();
        if !name.contains(only) {
            continue;
        }
        // Some public captures are damaged on purpose.
        let Ok(verdicts) = verdicts_of(&path) else { continue };
        connections += verdicts.len();
        for verdict in &verdicts {
            let progress = &verdict.facts.progress;
            let is_used = progress.client_data.is_some() && progress.server_data.is_some();
            if progress.complete.is_none() || !is_used {
                continue;
            }
            worked += 1;
            if verdict.severity > Severity::Info {
                let is_error = verdict.severity == Severity::Error;
                count += usize::from(is_error);
                writeln!(lines, "{:22}{name}: {}", verdict.severity, describe(verdict))?;
            }
        }
    }
    let text = format!(
        "{connections} connections in all captures; {worked} completed and carried data both ways, of which {count} are \
         called errors\n{lines}"
    );
    Ok(FalseAlarms { text, count })
}

/// All capture files below a directory, in order.
pub(crate) fn pcaps(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pcaps(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng" || kind == "cap") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The client left in the middle of the handshake, and that is all that is known.
fn is_left_by_client(verdict: &Verdict) -> bool {
    let facts = &verdict.facts;
    let is_silent = facts.client().alerts.is_empty() && facts.progress.client_finished.is_none();
    let is_by_client = verdict.ended_by.is_some_and(|ended| ended.side == Role::Client);
    is_silent && is_by_client && verdict.severity <= Severity::Warning
}

fn label(line: &str) -> Option<Label<'_>> {
    let mut columns = line.split('\t');
    let mut column = || columns.next();
    let file = column()?;
    let mut list = || column().unwrap_or_default().split('|').filter(|id| !id.is_empty()).collect();
    Some(Label { file, best: list(), tolerable: list(), blame: list() })
}

fn grade(label: &Label<'_>, verdict: &Verdict) -> Grade {
    let id = verdict.id;
    if label.best.contains(&id) {
        Grade::Best
    } else if label.tolerable.contains(&id) {
        Grade::Tolerable
    } else if id == "undetermined" {
        Grade::None
    } else if label.best == ["ok"] && is_left_by_client(verdict) {
        Grade::NoHandshake
    } else if verdict.confidence == Confidence::Suspected {
        Grade::WrongSuspected
    } else {
        Grade::WrongConfident
    }
}

/// The grade of a capture. Beside the connection that it was made for, it may hold one that failed to be
/// captured whole: nothing need be said of that one, but nothing wrong either.
fn overall(grades: &[Grade]) -> Grade {
    let worst = grades.iter().max().copied().unwrap_or(Grade::None);
    if worst > Grade::None { worst } else { grades.iter().min().copied().unwrap_or(Grade::None) }
}

fn describe(verdict: &Verdict) -> String {
    let (confidence, blame) = (verdict.confidence.as_str(), verdict.blame.as_str());
    format!("{} ({confidence}, {blame}, {})", verdict.id, verdict.facts.history.as_str())
}
