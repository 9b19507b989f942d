//! The messages of a chat as a template takes them: a role and a text each. Parts of text are joined by line ends; parts of
//! any other kind are refused by their place.

use dovetail_chat::Message;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::fields::Fields;

/// One message as clients send it.
#[derive(Deserialize)]
struct Sent {
    role: String,
    content: Option<Content>,
    /// Calls that a model made before; no model here makes any.
    tool_calls: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

/// The messages of a request, none of them empty of a role that templates know.
pub(super) fn read(fields: &Fields) -> Result<Vec<Message>, ApiError> {
    let sent: Vec<Sent> = fields.required("messages")?;
    if sent.is_empty() {
        return Err(ApiError::invalid("messages", "there is no message"));
    }
    let messages = sent.into_iter().enumerate();
    messages.map(|(place, sent)| message(place, sent)).collect()
}

fn message(place: usize, sent: Sent) -> Result<Message, ApiError> {
    let role = match sent.role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" => "tool",
        _ => {
            let reason = "the roles are system, developer, user, assistant and tool";
            return Err(ApiError::invalid(
                &format!("messages[{place}].role"),
                reason,
            ));
        }
    };
    let param = || format!("messages[{place}].content");
    let content = match (sent.content, sent.tool_calls) {
        (Some(Content::Text(text)), _) => text,
        (Some(Content::Parts(parts)), _) => joined(parts, &param())?,
        // Another model's calls: the text of them, since no template here is given tools.
        (None, Some(calls)) if role == "assistant" => Value::Array(calls).to_string(),
        (None, _) => return Err(ApiError::invalid(&param(), "there is no text")),
    };
    Ok(Message {
        role: role.to_owned(),
        content,
    })
}

fn joined(parts: Vec<Part>, param: &str) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(parts.len());
    for part in parts {
        let text = match part.r#type.as_str() {
            "text" => part.text,
            "refusal" => part.refusal,
            _ => {
                return Err(ApiError::unsupported(
                    param,
                    "parts other than text are not taken",
                ));
            }
        };
        texts.push(text.ok_or_else(|| ApiError::invalid(param, "a part has no text"))?);
    }
    Ok(texts.join("\n"))
}

/// Tools are taken and not shown to the model: no template here is given any, and the model answers in text. Whoever insists
/// on a call is refused.
pub(super) fn check_tools(fields: &Fields) -> Result<(), ApiError> {
    // Read, so that a request with something else in its place hears of it.
    fields.get::<Vec<Value>>("tools")?;
    for name in ["tool_choice", "function_call"] {
        let choice = fields.get::<Value>(name)?;
        if choice.is_some_and(|choice| choice != "auto" && choice != "none") {
            let reason = "models here answer in text: auto and none are taken";
            return Err(ApiError::unsupported(name, reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;
    use serde_json::json;

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).unwrap()
    }

    fn read_messages(messages: Value) -> Result<Vec<(String, String)>, ApiError> {
        let messages = read(&fields(&json!({ "messages": messages })))?;
        let pairs = messages
            .into_iter()
            .map(|message| (message.role, message.content));
        Ok(pairs.collect())
    }

    #[test]
    fn text_comes_as_a_string_or_in_parts_and_developers_are_the_system() {
        let part = |text: &str| json!({"type": "text", "text": text});
        let read = read_messages(json!([
            {"role": "developer", "content": [part("Be"), part("brief.")], "name": "x"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": 1}]},
            {"role": "tool", "content": "42", "tool_call_id": "1"},
        ]))
        .unwrap();
        let expected = [
            ("system", "Be\nbrief."),
            ("user", "Hi"),
            ("assistant", r#"[{"id":1}]"#),
            ("tool", "42"),
        ];
        let expected = expected.map(|(role, text)| (role.to_owned(), text.to_owned()));
        assert_eq!(read, expected);
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let image = json!({"type": "image_url", "image_url": {"url": "https://example.invalid"}});
        for (message, param, code) in [
            (
                json!({"role": "user", "content": [image]}),
                "messages[1].content",
                Code::UnsupportedParameter,
            ),
            (
                json!({"role": "user"}),
                "messages[1].content",
                Code::InvalidValue,
            ),
            (
                json!({"role": "critic", "content": ""}),
                "messages[1].role",
                Code::InvalidValue,
            ),
        ] {
            let first = json!({"role": "user", "content": ""});
            let refused = read_messages(json!([first, message])).unwrap_err();
            assert_eq!(refused.envelope()["error"]["param"], param);
            assert_eq!(refused.code, code);
        }
        assert_eq!(
            read_messages(json!([])).unwrap_err().code,
            Code::InvalidValue
        );
    }

    #[test]
    fn tools_are_taken_and_a_call_cannot_be_insisted_on() {
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let check =
            |choice: Value| check_tools(&fields(&json!({"tools": tools, "tool_choice": choice})));
        for choice in [json!(null), json!("auto"), json!("none")] {
            assert_eq!(check(choice), Ok(()));
        }
        for choice in [
            json!("required"),
            json!({"type": "function", "function": {"name": "f"}}),
        ] {
            assert_eq!(check(choice).unwrap_err().code, Code::UnsupportedParameter);
        }
    }
}
