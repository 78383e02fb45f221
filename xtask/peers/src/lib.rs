//! Real clients and servers in network namespaces of their own, for the live tests and the demo.
//!
//! Everything here is gone when its owner is dropped, and also when the owning process is killed: namespaces have no
//! name, so they live exactly as long as something is in them, and child processes ask the kernel to be killed with
//! their parent (`PR_SET_PDEATHSIG`). Nothing is ever ready "soon": a constructor returns when the peer listens.

pub mod foreign;
mod gateway;
mod identity;
pub mod matrix;
mod namespace;
pub mod openssl;
mod process;
mod rustls_peer;
mod service;
mod tcp;
pub mod terminal;
mod tlstrace;

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

pub use gateway::sni_gateway;
pub use identity::Identity;
pub use namespace::{Family, Namespace, Pair, Routed, link};
pub use process::{Line, Lines, Process, installed, skip};
pub use rustls_peer::{client_hello, rustls_client, rustls_server, terminate_tls};
pub use service::{Service, close_after_client_hello, serve_plaintext};
pub use tcp::{Segmented, connect_from};
pub use tlstrace::watch;

/// Where other programs find a file that this process has open: `/proc/PID/fd/N`.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}
