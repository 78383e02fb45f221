//! Sessions that are resumed, with early data and without, and what may still go wrong in one.

use super::{
    ALPN, CHROME, GO, JAVA, NODE, ONLY_THE_NAME, OTHER_NAME, PYTHON, Row, SERVERS, SNI_UNRECOGNIZED, V12,
    V13, is,
};
use crate::matrix::clients::Client;
use crate::matrix::servers::Server;
use crate::matrix::setup::{ClientCertificate, ClientSetup, ServerSetup};
use crate::matrix::{ACCEPTED, Shown};

const RESUMED: Option<&[Shown]> = Some(&[Shown::Resumed]);
const FRESH: &[ClientSetup] = &[ClientSetup::DEFAULT];

/// gnutls-cli cannot take a session from one run to the next, wget and tstclnt resume none.
const RESUMES: &[Client] = &[
    Client::OpenSsl,
    Client::Rustls,
    Client::Curl,
    Client::Agent(PYTHON),
    Client::Agent(NODE),
    Client::Agent(JAVA),
    Client::Agent(GO),
    Client::Agent(CHROME),
];

const CERTIFIED: ClientSetup =
    ClientSetup { certificate: Some(ClientCertificate::Good), ..ClientSetup::DEFAULT };

const TAKES_EARLY_DATA: &[Server] = &[Server::Nginx, Server::Haproxy, Server::Rustls];
const EARLY: ClientSetup = ClientSetup { early_data: true, ..ClientSetup::DEFAULT };
const EARLY_DATA: Option<&[Shown]> = Some(&[Shown::Resumed, Shown::EarlyData]);

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: "resumed",
        servers: SERVERS,
        clients: &[Client::OpenSsl],
        wide: &[Client::OpenSsl, Client::Rustls, Client::Agent(PYTHON), Client::Agent(NODE)],
        sessions: FRESH,
        shows: RESUMED,
        ..Row::DEFAULT
    },
    // Not with every server: before TLS 1.3, curl takes no tickets, Go nothing else, and JSSE not Go's.
    Row {
        cause: "resumed if possible",
        servers: SERVERS,
        clients: &[],
        wide: &[Client::Curl, Client::Agent(JAVA), Client::Agent(GO), Client::Agent(CHROME)],
        sessions: FRESH,
        ..Row::DEFAULT
    },
    Row { cause: "resumed", clients: RESUMES, sessions: FRESH, shows: RESUMED, ..Row::DEFAULT },
    Row {
        cause: "resumed with a client certificate",
        servers: &[Server::Nginx, Server::Haproxy, Server::Rustls, Server::Agent(JAVA), Server::Agent(GO)],
        server: ServerSetup { client_auth: true, ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl],
        client: CERTIFIED,
        sessions: &[CERTIFIED],
        shows: RESUMED,
        ..Row::DEFAULT
    },
    Row {
        cause: "early data accepted",
        servers: TAKES_EARLY_DATA,
        server: ServerSetup { early_data: true, ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl],
        client: EARLY,
        sessions: FRESH,
        tls: V13,
        shows: EARLY_DATA,
        ..Row::DEFAULT
    },
    Row {
        cause: "early data accepted",
        servers: &[Server::Rustls],
        server: ServerSetup { early_data: true, ..ServerSetup::DEFAULT },
        clients: &[Client::Rustls],
        client: EARLY,
        sessions: &[EARLY],
        tls: V13,
        shows: EARLY_DATA,
        ..Row::DEFAULT
    },
    // A HelloRetryRequest rejects it (RFC 8446 §4.2.10).
    Row {
        cause: "early data rejected by a HelloRetryRequest",
        servers: TAKES_EARLY_DATA,
        server: ServerSetup { early_data: true, group: Some("P-384"), ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl],
        client: ClientSetup { group: Some("X25519:P-384"), ..EARLY },
        sessions: &[ClientSetup { group: Some("P-384"), ..ClientSetup::DEFAULT }],
        tls: V13,
        shows: Some(&[Shown::Resumed, Shown::EarlyData, Shown::HelloRetry]),
        ..Row::DEFAULT
    },
    // rustls forgets a session when it is resumed, so that early data cannot be replayed: a full handshake follows.
    Row {
        cause: "early data rejected as a replay",
        servers: &[Server::Rustls],
        server: ServerSetup { early_data: true, ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl],
        client: EARLY,
        sessions: &[ClientSetup::DEFAULT, EARLY],
        tls: V13,
        shows: Some(&[Shown::EarlyData]),
        ..Row::DEFAULT
    },
    // What is negotiated anew in every handshake is refused in a resumption as anywhere else.
    Row {
        cause: "no common application protocol in a resumption",
        servers: &[Server::OpenSsl, Server::Agent(NODE), Server::Agent(GO)],
        server: ServerSetup { alpn: Some("h2"), ..ServerSetup::DEFAULT },
        clients: &[Client::OpenSsl],
        client: ClientSetup { alpn: Some("http/1.0"), ..ClientSetup::DEFAULT },
        sessions: &[ClientSetup { alpn: Some("h2"), ..ClientSetup::DEFAULT }],
        cold: is(ALPN, &["config"], "server", "alert"),
        ..Row::DEFAULT
    },
    Row {
        cause: "unknown server name in a resumption",
        servers: &[Server::Nginx],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl],
        client: OTHER_NAME,
        sessions: FRESH,
        tls: V13,
        cold: is(SNI_UNRECOGNIZED, &["config"], "server", "alert"),
        ..Row::DEFAULT
    },
    Row {
        cause: "unknown server name in a resumption",
        servers: &[Server::Haproxy],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl],
        client: OTHER_NAME,
        sessions: FRESH,
        cold: is(SNI_UNRECOGNIZED, &["config"], "server", "alert"),
        ..Row::DEFAULT
    },
    // Before TLS 1.3 the name belongs to the session (RFC 6066 §3), and nginx does not look at the new one.
    Row {
        cause: "unknown server name in a resumption",
        servers: &[Server::Nginx],
        server: ONLY_THE_NAME,
        clients: &[Client::OpenSsl],
        client: OTHER_NAME,
        sessions: FRESH,
        tls: V12,
        shows: RESUMED,
        ..Row::DEFAULT
    },
    Row {
        cause: "resumption behind PROXY",
        servers: &[Server::Haproxy],
        server: ServerSetup { proxy_protocol: true, ..ServerSetup::DEFAULT },
        clients: &[Client::Curl],
        client: ClientSetup { proxy_header: true, ..ClientSetup::DEFAULT },
        sessions: &[ClientSetup { proxy_header: true, ..ClientSetup::DEFAULT }],
        shows: RESUMED,
        cold: ACCEPTED,
        ..Row::DEFAULT
    },
];
