"""A TLS peer on Python's ssl module. Reads one command a line, answers one line; see agent.rs."""
import socket
import ssl
import sys
import threading

# By name: the context that made the first connection, and its session.
SESSIONS = {}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(side, options):
    tls = ssl.SSLContext(side)
    versions = options["versions"].split(",")
    tls.minimum_version, tls.maximum_version = VERSIONS[versions[0]], VERSIONS[versions[-1]]
    if "certificate" in options:
        tls.load_cert_chain(options["certificate"], options["key"])
    if "authority" in options:
        tls.load_verify_locations(options["authority"])
    if "alpn" in options:
        tls.set_alpn_protocols(options["alpn"].split(","))
    if "ciphers" in options:
        tls.set_ciphers(options["ciphers"])
    return tls


def answer(tcp, tls):
    try:
        with tls.wrap_socket(tcp, server_side=True) as stream:
            if stream.recv(4096):
                stream.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
            stream.unwrap()
    except (OSError, ValueError):
        tcp.close()


def serve(listener, tls):
    while True:
        tcp, _ = listener.accept()
        threading.Thread(target=answer, args=(tcp, tls), daemon=True).start()


def listen(options):
    tls = context(ssl.PROTOCOL_TLS_SERVER, options)
    if "authority" in options:
        tls.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("::", int(options["port"])), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=serve, args=(listener, tls), daemon=True).start()
    return "listening"


def connect(options):
    name = options.get("session")
    tls, session = SESSIONS.get(name) or (context(ssl.PROTOCOL_TLS_CLIENT, options), None)
    tls.check_hostname = False
    if "authority" in options:
        tls.check_hostname = "name" in options
    else:
        tls.verify_mode = ssl.CERT_NONE
    with socket.create_connection((options["address"], int(options["port"])), timeout=5) as tcp:
        with tls.wrap_socket(tcp, server_hostname=options.get("name"), session=session) as stream:
            stream.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while stream.recv(4096):
                pass
            if name:
                SESSIONS[name] = tls, stream.session
    return "done"


for line in sys.stdin:
    verb, *options = line.split()
    try:
        reply = {"listen": listen, "connect": connect}[verb](dict(option.split("=", 1) for option in options))
    except Exception as error:  # Every way to fail is an answer.
        reply = "failed " + " ".join(str(error).split())
    print(reply, flush=True)
