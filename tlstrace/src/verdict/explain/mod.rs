//! What a verdict means, how to confirm it and how to fix it: `tlstrace explain` and `docs/verdicts.md`.
//!
//! Meaning and evidence come from the registered rules, commands and fixes from `guides`. Both outputs are
//! made from the same source.

mod guides;

use std::fmt::Write as _;

use super::rules::{self, Rule};
use crate::engine::facts::Role;

use guides::{Fix, GUIDES, Guide};

/// Columns of explanations in a terminal.
const WIDTH: usize = 100;

/// What a fix is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, clap::ValueEnum)]
pub enum Product {
    /// Any client and server.
    Generic,
    Nginx,
    Envoy,
    Istio,
    Haproxy,
    #[value(alias = "apigee")]
    ApigeeHybrid,
    ApigeeEdge,
    Gke,
}

impl Product {
    /// As its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "Any product",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Istio => "Istio",
            Self::Haproxy => "HAProxy",
            Self::ApigeeHybrid => "Apigee hybrid",
            Self::ApigeeEdge => "Apigee Edge",
            Self::Gke => "GKE",
        }
    }
}

/// Every verdict with its severity and one sentence.
pub fn catalogue() -> String {
    let longest = rules::all().map(|rule| rule.id().len()).max().unwrap_or_default();
    let mut text = String::new();
    for rule in rules::all() {
        let _ = writeln!(text, "{:longest$}  {:7}  {}", rule.id(), rule.severity(), rule.doc_short());
    }
    text
}

/// All about one verdict; of the fixes, those for one product if it is named. `None`: there is no such verdict.
pub fn page(id: &str, product: Option<Product>) -> Option<String> {
    let rule = rules::find(id)?;
    let mut text = format!("{} ({})\n", rule.id(), rule.severity());
    wrap(&mut text, 2, rule.doc_short());
    heading(&mut text, "Meaning and evidence");
    wrap(&mut text, 2, rule.doc_long());
    let guide = guide(rule);
    let commands: Vec<_> = confirmations(rule).collect();
    if !commands.is_empty() {
        heading(&mut text, "How to confirm");
        for command in commands {
            let _ = writeln!(text, "  {command}");
        }
    }
    heading(&mut text, "What to do");
    wrap(&mut text, 2, rule.remedy());
    let fixes = fixes(guide, product);
    for (name, fix) in &fixes {
        let _ = writeln!(text, "\n  {name}");
        wrap(&mut text, 4, fix);
    }
    if let Some(product) = product
        && fixes.is_empty()
    {
        let _ = writeln!(text, "\n  Nothing in particular is known for {}.", product.name());
    }
    Some(text)
}

/// What to do about a verdict on a connection whose end in this role is the product; `None`: nothing in particular.
pub fn step(id: &str, product: Product, role: Role) -> Option<&'static str> {
    let guide = GUIDES.iter().find(|guide| guide.verdicts.contains(&id))?;
    let is_for = |fix: &&Fix| fix.product == product && fix.role.is_none_or(|of| of == role);
    guide.fixes.iter().find(is_for).map(|fix| fix.text)
}

/// Verdicts whose id resembles `id`.
pub fn similar(id: &str) -> Vec<&'static str> {
    let words: Vec<_> = id.split(|character: char| !character.is_ascii_alphanumeric()).collect();
    let resembles = |rule: &&dyn Rule| words.iter().any(|word| word.len() > 2 && rule.id().contains(word));
    rules::all().filter(resembles).map(Rule::id).collect()
}

/// The same as a page of documentation.
pub fn markdown() -> String {
    let mut text = "# Verdicts\n\n\
         This page is generated from the program: `tlstrace explain` says the same. Each connection gets one \
         verdict, which names the cause. How it ended, who is to blame and how sure this is are fields of their \
         own.\n\n| id | severity | meaning |\n|---|---|---|\n"
        .to_owned();
    for rule in rules::all() {
        let _ = writeln!(text, "| [`{0}`](#{0}) | {1} | {2} |", rule.id(), rule.severity(), rule.doc_short());
    }
    for rule in rules::all() {
        let _ = write!(
            text,
            "\n## {}\n\n*{}* · {}\n\n{}\n",
            rule.id(),
            rule.severity(),
            rule.doc_short(),
            rule.doc_long()
        );
        let guide = guide(rule);
        let commands: Vec<_> = confirmations(rule).collect();
        if !commands.is_empty() {
            let _ = write!(text, "\nTo confirm:\n\n```sh\n{}\n```\n", commands.join("\n"));
        }
        let _ = write!(text, "\nTo fix: {}\n", rule.remedy());
        for (position, (name, fix)) in fixes(guide, None).into_iter().enumerate() {
            let _ = writeln!(text, "{}* **{name}**: {fix}", if position == 0 { "\n" } else { "" });
        }
    }
    text
}

/// Verdicts that `tlstrace probe` can find a reason for, at the endpoint of the connection.
pub const PROBED: &[&str] = &[
    "port_closed",
    "syn_timeout",
    "reset_after_client_hello",
    "closed_after_client_hello",
    "server_silent",
    "large_client_hello_intolerance",
    "tls_on_plaintext_port",
    "starttls_expected",
    "proxy_header_unexpected",
    "proxy_header_missing",
    "sni_missing",
    "sni_unrecognized",
    "protocol_version_mismatch",
    "cipher_suite_mismatch",
    "group_mismatch",
    "alpn_mismatch",
    "handshake_failure_unexplained",
    "protocol_error",
    "server_certificate_expired",
    "server_certificate_not_yet_valid",
    "hostname_mismatch",
    "server_chain_incomplete",
    "server_chain_misordered",
    "server_certificate_self_signed",
    "server_ca_unknown",
    "server_certificate_unsupported",
    "client_certificate_missing",
];

/// Commands that confirm a verdict.
fn confirmations(rule: &dyn Rule) -> impl Iterator<Item = &'static str> {
    let probe = PROBED.contains(&rule.id()).then_some("tlstrace probe HOST:PORT --sni NAME");
    let commands = guide(rule).map(|guide| guide.confirm).unwrap_or_default();
    probe.into_iter().chain(commands.iter().copied())
}

fn guide(rule: &dyn Rule) -> Option<&'static Guide> {
    GUIDES.iter().find(|guide| guide.verdicts.contains(&rule.id()))
}

/// By the name of the product, as whichever end of the connection it is.
fn fixes(guide: Option<&'static Guide>, product: Option<Product>) -> Vec<(&'static str, String)> {
    let all = guide.into_iter().flat_map(|guide| guide.fixes);
    let mut fixes: Vec<(&str, String)> = Vec::new();
    for fix in all.filter(|fix| product.is_none_or(|product| product == fix.product)) {
        match fixes.last_mut().filter(|(name, _)| *name == fix.product.name()) {
            Some((_, text)) => *text = format!("{text} {}", fix.text),
            None => fixes.push((fix.product.name(), fix.text.to_owned())),
        }
    }
    fixes
}

fn heading(text: &mut String, heading: &str) {
    let _ = writeln!(text, "\n{heading}");
}

/// Appends words in lines of [`WIDTH`], so many columns from the left.
fn wrap(text: &mut String, indent: usize, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        if column == 0 {
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column + 1 + word.len() > WIDTH {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_verdict_has_a_guide_with_a_fix_for_any_product() {
        let info = |rule: &&dyn Rule| rule.severity() == super::super::Severity::Info;
        let without: Vec<_> = rules::all()
            .filter(|rule| !info(rule))
            .filter(|&rule| fixes(guide(rule), Some(Product::Generic)).is_empty())
            .map(Rule::id)
            .collect();
        assert!(without.is_empty(), "no guide in general for {without:?}");
    }

    #[test]
    fn a_verdict_has_one_guide() {
        let mut seen = BTreeSet::new();
        for id in GUIDES.iter().flat_map(|guide| guide.verdicts) {
            assert!(seen.insert(id), "{id} has two");
        }
    }

    #[test]
    fn a_page_fits_its_width_but_for_commands() {
        for rule in rules::all() {
            let page = page(rule.id(), None).unwrap();
            let prose =
                page.lines().filter(|line| !confirmations(rule).any(|command| command == line.trim()));
            for line in prose {
                assert!(line.chars().count() <= WIDTH || !line.trim().contains(' '), "{line:?}");
            }
        }
    }

    #[test]
    fn what_can_be_probed_is_registered() {
        assert!(PROBED.iter().all(|id| rules::find(id).is_some()));
    }

    #[test]
    fn a_product_limits_the_fixes() {
        let page = page("sni_missing", Some(Product::ApigeeHybrid)).unwrap();
        assert!(page.contains("enableNonSniClient"), "{page}");
        assert!(!page.contains("HAProxy"), "{page}");
    }

    #[test]
    fn a_step_is_for_the_end_that_the_product_is() {
        let apigee = |role| step("hostname_mismatch", Product::ApigeeHybrid, role).unwrap();
        assert!(apigee(Role::Server).starts_with("Northbound"), "{}", apigee(Role::Server));
        assert!(apigee(Role::Client).starts_with("Southbound"), "{}", apigee(Role::Client));
        assert_eq!(step("server_ca_unknown", Product::Nginx, Role::Server), None, "its client has to trust");
        assert!(step("server_ca_unknown", Product::Nginx, Role::Client).is_some());
        assert_eq!(step("client_clock_wrong", Product::Nginx, Role::Server), None);
    }

    #[test]
    fn an_unknown_verdict_has_no_page_but_neighbours() {
        assert_eq!(page("certificate_expired", None), None);
        assert!(similar("certificate_expired").contains(&"server_certificate_expired"));
    }
}
