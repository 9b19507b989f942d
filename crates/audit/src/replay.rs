//! Replaying what a transcript claims. Exact: one bit of difference is a mismatch, and an honest
//! worker cannot have one.

use dovetail_commitment::{
    Constraint, EncodedPrompt, FinishReason, GUIDE, StopSequences, Transcript, output_digest,
    prompt_commitment, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, EngineError, Model, Output, ReplayInput, Request, Runtime};

/// A transcript with what is needed to compute it again. No `Debug`: it holds a prompt.
#[derive(Clone)]
pub struct Evidence {
    /// What the worker committed to.
    pub transcript: Transcript,
    /// The salt of the prompt's commitment.
    pub salt: [u8; 32],
    /// The prompt as the pool assigned it. Its tokens are taken in as they are: no replay encodes a text, so none depends
    /// on what a tokenizer makes of it today.
    pub prompt: EncodedPrompt,
    /// Its stop sequences.
    pub stop: StopSequences,
    /// Its constraint.
    pub constraint: Option<Constraint>,
    /// The tokens as the worker delivered them.
    pub output_tokens: Vec<u32>,
}

impl Evidence {
    /// Whether this release can replay it at all: another version of the arithmetic gives other bits, and a constraint
    /// for another guide means other masks. What cannot be replayed says nothing about its worker.
    pub fn is_replayable(&self) -> bool {
        let constraint = self.constraint.as_ref();
        self.transcript.engine_version == ENGINE_VERSION
            && constraint.is_none_or(|constraint| constraint.guide() == GUIDE)
    }
}

impl AsRef<Self> for Evidence {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The first thing that does not hold, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The transcript names another model than the one it is replayed on.
    #[error("the transcript is of another model")]
    Model,
    /// Made with another version of the arithmetic.
    #[error("the transcript is of another engine version")]
    EngineVersion,
    /// The commitment is not to the assigned prompt, text and tokens.
    #[error("the transcript commits to another prompt")]
    Prompt,
    /// The request cannot be run at all, so no honest worker has run it.
    #[error("the transcript's request cannot be run")]
    Request,
    /// The tokens differ.
    #[error("the output differs at position {position}")]
    Tokens {
        /// The first position that differs.
        position: usize,
    },
    /// The output is shorter or longer.
    #[error("the output has another length")]
    Length,
    /// It ended for another reason.
    #[error("the output ended for another reason")]
    FinishReason,
    /// The digest is not of these tokens.
    #[error("the output's digest differs")]
    OutputDigest,
    /// The hidden states differ: the tokens did not come from this computation.
    #[error("the trace differs")]
    Trace,
}

impl Mismatch {
    /// A short word for records.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::EngineVersion => "engine-version",
            Self::Prompt => "prompt",
            Self::Request => "request",
            Self::Tokens { .. } => "tokens",
            Self::Length => "length",
            Self::FinishReason => "finish-reason",
            Self::OutputDigest => "output-digest",
            Self::Trace => "trace",
        }
    }

    /// Where the output differs, if that is what is wrong.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Tokens { position } => Some(*position),
            _ => None,
        }
    }

    /// Reads what [`Mismatch::code`] and [`Mismatch::position`] gave.
    pub fn from_parts(code: &str, position: Option<usize>) -> Option<Self> {
        [
            Self::Model,
            Self::EngineVersion,
            Self::Prompt,
            Self::Request,
            Self::Tokens {
                position: position.unwrap_or(0),
            },
            Self::Length,
            Self::FinishReason,
            Self::OutputDigest,
            Self::Trace,
        ]
        .into_iter()
        .find(|mismatch| mismatch.code() == code && mismatch.position() == position)
    }
}

/// What a replay gave: digests, never content. A replay goes as far as it agrees with the claim, so
/// where tokens differ it ends with the first that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// How many tokens it gave.
    pub tokens: u32,
    /// The digest of these.
    pub output_digest: [u8; 32],
    /// The root of their trace.
    pub trace_root: [u8; 32],
}

impl Replayed {
    fn of(output: &Output) -> Self {
        Self {
            tokens: u32::try_from(output.tokens.len()).unwrap_or(u32::MAX),
            output_digest: output_digest(&output.tokens),
            trace_root: trace_root(&output.trace),
        }
    }
}

/// A mismatch, with what came out instead where something was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// What does not hold.
    pub mismatch: Mismatch,
    /// What the replay gave; `None` if the claim fell before anything was computed.
    pub replayed: Option<Replayed>,
}

impl From<Mismatch> for Finding {
    fn from(mismatch: Mismatch) -> Self {
        Self {
            mismatch,
            replayed: None,
        }
    }
}

/// What a replay says about one transcript.
pub type Verdict = Result<(), Finding>;

/// The machine that replays could not do its part, such as start a thread. That says nothing about any transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this machine could not replay the transcripts now")]
pub struct NotReplayed;

/// Replays transcripts on `model`, all in one go: several times cheaper than generating them was.
/// The verdicts are in their order. A mismatch is to be replayed a second time before it counts, so
/// that a fault of the auditor's own machine punishes nobody.
///
/// # Errors
/// [`NotReplayed`]: there are no verdicts, and the transcripts may be replayed later, or elsewhere.
pub fn replay<E: AsRef<Evidence>>(
    runtime: &Runtime,
    model: &Model,
    evidence: &[E],
) -> Result<Vec<Verdict>, NotReplayed> {
    let evidence = evidence.iter().map(AsRef::as_ref);
    let inputs: Vec<Result<ReplayInput, Mismatch>> = evidence
        .clone()
        .map(|evidence| replay_input(model, evidence))
        .collect();
    let sound: Vec<ReplayInput> = inputs.iter().flatten().cloned().collect();
    let mut outputs = dovetail_engine::replay(runtime, model, &sound).into_iter();
    evidence
        .zip(inputs)
        .map(|(evidence, input)| match input {
            Ok(_) => verdict(evidence, outputs.next().ok_or(NotReplayed)?),
            Err(mismatch) => Ok(Err(mismatch.into())),
        })
        .collect()
}

/// What a computation says about the transcript that it repeats.
fn verdict(
    evidence: &Evidence,
    output: Result<Output, EngineError>,
) -> Result<Verdict, NotReplayed> {
    Ok(match output {
        Ok(output) => compare(evidence, &output).map_err(|mismatch| Finding {
            mismatch,
            replayed: Some(Replayed::of(&output)),
        }),
        Err(error) if error.is_of_the_machine() => return Err(NotReplayed),
        Err(_) => Err(Mismatch::Request.into()),
    })
}

/// What has to be computed again, once everything that needs no computing holds.
fn replay_input(model: &Model, evidence: &Evidence) -> Result<ReplayInput, Mismatch> {
    let transcript = &evidence.transcript;
    let tokens = &evidence.output_tokens;
    if transcript.model_id != model.id() {
        return Err(Mismatch::Model);
    }
    if transcript.engine_version != ENGINE_VERSION {
        return Err(Mismatch::EngineVersion);
    }
    if transcript.prompt_commitment
        != prompt_commitment(
            &evidence.salt,
            &evidence.stop,
            evidence.constraint.as_ref(),
            &evidence.prompt,
        )
    {
        return Err(Mismatch::Prompt);
    }
    if transcript.output_tokens as usize != tokens.len() {
        return Err(Mismatch::Length);
    }
    if transcript.output_digest != output_digest(tokens) {
        return Err(Mismatch::OutputDigest);
    }
    let mut sampling = transcript.sampling;
    if transcript.finish_reason == FinishReason::Cancelled {
        // A prefix: exactly these tokens, as if no more had been asked for. No choice depends on how many are.
        sampling.max_tokens = sampling.max_tokens.min(transcript.output_tokens);
    }
    Ok(ReplayInput {
        request: Request {
            prompt_tokens: evidence.prompt.tokens().to_vec(),
            sampling,
            seed: transcript.seed,
            stop: evidence.stop.clone(),
            constraint: evidence.constraint.clone(),
        },
        tokens: tokens.clone(),
    })
}

/// Holds what came out against what is claimed.
fn compare(evidence: &Evidence, output: &Output) -> Result<(), Mismatch> {
    let (transcript, tokens) = (&evidence.transcript, &evidence.output_tokens);
    let differs = output.tokens.iter().zip(tokens).position(|(a, b)| a != b);
    if let Some(position) = differs {
        return Err(Mismatch::Tokens { position });
    }
    if output.tokens.len() != tokens.len() {
        return Err(Mismatch::Length);
    }
    // Of a prefix nobody asks what would have come next, nor whether it was the end.
    if transcript.finish_reason != FinishReason::Cancelled
        && output.finish_reason != transcript.finish_reason
    {
        return Err(Mismatch::FinishReason);
    }
    if trace_root(&output.trace) != transcript.trace_root {
        return Err(Mismatch::Trace);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
