//! What the live tasks know of a worker's standing: it is read when the worker comes, and whenever the ledger has moved
//! its credit.

use dovetail_commitment::WorkerKey;

use super::Tasks;

impl Tasks {
    /// Has the worker's standing read, and tasks given out by it. Until then the worker has what it had before; a new
    /// one is a stranger.
    pub(crate) fn look_at_standing(&self, worker: WorkerKey) {
        if !self.live.is_connected(&worker) {
            return;
        }
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let _turn = tasks.standing_turn.lock().await;
            match tasks.ledger.standing(&worker).await {
                Ok(standing) => tasks.live.set_standing(&worker, standing),
                // It is looked at again with the next batch.
                Err(error) => {
                    tracing::warn!(%worker, %error, "a worker's standing cannot be read");
                    return;
                }
            }
            tasks.pair();
        });
    }
}
