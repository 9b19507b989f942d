//! A share's claim on a batch.

use dovetail_commitment::{BatchRoot, WorkerKey};

/// What a share claims beside its hash, with all that the receipt has to show.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) root: BatchRoot,
    pub(crate) worker: WorkerKey,
    pub(crate) header: [u8; 80],
    /// The coinbase without its witness.
    pub(crate) coinbase: Vec<u8>,
    pub(crate) merkle_path: Vec<[u8; 32]>,
    pub(crate) share_target: [u8; 32],
}
