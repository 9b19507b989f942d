//! The task: what it owns, what it waits for, and what it does next.

mod declaring;
mod showing;

use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::BatchRoot;
use dovetail_sv2::OutboxError;
use dovetail_templates::WorkSnapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::build::Built;
use super::duty::{self, Duty, Standing, View};
use super::pace::Pace;
use super::steps::{Done, Step};
use super::tips::Tips;
use super::{JobError, News, OwnEvent, OwnOptions, Wanted};
use crate::accepted::{AcceptedJob, Submitter};
use crate::board::Board;
use crate::declarator::Declarator;
use crate::job::{FoundShare, SHARES_WAITING_MAX, SharedJob};
use crate::keys::WorkerKeys;
use crate::search::Hash256;
use crate::session::Channel;
use crate::stats::Stats;

/// How long a batch waits for the end of another declaration.
const YIELD_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a declaration whose job has found a block is gone on with on the tip that the block made: the
/// declarator and the pool may hear of the block from us first, and it is worth a moment of hashing.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(2);

/// What a task is made of.
pub(crate) struct Start {
    pub(crate) options: OwnOptions,
    pub(crate) keys: WorkerKeys,
    pub(crate) board: Arc<Board>,
    pub(crate) submitter: Submitter,
    pub(crate) channel: watch::Receiver<Channel>,
}

/// The job that is being declared.
struct Attempt {
    work: Arc<WorkSnapshot>,
    channel: Channel,
    batch: Option<(BatchRoot, u64)>,
    /// Show it before it is accepted.
    at_once: bool,
    since: Instant,
}

/// The newest job that the pool has accepted.
struct Current {
    job: SharedJob,
    accepted: AcceptedJob,
    template: u64,
    since: Instant,
}

pub(super) struct Task {
    options: OwnOptions,
    keys: WorkerKeys,
    board: Arc<Board>,
    submitter: Submitter,
    channel: watch::Receiver<Channel>,
    work: watch::Receiver<Option<Arc<WorkSnapshot>>>,
    /// The newest work that was looked at.
    newest: Option<Arc<WorkSnapshot>>,
    /// There will be no more work.
    source_over: bool,
    wanted: watch::Receiver<Wanted>,
    news: mpsc::Sender<News>,
    events: mpsc::Receiver<OwnEvent>,
    offers: mpsc::Sender<FoundShare>,
    shares: mpsc::Receiver<FoundShare>,
    /// To the declarator, while no step has it.
    connection: Option<Declarator>,
    /// The outputs that the last token asked for: the next one will ask for the same.
    payout: Option<Vec<u8>>,
    step: Step,
    attempt: Option<Attempt>,
    pending: Option<Built>,
    current: Option<Current>,
    /// The search on this machine for the share of a batch.
    search: Option<AbortOnDropHandle<()>>,
    /// The last request for a share that was answered.
    answered: u64,
    pace: Pace,
    tips: Tips,
    /// Until then hashers stay on what they have.
    hold_until: Option<Instant>,
    /// Why hashers are given the pool's jobs, if they are.
    fallen_back: Option<String>,
    /// Why the last attempt came to nothing, if it did.
    failure: Option<String>,
    /// The last job that bore a batch was refused: what is wrong may be the batch.
    batch_refused: bool,
    /// The tip on which a job was refused as stale.
    stale_on: Option<Hash256>,
}

impl Start {
    pub(super) fn task(
        self,
        wanted: watch::Receiver<Wanted>,
        news: mpsc::Sender<News>,
        events: mpsc::Receiver<OwnEvent>,
    ) -> Task {
        // Before the session hears of any job of the pool.
        if self.options.between_batches {
            self.board.reserve();
        }
        let (offers, shares) = mpsc::channel(SHARES_WAITING_MAX);
        let mut work = self.options.templates.subscribe();
        work.mark_changed();
        Task {
            options: self.options,
            keys: self.keys,
            board: self.board,
            submitter: self.submitter,
            channel: self.channel,
            work,
            newest: None,
            source_over: false,
            wanted,
            news,
            events,
            offers,
            shares,
            connection: None,
            payout: None,
            step: Step::Idle,
            attempt: None,
            pending: None,
            current: None,
            search: None,
            answered: 0,
            pace: Pace::default(),
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
                event = self.events.recv() => match event {
                    Some(event) => self.on_event(event)?,
                    None => return Ok(()),
                },
                changed = self.work.changed(), if !self.source_over => match changed {
                    Ok(()) => self.on_work()?,
                    Err(_) => {
                        self.source_over = true;
                        self.fall_back("our template source stopped".to_owned());
                    }
                },
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.on_wanted(),
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
        self.newest = self.work.borrow_and_update().clone();
        if let Some(work) = &self.newest
            && self.tips.ours(work.prev_hash())
        {
            self.pace.new_tip(Instant::now());
        }
        Ok(())
    }

    fn on_event(&mut self, event: OwnEvent) -> Result<(), OutboxError> {
        let asked = match &self.step {
            Step::Handing { request_id, .. } => Some(*request_id),
            _ => None,
        };
        match event {
            OwnEvent::JobAccepted { request_id, job_id } if asked == Some(request_id) => {
                self.on_accepted(job_id)
            }
            OwnEvent::JobRefused { request_id, code } if asked == Some(request_id) => {
                self.fail(JobError::Refused(code));
                Ok(())
            }
            // Answers to jobs that were given up.
            OwnEvent::JobAccepted { .. } | OwnEvent::JobRefused { .. } => Ok(()),
            OwnEvent::Tip(tip) => {
                self.tips.pools(tip);
                // It is back where our job is.
                if let (Some(current), true) = (&self.current, self.fallen_back.is_some())
                    && self.lives(current)
                {
                    let job = current.job.clone();
                    self.show(&job, None);
                }
                Ok(())
            }
        }
    }

    fn on_wanted(&mut self) {
        let wanted = *self.wanted.borrow_and_update();
        let Wanted::Nothing { hash_on } = wanted else {
            return;
        };
        self.search = None;
        if !self.options.between_batches
            && let Some(current) = &self.current
        {
            match hash_on {
                true => self.board.release(&current.job),
                false => self.board.withdraw(&current.job),
            }
        }
    }

    /// A share of one of our jobs: kept while the job is pending, given to the claim that wants it, or
    /// submitted as an ordinary one.
    fn on_share(&mut self, share: FoundShare) -> Result<(), OutboxError> {
        if let Some(pending) = &mut self.pending
            && pending.job.id == share.job_id
        {
            match pending.kept.len() < SHARES_WAITING_MAX {
                true => pending.kept.push(share),
                false => Stats::count(&self.board.stats().shares_lost),
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

    /// Does what is due: gives up what was overtaken, begins with the next job, falls back.
    fn reconsider(&mut self) {
        let now = Instant::now();
        if matches!(&self.step, Step::Handing { until, .. } if *until <= now) {
            self.fail(JobError::TimeOut);
        }
        if self.is_overtaken(now) {
            tracing::debug!("gave up a declaration that was overtaken");
            self.give_up(None);
        }
        if self.source_over
            && let Some(request) = self.open_request()
        {
            let error = JobError::Templates("it stopped".to_owned());
            self.answer(request, Err(error));
        }
        if self.step.is_idle()
            && let Some((duty, work, when)) = self.due(now)
            && when <= now
        {
            self.begin(duty, work);
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
        let kept = &self.pending.as_ref()?.kept;
        let found = kept.iter().any(|share| share.block);
        found.then(|| attempt.since + BLOCK_TIME_MAX)
    }

    /// When an attempt is given up for a batch that waits.
    fn yields_at(&self, attempt: &Attempt) -> Option<Instant> {
        let request = self.open_request()?;
        let serves = attempt.batch.is_some_and(|(_, of)| of == request);
        (!serves).then(|| attempt.since + YIELD_TIME_MAX)
    }

    /// The job that is due, and when it may be begun with.
    fn due(&self, now: Instant) -> Option<(Duty, Arc<WorkSnapshot>, Instant)> {
        if self.source_over {
            return None;
        }
        let work = self.newest.clone()?;
        let channel = self.channel.borrow();
        let standing = self.current.as_ref().map(|current| Standing {
            tip: current.accepted.prev_hash,
            template: current.template,
            request: current.accepted.request,
            channel: &current.accepted.channel,
        });
        let duty = duty::due(&View {
            tip: work.prev_hash(),
            template: work.template_id(),
            channel: &channel,
            standing,
            wanted: *self.wanted.borrow(),
            answered: self.answered,
            between_batches: self.options.between_batches,
        })?;
        let standing = self
            .current
            .as_ref()
            .is_some_and(|job| self.is_on_our_tip(job));
        // Hashers need a job that is accepted before another that may not be.
        let plain_first = self.batch_refused && self.options.between_batches && !standing;
        let duty = match duty {
            Duty::Batch { .. } if plain_first => Duty::Tip,
            duty => duty,
        };
        let earliest = self.pace.earliest(now);
        let when = match (duty, &self.current) {
            // The pool would refuse a better job on a tip that it has left.
            (Duty::Renewal, Some(current)) if self.lives(current) => {
                earliest.max(current.since + self.options.renew_interval)
            }
            (Duty::Renewal, _) => return None,
            (Duty::Batch { .. } | Duty::Tip, _) => earliest,
        };
        Some((duty, work, when))
    }

    /// When to reconsider without any event.
    fn wake(&self) -> Option<Instant> {
        let now = Instant::now();
        let answer = match &self.step {
            Step::Handing { until, .. } => Some(*until),
            _ => None,
        };
        let next = match self.step.is_idle() {
            true => self.due(now).map(|(_, _, when)| when),
            false => None,
        };
        let attempt = self.attempt.as_ref();
        let yields = attempt.and_then(|attempt| self.yields_at(attempt));
        let spared = attempt.and_then(|attempt| self.spared_until(attempt));
        let spared = spared.filter(|until| *until > now);
        let shown = self.shown_until();
        [answer, next, yields, spared, shown, self.hold_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Our node's tip.
    fn tip(&self) -> Option<Hash256> {
        self.newest.as_ref().map(|work| work.prev_hash())
    }

    fn is_on_our_tip(&self, current: &Current) -> bool {
        self.tip() == Some(current.accepted.prev_hash)
    }

    /// Whether the pool takes shares of the job, as far as is known.
    fn lives(&self, current: &Current) -> bool {
        self.is_on_our_tip(current) && !self.tips.pool_is_elsewhere(true)
    }

    /// The request for a share that waits for one.
    fn open_request(&self) -> Option<u64> {
        match *self.wanted.borrow() {
            Wanted::Share { request, .. } if request != self.answered => Some(request),
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
        self.news.try_send(News { request, share }).is_ok()
    }
}

impl Task {
    /// Shares of a job that comes to nothing are lost.
    fn lose(&self, built: Option<&Built>) {
        let lost = built.map_or(0, |built| built.kept.len());
        Stats::add(&self.board.stats().shares_lost, lost as u64);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.lose(self.pending.as_ref());
    }
}

/// Waits for a time; for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
