//! The kernels to boot: Debian's packages, or whatever is given by path.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// A kernel and the modules it needs to have what tlstrace attaches to.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` will print it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// Files of modules, perhaps compressed, in the order to insert them. What is built in is not among them.
    pub(super) modules: Vec<PathBuf>,
}

/// The newest cloud kernels of both series in Debian 12: before and after TCX, which came with 6.6.
pub(super) fn debian(directory: &Path) -> Result<Vec<Kernel>> {
    ["6.1", "6.12"]
        .into_iter()
        .map(|series| {
            let package = newest_package(series)?;
            Kernel::at(&download(&package, directory)?, directory)
        })
        .collect()
}

impl Kernel {
    /// What is in a .deb, which is unpacked below `directory`, or in a directory such as `/`.
    pub(super) fn at(path: &Path, directory: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::unpacked(path).with_context(|| format!("no kernel in {}", path.display()));
        }
        let name = path.file_stem().context("a package is a file")?;
        let root = directory.join(name);
        if !root.exists() {
            let status = Command::new("dpkg-deb").arg("--extract").arg(path).arg(&root).status()?;
            ensure!(status.success(), "cannot unpack {}", path.display());
        }
        Self::unpacked(&root).with_context(|| format!("no kernel in {}", path.display()))
    }

    fn unpacked(root: &Path) -> Result<Self> {
        // veth joins the guest's hosts; the others are what clsact consists of.
        const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];
        let image = entries(&root.join("boot"))?
            .into_iter()
            .rfind(|path| file_name(path).starts_with("vmlinuz-"))
            .context("there is no boot/vmlinuz-*")?;
        let release = file_name(&image).trim_start_matches("vmlinuz-").to_owned();
        let tree = root.join("lib/modules").join(&release).join("kernel");
        let modules = ["drivers/net", "net/sched"].map(|place| entries(&tree.join(place)));
        let modules: Vec<_> = modules.into_iter().collect::<Result<Vec<_>>>()?.concat();
        let find = |name| {
            let is_meant =
                |path: &&PathBuf| file_name(path).split_once(".ko").is_some_and(|(stem, _)| stem == name);
            modules.iter().find(is_meant).cloned()
        };
        Ok(Self { release, image, modules: MODULES.into_iter().filter_map(find).collect() })
    }
}

/// Debian's names carry an ABI version, which changes with every security update.
fn newest_package(series: &str) -> Result<String> {
    // Without those that end in `-unsigned` and the package that only names the newest.
    let pattern = format!(r"^linux-image-{series}\.[0-9].*[0-9]-cloud-amd64$");
    let output = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output();
    let output = output.context("Debian's kernels come through apt; elsewhere, use --kernel")?;
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = names.lines().filter_map(|line| line.split_whitespace().next());
    let numbers = |name: &str| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    let newest = names.max_by_key(|name| numbers(name));
    Ok(newest.with_context(|| format!("apt knows no kernel {series} (apt-get update?)"))?.to_owned())
}

/// Where the package is, after a download if it is not there already.
fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let find = || -> Result<_> {
        let prefix = format!("{package}_");
        Ok(entries(directory)?
            .into_iter()
            .find(|path| file_name(path).starts_with(&prefix) && path.is_file()))
    };
    if let Some(path) = find()? {
        return Ok(path);
    }
    let mut command = Command::new("apt-get");
    let status = command.args(["download", package]).current_dir(directory).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "`apt-get download {package}` failed");
    find()?.with_context(|| format!("apt-get has not left {package} in {}", directory.display()))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}
