//! What a model is: its sizes, its tokenizer's kind, the digest of its tensors. A manifest's hash names the model.

use std::cmp::Ordering;
use std::num::NonZeroU16;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::arith::MIX_BLOCK;
use crate::tokenizer;
use crate::turn::Turn;
use crate::{ENGINE_VERSION, EngineError};

/// The sizes of a Llama-family model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Width of the hidden state.
    pub dim: usize,
    /// Width of the feed-forward layers.
    pub hidden_dim: usize,
    /// How many layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides the query heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Tokens that the model knows.
    pub vocabulary: usize,
    /// Positions that the model can take in: prompt and output together, but for the last token of
    /// an output, which is not taken in.
    pub context_tokens: usize,
    /// What RMSNorm adds to the mean square, in Q32.
    pub norm_epsilon_q32: u32,
    /// Whether the embedding serves as the head. Left out of the manifest where it does not.
    #[serde(
        default,
        deserialize_with = "only_true",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub tied_head: bool,
    /// Whether queries, keys and values have a bias (Qwen2). Left out where they have none.
    #[serde(
        default,
        deserialize_with = "only_true",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub attention_bias: bool,
    /// Whether the input of each layer's last matrix goes through a Hadamard transform of blocks of
    /// 64, which spreads outliers; the matrix is turned likewise. Left out where it does not.
    #[serde(
        default,
        deserialize_with = "only_true",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub mixed_down: bool,
    /// The order of the Hadamard matrix by which the residual stream is turned, block by block
    /// ([`Turn`]); the engine needs it where the head is tied. Left out where it is 1, no turn.
    #[serde(
        default = "no_turn",
        deserialize_with = "above_one",
        skip_serializing_if = "is_no_turn"
    )]
    pub turn: usize,
}

fn no_turn() -> usize {
    1
}

fn is_no_turn(order: &usize) -> bool {
    *order == 1
}

/// What can be left out is not written: one model, one manifest, one id.
fn only_true<'de, D: Deserializer<'de>>(flag: D) -> Result<bool, D::Error> {
    match bool::deserialize(flag)? {
        true => Ok(true),
        false => Err(D::Error::custom("false is left out")),
    }
}

fn above_one<'de, D: Deserializer<'de>>(order: D) -> Result<usize, D::Error> {
    match usize::deserialize(order)? {
        0 | 1 => Err(D::Error::custom("no turn is left out")),
        order => Ok(order),
    }
}

impl Architecture {
    /// Width of all query heads together.
    pub fn query_dim(&self) -> usize {
        self.head_dim * self.heads
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.head_dim * self.kv_heads
    }

    /// How many weights the matrices hold; a tied head counts once.
    pub fn parameters(&self) -> usize {
        let attention = 2 * self.dim * (self.query_dim() + self.kv_dim());
        let feed_forward = 3 * self.dim * self.hidden_dim;
        let tables = if self.tied_head { 1 } else { 2 };
        tables * self.vocabulary * self.dim + self.layers * (attention + feed_forward)
    }

    /// The sizes for which docs/engine.md argues that nothing overflows.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let within = |value: usize, max: usize| (1..=max).contains(&value);
        if !within(self.dim, 16_384)
            || !within(self.hidden_dim, 32_768)
            || !within(self.layers, 128)
            || !within(self.heads, 256)
            || !within(self.kv_heads, 256)
            || !within(self.vocabulary, 1 << 18)
            || !within(self.context_tokens, 1 << 17)
        {
            return Err(EngineError::Unsupported("a size is out of bounds"));
        }
        if !within(self.head_dim, 256) || !self.head_dim.is_multiple_of(2) {
            return Err(EngineError::Unsupported(
                "the head width is odd or above 256",
            ));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || self.query_dim() > 32_768 {
            return Err(EngineError::Unsupported("the heads do not fit each other"));
        }
        if self.mixed_down && !self.hidden_dim.is_multiple_of(MIX_BLOCK) {
            return Err(EngineError::Unsupported(
                "a mixed feed-forward width must be a multiple of 64",
            ));
        }
        if Turn::of_order(self.turn).is_none() || !self.dim.is_multiple_of(self.turn) {
            return Err(EngineError::Unsupported(
                "the turn is of no order that there is, or does not divide the width",
            ));
        }
        Ok(())
    }
}

/// What a model is; its hash is the model's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// A name for people, 1 to 64 bytes.
    pub name: String,
    /// The sizes.
    pub architecture: Architecture,
    /// The digest of all tensors: weights, scales, rotation tables, and the tokenizer's file.
    #[serde(with = "hex::serde")]
    pub tensors_digest: [u8; 32],
    /// How text becomes tokens.
    pub tokenizer: TokenizerKind,
    /// Tokens that end an output.
    pub end_tokens: Vec<u32>,
    /// The chat template (Jinja); empty where there is none.
    pub chat_template: String,
    /// The version of the arithmetic.
    pub engine_version: u16,
    /// The version of the importer that made the weights, so that what it changes is a model of another name and not one
    /// that differs in nothing that can be seen. Left out of models that no importer made.
    #[serde(
        default,
        deserialize_with = "written",
        skip_serializing_if = "Option::is_none"
    )]
    pub import: Option<NonZeroU16>,
}

/// A version that is written is one: not null, not 0.
fn written<'de, D: Deserializer<'de>>(version: D) -> Result<Option<NonZeroU16>, D::Error> {
    NonZeroU16::deserialize(version).map(Some)
}

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// A token is a byte; 256 begins every prompt, 257 ends an output.
    Bytes,
    /// A `tokenizer.json` of Hugging Face's library, which is one of the tensors.
    HuggingFace,
}

/// A manifest has at most this many end tokens; Llama 3 has three.
const END_TOKENS_MAX: usize = 16;

impl Manifest {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        match self.engine_version.cmp(&ENGINE_VERSION) {
            Ordering::Equal => {}
            Ordering::Less => {
                return Err(EngineError::Unsupported(
                    "it was made for an older version of the arithmetic; import it again, or fetch it again",
                ));
            }
            Ordering::Greater => {
                return Err(EngineError::Unsupported(
                    "it was made for a newer version of the arithmetic; update Dovetail",
                ));
            }
        }
        if self.name.is_empty() || self.name.len() > 64 {
            return Err(EngineError::Format("a name has 1 to 64 bytes"));
        }
        let vocabulary = self.architecture.vocabulary;
        let known = |token: &u32| (*token as usize) < vocabulary;
        if self.end_tokens.is_empty()
            || self.end_tokens.len() > END_TOKENS_MAX
            || !self.end_tokens.iter().all(known)
        {
            return Err(EngineError::Format(
                "a model has 1 to 16 end tokens of its vocabulary",
            ));
        }
        if self.tokenizer == TokenizerKind::Bytes && vocabulary != tokenizer::BYTES_VOCABULARY {
            return Err(EngineError::Unsupported(
                "the byte tokenizer has 258 tokens",
            ));
        }
        self.architecture.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    #[test]
    fn the_importers_version_is_part_of_the_id_where_there_is_one() {
        let without = crate::Model::from_bytes(&tiny::generate(1)).unwrap();
        let mut parts = tiny::parts(without.manifest().architecture, "tiny-1", 1).unwrap();
        assert_eq!(parts.id().unwrap(), without.id());
        parts.import = NonZeroU16::new(3);
        let with = crate::Model::from_bytes(&parts.to_bytes().unwrap()).unwrap();
        assert_ne!(with.id(), without.id());
        assert_eq!(with.manifest().import, NonZeroU16::new(3));
    }

    #[test]
    fn what_can_be_left_out_is_not_written() {
        let model = crate::Model::from_bytes(&tiny::generate(1)).unwrap();
        let text = serde_json::to_string(model.manifest()).unwrap();
        let with = |key: &str| {
            let text = text.replace("\"dim\":", &format!("{key},\"dim\":"));
            serde_json::from_str::<Manifest>(&text)
        };
        for key in [
            "\"tied_head\":true",
            "\"attention_bias\":true",
            "\"turn\":12",
        ] {
            assert!(with(key).is_ok(), "{key}");
        }
        for key in [
            "\"tied_head\":false",
            "\"attention_bias\":false",
            "\"turn\":1",
            "\"turn\":0",
            "\"turn\":null",
        ] {
            assert!(with(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_turn_that_does_not_fit_and_another_version_are_refused_in_words() {
        let model = crate::Model::from_bytes(&tiny::generate(1)).unwrap();
        let refused = |manifest: &Manifest| manifest.check().unwrap_err().to_string();
        let mut manifest = model.manifest().clone();
        for turn in [0, 3, 12, 128] {
            manifest.architecture.turn = turn;
            assert!(refused(&manifest).contains("the turn is of no order"));
        }
        manifest.architecture.turn = 64;
        manifest.check().unwrap();
        manifest.engine_version = ENGINE_VERSION - 1;
        assert!(refused(&manifest).contains("import it again"));
        manifest.engine_version = ENGINE_VERSION + 1;
        assert!(refused(&manifest).contains("update Dovetail"));
    }

    #[test]
    fn a_manifest_says_a_version_or_leaves_it_out() {
        let model = crate::Model::from_bytes(&tiny::generate(1)).unwrap();
        let text = serde_json::to_string(model.manifest()).unwrap();
        assert!(!text.contains("import"));
        let with = |version: &str| {
            let text = format!("{},\"import\":{version}}}", text.trim_end_matches('}'));
            serde_json::from_str::<Manifest>(&text).map(|manifest| manifest.import)
        };
        assert_eq!(with("1").unwrap(), NonZeroU16::new(1));
        for version in ["0", "null", "-1", "70000", "\"1\""] {
            assert!(with(version).is_err(), "{version}");
        }
    }
}
