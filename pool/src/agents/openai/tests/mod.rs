//! The API as its clients see it, on a real ledger, with workers that a test plays: the tokens of the tiny model are bytes.

mod answers;
mod endings;
mod keys;
mod refusals;
mod tools;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use dovetail_commitment::{FinishReason, ModelId, WorkerKey};
use dovetail_engine::Model;
use dovetail_ledger::TaskState;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tower::ServiceExt;

use super::*;
use crate::assignment::Assignment;
use crate::tasks::Connected;
use crate::tasks::life_tests::{given, transcript};
use crate::test_support::{Database, live_tasks};
use crate::validation::tests::tiny_model;

const SOON: Duration = Duration::from_secs(20);
pub(super) const FIRST: WorkerKey = WorkerKey::from_bytes([1; 32]);
pub(super) const SECOND: WorkerKey = WorkerKey::from_bytes([2; 32]);
const CHAT: &str = "/v1/chat/completions";

/// A ledger, the tasks of a pool with one model, and the API before them.
pub(super) struct Pool {
    database: Database,
    pub(super) tasks: Tasks,
    pub(super) router: Router,
    pub(super) shutdown: CancellationToken,
    model: ModelId,
    /// The model's name.
    pub(super) name: String,
}

impl Pool {
    pub(super) async fn start() -> Self {
        Self::with(tiny_model(1)).await
    }

    /// A pool with this model alone.
    pub(super) async fn with(model: Arc<Model>) -> Self {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let tasks = live_tasks(&ledger, [Arc::clone(&model)].into_iter().collect());
        let shutdown = CancellationToken::new();
        let router = router(OpenAiParts {
            tasks: tasks.clone(),
            tracker: TaskTracker::new(),
            readiness: watch::channel(true).1,
            shutdown: shutdown.clone(),
            requests_per_minute: NonZeroU32::new(1_000).unwrap(),
            secret: [7; 32],
        });
        Self {
            database,
            tasks,
            router,
            shutdown,
            model: model.id(),
            name: model.name().to_owned(),
        }
    }

    pub(super) fn worker(&self, key: WorkerKey) -> Connected {
        self.tasks.connect(key, vec![self.model], 4)
    }

    /// A request for an answer to "Hi", with these fields besides.
    pub(super) fn chat(&self, more: Value) -> Value {
        let mut body = json!({
            "model": self.name,
            "messages": [{ "role": "user", "content": "Hi" }],
        });
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        body
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        timeout(SOON, self.router.clone().oneshot(request))
            .await
            .unwrap()
            .unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        read(self.send(request).await).await
    }

    pub(super) async fn post(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Response {
        self.send(post(path, body, headers)).await
    }

    /// The task of an answer, once the ledger has it in this state.
    pub(super) async fn task_in(&self, id: &str, state: TaskState) -> dovetail_ledger::TaskRecord {
        let id = id.parse().unwrap();
        let reached = async {
            loop {
                let task = self.tasks.task(id).await.unwrap();
                if task.state == state {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, reached).await.unwrap()
    }

    /// Ends what still runs, and the database with it.
    pub(super) async fn end(self) {
        self.shutdown.cancel();
        drop(self.router);
        drop(self.tasks);
        self.database.drop().await;
    }
}

pub(super) fn post(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_string())).unwrap()
}

pub(super) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// A worker runs its next task, and gives these pieces of its output, byte by byte; nothing is delivered yet.
pub(super) async fn run(worker: &mut Connected, pieces: &[&[u8]]) -> (Arc<Assignment>, Vec<u32>) {
    let task = given(worker).await;
    let mut tokens = Vec::new();
    for piece in pieces {
        let more: Vec<u32> = piece.iter().map(|byte| u32::from(*byte)).collect();
        let first = u32::try_from(tokens.len()).unwrap();
        worker.stream(&task.id, first, &more).unwrap();
        tokens.extend(more);
    }
    (task, tokens)
}

/// It does, and delivers its transcript, which ends for this reason.
pub(super) async fn finish(worker: &mut Connected, pieces: &[&[u8]], reason: FinishReason) {
    let (task, tokens) = run(worker, pieces).await;
    let mut transcript = transcript(&task, worker.worker(), &tokens);
    transcript.finish_reason = reason;
    worker.deliver(task.id, transcript).await.unwrap();
}

/// A stream of server-sent events.
pub(super) struct Events {
    body: BodyDataStream,
    text: String,
}

impl Events {
    pub(super) fn of(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next event as it was sent; none at the end.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return Some(event);
            }
            let more = timeout(SOON, self.body.next()).await.unwrap()?;
            self.text += std::str::from_utf8(&more.unwrap()).unwrap();
        }
    }

    /// The data of the next event that has any.
    pub(super) async fn data(&mut self) -> Option<Value> {
        loop {
            let event = self.next().await?;
            // Nothing but data and comments: SDKs take a named event for a chunk.
            match event.strip_prefix("data: ") {
                Some("[DONE]") => return Some("[DONE]".into()),
                Some(data) => return Some(serde_json::from_str(data).unwrap()),
                None => assert!(event.starts_with(':'), "{event:?}"),
            }
        }
    }

    /// All that is still to come.
    pub(super) async fn rest(mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(data) = self.data().await {
            all.push(data);
        }
        all
    }
}

/// The text that chunks say.
pub(super) fn text_of(chunks: &[Value]) -> String {
    let pieces = chunks.iter().map(|chunk| {
        let choice = &chunk["choices"][0];
        choice["delta"]["content"]
            .as_str()
            .or(choice["text"].as_str())
            .unwrap_or("")
    });
    pieces.collect()
}

/// Whether a value has what this schema of the document says, and nothing else.
pub(super) fn assert_described(schema: &str, value: &Value) {
    let document: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    fits(
        &document,
        &document["components"]["schemas"][schema],
        value,
        schema,
    );
}

fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(path) = schema["$ref"].as_str() {
        return fits(
            document,
            document.pointer(&path[1..]).unwrap(),
            value,
            place,
        );
    }
    if let Some(options) = schema["oneOf"].as_array() {
        let option = options
            .iter()
            .find(|option| (option["type"] == "null") == value.is_null());
        return fits(document, option.expect(place), value, place);
    }
    if let Some(fixed) = schema.get("const") {
        assert_eq!(fixed, value, "{place}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{place}: {value}");
    }
    if let (Some(fields), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    {
        for (name, value) in fields {
            let schema = properties.get(name);
            let place = format!("{place}.{name}");
            fits(document, schema.expect(&place), value, &place);
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(
                fields.contains_key(name.as_str().unwrap()),
                "{place} lacks {name}"
            );
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, place);
    }
}
