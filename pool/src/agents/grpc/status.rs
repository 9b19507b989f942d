//! The refusals of [`crate::tasks`] as gRPC statuses, in one place. A business error does not know that it
//! travels as one.

use dovetail_api::codes::Code;
use dovetail_ledger::LedgerError;
use tonic::Status;

use crate::tasks::{AdmissionError, ReceiptError, TaskError};

/// An error of the pool that an agent can be told of.
pub(super) trait IntoStatus {
    /// The status, with the code that agents match on.
    fn into_status(self) -> Status;
}

impl IntoStatus for AdmissionError {
    fn into_status(self) -> Status {
        let message = self.to_string();
        let code = match self {
            Self::ModelUnknown => Code::ModelUnknown,
            Self::PromptTooLong { .. } | Self::ContextFull { .. } => Code::PromptTooLong,
            Self::TaskTooLarge { .. } => Code::TaskTooLarge,
            Self::SamplingInvalid(_) => Code::SamplingInvalid,
            Self::ConstraintInvalid(_) => Code::ConstraintInvalid,
            Self::Invalid(_) => Code::ArgumentInvalid,
            Self::NoWorker => Code::NoWorker,
            Self::QueueFull | Self::CallerFull | Self::ConstraintsFull | Self::PromptsFull => {
                Code::QueueFull
            }
            Self::Unpaid => Code::PaymentRequired,
            Self::IdTaken => Code::TaskIdTaken,
            Self::Unfinished => Code::Internal,
            Self::Ledger(error) => return unavailable(&error),
            Self::Lookup(error) => return error.into_status(),
        };
        code.status(message)
    }
}

impl IntoStatus for TaskError {
    fn into_status(self) -> Status {
        match &self {
            Self::Unknown => Code::TaskUnknown.status(self.to_string()),
            Self::Ledger(error) => unavailable(error),
        }
    }
}

impl IntoStatus for ReceiptError {
    fn into_status(self) -> Status {
        let message = self.to_string();
        let code = match self {
            Self::Task(error) => return error.into_status(),
            Self::Pending => Code::ReceiptPending,
            Self::Never => Code::ReceiptNever,
        };
        code.status(message)
    }
}

/// The caller learns that it may try again; the log says why.
pub(super) fn unavailable(error: &LedgerError) -> Status {
    tracing::error!(%error, "the ledger did not answer a request of the API");
    Code::Unavailable.status("the pool's ledger is away; try again later")
}
