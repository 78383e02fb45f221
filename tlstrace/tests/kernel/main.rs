//! Tests that need root and a kernel: real programs on real hooks, real peers in network namespaces of their own.
//!
//! `cargo xtask test` runs them, through sudo if need be; by hand:
//! `cargo test -p tlstrace --test kernel -- --include-ignored`. Each is marked `#[ignore = "needs root"]`. A test that
//! cannot run here calls [`skip`], which `cargo xtask test` counts and lists, and which fails it under `CI=true`.

#![expect(clippy::unwrap_used, reason = "a test panics where something is not as it says")]

mod conditions;
mod containerd;
mod doctor;
mod faults;
mod frame;
mod guest;
mod harness;
mod interfaces;
mod live;
mod live_replay;
mod loss;
mod matrix;
mod metrics;
mod names;
mod namespaces;
mod neighbours;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod peers;
mod privacy;
mod probe;
mod resets;
mod test_run;
#[cfg(feature = "top")]
mod top;

pub(crate) use tlstrace_peers::skip;
