//! The claims of a session that were sent and have no outcome yet. An outcome is looked at only if its share is here:
//! of this root, with this very header. Whatever else a pool calls an outcome tells nothing, and is not worth a hash.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_commitment::{BatchRoot, HeaderHash, TaskId};
use dovetail_miner::job::FoundShare;
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::extension::BatchOutcome;

/// Claims that are remembered. A session has one under way; those before it may have been answered without their
/// outcome, such as when an audit could not be done.
const SENT_MAX: usize = 64;

/// A claim that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentClaim {
    /// The batch.
    pub root: BatchRoot,
    /// The header of the share that claims it.
    pub header_hash: HeaderHash,
    /// The batch's tasks.
    pub task_ids: Vec<TaskId>,
    /// The output tokens of those tasks.
    pub output_tokens: u64,
    /// The first step of the beacon that had not been shown when the share was sent.
    pub floor: u32,
}

/// The claims of one session. The claim's task adds to them, and the session takes from them.
#[derive(Debug, Clone, Default)]
pub struct SentClaims(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    floor: u32,
    claims: VecDeque<SentClaim>,
}

impl SentClaims {
    /// Steps of the beacon before this one have been shown.
    pub fn set_floor(&self, floor: u32) {
        self.lock().floor = floor;
    }

    /// A share that claims the batch is about to be sent.
    pub fn add(&self, batch: &ReadyBatch, share: &FoundShare) {
        let mut book = self.lock();
        if book.claims.len() == SENT_MAX {
            book.claims.pop_front();
        }
        let claim = SentClaim {
            root: batch.root,
            header_hash: HeaderHash::from_bytes(share.hash),
            task_ids: batch.task_ids.clone(),
            output_tokens: batch.output_tokens(),
            floor: book.floor,
        };
        book.claims.push_back(claim);
    }

    /// The claim that this is the outcome of. It has no other.
    pub fn take(&self, outcome: &BatchOutcome) -> Option<SentClaim> {
        self.remove(&outcome.root, &outcome.header_hash)
    }

    /// The share was refused for what says nothing about its batch: no outcome comes.
    pub fn withdraw(&self, root: &BatchRoot, header_hash: &HeaderHash) {
        self.remove(root, header_hash);
    }

    fn remove(&self, root: &BatchRoot, header_hash: &HeaderHash) -> Option<SentClaim> {
        let mut book = self.lock();
        let is_it = |claim: &SentClaim| claim.root == *root && claim.header_hash == *header_hash;
        let place = book.claims.iter().position(is_it)?;
        book.claims.remove(place)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
