//! `cargo xtask dist`: tlstrace as it is released, static, and compiled with a profile of itself at work.
//!
//! A handshake passes through hundreds of functions, none of which takes more than a tenth of the time. The profile tells
//! the compiler which of their paths are taken: they become short and lie together.
//! See <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::builder::PossibleValuesParser;
use nix::unistd::Uid;

use crate::bench;
use crate::cargo::{cargo, workspace};
use crate::conformance::pcaps;
use crate::ebpf::output;
use crate::release::{HOST, PLATFORMS};

/// Build tlstrace as it is released, with a profile of real handshakes (needs root)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to build for; repeatable
    #[arg(long, default_value = HOST, value_parser = PossibleValuesParser::new(PLATFORMS.map(|(name, _)| name)))]
    platform: Vec<String>,
    /// Features beside the default ones
    #[arg(long, default_value = "k8s")]
    features: String,
    /// Where linux/PLATFORM/tlstrace goes
    #[arg(long, default_value = "dist")]
    dist: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(Uid::effective().is_root(), "only root may watch the handshakes that give the profile");
    let profdata = find_profdata()?;
    let folder = workspace().join("target/dist");
    let raw = folder.join("profiles");
    if raw.exists() {
        fs::remove_dir_all(&raw)?;
    }
    // All flags are the same but for the profile, or the functions would have other names.
    let build = |platform: &str, profile: String| {
        let chosen = PLATFORMS.iter().find(|(name, _)| *name == platform);
        let (_, target) = chosen.context("an unknown platform")?;
        build(target, &args.features, &folder.join("build"), &profile)
    };
    let profiled = build(HOST, format!("-Cprofile-generate={}", raw.display()))?;
    exercise(&profiled)?;
    let profile = folder.join("tlstrace.profdata");
    let merged = Command::new(profdata).arg("merge").arg("--output").args([&profile, &raw]).status()?;
    ensure!(merged.success(), "llvm-profdata failed");

    for platform in &args.platform {
        let built = build(platform, format!("-Cprofile-use={}", profile.display()))?;
        let place = args.dist.join("linux").join(platform).join("tlstrace");
        fs::create_dir_all(place.parent().context("a path of several parts")?)?;
        fs::copy(built, &place).with_context(|| format!("cannot write {}", place.display()))?;
        writeln!(io::stdout(), "{}, {} bytes", place.display(), place.metadata()?.len())?;
    }
    Ok(())
}

/// Builds tlstrace, and returns its path.
fn build(target: &str, features: &str, folder: &Path, profile: &str) -> Result<PathBuf> {
    let mut flags = format!("-Ctarget-feature=+crt-static {profile}");
    if target.starts_with("x86_64") {
        // Functions of the same code become one (Rust promises no address of a function), by a linker that can: for
        // x86-64 it is LLD, since Rust 1.90.
        flags += " -Clink-arg=-Wl,--icf=all";
        // What the profile has never seen run lies apart, in pieces of functions too: the rest is small, and between
        // two looks at the ring the CPU's caches and TLB are others'.
        flags += " -Cllvm-args=-enable-split-machine-functions -Clink-arg=-Wl,-z,keep-text-section-prefix";
    }
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--package", "tlstrace", "--features", features])
        .args(["--target", target, "--target-dir"])
        .arg(folder)
        .env("RUSTFLAGS", flags);
    if target.starts_with("aarch64") && HOST == "amd64" {
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    }
    ensure!(command.status().context("cannot run cargo")?.success(), "cargo cannot build tlstrace");
    Ok(folder.join(target).join("release/tlstrace"))
}

/// Has tlstrace do what it is for: the tests' captures in every format, and real connections under load.
fn exercise(tlstrace: &Path) -> Result<()> {
    for path in pcaps(&workspace().join("tlstrace/tests/captures"))? {
        for format in ["json", "text", "gcp"] {
            let mut replay = Command::new(tlstrace);
            replay.args(["replay", "--all", "--output", format]).arg(&path);
            let status = replay.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            ensure!(status.code().is_some(), "tlstrace was killed on {}", path.display());
        }
    }
    bench::exercise(tlstrace)
}

/// The program that understands the profiles of this compiler's LLVM: the toolchain's, or the system's.
fn find_profdata() -> Result<PathBuf> {
    let rustc = |arguments: &[&str]| output(Command::new("rustc").args(arguments));
    let version = rustc(&["--version", "--verbose"])?;
    let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
    let host = field("host: ").context("rustc tells no host")?;
    let llvm = field("LLVM version: ").context("rustc tells no version of LLVM")?;
    let major = llvm.split('.').next().unwrap_or(llvm);
    let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?);
    let candidates = [
        sysroot.join("lib/rustlib").join(host).join("bin/llvm-profdata"),
        format!("llvm-profdata-{major}").into(),
    ];
    let works = |program: &PathBuf| output(Command::new(program).arg("--version")).is_ok();
    candidates.into_iter().find(works).with_context(|| {
        format!("llvm-profdata of LLVM {major} is not installed (Debian: apt-get install llvm-{major}; rustup component add llvm-tools)")
    })
}
