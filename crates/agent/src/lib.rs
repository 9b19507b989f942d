//! The agent's side of Dovetail: ask a pool for inference, follow the answer, keep the receipt and check it.
//!
//! [`AgentClient`] talks to a pool over gRPC, [`Answer`] follows one task, [`ReceiptFile`] is what an agent keeps
//! of it, and [`verify`](verify::verify) checks such a file offline. Nothing here needs a Bitcoin node or trusts the
//! pool; what cannot be checked without the model is not claimed to be checked. With the model's [`Vocabulary`] an answer's
//! text is compared with its tokens, and with the whole model a [`Replayer`] computes the answer again.
//!
//! For miners, [`credit`] fetches what a pool has published of a block, and checks an account's part of it offline;
//! [`payouts`] says where an account is paid, and changes it.
//!
//! What a pool sends is bounded before it is taken, in bytes and in time. Its words in an [`AgentError`] are harmless to
//! print; an answer's text and a model's name are as the pool sent them, for `dovetail_console` to print.

mod answer;
mod client;
pub mod credit;
mod error;
mod key;
pub mod payouts;
mod question;
pub mod receipt_file;
mod replay;
mod settlement;
pub mod verify;

pub use answer::Answer;
pub use client::AgentClient;
pub use dovetail_api::connection::{AuthorityError, PoolAddress, TlsFault};
pub use dovetail_api::v1::{FinishReason, Model, Task, TaskState};
pub use dovetail_commitment::{ModelId, SamplingParams, StopSequences, TaskId};
pub use dovetail_engine::Vocabulary;
pub use error::AgentError;
pub use key::{AgentKey, NotAKey};
pub use question::Question;
pub use receipt_file::ReceiptFile;
pub use replay::{Replay, ReplayOutcome, Replayer};
