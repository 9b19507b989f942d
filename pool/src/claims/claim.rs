//! A share's claim on a batch.

use dovetail_commitment::{BatchRoot, WorkerKey};
use dovetail_units::KeptCredit;

/// What a share claims beside its hash, with all that the receipt has to show.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) root: BatchRoot,
    pub(crate) worker: WorkerKey,
    /// How much of its credit the worker leaves held, as the claim's connection said.
    pub(crate) kept: KeptCredit,
    pub(crate) header: [u8; 80],
    /// The coinbase without its witness.
    pub(crate) coinbase: Vec<u8>,
    pub(crate) merkle_path: Vec<[u8; 32]>,
    pub(crate) share_target: [u8; 32],
}
