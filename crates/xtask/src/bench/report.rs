//! The program `dovetail-bench`, the report that it prints, and figures of it for tables.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::steps::{cargo, run};

/// Builds our bench; returns where it is.
pub(super) fn build_bench() -> anyhow::Result<PathBuf> {
    build_release("dovetail-bench")
}

/// Builds the program of this name, which is its package's too, for speed; returns where it is.
pub(super) fn build_release(name: &str) -> anyhow::Result<PathBuf> {
    release(&["--package", name, "--bin", name]).map(|folder| folder.join(name))
}

/// Where release programs are: in `folder`, or where all of this checkout's are built. All at once, since dependencies of one
/// package alone would be built again with fewer features.
pub(super) fn release_programs(folder: Option<&Path>) -> anyhow::Result<PathBuf> {
    match folder {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => release(&["--workspace", "--bins"]),
    }
}

fn release(what: &[&str]) -> anyhow::Result<PathBuf> {
    run(cargo(&["build", "--release", "--quiet"]).args(what))?;
    let debug = dovetail_tests::program("any");
    let target = debug.parent().and_then(|debug| debug.parent());
    let target = target.context("the target folder has no parent")?;
    Ok(target.join("release"))
}

/// The JSON object that a program prints last.
pub(super) fn report(command: &mut Command) -> anyhow::Result<Value> {
    let shown = format!("{command:?}");
    let done = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    if !done.status.success() {
        bail!("{shown} failed: {}", done.status);
    }
    let text = String::from_utf8_lossy(&done.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{shown} printed no JSON"))
}

/// A figure for a table.
pub(super) fn number(row: &Value, key: &str, digits: usize) -> String {
    row[key]
        .as_f64()
        .map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
