//! The messages of a chat as a template takes them: a role, a text, and what a model has called. Parts of text are joined by
//! line ends; parts of any other kind are refused by their place.

use dovetail_chat::{Call, Json, Message};
use serde::Deserialize;

use super::error::ApiError;
use super::fields::Fields;

/// One message as clients send it.
#[derive(Deserialize)]
struct Sent {
    role: String,
    content: Option<Content>,
    /// What a model has called before.
    tool_calls: Option<Vec<SentCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct SentCall {
    #[serde(default)]
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    #[serde(default)]
    arguments: String,
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
    let calls = sent.tool_calls.filter(|_| role == "assistant");
    let calls = calls.unwrap_or_default();
    let content = match sent.content {
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => joined(parts, &param())?,
        None if !calls.is_empty() => String::new(),
        None => return Err(ApiError::invalid(&param(), "there is no text")),
    };
    let is_tool = |_: &String| role == "tool";
    Ok(Message {
        calls: calls.into_iter().map(SentCall::into_call).collect(),
        call_id: sent.tool_call_id.filter(is_tool),
        name: sent.name.filter(is_tool),
        ..Message::new(role, content)
    })
}

impl SentCall {
    /// Templates show arguments as the object that they are.
    fn into_call(self) -> Call {
        let arguments = self.function.arguments;
        let object = Json::parse(&arguments).ok().filter(Json::is_object);
        Call {
            id: self.id,
            name: self.function.name,
            arguments: object.unwrap_or_else(|| Json::text(&arguments)),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;
    use serde_json::{Value, json};

    fn fields(body: &Value) -> Fields {
        Fields::parse(body.to_string().as_bytes()).unwrap()
    }

    fn read_messages(messages: Value) -> Result<Vec<Message>, ApiError> {
        read(&fields(&json!({ "messages": messages })))
    }

    #[test]
    fn text_comes_as_a_string_or_in_parts_and_developers_are_the_system() {
        let part = |text: &str| json!({"type": "text", "text": text});
        let read = read_messages(json!([
            {"role": "developer", "content": [part("Be"), part("brief.")], "name": "x"},
            {"role": "user", "content": "Hi"},
        ]))
        .unwrap();
        let expected = [("system", "Be\nbrief."), ("user", "Hi")];
        assert_eq!(read, expected.map(|(role, text)| Message::new(role, text)));
    }

    #[test]
    fn calls_have_their_arguments_as_objects_and_answers_name_their_call() {
        let call = |id: &str, arguments: &str| {
            let function = json!({"name": "f", "arguments": arguments});
            json!({"id": id, "type": "function", "function": function})
        };
        let calls = [call("1", r#"{"b": 1, "a": 2}"#), call("2", "none")];
        let read = read_messages(json!([
            {"role": "assistant", "content": null, "tool_calls": calls},
            {"role": "tool", "content": "42", "tool_call_id": "1", "name": "f"},
            {"role": "user", "content": "?", "tool_calls": calls, "name": "Ann"},
        ]))
        .unwrap();
        let call = |id: &str, arguments: Json| Call {
            id: id.to_owned(),
            name: "f".to_owned(),
            arguments,
        };
        let object = Json::parse(r#"{"b": 1, "a": 2}"#).unwrap();
        assert_eq!(
            read[0].calls,
            [call("1", object), call("2", Json::text("none"))]
        );
        assert_eq!(read[0].content, "");
        let answered = (read[1].call_id.as_deref(), read[1].name.as_deref());
        assert_eq!(answered, (Some("1"), Some("f")));
        assert_eq!(read[2], Message::new("user", "?"));
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
}
