//! What can go wrong between a daemon and its template source, by what the caller can do about it.

use crate::chain::{BlockRejection, ChainError};

/// Why a template source did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The configuration names a source that cannot be. Nothing was started.
    #[error("the template source is misconfigured: {0}")]
    Config(String),
    /// The embedded chain cannot have these rules. Nothing was started.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The source is away; it is being reconnected to. Worth a retry.
    #[error("the template source is away")]
    Unavailable,
    /// The source has been stopped for good.
    #[error("the template source has been stopped")]
    Stopped,
    /// The source did not answer in time. Worth a retry.
    #[error("the template source did not answer in time")]
    TimeOut,
    /// The source does not know the template (any longer).
    #[error("the template source does not know template {0}")]
    UnknownTemplate(u64),
    /// The template is of a tip that has passed.
    #[error("template {0} is of a tip that has passed")]
    StaleTemplate(u64),
    /// The bytes are not a block.
    #[error("the bytes are not a block: {0}")]
    MalformedBlock(String),
    /// The block or solution breaks a rule of the chain.
    #[error("the block was rejected: {0}")]
    Rejected(#[from] BlockRejection),
    /// A node refuses the block.
    #[error("the node refuses the block: {reason}")]
    Refused {
        /// Bitcoin Core's word for the rule, for instance `bad-cb-amount`.
        reason: String,
    },
    /// This kind of source takes solutions of its own templates only, and the block is of none; or
    /// it takes no block back.
    #[error("the template source cannot do this: it judges and takes its own templates only")]
    Unsupported,
    /// The source said something that makes no sense. It is left and connected to anew.
    #[error("the template source broke the protocol: {0}")]
    Protocol(String),
}
