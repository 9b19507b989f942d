//! One session with a pool: what the pool, the engine, claims and devices say, each handed to whom it concerns.

mod change_over;
mod chatter;
mod claims;
mod payouts;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dovetail_commitment::BatchRoot;
use dovetail_miner::declared_jobs::{DeclaredJobs, PoolNotice};
use dovetail_miner::job::FoundShare;
use dovetail_miner::pool_jobs::PoolJobs;
use dovetail_miner::pool_session::{Channel, PoolEvent, PoolSession};
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::OutboxError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::session_failure::SessionFailure;
use super::{ClaimDone, Worker};
use crate::claim::{Claimer, SentClaims};

pub(super) use change_over::ChangeOver;
pub(super) use chatter::Chatter;
use claims::settled_share;
use tasks::deliver;

/// How often expiry and batches are looked at, besides at events.
const TICK: Duration = Duration::from_millis(250);

/// What belongs to one session.
pub(super) struct Session {
    /// The pool's place in the list.
    pub(super) index: usize,
    pub(super) pool: PoolSession,
    pub(super) channel: watch::Sender<Channel>,
    pub(super) claim_events: mpsc::Sender<PoolEvent>,
    /// The claims that were sent on it and have no outcome yet.
    pub(super) sent_claims: SentClaims,
    pub(super) idle_claimer: Option<Claimer>,
    pub(super) claims: JoinSet<ClaimDone>,
    /// The batch that is being claimed; it goes back to the others if the session ends.
    pub(super) in_flight: Option<ReadyBatch>,
    /// The batch that the pool credited last.
    pub(super) credited: Option<BatchRoot>,
    /// What the pool says in vain.
    pub(super) chatter: Chatter,
    pub(super) pool_jobs: PoolJobs,
    /// Makes jobs on templates of our own node, where we have one and the pool a declarator.
    pub(super) declared_jobs: Option<DeclaredJobs>,
    /// Numbers of requests and shares.
    pub(super) numbers: Arc<AtomicU32>,
    /// What the pool was told last that devices hash, in h/s, and when.
    pub(super) told_hash_rate: (f32, Instant),
    /// Looks after the pools that we would rather use.
    pub(super) scout: Option<AbortOnDropHandle<usize>>,
    /// The session that is to follow on this one, if there is one.
    pub(super) change_over: ChangeOver,
}

/// How a session ended that did not fail.
pub(super) enum End {
    /// We were told to stop.
    Shutdown,
    /// The session that follows is open: with a pool that we would rather use, or with this one and more models.
    ChangeOver(usize, Box<PoolSession>),
}

impl Worker {
    /// Serves one session to its end.
    pub(super) async fn serve(
        &mut self,
        mut session: Session,
        shutdown: &CancellationToken,
    ) -> Result<End, SessionFailure> {
        let ended = self.serve_loop(&mut session, shutdown).await;
        if let Some(batch) = session.in_flight.take() {
            self.upstreams[session.index].transcripts.put_back(batch);
        }
        // Before the next session begins, nothing of this one offers jobs to devices any more. The pool's go first:
        // without them devices stay on what they have when the others go.
        drop(session.pool_jobs);
        session.claims.shutdown().await;
        if let Some(declared_jobs) = session.declared_jobs {
            declared_jobs.stop().await;
        }
        ended
    }

    async fn serve_loop(
        &mut self,
        session: &mut Session,
        shutdown: &CancellationToken,
    ) -> Result<End, SessionFailure> {
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
                    let done = done.map_err(|_| SessionFailure::Defect("a claim panicked"))?;
                    self.on_claim(session, done)?;
                }
                Some(event) = self.payouts.next() => self.on_payout_event(session, event)?,
                Some(share) = session.pool_jobs.next_share() => self.submit(session, &share)?,
                share = settled_share(&mut session.idle_claimer) => {
                    if let Some(claimer) = &session.idle_claimer {
                        claimer.pass_on(&share)?;
                    }
                }
                ended = ended(&mut session.declared_jobs) => {
                    ended.ok_or(SessionFailure::Defect("the task of declared jobs panicked"))??;
                    return Err(SessionFailure::Defect("the task of declared jobs ended"));
                }
                preferred = once(&mut session.scout) => {
                    let preferred = preferred.ok_or(SessionFailure::Defect("the scout panicked"))?;
                    session.change_over.prefer(preferred);
                }
                opened = once(&mut session.change_over.opening) => {
                    let defect = SessionFailure::Defect("opening a session panicked");
                    let (index, opened) = opened.ok_or(defect)?;
                    if let Some(pool) = self.opened(session, index, opened) {
                        return Ok(End::ChangeOver(index, Box::new(pool)));
                    }
                }
                _ = tick.tick() => {
                    let open = self.runner.open() as u64;
                    self.stats.tasks_open.store(open, Ordering::Relaxed);
                    self.payouts.look(Instant::now());
                    self.look_at_credit();
                    self.register_arrived_models(session);
                    self.change_over(session);
                    self.tell_hash_rate(session)?;
                }
            }
            self.start_claim(session);
        }
    }

    fn on_pool(&mut self, session: &mut Session, event: PoolEvent) -> Result<(), SessionFailure> {
        match event {
            PoolEvent::Task(task) => self.on_assigned(session, task)?,
            PoolEvent::Cancelled(task_id) => self.on_cancelled(session, &task_id)?,
            PoolEvent::TranscriptAccepted(task_id) => {
                self.on_transcript_accepted(session, &task_id)?;
            }
            PoolEvent::TranscriptRefused(task_id, code) => {
                self.on_transcript_refused(session, &task_id, &code)?;
            }
            PoolEvent::InvoiceWanted(request) => self.on_invoice_wanted(session, &request)?,
            PoolEvent::Payout(result) => self.on_payout(session, &result)?,
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
                tell(session, PoolNotice::Tip(tip.prev_hash.to_array()));
                self.forward_claim(session, PoolEvent::NewTip(tip));
                self.forward_batch_job(session, batch);
            }
            PoolEvent::SharesAccepted {
                last,
                count,
                difficulty,
            } => {
                if !self.stats.mining.accepted(last, count, difficulty) {
                    session.chatter.useless()?;
                }
                self.forward_claim(session, event);
            }
            PoolEvent::ShareRefused(number, code) => {
                self.on_share_refused(session, number, &code)?;
                self.forward_claim(session, PoolEvent::ShareRefused(number, code));
            }
            PoolEvent::Outcome(outcome) => self.on_outcome(session, outcome)?,
            // There are few of these in a minute; many are answers to nothing.
            PoolEvent::JobAccepted { request_id, job_id } => {
                session.chatter.useless()?;
                tell(session, PoolNotice::JobAccepted { request_id, job_id });
            }
            PoolEvent::JobRefused { request_id, code } => {
                session.chatter.useless()?;
                tell(session, PoolNotice::JobRefused { request_id, code });
            }
            PoolEvent::Other => session.chatter.useless()?,
            answer => {
                session.chatter.useless()?;
                self.forward_claim(session, answer);
            }
        }
        Ok(())
    }

    /// Submits a share of the pool's own job.
    fn submit(&self, session: &Session, share: &FoundShare) -> Result<(), OutboxError> {
        let Some(job_id) = share.upstream_job_id else {
            return Ok(());
        };
        let number = session.numbers.fetch_add(1, Ordering::Relaxed);
        let message = session.pool.channel().share(number, job_id, share);
        let open_shares = &self.stats.mining.open_shares;
        open_shares.submitted(number, &share.target);
        session.pool.send(&message)
    }
}

/// Hands what the pool said to the task of declared jobs, if there is one.
fn tell(session: &Session, notice: PoolNotice) {
    if let Some(declared_jobs) = &session.declared_jobs {
        declared_jobs.tell(notice);
    }
}

/// Waits for the end of the task of declared jobs; without one for ever. Cancellation-safe.
async fn ended(declared_jobs: &mut Option<DeclaredJobs>) -> Option<Result<(), OutboxError>> {
    match declared_jobs {
        Some(declared_jobs) => declared_jobs.ended().await,
        None => std::future::pending().await,
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
