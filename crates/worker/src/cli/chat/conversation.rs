//! The messages so far, and the prompt that they make: through the model's own chat template. A model
//! without one is not made for conversations: it gets each message as it is, and none before it.

use dovetail_chat::{Chat, ChatError, Message, render};
use dovetail_engine::{EngineError, Model};

/// What was said.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    system: Option<String>,
    messages: Vec<Message>,
    /// The last message as it was typed: a model without a template may be one for bytes that are no text.
    typed: Vec<u8>,
}

/// Why a message did not become a prompt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PromptError {
    #[error(transparent)]
    Template(#[from] ChatError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the model has no chat template, so it has no place for --system")]
    NoPlaceForSystem,
}

impl Conversation {
    /// # Errors
    /// [`PromptError::NoPlaceForSystem`].
    pub(crate) fn new(model: &Model, system: Option<String>) -> Result<Self, PromptError> {
        if system.is_some() && model.manifest().chat_template.is_empty() {
            return Err(PromptError::NoPlaceForSystem);
        }
        Ok(Self {
            system,
            ..Self::default()
        })
    }

    /// Forgets all but the instruction.
    pub(crate) fn reset(&mut self) {
        self.messages.clear();
    }

    /// Whether nothing was answered yet.
    pub(crate) fn is_new(&self) -> bool {
        self.messages.len() < 2
    }

    pub(crate) fn ask(&mut self, message: Vec<u8>) {
        self.push("user", &message);
        self.typed = message;
    }

    pub(crate) fn answer(&mut self, text: &[u8]) {
        self.push("assistant", text);
    }

    /// The last message got no answer: it counts as not asked.
    pub(crate) fn take_back(&mut self) {
        self.messages.pop();
    }

    fn push(&mut self, role: &str, text: &[u8]) {
        self.messages.push(Message::new(
            role,
            String::from_utf8_lossy(text).into_owned(),
        ));
    }

    /// The tokens of the prompt that asks for the next answer: `[len]`.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it.
    pub(crate) fn prompt(&self, model: &Model) -> Result<Vec<u32>, PromptError> {
        if model.manifest().chat_template.is_empty() {
            return Ok(model.encode(&self.typed)?);
        }
        Ok(model.encode_rendered(self.text(model)?.as_bytes())?)
    }

    /// What the model's template makes of the conversation, up to where the next answer begins.
    ///
    /// # Errors
    /// The template refuses it, or there is none.
    pub(crate) fn text(&self, model: &Model) -> Result<String, ChatError> {
        let system = self
            .system
            .iter()
            .map(|text| Message::new("system", text.clone()));
        let messages: Vec<Message> = system.chain(self.messages.iter().cloned()).collect();
        render(
            &model.manifest().chat_template,
            &Chat {
                messages: &messages,
                add_generation_prompt: true,
                // An import has written into the template what its begin and end tokens are.
                unix_s: Some(dovetail_units::time::unix_now()),
                ..Chat::default()
            },
        )
    }
}
