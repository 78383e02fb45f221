//! `cargo xtask release`: the files of a release as `deploy/install.sh` fetches them, from what was built.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::cargo::workspace;
use crate::sbom;

/// Platforms as images and Rust call them.
pub(crate) const PLATFORMS: [(&str, &str); 2] =
    [("amd64", "x86_64-unknown-linux-gnu"), ("arm64", "aarch64-unknown-linux-gnu")];
/// This machine's.
pub(crate) const HOST: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// What `sha256sum --check` reads.
const SUMS: &str = "SHA256SUMS";

/// Name, list and checksum the binaries of a release (see deploy/README.md)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where linux/amd64/tlstrace and linux/arm64/tlstrace are; what is not there is left out
    #[arg(long, default_value = "dist")]
    dist: PathBuf,
    /// An empty directory for the files
    #[arg(long, default_value = "dist/release")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    binaries(&args.dist, &args.output)?;
    for (platform, target) in PLATFORMS {
        if args.output.join(binary_name(platform)).exists() {
            let list = format!("{:#}\n", sbom::of_target(target)?);
            fs::write(args.output.join(format!("{}.cdx.json", binary_name(platform))), list)?;
        }
    }
    fs::copy(workspace().join("deploy/install.sh"), args.output.join("install.sh"))?;
    let sums = checksums(&args.output)?;
    io::stdout().write_all(sums.as_bytes())?;
    Ok(())
}

fn binary_name(platform: &str) -> String {
    format!("tlstrace-linux-{platform}")
}

/// Copies what was built under the names of a release.
fn binaries(dist: &Path, output: &Path) -> Result<()> {
    fs::create_dir_all(output)?;
    ensure!(fs::read_dir(output)?.next().is_none(), "{} is not empty", output.display());
    let mut count = 0;
    for (platform, _) in PLATFORMS {
        let built = dist.join("linux").join(platform).join("tlstrace");
        if built.exists() {
            fs::copy(&built, output.join(binary_name(platform)))
                .with_context(|| format!("cannot copy {}", built.display()))?;
            count += 1;
        }
    }
    ensure!(count > 0, "{} has no binary of any platform", dist.display());
    Ok(())
}

/// Writes the checksums of all files of a directory into one more.
fn checksums(folder: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().into_string().ok().context("a name that is not UTF-8")?);
    }
    names.sort();
    let mut sums = String::new();
    for name in names {
        for byte in Sha256::digest(fs::read(folder.join(&name))?) {
            write!(sums, "{byte:02x}")?;
        }
        writeln!(sums, "  {name}")?;
    }
    fs::write(folder.join(SUMS), &sums)?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::{self, Command, Stdio};

    use super::*;

    #[test]
    fn what_a_release_holds_is_installed_and_what_was_changed_since_is_not() {
        let is_there =
            |tool: &str| Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_there("curl") {
            assert!(env::var_os("CI").is_none(), "curl is not installed");
            return;
        }
        let folder = Folder(env::temp_dir().join(format!("tlstrace-release-{}", process::id())));
        let (dist, releases) = (folder.0.join("dist"), folder.0.join("releases"));
        for (platform, _) in PLATFORMS {
            fs::create_dir_all(dist.join("linux").join(platform)).unwrap();
            let program = format!("#!/bin/sh\necho it is for {platform}\n");
            fs::write(dist.join("linux").join(platform).join("tlstrace"), program).unwrap();
        }
        let release = releases.join("v1.2.3");
        binaries(&dist, &release).unwrap();
        assert_eq!(checksums(&release).unwrap().lines().count(), 2);
        assert!(binaries(&dist, &release).is_err(), "what lies there already is of another release");

        let target = folder.0.join("bin");
        let install = || {
            Command::new("sh")
                .arg(workspace().join("deploy/install.sh"))
                .args(["1.2.3".as_ref(), target.as_os_str()])
                .env("TLSTRACE_RELEASES", format!("file://{}", releases.display()))
                .output()
                .unwrap()
        };
        let installed = install();
        assert!(installed.status.success(), "{installed:?}");
        assert!(installed.stdout.starts_with(b"it is for "));

        fs::remove_dir_all(&target).unwrap();
        for (platform, _) in PLATFORMS {
            fs::write(release.join(binary_name(platform)), "#!/bin/sh\necho something else\n").unwrap();
        }
        let refused = install();
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(!target.exists(), "{refused:?}");
    }

    /// Removed with all that is in it.
    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
