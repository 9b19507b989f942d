//! A transcript: everything that fixes one completion, so that replaying it must give the same
//! bits. Its encoding has a fixed order and length; its tagged hash is the leaf of a batch.

use crate::ids::{LeafHash, ModelId, PromptCommitment, TaskId, WorkerKey};
use crate::tagged_hash::tagged_hash;

/// The version of the encoding.
const VERSION: u8 = 1;

/// The longest output that can be asked for, in tokens.
pub const OUTPUT_TOKENS_MAX: u32 = 4096;

/// How tokens are chosen, in integers. Little-endian on the wire and in the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplingParams {
    /// Thousandths; 0 chooses the likeliest token always. At most 2000.
    pub temperature_milli: u32,
    /// Choose among this many likeliest tokens; 0: no such limit.
    pub top_k: u32,
    /// Choose among the likeliest tokens that together reach this many thousandths, 1..=1000.
    pub top_p_milli: u32,
    /// The longest output, 1..=[`OUTPUT_TOKENS_MAX`] tokens.
    pub max_tokens: u32,
}

/// A sampling parameter out of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SamplingError {
    /// More than 2000.
    #[error("temperature_milli must be at most 2000")]
    Temperature,
    /// Zero, or more than 1000.
    #[error("top_p_milli must lie in 1..=1000")]
    TopP,
    /// Zero, or more than [`OUTPUT_TOKENS_MAX`].
    #[error("max_tokens must lie in 1..={OUTPUT_TOKENS_MAX}")]
    MaxTokens,
}

impl SamplingParams {
    /// The bytes of the encoding.
    pub const ENCODED_LEN: usize = 16;

    /// Checks the bounds.
    ///
    /// # Errors
    /// The first parameter that is out of them.
    pub fn validate(&self) -> Result<(), SamplingError> {
        if self.temperature_milli > 2000 {
            return Err(SamplingError::Temperature);
        }
        if !(1..=1000).contains(&self.top_p_milli) {
            return Err(SamplingError::TopP);
        }
        if !(1..=OUTPUT_TOKENS_MAX).contains(&self.max_tokens) {
            return Err(SamplingError::MaxTokens);
        }
        Ok(())
    }

    /// Four little-endian `u32` in the order of the fields.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        let fields = [
            self.temperature_milli,
            self.top_k,
            self.top_p_milli,
            self.max_tokens,
        ];
        for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }
}

/// Why the output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FinishReason {
    /// The model ended it.
    Stop = 0,
    /// It reached its limit or the model's context.
    Length = 1,
    /// The agent stopped it.
    Cancelled = 2,
    /// No token of the model goes on with the form that was asked for, or the guide gave up on it.
    ConstraintUnmet = 3,
}

impl FinishReason {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Stop,
            Self::Length,
            Self::Cancelled,
            Self::ConstraintUnmet,
        ]
        .into_iter()
        .find(|reason| *reason as u8 == byte)
    }
}

/// Everything that fixes one completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The task that was run.
    pub task_id: TaskId,
    /// Who ran it.
    pub worker_key: WorkerKey,
    /// The model.
    pub model_id: ModelId,
    /// The version of the arithmetic.
    pub engine_version: u16,
    /// [`prompt_commitment`](crate::prompt_commitment) of the prompt, its stop sequences and its constraint.
    pub prompt_commitment: PromptCommitment,
    /// How tokens were chosen.
    pub sampling: SamplingParams,
    /// The seed of the sampling.
    pub seed: [u8; 32],
    /// How many tokens came out.
    pub output_tokens: u32,
    /// [`output_digest`] of them.
    pub output_digest: [u8; 32],
    /// [`crate::trace_root`] of the digests of the final hidden states.
    pub trace_root: [u8; 32],
    /// Why the output ended.
    pub finish_reason: FinishReason,
}

/// Why bytes are not a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranscriptError {
    /// Too short or too long.
    #[error("a transcript has {} bytes", Transcript::ENCODED_LEN)]
    Length,
    /// A version that this code does not know.
    #[error("unknown transcript version {0}")]
    Version(u8),
    /// Not a finish reason.
    #[error("unknown finish reason {0}")]
    FinishReason(u8),
    /// A sampling parameter out of its bounds.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
}

impl Transcript {
    /// The bytes of the encoding.
    pub const ENCODED_LEN: usize =
        1 + 32 * 3 + 2 + 32 + SamplingParams::ENCODED_LEN + 32 + 4 + 32 * 2 + 1;

    /// Version, then the fields in their order, integers little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::ENCODED_LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(self.task_id.as_bytes());
        bytes.extend_from_slice(self.worker_key.as_bytes());
        bytes.extend_from_slice(self.model_id.as_bytes());
        bytes.extend_from_slice(&self.engine_version.to_le_bytes());
        bytes.extend_from_slice(self.prompt_commitment.as_bytes());
        bytes.extend_from_slice(&self.sampling.encode());
        bytes.extend_from_slice(&self.seed);
        bytes.extend_from_slice(&self.output_tokens.to_le_bytes());
        bytes.extend_from_slice(&self.output_digest);
        bytes.extend_from_slice(&self.trace_root);
        bytes.push(self.finish_reason as u8);
        bytes
    }

    /// Reads what [`Transcript::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// [`TranscriptError`] for any other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, TranscriptError> {
        let mut reader = Reader(bytes);
        let [version] = reader.take()?;
        if version != VERSION {
            return Err(TranscriptError::Version(version));
        }
        let transcript = Self {
            task_id: TaskId::from_bytes(reader.take()?),
            worker_key: WorkerKey::from_bytes(reader.take()?),
            model_id: ModelId::from_bytes(reader.take()?),
            engine_version: u16::from_le_bytes(reader.take()?),
            prompt_commitment: PromptCommitment::from_bytes(reader.take()?),
            sampling: SamplingParams {
                temperature_milli: reader.u32()?,
                top_k: reader.u32()?,
                top_p_milli: reader.u32()?,
                max_tokens: reader.u32()?,
            },
            seed: reader.take()?,
            output_tokens: reader.u32()?,
            output_digest: reader.take()?,
            trace_root: reader.take()?,
            finish_reason: {
                let [byte] = reader.take()?;
                FinishReason::from_byte(byte).ok_or(TranscriptError::FinishReason(byte))?
            },
        };
        if !reader.0.is_empty() {
            return Err(TranscriptError::Length);
        }
        transcript.sampling.validate()?;
        Ok(transcript)
    }

    /// The leaf that stands for it in a batch.
    pub fn leaf(&self) -> LeafHash {
        LeafHash::from_bytes(tagged_hash("dovetail/transcript", &[&self.encode()]))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], TranscriptError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(TranscriptError::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, TranscriptError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
}

/// The digest of output tokens: each as a little-endian `u32`.
pub fn output_digest(tokens: &[u32]) -> [u8; 32] {
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    tagged_hash("dovetail/output", &[&bytes])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::prompt::{EncodedPrompt, prompt_commitment};
    use crate::stop::StopSequences;
    use proptest::prelude::*;

    /// The prompt of [`example`].
    pub(crate) fn prompt() -> EncodedPrompt {
        EncodedPrompt::new(b"prompt", vec![256, 112, 114]).unwrap()
    }

    pub(crate) fn example(n: u8) -> Transcript {
        Transcript {
            task_id: TaskId::from_bytes([n; 32]),
            worker_key: WorkerKey::from_bytes([2; 32]),
            model_id: ModelId::from_bytes([3; 32]),
            engine_version: 1,
            prompt_commitment: prompt_commitment(
                &[4; 32],
                &StopSequences::default(),
                None,
                &prompt(),
            ),
            sampling: SamplingParams {
                temperature_milli: 700,
                top_k: 40,
                top_p_milli: 950,
                max_tokens: 64,
            },
            seed: [5; 32],
            output_tokens: 3,
            output_digest: output_digest(&[1, 2, 3]),
            trace_root: [6; 32],
            finish_reason: FinishReason::Stop,
        }
    }

    #[test]
    fn the_leaf_of_version_1_never_changes() {
        assert_eq!(example(1).encode().len(), Transcript::ENCODED_LEN);
        assert_eq!(
            example(1).leaf().to_string(),
            "432928d211aaed8c7680e9acd83b154e0c55aec4e6ad8ee3f3d576740fc00aea"
        );
    }

    proptest! {
        #[test]
        fn any_other_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(transcript) = Transcript::decode(&bytes) {
                prop_assert_eq!(transcript.encode(), bytes);
            }
        }

        #[test]
        fn a_flipped_byte_never_decodes_to_the_same_transcript(at in 0..Transcript::ENCODED_LEN, mask in 1_u8..) {
            let mut bytes = example(1).encode();
            bytes[at] ^= mask;
            prop_assert_ne!(Transcript::decode(&bytes).ok(), Some(example(1)));
        }
    }
}
