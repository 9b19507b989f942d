//! llama.cpp, with which the engine is compared: prebuilt for each kind of processor, from npm, at the versions and hashes
//! of the lockfile beside the program that runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use dovetail_tests::cache;
use serde_json::Value;

use super::report::report;
use crate::setup;
use crate::steps::run;

/// What the folder in the cache gets from the source.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "peer.js"];

/// The program, and what it needs, in the cache.
#[derive(Debug)]
pub(super) struct Peer {
    program: PathBuf,
}

/// What is measured of both: prompts and outputs are equally long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) prefill: u32,
    pub(super) prompt: u32,
    pub(super) generate: u32,
}

impl Peer {
    /// Installs it, some seconds the first time.
    pub(super) fn install() -> anyhow::Result<Self> {
        setup::npm()?;
        let source = dovetail_tests::root().join("crates/bench/peer");
        let folder = cache().join("engine-peer");
        std::fs::create_dir_all(&folder)?;
        let same = |name: &str| {
            let read = |folder: &Path| std::fs::read(folder.join(name)).ok();
            read(&source) == read(&folder)
        };
        // npm writes its own list last.
        let whole = folder.join("node_modules").join(".package-lock.json");
        let installed = whole.exists() && same("package-lock.json");
        for name in FILES {
            std::fs::copy(source.join(name), folder.join(name))
                .with_context(|| format!("cannot copy {name}"))?;
        }
        if !installed {
            // No package's own scripts run.
            run(Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(&folder))?;
        }
        Ok(Self {
            program: folder.join("peer.js"),
        })
    }

    /// Measures a GGUF file once.
    pub(super) fn measure(
        &self,
        model: &Path,
        threads: usize,
        lengths: Lengths,
    ) -> anyhow::Result<Value> {
        let numbers = [lengths.prefill, lengths.prompt, lengths.generate];
        report(
            Command::new("node")
                .arg(&self.program)
                .arg(model)
                .arg(threads.to_string())
                .args(numbers.map(|number| number.to_string())),
        )
    }
}
