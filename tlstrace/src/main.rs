//! The `tlstrace` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    tlstrace::command::main(std::env::args_os())
}
