//! Can tlstrace run here? What stands in the way, and the exact fix.
//!
//! Each check is a function that looks at one thing and returns a [`Finding`]; what is looked at by reading a text has
//! a pure half that takes the text.

mod hooks;
mod rights;
mod surroundings;
mod system;

use std::fs;

use serde::Serialize;

use crate::capture::interfaces::Selection;
use crate::capture::privilege::Privilege;
use crate::capture::trial;

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    pub status: Status,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// `watch` works, but something will be missing.
    Warning,
    /// `watch` does not work.
    Problem,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, text: text.into(), fix: None }
    }

    fn warning(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    fn problem(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Problem, text: text.into(), fix: Some(fix.into()) }
    }
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Looks at everything, for a `watch` of the interfaces that `selection` means, in the calling thread's network
/// namespace.
pub fn examine(selection: &Selection) -> Vec<Finding> {
    let privilege = Privilege::read();
    let trial = trial::run();
    let mut findings = vec![system::kernel(), system::architecture()];
    findings.extend(rights::examine(privilege, &trial));
    findings.extend(hooks::trial(&trial));
    findings.extend(hooks::examine(selection));
    findings.extend(surroundings::examine());
    findings.extend(system::examine());
    findings
}

/// A file's text without white space around it, or nothing where it cannot be read.
fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
