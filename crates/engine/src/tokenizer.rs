//! Text to tokens and back: by bytes, or with a `tokenizer.json` of Hugging Face's library.
//!
//! Only encoding is the library's. A token's bytes come from a table of our own, so that a stream of
//! tokens is a stream of bytes, whatever the tokens are cut like.

use std::collections::HashSet;

use crate::EngineError;

/// Begins every prompt of the byte tokenizer.
const BYTES_BEGIN: u32 = 256;
/// Ends an output of the byte tokenizer.
pub(crate) const BYTES_END: u32 = 257;
/// How many tokens the byte tokenizer has.
pub(crate) const BYTES_VOCABULARY: usize = 258;

/// A tokenizer with the bytes of each token.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    /// `None`: by bytes.
    library: Option<Box<tokenizers::Tokenizer>>,
    /// The bytes of each token; none for special ones.
    bytes: Vec<Box<[u8]>>,
}

impl Tokenizer {
    pub(crate) fn by_bytes() -> Self {
        let bytes = (0..=u8::MAX).map(|byte| Box::from([byte])).collect();
        Self {
            library: None,
            bytes,
        }
    }

    /// A `tokenizer.json` for a model of this vocabulary.
    pub(crate) fn from_json(json: &[u8], vocabulary: usize) -> Result<Self, EngineError> {
        let library = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|_| EngineError::Format("the tokenizer does not parse"))?;
        if library.get_vocab_size(true) > vocabulary {
            return Err(EngineError::Format(
                "the tokenizer has more tokens than the model",
            ));
        }
        let special: HashSet<u32> = library
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| *id)
            .collect();
        let byte_level = uses_byte_level(json);
        let vocabulary = u32::try_from(vocabulary).unwrap_or(u32::MAX);
        let bytes = (0..vocabulary)
            .map(|id| match library.id_to_token(id) {
                Some(token) if !special.contains(&id) => bytes_of(&token, byte_level).into(),
                _ => Box::default(),
            })
            .collect();
        Ok(Self {
            library: Some(Box::new(library)),
            bytes,
        })
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
        let encoding = library
            .encode_fast(text.as_ref(), begins)
            .map_err(|_| EngineError::PromptInvalid)?;
        Ok(encoding.get_ids().to_vec())
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

/// Whether tokens are written in GPT-2's alphabet of bytes: as a decoder or pre-tokenizer says.
fn uses_byte_level(json: &[u8]) -> bool {
    fn mentions(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Object(fields) => {
                fields.get("type").is_some_and(|kind| kind == "ByteLevel")
                    || fields.values().any(mentions)
            }
            serde_json::Value::Array(items) => items.iter().any(mentions),
            _ => false,
        }
    }
    serde_json::from_slice::<serde_json::Value>(json)
        .is_ok_and(|file| mentions(&file["decoder"]) || mentions(&file["pre_tokenizer"]))
}

/// The bytes behind a token's name.
fn bytes_of(token: &str, byte_level: bool) -> Vec<u8> {
    if byte_level {
        // A name outside the alphabet is an added token, which stands for itself.
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of_letter).collect();
        return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
    }
    // SentencePiece: <0x0A> is a byte, U+2581 a space.
    let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// GPT-2's alphabet: printable bytes of Latin-1 stand for themselves, the others for 256 and on, in
/// order.
fn byte_of_letter(letter: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(letter).checked_sub(256) {
        None => u8::try_from(u32::from(letter))
            .ok()
            .filter(|byte| printable(*byte)),
        Some(place) => (0..=u8::MAX)
            .filter(|byte| !printable(*byte))
            .nth(place as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_alphabet_of_bytes_is_gpt_2s() {
        let letters = [
            ('A', 0x41),
            ('Ġ', 0x20),
            ('Ċ', 0x0a),
            ('Ā', 0),
            ('ÿ', 0xff),
            ('Ń', 0xad),
        ];
        for (letter, byte) in letters {
            assert_eq!(byte_of_letter(letter), Some(byte), "{letter}");
        }
        assert_eq!(byte_of_letter('ń'), None);
        assert_eq!(byte_of_letter(' '), None);
    }

    #[test]
    fn sentence_pieces_become_bytes() {
        assert_eq!(bytes_of("\u{2581}pool", false), b" pool");
        assert_eq!(bytes_of("<0x0A>", false), b"\n");
        assert_eq!(bytes_of("<s>", false), b"<s>");
    }

    proptest! {
        #[test]
        fn every_text_survives_the_byte_tokenizer(text: Vec<u8>) {
            let tokenizer = Tokenizer::by_bytes();
            let tokens = tokenizer.encode(&text, true).expect("bytes always encode");
            prop_assert_eq!(tokenizer.decode(&tokens), text);
        }
    }
}
