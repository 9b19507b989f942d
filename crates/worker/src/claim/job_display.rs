//! A job of the pool that bears a batch while it is being hashed: on the board for everybody, and in a search on
//! this machine where that is wanted.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::accepted::AcceptedJob;
use crate::board::Board;
use crate::job::SharedJob;
use crate::search::{Search, SearchJob};

/// A job that the pool takes shares on, and that hashers work on.
pub(super) struct ClaimJob {
    pub(super) accepted: AcceptedJob,
    pub(super) shown: Shown,
    /// The search on this machine, which ends with the claim.
    pub(super) _search: Option<AbortOnDropHandle<()>>,
}

/// A claim on the board. Dropping it takes it off again, unless it was released.
pub(super) struct Shown {
    board: Arc<Board>,
    pub(super) job: SharedJob,
    released: bool,
}

impl Shown {
    pub(super) fn new(board: Arc<Board>, job: SharedJob) -> Self {
        board.set_claim(job.clone());
        Self {
            board,
            job,
            released: false,
        }
    }

    /// The claim is settled; its job may be hashed on.
    pub(super) fn release(&mut self) {
        self.board.release(&self.job);
        self.released = true;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if !self.released {
            self.board.withdraw(&self.job);
        }
    }
}

/// Searches the job on a thread of this machine, in a part of the extranonce of its own. Dropping
/// the handle ends it.
pub(crate) fn search_here(board: &Board, job: &SharedJob) -> Option<AbortOnDropHandle<()>> {
    let slot = board.extended_prefix(0).ok()?;
    let parts = job.parts();
    let search_job = SearchJob {
        version: parts.version,
        prev_hash: parts.prev_hash,
        min_ntime: parts.min_ntime,
        nbits: parts.nbits,
        coinbase_prefix: [job.coinbase_prefix(), slot.as_bytes()].concat(),
        coinbase_suffix: parts.coinbase_suffix.clone(),
        extranonce_size: board.rolled_bytes(),
        merkle_path: parts.merkle_path.clone(),
        target: parts.target,
    };
    let job = job.clone();
    let mut search = Search::start(search_job);
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let Some(found) = search.found().await else {
            return;
        };
        let (hashes, time) = search.effort();
        tracing::info!(
            job = job.id,
            hashes,
            ms = time.as_millis() as u64,
            "found a share on the job"
        );
        let extranonce = [slot.as_bytes(), &found.extranonce].concat();
        let version = job.parts().version;
        match job.share(&extranonce, version, found.ntime, found.nonce) {
            Ok(share) => drop(job.offer(share)),
            Err(error) => tracing::error!(%error, "the search found no share"),
        }
    })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::board::tests::parts;
    use tokio::sync::mpsc;

    #[test]
    fn a_released_job_is_hashed_on_and_one_that_failed_is_not() {
        let board = Arc::new(Board::default());
        let (sender, _shares) = mpsc::channel(1);
        let job = || board.job(parts(1, 8), sender.clone()).unwrap();
        let hashed = || board.subscribe().borrow().as_ref().unwrap().id;
        let base = job();
        board.set_base(base.clone());
        let settled = job();
        let mut shown = Shown::new(board.clone(), settled.clone());
        shown.release();
        drop(shown);
        assert_eq!(hashed(), settled.id);
        drop(Shown::new(board.clone(), job()));
        assert_eq!(hashed(), base.id);
    }
}
