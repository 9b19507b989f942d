//! A block that a share solves goes out before anything else is done with the share, and counts as found once
//! the template source knows it.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use dovetail_commitment::HeaderHash;
use dovetail_telemetry::Event;
use tokio::time::{Instant, sleep};

use super::submission::{Submission, Verdict};
use crate::shared::Shared;

/// How long a found block is told to a ledger that is away.
const RECORD_TIME_MAX: Duration = Duration::from_secs(120);
/// How long between two tries.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// A block that a share solved.
pub(crate) struct FoundBlock {
    pub(crate) header_hash: HeaderHash,
    pub(crate) hash: BlockHash,
    pub(crate) height: u32,
    pub(crate) account: String,
    /// Whether its job was declared by the miner.
    pub(crate) declared: bool,
}

impl FoundBlock {
    /// Records the block, once: a header may come again after a reorganisation or a restart. `false` if this
    /// is not the first time.
    async fn record(&self, shared: &Shared) -> bool {
        let ledger = &shared.ledger;
        let deadline = Instant::now() + RECORD_TIME_MAX;
        loop {
            let recorded = ledger.record_block(self.header_hash, self.height, &self.account);
            match recorded.await {
                Ok(true) => return true,
                Ok(false) => {
                    tracing::info!(hash = %self.hash, "a block that was found before came again");
                    return false;
                }
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(hash = %self.hash, %error, "cannot record a block yet");
                    sleep(RECORD_PAUSE).await;
                }
                // Better told of twice than never.
                Err(error) => {
                    tracing::error!(hash = %self.hash, %error, "cannot record a block");
                    return true;
                }
            }
        }
    }

    /// Notes what came of the block, and tells the supervisor and the operator.
    async fn conclude(&self, shared: &Shared, verdict: &Verdict) {
        let (ledger, result) = (&shared.ledger, verdict.text());
        if let Err(error) = ledger.note_submission(self.header_hash, &result).await {
            tracing::error!(hash = %self.hash, result, %error, "cannot note what came of a block");
        }
        match verdict {
            Verdict::Accepted => {
                shared.telemetry.emit(&Event::BlockFound {
                    hash: &self.hash.to_string(),
                    worker: &self.account,
                    declared: self.declared,
                });
                tracing::info!(hash = %self.hash, declared = self.declared, "block found");
            }
            Verdict::LeftToMiner => {
                tracing::warn!(hash = %self.hash, "a block that its miner had to publish did not become the tip");
            }
            Verdict::Refused(_) | Verdict::Unknown | Verdict::NotAssembled => {
                tracing::error!(hash = %self.hash, result, "a block was solved and is not known to be in the chain");
            }
        }
    }
}

/// Hands the block over at once, and records it meanwhile. One that comes again is handed over again, which does
/// no harm, and is found once. `None`: its parts do not hash to its header, so there is nothing to hand over.
pub(crate) fn publish(shared: &Arc<Shared>, found: FoundBlock, submission: Option<Submission>) {
    let tracker = shared.tracker.clone();
    let shared = Arc::clone(shared);
    tracker.spawn(async move {
        let submitting = async {
            match submission {
                Some(submission) => submission.submit(&shared.templates, found.hash).await,
                None => Verdict::NotAssembled,
            }
        };
        let (verdict, is_new) = tokio::join!(submitting, found.record(&shared));
        if is_new {
            found.conclude(&shared, &verdict).await;
        }
    });
}
