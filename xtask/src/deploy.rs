//! `cargo xtask deploy`: renders the Helm chart with its defaults into the kustomize base, so that there is one source.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::cargo::workspace;

const CHART: &str = "deploy/helm/tlstrace";
const BASE: &str = "deploy/kustomize/base/tlstrace.yaml";
const HEADER: &str = "# Made from the Helm chart by `cargo xtask deploy`: change that instead.\n";

/// Render the Helm chart into the kustomize base (needs helm, on the PATH or named by HELM)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if the kustomize base is not what the chart renders
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let helm = env::var_os("HELM").unwrap_or_else(|| "helm".into());
    let output = Command::new(helm)
        .args(["template", "tlstrace", CHART, "--namespace", "tlstrace"])
        .current_dir(workspace())
        .output()
        .context("cannot run helm: https://helm.sh/docs/intro/install")?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr));
    let rendered = rendered(&String::from_utf8(output.stdout)?);
    let base = workspace().join(BASE);
    if args.check {
        ensure!(fs::read_to_string(&base)? == rendered, "{BASE} is stale: cargo xtask deploy");
    } else {
        fs::write(&base, rendered)?;
    }
    Ok(())
}

/// Lines that make sense only where helm keeps track of what it installed.
const OF_HELM: &[&str] = &[
    "# Source: ",
    "managed-by: Helm",
    "      annotations:",
    "# A new configuration starts",
    "checksum/config",
];

/// What helm printed, less what speaks of helm.
fn rendered(template: &str) -> String {
    let lines = template.lines().filter(|line| !OF_HELM.iter().any(|of_helm| line.contains(of_helm)));
    let mut text = HEADER.to_owned();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}
