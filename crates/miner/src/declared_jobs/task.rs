//! The task: what it owns, what it waits for, and what it does next.

mod declaration;
mod display;

use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::OutboxError;
use dovetail_templates::WorkSnapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::candidate::Candidate;
use super::declaration_rate::DeclarationRate;
use super::declaration_step::{Done, Step};
use super::next_job::{self, Accepted, NextJob, View};
use super::tips::Tips;
use super::{DeclaredJobsOptions, Demand, JobError, PoolNotice, ShareAnswer};
use crate::current_job::{BatchDisplay, CurrentJob, DeclaredDisplay};
use crate::declarator_client::Declarator;
use crate::job::{FoundShare, SHARES_WAITING_MAX, SharedJob};
use crate::keys::WorkerKeys;
use crate::pool_session::Channel;
use crate::search::Hash256;
use crate::stats;
use crate::submitter::{AcceptedJob, Submitter};
use crate::timer::at;

/// How long a batch waits for the end of another declaration.
const YIELD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a declaration whose job has found a block is gone on with on the tip that the block made: the
/// declarator and the pool may hear of the block from us first, and it is worth a moment of hashing.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(2);

/// What a task is made of.
#[derive(Debug)]
pub struct Start {
    /// How jobs are made.
    pub options: DeclaredJobsOptions,
    /// Who declares them.
    pub keys: WorkerKeys,
    /// Where devices see them.
    pub current_job: Arc<CurrentJob>,
    /// Takes their shares.
    pub submitter: Submitter,
    /// The channel as the session last saw it.
    pub channel: watch::Receiver<Channel>,
}

/// The job that is being declared.
struct Attempt {
    work: Arc<WorkSnapshot>,
    channel: Channel,
    batch: Option<(BatchRoot, u64)>,
    /// Give it to devices before it is accepted.
    at_once: bool,
    since: Instant,
}

/// The newest job that the pool has accepted.
struct Newest {
    job: SharedJob,
    accepted: AcceptedJob,
    template: u64,
    since: Instant,
}

pub(super) struct Task {
    options: DeclaredJobsOptions,
    keys: WorkerKeys,
    current_job: Arc<CurrentJob>,
    /// Gives devices our jobs, between batches too ..
    display: Option<Arc<DeclaredDisplay>>,
    /// .. or, where they are on the pool's jobs between batches, a job that carries a batch.
    batch_display: Option<BatchDisplay>,
    submitter: Submitter,
    channel: watch::Receiver<Channel>,
    work: watch::Receiver<Option<Arc<WorkSnapshot>>>,
    /// The newest work that was looked at.
    newest_work: Option<Arc<WorkSnapshot>>,
    /// There will be no more work.
    source_over: bool,
    /// Whether our node has been away for too long to work on what it gave last.
    stale: watch::Receiver<bool>,
    demand: watch::Receiver<Demand>,
    answers: mpsc::Sender<ShareAnswer>,
    notices: mpsc::Receiver<PoolNotice>,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
    /// To the declarator, while no step has it.
    connection: Option<Declarator>,
    /// The outputs that the last token asked for: the next one will ask for the same.
    payout: Option<Vec<u8>>,
    step: Step,
    attempt: Option<Attempt>,
    candidate: Option<Candidate>,
    accepted: Option<Newest>,
    /// The search on this machine for the share of a batch.
    search: Option<AbortOnDropHandle<()>>,
    /// The last request for a share that was answered.
    answered: u64,
    rate: DeclarationRate,
    tips: Tips,
    /// Until then devices stay on what they have.
    hold_until: Option<Instant>,
    /// Why devices are given the pool's jobs, if they are.
    fallen_back: Option<String>,
    /// Why the last attempt failed, if it did.
    failure: Option<String>,
    /// The last job that carried a batch was refused: what is wrong may be the batch.
    batch_refused: bool,
    /// The tip on which a job was refused as stale.
    stale_on: Option<Hash256>,
}

impl Start {
    pub(super) fn task(
        self,
        display: Option<Arc<DeclaredDisplay>>,
        demand: watch::Receiver<Demand>,
        answers: mpsc::Sender<ShareAnswer>,
        notices: mpsc::Receiver<PoolNotice>,
    ) -> Task {
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        let mut work = self.options.blocks.templates().subscribe();
        work.mark_changed();
        let mut stale = self.options.blocks.templates().staleness();
        stale.mark_changed();
        Task {
            options: self.options,
            keys: self.keys,
            current_job: self.current_job,
            display,
            batch_display: None,
            submitter: self.submitter,
            channel: self.channel,
            work,
            newest_work: None,
            source_over: false,
            stale,
            demand,
            answers,
            notices,
            offers,
            shares,
            connection: None,
            payout: None,
            step: Step::Idle,
            attempt: None,
            candidate: None,
            accepted: None,
            search: None,
            answered: 0,
            rate: DeclarationRate::default(),
            tips: Tips::default(),
            hold_until: None,
            fallen_back: None,
            failure: None,
            batch_refused: false,
            stale_on: None,
        }
    }
}

impl Task {
    /// Works until the session is over.
    ///
    /// # Errors
    /// The pool connection is gone.
    pub(super) async fn run(mut self) -> Result<(), OutboxError> {
        loop {
            self.reconsider();
            let wake = self.wake();
            tokio::select! {
                done = self.step.done() => self.on_done(done)?,
                Some(share) = self.shares.recv() => self.on_share(share)?,
                notice = self.notices.recv() => match notice {
                    Some(notice) => self.on_notice(notice)?,
                    None => return Ok(()),
                },
                changed = self.work.changed(), if !self.source_over => match changed {
                    Ok(()) => self.on_work()?,
                    Err(_) => {
                        self.source_over = true;
                        self.fall_back("our template source stopped".to_owned());
                    }
                },
                Ok(()) = self.stale.changed() => self.on_staleness(),
                changed = self.demand.changed() => match changed {
                    Ok(()) => self.on_demand(),
                    Err(_) => return Ok(()),
                },
                changed = self.channel.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = at(wake) => {}
            }
        }
    }

    /// Our node's newest work has changed. Shares that were found before go first: if one is a block,
    /// the new tip is of its own making.
    fn on_work(&mut self) -> Result<(), OutboxError> {
        for _ in 0..SHARES_WAITING_MAX {
            match self.shares.try_recv() {
                Ok(share) => self.on_share(share)?,
                Err(_) => break,
            }
        }
        self.newest_work = self.work.borrow_and_update().clone();
        if let Some(work) = &self.newest_work
            && self.tips.ours(work.prev_hash())
        {
            self.rate.new_tip(Instant::now());
        }
        Ok(())
    }

    /// Our node is away for too long, or back. Meanwhile devices are on the pool's jobs: nobody knows whether a block on
    /// ours could be one.
    fn on_staleness(&mut self) {
        let stale = *self.stale.borrow_and_update();
        match stale {
            true => {
                self.give_up(None);
                self.fall_back("our node is away".to_owned());
            }
            false if self.fallen_back.is_some() => {
                self.display_accepted();
            }
            false => {}
        }
    }

    fn on_notice(&mut self, notice: PoolNotice) -> Result<(), OutboxError> {
        let asked = match &self.step {
            Step::Handing { request_id, .. } => Some(*request_id),
            _ => None,
        };
        match notice {
            PoolNotice::JobAccepted { request_id, job_id } if asked == Some(request_id) => {
                self.on_accepted(job_id)
            }
            PoolNotice::JobRefused { request_id, code } if asked == Some(request_id) => {
                self.fail(JobError::Refused(code));
                Ok(())
            }
            // Answers to jobs that were given up.
            PoolNotice::JobAccepted { .. } | PoolNotice::JobRefused { .. } => Ok(()),
            PoolNotice::Tip(tip) => {
                if self.tips.announced(tip) {
                    self.accepted = None;
                    self.rate.new_tip(Instant::now());
                }
                if self.fallen_back.is_some() {
                    // It may be back where our job is.
                    self.display_accepted();
                }
                Ok(())
            }
        }
    }

    fn on_demand(&mut self) {
        let Demand::Nothing { hash_on } = *self.demand.borrow_and_update() else {
            return;
        };
        self.search = None;
        let accepted = self.accepted.as_ref().map(|newest| newest.job.id);
        if let Some(display) = self.batch_display.take()
            && hash_on
            && accepted == Some(display.job().id)
        {
            display.settle();
        }
    }

    /// A share of one of our jobs: kept while the job is not accepted yet, given to whoever asked for it, or
    /// submitted as an ordinary one.
    fn on_share(&mut self, share: FoundShare) -> Result<(), OutboxError> {
        if let Some(candidate) = &mut self.candidate
            && candidate.job.id == share.job_id
        {
            match candidate.kept.len() < SHARES_WAITING_MAX {
                true => candidate.kept.push(share),
                false => stats::count(&self.current_job.stats().shares_lost),
            }
            return Ok(());
        }
        if let Some(request) = self.open_request()
            && let Some(job) = self.submitter.find(share.job_id)
            && job.request == Some(request)
            // If it is a block, the new tip is of its own making.
            && (share.block || self.tip() == Some(job.prev_hash))
        {
            let found = Box::new((job.clone(), share.clone()));
            if self.answer(request, Ok(found)) {
                return Ok(());
            }
        }
        self.submitter.pass_on(&share)
    }

    fn on_done(&mut self, done: Done) -> Result<(), OutboxError> {
        self.step = Step::Idle;
        match done {
            Done::Prepared(Ok(prepared)) => {
                self.declare(prepared);
                Ok(())
            }
            Done::Prepared(Err(error)) => {
                self.fail(error);
                Ok(())
            }
            Done::Declared(declared) => self.hand_over(declared),
        }
    }

    /// Gives up what was overtaken, begins with the next job, falls back: whatever it is time for.
    fn reconsider(&mut self) {
        let now = Instant::now();
        if matches!(&self.step, Step::Handing { until, .. } if *until <= now) {
            self.fail(JobError::TimeOut);
        }
        if self.is_overtaken(now) {
            tracing::debug!("gave up a declaration that was overtaken");
            self.give_up(None);
        }
        if self.is_away()
            && let Some(request) = self.open_request()
        {
            let error = JobError::Templates("it is away".to_owned());
            self.answer(request, Err(error));
        }
        if self.step.is_idle()
            && let Some((next, work, when)) = self.next_job(now)
            && when <= now
        {
            self.begin(next, work);
        }
        self.hold(now);
    }

    /// Whether nobody has any use for the attempt under way.
    fn is_overtaken(&self, now: Instant) -> bool {
        let Some(attempt) = &self.attempt else {
            return false;
        };
        let moved = self.tip() != Some(attempt.work.prev_hash())
            && self.spared_until(attempt).is_none_or(|until| until <= now);
        let dropped = attempt
            .batch
            .is_some_and(|(_, request)| self.open_request() != Some(request));
        let awaited = self.yields_at(attempt).is_some_and(|at| at <= now);
        moved || dropped || awaited
    }

    /// When an attempt whose job has found a block is given up for a new tip.
    fn spared_until(&self, attempt: &Attempt) -> Option<Instant> {
        let kept = &self.candidate.as_ref()?.kept;
        let found = kept.iter().any(|share| share.block);
        found.then(|| attempt.since + BLOCK_TIME_MAX)
    }

    /// When an attempt is given up for a batch that waits.
    fn yields_at(&self, attempt: &Attempt) -> Option<Instant> {
        let request = self.open_request()?;
        let serves = attempt.batch.is_some_and(|(_, of)| of == request);
        (!serves).then(|| attempt.since + YIELD_TIME_MAX)
    }

    /// The job to be declared next, and when it may be begun with.
    fn next_job(&self, now: Instant) -> Option<(NextJob, Arc<WorkSnapshot>, Instant)> {
        if self.is_away() {
            return None;
        }
        let work = self.newest_work.clone()?;
        let channel = self.channel.borrow();
        let accepted = self.accepted.as_ref().map(|newest| Accepted {
            tip: newest.accepted.prev_hash,
            template: newest.template,
            request: newest.accepted.request,
            channel: &newest.accepted.channel,
        });
        let next = next_job::next_job(&View {
            tip: work.prev_hash(),
            template: work.template_id(),
            channel: &channel,
            accepted,
            demand: *self.demand.borrow(),
            answered: self.answered,
            between_batches: self.options.between_batches,
        })?;
        let has_job = self
            .accepted
            .as_ref()
            .is_some_and(|newest| self.is_on_our_tip(newest));
        // Devices need a job that is accepted before another that may not be.
        let plain_first = self.batch_refused && self.options.between_batches && !has_job;
        let next = match next {
            NextJob::Batch { .. } if plain_first => NextJob::Tip,
            next => next,
        };
        let earliest = self.rate.earliest(now);
        let when = match (next, &self.accepted) {
            // The pool would refuse a better job on a tip that it has left.
            (NextJob::Renewal, Some(newest)) if self.lives(newest) => {
                earliest.max(newest.since + self.options.renew_interval)
            }
            (NextJob::Renewal, _) => return None,
            (NextJob::Batch { .. } | NextJob::Tip, _) => earliest,
        };
        Some((next, work, when))
    }

    /// When to reconsider without any event.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let answer = match &self.step {
            Step::Handing { until, .. } => Some(*until),
            _ => None,
        };
        let next = match self.step.is_idle() {
            true => self.next_job(now).map(|(_, _, when)| when),
            false => None,
        };
        let attempt = self.attempt.as_ref();
        let yields = attempt.and_then(|attempt| self.yields_at(attempt));
        let spared = attempt.and_then(|attempt| self.spared_until(attempt));
        let spared = spared.filter(|until| *until > now);
        let display = self.display_until();
        [answer, next, yields, spared, display, self.hold_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Our node's tip.
    fn tip(&self) -> Option<Hash256> {
        self.newest_work.as_ref().map(|work| work.prev_hash())
    }

    fn is_on_our_tip(&self, newest: &Newest) -> bool {
        self.tip() == Some(newest.accepted.prev_hash)
    }

    /// Whether the pool takes shares of the job, as far as is known.
    fn lives(&self, newest: &Newest) -> bool {
        !self.is_away() && self.is_on_our_tip(newest) && !self.tips.pool_is_elsewhere(true)
    }

    /// Whether our node gives no work, and what it gave last is not to be worked on.
    fn is_away(&self) -> bool {
        self.source_over || *self.stale.borrow()
    }

    /// The request for a share that waits for one.
    fn open_request(&self) -> Option<u64> {
        match *self.demand.borrow() {
            Demand::Share { request, .. } if request != self.answered => Some(request),
            _ => None,
        }
    }

    /// Answers a request, once. Whether anybody hears it.
    fn answer(
        &mut self,
        request: u64,
        share: Result<Box<(AcceptedJob, FoundShare)>, JobError>,
    ) -> bool {
        self.answered = request;
        self.answers
            .try_send(ShareAnswer { request, share })
            .is_ok()
    }
}

impl Task {
    /// Shares of a job that is not accepted are lost.
    fn lose(&self, candidate: Option<&Candidate>) {
        let lost = candidate.map_or(0, |candidate| candidate.kept.len());
        stats::add(&self.current_job.stats().shares_lost, lost as u64);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.lose(self.candidate.as_ref());
    }
}
