//! Declared jobs on a mining connection: `SetCustomMiningJob` (Sv2 specification, section 5.3.18)
//! must equal what the job declarator accepted and stored.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::consensus::Decodable;
use bitcoin::hashes::Hash;
use bitcoin::{TxMerkleNode, Txid};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase;
use dovetail_ledger::DeclaredJob;
use dovetail_templates::WorkSnapshot;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use stratum_core::mining_sv2::{self, SetCustomMiningJobOwned};

/// How many declared jobs one connection keeps; older ones take no shares any more. A worker
/// needs one, and a second while it changes over.
const DECLARED_MAX: usize = 16;

/// What a connection remembers of a declared job that it accepted.
#[derive(Debug, Clone)]
pub(crate) struct AcceptedJob {
    /// The job as it was declared.
    pub(crate) declared: Arc<DeclaredJob>,
    /// The batch that its coinbase commits to.
    pub(crate) batch_root: Option<BatchRoot>,
    /// What the pool's own template paid when the job was accepted, in satoshi.
    pub(crate) reference_sat: u64,
}

/// The declared jobs of one channel's connection, by `(channel, job)`.
#[derive(Debug, Default)]
pub(crate) struct AcceptedJobs {
    jobs: HashMap<(u32, u32), AcceptedJob>,
    order: VecDeque<(u32, u32)>,
}

impl AcceptedJobs {
    pub(crate) fn insert(&mut self, channel_id: u32, job_id: u32, job: AcceptedJob) {
        if self.order.len() >= DECLARED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.jobs.remove(&oldest);
        }
        self.order.push_back((channel_id, job_id));
        self.jobs.insert((channel_id, job_id), job);
    }

    pub(crate) fn get(&self, channel_id: u32, job_id: u32) -> Option<&AcceptedJob> {
        self.jobs.get(&(channel_id, job_id))
    }
}

/// Checks `message` against the declaration and against the tip that the pool works on.
///
/// # Errors
/// The code for `SetCustomMiningJob.Error`.
pub(crate) fn check(
    message: &SetCustomMiningJobOwned,
    declared: &DeclaredJob,
    account: &str,
    work: &WorkSnapshot,
) -> Result<(), &'static str> {
    if declared.identity != account {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MINING_JOB_TOKEN);
    }
    if message.prev_hash != work.prev_hash.prev_hash {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_STALE_CHAIN_TIP);
    }
    if message.nbits != work.prev_hash.n_bits {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_NBITS);
    }
    if message.min_ntime < work.prev_hash.header_timestamp {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MIN_NTIME);
    }
    if message.version != declared.version {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_VERSION);
    }
    let mut outputs = message.coinbase_tx_outputs.as_bytes();
    if Vec::<bitcoin::TxOut>::consensus_decode(&mut outputs).is_err() || !outputs.is_empty() {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_COINBASE_TX_OUTPUTS);
    }
    let path: Vec<&[u8]> = message
        .merkle_path
        .as_slice()
        .iter()
        .map(|node| node.as_bytes())
        .collect();
    let declared_path = merkle_path(&declared.txids);
    if path.len() != declared_path.len()
        || path
            .iter()
            .zip(&declared_path)
            .any(|(a, b)| *a != b.as_slice())
    {
        return Err(mining_sv2::ERROR_CODE_SET_CUSTOM_MINING_JOB_INVALID_MERKLE_PATH);
    }
    Ok(())
}

/// Checks that the job which the channel built from the message hashes the very coinbase that was
/// declared, whatever serialisation the declaration used.
pub(crate) fn same_coinbase(
    job: &ExtendedJob,
    declared: &DeclaredJob,
    full_extranonce_size: usize,
) -> bool {
    let extranonce = vec![0_u8; full_extranonce_size];
    let ours = coinbase::parse_coinbase(
        &job.get_coinbase_tx_prefix_without_bip141(),
        &extranonce,
        &job.get_coinbase_tx_suffix_without_bip141(),
    );
    let theirs = coinbase::parse_coinbase(
        &declared.coinbase_prefix,
        &extranonce,
        &declared.coinbase_suffix,
    );
    matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours.compute_txid() == theirs.compute_txid())
}

/// The merkle path of the coinbase over the block's other transactions, leaf to root.
pub(crate) fn merkle_path(txids: &[[u8; 32]]) -> Vec<[u8; 32]> {
    let mut path = Vec::new();
    // The coinbase stands first at every level; `None` is its place.
    let mut level: Vec<Option<Txid>> = std::iter::once(None)
        .chain(txids.iter().map(|id| Some(Txid::from_byte_array(*id))))
        .collect();
    while level.len() > 1 {
        if level.len() % 2 == 1 {
            level.push(level[level.len() - 1]);
        }
        if let Some(Some(sibling)) = level.get(1) {
            path.push(sibling.to_byte_array());
        }
        level = level
            .chunks(2)
            .map(|pair| match (pair[0], pair.get(1).copied().flatten()) {
                (Some(left), Some(right)) => Some(parent(left, right)),
                _ => None,
            })
            .collect();
    }
    path
}

fn parent(left: Txid, right: Txid) -> Txid {
    let mut bytes = [0_u8; 64];
    bytes[..32].copy_from_slice(left.as_ref());
    bytes[32..].copy_from_slice(right.as_ref());
    let node = TxMerkleNode::hash(&bytes);
    Txid::from_byte_array(node.to_byte_array())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::merkle_tree;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_path_leads_to_the_root_that_bitcoin_computes(
            coinbase: [u8; 32],
            txids in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
        ) {
            let all = std::iter::once(coinbase).chain(txids.iter().copied()).map(Txid::from_byte_array);
            let expected = merkle_tree::calculate_root(all.map(Txid::to_raw_hash)).map(|h| h.to_byte_array());
            let root = merkle_path(&txids)
                .iter()
                .fold(Txid::from_byte_array(coinbase), |node, sibling| {
                    parent(node, Txid::from_byte_array(*sibling))
                });
            prop_assert_eq!(Some(root.to_byte_array()), expected);
        }
    }
}
