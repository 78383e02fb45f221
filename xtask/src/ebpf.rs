//! `cargo xtask ebpf`: compiles the BPF object that is committed and embedded, and records where it
//! comes from. `--check` fails if the committed object is not what the sources give.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use sha2::{Digest as _, Sha256};

/// Compile the BPF object
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if the committed object is stale, or differs from what a rebuild gives
    #[arg(long)]
    check: bool,
    /// With --check: do not rebuild where the recorded toolchain is missing, compare hashes only
    #[arg(long, requires = "check")]
    allow_missing_toolchain: bool,
    /// Which toolchain to use [default: the recorded one, else any]
    #[arg(long)]
    toolchain: Option<Kind>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = workspace_root()?;
    let object_path = root.join(OBJECT);
    let provenance_path = root.join(PROVENANCE);
    let recorded = fs::read_to_string(&provenance_path).ok();
    if !args.check {
        let toolchain = Toolchain::find(args.toolchain)?;
        eprintln(&format!("building with {}", toolchain.describe()));
        let object = build(&root, &toolchain)?;
        let provenance = provenance(&root, &object, &toolchain)?;
        fs::create_dir_all(root.join(OBJECT_DIRECTORY))?;
        fs::write(&object_path, &object)
            .with_context(|| format!("cannot write {}", object_path.display()))?;
        fs::write(&provenance_path, provenance)?;
        eprintln(&format!("wrote {OBJECT}, {} bytes", object.len()));
        return Ok(());
    }

    let recorded = recorded.with_context(|| format!("{PROVENANCE} is missing: run `cargo xtask ebpf`"))?;
    let field = |name| {
        field(&recorded, name).with_context(|| format!("{PROVENANCE} has no {name}: run `cargo xtask ebpf`"))
    };
    let committed = fs::read(&object_path).with_context(|| format!("cannot read {OBJECT}"))?;
    ensure!(field("object")? == sha256(&committed), "{OBJECT} is not the object that {PROVENANCE} describes");
    ensure!(
        field("sources")? == sources(&root)?,
        "{OBJECT} is stale: the sources have changed since it was built. Run `cargo xtask ebpf`."
    );

    let toolchain = match Toolchain::find(args.toolchain) {
        Ok(toolchain) if toolchain.describe() == field("toolchain")? => toolchain,
        other => {
            let found = other.map_or_else(|error| error.to_string(), |toolchain| toolchain.describe());
            let explanation =
                format!("not rebuilt: the object was built with {}; here: {found}", field("toolchain")?);
            ensure!(args.allow_missing_toolchain, "{explanation}");
            eprintln(&format!("{explanation}. Its hash and that of its sources are right."));
            return Ok(());
        }
    };
    let rebuilt = build(&root, &toolchain)?;
    ensure!(
        rebuilt == committed,
        "{OBJECT} differs from what its sources give ({} and {} bytes): run `cargo xtask ebpf` and commit",
        committed.len(),
        rebuilt.len()
    );
    eprintln(&format!("{OBJECT} is what {} makes of the sources", toolchain.describe()));
    Ok(())
}

/// Path of the committed object.
pub(crate) fn object() -> Result<PathBuf> {
    Ok(workspace_root()?.join(OBJECT))
}

const OBJECT_DIRECTORY: &str = "tlstrace-ebpf/object";
const OBJECT: &str = "tlstrace-ebpf/object/tlstrace.bpf.o";
const PROVENANCE: &str = "tlstrace-ebpf/object/provenance.toml";
const TARGET: &str = "bpfel-unknown-none";

/// What the object is made of, besides crates from the registry, whose versions are in `Cargo.lock`.
const SOURCES: [&str; 4] =
    ["tlstrace-common/Cargo.toml", "tlstrace-common/src", "tlstrace-ebpf/Cargo.toml", "tlstrace-ebpf/src"];

/// Where a compiler for BPF comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Kind {
    /// A nightly of rustup with rust-src: `core` is built along
    Rustup,
    /// The packages rustc-web, cargo-web and libstd-rust-web-dev-bpf, with `core` built already
    Debian,
}

struct Toolchain {
    kind: Kind,
    rustc: String,
    linker: String,
}

impl Toolchain {
    fn find(wanted: Option<Kind>) -> Result<Self> {
        let linker = output(Command::new("bpf-linker").arg("--version")).context(
            "bpf-linker is missing: `cargo install bpf-linker --version 0.13.0 --locked`, or on Debian \
             `LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
             --no-default-features --features llvm-22`",
        )?;
        for kind in [Kind::Debian, Kind::Rustup] {
            if wanted.is_none_or(|wanted| wanted == kind)
                && let Some(rustc) = kind.rustc_version()
            {
                return Ok(Self { kind, rustc, linker });
            }
        }
        bail!(
            "no compiler for BPF. Either `rustup toolchain install nightly --component rust-src`, or on Debian \
             `apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev`."
        )
    }

    fn describe(&self) -> String {
        format!("{} ({:?}), {}", self.rustc, self.kind, self.linker)
    }
}

impl Kind {
    /// Version of the compiler, if it is there and has a `core` for BPF.
    fn rustc_version(self) -> Option<String> {
        let sysroot = PathBuf::from(output(self.rustc().args(["--print", "sysroot"])).ok()?);
        let core = match self {
            Self::Rustup => sysroot.join("lib/rustlib/src/rust/library/core"),
            Self::Debian => sysroot.join("lib/rustlib").join(TARGET),
        };
        if !core.exists() {
            return None;
        }
        output(self.rustc().arg("--version")).ok()
    }

    fn rustc(self) -> Command {
        match self {
            Self::Rustup => command("rustc", &["+nightly"]),
            Self::Debian => command(DEBIAN_RUSTC, &[]),
        }
    }

    fn cargo(self) -> Command {
        match self {
            Self::Rustup => command("cargo", &["+nightly", "build", "-Z", "build-std=core"]),
            Self::Debian => {
                let mut cargo = command("/usr/bin/cargo", &["build"]);
                // aya-ebpf and we use inline assembly, which is unstable for BPF.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Compiles the object and strips what loading does not need.
fn build(root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let target_directory = root.join("target/bpf");
    let status = toolchain
        .kind
        .cargo()
        .current_dir(root.join("tlstrace-ebpf"))
        .args(["--profile", "bpf", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_directory)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", "bpf-linker")
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root)?.join("\x1f"))
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the BPF programs do not compile");
    let built = target_directory.join(TARGET).join("bpf/tlstrace-ebpf");
    strip(&fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?)
}

/// Flags for rustc. Paths become relative, so that the object does not depend on where it was built.
fn flags(root: &Path) -> Result<Vec<String>> {
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || env::home_dir().map(|home| home.join(".cargo")).context("no home directory"),
        |home| Ok(PathBuf::from(home)),
    )?;
    let registry = cargo_home.join("registry/src");
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    flags.push(format!("--remap-path-prefix={}=.", root.display()));
    // The directory below it is named after the registry's address.
    for index in fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))? {
        flags.push(format!("--remap-path-prefix={}=registry", index?.path().display()));
    }
    flags.sort();
    Ok(flags)
}

/// The object without DWARF, which is two thirds of it; BTF stays, with the line numbers of the
/// verifier's messages.
fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = [".debug", ".rel.debug"].iter().any(|prefix| name.starts_with(prefix));
    }
    // LLVM keeps the names of sections among those of symbols; the writer wants them apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

fn provenance(root: &Path, object: &[u8], toolchain: &Toolchain) -> Result<String> {
    Ok(format!(
        "# Where tlstrace.bpf.o comes from. Written by `cargo xtask ebpf`, checked by `cargo xtask ebpf --check`.\n\
         object = \"{}\"\n\
         sources = \"{}\"\n\
         toolchain = \"{}\"\n",
        sha256(object),
        sources(root)?,
        toolchain.describe(),
    ))
}

fn field<'a>(provenance: &'a str, name: &str) -> Option<&'a str> {
    provenance.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
}

/// Hash over names and contents of [`SOURCES`], and the versions of the crates that they use.
fn sources(root: &Path) -> Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        hash.update([0]);
        let contents = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hash.update(contents.len().to_le_bytes());
        hash.update(contents);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("cannot read Cargo.lock")?;
    for package in lock.split("[[package]]").filter(|package| package.contains("\nname = \"aya-")) {
        hash.update(package.lines().filter(|line| !line.starts_with("source")).collect::<String>());
    }
    Ok(hex(&hash.finalize()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else {
        files.push(path.to_owned());
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn workspace_root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
    Ok(root.canonicalize()?)
}

/// A command free of what the cargo and the rustup proxy that run this task put into its environment.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let is_cargos = text.starts_with("CARGO") && text != "CARGO_HOME";
        if is_cargos || text.starts_with("RUST") && text != "RUSTUP_HOME" || text == "LD_LIBRARY_PATH" {
            command.env_remove(&name);
        }
    }
    command
}

pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[expect(clippy::print_stderr, reason = "a chore talks to whoever started it")]
fn eprintln(message: &str) {
    eprintln!("{message}");
}
