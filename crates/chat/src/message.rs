//! The messages of a conversation, and the calls that models have made in them.

use minijinja::value::Value;

use crate::document::Json;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; templates may know more.
    pub role: String,
    /// What was said.
    pub content: String,
    /// What the assistant has called.
    pub calls: Vec<Call>,
    /// Of a tool's answer: the call that it answers.
    pub call_id: Option<String>,
    /// Of a tool's answer: the function's name.
    pub name: Option<String>,
}

/// A call of a function by a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Names it to the tool's answer.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// An object, or a text where a model's arguments were none.
    pub arguments: Json,
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// The same with each text that somebody typed changed: all but the role.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map_texts<E>(
        self,
        change: &mut impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Self, E> {
        let calls = self.calls.into_iter().map(|call| {
            Ok(Call {
                id: change(&call.id)?,
                name: change(&call.name)?,
                arguments: call.arguments.map_texts(change)?,
            })
        });
        Ok(Self {
            calls: calls.collect::<Result<_, E>>()?,
            role: self.role,
            content: change(&self.content)?,
            call_id: self.call_id.map(|id| change(&id)).transpose()?,
            name: self.name.map(|name| change(&name)).transpose()?,
        })
    }

    /// For a template that knows no calls: they are told as text.
    #[must_use]
    pub fn with_calls_as_text(mut self) -> Self {
        for call in std::mem::take(&mut self.calls) {
            if !self.content.is_empty() {
                self.content.push('\n');
            }
            self.content += &format!("{}({})", call.name, call.arguments);
        }
        self
    }

    /// How many bytes its texts have.
    pub fn bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let calls = self.calls.iter();
        let calls = calls.map(|call| call.id.len() + call.name.len() + call.arguments.bytes());
        let own = self.content.len() + of(&self.call_id) + of(&self.name);
        calls.fold(own, usize::saturating_add)
    }

    /// As templates know it. They ask whether fields are there, so none is without a value.
    pub(crate) fn value(&self) -> Value {
        let mut fields = vec![
            ("role", Value::from(self.role.as_str())),
            ("content", Value::from(self.content.as_str())),
        ];
        if !self.calls.is_empty() {
            let calls: Vec<Value> = self.calls.iter().map(Call::value).collect();
            fields.push(("tool_calls", Value::from(calls)));
        }
        for (key, text) in [("tool_call_id", &self.call_id), ("name", &self.name)] {
            fields.extend(text.as_deref().map(|text| (key, Value::from(text))));
        }
        Value::from_pairs(fields)
    }
}

impl Call {
    fn value(&self) -> Value {
        let function = [
            ("name", Value::from(self.name.as_str())),
            ("arguments", self.arguments.value()),
        ];
        Value::from_pairs([
            ("id", Value::from(self.id.as_str())),
            ("type", Value::from("function")),
            ("function", Value::from_pairs(function)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_as_text_where_a_template_knows_none() {
        let call = |name: &str| Call {
            id: "1".to_owned(),
            name: name.to_owned(),
            arguments: Json::parse(r#"{"b": 1, "a": "x"}"#).unwrap(),
        };
        let said = Message {
            calls: vec![call("f"), call("g")],
            ..Message::new("assistant", "")
        };
        assert_eq!(
            said.with_calls_as_text().content,
            "f({\"b\":1,\"a\":\"x\"})\ng({\"b\":1,\"a\":\"x\"})"
        );
    }
}
