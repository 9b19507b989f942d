//! `Debug` for the messages that hold an agent's words: lengths only, so that no log line can leak a prompt.

use std::fmt;

use crate::v1::constraint::Form;
use crate::v1::{Choice, Constraint, CreateTaskRequest, CreateTaskResponse, TokenChunk};
use crate::validation_v1::Evidence;

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence")
            .field("prompt_bytes", &self.prompt.len())
            .field("output_tokens", &self.output_tokens.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateTaskRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTaskRequest")
            .field("prompt_bytes", &self.prompt.len())
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CreateTaskResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTaskResponse")
            .field("task", &self.task)
            .field("prompt_tokens", &self.prompt_tokens.len())
            .finish()
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint")
            .field("form", &self.form)
            .finish()
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonSchema(_) => "JsonSchema",
            Self::Regex(_) => "Regex",
            Self::Choice(_) => "Choice",
        })
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("texts", &self.texts.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenChunk")
            .field("first_position", &self.first_position)
            .field("tokens", &self.tokens.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_prompt_nor_output() {
        let request = CreateTaskRequest {
            prompt: b"private words".to_vec(),
            constraint: Some(Constraint {
                form: Some(Form::JsonSchema("private words".to_owned())),
            }),
            ..Default::default()
        };
        let choice = Choice {
            texts: vec!["private words".to_owned()],
        };
        let chunk = TokenChunk {
            text: b"private answer".to_vec(),
            ..Default::default()
        };
        let evidence = Evidence {
            prompt: b"private words".to_vec(),
            stop: vec![b"private".to_vec()],
            constraint: b"private".to_vec(),
            ..Default::default()
        };
        let response = CreateTaskResponse {
            // The bytes of 'private', which are also its tokens.
            prompt_tokens: b"private".map(u32::from).to_vec(),
            ..Default::default()
        };
        let shown = format!(
            "{request:?} {:?} {choice:?} {chunk:?} {evidence:?} {response:?}",
            request.constraint
        );
        assert!(!shown.contains("private"));
        assert!(
            !shown.contains("112"),
            "no byte of 'private' either: {shown}"
        );
    }
}
