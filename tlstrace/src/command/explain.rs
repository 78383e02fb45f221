//! `tlstrace explain [ID]`: what a verdict means, how to confirm it, how to fix it; without ID, the catalogue.

use std::io::{self, Write as _};

use super::Exit;
use crate::cli::args::ExplainArgs;
use crate::cli::notice;
use crate::verdict::explain;

/// Prints it.
pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<Exit> {
    let text = match &args.id {
        None => explain::catalogue(),
        Some(id) => {
            let Some(page) = explain::page(id, args.product) else {
                let similar = explain::similar(id);
                if similar.is_empty() {
                    notice(format_args!("tlstrace: no verdict is called {id}; tlstrace explain lists them"));
                } else {
                    notice(format_args!(
                        "tlstrace: no verdict is called {id}; is it {}?",
                        similar.join(", ")
                    ));
                }
                return Ok(Exit::Usage);
            };
            page
        }
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A pager that was left early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => Ok(other.map(|()| Exit::Done)?),
    }
}
