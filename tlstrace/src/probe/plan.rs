//! Which questions an endpoint is asked, and in which order.
//!
//! First a hello is looked for that the endpoint accepts: the *base*. Then each question changes one aspect of it.
//! [`next_attempt`] is a function of the answers so far, so that what comes next can be tested without a socket, and
//! the same hello is never sent twice.

use std::collections::HashMap;
use std::time::Duration;

use crate::tls::certificate::KeyAlgorithm;
use crate::tls::codepoints::{CipherSuite, NamedGroup, ProtocolVersion};

use super::answer::{Accepted, Answer, Refusal};
use super::hello::{self, Hello, ProxyVersion, Share};

/// Connections that one probe makes at most.
pub const MAX_CONNECTIONS: usize =
    BASES + VERSIONS.len() + 2 + FAMILIES + hello::TLS13.len() + GROUPS.len() + 2 + MAX_ALPN + 2 + 1;

/// Application protocols that are asked for at most, the one that nobody speaks included.
pub const MAX_ALPN: usize = 5;

const BASES: usize = 7;
const FAMILIES: usize = hello::FAMILIES.len();

/// A name that no certificate covers and no server is called (RFC 6761 §6.4).
pub const NOBODYS_NAME: &str = "tlstrace-probe.invalid";
/// An application protocol that nobody speaks.
pub const NOBODYS_PROTOCOL: &str = "tlstrace-probe";
/// Bytes of a hello that does not fit into one TCP segment of 1,460 bytes.
pub const LARGE: u16 = 2000;

const VERSIONS: [ProtocolVersion; 5] = [
    ProtocolVersion::TLS1_3,
    ProtocolVersion::TLS1_2,
    ProtocolVersion::TLS1_1,
    ProtocolVersion::TLS1_0,
    ProtocolVersion::SSL3,
];

/// Groups that are asked for one by one.
const GROUPS: [NamedGroup; 7] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::SECP256R1,
    NamedGroup::SECP384R1,
    NamedGroup::SECP521R1,
    NamedGroup::X448,
    NamedGroup::FFDHE2048,
];

/// What is probed.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// `None` for an address without a name.
    pub server_name: Option<Box<str>>,
    /// Application protocols to ask for; by default those of HTTP.
    pub alpn: Vec<Box<str>>,
    /// The header that every connection begins with.
    pub proxy: Option<ProxyVersion>,
}

/// One connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Attempt {
    /// A hello, and no more than the answer to it.
    Hello(Hello),
    /// A real handshake, for what TLS 1.3 encrypts.
    Handshake { server_name: Option<Box<str>>, alpn: Vec<Box<str>>, proxy: Option<ProxyVersion> },
}

/// An answer, and when it came.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answer: Answer,
    /// Since the hello was sent.
    pub after: Duration,
}

/// What has been answered.
#[derive(Clone, Debug, Default)]
pub struct Answers(HashMap<Attempt, Outcome>);

/// What a question is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Aspect {
    ProxyHeader,
    ServerName,
    Version,
    CipherSuite,
    Group,
    HelloSize,
    Alpn,
}

/// One aspect of the base, changed.
#[derive(Clone, Debug)]
pub struct Question {
    pub aspect: Aspect,
    /// What is offered, in words.
    pub offer: String,
    pub attempt: Attempt,
    pub wanted: Wanted,
}

/// What a ServerHello must say to be a yes.
#[derive(Clone, Debug)]
pub enum Wanted {
    Anything,
    Version(ProtocolVersion),
    Group(NamedGroup),
    Alpn(Box<str>),
}

/// What the search for an accepted hello came to.
#[derive(Clone, Debug)]
pub enum Base<'a> {
    /// This has to be tried.
    Try(Hello),
    Found(Hello, &'a Accepted),
    /// The endpoint accepts none, or does not speak TLS; the first refusal.
    None(&'a Refusal),
}

/// The next connection to make; `None` when everything is answered.
pub fn next_attempt(target: &Target, answers: &Answers) -> Option<Attempt> {
    let base = match base(target, answers) {
        Base::Try(hello) => return Some(Attempt::Hello(hello)),
        Base::None(_) => return None,
        Base::Found(hello, _) => hello,
    };
    let attempts = questions(target, &base, answers).into_iter().map(|question| question.attempt);
    attempts.chain(handshake(&base, answers)).find(|attempt| !answers.0.contains_key(attempt))
}

impl Answers {
    pub fn insert(&mut self, attempt: Attempt, outcome: Outcome) {
        self.0.insert(attempt, outcome);
    }

    pub fn get(&self, attempt: &Attempt) -> Option<&Outcome> {
        self.0.get(attempt)
    }

    /// Connections made.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The curve of the certificate that answered `hello`.
    fn certificate_curve(&self, hello: &Hello) -> Option<NamedGroup> {
        let outcome = self.get(&Attempt::Hello(hello.clone()))?;
        match outcome.answer.as_ref().ok()?.chain.as_ref()?.leaf()?.key.algorithm {
            KeyAlgorithm::Ec(curve) => curve,
            _ => None,
        }
    }

    fn accepts_version(&self, base: &Hello, version: ProtocolVersion) -> bool {
        let outcome = self.get(&Attempt::Hello(only(base, version)));
        outcome.is_some_and(|outcome| Wanted::Version(version).is_met_by(&outcome.answer))
    }
}

impl Wanted {
    /// Whether the answer is a yes.
    pub fn is_met_by(&self, answer: &Answer) -> bool {
        let Ok(accepted) = answer else { return false };
        match self {
            Self::Anything => true,
            Self::Version(version) => accepted.version == *version,
            Self::Group(group) => accepted.group == Some(*group),
            Self::Alpn(protocol) => accepted.alpn.as_deref() == Some(protocol.as_bytes()),
        }
    }
}

impl Aspect {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy header",
            Self::ServerName => "server name",
            Self::Version => "version",
            Self::CipherSuite => "cipher suite",
            Self::Group => "group",
            Self::HelloSize => "hello size",
            Self::Alpn => "alpn",
        }
    }
}

/// A hello that the endpoint accepts.
pub fn base<'a>(target: &Target, answers: &'a Answers) -> Base<'a> {
    let mut first = None;
    for hello in bases(target) {
        match answers.get(&Attempt::Hello(hello.clone())).map(|outcome| &outcome.answer) {
            None => return Base::Try(hello),
            Some(Ok(accepted)) => return Base::Found(hello, accepted),
            Some(Err(refusal)) => {
                let refusal: &Refusal = first.get_or_insert(refusal);
                // No other hello will be answered by somebody who is not there, or does not speak TLS.
                if matches!(refusal, Refusal::Unreachable(_) | Refusal::NotTls { .. }) {
                    return Base::None(refusal);
                }
            }
        }
    }
    first.map_or_else(|| Base::Try(broad(target)), Base::None)
}

/// What an endpoint is likely to accept, the likeliest first.
fn bases(target: &Target) -> Vec<Hello> {
    let first = broad(target);
    let tls12 = only(&first, ProtocolVersion::TLS1_2);
    let tls10 = only(&first, ProtocolVersion::TLS1_0);
    let http = Hello { alpn: vec!["h2".into(), "http/1.1".into()], ..first.clone() };
    let mut bases = vec![first.clone(), Hello { server_name: None, ..first.clone() }, tls12, tls10, http];
    if target.proxy.is_none() {
        bases.extend(
            [ProxyVersion::V1, ProxyVersion::V2]
                .map(|version| Hello { proxy: Some(version), ..first.clone() }),
        );
    }
    bases.dedup();
    bases
}

/// What most clients of today offer, in one TCP segment.
fn broad(target: &Target) -> Hello {
    Hello {
        lowest: ProtocolVersion::TLS1_0,
        highest: ProtocolVersion::TLS1_3,
        suites: hello::BROAD,
        groups: hello::CLASSICAL.to_vec(),
        share: Share::X25519,
        server_name: target.server_name.clone(),
        alpn: Vec::new(),
        padded_to: 0,
        proxy: target.proxy,
    }
}

fn only(base: &Hello, version: ProtocolVersion) -> Hello {
    Hello { lowest: version, highest: version, ..base.clone() }
}

/// All that is asked once a base is known, as far as it does not depend on answers that are still to come.
pub fn questions(target: &Target, base: &Hello, answers: &Answers) -> Vec<Question> {
    let mut questions = Vec::new();
    let mut ask = |aspect, offer: &str, attempt, wanted| {
        questions.push(Question { aspect, offer: offer.to_owned(), attempt, wanted });
    };
    let mut ask_hello =
        |aspect, offer: &str, hello, wanted| ask(aspect, offer, Attempt::Hello(hello), wanted);

    if target.proxy.is_none() {
        for (offer, proxy) in [("none", None), ("v1", Some(ProxyVersion::V1)), ("v2", Some(ProxyVersion::V2))]
        {
            ask_hello(Aspect::ProxyHeader, offer, Hello { proxy, ..base.clone() }, Wanted::Anything);
        }
    }
    for name in [target.server_name.as_deref(), None, Some(NOBODYS_NAME)]
        .into_iter()
        .skip(usize::from(target.server_name.is_none()))
    {
        let hello = Hello { server_name: name.map(Into::into), ..base.clone() };
        ask_hello(Aspect::ServerName, name.unwrap_or("none"), hello, Wanted::Anything);
    }
    for version in VERSIONS {
        let offer = version.name().unwrap_or_default();
        ask_hello(Aspect::Version, offer, only(base, version), Wanted::Version(version));
    }
    let tls13 =
        answers.accepts_version(base, ProtocolVersion::TLS1_3).then(|| only(base, ProtocolVersion::TLS1_3));
    let tls12 =
        answers.accepts_version(base, ProtocolVersion::TLS1_2).then(|| only(base, ProtocolVersion::TLS1_2));
    if let Some(tls13) = &tls13 {
        for suite in hello::TLS13.chunks(1) {
            let offer = suite.first().map(CipherSuite::to_string).unwrap_or_default();
            ask_hello(
                Aspect::CipherSuite,
                &offer,
                Hello { suites: suite, ..tls13.clone() },
                Wanted::Anything,
            );
        }
    }
    if let Some(tls12) = &tls12 {
        for (family, suites) in hello::FAMILIES {
            ask_hello(
                Aspect::CipherSuite,
                family,
                Hello { suites, ..tls12.clone() },
                Wanted::Version(ProtocolVersion::TLS1_2),
            );
        }
    }
    for group in GROUPS {
        // Post-quantum and finite field groups are for TLS 1.3 only, where the server answers with a
        // HelloRetryRequest to a hello that shows no key share of it.
        let hello = match (&tls13, &tls12) {
            (Some(tls13), _) => {
                let share = if group == NamedGroup::X25519 { Share::X25519 } else { Share::None };
                Hello { groups: vec![group], share, ..tls13.clone() }
            }
            (None, Some(tls12)) if is_curve(group) => {
                // Without the certificate's curve there would be no certificate for the hello.
                let curve = answers.certificate_curve(tls12).filter(|curve| *curve != group);
                let groups = [group].into_iter().chain(curve).collect();
                Hello { groups, suites: hello::ECDHE, ..tls12.clone() }
            }
            _ => continue,
        };
        ask_hello(Aspect::Group, &group.to_string(), hello, Wanted::Group(group));
    }
    let padded = Hello { padded_to: LARGE, ..base.clone() };
    ask_hello(Aspect::HelloSize, "2,000 bytes by padding", padded, Wanted::Anything);
    if tls13.is_some() {
        let groups = hello::POST_QUANTUM.to_vec();
        let hello = Hello { groups, share: Share::PostQuantum, ..base.clone() };
        ask_hello(Aspect::HelloSize, "1,500 bytes by an X25519MLKEM768 key share", hello, Wanted::Anything);
    }
    ask_hello(Aspect::Alpn, "none", Hello { alpn: Vec::new(), ..base.clone() }, Wanted::Anything);
    for protocol in protocols(target) {
        let alpn = vec![protocol.clone()];
        let attempt = match (&tls12, &tls13) {
            (Some(tls12), _) => Attempt::Hello(Hello { alpn, ..tls12.clone() }),
            // TLS 1.3 answers in its encrypted extensions.
            (None, Some(_)) => {
                Attempt::Handshake { server_name: base.server_name.clone(), alpn, proxy: base.proxy }
            }
            (None, None) => Attempt::Hello(Hello { alpn, ..base.clone() }),
        };
        questions.push(Question {
            aspect: Aspect::Alpn,
            offer: protocol.to_string(),
            attempt,
            wanted: Wanted::Alpn(protocol),
        });
    }
    questions
}

fn protocols(target: &Target) -> Vec<Box<str>> {
    let asked: Vec<Box<str>> =
        if target.alpn.is_empty() { vec!["h2".into(), "http/1.1".into()] } else { target.alpn.clone() };
    asked.into_iter().take(MAX_ALPN - 1).chain([NOBODYS_PROTOCOL.into()]).collect()
}

/// The real handshake that shows the chain, where the endpoint speaks what a library of today does.
pub fn handshake(base: &Hello, answers: &Answers) -> Option<Attempt> {
    let modern = |(family, suites): &(&str, &'static [CipherSuite])| {
        let hello = Hello { suites, ..only(base, ProtocolVersion::TLS1_2) };
        family.contains("AEAD")
            && answers.get(&Attempt::Hello(hello)).is_some_and(|outcome| outcome.answer.is_ok())
    };
    let is_possible =
        answers.accepts_version(base, ProtocolVersion::TLS1_3) || hello::FAMILIES.iter().any(modern);
    is_possible.then(|| Attempt::Handshake {
        server_name: base.server_name.clone(),
        alpn: base.alpn.clone(),
        proxy: base.proxy,
    })
}

fn is_curve(group: NamedGroup) -> bool {
    matches!(
        group,
        NamedGroup::X25519
            | NamedGroup::SECP256R1
            | NamedGroup::SECP384R1
            | NamedGroup::SECP521R1
            | NamedGroup::X448
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tls::alert::Alert;
    use crate::tls::codepoints::{AlertDescription, AlertLevel};

    pub(in crate::probe) fn named() -> Target {
        Target { server_name: Some("api.example.com".into()), ..Target::default() }
    }

    /// Asks `server` until nothing is left to ask.
    pub(in crate::probe) fn probe(target: &Target, server: impl Fn(&Attempt) -> Answer) -> Answers {
        let mut answers = Answers::default();
        while let Some(attempt) = next_attempt(target, &answers) {
            assert!(answers.get(&attempt).is_none(), "asked twice: {attempt:?}");
            let answer = server(&attempt);
            answers.insert(attempt, Outcome { answer, after: Duration::from_micros(300) });
            assert!(answers.len() <= MAX_CONNECTIONS);
        }
        answers
    }

    pub(in crate::probe) fn alert(description: AlertDescription) -> Answer {
        Err(Refusal::Alert(Alert { level: AlertLevel::FATAL, description }))
    }

    /// A server of TLS 1.2 and 1.3 that takes everything modern.
    pub(in crate::probe) fn modern(attempt: &Attempt) -> Answer {
        let hello = match attempt {
            Attempt::Handshake { alpn, .. } => {
                return Ok(Accepted {
                    version: ProtocolVersion::TLS1_3,
                    alpn: alpn.first().filter(|name| ***name == *"h2").map(|name| name.as_bytes().into()),
                    ..Accepted::default()
                });
            }
            Attempt::Hello(hello) => hello,
        };
        if hello.highest < ProtocolVersion::TLS1_2 {
            return alert(AlertDescription::PROTOCOL_VERSION);
        }
        let is_tls13 = hello.highest == ProtocolVersion::TLS1_3;
        let takes = |suite: &&CipherSuite| {
            if is_tls13 { hello::TLS13.contains(suite) } else { [0xc02f, 0xc030].contains(&suite.0) }
        };
        let Some(suite) = hello.suites.iter().find(takes) else {
            return alert(AlertDescription::HANDSHAKE_FAILURE);
        };
        let Some(group) = hello.groups.iter().find(|group| is_curve(**group) && **group != NamedGroup::X448)
        else {
            return alert(AlertDescription::HANDSHAKE_FAILURE);
        };
        Ok(Accepted {
            version: if is_tls13 { ProtocolVersion::TLS1_3 } else { ProtocolVersion::TLS1_2 },
            cipher_suite: *suite,
            group: Some(*group),
            ..Accepted::default()
        })
    }

    #[test]
    fn an_endpoint_that_is_not_there_is_asked_once() {
        let unreachable = |_: &Attempt| Err(Refusal::Unreachable(super::super::answer::Unreachable::Refused));
        assert_eq!(probe(&named(), unreachable).len(), 1);
    }

    #[test]
    fn an_endpoint_that_refuses_everything_is_asked_for_each_base() {
        assert_eq!(probe(&named(), |_| Err(Refusal::Reset)).len(), BASES);
        let proxied = Target { proxy: Some(ProxyVersion::V1), ..named() };
        assert_eq!(probe(&proxied, |_| Err(Refusal::Reset)).len(), BASES - 2);
    }

    #[test]
    fn one_aspect_is_changed_at_a_time() {
        let answers = probe(&named(), modern);
        let Base::Found(base, _) = base(&named(), &answers) else { panic!() };
        for question in questions(&named(), &base, &answers) {
            let Attempt::Hello(hello) = question.attempt else { panic!("TLS 1.2 shows everything") };
            assert_eq!(
                hello.proxy.is_some(),
                question.aspect == Aspect::ProxyHeader && question.offer != "none"
            );
            assert_eq!(
                hello.server_name != base.server_name,
                question.aspect == Aspect::ServerName && question.offer != "api.example.com"
            );
            assert_eq!(hello.padded_to > 0, question.offer.contains("padding"));
            assert_eq!(hello.alpn.is_empty(), question.aspect != Aspect::Alpn || question.offer == "none");
        }
    }

    #[test]
    fn what_only_a_header_or_the_absence_of_a_name_opens_becomes_the_base() {
        let behind_proxy = |attempt: &Attempt| match attempt {
            Attempt::Hello(Hello { proxy: None, .. }) => Err(Refusal::Closed),
            other => modern(other),
        };
        let answers = probe(&named(), behind_proxy);
        let Base::Found(found, _) = base(&named(), &answers) else { panic!() };
        assert_eq!(found.proxy, Some(ProxyVersion::V1));
        let nameless = |attempt: &Attempt| match attempt {
            Attempt::Hello(Hello { server_name: Some(_), .. }) => alert(AlertDescription::UNRECOGNIZED_NAME),
            other => modern(other),
        };
        let answers = probe(&named(), nameless);
        let Base::Found(found, _) = base(&named(), &answers) else { panic!() };
        assert_eq!(found.server_name, None);
    }

    #[test]
    fn without_tls_1_3_nothing_is_asked_that_only_it_has() {
        let old = |attempt: &Attempt| match attempt {
            Attempt::Hello(hello)
                if hello.highest == ProtocolVersion::TLS1_3 && hello.lowest < ProtocolVersion::TLS1_3 =>
            {
                modern(&Attempt::Hello(only(hello, ProtocolVersion::TLS1_2)))
            }
            Attempt::Hello(hello) if hello.highest == ProtocolVersion::TLS1_3 => {
                alert(AlertDescription::PROTOCOL_VERSION)
            }
            other => modern(other),
        };
        let answers = probe(&named(), old);
        let Base::Found(base, _) = base(&named(), &answers) else { panic!() };
        let asked = questions(&named(), &base, &answers);
        assert!(
            asked
                .iter()
                .all(|question| !question.offer.contains("MLKEM") && !question.offer.starts_with("TLS_"))
        );
        assert!(asked.iter().any(|question| question.offer == "secp256r1"));
    }
}
