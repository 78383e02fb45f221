//! All the files that a machine has.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::guest;
use super::kernel::Kernel;

/// Writes the initramfs and returns its path. Its files are gathered in a directory beside it.
pub(super) fn make(kernel: &Kernel, tlstrace: &Path, init: &Path, directory: &Path) -> Result<PathBuf> {
    let root = directory.join(format!("{}.root", kernel.release));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for place in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(place))?;
    }
    install(init, &root, Path::new("init"))?;
    install(tlstrace, &root, guest::TLSTRACE.as_ref())?;
    // What namespaces are made with (see `tlstrace_peers::Namespace`).
    for program in ["ip", "nsenter", "setpriv"] {
        let program = find(program)?;
        for library in libraries(&program)? {
            install(&library, &root, &library)?;
        }
        install(&program, &root, &Path::new("bin").join(program.file_name().unwrap_or_default()))?;
    }
    fs::create_dir_all(root.join(guest::MODULES))?;
    for (number, module) in kernel.modules.iter().enumerate() {
        let to = File::create(root.join(guest::MODULES).join(format!("{number}.ko")))?;
        decompress(module, to)?;
    }

    let image = directory.join(format!("{}.cpio", kernel.release));
    let status = Command::new("sh")
        .args(["-c", "find . | cpio --quiet --create --format newc --owner 0:0"])
        .current_dir(&root)
        .stdout(File::create(&image)?)
        .status()?;
    ensure!(status.success(), "cpio failed");
    fs::remove_dir_all(&root)?;
    Ok(image)
}

/// Copies a file to a path below `root`.
fn install(file: &Path, root: &Path, to: &Path) -> Result<()> {
    let to = root.join(to.strip_prefix("/").unwrap_or(to));
    fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
    fs::copy(file, &to).with_context(|| format!("cannot copy {} to {}", file.display(), to.display()))?;
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("`{program}` is not on the PATH"))
}

/// The loader and the libraries of a program, where the loader finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

fn decompress(module: &Path, to: File) -> Result<()> {
    let program = match module.extension().and_then(OsStr::to_str) {
        Some("ko") => "cat",
        Some("xz") => "xzcat",
        Some("zst") => "zstdcat",
        Some("gz") => "zcat",
        _ => bail!("{} is compressed in an unknown way", module.display()),
    };
    let status =
        Command::new(program).stdin(File::open(module)?).stdout(to).stderr(Stdio::inherit()).status();
    ensure!(status.with_context(|| format!("cannot run {program}"))?.success(), "{program} failed");
    Ok(())
}
