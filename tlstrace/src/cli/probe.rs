//! Options of `tlstrace probe`, as typed and as meant.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};

use super::{settings, values};
use crate::probe::Target;
use crate::probe::hello::ProxyVersion;

const DEFAULT_PORT: u16 = 443;

/// Options of `tlstrace probe`.
#[derive(Clone, Debug, ClapArgs)]
pub struct ProbeArgs {
    /// The endpoint: a name or an address, by default port 443.
    #[arg(value_name = "HOST[:PORT]")]
    pub endpoint: String,
    /// Server name to send; by default HOST, if it is a name.
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// Application protocol to ask for, repeatable; by default h2 and http/1.1.
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Vec<String>,
    /// Connect to this address instead of the one that HOST has.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub connect: Option<String>,
    /// Begin every connection with a PROXY header of this version.
    #[arg(long, value_enum, value_name = "VERSION")]
    pub proxy: Option<ProxyArg>,
    /// Authorities that the chain is verified against (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How long to wait for a connection, and for an answer.
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub timeout: String,
    /// Pause between two connections.
    #[arg(long, value_name = "DURATION", default_value = "100ms")]
    pub pace: String,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = FormatArg::Text, value_name = "FORMAT")]
    pub output: FormatArg,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProxyArg {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum FormatArg {
    /// Lines for people.
    Text,
    /// One object, schema tlstrace-probe/1.
    Json,
}

/// `tlstrace probe`.
#[derive(Clone, Debug)]
pub struct Probe {
    pub endpoint: Endpoint,
    /// Where to connect to, if that is not for the endpoint's name to say.
    pub connect: Option<SocketAddr>,
    pub target: Target,
    pub ca_file: Option<PathBuf>,
    pub timeout: Duration,
    pub pace: Duration,
    pub format: FormatArg,
}

/// One host and one port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A name, or an address as text.
    pub host: String,
    pub port: u16,
}

impl Probe {
    /// Checks what was typed. The error is of clap's kind: it prints itself, and its exit code is 2.
    pub fn new(args: ProbeArgs) -> Result<Self, clap::Error> {
        let ProbeArgs { endpoint, sni, alpn, connect, proxy, ca_file, timeout, pace, output } = args;
        let endpoint = Endpoint::parse(&endpoint).map_err(settings::usage)?;
        let connect =
            connect.map(|text| address(&text, endpoint.port)).transpose().map_err(settings::usage)?;
        if let Some(name) = &sni
            && !is_host_name(name)
        {
            return Err(settings::usage(format_args!("`{}` is not a server name", name.escape_debug())));
        }
        if let Some(protocol) = alpn.iter().find(|protocol| !(1..=255).contains(&protocol.len())) {
            let message = format_args!("`{}` is not an application protocol", protocol.escape_debug());
            return Err(settings::usage(message));
        }
        let server_name = sni.or_else(|| endpoint.ip().is_none().then(|| endpoint.host.clone()));
        Ok(Self {
            target: Target {
                server_name: server_name.map(Into::into),
                alpn: alpn.into_iter().map(Into::into).collect(),
                proxy: proxy.map(|version| match version {
                    ProxyArg::V1 => ProxyVersion::V1,
                    ProxyArg::V2 => ProxyVersion::V2,
                }),
            },
            endpoint,
            connect,
            ca_file,
            timeout: values::duration(&timeout).map_err(settings::usage)?,
            pace: values::duration(&pace).map_err(settings::usage)?,
            format: output,
        })
    }
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(address) = address(text, DEFAULT_PORT) {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let error = || {
            format!(
                "`{}` is not one endpoint such as api.example.com:443 or [2001:db8::1]:443",
                text.escape_debug()
            )
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0).ok_or_else(error)?),
            None => (text, DEFAULT_PORT),
        };
        if is_host_name(host) { Ok(Self { host: host.to_owned(), port }) } else { Err(error()) }
    }

    /// The host, if it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ip() {
            Some(ip) => write!(f, "{}", SocketAddr::new(ip, self.port)),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]:443`.
fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = || text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, port));
    let address = text.parse().ok().filter(|address: &SocketAddr| address.port() > 0).or_else(bare);
    address.ok_or_else(|| format!("`{}` is not an address", text.escape_debug()))
}

/// Letters, digits and hyphens between dots (RFC 1123 §2.1), and underscores, which are in use. A last label that begins
/// with a digit is no name of a host but, at best, a range of addresses.
fn is_host_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = labels.rsplit('.').next().unwrap_or_default();
    labels.len() <= 253
        && labels.split('.').all(is_label)
        && !last.starts_with(|character: char| character.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_name_or_an_address_with_or_without_port() {
        for (text, shown) in [
            ("api.example.com", "api.example.com:443"),
            ("api.example.com:8443", "api.example.com:8443"),
            ("192.0.2.1", "192.0.2.1:443"),
            ("192.0.2.1:15021", "192.0.2.1:15021"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn ranges_lists_and_patterns_are_not_one_endpoint() {
        for text in [
            "192.0.2.0/24",
            "192.0.2.1-20",
            "192.0.2.1:443-445",
            "192.0.2.1,192.0.2.2",
            "*.example.com",
            "example.com:0",
            "example.com:https",
            "https://example.com",
            "",
            "a b",
            ":443",
        ] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
