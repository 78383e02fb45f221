//! `tlstrace doctor`: what [`crate::doctor`] finds, as lines or as JSON.

use std::io::{self, Write as _};

use serde::Serialize;

use super::Exit;
use crate::capture;
use crate::cli::notice;
use crate::cli::settings::{Doctor, Format};
use crate::doctor::{self, Finding, Status};

/// Looks and tells; exit code 3 if `watch` would not work.
pub(super) fn run(settings: &Doctor) -> anyhow::Result<Exit> {
    if let Some(namespace) = &settings.network_namespace {
        capture::enter(namespace)?;
    }
    let findings = doctor::examine(&settings.interfaces);
    let status = findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok);
    let mut out = io::stdout().lock();
    match settings.format {
        Format::Text => findings.iter().try_for_each(|finding| write_line(&mut out, finding))?,
        Format::Json => {
            serde_json::to_writer(
                &mut out,
                &Report { schema: "tlstrace-doctor/1", status, findings: &findings },
            )?;
            writeln!(out)?;
        }
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    match status {
        Status::Ok => notice("tlstrace can watch here"),
        Status::Warning => notice(format_args!("tlstrace can watch here; {} warnings", count(status))),
        Status::Problem => notice(format_args!("tlstrace cannot watch here; problems: {}", count(status))),
    }
    Ok(if status == Status::Problem { Exit::Unavailable } else { Exit::Done })
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    /// The worst of the findings.
    status: Status,
    findings: &'a [Finding],
}

fn write_line(out: &mut impl io::Write, finding: &Finding) -> io::Result<()> {
    let Finding { check, status, text, fix } = finding;
    writeln!(out, "{:8} {check:18} {text}", status.as_str())?;
    let mut lead = "→";
    for line in fix.iter().flat_map(|fix| fix.lines()) {
        writeln!(out, "{:27} {lead} {line}", "")?;
        lead = " ";
    }
    Ok(())
}
