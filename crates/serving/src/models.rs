//! The models that a worker serves: from files of its own, and from the pool.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_engine::{EngineError, Model};

use crate::config::{Config, Fetch};
use crate::fetch::{FetchError, Fetcher, Progress, Wanted, file_name};
use crate::tasks::Models;

/// How often the log tells how far a download is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the configuration.
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
        /// As the configuration names it.
        wanted: Wanted,
        /// Why not.
        source: FetchError,
    },
}

/// Loads the files that the configuration names and fetches the other models. Waits for a pool that cannot be
/// reached, as long as it takes.
///
/// # Errors
/// The first model that cannot be had.
pub async fn obtain(config: &Config) -> Result<Models, ModelError> {
    let mut models = BTreeMap::new();
    for path in &config.worker.models {
        let model = Model::load(path).map_err(|source| ModelError::File {
            path: path.clone(),
            source,
        })?;
        tracing::info!(model = %model.id(), name = model.name(), "loaded a model");
        models.insert(model.id(), Arc::new(model));
    }
    let Some(fetch) = &config.fetch else {
        return Ok(models);
    };
    for name in &fetch.models {
        let Ok(wanted) = name.parse::<Wanted>();
        let fetched = obtain_from_pool(fetch, &wanted, &models).await;
        let fetched = fetched.map_err(|source| ModelError::Fetch { wanted, source })?;
        if let Some(model) = fetched {
            models.insert(model.id(), Arc::new(model));
        }
    }
    Ok(models)
}

/// The wanted model, unless it is there.
async fn obtain_from_pool(
    config: &Fetch,
    wanted: &Wanted,
    models: &Models,
) -> Result<Option<Model>, FetchError> {
    let fetcher = Fetcher {
        api: config.api.clone(),
        model_bytes_max: config.model_bytes_max,
        attempts_max: u32::MAX,
    };
    let id = fetcher.resolve(wanted, |_| {}).await?;
    if models.contains_key(&id) {
        return Ok(None);
    }
    let mut told_at: Option<Instant> = None;
    let file = config.cache_dir.join(file_name(&id));
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
