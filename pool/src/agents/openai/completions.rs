//! `POST /v1/chat/completions` and `POST /v1/completions`: a request becomes an order, and what comes of it an answer.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dovetail_chat::{CallReader, CallSyntax};
use dovetail_commitment::{ModelId, TaskId, tagged_hash};
use dovetail_ledger::TaskRecord;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::OpenAi;
use super::call::{Call, OnDisconnect};
use super::error::{ApiError, Code};
use super::fields::{self, Fields};
use super::messages;
use super::models::{find_model, public_name};
use super::parameters::Parameters;
use super::payer;
use super::pieces::AnswerPieces;
use super::shape::{Kind, Outcome, Shape, receipt_path};
use super::stream::AnswerStream;
use super::text::AnswerText;
use super::tools;
use crate::agents::caller;
use crate::tasks::{AdmissionError, Follower, Order, Payment, Prompt, TaskError, TaskEvent, Tasks};

/// How many events may wait for a client; then the task's own progress keeps them, which `max_tokens` bounds.
const EVENTS_MAX: usize = 16;
/// As OpenAI's older endpoint has it.
const TEXT_TOKENS: u32 = 16;

const RECEIPT: HeaderName = HeaderName::from_static("x-dovetail-receipt");
const PRICE_MAX: HeaderName = HeaderName::from_static("x-dovetail-price-msat-max");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// Keeps nginx from gathering a stream.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What happens to a task, as it is sent to its client.
pub(super) type Events = mpsc::Receiver<Result<TaskEvent, TaskError>>;

pub(super) async fn chat(
    State(state): State<OpenAi>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&state, request, Kind::Chat).await
}

pub(super) async fn text(
    State(state): State<OpenAi>,
    request: Request,
) -> Result<Response, ApiError> {
    answer(&state, request, Kind::Text).await
}

async fn answer(state: &OpenAi, request: Request, kind: Kind) -> Result<Response, ApiError> {
    let asked_at = Instant::now();
    let caller = caller(request.extensions().get());
    let call = Call::read(request.headers(), caller, &state.secret)?;
    let payer = payer::payment(&state.tasks, request.headers()).await?;
    let (parts, body) = request.into_parts();
    let body = fields::read(&parts.headers, body).await?;
    let asked = Asked::read(&Fields::parse(&body)?, kind)?;
    let model = find_model(&state.tasks, &asked.parameters.model)?;
    let pieces = asked.pieces(&model.manifest().chat_template);
    let (id, model) = (model.id(), public_name(&state.tasks, &model));
    let (stream, include_usage) = (asked.parameters.stream, asked.parameters.include_usage);
    let (knows_salt, on_disconnect) = (call.salt.is_some(), call.on_disconnect);

    let order = order(state, call, payer, asked, id, &body).await?;
    // Its text is in the order.
    drop(body);
    let (task, events) = start(state, order, on_disconnect).await?;
    let shape = Shape {
        kind,
        model,
        task: task.id,
        created_unix: task.created_at_unix,
        fingerprint: Shape::fingerprint(&id),
        include_usage,
        knows_salt,
    };
    let mut response = match stream {
        true => AnswerStream::new(shape, pieces, events, &task, state.shutdown.clone()).response(),
        false => whole(state, shape, pieces, events).await?,
    };
    add_headers(response.headers_mut(), &task, asked_at);
    Ok(response)
}

/// A request of either kind.
pub(super) struct Asked {
    parameters: Parameters,
    prompt: Prompt,
    /// The names of the functions that may be called.
    functions: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextPrompt {
    One(String),
    Several(Vec<String>),
}

impl Asked {
    pub(super) fn read(fields: &Fields, kind: Kind) -> Result<Self, ApiError> {
        match kind {
            Kind::Chat => {
                let parameters = Parameters::read(fields, None)?;
                let (tools, functions) = match tools::read(fields)? {
                    Some(tools) => (Some(tools.document), tools.names),
                    None => (None, Vec::new()),
                };
                let prompt = Prompt::Chat {
                    messages: messages::read(fields)?,
                    tools,
                    has_controls: parameters.control_tokens,
                };
                Ok(Self {
                    parameters,
                    prompt,
                    functions,
                })
            }
            Kind::Text => {
                let parameters = Parameters::read(fields, Some(TEXT_TOKENS))?;
                if fields.raw("suffix").is_some() {
                    return Err(ApiError::unsupported("suffix", "this pool does not do it"));
                }
                let prompt = match fields.required("prompt")? {
                    TextPrompt::One(text) => text,
                    TextPrompt::Several(texts) => <[String; 1]>::try_from(texts)
                        .map(|[text]| text)
                        .map_err(|_| ApiError::unsupported("prompt", "one prompt is taken"))?,
                };
                let prompt = match parameters.control_tokens {
                    true => Prompt::Text(prompt.into_bytes()),
                    false => Prompt::Typed(prompt),
                };
                Ok(Self {
                    parameters,
                    prompt,
                    functions: Vec::new(),
                })
            }
        }
    }

    /// How the answer of a model with this template is read. One that has to keep a form calls nothing.
    fn pieces(&self, template: &str) -> AnswerPieces {
        let stop = self.parameters.stop.iter();
        let text = AnswerText::new(stop.map(|stop| stop.clone().into_bytes()).collect());
        let may_call = !self.functions.is_empty() && self.parameters.form.is_none();
        let syntax = may_call.then(|| CallSyntax::of(template)).flatten();
        let calls = syntax.map(|syntax| CallReader::new(syntax, self.functions.clone()));
        AnswerPieces::new(text, calls)
    }
}

/// The order of a task. One that is asked for again by its key, with the same body, is the same task.
async fn order(
    state: &OpenAi,
    call: Call,
    payer: Payment,
    asked: Asked,
    model: ModelId,
    body: &[u8],
) -> Result<Order, ApiError> {
    let before = match call.task {
        Some(id) => match state.tasks.show(id).await {
            Ok(task) => Some(task),
            Err(TaskError::Unknown) => None,
            Err(error) => return Err(error.into()),
        },
        None => None,
    };
    let Asked {
        parameters, prompt, ..
    } = asked;
    let (mut sampling, seed) = (parameters.sampling, parameters.seed);
    if let Some(task) = &before {
        // What fits depends on how fast the validators are now: the task has what fitted when it was admitted.
        sampling.max_tokens = sampling.max_tokens.min(task.sampling.max_tokens);
        if seed.is_some_and(|seed| seed != task.seed) {
            return Err(AdmissionError::IdTaken.into());
        }
    }
    // Of the body, so that another one under the same key is another request.
    let salt_of = |id: TaskId| {
        let parts: [&[u8]; 3] = [&state.secret, id.as_bytes(), body];
        tagged_hash("dovetail/idempotency-salt", &parts)
    };
    let salt = call.salt.or(call.task.map(salt_of));
    Ok(Order {
        caller: call.caller,
        payer,
        id: call.task,
        model,
        prompt,
        stop: parameters
            .stop
            .into_iter()
            .map(String::into_bytes)
            .collect(),
        form: parameters.form,
        salt: salt.unwrap_or_else(rand::random),
        sampling,
        as_many_as_fit: before.is_none(),
        seed,
    })
}

/// Has the order admitted; the task, and what happens to it for as long as its client is there. A client may be gone before its
/// task is admitted, and the task is stopped then as well: so this runs to its end by itself.
async fn start(
    state: &OpenAi,
    order: Order,
    on_disconnect: OnDisconnect,
) -> Result<(TaskRecord, Events), ApiError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let (admission, admitted) = oneshot::channel::<Result<TaskRecord, ApiError>>();
    let tasks = state.tasks.clone();
    state.tracker.spawn(async move {
        let task = match tasks.admit(order).await {
            Ok(admitted) => admitted.task,
            // A client that is gone needs no refusal.
            Err(error) => return drop(admission.send(Err(error.into()))),
        };
        let id = task.id;
        match tasks.follow(id, 0).await {
            Ok(follower) => {
                let _ = admission.send(Ok(task));
                forward(&tasks, id, follower, sender, on_disconnect).await;
            }
            Err(error) => {
                let _ = admission.send(Err(error.into()));
                if on_disconnect != OnDisconnect::Continue {
                    cancel(&tasks, id).await;
                }
            }
        }
    });
    let task = admitted.await.map_err(|_| ApiError::of_end(None))??;
    Ok((task, events))
}

/// Sends what happens to a task, until it has ended or its client hangs up.
async fn forward(
    tasks: &Tasks,
    id: TaskId,
    mut follower: Follower,
    sender: mpsc::Sender<Result<TaskEvent, TaskError>>,
    on_disconnect: OnDisconnect,
) {
    loop {
        let next = tokio::select! {
            // The client hung up.
            () = sender.closed() => break,
            next = follower.next() => next,
        };
        let Some(event) = next.transpose() else {
            return;
        };
        let is_last = event.is_err();
        if sender.send(event).await.is_err() {
            break;
        }
        if is_last {
            return;
        }
    }
    match on_disconnect {
        OnDisconnect::Wait => follower.hang_up(),
        OnDisconnect::Continue => {}
        OnDisconnect::Cancel => cancel(tasks, id).await,
    }
}

/// Of a task that has ended nothing is cancelled.
async fn cancel(tasks: &Tasks, id: TaskId) {
    if let Err(error) = tasks.cancel(id).await {
        tracing::warn!(task = %id, %error, "cannot cancel a task whose client has hung up");
    }
}

/// The answer in one piece, once it is whole.
async fn whole(
    state: &OpenAi,
    shape: Shape,
    mut pieces: AnswerPieces,
    mut events: Events,
) -> Result<Response, ApiError> {
    let (mut answer, mut received) = (Vec::new(), 0);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = state.shutdown.cancelled() => {
                return Err(ApiError::new(Code::Unavailable, "the pool is stopping"));
            }
        };
        let ended = ApiError::of_end(None);
        match event.ok_or(ended)?? {
            TaskEvent::Tokens {
                tokens,
                text: bytes,
                ..
            } => {
                received += tokens.len();
                answer.extend(pieces.push(&bytes));
            }
            TaskEvent::State(record) => match Outcome::of(&record, received) {
                Outcome::Open => {}
                Outcome::Failed(error) => return Err(error),
                Outcome::Answered(reason) => {
                    answer.extend(pieces.finish());
                    let reason = pieces.reason(reason);
                    return Ok(json(&shape.whole(answer, reason, &record)));
                }
            },
        }
    }
}

/// A JSON document.
pub(super) fn json(value: &serde_json::Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (
        [(header::CONTENT_TYPE, kind)],
        Body::from(value.to_string()),
    )
        .into_response()
}

fn add_headers(headers: &mut HeaderMap, task: &TaskRecord, asked_at: Instant) {
    // Ids and paths of ids are hex digits and slashes.
    let text = |text: String| HeaderValue::from_str(&text).ok();
    let own = [
        (super::REQUEST_ID, text(task.id.to_string())),
        (RECEIPT, text(receipt_path(&task.id))),
        (PRICE_MAX, Some(task.price.get().into())),
        (
            PROCESSING_MS,
            text(asked_at.elapsed().as_millis().to_string()),
        ),
        (BUFFERING, Some(HeaderValue::from_static("no"))),
        (
            header::CACHE_CONTROL,
            Some(HeaderValue::from_static("no-store")),
        ),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}
