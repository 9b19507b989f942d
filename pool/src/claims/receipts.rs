//! The receipts of a settled batch: one per task, with what it has cost, signed by the pool, checkable offline.

use bitcoin::secp256k1::Keypair;
use dovetail_commitment::receipt::{Receipt, ReceiptParts};
use dovetail_commitment::{Batch, TaskId};
use dovetail_ledger::BatchRecord;
use dovetail_units::time::unix_now;
use dovetail_vrf::VrfPublicKey;

use super::claim::Claim;

/// One signed receipt per task, as JSON. `None` if the batch is not the one that is claimed, or has lost a
/// transcript, which no batch under audit has, or if a price is not what its tokens cost: nobody would believe it.
pub(super) fn sign(
    claim: &Claim,
    batch: &BatchRecord,
    key: &Keypair,
    vrf_key: VrfPublicKey,
) -> Option<Vec<(TaskId, String)>> {
    let leaves = batch
        .tasks
        .iter()
        .map(|task| task.transcript.as_ref().map(|transcript| transcript.leaf()))
        .collect::<Option<Vec<_>>>()?;
    let tree = Batch::new(leaves).ok()?;
    if tree.root() != claim.root {
        return None;
    }
    batch
        .tasks
        .iter()
        .enumerate()
        .map(|(index, task)| {
            let transcript = task.transcript.clone()?;
            if task.prices.of(task.input_tokens, transcript.output_tokens) != task.price {
                return None;
            }
            let parts = ReceiptParts {
                transcript,
                leaf_proof: tree.proof(index)?,
                coinbase: claim.coinbase.clone(),
                merkle_path: claim.merkle_path.clone(),
                header: claim.header,
                share_target: claim.share_target,
                issued_at_unix: unix_now(),
                vrf_key: vrf_key.to_bytes(),
                input_tokens: task.input_tokens,
                prices: task.prices,
                price: task.price,
            };
            let receipt = Receipt::sign(parts, key);
            Some((task.id, serde_json::to_string_pretty(&receipt).ok()?))
        })
        .collect()
}
