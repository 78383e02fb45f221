//! tlstrace's own chores, one subcommand a file.

mod conformance;
mod ebpf;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    Conformance(conformance::Args),
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Conformance(args) => conformance::run(&args),
        Task::Ebpf(args) => ebpf::run(&args),
    }
}
