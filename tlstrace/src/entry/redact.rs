//! What must not leave the machine: server names and client addresses, made unrecognisable before any output,
//! count or sentence sees them.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::engine::facts::{HandshakeFacts, Role};
use crate::tls::certificate::{Certificate, CertificateChain};
use crate::tls::client_hello::{ClientHello, ServerName};
use crate::verdict::Verdict;

/// What stands where a certificate names its server.
const REDACTED: &str = "CN=redacted";

/// What to hide.
///
/// A server name becomes `redacted-` and a number, the same one for the same name as long as the program runs;
/// the number comes from a key that is drawn anew each time and never shown. The names in the server's certificate
/// go with it. A client's address is cut to its /24 or /48, as web analytics do.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    pub server_names: bool,
    pub clients: bool,
    key: RandomState,
}

impl Redaction {
    pub fn new(server_names: bool, clients: bool) -> Self {
        Self { server_names, clients, key: RandomState::new() }
    }

    /// Whether nothing is to be hidden.
    pub fn is_empty(&self) -> bool {
        !(self.server_names || self.clients)
    }

    /// The verdict without what is to be hidden.
    pub fn apply(&self, verdict: &Verdict) -> Verdict {
        let mut verdict = verdict.clone();
        let mut secrets = Vec::new();
        let facts = Arc::make_mut(&mut verdict.facts);
        if self.clients {
            // A pod's name tells more than its address.
            verdict.names.client = None;
            hide_client(facts, &mut secrets);
        }
        if self.server_names {
            self.hide_server_name(facts, &mut secrets);
        }
        // "shop.example" must not be replaced inside "api.shop.example".
        secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        let hide = |text: &mut Cow<'static, str>| {
            if let Some(hidden) = replace_all(text, &secrets) {
                *text = hidden.into();
            }
        };
        if let Some(hidden) = replace_all(&verdict.summary, &secrets) {
            verdict.summary = hidden;
        }
        let facts = verdict.evidence.iter_mut().chain(&mut verdict.warnings);
        facts.for_each(|item| hide(&mut item.detail));
        verdict.alternatives.iter_mut().for_each(|item| hide(&mut item.why));
        verdict
    }

    fn hide_server_name(&self, facts: &mut HandshakeFacts, secrets: &mut Vec<(String, String)>) {
        for hello in [&mut facts.client_hello, &mut facts.second_client_hello].into_iter().flatten() {
            self.hide_name_of(hello, secrets);
        }
        if let Some(chain) = &mut facts.peer_mut(Role::Server).certificates {
            let names: Vec<_> = names(chain).collect();
            secrets.extend(names.into_iter().map(|name| {
                let stand_in = self.stand_in(&name);
                (name, stand_in)
            }));
            chain.certificates.iter_mut().for_each(hide_certificate);
        }
    }

    fn hide_name_of(&self, hello: &mut ClientHello, secrets: &mut Vec<(String, String)>) {
        if let Some(name) = hello.server_name.take() {
            let text = name.as_str().into_owned();
            let stand_in = self.stand_in(&text);
            hello.server_name = Some(ServerName::new(stand_in.as_bytes()));
            secrets.push((text, stand_in));
        }
    }

    fn stand_in(&self, name: &str) -> String {
        format!("redacted-{:08x}", self.key.hash_one(name.to_ascii_lowercase()) >> 32)
    }
}

/// What the leaf says about who the server is.
fn names(chain: &CertificateChain) -> impl Iterator<Item = String> + '_ {
    let leaf = chain.leaf().into_iter();
    leaf.flat_map(|leaf| {
        let alternative = leaf.names.iter().filter_map(crate::verdict::words::alternative_name);
        let subject = [Some(&leaf.subject), leaf.common_name.as_ref()].into_iter().flatten();
        alternative.map(Cow::into_owned).chain(subject.map(ToString::to_string))
    })
}

fn hide_certificate(certificate: &mut Arc<Certificate>) {
    if certificate.is_ca == Some(true) {
        return;
    }
    let certificate = Arc::make_mut(certificate);
    if certificate.self_issued {
        certificate.issuer = REDACTED.into();
    }
    certificate.subject = REDACTED.into();
    certificate.common_name = None;
    certificate.names.clear();
}

fn hide_client(facts: &mut HandshakeFacts, secrets: &mut Vec<(String, String)>) {
    let mut hide = |address: &mut SocketAddr| {
        let hidden = network_of(address.ip());
        secrets.push((address.ip().to_string(), hidden.to_string()));
        address.set_ip(hidden);
    };
    let client = facts.peer_mut(Role::Client);
    hide(&mut client.address);
    client.translated.as_deref_mut().into_iter().for_each(&mut hide);
    if let Some(source) = facts.proxy.as_mut().and_then(|header| header.source.as_mut()) {
        hide(source);
    }
}

/// The address without what tells hosts apart.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (!0 << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
    }
}

/// The text with every secret replaced, in any case of its letters; `None` if there is none in it.
fn replace_all(text: &str, secrets: &[(String, String)]) -> Option<String> {
    let mut replaced = None;
    for (secret, stand_in) in secrets {
        let text: &str = replaced.as_deref().unwrap_or(text);
        if let Some(new) = replace(text, secret, stand_in) {
            replaced = Some(new);
        }
    }
    replaced
}

fn replace(text: &str, secret: &str, stand_in: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let secret = secret.to_ascii_lowercase();
    if secret.is_empty() || !lower.contains(&secret) {
        return None;
    }
    let mut new = String::with_capacity(text.len());
    let mut done = 0;
    // Lower case in ASCII moves no byte.
    for (at, found) in lower.match_indices(&secret) {
        new.push_str(text.get(done..at)?);
        new.push_str(stand_in);
        done = at + found.len();
    }
    new.push_str(text.get(done..)?);
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_keeps_its_network() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("10.138.7.28"), "10.138.7.0");
        assert_eq!(network("2001:db8:1:2:3::4"), "2001:db8:1::");
    }

    #[test]
    fn a_secret_is_found_in_any_case_and_wherever_it_stands() {
        let secrets = [("api.example.com".to_owned(), "X".to_owned())];
        assert_eq!(replace_all("API.example.COM, then api.example.com.", &secrets).unwrap(), "X, then X.");
        assert_eq!(replace_all("é nothing here", &secrets), None);
    }

    #[test]
    fn a_name_has_one_stand_in_and_another_in_the_next_run() {
        let redaction = Redaction::new(true, false);
        assert_eq!(redaction.stand_in("Shop.example"), redaction.stand_in("shop.EXAMPLE"));
        assert_ne!(redaction.stand_in("shop.example"), redaction.stand_in("shop2.example"));
        assert_ne!(redaction.stand_in("shop.example"), Redaction::new(true, false).stand_in("shop.example"));
    }
}
