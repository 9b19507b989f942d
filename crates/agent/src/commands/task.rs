//! `dovetail task get` and `dovetail task cancel`.

use std::process::ExitCode;

use dovetail_agent::{AgentClient, PoolAddress, Task};
use dovetail_console::print_line;
use serde_json::{Value, json};

use super::print_json;
use crate::args::TaskArgs;

pub(crate) async fn get(pool: &PoolAddress, args: &TaskArgs) -> anyhow::Result<ExitCode> {
    show(
        &AgentClient::connect(pool).await?.task(args.task_id).await?,
        args.json,
    )
}

pub(crate) async fn cancel(pool: &PoolAddress, args: &TaskArgs) -> anyhow::Result<ExitCode> {
    show(
        &AgentClient::connect(pool)
            .await?
            .cancel(args.task_id)
            .await?,
        args.json,
    )
}

fn show(task: &Task, as_json: bool) -> anyhow::Result<ExitCode> {
    if as_json {
        print_json(&to_json(task))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = vec![
        format!("task     {}", hex::encode(&task.task_id)),
        format!("state    {}", state(task)),
    ];
    if !task.error_code.is_empty() {
        lines.push(format!("why      {}", task.error_code));
    }
    lines.extend([
        format!("model    {}", hex::encode(&task.model_id)),
        format!("output   {} tokens", task.output_tokens),
        format!("price    {} msat", task.price_msat),
    ]);
    lines.iter().try_for_each(print_line)?;
    Ok(ExitCode::SUCCESS)
}

/// The state's name in the interface without its prefix, in lower case.
pub(crate) fn state(task: &Task) -> String {
    task.state()
        .as_str_name()
        .trim_start_matches("TASK_STATE_")
        .to_ascii_lowercase()
}

/// The finish reason's name in the interface without its prefix, in lower case.
pub(crate) fn finish_reason(task: &Task) -> String {
    task.finish_reason()
        .as_str_name()
        .trim_start_matches("FINISH_REASON_")
        .to_ascii_lowercase()
}

fn to_json(task: &Task) -> Value {
    json!({
        "task_id": hex::encode(&task.task_id),
        "state": state(task),
        "error_code": task.error_code,
        "model_id": hex::encode(&task.model_id),
        "seed": hex::encode(&task.seed),
        "output_tokens": task.output_tokens,
        "finish_reason": finish_reason(task),
        "price_msat": task.price_msat,
        "created_at_unix_ms": task.created_at_unix_ms,
        "expires_at_unix_ms": task.expires_at_unix_ms,
    })
}
