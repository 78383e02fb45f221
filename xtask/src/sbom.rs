//! `cargo xtask sbom`: what is in the binary, as a `CycloneDX` bill of materials.
//!
//! <https://cyclonedx.org/docs/1.5/json/>. Names, versions and licences are from `cargo metadata`, checksums from `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cargo::{cargo, workspace};

/// Print a CycloneDX list of the crates that tlstrace is built of
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The platform of the binary
    #[arg(long, default_value = "x86_64-unknown-linux-gnu")]
    target: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    writeln!(io::stdout(), "{:#}", of_target(&args.target)?)?;
    Ok(())
}

/// The list for one platform.
pub(crate) fn of_target(target: &str) -> Result<Value> {
    let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform", target];
    let output = cargo().args(arguments).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata = serde_json::from_slice(&output.stdout)?;
    let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
    bill(&metadata, &checksums(&lock)).context("cargo metadata has another form")
}

fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Option<Value> {
    let packages: BTreeMap<_, _> = metadata["packages"]
        .as_array()?
        .iter()
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect();
    let (root, subject) = packages.iter().find(|(_, package)| package["name"] == "tlstrace")?;
    let mut components = Vec::new();
    for id in built_of(metadata, root)?.into_iter().filter(|id| id != root) {
        let package = packages.get(id)?;
        let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
        let mut component = json!({"type": "library", "name": name, "version": version});
        let purl = format!("pkg:cargo/{name}@{version}");
        component["bom-ref"] = json!(purl);
        component["purl"] = json!(purl);
        if let Some(license) = package["license"].as_str() {
            // The slash of older manifests is no SPDX operator.
            component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
        }
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        components.push(component);
    }
    let subject = json!({"type": "application", "name": "tlstrace", "version": subject["version"]});
    Some(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }))
}

/// Ids of the packages that take part in a build of `root`, in order.
fn built_of<'a>(metadata: &'a Value, root: &'a str) -> Option<BTreeSet<&'a str>> {
    let nodes: BTreeMap<_, _> = metadata["resolve"]["nodes"]
        .as_array()?
        .iter()
        .filter_map(|node| Some((node["id"].as_str()?, node)))
        .collect();
    let mut found = BTreeSet::new();
    let mut next = vec![root];
    while let Some(id) = next.pop() {
        if !found.insert(id) {
            continue;
        }
        for dependency in nodes.get(id)?["deps"].as_array()? {
            let is_dev_only = dependency["dep_kinds"].as_array()?.iter().all(|kind| kind["kind"] == "dev");
            if !is_dev_only {
                next.push(dependency["pkg"].as_str()?);
            }
        }
    }
    Some(found)
}

/// SHA-256 of each package, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let package = |text: &str| {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_tests_need_is_not_in_the_binary() {
        let package =
            |id: &str| json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let needs = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("tlstrace"), package("a"), package("b"), package("c")],
            "resolve": {"nodes": [
                {"id": "tlstrace", "deps": [needs("a", Value::Null), needs("c", json!("dev"))]},
                {"id": "a", "deps": [needs("b", json!("build"))]},
                {"id": "b", "deps": []},
                {"id": "c", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n";
        let bill = bill(&metadata, &checksums(lock)).unwrap();
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "00ff");
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
    }
}
