//! `tlstrace cleanup`: removes what a killed run left on clsact hooks, and nothing else; proves it with a list.

use std::io::{self, Write as _};

use serde::Serialize;

use super::Exit;
use crate::capture::filters::{self, Fate, Listed};
use crate::capture::interfaces::{self, Interface};
use crate::capture::{self, AttachError};
use crate::cli::notice;
use crate::cli::settings::{Cleanup, Format};

/// Looks at every interface that is meant; one that cannot be cleaned does not keep the others from it.
pub(super) fn run(settings: &Cleanup) -> anyhow::Result<Exit> {
    if let Some(namespace) = &settings.network_namespace {
        capture::enter(namespace)?;
    }
    let mut out = io::stdout().lock();
    let (mut removed, mut kept, mut is_failed) = (0, 0, false);
    for interface in settings.interfaces.choose(&interfaces::list()?)? {
        let found = match filters::sweep(&interface, !settings.is_dry_run) {
            Ok(found) => found,
            // Gone since it was listed.
            Err(_) if interfaces::index_of(&interface.name) != Some(interface.index) => {
                log::info!("{}", AttachError::Gone(interface.name));
                continue;
            }
            Err(error) => {
                is_failed = true;
                notice(format_args!("tlstrace: {interface}: {error:#}"));
                continue;
            }
        };
        for (filter, fate) in &found {
            match fate {
                Fate::Removed | Fate::Removable => removed += 1,
                Fate::InUse | Fate::Foreign => kept += 1,
            }
            match settings.format {
                Format::Text => writeln!(out, "{interface} {filter}  {}", fate.text())?,
                Format::Json => {
                    serde_json::to_writer(&mut out, &Line::new(&interface, filter, *fate))?;
                    writeln!(out)?;
                }
            }
        }
    }
    let verb = if settings.is_dry_run { "would be removed" } else { "removed" };
    notice(format_args!(
        "{removed} filters {verb}, {kept} left alone. TCX and packet sockets end with their process, and a qdisc is \
         never removed"
    ));
    Ok(if is_failed { Exit::Failed } else { Exit::Done })
}

/// A filter as JSON.
#[derive(Serialize)]
struct Line<'a> {
    interface: &'a str,
    direction: &'static str,
    priority: u16,
    handle: u32,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program_id: Option<u32>,
    fate: &'static str,
    why: &'static str,
}

impl<'a> Line<'a> {
    fn new(interface: &'a Interface, filter: &'a Listed, fate: Fate) -> Self {
        let program = filter.program();
        Self {
            interface: &interface.name,
            direction: filter.direction(),
            priority: filter.priority(),
            handle: filter.handle(),
            kind: filter.kind(),
            program: program.map(|program| program.name.as_str()),
            program_id: program.map(|program| program.id),
            fate: fate.as_str(),
            why: fate.text(),
        }
    }
}
