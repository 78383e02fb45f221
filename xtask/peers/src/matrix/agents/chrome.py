"""A client that puts on the wire what Chrome does, on curl_cffi's BoringSSL. Only connects; see agent.rs."""
import sys

from curl_cffi import Curl, CurlOpt, CurlSslVersion

VERSIONS = {"1.2": CurlSslVersion.TLSv1_2, "1.3": CurlSslVersion.TLSv1_3}
# By name: the handle that made the first connection, which remembers its session.
SESSIONS = {}


def connect(options):
    name, address, port = options.get("name"), options["address"], options["port"]
    bracketed = f"[{address}]" if ":" in address else address
    curl = SESSIONS.get(options.get("session")) or Curl()
    curl.impersonate("chrome")
    curl.setopt(CurlOpt.NOPROXY, "*")
    curl.setopt(CurlOpt.TIMEOUT, 5)
    # What resumes is a connection of its own.
    curl.setopt(CurlOpt.FORBID_REUSE, 1)
    if name:
        curl.setopt(CurlOpt.RESOLVE, [f"{name}:{port}:{bracketed}"])
    curl.setopt(CurlOpt.URL, f"https://{name or bracketed}:{port}/".encode())
    versions = [VERSIONS[version] for version in options["versions"].split(",")]
    # libcurl's bound from above is its bound from below, 16 bits higher.
    curl.setopt(CurlOpt.SSLVERSION, versions[0] | versions[-1] << 16)
    curl.setopt(CurlOpt.SSL_VERIFYPEER, int("authority" in options))
    curl.setopt(CurlOpt.SSL_VERIFYHOST, 2 if "authority" in options and name else 0)
    for option, key in (
        (CurlOpt.CAINFO, "authority"),
        (CurlOpt.SSLCERT, "certificate"),
        (CurlOpt.SSLKEY, "key"),
        (CurlOpt.SSL_CIPHER_LIST, "ciphers"),
    ):
        if key in options:
            curl.setopt(option, options[key].encode())
    curl.setopt(CurlOpt.WRITEFUNCTION, len)
    try:
        curl.perform()
    finally:
        if "session" in options:
            SESSIONS[options["session"]] = curl
        else:
            curl.close()
    return "done"


for line in sys.stdin:
    _, *options = line.split()
    try:
        reply = connect(dict(option.split("=", 1) for option in options))
    except Exception as error:  # Every way to fail is an answer.
        reply = "failed " + " ".join(str(error).split())
    print(reply, flush=True)
