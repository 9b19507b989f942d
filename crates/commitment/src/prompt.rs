//! A prompt as a task has it: the tokens that the model takes in, and a digest of the text that they were made of.
//!
//! The pool makes tokens of a text, once. A worker and a replay take in these tokens, and no text. The commitment covers
//! both, so whoever has the text and the model's tokenizer can hold the pool to its encoding.

use crate::ids::{PromptCommitment, TextDigest};
use crate::tagged_hash::tagged_hash;
use crate::{Constraint, StopSequences};

/// The longest prompt, in bytes: of its text, and of its tokens at four bytes each. It is the one limit of the
/// extension, the pool, its API and the agent's commands. Agents' first requests have some 50 kB; five times that leaves
/// room, and a task still fits a few Noise messages.
pub const PROMPT_BYTES_MAX: usize = 256 * 1024;
/// The bytes of a token, wherever tokens are packed.
const TOKEN_BYTES: usize = 4;
/// The most tokens of a prompt.
pub const PROMPT_TOKENS_MAX: usize = PROMPT_BYTES_MAX / TOKEN_BYTES;

/// A prompt's tokens, with the digest of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    text: TextDigest,
    /// 1 to [`PROMPT_TOKENS_MAX`].
    tokens: Vec<u32>,
}

/// A prompt out of its bounds, or bytes that encode none. No message holds anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The text is too long.
    #[error("a prompt has at most {PROMPT_BYTES_MAX} bytes")]
    Text,
    /// No token.
    #[error("the prompt has no token")]
    Empty,
    /// Too many tokens.
    #[error("a prompt has at most {PROMPT_TOKENS_MAX} tokens")]
    Tokens,
    /// Not what [`EncodedPrompt::encode`] writes.
    #[error("the encoding of the prompt is damaged")]
    Encoding,
}

/// What a commitment has of a prompt's text.
pub fn text_digest(text: &[u8]) -> TextDigest {
    TextDigest::from_bytes(tagged_hash("dovetail/text", &[text]))
}

impl EncodedPrompt {
    /// The prompt of this text, of which these tokens were made.
    ///
    /// # Errors
    /// A text or a number of tokens out of bounds. Whether a model has the tokens is not known here.
    pub fn new(text: &[u8], tokens: Vec<u32>) -> Result<Self, PromptError> {
        if text.len() > PROMPT_BYTES_MAX {
            return Err(PromptError::Text);
        }
        Self::from_parts(text_digest(text), tokens)
    }

    /// As [`EncodedPrompt::new`], for those who do not have the text.
    ///
    /// # Errors
    /// A number of tokens out of bounds.
    pub fn from_parts(text: TextDigest, tokens: Vec<u32>) -> Result<Self, PromptError> {
        match tokens.len() {
            0 => Err(PromptError::Empty),
            1..=PROMPT_TOKENS_MAX => Ok(Self { text, tokens }),
            _ => Err(PromptError::Tokens),
        }
    }

    /// The digest of the text.
    pub fn text(&self) -> &TextDigest {
        &self.text
    }

    /// The tokens: `[len]`, never empty.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens, four bytes each, little-endian.
    pub fn packed_tokens(&self) -> Vec<u8> {
        let bytes = self.tokens.iter().flat_map(|token| token.to_le_bytes());
        bytes.collect()
    }

    /// Reads what [`EncodedPrompt::packed_tokens`] wrote.
    ///
    /// # Errors
    /// [`PromptError`] for a number of tokens out of bounds, and for bytes that are no whole tokens.
    pub fn from_packed(text: TextDigest, tokens: &[u8]) -> Result<Self, PromptError> {
        // Before memory is taken.
        if tokens.len() > PROMPT_BYTES_MAX {
            return Err(PromptError::Tokens);
        }
        let (whole, []) = tokens.as_chunks::<TOKEN_BYTES>() else {
            return Err(PromptError::Encoding);
        };
        let tokens = whole.iter().map(|token| u32::from_le_bytes(*token));
        Self::from_parts(text, tokens.collect())
    }

    /// The digest of the text, then the tokens as [`EncodedPrompt::packed_tokens`] has them: what the pool keeps.
    pub fn encode(&self) -> Vec<u8> {
        [self.text.as_bytes().as_slice(), &self.packed_tokens()].concat()
    }

    /// Reads what [`EncodedPrompt::encode`] wrote, and nothing else.
    ///
    /// # Errors
    /// As [`EncodedPrompt::from_packed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, PromptError> {
        let (text, tokens) = bytes.split_first_chunk().ok_or(PromptError::Encoding)?;
        Self::from_packed(TextDigest::from_bytes(*text), tokens)
    }
}

impl std::fmt::Debug for EncodedPrompt {
    // Tokens say what the text says, and short texts can be guessed from their digest: both stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a prompt of {} tokens", self.tokens.len())
    }
}

/// The salted commitment to a prompt, text and tokens, with its stop sequences and its constraint. The salt keeps short
/// prompts from being guessed. Each part but the last says its own length.
pub fn prompt_commitment(
    salt: &[u8; 32],
    stop: &StopSequences,
    constraint: Option<&Constraint>,
    prompt: &EncodedPrompt,
) -> PromptCommitment {
    let (stop, constraint) = (stop.encode(), Constraint::encode_optional(constraint));
    let (text, tokens) = (prompt.text.as_bytes(), prompt.packed_tokens());
    let parts: [&[u8]; 5] = [salt, &stop, &constraint, text, &tokens];
    PromptCommitment::from_bytes(tagged_hash("dovetail/encoded-prompt", &parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Form;
    use proptest::prelude::*;

    fn prompt(text: &[u8], tokens: &[u32]) -> EncodedPrompt {
        EncodedPrompt::new(text, tokens.to_vec()).unwrap()
    }

    #[test]
    fn the_commitment_covers_text_tokens_stop_sequences_and_constraint_each() {
        let of = |stop: &[&str], constraint: Option<Constraint>, prompt: &EncodedPrompt| {
            let stop = stop.iter().map(|stop| stop.as_bytes().to_vec()).collect();
            let stop = StopSequences::new(stop).unwrap();
            prompt_commitment(&[4; 32], &stop, constraint.as_ref(), prompt)
        };
        let constraint = |guide: &str, form: Form| Constraint::for_guide(guide, form).ok();
        let regex = |text: &str| Form::Regex(text.to_owned());
        let one = prompt(b"prompt", &[1, 2]);
        let all = [
            of(&[], None, &one),
            of(&["prompt"], None, &one),
            of(&[], None, &prompt(b"prompts", &[1, 2])),
            of(&[], None, &prompt(b"prompt", &[1, 3])),
            of(&[], None, &prompt(b"prompt", &[1, 2, 0])),
            of(&[], constraint("guide-1", regex("abc")), &one),
            of(&[], constraint("guide-2", regex("abc")), &one),
            of(&[], constraint("guide-1", regex("abd")), &one),
            of(
                &[],
                constraint("guide-1", Form::JsonSchema("abc".to_owned())),
                &one,
            ),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        let text = text_digest(b"prompt");
        let parts: [&[u8]; 5] = [
            &[4; 32],
            &[0],
            &[0],
            text.as_bytes(),
            &[1, 0, 0, 0, 2, 0, 0, 0],
        ];
        let expected = tagged_hash("dovetail/encoded-prompt", &parts);
        assert_eq!(all[0].to_bytes(), expected);
    }

    #[test]
    fn prompts_out_of_bounds_are_refused() {
        let of = |text: usize, tokens: usize| {
            EncodedPrompt::new(&vec![b'x'; text], vec![7; tokens]).err()
        };
        assert_eq!(of(PROMPT_BYTES_MAX, PROMPT_TOKENS_MAX), None);
        assert_eq!(of(0, 1), None);
        assert_eq!(of(PROMPT_BYTES_MAX + 1, 1), Some(PromptError::Text));
        assert_eq!(of(1, 0), Some(PromptError::Empty));
        assert_eq!(of(1, PROMPT_TOKENS_MAX + 1), Some(PromptError::Tokens));
        let text = text_digest(b"x");
        let packed = |bytes: usize| EncodedPrompt::from_packed(text, &vec![0; bytes]).err();
        assert_eq!(packed(PROMPT_BYTES_MAX), None);
        assert_eq!(packed(PROMPT_BYTES_MAX + 4), Some(PromptError::Tokens));
        assert_eq!(packed(7), Some(PromptError::Encoding));
        assert_eq!(packed(0), Some(PromptError::Empty));
    }

    #[test]
    fn what_is_shown_of_one_is_its_length() {
        assert_eq!(
            format!("{:?}", prompt(b"secret", &[7, 8])),
            "a prompt of 2 tokens"
        );
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text: Vec<u8>, tokens in proptest::collection::vec(any::<u32>(), 1..50)) {
            let prompt = prompt(&text, &tokens);
            prop_assert_eq!(prompt.encode().len(), 32 + 4 * tokens.len());
            prop_assert_eq!(EncodedPrompt::decode(&prompt.encode()), Ok(prompt));
        }

        #[test]
        fn any_other_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(prompt) = EncodedPrompt::decode(&bytes) {
                prop_assert_eq!(prompt.encode(), bytes);
            }
        }
    }
}
