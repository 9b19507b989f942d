//! A worker's refusal of a task that it was given.

use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_commitment::WorkerKey;

/// How long a worker is given nothing that gave a task back while it ran none: what keeps it busy, as a
/// task that was cancelled a moment ago, is over by then.
pub(super) const REFUSAL_PAUSE: Duration = Duration::from_secs(2);

/// Why a worker does not run a task that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// It has as many as it can take.
    Full,
    /// It cannot run this one; another worker may.
    Unable,
    /// No worker can run it.
    Impossible,
    /// Its connection has ended.
    Lost,
    /// It has given no token for too long.
    Stalled,
}

impl GivenBack {
    /// What the task's agent is told if nobody else takes it.
    pub(super) fn code(self) -> Code {
        match self {
            Self::Full => Code::WorkersFull,
            Self::Unable | Self::Impossible => Code::WorkerFailed,
            Self::Lost => Code::WorkerLost,
            Self::Stalled => Code::WorkerStalled,
        }
    }
}

/// A worker that gave a task back.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) worker: WorkerKey,
    pub(super) why: GivenBack,
}
