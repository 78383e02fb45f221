//! The catalogue: every rule, by family.
//!
//! A rule is a unit struct in its family's file: id, documentation, remedy and [`Rule::judge`], its line in
//! that file's `RULES`, its tests beneath, and a scenario under `tests/scenarios`. `tlstrace explain`, the
//! documentation and the JSON schema are generated from what is registered here.

mod client_certificate;
mod negotiation;
mod offer;
mod outcome;
mod plaintext;
mod refusal;
mod server_certificate;
mod server_name;
mod transport;
mod unanswered;

pub(super) use offer::{Aspect, Offer};

use std::cell::OnceCell;

use crate::tls::certificate::CertificateChain;
use crate::tls::client_hello::ServerName;

use super::{Case, CertificateFault, Evidence, Finding, Severity};

/// A rule that reports one `Cause` of its family, where the family's `judge` finds that it is this one.
macro_rules! rule {
    ($type:ident, $id:literal, $severity:ident, short: $short:literal, long: $long:literal, remedy: $remedy:literal) => {
        /// See [`Rule::doc_short`].
        struct $type;

        impl Rule for $type {
            fn id(&self) -> &'static str {
                $id
            }

            fn severity(&self) -> Severity {
                Severity::$severity
            }

            fn doc_short(&self) -> &'static str {
                $short
            }

            fn doc_long(&self) -> &'static str {
                $long
            }

            fn remedy(&self) -> &'static str {
                $remedy
            }

            fn judge(&self, case: &Case<'_>) -> Option<Finding> {
                judge(case, Cause::$type)
            }
        }
    };
}

use rule;

/// One cause that a connection can have.
pub trait Rule: Sync {
    /// Stable name in `snake_case`.
    fn id(&self) -> &'static str;

    /// Severity of its findings, unless a finding says otherwise.
    fn severity(&self) -> Severity;

    /// One sentence: what happened.
    fn doc_short(&self) -> &'static str;

    /// What it means, what evidence it needs, and where the protocol says so (RFC and section).
    fn doc_long(&self) -> &'static str;

    /// What to do, in one line.
    fn remedy(&self) -> &'static str;

    /// The finding, if the facts allow it. Must not claim more than they do: silence is an answer.
    fn judge(&self, case: &Case<'_>) -> Option<Finding>;
}

/// What the families found whose rules share one question: it is asked once per case.
#[derive(Default)]
pub(super) struct Answers {
    server_certificate: Answer<server_certificate::Cause>,
    client_certificate: Answer<client_certificate::Cause>,
}

/// The one cause that a family found, if any.
struct Answer<C>(OnceCell<Option<(C, Finding)>>);

impl<C> Default for Answer<C> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

impl<C: Copy + PartialEq> Answer<C> {
    /// The finding of the family, if its cause is this one.
    fn give(&self, cause: C, find: impl FnOnce() -> Option<(C, Finding)>) -> Option<Finding> {
        let (found, finding) = self.0.get_or_init(find).as_ref()?;
        (*found == cause).then(|| finding.clone())
    }
}

/// Families in the order of the catalogue; among equal findings the first wins.
const FAMILIES: &[&[&'static dyn Rule]] = &[
    transport::RULES,
    unanswered::RULES,
    plaintext::RULES,
    server_name::RULES,
    negotiation::RULES,
    refusal::RULES,
    server_certificate::RULES,
    client_certificate::RULES,
    outcome::RULES,
];

/// Every rule.
pub fn all() -> impl Iterator<Item = &'static dyn Rule> {
    FAMILIES.iter().copied().flatten().copied()
}

/// The rule with this id.
pub fn find(id: &str) -> Option<&'static dyn Rule> {
    all().find(|rule| rule.id() == id)
}

/// What is worth knowing about the certificate of a handshake that succeeded.
pub(super) fn certificate_warnings(case: &Case<'_>) -> Vec<Evidence> {
    server_certificate::warnings(case)
}

/// What is wrong with a certificate by itself.
pub(super) fn certificate_faults(
    chain: &CertificateChain,
    name: Option<&ServerName>,
    now: i64,
) -> Vec<CertificateFault> {
    server_certificate::faults(chain, name, now)
}

impl std::fmt::Debug for dyn Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_snake_case() {
        let mut seen = std::collections::BTreeSet::new();
        for rule in all() {
            let id = rule.id();
            assert!(seen.insert(id), "{id} is registered twice");
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{id}");
        }
    }

    #[test]
    fn every_rule_is_documented() {
        for rule in all() {
            for (what, text) in
                [("doc_short", rule.doc_short()), ("doc_long", rule.doc_long()), ("remedy", rule.remedy())]
            {
                assert!(text.ends_with('.'), "{}: {what} is not a sentence: {text:?}", rule.id());
            }
        }
    }
}
