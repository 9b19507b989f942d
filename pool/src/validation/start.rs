//! The validators of a pool, as its configuration names them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use dovetail_engine::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Member, RemoteValidator, SharedSecret, ThreadValidator, Validators, ValidatorsConfig};
use crate::config::AuditConfig;
use crate::models::Models;

/// The validators that the configuration names: threads of this process, and other processes.
pub(crate) fn start_validators(
    config: &AuditConfig,
    models: &Models,
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
    Ok(Validators::start(members, config, tracker, shutdown))
}
