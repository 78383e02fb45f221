//! tlstrace's own chores, one subcommand a file.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
