//! Asks the model clerk what an invoice says, and prints what is to be doubted about its answer.

use std::env;

use dovetail_agent::{AgentClient, ModelId, Question, SamplingParams};
use dovetail_clerk::check::check;
use dovetail_console::{print_line, print_text};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = env::var("DOVETAIL_POOL").unwrap_or("http://127.0.0.1:50051".into());
    let file = env::args().nth(1).unwrap_or("invoice.txt".into());
    let invoice = std::fs::read_to_string(file)?;

    let client = AgentClient::connect(&pool).await?;
    let model = client.find_model(Some("clerk")).await?;
    let model_id = ModelId::from_bytes(model.model_id.as_slice().try_into()?);
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1_000,
        max_tokens: 320,
    };
    let question = Question::new(model_id, invoice.clone().into_bytes(), sampling);

    let mut said = Vec::new();
    let mut answer = client.ask(question).await?;
    while let Some(text) = answer.next().await? {
        said.extend(text);
    }
    let said = String::from_utf8_lossy(&said);
    print_line(&said)?;

    // The model never says that it does not know. The check says what not to use unseen.
    let report = check(&invoice, &said);
    print_text(&report)?;
    anyhow::ensure!(!report.is_doubtful(), "look at the invoice yourself");
    Ok(())
}
