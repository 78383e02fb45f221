//! The `tlstrace` command: parse, run, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tlstrace::command::main(std::env::args_os())
}
