//! Lab captures against their labels: which verdict each failure should get, and who is to blame.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use tlstrace::verdict::{Confidence, Verdict};

use super::{Report, percentage, verdicts_of};

/// What a verdict is worth, best first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Grade {
    Best,
    Tolerable,
    /// `undetermined`, or none at all.
    None,
    /// Wrong, but said to be a suspicion.
    WrongSuspected,
    WrongConfident,
}

impl Grade {
    const ALL: [Self; 5] =
        [Self::Best, Self::Tolerable, Self::None, Self::WrongSuspected, Self::WrongConfident];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Tolerable => "tolerable",
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
    Ok(Report { text, least_agreement: percentage(right, files) })
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
