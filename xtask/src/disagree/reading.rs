//! What a program reads in a connection, and in what two of them differ.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use tlstrace::engine::facts::{HandshakeFacts, Role};
use tlstrace::tls::client_hello::Problem;
use tlstrace::tls::codepoints::ExtensionType;
use tlstrace::verdict::Verdict;

use crate::conformance::verdicts_of;

/// One connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// The first one.
    pub(super) client_hello: Option<Hello>,
    /// The first one that is no HelloRetryRequest.
    pub(super) server_hello: Option<Hello>,
    /// Side, level and description.
    pub(super) alerts: BTreeSet<(&'static str, u16, u16)>,
    /// Bytes of one of the two sides are no records, or no messages.
    pub(super) is_broken: bool,
    /// The handshake succeeded.
    pub(super) is_complete: bool,
    /// What belongs to which hello cannot be told.
    pub(super) is_unclear: bool,
}

/// A ClientHello or a ServerHello, as far as it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Hello {
    /// Of a ClientHello `legacy_version`.
    pub(super) version: u16,
    pub(super) versions: Vec<u16>,
    pub(super) cipher_suites: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) groups: Vec<u16>,
    pub(super) server_name: Option<String>,
    /// In what it is malformed.
    pub(super) faults: Vec<String>,
    /// What it says is not to be compared.
    pub(super) is_unclear: bool,
}

/// Something that is read differently.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    pub(super) field: &'static str,
    pub(super) theirs: String,
    pub(super) ours: String,
    /// Why, if that is known.
    pub(super) why: Option<&'static str>,
}

/// What tlstrace says of each connection of a file, by the client's address.
pub(super) fn read(file: &Path) -> Result<HashMap<IpAddr, Reading>> {
    let mut readings: HashMap<IpAddr, Reading> = HashMap::new();
    for verdict in verdicts_of(file)? {
        let reading = of_verdict(&verdict);
        let ends = [Role::Client, Role::Server].map(|role| verdict.facts.peer(role).address);
        let client = ends.into_iter().find(|end| *end != super::conversation::SERVER);
        // The connection went on after its verdict: what came first counts.
        readings.entry(client.unwrap_or(ends[0]).ip()).or_insert(reading);
    }
    Ok(readings)
}

fn of_verdict(verdict: &Verdict) -> Reading {
    let facts: &HandshakeFacts = &verdict.facts;
    let client_hello = facts.client_hello.as_deref().map(|hello| Hello {
        version: hello.legacy_version.0,
        versions: hello.supported_versions.iter().map(|version| version.0).collect(),
        cipher_suites: hello.cipher_suites.iter().map(|suite| suite.0).collect(),
        extensions: hello.extensions.iter().map(|kind| kind.0).collect(),
        groups: hello.supported_groups.iter().map(|group| group.0).collect(),
        server_name: hello.server_name.as_ref().and_then(|name| beginning(&name.as_str())),
        faults: faults(&hello.problems),
        is_unclear: repeats(&hello.problems),
    });
    let server_hello = facts.server_hello.as_deref().map(|hello| Hello {
        version: hello.legacy_version.0,
        versions: hello
            .extensions
            .contains(&ExtensionType::SUPPORTED_VERSIONS)
            .then_some(hello.version.0)
            .into_iter()
            .collect(),
        cipher_suites: vec![hello.cipher_suite.0],
        extensions: hello.extensions.iter().map(|kind| kind.0).collect(),
        faults: faults(&hello.problems),
        is_unclear: repeats(&hello.problems),
        ..Hello::default()
    });
    let alerts = [Role::Client, Role::Server].into_iter().flat_map(|role| {
        let alerts = facts.peer(role).alerts.iter();
        alerts.map(move |alert| (role.as_str(), alert.level.0.into(), alert.description.0.into()))
    });
    Reading {
        is_broken: [Role::Client, Role::Server].into_iter().any(|role| facts.peer(role).broke_framing),
        is_complete: facts.progress.complete.is_some(),
        alerts: alerts.collect(),
        client_hello,
        server_hello,
        is_unclear: false,
    }
}

fn faults(problems: &[Problem]) -> Vec<String> {
    let faults = problems.iter().filter(|problem| !matches!(problem, Problem::DuplicateExtension(_)));
    faults.map(ToString::to_string).collect()
}

/// An extension comes twice, which tshark does not mind: it adds up what both hold.
fn repeats(problems: &[Problem]) -> bool {
    problems.iter().any(|problem| matches!(problem, Problem::DuplicateExtension(_)))
}

/// A name as far as every program shows it alike: up to what cannot be printed. `None` if that is at its beginning.
pub(super) fn beginning(name: &str) -> Option<String> {
    let is_special = |character: char| !character.is_ascii_graphic() || character == '\\';
    name.split(is_special).next().filter(|beginning| !beginning.is_empty()).map(str::to_owned)
}

/// In what the two differ.
pub(super) fn differences(theirs: &Reading, ours: &Reading) -> Vec<Difference> {
    let mut found = Vec::new();
    if theirs.is_unclear {
        return found;
    }
    hellos(&mut found, CLIENT_HELLO, theirs.client_hello.as_ref(), ours.client_hello.as_ref());
    hellos(&mut found, SERVER_HELLO, theirs.server_hello.as_ref(), ours.server_hello.as_ref());
    if !theirs.is_broken && !ours.is_broken {
        note(&mut found, "alerts", &theirs.alerts, &ours.alerts);
    }
    found
}

/// The names of what is compared of a hello: whether there is one, whether it is well-formed, and its fields.
type Names = [&'static str; 8];

const CLIENT_HELLO: Names = [
    "client hello",
    "faults of the client hello",
    "legacy version",
    "supported versions",
    "cipher suites",
    "extensions",
    "groups",
    "server name",
];
const SERVER_HELLO: Names = [
    "server hello",
    "faults of the server hello",
    "server version",
    "server supported version",
    "server cipher suite",
    "server extensions",
    "server group",
    "",
];

/// Of a malformed hello everybody reads something else, so its fields are not compared.
fn hellos(found: &mut Vec<Difference>, names: Names, theirs: Option<&Hello>, ours: Option<&Hello>) {
    let [hello, faults, version, versions, cipher_suites, extensions, groups, server_name] = names;
    match (theirs, ours) {
        (None, None) => {}
        (Some(theirs), Some(ours)) if theirs.is_unclear || ours.is_unclear => {}
        (Some(hello), None) | (None, Some(hello)) if !hello.faults.is_empty() => {}
        (Some(theirs), Some(ours)) if !theirs.faults.is_empty() || !ours.faults.is_empty() => {
            if theirs.faults.is_empty() != ours.faults.is_empty() {
                note(found, faults, &theirs.faults, &ours.faults);
            }
        }
        (Some(theirs), Some(ours)) => {
            note(found, version, &theirs.version, &ours.version);
            note(found, versions, &theirs.versions, &ours.versions);
            note(found, cipher_suites, &theirs.cipher_suites, &ours.cipher_suites);
            note(found, extensions, &theirs.extensions, &ours.extensions);
            note(found, groups, &theirs.groups, &ours.groups);
            note(found, server_name, &theirs.server_name, &ours.server_name);
        }
        (theirs, ours) => note(found, hello, &theirs.is_some(), &ours.is_some()),
    }
}

fn note<T: Debug + PartialEq>(found: &mut Vec<Difference>, field: &'static str, theirs: &T, ours: &T) {
    if theirs != ours {
        let (theirs, ours) = (format!("{theirs:x?}"), format!("{ours:x?}"));
        found.push(Difference { field, theirs, ours, why: None });
    }
}
