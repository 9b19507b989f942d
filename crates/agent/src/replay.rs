//! Computing an answer again on the user's own machine, bit for bit: by the code that a pool's validators run
//! (`dovetail_audit`), from what the agent kept and the model's file. The rules are those of docs/audit.md.
//!
//! What is replayed may come from a stranger. It is held against the model's bounds before anything is computed, and
//! computing goes no further than the model's context and the longest output.

use std::path::Path;
use std::time::{Duration, Instant};

use dovetail_audit::{Evidence, Finding, Mismatch, NotReplayed, Verdict};
use dovetail_commitment::{FinishReason, ModelId};
use dovetail_engine::{ENGINE_VERSION, EngineError, Model, Runtime};
use serde::Serialize;

use crate::AgentError;

/// So much of a model's id is enough for a person to know it by.
const SHORT_ID_DIGITS: usize = 16;

const OTHER_MODEL: &str = "the model file is of another model than the receipt";
const OTHER_GUIDE: &str = "this release follows forms with another guide than the receipt names";
const NOT_NOW: &str = "this machine could not replay it now";
const UNRELIABLE: &str =
    "two replays on this machine came out differently: the machine is at fault";

/// A model on this machine, to compute answers with.
pub struct Replayer {
    runtime: Runtime,
    model: Model,
}

/// What was replayed, and how it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// How it came out.
    #[serde(flatten)]
    pub outcome: ReplayOutcome,
    /// The model.
    pub model_id: ModelId,
    /// The seed of the answer: 64 hex digits.
    pub seed: String,
    /// How many tokens the model takes in as the prompt.
    pub input_tokens: usize,
    /// How many tokens the answer has.
    pub output_tokens: usize,
    /// Why the answer is said to have ended, in the words of `dovetail ask --json`.
    pub finish_reason: &'static str,
    /// How long it took on this machine, in milliseconds.
    pub took_ms: u64,
    /// All of it for people.
    pub sentence: String,
}

/// How a replay came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum ReplayOutcome {
    /// The same tokens, the same end, and the same hidden states on the way.
    Same,
    /// Not the same, in two replays alike.
    Differs {
        /// What differs, in a word of the pools' own audit: `tokens`, `length`, `finish-reason`, `trace`, `engine-version`, or
        /// `request` where the model takes no such request.
        what: &'static str,
        /// The first position of the output that differs, counted from 0; none where no token does.
        position: Option<usize>,
    },
    /// Nothing can be said of the answer.
    NotDone {
        /// Why not.
        why: &'static str,
    },
}

impl Replayer {
    /// Loads a model's file, to compute on so many threads; 0 takes one per core. It takes the memory of all weights.
    ///
    /// # Errors
    /// [`AgentError::ModelFile`]: the file cannot be read, is damaged, or was made for another version of the arithmetic; or
    /// the system starts no threads.
    pub fn load(path: &Path, threads: usize) -> Result<Self, AgentError> {
        let failed = |source| AgentError::ModelFile {
            path: path.to_owned(),
            source,
        };
        Ok(Self {
            runtime: Runtime::new(threads).map_err(failed)?,
            model: Model::load(path).map_err(failed)?,
        })
    }

    /// The model.
    pub fn model_id(&self) -> ModelId {
        self.model.id()
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// As [`Model::encode`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.model.encode(text)
    }

    /// Computes the answer again, and once more where it comes out differently: a faulty machine accuses nobody. With it the
    /// reason in words, if it differs.
    pub(crate) fn replay(&self, evidence: &Evidence) -> (Replay, Option<String>) {
        let begun = Instant::now();
        let (outcome, why) = self.outcome(evidence);
        let replay = describe(evidence, outcome, why.as_deref(), begun.elapsed());
        (replay, why)
    }

    fn outcome(&self, evidence: &Evidence) -> (ReplayOutcome, Option<String>) {
        let not_done = |why| (ReplayOutcome::NotDone { why }, None);
        let transcript = &evidence.transcript;
        if transcript.model_id != self.model.id() {
            return not_done(OTHER_MODEL);
        }
        // The model's id covers the version, so a transcript that names another one is false. A guide is no part of the id.
        if transcript.engine_version == ENGINE_VERSION && !evidence.is_replayable() {
            return not_done(OTHER_GUIDE);
        }
        if let Some(why) = self.beyond_bounds(evidence) {
            return differs(Mismatch::Request, None, why);
        }
        match self.verdict(evidence) {
            Err(NotReplayed) => not_done(NOT_NOW),
            Ok(Ok(())) => (ReplayOutcome::Same, None),
            Ok(Err(finding)) => match self.verdict(evidence) {
                Err(NotReplayed) => not_done(NOT_NOW),
                Ok(again) if again != Err(finding) => not_done(UNRELIABLE),
                Ok(_) => {
                    let position = first_difference(&finding, evidence.output_tokens.len());
                    differs(finding.mismatch, position, in_words(&finding, position))
                }
            },
        }
    }

    fn verdict(&self, evidence: &Evidence) -> Result<Verdict, NotReplayed> {
        let mut verdicts = dovetail_audit::replay(&self.runtime, &self.model, &[evidence])?;
        verdicts.pop().ok_or(NotReplayed)
    }

    /// Why the model takes no such prompt.
    fn beyond_bounds(&self, evidence: &Evidence) -> Option<String> {
        let vocabulary = self.model.manifest().architecture.vocabulary;
        let context = self.model.context_tokens();
        let prompt = evidence.prompt.tokens();
        let is_unknown = |token: &u32| usize::try_from(*token).map_or(true, |n| n >= vocabulary);
        if prompt.len() >= context {
            return Some(format!(
                "the prompt has {} tokens, which leaves no room in the model's context of {context}",
                prompt.len()
            ));
        }
        let place = prompt.iter().position(is_unknown)?;
        Some(format!(
            "token {place} of the prompt is none of the model's {vocabulary}"
        ))
    }
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replayer({})", self.model.id())
    }
}

fn differs(
    mismatch: Mismatch,
    position: Option<usize>,
    why: String,
) -> (ReplayOutcome, Option<String>) {
    let what = mismatch.code();
    (ReplayOutcome::Differs { what, position }, Some(why))
}

/// Where the outputs part: at a token, or where one of them ends and the other does not.
fn first_difference(finding: &Finding, claimed: usize) -> Option<usize> {
    match (finding.mismatch, finding.replayed) {
        (Mismatch::Tokens { position }, _) => Some(position),
        (Mismatch::Length, Some(replayed)) => {
            let replayed = usize::try_from(replayed.tokens).unwrap_or(usize::MAX);
            Some(replayed.min(claimed))
        }
        _ => None,
    }
}

fn in_words(finding: &Finding, position: Option<usize>) -> String {
    match (finding.mismatch, position) {
        (Mismatch::Length, Some(position)) => {
            format!("the output differs at position {position}, where only one of the two ends")
        }
        (mismatch, _) => mismatch.to_string(),
    }
}

fn describe(
    evidence: &Evidence,
    outcome: ReplayOutcome,
    why: Option<&str>,
    took: Duration,
) -> Replay {
    let transcript = &evidence.transcript;
    let output_tokens = evidence.output_tokens.len();
    let seed = hex::encode(transcript.seed);
    let id = transcript.model_id.to_string();
    let id = id.get(..SHORT_ID_DIGITS).unwrap_or(&id);
    // Of an answer that was cancelled nobody asks what would have come next.
    let part = match transcript.finish_reason {
        FinishReason::Cancelled => "the beginning of what",
        _ => "what",
    };
    let of = format!(
        "{part} model {id} gives for your prompt, at seed {}",
        short(&seed)
    );
    let tokens = match output_tokens {
        1 => "This 1 token is".to_owned(),
        count => format!("These {count} tokens are"),
    };
    let sentence = match (outcome, why) {
        (ReplayOutcome::Same, _) => {
            format!("{tokens} {of}: computed again on this machine, bit for bit.")
        }
        (ReplayOutcome::NotDone { why }, _) => format!("The answer was not replayed: {why}."),
        (ReplayOutcome::Differs { what, .. }, why) => format!(
            "{tokens} not {of}: {}. The file is evidence of it: it holds the signed receipt and all that is needed to compute \
             the answer again. Keep it.",
            why.unwrap_or(what)
        ),
    };
    Replay {
        outcome,
        model_id: transcript.model_id,
        seed,
        input_tokens: evidence.prompt.tokens().len(),
        output_tokens,
        finish_reason: match transcript.finish_reason {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            FinishReason::ConstraintUnmet => "constraint_unmet",
        },
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        sentence,
    }
}

/// As `dovetail ask --seed` takes it: without the zeros in front.
fn short(seed: &str) -> &str {
    match seed.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}
