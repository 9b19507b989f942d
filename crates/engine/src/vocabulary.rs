//! What a model's tokens are in text, without its weights: enough to read what a transcript's tokens say.

use std::path::Path;

use dovetail_commitment::ModelId;

use crate::EngineError;
use crate::reader;
use crate::tokenizer::Tokenizer;

/// The bytes of each token of one model.
#[derive(Debug)]
pub struct Vocabulary {
    model_id: ModelId,
    tokenizer: Tokenizer,
}

impl Vocabulary {
    /// Reads and checks a model file as [`crate::Model::load`] does, so that the tokens are those that the model's id
    /// stands for, but keeps none of its weights: it takes the memory of the largest tensor for a while.
    ///
    /// # Errors
    /// As [`crate::Model::load`], but for the contents of tensors, of which only the digests are looked at.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let file = std::io::BufReader::new(std::fs::File::open(path)?);
        let (model_id, tokenizer) = reader::read_tokenizer(file)?;
        Ok(Self {
            model_id,
            tokenizer,
        })
    }

    /// That of a model whose tokens are bytes.
    pub fn of_bytes(model_id: ModelId) -> Self {
        Self {
            model_id,
            tokenizer: Tokenizer::by_bytes(),
        }
    }

    /// The model.
    pub fn model_id(&self) -> ModelId {
        self.model_id
    }

    /// The tokens of a prompt. As [`crate::Model::encode`].
    ///
    /// # Errors
    /// As [`crate::Model::encode`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, EngineError> {
        self.tokenizer.encode(text, true)
    }

    /// The bytes of tokens; special ones give none. As [`crate::Model::decode`].
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        self.tokenizer.decode(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, tiny};

    #[test]
    fn a_vocabulary_is_that_of_its_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, tiny::generate(1)).unwrap();
        let (vocabulary, model) = (
            Vocabulary::load(&path).unwrap(),
            Model::load(&path).unwrap(),
        );
        assert_eq!(vocabulary.model_id(), model.id());
        let tokens: Vec<u32> = (0..300).collect();
        assert_eq!(vocabulary.decode(&tokens), model.decode(&tokens));
        let encoded = vocabulary.encode(b"a text").unwrap();
        assert_eq!(encoded, model.encode(b"a text").unwrap());
    }

    #[test]
    fn a_file_that_is_not_the_model_that_it_names_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut file = tiny::generate(1);
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(&path, file).unwrap();
        assert!(Vocabulary::load(&path).is_err());
    }
}
