//! The batch that a share claims, and what the receipt has to show of the share.

use dovetail_commitment::{BatchRoot, WorkerKey};
use dovetail_sv2::extension::{codes, find_claim};
use dovetail_sv2::tlv::Tlv;

use super::submitted::SubmittedShare;
use crate::claims::settle::Claim;
use crate::mining::channels::ValidShare;
use crate::mining::connection::Connection;

/// How many claims of one connection may be under way. They take an audit each, and must not use up
/// what its other shares need to go on.
const CLAIMS_IN_FLIGHT_MAX: usize = 16;

impl Connection {
    /// The share's claim, if it makes one and may. `committed` is the batch that its job commits to.
    pub(super) fn claim(
        &self,
        share: &SubmittedShare,
        fields: &[Tlv],
        account: &str,
        committed: Option<BatchRoot>,
        valid: &ValidShare,
    ) -> Result<Option<Claim>, &'static str> {
        let Some(root) = find_claim(fields).map_err(|_| codes::CLAIM_MALFORMED)? else {
            return Ok(None);
        };
        let worker = self.claimant(account)?;
        let committed = committed.ok_or(codes::CLAIM_WITHOUT_COMMITMENT)?;
        if committed != root {
            return Err(codes::CLAIM_MISMATCH);
        }
        if self.claims_in_flight >= CLAIMS_IN_FLIGHT_MAX {
            return Err(codes::AUDIT_UNAVAILABLE);
        }
        let channel = self.channels.get(&share.channel_id);
        let hashed = channel.and_then(|channel| channel.hashed(share, &valid.header_hash));
        let hashed = hashed.ok_or(codes::INTERNAL)?;
        Ok(Some(Claim {
            root,
            worker,
            header: hashed.header,
            coinbase: hashed.coinbase,
            merkle_path: hashed.merkle_path,
            share_target: valid.target.to_le_bytes(),
        }))
    }

    /// The worker of this connection, if it may claim on a channel that earns for `account`. A channel that
    /// earns for another account may not: what a batch earns stays with the key that answers for it.
    fn claimant(&self, account: &str) -> Result<WorkerKey, &'static str> {
        let worker = self.worker().filter(|_| self.extension);
        let worker = worker.ok_or(codes::NOT_REGISTERED)?;
        if account != worker.to_string() {
            return Err(codes::BATCH_NOT_YOURS);
        }
        Ok(worker)
    }
}
