//! A model's file at hand, for its vocabulary.

use std::path::Path;

use dovetail_agent::{AgentError, ModelId, Vocabulary};

/// The vocabulary of this model.
///
/// # Errors
/// The file cannot be read, or is another model's.
pub(crate) fn load(path: &Path, asked: ModelId) -> Result<Vocabulary, AgentError> {
    let vocabulary = Vocabulary::load(path).map_err(|source| AgentError::ModelFile {
        path: path.to_owned(),
        source,
    })?;
    let file = vocabulary.model_id();
    if file == asked {
        Ok(vocabulary)
    } else {
        Err(AgentError::OtherModelFile { file, asked })
    }
}
