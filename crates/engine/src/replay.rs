//! Replaying completions: the same computation as generating them, which is the point, but with all positions at once.

use crate::EngineError;
use crate::cache::{POSITIONS_STEP, Sequence};
use crate::completion::{Output, Request};
use crate::forward::{Feed, advance, advance_watched, logits};
use crate::generation::{LOGITS_POSITIONS, choose};
use crate::model::Model;
use crate::range::{Ranges, Stored, Unwatched, Watch};
use crate::record::Record;
use crate::runtime::Runtime;

/// How many positions are replayed together, at least, where there are transcripts enough.
const REPLAY_POSITIONS: usize = 512;
/// How many positions are in memory at once, at most, unless a single group has more: their caches are the largest thing
/// here (400 MB of them for a model of SmolLM's size). Enough for 32 threads with groups of twice the least size.
const POSITIONS_IN_FLIGHT_MAX: usize = 1 << 15;

/// A completion that somebody says to have computed.
#[derive(Clone)]
pub struct ReplayInput {
    /// What was to be computed.
    pub request: Request,
    /// The tokens that are said to have come out.
    pub tokens: Vec<u32>,
}

/// Computes completions again, up to the first token of each that differs. A result equals the [`Output`] that was
/// said to have come out exactly if that is honest. All positions go through the model
/// together, which is several times cheaper than generating them one after the other.
///
/// # Errors
/// Per input, as [`Generation::new`](crate::Generation::new).
pub fn replay(
    runtime: &Runtime,
    model: &Model,
    inputs: &[ReplayInput],
) -> Vec<Result<Output, EngineError>> {
    let groups = replay_groups(inputs);
    let replayed = rounds(&groups, runtime.threads())
        .into_iter()
        .flat_map(|groups| runtime.map(groups, |group| replay_group(runtime, model, group)));
    replayed.flatten().collect()
}

/// Groups that are replayed side by side: as many at a time as there are threads, since while one is in work that does
/// not split, the others go on; and no more than memory is meant for.
fn rounds<'a, 'b>(groups: &'b [&'a [ReplayInput]], threads: usize) -> Vec<&'b [&'a [ReplayInput]]> {
    let mut rounds = Vec::new();
    let mut rest = groups;
    while !rest.is_empty() {
        let mut positions = 0;
        let fits = |group: &&&[ReplayInput]| {
            // What a cache takes room for, which for short ones is more than they have.
            let room = |input: &ReplayInput| positions_of(input).next_multiple_of(POSITIONS_STEP);
            positions += group.iter().map(room).sum::<usize>();
            positions <= POSITIONS_IN_FLIGHT_MAX
        };
        let count = rest.iter().take(threads).take_while(fits).count().max(1);
        let (round, others) = rest.split_at(count);
        rounds.push(round);
        rest = others;
    }
    rounds
}

/// How many positions an input has at most; the model's context bounds them too.
fn positions_of(input: &ReplayInput) -> usize {
    let output = input
        .tokens
        .len()
        .min(input.request.sampling.max_tokens as usize);
    input.request.prompt_tokens.len() + output
}

/// Those that go through the model together.
fn replay_groups(inputs: &[ReplayInput]) -> Vec<&[ReplayInput]> {
    let mut positions = 0;
    let is_full = |input: &ReplayInput| {
        positions += positions_of(input);
        let is_full = positions >= REPLAY_POSITIONS;
        if is_full {
            positions = 0;
        }
        is_full
    };
    inputs.split_inclusive(is_full).collect()
}

fn replay_group(
    runtime: &Runtime,
    model: &Model,
    inputs: &[ReplayInput],
) -> Vec<Result<Output, EngineError>> {
    let arch = &model.manifest().architecture;
    let tokens: Vec<Result<Vec<u32>, EngineError>> = inputs
        .iter()
        .map(|input| {
            input.request.check(model)?;
            Ok(tokens_to_replay(model, input))
        })
        .collect();
    let mut sequences = vec![Sequence::new(arch); inputs.len()];
    let mut feeds: Vec<Feed<'_>> = sequences
        .iter_mut()
        .zip(inputs.iter().zip(&tokens))
        .filter_map(|(sequence, (input, tokens))| {
            Some(Feed {
                sequence,
                tokens: tokens.as_ref().ok()?,
                wanted_from: input.request.prompt_tokens.len() - 1,
            })
        })
        .collect();
    let hidden = advance(runtime, model, &mut feeds);
    let mut rest = hidden.as_slice();
    inputs
        .iter()
        .zip(tokens)
        .map(|(input, tokens)| {
            let states = tokens?.len() + 1 - input.request.prompt_tokens.len();
            let (states, others) = rest.split_at(states * arch.dim);
            rest = others;
            check_states(runtime, model, input, states)
        })
        .collect()
}

/// The prompt and as many of the tokens as an honest run would have taken in.
fn tokens_to_replay(model: &Model, input: &ReplayInput) -> Vec<u32> {
    let arch = &model.manifest().architecture;
    let prompt = &input.request.prompt_tokens;
    let room = arch.context_tokens - prompt.len();
    let most = (input.request.sampling.max_tokens as usize - 1).min(room);
    let known = |token: &&u32| (**token as usize) < arch.vocabulary;
    let given = input.tokens.iter().take(most).take_while(known);
    prompt.iter().chain(given).copied().collect()
}

/// Chooses a token from each hidden state until one is not the given one.
fn check_states(
    runtime: &Runtime,
    model: &Model,
    input: &ReplayInput,
    states: &[i32],
) -> Result<Output, EngineError> {
    let arch = &model.manifest().architecture;
    let mut record = Record::new(model, input.request.clone())?;
    let mut given = input.tokens.iter();
    // Whether the token that was chosen is the given one and others follow.
    let mut take = |record: &mut Record, hidden: &[i32], token: u32| {
        let token = record.take(model, hidden, token);
        token.is_some() && token.as_ref() == given.next() && record.finished.is_none()
    };
    for states in states.chunks(LOGITS_POSITIONS * arch.dim) {
        let mut hidden = states.chunks_exact(arch.dim);
        let goes_on = if record.is_guided() {
            // What may come next is known only when the token before it is taken.
            let logits = logits(runtime, model, states);
            let mut rows = hidden.zip(logits.chunks_exact(arch.vocabulary));
            rows.all(|(hidden, logits)| {
                record.prepare();
                let token = record.choose(logits, 0);
                take(&mut record, hidden, token)
            })
        } else {
            let records = (0..hidden.len()).map(|ahead| (&record, ahead));
            let mut chosen = choose(runtime, model, states, records).into_iter();
            hidden.all(|hidden| {
                let token = chosen.next();
                token.is_some_and(|token| take(&mut record, hidden, token))
            })
        };
        if !goes_on {
            break;
        }
    }
    Ok(record.finish())
}

/// The trace that the model gives when it only reads the given tokens, whatever it would have
/// chosen itself: `[ceil(positions / 32)][32]`. Somebody who lets a cheaper model write can show this trace, so
/// a trace that is right does not say that the tokens are the model's.
///
/// # Errors
/// As [`Generation::new`](crate::Generation::new).
pub fn forced_trace(
    runtime: &Runtime,
    model: &Model,
    input: &ReplayInput,
) -> Result<Vec<[u8; 32]>, EngineError> {
    input.request.check(model)?;
    let arch = &model.manifest().architecture;
    let tokens = tokens_to_replay(model, input);
    let mut feed = [Feed {
        sequence: &mut Sequence::new(arch),
        tokens: &tokens,
        wanted_from: input.request.prompt_tokens.len() - 1,
    }];
    let hidden = advance(runtime, model, &mut feed);
    let mut record = Record::unguided(model, input.request.clone());
    hidden
        .chunks_exact(arch.dim)
        .for_each(|state| record.note(state));
    Ok(record.finish().trace)
}

/// The logits of every position of a text, for measuring a model's quality: `[len, vocabulary]`, Q16.
/// Costs what replaying it would.
///
/// # Errors
/// As [`Generation::new`](crate::Generation::new).
pub fn teacher_forced(
    runtime: &Runtime,
    model: &Model,
    tokens: &[u32],
) -> Result<Vec<i32>, EngineError> {
    let mut all = Vec::new();
    forced(runtime, model, tokens, &Unwatched, |logits| {
        all.extend(logits);
    })?;
    Ok(all)
}

/// The same bits, some positions at a time, and `ranges` sees every value that is stored on the way.
///
/// # Errors
/// As [`teacher_forced`].
pub fn measure_ranges(
    runtime: &Runtime,
    model: &Model,
    tokens: &[u32],
    ranges: &Ranges,
    take: impl FnMut(Vec<i32>),
) -> Result<(), EngineError> {
    forced(runtime, model, tokens, ranges, take)
}

fn forced<W: Watch>(
    runtime: &Runtime,
    model: &Model,
    tokens: &[u32],
    watch: &W,
    mut take: impl FnMut(Vec<i32>),
) -> Result<(), EngineError> {
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
    let hidden = advance_watched(runtime, model, &mut feed, watch);
    for states in hidden.chunks(LOGITS_POSITIONS * arch.dim) {
        let logits = logits(runtime, model, states);
        watch.see(Stored::Logits, 0, &logits);
        take(logits);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_commitment::{SamplingParams, StopSequences};

    fn input(prompt: usize, output: usize) -> ReplayInput {
        ReplayInput {
            request: Request {
                prompt_tokens: vec![1; prompt],
                sampling: SamplingParams {
                    temperature_milli: 0,
                    top_k: 0,
                    top_p_milli: 1000,
                    max_tokens: 64,
                },
                seed: [0; 32],
                stop: StopSequences::default(),
                constraint: None,
            },
            tokens: vec![2; output],
        }
    }

    #[test]
    fn long_replays_side_by_side_take_no_more_memory_than_is_meant_for_them() {
        let most = POSITIONS_IN_FLIGHT_MAX;
        let inputs = [
            // Output beyond what was asked for is never taken in.
            input(most / 2 - 64, 1 << 20),
            input(most / 2 - 64, 64),
            input(1000, 0),
            input(2 * most, 0),
            input(600, 0),
            input(600, 0),
            input(600, 0),
        ];
        let groups = replay_groups(&inputs);
        assert_eq!(groups.len(), 7);
        let counts = |threads| -> Vec<usize> {
            let rounds = rounds(&groups, threads);
            rounds.iter().map(|round| round.len()).collect()
        };
        assert_eq!(counts(16), [2, 1, 1, 3]);
        assert_eq!(counts(2), [2, 1, 1, 2, 1]);
        assert_eq!(counts(1), [1; 7]);
    }

    #[test]
    fn many_short_replays_count_as_the_room_that_their_caches_take() {
        let inputs = vec![input(1, 1); 1024];
        let groups = replay_groups(&inputs);
        assert_eq!(groups.len(), 4);
        // Each has 256 of them, and each of these takes room for 64 positions.
        let rounds = rounds(&groups, 16);
        let counts: Vec<usize> = rounds.iter().map(|round| round.len()).collect();
        assert_eq!(counts, [2, 2]);
    }
}
