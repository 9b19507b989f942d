//! The models of a scenario, as files that every part reads.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::process::output;
use crate::{clerk_model, program};

/// A model for a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedModel {
    /// Made from a seed; its text means nothing. Tokens by bytes, and it never ends early.
    Tiny,
    /// The one that reads invoices and stock sheets.
    Clerk,
}

/// The file of a tiny model, beside the one that the worker serves.
pub fn tiny_file(seed: u64) -> String {
    format!("tiny-{seed}.safetensors")
}

/// Makes a tiny model; returns what the command said.
pub(crate) fn make_tiny(seed: u64, path: &Path) -> anyhow::Result<String> {
    output(
        Command::new(program("dovetail-worker"))
            .args(["model", "make-tiny", "--seed", &seed.to_string(), "--out"])
            .arg(path),
    )
}

/// Puts the model's file there; returns its id.
pub(crate) fn provide_model(model: ServedModel, path: &Path) -> anyhow::Result<String> {
    let said = match model {
        ServedModel::Tiny => make_tiny(1, path)?,
        ServedModel::Clerk => {
            let shipped = clerk_model();
            std::fs::copy(&shipped, path)
                .with_context(|| format!("cannot copy {}", shipped.display()))?;
            output(
                Command::new(program("dovetail-worker"))
                    .args(["model", "inspect"])
                    .arg(path),
            )?
        }
    };
    said.lines()
        .find_map(|line| line.strip_prefix("id"))
        .map(|id| id.trim().to_owned())
        .context("the model command names no id")
}
