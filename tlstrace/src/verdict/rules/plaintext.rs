//! What arrived was not TLS.

use crate::engine::facts::{How, Role};
use crate::tls::codepoints::AlertDescription;
use crate::tls::record::FirstBytes;
use crate::verdict::{Blame, Case, Confidence, Finding, Severity, Specificity, words};

use super::Rule;

pub(super) const RULES: &[&dyn Rule] = &[
    &HttpOnTlsPort,
    &TlsOnPlaintextPort,
    &StarttlsExpected,
    &ProxyHeaderUnexpected,
    &ProxyHeaderMissing,
    &Sslv2ClientHello,
    &NonTlsProtocol,
];

/// See [`Rule::doc_short`].
struct HttpOnTlsPort;

impl Rule for HttpOnTlsPort {
    fn id(&self) -> &'static str {
        "http_on_tls_port"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client spoke plaintext HTTP to a port that speaks TLS."
    }

    fn doc_long(&self) -> &'static str {
        "The first bytes are an HTTP request, and the listener answered as TLS servers do: with an alert \
         (RFC 8446 §6), with status 400, or by hanging up without a byte. That the listener speaks TLS is \
         known for certain from an alert or from other handshakes, and supposed otherwise."
    }

    fn remedy(&self) -> &'static str {
        "Use https:// in the client's URL, or send plaintext to the listener's plaintext port."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let client = case.facts.client();
        if !matches!(
            client.first_bytes,
            Some(FirstBytes::Http | FirstBytes::HttpConnect | FirstBytes::Http2Preface)
        ) {
            return None;
        }
        let method = client.head.split(|&b| b == b' ').next().unwrap_or_default();
        let finding = Finding::new(format!(
            "The client sent a plaintext HTTP request ({}) to a port that speaks TLS.",
            String::from_utf8_lossy(method.get(..8).unwrap_or(method))
        ))
        .blame(Blame::Client)
        .evidence("plaintext_http", "the first bytes are an HTTP request");
        refused_as_not_tls(case, finding)
    }
}

/// See [`Rule::doc_short`].
struct TlsOnPlaintextPort;

impl Rule for TlsOnPlaintextPort {
    fn id(&self) -> &'static str {
        "tls_on_plaintext_port"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client spoke TLS to a port that does not."
    }

    fn doc_long(&self) -> &'static str {
        "The server answered the ClientHello with something that is not a TLS record (RFC 8446 §5.1): an \
         HTTP response, or another protocol. What the client says on reading it depends on its stack \
         (record_overflow, protocol_version, unexpected_message) and is only a reaction."
    }

    fn remedy(&self) -> &'static str {
        "Use the scheme and port of the plaintext service (http://), or turn TLS on for this port."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        case.facts.client_hello.as_ref()?;
        let server = case.facts.server();
        let (what, confidence) = match server.first_bytes? {
            FirstBytes::Http => ("an HTTP response", Confidence::Observed),
            FirstBytes::Ssh => ("an SSH greeting", Confidence::Observed),
            FirstBytes::Other | FirstBytes::Rdp | FirstBytes::Http2Preface => {
                ("bytes that are not TLS", Confidence::Inferred)
            }
            _ => return None,
        };
        // Behind other words of the client, such as CONNECT or a PROXY header, they answer those.
        if case.facts.client().first_bytes != Some(FirstBytes::TlsRecord) {
            return None;
        }
        Some(
            Finding::new(format!("The client sent a ClientHello and the server answered with {what}."))
                .blame(Blame::Config)
                .confidence(confidence)
                .evidence("server_first_bytes", words::head(&server.head)),
        )
    }
}

/// See [`Rule::doc_short`].
struct StarttlsExpected;

impl Rule for StarttlsExpected {
    fn id(&self) -> &'static str {
        "starttls_expected"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The client began with TLS where the server speaks another protocol first and offers STARTTLS at \
         most."
    }

    fn doc_long(&self) -> &'static str {
        "The server greeted, or answered, in the clear: SMTP or FTP (220), IMAP, POP3, LDAP, PostgreSQL, \
         MySQL, XMPP. Such services begin TLS only after a command in their own protocol (RFC 3207, RFC \
         2595, RFC 4511 §4.14, RFC 4217), or on another port (RFC 8314 §3.3)."
    }

    fn remedy(&self) -> &'static str {
        "Use the service's port for implicit TLS (465, 993, 995, 636 …) or make the client use STARTTLS."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        facts.client_hello.as_ref()?;
        let protocol = protocol_of(facts.server().first_bytes?)?;
        // A client that spoke the protocol first did upgrade.
        if facts.client().first_bytes != Some(FirstBytes::TlsRecord) {
            return None;
        }
        Some(
            Finding::new(format!(
                "The client sent a ClientHello and the server spoke {protocol} in the clear."
            ))
            .blame(Blame::Client)
            .evidence("server_first_bytes", words::head(&facts.server().head)),
        )
    }
}

/// See [`Rule::doc_short`].
struct ProxyHeaderUnexpected;

impl Rule for ProxyHeaderUnexpected {
    fn id(&self) -> &'static str {
        "proxy_header_unexpected"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "A PROXY protocol header was sent to a listener that does not take it."
    }

    fn doc_long(&self) -> &'static str {
        "The connection began with a PROXY protocol header, version 1 or 2, and the listener refused as a \
         TLS server refuses garbage: with an alert before any ServerHello, status 400, or by hanging up. \
         The sender (a load balancer, a health check) and the listener must agree on the header (PROXY \
         protocol specification §2)."
    }

    fn remedy(&self) -> &'static str {
        "Turn the PROXY header off at the sender, or on at the listener (nginx: proxy_protocol, HAProxy: \
         accept-proxy, Envoy: the proxy_protocol listener filter)."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let version = match (&facts.proxy, facts.client().first_bytes) {
            (Some(proxy), _) => proxy.version,
            (None, Some(FirstBytes::ProxyV1)) => 1,
            (None, Some(FirstBytes::ProxyV2)) => 2,
            _ => return None,
        };
        let listener = case.listener;
        let ending = case.root.ending.filter(|ending| ending.role == Role::Server);
        if facts.server_hello.is_some()
            || facts.hello_retry_request.is_some()
            || listener.with_proxy_header.accepted > 0
        {
            return None;
        }
        let bad_request = is_bad_request(case);
        let by_alert = facts.server().alerts.first().is_some_and(|alert| {
            matches!(
                alert.description,
                AlertDescription::UNEXPECTED_MESSAGE
                    | AlertDescription::DECODE_ERROR
                    | AlertDescription::PROTOCOL_VERSION
                    | AlertDescription::RECORD_OVERFLOW
            )
        });
        let silent = !facts.server_answered() && ending.is_some();
        let known = listener.without_proxy_header.accepted > 0;
        let confidence = match ending.map(|ending| ending.how) {
            _ if bad_request || by_alert => Confidence::Observed,
            _ if silent && known => Confidence::Observed,
            // A listener that takes the header may reset for other reasons, Envoy for an unknown name.
            Some(How::Reset(_)) if silent && facts.client_hello.is_some() => Confidence::Suspected,
            _ if silent => Confidence::Inferred,
            _ => return None,
        };
        let how = if bad_request {
            "answered with status 400".to_owned()
        } else {
            case.refusal().unwrap_or_else(|| "refused it".to_owned())
        };
        let mut finding =
            Finding::new(format!("The client began with a PROXY v{version} header and the server {how}."))
                .blame(Blame::Config)
                .confidence(confidence)
                .evidence("proxy_header", format!("version {version}"));
        if known {
            let bare = listener.without_proxy_header;
            finding = finding.evidence(
                "listener_history",
                format!(
                    "this listener accepted {} of {} without a PROXY header, none with one",
                    bare.accepted,
                    bare.total()
                ),
            );
        }
        if confidence == Confidence::Suspected {
            let other = if facts.server_name().is_some() { "sni_unrecognized" } else { "sni_missing" };
            finding = finding
                .alternative(other, "a listener that takes the header resets when no filter chain matches");
        }
        Some(finding)
    }
}

/// See [`Rule::doc_short`].
struct ProxyHeaderMissing;

impl Rule for ProxyHeaderMissing {
    fn id(&self) -> &'static str {
        "proxy_header_missing"
    }

    fn severity(&self) -> Severity {
        Severity::Error
    }

    fn doc_short(&self) -> &'static str {
        "The listener requires a PROXY protocol header and got a bare ClientHello."
    }

    fn doc_long(&self) -> &'static str {
        "nginx, HAProxy and Envoy reset a connection that does not begin with the PROXY header that they \
         were told to expect (PROXY protocol specification §2), with the ClientHello unread. One \
         connection looks like a filter chain that does not match; known is it where only connections with \
         the header succeed on this listener."
    }

    fn remedy(&self) -> &'static str {
        "Send the header (load balancer: PROXY protocol on, also for health checks and for clients inside \
         the cluster), or turn it off at the listener."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let listener = case.listener;
        if facts.proxy.is_some() || !listener.requires_proxy_header() || !case.is_hello_unanswered() {
            return None;
        }
        let how = case.refusal()?;
        let (with, without) = (listener.with_proxy_header, listener.without_proxy_header);
        Some(
            Finding::new(format!(
                "The client sent no PROXY header and the server {how}; only connections with one succeed here."
            ))
            .blame(Blame::Config)
            .confidence(Confidence::Inferred)
            .evidence(
                "listener_history",
                format!(
                    "this listener accepted {} of {} with a PROXY header, 0 of {} without",
                    with.accepted,
                    with.total(),
                    case.refused(without)
                ),
            ),
        )
    }
}

/// See [`Rule::doc_short`].
struct Sslv2ClientHello;

impl Rule for Sslv2ClientHello {
    fn id(&self) -> &'static str {
        "sslv2_client_hello"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The client offered TLS in a ClientHello of SSL 2.0 form, and the server refused it."
    }

    fn doc_long(&self) -> &'static str {
        "The first bytes are an SSL 2.0 CLIENT-HELLO (RFC 5246 appendix E.2), which very old clients and \
         scanners send; servers must not accept SSL 2.0 (RFC 6176) and may refuse the form altogether. It \
         carries no extension, so no server_name."
    }

    fn remedy(&self) -> &'static str {
        "Update the client, or turn SSLv2Hello off in it (Java: jdk.tls.client.protocols)."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        if facts.client().first_bytes != Some(FirstBytes::SslV2Hello) {
            return None;
        }
        let how = case.refusal().filter(|_| facts.server_hello.is_none())?;
        Some(
            Finding::new(format!("The client sent a ClientHello in SSL 2.0 form and the server {how}."))
                .blame(Blame::Client)
                .evidence("sslv2_form", "the first bytes are an SSL 2.0 CLIENT-HELLO"),
        )
    }
}

/// See [`Rule::doc_short`].
struct NonTlsProtocol;

impl Rule for NonTlsProtocol {
    fn id(&self) -> &'static str {
        "non_tls_protocol"
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn doc_short(&self) -> &'static str {
        "The client spoke something other than TLS to a port that carries TLS."
    }

    fn doc_long(&self) -> &'static str {
        "The first bytes are neither TLS (RFC 8446 §5.1) nor HTTP nor a PROXY header, and the listener \
         refused them; that it speaks TLS is known from its alert or from other connections."
    }

    fn remedy(&self) -> &'static str {
        "Find out what the client is: a scanner can be ignored, a misconfigured client needs the right port."
    }

    fn judge(&self, case: &Case<'_>) -> Option<Finding> {
        let facts = case.facts;
        let client = facts.client();
        let what = match client.first_bytes? {
            FirstBytes::Ssh => "SSH",
            FirstBytes::Rdp => "RDP",
            FirstBytes::Other => "bytes of an unknown protocol",
            other => protocol_of(other)?,
        };
        if facts.client_hello.is_some() {
            return None;
        }
        let by_alert = facts.server().first_bytes == Some(FirstBytes::TlsRecord);
        let known = case.listener.accepted() > 0 && case.listener.other_protocol == 0;
        let refused = (!facts.server_answered() || is_bad_request(case))
            && case.root.ending.is_some_and(|ending| ending.role == Role::Server);
        if !(by_alert || known && refused) {
            return None;
        }
        Some(
            Finding::new(format!("The client sent {what} to a port that speaks TLS."))
                .blame(Blame::Client)
                .confidence(if by_alert { Confidence::Observed } else { Confidence::Inferred })
                .specificity(Specificity::Class)
                .evidence("client_first_bytes", words::head(&client.head)),
        )
    }
}

/// Completes a finding about a client that did not speak TLS, if the listener is one that does.
fn refused_as_not_tls(case: &Case<'_>, finding: Finding) -> Option<Finding> {
    let server = case.facts.server();
    let listener = case.listener;
    let accepted = listener.accepted();
    let speaks_tls = accepted > 0 && listener.other_protocol == 0;
    // A client that closes its half after the request still waits for the answer.
    let hung_up = server.bytes == 0 && case.facts.endings.iter().any(|ending| ending.role == Role::Server);
    if server.first_bytes == Some(FirstBytes::TlsRecord) {
        return Some(finding.evidence("tls_answer", "the server answered with a TLS record"));
    }
    if listener.other_protocol > 0 || !(hung_up || is_bad_request(case)) {
        return None;
    }
    let finding = if hung_up {
        finding.evidence("no_answer", "the server ended the connection without a byte")
    } else {
        finding.evidence("bad_request", "the server answered with status 400")
    };
    Some(if speaks_tls {
        finding.evidence("listener_history", format!("{accepted} TLS handshakes completed here"))
    } else if hung_up {
        finding.confidence(Confidence::Inferred)
    } else {
        finding
            .confidence(Confidence::Suspected)
            .alternative("undetermined", "a plaintext HTTP server answers a bad request in the same way")
    })
}

/// The server answered with HTTP's status 400, as TLS servers do that understand plaintext HTTP.
fn is_bad_request(case: &Case<'_>) -> bool {
    let head = &case.facts.server().head;
    head.starts_with(b"HTTP/1.") && head.get(8..12) == Some(b" 400")
}

/// Protocols that have their own way into TLS.
fn protocol_of(first_bytes: FirstBytes) -> Option<&'static str> {
    Some(match first_bytes {
        FirstBytes::SmtpOrFtp => "SMTP or FTP",
        FirstBytes::Imap => "IMAP",
        FirstBytes::Pop3 => "POP3",
        FirstBytes::PostgresSslRequest => "PostgreSQL",
        FirstBytes::MySqlGreeting => "MySQL",
        FirstBytes::Ldap => "LDAP",
        FirstBytes::Xmpp => "XMPP",
        _ => return None,
    })
}
