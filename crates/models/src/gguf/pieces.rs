//! A SentencePiece vocabulary (`tokenizer.ggml.model` is `llama`) as BPE with bytes for what has no piece. A GGUF file has scores in
//! place of merges: of all merges that are possible, the one with the best score is done first, so they are the merges in the
//! order of their scores.
//!
//! Rules: `SpmConverter` of Hugging Face's transformers, and llama.cpp's `llm_tokenizer_spm`.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::tokenizer::Kind;
use super::{Metadata, Value};
use crate::error::ImportError;

const SCORES: &str = "tokenizer.ggml.scores";
/// Whether a space stands before each text. It does in all files of Llama's own kind.
const SPACE: &str = "tokenizer.ggml.add_space_prefix";
/// Normalisation of texts, which vocabularies of this kind do without.
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const EXTRA_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
/// SentencePiece's pieces have 16 letters, if nobody says more; some have 48 spaces.
const PIECE_BYTES_MAX: usize = 256;
/// The engine's own bound; vocabularies in use have some 2 merges a piece.
const MERGES_MAX: usize = 1 << 20;
/// What stands for a space.
const MARK: &str = "\u{2581}";

/// How a text becomes pieces.
#[derive(Debug)]
pub(super) struct Pieces<'a> {
    scores: &'a [f32],
    space: bool,
}

impl<'a> Pieces<'a> {
    /// Reads what a file with this many tokens says.
    pub(super) fn read(metadata: &'a Metadata, count: usize) -> Result<Self, ImportError> {
        let scores = match metadata.0.get(SCORES) {
            Some(Value::Numbers(scores)) if scores.len() == count => scores,
            None => return Err(Metadata::refusal(SCORES, "is missing")),
            Some(_) => {
                return Err(Metadata::refusal(
                    SCORES,
                    "is not one number for each token",
                ));
            }
        };
        if !scores.iter().all(|score| score.is_finite()) {
            return Err(Metadata::refusal(
                SCORES,
                "has one that is no finite number",
            ));
        }
        if metadata.0.contains_key(CHARSMAP) {
            return Err(Metadata::refusal(CHARSMAP, "is not supported"));
        }
        if metadata.truth(EXTRA_SPACES)? == Some(true) {
            return Err(Metadata::refusal(
                EXTRA_SPACES,
                "is true, which is not supported",
            ));
        }
        Ok(Self {
            scores,
            space: metadata.truth(SPACE)?.unwrap_or(true),
        })
    }

    /// All merges of two pieces into a third, the first one first.
    pub(super) fn merges(
        &self,
        names: &'a [String],
        kinds: &[Kind],
    ) -> Result<Vec<[&'a str; 2]>, ImportError> {
        let is_text = |kind: &Kind| matches!(kind, Kind::Normal | Kind::UserDefined);
        let pieces = names.iter().map(String::as_str).zip(0_u32..);
        let pieces = pieces.zip(kinds).filter(|(_, kind)| is_text(kind));
        let pieces: Vec<(&str, u32)> = pieces.map(|(piece, _)| piece).collect();
        if let Some((long, _)) = pieces.iter().find(|(name, _)| name.len() > PIECE_BYTES_MAX) {
            let reason = format!("has a piece of {} bytes", long.len());
            return Err(Metadata::refusal(super::tokenizer::TOKENS, reason));
        }
        let numbers: HashMap<&str, u32> = pieces.iter().copied().collect();
        let mut merges = Vec::new();
        for (name, id) in &pieces {
            // Zero has one sign here, as it has for whoever compares scores as numbers.
            let score = self.scores.get(*id as usize).copied().unwrap_or_default() + 0.0;
            let mut splits = Vec::new();
            for (at, _) in name.char_indices().skip(1) {
                let (left, right) = name.split_at(at);
                if let (Some(l), Some(r)) = (numbers.get(left), numbers.get(right)) {
                    splits.push((*l, *r, [left, right]));
                }
            }
            if merges.len() + splits.len() > MERGES_MAX {
                let reason =
                    format!("has more than {MERGES_MAX} ways to make a piece of two others");
                return Err(Metadata::refusal(super::tokenizer::TOKENS, reason));
            }
            splits.sort_unstable_by_key(|(l, r, _)| (*l, *r));
            merges.extend(splits.into_iter().map(|(_, _, merge)| (score, merge)));
        }
        // Of one score those with the longer left side first; what is equal keeps its order. All scores are finite, so this is
        // a total order.
        let lengths = |merge: &[&str; 2]| merge.map(|side| side.chars().count());
        merges.sort_by(|(score, merge), (other_score, other)| {
            let by_score = other_score.total_cmp(score);
            by_score.then_with(|| lengths(other).cmp(&lengths(merge)))
        });
        Ok(merges.into_iter().map(|(_, merge)| merge).collect())
    }

    pub(super) fn normalizer(&self) -> Json {
        let marks = json!({ "content": MARK, "pattern": { "String": " " }, "type": "Replace" });
        if !self.space {
            return marks;
        }
        let prepend = json!({ "prepend": MARK, "type": "Prepend" });
        json!({ "normalizers": [prepend, marks], "type": "Sequence" })
    }

    pub(super) fn decoder(&self) -> Json {
        let spaces = json!({ "content": " ", "pattern": { "String": MARK }, "type": "Replace" });
        let mut decoders = vec![
            spaces,
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if self.space {
            decoders.push(json!({ "content": " ", "start": 1, "stop": 0, "type": "Strip" }));
        }
        json!({ "decoders": decoders, "type": "Sequence" })
    }
}

/// Holds the tokens that stand for bytes against the 256 that there are: without one of them, a text could have no tokens.
pub(super) fn check_bytes(names: &[String], kinds: &[Kind]) -> Result<(), ImportError> {
    let tokens = names.iter().zip(kinds);
    let bytes = tokens.filter(|(_, kind)| **kind == Kind::Byte);
    let mut found: Vec<&str> = bytes.map(|(name, _)| name.as_str()).collect();
    found.sort_unstable();
    let expected = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    if found.iter().copied().eq(expected) {
        return Ok(());
    }
    let reason = "does not have <0x00> to <0xFF>, one for each byte, as its byte tokens";
    Err(Metadata::refusal(super::tokenizer::TOKENS, reason))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dovetail_engine::check_tokenizer;
    use serde::Deserialize;

    use super::super::tokenizer::Tokens;
    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        pieces: Vec<String>,
        scores: Vec<f32>,
        kinds: Vec<i64>,
        texts: Vec<Text>,
    }

    #[derive(Deserialize)]
    struct Text {
        text: String,
        ids: Vec<u32>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/pieces.json")).unwrap()
    }

    fn metadata(golden: Golden, changes: &[(&str, Value)]) -> Metadata {
        let model = Value::Text("llama".to_owned());
        let mut pairs = BTreeMap::from([
            ("tokenizer.ggml.model".to_owned(), model),
            (SCORES.to_owned(), Value::Numbers(golden.scores)),
            (
                "tokenizer.ggml.tokens".to_owned(),
                Value::Texts(golden.pieces),
            ),
            (
                "tokenizer.ggml.token_type".to_owned(),
                Value::Wholes(golden.kinds),
            ),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::Whole(1)),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::Whole(2)),
        ]);
        for (key, value) in changes {
            pairs.insert((*key).to_owned(), value.clone());
        }
        Metadata(pairs)
    }

    fn library(metadata: &Metadata) -> tokenizers::Tokenizer {
        let tokens = Tokens::read(metadata).unwrap();
        let ends = tokens.end_tokens().unwrap();
        assert_eq!(ends, [2]);
        let json = tokens.tokenizer_json().unwrap();
        check_tokenizer(&json, tokens.count(), &ends).unwrap();
        tokenizers::Tokenizer::from_bytes(json).unwrap()
    }

    /// The same with its pieces in another order: only the scores say which merge comes first.
    fn reversed(mut golden: Golden) -> Golden {
        /// Before the pieces stand what is unknown, begin, end, and the bytes.
        const FIRST: u32 = 259;
        let last = u32::try_from(golden.pieces.len()).unwrap() - 1;
        golden.pieces[FIRST as usize..].reverse();
        golden.scores[FIRST as usize..].reverse();
        golden.kinds[FIRST as usize..].reverse();
        let ids = golden.texts.iter_mut().flat_map(|text| &mut text.ids);
        for id in ids.filter(|id| **id >= FIRST) {
            *id = FIRST + (last - *id);
        }
        golden
    }

    #[test]
    fn texts_become_the_pieces_that_sentencepiece_makes_of_them() {
        for mut golden in [golden(), reversed(golden())] {
            let texts = std::mem::take(&mut golden.texts);
            assert_eq!(texts.len(), 30);
            let library = library(&metadata(golden, &[]));
            for Text { text, ids } in texts {
                let encoding = library.encode(text.as_str(), false).unwrap();
                assert_eq!(encoding.get_ids(), ids, "{text:?}");
                // What stands for a space comes back as one.
                let decoded = text.replace(MARK, " ");
                assert_eq!(library.decode(&ids, true).unwrap(), decoded);
            }
            // A raw prompt begins with the begin token, and control tokens in a text are tokens.
            let encoding = library.encode("</s>", true).unwrap();
            assert_eq!(encoding.get_ids(), [1, 2]);
        }
    }

    #[test]
    fn a_file_may_do_without_the_space_before_texts() {
        let without = [(SPACE, Value::Truth(false))];
        let library = library(&metadata(golden(), &without));
        let with = library.encode(" in", false).unwrap();
        let without = library.encode("in", false).unwrap();
        assert_ne!(with.get_ids(), without.get_ids());
        assert_eq!(library.decode(without.get_ids(), true).unwrap(), "in");
    }

    #[test]
    fn zeros_of_either_sign_are_one_score() {
        let names = ["a", "b", "c", "ab", "abc", "bc"].map(str::to_owned);
        let kinds = [Kind::Normal; 6];
        let merges = |scores: [f32; 6]| {
            let pieces = Pieces {
                scores: &scores,
                space: true,
            };
            let merges = pieces.merges(&names, &kinds).unwrap();
            merges
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let plain = merges([0.0; 6]);
        assert_eq!(plain, ["ab", "c", "a", "bc", "a", "b", "b", "c"]);
        for signs in 0..64_u32 {
            let scores =
                std::array::from_fn(|place| if signs >> place & 1 == 1 { -0.0 } else { 0.0 });
            assert_eq!(merges(scores), plain, "{scores:?}");
        }
    }

    #[test]
    fn what_is_not_known_of_a_vocabulary_is_refused_by_its_key() {
        let tokens = "tokenizer.ggml.tokens";
        let changed = |place: usize, name: &str| {
            let mut pieces = golden().pieces;
            pieces[place] = name.to_owned();
            (tokens, Value::Texts(pieces))
        };
        for (key, value) in [
            (SCORES, Value::Numbers(vec![0.0])),
            (
                SCORES,
                Value::Numbers(vec![f32::NAN; golden().scores.len()]),
            ),
            (SCORES, Value::OtherList),
            (CHARSMAP, Value::OtherList),
            (EXTRA_SPACES, Value::Truth(true)),
            (SPACE, Value::Whole(1)),
            // The third byte, and a long piece.
            changed(5, "<0xZZ>"),
            changed(599, &"a".repeat(257)),
        ] {
            let metadata = metadata(golden(), &[(key, value)]);
            let read = Tokens::read(&metadata).and_then(|tokens| tokens.tokenizer_json());
            match read {
                Err(ImportError::Metadata { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }
}
