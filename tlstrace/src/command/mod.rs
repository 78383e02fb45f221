//! What the subcommands do, one file each.

pub mod replay;
