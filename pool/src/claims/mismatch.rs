//! A proven mismatch in the books: the batch has failed, and its worker forfeits what is held for it.

use dovetail_commitment::HeaderHash;
use dovetail_ledger::{BatchRecord, DrawnSample, FailedAudit};
use dovetail_telemetry::Event;

use super::audit::Failure;
use super::settle::{Settler, in_time};

/// A mismatch that could not be booked. The batch stays suspect, and is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotBooked;

impl Settler {
    /// Books it; what did not hold, in a word. `header_hash` is the claim at which it was found.
    pub(super) async fn book_mismatch(
        &self,
        header_hash: HeaderHash,
        batch: &BatchRecord,
        sample: &DrawnSample,
        failure: &Failure,
    ) -> Result<String, NotBooked> {
        let Some(failed) = failed_audit(header_hash, batch, sample, failure) else {
            tracing::error!(root = %batch.root, "an audit failed on a transcript that is not there");
            return Err(NotBooked);
        };
        let forfeited = match in_time(self.ledger.fail_audit(&failed)).await {
            Ok(forfeited) => forfeited.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "cannot record a mismatch");
                return Err(NotBooked);
            }
        };
        let (code, index) = (failed.mismatch, failed.index);
        let forfeited_msat = forfeited.amount.get();
        tracing::warn!(root = %batch.root, worker = %batch.worker, index, code, forfeited_msat, "the audit found a mismatch");
        self.telemetry.emit(&Event::AuditFailed {
            root: &batch.root.to_string(),
            worker: &batch.worker.to_string(),
            mismatch: code,
            forfeited_msat: forfeited.amount,
        });
        self.tasks.failed(batch);
        Ok(code.to_owned())
    }
}

/// What the ledger records of a mismatch: digests, never content.
fn failed_audit<'a>(
    header_hash: HeaderHash,
    batch: &'a BatchRecord,
    sample: &'a DrawnSample,
    failure: &'a Failure,
) -> Option<FailedAudit<'a>> {
    let finding = &failure.finding;
    Some(FailedAudit {
        header_hash,
        root: batch.root,
        worker: batch.worker,
        sample,
        index: finding.index,
        transcript: batch.tasks.get(finding.index)?.transcript.as_ref()?,
        mismatch: &finding.mismatch,
        position: finding.position,
        replayed: finding.replayed,
        engine_version: dovetail_engine::ENGINE_VERSION,
        validators: &failure.validators,
    })
}
