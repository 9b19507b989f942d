//! The stable words that say why a call was refused or a task ended, and how they travel.
//!
//! A refusal is a [`tonic::Status`] whose trailer `dovetail-code` holds one of these words. Agents match on the
//! word; the message beside it is for people and may change.

use tonic::{Code, Status, metadata::MetadataValue};

/// The trailer that holds the word.
pub const METADATA_KEY: &str = "dovetail-code";

/// No model with this id (or, in the agent, of this name) is known here.
pub const MODEL_UNKNOWN: &str = "model-unknown";
/// The prompt is longer than the model or the pool takes.
pub const PROMPT_TOO_LONG: &str = "prompt-too-long";
/// A sampling parameter is out of its bounds.
pub const SAMPLING_INVALID: &str = "sampling-invalid";
/// A field has the wrong length, or is missing.
pub const ARGUMENT_INVALID: &str = "argument-invalid";
/// This pool does not work for free, and the task is not paid for.
pub const PAYMENT_REQUIRED: &str = "payment-required";
/// No such quote was given, or it was for something else.
pub const QUOTE_UNKNOWN: &str = "quote-unknown";
/// The quote no longer holds.
pub const QUOTE_EXPIRED: &str = "quote-expired";
/// No connected worker serves this model.
pub const NO_WORKER: &str = "no-worker";
/// Too many tasks wait already; try again later.
pub const QUEUE_FULL: &str = "queue-full";
/// The task id was used for a different task.
pub const TASK_ID_TAKEN: &str = "task-id-taken";
/// No task has this id.
pub const TASK_UNKNOWN: &str = "task-unknown";
/// The task is not settled yet; try again later.
pub const RECEIPT_PENDING: &str = "receipt-pending";
/// The task ended in a way that leaves nothing to receipt.
pub const RECEIPT_NEVER: &str = "receipt-never";
/// Too many model files are being fetched; try again later.
pub const DOWNLOADS_FULL: &str = "downloads-full";
/// The pool is shutting down or its database is away; try again later.
pub const UNAVAILABLE: &str = "unavailable";
/// Something unexpected inside the pool; its log says more.
pub const INTERNAL: &str = "internal";

/// Task error: the worker went away and no other could take over.
pub const WORKER_LOST: &str = "worker-lost";
/// Task error: the worker refused the task or could not complete it.
pub const WORKER_FAILED: &str = "worker-failed";
/// Task error: every connected worker that serves the model has as many tasks as it can take; try again
/// later.
pub const WORKERS_FULL: &str = "workers-full";
/// Task error: the replay of the worker's claim did not give the worker's output.
pub const INFERENCE_MISMATCH: &str = "inference-mismatch";
/// Task error: time ran out.
pub const TASK_EXPIRED: &str = "task-expired";

/// The words of refused calls with the gRPC status that each one travels under.
const STATUS_CODES: &[(&str, Code)] = &[
    (MODEL_UNKNOWN, Code::NotFound),
    (PROMPT_TOO_LONG, Code::InvalidArgument),
    (SAMPLING_INVALID, Code::InvalidArgument),
    (ARGUMENT_INVALID, Code::InvalidArgument),
    (PAYMENT_REQUIRED, Code::FailedPrecondition),
    (QUOTE_UNKNOWN, Code::NotFound),
    (QUOTE_EXPIRED, Code::FailedPrecondition),
    (NO_WORKER, Code::Unavailable),
    (QUEUE_FULL, Code::ResourceExhausted),
    (TASK_ID_TAKEN, Code::AlreadyExists),
    (TASK_UNKNOWN, Code::NotFound),
    (RECEIPT_PENDING, Code::FailedPrecondition),
    (RECEIPT_NEVER, Code::NotFound),
    (DOWNLOADS_FULL, Code::ResourceExhausted),
    (UNAVAILABLE, Code::Unavailable),
    (INTERNAL, Code::Internal),
];

/// A refusal that carries `code`, with the gRPC status that belongs to it (`Unknown` for a word not listed here).
/// `message` must hold nothing secret and nothing of a prompt.
pub fn status(code: &'static str, message: impl Into<String>) -> Status {
    let grpc = STATUS_CODES
        .iter()
        .find(|(word, _)| *word == code)
        .map_or(Code::Unknown, |(_, grpc)| *grpc);
    let mut status = Status::new(grpc, message);
    status
        .metadata_mut()
        .insert(METADATA_KEY, MetadataValue::from_static(code));
    status
}

/// The word that a refusal carries, if it came from a Dovetail pool.
pub fn code_of(status: &Status) -> Option<&str> {
    status.metadata().get(METADATA_KEY)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_its_word_and_its_status() {
        let refusal = status(QUEUE_FULL, "64 tasks wait already");
        assert_eq!(code_of(&refusal), Some("queue-full"));
        assert_eq!(refusal.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_foreign_refusal_has_no_word() {
        assert_eq!(code_of(&Status::not_found("elsewhere")), None);
    }

    #[test]
    fn no_word_is_listed_twice() {
        let mut words: Vec<_> = STATUS_CODES.iter().map(|(word, _)| *word).collect();
        words.sort_unstable();
        let listed = words.len();
        words.dedup();
        assert_eq!(words.len(), listed);
    }
}
