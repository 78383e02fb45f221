//! `cargo xtask vm-test`: tlstrace on other kernels than this machine's, in virtual machines.
//!
//! Each machine boots a kernel under qemu, in software: slow, but the same everywhere. Its initramfs is all that it has:
//! a static tlstrace, `ip` and the like, and this very program as `/init`, which plays the [`guest`]'s part. The machine's
//! console is kept in `target/vm/RELEASE.log`; what the guest found comes through a second serial port, a JSON object a line.

mod guest;
mod initramfs;
mod kernel;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tlstrace_peers::{Process, installed};

use crate::cargo::{self, workspace};
use guest::{Account, Message};
use kernel::Kernel;

/// Boot other kernels in virtual machines, and see tlstrace load, attach, judge and detach there
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Boot this instead of Debian's 6.1 and 6.12: a .deb, or a directory with `boot` and `lib/modules`; repeatable.
    #[arg(long, value_name = "PATH")]
    kernel: Vec<PathBuf>,
    /// Seconds until a machine is given up.
    #[arg(long, value_name = "SECONDS", default_value_t = 240)]
    timeout: u64,
    /// Play the guest's part: this is the first process of such a machine.
    #[arg(long, hide = true)]
    guest: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.guest {
        guest::main();
    }
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("dpkg-deb", "dpkg"),
        ("cpio", "cpio"),
        ("xz", "xz-utils"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
    ] {
        ensure!(installed(program), "`{program}` is missing (Debian: apt-get install {package})");
    }
    let directory = workspace().join("target/vm");
    fs::create_dir_all(&directory)?;
    let directory = fs::canonicalize(directory)?;
    let kernels = if args.kernel.is_empty() {
        kernel::debian(&directory)?
    } else {
        args.kernel.iter().map(|path| Kernel::at(path, &directory)).collect::<Result<_>>()?
    };
    let [tlstrace, xtask] = build_static()?;

    let mut out = io::stdout().lock();
    let mut failures = Vec::new();
    for kernel in &kernels {
        writeln!(out, "\n== Linux {}", kernel.release)?;
        let image = initramfs::make(kernel, &tlstrace, &xtask, &directory)?;
        if let Err(failure) = boot(kernel, &image, &directory, Duration::from_secs(args.timeout), &mut out) {
            writeln!(out, "FAILED: {failure:#}")?;
            failures.push(&kernel.release);
        }
    }
    ensure!(!kernels.is_empty(), "no kernel was given");
    writeln!(out, "\n{} kernels, {} failed", kernels.len(), failures.len())?;
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// tlstrace and this program, without a library that they would look for.
fn build_static() -> Result<[PathBuf; 2]> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut command = cargo::cargo();
    command.args(["build", "--profile", "profiling", "--package", "tlstrace", "--package", "xtask"]);
    // With the target named, the flags are not those of build scripts, which must load libraries.
    command.args(["--target", TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    let target = workspace().join("target").join(TARGET);
    ensure!(command.env("CARGO_TARGET_DIR", workspace().join("target")).status()?.success(), "cargo failed");
    Ok(["tlstrace", "xtask"].map(|name| target.join("profiling").join(name)))
}

/// Boots a machine, shows what its guest tells, and fails if that is not what it should be.
fn boot(
    kernel: &Kernel,
    image: &Path,
    directory: &Path,
    within: Duration,
    out: &mut impl io::Write,
) -> Result<()> {
    let console = directory.join(format!("{}.log", kernel.release));
    let start = now();
    let mut machine = Process::spawn(
        Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-no-reboot"])
            .args(["-nodefaults", "-display", "none", "-serial"])
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio", "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(image)
            // What stands behind `--` is passed to the first process.
            .args(["-append", "console=ttyS0 panic=-1 loglevel=4 -- vm-test --guest"])
            .stdin(File::open("/dev/null")?),
    )?;
    let mut accounts = Vec::new();
    let mut since = start;
    let end = loop {
        let Some(line) = machine.stdout.next(within.saturating_sub(now() - start)) else {
            break None;
        };
        match serde_json::from_str(line.text.trim_end()) {
            Ok(Message::Booted) => {
                writeln!(out, "booted in {:.1} s", (line.at - start).as_secs_f64())?;
            }
            Ok(Message::Watched(account)) => {
                writeln!(out, "{account}, {:.1} s", (line.at - since).as_secs_f64())?;
                accounts.push(account);
            }
            Ok(Message::Failed(failure)) => break Some(Err(failure)),
            Ok(Message::Done) => break Some(Ok(())),
            Err(error) => bail!("the guest said {:?}: {error}", line.text),
        }
        since = line.at;
    };
    match end {
        Some(Ok(())) => {}
        Some(Err(failure)) => bail!("{failure}\n(the console is in {})", console.display()),
        None => bail!("the machine fell silent:\n{}", last_lines(&console)?),
    }
    ensure!(accounts.len() == guest::MODES.len(), "the guest did not try every way to attach");
    accounts.iter().try_for_each(|account| account.judge(&kernel.release))
}

impl Account {
    /// Fails if this is not what tlstrace should do on that kernel.
    fn judge(&self, release: &str) -> Result<()> {
        let hook = match (&*self.mode, has_tcx(release)) {
            ("auto", true) => "tcx",
            ("auto", false) => "clsact",
            (mode, _) => mode,
        };
        ensure!(self.watching.contains(&format!(" ({hook}")), "--attach {}: {}", self.mode, self.watching);
        ensure!(
            self.verdicts == guest::VERDICTS,
            "--attach {}: wrong verdicts: {:?}",
            self.mode,
            self.verdicts
        );
        ensure!(!self.programs.is_empty(), "--attach {}: no program was loaded", self.mode);
        ensure!(self.left.is_empty(), "--attach {}: left behind: {:?}", self.mode, self.left);
        Ok(())
    }
}

/// TCX is there since Linux 6.6 (commit e420bed02507).
fn has_tcx(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

fn last_lines(console: &Path) -> Result<String> {
    let text = fs::read(console).with_context(|| format!("cannot read {}", console.display()))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<_> = text.lines().collect();
    Ok(lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n"))
}

#[expect(clippy::disallowed_methods, reason = "how long a real machine takes is real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::has_tcx;

    #[test]
    fn releases_are_compared_by_number() {
        assert!(!has_tcx("5.15.0-91-generic"));
        assert!(!has_tcx("6.1.0-52-cloud-amd64"));
        assert!(has_tcx("6.6.0"));
        assert!(has_tcx("6.12.117+deb12-cloud-amd64"));
        assert!(has_tcx("7.0-rc1"));
    }
}
