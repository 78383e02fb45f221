//! `tlstrace probe`: asks one endpoint, one connection at a time, what it accepts.
//!
//! What is asked and what follows from it is decided in [`crate::probe`]; here are the sockets and the clock.

mod connect;
mod handshake;

use std::io::{self, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use tokio::net::lookup_host;
use tokio::time;

use self::connect::Connector;
use super::Exit;
use crate::cli::notice;
use crate::cli::probe::{FormatArg, Probe};
use crate::probe::render::Subject;
use crate::probe::report::is_unreachable;
use crate::probe::{Answers, MAX_CONNECTIONS, Report, next_attempt};

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 4;

/// Probes the endpoint and prints what was found.
pub(super) fn run(settings: &Probe) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the tokio runtime")?.block_on(probe(settings))
}

async fn probe(settings: &Probe) -> anyhow::Result<Exit> {
    let mut connector = Connector::new(settings)?;
    let addresses = addresses(settings).await?;
    let mut address = *addresses.first().context("there is no address")?;
    let target = &settings.target;
    notice(format_args!(
        "probing {} at {address}: at most {MAX_CONNECTIONS} connections, one at a time, {:?} apart",
        settings.endpoint, settings.pace
    ));
    let mut answers = Answers::default();
    while let Some(attempt) = next_attempt(target, &answers) {
        if answers.is_empty() {
            // The first address that answers is the one that is probed.
            let mut outcome = connector.attempt(&attempt, address).await;
            for other in addresses.iter().skip(1) {
                if !is_unreachable(&outcome.answer) {
                    break;
                }
                address = *other;
                outcome = connector.attempt(&attempt, address).await;
            }
            answers.insert(attempt, outcome);
            continue;
        }
        if answers.len() >= MAX_CONNECTIONS {
            break;
        }
        time::sleep(settings.pace).await;
        let outcome = connector.attempt(&attempt, address).await;
        answers.insert(attempt, outcome);
    }
    let report = Report::new(target, &answers, connector.now());
    let host = settings.endpoint.to_string();
    let subject = Subject { host: &host, address, server_name: target.server_name.as_deref() };
    let text = match settings.format {
        FormatArg::Text => report.text(subject),
        FormatArg::Json => format!("{}\n", report.json(subject)),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(if report.is_reachable() { Exit::Done } else { Exit::Failed })
}

async fn addresses(settings: &Probe) -> anyhow::Result<Vec<SocketAddr>> {
    if let Some(address) = settings.connect {
        return Ok(vec![address]);
    }
    let endpoint = &settings.endpoint;
    if let Some(ip) = endpoint.ip() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
    }
    let found = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let found: Vec<_> =
        found.with_context(|| format!("{} has no address", endpoint.host))?.take(MAX_ADDRESSES).collect();
    ensure!(!found.is_empty(), "{} has no address", endpoint.host);
    Ok(found)
}
