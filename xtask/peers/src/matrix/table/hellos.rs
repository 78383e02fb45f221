//! Hellos that are unlike the usual one: large, in many segments, asked for twice, or behind something that is not TLS.

use super::{CHROME, CLIENTS, GO, JAVA, NODE, PYTHON, Row, SERVERS, V12, V13, is};
use crate::matrix::Expected;
use crate::matrix::clients::Client;
use crate::matrix::oddities::SecondHello;
use crate::matrix::servers::Server;
use crate::matrix::setup::{ClientSetup, ServerCertificate, ServerSetup};
use crate::matrix::starttls::Protocol;

/// Names of protocols that make a ClientHello larger than a segment, and one that a server of HTTP takes.
const MANY_PROTOCOLS: &str = {
    macro_rules! eight {
        ($($letter:literal)*) => {
            concat!($($letter, "-a-protocol-whose-name-is-as-long-as-it-takes-to-fill-a-segment-with-a-handful-of-names-",
                "without-that-anybody-would-ever-speak-it-or-mistake-it-for-another-one-that-somebody-does-speak-already,",)* "http/1.1")
        };
    }
    eight!("a" "b" "c" "d" "e" "f" "g" "h")
};
const LARGE: ClientSetup = ClientSetup { alpn: Some(MANY_PROTOCOLS), ..ClientSetup::DEFAULT };
const SENDS_LARGE: &[Client] = &[
    Client::OpenSsl,
    Client::Rustls,
    Client::Agent(PYTHON),
    Client::Agent(NODE),
    Client::Agent(JAVA),
    Client::Agent(GO),
];
const INTOLERANT: &[&str] = &["large_client_hello_intolerance"];
const RETRY_FAILED: &[&str] = &["hello_retry_failed"];

const PROTOCOLS: &[Server] = &[
    Server::StartTls(Protocol::Smtp),
    Server::StartTls(Protocol::Imap),
    Server::StartTls(Protocol::Pop3),
    Server::StartTls(Protocol::Ftp),
    Server::StartTls(Protocol::Ldap),
    Server::StartTls(Protocol::Xmpp),
    Server::StartTls(Protocol::Postgres),
    Server::StartTls(Protocol::MySql),
];
const EXPIRED: ServerSetup = ServerSetup { certificate: ServerCertificate::Expired, ..ServerSetup::DEFAULT };
const OTHER_NAME: ServerSetup =
    ServerSetup { certificate: ServerCertificate::OtherName, ..ServerSetup::DEFAULT };

const fn by_client_alert(verdicts: &'static [&'static str], blame: &'static [&'static str]) -> Expected {
    is(verdicts, blame, "client", "alert")
}

pub(super) const ROWS: &[Row] = &[
    Row {
        cause: "accepted with a large hello",
        servers: SERVERS,
        clients: &[Client::OpenSsl],
        wide: SENDS_LARGE,
        client: LARGE,
        ..Row::DEFAULT
    },
    Row { cause: "accepted with a large hello", clients: SENDS_LARGE, client: LARGE, ..Row::DEFAULT },
    Row {
        cause: "accepted in many segments",
        servers: SERVERS,
        clients: &[Client::Segmented],
        client: LARGE,
        ..Row::DEFAULT
    },
    Row {
        cause: "large hello not understood",
        servers: &[Server::ReadsOnce],
        clients: SENDS_LARGE,
        client: LARGE,
        cold: is(&["reset_after_client_hello"], &[], "server", "reset"),
        warm: Some(is(INTOLERANT, &["server"], "server", "reset")),
        ..Row::DEFAULT
    },
    Row {
        cause: "second HelloRetryRequest",
        servers: &[Server::Retries(SecondHello::AsksAgain)],
        clients: &[
            Client::OpenSsl,
            Client::Rustls,
            Client::Curl,
            Client::GnuTls,
            Client::Nss,
            Client::Agent(PYTHON),
            Client::Agent(NODE),
            Client::Agent(JAVA),
            Client::Agent(GO),
            Client::Agent(CHROME),
        ],
        tls: V13,
        cold: by_client_alert(RETRY_FAILED, &["server"]),
        ..Row::DEFAULT
    },
    Row {
        cause: "second HelloRetryRequest",
        servers: &[Server::Retries(SecondHello::AsksAgain)],
        clients: &[Client::Wget],
        tls: V13,
        cold: is(RETRY_FAILED, &["server"], "client", "close"),
        ..Row::DEFAULT
    },
    Row {
        cause: "close after a HelloRetryRequest",
        servers: &[Server::Retries(SecondHello::Closes)],
        clients: CLIENTS,
        tls: V13,
        cold: is(RETRY_FAILED, &[], "server", "close"),
        ..Row::DEFAULT
    },
    starttls(ServerSetup::DEFAULT, PROTOCOLS, crate::matrix::ACCEPTED),
    starttls(EXPIRED, PROTOCOLS, by_client_alert(&["server_certificate_expired"], &["server"])),
    Row {
        tls: V12,
        ..starttls(OTHER_NAME, PROTOCOLS, by_client_alert(&["hostname_mismatch"], &["server", "config"]))
    },
];

const fn starttls(server: ServerSetup, servers: &'static [Server], cold: Expected) -> Row {
    Row {
        cause: "STARTTLS",
        servers,
        server,
        clients: &[Client::OpenSsl],
        client: ClientSetup::DEFAULT,
        cold,
        ..Row::DEFAULT
    }
}
