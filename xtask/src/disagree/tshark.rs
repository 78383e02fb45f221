//! A file of connections as tshark reads it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tlstrace::engine::facts::Role;

use super::conversation::SERVER;
use super::reading::{Hello, Reading, beginning};

/// What it is asked for, in the order in which [`Row`] takes it apart.
const FIELDS: [&str; 14] = [
    "ip.src",
    "ip.dst",
    "tls.handshake.type",
    "tls.handshake.random",
    "tls.handshake.version",
    "tls.handshake.ciphersuite",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.extension.type",
    "tls.handshake.extensions_supported_group",
    "tls.handshake.extensions_server_name",
    "tls.alert_message.level",
    "tls.alert_message.desc",
    "_ws.expert.group",
    "_ws.expert.message",
];

/// Between the values of a field: in no number, and hardly in a name.
const BETWEEN: char = '\u{1}';

/// Groups of what it complains of: malformed, and against the protocol (`epan/proto.h`, `PI_MALFORMED`, `PI_PROTOCOL`).
const MALFORMED: [&str; 2] = ["117440512", "150994944"];

/// What it complains of that is not in a message.
const RECORDS: [&str; 2] = ["Ignored Unknown Record", "Zero-length Handshake fragments are not allowed"];

/// `SHA-256("HelloRetryRequest")` (RFC 8446 §4.1.3).
const HELLO_RETRY_REQUEST: &str = "cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c";

/// What tshark says of each connection, by the client's address.
pub(super) fn read(file: &Path) -> Result<HashMap<IpAddr, Reading>> {
    let mut command = Command::new("tshark");
    command.arg("-n").arg("-r").arg(file).args(["-Y", "tls", "-T", "fields", "-E", "occurrence=a"]);
    command.arg("-E").arg(format!("aggregator={BETWEEN}"));
    // Segments that overtake others are put in order, as every TCP does it.
    command.args(["-o", "tcp.reassemble_out_of_order:TRUE"]);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().context("cannot run tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let mut readings: HashMap<IpAddr, Reading> = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let row = Row(line.split('\t').collect());
        if let Some((client, role)) = row.ends() {
            row.add_to(readings.entry(client).or_default(), role);
        }
    }
    Ok(readings)
}

/// One packet.
struct Row<'a>(Vec<&'a str>);

impl Row<'_> {
    fn values(&self, field: &str) -> impl Iterator<Item = &str> {
        let place = FIELDS.iter().position(|name| *name == field);
        let text = place.and_then(|place| self.0.get(place)).copied().unwrap_or_default();
        text.split(BETWEEN).filter(|value| !value.is_empty())
    }

    fn numbers(&self, field: &str) -> Vec<u16> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        self.values(field).filter_map(number).collect()
    }

    fn ends(&self) -> Option<(IpAddr, Role)> {
        let [source, destination] =
            ["ip.src", "ip.dst"].map(|field| self.values(field).next()?.parse::<IpAddr>().ok());
        let (source, destination) = (source?, destination?);
        Some(if source == SERVER.ip() { (destination, Role::Server) } else { (source, Role::Client) })
    }

    fn add_to(&self, reading: &mut Reading, role: Role) {
        let types = self.numbers("tls.handshake.type");
        let hellos = types.iter().filter(|kind| matches!(kind, 1 | 2)).count();
        let complaints = self.values("_ws.expert.group").zip(self.values("_ws.expert.message"));
        let malformed = complaints.filter(|(group, _)| MALFORMED.contains(group));
        let (records, contents): (Vec<_>, Vec<_>) =
            malformed.partition(|(_, message)| RECORDS.contains(message));
        reading.is_broken |= !records.is_empty() || !contents.is_empty();
        reading.is_unclear |= hellos > 1;
        let is_retry = self.values("tls.handshake.random").any(|random| random == HELLO_RETRY_REQUEST);
        let of_side = if role == Role::Client { 1 } else { 2 };
        let hello = if role == Role::Client { &mut reading.client_hello } else { &mut reading.server_hello };
        if types.contains(&of_side) && !is_retry && hello.is_none() {
            *hello = Some(Hello {
                version: self.numbers("tls.handshake.version").first().copied().unwrap_or_default(),
                versions: self.numbers("tls.handshake.extensions.supported_version"),
                cipher_suites: self.numbers("tls.handshake.ciphersuite"),
                extensions: self.numbers("tls.handshake.extension.type"),
                groups: self.numbers("tls.handshake.extensions_supported_group"),
                server_name: self.values("tls.handshake.extensions_server_name").next().and_then(beginning),
                faults: contents.iter().map(|(_, message)| (*message).to_owned()).collect(),
                // It may complain of another message in the same packet.
                is_unclear: !contents.is_empty() && types.len() > 1,
            });
        }
        let levels = self.numbers("tls.alert_message.level");
        let descriptions = self.numbers("tls.alert_message.desc");
        for (level, description) in levels.into_iter().zip(descriptions) {
            reading.alerts.insert((role.as_str(), level, description));
        }
    }
}
