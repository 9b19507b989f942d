//! Replays, away from the mining path: claims put their samples into a bounded queue, and validators
//! take from it, several claims' samples of a model at once. Only the acknowledgement of a claiming
//! share waits for them.
//!
//! A validator is a thread of the pool (`threads`) or a process of its own (`remote`, `service`). One that
//! fails is passed over until it answers again; what it was doing goes to another.

mod pace;
mod queue;
mod remote;
mod sample;
mod service;
mod shared_secret;
mod start;
#[cfg(test)]
pub(crate) mod tests;
mod threads;
mod validators;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;

use dovetail_audit::{Evidence, Verdict};
use dovetail_commitment::ModelId;

pub(crate) use pace::{BatchTooCostly, Extent, ReplayPace};
pub(crate) use remote::RemoteValidator;
pub(crate) use sample::{Late, Replayed};
pub use service::{ValidatorOptions, serve as serve_validator};
pub(crate) use shared_secret::SharedSecret;
pub(crate) use start::{pace_of, start_validators};
pub(crate) use threads::ThreadValidator;
pub(crate) use validators::{Member, NotReplayed, ValidatorNames, Validators, ValidatorsConfig};

/// Sampled transcripts of one model, to be replayed in one go.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) model: ModelId,
    /// 1 to [`dovetail_api::VALIDATION_EVIDENCE_MAX`].
    pub(crate) evidence: Vec<Arc<Evidence>>,
}

/// Why a validator gave no verdicts. None of these says anything about a worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidatorError {
    /// Its process cannot be reached, or went away.
    #[error("the validator cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("the validator did not answer in time")]
    TimeOut,
    /// It computes with another version of the arithmetic.
    #[error("the validator's engine has version {theirs}, the pool's {ours}: run the same release")]
    EngineVersion {
        /// What it said.
        theirs: u32,
        /// What this pool has.
        ours: u32,
    },
    /// It follows constraints in another way.
    #[error("the validator has another guide than the pool: run the same release")]
    Guide,
    /// It does not have the model.
    #[error("the validator does not have the model")]
    ModelUnknown,
    /// It does not have the secret that it shares with the pool, or does not show it.
    #[error(
        "the validator does not prove the shared secret: compare audit.validators_secret with its --secret-file"
    )]
    Unauthenticated,
    /// What it sent does not answer what was asked.
    #[error("the validator's answer is malformed")]
    Malformed,
    /// Its machine could not do its part now.
    #[error("the validator's machine could not do the replay: it may be out of threads or memory")]
    Unable,
    /// Its thread panicked.
    #[error("the replay broke off")]
    Broken,
}

/// Evidence and sample in, verdicts out. What it says is believed, so it is the operator's own.
#[tonic::async_trait]
pub(crate) trait Validator: Send + Sync + 'static {
    /// What the log and the records of failed audits call it.
    fn name(&self) -> &str;

    /// The models it can replay now; also how one that failed is asked whether it is back.
    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError>;

    /// One verdict for each transcript, in their order.
    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError>;
}
