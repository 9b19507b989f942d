//! What an import cost in quality, on texts of this repository.

use std::path::{Path, PathBuf};

use anyhow::Context;
use dovetail_engine::{Model, Runtime};
use dovetail_models::{Sequence, quality};
use serde::Serialize;

/// A text is cut into pieces of this many tokens, each taken from its beginning.
const WINDOW: usize = 1024;

/// Over all texts together.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Tokens whose prediction counted.
    positions: usize,
    /// How often engine and reference find the same token likeliest, 0 to 1.
    top1_agreement: f64,
    /// The mean divergence of their predictions.
    kl_nats: f64,
    /// The engine's perplexity over the reference's.
    ppl_ratio: f64,
}

/// Measures on the first `tokens` tokens of each text.
///
/// # Errors
/// If a text cannot be read, or the model was not made from the checkpoint.
pub(crate) fn measure(
    checkpoint: &Path,
    model: &Model,
    texts: &[PathBuf],
    tokens: usize,
) -> anyhow::Result<Measured> {
    let mut sequences = Vec::new();
    for path in texts {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let mut of_text = model.encode(text.as_bytes())?;
        of_text.truncate(tokens);
        let piece = |tokens: &[u32]| Sequence {
            tokens: tokens.to_vec(),
            counted_from: 1,
        };
        let window = WINDOW.min(model.context_tokens());
        sequences.extend(of_text.chunks(window).map(piece));
    }
    let measured = quality(checkpoint, &Runtime::new(0)?, model, &sequences)?;
    Ok(Measured {
        positions: measured.positions,
        top1_agreement: measured.top1_agreement,
        kl_nats: measured.divergence_nats,
        ppl_ratio: measured.perplexity_ratio(),
    })
}
