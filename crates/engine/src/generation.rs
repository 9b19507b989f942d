//! Generating completions. Several run side by side without a bit of difference.

use std::sync::Arc;

use crate::EngineError;
use crate::cache::Sequence;
use crate::completion::{Output, Request};
use crate::forward::{Feed, advance, logits};
use crate::model::Model;
use crate::prefix::Prefixes;
use crate::record::Record;
use crate::runtime::Runtime;

/// How many tokens of a prompt are taken in per step, so that sequences beside it go on.
const PROMPT_TOKENS_PER_STEP: usize = 128;
/// How many positions' logits are computed at once.
pub(crate) const LOGITS_POSITIONS: usize = 32;

/// A completion under way.
pub struct Generation {
    model: Arc<Model>,
    prompt: Vec<u32>,
    sequence: Sequence,
    /// What the model takes in next: the rest of the prompt, or the last token.
    next: Vec<u32>,
    record: Record,
}

impl Generation {
    /// A completion that has yet to take its prompt in.
    ///
    /// # Errors
    /// A prompt that is empty, out of the vocabulary, or leaves no room; sampling out of bounds; a form that is not
    /// followed.
    pub fn new(model: &Arc<Model>, request: Request) -> Result<Self, EngineError> {
        request.check(model)?;
        Ok(Self {
            sequence: Sequence::new(&model.manifest().architecture),
            next: request.prompt_tokens.clone(),
            prompt: request.prompt_tokens.clone(),
            record: Record::new(model, request)?,
            model: Arc::clone(model),
        })
    }

    /// Begins with what is kept of an earlier prompt that began the same. Returns how many tokens
    /// need not be taken in. To be called before the first step.
    pub fn reuse(&mut self, prefixes: &mut Prefixes) -> usize {
        if self.sequence.positions > 0 {
            return 0;
        }
        if let Some(sequence) = prefixes.longest(&self.model, &self.prompt) {
            self.next.drain(..sequence.positions);
            self.sequence = sequence;
        }
        self.sequence.positions
    }

    /// Keeps the prompt for later ones that begin the same, once it is taken in.
    pub fn keep_prompt(&self, prefixes: &mut Prefixes) {
        if self.sequence.positions >= self.prompt.len() {
            prefixes.keep(&self.model, &self.prompt, &self.sequence);
        }
    }

    /// Keeps all that was taken in, prompt and output, for a prompt that goes on from there: the next turn of
    /// a conversation.
    pub fn keep_all(&self, prefixes: &mut Prefixes) {
        let taken_in = self.prompt.iter().chain(&self.record.tokens).copied();
        let taken_in: Vec<u32> = taken_in.take(self.sequence.positions).collect();
        prefixes.keep(&self.model, &taken_in, &self.sequence);
    }

    /// The model that it runs on.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.record.tokens
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.record.finished.is_some()
    }

    /// The next token, or `None` once the completion has ended.
    pub fn next_token(&mut self, runtime: &Runtime) -> Option<u32> {
        while !self.is_finished() {
            if let Some(token) = step(runtime, &mut [&mut *self])[0] {
                return Some(token);
            }
        }
        None
    }

    /// The completion so far; one that had not ended counts as cancelled.
    pub fn finish(self) -> Output {
        self.record.finish()
    }
}

/// One step of several completions at once, of any models: each takes in some of its prompt, or its
/// last token, and gives its next token where the prompt is in. Those that have ended give none.
/// None notices the others.
pub fn step(runtime: &Runtime, generations: &mut [&mut Generation]) -> Vec<Option<u32>> {
    let mut given = vec![None; generations.len()];
    let mut left: Vec<usize> = (0..generations.len())
        .filter(|index| !generations[*index].is_finished())
        .collect();
    while let Some(first) = left.first() {
        let model = Arc::clone(&generations[*first].model);
        let (together, others): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|index| Arc::ptr_eq(&generations[*index].model, &model));
        step_model(runtime, &model, generations, &together, &mut given);
        left = others;
    }
    given
}

/// A step of the chosen ones, which share a model.
fn step_model(
    runtime: &Runtime,
    model: &Model,
    generations: &mut [&mut Generation],
    chosen: &[usize],
    given: &mut [Option<u32>],
) {
    let mut feeds = Vec::with_capacity(chosen.len());
    let mut ready = Vec::with_capacity(chosen.len());
    for (index, generation) in generations.iter_mut().enumerate() {
        if chosen.binary_search(&index).is_err() {
            continue;
        }
        let count = generation.next.len().min(PROMPT_TOKENS_PER_STEP);
        let is_last = count == generation.next.len();
        if is_last {
            ready.push(index);
        }
        feeds.push(Feed {
            sequence: &mut generation.sequence,
            tokens: &generation.next[..count],
            wanted_from: if is_last { count - 1 } else { count },
        });
    }
    let hidden = advance(runtime, model, &mut feeds);
    let counts: Vec<usize> = feeds.iter().map(|feed| feed.tokens.len()).collect();
    for (index, count) in chosen.iter().zip(counts) {
        generations[*index].next.drain(..count);
    }
    let arch = &model.manifest().architecture;
    for (hidden, ready) in hidden
        .chunks(LOGITS_POSITIONS * arch.dim)
        .zip(ready.chunks(LOGITS_POSITIONS))
    {
        prepare(runtime, generations, ready);
        let choosing = ready.iter().map(|index| (&generations[*index].record, 0));
        let chosen = choose(runtime, model, hidden, choosing);
        let states = hidden.chunks_exact(arch.dim);
        for ((index, hidden), token) in ready.iter().zip(states).zip(chosen) {
            let generation = &mut generations[*index];
            let token = generation.record.take(model, hidden, token);
            given[*index] = token;
            generation.next.extend(token);
        }
    }
}

/// Has those of these that follow a form find out which tokens may come next, side by side.
fn prepare(runtime: &Runtime, generations: &mut [&mut Generation], ready: &[usize]) {
    let guided: Vec<&mut Record> = (0..)
        .zip(generations.iter_mut())
        .filter(|(index, _)| ready.binary_search(index).is_ok())
        .map(|(_, generation)| &mut generation.record)
        .filter(|record| record.is_guided())
        .collect();
    if !guided.is_empty() {
        // A mask takes longer than a thread to start on it.
        runtime.run(|| runtime.each(usize::MAX, guided, Record::prepare));
    }
}

/// The tokens that follow from hidden states, `[states, dim]`: for each the record that it belongs to and how many
/// tokens that will have had by then.
pub(crate) fn choose<'a>(
    runtime: &Runtime,
    model: &Model,
    hidden: &[i32],
    records: impl Iterator<Item = (&'a Record, usize)>,
) -> Vec<u32> {
    let logits = logits(runtime, model, hidden);
    let rows = logits.chunks_exact(model.manifest().architecture.vocabulary);
    let mut chosen = vec![0; rows.len()];
    let items = rows.zip(records).zip(&mut chosen).collect();
    runtime.run(|| {
        // A logit costs about as much as some products.
        runtime.each(
            4 * logits.len(),
            items,
            |((logits, (record, ahead)), token)| {
                *token = record.choose(logits, ahead);
            },
        );
    });
    chosen
}

/// Generates a whole completion. Takes as many steps as the sampling and the context allow.
///
/// # Errors
/// As [`Generation::new`].
pub fn run(runtime: &Runtime, model: &Arc<Model>, request: Request) -> Result<Output, EngineError> {
    let mut generation = Generation::new(model, request)?;
    while generation.next_token(runtime).is_some() {}
    Ok(generation.finish())
}
