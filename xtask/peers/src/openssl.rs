//! The `openssl` command as server and as client.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::{Identity, Namespace, Process};

/// `openssl s_server` with the identity's certificate, on every address of the namespace. Listens on return.
pub fn server(namespace: &Namespace, identity: &Identity, port: u16, arguments: &[&str]) -> Result<Process> {
    let mut command = namespace.command("openssl");
    command.args(["s_server", "-accept", &port.to_string()]);
    command.arg("-cert").arg(identity.certificate_file()).arg("-key").arg(identity.key_file());
    // Kept open and empty: at the end of its input the server would close every connection.
    command.args(arguments).stdin(Stdio::piped());
    let mut server = Process::spawn(&mut command)?;
    // Written and flushed just before each accept(2), when the socket listens already.
    server.stdout.find(Duration::from_secs(10), |line| line == "ACCEPT")?;
    Ok(server)
}

/// `openssl s_client` to `server`, with an empty standard input: it does the handshake and closes.
pub fn client<S: AsRef<OsStr>>(namespace: &Namespace, server: SocketAddr, arguments: &[S]) -> Command {
    let host = match server.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let mut command = namespace.command("openssl");
    command.args(["s_client", "-connect", &format!("{host}:{}", server.port())]);
    command.args(arguments).stdin(Stdio::null());
    command
}
