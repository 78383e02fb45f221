//! Many stacks failing at each other in many ways: every verdict, its blame, and who ended the connection.
//!
//! The table is in `tlstrace_peers::matrix`; `cargo xtask matrix` prints more about it, and runs parts of it.

use std::path::Path;

use tlstrace_peers::matrix::{Scope, run};

use crate::skip;

#[test]
#[ignore = "needs root"]
fn every_connection_of_the_matrix_gets_the_verdict_that_its_row_says() {
    let matrix = run(Path::new(env!("CARGO_BIN_EXE_tlstrace")), Scope::Usual, "").unwrap();
    if !matrix.skipped.is_empty() {
        skip(&format!("{:?}", matrix.skipped));
    }
    let off: Vec<_> = matrix.outcomes.iter().filter(|outcome| !outcome.is_right()).collect();
    let lines: Vec<_> = off.iter().map(ToString::to_string).collect();
    assert!(off.is_empty(), "{} of {} connections:\n{}", off.len(), matrix.outcomes.len(), lines.join("\n"));
}
