//! The small parts of a `tokenizer.json`: what is done to a text before and after it is cut into tokens.
//!
//! Each kind stands here because it was looked at: it is the same on every machine, takes memory in
//! proportion to the text, and cannot panic. What is not here is refused by its name.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A part has at most this many members.
const MEMBERS_MAX: usize = 8;
/// A text may grow by this factor, all replacements together; SentencePiece's space takes 3 bytes.
const GROWTH_MAX: usize = 8;
/// A replacement and a prefix have at most this many bytes.
const PIECE_BYTES_MAX: usize = 8;
/// A tokenizer puts at most this many tokens before a text, and as many behind it.
const AROUND_MAX: usize = 4;

/// The regular expressions of known models, by which a text is cut before its pieces become tokens. Another
/// one could take a million steps for each letter, or mean something else in another library.
const PATTERNS: [&str; 9] = [
    // GPT-2.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // Llama 3, SmolLM3.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen 2.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Mistral's Tekken.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // DeepSeek and others cut numbers and lines apart with expressions of their own.
    r"\p{N}{1,3}",
    r"\p{N}",
    r"[\r\n]",
    r"\s?\p{L}+",
    // Dovetail's clerk.
    r"\p{N}|\p{L}+| +|\n|[^\s\p{L}\p{N}]|\s",
];

#[cfg(test)]
pub(super) fn pattern_of_llama_3() -> &'static str {
    PATTERNS[1]
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFKC")]
    Nfkc,
    Lowercase,
    Strip {
        #[serde(rename = "strip_left")]
        _left: bool,
        #[serde(rename = "strip_right")]
        _right: bool,
    },
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    Sequence {
        normalizers: Vec<Normalizer>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum PreTokenizer {
    ByteLevel(#[expect(dead_code, reason = "the shape is looked at")] ByteLevel),
    Metaspace(#[expect(dead_code, reason = "the shape is looked at")] Metaspace),
    Digits {
        #[serde(rename = "individual_digits")]
        _individual_digits: bool,
    },
    Split {
        pattern: Pattern,
        #[serde(rename = "behavior")]
        _behavior: String,
        #[serde(rename = "invert")]
        _invert: bool,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum PostProcessor {
    ByteLevel(#[expect(dead_code, reason = "the shape is looked at")] ByteLevel),
    TemplateProcessing {
        single: Vec<Piece>,
        // Pairs are never encoded.
        #[serde(rename = "pair")]
        _pair: IgnoredAny,
        special_tokens: BTreeMap<String, SpecialToken>,
    },
    Sequence {
        processors: Vec<PostProcessor>,
    },
}

/// Decoders are not used: a token's bytes come from its name. They say what alphabet names are in.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum Decoder {
    ByteLevel(#[expect(dead_code, reason = "the shape is looked at")] ByteLevel),
    ByteFallback,
    Fuse,
    Metaspace(#[expect(dead_code, reason = "the shape is looked at")] Metaspace),
    Replace {
        pattern: Pattern,
        #[serde(rename = "content")]
        _content: String,
    },
    Strip {
        #[serde(rename = "content")]
        _content: char,
        #[serde(rename = "start")]
        _start: usize,
        #[serde(rename = "stop")]
        _stop: usize,
    },
    Sequence {
        decoders: Vec<Decoder>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByteLevel {
    #[serde(rename = "add_prefix_space")]
    _add_prefix_space: bool,
    #[serde(rename = "trim_offsets")]
    _trim_offsets: bool,
    #[serde(rename = "use_regex")]
    _use_regex: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metaspace {
    #[serde(rename = "replacement")]
    _replacement: char,
    #[serde(rename = "add_prefix_space")]
    _add_prefix_space: Option<bool>,
    #[serde(rename = "prepend_scheme")]
    _prepend_scheme: Option<String>,
    #[serde(rename = "split")]
    _split: Option<bool>,
    #[serde(rename = "str_rep")]
    _str_rep: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Debug, Deserialize)]
pub(super) enum Piece {
    SpecialToken {
        id: String,
        #[serde(rename = "type_id")]
        _type_id: u32,
    },
    Sequence {
        id: String,
        #[serde(rename = "type_id")]
        _type_id: u32,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpecialToken {
    #[serde(rename = "id")]
    _id: String,
    ids: Vec<u32>,
    #[serde(rename = "tokens")]
    _tokens: Vec<String>,
}

type Checked<T = ()> = Result<T, &'static str>;

impl Normalizer {
    pub(super) fn check(&self) -> Checked {
        match self.growth()? {
            0..=GROWTH_MAX => Ok(()),
            _ => Err("its replacements make a text many times as long"),
        }
    }

    /// By which factor a text can grow.
    fn growth(&self) -> Checked<usize> {
        match self {
            Self::Prepend { prepend } if prepend.len() > PIECE_BYTES_MAX => {
                Err("what it puts before a text is too long")
            }
            Self::Replace {
                pattern: Pattern::Regex(_),
                ..
            } => Err("it replaces by a regular expression"),
            Self::Replace {
                pattern: Pattern::String(pattern),
                content,
            } => {
                if pattern.is_empty() || content.len() > PIECE_BYTES_MAX {
                    return Err("a replacement is for nothing or too long");
                }
                Ok(content.len().div_ceil(pattern.len()).max(1))
            }
            Self::Sequence { normalizers } => members(normalizers)?
                .iter()
                .try_fold(1_usize, |growth, normalizer| {
                    Ok(growth.saturating_mul(normalizer.growth()?))
                }),
            _ => Ok(1),
        }
    }
}

impl PreTokenizer {
    pub(super) fn check(&self) -> Checked {
        match self {
            Self::Split {
                pattern: Pattern::Regex(pattern),
                ..
            } if !PATTERNS.contains(&pattern.as_str()) => {
                Err("it cuts texts by a regular expression that is not known here")
            }
            Self::Split {
                pattern: Pattern::String(pattern),
                ..
            } if pattern.is_empty() => Err("it cuts texts at nothing"),
            Self::Sequence { pretokenizers } => {
                members(pretokenizers)?.iter().try_for_each(Self::check)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_byte_level(&self) -> bool {
        match self {
            Self::ByteLevel { .. } => true,
            Self::Sequence { pretokenizers } => pretokenizers.iter().any(Self::is_byte_level),
            _ => false,
        }
    }
}

impl Decoder {
    pub(super) fn check(&self) -> Checked {
        match self {
            Self::Replace {
                pattern: Pattern::Regex(_),
                ..
            } => Err("it decodes by a regular expression"),
            Self::Sequence { decoders } => members(decoders)?.iter().try_for_each(Self::check),
            _ => Ok(()),
        }
    }

    pub(super) fn is_byte_level(&self) -> bool {
        match self {
            Self::ByteLevel { .. } => true,
            Self::Sequence { decoders } => decoders.iter().any(Self::is_byte_level),
            _ => false,
        }
    }
}

impl PostProcessor {
    /// A text stays whole and in one place, with known tokens around it, and no end behind it.
    pub(super) fn check(&self, vocabulary: usize, end_tokens: &[u32]) -> Checked {
        match self {
            Self::ByteLevel { .. } => Ok(()),
            Self::Sequence { processors } => members(processors)?
                .iter()
                .try_for_each(|processor| processor.check(vocabulary, end_tokens)),
            Self::TemplateProcessing {
                single,
                special_tokens,
                ..
            } => {
                let is_text =
                    |piece: &Piece| matches!(piece, Piece::Sequence { id, .. } if id == "A");
                let mut sides = single.split(is_text);
                let (Some(before), Some(behind), None) = (sides.next(), sides.next(), sides.next())
                else {
                    return Err("it puts a text nowhere or more than once");
                };
                tokens_of(before, special_tokens, vocabulary)?;
                let behind = tokens_of(behind, special_tokens, vocabulary)?;
                if behind.iter().any(|token| end_tokens.contains(token)) {
                    return Err("it ends every prompt with a token that ends an output");
                }
                Ok(())
            }
        }
    }
}

/// The tokens on one side of a text.
fn tokens_of(
    pieces: &[Piece],
    known: &BTreeMap<String, SpecialToken>,
    vocabulary: usize,
) -> Checked<Vec<u32>> {
    let ids = |piece: &Piece| match piece {
        Piece::SpecialToken { id, .. } => known.get(id).map(|token| token.ids.clone()),
        Piece::Sequence { .. } => None,
    };
    let tokens: Option<Vec<Vec<u32>>> = pieces.iter().map(ids).collect();
    let tokens = tokens.ok_or("it puts something around a text that it does not name")?;
    let tokens = tokens.concat();
    if tokens.len() > AROUND_MAX || tokens.iter().any(|token| *token as usize >= vocabulary) {
        return Err("it puts too many or unknown tokens around a text");
    }
    Ok(tokens)
}

fn members<T>(members: &[T]) -> Checked<&[T]> {
    match members.len() {
        0..=MEMBERS_MAX => Ok(members),
        _ => Err("it has too many parts"),
    }
}
