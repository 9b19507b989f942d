//! The refusals of [`crate::tasks`] as gRPC statuses, in one place. A business error does not know that it
//! travels as one.

use dovetail_api::codes;
use dovetail_ledger::LedgerError;
use tonic::Status;

use crate::tasks::{AdmissionError, PaymentRequired, ReceiptError, TaskError};

/// An error of the pool that an agent can be told of.
pub(super) trait IntoStatus {
    /// The status, with the code that agents match on.
    fn into_status(self) -> Status;
}

impl IntoStatus for AdmissionError {
    fn into_status(self) -> Status {
        let message = self.to_string();
        let code = match self {
            Self::ModelUnknown => codes::MODEL_UNKNOWN,
            Self::PromptTooLong { .. } | Self::ContextFull => codes::PROMPT_TOO_LONG,
            Self::SamplingInvalid(_) => codes::SAMPLING_INVALID,
            Self::Invalid(_) => codes::ARGUMENT_INVALID,
            Self::NoWorker => codes::NO_WORKER,
            Self::QueueFull => codes::QUEUE_FULL,
            Self::IdTaken => codes::TASK_ID_TAKEN,
            Self::Unfinished => codes::INTERNAL,
            Self::Ledger(error) => return unavailable(&error),
            Self::Lookup(error) => return error.into_status(),
        };
        codes::status(code, message)
    }
}

impl IntoStatus for PaymentRequired {
    fn into_status(self) -> Status {
        codes::status(codes::PAYMENT_REQUIRED, self.to_string())
    }
}

impl IntoStatus for TaskError {
    fn into_status(self) -> Status {
        match &self {
            Self::Unknown => codes::status(codes::TASK_UNKNOWN, self.to_string()),
            Self::Ledger(error) => unavailable(error),
        }
    }
}

impl IntoStatus for ReceiptError {
    fn into_status(self) -> Status {
        let message = self.to_string();
        let code = match self {
            Self::Task(error) => return error.into_status(),
            Self::Pending => codes::RECEIPT_PENDING,
            Self::Never => codes::RECEIPT_NEVER,
        };
        codes::status(code, message)
    }
}

/// The agent learns that it may try again; the log says why.
fn unavailable(error: &LedgerError) -> Status {
    tracing::error!(%error, "the ledger did not answer an agent's request");
    codes::status(
        codes::UNAVAILABLE,
        "the pool's ledger is away; try again later",
    )
}
