//! `cargo xtask demo`: tlstrace at work on one machine, with nothing real at risk.
//!
//! Three hosts in network namespaces, as on a cluster's node: a client, a node that forwards, and a pod with real TLS
//! servers. `tlstrace watch` runs on the node's interface towards the client. Each scene makes one connection and waits
//! for the verdict on it. All of it goes with this process, however that ends.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tlstrace_peers::{
    Family, Identity, Process, Routed, Service, close_after_client_hello, installed, openssl, rustls_server,
    sni_gateway, watch,
};

use crate::cargo;
use crate::privilege::Privilege;

/// Show tlstrace at work: real clients and servers in throw-away network namespaces, and the live lines
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Show this tlstrace instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tlstrace = cargo::tlstrace(args.binary.as_deref())?;
    for program in ["openssl", "ip", "nsenter", "setpriv"] {
        ensure!(
            installed(program),
            "the demo needs `{program}` (Debian: apt-get install openssl iproute2 util-linux)"
        );
    }
    match Privilege::to_trace("the demo")? {
        Privilege::Root => play(&tlstrace),
        sudo @ Privilege::Sudo => {
            let this = std::env::current_exe()?;
            let failure = sudo.command(this).args(["demo", "--binary"]).arg(tlstrace).exec();
            Err(failure).context("cannot run sudo")
        }
    }
}

/// The name that the pod's servers have a certificate for.
const NAME: &str = "shop.example";

/// TLS behind a gateway that knows [`NAME`] only.
const GATEWAY: u16 = 8443;
/// OpenSSL with TLS 1.2 and 1.3.
const MODERN: u16 = 8444;
/// OpenSSL with TLS 1.3 only.
const TLS13_ONLY: u16 = 8445;
/// OpenSSL with TLS 1.2 and one cipher suite.
const ONE_CIPHER_SUITE: u16 = 8446;
/// Reads the ClientHello and closes.
const CLOSER: u16 = 8447;
/// Nobody.
const CLOSED: u16 = 8448;

fn play(tlstrace: &Path) -> Result<()> {
    let stage = Stage::build()?;
    let _servers = stage.start_servers()?;
    let color = if io::stdout().is_terminal() { "always" } else { "never" };
    let mut watch =
        watch(&stage.hosts.node, tlstrace, &["-i", Routed::CLIENT_SIDE, "--all", "--color", color])?;

    let mut silent = 0;
    for scene in scenes() {
        print(&format!("\n# {}", scene.title))?;
        scene.act.perform(&stage)?;
        if let Some(line) = watch.stdout.next(Duration::from_secs(10)) {
            print(&line.text)?;
        } else {
            print("(no verdict within 10 s)")?;
            silent += 1;
        }
    }

    watch.signal(Signal::SIGINT)?;
    let status = watch.wait(Duration::from_secs(10))?;
    print("\n# what tlstrace says when it is stopped")?;
    for line in watch.stderr.rest(Duration::from_secs(10))? {
        print(&line)?;
    }
    ensure!(status.success(), "tlstrace ended with {status}");
    ensure!(silent == 0, "{silent} scenes had no verdict");
    Ok(())
}

struct Scene {
    title: &'static str,
    act: Act,
}

enum Act {
    Openssl {
        port: u16,
        arguments: &'static [&'static str],
    },
    Curl,
    /// A TCP connection that sends these bytes and closes.
    Send {
        port: u16,
        bytes: &'static [u8],
    },
}

fn scenes() -> Vec<Scene> {
    const fn openssl(title: &'static str, port: u16, arguments: &'static [&'static str]) -> Scene {
        Scene { title, act: Act::Openssl { port, arguments } }
    }
    let mut scenes = vec![
        openssl("a client that sends the server name the gateway knows", GATEWAY, &["-servername", NAME]),
        openssl("a client that sends no server name to the same gateway", GATEWAY, &["-noservername"]),
        openssl(
            "a client that sends a name the gateway does not know",
            GATEWAY,
            &["-servername", "other.example"],
        ),
        openssl(
            "a TLS 1.1 client, a server that wants 1.2 or 1.3",
            MODERN,
            &["-servername", NAME, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        ),
        openssl("a TLS 1.2 client, a server that wants 1.3", TLS13_ONLY, &["-servername", NAME, "-tls1_2"]),
        openssl(
            "no cipher suite in common",
            ONE_CIPHER_SUITE,
            &["-servername", NAME, "-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        ),
        openssl("a server that reads the ClientHello and closes", CLOSER, &["-servername", NAME]),
        openssl("a port where nobody listens", CLOSED, &["-servername", NAME]),
        Scene {
            title: "plain HTTP sent to the TLS port",
            act: Act::Send { port: MODERN, bytes: b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n" },
        },
        Scene {
            title: "a health check that connects and closes",
            act: Act::Send { port: GATEWAY, bytes: b"" },
        },
    ];
    if installed("curl") {
        scenes.push(Scene { title: "curl, with the right name", act: Act::Curl });
    }
    scenes
}

impl Act {
    /// Plays the client's part and shows how it was done.
    fn perform(&self, stage: &Stage) -> Result<()> {
        let address = |port| SocketAddr::from((Stage::pod_address(), port));
        match *self {
            Self::Openssl { port, arguments } => {
                run_client(&mut openssl::client(&stage.hosts.client, address(port), arguments))
            }
            Self::Curl => {
                let mut command = stage.hosts.client.command("curl");
                command.args(["--silent", "--show-error", "--max-time", "5", "--cacert"]);
                command.arg(stage.identity.authority_file());
                command.args(["--resolve", &format!("{NAME}:{MODERN}:{}", Stage::pod_address())]);
                command.arg(format!("https://{NAME}:{MODERN}/"));
                run_client(&mut command)
            }
            Self::Send { port, bytes } => {
                let mut stream = stage.hosts.client.enter(|| TcpStream::connect(address(port)))?;
                stream.write_all(bytes)?;
                stream.shutdown(Shutdown::Write)?;
                // The answer, and whether there is one, is the verdict's business.
                let _ = io::copy(&mut stream, &mut io::sink());
                Ok(())
            }
        }
    }
}

fn run_client(command: &mut Command) -> Result<()> {
    let shown = command.get_args().skip_while(|argument| *argument != "--").skip(1);
    print(&format!("$ {}", shown.map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")))?;
    // That it fails is the point of most scenes.
    command.output().context("cannot run the client")?;
    Ok(())
}

/// The hosts and what they need to know of TLS.
struct Stage {
    hosts: Routed,
    identity: Identity,
}

impl Stage {
    fn build() -> Result<Self> {
        Ok(Self { hosts: Routed::new()?, identity: Identity::issue(&[NAME])? })
    }

    const fn pod_address() -> IpAddr {
        Routed::server_address(Family::Ipv4)
    }

    fn start_servers(&self) -> Result<(Vec<Service>, Vec<Process>)> {
        let config = rustls_server(&self.identity, rustls::ALL_VERSIONS)?;
        let services = vec![
            Service::start(&self.hosts.server, GATEWAY, sni_gateway(&[NAME], config))?,
            Service::start(&self.hosts.server, CLOSER, close_after_client_hello)?,
        ];
        let openssl = |port, arguments| openssl::server(&self.hosts.server, &self.identity, port, arguments);
        let processes = vec![
            openssl(MODERN, &["-www", "-no_tls1", "-no_tls1_1"])?,
            openssl(TLS13_ONLY, &["-www", "-tls1_3"])?,
            openssl(ONE_CIPHER_SUITE, &["-www", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"])?,
        ];
        Ok((services, processes))
    }
}

/// Lines of the demo. A closed pipe ends it, as any other failure does.
fn print(line: &str) -> Result<()> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
