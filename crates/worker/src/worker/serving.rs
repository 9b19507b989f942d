//! One session with a pool: its events, the engine's, the claims' and the hashers', each handed to
//! whom it concerns.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dovetail_commitment::Transcript;
use dovetail_lightning::Client;
use dovetail_sv2::extension::{
    AssignTaskError, BatchOutcome, Bytes, DeliverTranscript, PayoutResult, StreamTokens, codes,
};
use dovetail_sv2::{Outbox, OutboxError};
use tokio_util::sync::CancellationToken;

use super::{ClaimDone, Session, Worker};
use crate::claim::{ClaimEnd, Claimer};
use crate::job::FoundShare;
use crate::session::{BatchJob, PoolEvent, SessionError};
use crate::stats::Stats;
use crate::tasks::TaskEvent;
use crate::transcripts::BATCH_TRANSCRIPTS_MAX;
use crate::wallet::{InvoiceAnswer, invoice};

/// How often expiry and batches are looked at, besides at events.
const TICK: Duration = Duration::from_millis(250);
/// Payouts whose invoice is being made. A pool asks for one at a time.
const INVOICES_MAX: usize = 8;
/// The wait before a claim that failed is tried again.
const CLAIM_RETRY: Duration = Duration::from_secs(2);

impl Worker {
    /// Serves one session to its end; `Ok` only at shutdown.
    pub(super) async fn serve(
        &mut self,
        mut session: Session,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let ended = self.serve_loop(&mut session, shutdown).await;
        if let Some(batch) = session.in_flight.take() {
            self.transcripts.put_back(batch);
        }
        ended
    }

    async fn serve_loop(
        &mut self,
        session: &mut Session,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        for transcript in self.transcripts.undelivered() {
            deliver(session.pool.outbox(), transcript)?;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = session.pool.next() => self.on_pool(session, event?)?,
                Some(event) = self.task_events.recv() => self.on_task(session, event)?,
                Some(done) = session.claims.join_next() => {
                    // A panic of the claim's task ends the session, loudly.
                    let done = done.map_err(|_| SessionError::Defect("a claim panicked"))?;
                    self.on_claim(session, done);
                }
                Some(Ok(answer)) = session.invoices.join_next() => match answer {
                    InvoiceAnswer::Invoice(invoice) => session.pool.send(&invoice)?,
                    InvoiceAnswer::Refused(error) => session.pool.send(&error)?,
                },
                Some(share) = session.pool_jobs.next_share() => submit(session, &share)?,
                share = settled_share(&mut session.idle_claimer) => {
                    if let Some(claimer) = &mut session.idle_claimer {
                        claimer.pass_on(share).await?;
                    }
                }
                _ = tick.tick() => {}
            }
            self.start_claim(session);
        }
    }

    fn on_pool(&mut self, session: &mut Session, event: PoolEvent) -> Result<(), SessionError> {
        match event {
            PoolEvent::Task(task) => {
                let task_id = task.task_id;
                tracing::info!(task = %task_id, model = %task.model_id, "took a task");
                if let Err(code) = self.runner.take(task) {
                    tracing::warn!(task = %task_id, code, "refused the task");
                    refuse(session.pool.outbox(), task_id, code)?;
                }
            }
            PoolEvent::Cancelled(task_id) => {
                tracing::info!(task = %task_id, "the task was cancelled");
                self.runner.cancel(&task_id);
            }
            PoolEvent::TranscriptAccepted(task_id) => {
                self.transcripts.accept(&task_id);
                self.waiting_since.get_or_insert_with(Instant::now);
            }
            PoolEvent::TranscriptRefused(task_id, code) => {
                tracing::warn!(task = %task_id, code, "the pool refused the transcript");
                // It stays undelivered and is offered again on the next session.
                if code != codes::INTERNAL {
                    self.transcripts.remove(&task_id);
                }
            }
            PoolEvent::InvoiceWanted(request) => {
                tracing::info!(payout = %hex::encode(request.payout_id), msat = request.amount_msat, "the pool wants to pay");
                if session.invoices.len() < INVOICES_MAX {
                    session.asked = Some((request.payout_id, request.amount_msat));
                    let wallet = self.config.wallet.as_ref();
                    let wallet = wallet.map(|wallet| Client::new(wallet.socket.clone()));
                    session.invoices.spawn(invoice(wallet, request));
                }
            }
            PoolEvent::Payout(result) => {
                self.on_payout(session, &result);
                tracing::info!(payout = %hex::encode(result.payout_id), paid = result.paid, "the payout ended");
            }
            PoolEvent::ChannelChanged => {
                session.channel.send_replace(session.pool.channel().clone());
            }
            PoolEvent::NewJob(job) => {
                let batch = session.pool_jobs.on_job(session.pool.channel(), *job);
                self.forward_batch_job(session, batch);
            }
            PoolEvent::NewTip(tip) => {
                let batch = session
                    .pool_jobs
                    .on_tip(session.pool.channel(), tip.clone());
                self.forward_claim(session, PoolEvent::NewTip(tip));
                self.forward_batch_job(session, batch);
            }
            PoolEvent::Other => {}
            PoolEvent::SharesAccepted { last, count } => {
                let accepted = &self.board.stats().shares_accepted;
                accepted.fetch_add(u64::from(count), Ordering::Relaxed);
                self.forward_claim(session, PoolEvent::SharesAccepted { last, count });
            }
            PoolEvent::ShareRefused(number, code) => {
                tracing::info!(number, code, "the pool refused a share");
                self.board.stats().refused(&code);
                self.forward_claim(session, PoolEvent::ShareRefused(number, code));
            }
            PoolEvent::Outcome(outcome) => {
                self.check_beacon(session, &outcome)?;
                forward(session, PoolEvent::Outcome(outcome));
            }
            answer => forward(session, answer),
        }
        Ok(())
    }

    /// Answers to shares, jobs and tips concern a claim only while one is under way.
    fn forward_claim(&self, session: &Session, event: PoolEvent) {
        if session.in_flight.is_some() {
            forward(session, event);
        }
    }

    /// A job that carries a batch is for the claim of the batch; with none under way it is for nobody.
    fn forward_batch_job(&self, session: &Session, job: Option<BatchJob>) {
        if let Some(job) = job {
            self.forward_claim(session, PoolEvent::BatchJob(Box::new(job)));
        }
    }

    /// A pool that breaks its own beacon is left: it may have chosen the sample.
    fn check_beacon(
        &mut self,
        session: &Session,
        outcome: &BatchOutcome,
    ) -> Result<(), SessionError> {
        let (root, step) = (outcome.root, outcome.beacon_step);
        // An outcome of an earlier claim may come late.
        let current = session.in_flight.as_ref();
        let is_current = current.is_some_and(|batch| batch.root == root);
        let floor = if is_current { session.floor } else { 0 };
        let checked = self.beacons.check(&self.options.name(), floor, outcome);
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
                Stats::count(&self.board.stats().beacons_broken);
                Err(error.into())
            }
        }
    }

    fn on_payout(&self, session: &mut Session, result: &PayoutResult) {
        let asked = session.asked.take_if(|(id, _)| *id == result.payout_id);
        if let (Some((_, msat)), true) = (asked, result.paid) {
            let paid = &self.board.stats().paid_msat;
            paid.fetch_add(msat, Ordering::Relaxed);
        }
    }

    fn on_task(&mut self, session: &Session, event: TaskEvent) -> Result<(), SessionError> {
        let outbox = session.pool.outbox();
        match event {
            TaskEvent::Tokens {
                task_id,
                first_position,
                tokens,
            } => {
                self.board.stats().generated(tokens.len());
                outbox.send(&StreamTokens {
                    task_id,
                    first_position,
                    tokens,
                })?;
            }
            TaskEvent::Finished {
                transcript,
                expires,
                reused_tokens,
            } => {
                tracing::info!(task = %transcript.task_id, tokens = transcript.output_tokens, reused_tokens, "finished a task");
                Stats::count(&self.board.stats().tasks_finished);
                deliver(outbox, &transcript)?;
                if self.transcripts.push(*transcript, expires).is_some() {
                    tracing::warn!("too many transcripts wait for a share; dropped the oldest");
                }
            }
            TaskEvent::Failed { task_id, code } => {
                tracing::warn!(task = %task_id, code, "the task failed");
                Stats::count(&self.board.stats().tasks_failed);
                refuse(outbox, task_id, code)?;
            }
            TaskEvent::Dropped(task_id) => {
                tracing::info!(task = %task_id, "dropped the task");
                Stats::count(&self.board.stats().tasks_failed);
            }
        }
        Ok(())
    }

    /// Claims a batch if there is reason to: nothing is running, or enough wait, or for long enough.
    fn start_claim(&mut self, session: &mut Session) {
        let now = Instant::now();
        let expired = self.transcripts.expire(now);
        if expired > 0 {
            tracing::warn!(expired, "transcripts expired before a share claimed them");
        }
        let ready = self.transcripts.ready();
        if ready == 0 {
            self.waiting_since = None;
            return;
        }
        let wait = Duration::from_millis(self.config.worker.batch_wait_ms);
        let due = self.runner.open() == 0
            || ready >= BATCH_TRANSCRIPTS_MAX
            || self
                .waiting_since
                .is_some_and(|since| since.elapsed() >= wait);
        if !due || self.no_claim_before.is_some_and(|before| now < before) {
            return;
        }
        let Some(mut claimer) = session.idle_claimer.take() else {
            return;
        };
        let Some(batch) = self.transcripts.take_batch() else {
            session.idle_claimer = Some(claimer);
            return;
        };
        self.waiting_since = None;
        tracing::info!(root = %batch.root, transcripts = batch.task_ids.len(), "claiming a batch");
        session.floor = self.beacons.next_step(&self.options.name());
        session.in_flight = Some(batch.clone());
        session.claims.spawn(async move {
            let result = claimer.claim(&batch).await;
            ClaimDone { claimer, result }
        });
    }

    fn on_claim(&mut self, session: &mut Session, done: ClaimDone) {
        session.idle_claimer = Some(done.claimer);
        let Some(batch) = session.in_flight.take() else {
            return;
        };
        let root = batch.root;
        match done.result {
            Ok(ClaimEnd::Settled { accepted: true, .. }) => {
                tracing::info!(%root, transcripts = batch.task_ids.len(), "the pool credited the share and the batch");
                Stats::count(&self.board.stats().batches_credited);
            }
            Ok(ClaimEnd::Settled { code, .. }) => {
                tracing::warn!(%root, code, "the audit failed; the batch earns nothing");
                Stats::count(&self.board.stats().batches_refused);
            }
            Ok(ClaimEnd::Refused(code)) => {
                tracing::warn!(%root, code, "the pool refused the batch");
                Stats::count(&self.board.stats().batches_refused);
            }
            Err(error) => {
                tracing::warn!(%root, %error, "the claim did not come to an end; trying again");
                self.no_claim_before = Some(Instant::now() + CLAIM_RETRY);
                self.transcripts.put_back(batch);
            }
        }
    }
}

/// Submits a share of the pool's own job.
fn submit(session: &Session, share: &FoundShare) -> Result<(), OutboxError> {
    let Some(job_id) = share.upstream_job_id else {
        return Ok(());
    };
    let number = session.numbers.fetch_add(1, Ordering::Relaxed);
    let message = session.pool.channel().share(number, job_id, share);
    session.pool.send(&message)
}

/// The next share of a job whose claim is settled. While a claim is under way its task has the
/// claimer, and takes them itself.
async fn settled_share(claimer: &mut Option<Claimer>) -> FoundShare {
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
fn forward(session: &Session, event: PoolEvent) {
    if session.claim_events.try_send(event).is_err() {
        tracing::warn!("dropped an answer of the pool that nobody waits for");
    }
}

fn deliver(outbox: &Outbox, transcript: &Transcript) -> Result<(), OutboxError> {
    outbox.send(&DeliverTranscript {
        task_id: transcript.task_id,
        transcript: Bytes(transcript.encode()),
    })
}

fn refuse(
    outbox: &Outbox,
    task_id: dovetail_commitment::TaskId,
    code: &str,
) -> Result<(), OutboxError> {
    outbox.send(&AssignTaskError {
        task_id,
        code: code.to_owned(),
    })
}
