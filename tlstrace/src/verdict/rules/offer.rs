//! A ClientHello's offer, compared with what a listener has selected and with what nearly everybody supports.

use crate::engine::history::Selections;
use crate::tls::certificate::KeyAlgorithm;
use crate::tls::client_hello::ClientHello;
use crate::tls::codepoints::{
    Authentication, CipherSuite, KeyExchange, NamedGroup, ProtocolVersion, SignatureScheme,
};
use crate::verdict::words;

/// The suites that RFC 9325 §4.2 and RFC 8446 §9.1 recommend or demand.
const RECOMMENDED_SUITES: &[u16] = &[0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9];
/// The signature schemes that RFC 8446 §9.1 demands.
const MANDATORY_SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PSS_RSAE_SHA256,
    SignatureScheme::ECDSA_SECP256R1_SHA256,
];

/// What an offer can be short of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::verdict) enum Aspect {
    Version,
    Suite,
    Group,
    Signature,
}

impl Aspect {
    pub(in crate::verdict) const ALL: [Self; 4] = [Self::Version, Self::Suite, Self::Group, Self::Signature];

    /// The verdict that a server which accepts nothing of it deserves.
    pub(in crate::verdict) const fn verdict(self) -> &'static str {
        match self {
            Self::Version => "protocol_version_mismatch",
            Self::Suite => "cipher_suite_mismatch",
            Self::Group => "group_mismatch",
            Self::Signature => "signature_algorithm_mismatch",
        }
    }
}

/// A ClientHello, looked at as an offer. GREASE (RFC 8701) and signalling suites are no part of it.
#[derive(Clone, Copy)]
pub(in crate::verdict) struct Offer<'a>(&'a ClientHello);

impl<'a> Offer<'a> {
    pub(in crate::verdict) fn of(hello: &'a ClientHello) -> Self {
        Self(hello)
    }

    pub(super) fn suites(self) -> Vec<CipherSuite> {
        let real = |suite: &&CipherSuite| !suite.is_grease() && !suite.is_signaling();
        self.0.cipher_suites.iter().filter(real).copied().collect()
    }

    pub(super) fn groups(self) -> Vec<NamedGroup> {
        self.0.supported_groups.iter().filter(|group| !group.is_grease()).copied().collect()
    }

    /// Whether nothing of this aspect is among what a listener has selected for others; `key` is the kind of
    /// its certificate's key.
    pub(in crate::verdict) fn misses(
        self,
        aspect: Aspect,
        selected: &Selections,
        key: Option<&KeyAlgorithm>,
    ) -> bool {
        let hello = self.0;
        if selected.handshakes() == 0 {
            return false;
        }
        let common = |version: &ProtocolVersion| hello.offers(*version);
        match aspect {
            Aspect::Version => !selected.versions.values().any(common),
            Aspect::Suite => {
                let mut usable = selected.suites.values().filter(|(version, _)| common(version)).peekable();
                usable.peek().is_some() && !usable.any(|(_, suite)| hello.cipher_suites.contains(suite))
            }
            Aspect::Group => {
                let offered = self.groups();
                // Without ECDHE or TLS 1.3 no group is needed, and without the extension any will do
                // (RFC 8422 §4).
                let needed =
                    selected.suites.values().filter(|(version, _)| common(version)).all(|(_, suite)| {
                        matches!(suite.key_exchange(), Some(KeyExchange::Ecdhe | KeyExchange::Any))
                    });
                needed
                    && !offered.is_empty()
                    && !selected.groups.is_empty()
                    && !offered.iter().any(|group| selected.groups.contains(group))
            }
            Aspect::Signature => key.is_some_and(|key| !self.verifies(key)),
        }
    }

    /// The one aspect in which the offer is unusually narrow, if there is exactly one. Versions that nobody
    /// should support any more (RFC 8996) count before all, as they come with suites of their time.
    pub(super) fn narrowest(self) -> Option<Aspect> {
        if self.is_narrow(Aspect::Version) {
            return Some(Aspect::Version);
        }
        let mut narrow = Aspect::ALL.into_iter().filter(|aspect| self.is_narrow(*aspect));
        let first = narrow.next()?;
        narrow.next().is_none().then_some(first)
    }

    fn is_narrow(self, aspect: Aspect) -> bool {
        let hello = self.0;
        match aspect {
            Aspect::Version => hello.max_version() < ProtocolVersion::TLS1_2,
            Aspect::Suite => {
                let suites = self.suites();
                suites.len() <= 1 || !suites.iter().any(|suite| RECOMMENDED_SUITES.contains(&suite.0))
            }
            Aspect::Group => self.groups().len() == 1,
            Aspect::Signature => {
                let schemes = &hello.signature_schemes;
                !schemes.is_empty()
                    && !MANDATORY_SCHEMES.iter().all(|scheme| schemes.contains(scheme))
                    && (schemes.len() == 1
                        || !self.verifies(&KeyAlgorithm::Rsa)
                        || !self.verifies(&KeyAlgorithm::Ec(None)))
            }
        }
    }

    /// Whether the client could verify a signature of such a key, as far as its lists tell.
    fn verifies(self, key: &KeyAlgorithm) -> bool {
        let hello = self.0;
        let only_1_3 = hello.offered_versions().iter().all(|version| version.is_tls13());
        let (authentication, fits): (_, fn(SignatureScheme) -> bool) = match key {
            KeyAlgorithm::Rsa => {
                (Authentication::Rsa, |scheme| scheme.name().is_some_and(|name| name.starts_with("rsa_")))
            }
            KeyAlgorithm::Ec(_) => {
                (Authentication::Ecdsa, |scheme| scheme.name().is_some_and(|name| name.starts_with("ecdsa_")))
            }
            KeyAlgorithm::Ed25519 => (Authentication::Ecdsa, |scheme| scheme == SignatureScheme::ED25519),
            KeyAlgorithm::Ed448 => (Authentication::Ecdsa, |scheme| scheme == SignatureScheme::ED448),
            _ => return true,
        };
        // Without the extension a TLS 1.2 client takes SHA-1 with any key (RFC 5246 §7.4.1.4.1).
        let by_scheme =
            hello.signature_schemes.is_empty() || hello.signature_schemes.iter().copied().any(fits);
        let by_suite = only_1_3
            || self.suites().into_iter().any(|suite| {
                suite.authentication().is_none_or(|a| a == authentication || a == Authentication::Any)
            });
        by_scheme && by_suite
    }
}

/// `1.3, 1.2`, or `up to 1.2` where the client does not list its versions.
pub(super) fn offered_versions(hello: &ClientHello) -> String {
    let versions = words::list(hello.offered_versions(), 8);
    if hello.supported_versions.is_empty() { format!("up to {versions}") } else { versions }
}

/// Protocol names of an ALPN list, printable.
pub(super) fn bytes_list(protocols: &[Box<[u8]>]) -> String {
    if protocols.is_empty() {
        return "none".to_owned();
    }
    words::list(
        protocols
            .iter()
            .filter(|name| !matches!(***name, [a, b] if a == b && a & 0x0f == 0x0a))
            .map(|name| words::printable(name)),
        6,
    )
}
