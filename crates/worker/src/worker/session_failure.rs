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
    /// The pool broke its own beacon: it may have chosen a sample.
    #[error("the pool broke its own beacon: {0}")]
    BrokenBeacon(#[from] BeaconError),
    /// A part of the worker itself failed, which is a defect.
    #[error("the worker failed: {0}")]
    Defect(&'static str),
}
