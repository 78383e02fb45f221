//! `cargo xtask mutants`: are the conditions of the rules tested?
//!
//! In a copy of the workspace every part of a condition under `tlstrace/src/verdict` is put behind a switch that
//! forces it to be true or false. One build holds all of these mutants; the scenarios are played with each switch in
//! turn, and a mutant that no scenario notices is listed: a scenario is missing, or the condition is not needed.
//!
//! Under which conditions a rule keeps silent (`if … { return None; }`) decides which verdict a connection gets: when
//! one of these can be forced unnoticed, the check fails. The others pick words, evidence and confidence, and are listed
//! for information.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Block, Expr, ExprBinary, ExprIf, ExprReturn, ImplItemFn, ItemFn, ItemMod, Stmt};

use crate::cargo::{cargo, workspace};

/// What is mutated, below `tlstrace/src`.
const MUTATED: &str = "verdict";
/// Where rules are, as names of files begin.
const RULES: &str = "verdict/rules/";
/// The switch, as a module of the library.
const SWITCH: &str = include_str!("switch.rs");
/// The test that turns it.
const TEST: &str = include_str!("test.rs");

/// Force every condition of the rules both ways, list what no scenario notices, and fail where that is a main condition.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Only files whose path contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tree = workspace().join("target/mutants/tree");
    copy_workspace(&tree)?;
    let library = tree.join("tlstrace/src");
    let mut places = Vec::new();
    for file in rust_files(&library.join(MUTATED))? {
        let name = file.strip_prefix(&library).unwrap_or(&file).display().to_string();
        if name.contains(&args.only) {
            mutate(&file, &name, &mut places)?;
        }
    }
    ensure!(!places.is_empty(), "there is nothing to mutate");
    append(&library.join("lib.rs"), "\npub mod mutants;\n")?;
    fs::write(library.join("mutants.rs"), SWITCH)?;
    append(&tree.join("tlstrace/tests/scenarios/main.rs"), TEST)?;
    fs::write(tree.join("tlstrace/tests/scenarios/mutants.txt"), places.join("\n"))?;

    let status = cargo()
        .current_dir(&tree)
        .env("CARGO_TARGET_DIR", workspace().join("target/mutants/target"))
        // Many runs in a row: worth a little optimisation.
        .args(["test", "--quiet", "--config", "profile.dev.package.tlstrace.opt-level=1"])
        .args(["-p", "tlstrace", "--test", "scenarios", "mutants", "--", "--nocapture"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "a main condition of a rule is not tested, or the mutants could not be played");
    Ok(())
}

/// Copies what git knows of, and nothing else stays; files that did not change keep their time, so that little is built
/// anew.
fn copy_workspace(tree: &Path) -> Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(workspace()).output()?;
    let listed = String::from_utf8(listed.stdout).context("a path is not UTF-8")?;
    let listed: BTreeSet<_> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    if tree.exists() {
        for file in rust_files(tree)? {
            let path = file.strip_prefix(tree)?;
            if !listed.iter().any(|listed| path == Path::new(listed)) {
                fs::remove_file(&file)?;
            }
        }
    }
    for path in listed {
        let (from, to) = (workspace().join(path), tree.join(path));
        let Ok(content) = fs::read(&from) else { continue };
        if fs::read(&to).is_ok_and(|copy| copy == content) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap_or(tree))?;
        fs::write(&to, content).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(())
}

fn mutate(file: &Path, name: &str, places: &mut Vec<String>) -> Result<()> {
    let source = fs::read_to_string(file)?;
    let mut conditions = Conditions::default();
    conditions.visit_file(&syn::parse_file(&source).with_context(|| format!("parsing {name}"))?);
    // From the end, so that the ranges in front stay valid. No two overlap but where one lies within another.
    let mut edits = Vec::new();
    for Condition { range, is_main } in conditions.found {
        let line = source.get(..range.start).map_or(0, |before| before.lines().count());
        let text = source.get(range.clone()).unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        edits.push((range.end, ")".to_owned()));
        edits.push((range.start, format!("crate::mutants::on({}, ", places.len())));
        let kind = if is_main && name.starts_with(RULES) { "main" } else { "other" };
        places.push(format!("{kind:5} {name}:{line}: {}", text.join(" ")));
    }
    edits.sort_by_key(|(at, text)| std::cmp::Reverse((*at, text.len())));
    let mut mutated = source;
    for (at, text) in edits {
        mutated.insert_str(at, &text);
    }
    fs::write(file, mutated)?;
    Ok(())
}

/// The parts of conditions that are neither `let`s nor made of parts themselves.
#[derive(Default)]
struct Conditions {
    found: Vec<Condition>,
    /// Whether what is visited decides if there is an answer.
    is_main: bool,
}

struct Condition {
    range: Range<usize>,
    is_main: bool,
}

impl Conditions {
    fn part(&mut self, part: &Expr) {
        match part {
            Expr::Let(_) => {}
            Expr::Paren(inner) => self.part(&inner.expr),
            Expr::Binary(binary) if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) => {}
            _ => self.found.push(Condition { range: part.span().byte_range(), is_main: self.is_main }),
        }
    }
}

impl<'a> Visit<'a> for Conditions {
    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) {
            self.part(&binary.left);
            self.part(&binary.right);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_if(&mut self, branch: &'a ExprIf) {
        let outer = self.is_main;
        self.is_main |= is_silence(&branch.then_branch);
        self.part(&branch.cond);
        self.visit_expr(&branch.cond);
        self.is_main = outer;
        self.visit_block(&branch.then_branch);
        if let Some((_, otherwise)) = &branch.else_branch {
            self.visit_expr(otherwise);
        }
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        if let Some((_, guard)) = &arm.guard {
            self.part(guard);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_item_fn(&mut self, function: &'a ItemFn) {
        if function.sig.constness.is_none() {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'a ImplItemFn) {
        if function.sig.constness.is_none() {
            visit::visit_impl_item_fn(self, function);
        }
    }

    /// Tests test, and are not tested.
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }
}

/// Whether a block is `{ return None; }`.
fn is_silence(block: &Block) -> bool {
    matches!(&*block.stmts, [Stmt::Expr(Expr::Return(ExprReturn { expr: Some(value), .. }), _)]
        if matches!(&**value, Expr::Path(path) if path.path.is_ident("None")))
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let content = fs::read_to_string(file)? + text;
    fs::write(file, content).with_context(|| format!("writing {}", file.display()))
}
