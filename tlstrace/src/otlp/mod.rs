//! `--otlp`: verdicts as log records, and the numbers of `--metrics`, for an OpenTelemetry collector. With the feature
//! `otlp` only.
//!
//! OTLP over HTTP with JSON (*OTLP 1.x, OTLP/HTTP*), which every receiver takes and which needs no protobuf. Everything
//! goes through an [`Outlet`](crate::outlet::Outlet): nobody waits for the collector, and what finds no room while it is
//! slow, away or refuses is dropped and counted.

#![forbid(unsafe_code)]

#[cfg(feature = "otlp")]
mod exporter;
#[cfg(feature = "otlp")]
mod http;
#[cfg(feature = "otlp")]
mod logs;
#[cfg(feature = "otlp")]
mod metrics;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "otlp")]
pub use exporter::Exporter;

/// Where a collector listens: `http://HOST:PORT`, perhaps with a path, to which `/v1/logs` and `/v1/metrics` are added.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint(String);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let authority = text.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
        match authority {
            Some(authority)
                if !authority.is_empty()
                    && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@".contains(&byte)) =>
            {
                Ok(Self(text.trim_end_matches('/').to_owned()))
            }
            None if text.starts_with("https://") => {
                Err(format!("`{text}`: only http is spoken, to a collector on this node or in this cluster"))
            }
            _ => Err(format!("`{text}` is not an endpoint such as http://127.0.0.1:4318")),
        }
    }
}

#[cfg(feature = "otlp")]
impl Endpoint {
    /// `HOST:PORT`.
    fn authority(&self) -> &str {
        let rest = self.0.strip_prefix("http://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }

    /// What stands before the paths of OTLP; without a slash at its end.
    fn path(&self) -> &str {
        let rest = self.0.strip_prefix("http://").unwrap_or_default();
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_without_what_would_be_lost() {
        for (text, meant) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
            ("http://collector.example/tenant/a/", "http://collector.example/tenant/a"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), meant);
        }
        for bad in [
            "",
            "127.0.0.1:4318",
            "http://",
            "http:///v1",
            "http://a/?b",
            "http://user@a:4318",
            "http://a\r\nB: c",
            "https://a:4318",
            "grpc://a:4317",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
