//! `dovetail models`.

use std::process::ExitCode;

use dovetail_agent::{AgentClient, Model, PoolAddress};
use dovetail_console::{OutputError, print_line};
use serde_json::{Value, json};

use super::print_json;

pub(crate) async fn list(pool: &PoolAddress, as_json: bool) -> anyhow::Result<ExitCode> {
    let models = AgentClient::connect(pool).await?.models().await?;
    if as_json {
        print_json(&models.iter().map(to_json).collect::<Vec<_>>())?;
    } else if models.is_empty() {
        print_line("The pool has no models.")?;
    } else {
        models.iter().try_for_each(print)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(model: &Model) -> Result<(), OutputError> {
    let price = match (model.input_msat_per_million, model.output_msat_per_million) {
        (0, 0) => "free".to_owned(),
        (input, output) => format!("{input} msat per million tokens in, {output} out"),
    };
    print_line(format_args!(
        "{}  {price}, {} worker(s)",
        model.name, model.workers
    ))?;
    print_line(format_args!("  id       {}", hex::encode(&model.model_id)))?;
    print_line(format_args!(
        "  limits   {} tokens of context, {} of output, prompt up to {} bytes",
        model.context_tokens, model.output_tokens_max, model.prompt_bytes_max
    ))
}

fn to_json(model: &Model) -> Value {
    json!({
        "model_id": hex::encode(&model.model_id),
        "name": model.name,
        "engine_version": model.engine_version,
        "context_tokens": model.context_tokens,
        "output_tokens_max": model.output_tokens_max,
        "prompt_bytes_max": model.prompt_bytes_max,
        "input_msat_per_million": model.input_msat_per_million,
        "output_msat_per_million": model.output_msat_per_million,
        "workers": model.workers,
    })
}
