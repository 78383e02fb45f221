//! The `tlstrace` command: parse, run, exit code.

fn main() {}
