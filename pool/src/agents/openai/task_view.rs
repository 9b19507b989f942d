//! `GET /v1/dovetail/tasks/{task}` and `GET /v1/dovetail/receipts/{task}`: how a task stands, and what proves it. Whoever
//! knows a task's id may ask, as over gRPC.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dovetail_commitment::{TaskId, Transcript};
use dovetail_ledger::{TaskRecord, TaskState};
use serde_json::{Value, json};

use super::OpenAi;
use super::completions::json;
use super::error::ApiError;
use super::models::public_name;
use super::shape::{reason_word, receipt_path, usage};
use crate::agents::caller;
use crate::tasks::TaskError;

/// The longest that a request may wait for a receipt.
const WAIT_MAX_S: u64 = 120;

pub(super) async fn task(
    State(state): State<OpenAi>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let task = state.tasks.show(task_id(&id)?).await?;
    Ok(json(&view(&state, &task)))
}

pub(super) async fn receipt(
    State(state): State<OpenAi>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let query = request.uri().query().unwrap_or("");
    let (id, wait) = (task_id(&id)?, wait_of(query)?);
    let caller = caller(request.extensions().get());
    let receipt = tokio::select! {
        receipt = state.tasks.receipt_within(id, wait, caller) => receipt?,
        () = state.shutdown.cancelled() => state.tasks.receipt(id).await?,
    };
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from(receipt)).into_response())
}

/// No task has an id that is none.
fn task_id(text: &str) -> Result<TaskId, ApiError> {
    text.parse().map_err(|_| TaskError::Unknown.into())
}

/// `wait=SECONDS` of a query; at once where it is absent.
fn wait_of(query: &str) -> Result<Duration, ApiError> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let wait = pairs.into_iter().find(|(name, _)| *name == "wait");
    let Some((name, value)) = wait else {
        return Ok(Duration::ZERO);
    };
    let seconds = value
        .parse::<u64>()
        .ok()
        .filter(|seconds| *seconds <= WAIT_MAX_S);
    let seconds = seconds.ok_or_else(|| {
        ApiError::invalid(
            name,
            format!("it must be a number of seconds, 0 to {WAIT_MAX_S}"),
        )
    })?;
    Ok(Duration::from_secs(seconds))
}

fn view(state: &OpenAi, task: &TaskRecord) -> Value {
    let model = state.tasks.models().get(&task.model_id);
    let model = model.map(|model| public_name(&state.tasks, &model));
    let mut usage = usage(task);
    if task.transcript.is_none() {
        // So far; the price is what it can cost at most.
        let tokens = state.tasks.tokens_so_far(&task.id).unwrap_or(0);
        usage["completion_tokens"] = tokens.into();
        usage["total_tokens"] = (tokens as u64 + u64::from(task.input_tokens)).into();
    }
    let transcript = task.transcript.as_ref();
    json!({
        "id": task.id.to_string(),
        "object": "dovetail.task",
        "state": state_word(task.state),
        "model": model,
        "model_id": task.model_id.to_string(),
        "created": task.created_at_unix,
        "expires": task.expires_at_unix,
        "usage": usage,
        "finish_reason": transcript.map(|transcript| reason_word(transcript.finish_reason)),
        "error_code": task.error_code,
        "worker": task.worker.map(|worker| worker.to_string()),
        "transcript": transcript.map(Transcript::leaf).map(|leaf| leaf.to_string()),
        "receipt": receipt_path(&task.id),
    })
}

/// In the words of the gRPC interface.
fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Queued => "queued",
        TaskState::Assigned => "running",
        TaskState::Finished => "finished",
        TaskState::Settled => "settled",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Expired => "expired",
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(wait_of(""), Ok(Duration::ZERO));
        assert_eq!(wait_of("a=b&wait=120"), Ok(Duration::from_secs(120)));
        for query in ["wait=121", "wait=-1", "wait=", "wait=1.5"] {
            assert_eq!(wait_of(query).unwrap_err().code, Code::InvalidValue);
        }
    }

    #[test]
    fn an_id_that_is_none_names_no_task() {
        assert_eq!(task_id("x").unwrap_err().code, Code::TaskNotFound);
    }
}
