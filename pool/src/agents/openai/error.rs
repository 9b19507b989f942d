//! Refusals in the envelope of OpenAI's API: `{"error":{"message","type","param","code"}}`. Clients match on the status and
//! on `code`; both SDKs of OpenAI ask again after 409, 429 and from 500 on, and honour `Retry-After` and `x-should-retry`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dovetail_api::codes::Code as EndCode;
use dovetail_ledger::LedgerError;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;
use serde_json::{Value, json};

use crate::tasks::{AdmissionError, ReceiptError, TaskError};

/// Tells SDKs that ask again after a 409 not to.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// When it is worth asking again where the queue or the workers are full: some tasks have ended by then.
const FULL_RETRY_S: u64 = 2;
/// And where no worker is connected, or the ledger is away.
const AWAY_RETRY_S: u64 = 5;

/// The words that clients match on; they stay the same from release to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    ContextLengthExceeded,
    UnsupportedParameter,
    InvalidValue,
    InvalidUtf8,
    /// The key is none of this pool's, or was revoked.
    InvalidApiKey,
    /// Nobody pays for the task: no key, and no budget of the operator's.
    PaymentRequired,
    /// The key's balance would not do even if nothing were reserved.
    InsufficientBalance,
    /// What may be spent on a day is spent.
    DailyLimit,
    ModelNotFound,
    TaskNotFound,
    ReceiptNever,
    UnknownUrl,
    MethodNotAllowed,
    RequestTimeout,
    ReceiptPending,
    IdempotencyKeyReused,
    /// The task was asked for before, and its answer is no longer kept.
    AnswerWiped,
    RequestTooLarge,
    UnsupportedMediaType,
    RateLimitExceeded,
    /// The key's balance would do, but requests under way hold it.
    BalanceReserved,
    InternalError,
    WorkerLost,
    InferenceMismatch,
    TaskExpired,
    TaskCancelled,
    NoWorker,
    QueueFull,
    WorkersFull,
    Unavailable,
}

impl Code {
    /// Every code, in the order of their statuses.
    pub(super) const ALL: [Self; 30] = [
        Self::ContextLengthExceeded,
        Self::UnsupportedParameter,
        Self::InvalidValue,
        Self::InvalidUtf8,
        Self::InvalidApiKey,
        Self::PaymentRequired,
        Self::InsufficientBalance,
        Self::DailyLimit,
        Self::ModelNotFound,
        Self::TaskNotFound,
        Self::ReceiptNever,
        Self::UnknownUrl,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::ReceiptPending,
        Self::IdempotencyKeyReused,
        Self::AnswerWiped,
        Self::RequestTooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimitExceeded,
        Self::BalanceReserved,
        Self::InternalError,
        Self::WorkerLost,
        Self::InferenceMismatch,
        Self::TaskExpired,
        Self::TaskCancelled,
        Self::NoWorker,
        Self::QueueFull,
        Self::WorkersFull,
        Self::Unavailable,
    ];

    /// The word that travels.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::ContextLengthExceeded => "context_length_exceeded",
            Self::UnsupportedParameter => "unsupported_parameter",
            Self::InvalidValue => "invalid_value",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidApiKey => "invalid_api_key",
            Self::PaymentRequired => "payment_required",
            Self::InsufficientBalance => "insufficient_balance",
            Self::DailyLimit => "daily_limit",
            Self::ModelNotFound => "model_not_found",
            Self::TaskNotFound => "task_not_found",
            Self::ReceiptNever => "receipt_never",
            Self::UnknownUrl => "unknown_url",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::ReceiptPending => "receipt_pending",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::AnswerWiped => "answer_wiped",
            Self::RequestTooLarge => "request_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::BalanceReserved => "balance_reserved",
            Self::InternalError => "internal_error",
            Self::WorkerLost => "worker_lost",
            Self::InferenceMismatch => "inference_mismatch",
            Self::TaskExpired => "task_expired",
            Self::TaskCancelled => "task_cancelled",
            Self::NoWorker => "no_worker",
            Self::QueueFull => "queue_full",
            Self::WorkersFull => "workers_full",
            Self::Unavailable => "unavailable",
        }
    }

    /// The status of a refusal, and OpenAI's type of it.
    pub(super) const fn status(self) -> (StatusCode, &'static str) {
        const REQUEST: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        match self {
            Self::ContextLengthExceeded
            | Self::UnsupportedParameter
            | Self::InvalidValue
            | Self::InvalidUtf8 => (StatusCode::BAD_REQUEST, REQUEST),
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "authentication_error"),
            Self::PaymentRequired | Self::InsufficientBalance | Self::DailyLimit => {
                (StatusCode::PAYMENT_REQUIRED, "insufficient_quota")
            }
            Self::ModelNotFound | Self::TaskNotFound | Self::ReceiptNever | Self::UnknownUrl => {
                (StatusCode::NOT_FOUND, REQUEST)
            }
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, REQUEST),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, REQUEST),
            Self::ReceiptPending | Self::IdempotencyKeyReused => (StatusCode::CONFLICT, REQUEST),
            Self::AnswerWiped => (StatusCode::GONE, REQUEST),
            Self::RequestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, REQUEST),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST),
            Self::RateLimitExceeded | Self::BalanceReserved => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error")
            }
            Self::InternalError
            | Self::WorkerLost
            | Self::InferenceMismatch
            | Self::TaskExpired
            | Self::TaskCancelled => (StatusCode::INTERNAL_SERVER_ERROR, SERVER),
            Self::NoWorker | Self::QueueFull | Self::WorkersFull | Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, SERVER)
            }
        }
    }

    const fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::ReceiptPending
            | Self::RateLimitExceeded
            | Self::BalanceReserved
            | Self::QueueFull
            | Self::WorkersFull => Some(FULL_RETRY_S),
            Self::NoWorker | Self::Unavailable => Some(AWAY_RETRY_S),
            _ => None,
        }
    }
}

/// A refusal. Its message is for the client alone: it may quote from the request, so it goes into no log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(super) code: Code,
    message: String,
    /// The field of the request that it is about.
    param: Option<String>,
    retry_after_s: Option<u64>,
    /// Numbers for programs.
    details: Option<Box<Value>>,
}

impl ApiError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after_s: code.retry_after_s(),
            details: None,
        }
    }

    /// A field of the request has a value that is not taken.
    pub(super) fn invalid(param: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidValue, format!("{param}: {reason}")).about(param)
    }

    /// The request asks for something that this API does not do.
    pub(super) fn unsupported(param: &str, reason: &str) -> Self {
        Self::new(Code::UnsupportedParameter, format!("{param}: {reason}")).about(param)
    }

    pub(super) fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// When it is worth asking again.
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    fn with(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The envelope: what a refusal's body has, and the last chunk of a stream that failed.
    pub(super) fn envelope(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.code.status().1,
            "param": self.param,
            "code": self.code.word(),
        });
        if let Some(details) = &self.details {
            error["dovetail"] = Value::clone(details);
        }
        json!({ "error": error })
    }

    /// Why a task has ended that gives no answer; the word is the ledger's.
    pub(super) fn of_end(word: Option<&str>) -> Self {
        let code = match word.and_then(EndCode::parse) {
            Some(EndCode::WorkerLost | EndCode::WorkerFailed | EndCode::WorkerStalled) => {
                Code::WorkerLost
            }
            Some(EndCode::WorkersFull) => Code::WorkersFull,
            Some(EndCode::QueueFull) => Code::QueueFull,
            Some(EndCode::InferenceMismatch) => Code::InferenceMismatch,
            Some(EndCode::TaskExpired) => Code::TaskExpired,
            Some(EndCode::PoolRestarted) => Code::Unavailable,
            _ => Code::InternalError,
        };
        let message = match code {
            Code::WorkerLost => "the task's worker was lost, and no other could take it over",
            Code::WorkersFull => "every worker that serves this model is full",
            Code::QueueFull => "too many tasks wait already",
            Code::InferenceMismatch => "the answer did not pass its audit; nothing was charged",
            Code::TaskExpired => "the task's time ran out",
            Code::Unavailable => "the pool was restarted while the task ran",
            _ => "a fault in the pool; its log says more",
        };
        Self::new(code, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.envelope().to_string()));
        *response.status_mut() = self.code.status().0;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::IdempotencyKeyReused {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

/// What a balance has, for programs; what other requests hold is a part of it.
fn balance(available: Msat, reserved: Msat, required: Msat) -> Value {
    json!({
        "balance_msat": available.get().saturating_add(reserved.get()),
        "reserved_msat": reserved.get(),
        "required_msat": required.get(),
    })
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> Self {
        let message = error.to_string();
        match error {
            AdmissionError::ModelUnknown => Self::new(Code::ModelNotFound, message).about("model"),
            // In OpenAI's words: agents shorten a conversation when they read "maximum context length".
            AdmissionError::ContextFull {
                tokens,
                context_tokens,
            } => context_exceeded(context_tokens as u64, tokens as u64),
            // No answer at all could be replayed in time: so much is the context here.
            AdmissionError::TaskTooLarge {
                tokens_max,
                prompt_tokens,
            } if prompt_tokens >= tokens_max => context_exceeded(tokens_max, prompt_tokens),
            AdmissionError::PromptTooLong { bytes_max } => Self::new(
                Code::ContextLengthExceeded,
                format!(
                    "The maximum context length is exceeded: your messages have more than the {bytes_max} bytes that this \
                     pool takes. Please reduce the length of the messages."
                ),
            ),
            AdmissionError::TaskTooLarge { .. } => {
                Self::new(Code::InvalidValue, message).about("max_tokens")
            }
            AdmissionError::SamplingInvalid(_) | AdmissionError::Invalid(_) => {
                Self::new(Code::InvalidValue, message)
            }
            AdmissionError::ConstraintInvalid(_) => {
                Self::new(Code::InvalidValue, message).about("response_format")
            }
            AdmissionError::ConstraintsFull
            | AdmissionError::PromptsFull
            | AdmissionError::QueueFull => Self::new(Code::QueueFull, message),
            AdmissionError::CallerFull => Self::new(Code::RateLimitExceeded, message),
            AdmissionError::NoWorker => Self::new(Code::NoWorker, message),
            AdmissionError::KeyInvalid => Self::new(Code::InvalidApiKey, message),
            AdmissionError::Unpaid => Self::new(Code::PaymentRequired, message),
            AdmissionError::TooDear { .. } => {
                Self::new(Code::InvalidValue, message).about("max_tokens")
            }
            AdmissionError::BalanceReserved {
                available,
                reserved,
                required,
            } => Self::new(Code::BalanceReserved, message)
                .with(balance(available, reserved, required)),
            AdmissionError::InsufficientBalance {
                available,
                reserved,
                required,
            } => Self::new(Code::InsufficientBalance, message)
                .with(balance(available, reserved, required)),
            // The words "limit" and "resets" keep agents from taking a key for one that is used up for good.
            AdmissionError::DailyLimit { resets_at_unix, .. } => {
                let left = resets_at_unix.saturating_sub(unix_now());
                Self::new(Code::DailyLimit, message)
                    .with(json!({ "resets_at_unix": resets_at_unix }))
                    .retry_after(left)
            }
            AdmissionError::IdTaken => Self::new(
                Code::IdempotencyKeyReused,
                "this Idempotency-Key was used for another request",
            ),
            AdmissionError::Ledger(error) => unavailable(&error),
            AdmissionError::Lookup(error) => error.into(),
            AdmissionError::Unfinished => Self::new(Code::InternalError, message),
        }
    }
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Unknown => Self::new(Code::TaskNotFound, error.to_string()),
            TaskError::Ledger(error) => unavailable(&error),
        }
    }
}

impl From<ReceiptError> for ApiError {
    fn from(error: ReceiptError) -> Self {
        let message = error.to_string();
        match error {
            ReceiptError::Task(error) => error.into(),
            ReceiptError::Pending => Self::new(Code::ReceiptPending, message),
            ReceiptError::Never => Self::new(Code::ReceiptNever, message),
        }
    }
}

/// The client learns that it may try again; the log says why.
fn unavailable(error: &LedgerError) -> ApiError {
    tracing::error!(%error, "the ledger did not answer a request of the HTTP API");
    let message = "the pool's ledger is away; try again later";
    ApiError::new(Code::Unavailable, message)
}

fn context_exceeded(context_tokens: u64, tokens: u64) -> ApiError {
    let message = format!(
        "This model's maximum context length is {context_tokens} tokens. However, your messages resulted in {tokens} \
         tokens. Please reduce the length of the messages."
    );
    ApiError::new(Code::ContextLengthExceeded, message)
        .with(json!({ "context_length": context_tokens, "prompt_tokens": tokens }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_and_statuses_are_what_sdks_act_on() {
        for (place, code) in Code::ALL.iter().enumerate() {
            assert!(
                Code::ALL[..place]
                    .iter()
                    .all(|other| other.word() != code.word())
            );
            let (status, kind) = code.status();
            // Both SDKs ask again after these.
            let is_retried = status == StatusCode::CONFLICT
                || status == StatusCode::REQUEST_TIMEOUT
                || status == StatusCode::TOO_MANY_REQUESTS
                || status.is_server_error();
            assert_eq!(status.is_server_error(), kind == "server_error", "{code:?}");
            assert!(code.retry_after_s().is_none() || is_retried, "{code:?}");
        }
        assert_eq!(Code::PaymentRequired.status().0, 402);
        assert_eq!(Code::BalanceReserved.status().0, 429);
    }

    #[test]
    fn a_conversation_that_is_too_long_is_refused_in_the_words_that_agents_look_for() {
        let error = ApiError::from(AdmissionError::ContextFull {
            tokens: 1_300,
            context_tokens: 1_024,
        });
        let envelope = error.envelope();
        let message = envelope["error"]["message"].as_str().unwrap();
        let words = "This model's maximum context length is 1024 tokens. However, your messages resulted in 1300 tokens.";
        assert!(message.starts_with(words), "{message}");
        assert_eq!(envelope["error"]["code"], "context_length_exceeded");
        assert_eq!(envelope["error"]["dovetail"]["prompt_tokens"], 1_300);
    }

    #[test]
    fn a_prompt_that_no_validator_replays_in_time_exceeds_the_context_and_a_long_answer_does_not() {
        let too_large = |prompt_tokens| {
            ApiError::from(AdmissionError::TaskTooLarge {
                tokens_max: 922,
                prompt_tokens,
            })
        };
        let refused = too_large(2_071);
        assert_eq!(refused.code, Code::ContextLengthExceeded);
        let words =
            "maximum context length is 922 tokens. However, your messages resulted in 2071 tokens";
        assert!(refused.message.contains(words), "{}", refused.message);
        let refused = too_large(900);
        assert_eq!(refused.code, Code::InvalidValue);
        assert_eq!(refused.param.as_deref(), Some("max_tokens"));
    }

    #[test]
    fn a_key_that_names_another_request_is_not_tried_again() {
        let response = ApiError::from(AdmissionError::IdTaken).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let response = ApiError::from(AdmissionError::NoWorker).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
    }

    #[test]
    fn every_end_of_a_task_without_an_answer_has_a_code() {
        for (word, code) in [
            ("worker-lost", Code::WorkerLost),
            ("worker-stalled", Code::WorkerLost),
            ("workers-full", Code::WorkersFull),
            ("task-expired", Code::TaskExpired),
            ("pool-restarted", Code::Unavailable),
            ("inference-mismatch", Code::InferenceMismatch),
            ("a word of another version", Code::InternalError),
        ] {
            assert_eq!(ApiError::of_end(Some(word)).code, code);
        }
    }
}
