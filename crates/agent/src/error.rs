//! What can go wrong for an agent, by what a person can do about it. What an error repeats of a pool's words is short and
//! harmless ([`dovetail_api::words`]).

use std::error::Error as _;
use std::path::PathBuf;

use dovetail_api::codes::{self, Code};
use dovetail_api::connection::TlsFault;
use dovetail_api::words;
use dovetail_commitment::{ModelId, TaskId};
use dovetail_engine::EngineError;

use crate::credit::{BlockHash, WINDOW_SLICES_MAX};

/// Why a call to a pool, or the keeping of a receipt, did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The pool's address cannot be used.
    #[error("'{url}' is not a usable pool address: {reason}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there, or the connection was lost and did not come back.
    #[error("no pool answers at {url}: {reason}")]
    Unreachable {
        /// Where the pool was looked for.
        url: String,
        /// The transport's own words.
        reason: String,
    },
    /// Somebody answers there, but not as the address says, or nobody vouches for who it is. Nothing was sent.
    #[error("no safe connection to {url}: {fault}")]
    Tls {
        /// Where the pool was looked for.
        url: String,
        /// What is wrong.
        fault: TlsFault,
    },
    /// The pool has no model of this name or id.
    #[error("the pool has no model '{wanted}'; it has: {known}")]
    ModelUnknown {
        /// As it was given.
        wanted: String,
        /// The names of the models there are, or "none".
        known: String,
    },
    /// The pool serves several models and none was chosen.
    #[error("the pool has several models, choose one with --model: {known}")]
    ModelNotChosen {
        /// The names of the models there are.
        known: String,
    },
    /// The pool refused the call.
    #[error("the pool refused ({code}): {message}")]
    Refused {
        /// One of [`dovetail_api::codes`], or the gRPC status where the server gave no such word.
        code: String,
        /// For people.
        message: String,
    },
    /// The task ended without a complete output.
    #[error("task {task_id} ended as {state}{}", reason(.code))]
    TaskEnded {
        /// The task.
        task_id: TaskId,
        /// `failed`, `cancelled` or `expired`.
        state: &'static str,
        /// The pool's word for why; may be empty.
        code: String,
    },
    /// The answer was not whole in time. What came until then is in [`crate::Answer::tokens`].
    #[error("task {task_id} has not ended within {waited_s} s")]
    AnswerLate {
        /// The task.
        task_id: TaskId,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// The text that the pool shows is not that of the tokens that it sends with it.
    #[error(
        "the pool shows a text that is not the text of its tokens (from token {token} on): believe neither"
    )]
    TextOfOtherTokens {
        /// The first token of the piece that differs.
        token: usize,
    },
    /// The model file is of another model than the one that answers.
    #[error("the model file is of model {file}, and the answer of model {asked}")]
    OtherModelFile {
        /// The file's.
        file: ModelId,
        /// The one that was asked.
        asked: ModelId,
    },
    /// A model file cannot be read.
    #[error("{path}: {source}")]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What the engine says of it.
        source: EngineError,
    },
    /// The receipt was not there in time. The task itself is finished.
    #[error(
        "task {task_id} is not settled yet after {waited_s} s of waiting: no share has committed to it so far"
    )]
    ReceiptPending {
        /// The task.
        task_id: TaskId,
        /// How long it was waited for.
        waited_s: u64,
    },
    /// The pool said something that the interface does not allow.
    #[error("the pool's answer makes no sense: {0}")]
    Protocol(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
    /// The pool has divided no such block.
    #[error("the pool has divided no {}", wanted.map_or("block that the chain may have".to_owned(), |hash| format!("block {hash}")))]
    BlockUnknown {
        /// As it was given.
        wanted: Option<BlockHash>,
    },
    /// The block was not divided over shares.
    #[error("block {block} has no window: whoever found it has all of the rest")]
    NoWindow {
        /// The block.
        block: BlockHash,
    },
    /// The block's window is longer than what is fetched and checked.
    #[error(
        "the block was divided over more than {WINDOW_SLICES_MAX} slices: no window so long is checked here"
    )]
    WindowTooLong,
    /// What shows a part was not fetched in time.
    #[error("what the pool has published was not here within {waited_s} s")]
    CreditLate {
        /// How long it was waited for.
        waited_s: u64,
    },
    /// A file of a part does not parse.
    #[error("{path} is no file of `dovetail credit get`: {reason}")]
    NotACredit {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A receipt file does not parse.
    #[error("{path} is not a receipt file: {reason}")]
    NotAReceipt {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

impl AgentError {
    /// A refused or failed call to the pool at `url`.
    pub(crate) fn from_status(url: &str, status: &tonic::Status) -> Self {
        let code = codes::code_of(status);
        if code.is_none()
            && let Some(fault) = TlsFault::of_status(status)
        {
            return Self::Tls {
                url: url.to_owned(),
                fault,
            };
        }
        // Without a word of ours, an `Unavailable` was made by the transport on this side; so was whatever has a source, such
        // as a stream whose connection was cut, which is `Unknown`.
        let is_ours = status.code() == tonic::Code::Unavailable || status.source().is_some();
        if code.is_none() && is_ours {
            return Self::Unreachable {
                url: url.to_owned(),
                reason: words::message_of(status),
            };
        }
        let code = code.map_or_else(|| format!("{:?}", status.code()), words::word);
        Self::Refused {
            code,
            message: words::message_of(status),
        }
    }

    /// Whether the same call may work if repeated a little later.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::ReceiptPending { .. } => true,
            Self::Refused { code, .. } => matches!(
                Code::parse(code),
                Some(
                    Code::NoWorker
                        | Code::QueueFull
                        | Code::ReceiptPending
                        | Code::RewardsFull
                        | Code::PayoutsFull
                        | Code::Unavailable
                )
            ),
            _ => false,
        }
    }

    /// Whether the pool refused with this code.
    pub fn is_refusal(&self, with: Code) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == with)
    }

    /// What a person could try next, where there is something to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address { .. } => {
                Some("an address looks like http://127.0.0.1:50051, or https://pool.example:50051")
            }
            Self::Tls {
                fault: TlsFault::UnknownAuthority | TlsFault::NoRoots,
                ..
            } => Some("--ca FILE (or DOVETAIL_CA) names the authority that vouches for this pool"),
            Self::Unreachable { .. } => {
                Some("is the pool running, and is --pool (or DOVETAIL_POOL) its gRPC address?")
            }
            Self::ModelUnknown { .. } => Some("`dovetail models` lists them"),
            Self::Refused { code, .. } => match Code::parse(code)? {
                Code::NoWorker => {
                    Some("`dovetail models` shows how many workers serve each model now")
                }
                Code::QueueFull
                | Code::BalanceReserved
                | Code::RewardsFull
                | Code::PayoutsFull
                | Code::Unavailable => Some("try again in a moment"),
                Code::StatementInvalid | Code::StatementStale => {
                    Some("is this machine's clock right, and was exactly the printed line signed?")
                }
                Code::PaymentRequired => Some(
                    "its operator pays for no such tasks, or for no more; another pool may take it",
                ),
                Code::DailyLimit => Some("there is more after 00:00 UTC"),
                Code::ReceiptPending => {
                    Some("a receipt exists once a share has committed to the task; ask again later")
                }
                Code::TaskTooLarge | Code::TaskTooDear => {
                    Some("ask for fewer tokens with --max-tokens, or shorten the prompt")
                }
                Code::SlicesDropped => Some("a newer block has slices that are kept"),
                Code::PromptTooLong => Some("`dovetail models` shows how long a prompt may be"),
                _ => None,
            },
            Self::BlockUnknown { wanted: None } => {
                Some("a pool that credits hashes at a rate divides no blocks")
            }
            Self::CreditLate { .. } => Some("--timeout gives it more time"),
            Self::AnswerLate { .. } => Some("--timeout gives an answer more time"),
            Self::ReceiptPending { .. } => {
                Some("fetch it later with `dovetail receipt get TASK --into FILE`")
            }
            _ => None,
        }
    }
}

fn reason(code: &str) -> String {
    if code.is_empty() {
        String::new()
    } else {
        format!(" ({code})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_failure_is_told_apart_from_a_pool_without_workers() {
        let refused = AgentError::from_status("http://p", &Code::NoWorker.status("none"));
        assert!(refused.is_refusal(Code::NoWorker) && refused.is_worth_a_retry());
        let lost = AgentError::from_status("http://p", &tonic::Status::unavailable("reset"));
        assert!(matches!(lost, AgentError::Unreachable { .. }));
    }

    #[test]
    fn an_unknown_model_is_not_worth_a_retry() {
        let status = Code::ModelUnknown.status("no such model");
        assert!(!AgentError::from_status("http://p", &status).is_worth_a_retry());
    }
}
