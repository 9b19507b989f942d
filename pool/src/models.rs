//! The models that the pool, or a validator of it, can replay.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use dovetail_commitment::ModelId;
use dovetail_engine::Model;

/// Models by id; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Models(Arc<HashMap<ModelId, Arc<Model>>>);

impl Models {
    /// Loads every file.
    pub(crate) fn load(paths: &[impl AsRef<Path>]) -> anyhow::Result<Self> {
        let mut models = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let model = Model::load(path)
                .with_context(|| format!("cannot load the model {}", path.display()))?;
            tracing::info!(model = %model.id(), name = model.name(), "model loaded");
            models.push(Arc::new(model));
        }
        Ok(models.into_iter().collect())
    }

    pub(crate) fn get(&self, id: &ModelId) -> Option<Arc<Model>> {
        self.0.get(id).cloned()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.values()
    }

    /// The ids of all of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ModelId> {
        self.0.keys().copied()
    }
}

impl FromIterator<Arc<Model>> for Models {
    fn from_iter<I: IntoIterator<Item = Arc<Model>>>(models: I) -> Self {
        let by_id = models.into_iter().map(|model| (model.id(), model));
        Self(Arc::new(by_id.collect()))
    }
}
