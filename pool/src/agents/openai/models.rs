//! `GET /v1/models`: what can be asked for, in OpenAI's list and with what agents and routers look for.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use dovetail_chat::CallSyntax;
use dovetail_commitment::{ModelId, OUTPUT_TOKENS_MAX};
use dovetail_engine::{ENGINE_VERSION, Model};
use serde_json::{Value, json};

use super::OpenAi;
use super::completions::json;
use super::error::ApiError;
use crate::tasks::{AdmissionError, Tasks};

/// Fields of requests that change an answer.
const PARAMETERS: [&str; 8] = [
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "response_format",
    "stream",
];
/// The same, of models whose templates take tools.
const TOOLS: [&str; 2] = ["tools", "tool_choice"];
/// Thousandths of a satoshi, of which prices name a millionth each.
const PARTS_OF_A_SAT: u64 = 1_000_000_000;

pub(super) async fn list(State(state): State<OpenAi>) -> Response {
    let mut models: Vec<&Arc<Model>> = state.tasks.models().iter().collect();
    models.sort_by_key(|model| (model.name().to_owned(), model.id().to_bytes()));
    let models = models.into_iter().map(|model| entry(&state, model));
    let data: Vec<Value> = models.collect();
    json(&json!({ "object": "list", "data": data }))
}

pub(super) async fn one(
    State(state): State<OpenAi>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let model = find_model(&state.tasks, &name)?;
    Ok(json(&entry(&state, &model)))
}

/// The model of this name, or of this id in hex.
pub(super) fn find_model(tasks: &Tasks, name: &str) -> Result<Arc<Model>, ApiError> {
    let by_id = name.parse::<ModelId>().ok();
    let by_id = by_id.and_then(|id| tasks.models().get(&id));
    let found = by_id.or_else(|| {
        let named = tasks.models().iter();
        let named = named.filter(|model| public_name(tasks, model) == name);
        named.min_by_key(|model| model.id().to_bytes()).cloned()
    });
    found.ok_or_else(|| AdmissionError::ModelUnknown.into())
}

/// What clients call a model: its name, or its id where another model has the same name.
pub(super) fn public_name(tasks: &Tasks, model: &Model) -> String {
    let namesakes = tasks.models().iter();
    let namesakes = namesakes.filter(|other| other.name() == model.name());
    match namesakes.count() {
        0 | 1 => model.name().to_owned(),
        _ => model.id().to_string(),
    }
}

fn entry(state: &OpenAi, model: &Model) -> Value {
    let id = model.id();
    let template = &model.manifest().chat_template;
    let calls = CallSyntax::of(template).map(|_| TOOLS);
    let parameters: Vec<&str> = PARAMETERS
        .into_iter()
        .chain(calls.into_iter().flatten())
        .collect();
    let prices = state.tasks.prices().of(&id);
    let (input, output) = (
        prices.input_msat_per_million(),
        prices.output_msat_per_million(),
    );
    let context = model.context_tokens();
    let output_max = context.min(usize::try_from(OUTPUT_TOKENS_MAX).unwrap_or(usize::MAX));
    json!({
        "id": public_name(&state.tasks, model),
        "object": "model",
        "created": state.started_unix,
        "owned_by": "dovetail",
        "context_length": context,
        "max_output_tokens": output_max,
        "pricing": { "prompt": sat(input), "completion": sat(output), "unit": "sat" },
        "price_msat_per_million": { "input": input, "output": output },
        "supported_parameters": parameters,
        "dovetail": {
            "model_id": id.to_string(),
            "engine_version": ENGINE_VERSION,
            "workers": state.tasks.workers_for(&id),
            // Of tasks since the pool's start.
            "ttft_ms_p50": state.tasks.first_token_after(&id).map(|waited| waited.as_millis() as u64),
            "has_chat_template": !template.is_empty(),
        },
    })
}

/// What one token costs in satoshi, exactly.
fn sat(msat_per_million: u64) -> String {
    let (whole, rest) = (
        msat_per_million / PARTS_OF_A_SAT,
        msat_per_million % PARTS_OF_A_SAT,
    );
    let text = format!("{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_written_out_exactly() {
        assert_eq!(sat(0), "0");
        assert_eq!(sat(12_000), "0.000012");
        assert_eq!(sat(1_000_000_000), "1");
        assert_eq!(sat(1), "0.000000001");
        assert_eq!(sat(1_500_000_000), "1.5");
    }
}
