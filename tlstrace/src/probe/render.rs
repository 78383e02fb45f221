//! A report as text for people, and as one JSON object.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::sink::Clean;
use crate::verdict::words;

use super::answer::Trust;
use super::plan::Aspect;
use super::report::{CertificateReport, CheckResult, ClientCertificate, Report};

/// Schema of the JSON object.
const SCHEMA: &str = "tlstrace-probe/1";

/// Whom a report is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub host: &'a str,
    pub address: SocketAddr,
    pub server_name: Option<&'a str>,
}

impl Report {
    /// Lines for people.
    pub fn text(&self, subject: Subject<'_>) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_text(subject, &mut text);
        text
    }

    fn write_text(&self, subject: Subject<'_>, out: &mut String) -> fmt::Result {
        writeln!(out, "{} ({}), {} connections", subject.host, subject.address, self.connections)?;
        if let Some(refusal) = &self.refused {
            writeln!(out, "  no hello was accepted: {}", Clean(&refusal.to_string()))?;
        }
        let mut aspect: Option<Aspect> = None;
        for check in &self.checks {
            if aspect != Some(check.aspect) {
                writeln!(out, "{}", check.aspect.as_str())?;
                aspect = Some(check.aspect);
            }
            let result = check.result.as_str();
            writeln!(out, "  {:<42} {result:<9} {}", check.offer, Clean(&check.detail))?;
        }
        if let Some(certificate) = &self.certificate {
            certificate.write_text(out)?;
        }
        if let Some(phrase) = self.client_certificate.phrase() {
            writeln!(out, "client certificate\n  {phrase}")?;
        }
        if self.explains.is_empty() {
            return writeln!(out, "explains no verdict");
        }
        writeln!(out, "explains")?;
        for explanation in &self.explains {
            writeln!(out, "  {:<31} {}", explanation.verdict, Clean(&explanation.why))?;
        }
        Ok(())
    }

    /// One object, schema `tlstrace-probe/1`. What is unknown is absent.
    pub fn json(&self, subject: Subject<'_>) -> Value {
        let checks = self.checks.iter().map(|check| {
            json!({
                "aspect": check.aspect.as_str().replace(' ', "_"),
                "offer": check.offer,
                "result": check.result.as_str(),
                "detail": check.detail,
                "after_us": u64::try_from(check.after.as_micros()).unwrap_or(u64::MAX),
            })
        });
        let explains = self
            .explains
            .iter()
            .map(|explanation| json!({ "verdict": explanation.verdict, "why": explanation.why }));
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put("schema", SCHEMA.into());
        put("host", subject.host.into());
        put("server", json!({ "ip": subject.address.ip().to_string(), "port": subject.address.port() }));
        if let Some(name) = subject.server_name {
            put("server_name", name.into());
        }
        put("connections", self.connections.into());
        if let Some(refusal) = &self.refused {
            put("refused", refusal.to_string().into());
        }
        put("checks", checks.collect());
        if let Some(certificate) = &self.certificate {
            put("certificate", certificate.json());
        }
        if let Some(name) = self.client_certificate.as_str() {
            put("client_certificate", name.into());
        }
        put("explains", explains.collect());
        Value::Object(object)
    }
}

impl CheckResult {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Otherwise => "otherwise",
            Self::Refused => "refused",
        }
    }
}

impl ClientCertificate {
    const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::NotRequested => Some("not_requested"),
            Self::Requested => Some("requested"),
            Self::Optional => Some("optional"),
            Self::Required => Some("required"),
        }
    }

    const fn phrase(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::NotRequested => Some("not asked for"),
            Self::Requested => Some("asked for"),
            Self::Optional => Some("asked for, and not required"),
            Self::Required => Some("required: a client without one was refused"),
        }
    }
}

impl CertificateReport {
    fn write_text(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "certificate")?;
        for certificate in &self.chain.certificates {
            let (from, to) = (words::date(certificate.not_before), words::date(certificate.not_after));
            let (subject, issuer) = (Clean(&certificate.subject), Clean(&certificate.issuer));
            writeln!(out, "  {subject}, issued by {issuer}, {from} to {to}, {}", certificate.key.algorithm)?;
        }
        if !self.chain.is_fully_parsed() {
            writeln!(out, "  {} sent, not all of them can be read", self.chain.count)?;
        }
        if let Some(leaf) = self.chain.leaf() {
            let names: Vec<Cow<'_, str>> = leaf.names.iter().filter_map(words::alternative_name).collect();
            writeln!(out, "  names: {}", Clean(&words::list(names, 8)))?;
        }
        match &self.trust {
            None => {}
            Some(Trust::Trusted) => writeln!(out, "  trusted by the given authorities")?,
            Some(Trust::UnknownIssuer) => writeln!(out, "  not issued by one of the given authorities")?,
            Some(Trust::Refused(why)) => writeln!(out, "  refused by a verifier: {}", Clean(why))?,
        }
        self.problems.iter().try_for_each(|problem| writeln!(out, "  problem: it {}", Clean(problem)))
    }

    fn json(&self) -> Value {
        let chain = self.chain.certificates.iter().map(|certificate| {
            json!({
                "subject": certificate.subject,
                "issuer": certificate.issuer,
                "not_before": words::date(certificate.not_before),
                "not_after": words::date(certificate.not_after),
                "key": certificate.key.algorithm.to_string(),
            })
        });
        let mut object = Map::new();
        object.insert("chain".to_owned(), chain.collect());
        if let Some(leaf) = self.chain.leaf() {
            let names = leaf.names.iter().filter_map(words::alternative_name);
            object.insert("names".to_owned(), names.map(Value::from).collect());
        }
        if let Some(trust) = &self.trust {
            object.insert("trusted".to_owned(), (*trust == Trust::Trusted).into());
        }
        object.insert("problems".to_owned(), self.problems.clone().into());
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::{modern, named, probe};
    use super::*;
    use crate::engine::timestamp::Timestamp;

    fn report() -> Report {
        Report::new(&named(), &probe(&named(), modern), Timestamp::default())
    }

    fn subject() -> Subject<'static> {
        Subject {
            host: "api.example.com:443",
            address: ([192, 0, 2, 1], 443).into(),
            server_name: Some("api.example.com"),
        }
    }

    #[test]
    fn the_text_has_a_line_for_each_question_and_each_verdict() {
        let text = report().text(subject());
        for line in [
            "  api.example.com                            accepted  TLS 1.3, TLS_AES_128_GCM_SHA256, x25519",
            "  3DES                                       refused   alert handshake_failure (40)",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(text.contains("\n  group_mismatch "), "{text}");
    }

    #[test]
    fn the_json_names_what_was_offered_and_leaves_out_what_is_unknown() {
        let json = report().json(subject());
        assert_eq!(json["schema"], "tlstrace-probe/1");
        assert_eq!(json["server"]["port"], 443);
        assert_eq!(json["checks"][0]["aspect"], "proxy_header");
        assert!(json.get("client_certificate").is_none() && json.get("refused").is_none());
        assert!(json["explains"].as_array().unwrap().iter().any(|it| it["verdict"] == "group_mismatch"));
    }
}
