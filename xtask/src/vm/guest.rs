//! The first process of a virtual machine: two hosts joined by a veth pair, a gateway on one, and tlstrace at its door.

use std::ffi::CStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::exit;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use aya::programs::tc::{SchedClassifier, TcAttachType};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use rustls::StreamOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tlstrace_peers::{Family, Identity, Pair, Process, Service, rustls_client, rustls_server, sni_gateway};

/// The ways to attach that are tried, one after the other.
pub(super) const MODES: [&str; 3] = ["auto", "clsact", "packet"];
/// The right verdicts on the two connections that are made.
pub(super) const VERDICTS: [&str; 2] = ["ok", "sni_missing"];
/// Where tlstrace is in the initramfs.
pub(super) const TLSTRACE: &str = "/bin/tlstrace";
/// Directory of kernel modules in the initramfs, named by the order to insert them.
pub(super) const MODULES: &str = "modules";

/// What the guest tells its host, a line each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// The first process runs, and all modules are there.
    Booted,
    Watched(Account),
    Failed(String),
    Done,
}

/// What came of watching two connections.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Account {
    /// Of `--attach`.
    pub(super) mode: String,
    /// The line by which tlstrace says that it watches.
    pub(super) watching: String,
    pub(super) verdicts: Vec<String>,
    /// tlstrace's programs in the kernel, with how many instructions the verifier followed for each.
    pub(super) programs: Vec<(String, Option<u32>)>,
    /// What was on the interface's hooks afterwards.
    pub(super) left: Vec<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, watching, verdicts, programs, left } = self;
        write!(
            f,
            "--attach {mode:6}  {watching}\n  verdicts {}; verified instructions:",
            verdicts.join(", ")
        )?;
        for (name, instructions) in programs {
            match instructions {
                Some(instructions) => write!(f, " {name} {instructions}")?,
                None => write!(f, " {name} (not told)")?,
            }
        }
        write!(f, "; left behind: {}", if left.is_empty() { "nothing".to_owned() } else { left.join(", ") })
    }
}

/// Does everything and turns the machine off.
pub(super) fn main() -> ! {
    if std::process::id() != 1 {
        // On a real machine this would turn that off.
        let _ = writeln!(io::stderr(), "--guest is for the first process of a virtual machine");
        exit(2);
    }
    let outcome = play();
    if let Err(error) = &outcome {
        let _ = writeln!(io::stderr(), "{error:?}");
    }
    let end = match outcome {
        Ok(()) => Message::Done,
        Err(error) => Message::Failed(format!("{error:#}")),
    };
    let _ = tell(&end);
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        // The kernel panics when its first process ends, and qemu ends with it.
        Err(_) => exit(1),
    }
}

fn play() -> Result<()> {
    let nothing = None::<&str>;
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), nothing)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    let modules = fs::read_dir(format!("/{MODULES}"))?.map(|entry| Ok(entry?.path()));
    let mut modules = modules.collect::<Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        let no_parameters: &CStr = c"";
        finit_module(File::open(&module)?, no_parameters, ModuleInitFlags::empty())
            .with_context(|| format!("cannot insert {}", module.display()))?;
    }
    tell(&Message::Booted)?;
    MODES.into_iter().try_for_each(|mode| tell(&Message::Watched(watch(mode)?)))
}

fn watch(mode: &str) -> Result<Account> {
    const NAME: &str = "shop.example";
    const INTERFACE: &str = Pair::SERVER_INTERFACE;
    // The host gives up first: how long a verifier takes in an emulated machine depends on what else that does.
    const PATIENCE: Duration = Duration::from_hours(1);

    let hosts = Pair::new()?;
    let identity = Identity::issue(&[NAME])?;
    let gateway = sni_gateway(&[NAME], rustls_server(&identity, rustls::ALL_VERSIONS)?);
    let gateway = Service::start(&hosts.server, 443, gateway)?;

    let mut command = hosts.server.command(TLSTRACE);
    command.args(["watch", "-i", INTERFACE, "--attach", mode, "-o", "json", "--all", "-c", "2"]);
    let mut watch = Process::spawn(&mut command)?;
    let watching = watch.stderr.find(PATIENCE, |line| line.starts_with("watching "))?.text;
    let programs = tlstrace_programs()?;

    let server = Pair::server_address(Family::Ipv4);
    let connect = |name: &str| -> Result<io::Result<()>> {
        let stream = hosts.client.enter(|| TcpStream::connect(SocketAddr::from((server, gateway.port()))))?;
        let mut tls = StreamOwned::new(rustls_client(&identity, rustls::ALL_VERSIONS, name)?, stream);
        let mut exchange = || {
            tls.write_all(b"hello")?;
            tls.read_exact(&mut [0; 5])?;
            tls.conn.send_close_notify();
            tls.flush()
        };
        Ok(exchange())
    };
    connect(NAME)?.context("the gateway refused the name that it knows")?;
    // A client that was given an address sends no name.
    ensure!(connect(&server.to_string())?.is_err(), "the gateway accepted a client without a name");

    let status = watch.wait(PATIENCE).with_context(|| format!("--attach {mode}"))?;
    ensure!(status.success(), "--attach {mode}: tlstrace ended with {status}");
    let mut verdicts = Vec::new();
    for line in watch.stdout.rest(PATIENCE)? {
        let record: Value = serde_json::from_str(&line)?;
        let verdict = record.pointer("/tlstrace/verdict").and_then(Value::as_str);
        verdicts.push(verdict.with_context(|| format!("no verdict in {line}"))?.to_owned());
    }
    // A handshake is held back for a moment, since a client may still object to what it was shown.
    verdicts.sort();

    let mut sweep = hosts.server.command(TLSTRACE);
    let sweep = sweep.args(["cleanup", "--dry-run", "-o", "json", "-i", INTERFACE]).output()?;
    ensure!(sweep.status.success(), "`cleanup` failed: {}", String::from_utf8_lossy(&sweep.stderr));
    let mut left: Vec<_> = String::from_utf8(sweep.stdout)?.lines().map(str::to_owned).collect();
    for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
        // Kernels before TCX know no such query, and have nothing to find.
        if let Ok((_, found)) = hosts.server.enter(|| SchedClassifier::query_tcx(INTERFACE, direction)) {
            left.extend(found.iter().map(|program| format!("TCX program {}", program.id())));
        }
    }
    Ok(Account { mode: mode.to_owned(), watching, verdicts, programs, left })
}

fn tlstrace_programs() -> Result<Vec<(String, Option<u32>)>> {
    let mut found = Vec::new();
    for program in loaded_programs() {
        let program = program?;
        if let Some(name) = program.name_as_str().filter(|name| name.starts_with("tlstrace")) {
            found.push((name.to_owned(), program.verified_instruction_count()));
        }
    }
    Ok(found)
}

/// Through the second serial port; the first is the console.
fn tell(message: &Message) -> Result<()> {
    let mut port =
        OpenOptions::new().write(true).open("/dev/ttyS1").context("there is no second serial port")?;
    writeln!(port, "{}", serde_json::to_string(message)?)?;
    Ok(())
}
