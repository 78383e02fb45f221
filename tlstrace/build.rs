//! Keeps the program small: compresses the BPF object that is built into it, of which a quarter is left, and the
//! relocations of a static program.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::ZlibEncoder;

/// The BPF programs, compiled from `tlstrace-ebpf` and committed (`cargo xtask ebpf`).
const OBJECT: &str = "../tlstrace-ebpf/object/tlstrace.bpf.o";

fn main() -> Result<()> {
    writeln!(io::stdout(), "cargo::rerun-if-changed={OBJECT}")?;
    let object = fs::read(OBJECT).with_context(|| format!("cannot read {OBJECT}"))?;
    let folder = PathBuf::from(env::var_os("OUT_DIR").context("cargo says no OUT_DIR")?);
    let compressed = File::create(folder.join("tlstrace.bpf.o.z"))?;
    let mut encoder = ZlibEncoder::new(compressed, Compression::best());
    encoder.write_all(&object)?;
    encoder.finish()?;

    // Two bits or so for each pointer instead of 24 bytes. A static program relocates itself; a dynamic one would
    // need a C library of 2022 or later (glibc 2.36).
    if env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|features| features.contains("crt-static")) {
        writeln!(io::stdout(), "cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs")?;
    }
    Ok(())
}
