//! Why a session with a pool fails.

use dovetail_miner::pool_session::SessionError;
use dovetail_sv2::OutboxError;

use crate::beacon::BeaconError;

/// Why a session ended that nobody wanted to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionFailure {
    /// The connection ended, or the pool ended the session.
    #[error(transparent)]
    Pool(#[from] SessionError),
    /// We could not send.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The pool broke its word on audits: it may have chosen a sample.
    #[error("the pool broke its word on audits: {0}")]
    BrokenBeacon(#[from] BeaconError),
    /// The pool's messages are of no use, and there are too many of them.
    #[error("the pool sent more than {0} messages in a minute that are of no use")]
    TooMuchTalk(u32),
    /// A part of the worker itself failed, which is a defect.
    #[error("the worker failed: {0}")]
    Defect(&'static str),
}
