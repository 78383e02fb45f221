//! `cargo xtask bench`: figures, measured on this machine. One file a bench.

mod decode;
mod kernel;
mod replay;

/// Measure how fast it is.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    Decode(decode::Args),
    /// Nanoseconds per packet of the BPF programs (needs root)
    Kernel,
    Replay(replay::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.bench {
        Bench::Decode(args) => decode::run(args),
        Bench::Kernel => kernel::run(),
        Bench::Replay(args) => replay::run(args),
    }
}
