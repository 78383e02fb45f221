//! The live matrix: server stacks × client stacks × causes × TLS versions × IP versions, in one pair of namespaces, under
//! one `tlstrace watch`. Each row of the `table` says which verdict is right; [`run`] says which was given.
//!
//! Each combination has a listener, and so a server port, of its own, by which its verdicts are known. Over one IP version it
//! meets its client cold: the first connection ever. Over the other the listener has accepted handshakes before, so that
//! its history speaks too.

mod agent;
mod clients;
mod oddities;
mod pki;
mod servers;
mod setup;
mod starttls;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use rustls::SupportedProtocolVersion;
use serde_json::Value;

use crate::{Family, Pair, Process, installed, watch};

use agent::{Agent, Language};
use clients::{Client, Clients, Connected, Session};
use pki::Pki;
use servers::{Server, Shared};
use setup::{ClientCertificate, ClientSetup, ServerSetup, Tls};
use table::Row;

/// How much of the table to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Stacks that a test machine can be expected to have.
    Usual,
    /// All stacks that can be found, and every listener cold and warm over both IP versions.
    Wide,
}

/// What a connection should be said to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The best first, then what is less specific and still right.
    pub verdicts: &'static [&'static str],
    /// Empty: any.
    pub blame: &'static [&'static str],
    /// Side and way; `None`: any.
    pub ended_by: Option<(&'static str, &'static str)>,
}

/// A course of the handshake that a verdict tells of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    Resumed,
    /// Offered, at least: the server's answer to it is encrypted.
    EarlyData,
    HelloRetry,
}

/// What was said of it.
#[derive(Clone, Debug)]
pub struct Given {
    pub verdict: String,
    pub blame: String,
    pub confidence: String,
    pub ended_by: String,
    pub history: String,
    pub summary: String,
    pub shows: Vec<Shown>,
}

/// One connection of the matrix.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Cause, server, client, versions, and whether the listener had a history.
    pub connection: String,
    pub expected: Expected,
    /// What it may be revised to: the listener accepted others later.
    pub revised: Option<Expected>,
    /// What the handshake must have been like; `None`: any.
    pub shows: Option<&'static [Shown]>,
    /// `None`: there was no verdict, or it cannot be told from those of other connections.
    pub given: Option<Given>,
    /// Every verdict of the listener is some connection's.
    is_complete: bool,
    /// What the client said.
    pub client_said: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Matrix {
    pub outcomes: Vec<Outcome>,
    /// Stacks that are not here, with what is missing.
    pub skipped: BTreeMap<String, String>,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        self.is(self.expected) || self.revised.is_some_and(|revised| self.is(revised))
    }

    fn is(&self, Expected { verdicts, blame, ended_by }: Expected) -> bool {
        self.given.as_ref().map_or(verdicts.contains(&NOTHING) && self.is_complete, |given| {
            verdicts.contains(&&*given.verdict)
                && (blame.is_empty() || blame.contains(&&*given.blame))
                && ended_by.is_none_or(|(side, how)| given.ended_by == format!("{side} {how}"))
                && self.shows.is_none_or(|shows| given.shows == shows)
        })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Expected { verdicts, blame, ended_by } = self.expected;
        let (side, how) = ended_by.unwrap_or_default();
        write!(
            f,
            "{}\n    expected {} [{}] {side} {how} {:?}",
            self.connection,
            verdicts.join("|"),
            blame.join("|"),
            self.shows.unwrap_or_default(),
        )?;
        match &self.given {
            Some(given) => write!(
                f,
                "\n    given    {} [{}] {} {:?} ({}; {})\n    {}",
                given.verdict,
                given.blame,
                given.ended_by,
                given.shows,
                given.confidence,
                given.history,
                given.summary
            )?,
            None => f.write_str("\n    given    nothing")?,
        }
        write!(f, "\n    client   {}", self.client_said)
    }
}

impl Matrix {
    /// How often each expected verdict was given as which: expected, given, times.
    pub fn confusion(&self) -> BTreeMap<(&str, &str), usize> {
        let mut table = BTreeMap::new();
        for outcome in &self.outcomes {
            let given = outcome.given.as_ref().map_or(NOTHING, |given| &given.verdict);
            let expected = outcome.expected.verdicts.first().copied().unwrap_or_default();
            *table.entry((expected, given)).or_default() += 1;
        }
        table
    }
}

/// A row with one server, one client and one TLS version, and where it listens.
#[derive(Clone, Copy)]
struct Listener {
    row: &'static Row,
    server: Server,
    setup: ServerSetup,
    client: Client,
    tls: Tls,
    port: u16,
}

/// One connection that was made, in the order in which its listener met it.
struct Made {
    listener: Listener,
    family: Family,
    /// How it was met, and as what it should be known.
    role: &'static str,
    expected: Expected,
    revised: Option<Expected>,
    shows: Option<&'static [Shown]>,
    /// The client's port, if the socket is this process's own.
    from: Option<u16>,
    client_said: String,
}

const FIRST_PORT: u16 = 10_000;
/// Accepted handshakes that make a history.
const WARM_UP: usize = 4;
const WORKERS: usize = 12;
/// From the last connection to its verdict: a completed TLS 1.3 handshake is held for a second.
const PATIENCE: Duration = Duration::from_mins(1);

/// No verdict, where that is right.
const NOTHING: &str = "(none)";

const ACCEPTED: Expected = Expected { verdicts: &["ok"], blame: &[], ended_by: None };

/// Runs the table, or the rows of which the cause, server or client contains `only`.
pub fn run(tlstrace: &Path, scope: Scope, only: &str) -> Result<Matrix> {
    let mut matrix = Matrix::default();
    let listeners = listeners(scope, only, &mut matrix.skipped);
    let pair = Pair::new()?;
    let pki = Pki::make()?;
    let uses = |language| {
        listeners.iter().any(|listener| {
            listener.server == Server::Agent(language) || listener.client == Client::Agent(language)
        })
    };
    Language::prepare(pki.directory(), uses)?;
    let uses_nss =
        listeners.iter().any(|listener| listener.server == Server::Nss || listener.client == Client::Nss);
    let nss = uses_nss.then(|| pki.nss_database()).transpose()?;

    let shared = Shared::start(&pair.server, &pki, &listeners)?;
    let mut agents = Vec::new();
    for language in Language::ALL {
        if listeners.iter().any(|listener| listener.client == Client::Agent(language)) {
            agents.push((language, Agent::start(language, &pair.client, pki.directory())?));
        }
    }
    let clients = Clients { namespace: &pair.client, pki: &pki, nss: nss.as_deref(), agents };
    let interface = ["-o", "json", "--all", "-i", Pair::SERVER_INTERFACE];
    let mut watch = watch(&pair.server, tlstrace, &interface)?;

    let next = AtomicUsize::new(0);
    let made = Mutex::new(Vec::new());
    thread::scope(|scope_of_threads| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope_of_threads.spawn(|| -> Result<()> {
                    while let Some(listener) = listeners.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _running = servers::start(&pair.server, &pki, nss.as_deref(), listener)
                            .with_context(|| listener.describe())?;
                        let connections =
                            meet(&clients, listener, scope).with_context(|| listener.describe())?;
                        made.lock().unwrap_or_else(PoisonError::into_inner).extend(connections);
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdicts = verdicts(&mut watch, made.len())?;
    drop(shared);
    matrix.outcomes = outcomes(made, &verdicts);
    Ok(matrix)
}

/// Every combination of the table that can be run here.
fn listeners(scope: Scope, only: &str, skipped: &mut BTreeMap<String, String>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut is_here = |name: String, programs: &[&str], is_optional: bool| {
        if is_optional && scope == Scope::Usual {
            return false;
        }
        let missing = programs.iter().find(|program| !installed(program));
        if let Some(missing) = missing {
            skipped.insert(name, format!("{missing} is not on the PATH"));
        }
        missing.is_none()
    };
    let mut port = FIRST_PORT;
    for row in table::TABLES.iter().copied().flatten() {
        for &server in row.servers {
            let is_wide = scope == Scope::Wide && !row.wide.is_empty();
            for &client in if is_wide { row.wide } else { row.clients } {
                let name = format!("{} {server:?} {client:?}", row.cause);
                if !name.contains(only)
                    || !is_here(format!("server {server:?}"), server.programs(), server.is_optional())
                    || !is_here(format!("client {client:?}"), client.programs(), client.is_optional())
                {
                    continue;
                }
                for &tls in row.tls {
                    listeners.push(Listener { row, server, setup: row.server, client, tls, port });
                    port += 1;
                }
            }
        }
    }
    listeners
}

impl Listener {
    fn describe(&self) -> String {
        let Self { row, server, client, tls, .. } = self;
        format!("{}: {server:?} < {client:?}, TLS {}", row.cause, tls.as_str())
    }
}

/// Makes the connections of one listener, one after the other.
fn meet(clients: &Clients<'_>, listener: &Listener, scope: Scope) -> Result<Vec<Made>> {
    let Listener { row, tls, port, .. } = *listener;
    let mut meeting = Meeting { clients, listener, made: Vec::new() };
    // Neighbours in the table differ, so that both families are met both ways.
    let families = if port % 2 == 0 { [Family::Ipv4, Family::Ipv6] } else { [Family::Ipv6, Family::Ipv4] };
    for (turn, family) in families.into_iter().enumerate() {
        let both = scope == Scope::Wide;
        if turn == 0 || both || row.warm.is_none() {
            let revised = row.warm.filter(|_| both);
            meeting.subject(family, "cold", row.cold, revised)?;
        }
        let Some(warm) = row.warm else { continue };
        if turn == 1 || both {
            let setup = row.warm_up_client();
            for count in 0..WARM_UP {
                let versions = row.server.versions;
                let version = versions.get(count % versions.len()).copied().unwrap_or(tls);
                let warmer = if row.server.proxy_protocol { Client::Curl } else { Client::Rustls };
                let connected = clients.connect(warmer, &setup, &[version], meeting.address(family), None)?;
                meeting.note(family, "warm-up", ACCEPTED, connected);
            }
            meeting.subject(family, "warm", warm, None)?;
        }
    }
    Ok(meeting.made)
}

/// The connections of one listener.
struct Meeting<'a> {
    clients: &'a Clients<'a>,
    listener: &'a Listener,
    made: Vec<Made>,
}

impl Meeting<'_> {
    fn address(&self, family: Family) -> SocketAddr {
        (Pair::server_address(family), self.listener.port).into()
    }

    /// The connection that the row is about, after those that give it a session.
    fn subject(
        &mut self,
        family: Family,
        role: &'static str,
        expected: Expected,
        revised: Option<Expected>,
    ) -> Result<()> {
        let Listener { row, server, client, tls, port, .. } = *self.listener;
        let starttls = match server {
            Server::StartTls(protocol) => Some(protocol),
            _ => None,
        };
        let setup = ClientSetup { starttls, ..row.client };
        let session =
            (!row.sessions.is_empty()).then(|| Session::new(format!("session-{port}-{family:?}-{role}")));
        for setup in row.sessions {
            let connected = if client.resumes_by_itself() {
                Connected { said: String::new(), from: None }
            } else {
                self.clients.connect(client, setup, &[tls], self.address(family), session.as_ref())?
            };
            self.note(family, "before", ACCEPTED, connected);
        }
        let connected =
            self.clients.connect(client, &setup, &[tls], self.address(family), session.as_ref())?;
        self.note(family, role, expected, connected);
        if let Some(made) = self.made.last_mut() {
            made.revised = revised;
            made.shows = row.shows;
        }
        Ok(())
    }

    fn note(
        &mut self,
        family: Family,
        role: &'static str,
        expected: Expected,
        Connected { said: client_said, from }: Connected,
    ) {
        let listener = *self.listener;
        self.made.push(Made {
            listener,
            family,
            role,
            expected,
            revised: None,
            shows: None,
            from,
            client_said,
        });
    }
}

impl Row {
    /// A client that this row's server accepts.
    fn warm_up_client(&self) -> ClientSetup {
        ClientSetup {
            verifies: false,
            certificate: self.server.client_auth.then_some(ClientCertificate::Good),
            alpn: self.server.alpn,
            proxy_header: self.server.proxy_protocol,
            ..ClientSetup::DEFAULT
        }
    }
}

/// Reads verdicts until `count` connections have one, ends tlstrace, and keeps the last revision of each.
fn verdicts(watch: &mut Process, count: usize) -> Result<BTreeMap<String, Value>> {
    let mut verdicts = BTreeMap::new();
    let mut keep = |line: &str| -> Result<usize> {
        let verdict: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        verdicts.insert(verdict["tlstrace"]["connection_id"].to_string(), verdict);
        Ok(verdicts.len())
    };
    let mut seen = 0;
    while seen < count {
        let Some(line) = watch.stdout.next(PATIENCE) else { break };
        seen = keep(&line.text)?;
    }
    watch.signal(Signal::SIGINT)?;
    for line in watch.stdout.rest(PATIENCE)? {
        keep(&line)?;
    }
    Ok(verdicts)
}

/// When a connection began, in microseconds since some time: its end, less how long it took.
fn began(verdict: &Value) -> Option<i64> {
    let end = verdict["@timestamp"].as_str()?;
    let number = |range: std::ops::Range<usize>| end.get(range)?.parse::<i64>().ok();
    let days = (number(0..4)? * 12 + number(5..7)?) * 31 + number(8..10)?;
    let seconds = ((days * 24 + number(11..13)?) * 60 + number(14..16)?) * 60 + number(17..19)?;
    let micros = seconds * 1_000_000 + number(20..26)?;
    Some(micros - verdict["event"]["duration"].as_i64()? / 1000)
}

/// Pairs connections with verdicts: by server address, then by the client's port where it is known, then in the order in
/// which they began.
fn outcomes(made: Vec<Made>, verdicts: &BTreeMap<String, Value>) -> Vec<Outcome> {
    let mut by_listener: BTreeMap<(u64, bool), Vec<&Value>> = BTreeMap::new();
    for verdict in verdicts.values() {
        let port = verdict["server"]["port"].as_u64().unwrap_or_default();
        by_listener.entry((port, verdict["network"]["type"] == "ipv4")).or_default().push(verdict);
    }
    let mut connections: BTreeMap<(u64, bool), Vec<Made>> = BTreeMap::new();
    for made in made {
        let key = (u64::from(made.listener.port), made.family == Family::Ipv4);
        connections.entry(key).or_default().push(made);
    }
    connections
        .into_iter()
        .flat_map(|(key, made)| {
            let mut verdicts = by_listener.remove(&key).unwrap_or_default();
            // Connections of one listener do not overlap: each began after the one before it had been judged by its client.
            verdicts.sort_by_key(|verdict| began(verdict));
            let count = verdicts.len();
            let ports: Vec<_> = made.iter().filter_map(|made| made.from).map(u64::from).collect();
            let port = |verdict: &Value| verdict["client"]["port"].as_u64().unwrap_or_default();
            let (known, others): (Vec<_>, Vec<_>) =
                verdicts.into_iter().partition(|verdict| ports.contains(&port(verdict)));
            let is_complete = others.len() == made.iter().filter(|made| made.from.is_none()).count();
            let mut others = others.into_iter().filter(|_| is_complete);
            let mut outcomes = Vec::with_capacity(made.len());
            for made in made {
                let given = match made.from {
                    Some(from) => known.iter().find(|verdict| port(verdict) == u64::from(from)).copied(),
                    None => others.next(),
                };
                let count = if is_complete { String::new() } else { format!(" ({count} verdicts)") };
                outcomes.push(Outcome {
                    connection: format!("{}, {:?}, {}", made.listener.describe(), made.family, made.role),
                    expected: made.expected,
                    revised: made.revised,
                    shows: made.shows,
                    given: given.map(Given::read),
                    is_complete,
                    client_said: made.client_said + &count,
                });
            }
            outcomes
        })
        .collect()
}

impl Given {
    fn read(verdict: &Value) -> Self {
        let text =
            |pointer: &str| verdict.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_true = |pointer: &str| verdict.pointer(pointer).and_then(Value::as_bool).unwrap_or_default();
        let shows = [
            (Shown::Resumed, "/tls/resumed"),
            (Shown::EarlyData, "/tlstrace/offer/early_data"),
            (Shown::HelloRetry, "/tlstrace/selection/hello_retry_request"),
        ];
        Self {
            shows: shows
                .into_iter()
                .filter(|(_, pointer)| is_true(pointer))
                .map(|(shown, _)| shown)
                .collect(),
            verdict: text("/tlstrace/verdict"),
            blame: text("/tlstrace/blame"),
            confidence: text("/tlstrace/confidence"),
            ended_by: format!("{} {}", text("/tlstrace/ended_by/side"), text("/tlstrace/ended_by/how")),
            history: text("/tlstrace/history"),
            summary: text("/tlstrace/summary"),
        }
    }
}

fn rustls_versions(versions: &[Tls]) -> Vec<&'static SupportedProtocolVersion> {
    let of = |version: &Tls| match version {
        Tls::V12 => &rustls::version::TLS12,
        Tls::V13 => &rustls::version::TLS13,
    };
    versions.iter().map(of).collect()
}
