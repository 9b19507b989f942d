//! Prompts that were taken in, kept for later ones that begin the same, as those with a common
//! instruction do. What is reused is exactly what would be computed.

use std::collections::VecDeque;

use dovetail_commitment::ModelId;

use crate::cache::Sequence;
use crate::model::Model;

/// Shorter common beginnings are not worth copying.
const TOKENS_MIN: usize = 16;

/// The newest prompts, within a bound of memory.
#[derive(Debug)]
pub struct Prefixes {
    kept: VecDeque<Kept>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    model: ModelId,
    tokens: Vec<u32>,
    sequence: Sequence,
    bytes: usize,
}

impl Prefixes {
    /// Keeps at most about this many bytes; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// How many prompts are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// A copy of the longest common beginning, short of the whole prompt: its last token has to be
    /// taken in for its hidden state. What was useful counts as new again.
    pub(crate) fn longest(&mut self, model: &Model, prompt: &[u32]) -> Option<Sequence> {
        let common = |kept: &Kept| {
            let same = kept.tokens.iter().zip(prompt).take_while(|(a, b)| a == b);
            same.count().min(prompt.len() - 1)
        };
        let (index, count) = self
            .kept
            .iter()
            .enumerate()
            .filter(|(_, kept)| kept.model == model.id())
            .map(|(index, kept)| (index, common(kept)))
            .max_by_key(|(_, count)| *count)
            .filter(|(_, count)| *count >= TOKENS_MIN)?;
        let kept = self.kept.remove(index)?;
        let sequence = kept.sequence.first(&model.manifest().architecture, count);
        self.kept.push_back(kept);
        Some(sequence)
    }

    /// Keeps the first `tokens.len()` positions of a sequence, which are those of `tokens`.
    pub(crate) fn keep(&mut self, model: &Model, tokens: &[u32], sequence: &Sequence) {
        let arch = &model.manifest().architecture;
        let bytes = tokens.len() * (arch.cache_bytes_per_position() + 4);
        let known = |kept: &Kept| kept.model == model.id() && kept.tokens.starts_with(tokens);
        if tokens.len() < TOKENS_MIN || bytes > self.bytes_max || self.kept.iter().any(known) {
            return;
        }
        // Whatever begins like one of these begins like the new one too.
        let id = model.id();
        self.kept
            .retain(|kept| kept.model != id || !tokens.starts_with(&kept.tokens));
        self.bytes = self.kept.iter().map(|kept| kept.bytes).sum();
        while self.bytes + bytes > self.bytes_max {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes;
        }
        self.bytes += bytes;
        self.kept.push_back(Kept {
            model: id,
            tokens: tokens.to_vec(),
            sequence: sequence.first(arch, tokens.len()),
            bytes,
        });
    }
}
