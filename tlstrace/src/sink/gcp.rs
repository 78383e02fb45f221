//! The JSON format with what Cloud Logging looks for in a line besides: severity, message, time, labels, an id that
//! drops duplicates, and an operation that ties together what is said about one connection.
//!
//! <https://docs.cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields>

use std::io::{self, Write};

use serde::Serialize;

use super::aggregate::sentence;
use super::json::Json;
use super::{Observer, Sink};
use crate::aggregate::Aggregate;
use crate::engine::timestamp::Timestamp;
use crate::verdict::{Severity, Verdict};

/// The Cloud Logging format.
#[derive(Default)]
pub(super) struct Gcp {
    json: Json,
    line: Vec<u8>,
    object: Vec<u8>,
}

#[derive(Serialize)]
struct Fields<'a> {
    severity: &'static str,
    message: String,
    time: String,
    #[serde(rename = "logging.googleapis.com/insertId")]
    insert_id: String,
    #[serde(rename = "logging.googleapis.com/labels")]
    labels: Labels<'a>,
    #[serde(rename = "logging.googleapis.com/operation")]
    operation: Operation,
}

#[derive(Serialize)]
struct AggregateFields {
    severity: &'static str,
    message: String,
    time: String,
}

#[derive(Serialize)]
struct Labels<'a> {
    verdict: &'a str,
    blame: &'static str,
    confidence: &'static str,
}

#[derive(Serialize)]
struct Operation {
    id: String,
    producer: &'static str,
}

impl Fields<'_> {
    fn of(verdict: &Verdict) -> Fields<'_> {
        let connection = verdict.facts.connection;
        Fields {
            severity: severity(verdict.severity),
            message: format!("{}: {}", verdict.id, verdict.summary),
            time: Timestamp::to_string(&verdict.time()),
            insert_id: format!("{connection}-{}", verdict.revision),
            labels: Labels {
                verdict: verdict.id,
                blame: verdict.blame.as_str(),
                confidence: verdict.confidence.as_str(),
            },
            operation: Operation { id: connection.to_string(), producer: "tlstrace" },
        }
    }
}

impl Sink for Gcp {
    fn emit(&mut self, verdict: &Verdict, observer: &Observer, out: &mut Vec<u8>) -> io::Result<()> {
        self.line.clear();
        self.object.clear();
        serde_json::to_writer(&mut self.line, &Fields::of(verdict))?;
        self.json.emit(verdict, observer, &mut self.object)?;
        self.write_joined(out)
    }

    fn aggregate(&mut self, aggregate: &Aggregate, observer: &Observer, out: &mut Vec<u8>) -> io::Result<()> {
        self.line.clear();
        self.object.clear();
        let fields = AggregateFields {
            severity: severity(aggregate.severity),
            message: format!("{}: {}", aggregate.verdict, sentence(aggregate)),
            time: aggregate.end.to_string(),
        };
        serde_json::to_writer(&mut self.line, &fields)?;
        self.json.aggregate(aggregate, observer, &mut self.object)?;
        self.write_joined(out)
    }
}

impl Gcp {
    /// Two objects become one: `{a}` and `{b}` are `{a,b}`.
    fn write_joined(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let joined = self.line.strip_suffix(b"}").zip(self.object.strip_prefix(b"{"));
        let (fields, object) = joined.ok_or(io::ErrorKind::InvalidData)?;
        let line = [fields, b",", object].concat();
        out.write_all(&line)
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR",
    }
}
