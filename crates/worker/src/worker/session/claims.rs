//! A session's claims: when one begins, what of the pool's answers concerns it, and how it ended.

use std::time::{Duration, Instant};

use dovetail_commitment::BatchRoot;
use dovetail_miner::job::FoundShare;
use dovetail_miner::pool_session::{BatchJob, PoolEvent};
use dovetail_miner::stats::count;
use dovetail_serving::transcripts::BATCH_TRANSCRIPTS_MAX;
use dovetail_sv2::extension::BatchOutcome;
use dovetail_sv2::extension::codes::Code;

use super::Session;
use crate::claim::{ClaimEnd, Claimer, SentClaim, is_mismatch};
use crate::promises::{BrokenPromise, check_sample};
use crate::worker::session_failure::SessionFailure;
use crate::worker::uncredited::CreditLimit;
use crate::worker::{ClaimDone, Worker};

/// The wait before a batch is claimed again after its claim failed.
const CLAIM_RETRY: Duration = Duration::from_secs(2);
/// Claims in a row whose share a pool accepts without an outcome before the worker leaves it.
const UNEXPLAINED_MAX: u32 = 3;

impl Worker {
    /// Answers to shares, jobs and tips concern a claim only while one is under way.
    pub(super) fn forward_claim(&self, session: &mut Session, event: PoolEvent) {
        if session.in_flight.is_some() {
            forward(session, event);
        }
    }

    /// A job that carries a batch is for the claim of the batch; with none under way it is for nobody.
    pub(super) fn forward_batch_job(&self, session: &mut Session, job: Option<BatchJob>) {
        if let Some(job) = job {
            self.forward_claim(session, PoolEvent::BatchJob(Box::new(job)));
        }
    }

    /// The pool refuses a share.
    pub(super) fn on_share_refused(
        &self,
        session: &mut Session,
        number: u32,
        code: &str,
    ) -> Result<(), SessionFailure> {
        if !self.stats.mining.open_shares.refused(number) {
            return session.chatter.useless();
        }
        if session.chatter.may_log() {
            tracing::info!(number, code, "the pool refused a share");
        }
        self.stats.mining.refused(code);
        Ok(())
    }

    /// The pool says how an audit ended. It is believed about a claim that was sent on this session, once.
    pub(super) fn on_outcome(
        &mut self,
        session: &mut Session,
        outcome: BatchOutcome,
    ) -> Result<(), SessionFailure> {
        let pool = self.upstreams[session.index].options.address.clone();
        let Some(claim) = session.sent_claims.take(&outcome) else {
            self.stats.pool(&pool, |pool| {
                pool.outcomes_ignored = pool.outcomes_ignored.saturating_add(1);
            });
            return session.chatter.useless();
        };
        self.check_sample(session, &claim, &outcome)?;
        self.stats.outcome(&pool, &outcome, claim.output_tokens);
        let upstream = &mut self.upstreams[session.index];
        if outcome.accepted {
            upstream.unexplained = 0;
            session.credited = Some(claim.root);
        }
        let in_flight = session.in_flight.as_ref();
        let is_current = in_flight.is_some_and(|batch| batch.root == claim.root);
        if outcome.accepted || is_mismatch(&outcome) {
            upstream.uncredited.settled(claim.output_tokens);
            if !is_current {
                // Its claim was given up, and nothing more comes of the batch.
                for task_id in &claim.task_ids {
                    upstream.transcripts.remove(task_id);
                }
                if !outcome.accepted {
                    count(&self.stats.batches_refused);
                }
            }
        }
        self.forward_claim(session, PoolEvent::Outcome(outcome));
        Ok(())
    }

    /// A pool whose sample is none that our shares draw is left: it may have chosen it.
    fn check_sample(
        &mut self,
        session: &Session,
        claim: &SentClaim,
        outcome: &BatchOutcome,
    ) -> Result<(), SessionFailure> {
        let root = outcome.root;
        match check_sample(claim, outcome) {
            Ok(true) => {
                tracing::info!(%root, header = %outcome.header_hash, accepted = outcome.accepted, sample_header = %outcome.sample_header, proof = ?outcome.proof, stake_msat = outcome.stake_msat, "the pool has proven the sample of the audit");
                Ok(())
            }
            Ok(false) => {
                tracing::info!(%root, code = outcome.code, "the pool's audit of the batch has not ended");
                Ok(())
            }
            Err(promise) => {
                tracing::error!(%root, header = %outcome.header_hash, sample_header = %outcome.sample_header, proof = ?outcome.proof, error = %promise, "the pool may have chosen the sample");
                Err(self.leave(session, promise))
            }
        }
    }

    /// The pool broke its word on a claim.
    fn leave(&mut self, session: &Session, promise: BrokenPromise) -> SessionFailure {
        count(&self.stats.promises_broken);
        let pool = self.upstreams[session.index].options.name();
        self.left.leave(&pool, promise);
        promise.into()
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
        session.in_flight = Some(batch.clone());
        session.claims.spawn(async move {
            let result = claimer.claim(&batch).await;
            ClaimDone { claimer, result }
        });
    }

    pub(super) fn on_claim(
        &mut self,
        session: &mut Session,
        done: ClaimDone,
    ) -> Result<(), SessionFailure> {
        session.idle_claimer = Some(done.claimer);
        let Some(batch) = session.in_flight.take() else {
            return Ok(());
        };
        let root = batch.root;
        match done.result {
            Ok(ClaimEnd::Settled { accepted: true, .. }) => {
                tracing::info!(%root, transcripts = batch.task_ids.len(), "the pool credited the share and the batch");
                self.upstreams[session.index].transcripts.was_audited();
            }
            Ok(ClaimEnd::Settled { code, .. }) => {
                tracing::warn!(%root, code, "the audit failed; the batch earns nothing");
                count(&self.stats.batches_refused);
            }
            Ok(ClaimEnd::Unexplained) => self.unexplained(session, root)?,
            Ok(ClaimEnd::Broken(error)) => {
                tracing::error!(%root, %error, "the pool may have chosen the sample");
                return Err(self.leave(session, error));
            }
            Ok(ClaimEnd::Refused(code))
                if code == Code::BatchDead || code == Code::BatchTooCostly =>
            {
                let transcripts = batch.task_ids.len();
                let goes_on = self.upstreams[session.index].transcripts.split(batch);
                tracing::warn!(%root, code, transcripts, goes_on, "the pool cannot audit the batch; smaller ones are tried");
                if !goes_on {
                    count(&self.stats.batches_refused);
                }
            }
            // An earlier share claimed it, and its outcome came after all.
            Ok(ClaimEnd::Refused(_)) if session.credited == Some(root) => {}
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
        Ok(())
    }

    /// The pool accepted a claim's share, and owes its outcome. It may have failed once; again and again it has not.
    fn unexplained(&mut self, session: &Session, root: BatchRoot) -> Result<(), SessionFailure> {
        tracing::warn!(%root, "the pool accepted the share of the claim and never said how the audit ended; that is no credit");
        count(&self.stats.batches_unexplained);
        let upstream = &mut self.upstreams[session.index];
        upstream.unexplained += 1;
        match upstream.unexplained {
            times @ UNEXPLAINED_MAX.. => {
                Err(self.leave(session, BrokenPromise::Unexplained(times)))
            }
            _ => Ok(()),
        }
    }

    /// Looks at what pools owe, and says so where that changes whether they get tasks.
    pub(super) fn look_at_credit(&mut self) {
        let limit = self.credit_limit();
        let now = Instant::now();
        for upstream in &mut self.upstreams {
            let overdue = upstream.uncredited.overdue(limit.after, now);
            let gets_work = !upstream.uncredited.exceeds(limit, now);
            let address = &upstream.options.address;
            self.stats.pool(address, |pool| {
                if pool.gets_work != gets_work {
                    tracing::warn!(pool = address, overdue, gets_work, "whether tasks are taken from the pool, by the tokens that it has not credited for long");
                }
                (pool.tokens_overdue, pool.gets_work) = (overdue, gets_work);
            });
        }
    }

    /// How many tokens a pool may owe.
    pub(super) fn credit_limit(&self) -> CreditLimit {
        let config = &self.config.worker;
        let tokens_max = config.uncredited_tokens_max;
        CreditLimit {
            tokens_max: (tokens_max > 0).then_some(tokens_max),
            after: Duration::from_secs(config.uncredited_after_s),
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
fn forward(session: &mut Session, event: PoolEvent) {
    if session.claim_events.try_send(event).is_err() && session.chatter.may_log() {
        tracing::warn!("dropped an answer of the pool that nobody waits for");
    }
}
