//! What a worker commits to before it hashes, and what a receipt proves afterwards: transcripts,
//! batches, the coinbase output that carries a batch's root, receipts.
//!
//! Pure functions over bytes: no I/O, no clock, no randomness, and no knowledge of Sv2.

pub mod block;
pub mod coinbase;
mod constraint;
mod ids;
mod merkle;
mod prompt;
pub mod receipt;
mod signature;
mod stop;
mod tagged_hash;
mod transcript;

pub use constraint::{
    CHOICES_MAX, CONSTRAINT_BYTES_MAX, Constraint, ConstraintError, Form, GUIDE, GUIDE_BYTES_MAX,
    REGEX_BYTES_MAX,
};
pub use ids::{
    BatchRoot, HeaderHash, IdError, LeafHash, ModelId, PromptCommitment, TaskId, TextDigest,
    WorkerKey,
};
pub use merkle::{
    BATCH_LEAVES_MAX, BATCH_TOKENS_MAX, Batch, BatchError, InclusionProof, PROOF_STEPS_MAX,
    trace_root,
};
pub use prompt::{
    EncodedPrompt, PROMPT_BYTES_MAX, PROMPT_TOKENS_MAX, PromptError, prompt_commitment, text_digest,
};
pub use signature::is_signed;
pub use stop::{STOP_SEQUENCE_BYTES_MAX, STOP_SEQUENCES_MAX, StopError, StopSequences};
pub use tagged_hash::tagged_hash;
pub use transcript::{
    FinishReason, OUTPUT_TOKENS_MAX, SamplingError, SamplingParams, Transcript, TranscriptError,
    output_digest,
};
