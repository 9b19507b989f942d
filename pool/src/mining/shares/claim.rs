//! The batch that a share claims, and what the receipt has to show of the share.

use dovetail_commitment::{BatchRoot, WorkerKey};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::find_claim;
use dovetail_sv2::tlv::Tlv;

use super::share::SubmittedShare;
use crate::claims::claim::Claim;
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
    ) -> Result<Option<Claim>, Code> {
        let Some(root) = find_claim(fields).map_err(|_| Code::ClaimMalformed)? else {
            return Ok(None);
        };
        let worker = self.claimant(account)?;
        let committed = committed.ok_or(Code::ClaimWithoutCommitment)?;
        if committed != root {
            return Err(Code::ClaimMismatch);
        }
        if self.claims_in_flight >= CLAIMS_IN_FLIGHT_MAX {
            return Err(Code::AuditUnavailable);
        }
        let channel = self.channels.get(&share.channel_id);
        let hashed = channel.and_then(|channel| channel.hashed(share, &valid.header_hash));
        let hashed = hashed.ok_or(Code::Internal)?;
        Ok(Some(Claim {
            root,
            worker,
            kept: self.kept,
            header: hashed.header,
            coinbase: hashed.coinbase,
            merkle_path: hashed.merkle_path,
            share_target: valid.target.to_le_bytes(),
        }))
    }

    /// The worker of this connection, if it may claim on a channel that earns for `account`. A channel that
    /// earns for another account may not: what a batch earns stays with the key that answers for it.
    fn claimant(&self, account: &str) -> Result<WorkerKey, Code> {
        let worker = self.worker().filter(|_| self.extension);
        let worker = worker.ok_or(Code::NotRegistered)?;
        if account != worker.to_string() {
            return Err(Code::BatchNotYours);
        }
        Ok(worker)
    }
}
