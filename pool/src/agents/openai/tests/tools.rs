//! Functions that clients offer, and what models call of them. The model is the tiny one with a template that teaches
//! Qwen2.5's way.

use dovetail_engine::tiny;

use super::*;

const TEMPLATE: &str = "{% if tools %}[{% for tool in tools %}{{ tool | tojson }}{% endfor %}] \
{# answer with #}{{ '<tool_call>{\"name\": <name>, \"arguments\": <object>}' }}{% endif %}\
{% for message in messages %}{{ message.role }}:{{ message.content }}{% for call in message.tool_calls %}\
<tool_call>{{ call.function.name }} {{ call.function.arguments.city }}{% endfor %}{{ message.tool_call_id }}|{% endfor %}";
const CALL: &[u8] =
    b"I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>";

fn model() -> Arc<Model> {
    let mut parts = tiny::parts(tiny::ARCHITECTURE, "with-tools", 1).unwrap();
    parts.chat_template = TEMPLATE.to_owned();
    Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap())
}

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }])
}

/// What the model is given, of which each byte is a token, behind one that begins.
async fn prompt_of(worker: &mut Connected) -> String {
    let task = given(worker).await;
    let bytes = task
        .prompt
        .tokens()
        .iter()
        .filter_map(|token| u8::try_from(*token).ok());
    let text = String::from_utf8(bytes.collect()).unwrap();
    let end = transcript(&task, worker.worker(), &[104]);
    worker.stream(&task.id, 0, &[104]).unwrap();
    worker.deliver(task.id, end).await.unwrap();
    text
}

#[tokio::test]
async fn what_a_model_calls_comes_as_calls_whole_and_in_chunks() {
    let pool = Pool::with(model()).await;
    let mut worker = pool.worker(FIRST);
    let (_, models) = pool.get("/v1/models").await;
    let parameters = models["data"][0]["supported_parameters"].as_array();
    assert!(parameters.unwrap().contains(&json!("tools")));
    let body = pool.chat(json!({ "tools": tools() }));
    let asked = pool.post(CHAT, &body, &[]);
    let (response, ()) = tokio::join!(asked, finish(&mut worker, &[CALL], FinishReason::Stop));
    let (_, answer) = read(response).await;
    assert_described("ChatAnswer", &answer);
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I look.");
    let call = &choice["message"]["tool_calls"][0];
    let function = json!({ "name": "weather", "arguments": "{\"city\": \"Bonn\"}" });
    assert_eq!(call["function"], function);
    // All of it is billed.
    assert_eq!(answer["usage"]["completion_tokens"], CALL.len());

    let body = pool.chat(json!({ "tools": tools(), "stream": true }));
    let events = Events::of(pool.post(CHAT, &body, &[]).await);
    let (before, behind) = CALL.split_at(20);
    let pieces: Vec<&[u8]> = vec![before, behind, b"\n", CALL];
    finish(&mut worker, &pieces, FinishReason::Stop).await;
    let chunks = events.rest().await;
    for chunk in &chunks[..chunks.len() - 1] {
        assert_described("ChatChunk", chunk);
    }
    assert_eq!(text_of(&chunks), "I look.\nI look.");
    let calls = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].as_array());
    let calls: Vec<&Value> = calls.flatten().collect();
    let ids = [0, 1].map(|place: usize| {
        assert_eq!(calls[place]["index"], place);
        assert_eq!(calls[place]["function"], function);
        calls[place]["id"].as_str().unwrap()
    });
    assert!(calls.len() == 2 && ids[0] != ids[1], "{ids:?}");
    let end = &chunks[chunks.len() - 2]["choices"][0];
    assert_eq!(end["finish_reason"], "tool_calls");
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn what_is_no_call_stays_text_and_an_answer_that_is_cut_short_says_so() {
    let pool = Pool::with(model()).await;
    let mut worker = pool.worker(FIRST);
    let form = json!({ "type": "json_object" });
    let (with, without) = (json!({ "tools": tools() }), json!({}));
    let none = json!({ "tools": tools(), "tool_choice": "none" });
    let formed = json!({ "tools": tools(), "response_format": form });
    let unknown: &[u8] = b"<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>";
    for (more, output, reason, finish_reason, calls) in [
        (&with, unknown, FinishReason::Stop, "stop", 0),
        (&with, &CALL[..30], FinishReason::Length, "length", 0),
        (&with, CALL, FinishReason::Length, "length", 1),
        (&without, CALL, FinishReason::Stop, "stop", 0),
        (&none, CALL, FinishReason::Stop, "stop", 0),
        (&formed, b"{}", FinishReason::Stop, "stop", 0),
    ] {
        let body = pool.chat(more.clone());
        let asked = pool.post(CHAT, &body, &[]);
        let pieces = [output];
        let (response, ()) = tokio::join!(asked, finish(&mut worker, &pieces, reason));
        let (_, answer) = read(response).await;
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], finish_reason, "{more}");
        let called = choice["message"]["tool_calls"].as_array();
        assert_eq!(called.map_or(0, Vec::len), calls, "{more}");
        if calls == 0 {
            let text = std::str::from_utf8(output).unwrap();
            assert_eq!(choice["message"]["content"], text);
        }
    }
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_template_is_given_tools_calls_and_answers_in_the_order_they_were_written() {
    let pool = Pool::with(model()).await;
    let mut worker = pool.worker(FIRST);
    let function = json!({ "name": "weather", "arguments": "{\"city\": \"Bonn\"}" });
    let calls = json!([{ "id": "c1", "type": "function", "function": function }]);
    let messages = json!([
        { "role": "user", "content": "?" },
        { "role": "assistant", "content": null, "tool_calls": calls },
        { "role": "tool", "content": "sun", "tool_call_id": "c1" },
    ]);
    // As text, since a value of JSON would sort the keys.
    let tool = r#"{"type": "function", "function": {"name": "weather", "a": 1}}"#;
    let body = format!(
        r#"{{"model": "{}", "messages": {messages}, "tools": [{tool}]}}"#,
        pool.name
    );
    let request = Request::post(CHAT)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let (response, prompt) = tokio::join!(pool.send(request), prompt_of(&mut worker));
    assert_eq!(response.status(), StatusCode::OK);
    let said = "user:?|assistant:<tool_call>weather Bonn|tool:sunc1|";
    let taught = "<tool_call>{\"name\": <name>, \"arguments\": <object>}";
    assert_eq!(prompt, format!("[{tool}] {taught}{said}"));
    let body = pool.chat(json!({ "tools": tools(), "tool_choice": "none" }));
    let (response, prompt) = tokio::join!(pool.post(CHAT, &body, &[]), prompt_of(&mut worker));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(prompt, "user:Hi|");
    drop(worker);
    pool.end().await;
}
