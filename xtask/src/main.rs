//! tlstrace's own chores, one subcommand a file.

mod bench;
mod conformance;
mod ebpf;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    Bench(bench::Args),
    Conformance(conformance::Args),
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Conformance(args) => conformance::run(&args),
        Task::Ebpf(args) => ebpf::run(&args),
    }
}
