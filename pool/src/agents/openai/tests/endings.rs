//! Answers that do not come to their end: a worker that is lost, a client that hangs up, a pool that stops.

use super::*;
use crate::mailboxes::WorkerCommand;

/// The next text, and the task that it is of.
async fn first_text(events: &mut Events) -> (String, String) {
    loop {
        let chunk = events.data().await.unwrap();
        let text = text_of(std::slice::from_ref(&chunk));
        if !text.is_empty() {
            let id = chunk["id"]
                .as_str()
                .unwrap()
                .strip_prefix("chatcmpl-")
                .unwrap();
            return (text, id.to_owned());
        }
    }
}

async fn stream(pool: &Pool, headers: &[(&str, &str)]) -> Events {
    Events::of(
        pool.post(CHAT, &pool.chat(json!({ "stream": true })), headers)
            .await,
    )
}

#[tokio::test]
async fn a_stream_whose_worker_is_lost_ends_with_an_error_and_neither_reason_nor_done() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let mut events = stream(&pool, &[]).await;
    run(&mut worker, &[b"one "]).await;
    let (_, task) = first_text(&mut events).await;
    drop(worker);
    let rest = events.rest().await;
    let [error] = &rest[..] else {
        panic!("{rest:?}");
    };
    assert_described("Error", error);
    assert_eq!(error["error"]["code"], "worker_lost");
    // It costs nothing: what was reserved for it is free again.
    let failed = pool.task_in(&task, TaskState::Failed).await;
    assert!(failed.transcript.is_none());
    let (_, shown) = pool.get(&format!("/v1/dovetail/receipts/{task}")).await;
    assert_eq!(shown["error"]["code"], "receipt_never");
    pool.end().await;
}

#[tokio::test]
async fn an_answer_in_one_piece_whose_worker_is_lost_is_a_fault_that_sdks_ask_again_after() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let body = pool.chat(json!({}));
    let lost = async {
        run(&mut worker, &[b"one "]).await;
        drop(worker);
    };
    let (response, ()) = tokio::join!(pool.post(CHAT, &body, &[]), lost);
    let (status, refused) = read(response).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(refused["error"]["code"], "worker_lost");
    pool.end().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_first_token_pays_nothing() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let events = stream(&pool, &[]).await;
    let task = given(&mut worker).await;
    drop(events);
    let cancelled = pool
        .task_in(&task.id.to_string(), TaskState::Cancelled)
        .await;
    assert!(cancelled.transcript.is_none());
    let command = timeout(SOON, worker.next_command()).await.unwrap();
    assert!(matches!(command, Some(WorkerCommand::Cancel(id)) if id == task.id));
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_cancels_its_task_and_pays_what_came() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let mut events = stream(&pool, &[]).await;
    let (task, tokens) = run(&mut worker, &[b"one "]).await;
    let (_, id) = first_text(&mut events).await;
    drop(events);
    let command = timeout(SOON, worker.next_command()).await.unwrap();
    assert!(matches!(command, Some(WorkerCommand::Cancel(id)) if id == task.id));
    let mut prefix = transcript(&task, FIRST, &tokens);
    prefix.finish_reason = FinishReason::Cancelled;
    worker.deliver(task.id, prefix).await.unwrap();
    let finished = pool.task_in(&id, TaskState::Finished).await;
    assert_eq!(finished.price, pool.tasks.prices().of(&pool.model).of(3, 4));
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn an_answer_in_one_piece_is_cancelled_as_well_when_nobody_waits_for_it() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let asked = tokio::spawn({
        let request = post(CHAT, &pool.chat(json!({})), &[]);
        pool.router.clone().oneshot(request)
    });
    let task = given(&mut worker).await;
    asked.abort();
    pool.task_in(&task.id.to_string(), TaskState::Cancelled)
        .await;
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_task_goes_on_without_its_client_where_that_was_asked_for() {
    let pool = Pool::start().await;
    let mut worker = pool.worker(FIRST);
    let headers = [
        ("x-dovetail-on-disconnect", "continue"),
        ("idempotency-key", "one"),
    ];
    drop(stream(&pool, &headers).await);
    finish(&mut worker, &[b"Hello"], FinishReason::Stop).await;
    // It is there for whoever asks again, also while no worker is.
    drop(worker);
    let again = || async { stream(&pool, &headers).await.rest().await };
    assert_eq!(text_of(&again().await), "Hello");
    let wiped = "UPDATE tasks SET state = 'settled', prompt = NULL, stop = NULL, output_tokens = NULL, salt = NULL";
    pool.database.run(wiped).await;
    assert_eq!(
        again().await.last().unwrap()["error"]["code"],
        "answer_wiped"
    );
    pool.end().await;
}

#[tokio::test]
async fn a_pool_that_stops_ends_its_streams_with_an_error() {
    let pool = Pool::start().await;
    let worker = pool.worker(FIRST);
    let events = stream(&pool, &[]).await;
    pool.shutdown.cancel();
    let rest = events.rest().await;
    assert_eq!(rest.last().unwrap()["error"]["code"], "unavailable");
    drop(worker);
    pool.end().await;
}
