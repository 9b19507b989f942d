//! What an agent wants completed, and the tokens that are made of it. Rendering and encoding take a core for a while, so
//! they run away from the tasks of the runtime, one for a host at a time (`turns.rs`).

use std::borrow::Cow;

use dovetail_chat::{CallSyntax, Chat, Indivisible, Json, Message, marked, pieces, render};
use dovetail_commitment::{EncodedPrompt, PROMPT_TOKENS_MAX, PromptError};
use dovetail_engine::{EngineError, Model};
use dovetail_units::time::unix_now;

use super::AdmissionError;

/// What is to be completed. No `Debug`: it is private.
pub(crate) enum Prompt {
    /// A text as it is, with what the model's tokenizer puts around it. Names of control tokens in it are these tokens.
    Text(Vec<u8>),
    /// The same, of words that somebody typed: no name in it is a control token.
    Typed(String),
    /// A conversation, for the model's own template.
    Chat {
        messages: Vec<Message>,
        /// The functions that the model may call, if its template takes any.
        tools: Option<Json>,
        /// Whether names of control tokens in the messages are these tokens, too.
        has_controls: bool,
    },
}

impl Prompt {
    /// How many bytes it has before a template adds its own.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Typed(text) => text.len(),
            Self::Chat {
                messages, tools, ..
            } => {
                let sizes = messages.iter().map(Message::bytes);
                let tools = tools.as_ref().map_or(0, Json::bytes);
                sizes.fold(tools, usize::saturating_add)
            }
        }
    }

    /// The tokens that the model takes in, if they leave room for an output, with the digest of their text.
    pub(super) fn encode(
        self,
        model: &Model,
        bytes_max: usize,
    ) -> Result<EncodedPrompt, AdmissionError> {
        let (text, tokens) = self.text_and_tokens(model)?;
        if text.len() > bytes_max {
            return Err(AdmissionError::PromptTooLong { bytes_max });
        }
        let context_tokens = model.context_tokens();
        if tokens.len() >= context_tokens {
            return Err(AdmissionError::ContextFull {
                tokens: tokens.len(),
                context_tokens,
            });
        }
        let count = tokens.len();
        EncodedPrompt::new(&text, tokens).map_err(|error| match error {
            PromptError::Text | PromptError::Tokens => AdmissionError::ContextFull {
                tokens: count,
                context_tokens: PROMPT_TOKENS_MAX,
            },
            PromptError::Empty | PromptError::Encoding => {
                AdmissionError::Invalid(error.to_string())
            }
        })
    }

    fn text_and_tokens(self, model: &Model) -> Result<(Vec<u8>, Vec<u32>), AdmissionError> {
        match self {
            Self::Text(text) => {
                let tokens = model.encode(&text).map_err(refused)?;
                Ok((text, tokens))
            }
            Self::Typed(text) => {
                let with_marks = marked(&text, model.control_names()).map_err(invalid)?;
                let tokens = model.encode_pieces(pieces(&with_marks)).map_err(refused)?;
                Ok((pieces(&with_marks).collect::<String>().into_bytes(), tokens))
            }
            Self::Chat {
                messages,
                tools,
                has_controls,
            } => conversation(model, messages, tools, has_controls),
        }
    }
}

/// What the model's template makes of a conversation, and its tokens. A model without a template is not made for
/// conversations: it takes one message of a user as a text.
fn conversation(
    model: &Model,
    mut messages: Vec<Message>,
    mut tools: Option<Json>,
    has_controls: bool,
) -> Result<(Vec<u8>, Vec<u32>), AdmissionError> {
    let template = &model.manifest().chat_template;
    if template.is_empty() {
        let only = messages.pop().filter(|only| only.role == "user");
        let only = only.filter(|_| messages.is_empty()).ok_or_else(|| {
            let reason = "this model has no chat template: it takes one message of the role user";
            AdmissionError::Invalid(reason.to_owned())
        })?;
        let prompt = match has_controls {
            true => Prompt::Text(only.content.into_bytes()),
            false => Prompt::Typed(only.content),
        };
        return prompt.text_and_tokens(model);
    }
    if CallSyntax::of(template).is_none() {
        tools = None;
        let told = messages.into_iter().map(Message::with_calls_as_text);
        messages = told.collect();
    }
    if !has_controls {
        let mut mark = |text: &str| -> Result<String, Indivisible> {
            marked(text, model.control_names()).map(Cow::into_owned)
        };
        let typed = messages
            .into_iter()
            .map(|message| message.map_texts(&mut mark));
        messages = typed.collect::<Result<_, _>>().map_err(invalid)?;
        let typed = tools.map(|tools| tools.map_texts(&mut mark));
        tools = typed.transpose().map_err(invalid)?;
    }
    let chat = Chat {
        messages: &messages,
        tools: tools.as_ref(),
        add_generation_prompt: true,
        // An import has written into the template what its begin and end tokens are.
        unix_s: Some(unix_now()),
        ..Chat::default()
    };
    let rendered = render(template, &chat).map_err(invalid)?;
    let tokens = model.encode_rendered_pieces(pieces(&rendered));
    let tokens = tokens.map_err(refused)?;
    Ok((pieces(&rendered).collect::<String>().into_bytes(), tokens))
}

fn refused(error: EngineError) -> AdmissionError {
    AdmissionError::Invalid(error.to_string())
}

/// A template's own words may quote from the conversation; they are for the agent alone.
fn invalid(error: impl std::error::Error) -> AdmissionError {
    AdmissionError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::tests::tiny_model;

    fn chat(messages: &[(&str, &str)]) -> Prompt {
        Prompt::Chat {
            messages: messages
                .iter()
                .map(|(role, text)| Message::new(*role, *text))
                .collect(),
            tools: None,
            has_controls: false,
        }
    }

    #[test]
    fn a_model_without_a_template_takes_one_message_of_a_user_as_it_is() {
        let model = tiny_model(1);
        let bytes_max = 1_000;
        let encoded = |prompt: Prompt| prompt.encode(&model, bytes_max);
        let asked = encoded(chat(&[("user", "Hello")])).unwrap();
        let typed = encoded(Prompt::Typed("Hello".to_owned())).unwrap();
        assert!(asked == typed && asked == encoded(Prompt::Text(b"Hello".to_vec())).unwrap());
        for messages in [
            &[("system", "Be brief."), ("user", "Hello")][..],
            &[("assistant", "Hello")],
            &[],
        ] {
            let refused = encoded(chat(messages)).unwrap_err();
            assert!(matches!(refused, AdmissionError::Invalid(_)), "{refused}");
        }
    }

    #[test]
    fn a_prompt_that_leaves_no_room_is_refused_with_both_numbers() {
        let model = tiny_model(1);
        let long = "x".repeat(model.context_tokens());
        let refused = Prompt::Text(long.into_bytes()).encode(&model, 1 << 20);
        let AdmissionError::ContextFull {
            tokens,
            context_tokens,
        } = refused.unwrap_err()
        else {
            panic!("another error");
        };
        // By bytes, behind the token that begins each prompt.
        assert_eq!(
            (tokens, context_tokens),
            (model.context_tokens() + 1, model.context_tokens())
        );
    }
}
