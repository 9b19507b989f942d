//! A completion before and after: what fixes it, and what comes of it.

use dovetail_commitment::{Constraint, FinishReason, SamplingParams, StopSequences};

use crate::EngineError;
use crate::model::Model;

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
    /// The form that the output must have, if any: [`Model::check_constraint`] says whether it is one that is followed.
    pub constraint: Option<Constraint>,
}

impl Request {
    pub(crate) fn check(&self, model: &Model) -> Result<(), EngineError> {
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
