//! The program `dovetail-bench`, the report that it prints, and figures of it for tables.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::steps::{cargo, run};

/// Builds our bench; returns where it is.
pub(super) fn build_bench() -> anyhow::Result<PathBuf> {
    build_release("dovetail-bench", "dovetail-bench")
}

/// Builds a program of a package for speed; returns where it is.
pub(super) fn build_release(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    run(&mut cargo(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        package,
        "--bin",
        name,
    ]))?;
    let debug = dovetail_tests::program(name);
    let target = debug.parent().and_then(|debug| debug.parent());
    let target = target.context("the target folder has no parent")?;
    Ok(target.join("release").join(name))
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
