//! What surrounds the weights: the tokenizer, the tokens that end an output, the chat template.

use serde::Deserialize;
use serde_json::Value;

use crate::config::{Config, EndTokens};
use crate::error::ImportError;
use crate::folder::Folder;

/// The engine's own bound.
const TOKENIZER_BYTES_MAX: u64 = 64 << 20;
/// It lists added tokens one by one: up to a few thousand.
const TOKENIZER_CONFIG_BYTES_MAX: u64 = 8 << 20;
const GENERATION_CONFIG_BYTES_MAX: u64 = 1 << 20;
/// A manifest has 64 KiB for all; the longest templates in use, those with tools, have 15.
pub(crate) const TEMPLATE_BYTES_MAX: u64 = 48 << 10;
/// A model that is trained on bytes comes without a tokenizer and has this many tokens: the engine's own.
const BYTES_VOCABULARY: usize = 258;
/// Its end.
const BYTES_END: u32 = 257;

/// All that is text about text.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) end_tokens: Vec<u32>,
    pub(crate) chat_template: String,
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
        let tokenizer = if by_bytes {
            None
        } else {
            Some(folder.read("tokenizer.json", TOKENIZER_BYTES_MAX)?)
        };
        let library = tokenizer.as_deref().map(parse).transpose()?;
        if let Some(library) = &library {
            check_vocabulary(library, config.vocabulary)?;
        }
        let generation: Option<GenerationConfig> =
            folder.json_if_there("generation_config.json", GENERATION_CONFIG_BYTES_MAX)?;
        let end_tokens = generation
            .and_then(|generation| generation.eos_token_id)
            .map_or_else(|| config.end_tokens.clone(), EndTokens::into_vec);
        let end_tokens = match (end_tokens.is_empty(), by_bytes) {
            (false, _) => end_tokens,
            (true, true) => vec![BYTES_END],
            (true, false) => return Err(ImportError::NoEndToken),
        };
        Ok(Self {
            chat_template: chat_template(folder, library.as_ref())?,
            tokenizer,
            end_tokens,
        })
    }
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
    library: Option<&tokenizers::Tokenizer>,
) -> Result<String, ImportError> {
    const FILE: &str = "tokenizer_config.json";
    let config: Option<TokenizerConfig> = folder.json_if_there(FILE, TOKENIZER_CONFIG_BYTES_MAX)?;
    let config = config.unwrap_or_default();
    let template = if folder.has("chat_template.jinja") {
        let bytes = folder.read("chat_template.jinja", TEMPLATE_BYTES_MAX)?;
        String::from_utf8(bytes)
            .map_err(|error| ImportError::corrupt("chat_template.jinja", error))?
    } else {
        config
            .chat_template
            .map_or_else(String::new, Templates::choose)
    };
    if template.is_empty() {
        return Ok(template);
    }
    let text = |special: Option<Special>| match special {
        Some(Special::Text(text) | Special::Token { content: text }) => text,
        None => String::new(),
    };
    let mut bos = text(config.bos_token);
    if library.is_some_and(|library| begins_by_itself(library, &bos)) {
        bos.clear();
    }
    let template = ["bos_token", "eos_token"]
        .into_iter()
        .zip([bos, text(config.eos_token)])
        .filter(|(name, _)| template.contains(name))
        .map(|(name, token)| format!("{{% set {name} = {} %}}", Value::String(token)))
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
    Ok(template)
}

/// Whether the tokenizer puts this token before every text, so that a template must not.
fn begins_by_itself(library: &tokenizers::Tokenizer, bos: &str) -> bool {
    let first = library.encode_fast("", true).ok();
    let first = first.and_then(|encoding| encoding.get_ids().first().copied());
    first.is_some() && first == library.token_to_id(bos)
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
