//! Asks a pool's only model one question, prints the answer as it comes in, and then the receipt.

use std::env;
use std::time::Duration;

use dovetail_agent::{AgentClient, ModelId, Question, SamplingParams};
use dovetail_console::{Printer, print_line};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pool = env::var("DOVETAIL_POOL").unwrap_or("http://127.0.0.1:50051".into());
    let prompt = env::args().nth(1).unwrap_or("Once upon a time".into());

    let client = AgentClient::connect(&pool).await?;
    let model = client.find_model(None).await?;
    let model_id = ModelId::from_bytes(model.model_id.as_slice().try_into()?);
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1_000,
        max_tokens: 64,
    };
    let question = Question::new(model_id, prompt.into_bytes(), sampling);

    let mut answer = client.ask(question).await?;
    // A stranger's text: the printer keeps it from steering a terminal.
    let mut printer = Printer::stdout();
    while let Some(text) = answer.next().await? {
        printer.write(&text)?;
    }
    printer.finish()?;

    // The pool signs the receipt once a share that commits to the answer has passed its audit.
    let wait_max = Duration::from_secs(120);
    let receipt = client.wait_for_receipt(answer.task_id(), wait_max).await?;
    print_line("")?;
    print_line(receipt)?;
    Ok(())
}
