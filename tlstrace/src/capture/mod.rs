//! Input: where segments come from.

pub mod file;
