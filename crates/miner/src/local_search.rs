//! The search for a share of a job on this machine's CPU, beside the devices.

use tokio_util::task::AbortOnDropHandle;

use crate::current_job::CurrentJob;
use crate::job::SharedJob;
use crate::search::{Search, SearchJob};

/// Searches the job on a thread of this machine, in a part of the extranonce of its own, and hands the share to the
/// job's owner. Dropping the handle ends the search. `None` if no part of the extranonce is free.
pub fn search_here(current_job: &CurrentJob, job: &SharedJob) -> Option<AbortOnDropHandle<()>> {
    let slot = current_job.extended_prefix(0).ok()?;
    let parts = job.parts();
    let search_job = SearchJob {
        version: parts.version,
        prev_hash: parts.prev_hash,
        min_ntime: parts.min_ntime,
        nbits: parts.nbits,
        coinbase_prefix: [job.coinbase_prefix(), slot.as_bytes()].concat(),
        coinbase_suffix: parts.coinbase_suffix.clone(),
        extranonce_size: current_job.rolled_bytes(),
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
