//! `cargo xtask demo --model smollm2`: the whole path with a model that other people trained. A turn of a chat, in the words of
//! the model's own template, and facts out of a text in the form that a JSON schema demands.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::output;
use dovetail_tests::program;
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario, ServedModel};
use serde_json::{Value, json};

use super::{Figures, STORY_TIME_MAX, Story, leave_running, start, verify};

const QUESTION: &str = "Name the capital of France.";
/// A sentence of the model's has some ten tokens.
const CHAT_TOKENS: &str = "24";
/// A text with two facts, and what is to be found in it.
const TEXT: &str = "Read the order and answer in JSON. Order: Anna from Hamburg buys 12 chairs.";
/// What the answer looks like. All of it is bounded, so it ends within its tokens.
const SCHEMA: &str = r#"{"type":"object","properties":{"city":{"type":"string","maxLength":16},
"chairs":{"type":"integer","minimum":0,"maximum":999}},"required":["city","chairs"],"additionalProperties":false}"#;
const EXTRACTION_TOKENS: &str = "64";

/// Tells the story; returns the demonstration's JSON.
pub(super) fn tell(keep: bool, postgres: &Postgres) -> anyhow::Result<Value> {
    let options = Options {
        model: ServedModel::SmolLm2,
        ..Options::default()
    };
    let (story, mut scenario) = start(&options, postgres)?;
    let mut figures = Figures::default();
    let file = scenario.file("model.safetensors");

    story.tell("agent", &format!("asks SmolLM2: {QUESTION}"));
    let chat = Asked {
        prompt: rendered(&scenario, QUESTION)?,
        tokens: CHAT_TOKENS,
        receipt: scenario.file("chat.json"),
        more: vec!["--model-file".into(), file.clone().into_os_string()],
    };
    let chat = chat.ask(&story, &mut scenario, &mut figures)?;

    story.tell("agent", &format!("has it read, by a schema: {TEXT}"));
    let schema = scenario.file("schema.json");
    std::fs::write(&schema, SCHEMA)?;
    let extraction = Asked {
        prompt: rendered(&scenario, TEXT)?,
        tokens: EXTRACTION_TOKENS,
        receipt: scenario.file("receipt.json"),
        more: vec!["--schema".into(), schema.into_os_string()],
    };
    let extraction = extraction.ask(&story, &mut scenario, &mut figures)?;
    let valid = follows_schema(&extraction);
    ensure!(valid, "the answer does not follow the schema: {extraction}");

    figures.follow_until(&story, &mut scenario, |figures| figures.transcripts >= 2)?;
    let verified =
        verify(&story, &scenario, "chat.json")? && verify(&story, &scenario, "receipt.json")?;
    ensure!(verified, "a receipt does not verify");
    let seconds = story.begun.elapsed().as_secs_f64();
    story.tell(
        "agent",
        "has two answers of a real model, each with its proof",
    );
    if keep {
        let ids = leave_running(&mut scenario, postgres);
        eprintln!("\nStill running at {}. Stop it: kill {ids}", scenario.grpc);
    }
    Ok(json!({
        "model": "smollm2",
        "model_id": scenario.model_id,
        "chat_question": QUESTION,
        "chat_answer": chat,
        "extraction": extraction,
        "schema_valid": valid,
        "transcripts_replayed": figures.transcripts_replayed,
        "tokens_generated": figures.tokens_generated,
        "receipt_verified": verified,
        "seconds_total": (seconds * 10.0).round() / 10.0,
    }))
}

/// A question to the pool.
struct Asked {
    prompt: String,
    tokens: &'static str,
    receipt: PathBuf,
    more: Vec<std::ffi::OsString>,
}

impl Asked {
    /// Has an agent ask and wait for the receipt; tells meanwhile what the pool reports. Returns the answer.
    fn ask(
        self,
        story: &Story,
        scenario: &mut Scenario,
        figures: &mut Figures,
    ) -> anyhow::Result<String> {
        let mut agent = scenario.agent();
        agent
            .args([
                "ask",
                "--json",
                "--wait",
                "120",
                "--max-tokens",
                self.tokens,
            ])
            .args(["--pool-key", RECEIPT_PUBLIC, "--receipt"])
            .arg(&self.receipt)
            .args(&self.more)
            .args(["--", &self.prompt]);
        let agent = std::thread::spawn(move || output(&mut agent));
        figures.follow_until(story, scenario, |_| agent.is_finished())?;
        let said = agent.join().ok().context("the agent's thread panicked")??;
        let said: Value = serde_json::from_str(said.trim())?;
        let answer = said["text"].as_str().context("the answer has no text")?;
        let answer = answer.trim().to_owned();
        let line: Vec<&str> = answer.split_whitespace().collect();
        story.tell("agent", &format!("was answered {}", line.join(" ")));
        Ok(answer)
    }
}

/// The message in the words of the model's template.
fn rendered(scenario: &Scenario, message: &str) -> anyhow::Result<String> {
    output(
        Command::new(program("dovetail-worker"))
            .args(["model", "render"])
            .arg(scenario.file("model.safetensors"))
            .arg(message),
    )
}

/// Whether an answer has what the schema demands, and nothing else. Written out here, so that it is no guide's word.
fn follows_schema(answer: &str) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_str(answer) else {
        return false;
    };
    let city = fields.get("city").and_then(Value::as_str);
    let chairs = fields.get("chairs").and_then(Value::as_u64);
    fields.len() == 2
        && city.is_some_and(|city| city.chars().count() <= 16)
        && chairs.is_some_and(|chairs| chairs <= 999)
}

impl Figures {
    /// Tells what the pool reports until it is enough.
    fn follow_until(
        &mut self,
        story: &Story,
        scenario: &mut Scenario,
        enough: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + STORY_TIME_MAX;
        while !enough(self) {
            if Instant::now() > deadline {
                bail!(
                    "the story did not end in time; the end of the pool's log:\n{}",
                    scenario.pool.log_tail()
                );
            }
            if let Some(event) = scenario.pool.next_line(Duration::from_millis(20))? {
                self.take(story, &event);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_schema_allows_follows_it() {
        assert!(follows_schema(r#"{"city": "Hamburg", "chairs": 12}"#));
        for other in [
            "Hamburg, 12",
            r#"["Hamburg", 12]"#,
            r#"{"city": "Hamburg"}"#,
            r#"{"city": "Hamburg", "chairs": -1}"#,
            r#"{"city": "Hamburg", "chairs": 1000}"#,
            r#"{"city": "Hamburg", "chairs": "12"}"#,
            r#"{"city": "Hamburg", "chairs": 12, "more": 1}"#,
            r#"{"city": "Hamburg, the Free and Hanseatic City", "chairs": 12}"#,
        ] {
            assert!(!follows_schema(other), "{other}");
        }
    }
}
