//! Why a model or a request is refused.

/// Refusals of the engine. They name fields and limits, never prompts.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The file could not be read.
    #[error("cannot read the model file: {0}")]
    Read(#[from] std::io::Error),
    /// The bytes are not a model of this format.
    #[error("not a Dovetail model: {0}")]
    Format(&'static str),
    /// The model is well-formed but outside what the arithmetic is proven for.
    #[error("unsupported model: {0}")]
    Unsupported(&'static str),
    /// The model's `tokenizer.json` is none that this engine takes.
    #[error("the tokenizer is not taken: {0}")]
    Tokenizer(String),
    /// The prompt leaves no room for output.
    #[error("the prompt has {prompt} tokens, which leaves no room in a context of {context}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The prompt is empty or names a token that the model does not have.
    #[error("the prompt is empty or has a token outside the vocabulary")]
    PromptInvalid,
    /// The system starts no threads.
    #[error("cannot start the engine's threads; lower their number or raise the process's limit")]
    Threads,
    /// A sampling parameter is out of its bounds.
    #[error(transparent)]
    Sampling(#[from] dovetail_commitment::SamplingError),
    /// The form that is asked for is none that is followed. Its words may quote it: they are for who asked.
    #[error(transparent)]
    Constraint(#[from] dovetail_guide::GuideError),
}

/// What is said of a tokenizer has at most this many letters: its words may come from a stranger's file.
const REASON_LETTERS_MAX: usize = 200;

impl EngineError {
    /// Whether this machine could not do its part, and the request may be as good as any: the same one may be taken later,
    /// or elsewhere.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(
            self,
            Self::Constraint(dovetail_guide::GuideError::Unavailable)
                | Self::Read(_)
                | Self::Threads
        )
    }

    pub(crate) fn tokenizer(reason: &str) -> Self {
        let reason = reason.escape_debug().take(REASON_LETTERS_MAX);
        Self::Tokenizer(reason.collect())
    }
}
