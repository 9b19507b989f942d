//! The functions that a client offers to the model. They are shown to a model whose template takes them, and what it calls
//! is read out of its text (`pieces.rs`). Other models answer in text. Nobody can insist on a call.

use dovetail_chat::Json;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::fields::Fields;

/// As OpenAI's API has it.
const TOOLS_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 128;

/// The functions of one request.
pub(super) struct Tools {
    /// As the client wrote them.
    pub(super) document: Json,
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
struct Tool {
    r#type: String,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: String,
}

/// None where a request has no tools, or wants none to be called.
pub(super) fn read(fields: &Fields) -> Result<Option<Tools>, ApiError> {
    let mut is_none = false;
    for name in ["tool_choice", "function_call"] {
        match fields.get::<Value>(name)? {
            None => {}
            Some(choice) if choice == "auto" => {}
            Some(choice) if choice == "none" => is_none = true,
            Some(_) => {
                let reason = "no call can be insisted on: auto and none are taken";
                return Err(ApiError::unsupported(name, reason));
            }
        }
    }
    let Some(raw) = fields.raw("tools").map(RawValue::get) else {
        return Ok(None);
    };
    let Some(tools) = fields.get::<Vec<Tool>>("tools")? else {
        return Ok(None);
    };
    if tools.len() > TOOLS_MAX {
        let reason = format!("at most {TOOLS_MAX} tools");
        return Err(ApiError::invalid("tools", reason));
    }
    let names = tools
        .into_iter()
        .enumerate()
        .map(|(place, tool)| name(place, tool));
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    let document =
        Json::parse(raw).map_err(|_| ApiError::invalid("tools", "they nest too deep"))?;
    let is_offered = !names.is_empty() && !is_none;
    Ok(is_offered.then_some(Tools { document, names }))
}

fn name(place: usize, tool: Tool) -> Result<String, ApiError> {
    if tool.r#type != "function" {
        let param = format!("tools[{place}].type");
        return Err(ApiError::unsupported(&param, "functions alone are taken"));
    }
    let name = tool.function.map(|function| function.name);
    let name = name.filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
    name.ok_or_else(|| {
        let reason = format!("a function has a name of 1 to {NAME_BYTES_MAX} bytes");
        ApiError::invalid(&format!("tools[{place}].function.name"), reason)
    })
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;
    use serde_json::json;

    fn read_tools(body: &Value) -> Result<Option<Tools>, ApiError> {
        read(&Fields::parse(body.to_string().as_bytes()).unwrap())
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
    }

    #[test]
    fn tools_are_offered_unless_none_is_to_be_called() {
        let with =
            |choice: Value| read_tools(&json!({"tools": [tool("f")], "tool_choice": choice}));
        for choice in [json!(null), json!("auto")] {
            let tools = with(choice).unwrap().unwrap();
            assert_eq!(tools.names, ["f"]);
            assert_eq!(tools.document.to_string(), json!([tool("f")]).to_string());
        }
        assert!(with(json!("none")).unwrap().is_none());
        assert!(read_tools(&json!({"tools": []})).unwrap().is_none());
        for choice in [
            json!("required"),
            json!({"type": "function", "function": {"name": "f"}}),
        ] {
            let refused = with(choice).err().unwrap();
            assert_eq!(refused.code, Code::UnsupportedParameter);
        }
    }

    #[test]
    fn a_tool_that_is_no_function_is_refused_with_its_place() {
        let many: Vec<Value> = (0..=TOOLS_MAX).map(|_| tool("f")).collect();
        for (tools, param, code) in [
            (
                json!([tool("f"), {"type": "custom", "custom": {"name": "x"}}]),
                "tools[1].type",
                Code::UnsupportedParameter,
            ),
            (
                json!([{"type": "function"}]),
                "tools[0].function.name",
                Code::InvalidValue,
            ),
            (
                json!([tool(&"f".repeat(NAME_BYTES_MAX + 1))]),
                "tools[0].function.name",
                Code::InvalidValue,
            ),
            (json!(many), "tools", Code::InvalidValue),
            (json!({"f": 1}), "tools", Code::InvalidValue),
        ] {
            let refused = read_tools(&json!({ "tools": tools })).err().unwrap();
            assert_eq!(refused.envelope()["error"]["param"], param);
            assert_eq!(refused.code, code, "{param}");
        }
    }
}
