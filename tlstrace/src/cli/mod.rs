//! The command line: arguments as typed ([`args`]), settings as meant ([`settings`]).

pub mod args;
pub mod config;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod glob;
pub mod log;
pub mod probe;
pub mod settings;

mod values;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use crate::outlet::{self, Outlet};

/// Where notices go while somebody must not wait for whoever reads them.
static QUEUE: Mutex<Option<Outlet>> = Mutex::new(None);

/// Says something to the user; data never goes this way.
pub fn notice(message: impl Display) {
    let line = format!("{message}\n");
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    // Where nobody reads stderr there is nobody to tell.
    let _ = match &mut *queue {
        Some(queue) => queue.write_all(line.as_bytes()).and_then(|()| queue.flush()),
        None => io::stderr().lock().write_all(line.as_bytes()),
    };
}

/// As long as it lives, [`notice`] never waits: standard error may be the very pipe that nobody reads.
#[derive(Debug)]
pub struct QueuedNotices(());

impl QueuedNotices {
    pub fn begin() -> io::Result<Self> {
        Self::to(File::from(io::stderr().as_fd().try_clone_to_owned()?))
    }

    /// The same, with notices going to `out` instead of standard error.
    pub fn to(out: impl io::Write + Send + 'static) -> io::Result<Self> {
        let queue = Outlet::new(out)?;
        *QUEUE.lock().unwrap_or_else(PoisonError::into_inner) = Some(queue);
        Ok(Self(()))
    }
}

impl Drop for QueuedNotices {
    fn drop(&mut self) {
        let queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(queue) = queue {
            queue.monitor().finish(outlet::PATIENCE);
        }
    }
}
