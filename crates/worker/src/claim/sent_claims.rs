//! The claims of a session that were sent and have no outcome yet. An outcome is looked at only if its share is here:
//! of this root, with this very header. Whatever else a pool calls an outcome tells nothing, and is not worth a hash.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_commitment::{BatchRoot, HeaderHash, TaskId};
use dovetail_miner::job::FoundShare;
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::extension::BatchOutcome;
use dovetail_vrf::VrfPublicKey;

/// Claims that are remembered. A session has one under way; those before it may have been answered without their
/// outcome, such as when an audit could not be done.
const SENT_MAX: usize = 64;
/// Shares that are remembered of all batches at a pool: more than claims can be sent while a batch lives.
const SHARES_MAX: usize = 4_096;

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
    /// The shares that claimed the batch until the outcome came, this one among them, each with the key that the pool had
    /// named before. One of them draws the sample.
    pub shares_of_root: Vec<(HeaderHash, VrfPublicKey)>,
}

/// Which shares claimed which batch, on any session at a pool. The sample is drawn from the first one that the pool
/// admitted, and the pool says which that was when the batch has ended.
#[derive(Debug, Clone, Default)]
pub struct ClaimShares(Arc<Mutex<VecDeque<ClaimShare>>>);

#[derive(Debug)]
struct ClaimShare {
    root: BatchRoot,
    header_hash: HeaderHash,
    key: VrfPublicKey,
}

impl ClaimShares {
    fn add(&self, root: BatchRoot, header_hash: HeaderHash, key: VrfPublicKey) {
        let mut shares = self.lock();
        if shares.len() == SHARES_MAX {
            shares.pop_front();
        }
        shares.push_back(ClaimShare {
            root,
            header_hash,
            key,
        });
    }

    fn of_root(&self, root: &BatchRoot) -> Vec<(HeaderHash, VrfPublicKey)> {
        let shares = self.lock();
        let of_root = shares.iter().filter(|share| share.root == *root);
        of_root
            .map(|share| (share.header_hash, share.key))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ClaimShare>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claims of one session. The claim's task adds to them, and the session takes from them.
#[derive(Debug, Clone)]
pub struct SentClaims {
    claims: Arc<Mutex<VecDeque<SentClaim>>>,
    shares: ClaimShares,
    key: VrfPublicKey,
}

impl SentClaims {
    /// Those of a session on which the pool named this key.
    pub fn new(shares: ClaimShares, key: VrfPublicKey) -> Self {
        Self {
            claims: Arc::default(),
            shares,
            key,
        }
    }

    /// A share that claims the batch is about to be sent.
    pub fn add(&self, batch: &ReadyBatch, share: &FoundShare) {
        let header_hash = HeaderHash::from_bytes(share.hash);
        self.shares.add(batch.root, header_hash, self.key);
        let mut claims = self.lock();
        if claims.len() == SENT_MAX {
            claims.pop_front();
        }
        let claim = SentClaim {
            root: batch.root,
            header_hash,
            task_ids: batch.task_ids.clone(),
            output_tokens: batch.output_tokens(),
            shares_of_root: Vec::new(),
        };
        claims.push_back(claim);
    }

    /// The claim that this is the outcome of. It has no other.
    pub fn take(&self, outcome: &BatchOutcome) -> Option<SentClaim> {
        let mut claim = self.remove(&outcome.root, &outcome.header_hash)?;
        claim.shares_of_root = self.shares.of_root(&claim.root);
        Some(claim)
    }

    /// The share was refused for what says nothing about its batch: no outcome comes.
    pub fn withdraw(&self, root: &BatchRoot, header_hash: &HeaderHash) {
        self.remove(root, header_hash);
    }

    fn remove(&self, root: &BatchRoot, header_hash: &HeaderHash) -> Option<SentClaim> {
        let mut claims = self.lock();
        let is_it = |claim: &SentClaim| claim.root == *root && claim.header_hash == *header_hash;
        let place = claims.iter().position(is_it)?;
        claims.remove(place)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SentClaim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
