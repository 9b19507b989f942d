//! Text to tokens and back: by bytes, or with a `tokenizer.json` of Hugging Face's library.
//!
//! Only encoding is the library's. What a file may hold is a list of our own (`file.rs`), since files come
//! from strangers and encoding is a part of what an audit repeats. A token's bytes come from a table of our
//! own too, so that a stream of tokens is a stream of bytes, whatever the tokens are cut like.

mod alphabet;
mod file;
mod parts;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::EngineError;
use file::Names;

/// Begins every prompt of the byte tokenizer.
const BYTES_BEGIN: u32 = 256;
/// Ends an output of the byte tokenizer.
pub(crate) const BYTES_END: u32 = 257;
/// How many tokens the byte tokenizer has.
pub(crate) const BYTES_VOCABULARY: usize = 258;
/// A text has at most this many tokens a byte: one that normalisation lengthens has a few.
const TOKENS_PER_BYTE_MAX: usize = 8;
/// What a tokenizer may put around a text besides.
const TOKENS_AROUND_MAX: usize = 16;

/// A tokenizer with the bytes of each token.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    /// `None`: by bytes.
    library: Option<Box<tokenizers::Tokenizer>>,
    /// The bytes of each token; none for special ones.
    bytes: Vec<Box<[u8]>>,
    /// The special tokens, whose names the library takes for them wherever they stand.
    controls: Vec<(Box<str>, u32)>,
}

/// Whether a model of this vocabulary and these end tokens can be served with this `tokenizer.json`.
///
/// # Errors
/// [`EngineError::Tokenizer`] that says which part is not taken.
pub fn check_tokenizer(
    json: &[u8],
    vocabulary: usize,
    end_tokens: &[u32],
) -> Result<(), EngineError> {
    Tokenizer::from_json(json, vocabulary, end_tokens).map(drop)
}

impl Tokenizer {
    pub(crate) fn by_bytes() -> Self {
        let bytes = (0..=u8::MAX).map(|byte| Box::from([byte])).collect();
        Self {
            library: None,
            bytes,
            controls: Vec::new(),
        }
    }

    /// A `tokenizer.json` for a model of this vocabulary and these end tokens.
    pub(crate) fn from_json(
        json: &[u8],
        vocabulary: usize,
        end_tokens: &[u32],
    ) -> Result<Self, EngineError> {
        let names = Names::read(json, vocabulary, end_tokens)?;
        let library = unwinding(|| tokenizers::Tokenizer::from_bytes(json))
            .and_then(Result::ok)
            .ok_or_else(|| EngineError::tokenizer("the library does not take it"))?;
        // The library gives an added token that its vocabulary lacks the next free number.
        let kept = |(name, id): (&str, u32)| library.token_to_id(name) == Some(id);
        if !names.added().all(kept) {
            return Err(EngineError::tokenizer(
                "an added token gets another number than the file says",
            ));
        }
        Ok(Self {
            library: Some(Box::new(library)),
            bytes: names.bytes(),
            controls: names.controls(),
        })
    }

    /// The tokens of a rendered conversation. The template has written what stands around it, but
    /// the byte tokenizer's beginning, which no text can say.
    pub(crate) fn encode_rendered(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.encode(text, self.library.is_none())
    }

    /// The same of a text in pieces.
    pub(crate) fn encode_rendered_pieces<'a>(
        &self,
        pieces: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<u32>, EngineError> {
        self.encode_pieces(pieces, self.library.is_none())
    }

    /// The names of the tokens that steer a model.
    pub(crate) fn control_names(&self) -> impl Iterator<Item = &str> {
        self.controls.iter().map(|(name, _)| &**name)
    }

    /// The tokens of pieces of a text, one after the other; no token is of two of them. A name of a control token becomes
    /// the token only where all of it stands in one piece; a piece of which the tokenizer would make one in another way,
    /// by its normalizer, is refused.
    pub(crate) fn encode_pieces<'a>(
        &self,
        pieces: impl Iterator<Item = &'a str>,
        begins: bool,
    ) -> Result<Vec<u32>, EngineError> {
        let normalizes = self
            .library
            .as_ref()
            .is_some_and(|library| library.get_normalizer().is_some());
        let mut tokens = Vec::new();
        for (place, piece) in pieces.enumerate() {
            let begins = begins && place == 0;
            let of_piece = self.encode(piece.as_bytes(), begins)?;
            if normalizes {
                let around = self.controls_in(&self.encode(b"", begins)?);
                let named = self.control_names().map(|name| piece.matches(name).count());
                if self.controls_in(&of_piece) > named.sum::<usize>() + around {
                    return Err(EngineError::PromptInvalid);
                }
            }
            tokens.extend(of_piece);
        }
        Ok(tokens)
    }

    fn controls_in(&self, tokens: &[u32]) -> usize {
        let is_control = |token: &&u32| self.controls.iter().any(|(_, id)| id == *token);
        tokens.iter().filter(is_control).count()
    }

    /// The tokens of a text; of one that `begins`, with what the tokenizer puts around it.
    pub(crate) fn encode(&self, text: &[u8], begins: bool) -> Result<Vec<u32>, EngineError> {
        let Some(library) = &self.library else {
            let begin = begins.then_some(BYTES_BEGIN).into_iter();
            return Ok(begin
                .chain(text.iter().map(|byte| u32::from(*byte)))
                .collect());
        };
        let text = String::from_utf8_lossy(text);
        let encoding = unwinding(|| library.encode_fast(text.as_ref(), begins))
            .and_then(Result::ok)
            .ok_or(EngineError::PromptInvalid)?;
        let tokens = encoding.get_ids();
        let max = text.len().saturating_mul(TOKENS_PER_BYTE_MAX) + TOKENS_AROUND_MAX;
        if tokens.len() > max {
            return Err(EngineError::PromptInvalid);
        }
        Ok(tokens.to_vec())
    }

    /// The bytes of tokens, one after the other.
    pub(crate) fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        let bytes = tokens.iter().flat_map(|token| self.bytes_of(*token));
        bytes.copied().collect()
    }

    pub(crate) fn bytes_of(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], |bytes| bytes)
    }
}

/// What the library gives; nothing if it panics, which ends nobody's thread.
fn unwinding<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}
