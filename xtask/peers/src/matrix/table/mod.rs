//! The rows: who meets whom, set up how, and which verdict is right.
//!
//! Expectations follow the protocol and what a stack is known to put on the wire, never what tlstrace happens to say. Where
//! the wire allows several causes, a less specific verdict is listed as right too; a different cause never is.

mod hellos;
mod sessions;

use super::agent::Language;
use super::clients::Client;
use super::servers::Server;
use super::setup::{ClientCertificate, ClientSetup, ServerCertificate, ServerSetup, Tls};
use super::{Expected, Shown};

/// One cause, for every pair of these servers and clients, and each of these versions.
pub(super) struct Row {
    pub(super) cause: &'static str,
    pub(super) servers: &'static [Server],
    pub(super) server: ServerSetup,
    pub(super) clients: &'static [Client],
    /// Replaces the clients in a wide run.
    pub(super) wide: &'static [Client],
    pub(super) client: ClientSetup,
    /// What the client does before, accepted: the first connection gives it the session that later ones resume.
    pub(super) sessions: &'static [ClientSetup],
    /// What the client offers.
    pub(super) tls: &'static [Tls],
    /// What the handshake must have been like, so that it is the one that the row is about; `None`: any.
    pub(super) shows: Option<&'static [Shown]>,
    /// On the first connection to the listener.
    pub(super) cold: Expected,
    /// After the listener has accepted others; `None` where it accepts nobody.
    pub(super) warm: Option<Expected>,
}

impl Row {
    const DEFAULT: Self = Self {
        cause: "",
        servers: &[Server::OpenSsl],
        server: ServerSetup::DEFAULT,
        clients: &[Client::OpenSsl],
        wide: &[],
        client: ClientSetup::DEFAULT,
        sessions: &[],
        tls: Tls::ALL,
        shows: None,
        cold: super::ACCEPTED,
        warm: None,
    };
}

const PYTHON: Language = Language::Python;
const NODE: Language = Language::Node;
const JAVA: Language = Language::Java;
const GO: Language = Language::Go;
const CHROME: Language = Language::Chrome;

/// Servers that terminate TLS.
const SERVERS: &[Server] = &[
    Server::OpenSsl,
    Server::Rustls,
    Server::Nginx,
    Server::Apache,
    Server::Lighttpd,
    Server::Haproxy,
    Server::GnuTls,
    Server::Stunnel,
    Server::Nss,
    Server::Agent(PYTHON),
    Server::Agent(NODE),
    Server::Agent(JAVA),
    Server::Agent(GO),
    Server::Envoy,
];

const CLIENTS: &[Client] = &[
    Client::OpenSsl,
    Client::Rustls,
    Client::Curl,
    Client::Wget,
    Client::GnuTls,
    Client::Nss,
    Client::Agent(PYTHON),
    Client::Agent(NODE),
    Client::Agent(JAVA),
    Client::Agent(GO),
    Client::Agent(CHROME),
];

/// The version of rows that make no difference between them.
const ANY: &[Tls] = &[Tls::V13];
const V12: &[Tls] = &[Tls::V12];
const V13: &[Tls] = &[Tls::V13];

const fn is(
    verdicts: &'static [&'static str],
    blame: &'static [&'static str],
    side: &'static str,
    how: &'static str,
) -> Expected {
    Expected { verdicts, blame, ended_by: Some((side, how)) }
}

const fn server_presents(certificate: ServerCertificate) -> ServerSetup {
    ServerSetup { certificate, ..ServerSetup::DEFAULT }
}

const REJECTED: &[&str] = &["server_certificate_rejected"];

/// What a client leaves behind that completes the handshake and closes.
const LATE: &[&str] = &["client_closed_after_handshake"];
const HOSTNAME: &[&str] = &["hostname_mismatch"];
const NSS_EXPIRED: &[&str] = &["server_certificate_expired"];
const NSS_UNKNOWN: &[&str] = &["server_certificate_rejected", "client_closed_after_handshake", "ok"];

const fn by_client(verdicts: &'static [&'static str]) -> Expected {
    Expected { verdicts, blame: &[], ended_by: None }
}

/// Clients that say in the clear, under TLS 1.2, what they do not like.
const TALKS_12: &[Client] = &[
    Client::OpenSsl,
    Client::Agent(PYTHON),
    Client::Rustls,
    Client::Agent(JAVA),
    Client::Agent(GO),
    Client::GnuTls,
];
/// Clients that do so under TLS 1.3 too: OpenSSL has no key to write with yet.
const TALKS_13: &[Client] = &[Client::OpenSsl, Client::Agent(PYTHON)];
/// Clients that say it under TLS 1.3 in a record that only the server can read.
const ENCRYPTS_13: &[Client] = &[Client::Rustls, Client::Agent(JAVA), Client::Agent(GO), Client::GnuTls];
/// Clients that complete a TLS 1.2 handshake and then close.
const CLOSES_LATE: &[Client] = &[Client::Agent(NODE), Client::Wget, Client::Agent(CHROME)];
/// Closes without a word in TLS 1.3.
const NODE_CLIENT: &[Client] = &[Client::Agent(NODE)];
/// Clients that complete that too.
const CLOSES_LATE_13: &[Client] = &[Client::Wget, Client::Agent(CHROME)];
const NSS_CLIENT: &[Client] = &[Client::Nss];

/// A certificate that clients refuse, and what each way of refusing it allows to conclude.
const fn refused(
    cause: &'static str,
    certificate: ServerCertificate,
    clients: &'static [Client],
    tls: &'static [Tls],
    cold: Expected,
    warm: Expected,
) -> Row {
    Row { cause, server: server_presents(certificate), clients, tls, cold, warm: Some(warm), ..Row::DEFAULT }
}

macro_rules! refused_by_client {
    (
        $cause:literal, $certificate:ident, blame $blame:expr,
        // The certificate is in the clear, and so is the alert.
        seen $seen:expr,
        // Only the alert is.
        told $told:expr,
        // Only the certificate is, for this connection or from others before.
        silent $silent:expr,
    ) => {
        &[
            refused(
                $cause,
                ServerCertificate::$certificate,
                TALKS_12,
                V12,
                is($seen, $blame, "client", "alert"),
                is($seen, $blame, "client", "alert"),
            ),
            refused(
                $cause,
                ServerCertificate::$certificate,
                TALKS_13,
                V13,
                is($told, &[], "client", "alert"),
                is($seen, $blame, "client", "alert"),
            ),
            refused(
                $cause,
                ServerCertificate::$certificate,
                ENCRYPTS_13,
                V13,
                is(REJECTED, &[], "client", "alert"),
                is($silent, &[], "client", "alert"),
            ),
            refused(
                $cause,
                ServerCertificate::$certificate,
                NODE_CLIENT,
                V13,
                is(REJECTED, &[], "client", "close"),
                is($silent, &[], "client", "close"),
            ),
            refused(
                $cause,
                ServerCertificate::$certificate,
                CLOSES_LATE,
                V12,
                by_client($silent),
                by_client($silent),
            ),
            refused(
                $cause,
                ServerCertificate::$certificate,
                CLOSES_LATE_13,
                V13,
                by_client(LATE),
                by_client($silent),
            ),
        ]
    };
}

pub(super) const TABLES: &[&[Row]] = &[
    ACCEPTED,
    refused_by_client!(
        "expired",
        Expired,
        blame & ["server"],
        seen & ["server_certificate_expired"],
        told & ["server_certificate_expired"],
        silent & ["server_certificate_expired"],
    ),
    refused_by_client!(
        "not yet valid",
        NotYetValid,
        blame & ["server"],
        seen & ["server_certificate_not_yet_valid"],
        told & ["server_certificate_rejected"],
        silent & ["server_certificate_not_yet_valid"],
    ),
    refused_by_client!(
        "self-signed",
        SelfSigned,
        blame & ["server", "config"],
        seen & ["server_certificate_self_signed"],
        told & ["server_ca_unknown"],
        silent & ["server_certificate_self_signed"],
    ),
    // Without the client's word nothing is wrong with the chain.
    refused_by_client!(
        "unknown authority",
        UnknownAuthority,
        blame & ["client", "config"],
        seen & ["server_ca_unknown"],
        told & ["server_ca_unknown"],
        silent & ["server_certificate_rejected", "client_closed_after_handshake"],
    ),
    // A missing issuer may be a root that is left out on purpose.
    refused_by_client!(
        "chain incomplete",
        LeafOnly,
        blame & ["server"],
        seen & ["server_chain_incomplete"],
        told & ["server_ca_unknown"],
        silent & ["server_chain_incomplete", "server_certificate_rejected", "client_closed_after_handshake"],
    ),
    refused_by_client!(
        "wrong name",
        OtherName,
        blame & ["server", "config"],
        seen & ["hostname_mismatch"],
        told & ["server_certificate_rejected"],
        silent & ["hostname_mismatch"],
    ),
    WRONG_PURPOSE,
    CURL_REFUSALS,
    LATE_REFUSALS,
    CLIENT_CERTIFICATES,
    NEGOTIATION,
    NAMES,
    NOT_TLS,
    NO_ANSWER,
    sessions::ROWS,
    hellos::ROWS,
];

const PURPOSE: &[&str] = &["server_certificate_unsupported"];
const PURPOSE_OR_SILENT: &[&str] =
    &["server_certificate_unsupported", "server_certificate_rejected", "client_closed_after_handshake"];
/// A certificate for clients, on a server. wget takes it.
const WRONG_PURPOSE: &[Row] = &[
    refused(
        "wrong purpose",
        ServerCertificate::WrongPurpose,
        TALKS_12,
        V12,
        is(PURPOSE, &["server"], "client", "alert"),
        is(PURPOSE, &["server"], "client", "alert"),
    ),
    refused(
        "wrong purpose",
        ServerCertificate::WrongPurpose,
        TALKS_13,
        V13,
        is(PURPOSE, &["server"], "client", "alert"),
        is(PURPOSE, &["server"], "client", "alert"),
    ),
    refused(
        "wrong purpose",
        ServerCertificate::WrongPurpose,
        ENCRYPTS_13,
        V13,
        is(REJECTED, &[], "client", "alert"),
        is(PURPOSE_OR_SILENT, &[], "client", "alert"),
    ),
    refused(
        "wrong purpose",
        ServerCertificate::WrongPurpose,
        NODE_CLIENT,
        V13,
        is(REJECTED, &[], "client", "close"),
        is(PURPOSE_OR_SILENT, &[], "client", "close"),
    ),
    refused(
        "wrong purpose",
        ServerCertificate::WrongPurpose,
        &[Client::Agent(NODE), Client::Agent(CHROME)],
        V12,
        by_client(PURPOSE),
        by_client(PURPOSE),
    ),
];

/// curl speaks as OpenSSL does, but checks the name only after the handshake.
const CURL_REFUSALS: &[Row] = &[
    refused("expired", ServerCertificate::Expired, &[Client::Curl], Tls::ALL, EXPIRED, EXPIRED),
    refused("self-signed", ServerCertificate::SelfSigned, &[Client::Curl], V12, SELF_SIGNED, SELF_SIGNED),
    refused("unknown authority", ServerCertificate::UnknownAuthority, &[Client::Curl], V12, UNKNOWN, UNKNOWN),
    refused("chain incomplete", ServerCertificate::LeafOnly, &[Client::Curl], V12, INCOMPLETE, INCOMPLETE),
];
const EXPIRED: Expected = is(&["server_certificate_expired"], &["server"], "client", "alert");
const SELF_SIGNED: Expected = is(&["server_certificate_self_signed"], &["server"], "client", "alert");
const UNKNOWN: Expected = is(&["server_ca_unknown"], &["client"], "client", "alert");
const INCOMPLETE: Expected = is(&["server_chain_incomplete"], &["server"], "client", "alert");

const LATE_REFUSALS: &[Row] = &[
    refused(
        "wrong name",
        ServerCertificate::OtherName,
        &[Client::Curl],
        V12,
        by_client(HOSTNAME),
        by_client(HOSTNAME),
    ),
    refused(
        "wrong name",
        ServerCertificate::OtherName,
        &[Client::Curl],
        V13,
        by_client(LATE),
        by_client(HOSTNAME),
    ),
    // NSS verifies while it finishes. Where the server's Finished is faster, its encrypted alert cannot be told from the
    // close_notify of a client that only tried the handshake, and only what is wrong for everybody can be named.
    refused(
        "expired",
        ServerCertificate::Expired,
        NSS_CLIENT,
        V12,
        by_client(NSS_EXPIRED),
        by_client(NSS_EXPIRED),
    ),
    refused(
        "wrong name",
        ServerCertificate::OtherName,
        NSS_CLIENT,
        V12,
        by_client(HOSTNAME),
        by_client(HOSTNAME),
    ),
    refused(
        "unknown authority",
        ServerCertificate::UnknownAuthority,
        NSS_CLIENT,
        V12,
        by_client(NSS_UNKNOWN),
        by_client(NSS_UNKNOWN),
    ),
    refused(
        "unknown authority",
        ServerCertificate::UnknownAuthority,
        NSS_CLIENT,
        V13,
        is(REJECTED, &[], "client", "alert"),
        is(REJECTED, &[], "client", "alert"),
    ),
];

/// Handshakes that succeed and carry data. Nothing else matters as much.
const ACCEPTED: &[Row] = &[
    Row { cause: "accepted", servers: SERVERS, wide: CLIENTS, warm: Some(super::ACCEPTED), ..Row::DEFAULT },
    Row { cause: "accepted", clients: CLIENTS, warm: Some(super::ACCEPTED), ..Row::DEFAULT },
    Row {
        cause: "accepted with a client certificate",
        servers: SERVERS,
        server: ServerSetup { client_auth: true, ..ServerSetup::DEFAULT },
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls, Client::Agent(JAVA), Client::GnuTls],
        client: ClientSetup { certificate: Some(ClientCertificate::Good), ..ClientSetup::DEFAULT },
        warm: Some(super::ACCEPTED),
        ..Row::DEFAULT
    },
    Row {
        cause: "accepted after a HelloRetryRequest",
        servers: &[
            Server::OpenSsl,
            Server::Rustls,
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::Stunnel,
            Server::Envoy,
        ],
        server: ServerSetup { group: Some("P-384"), ..ServerSetup::DEFAULT },
        clients: &[Client::Curl, Client::Rustls],
        wide: &[
            Client::OpenSsl,
            Client::Curl,
            Client::Rustls,
            Client::Agent(PYTHON),
            Client::Agent(NODE),
            Client::Agent(GO),
        ],
        tls: V13,
        shows: Some(&[Shown::HelloRetry]),
        ..Row::DEFAULT
    },
    Row {
        cause: "accepted behind PROXY",
        servers: &[Server::Nginx, Server::Haproxy, Server::Envoy],
        server: ServerSetup { proxy_protocol: true, ..ServerSetup::DEFAULT },
        clients: &[Client::Curl],
        client: ClientSetup { proxy_header: true, ..ClientSetup::DEFAULT },
        ..Row::DEFAULT
    },
];

const WANTS_CLIENTS: ServerSetup = ServerSetup { client_auth: true, ..ServerSetup::DEFAULT };
/// Servers that refuse inside the handshake.
const REFUSES_CLIENTS: &[Server] = &[
    Server::OpenSsl,
    Server::Rustls,
    Server::Apache,
    Server::Lighttpd,
    Server::Haproxy,
    Server::GnuTls,
    Server::Stunnel,
    Server::Nss,
    Server::Agent(PYTHON),
    Server::Agent(JAVA),
    Server::Agent(GO),
    Server::Envoy,
];
/// Those that ask what a client's certificate is for. gnutls-serv does not.
const ASKS_FOR_PURPOSE: &[Server] = &[
    Server::OpenSsl,
    Server::Rustls,
    Server::Apache,
    Server::Lighttpd,
    Server::Haproxy,
    Server::Stunnel,
    Server::Nss,
    Server::Agent(PYTHON),
    Server::Agent(JAVA),
    Server::Agent(GO),
    Server::Envoy,
];
const MISSING: &[&str] = &["client_certificate_missing"];
const MISSING_OR_NOT: &[&str] = &["client_certificate_missing", "ok"];
const UNTRUSTED: &[&str] = &["client_certificate_untrusted"];
const CLIENT_EXPIRED: &[&str] = &["client_certificate_expired"];
const CLIENT_UNSUPPORTED: &[&str] = &["client_certificate_unsupported"];
const CLIENT_REJECTED: &[&str] = &["client_certificate_rejected"];
const PRESENTS: &[Client] = &[
    Client::OpenSsl,
    Client::Curl,
    Client::Rustls,
    Client::Agent(PYTHON),
    Client::GnuTls,
    Client::Agent(JAVA),
    Client::Agent(NODE),
];

const fn client_presents(certificate: ClientCertificate) -> ClientSetup {
    ClientSetup { certificate: Some(certificate), ..ClientSetup::DEFAULT }
}

const CLIENT_CERTIFICATES: &[Row] = &[
    Row {
        cause: "no client certificate",
        servers: REFUSES_CLIENTS,
        server: WANTS_CLIENTS,
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: PRESENTS,
        cold: is(MISSING, &["client"], "server", "alert"),
        warm: Some(is(MISSING, &["client"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no client certificate",
        servers: &[Server::Agent(NODE)],
        server: WANTS_CLIENTS,
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: PRESENTS,
        // Node itself has no say in TLS 1.2: OpenSSL sends handshake_failure for it.
        cold: Expected { verdicts: MISSING, blame: &["client"], ended_by: None },
        warm: Some(Expected { verdicts: MISSING, blame: &["client"], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "no client certificate, status 400",
        servers: &[Server::Nginx],
        server: WANTS_CLIENTS,
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: &[
            Client::OpenSsl,
            Client::Rustls,
            Client::Agent(PYTHON),
            Client::GnuTls,
            Client::Agent(JAVA),
            Client::Agent(NODE),
        ],
        cold: Expected { verdicts: MISSING, blame: &["client"], ended_by: None },
        warm: Some(Expected { verdicts: MISSING, blame: &["client"], ended_by: None }),
        ..Row::DEFAULT
    },
    // curl knows from the answer's length that it has all of it, and may close before nginx has. What is left does not
    // differ from a page for somebody whose certificate was optional.
    Row {
        cause: "no client certificate, status 400",
        servers: &[Server::Nginx],
        server: WANTS_CLIENTS,
        clients: &[],
        wide: &[Client::Curl, Client::Agent(CHROME)],
        cold: Expected { verdicts: MISSING_OR_NOT, blame: &[], ended_by: None },
        warm: Some(Expected { verdicts: MISSING_OR_NOT, blame: &[], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "untrusted client certificate",
        servers: REFUSES_CLIENTS,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::Untrusted),
        tls: V12,
        cold: is(UNTRUSTED, &["config"], "server", "alert"),
        warm: Some(is(UNTRUSTED, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "untrusted client certificate",
        servers: REFUSES_CLIENTS,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::Untrusted),
        tls: V13,
        cold: is(CLIENT_REJECTED, &[], "server", "alert"),
        warm: Some(is(CLIENT_REJECTED, &[], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "expired client certificate",
        servers: REFUSES_CLIENTS,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::Expired),
        tls: V12,
        cold: is(CLIENT_EXPIRED, &["client"], "server", "alert"),
        warm: Some(is(CLIENT_EXPIRED, &["client"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "expired client certificate",
        servers: REFUSES_CLIENTS,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::Expired),
        tls: V13,
        cold: is(CLIENT_REJECTED, &[], "server", "alert"),
        warm: Some(is(CLIENT_REJECTED, &[], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "client certificate for another purpose",
        servers: ASKS_FOR_PURPOSE,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::WrongPurpose),
        tls: V12,
        cold: is(CLIENT_UNSUPPORTED, &["client"], "server", "alert"),
        warm: Some(is(CLIENT_UNSUPPORTED, &["client"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "client certificate for another purpose",
        servers: ASKS_FOR_PURPOSE,
        server: WANTS_CLIENTS,
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: client_presents(ClientCertificate::WrongPurpose),
        tls: V13,
        cold: is(CLIENT_REJECTED, &[], "server", "alert"),
        warm: Some(is(CLIENT_REJECTED, &[], "server", "alert")),
        ..Row::DEFAULT
    },
];

/// GnuTLS says `handshake_failure`, which says nothing.
const VERSIONS_COLD: &[&str] = &["protocol_version_mismatch", "handshake_failure_unexplained"];
const VERSIONS: &[&str] = &["protocol_version_mismatch"];
const SUITES: &[&str] = &["cipher_suite_mismatch"];
const SUITES_COLD: &[&str] = &["handshake_failure_unexplained", "cipher_suite_mismatch"];
const GROUPS: &[&str] = &["group_mismatch"];
const GROUPS_COLD: &[&str] = &["handshake_failure_unexplained", "group_mismatch"];
const SIGNATURES_COLD: &[&str] = &["handshake_failure_unexplained", "signature_algorithm_mismatch"];
/// A TLS 1.2 client without signatures for a kind of key offers no suites for it either. An encrypted alert says less than
/// `handshake_failure` does, and one client's few handshakes are little to read it by.
const SIGNATURES: &[&str] =
    &["signature_algorithm_mismatch", "cipher_suite_mismatch", "handshake_failure_unexplained"];
const ALPN: &[&str] = &["alpn_mismatch"];

const NEGOTIATION: &[Row] = &[
    Row {
        cause: "server only TLS 1.3",
        servers: SERVERS,
        server: ServerSetup { versions: V13, ..ServerSetup::DEFAULT },
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Agent(PYTHON), Client::GnuTls, Client::Rustls],
        tls: V12,
        cold: is(VERSIONS_COLD, &["config"], "server", "alert"),
        warm: Some(is(VERSIONS, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "server only TLS 1.2",
        servers: SERVERS,
        server: ServerSetup { versions: V12, ..ServerSetup::DEFAULT },
        clients: &[Client::Curl],
        wide: &[Client::OpenSsl, Client::Curl, Client::Agent(PYTHON), Client::GnuTls],
        tls: V13,
        cold: is(VERSIONS_COLD, &["config"], "server", "alert"),
        warm: Some(is(VERSIONS, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    // rustls offers suites of TLS 1.2 with TLS 1.3 alone, too. A server that knows `supported_versions` sees that none is
    // common (RFC 8446 §4.2.1).
    Row {
        cause: "server only TLS 1.2",
        servers: &[Server::OpenSsl, Server::Rustls, Server::Nginx, Server::Haproxy],
        server: ServerSetup { versions: V12, ..ServerSetup::DEFAULT },
        clients: &[Client::Rustls],
        tls: V13,
        cold: is(VERSIONS_COLD, &["config"], "server", "alert"),
        warm: Some(is(VERSIONS, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    // With TLS 1.3 turned off, GnuTLS is a server from before that extension: it goes by legacy_version, which is 1.2, and
    // leaves it to the client to refuse its ServerHello (RFC 8446 §4.1.3).
    Row {
        cause: "server only TLS 1.2",
        servers: &[Server::GnuTls],
        server: ServerSetup { versions: V12, ..ServerSetup::DEFAULT },
        clients: &[Client::Rustls],
        tls: V13,
        cold: is(VERSIONS, &["config"], "client", "alert"),
        warm: Some(is(VERSIONS, &["config"], "client", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "needless fallback",
        servers: &[
            Server::OpenSsl,
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::GnuTls,
            Server::Stunnel,
            Server::Nss,
            Server::Agent(PYTHON),
            Server::Agent(NODE),
            Server::Agent(GO),
            Server::Envoy,
        ],
        clients: &[Client::OpenSsl],
        client: ClientSetup { falls_back: true, ..ClientSetup::DEFAULT },
        tls: V12,
        cold: is(&["inappropriate_fallback"], &["client"], "server", "alert"),
        warm: Some(is(&["inappropriate_fallback"], &["client"], "server", "alert")),
        ..Row::DEFAULT
    },
    // Servers that do not know RFC 7507. They mark what they select (RFC 8446 §4.1.3), and OpenSSL sees the mark.
    Row {
        cause: "needless fallback",
        servers: &[Server::Rustls, Server::Agent(JAVA)],
        clients: &[Client::OpenSsl],
        client: ClientSetup { falls_back: true, ..ClientSetup::DEFAULT },
        tls: V12,
        cold: is(&["downgrade_detected"], &["client"], "client", "alert"),
        warm: Some(is(&["downgrade_detected"], &["client"], "client", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no common cipher suite",
        servers: &[
            Server::OpenSsl,
            Server::Rustls,
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::GnuTls,
            Server::Stunnel,
            Server::Agent(PYTHON),
            Server::Agent(NODE),
            Server::Envoy,
        ],
        server: ServerSetup {
            ciphers: Some("ECDHE-ECDSA-CHACHA20-POLY1305"),
            versions: V12,
            ..ServerSetup::DEFAULT
        },
        wide: &[Client::OpenSsl, Client::Curl, Client::Agent(PYTHON), Client::Rustls],
        client: ClientSetup { ciphers: Some("ECDHE-ECDSA-AES128-GCM-SHA256"), ..ClientSetup::DEFAULT },
        tls: V12,
        cold: is(SUITES_COLD, &["config"], "server", "alert"),
        warm: Some(is(SUITES, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no common group",
        servers: &[
            Server::OpenSsl,
            Server::Rustls,
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::GnuTls,
            Server::Stunnel,
            Server::Envoy,
        ],
        server: ServerSetup { group: Some("P-384"), versions: V13, ..ServerSetup::DEFAULT },
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: ClientSetup { group: Some("X25519"), ..ClientSetup::DEFAULT },
        tls: V13,
        cold: is(GROUPS_COLD, &["config"], "server", "alert"),
        warm: Some(is(GROUPS, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no common group",
        servers: &[
            Server::OpenSsl,
            Server::Rustls,
            Server::Nginx,
            Server::Apache,
            Server::Lighttpd,
            Server::Haproxy,
            Server::Stunnel,
            Server::Envoy,
        ],
        server: ServerSetup { group: Some("P-384"), versions: V12, ..ServerSetup::DEFAULT },
        wide: &[Client::OpenSsl, Client::Curl, Client::Rustls],
        client: ClientSetup { group: Some("X25519"), ..ClientSetup::DEFAULT },
        tls: V12,
        cold: is(GROUPS_COLD, &["config"], "server", "alert"),
        warm: Some(is(GROUPS, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no common signature algorithm",
        servers: SERVERS,
        clients: &[Client::OpenSsl],
        client: ClientSetup { signatures: Some("rsa_pss_rsae_sha256"), ..ClientSetup::DEFAULT },
        cold: is(SIGNATURES_COLD, &["config"], "server", "alert"),
        warm: Some(is(SIGNATURES, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no common application protocol",
        servers: &[
            Server::OpenSsl,
            Server::Rustls,
            Server::GnuTls,
            Server::Agent(JAVA),
            Server::Agent(GO),
            Server::Agent(NODE),
        ],
        server: ServerSetup { alpn: Some("h2"), ..ServerSetup::DEFAULT },
        wide: &[Client::OpenSsl, Client::Agent(PYTHON), Client::GnuTls, Client::Rustls],
        // Not http/1.1: a Go server of h2 alone goes on without a protocol then (crypto/tls, `negotiateALPN`).
        client: ClientSetup { alpn: Some("http/1.0"), ..ClientSetup::DEFAULT },
        cold: is(ALPN, &["config"], "server", "alert"),
        warm: Some(is(ALPN, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
];

const ONLY_THE_NAME: ServerSetup = ServerSetup { strict_name: true, ..ServerSetup::DEFAULT };
const NO_NAME: ClientSetup = ClientSetup { name: None, verifies: false, ..ClientSetup::DEFAULT };
const OTHER_NAME: ClientSetup =
    ClientSetup { name: Some("other.example"), verifies: false, ..ClientSetup::DEFAULT };
const SNI_MISSING: &[&str] = &["sni_missing"];
const SNI_UNRECOGNIZED: &[&str] = &["sni_unrecognized"];

const NAMES: &[Row] = &[
    Row {
        cause: "no server name",
        servers: &[Server::Nginx, Server::Haproxy],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl, Client::Curl, Client::Agent(PYTHON), Client::GnuTls, Client::Agent(JAVA)],
        client: NO_NAME,
        cold: is(SNI_MISSING, &["config"], "server", "alert"),
        warm: Some(is(SNI_MISSING, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "no server name, reset",
        servers: &[Server::Gateway, Server::Envoy],
        server: ONLY_THE_NAME,
        clients: &[
            Client::OpenSsl,
            Client::Curl,
            Client::Rustls,
            Client::Agent(PYTHON),
            Client::GnuTls,
            Client::Agent(JAVA),
            Client::Agent(NODE),
            Client::Agent(GO),
        ],
        client: NO_NAME,
        cold: is(SNI_MISSING, &["config"], "server", "reset"),
        warm: Some(is(SNI_MISSING, &["config"], "server", "reset")),
        ..Row::DEFAULT
    },
    Row {
        cause: "unknown server name",
        servers: &[Server::OpenSsl, Server::Nginx, Server::Haproxy, Server::GnuTls],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: CLIENTS,
        client: OTHER_NAME,
        cold: is(SNI_UNRECOGNIZED, &["config"], "server", "alert"),
        warm: Some(is(SNI_UNRECOGNIZED, &["config"], "server", "alert")),
        ..Row::DEFAULT
    },
    Row {
        cause: "unknown server name, reset",
        servers: &[Server::Gateway, Server::Envoy],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: CLIENTS,
        client: OTHER_NAME,
        cold: is(&["reset_after_client_hello"], &[], "server", "reset"),
        warm: Some(is(SNI_UNRECOGNIZED, &["config"], "server", "reset")),
        ..Row::DEFAULT
    },
];

const GARBAGE: &[u8] = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n";
const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT shop.example:443 HTTP/1.1\r\n\r\n";
const PROXY: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n";
/// The beginning of a ClientHello of 508 bytes.
const TRUNCATED: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half a hello";
/// An SMTP server greets, and answers what it does not know with 5yz.
const SMTP: &[u8] = b"220 mail.example ESMTP\r\n";

const NOT_TLS: &[Row] = &[
    Row {
        cause: "HTTP to TLS",
        servers: SERVERS,
        clients: &[Client::Raw(HTTP), Client::Raw(CONNECT)],
        tls: ANY,
        cold: Expected { verdicts: &["http_on_tls_port"], blame: &["client"], ended_by: None },
        warm: Some(Expected { verdicts: &["http_on_tls_port"], blame: &["client"], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "PROXY header to TLS",
        servers: SERVERS,
        clients: &[Client::Raw(PROXY)],
        tls: ANY,
        cold: Expected { verdicts: &["proxy_header_unexpected"], blame: &[], ended_by: None },
        warm: Some(Expected { verdicts: &["proxy_header_unexpected"], blame: &[], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "PROXY header missing",
        servers: &[Server::Nginx, Server::Haproxy, Server::Envoy],
        server: ServerSetup { proxy_protocol: true, ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl, Client::Agent(JAVA)],
        wide: CLIENTS,
        cold: is(&["reset_after_client_hello"], &[], "server", "reset"),
        warm: Some(is(&["proxy_header_missing"], &["config", "client"], "server", "reset")),
        ..Row::DEFAULT
    },
    Row {
        cause: "something else to TLS",
        servers: SERVERS,
        clients: &[Client::Raw(GARBAGE)],
        tls: ANY,
        // Nobody knows yet that this listener speaks TLS, unless it answers with an alert.
        cold: Expected { verdicts: &["non_tls_protocol", super::NOTHING], blame: &[], ended_by: None },
        // selfserv waits for more and says nothing.
        warm: Some(Expected { verdicts: &["non_tls_protocol", super::NOTHING], blame: &[], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "half a hello",
        servers: SERVERS,
        clients: &[Client::Raw(TRUNCATED)],
        tls: ANY,
        cold: Expected { verdicts: &["client_hello_truncated"], blame: &[], ended_by: None },
        warm: Some(Expected { verdicts: &["client_hello_truncated"], blame: &[], ended_by: None }),
        ..Row::DEFAULT
    },
    Row {
        cause: "TLS to HTTP",
        servers: &[Server::Plaintext(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")],
        clients: CLIENTS,
        cold: Expected { verdicts: &["tls_on_plaintext_port"], blame: &["client", "config"], ended_by: None },
        ..Row::DEFAULT
    },
    Row {
        cause: "TLS to SMTP",
        servers: &[Server::Banner(SMTP)],
        clients: CLIENTS,
        cold: Expected { verdicts: &["starttls_expected"], blame: &["client", "config"], ended_by: None },
        ..Row::DEFAULT
    },
];

const NO_ANSWER: &[Row] = &[
    Row {
        cause: "probe",
        servers: SERVERS,
        clients: &[Client::Connects],
        tls: ANY,
        cold: is(&["probe_tcp_connect"], &[], "client", "close"),
        warm: Some(is(&["probe_tcp_connect"], &[], "client", "close")),
        ..Row::DEFAULT
    },
    Row {
        cause: "probe that resets",
        // Servers that are still there when the RST arrives, which is up to whoever shares the socket with a child.
        servers: &[
            Server::Nginx,
            Server::Haproxy,
            Server::Stunnel,
            Server::Agent(PYTHON),
            Server::Agent(NODE),
            Server::Agent(JAVA),
        ],
        clients: &[Client::ConnectsAndResets],
        tls: ANY,
        cold: is(&["probe_tcp_connect"], &[], "client", "reset"),
        warm: Some(is(&["probe_tcp_connect"], &[], "client", "reset")),
        ..Row::DEFAULT
    },
    Row {
        cause: "closed port",
        servers: &[Server::Nobody],
        clients: &[Client::OpenSsl, Client::Curl],
        tls: ANY,
        cold: is(&["port_closed"], &["server"], "server", "reset"),
        ..Row::DEFAULT
    },
    Row {
        cause: "close after the hello",
        servers: &[Server::Closes],
        clients: CLIENTS,
        cold: is(&["closed_after_client_hello"], &[], "server", "close"),
        ..Row::DEFAULT
    },
    Row {
        cause: "reset after the hello",
        servers: &[Server::Resets],
        clients: CLIENTS,
        cold: is(&["reset_after_client_hello"], &[], "server", "reset"),
        ..Row::DEFAULT
    },
    Row {
        cause: "silence after the hello",
        servers: &[Server::Silent],
        clients: &[
            Client::Curl,
            Client::Agent(PYTHON),
            Client::Agent(NODE),
            Client::Agent(JAVA),
            Client::Wget,
        ],
        cold: is(&["server_silent"], &["server"], "server", "silence"),
        ..Row::DEFAULT
    },
];
