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
use tokio_util::task::AbortOnDropHandle;

use super::{ClaimDone, Session, Worker};
use crate::claim::{ClaimEnd, Claimer};
use crate::job::FoundShare;
use crate::own::{OwnEvent, OwnTask};
use crate::session::{BatchJob, PoolEvent, PoolSession, SessionError};
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
/// How long a change to a preferred pool waits for running tasks and claims to end.
const CHANGE_OVER_TIME_MAX: Duration = Duration::from_secs(30);
/// How a session ended that did not fail.
pub(super) enum End {
    /// We were told to stop.
    Shutdown,
    /// A pool that we would rather use is there again; the session with it is open.
    ChangeOver(usize, Box<PoolSession>),
}

impl Worker {
    /// Serves one session to its end.
    pub(super) async fn serve(
        &mut self,
        mut session: Session,
        shutdown: &CancellationToken,
    ) -> Result<End, SessionError> {
        let ended = self.serve_loop(&mut session, shutdown).await;
        if let Some(batch) = session.in_flight.take() {
            self.upstreams[session.index].transcripts.put_back(batch);
        }
        // Before the next session begins nothing of this one shows jobs any more.
        session.claims.shutdown().await;
        if let Some(own) = session.own.take() {
            own.stop().await;
        }
        self.board.leave();
        ended
    }

    async fn serve_loop(
        &mut self,
        session: &mut Session,
        shutdown: &CancellationToken,
    ) -> Result<End, SessionError> {
        for transcript in self.upstreams[session.index].transcripts.undelivered() {
            deliver(session.pool.outbox(), transcript)?;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(End::Shutdown),
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
                    if let Some(claimer) = &session.idle_claimer {
                        claimer.pass_on(&share)?;
                    }
                }
                ended = own_ended(&mut session.own) => {
                    ended.ok_or(SessionError::Defect("the jobs of our own panicked"))??;
                    return Err(SessionError::Defect("the jobs of our own ended"));
                }
                preferred = once(&mut session.scout) => {
                    let preferred = preferred.ok_or(SessionError::Defect("the scout panicked"))?;
                    let by = Instant::now() + CHANGE_OVER_TIME_MAX;
                    session.wanted = Some((preferred, by));
                }
                opened = once(&mut session.opening) => {
                    let defect = SessionError::Defect("opening a session panicked");
                    match opened.ok_or(defect)? {
                        (preferred, Ok(pool)) => return Ok(End::ChangeOver(preferred, Box::new(pool))),
                        (_, Err(error)) => {
                            tracing::warn!(%error, "the preferred pool is not there after all");
                            session.scout = self.scout(session.index);
                        }
                    }
                }
                _ = tick.tick() => {
                    let open = self.runner.open() as u64;
                    self.board.stats().tasks_open.store(open, Ordering::Relaxed);
                    self.change_over(session);
                    self.tell_hash_rate(session)?;
                }
            }
            self.start_claim(session);
        }
    }

    fn on_pool(&mut self, session: &mut Session, event: PoolEvent) -> Result<(), SessionError> {
        match event {
            PoolEvent::Task(task) => {
                let task_id = task.task_id;
                tracing::info!(task = %task_id, model = %task.model_id, "took a task");
                match self.runner.take(task) {
                    Ok(()) => drop(self.owners.insert(task_id, session.index)),
                    Err(code) => {
                        tracing::warn!(task = %task_id, code, "refused the task");
                        refuse(session.pool.outbox(), task_id, code)?;
                    }
                }
            }
            PoolEvent::Cancelled(task_id) => {
                tracing::info!(task = %task_id, "the task was cancelled");
                self.runner.cancel(&task_id);
            }
            PoolEvent::TranscriptAccepted(task_id) => {
                let upstream = &mut self.upstreams[session.index];
                upstream.transcripts.accept(&task_id);
                upstream.waiting_since.get_or_insert_with(Instant::now);
            }
            PoolEvent::TranscriptRefused(task_id, code) => {
                tracing::warn!(task = %task_id, code, "the pool refused the transcript");
                // It stays undelivered and is offered again on the next session.
                if code != codes::INTERNAL {
                    self.upstreams[session.index].transcripts.remove(&task_id);
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
                tell_own(session, OwnEvent::Tip(tip.prev_hash.to_array()));
                self.forward_claim(session, PoolEvent::NewTip(tip));
                self.forward_batch_job(session, batch);
            }
            PoolEvent::Other => {}
            PoolEvent::SharesAccepted {
                count, difficulty, ..
            } => {
                let stats = self.board.stats();
                Stats::add(&stats.shares_accepted, u64::from(count));
                Stats::add(&stats.difficulty_accepted, difficulty);
                self.forward_claim(session, event);
            }
            PoolEvent::ShareRefused(number, code) => {
                tracing::info!(number, code, "the pool refused a share");
                self.board.stats().refused(&code);
                self.forward_claim(session, PoolEvent::ShareRefused(number, code));
            }
            PoolEvent::Outcome(outcome) => {
                self.check_beacon(session, &outcome)?;
                let pool = &self.upstreams[session.index].options.address;
                self.board.stats().outcome(pool, &outcome);
                forward(session, PoolEvent::Outcome(outcome));
            }
            PoolEvent::JobAccepted { request_id, job_id } => {
                tell_own(session, OwnEvent::JobAccepted { request_id, job_id });
            }
            PoolEvent::JobRefused { request_id, code } => {
                tell_own(session, OwnEvent::JobRefused { request_id, code });
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
                Stats::count(&self.board.stats().beacons_broken);
                Err(error.into())
            }
        }
    }

    fn on_payout(&self, session: &mut Session, result: &PayoutResult) {
        let asked = session.asked.take_if(|(id, _)| *id == result.payout_id);
        if let (Some((_, msat)), true) = (asked, result.paid) {
            Stats::add(&self.board.stats().paid_msat, msat);
        }
    }

    fn on_task(&mut self, session: &Session, event: TaskEvent) -> Result<(), SessionError> {
        let outbox = session.pool.outbox();
        let stats = self.board.stats();
        match event {
            TaskEvent::Tokens {
                task_id,
                first_position,
                tokens,
            } => {
                stats.generated(tokens.len());
                if self.owners.get(&task_id) == Some(&session.index) {
                    outbox.send(&StreamTokens {
                        task_id,
                        first_position,
                        tokens,
                    })?;
                }
            }
            TaskEvent::Finished {
                transcript,
                expires,
                reused_tokens,
            } => {
                tracing::info!(task = %transcript.task_id, tokens = transcript.output_tokens, reused_tokens, "finished a task");
                Stats::count(&stats.tasks_finished);
                // A task of another pool was cancelled with its session; it may have been too late.
                let Some(owner) = self.owners.remove(&transcript.task_id) else {
                    return Ok(());
                };
                if owner == session.index {
                    deliver(outbox, &transcript)?;
                }
                let transcripts = &mut self.upstreams[owner].transcripts;
                if transcripts.push(*transcript, expires).is_some() {
                    tracing::warn!("too many transcripts wait for a share; dropped the oldest");
                }
            }
            TaskEvent::Failed { task_id, code } => {
                tracing::warn!(task = %task_id, code, "the task failed");
                Stats::count(&stats.tasks_failed);
                if self.owners.remove(&task_id) == Some(session.index) {
                    refuse(outbox, task_id, code)?;
                }
            }
            TaskEvent::Dropped(task_id) => {
                tracing::info!(task = %task_id, "dropped the task");
                Stats::count(&stats.tasks_failed);
                self.owners.remove(&task_id);
            }
        }
        Ok(())
    }

    /// Opens the session with a preferred pool once nothing is under way here, or for long enough.
    fn change_over(&self, session: &mut Session) {
        let quiet = self.runner.open() == 0 && session.in_flight.is_none();
        let due = |(_, by): &mut (usize, Instant)| quiet || Instant::now() >= *by;
        let Some((preferred, _)) = session.wanted.take_if(due) else {
            return;
        };
        let (options, keys) = (self.options(preferred), self.keys.clone());
        tracing::info!(
            pool = options.address,
            "the preferred pool is back; changing over"
        );
        session.opening = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            (preferred, super::upstreams::open(&options, &keys).await)
        })));
    }

    /// Claims a batch if there is reason to: nothing is running, or enough wait, or for long enough.
    fn start_claim(&mut self, session: &mut Session) {
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

    fn on_claim(&mut self, session: &mut Session, done: ClaimDone) {
        session.idle_claimer = Some(done.claimer);
        let Some(batch) = session.in_flight.take() else {
            return;
        };
        let root = batch.root;
        match done.result {
            Ok(ClaimEnd::Settled { accepted: true, .. }) => {
                tracing::info!(%root, transcripts = batch.task_ids.len(), "the pool credited the share and the batch");
                let stats = self.board.stats();
                Stats::count(&stats.batches_credited);
                Stats::add(&stats.tokens_credited, batch.output_tokens());
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
                let upstream = &mut self.upstreams[session.index];
                upstream.no_claim_before = Some(Instant::now() + CLAIM_RETRY);
                upstream.transcripts.put_back(batch);
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

/// Hands an event to whoever makes jobs of our own, if anybody does.
fn tell_own(session: &Session, event: OwnEvent) {
    if let Some(own) = &session.own {
        own.tell(event);
    }
}

/// Waits for the end of the task that makes jobs of our own; without one for ever. Cancellation-safe.
async fn own_ended(own: &mut Option<OwnTask>) -> Option<Result<(), OutboxError>> {
    match own {
        Some(own) => own.ended().await,
        None => std::future::pending().await,
    }
}

/// Hands an event to the claimer. A claimer that does not keep up would wait for nothing.
fn forward(session: &Session, event: PoolEvent) {
    if session.claim_events.try_send(event).is_err() {
        tracing::warn!("dropped an answer of the pool that nobody waits for");
    }
}

/// What the task gives, once; `None` if it panicked. Without a task it waits for ever.
async fn once<T>(task: &mut Option<AbortOnDropHandle<T>>) -> Option<T> {
    let ended = match task {
        Some(running) => running.await,
        None => std::future::pending().await,
    };
    *task = None;
    ended.ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_result_of_a_task_is_taken_once() {
        let mut task = Some(AbortOnDropHandle::new(tokio::spawn(async { 7 })));
        assert_eq!(once(&mut task).await, Some(7));
        assert!(task.is_none());
    }
}
