//! `cargo xtask conformance`: every capture with a reference answer, through the same reader and engine
//! as `tlstrace replay`, compared field by field; with `--verdicts`, the labelled lab captures, and over all captures
//! that no connection which completed its handshake and carried data is called a failure.
//!
//! The facts are compared, not the JSON: the reference speaks of code points, the JSON of their names.

mod fields;
mod verdicts;

use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tlstrace::capture::file::CaptureReader;
use tlstrace::command::replay;
use tlstrace::engine::{Engine, Output, Settings};
use tlstrace::verdict::Verdict;

pub(crate) use self::verdicts::pcaps;

/// Compare what the engine reads in captures with what other programs read.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Directory that holds `public/` and `lab/` [default: shared/captures beside this project].
    captures: Option<PathBuf>,
    /// Judge the labelled lab captures instead.
    #[arg(long)]
    verdicts: bool,
    /// Only captures whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Least agreement, in percent, of every field (or of all verdicts).
    #[arg(long, value_name = "PERCENT", default_value_t = 99.5)]
    min: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let captures = match &args.captures {
        Some(captures) => captures.clone(),
        None => beside_the_project()?,
    };
    let report = if args.verdicts {
        verdicts::compare(&captures.join("lab"), &args.only)?
    } else {
        fields::compare(&captures.join("public"), &args.only)?
    };
    io::stdout().write_all(report.text.as_bytes())?;
    if args.verdicts {
        let false_alarms = verdicts::false_alarms(&captures, &args.only)?;
        io::stdout().write_all(false_alarms.text.as_bytes())?;
        ensure!(
            false_alarms.count == 0,
            "{} connections that worked are called failures",
            false_alarms.count
        );
    }
    ensure!(
        report.least_agreement >= args.min,
        "agreement of {:.2} % is below the target of {} %",
        report.least_agreement,
        args.min
    );
    Ok(())
}

/// What a comparison found.
struct Report {
    text: String,
    /// In percent: of the field that agrees least, or of all verdicts.
    least_agreement: f64,
}

/// The last verdict on each connection of a capture, in the order in which the first one was passed.
pub(crate) fn verdicts_of(capture: &Path) -> anyhow::Result<Vec<Verdict>> {
    let mut engine = Engine::new(Settings::default());
    let mut reader = CaptureReader::open(capture)?;
    let mut verdicts: Vec<Verdict> = Vec::new();
    replay::feed(&mut reader, &mut engine, &mut |output| {
        let Output::Verdict(verdict) = output;
        let connection = verdict.facts.connection;
        match verdicts.iter_mut().find(|earlier| earlier.facts.connection == connection) {
            Some(earlier) => *earlier = verdict,
            None => verdicts.push(verdict),
        }
        Ok(ControlFlow::Continue(()))
    })
    .with_context(|| format!("replaying {}", capture.display()))?;
    Ok(verdicts)
}

fn percentage(part: usize, whole: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few thousand rows")]
    if whole == 0 { 100.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// `shared/captures` in any directory above the project.
pub(crate) fn beside_the_project() -> anyhow::Result<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for directory in project.ancestors() {
        let captures = directory.join("shared/captures");
        if captures.is_dir() {
            return Ok(captures);
        }
    }
    bail!("there is no shared/captures above {}; name the directory", project.display())
}
