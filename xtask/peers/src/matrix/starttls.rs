//! Protocols that begin in the clear and go on in TLS: the server's part of what comes before, as a script.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Who speaks before TLS.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Protocol {
    /// RFC 3207.
    Smtp,
    /// RFC 9051 §6.2.1.
    Imap,
    /// RFC 2595 §4.
    Pop3,
    /// RFC 4217 §4.
    Ftp,
    /// RFC 4511 §4.14.
    Ldap,
    /// RFC 6120 §5.
    Xmpp,
    /// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
    Postgres,
    /// <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>
    MySql,
}

enum Step {
    Says(&'static [u8]),
    /// Until what the client has said ends so.
    Hears(&'static [u8]),
}

use Step::{Hears, Says};

impl Protocol {
    /// As `openssl s_client -starttls` knows it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Ldap => "ldap",
            Self::Xmpp => "xmpp",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }

    const fn script(self) -> &'static [Step] {
        match self {
            Self::Smtp => &[
                Says(b"220 mail.example ESMTP\r\n"),
                Hears(b"\r\n"),
                Says(b"250-mail.example\r\n250 STARTTLS\r\n"),
                Hears(b"STARTTLS\r\n"),
                Says(b"220 2.0.0 Ready to start TLS\r\n"),
            ],
            Self::Imap => &[
                Says(b"* OK IMAP4rev1 ready\r\n"),
                Hears(b". CAPABILITY\r\n"),
                Says(b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\n. OK done\r\n"),
                Hears(b". STARTTLS\r\n"),
                Says(b". OK Begin TLS negotiation now\r\n"),
            ],
            Self::Pop3 => &[Says(b"+OK POP3 ready\r\n"), Hears(b"STLS\r\n"), Says(b"+OK Begin TLS\r\n")],
            Self::Ftp => &[
                Says(b"220-FTP\r\n220 ready\r\n"),
                Hears(b"AUTH TLS\r\n"),
                Says(b"234 AUTH TLS OK\r\n"),
            ],
            Self::Ldap => &[
                Hears(b"1.3.6.1.4.1.1466.20037"),
                // An ExtendedResponse to message 1: success.
                Says(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"),
            ],
            Self::Xmpp => &[
                Hears(b"version='1.0'>"),
                Says(
                    b"<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' \
                      xmlns='jabber:client' from='shop.example' id='1' version='1.0'><stream:features>\
                      <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>",
                ),
                Hears(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
                Says(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
            ],
            // An SSLRequest, which has no other form.
            Self::Postgres => &[Hears(b"\x00\x00\x00\x08\x04\xd2\x16\x2f"), Says(b"S")],
            Self::MySql => &[
                // Protocol 10 with the capability CLIENT_SSL (0x0800).
                Says(
                    b"\x4a\0\0\0\x0a8.0.36\0\x01\0\0\0salt-of-\0\xff\xff\x21\x02\0\xff\xdf\x15\
                      \0\0\0\0\0\0\0\0\0\0twenty-bytes\0mysql_native_password\0",
                ),
                // What a client that asks for TLS sends ends with 23 reserved bytes. There is no answer but TLS.
                Hears(&[0; 23]),
            ],
        }
    }

    /// Speaks up to the first byte of TLS, and takes none of it. `None` if the client did not play its part.
    pub(super) fn precede(self, stream: &mut TcpStream) -> Option<()> {
        for step in self.script() {
            match *step {
                Says(words) => stream.write_all(words).ok()?,
                Hears(words) => hear(stream, words)?,
            }
        }
        Some(())
    }
}

fn hear(stream: &mut TcpStream, words: &[u8]) -> Option<()> {
    let mut heard = Vec::new();
    while !heard.ends_with(words) {
        // One by one: TLS may follow in the same segment.
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        heard.extend(byte);
    }
    Some(())
}
