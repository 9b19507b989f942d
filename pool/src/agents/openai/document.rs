//! What describes the API to programs: `/openapi.json`, and `/llms.txt` for models that read about it.

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::completions::json as json_response;
use super::error::Code;
use crate::grpc_listener::HTTPS_REQUIRED;

/// With the codes that refusals have, in their place.
static OPENAPI: LazyLock<Value> = LazyLock::new(|| {
    // It is a part of the program, and a test reads it.
    let mut document: Value =
        serde_json::from_str(include_str!("openapi.json")).unwrap_or_default();
    // The last one comes of a port with TLS, before any request is read.
    let words = Code::ALL.iter().map(|code| code.word());
    let codes: Vec<&str> = words.chain([HTTPS_REQUIRED]).collect();
    if let Some(code) = document.pointer_mut(CODE) {
        code["enum"] = json!(codes);
    }
    document
});
const CODE: &str = "/components/schemas/Error/properties/error/properties/code";

pub(super) async fn openapi() -> Response {
    json_response(&OPENAPI)
}

pub(super) async fn llms() -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], include_str!("llms.txt")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_code() {
        let codes = OPENAPI.pointer(CODE).unwrap()["enum"].as_array().unwrap();
        assert_eq!(codes.len(), Code::ALL.len() + 1);
        assert!(codes.contains(&json!("https_required")));
    }
}
