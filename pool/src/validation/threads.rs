//! A validator inside the pool: replays on a thread of their own, on the runtime that all of them share.

use std::collections::HashSet;
use std::sync::Arc;

use dovetail_audit::{NotReplayed, Verdict, replay};
use dovetail_commitment::ModelId;
use dovetail_engine::Runtime;

use super::{Validator, ValidatorError, Work};
use crate::models::Models;

/// Replays in this process.
pub(crate) struct ThreadValidator {
    name: String,
    runtime: Arc<Runtime>,
    models: Models,
}

impl ThreadValidator {
    /// The pool's validator of this number.
    pub(crate) fn new(number: usize, runtime: Arc<Runtime>, models: Models) -> Self {
        Self {
            name: format!("thread-{number}"),
            runtime,
            models,
        }
    }
}

#[tonic::async_trait]
impl Validator for ThreadValidator {
    fn name(&self) -> &str {
        &self.name
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        Ok(self.models.ids().collect())
    }

    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        let model = self
            .models
            .get(&work.model)
            .ok_or(ValidatorError::ModelUnknown)?;
        let runtime = Arc::clone(&self.runtime);
        let evidence = work.evidence.clone();
        // A panic stays in the thread: it says that we are wrong, not that the worker is.
        tokio::task::spawn_blocking(move || replay(&runtime, &model, &evidence))
            .await
            .map_err(|_| ValidatorError::Broken)?
            .map_err(|NotReplayed| ValidatorError::Unable)
    }
}
