//! A session's claims: when one begins, what of the pool's answers concerns it, and how it ended.

use std::time::{Duration, Instant};

use dovetail_miner::job::FoundShare;
use dovetail_miner::pool_session::{BatchJob, PoolEvent};
use dovetail_miner::stats::{add, count};
use dovetail_serving::transcripts::BATCH_TRANSCRIPTS_MAX;
use dovetail_sv2::extension::BatchOutcome;

use super::Session;
use crate::claim::{ClaimEnd, Claimer};
use crate::worker::session_failure::SessionFailure;
use crate::worker::{ClaimDone, Worker};

/// The wait before a batch is claimed again after its claim failed.
const CLAIM_RETRY: Duration = Duration::from_secs(2);

impl Worker {
    /// Answers to shares, jobs and tips concern a claim only while one is under way.
    pub(super) fn forward_claim(&self, session: &Session, event: PoolEvent) {
        if session.in_flight.is_some() {
            forward(session, event);
        }
    }

    /// A job that carries a batch is for the claim of the batch; with none under way it is for nobody.
    pub(super) fn forward_batch_job(&self, session: &Session, job: Option<BatchJob>) {
        if let Some(job) = job {
            self.forward_claim(session, PoolEvent::BatchJob(Box::new(job)));
        }
    }

    /// A pool that breaks its own beacon is left: it may have chosen the sample.
    pub(super) fn check_beacon(
        &mut self,
        session: &Session,
        outcome: &BatchOutcome,
    ) -> Result<(), SessionFailure> {
        let (root, step) = (outcome.root, outcome.beacon_step);
        // An outcome of an earlier claim may come late.
        let current = session.in_flight.as_ref();
        let is_current = current.is_some_and(|batch| batch.root == root);
        let floor = if is_current { session.floor } else { 0 };
        let pool = self.upstreams[session.index].options.name();
        let checked = self.beacons.check(&pool, floor, outcome);
        match checked {
            Ok(true) => {
                tracing::info!(%root, header = %outcome.header_hash, accepted = outcome.accepted, step, "the pool revealed the beacon of the audit, and it is of its chain");
                Ok(())
            }
            Ok(false) => {
                tracing::info!(%root, accepted = outcome.accepted, "the pool answered the claim without an audit");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%root, header = %outcome.header_hash, step, preimage = %hex::encode(outcome.preimage), %error, "the pool may have chosen the sample");
                count(&self.stats.beacons_broken);
                Err(error.into())
            }
        }
    }

    /// Claims a batch if there is reason to: nothing is running, or enough wait, or for long enough.
    pub(super) fn start_claim(&mut self, session: &mut Session) {
        let now = Instant::now();
        let upstream = &mut self.upstreams[session.index];
        let expired = upstream.transcripts.expire(now);
        if expired > 0 {
            tracing::warn!(expired, "transcripts expired before a share claimed them");
        }
        let ready = upstream.transcripts.ready();
        if ready == 0 {
            upstream.waiting_since = None;
            return;
        }
        let wait = Duration::from_millis(self.config.worker.batch_wait_ms);
        let due = self.runner.open() == 0
            || ready >= BATCH_TRANSCRIPTS_MAX
            || upstream
                .waiting_since
                .is_some_and(|since| since.elapsed() >= wait);
        if !due || upstream.no_claim_before.is_some_and(|before| now < before) {
            return;
        }
        let Some(mut claimer) = session.idle_claimer.take() else {
            return;
        };
        let Some(batch) = upstream.transcripts.take_batch() else {
            session.idle_claimer = Some(claimer);
            return;
        };
        upstream.waiting_since = None;
        tracing::info!(root = %batch.root, transcripts = batch.task_ids.len(), "claiming a batch");
        session.floor = self.beacons.next_step(&upstream.options.name());
        session.in_flight = Some(batch.clone());
        session.claims.spawn(async move {
            let result = claimer.claim(&batch).await;
            ClaimDone { claimer, result }
        });
    }

    pub(super) fn on_claim(&mut self, session: &mut Session, done: ClaimDone) {
        session.idle_claimer = Some(done.claimer);
        let Some(batch) = session.in_flight.take() else {
            return;
        };
        let root = batch.root;
        match done.result {
            Ok(ClaimEnd::Settled { accepted: true, .. }) => {
                tracing::info!(%root, transcripts = batch.task_ids.len(), "the pool credited the share and the batch");
                count(&self.stats.batches_credited);
                add(&self.stats.tokens_credited, batch.output_tokens());
            }
            Ok(ClaimEnd::Settled { code, .. }) => {
                tracing::warn!(%root, code, "the audit failed; the batch earns nothing");
                count(&self.stats.batches_refused);
            }
            Ok(ClaimEnd::Refused(code)) => {
                tracing::warn!(%root, code, "the pool refused the batch");
                count(&self.stats.batches_refused);
            }
            Err(error) => {
                tracing::warn!(%root, %error, "the claim has not ended; trying again");
                let upstream = &mut self.upstreams[session.index];
                upstream.no_claim_before = Some(Instant::now() + CLAIM_RETRY);
                upstream.transcripts.put_back(batch);
            }
        }
    }
}

/// The next share of a job whose claim is settled. While a claim is under way its task has the
/// claimer, and takes them itself.
pub(super) async fn settled_share(claimer: &mut Option<Claimer>) -> FoundShare {
    let share = match claimer {
        Some(claimer) => claimer.next_share().await,
        None => None,
    };
    match share {
        Some(share) => share,
        None => std::future::pending().await,
    }
}

/// Hands an event to the claimer. A claimer that does not keep up would wait for nothing.
pub(super) fn forward(session: &Session, event: PoolEvent) {
    if session.claim_events.try_send(event).is_err() {
        tracing::warn!("dropped an answer of the pool that nobody waits for");
    }
}
