//! Public captures against `reference.jsonl`: one row per TCP stream that carries a ClientHello or an
//! alert, as tshark reads it (how the rows came about is told beside them).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use tlstrace::engine::facts::{HandshakeFacts, How, Role};
use tlstrace::tls::certificate::{Certificate, CertificateChain, SubjectAltName};
use tlstrace::tls::client_hello::ClientHello;
use tlstrace::tls::codepoints::{ExtensionType, ProtocolVersion};
use tlstrace::tls::fingerprint;
use tlstrace::verdict::Verdict;

use super::{Report, percentage, verdicts_of};

/// Something that both sides say of a connection.
struct Field {
    name: &'static str,
    /// `None` where the reference does not say: no comparison.
    reference: fn(&Value) -> Option<Value>,
    ours: fn(&HandshakeFacts) -> Value,
}

const FIELDS: &[Field] = &[
    Field {
        name: "client",
        reference: |row| Some(endpoint(row, "client")?.to_string().into()),
        ours: |facts| facts.client().address.to_string().into(),
    },
    Field {
        name: "sni",
        reference: |row| hello(row, "sni"),
        ours: |facts| facts.server_name().map(String::from).into(),
    },
    Field {
        name: "sslv2 hello",
        reference: |row| hello(row, "v2"),
        ours: |facts| ours(facts, |hello| hello.ssl_v2.into()),
    },
    Field {
        name: "legacy version",
        reference: |row| hello(row, "legacy_version"),
        ours: |facts| ours(facts, |hello| hex(hello.legacy_version.0)),
    },
    Field {
        name: "supported versions",
        reference: |row| hello(row, "supported_versions"),
        ours: |facts| ours(facts, |hello| list(&hello.supported_versions, |version| version.0)),
    },
    Field {
        name: "session id length",
        reference: |row| hello(row, "session_id_len"),
        ours: |facts| ours(facts, |hello| hello.session_id_len.into()),
    },
    Field {
        name: "cipher suites",
        reference: |row| hello(row, "ciphers"),
        ours: |facts| ours(facts, |hello| list(&hello.cipher_suites, |suite| suite.0)),
    },
    Field {
        name: "extensions",
        reference: |row| hello(row, "extensions"),
        ours: |facts| ours(facts, |hello| hello.extensions.iter().map(|kind| kind.0).collect()),
    },
    Field {
        name: "groups",
        reference: |row| hello(row, "groups"),
        ours: |facts| ours(facts, |hello| list(&hello.supported_groups, |group| group.0)),
    },
    Field {
        name: "key shares",
        reference: |row| hello(row, "key_share_groups"),
        ours: |facts| ours(facts, |hello| list(&hello.key_shares, |share| share.group.0)),
    },
    Field {
        name: "point formats",
        reference: |row| hello(row, "ec_point_formats"),
        ours: |facts| ours(facts, |hello| json!(hello.ec_point_formats.as_slice())),
    },
    Field {
        name: "signature algorithms",
        reference: |row| hello(row, "sig_algs"),
        ours: |facts| ours(facts, |hello| list(&hello.signature_schemes, |scheme| scheme.0)),
    },
    Field {
        name: "alpn",
        reference: |row| hello(row, "alpn"),
        ours: |facts| ours(facts, |hello| hello.alpn.iter().map(|name| text(name)).collect()),
    },
    Field {
        name: "ech",
        reference: |row| hello(row, "ech"),
        ours: |facts| ours(facts, |hello| hello.encrypted_client_hello.into()),
    },
    Field {
        name: "pre-shared key",
        reference: |row| hello(row, "psk"),
        ours: |facts| ours(facts, |hello| hello.extensions.contains(&ExtensionType(41)).into()),
    },
    Field {
        name: "early data",
        reference: |row| hello(row, "early_data"),
        ours: |facts| ours(facts, |hello| hello.early_data.into()),
    },
    Field {
        name: "ja3",
        reference: |row| hello(row, "ja3_md5").filter(Value::is_string),
        ours: |facts| ours(facts, |hello| fingerprint::ja3(hello).into()),
    },
    Field {
        name: "ja4",
        reference: |row| hello(row, "ja4").filter(Value::is_string),
        ours: |facts| ours(facts, |hello| fingerprint::ja4(hello).into()),
    },
    Field {
        name: "server version",
        reference: |row| Some(row["server_hello"]["version"].clone()),
        ours: |facts| facts.version().map(|version| hex(version.0)).into(),
    },
    Field {
        name: "server cipher suite",
        reference: |row| Some(row["server_hello"]["cipher"].clone()),
        ours: |facts| {
            facts
                .server_hello
                .as_ref()
                .filter(|hello| hello.version != ProtocolVersion::SSL2)
                .map(|hello| hex(hello.cipher_suite.0))
                .into()
        },
    },
    Field {
        name: "server key share",
        reference: |row| Some(row["server_hello"]["key_share_group"].clone()),
        ours: |facts| {
            facts.server_hello.as_ref().and_then(|hello| hello.group).map(|group| hex(group.0)).into()
        },
    },
    Field {
        name: "server alpn",
        reference: |row| Some(row["server_hello"]["alpn"].clone()),
        ours: |facts| facts.server_hello.as_ref().and_then(|hello| hello.alpn.as_deref()).map(text).into(),
    },
    Field {
        name: "server extensions",
        reference: |row| Some(row["server_hello"]["extensions"].clone()),
        ours: |facts| {
            facts
                .server_hello
                .as_ref()
                .map(|hello| hello.extensions.iter().map(|kind| kind.0).collect::<Value>())
                .into()
        },
    },
    Field {
        name: "hello retry request",
        reference: |row| Some(row["hrr"].clone()),
        ours: |facts| facts.hello_retry_request.is_some().into(),
    },
    Field {
        name: "retry group",
        reference: |row| Some(row["hrr_group"].clone()),
        ours: |facts| {
            facts.hello_retry_request.as_ref().and_then(|hello| hello.group).map(|group| hex(group.0)).into()
        },
    },
    Field {
        name: "server certificates",
        reference: |row| certificates(row, "server"),
        ours: |facts| our_certificates(facts, Role::Server),
    },
    Field {
        name: "client certificates",
        reference: |row| certificates(row, "client"),
        ours: |facts| our_certificates(facts, Role::Client),
    },
    Field { name: "alerts", reference: |row| Some(alerts(row)), ours: our_alerts },
    Field {
        name: "first reset",
        // Once a handshake is complete the verdict is passed, and later resets are no part of it.
        reference: |row| Some(row["rst_first"].clone()).filter(|_| row["handshake_completed"] != true),
        ours: our_first_reset,
    },
    Field {
        name: "completion",
        reference: |row| Some(row["handshake_completed"].clone()).filter(Value::is_boolean),
        ours: our_completion,
    },
];

/// What the captures' own README excludes: a ClientHello inside an HTTP CONNECT, whose row tshark
/// places differently, and a malformed hello of which every reader makes something else.
const NOT_JUDGED: [&str; 2] = [
    "suricata-verify/bug-2512__sample_10.62.112.41_62227.pcap",
    "mercury/tls_cnsa2_psk_mode_psk_ke_truncated.pcap",
];

/// Differences that are understood: capture, fields, who is right and why. They count all the same.
const EXPLAINED: &[(&str, &[&str], &str)] = &[
    (
        "suricata-verify/tls__tls13-draft14__tls13_draft14.pcap",
        &["server cipher suite", "server key share", "server extensions"],
        "tlstrace is right: tshark looks for a session id, which ServerHello lost in drafts 14 to 21",
    ),
    (
        "zeek/ssl-v2.pcap",
        &["server version", "server extensions"],
        "the reference says more: tlstrace knows an SSLv2 ClientHello, and not the rest of SSLv2",
    ),
    (
        "mercury/faketls_potatovpn.pcap",
        &["first reset"],
        "both are right: the reset comes long after the connection was closed and judged",
    ),
    (
        "arkime/socks4-https.pcap",
        &["row"],
        "the reference says more: the ClientHello was not captured, and SOCKS precedes the ServerHello",
    ),
];

#[derive(Default)]
struct Tally {
    compared: usize,
    agree: usize,
}

#[derive(Default)]
struct Comparison {
    tallies: BTreeMap<&'static str, Tally>,
    differences: String,
}

pub(super) fn compare(public: &Path, only: &str) -> anyhow::Result<Report> {
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in json_lines(&public.join("reference.jsonl"))? {
        rows.entry(file_of(&row)).or_default().push(row);
    }
    let mut comparison = Comparison::default();
    let mut files = 0;
    for file in json_lines(&public.join("files.jsonl"))?.iter().map(file_of) {
        if file.contains(only) && !NOT_JUDGED.contains(&file.as_str()) {
            files += 1;
            let verdicts = verdicts_of(&public.join(&file))?;
            comparison.file(&file, rows.get(&file).map_or(&[], Vec::as_slice), &verdicts);
        }
    }
    comparison.report(files)
}

impl Comparison {
    fn file(&mut self, file: &str, rows: &[Value], verdicts: &[Verdict]) {
        let mut left: Vec<&HandshakeFacts> = verdicts.iter().map(|verdict| &*verdict.facts).collect();
        for row in without_duplicates(rows) {
            let Some(ends) = ends(row) else { continue };
            let place = format!("{file} {} > {}", ends.0, ends.1);
            let found = left.iter().position(|facts| is_between(facts, ends));
            self.note("row", &place, &json!(true), &json!(found.is_some()));
            let Some(found) = found else { continue };
            let facts = left.remove(found);
            for field in FIELDS {
                if let Some(expected) = (field.reference)(row) {
                    self.note(field.name, &place, &expected, &(field.ours)(facts));
                }
            }
        }
        for facts in left.into_iter().filter(|facts| deserves_a_row(facts)) {
            let place = format!("{file} {} > {}", facts.client().address, facts.server().address);
            self.note("row", &place, &json!(false), &json!(true));
        }
    }

    fn note(&mut self, field: &'static str, place: &str, reference: &Value, ours: &Value) {
        let tally = self.tallies.entry(field).or_default();
        tally.compared += 1;
        if reference == ours {
            tally.agree += 1;
        } else {
            let why = EXPLAINED.iter().find(|(file, fields, _)| {
                place.strip_prefix(file).is_some_and(|rest| rest.starts_with(' ')) && fields.contains(&field)
            });
            let why = why.map_or("not explained", |(.., why)| why);
            // Writing to a String cannot fail.
            let _ = writeln!(
                self.differences,
                "{field}: {place}\n    reference {reference}\n    tlstrace  {ours}\n    {why}"
            );
        }
    }

    fn report(self, files: usize) -> anyhow::Result<Report> {
        let mut text = format!("{:24}{:>9}{:>9}{:>9}{:>9}\n", "field", "compared", "agree", "differ", "%");
        let mut least_agreement = 100.0f64;
        for name in ["row"].into_iter().chain(FIELDS.iter().map(|field| field.name)) {
            let Some(Tally { compared, agree }) = self.tallies.get(name) else { continue };
            let agreement = percentage(*agree, *compared);
            least_agreement = least_agreement.min(agreement);
            writeln!(text, "{name:24}{compared:>9}{agree:>9}{:>9}{agreement:>9.2}", compared - agree)?;
        }
        writeln!(text, "{files} files\n\n{}", self.differences)?;
        Ok(Report { text, least_agreement })
    }
}

/// A connection that tshark was asked about twice has two rows; the one with more packets counts.
fn without_duplicates(rows: &[Value]) -> Vec<&Value> {
    let mut kept: Vec<&Value> = Vec::new();
    for row in rows {
        let is_same = |other: &&mut &Value| {
            let (frame, other_frame) = (&row["client_hello"]["frame"], &other["client_hello"]["frame"]);
            !frame.is_null() && frame == other_frame && ends(row) == ends(other)
        };
        match kept.iter_mut().find(is_same) {
            Some(other) if row["packets"].as_u64() > other["packets"].as_u64() => *other = row,
            Some(_) => {}
            None => kept.push(row),
        }
    }
    kept
}

fn json_lines(path: &Path) -> anyhow::Result<Vec<Value>> {
    let lines = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    lines.lines().map(|line| serde_json::from_str(line).context("a line of the reference")).collect()
}

fn file_of(row: &Value) -> String {
    row["file"].as_str().unwrap_or_default().to_owned()
}

fn ends(row: &Value) -> Option<(SocketAddr, SocketAddr)> {
    Some((endpoint(row, "client")?, endpoint(row, "server")?))
}

fn endpoint(row: &Value, role: &str) -> Option<SocketAddr> {
    let ip: IpAddr = row[format!("{role}_ip")].as_str()?.parse().ok()?;
    let port = row[format!("{role}_port")].as_u64()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// Whether the connection is between these ends, whoever is taken for the client.
fn is_between(facts: &HandshakeFacts, (client, server): (SocketAddr, SocketAddr)) -> bool {
    let ends = (facts.client().address, facts.server().address);
    ends == (client, server) || ends == (server, client)
}

/// What the reference promises a row for; some with a ServerHello only are in it, too.
fn deserves_a_row(facts: &HandshakeFacts) -> bool {
    facts.client_hello.is_some() || facts.peers.iter().any(|peer| !peer.alerts.is_empty())
}

/// A field of the reference's ClientHello; without one nothing is compared.
fn hello(row: &Value, name: &str) -> Option<Value> {
    row["client_hello"].get(name).cloned()
}

fn ours(facts: &HandshakeFacts, field: impl FnOnce(&ClientHello) -> Value) -> Value {
    facts.client_hello.as_deref().map_or(Value::Null, field)
}

fn hex(code_point: u16) -> Value {
    format!("0x{code_point:04x}").into()
}

fn list<T>(items: &[T], code_point: impl Fn(&T) -> u16) -> Value {
    items.iter().map(code_point).map(hex).collect()
}

fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}

/// What the certificates say. The reference has `null` where it saw no Certificate message, and so where
/// they were encrypted.
fn certificates(row: &Value, role: &str) -> Option<Value> {
    const KEYS: [&str; 7] =
        ["sha256", "subject", "issuer", "san_dns", "not_before", "not_after", "self_issued"];
    if row[format!("{role}_cert_count")].is_null() {
        return Some(Value::Null);
    }
    let certificates = row[format!("{role}_certs")].as_array()?;
    let fields = |certificate: &Value| KEYS.iter().map(|key| printable(&certificate[key])).collect::<Value>();
    Some(certificates.iter().map(fields).collect())
}

/// Text as tlstrace writes it, so that a name with a NUL cannot pass for another (RFC 4514 §2.4).
fn printable(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "\\00").into(),
        Value::Array(values) => values.iter().map(printable).collect(),
        other => other.clone(),
    }
}

fn our_certificates(facts: &HandshakeFacts, role: Role) -> Value {
    let Some(CertificateChain { certificates, .. }) = &facts.peer(role).certificates else {
        return Value::Null;
    };
    let fields = |certificate: &Certificate| {
        let sha256 = certificate.sha256.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let dns_names = certificate.names.iter().filter_map(|name| match name {
            SubjectAltName::Dns(name) => Some(Value::from(&**name)),
            _ => None,
        });
        json!([
            sha256,
            certificate.subject,
            certificate.issuer,
            dns_names.collect::<Value>(),
            date(certificate.not_before),
            date(certificate.not_after),
            certificate.self_issued,
        ])
    };
    certificates.iter().map(|certificate| fields(certificate)).collect()
}

/// Seconds since the epoch as in RFC 3339, in UTC.
fn date(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Side, level and description of each alert in the clear.
fn alerts(row: &Value) -> Value {
    let alerts = row["alerts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let alerts: BTreeSet<String> =
        alerts.iter().map(|alert| format!("{} {} {}", role_of(&alert[0]), alert[1], alert[2])).collect();
    json!(alerts)
}

fn our_alerts(facts: &HandshakeFacts) -> Value {
    let alerts: BTreeSet<String> = [Role::Client, Role::Server]
        .into_iter()
        .flat_map(|role| {
            facts
                .peer(role)
                .alerts
                .iter()
                .map(move |alert| format!("{} {} {}", role.as_str(), alert.level.0, alert.description.0))
        })
        .collect();
    json!(alerts)
}

fn our_first_reset(facts: &HandshakeFacts) -> Value {
    let resets = facts.endings.iter().filter(|ending| matches!(ending.how, How::Reset(_)));
    let first = resets.min_by_key(|ending| ending.time);
    first
        .map(|ending| match ending.role {
            Role::Client => "c2s",
            Role::Server => "s2c",
        })
        .into()
}

/// The reference takes a TLS 1.3 handshake for complete when the client's Finished is there; for a
/// verdict that is too early, since the server may still refuse it.
fn our_completion(facts: &HandshakeFacts) -> Value {
    let is_tls13 = facts.version().is_some_and(|version| version >= ProtocolVersion::TLS1_3);
    let progress = &facts.progress;
    (progress.complete.is_some() || is_tls13 && progress.client_finished.is_some()).into()
}

fn role_of(direction: &Value) -> &'static str {
    if direction == "c2s" { "client" } else { "server" }
}
