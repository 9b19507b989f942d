//! The validators of a pool, as its configuration names them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use dovetail_engine::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{
    Member, RemoteValidator, ReplayPace, SharedSecret, ThreadValidator, Validators,
    ValidatorsConfig,
};
use crate::config::AuditConfig;
use crate::models::Models;

/// Nothing is known of the validators' speed yet; a replay may take as long as the audit and the validators allow.
pub(crate) fn pace_of(config: &AuditConfig, models: &Models) -> ReplayPace {
    let seconds = match config.validators.is_empty() {
        true => config.timeout_s,
        false => config.timeout_s.min(config.validator_timeout_s),
    };
    ReplayPace::new(models.clone(), Duration::from_secs(seconds))
}

/// The validators that the configuration names: threads of this process, and other processes.
pub(crate) fn start_validators(
    config: &AuditConfig,
    models: &Models,
    pace: ReplayPace,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Validators> {
    let mut members = Vec::new();
    let secret = config.validators_secret.as_ref().map(SharedSecret::read);
    let secret = secret.transpose().context("audit.validators_secret")?;
    for url in &config.validators {
        let validator = RemoteValidator::new(url, secret.clone())
            .map_err(|reason| anyhow!("configuration: audit.validators: {reason}"))?;
        members.push(Member {
            validator: Arc::new(validator),
            is_local: false,
        });
    }
    let runtime = Arc::new(Runtime::new(config.threads)?);
    for number in 0..config.in_process {
        members.push(Member {
            validator: Arc::new(ThreadValidator::new(
                number,
                Arc::clone(&runtime),
                models.clone(),
            )),
            is_local: true,
        });
    }
    let config = ValidatorsConfig {
        queue_max: config.queue_max,
        batch_max: config.batch_max,
        validator_timeout: Duration::from_secs(config.validator_timeout_s),
    };
    Ok(Validators::start(members, config, pace, tracker, shutdown))
}
