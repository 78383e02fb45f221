//! `tlstrace probe`, without its sockets: what to offer to an endpoint, what its answers are, and what follows.
//!
//! ```text
//! next_attempt(target, answers) ▶ the bytes of a ClientHello, or a real handshake ▶ Answer ▶ … ▶ Report
//! ```
//!
//! An endpoint is asked one thing at a time: from a hello that it accepts, one aspect is changed. Most questions
//! need no more than a ServerHello, so the hellos are made here, byte by byte: a TLS library offers neither TLS 1.0
//! nor RC4 any more, and always the same extensions. Only what TLS 1.3 encrypts takes a real handshake.

#![forbid(unsafe_code)]

pub mod answer;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod hello;
pub mod plan;
pub mod report;

pub mod render;

pub use answer::{Accepted, Answer, Refusal};
pub use plan::{Answers, Attempt, MAX_CONNECTIONS, Target, next_attempt};
pub use report::Report;
