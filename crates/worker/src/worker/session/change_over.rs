//! The session that follows on this one while this one still runs: with a pool that is preferred, or with the same pool
//! once a model has arrived, since a registration names the models and stands for its connection.

use std::time::{Duration, Instant};

use dovetail_miner::pool_session::{PoolSession, SessionError};
use tokio_util::task::AbortOnDropHandle;

use super::Session;
use crate::worker::{Worker, upstreams};

/// How long a change to a preferred pool waits for running tasks and claims to end.
const PREFERRED_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the registration of models that arrived does: they are no reason to break off a task.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(600);
/// The wait before models are registered again after that failed.
const REGISTER_RETRY: Duration = Duration::from_secs(30);

/// What session is to follow.
#[derive(Default)]
pub(in crate::worker) struct ChangeOver {
    /// A pool to change over to at the next quiet moment, or at this time.
    wanted: Option<(usize, Instant)>,
    /// The session with it, while it is being opened.
    pub(super) opening: Option<AbortOnDropHandle<(usize, Result<PoolSession, SessionError>)>>,
    /// Before this, models that arrived are not registered.
    register_not_before: Option<Instant>,
}

impl ChangeOver {
    /// This pool is to follow. It comes before the registration of models at the one at hand, and gets them too.
    pub(super) fn prefer(&mut self, index: usize) {
        self.wanted = Some((index, Instant::now() + PREFERRED_TIME_MAX));
    }

    fn is_under_way(&self) -> bool {
        self.wanted.is_some() || self.opening.is_some()
    }
}

impl Worker {
    /// Wants another session with the same pool if models are served that it does not know of.
    pub(super) fn register_arrived_models(&self, session: &mut Session) {
        let change_over = &mut session.change_over;
        let may = change_over
            .register_not_before
            .is_none_or(|not_before| Instant::now() >= not_before);
        if may && !change_over.is_under_way() && session.pool.models() != self.models.ids() {
            change_over.wanted = Some((session.index, Instant::now() + ARRIVAL_TIME_MAX));
        }
    }

    /// Opens the session that follows once nothing is under way here, or for long enough.
    pub(super) fn change_over(&self, session: &mut Session) {
        let quiet = self.runner.open() == 0 && session.in_flight.is_none();
        let due = |(_, by): &mut (usize, Instant)| quiet || Instant::now() >= *by;
        let Some((index, _)) = session.change_over.wanted.take_if(due) else {
            return;
        };
        let (options, keys) = (self.options(index), self.keys.clone());
        if index == session.index {
            tracing::info!(
                pool = options.address,
                models = options.models.len(),
                "registering models that have arrived"
            );
        } else {
            tracing::info!(
                pool = options.address,
                "the preferred pool is back; changing over"
            );
        }
        session.change_over.opening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            (index, upstreams::open(&options, &keys).await)
        })));
    }

    /// The session that follows, if it opened.
    pub(super) fn opened(
        &self,
        session: &mut Session,
        index: usize,
        opened: Result<PoolSession, SessionError>,
    ) -> Option<PoolSession> {
        match opened {
            Ok(pool) => return Some(pool),
            Err(error) if index == session.index => {
                tracing::warn!(%error, "models that have arrived are not registered yet");
                let not_before = Instant::now() + REGISTER_RETRY;
                session.change_over.register_not_before = Some(not_before);
            }
            Err(error) => {
                tracing::warn!(%error, "the preferred pool is not there after all");
                session.scout = self.scout(session.index);
            }
        }
        None
    }
}
