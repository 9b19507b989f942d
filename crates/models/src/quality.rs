//! What an import costs in quality: the engine's logits beside the reference's, on the same text.

use std::path::Path;

use dovetail_engine::{EngineError, Model, Range, Ranges, Runtime, measure_ranges};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::ImportError;
use crate::reference::Reference;

/// A text to measure on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The whole text.
    pub tokens: Vec<u32>,
    /// The first token whose prediction counts, 1 at least: what comes before is given, such as a prompt.
    pub counted_from: usize,
}

/// Figures over all positions that count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quality {
    /// How many positions were compared.
    pub positions: usize,
    /// How often both find the same token likeliest, 0 to 1.
    pub top1_agreement: f64,
    /// How much the engine's distribution differs from the reference's: the mean Kullback-Leibler
    /// divergence, in nats.
    pub divergence_nats: f64,
    /// The mean correlation of the logits of a position.
    pub correlation: f64,
    /// The reference's perplexity of the text.
    pub perplexity_reference: f64,
    /// The engine's.
    pub perplexity_engine: f64,
    /// How large the engine's values got, and how many were cut off.
    pub ranges: [Range; 9],
}

impl Quality {
    /// The engine's perplexity over the reference's.
    pub fn perplexity_ratio(&self) -> f64 {
        self.perplexity_engine / self.perplexity_reference
    }
}

/// Why quality could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum QualityError {
    /// About the checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] ImportError),
    /// About the model or the tokens.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model was not made from this checkpoint.
    #[error("the model has {model} tokens, the checkpoint {checkpoint}")]
    Vocabulary {
        /// The model's.
        model: usize,
        /// The checkpoint's.
        checkpoint: usize,
    },
    /// No text has a token that follows another and counts.
    #[error("there is no text with a token that follows another and counts")]
    TooShort,
}

/// As [`quality_of`], on the checkpoint in this folder or GGUF file.
///
/// # Errors
/// [`QualityError`].
pub fn quality(
    dir: &Path,
    runtime: &Runtime,
    model: &Model,
    sequences: &[Sequence],
) -> Result<Quality, QualityError> {
    quality_of(
        &Reference::open(dir)?,
        runtime,
        model,
        sequences,
        &mut |_, _| {},
    )
}

/// Runs both over the sequences, each from its beginning and no longer than the model's context. Takes
/// about as long as the reference takes: some 2 operations per weight and token on all cores.
/// `progress` hears of each layer of the reference and each sequence that is done, and of how many in all.
///
/// # Errors
/// [`QualityError`].
pub fn quality_of(
    reference: &Reference,
    runtime: &Runtime,
    model: &Model,
    sequences: &[Sequence],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quality, QualityError> {
    let vocabulary = model.manifest().architecture.vocabulary;
    if reference.vocabulary() != vocabulary {
        return Err(QualityError::Vocabulary {
            model: vocabulary,
            checkpoint: reference.vocabulary(),
        });
    }
    let counts = |s: &&Sequence| (1..s.tokens.len()).contains(&s.counted_from);
    let (texts, firsts): (Vec<Vec<u32>>, Vec<usize>) = sequences
        .iter()
        .filter(counts)
        .map(|sequence| (sequence.tokens.clone(), sequence.counted_from))
        .unzip();
    if texts.is_empty() {
        return Err(QualityError::TooShort);
    }
    // Both would find out, but late.
    let known = |token: &u32| (*token as usize) < vocabulary;
    if !texts.iter().flatten().all(known) {
        return Err(EngineError::PromptInvalid.into());
    }
    let context = model.context_tokens();
    if let Some(long) = texts.iter().find(|tokens| tokens.len() > context) {
        let prompt = long.len();
        return Err(EngineError::PromptTooLong { prompt, context }.into());
    }
    let mut sums = Sums::default();
    let ranges = Ranges::new(&model.manifest().architecture);
    let reference_layers = reference.layers();
    let total = reference_layers + texts.len();
    let hidden = reference.hidden(&texts, &mut |layers| progress(layers, total))?;
    let head = reference.head()?;
    // One sequence's logits at a time: they are the largest thing here.
    for (index, ((tokens, hidden), first)) in texts.iter().zip(&hidden).zip(firsts).enumerate() {
        let mut engine = Vec::new();
        measure_ranges(runtime, model, tokens, &ranges, |logits| {
            engine.extend(logits);
        })?;
        let reference = head.logits(hidden);
        let pairs = reference
            .par_chunks_exact(vocabulary)
            .zip(engine.par_chunks_exact(vocabulary))
            .zip(&tokens[1..])
            .skip(first - 1);
        let compared: Vec<Sums> = pairs
            .map(|((reference, engine), next)| {
                let reference: Vec<f64> = reference.iter().map(|l| f64::from(*l)).collect();
                let engine: Vec<f64> = engine.iter().map(|l| f64::from(*l) / 65_536.0).collect();
                Sums::of(&reference, &engine, *next as usize)
            })
            .collect();
        // In order, so that the figures are the same on any number of threads.
        compared.iter().for_each(|position| sums.add(position));
        progress(reference_layers + index + 1, total);
    }
    Ok(sums.quality(ranges.all()))
}

#[derive(Default)]
struct Sums {
    positions: usize,
    agreed: usize,
    divergence: f64,
    correlation: f64,
    loss_reference: f64,
    loss_engine: f64,
}

impl Sums {
    /// Those of one position.
    fn of(reference: &[f64], engine: &[f64], next: usize) -> Self {
        let (of_reference, of_engine) = (log_softmax(reference), log_softmax(engine));
        let divergence = of_reference
            .iter()
            .zip(&of_engine)
            .map(|(reference, engine)| reference.exp() * (reference - engine));
        Self {
            positions: 1,
            agreed: usize::from(likeliest(reference) == likeliest(engine)),
            divergence: divergence.sum(),
            correlation: correlation(reference, engine),
            loss_reference: -of_reference[next],
            loss_engine: -of_engine[next],
        }
    }

    fn add(&mut self, other: &Self) {
        self.positions += other.positions;
        self.agreed += other.agreed;
        self.divergence += other.divergence;
        self.correlation += other.correlation;
        self.loss_reference += other.loss_reference;
        self.loss_engine += other.loss_engine;
    }

    fn quality(&self, ranges: [Range; 9]) -> Quality {
        let positions = count(self.positions);
        Quality {
            positions: self.positions,
            top1_agreement: count(self.agreed) / positions,
            divergence_nats: self.divergence / positions,
            correlation: self.correlation / positions,
            perplexity_reference: (self.loss_reference / positions).exp(),
            perplexity_engine: (self.loss_engine / positions).exp(),
            ranges,
        }
    }
}

/// The first of the largest.
fn likeliest(logits: &[f64]) -> usize {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    logits.iter().position(|l| *l == most).unwrap_or(0)
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - most).exp()).sum();
    let normal = most + sum.ln();
    logits.iter().map(|l| l - normal).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / count(x.len());
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    if of_a > 0.0 && of_b > 0.0 {
        both / (of_a * of_b).sqrt()
    } else {
        0.0
    }
}

fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::Stored;

    fn nothing() -> [Range; 9] {
        Stored::ALL.map(|stored| Range {
            stored,
            peak_q16: 0,
            saturated: 0,
            values: 0,
        })
    }

    #[test]
    fn equal_logits_lose_nothing() {
        let mut sums = Sums::default();
        let logits = [1.0, 3.0, -2.0, 0.5];
        sums.add(&Sums::of(&logits, &logits, 1));
        let quality = sums.quality(nothing());
        assert_eq!((quality.positions, quality.top1_agreement), (1, 1.0));
        assert!(quality.divergence_nats.abs() < 1e-12);
        assert!((quality.correlation - 1.0).abs() < 1e-12);
        assert_eq!(quality.perplexity_engine, quality.perplexity_reference);
    }

    #[test]
    fn the_perplexity_of_even_logits_is_the_vocabulary() {
        let mut sums = Sums::default();
        sums.add(&Sums::of(&[0.0, 1.0], &[0.25, 0.25], 0));
        let quality = sums.quality(nothing());
        assert!((quality.perplexity_engine - 2.0).abs() < 1e-12);
        // -ln softmax([0, 1])[0] is ln(1 + e).
        assert!((quality.perplexity_reference - (1.0 + 1.0_f64.exp())).abs() < 1e-12);
        assert!(quality.divergence_nats > 0.0);
        assert_eq!(quality.top1_agreement, 0.0);
    }
}
