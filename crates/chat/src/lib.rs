//! Chat templates (Jinja): messages become the text of a prompt. A template comes with a model file, from
//! anybody, so its time, its memory, its depth and its output are bounded, and it reaches nothing outside.

mod calls;
mod date;
mod document;
mod json;
mod message;
mod typed;

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};

pub use calls::{CallReader, CallSyntax, Piece};
pub use document::{Json, NotJson};
pub use message::{Call, Message};
pub use typed::{Indivisible, marked, pieces};

/// About as many steps, or 64 bytes of text each: enough for the longest context in long words.
const FUEL: u64 = 1_000_000;
/// How deep a template may nest; a call of a macro counts ten or so.
const DEPTH_MAX: usize = 200;
/// The longest prompt: a context of 2^17 tokens of 16 bytes.
const OUTPUT_BYTES_MAX: usize = 2 << 20;
/// What is kept of a template's own words of refusal.
const REASON_BYTES_MAX: usize = 256;

/// What a template is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chat<'a> {
    /// The conversation so far.
    pub messages: &'a [Message],
    /// The functions that the model may call: a list, in OpenAI's shape. For templates that a [`CallSyntax`] is known of.
    pub tools: Option<&'a Json>,
    /// Whether the prompt ends where an answer of the assistant is to begin.
    pub add_generation_prompt: bool,
    /// Stands at the beginning of a text. Templates of imported models bring their own.
    pub bos_token: &'a str,
    /// Stands at the end of a text; likewise.
    pub eos_token: &'a str,
    /// The time of day, in seconds since 1970, for templates that tell the model a date. `None`: the
    /// prompt is to be the same on every day, and `strftime_now` is not there.
    pub unix_s: Option<u64>,
}

/// Why a conversation did not become a prompt.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The model has no template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The template is not one that can be read.
    #[error("the chat template does not parse (line {line})")]
    Syntax {
        /// Where, from 1; 0 where unknown.
        line: usize,
    },
    /// The template itself refuses the conversation; its own words, which may quote from it.
    #[error("the chat template refuses the conversation: {0}")]
    Refused(String),
    /// The template takes more steps or memory, or calls itself deeper, than any in use.
    #[error("the chat template takes too long")]
    TooLong,
    /// The prompt is longer than any context.
    #[error("the prompt is longer than {OUTPUT_BYTES_MAX} bytes")]
    OutputTooLong,
    /// The template fails in its run.
    #[error("the chat template fails in line {line}: {kind}")]
    Failed {
        /// Where, from 1; 0 where unknown.
        line: usize,
        /// What kind of failure, without any content.
        kind: String,
    },
}

/// Renders a conversation. Costs at most some 60 MB and some hundred milliseconds, whatever the template.
///
/// # Errors
/// [`ChatError`].
pub fn render(template: &str, chat: &Chat<'_>) -> Result<String, ChatError> {
    if template.is_empty() {
        return Err(ChatError::NoTemplate);
    }
    let environment = environment(chat.unix_s);
    let template = without_generation_blocks(template);
    let parsed = environment.template_from_str(&template);
    let parsed = parsed.map_err(|error| ChatError::Syntax {
        line: error.line().unwrap_or(0),
    })?;
    let messages: Vec<Value> = chat.messages.iter().map(Message::value).collect();
    let none = Value::from(());
    let given = context! {
        messages => messages,
        add_generation_prompt => chat.add_generation_prompt,
        bos_token => chat.bos_token,
        eos_token => chat.eos_token,
        // Templates ask whether these are none, not whether they are there.
        tools => chat.tools.map_or_else(|| none.clone(), Json::value),
        documents => none,
    };
    let output = parsed.render(given).map_err(|error| describe(&error))?;
    if output.len() > OUTPUT_BYTES_MAX {
        return Err(ChatError::OutputTooLong);
    }
    Ok(output)
}

/// `{% generation %}` marks for training what the assistant says; a prompt has its content as it is.
fn without_generation_blocks(template: &str) -> Cow<'_, str> {
    if !template.contains("generation") {
        return template.into();
    }
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        text.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (inner, after) = tag.split_at(end);
        match inner.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => text.push_str(&inner.replace("generation", "if true")),
            "endgeneration" => text.push_str(&inner.replace("endgeneration", "endif")),
            _ => text.push_str(inner),
        }
        rest = after;
    }
    text.push_str(rest);
    text.into()
}

fn environment(unix_s: Option<u64>) -> Environment<'static> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    // As Hugging Face's library sets them, which is what templates are written for.
    syntax.trim_blocks(true).lstrip_blocks(true);
    if let Ok(syntax) = syntax.build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH_MAX);
    // As the library that most templates are written for has it.
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::tojson);
    // None is a value that can be asked for its length here, and not in Python.
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    if let Some(unix_s) = unix_s {
        environment.add_function("strftime_now", move |format: &str| {
            date::strftime(unix_s, format)
        });
    }
    environment.add_function("raise_exception", |reason: &str| -> Result<Value, _> {
        Err(minijinja::Error::from(ErrorKind::InvalidOperation)
            .with_source(Raised(shorten(reason))))
    });
    environment
}

/// What a template raises.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn shorten(reason: &str) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

fn describe(error: &minijinja::Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(Raised(reason)) = inner.downcast_ref() {
            return ChatError::Refused(reason.clone());
        }
        if let Some(inner) = inner.downcast_ref::<minijinja::Error>()
            && inner.kind() == ErrorKind::OutOfFuel
        {
            return ChatError::TooLong;
        }
        cause = inner.source();
    }
    // The details may quote from the conversation, the kind does not.
    ChatError::Failed {
        line: error.line().unwrap_or(0),
        kind: error.kind().to_string(),
    }
}
