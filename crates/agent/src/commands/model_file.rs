//! A model's file at hand: for its vocabulary, or to compute with.

use std::path::Path;

use dovetail_agent::{AgentError, ModelId, Replayer, Vocabulary};

/// The vocabulary of this model.
///
/// # Errors
/// The file cannot be read, or is another model's.
pub(crate) fn load(path: &Path, asked: ModelId) -> Result<Vocabulary, AgentError> {
    let vocabulary = Vocabulary::load(path).map_err(|source| AgentError::ModelFile {
        path: path.to_owned(),
        source,
    })?;
    of(asked, vocabulary.model_id())?;
    Ok(vocabulary)
}

/// The whole of this model, to compute on all cores.
///
/// # Errors
/// As [`load`], and where the system starts no threads.
pub(crate) fn load_whole(path: &Path, asked: ModelId) -> Result<Replayer, AgentError> {
    let replayer = Replayer::load(path, 0)?;
    of(asked, replayer.model_id())?;
    Ok(replayer)
}

fn of(asked: ModelId, file: ModelId) -> Result<(), AgentError> {
    match file == asked {
        true => Ok(()),
        false => Err(AgentError::OtherModelFile { file, asked }),
    }
}
