//! Tasks, models and quotes in the words of the API.

use dovetail_api::v1;
use dovetail_commitment::{Constraint, FinishReason, OUTPUT_TOKENS_MAX};
use dovetail_engine::Model;
use dovetail_ledger::{TaskRecord, TaskState};

use crate::tasks::{Quote, Tasks};

/// A model as agents may order it.
pub(super) fn model_view(tasks: &Tasks, model: &Model) -> v1::Model {
    let context_tokens = saturated(model.context_tokens());
    let prices = tasks.prices().of(&model.id());
    v1::Model {
        model_id: model.id().to_bytes().to_vec(),
        name: model.name().to_owned(),
        engine_version: u32::from(dovetail_engine::ENGINE_VERSION),
        context_tokens,
        output_tokens_max: context_tokens.min(OUTPUT_TOKENS_MAX),
        prompt_bytes_max: saturated(tasks.limits().prompt_bytes_max),
        input_msat_per_million: prices.input_msat_per_million(),
        output_msat_per_million: prices.output_msat_per_million(),
        workers: saturated(tasks.workers_for(&model.id())),
    }
}

/// What a task would cost.
pub(super) fn quote_view(quote: &Quote) -> v1::QuoteTaskResponse {
    v1::QuoteTaskResponse {
        quote_id: quote.id.to_vec(),
        price_msat_max: quote.price_max.get(),
        input_msat_per_million: quote.prices.input_msat_per_million(),
        output_msat_per_million: quote.prices.output_msat_per_million(),
        expires_at_unix_ms: i64::try_from(quote.expires_at.as_millis()).unwrap_or(i64::MAX),
    }
}

/// The task as agents see it. `live_tokens`: how many have come while it runs.
pub(super) fn task_view(record: &TaskRecord, live_tokens: Option<usize>) -> v1::Task {
    let state = match record.state {
        TaskState::Queued => v1::TaskState::Queued,
        TaskState::Assigned => v1::TaskState::Running,
        TaskState::Finished => v1::TaskState::Finished,
        TaskState::Settled => v1::TaskState::Settled,
        TaskState::Failed => v1::TaskState::Failed,
        TaskState::Cancelled => v1::TaskState::Cancelled,
        TaskState::Expired => v1::TaskState::Expired,
    };
    let reason = record
        .transcript
        .as_ref()
        .map(|transcript| transcript.finish_reason);
    let finish_reason = match reason {
        Some(FinishReason::Stop) => v1::FinishReason::Stop,
        Some(FinishReason::Length) => v1::FinishReason::Length,
        Some(FinishReason::Cancelled) => v1::FinishReason::Cancelled,
        Some(FinishReason::ConstraintUnmet) => v1::FinishReason::ConstraintUnmet,
        None => v1::FinishReason::Unspecified,
    };
    let output_tokens = record
        .transcript
        .as_ref()
        .map(|transcript| transcript.output_tokens as usize)
        .or(live_tokens)
        .unwrap_or(0);
    v1::Task {
        task_id: record.id.to_bytes().to_vec(),
        state: state.into(),
        model_id: record.model_id.to_bytes().to_vec(),
        sampling: Some(v1::Sampling {
            temperature_milli: record.sampling.temperature_milli,
            top_k: record.sampling.top_k,
            top_p_milli: record.sampling.top_p_milli,
            max_tokens: record.sampling.max_tokens,
        }),
        seed: record.seed.to_vec(),
        price_msat: record.cost().get(),
        output_tokens: saturated(output_tokens),
        finish_reason: finish_reason.into(),
        error_code: record.error_code.clone().unwrap_or_default(),
        created_at_unix_ms: millis(record.created_at_unix),
        expires_at_unix_ms: millis(record.expires_at_unix),
        guide: record
            .constraint
            .as_ref()
            .map(Constraint::guide)
            .unwrap_or_default()
            .to_owned(),
    }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn millis(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}
