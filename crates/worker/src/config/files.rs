//! What the configuration names besides itself, as `--check-config` looks at it. Nothing is connected to, made or
//! changed, and of a model only its head is read.

use std::path::PathBuf;

use dovetail_engine::{EngineError, Head};
use dovetail_miner::keys::{KeyFileError, WorkerKeys, load_authority_keys};

use dovetail_serving::fetch::AuthorityError;

use super::Config;
use crate::promises::{LeftPools, LeftPoolsError};

/// A file that the worker could not start with.
#[derive(Debug, thiserror::Error)]
pub enum FileRefused {
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The pools that were left.
    #[error(transparent)]
    Left(#[from] LeftPoolsError),
    /// The authority of the pool's API.
    #[error("fetch.ca: {0}")]
    Authority(#[from] AuthorityError),
    /// A model.
    #[error("worker.models: {path}: {source}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: EngineError,
    },
}

impl Config {
    /// Opens and reads the files that it names, as far as they are there.
    ///
    /// # Errors
    /// The first that the worker could not start with.
    pub fn check_files(&self) -> Result<(), FileRefused> {
        WorkerKeys::load(&self.worker.key_file)?;
        LeftPools::load(&self.worker.key_file.with_extension("left"))?;
        if let Some(firmware) = &self.firmware {
            load_authority_keys(&firmware.key_file)?;
        }
        if let Some(fetch) = &self.fetch {
            fetch.address()?;
        }
        for path in &self.worker.models {
            Head::of_file(path).map_err(|source| FileRefused::Model {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }
}
