//! `tlstrace top` over live packets: they come to the screen, and leaving it takes the programs off the interface.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};

use tlstrace_peers::terminal::{Command, Terminal};
use tlstrace_peers::{Family, Identity, Pair, openssl};

use crate::live::{NAME, PATIENCE, PORT};

#[test]
#[ignore = "needs root"]
fn a_live_failure_comes_to_the_screen_and_leaving_it_detaches() {
    let pair = Pair::new().unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    let command = command.args(["top", "-i", Pair::SERVER_INTERFACE, "--attach", "clsact", "--netns"]);
    let mut terminal = Terminal::spawn(command.arg(pair.server.path())).unwrap();
    terminal.find(PATIENCE, "No handshake was seen yet").unwrap();
    assert!(filters(&pair).contains("tlstrace"), "{}", filters(&pair));

    let server = SocketAddr::new(Pair::server_address(Family::Ipv4), PORT);
    let refused = pair.client.enter(|| TcpStream::connect(server).unwrap_err().kind());
    assert_eq!(refused, ErrorKind::ConnectionRefused);
    terminal.find(PATIENCE, &server.to_string()).unwrap();
    terminal.find(PATIENCE, "port_closed").unwrap();
    terminal.find(PATIENCE, "nothing lost; ").unwrap();

    terminal.press("q").unwrap();
    assert!(terminal.wait(PATIENCE).unwrap().success());
    assert!(terminal.is_as_before().unwrap());
    let said = terminal.screen().contents();
    assert!(said.contains("1 of 1 handshakes failed") && said.contains("nothing lost"), "{said}");
    assert!(!filters(&pair).contains("tlstrace"), "{}", filters(&pair));
}

#[test]
#[ignore = "needs root"]
fn the_process_that_listens_is_named_on_the_screen() {
    let pair = Pair::new().unwrap();
    let identity = Identity::issue(&[NAME]).unwrap();
    let certificate = identity.certificate_file().display().to_string();
    let key = identity.key_file().display().to_string();
    let arguments = ["-servername", NAME, "-servername_fatal", "-cert2", &certificate, "-key2", &key];
    let _server = openssl::server(&pair.server, &identity, PORT, &arguments).unwrap();
    let command = Command::new(env!("CARGO_BIN_EXE_tlstrace"));
    let command = command.args(["top", "-i", Pair::SERVER_INTERFACE, "--netns"]);
    let mut terminal = Terminal::spawn(command.arg(pair.server.path())).unwrap();
    terminal.find(PATIENCE, "No handshake was seen yet").unwrap();
    let server = SocketAddr::new(Pair::server_address(Family::Ipv4), PORT).to_string();
    let arguments = ["s_client", "-connect", &server, "-servername", "other.example"];
    pair.client.command("openssl").args(arguments).output().unwrap();
    terminal.find(PATIENCE, "sni_unrecognized").unwrap();
    terminal.press("\t\r").unwrap();
    terminal.find(PATIENCE, "openssl (pid ").unwrap();
    terminal.press("q").unwrap();
    assert!(terminal.wait(PATIENCE).unwrap().success());
}

/// What is on the ingress hook of the server's interface.
fn filters(pair: &Pair) -> String {
    let mut command = pair.server.command("tc");
    let output = command.args(["filter", "show", "dev", Pair::SERVER_INTERFACE, "ingress"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
