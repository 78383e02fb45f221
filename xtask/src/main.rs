//! tlstrace's own chores, one subcommand a file. Run them as `cargo xtask CHORE`.

mod cargo;
mod demo;
mod privilege;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "tlstrace's own chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Show tlstrace at work: real clients and servers in throw-away network namespaces, and the live lines
    Demo(demo::Arguments),
    /// Run every test, those that need root and a kernel included
    Test,
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().chore {
        Chore::Demo(arguments) => demo::run(&arguments)?,
        Chore::Test => return test::run(),
    }
    Ok(ExitCode::SUCCESS)
}
