//! `cargo xtask disagree`: captured connections, told anew with changes, as tshark and as tlstrace read them.
//!
//! Every round takes each connection once, changes what is said in it or how it is sent (`mutation`), and has both read
//! the same file. What they disagree about is tried again with fewer changes, and printed with the least that it takes;
//! the connection alone is kept as a capture. The same seed gives the same rounds.

mod conversation;
mod explain;
mod mutation;
mod random;
mod reading;
mod tshark;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use self::conversation::{Conversation, Packet, client_address, pcap};
use self::explain::explain;
use self::mutation::{Kind, Mutation, mutate};
use self::random::Random;
use self::reading::{Difference, differences};
use crate::cargo::workspace;
use crate::conformance::{beside_the_project, pcaps};

/// Most changes to a connection.
const MAX_MUTATIONS: usize = 3;
/// Disagreements of one sort that are printed and kept.
const MAX_SHOWN: usize = 3;

/// Look for connections that tshark reads otherwise
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Directories with captures [default: those of the tests, and shared/captures beside this project]
    captures: Vec<PathBuf>,
    /// What decides the changes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each connection is changed
    #[arg(long, default_value_t = 10)]
    rounds: u64,
}

/// A connection and what was done to it.
struct Case<'a> {
    capture: &'a str,
    conversation: &'a Conversation,
    mutations: Vec<Mutation>,
}

impl Case<'_> {
    fn packets(&self) -> Vec<Packet> {
        mutate(self.conversation, &self.mutations)
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.mutations.iter().map(|mutation| mutation.kind).collect();
        kinds.sort();
        kinds
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let originals = originals(&args.captures)?;
    ensure!(!originals.is_empty(), "no connection was found");
    let folder = workspace().join("target/disagree");
    fs::create_dir_all(&folder)?;
    let mut sorts: BTreeMap<(&str, Vec<Kind>), usize> = BTreeMap::new();
    let mut explained: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut compared, mut disagreements) = (0, 0);
    for round in 0..args.rounds {
        let cases: Vec<_> = (0..)
            .zip(&originals)
            .map(|(number, (capture, conversation))| {
                let mut random = Random::new(args.seed ^ (round << 40) ^ (number << 16));
                let count = if round == 0 { 0 } else { 1 + random.below(MAX_MUTATIONS) };
                let mutations = (0..count).map(|_| Mutation::random(&mut random)).collect();
                Case { capture, conversation, mutations }
            })
            .collect();
        let found = compare(&folder, &cases)?;
        compared += cases.len();
        for (case, difference) in minimal(&folder, &cases, &found)? {
            if let Some(why) = difference.why {
                *explained.entry(why).or_default() += 1;
                continue;
            }
            disagreements += 1;
            let seen = sorts.entry((difference.field, case.kinds())).or_default();
            *seen += 1;
            if *seen <= MAX_SHOWN {
                let kept = folder.join(format!("{}-{disagreements}.pcap", args.seed));
                fs::write(&kept, pcap(&[case.packets()]))?;
                show(&case, &difference, &kept)?;
            }
        }
    }
    let mut out = io::stdout();
    for (why, count) in explained {
        writeln!(out, "{count:6} explained: {why}")?;
    }
    for ((field, kinds), count) in sorts {
        writeln!(out, "{count:6} {field} {kinds:?}")?;
    }
    writeln!(out, "{compared} connections compared, {disagreements} disagreements not explained")?;
    Ok(if disagreements == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All connections of all captures, with the names of these.
fn originals(directories: &[PathBuf]) -> Result<Vec<(String, Conversation)>> {
    let mut directories = directories.to_vec();
    if directories.is_empty() {
        directories.push(workspace().join("tlstrace/tests/captures"));
        directories.extend(beside_the_project().ok());
    }
    let mut found = Vec::new();
    for directory in &directories {
        for path in pcaps(directory)? {
            let name = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
            found.extend(Conversation::read_all(&path).into_iter().map(|one| (name.clone(), one)));
        }
    }
    Ok(found)
}

/// In what tshark and tlstrace differ, for each of the connections.
fn compare(folder: &Path, cases: &[Case<'_>]) -> Result<Vec<Vec<Difference>>> {
    let file = folder.join(format!("round-{}.pcap", std::process::id()));
    let connections: Vec<_> = cases.iter().map(Case::packets).collect();
    fs::write(&file, pcap(&connections)).with_context(|| format!("cannot write {}", file.display()))?;
    let (theirs, ours) = (tshark::read(&file)?, reading::read(&file)?);
    fs::remove_file(&file)?;
    let of_case = |number, packets: &[Packet]| {
        let client = client_address(number).ip();
        let [theirs, ours] = [&theirs, &ours].map(|side| side.get(&client).cloned().unwrap_or_default());
        let mut found = differences(&theirs, &ours);
        for difference in &mut found {
            let case = explain::Case { field: difference.field, theirs: &theirs, ours: &ours, packets };
            difference.why = explain(&case);
        }
        found
    };
    Ok((0..).zip(&connections).map(|(number, packets)| of_case(number, packets)).collect())
}

/// Each difference with the fewest changes that it takes.
fn minimal<'a>(
    folder: &Path,
    cases: &[Case<'a>],
    found: &[Vec<Difference>],
) -> Result<Vec<(Case<'a>, Difference)>> {
    // Fewest changes first.
    let mut subsets: Vec<u32> = (0..1 << MAX_MUTATIONS).collect();
    subsets.sort_by_key(|subset: &u32| subset.count_ones());
    let mut tries = Vec::new();
    let mut wanted = Vec::new();
    for (case, differences) in cases.iter().zip(found).filter(|(_, differences)| !differences.is_empty()) {
        let first = tries.len();
        for subset in subsets.iter().filter(|subset| **subset < 1 << case.mutations.len()) {
            let is_in = |(place, _): &(usize, &Mutation)| subset & (1 << place) != 0;
            let mutations = case.mutations.iter().enumerate().filter(is_in).map(|(_, one)| *one).collect();
            tries.push(Case { mutations, ..*case });
        }
        wanted.extend(differences.iter().map(|difference| (first..tries.len(), difference.field)));
    }
    if tries.is_empty() {
        return Ok(Vec::new());
    }
    let mut results = compare(folder, &tries)?;
    let least = |(range, field): (std::ops::Range<usize>, &str)| {
        range.into_iter().find_map(|place| {
            let differences = results.get_mut(place)?;
            let at = differences.iter().position(|difference| difference.field == field)?;
            let Case { capture, conversation, mutations } = tries.get(place)?;
            let case = Case { capture, conversation, mutations: mutations.clone() };
            Some((case, differences.remove(at)))
        })
    };
    Ok(wanted.into_iter().filter_map(least).collect())
}

fn show(case: &Case<'_>, difference: &Difference, kept: &Path) -> Result<()> {
    let Difference { field, theirs, ours, .. } = difference;
    let (capture, kinds) = (case.capture, case.kinds());
    let kept = kept.file_name().unwrap_or_default().display();
    writeln!(
        io::stdout(),
        "{field}: {capture} {kinds:?} (target/disagree/{kept})\n    tshark   {theirs}\n    tlstrace {ours}"
    )?;
    Ok(())
}
