//! A `tokenizer.json` as this engine takes it: which fields, of which kinds, how long, and each token
//! once.
//!
//! The file is read here before Hugging Face's library sees it. What acts on prompts unseen (truncation,
//! padding, dropout) is refused, and so is what makes encoding differ from one run to the next: the library
//! keeps names in maps of random order, so that of two names of one token now this one wins, now that one.

use std::collections::HashMap;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::alphabet::bytes_of;
use super::parts::{Decoder, Normalizer, PostProcessor, PreTokenizer};
use crate::EngineError;

/// A part other than the vocabulary has a few hundred bytes.
const PART_BYTES_MAX: usize = 64 << 10;
/// More than the largest vocabulary has.
const TOKENS_MAX: usize = 1 << 18;
/// The longest names in use are runs of some hundred spaces, of 1,024 bytes at most where a byte is two letters. What
/// looks through tokens calls itself for each byte of a name, and one that fills the file would be cut into tokens for ever.
const NAME_BYTES_MAX: usize = 4 << 10;
/// Merges make one token each, but some vocabularies have several for one.
const MERGES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(rename = "version")]
    _version: Option<String>,
    truncation: Option<IgnoredAny>,
    padding: Option<IgnoredAny>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    decoder: Option<&'a RawValue>,
    model: Vocabulary,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: u32,
    content: String,
    #[serde(rename = "single_word")]
    _single_word: bool,
    #[serde(rename = "lstrip")]
    _lstrip: bool,
    #[serde(rename = "rstrip")]
    _rstrip: bool,
    #[serde(rename = "normalized")]
    _normalized: bool,
    special: bool,
}

#[derive(Deserialize)]
enum Kind {
    #[serde(rename = "BPE")]
    Bpe,
    Unigram,
}

/// The fields of both kinds, one struct: an enum with a tag would hold the whole vocabulary twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vocabulary {
    #[serde(rename = "type")]
    _kind: Kind,
    dropout: Option<f64>,
    #[serde(rename = "unk_token")]
    _unk_token: Option<String>,
    #[serde(rename = "unk_id")]
    _unk_id: Option<u32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(rename = "fuse_unk")]
    _fuse_unk: Option<bool>,
    #[serde(rename = "byte_fallback")]
    _byte_fallback: Option<bool>,
    #[serde(rename = "ignore_merges")]
    _ignore_merges: Option<bool>,
    #[serde(deserialize_with = "numbered")]
    vocab: Vec<(String, u32)>,
    #[serde(default, rename = "merges", deserialize_with = "counted")]
    _merges: (),
}

/// The names of a tokenizer's tokens, each once.
pub(super) struct Names {
    /// By number; none where there is no such token.
    names: Vec<Option<Name>>,
    byte_level: bool,
}

struct Name {
    text: String,
    added: bool,
    special: bool,
}

impl Names {
    /// Reads a file for a model of this vocabulary and these end tokens.
    pub(super) fn read(
        json: &[u8],
        vocabulary: usize,
        end_tokens: &[u32],
    ) -> Result<Self, EngineError> {
        let file: File<'_> = serde_json::from_slice(json).map_err(syntax)?;
        if file.truncation.is_some() || file.padding.is_some() {
            return Err(EngineError::tokenizer(
                "it cuts or fills prompts (truncation, padding)",
            ));
        }
        file.model.check().map_err(EngineError::tokenizer)?;
        if let Some(normalizer) = part::<Normalizer>(file.normalizer)? {
            normalizer.check().map_err(EngineError::tokenizer)?;
        }
        let pre_tokenizer = part::<PreTokenizer>(file.pre_tokenizer)?;
        if let Some(pre_tokenizer) = &pre_tokenizer {
            pre_tokenizer.check().map_err(EngineError::tokenizer)?;
        }
        let decoder = part::<Decoder>(file.decoder)?;
        if let Some(decoder) = &decoder {
            decoder.check().map_err(EngineError::tokenizer)?;
        }
        if let Some(processor) = part::<PostProcessor>(file.post_processor)? {
            let checked = processor.check(vocabulary, end_tokens);
            checked.map_err(EngineError::tokenizer)?;
        }
        let byte_level = pre_tokenizer.is_some_and(|part| part.is_byte_level())
            || decoder.is_some_and(|part| part.is_byte_level());
        let names = names(file.model.vocab, file.added_tokens, vocabulary);
        Ok(Self {
            names: names.map_err(EngineError::tokenizer)?,
            byte_level,
        })
    }

    /// The added tokens and their numbers.
    pub(super) fn added(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..).zip(&self.names).filter_map(|(id, name)| {
            let name = name.as_ref().filter(|name| name.added)?;
            Some((name.text.as_str(), id))
        })
    }

    /// The special tokens and their numbers: those that steer a model and stand for no text.
    pub(super) fn controls(&self) -> Vec<(Box<str>, u32)> {
        let names = (0..).zip(&self.names);
        let controls = names.filter_map(|(id, name)| {
            let name = name.as_ref().filter(|name| name.special)?;
            Some((name.text.as_str().into(), id))
        });
        controls.collect()
    }

    /// The bytes of each token; none for special ones.
    pub(super) fn bytes(&self) -> Vec<Box<[u8]>> {
        let bytes = |name: &Option<Name>| match name {
            Some(name) if !name.special => bytes_of(&name.text, self.byte_level).into(),
            _ => Box::default(),
        };
        self.names.iter().map(bytes).collect()
    }
}

impl Vocabulary {
    fn check(&self) -> Result<(), &'static str> {
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err("it leaves out merges at random (dropout)");
        }
        let affixes = [&self.continuing_subword_prefix, &self.end_of_word_suffix];
        if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return Err("its tokens have a prefix or suffix that stands for no text");
        }
        Ok(())
    }
}

/// One name for each number, one number for each name.
fn names(
    vocab: Vec<(String, u32)>,
    added: Vec<Added>,
    vocabulary: usize,
) -> Result<Vec<Option<Name>>, &'static str> {
    let mut names: Vec<Option<Name>> = Vec::new();
    names.resize_with(vocabulary, || None);
    let mut numbers: HashMap<String, u32> = HashMap::with_capacity(vocab.len());
    let added_texts = added.iter().map(|token| &token.content);
    let mut texts = vocab.iter().map(|(text, _)| text).chain(added_texts);
    if texts.any(|text| text.len() > NAME_BYTES_MAX) {
        return Err("a token has more than 4 KiB");
    }
    for (text, id) in vocab {
        let place = names.get_mut(id as usize).ok_or(UNKNOWN)?;
        let name = Name {
            text: text.clone(),
            added: false,
            special: false,
        };
        if place.replace(name).is_some() || numbers.insert(text, id).is_some() {
            return Err("two of its tokens have one number or one name");
        }
    }
    for token in added {
        let place = names.get_mut(token.id as usize).ok_or(UNKNOWN)?;
        let other_name = place
            .as_ref()
            .is_some_and(|name| name.added || name.text != token.content);
        let other_number = numbers
            .get(&token.content)
            .is_some_and(|id| *id != token.id);
        if token.content.is_empty() || other_name || other_number {
            return Err("an added token is empty, repeated, or contradicts the vocabulary");
        }
        numbers.insert(token.content.clone(), token.id);
        *place = Some(Name {
            text: token.content,
            added: true,
            special: token.special,
        });
    }
    Ok(names)
}

const UNKNOWN: &str = "it has more tokens than the model";

/// A part of the file, if it is there.
fn part<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<Option<T>, EngineError> {
    let Some(raw) = raw else { return Ok(None) };
    if raw.get().len() > PART_BYTES_MAX {
        return Err(EngineError::tokenizer("a part of it is too long"));
    }
    serde_json::from_str(raw.get()).map(Some).map_err(syntax)
}

/// What the parser says, which names the field or the kind that is not taken.
fn syntax(error: serde_json::Error) -> EngineError {
    EngineError::tokenizer(&error.to_string())
}

/// The tokens of a vocabulary: names to numbers (BPE), or a list of names and scores (Unigram).
fn numbered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, u32)>, D::Error> {
    struct Tokens;
    impl<'de> Visitor<'de> for Tokens {
        type Value = Vec<(String, u32)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {TOKENS_MAX} tokens")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut tokens = Vec::new();
            while let Some(token) = map.next_entry()? {
                tokens.push(within(tokens.len(), TOKENS_MAX, token)?);
            }
            Ok(tokens)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut tokens = Vec::new();
            for id in 0.. {
                let Some((name, _score)) = list.next_element::<(String, f64)>()? else {
                    break;
                };
                tokens.push(within(tokens.len(), TOKENS_MAX, (name, id))?);
            }
            Ok(tokens)
        }
    }
    deserializer.deserialize_any(Tokens)
}

/// The merges, which the library reads; here they are counted.
fn counted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    struct Merges;
    impl<'de> Visitor<'de> for Merges {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "at most {MERGES_MAX} merges")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            let mut count = 0;
            while list.next_element::<Merge>()?.is_some() {
                count += within(count, MERGES_MAX, 1)?;
            }
            Ok(())
        }
    }
    deserializer.deserialize_seq(Merges)
}

/// A merge is written `"a b"` or `["a", "b"]`. Nothing of it is kept.
struct Merge;

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Merge {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a merge of two tokens")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self, A::Error> {
        for place in 0..2 {
            let token = pair.next_element::<String>()?;
            token.ok_or_else(|| serde::de::Error::invalid_length(place, &self))?;
        }
        Ok(self)
    }
}

/// `item`, unless there are `max` of them already.
fn within<T, E: serde::de::Error>(count: usize, max: usize, item: T) -> Result<T, E> {
    if count >= max {
        return Err(E::custom("there are too many of them"));
    }
    Ok(item)
}
