//! `tlstrace completions SHELL` and `tlstrace man`: what packages install besides the program.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use super::Exit;
use crate::cli::args::{Args, CompletionsArgs};

/// Prints a completion script.
pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    let mut command = Args::command();
    clap_complete::generate(args.shell, &mut command, "tlstrace", &mut script);
    print(&script)
}

/// Prints the manual: one page, the options of every command in it.
pub(super) fn manual() -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    let mut command = Args::command();
    command.build();
    clap_mangen::Man::new(command.clone()).title("TLSTRACE").render(&mut page)?;
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let page_of_command = clap_mangen::Man::new(subcommand.clone());
        writeln!(page, ".SH \"TLSTRACE {}\"", subcommand.get_name().to_uppercase())?;
        page_of_command.render_description_section(&mut page)?;
        page_of_command.render_options_section(&mut page)?;
    }
    print(&page)
}

/// A pager may be left early.
fn print(text: &[u8]) -> anyhow::Result<Exit> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        other => Ok(other.map(|()| Exit::Done)?),
    }
}
