//! The HTTP API: OpenAI's, for clients that know that one, and what a pool of Dovetail's has besides: receipts and tasks. It
//! translates requests into calls of [`Tasks`], and what comes back into JSON and streams; `docs/openai.md` is for its users.
//! Pages of other hosts are not let in: no answer has a header of CORS.

mod call;
mod completions;
mod document;
mod error;
mod fields;
mod messages;
mod models;
mod parameters;
mod payer;
mod pieces;
mod rates;
mod shape;
mod stream;
mod task_view;
#[cfg(test)]
mod tests;
mod text;
mod tools;

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::grpc_listener::Origin;
use crate::tasks::Tasks;
use error::{ApiError, Code};
use rates::Rates;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the API needs of the pool.
pub(crate) struct OpenAiParts {
    pub(crate) tasks: Tasks,
    /// What streams run on.
    pub(crate) tracker: TaskTracker,
    pub(crate) readiness: watch::Receiver<bool>,
    pub(crate) shutdown: CancellationToken,
    /// How many requests a minute one host may make.
    pub(crate) requests_per_minute: NonZeroU32,
    /// Of the pool's: keeps the ids of tasks from being guessed that clients name by keys of their own.
    pub(crate) secret: [u8; 32],
}

/// What every request has at hand.
#[derive(Clone)]
struct OpenAi {
    tasks: Tasks,
    tracker: TaskTracker,
    shutdown: CancellationToken,
    secret: [u8; 32],
    started_unix: u64,
}

/// The paths of the API.
pub(crate) fn router(parts: OpenAiParts) -> Router {
    let rates = Rates::new(parts.requests_per_minute);
    let state = OpenAi {
        tasks: parts.tasks,
        tracker: parts.tracker,
        shutdown: parts.shutdown,
        secret: parts.secret,
        started_unix: unix_now(),
    };
    Router::new()
        .route("/v1/models", get(models::list))
        // Names may have slashes.
        .route("/v1/models/{*name}", get(models::one))
        .route("/v1/chat/completions", post(completions::chat))
        .route("/v1/completions", post(completions::text))
        .route("/v1/dovetail/tasks/{task}", get(task_view::task))
        .route("/v1/dovetail/receipts/{task}", get(task_view::receipt))
        .route("/openapi.json", get(document::openapi))
        .route("/llms.txt", get(document::llms))
        .with_state(state)
        .layer(from_fn_with_state(rates, within_rate))
        // Outside of the rates: what watches the pool asks often.
        .route("/healthz", get(health).with_state(parts.readiness))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(with_request_id))
}

/// The answer to a path that is none of the API's.
pub(crate) fn unknown_path() -> Response {
    ApiError::new(Code::UnknownUrl, "there is nothing under this path").into_response()
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this path has another method")
}

/// Whether the pool gives out work.
async fn health(State(readiness): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    match *readiness.borrow() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

async fn within_rate(State(rates): State<Rates>, request: Request, next: Next) -> Response {
    let origin = request.extensions().get::<Origin>();
    let address = origin.and_then(|origin| origin.address);
    let unknown = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    match rates.check(address.unwrap_or(unknown)) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Gives each answer an id to ask about: that of its task, where it has one.
async fn with_request_id(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let id = hex::encode(rand::random::<[u8; 16]>());
    if let (false, Ok(id)) = (
        response.headers().contains_key(REQUEST_ID),
        HeaderValue::from_str(&id),
    ) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
