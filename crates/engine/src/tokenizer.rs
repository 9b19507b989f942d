//! The byte-level tokenizer: token `b` is the byte `b`; two more tokens begin and end a text.

/// Begins every prompt.
pub(crate) const BOS: u32 = 256;
/// Ends an output.
pub(crate) const EOS: u32 = 257;
/// How many tokens there are.
pub(crate) const VOCABULARY: usize = 258;

/// The tokens of a text, behind [`BOS`].
pub(crate) fn encode(text: &[u8]) -> Vec<u32> {
    std::iter::once(BOS)
        .chain(text.iter().map(|byte| u32::from(*byte)))
        .collect()
}

/// The bytes of tokens; those that are no bytes give nothing.
pub(crate) fn decode(tokens: &[u32]) -> Vec<u8> {
    tokens
        .iter()
        .filter_map(|token| u8::try_from(*token).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_survives(text: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&text)), text);
        }
    }
}
