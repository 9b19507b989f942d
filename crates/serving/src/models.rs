//! The models that are served. A worker serves those that are there; others may arrive while tasks run
//! ([`crate::downloads`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use dovetail_commitment::ModelId;
use dovetail_engine::{EngineError, Model};

/// The models that are served, by id. Clones are the same set.
#[derive(Debug, Clone, Default)]
pub struct Models(Arc<RwLock<BTreeMap<ModelId, Arc<Model>>>>);

impl Models {
    /// The model of this id, if it is served.
    pub fn get(&self, id: &ModelId) -> Option<Arc<Model>> {
        self.read().get(id).cloned()
    }

    /// Whether the model is served.
    pub fn contains(&self, id: &ModelId) -> bool {
        self.read().contains_key(id)
    }

    /// The ids, in order.
    pub fn ids(&self) -> Vec<ModelId> {
        self.read().keys().copied().collect()
    }

    /// The models, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Model>> {
        self.read().values().cloned().collect()
    }

    /// Serves one more from here on.
    pub fn insert(&self, model: Model) {
        let mut models = self.0.write().unwrap_or_else(PoisonError::into_inner);
        models.insert(model.id(), Arc::new(model));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ModelId, Arc<Model>>> {
        // A map of finished models: a panic elsewhere leaves it usable.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromIterator<Model> for Models {
    fn from_iter<T: IntoIterator<Item = Model>>(models: T) -> Self {
        let served = Self::default();
        models.into_iter().for_each(|model| served.insert(model));
        served
    }
}

/// A model file of this machine cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot load the model {path}: {source}")]
pub struct ModelError {
    /// The file.
    path: PathBuf,
    /// What the engine said.
    source: EngineError,
}

/// Loads files of this machine.
///
/// # Errors
/// The first that cannot be loaded.
pub fn load(files: &[PathBuf]) -> Result<Models, ModelError> {
    let models = Models::default();
    for path in files {
        let model = Model::load(path).map_err(|source| ModelError {
            path: path.clone(),
            source,
        })?;
        tracing::info!(model = %model.id(), name = model.name(), "loaded a model");
        models.insert(model);
    }
    Ok(models)
}
