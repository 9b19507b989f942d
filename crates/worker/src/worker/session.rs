//! One session with a pool: what the pool, the engine, claims and devices say, each handed to whom it concerns.

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
use dovetail_miner::pool_session::{Channel, PoolEvent, PoolSession, SessionError};
use dovetail_serving::transcripts::ReadyBatch;
use dovetail_sv2::OutboxError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::session_failure::SessionFailure;
use super::{ClaimDone, Worker};
use crate::claim::{Claimer, SentClaims};

pub(super) use chatter::Chatter;
use claims::settled_share;
use tasks::deliver;

/// How often expiry and batches are looked at, besides at events.
const TICK: Duration = Duration::from_millis(250);
/// How long a change to a preferred pool waits for running tasks and claims to end.
const CHANGE_OVER_TIME_MAX: Duration = Duration::from_secs(30);

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
    /// A pool to change over to at the next quiet moment, or at this time.
    pub(super) wanted: Option<(usize, Instant)>,
    /// The session with it, while it is being opened.
    pub(super) opening: Option<AbortOnDropHandle<(usize, Result<PoolSession, SessionError>)>>,
}

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
                    let by = Instant::now() + CHANGE_OVER_TIME_MAX;
                    session.wanted = Some((preferred, by));
                }
                opened = once(&mut session.opening) => {
                    let defect = SessionFailure::Defect("opening a session panicked");
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
                    self.stats.tasks_open.store(open, Ordering::Relaxed);
                    self.payouts.look(Instant::now());
                    self.look_at_credit();
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
            // There are few of these; many are answers to nothing.
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
                if session.in_flight.is_none() {
                    session.chatter.useless()?;
                }
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
