//! The half of `xtask` that tests share with the demo: network namespaces and real TLS peers.
//!
//! `tlstrace`'s kernel tests use it as a dev-dependency, so it must never depend on `tlstrace`.

pub mod peers;
