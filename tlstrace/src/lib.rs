//! tlstrace: a live TLS handshake tracer. One verdict per connection: why the handshake failed, which
//! side, how sure we are, on what evidence, what to do.
//!
//! The kernel selects, userspace decides: see `ARCHITECTURE.md`.

#![deny(unsafe_code)]

pub mod aggregate;
#[expect(unsafe_code, reason = "system calls that no library wraps; what is pure forbids it once more")]
pub mod capture;
pub mod cli;
pub mod command;
pub mod doctor;
pub mod engine;
pub mod entry;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod html;
pub mod metrics;
pub mod names;
pub mod otlp;
pub mod outlet;
pub mod probe;
pub mod report;
pub mod run;
pub mod sink;
pub mod summary;
pub mod tls;
#[cfg(feature = "top")]
pub mod top;
pub mod verdict;
