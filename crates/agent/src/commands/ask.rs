//! `dovetail ask`: from a prompt to text on stdout, and to a verified receipt where one is wanted.

use std::{
    io::{self, Read},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, ensure};
use dovetail_agent::{
    AgentClient, AgentError, Answer, FinishReason, PoolAddress, Question, ReceiptFile,
    receipt_file::Kept,
    verify::{self, Report},
};
use dovetail_commitment::{ModelId, PROMPT_BYTES_MAX, TaskId};
use dovetail_console::{OutputError, Printer, print_note};
use serde_json::json;
use tokio::time::timeout;

use super::{model_file, print_json, receipt, task};
use crate::args::AskArgs;

/// How long a pool may take to hear that nobody waits any more.
const CANCEL_TIME_MAX: Duration = Duration::from_secs(5);

pub(crate) async fn ask(pool: &PoolAddress, args: AskArgs) -> anyhow::Result<ExitCode> {
    let prompt = read_prompt(&args.prompt)?;
    let constraint = args.constraint.constraint()?;
    if args.key.is_some() && pool.is_readable_on_the_way() {
        let url = pool.url();
        print_note(format_args!(
            "warning: {url} speaks no TLS, so whoever is on the way reads the key and may spend its budget"
        ));
    }
    let mut client = AgentClient::connect(pool).await?;
    if let Some(key) = args.key.clone() {
        client = client.with_key(key);
    }
    let model = client.find_model(args.model.as_deref()).await?;
    let model_id: [u8; 32] = model
        .model_id
        .as_slice()
        .try_into()
        .context("the pool's model id")?;

    let model_id = ModelId::from_bytes(model_id);
    // First: a wrong file should not cost an answer.
    let vocabulary = args
        .model_file
        .as_deref()
        .map(|path| model_file::load(path, model_id))
        .transpose()?;

    let mut question = Question::new(model_id, prompt, args.sampling.params(args.max_tokens));
    question.stop = args.sampling.stop()?;
    question.constraint = constraint;
    question.time_max = Duration::from_secs(args.timeout);
    if let Some(seed) = args.sampling.seed {
        question.seed = seed.0;
    }
    let mut answer = begin(&client, question).await?;
    if let Some(vocabulary) = vocabulary {
        answer.compare_text(vocabulary)?;
    }
    let text = follow(&client, &mut answer, args.json).await?;
    if !args.json {
        print_note(format_args!(
            "[task {}: {}]",
            answer.task_id(),
            describe(&answer)
        ));
    }

    let report = match &args.receipt {
        Some(path) => Some(settle(&client, &answer, path, &args).await?),
        None => None,
    };
    if args.json {
        print_summary(&answer, &model.name, &text, &args, report.as_ref())?;
    }
    Ok(report
        .as_ref()
        .map_or(ExitCode::SUCCESS, receipt::exit_code))
}

/// Asks. Whatever keeps the answer from beginning, the pool may have the task.
async fn begin(client: &AgentClient, question: Question) -> Result<Answer, AgentError> {
    let task_id = question.task_id;
    let begun = client.ask(question).await;
    if begun.is_err() {
        stop(client, task_id).await;
    }
    begun
}

/// Streams the answer to stdout, or gathers it where it is to be JSON. Ctrl-C cancels the task at the pool.
async fn follow(
    client: &AgentClient,
    answer: &mut Answer,
    as_json: bool,
) -> anyhow::Result<Vec<u8>> {
    let mut gathered = Vec::new();
    let mut printer = Printer::stdout();
    loop {
        tokio::select! {
            piece = answer.next() => match piece {
                Ok(Some(piece)) if as_json => gathered.extend_from_slice(&piece),
                Ok(Some(piece)) => printer.write(&piece).map_err(OutputError::from)?,
                Ok(None) => break,
                Err(error) => {
                    give_up(client, answer, &error).await;
                    return Err(error.into());
                }
            },
            signal = tokio::signal::ctrl_c() => {
                signal?;
                client.cancel(answer.task_id()).await?;
                anyhow::bail!("stopped; task {} is cancelled", answer.task_id());
            }
        }
    }
    if !as_json {
        printer.finish().map_err(OutputError::from)?;
    }
    Ok(gathered)
}

/// Nobody reads what the task still gives.
async fn give_up(client: &AgentClient, answer: &Answer, error: &AgentError) {
    let goes_on = matches!(
        error,
        AgentError::AnswerLate { .. }
            | AgentError::Protocol(_)
            | AgentError::TextOfOtherTokens { .. }
    );
    if goes_on {
        stop(client, answer.task_id()).await;
    }
}

/// Cancels a task. The error at hand is the one that matters; a pool that is away will notice by itself.
async fn stop(client: &AgentClient, task_id: TaskId) {
    let _ = timeout(CANCEL_TIME_MAX, client.cancel(task_id)).await;
}

/// Keeps the agent's copy at once, then waits for the pool's receipt, adds it and verifies the whole.
async fn settle(
    client: &AgentClient,
    answer: &Answer,
    path: &Path,
    args: &AskArgs,
) -> anyhow::Result<Report> {
    let mut file = answer.to_file();
    file.save(path)?;
    if !args.json {
        print_note(format_args!(
            "[waiting up to {} s for a share that commits to it]",
            args.wait
        ));
    }
    let wait_max = Duration::from_secs(args.wait);
    let receipt_json = client.wait_for_receipt(answer.task_id(), wait_max).await?;
    file.set_receipt(&receipt_json)?;
    file.save(path)?;

    let report = verify_file(file, args);
    if !args.json {
        let path = path.display();
        match report.first_failure {
            None => print_note(format_args!(
                "[receipt verified and kept in {path}: it proves the tokens{}]",
                whose_text(answer)
            )),
            Some(check) => print_note(format_args!(
                "[the receipt does not hold: {}; see {path}]",
                receipt::name(check)
            )),
        }
    }
    Ok(report)
}

/// What is known of the text, which no receipt holds.
fn whose_text(answer: &Answer) -> &'static str {
    if answer.is_text_compared() {
        ", and the text is theirs"
    } else {
        "; the text is the pool's word (--model-file compares it)"
    }
}

fn verify_file(file: ReceiptFile, args: &AskArgs) -> Report {
    verify::verify(&Kept::File(Box::new(file)), args.pool_key.map(|key| key.0))
}

fn read_prompt(argument: &str) -> anyhow::Result<Vec<u8>> {
    let mut prompt = Vec::new();
    match argument {
        "-" => {
            let bounded = io::stdin()
                .lock()
                .take(PROMPT_BYTES_MAX as u64 + 1)
                .read_to_end(&mut prompt);
            bounded.context("reading the prompt from stdin")?;
        }
        text => prompt.extend_from_slice(text.as_bytes()),
    }
    ensure!(!prompt.is_empty(), "the prompt is empty");
    ensure!(
        prompt.len() <= PROMPT_BYTES_MAX,
        "the prompt is longer than {PROMPT_BYTES_MAX} bytes"
    );
    Ok(prompt)
}

fn describe(answer: &Answer) -> String {
    let ending = match answer.finish_reason() {
        FinishReason::Stop => "the model ended it",
        FinishReason::ConstraintUnmet => "the model could not go on in the form that was asked for",
        FinishReason::Length => "it reached its longest length",
        FinishReason::Cancelled => "it was cancelled",
        FinishReason::Unspecified => "done",
    };
    format!(
        "{} tokens, {} msat; {ending}",
        answer.tokens().len(),
        answer.task().price_msat
    )
}

fn print_summary(
    answer: &Answer,
    model: &str,
    text: &[u8],
    args: &AskArgs,
    report: Option<&Report>,
) -> anyhow::Result<()> {
    print_json(&json!({
        "task_id": answer.task_id().to_string(),
        "model": model,
        "model_id": hex::encode(&answer.task().model_id),
        "text": String::from_utf8_lossy(text),
        "text_compared": answer.is_text_compared(),
        "output_tokens": answer.tokens(),
        "finish_reason": task::finish_reason(answer.task()),
        "price_msat": answer.task().price_msat,
        "receipt_file": args.receipt,
        "receipt": report,
    }))
}
