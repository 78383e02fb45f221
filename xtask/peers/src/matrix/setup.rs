//! What a server and a client are set up to do, in words that every stack can be told.

use super::starttls::Protocol;

/// A TLS version that both ends speak.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Tls {
    V12,
    V13,
}

impl Tls {
    pub(super) const ALL: &[Self] = &[Self::V12, Self::V13];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "1.2",
            Self::V13 => "1.3",
        }
    }
}

/// What a server presents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ServerCertificate {
    Good,
    Expired,
    NotYetValid,
    /// For another host.
    OtherName,
    SelfSigned,
    /// Without its intermediate.
    LeafOnly,
    /// Issued by a root that nobody has.
    UnknownAuthority,
    /// A client's.
    WrongPurpose,
}

impl ServerCertificate {
    pub(super) const ALL: &[Self] = &[
        Self::Good,
        Self::Expired,
        Self::NotYetValid,
        Self::OtherName,
        Self::SelfSigned,
        Self::LeafOnly,
        Self::UnknownAuthority,
        Self::WrongPurpose,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::OtherName => "other-name",
            Self::SelfSigned => "self-signed",
            Self::LeafOnly => "leaf-only",
            Self::UnknownAuthority => "unknown-authority",
            Self::WrongPurpose => "wrong-purpose",
        }
    }

    /// Without an intermediate, because it has none or because it is left out.
    pub(super) const fn comes_alone(self) -> bool {
        matches!(self, Self::SelfSigned | Self::LeafOnly | Self::UnknownAuthority)
    }
}

/// What a client presents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ClientCertificate {
    Good,
    Expired,
    Untrusted,
    /// A server's.
    WrongPurpose,
}

impl ClientCertificate {
    pub(super) const ALL: &[Self] = &[Self::Good, Self::Expired, Self::Untrusted, Self::WrongPurpose];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::Untrusted => "untrusted",
            Self::WrongPurpose => "wrong-purpose",
        }
    }
}

/// A listener that terminates TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerSetup {
    pub(super) certificate: ServerCertificate,
    pub(super) versions: &'static [Tls],
    /// Requires a certificate that the root has issued.
    pub(super) client_auth: bool,
    pub(super) alpn: Option<&'static str>,
    /// TLS 1.2 suites, in OpenSSL's words.
    pub(super) ciphers: Option<&'static str>,
    /// The only group, in OpenSSL's words.
    pub(super) group: Option<&'static str>,
    /// Refuses hellos for other names, and those without.
    pub(super) strict_name: bool,
    pub(super) proxy_protocol: bool,
    /// Takes early data.
    pub(super) early_data: bool,
}

impl ServerSetup {
    pub(super) const DEFAULT: Self = Self {
        certificate: ServerCertificate::Good,
        versions: Tls::ALL,
        client_auth: false,
        alpn: None,
        ciphers: None,
        group: None,
        strict_name: false,
        proxy_protocol: false,
        early_data: false,
    };
}

/// A TLS client that sends a request and reads until the server closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientSetup {
    pub(super) name: Option<&'static str>,
    /// Verifies the server's certificate, up to the root.
    pub(super) verifies: bool,
    pub(super) certificate: Option<ClientCertificate>,
    /// Separated by commas.
    pub(super) alpn: Option<&'static str>,
    pub(super) ciphers: Option<&'static str>,
    /// The only group, or groups, in OpenSSL's words.
    pub(super) group: Option<&'static str>,
    /// The only signature algorithms, in OpenSSL's words.
    pub(super) signatures: Option<&'static str>,
    /// Says that it offers less than it could, since more had failed (RFC 7507).
    pub(super) falls_back: bool,
    /// Sends a PROXY header first.
    pub(super) proxy_header: bool,
    /// Sends an empty line as early data in a session that it resumes, if the session allows it.
    pub(super) early_data: bool,
    /// Begins with this in the clear.
    pub(super) starttls: Option<Protocol>,
}

impl ClientSetup {
    pub(super) const DEFAULT: Self = Self {
        name: Some(super::pki::NAME),
        verifies: true,
        certificate: None,
        alpn: None,
        ciphers: None,
        group: None,
        signatures: None,
        falls_back: false,
        proxy_header: false,
        early_data: false,
        starttls: None,
    };
}
