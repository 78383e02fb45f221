//! tlstrace's own chores, one subcommand a file.

mod ebpf;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    Ebpf(ebpf::Args),
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Ebpf(args) => ebpf::run(&args),
    }
}
