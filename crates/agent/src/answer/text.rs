//! Comparing an answer's text with its tokens, where the model's vocabulary is at hand. The receipt proves tokens; the text
//! that a person reads is the pool's word without this.

use std::collections::VecDeque;

use dovetail_commitment::ModelId;
use dovetail_engine::Vocabulary;

use crate::AgentError;

/// The text of tokens that came, as far as the pool has not shown it yet.
#[derive(Debug)]
pub(super) struct TextComparison {
    vocabulary: Vocabulary,
    /// Bytes of tokens that came before their text: a pool may cut pieces otherwise than tokens.
    ahead: VecDeque<u8>,
    tokens: usize,
}

impl TextComparison {
    /// # Errors
    /// [`AgentError::OtherModelFile`].
    pub(super) fn new(vocabulary: Vocabulary, asked: ModelId) -> Result<Self, AgentError> {
        if vocabulary.model_id() != asked {
            return Err(AgentError::OtherModelFile {
                file: vocabulary.model_id(),
                asked,
            });
        }
        Ok(Self {
            vocabulary,
            ahead: VecDeque::new(),
            tokens: 0,
        })
    }

    /// Takes the next tokens and the text that came with them.
    ///
    /// # Errors
    /// [`AgentError::TextOfOtherTokens`].
    pub(super) fn take(&mut self, tokens: &[u32], text: &[u8]) -> Result<(), AgentError> {
        self.ahead.extend(self.vocabulary.decode(tokens));
        let is_of_tokens = text.len() <= self.ahead.len()
            && self.ahead.drain(..text.len()).eq(text.iter().copied());
        if !is_of_tokens {
            return Err(self.differs());
        }
        self.tokens += tokens.len();
        Ok(())
    }

    /// The answer is whole: so must be its text.
    ///
    /// # Errors
    /// [`AgentError::TextOfOtherTokens`].
    pub(super) fn end(&self) -> Result<(), AgentError> {
        match self.ahead.is_empty() {
            true => Ok(()),
            false => Err(self.differs()),
        }
    }

    fn differs(&self) -> AgentError {
        AgentError::TextOfOtherTokens { token: self.tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ModelId = ModelId::from_bytes([7; 32]);

    fn comparison() -> TextComparison {
        TextComparison::new(Vocabulary::of_bytes(ID), ID).unwrap()
    }

    #[test]
    fn text_may_come_later_than_its_tokens_but_not_before() {
        let mut text = comparison();
        text.take(&[0x61, 0xe2], b"a").unwrap();
        text.take(&[0x82, 0xac], "€".as_bytes()).unwrap();
        text.end().unwrap();
        assert!(text.take(&[0x61], b"ab").is_err());
    }

    #[test]
    fn a_text_that_differs_or_lacks_something_is_noticed() {
        let mut text = comparison();
        assert!(text.take(&[0x61, 0x62], b"aX").is_err());
        let mut text = comparison();
        text.take(&[0x61, 0x62], b"a").unwrap();
        assert!(matches!(
            text.end(),
            Err(AgentError::TextOfOtherTokens { token: 2 })
        ));
    }

    #[test]
    fn a_file_of_another_model_is_refused() {
        let other = ModelId::from_bytes([8; 32]);
        let refused = TextComparison::new(Vocabulary::of_bytes(other), ID);
        assert!(matches!(refused, Err(AgentError::OtherModelFile { .. })));
    }
}
