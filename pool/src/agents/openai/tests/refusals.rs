//! What is refused, and what describes the API.

use super::super::completions::Asked;
use super::super::fields::Fields;
use super::super::shape::Kind;
use super::*;

async fn refusal(pool: &Pool, body: &Value) -> (u16, String) {
    let (status, refused) = read(pool.post(CHAT, body, &[]).await).await;
    assert_described("Error", &refused);
    (
        status.as_u16(),
        refused["error"]["code"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn refusals_of_a_task_have_their_statuses_and_codes() {
    let pool = Pool::start().await;
    let of = |more: Value| pool.chat(more);
    let code = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(refusal(&pool, &of(json!({}))).await, code(503, "no_worker"));
    let worker = pool.worker(FIRST);
    let unknown = of(json!({ "model": "gpt-5" }));
    assert_eq!(refusal(&pool, &unknown).await, code(404, "model_not_found"));
    let long = json!([{ "role": "user", "content": "x".repeat(20_000) }]);
    let long = of(json!({ "messages": long }));
    assert_eq!(
        refusal(&pool, &long).await,
        code(400, "context_length_exceeded")
    );
    let longer = json!([{ "role": "user", "content": "x".repeat(300_000) }]);
    let longer = of(json!({ "messages": longer }));
    assert_eq!(
        refusal(&pool, &longer).await,
        code(400, "context_length_exceeded")
    );
    let system = json!([{ "role": "system", "content": "Be brief." }]);
    let system = of(json!({ "messages": system }));
    assert_eq!(refusal(&pool, &system).await, code(400, "invalid_value"));
    let schema = json!({ "type": "json_schema", "json_schema": { "schema": { "not": {} } } });
    let schema = of(json!({ "response_format": schema }));
    assert_eq!(refusal(&pool, &schema).await, code(400, "invalid_value"));
    let twice = of(json!({ "n": 2 }));
    assert_eq!(
        refusal(&pool, &twice).await,
        code(400, "unsupported_parameter")
    );
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn models_are_listed_and_found_by_name_and_by_id() {
    let pool = Pool::start().await;
    let worker = pool.worker(FIRST);
    let (status, list) = pool.get("/v1/models").await;
    assert_eq!(status, StatusCode::OK);
    assert_described("Models", &list);
    let model = &list["data"][0];
    assert_eq!(
        (&model["id"], &model["dovetail"]["workers"]),
        (&json!(pool.name), &json!(1))
    );
    for name in [&pool.name, &pool.model.to_string()] {
        let (_, one) = pool.get(&format!("/v1/models/{name}")).await;
        assert_eq!(one, *model);
    }
    let (status, refused) = pool.get("/v1/models/someone/else").await;
    assert_eq!(
        (status.as_u16(), &refused["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn every_answer_has_an_id_and_none_lets_a_page_of_another_host_in() {
    let pool = Pool::start().await;
    let preflight = Request::options(CHAT)
        .header("origin", "https://example.invalid")
        .header("access-control-request-method", "POST")
        .body(Body::empty())
        .unwrap();
    let response = pool.send(preflight).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let listed = Request::get("/v1/models").header("origin", "https://example.invalid");
    for response in [
        response,
        pool.send(listed.body(Body::empty()).unwrap()).await,
    ] {
        let headers = response.headers();
        assert_eq!(headers["x-request-id"].len(), 32);
        let allows = |name: &axum::http::HeaderName| name.as_str().starts_with("access-control");
        assert!(!headers.keys().any(allows));
    }
    assert_eq!(pool.get("/healthz").await.0, StatusCode::OK);
    pool.end().await;
}

/// The document names what is served: all of its paths, and all of the fields that a request may have.
#[tokio::test]
async fn the_document_has_every_path_and_every_field() {
    let pool = Pool::start().await;
    let (_, document) = pool.get("/openapi.json").await;
    let mut described: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let source = include_str!("../mod.rs");
    let routes = source.split(".route(\"").skip(1);
    let mut routes: Vec<String> = routes
        .map(|rest| rest.split('"').next().unwrap().replace("{*", "{"))
        .collect();
    routes.sort();
    described.sort();
    assert_eq!(described, routes);
    for (schema, kind, prompt) in [
        (
            "ChatRequest",
            Kind::Chat,
            r#""messages": [{"role": "user", "content": ""}]"#,
        ),
        ("TextRequest", Kind::Text, r#""prompt": """#),
    ] {
        let body = format!(r#"{{"model": "m", {prompt}}}"#);
        let fields = Fields::parse(body.as_bytes()).unwrap();
        Asked::read(&fields, kind).unwrap();
        let read: Vec<String> = fields
            .asked_for
            .borrow()
            .iter()
            .map(|&name| name.to_owned())
            .collect();
        let schema = &document["components"]["schemas"][schema]["properties"];
        let mut described: Vec<String> = schema.as_object().unwrap().keys().cloned().collect();
        described.sort();
        assert_eq!(read, described);
    }
    let (_, text) = pool.get("/llms.txt").await;
    assert_eq!(text, Value::Null);
    pool.end().await;
}
