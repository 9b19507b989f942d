//! `dovetail-worker model render`: what a model's chat template makes of a message, as the prompt of a task. Agents send
//! text, so the prompt is the one whose tokens, as a pool makes them, are those of the conversation.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use dovetail_console::{OutputError, Printer};
use dovetail_engine::{EngineError, Model};

use super::chat::conversation::Conversation;
use super::chat::input;

/// Longer than any control token.
const BEGIN_BYTES_MAX: usize = 64;

/// What to render.
#[derive(Debug, Args)]
pub(crate) struct RenderArguments {
    /// The model file.
    file: PathBuf,
    /// The message, or - to read it from stdin.
    #[arg(value_name = "MESSAGE")]
    message: String,
    /// An instruction that stands before it.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
}

/// Renders and writes the prompt, without a new line behind it.
pub(crate) fn run(arguments: &RenderArguments) -> anyhow::Result<()> {
    let file = &arguments.file;
    let model = Model::load(file).with_context(|| format!("cannot load {}", file.display()))?;
    ensure!(
        !model.manifest().chat_template.is_empty(),
        "the model has no chat template: its prompts are messages as they are"
    );
    let message = match arguments.message.as_str() {
        "-" => input::whole(&mut io::stdin().lock())?.context("the input is empty")?,
        message => message.as_bytes().to_vec(),
    };
    let mut conversation = Conversation::new(&model, arguments.system.clone())?;
    conversation.ask(message);
    let text = conversation.text(&model)?;
    let Some(prompt) = as_prompt(&model, &text)? else {
        bail!("a prompt of this model is put into other tokens than its conversations are");
    };
    write(prompt)?;
    Ok(())
}

/// The end of the text whose tokens as a prompt are those of the whole text in a conversation: a prompt may get a token put before
/// it that templates write themselves.
fn as_prompt<'a>(model: &Model, text: &'a str) -> Result<Option<&'a str>, EngineError> {
    let wanted = model.encode_rendered(text.as_bytes())?;
    let cuts = (0..=BEGIN_BYTES_MAX).filter_map(|cut| text.get(cut..));
    for prompt in cuts.filter(|prompt| !prompt.is_empty()) {
        if model.encode(prompt.as_bytes())? == wanted {
            return Ok(Some(prompt));
        }
    }
    Ok(None)
}

/// To a program every byte as it is; to people without what could steer their terminal.
fn write(prompt: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        drop(stdout);
        let mut printer = Printer::stdout();
        printer.write(prompt.as_bytes())?;
        printer.finish()?;
        return Ok(());
    }
    stdout.write_all(prompt.as_bytes())?;
    stdout.flush()?;
    Ok(())
}
