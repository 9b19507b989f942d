//! Why a session with a pool fails.

use dovetail_miner::pool_session::SessionError;
use dovetail_miner::pool_watch::Neglect;
use dovetail_sv2::OutboxError;

use crate::promises::BrokenPromise;

/// Why a session ended that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionFailure {
    /// The connection ended, or the pool ended the session.
    #[error(transparent)]
    Pool(#[from] SessionError),
    /// We could not send.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The connection stands, and the pool does not do its part.
    #[error(transparent)]
    Neglect(#[from] Neglect),
    /// The pool asks for more than any worker does.
    #[error("the pool sends too many {0}")]
    Flood(&'static str),
    /// The pool broke its word on audits: it may have chosen a sample.
    #[error("the pool broke its word on audits: {0}")]
    BrokenPromise(#[from] BrokenPromise),
    /// The pool's messages are of no use, and there are too many of them.
    #[error("the pool sent more than {0} messages in a minute that are of no use")]
    TooMuchTalk(u32),
    /// A part of the worker itself failed, which is a defect.
    #[error("the worker failed: {0}")]
    Defect(&'static str),
}

impl SessionFailure {
    /// Whether the pool is there and is no good: then it is no use to open the next session at once, however long this one
    /// lasted.
    pub(super) fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Neglect(_)
                | Self::Flood(_)
                | Self::TooMuchTalk(_)
                | Self::Pool(SessionError::TargetZero)
        )
    }
}
