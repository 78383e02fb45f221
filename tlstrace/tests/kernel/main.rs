//! Tests that need root and a kernel: real programs on real hooks, real peers in network namespaces of their own.
//!
//! `cargo xtask test` runs them, through sudo if need be; by hand:
//! `cargo test -p tlstrace --test kernel -- --include-ignored`. Each is marked `#[ignore = "needs root"]`.

mod frame;
mod harness;
mod test_run;
