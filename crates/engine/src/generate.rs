//! Generating completions and replaying them: the same computation, which is the point. Several run
//! side by side without a bit of difference.

use std::sync::Arc;

use dovetail_commitment::{FinishReason, SamplingParams, StopSequences};

use crate::EngineError;
use crate::cache::Sequence;
use crate::forward::{Feed, advance, logits};
use crate::model::Model;
use crate::prefix::Prefixes;
use crate::record::Record;
use crate::runtime::Runtime;

/// How many tokens of a prompt are taken in per step, so that sequences beside it go on.
const PROMPT_TOKENS_PER_STEP: usize = 128;
/// How many positions are replayed together, at least, where there are transcripts enough.
const REPLAY_POSITIONS: usize = 512;
/// How many positions' logits are computed at once.
const LOGITS_POSITIONS: usize = 32;

/// What fixes a completion.
#[derive(Clone)]
pub struct Request {
    /// From [`Model::encode`]: `[len]`, not empty.
    pub prompt_tokens: Vec<u32>,
    /// How to choose tokens.
    pub sampling: SamplingParams,
    /// The seed of the choice.
    pub seed: [u8; 32],
    /// The output ends with the token after which its text contains one of these.
    pub stop: StopSequences,
}

impl Request {
    fn check(&self, model: &Model) -> Result<(), EngineError> {
        self.sampling.validate()?;
        let arch = &model.manifest().architecture;
        let prompt = &self.prompt_tokens;
        if prompt.len() >= arch.context_tokens {
            return Err(EngineError::PromptTooLong {
                prompt: prompt.len(),
                context: arch.context_tokens,
            });
        }
        if prompt.is_empty() || prompt.iter().any(|t| *t as usize >= arch.vocabulary) {
            return Err(EngineError::PromptInvalid);
        }
        Ok(())
    }
}

/// A whole completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// One digest per [`crate::TRACE_POSITIONS`] sampled positions (the one that gave the end token
    /// is one of them); the last may cover fewer.
    pub trace: Vec<[u8; 32]>,
}

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
    /// A prompt that is empty, out of the vocabulary, or leaves no room; sampling out of bounds.
    pub fn new(model: &Arc<Model>, request: Request) -> Result<Self, EngineError> {
        request.check(model)?;
        Ok(Self {
            sequence: Sequence::new(&model.manifest().architecture),
            next: request.prompt_tokens.clone(),
            prompt: request.prompt_tokens.clone(),
            record: Record::new(model, request),
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

/// The tokens that follow from hidden states, `[states, dim]`: for each the record that it belongs to and how many
/// tokens that will have had by then.
fn choose<'a>(
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

/// A completion that somebody claims to have computed.
#[derive(Clone)]
pub struct Claim {
    /// What was to be computed.
    pub request: Request,
    /// The tokens that are said to have come out.
    pub tokens: Vec<u32>,
}

/// Computes claimed completions again, up to the first token of each that differs. A result equals
/// the claim's own [`Output`] exactly if the claim is honest. All positions go through the model
/// together, which is several times cheaper than generating them one after the other.
///
/// # Errors
/// Per claim, as [`Generation::new`].
pub fn replay(
    runtime: &Runtime,
    model: &Model,
    claims: &[Claim],
) -> Vec<Result<Output, EngineError>> {
    let groups = replay_groups(claims);
    // As many at a time as there are threads: while one is in work that does not split, the others go on. More
    // would only take memory.
    let replayed = groups
        .chunks(runtime.threads())
        .flat_map(|groups| runtime.map(groups, |group| replay_group(runtime, model, group)));
    replayed.flatten().collect()
}

/// Claims that go through the model together.
fn replay_groups(claims: &[Claim]) -> Vec<&[Claim]> {
    let mut positions = 0;
    let is_full = |claim: &Claim| {
        positions += claim.request.prompt_tokens.len() + claim.tokens.len();
        let is_full = positions >= REPLAY_POSITIONS;
        if is_full {
            positions = 0;
        }
        is_full
    };
    claims.split_inclusive(is_full).collect()
}

fn replay_group(
    runtime: &Runtime,
    model: &Model,
    claims: &[Claim],
) -> Vec<Result<Output, EngineError>> {
    let arch = &model.manifest().architecture;
    let tokens: Vec<Result<Vec<u32>, EngineError>> = claims
        .iter()
        .map(|claim| {
            claim.request.check(model)?;
            Ok(tokens_to_replay(model, claim))
        })
        .collect();
    let mut sequences = vec![Sequence::new(arch); claims.len()];
    let mut feeds: Vec<Feed<'_>> = sequences
        .iter_mut()
        .zip(claims.iter().zip(&tokens))
        .filter_map(|(sequence, (claim, tokens))| {
            Some(Feed {
                sequence,
                tokens: tokens.as_ref().ok()?,
                wanted_from: claim.request.prompt_tokens.len() - 1,
            })
        })
        .collect();
    let hidden = advance(runtime, model, &mut feeds);
    let mut rest = hidden.as_slice();
    claims
        .iter()
        .zip(tokens)
        .map(|(claim, tokens)| {
            let states = tokens?.len() + 1 - claim.request.prompt_tokens.len();
            let (states, others) = rest.split_at(states * arch.dim);
            rest = others;
            Ok(check_states(runtime, model, claim, states))
        })
        .collect()
}

/// The prompt and as much of the claim as an honest run would have taken in.
fn tokens_to_replay(model: &Model, claim: &Claim) -> Vec<u32> {
    let arch = &model.manifest().architecture;
    let prompt = &claim.request.prompt_tokens;
    let room = arch.context_tokens - prompt.len();
    let most = (claim.request.sampling.max_tokens as usize - 1).min(room);
    let known = |token: &&u32| (**token as usize) < arch.vocabulary;
    let claimed = claim.tokens.iter().take(most).take_while(known);
    prompt.iter().chain(claimed).copied().collect()
}

/// Chooses a token from each hidden state until one is not the claimed one.
fn check_states(runtime: &Runtime, model: &Model, claim: &Claim, states: &[i32]) -> Output {
    let arch = &model.manifest().architecture;
    let mut record = Record::new(model, claim.request.clone());
    let mut claimed = claim.tokens.iter();
    'claim: for states in states.chunks(LOGITS_POSITIONS * arch.dim) {
        let count = states.len() / arch.dim;
        let records = (0..count).map(|ahead| (&record, ahead));
        let chosen = choose(runtime, model, states, records);
        for (hidden, token) in states.chunks_exact(arch.dim).zip(chosen) {
            let token = record.take(model, hidden, token);
            if token.is_none() || token.as_ref() != claimed.next() || record.finished.is_some() {
                break 'claim;
            }
        }
    }
    record.finish()
}

/// The trace that the model gives when it only reads the claimed tokens, whatever it would have
/// chosen itself: `[ceil(positions / 32)][32]`. It is what somebody can show who lets a cheaper model
/// write; equal to the claim's own trace does not mean that the tokens are the model's.
///
/// # Errors
/// As [`Generation::new`].
pub fn forced_trace(
    runtime: &Runtime,
    model: &Model,
    claim: &Claim,
) -> Result<Vec<[u8; 32]>, EngineError> {
    claim.request.check(model)?;
    let arch = &model.manifest().architecture;
    let tokens = tokens_to_replay(model, claim);
    let mut feed = [Feed {
        sequence: &mut Sequence::new(arch),
        tokens: &tokens,
        wanted_from: claim.request.prompt_tokens.len() - 1,
    }];
    let hidden = advance(runtime, model, &mut feed);
    let mut record = Record::new(model, claim.request.clone());
    hidden
        .chunks_exact(arch.dim)
        .for_each(|state| record.note(state));
    Ok(record.finish().trace)
}

/// The logits of every position of a text, for measuring a model's quality: `[len, vocabulary]`, Q16.
/// Costs what replaying it would.
///
/// # Errors
/// As [`Generation::new`].
pub fn teacher_forced(
    runtime: &Runtime,
    model: &Model,
    tokens: &[u32],
) -> Result<Vec<i32>, EngineError> {
    let arch = &model.manifest().architecture;
    if tokens.len() > arch.context_tokens {
        return Err(EngineError::PromptTooLong {
            prompt: tokens.len(),
            context: arch.context_tokens,
        });
    }
    if tokens
        .iter()
        .any(|token| *token as usize >= arch.vocabulary)
    {
        return Err(EngineError::PromptInvalid);
    }
    let mut feed = [Feed {
        sequence: &mut Sequence::new(arch),
        tokens,
        wanted_from: 0,
    }];
    let hidden = advance(runtime, model, &mut feed);
    let states = hidden.chunks(LOGITS_POSITIONS * arch.dim);
    Ok(states
        .flat_map(|states| logits(runtime, model, states))
        .collect())
}
