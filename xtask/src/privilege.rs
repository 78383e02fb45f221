//! Root, or a way to it.

use std::process::Command;

use nix::unistd::Uid;

/// How a command can be run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// sudo has just agreed (it may have asked for a password).
    Sudo,
}

impl Privilege {
    /// `Err` says in words why there is no way to root.
    pub(crate) fn acquire() -> Result<Self, String> {
        if Uid::effective().is_root() {
            return Ok(Self::Root);
        }
        match Command::new("sudo").arg("--validate").status() {
            Ok(status) if status.success() => Ok(Self::Sudo),
            Ok(_) => Err("not root, and sudo refused".into()),
            Err(error) => Err(format!("not root, and sudo cannot be run: {error}")),
        }
    }

    /// [`Privilege::acquire`] for `what` ("the demo"), which makes network namespaces and loads BPF programs.
    pub(crate) fn to_trace(what: &str) -> anyhow::Result<Self> {
        Self::acquire().map_err(|obstacle| {
            anyhow::anyhow!(
                "{what} needs root to make network namespaces and to load BPF programs: {obstacle}"
            )
        })
    }

    /// A command that runs `program` as root with this environment.
    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("--preserve-env=CI,NO_COLOR,RUST_BACKTRACE,RUST_LOG").arg(program);
                command
            }
        }
    }
}
