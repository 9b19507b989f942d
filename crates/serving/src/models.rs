//! The models that are served: from files of the machine, and from a pool.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::ModelId;
use dovetail_engine::{EngineError, Model};

use crate::fetch::{FetchError, Fetcher, Progress, Wanted, file_name};

/// How often the log tells how far a download is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The models that are served, by id.
pub type Models = BTreeMap<ModelId, Arc<Model>>;

/// Where models come from.
#[derive(Debug, Clone)]
pub struct ModelSources {
    /// Files of this machine.
    pub files: Vec<PathBuf>,
    /// What a pool hands out.
    pub pool: Option<PoolModels>,
}

/// Models that are fetched from a pool where they are not here yet.
#[derive(Debug, Clone)]
pub struct PoolModels {
    /// The pool's gRPC address, such as `http://127.0.0.1:50051`.
    pub api: String,
    /// The models to serve.
    pub models: Vec<Wanted>,
    /// Where they are kept, each in a file named by its id.
    pub cache_dir: PathBuf,
    /// The longest file that is fetched.
    pub model_bytes_max: u64,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of this machine.
    #[error("cannot load the model {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: EngineError,
    },
    /// A model of the pool's.
    #[error("cannot fetch the model {wanted}: {source}")]
    Fetch {
        /// As it was asked for.
        wanted: Wanted,
        /// Why not.
        source: FetchError,
    },
}

/// Loads the files and fetches the other models. Waits for a pool that cannot be reached, as long as it takes.
///
/// # Errors
/// The first model that cannot be had.
pub async fn obtain(sources: &ModelSources) -> Result<Models, ModelError> {
    let mut models = BTreeMap::new();
    for path in &sources.files {
        let model = Model::load(path).map_err(|source| ModelError::File {
            path: path.clone(),
            source,
        })?;
        tracing::info!(model = %model.id(), name = model.name(), "loaded a model");
        models.insert(model.id(), Arc::new(model));
    }
    let Some(pool) = &sources.pool else {
        return Ok(models);
    };
    for wanted in &pool.models {
        let fetched = obtain_from_pool(pool, wanted, &models).await;
        let fetched = fetched.map_err(|source| ModelError::Fetch {
            wanted: wanted.clone(),
            source,
        })?;
        if let Some(model) = fetched {
            models.insert(model.id(), Arc::new(model));
        }
    }
    Ok(models)
}

/// The wanted model, unless it is there.
async fn obtain_from_pool(
    pool: &PoolModels,
    wanted: &Wanted,
    models: &Models,
) -> Result<Option<Model>, FetchError> {
    let fetcher = Fetcher {
        api: pool.api.clone(),
        model_bytes_max: pool.model_bytes_max,
        attempts_max: u32::MAX,
    };
    let id = fetcher.resolve(wanted, |_| {}).await?;
    if models.contains_key(&id) {
        return Ok(None);
    }
    let mut told_at: Option<Instant> = None;
    let file = pool.cache_dir.join(file_name(&id));
    let progress = |progress| match progress {
        Progress::Bytes { done, of } => {
            if told_at.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) || done == of {
                told_at = Some(Instant::now());
                tracing::info!(model = %id, bytes = done, of_bytes = of, "fetching a model");
            }
        }
        Progress::Checking => tracing::info!(model = %id, "checking a fetched model"),
        Progress::Cached | Progress::Waiting => {}
    };
    let model = fetcher.fetch(id, &file, progress).await?;
    tracing::info!(model = %id, name = model.name(), file = %file.display(), "loaded a model");
    Ok(Some(model))
}
