//! Who is named beside an address.

use tlstrace_peers::{Family, Identity, Pair, Process, openssl, watch};

use crate::live::{Live, NAME, PORT};

#[test]
#[ignore = "needs root"]
fn the_process_that_listens_is_named_with_a_failure() {
    for family in Family::ALL {
        let (mut live, server) = start(family, &[]);
        live.openssl_client(&["-servername", "other.example"]);
        let verdict = live.verdict("sni_unrecognized");
        verdict.has("/server/process/name", "openssl");
        verdict.has("/server/process/pid", server.id());
        verdict.lacks("/client/process");
        verdict.lacks("/k8s");
    }
}

#[test]
#[ignore = "needs root"]
fn nobody_is_looked_up_if_that_is_not_wanted() {
    let (mut live, _server) = start(Family::Ipv4, &["-n"]);
    live.openssl_client(&["-servername", "other.example"]);
    live.verdict("sni_unrecognized").lacks("/server/process");
}

/// A server that refuses every name but one, and somebody who watches since it listens.
fn start(family: Family, options: &[&str]) -> (Live, Process) {
    let mut server = None;
    let live = Live::watched_by(Pair::new().unwrap(), family, |pair| {
        let identity = Identity::issue(&[NAME]).unwrap();
        let certificate = identity.certificate_file().display().to_string();
        let key = identity.key_file().display().to_string();
        let arguments = ["-servername", NAME, "-servername_fatal", "-cert2", &certificate, "-key2", &key];
        server = Some(openssl::server(&pair.server, &identity, PORT, &arguments).unwrap());
        let arguments = [&["-o", "json", "--all", "-i", Pair::SERVER_INTERFACE], options].concat();
        watch(&pair.server, env!("CARGO_BIN_EXE_tlstrace").as_ref(), &arguments).unwrap()
    });
    (live, server.unwrap())
}
