//! tlstrace's own chores, one subcommand a file.

mod bench;
mod cargo;
mod conformance;
mod demo;
mod deploy;
mod disagree;
mod dist;
mod ebpf;
mod fuzz;
mod matrix;
mod memory;
mod mutants;
mod privilege;
mod release;
mod sbom;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Task {
    Bench(bench::Args),
    Conformance(conformance::Args),
    Demo(demo::Args),
    Deploy(deploy::Args),
    Disagree(disagree::Args),
    Dist(dist::Args),
    Ebpf(ebpf::Args),
    Fuzz(fuzz::Args),
    Matrix(matrix::Args),
    Mutants(mutants::Args),
    Release(release::Args),
    Sbom(sbom::Args),
    Soak(soak::Args),
    Test(test::Args),
    VmTest(vm::Args),
}

fn main() -> Result<ExitCode> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args)?,
        Task::Conformance(args) => conformance::run(&args)?,
        Task::Demo(args) => demo::run(&args)?,
        Task::Deploy(args) => deploy::run(&args)?,
        Task::Disagree(args) => return disagree::run(&args),
        Task::Dist(args) => dist::run(&args)?,
        Task::Ebpf(args) => ebpf::run(&args)?,
        Task::Fuzz(args) => fuzz::run(&args)?,
        Task::Matrix(args) => return matrix::run(&args),
        Task::Mutants(args) => mutants::run(&args)?,
        Task::Release(args) => release::run(&args)?,
        Task::Sbom(args) => sbom::run(&args)?,
        Task::Soak(args) => return soak::run(&args),
        Task::Test(_) => return test::run(),
        Task::VmTest(args) => return vm::run(&args),
    }
    Ok(ExitCode::SUCCESS)
}
