//! Suspect batches: one replay found a mismatch, and the second one is still to come. The pool asks for it by itself. If it
//! waited for another claim, a worker that lied would never claim again, and lose nothing.

use std::time::Duration;

use dovetail_commitment::WorkerKey;
use dovetail_ledger::{DrawnSample, LedgerError, Suspect};
use dovetail_sv2::extension::codes::Code;
use futures::future::join_all;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::audit::{Confirmation, evidence_of_task};
use super::settle::{Settler, in_time};

/// Suspect batches that are looked at together. A worker has one as a rule: nothing else of it is audited meanwhile.
const SUSPECTS_MAX: u32 = 32;
/// How long one of them waits for a claim of its worker that is under way.
const TURN_TIME_MAX: Duration = Duration::from_secs(1);

/// How often they are looked for.
const INTERVAL: Duration = Duration::from_secs(5);

/// Has findings confirmed where the claim could not wait for it, until `shutdown`. What is under way then is begun again
/// after it.
pub(crate) async fn keep_confirming(settler: Settler, shutdown: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let confirming = async {
        loop {
            ticks.tick().await;
            settler.confirm_suspects().await;
        }
    };
    shutdown.run_until_cancelled(confirming).await;
}

/// What became of a suspect batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// It has failed, or is suspect no more.
    Decided,
    /// No second replay could be had.
    Waits,
}

impl Settler {
    /// Has the findings about all suspect batches confirmed that can be now.
    pub(crate) async fn confirm_suspects(&self) {
        let suspects = match in_time(self.ledger.suspects(None, SUSPECTS_MAX)).await {
            Ok(suspects) => suspects,
            Err(error) => {
                tracing::warn!(%error, "cannot look for suspect batches");
                return;
            }
        };
        let mut looks = Vec::with_capacity(suspects.len());
        for suspect in &suspects {
            looks.push(self.in_turn(suspect.worker));
        }
        join_all(looks).await;
    }

    /// The same for one worker, unless claims of it are under way, which do it themselves.
    async fn in_turn(&self, worker: WorkerKey) {
        let turn = timeout(TURN_TIME_MAX, self.one_per_worker.take(worker)).await;
        if let Ok(Some(_turn)) = turn {
            // Whoever waits for the second replay has said so.
            let _ = self.confirm_suspects_of(worker).await;
        }
    }

    /// Has the findings about this worker's suspect batches confirmed. To be called in the worker's turn: nothing else of it is
    /// audited before.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`] while one of them waits for its second replay.
    pub(super) async fn confirm_suspects_of(&self, worker: WorkerKey) -> Result<(), Code> {
        let internal = |error: LedgerError| {
            tracing::error!(%error, "cannot look at a suspect batch");
            Code::Internal
        };
        let suspects = self.ledger.suspects(Some(worker), SUSPECTS_MAX);
        let suspects = in_time(suspects).await.map_err(internal)?;
        let looks = async {
            for suspect in &suspects {
                if self.look_at(suspect).await.map_err(internal)? == Looked::Waits {
                    return Err(Code::AuditUnavailable);
                }
            }
            Ok(())
        };
        // Whoever claims waits for all of them no longer than for one.
        let looks = timeout(self.auditor.replay_time_max(), looks).await;
        looks.unwrap_or(Err(Code::AuditUnavailable))
    }

    async fn look_at(&self, suspect: &Suspect) -> Result<Looked, LedgerError> {
        let (root, finding) = (suspect.root, &suspect.finding);
        let batch = in_time(self.ledger.batch(root)).await?;
        let batch = batch.ok_or(LedgerError::Corrupt("finding"))?;
        let task = batch.tasks.get(finding.index);
        let Some(evidence) = task.and_then(evidence_of_task) else {
            tracing::error!(%root, worker = %suspect.worker, "nothing is left to confirm a finding with");
            in_time(self.ledger.drop_finding(root, finding)).await?;
            return Ok(Looked::Decided);
        };
        match self.auditor.confirm(root, finding, &evidence).await {
            Confirmation::Same(failure) => {
                let header_hash = batch.sample_header.unwrap_or(finding.header_hash);
                let sample = DrawnSample {
                    header_hash,
                    proof: self.auditor.prove(&header_hash, &root),
                    // Of the claim at which it was found, at the latest.
                    stake: batch.stake.unwrap_or_default(),
                    indices: vec![finding.index],
                };
                let booked = self
                    .book_mismatch(finding.header_hash, &batch, &sample, &failure)
                    .await;
                Ok(booked.map_or(Looked::Waits, |_| Looked::Decided))
            }
            Confirmation::Different => {
                in_time(self.ledger.drop_finding(root, finding)).await?;
                Ok(Looked::Decided)
            }
            Confirmation::None => {
                // For as long again.
                in_time(self.ledger.keep_finding(root, finding)).await?;
                tracing::warn!(%root, worker = %suspect.worker, "nobody can confirm what a replay found: is a second validator away?");
                Ok(Looked::Waits)
            }
        }
    }
}
