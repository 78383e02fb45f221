//! How to confirm verdicts and how to fix what they name, by product.
//!
//! `HOST`, `PORT`, `NAME` and `IP` stand for the connection's own. Commands only look, they change nothing.

use super::Product::{self, ApigeeEdge, ApigeeHybrid, Envoy, Generic, Gke, Haproxy, Istio, Nginx};
use crate::engine::facts::Role;

/// Confirmation and fixes that some verdicts share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guide {
    pub(super) verdicts: &'static [&'static str],
    /// Commands.
    pub(super) confirm: &'static [&'static str],
    pub(super) fixes: &'static [Fix],
}

/// What to do where a product is one end of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fix {
    pub(super) product: Product,
    /// Which end; `None`: either.
    pub(super) role: Option<Role>,
    pub(super) text: &'static str,
}

const fn server(product: Product, text: &'static str) -> Fix {
    Fix { product, role: Some(Role::Server), text }
}

const fn client(product: Product, text: &'static str) -> Fix {
    Fix { product, role: Some(Role::Client), text }
}

const fn either(product: Product, text: &'static str) -> Fix {
    Fix { product, role: None, text }
}

pub(super) const GUIDES: &[Guide] = &[
    Guide {
        verdicts: &["sni_missing"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -noservername </dev/null      # fails",
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null   # succeeds",
            "kubectl -n apigee get apigeeroute -o custom-columns=NAME:.metadata.name,NONSNI:.spec.enableNonSniClient",
        ],
        fixes: &[
            either(
                Generic,
                "Let the client connect by host name: an address as the target means no SNI. curl: --resolve NAME:PORT:IP instead of https://IP/. Java: remove -Djsse.enableSNIExtension=false. Node and .NET: set servername or the target host. Where clients cannot be changed, give the listener a certificate for hellos without a name.",
            ),
            server(
                Nginx,
                "Keep a default_server with a certificate on that address and port, and remove ssl_reject_handshake on from it.",
            ),
            server(
                Envoy,
                "Add a filter chain whose match has no server_names, or set default_filter_chain. The access log shows NR filter_chain_not_found, and listener.<address>.no_filter_chain_match counts.",
            ),
            server(
                Istio,
                "Add a server with hosts: [\"*\"] and a credentialName of its own to the Gateway on this port.",
            ),
            server(
                Haproxy,
                "Remove strict-sni from the bind line; the first certificate of crt is then the default.",
            ),
            server(
                ApigeeHybrid,
                "Create one ApigeeRoute with hostnames: [\"*\"] and enableNonSniClient: true in the apigee namespace, with the port 443, protocol HTTPS, tls.mode SIMPLE and an existing secret as tls.credentialName (kubectl -n apigee get apigeeroutes -o yaml | grep credentialName), and name it in virtualhosts[].additionalGateways before applying virtualhosts again. All hosts of that port then share one certificate for clients without SNI.",
            ),
            either(
                ApigeeEdge,
                "A virtual host without SNI must be the only one on its port or carry the default certificate; otherwise give the client SNI.",
            ),
            server(
                Gke,
                "Google Cloud load balancers connect to backends without SNI: accept that at the backend (they do not check the name on its certificate), or set tlsSettings.sni on the backend service.",
            ),
        ],
    },
    Guide {
        verdicts: &["sni_unrecognized", "sni_ip_literal"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null",
            "istioctl proxy-config listeners POD.NAMESPACE --port PORT -o json | grep -A5 -i serverNames",
        ],
        fixes: &[
            either(
                Generic,
                "Look for a typo or an old DNS entry on the client's side; else configure the name and a certificate for it on the listener. An IP address is not a server name (RFC 6066 section 3).",
            ),
            server(Nginx, "Add the name to server_name of a server block that listens there with ssl."),
            server(
                Envoy,
                "Add the name to server_names of a filter chain. Matching goes by server name first, then transport protocol, then ALPN, then source: a chain that fails in a later step is not replaced by a less specific one.",
            ),
            server(
                Istio,
                "Put the host into the Gateway and the VirtualService, and the secret into the gateway's namespace.",
            ),
            server(
                Haproxy,
                "Add a certificate for the name to the crt directory or crt-list; strict-sni refuses all other names.",
            ),
            server(
                ApigeeHybrid,
                "Add the host alias to the environment group and to the virtual host, and apply both.",
            ),
            either(ApigeeEdge, "Add the host alias to the virtual host."),
            server(Gke, "Add the host to the Gateway or Ingress, and the domain to its certificate."),
        ],
    },
    Guide {
        verdicts: &["protocol_version_mismatch"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -tls1_2 </dev/null",
            "openssl s_client -connect HOST:PORT -servername NAME -tls1_3 </dev/null",
        ],
        fixes: &[
            either(
                Generic,
                "Enable TLS 1.2 and 1.3 in the client (Java 7: -Dhttps.protocols=TLSv1.2; .NET: SystemDefault). Lower the server's minimum only if the client cannot be changed.",
            ),
            server(Nginx, "ssl_protocols TLSv1.2 TLSv1.3; TLS 1.3 is part of the default only since 1.23.4."),
            either(
                Envoy,
                "tls_params.tls_minimum_protocol_version and tls_maximum_protocol_version of the transport socket.",
            ),
            server(Istio, "minProtocolVersion and maxProtocolVersion in the Gateway's tls."),
            server(Haproxy, "ssl-min-ver and ssl-max-ver on the bind line or in ssl-default-bind-options."),
            server(ApigeeHybrid, "minProtocolVersion of the ApigeeRoute or virtual host."),
            client(ApigeeHybrid, "Towards targets: Protocols in SSLInfo."),
            either(ApigeeEdge, "Protocols in SSLInfo of the virtual host or TargetServer."),
            server(Gke, "The SSL policy of the load balancer's frontend (FrontendConfig, GCPGatewayPolicy)."),
        ],
    },
    Guide {
        verdicts: &["inappropriate_fallback", "downgrade_detected"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -tls1_2 </dev/null",
            "openssl s_client -connect HOST:PORT -servername NAME -tls1_3 </dev/null",
        ],
        fixes: &[either(
            Generic,
            "A fallback that the server refuses is a client that retries with a lower version after another failure: find that one. If there was none, something on the way changes the hello.",
        )],
    },
    Guide {
        verdicts: &[
            "cipher_suite_mismatch",
            "group_mismatch",
            "signature_algorithm_mismatch",
            "insufficient_security",
            "handshake_failure_unexplained",
            "hello_retry_failed",
        ],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256 </dev/null",
            "openssl s_client -connect HOST:PORT -servername NAME -groups P-256 </dev/null",
            "openssl s_client -connect HOST:PORT -servername NAME -sigalgs RSA-PSS+SHA256 </dev/null",
        ],
        fixes: &[
            either(
                Generic,
                "Compare what the client offered (tls.client in the JSON) with what the server accepts, and widen one of them: an ECDHE suite with AES-GCM, the groups X25519 and P-256, and signatures that fit the server's key (an ECDSA certificate needs ecdsa_*, an RSA one rsa_pss_*).",
            ),
            server(
                Nginx,
                "ssl_ciphers, ssl_ecdh_curve, ssl_conf_command Ciphersuites; a second ssl_certificate of the other key type serves both kinds of clients.",
            ),
            either(Envoy, "cipher_suites and ecdh_curves in tls_params."),
            server(Istio, "cipherSuites in the Gateway's tls."),
            server(
                Haproxy,
                "ciphers, ciphersuites and curves on the bind line; crt-list with RSA and ECDSA certificates.",
            ),
            client(
                ApigeeHybrid,
                "Ciphers in SSLInfo for targets; the JDK's jdk.tls.disabledAlgorithms decides what the Message Processor refuses.",
            ),
            either(ApigeeEdge, "Ciphers in SSLInfo of the virtual host or TargetServer."),
            server(Gke, "The profile of the SSL policy: COMPATIBLE accepts more than MODERN or RESTRICTED."),
        ],
    },
    Guide {
        verdicts: &["alpn_mismatch"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -alpn h2,http/1.1 </dev/null | grep ALPN",
        ],
        fixes: &[
            either(Generic, "Let both sides offer h2 and http/1.1; gRPC needs h2."),
            server(Nginx, "http2 on;"),
            either(Envoy, "alpn_protocols in common_tls_context."),
            server(Istio, "Name the port's protocol HTTPS or GRPC, or pass TLS through."),
            either(Haproxy, "alpn h2,http/1.1 on the bind or server line."),
            server(Gke, "appProtocol: HTTP2 of the Service."),
        ],
    },
    Guide {
        verdicts: &["server_certificate_expired", "server_certificate_not_yet_valid"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null 2>/dev/null | openssl x509 -noout -dates -serial",
            "chronyc tracking   # on the client: is its clock right?",
        ],
        fixes: &[
            either(
                Generic,
                "Renew the certificate and make every instance load it; a server that was not reloaded serves the old one from memory. If the dates are right, the client's clock is not.",
            ),
            server(
                Nginx,
                "Replace the file of ssl_certificate and reload (nginx -s reload); compare with openssl x509 -in FILE -noout -dates.",
            ),
            server(
                Envoy,
                "Update the secret or the file; server.days_until_first_cert_expiring tells what Envoy has loaded.",
            ),
            server(
                Istio,
                "Update the credentialName secret in the gateway's namespace; istioctl proxy-config secret POD.NAMESPACE shows what was delivered.",
            ),
            server(
                Haproxy,
                "Replace the file of crt and reload, or use set ssl cert and commit ssl cert on the socket; show ssl cert tells what is loaded.",
            ),
            server(
                ApigeeHybrid,
                "Northbound: replace the files of virtualhosts[].sslCertPath and sslKeyPath (or the secret) and apply virtualhosts.",
            ),
            client(ApigeeHybrid, "Southbound: the target has to renew."),
            either(
                ApigeeEdge,
                "Upload the new certificate to a new keystore and point the reference of the virtual host to it.",
            ),
            server(Gke, "Check the status of the ManagedCertificate or of cert-manager's Certificate."),
        ],
    },
    Guide {
        verdicts: &["client_clock_wrong"],
        confirm: &[
            "chronyc tracking   # on the client",
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null 2>/dev/null | openssl x509 -noout -dates -serial",
        ],
        fixes: &[either(
            Generic,
            "Set the client's clock and keep it right (chrony, systemd-timesyncd, the hypervisor's clock). Devices that start without a battery need the time before they need TLS.",
        )],
    },
    Guide {
        verdicts: &["hostname_mismatch"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null 2>/dev/null | openssl x509 -noout -ext subjectAltName",
            "openssl s_client -connect HOST:PORT -servername NAME -verify_hostname NAME -verify_return_error </dev/null",
        ],
        fixes: &[
            either(
                Generic,
                "Reissue the certificate with every name that clients use; a wildcard covers one label, the common name counts no longer, and an address needs an IP entry. If another certificate was meant, the server chose by a wrong or missing server_name.",
            ),
            server(Nginx, "Check which server block answers: nginx -T | grep -A3 server_name."),
            server(
                Envoy,
                "Check which filter chain matches the name, and the certificate of its transport socket.",
            ),
            server(Istio, "Check hosts and credentialName of the Gateway server that matches."),
            server(Haproxy, "Without a matching name the first certificate is sent; add one for the name."),
            server(
                ApigeeHybrid,
                "Northbound: the certificate of the virtual host must cover every host alias.",
            ),
            client(
                ApigeeHybrid,
                "Southbound: use the target's certified name in the TargetServer's host, or correct the target.",
            ),
            either(
                ApigeeEdge,
                "Use a TargetServer host that the target's certificate covers; the virtual host's certificate must cover its host aliases.",
            ),
            server(Gke, "Add the domain to the ManagedCertificate or Certificate."),
        ],
    },
    Guide {
        verdicts: &["server_chain_incomplete", "server_chain_misordered"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -showcerts </dev/null | grep -E ' [si]:'   # each i: is the next s:",
        ],
        fixes: &[
            either(
                Generic,
                "Serve the leaf first and then each intermediate, without the root. Browsers and clients with a cache hide this fault; Java, OpenSSL and Go do not fetch what is missing.",
            ),
            server(
                Nginx,
                "ssl_certificate must be the full chain in one file: cat leaf.pem intermediate.pem > fullchain.pem, then reload.",
            ),
            server(Envoy, "certificate_chain must hold the intermediates."),
            server(Istio, "tls.crt of the secret must hold the full chain."),
            server(Haproxy, "Put the intermediates behind the leaf in the file of crt."),
            server(ApigeeHybrid, "Northbound: the file of sslCertPath must hold the full chain."),
            client(
                ApigeeHybrid,
                "Southbound: ask the target to complete its chain, or import the missing intermediate into the TrustStore.",
            ),
            either(
                ApigeeEdge,
                "Upload the certificate with its whole chain; each certificate on the path must be in the truststore for targets.",
            ),
            server(Gke, "tls.crt of the secret must hold the full chain."),
        ],
    },
    Guide {
        verdicts: &["server_certificate_self_signed", "server_ca_unknown"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -CAfile CLIENT_TRUST.pem -verify_return_error </dev/null",
            "keytool -list -keystore $JAVA_HOME/lib/security/cacerts | grep -i ISSUER",
        ],
        fixes: &[
            either(
                Generic,
                "Add the issuing root to the client's trust store (system store, SSL_CERT_FILE, REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, Java's cacerts), or serve a certificate from an authority that the clients trust. A self-signed one often means that a default certificate answered.",
            ),
            client(Nginx, "As a client (proxy_pass https): proxy_ssl_trusted_certificate."),
            client(
                Envoy,
                "As a client: trusted_ca in the validation_context of the upstream's transport socket; ssl.fail_verify_error counts.",
            ),
            client(Istio, "As a client: caCertificates or credentialName in the DestinationRule's tls."),
            client(Haproxy, "As a client: ca-file on the server line."),
            client(
                ApigeeHybrid,
                "Southbound: the truststore that SSLInfo.TrustStore refers to must hold the target's root and intermediates.",
            ),
            either(
                ApigeeEdge,
                "Southbound: the truststore of SSLInfo.TrustStore must hold the target's root and intermediates.",
            ),
            client(
                Gke,
                "For clients in the cluster, mount the root as a ConfigMap and point the client to it.",
            ),
        ],
    },
    Guide {
        verdicts: &[
            "server_certificate_revoked",
            "server_certificate_unsupported",
            "server_certificate_rejected",
            "client_closed_after_handshake",
        ],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -verify_hostname NAME -CAfile CLIENT_TRUST.pem -verify_return_error -status -showcerts </dev/null",
            "tlstrace watch --sni NAME   # the same listener under TLS 1.2 shows the chain",
        ],
        fixes: &[
            either(
                Generic,
                "The client's log has the reason. Walk through dates, names, chain, issuer and extendedKeyUsage of what the server sends to this name, with the client's own trust store. Pins and policies of the client come last.",
            ),
            client(
                Envoy,
                "As a client: ssl.fail_verify_error, ssl.fail_verify_san and ssl.fail_verify_cert_hash, and %UPSTREAM_TRANSPORT_FAILURE_REASON% in the access log, tell the reason.",
            ),
            client(
                Istio,
                "As a client: subjectAltNames and sni in the DestinationRule's tls must fit the server's certificate.",
            ),
            client(
                ApigeeHybrid,
                "A Message Processor that refuses a target's certificate answers its caller with 503 messaging.adaptors.http.flow.SslHandshakeFailed: check the TrustStore, and that the target's certificate covers the TargetServer's host.",
            ),
            either(
                ApigeeEdge,
                "A Message Processor that refuses a target's certificate answers its caller with 503 messaging.adaptors.http.flow.SslHandshakeFailed: check the TrustStore, and that the target's certificate covers the TargetServer's host.",
            ),
        ],
    },
    Guide {
        verdicts: &["ocsp_response_rejected"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -status </dev/null | grep -A9 'OCSP response'",
        ],
        fixes: &[
            either(
                Generic,
                "Renew the stapled response: the server must reach its authority's responder, and its clock must be right. Without stapling the client asks for itself, unless the certificate says must-staple.",
            ),
            server(Nginx, "ssl_stapling needs resolver and ssl_trusted_certificate."),
        ],
    },
    Guide {
        verdicts: &["server_certificate_unavailable"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null   # and with a name that works",
        ],
        fixes: &[
            either(
                Generic,
                "The server failed to find or load a certificate for this name: look into its log, at the secret's existence and permissions, and at limits of automatic issuance.",
            ),
            server(
                Envoy,
                "A secret that SDS has not delivered yet leaves the listener warming or closes connections: look at sds.*.update_rejected.",
            ),
            server(
                Istio,
                "istioctl proxy-config secret POD.NAMESPACE; the secret must be in the gateway's namespace.",
            ),
        ],
    },
    Guide {
        verdicts: &[
            "client_certificate_missing",
            "client_certificate_unsupported",
            "client_certificate_untrusted",
            "client_certificate_rejected",
        ],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null | grep -A9 'Acceptable client certificate CA names'",
            "openssl s_client -connect HOST:PORT -servername NAME -cert CLIENT.pem -key CLIENT.key -cert_chain CHAIN.pem",
            "openssl x509 -in CLIENT.pem -noout -issuer -dates -ext extendedKeyUsage",
        ],
        fixes: &[
            either(
                Generic,
                "Present a certificate that is valid now, allows clientAuth, comes with its intermediates and its own key, and was issued by an authority that the server lists.",
            ),
            server(
                Nginx,
                "ssl_client_certificate must hold the issuers, ssl_verify_depth must allow for intermediates. With ssl_verify_client on, nginx completes the handshake and answers status 400 (No required SSL certificate was sent).",
            ),
            server(
                Envoy,
                "require_client_certificate and trusted_ca; ssl.fail_verify_no_cert, ssl.fail_verify_error and ssl.fail_verify_san count, %DOWNSTREAM_TRANSPORT_FAILURE_REASON% tells.",
            ),
            server(
                Istio,
                "tls.mode MUTUAL, and the issuers in the secret <credentialName>-cacert or its ca.crt.",
            ),
            server(
                Haproxy,
                "verify required and ca-file on the bind line; ssl_c_err in the log tells the reason.",
            ),
            server(ApigeeHybrid, "Northbound: tlsMode MUTUAL and caCertPath of the virtual host."),
            client(
                ApigeeHybrid,
                "Southbound: ClientAuthEnabled, KeyStore and KeyAlias in SSLInfo of the target.",
            ),
            either(
                ApigeeEdge,
                "Northbound: ClientAuthEnabled and TrustStore of the virtual host. Southbound: ClientAuthEnabled, KeyStore and KeyAlias in SSLInfo of the target.",
            ),
            server(Gke, "ServerTlsPolicy and its TrustConfig must hold the issuers."),
        ],
    },
    Guide {
        verdicts: &[
            "client_certificate_expired",
            "client_certificate_revoked",
            "client_certificate_key_mismatch",
        ],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -cert CLIENT.pem -key CLIENT.key -cert_chain CHAIN.pem",
            "openssl x509 -in CLIENT.pem -noout -issuer -dates; openssl pkey -in CLIENT.key -check -noout",
        ],
        fixes: &[
            either(
                Generic,
                "Renew the client's certificate with its key, and make the client load both: many read them at the start only.",
            ),
            client(
                Nginx,
                "As a client: replace the files of proxy_ssl_certificate and proxy_ssl_certificate_key, and reload.",
            ),
            client(
                Envoy,
                "As a client: tls_certificates in the upstream's transport socket, or the secret that SDS delivers for it.",
            ),
            client(
                Istio,
                "As a client: the secret of credentialName, or the files of clientCertificate and privateKey, in the DestinationRule's tls.",
            ),
            client(Haproxy, "As a client: replace the file of crt on the server line and reload."),
            client(
                ApigeeHybrid,
                "Southbound: renew the alias that KeyStore and KeyAlias in SSLInfo of the target name.",
            ),
            client(
                ApigeeEdge,
                "Southbound: renew the alias that KeyStore and KeyAlias in SSLInfo of the target name.",
            ),
        ],
    },
    Guide {
        verdicts: &["proxy_header_unexpected", "proxy_header_missing"],
        confirm: &[
            "curl -skv --haproxy-protocol https://NAME:PORT/ -o /dev/null   # with a PROXY v1 header",
            "curl -skv https://NAME:PORT/ -o /dev/null                      # without",
        ],
        fixes: &[
            either(
                Generic,
                "Sender and listener must agree. Connections that bypass the load balancer (health checks, calls from inside) arrive without the header.",
            ),
            server(
                Nginx,
                "listen 443 ssl proxy_protocol; ingress-nginx: use-proxy-protocol in its ConfigMap.",
            ),
            server(
                Envoy,
                "envoy.filters.listener.proxy_protocol before the tls_inspector, with allow_requests_without_proxy_protocol for mixed traffic; downstream_cx_proxy_proto_error counts.",
            ),
            server(
                Istio,
                "Configure the listener filter by the gateway's proxyProtocol setting or an EnvoyFilter.",
            ),
            either(
                Haproxy,
                "accept-proxy on the bind line; send-proxy or send-proxy-v2 on the server line of the one before.",
            ),
            server(
                Gke,
                "proxyHeader of the target TCP or SSL proxy, and --proxy-header of its health check.",
            ),
        ],
    },
    Guide {
        verdicts: &[
            "http_on_tls_port",
            "tls_on_plaintext_port",
            "starttls_expected",
            "non_tls_protocol",
            "sslv2_client_hello",
        ],
        confirm: &[
            "curl -sv http://HOST:PORT/ -o /dev/null",
            "curl -skv https://HOST:PORT/ -o /dev/null",
            "openssl s_client -connect HOST:PORT -starttls smtp </dev/null   # or imap, pop3, ftp, ldap, postgres, mysql",
        ],
        fixes: &[
            either(
                Generic,
                "Correct scheme or port of the client's URL, the Service's targetPort, or the protocol that the load balancer uses towards its backend. Mail, database and directory clients need STARTTLS on such a port.",
            ),
            either(
                Nginx,
                "listen ... ssl is missing, or proxy_pass says http where the upstream speaks TLS (or the reverse); error_page 497 can redirect plain HTTP.",
            ),
            client(Envoy, "The cluster needs a TLS transport_socket, or must not have one."),
            client(
                Istio,
                "The DestinationRule's tls.mode (SIMPLE or DISABLE) must fit the port; so must the Service's port name.",
            ),
            either(Haproxy, "ssl on the bind or server line is missing or too much."),
            client(ApigeeHybrid, "SSLInfo.Enabled of the TargetServer must fit its port."),
            either(ApigeeEdge, "SSLInfo.Enabled of the TargetServer must fit its port."),
            server(
                Gke,
                "The protocol of the BackendConfig or the annotation cloud.google.com/app-protocols must fit the container.",
            ),
        ],
    },
    Guide {
        verdicts: &["client_hello_blackholed", "server_flight_blackholed"],
        confirm: &[
            "ping -M do -s 1472 HOST   # 1500 bytes with headers; smaller until it passes",
            "ip route get IP; ip link | grep mtu; sysctl net.ipv4.tcp_mtu_probing",
        ],
        fixes: &[
            either(
                Generic,
                "Large packets vanish on the way. Let ICMP type 3 code 4 and ICMPv6 type 2 pass, clamp the MSS, or set the interface's MTU to what the tunnels leave (VXLAN takes 50 bytes, WireGuard 80). sysctl net.ipv4.tcp_mtu_probing=1 helps the sender.",
            ),
            server(
                Gke,
                "The VPC's MTU is 1460 unless set otherwise: the nodes' and pods' interfaces must not exceed it.",
            ),
        ],
    },
    Guide {
        verdicts: &["large_client_hello_intolerance"],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME -groups X25519MLKEM768:X25519 </dev/null   # OpenSSL 3.5",
            "openssl s_client -connect HOST:PORT -servername NAME -groups X25519 </dev/null",
        ],
        fixes: &[
            either(
                Generic,
                "Upgrade the server or middlebox that expects a ClientHello in one packet (https://tldr.fail). Meanwhile leave the post-quantum group out at the client (Go: GODEBUG=tlsmlkem=0; browsers: PostQuantumKeyAgreementEnabled).",
            ),
            server(Envoy, "max_client_hello_size of the tls_inspector must exceed the hello."),
        ],
    },
    Guide {
        verdicts: &["syn_timeout", "port_closed", "tcp_handshake_incomplete", "injected_reset"],
        confirm: &[
            "ss -ltn 'sport = :PORT'        # on the server: does it listen?",
            "nc -vz HOST PORT               # from the client's network",
            "conntrack -S | head -3; iptables-save | grep PORT",
        ],
        fixes: &[
            either(
                Generic,
                "Check firewall, security group, route back and the process that should listen. A reset that no endpoint sent comes from a middlebox: compare its TTL with the server's.",
            ),
            server(
                Istio,
                "Check the Service of the ingress gateway and its endpoints: kubectl get endpointslices.",
            ),
            server(
                ApigeeHybrid,
                "kubectl -n apigee get svc,endpointslices; the ingress gateway's pods must be ready.",
            ),
            server(
                Gke,
                "Check NetworkPolicy, firewall rules for the node pool, externalTrafficPolicy and that the Service has endpoints.",
            ),
        ],
    },
    Guide {
        verdicts: &["accept_queue_full", "server_silent"],
        confirm: &[
            "ss -ltn 'sport = :PORT'                        # Recv-Q near Send-Q: the process does not accept",
            "nstat -az TcpExtListenOverflows TcpExtListenDrops",
        ],
        fixes: &[
            either(
                Generic,
                "The kernel answers and the process does not: look at CPU limits and throttling, at blocked workers, at a key or secret that is slow to come; raise the backlog (net.core.somaxconn) only after that.",
            ),
            server(
                Nginx,
                "worker_connections, listen ... backlog=, and disk or resolver waits in the error log.",
            ),
            server(
                Envoy,
                "Overload manager and connection limits; a listener whose secret SDS has not delivered.",
            ),
            server(Haproxy, "maxconn, globally and per frontend."),
        ],
    },
    Guide {
        verdicts: &[
            "reset_before_client_hello",
            "reset_after_client_hello",
            "closed_after_client_hello",
            "truncated_handshake",
            "client_abandoned",
            "client_hello_timeout",
            "client_hello_truncated",
        ],
        confirm: &[
            "openssl s_client -connect HOST:PORT -servername NAME </dev/null",
            "tlstrace watch --all --server HOST --port PORT   # what differs between those that succeed and those that fail?",
        ],
        fixes: &[
            either(
                Generic,
                "The log of the side that ended the connection, at this time, has the reason. Compare with a client that succeeds: server name, PROXY header, source address, size of the hello. A client that goes away by itself has a timeout: is it shorter than the server needs?",
            ),
            server(
                Nginx,
                "error_log at info shows handshakes that fail; client_header_timeout ends silent clients.",
            ),
            server(
                Envoy,
                "The access log with %RESPONSE_FLAGS% and %DOWNSTREAM_TRANSPORT_FAILURE_REASON%: NR is a filter chain that did not match. listener_filters_timeout (15 s) ends silent clients.",
            ),
            server(Haproxy, "option dontlognull off; timeout client ends silent clients."),
            server(
                ApigeeHybrid,
                "kubectl -n apigee logs -l app=apigee-ingressgateway | grep filter_chain_not_found",
            ),
            server(Gke, "A backend that is being drained or fails its health check closes in this way."),
        ],
    },
    Guide {
        verdicts: &["protocol_error", "renegotiation_refused", "ech_rejected"],
        confirm: &["openssl s_client -connect HOST:PORT -servername NAME -msg </dev/null"],
        fixes: &[either(
            Generic,
            "One of the two implementations broke the protocol or met something in between that did: update both, and try without proxies or inspection. Renegotiation is gone in TLS 1.3: ask for the client certificate at the start. A client that offered an outdated ECH configuration retries by itself.",
        )],
    },
];
