//! A GGUF file's tokens as a `tokenizer.json`. How BPE cuts a text is not in the file: it names one of the ways that
//! llama.cpp knows (`tokenizer.ggml.pre`), of which those that were compared stand here. SentencePiece is in `pieces.rs`.

use std::collections::HashSet;

use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use super::pieces::{Pieces, check_bytes};
use super::{Metadata, Value};
use crate::error::ImportError;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";
/// Control tokens that end a turn or a text, by llama.cpp's list: files name only some of theirs.
const ENDS: [&str; 5] = [
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
];
/// Llama 3's regular expression, as in its `tokenizer.json`.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's, which differs from it in numbers.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a text is cut before its pieces become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
    /// Not at all: SentencePiece.
    Whole,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    /// Written by templates, and no text.
    Control,
    /// Text that is one token wherever it stands.
    UserDefined,
    /// Stands for what has no piece.
    Unknown,
    /// One byte of what has no piece.
    Byte,
    /// Fills the table.
    Unused,
}

/// The tokens of a file.
pub(super) struct Tokens<'a> {
    metadata: &'a Metadata,
    cut: Cut,
    names: &'a [String],
    kinds: Vec<Kind>,
    /// Of a SentencePiece vocabulary.
    pieces: Option<Pieces<'a>>,
}

impl<'a> Tokens<'a> {
    pub(super) fn read(metadata: &'a Metadata) -> Result<Self, ImportError> {
        let cut = Cut::read(metadata)?;
        let names = metadata.texts(TOKENS)?;
        // A map of names, as a tokenizer.json has it, would keep one of two.
        let mut known = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !known.insert(name.as_str())) {
            return Err(Metadata::refusal(TOKENS, format!("has {twice:?} twice")));
        }
        let kinds = kinds(metadata, names.len(), cut)?;
        let pieces = match cut {
            Cut::Whole => {
                check_bytes(names, &kinds)?;
                Some(Pieces::read(metadata, names.len())?)
            }
            _ => None,
        };
        Ok(Self {
            metadata,
            cut,
            names,
            kinds,
            pieces,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Tokens that end an output: those that the file names, and those that llama.cpp knows by their names.
    pub(super) fn end_tokens(&self) -> Result<Vec<u32>, ImportError> {
        let mut ends = Vec::new();
        for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
            ends.extend(self.special(key)?);
        }
        let tokens = (0..).zip(self.names.iter().zip(&self.kinds));
        ends.extend(tokens.filter_map(|(id, (name, kind))| {
            let ends = *kind == Kind::Control && ENDS.contains(&name.as_str());
            ends.then_some(id)
        }));
        let mut known = HashSet::new();
        ends.retain(|id| known.insert(*id));
        Ok(ends)
    }

    /// A token that a key names by its number.
    fn special(&self, key: &str) -> Result<Option<u32>, ImportError> {
        let key = format!("tokenizer.ggml.{key}");
        let id = self.metadata.count(&key)?;
        match id {
            Some(id) if id as usize >= self.names.len() => {
                Err(Metadata::refusal(&key, "is none of its tokens"))
            }
            _ => Ok(id),
        }
    }

    fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", String::as_str)
    }

    /// What transformers reads beside the tokenizer: the chat template, and what it may call tokens.
    pub(super) fn config_json(&self) -> Result<Vec<u8>, ImportError> {
        let name = |id: Option<u32>| id.map(|id| self.name(id));
        let config = json!({
            "chat_template": self.metadata.text(TEMPLATE)?,
            "bos_token": name(self.special("bos_token_id")?),
            "eos_token": name(self.special("eos_token_id")?),
        });
        Ok(config.to_string().into_bytes())
    }

    pub(super) fn tokenizer_json(&self) -> Result<Vec<u8>, ImportError> {
        let merges = match &self.pieces {
            Some(pieces) => pieces.merges(self.names, &self.kinds)?,
            None => listed_merges(self.metadata)?,
        };
        let tokens = (0..).zip(self.names.iter().zip(&self.kinds));
        let used = tokens.filter(|(_, (_, kind))| **kind != Kind::Unused);
        let used: Vec<(u32, &str, Kind)> = used
            .map(|(id, (name, kind))| (id, name.as_str(), *kind))
            .collect();
        let plain = |kind: &Kind| matches!(kind, Kind::Normal | Kind::Byte);
        let added = used.iter().filter(|(_, _, kind)| !plain(kind));
        let unknown = used.iter().find(|(_, _, kind)| *kind == Kind::Unknown);
        let by_pieces = self.pieces.is_some();
        let file = File {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: added
                .map(|(id, content, kind)| Added {
                    id: *id,
                    content,
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: false,
                    special: *kind != Kind::UserDefined,
                })
                .collect(),
            normalizer: match (&self.pieces, self.cut) {
                (Some(pieces), _) => pieces.normalizer(),
                (None, Cut::Qwen2) => json!({ "type": "NFC" }),
                _ => Json::Null,
            },
            pre_tokenizer: self.cut.pre_tokenizer(),
            post_processor: self.post_processor()?,
            decoder: match &self.pieces {
                Some(pieces) => pieces.decoder(),
                None => byte_level(true),
            },
            model: Model {
                kind: "BPE",
                dropout: None,
                unk_token: unknown.map(|(_, name, _)| *name).filter(|_| by_pieces),
                fuse_unk: by_pieces,
                byte_fallback: by_pieces,
                ignore_merges: self.cut == Cut::Llama3,
                vocab: used.iter().map(|(id, name, _)| (*name, *id)).collect(),
                merges,
            },
        };
        serde_json::to_vec(&file).map_err(|error| ImportError::Tokenizer(error.to_string()))
    }

    /// What is put around a raw prompt.
    fn post_processor(&self) -> Result<Json, ImportError> {
        let wanted = |key: &str, default: bool| -> Result<bool, ImportError> {
            let wanted = self
                .metadata
                .truth(&format!("tokenizer.ggml.add_{key}_token"))?;
            Ok(wanted.unwrap_or(default))
        };
        let mut pieces = Vec::new();
        let mut tokens = serde_json::Map::new();
        let mut token = |key: &str, pieces: &mut Vec<Json>| -> Result<(), ImportError> {
            let key = format!("{key}_token_id");
            let Some(id) = self.special(&key)? else {
                let key = format!("tokenizer.ggml.{key}");
                return Err(Metadata::refusal(&key, "is missing, but put around texts"));
            };
            let name = self.name(id);
            pieces.push(json!({ "SpecialToken": { "id": name, "type_id": 0 } }));
            let token = json!({ "id": name, "ids": [id], "tokens": [name] });
            tokens.insert(name.to_owned(), token);
            Ok(())
        };
        // llama.cpp's defaults for files that do not say it.
        if wanted("bos", matches!(self.cut, Cut::Llama3 | Cut::Whole))? {
            token("bos", &mut pieces)?;
        }
        let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
        pieces.push(text("A"));
        if wanted("eos", false)? {
            // The import takes it out, and says so.
            token("eos", &mut pieces)?;
        }
        if tokens.is_empty() {
            return Ok(Json::Null);
        }
        Ok(json!({
            "pair": [text("A"), text("B")],
            "single": pieces,
            "special_tokens": tokens,
            "type": "TemplateProcessing",
        }))
    }
}

impl Cut {
    /// The way that a file names.
    fn read(metadata: &Metadata) -> Result<Self, ImportError> {
        match metadata.text(MODEL)? {
            Some("gpt2") => {}
            Some("llama") => return Ok(Self::Whole),
            Some(other) => {
                let reason =
                    format!("is {other:?}; gpt2 (BPE) and llama (SentencePiece) are supported");
                return Err(Metadata::refusal(MODEL, reason));
            }
            None => return Err(Metadata::refusal(MODEL, "is missing")),
        }
        Ok(match metadata.text(PRE)? {
            Some("gpt-2") => Self::Gpt2,
            Some("smollm") => Self::SmolLm,
            Some("llama-bpe") => Self::Llama3,
            Some("qwen2") => Self::Qwen2,
            other => {
                let found = other.map_or_else(|| "is missing".to_owned(), |o| format!("is {o:?}"));
                let reason = format!("{found}; smollm, llama-bpe, qwen2 and gpt-2 are supported");
                return Err(Metadata::refusal(PRE, reason));
            }
        })
    }

    fn pre_tokenizer(self) -> Json {
        let split = |pattern: &str| {
            let pattern = json!({ "Regex": pattern });
            let split = json!({ "behavior": "Isolated", "invert": false, "pattern": pattern, "type": "Split" });
            json!({ "pretokenizers": [split, byte_level(false)], "type": "Sequence" })
        };
        match self {
            // The library's own regular expression is GPT-2's.
            Self::Gpt2 => byte_level(true),
            Self::SmolLm => {
                let digits = json!({ "individual_digits": true, "type": "Digits" });
                json!({ "pretokenizers": [digits, byte_level(true)], "type": "Sequence" })
            }
            Self::Llama3 => split(LLAMA_3),
            Self::Qwen2 => split(QWEN_2),
            Self::Whole => Json::Null,
        }
    }
}

fn byte_level(use_regex: bool) -> Json {
    json!({ "add_prefix_space": false, "trim_offsets": true, "type": "ByteLevel", "use_regex": use_regex })
}

/// The kinds of tokens, by `enum llama_token_type`. A file that says none has normal ones only.
fn kinds(metadata: &Metadata, count: usize, cut: Cut) -> Result<Vec<Kind>, ImportError> {
    let kinds = match metadata.0.get(KINDS) {
        None => return Ok(vec![Kind::Normal; count]),
        Some(Value::Wholes(kinds)) if kinds.len() == count => kinds,
        Some(_) => return Err(Metadata::refusal(KINDS, "is not one number for each token")),
    };
    let kind = |kind: &i64| match kind {
        1 => Ok(Kind::Normal),
        2 => Ok(Kind::Unknown),
        3 => Ok(Kind::Control),
        4 => Ok(Kind::UserDefined),
        5 => Ok(Kind::Unused),
        6 if cut == Cut::Whole => Ok(Kind::Byte),
        other => Err(Metadata::refusal(KINDS, format!("has the kind {other}"))),
    };
    kinds.iter().map(kind).collect()
}

/// The merges that a file lists.
fn listed_merges(metadata: &Metadata) -> Result<Vec<[&str; 2]>, ImportError> {
    let merges = metadata.texts(MERGES)?.iter();
    let merges: Option<Vec<[&str; 2]>> = merges.map(|merge| parts(merge)).collect();
    merges.ok_or_else(|| Metadata::refusal(MERGES, "has one of a single part"))
}

/// The two parts of a merge. The first one may begin with the space that parts them.
fn parts(merge: &str) -> Option<[&str; 2]> {
    let first = merge.chars().next()?.len_utf8();
    let at = first + merge.get(first..)?.find(' ')?;
    Some([merge.get(..at)?, merge.get(at + 1..)?])
}

/// A `tokenizer.json`. Its fields stand in this order and the vocabulary in the order of the tokens; maps are
/// written in the order of their keys. So the same file gives the same bytes, whatever a JSON library does with maps.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<Added<'a>>,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    decoder: Json,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Added<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: Option<f64>,
    unk_token: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    #[serde(serialize_with = "as_map")]
    vocab: Vec<(&'a str, u32)>,
    merges: Vec<[&'a str; 2]>,
}

fn as_map<S: Serializer>(vocab: &[(&str, u32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(vocab.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dovetail_engine::check_tokenizer;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn texts(texts: &[&str]) -> Value {
        Value::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    fn metadata(changes: &[(&str, Value)]) -> Metadata {
        let names = [
            "<|endoftext|>",
            "a",
            "b",
            "ab",
            "1",
            "[PAD]",
            "<|im_end|>",
            "<tool>",
        ];
        let mut pairs = BTreeMap::from([
            (MODEL.to_owned(), text("gpt2")),
            (PRE.to_owned(), text("smollm")),
            (TOKENS.to_owned(), texts(&names)),
            (
                KINDS.to_owned(),
                Value::Wholes(vec![3, 1, 1, 1, 1, 5, 3, 4]),
            ),
            (MERGES.to_owned(), texts(&["a b"])),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::Whole(6)),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::Whole(0)),
        ]);
        for (key, value) in changes {
            pairs.insert((*key).to_owned(), value.clone());
        }
        Metadata(pairs)
    }

    fn made(changes: &[(&str, Value)]) -> Json {
        let metadata = metadata(changes);
        let tokens = Tokens::read(&metadata).unwrap();
        let json = tokens.tokenizer_json().unwrap();
        check_tokenizer(&json, tokens.count(), &tokens.end_tokens().unwrap()).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn each_way_to_cut_gives_a_tokenizer_that_the_engine_takes() {
        for pre in ["smollm", "llama-bpe", "qwen2", "gpt-2"] {
            let made = made(&[(PRE, text(pre))]);
            assert_eq!(
                made["model"]["vocab"].as_object().unwrap().len(),
                7,
                "{pre}"
            );
            assert_eq!(made["model"]["vocab"]["<|im_end|>"], 6, "{pre}");
            assert_eq!(made["added_tokens"].as_array().unwrap().len(), 3, "{pre}");
            assert_eq!(made["added_tokens"][2]["special"], false, "{pre}");
            // Only Llama 3's begins texts where the file says nothing.
            let begins = !made["post_processor"].is_null();
            assert_eq!(begins, pre == "llama-bpe", "{pre}");
        }
    }

    #[test]
    fn a_text_becomes_the_tokens_of_its_pieces() {
        let encode = |pre: &str, words: &str| {
            let made = made(&[(PRE, text(pre))]).to_string();
            let library = tokenizers::Tokenizer::from_bytes(made).unwrap();
            let encoding = library.encode(words, true).unwrap();
            encoding.get_ids().to_vec()
        };
        assert_eq!(encode("smollm", "ab11<|im_end|>ba"), [3, 4, 4, 6, 2, 1]);
        assert_eq!(encode("qwen2", "ab11<tool>ba"), [3, 4, 4, 7, 2, 1]);
        assert_eq!(encode("llama-bpe", "ab"), [0, 3]);
        assert_eq!(encode("gpt-2", "aab"), [1, 3]);
    }

    #[test]
    fn an_output_ends_with_the_tokens_that_llama_cpp_ends_it_with() {
        let metadata = metadata(&[("tokenizer.ggml.eot_token_id", Value::Whole(6))]);
        assert_eq!(
            Tokens::read(&metadata).unwrap().end_tokens().unwrap(),
            [6, 0]
        );
    }

    #[test]
    fn what_is_not_known_of_a_tokenizer_is_refused_by_its_key() {
        let refused = [
            (MODEL, text("t5")),
            (PRE, text("default")),
            (PRE, text("falcon")),
            (TOKENS, texts(&["a", "b", "a"])),
            (TOKENS, Value::Wholes(vec![1])),
            (KINDS, Value::Wholes(vec![1])),
            (KINDS, Value::Wholes(vec![6; 8])),
            (MERGES, texts(&["ab"])),
            ("tokenizer.ggml.eos_token_id", Value::Whole(8)),
            ("tokenizer.ggml.bos_token_id", Value::Whole(-1)),
            ("tokenizer.ggml.add_bos_token", Value::Whole(1)),
        ];
        for (key, value) in refused {
            let metadata = metadata(&[(key, value)]);
            let read = || -> Result<(), ImportError> {
                let tokens = Tokens::read(&metadata)?;
                tokens.end_tokens()?;
                tokens.tokenizer_json()?;
                tokens.config_json().map(drop)
            };
            match read() {
                Err(ImportError::Metadata { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_merge_is_cut_at_the_space_behind_its_first_letter() {
        assert_eq!(parts("a b"), Some(["a", "b"]));
        assert_eq!(parts("Ġ Ġ"), Some(["Ġ", "Ġ"]));
        assert_eq!(parts("  b"), Some([" ", "b"]));
        assert_eq!((parts("ab"), parts(""), parts("é")), (None, None, None));
    }
}
