//! What surrounds the weights: the tokenizer, the tokens that end an output, the chat template.

use dovetail_chat::{Chat, ChatError, Message, render};
use dovetail_engine::check_tokenizer;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Config, EndTokens};
use crate::error::ImportError;
use crate::folder::Folder;

/// The engine's own bound.
const TOKENIZER_BYTES_MAX: u64 = 32 << 20;
/// It lists added tokens one by one: up to a few thousand.
const TOKENIZER_CONFIG_BYTES_MAX: u64 = 8 << 20;
const GENERATION_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// A manifest has 64 KiB for all; the longest templates in use, those with tools, have 15.
pub(crate) const TEMPLATE_BYTES_MAX: u64 = 48 << 10;
/// A model that is trained on bytes comes without a tokenizer and has this many tokens: the engine's own.
const BYTES_VOCABULARY: usize = 258;
/// Its end.
const BYTES_END: u32 = 257;

/// Some day, for templates that name one.
const TRIAL_UNIX_S: u64 = 1_700_000_000;

/// All that is text about text.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) end_tokens: Vec<u32>,
    pub(crate) chat_template: String,
    /// What the model's owner should know.
    pub(crate) notes: Vec<String>,
}

/// `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// A special token: its text, or an object around it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Special {
    Text(String),
    Token { content: String },
}

#[derive(Debug, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<EndTokens>,
}

impl Text {
    pub(crate) fn read(folder: &Folder, config: &Config) -> Result<Self, ImportError> {
        let by_bytes = config.vocabulary == BYTES_VOCABULARY && !folder.has("tokenizer.json");
        let generation: Option<GenerationConfig> =
            folder.json_if_there("generation_config.json", GENERATION_CONFIG_BYTES_MAX)?;
        let end_tokens = generation
            .and_then(|generation| generation.eos_token_id)
            .map_or_else(|| config.end_tokens.clone(), EndTokens::into_vec);
        let mut notes = Vec::new();
        let tokenizer = match by_bytes {
            true => None,
            false => Some(tokenizer(folder, config, &end_tokens, &mut notes)?),
        };
        let end_tokens = match (end_tokens.is_empty(), by_bytes) {
            (false, _) => end_tokens,
            (true, true) => vec![BYTES_END],
            (true, false) => return Err(ImportError::NoEndToken),
        };
        let config: Option<TokenizerConfig> =
            folder.json_if_there(TOKENIZER_CONFIG, TOKENIZER_CONFIG_BYTES_MAX)?;
        let config = config.unwrap_or_default();
        let eos_token = config.eos_token.as_ref().map(|eos| eos.text().to_owned());
        let chat_template = chat_template(folder, config, &mut notes)?;
        if let Some((_, library)) = &tokenizer {
            let written = turn_end(&chat_template, library);
            let named = eos_token.filter(|eos| written.as_ref() != Some(eos));
            for end in written.into_iter().chain(named) {
                let token = library.token_to_id(&end);
                if token.is_some_and(|token| !end_tokens.contains(&token)) {
                    notes.push(format!(
                        "turns end with {end:?}, which is none of the tokens that end an output (eos_token_id)"
                    ));
                }
            }
        }
        Ok(Self {
            tokenizer: tokenizer.map(|(json, _)| json),
            end_tokens,
            chat_template,
            notes,
        })
    }
}

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The tokenizer's file and what the library makes of it, without what would act on prompts unseen, checked as the engine does at each load.
fn tokenizer(
    folder: &Folder,
    config: &Config,
    end_tokens: &[u32],
    notes: &mut Vec<String>,
) -> Result<(Vec<u8>, tokenizers::Tokenizer), ImportError> {
    if !folder.has("tokenizer.json") && folder.has("tokenizer.model") {
        return Err(ImportError::OtherForm {
            found: "tokenizer.model",
            wanted: "tokenizer.json",
            remedy: "save it once with transformers' AutoTokenizer, which writes both",
        });
    }
    let json = folder.read("tokenizer.json", TOKENIZER_BYTES_MAX)?;
    let json = harmless(json, end_tokens, notes)?;
    let library = parse(&json)?;
    check_vocabulary(&library, config.vocabulary)?;
    check_tokenizer(&json, config.vocabulary, end_tokens)?;
    Ok((json, library))
}

/// Takes out what transformers does not apply to prompts either: truncation, padding, and an end token behind
/// each text. Everything else that is not allowed, the engine refuses.
fn harmless(
    json: Vec<u8>,
    end_tokens: &[u32],
    notes: &mut Vec<String>,
) -> Result<Vec<u8>, ImportError> {
    let mut file: Value =
        serde_json::from_slice(&json).map_err(|error| ImportError::Tokenizer(error.to_string()))?;
    let mut changed = false;
    for key in ["truncation", "padding"] {
        if let Some(setting) = file.get_mut(key).filter(|setting| !setting.is_null()) {
            *setting = Value::Null;
            changed = true;
            notes.push(format!(
                "the tokenizer's {key} was taken out; prompts are encoded whole"
            ));
        }
    }
    if let Some(processor) = file.get_mut("post_processor")
        && without_end(processor, end_tokens)
    {
        changed = true;
        notes.push("the tokenizer's end token behind each text was taken out".to_owned());
    }
    if !changed {
        return Ok(json);
    }
    serde_json::to_vec(&file).map_err(|error| ImportError::Tokenizer(error.to_string()))
}

/// Takes end tokens off the end of what a post-processor makes of one text. Whether there was one.
fn without_end(processor: &mut Value, end_tokens: &[u32]) -> bool {
    if let Some(Value::Array(parts)) = processor.get_mut("processors") {
        let ended: Vec<bool> = parts
            .iter_mut()
            .map(|part| without_end(part, end_tokens))
            .collect();
        return ended.contains(&true);
    }
    let ids = |name: &str| {
        let ids = processor.get("special_tokens")?.get(name)?.get("ids")?;
        serde_json::from_value::<Vec<u32>>(ids.clone()).ok()
    };
    let Some(Value::Array(pieces)) = processor.get("single") else {
        return false;
    };
    let ends = |piece: &Value| {
        let name = piece.get("SpecialToken").and_then(|token| token.get("id"));
        let ids = name.and_then(Value::as_str).and_then(ids);
        ids.is_some_and(|ids| ids.iter().any(|id| end_tokens.contains(id)))
    };
    let kept = pieces.len() - pieces.iter().rev().take_while(|piece| ends(piece)).count();
    let ended = kept < pieces.len();
    if let Some(Value::Array(pieces)) = processor.get_mut("single") {
        pieces.truncate(kept);
    }
    ended
}

fn parse(json: &[u8]) -> Result<tokenizers::Tokenizer, ImportError> {
    tokenizers::Tokenizer::from_bytes(json)
        .map_err(|error| ImportError::Tokenizer(error.to_string()))
}

fn check_vocabulary(library: &tokenizers::Tokenizer, vocabulary: usize) -> Result<(), ImportError> {
    match library.get_vocab(true).into_values().max() {
        Some(token) if token as usize >= vocabulary => {
            Err(ImportError::Vocabulary { token, vocabulary })
        }
        _ => Ok(()),
    }
}

/// The template, with what `bos_token` and `eos_token` stand for written into it: a model file has no
/// other place for them.
fn chat_template(
    folder: &Folder,
    config: TokenizerConfig,
    notes: &mut Vec<String>,
) -> Result<String, ImportError> {
    let template = if folder.has("chat_template.jinja") {
        let bytes = folder.read("chat_template.jinja", TEMPLATE_BYTES_MAX)?;
        String::from_utf8(bytes)
            .map_err(|error| ImportError::corrupt("chat_template.jinja", error))?
    } else {
        let named = matches!(config.chat_template, Some(Templates::Named(_)));
        let chosen = config.chat_template.map(Templates::choose);
        let chosen = chosen.unwrap_or_default();
        if chosen.is_empty() && (named || folder.has("chat_template.json")) {
            notes.push("none of the chat templates is one for plain conversations".to_owned());
        }
        chosen
    };
    if template.is_empty() {
        return Ok(template);
    }
    let text = |special: &Option<Special>| special.as_ref().map_or("", Special::text).to_owned();
    // The plus keeps the template's own first line, should it be empty.
    let template = ["bos_token", "eos_token"]
        .into_iter()
        .zip([text(&config.bos_token), text(&config.eos_token)])
        .filter(|(name, _)| template.contains(name))
        .map(|(name, token)| format!("{{% set {name} = {} +%}}", Value::String(token)))
        .collect::<String>()
        + &template;
    let bytes = template.len() as u64;
    if bytes > TEMPLATE_BYTES_MAX {
        return Err(ImportError::TooLong {
            file: "the chat template".to_owned(),
            bytes,
            max: TEMPLATE_BYTES_MAX,
        });
    }
    notes.extend(trial(&template)?);
    Ok(template)
}

/// Renders a conversation of one question, as every chat begins.
fn trial(template: &str) -> Result<Option<String>, ImportError> {
    let chat = Chat {
        messages: &[Message::new("user", "Hello")],
        add_generation_prompt: true,
        unix_s: Some(TRIAL_UNIX_S),
        ..Chat::default()
    };
    match render(template, &chat) {
        Ok(_) => Ok(None),
        Err(ChatError::Syntax { line }) => Err(ImportError::Template(line)),
        Err(error) => Ok(Some(format!("a conversation of one question: {error}"))),
    }
}

/// The control token that a template writes behind an answer, if it writes one.
fn turn_end(template: &str, library: &tokenizers::Tokenizer) -> Option<String> {
    const ANSWER: &str = "An answer.";
    let chat = Chat {
        messages: &[
            Message::new("user", "Hello"),
            Message::new("assistant", ANSWER),
        ],
        unix_s: Some(TRIAL_UNIX_S),
        ..Chat::default()
    };
    let text = render(template, &chat).ok()?;
    let (_, behind) = text.rsplit_once(ANSWER)?;
    let added = library.get_added_tokens_decoder().into_values();
    let ends =
        added.filter(|token| token.special && behind.trim_start().starts_with(&token.content));
    // Of two that begin alike, the longer one stands there.
    ends.map(|token| token.content).max_by_key(String::len)
}

impl Special {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

impl Templates {
    /// Of several templates the one for plain conversations.
    fn choose(self) -> String {
        match self {
            Self::One(template) => template,
            Self::Named(templates) => templates
                .into_iter()
                .find(|template| template.name == "default")
                .map_or_else(String::new, |template| template.template),
        }
    }
}
