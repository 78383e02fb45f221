//! The command line: arguments as typed ([`args`]), settings as meant ([`settings`]).

pub mod args;
pub mod glob;
pub mod log;
pub mod probe;
pub mod settings;

mod values;

use std::fmt::Display;
use std::io::{self, Write as _};

/// Says something to the user; data never goes this way.
pub fn notice(message: impl Display) {
    // Where nobody reads stderr there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{message}");
}
