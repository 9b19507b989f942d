//! Answers that come to their end.

use super::*;

#[tokio::test]
async fn an_answer_comes_whole_with_what_it_costs_and_what_proves_it() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let body = pool.chat(json!({ "temperature": 0, "max_tokens": 5, "seed": 1 }));
    let salt = "05".repeat(32);
    let headers = [("x-dovetail-salt", salt.as_str())];
    let asked = pool.post(CHAT, &body, &headers);
    let (response, ()) = tokio::join!(
        asked,
        finish(&mut worker, &[b"Hel", b"lo"], FinishReason::Length)
    );
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    let (_, answer) = read(response).await;
    assert_described("ChatAnswer", &answer);
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    // The message is a text for a model without a template: a beginning, and two bytes.
    let price = pool.tasks.prices().of(&pool.model).of(3, 5).get();
    let usage = json!({
        "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
        "prompt_tokens_details": { "cached_tokens": 0 }, "cost_msat": price,
    });
    assert_eq!(answer["usage"], usage);
    let task = answer["dovetail"]["task_id"].as_str().unwrap();
    assert_eq!(answer["id"], format!("chatcmpl-{task}"));
    assert_eq!(answer["dovetail"]["seed"], format!("{}01", "00".repeat(31)));
    assert!(answer["dovetail"].get("salt").is_none());
    // What is billed is what the ledger has of the transcript.
    let record = pool.task_in(task, TaskState::Finished).await;
    assert_eq!((record.price.get(), record.input_tokens), (price, 3));
    assert_eq!(record.salt, [5; 32]);
    assert_eq!(headers["x-request-id"], task);
    assert_eq!(
        headers["x-dovetail-receipt"],
        format!("/v1/dovetail/receipts/{task}")
    );
    assert_eq!(headers["x-dovetail-price-msat-max"], price.to_string());
    assert_eq!(headers["cache-control"], "no-store");

    let (status, shown) = pool.get(&format!("/v1/dovetail/tasks/{task}")).await;
    assert_eq!(
        (status, &shown["state"]),
        (StatusCode::OK, &json!("finished"))
    );
    assert_described("Task", &shown);
    assert_eq!(shown["usage"], usage);
    let (status, pending) = pool.get(&format!("/v1/dovetail/receipts/{task}")).await;
    assert_eq!(
        (status, &pending["error"]["code"]),
        (StatusCode::CONFLICT, &json!("receipt_pending"))
    );
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_stream_says_who_speaks_before_any_token_and_ends_with_how_and_done() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let usage = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let response = pool.post(CHAT, &pool.chat(usage), &[]).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut events = Events::of(response);
    let role = events.data().await.unwrap();
    assert_eq!(
        role["choices"][0]["delta"],
        json!({ "role": "assistant", "content": "" })
    );
    let euro = "€".as_bytes();
    let pieces = [b"5 ", &euro[..1], &euro[1..], b"!"];
    finish(&mut worker, &pieces, FinishReason::Stop).await;
    let chunks = events.rest().await;
    assert_eq!(text_of(&chunks), "5 €!");
    let [.., end, last, done] = &chunks[..] else {
        panic!("{chunks:?}");
    };
    assert_eq!(*done, "[DONE]");
    for chunk in &chunks[..chunks.len() - 1] {
        assert_described("ChatChunk", chunk);
    }
    let is_null = |chunk: &Value| chunk["usage"].is_null() && chunk.get("usage").is_some();
    assert!(is_null(&role) && is_null(end), "{role} {end}");
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 6);
    assert_eq!(last["dovetail"]["salt"].as_str().unwrap().len(), 64);
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_stream_without_its_usage_asked_for_has_no_such_field() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let body = json!({ "model": pool.name, "prompt": ["Hi"], "stream": true });
    let events = Events::of(pool.post("/v1/completions", &body, &[]).await);
    finish(&mut worker, &[b"a", b"b"], FinishReason::Stop).await;
    let chunks = events.rest().await;
    assert_eq!(text_of(&chunks), "ab");
    let [.., end, done] = &chunks[..] else {
        panic!("{chunks:?}");
    };
    assert_eq!(
        (&end["choices"][0]["finish_reason"], done),
        (&json!("stop"), &json!("[DONE]"))
    );
    for chunk in &chunks[..chunks.len() - 1] {
        assert!(chunk.get("usage").is_none() && chunk.get("dovetail").is_none());
        assert_described("TextAnswer", chunk);
    }
    // As OpenAI's older endpoint has it.
    let id = end["id"].as_str().unwrap().strip_prefix("cmpl-").unwrap();
    let task = pool.task_in(id, TaskState::Finished).await;
    assert_eq!(task.sampling.max_tokens, 16);
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn the_text_ends_before_a_stop_sequence_and_all_of_its_tokens_are_billed() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let body = |stream: bool| pool.chat(json!({ "stop": ["END", "\n"], "stream": stream }));
    let pieces: [&[u8]; 3] = [b"one E", b"N", b"D."];
    let body_whole = body(false);
    let asked = pool.post(CHAT, &body_whole, &[]);
    let (response, ()) = tokio::join!(asked, finish(&mut worker, &pieces, FinishReason::Stop));
    let (_, answer) = read(response).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "one ");
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    let events = Events::of(pool.post(CHAT, &body(true), &[]).await);
    finish(&mut worker, &pieces, FinishReason::Stop).await;
    assert_eq!(text_of(&events.rest().await), "one ");
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn another_worker_goes_on_in_the_middle_of_an_answer_and_its_client_sees_no_seam() {
    let pool = Pool::start().await;
    let mut first = pool.worker(FIRST);
    let mut events = Events::of(
        pool.post(CHAT, &pool.chat(json!({ "stream": true })), &[])
            .await,
    );
    run(&mut first, &[b"one ", b"two "]).await;
    let mut chunks = Vec::new();
    while text_of(&chunks) != "one two " {
        chunks.push(events.data().await.unwrap());
    }
    let mut second = pool.worker(SECOND);
    drop(first);
    finish(&mut second, &[b"one t", b"wo three"], FinishReason::Stop).await;
    chunks.extend(events.rest().await);
    assert_eq!(text_of(&chunks), "one two three");
    assert_eq!(chunks.last().unwrap(), "[DONE]");
    drop(second);
    pool.end().await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_under_its_key_has_the_same_answer_and_another_one_has_none() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let key = [("idempotency-key", "one"), ("authorization", "Bearer sk-1")];
    let body = pool.chat(json!({}));
    let asked = pool.post(CHAT, &body, &key);
    let (response, ()) = tokio::join!(asked, finish(&mut worker, &[b"Hello"], FinishReason::Stop));
    let (_, first) = read(response).await;
    // Nobody generates it again.
    let (status, again) = read(pool.post(CHAT, &body, &key).await).await;
    assert_eq!((status, &again), (StatusCode::OK, &first));
    for more in [
        json!({ "max_tokens": 3 }),
        json!({ "max_tokens": 2_000 }),
        json!({ "seed": 3 }),
        json!({ "stop": "x" }),
        json!({ "stream": true }),
    ] {
        let response = pool.post(CHAT, &pool.chat(more), &key).await;
        assert_eq!(response.headers()["x-should-retry"], "false");
        let (status, refused) = read(response).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (StatusCode::CONFLICT, &json!("idempotency_key_reused"))
        );
    }
    drop(worker);
    pool.end().await;
}
