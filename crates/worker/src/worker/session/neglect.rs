//! A pool that does not do its part, or asks for more than a worker can do: what is looked at for it, and when the
//! session ends for it.

use std::collections::VecDeque;

use dovetail_miner::message_rate::MessageRate;
use dovetail_sv2::messages::SetNewPrevHash;
use dovetail_templates::TemplateHandle;
use dovetail_units::header::Tip;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Session;
use crate::worker::Worker;
use crate::worker::session_failure::SessionFailure;

/// What a pool may send in a minute. A chain has a block in ten, and jobs come a few a minute; on a test chain that is
/// mined as fast as it goes there are some dozens a second of each. Devices get a few of them.
const TIPS_PER_MINUTE_MAX: u32 = 6_000;
const JOBS_PER_MINUTE_MAX: u32 = 12_000;
/// More tasks than a worker begins.
const TASKS_PER_MINUTE_MAX: u32 = 6_000;

/// The newest tips of our node that the pool's is looked for among: half a day's. A node remembers many more.
const TIPS_COMPARED_MAX: usize = 64;

/// What a pool has asked for lately.
#[derive(Debug)]
pub(in crate::worker) struct Rates {
    tips: MessageRate,
    jobs: MessageRate,
    tasks: MessageRate,
}

impl Default for Rates {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            tips: MessageRate::new(TIPS_PER_MINUTE_MAX, now),
            jobs: MessageRate::new(JOBS_PER_MINUTE_MAX, now),
            tasks: MessageRate::new(TASKS_PER_MINUTE_MAX, now),
        }
    }
}

impl Rates {
    pub(super) fn tip(&mut self) -> Result<(), SessionFailure> {
        bounded(&mut self.tips, "tips")
    }

    pub(super) fn job(&mut self) -> Result<(), SessionFailure> {
        bounded(&mut self.jobs, "jobs")
    }

    pub(super) fn task(&mut self) -> Result<(), SessionFailure> {
        bounded(&mut self.tasks, "tasks")
    }
}

fn bounded(rate: &mut MessageRate, what: &'static str) -> Result<(), SessionFailure> {
    match rate.take(Instant::now()) {
        true => Ok(()),
        false => Err(SessionFailure::Flood(what)),
    }
}

/// The tips of our node.
#[derive(Debug)]
pub(in crate::worker) struct NodeTips {
    tips: watch::Receiver<VecDeque<Tip>>,
    stale: watch::Receiver<bool>,
}

impl NodeTips {
    pub(in crate::worker) fn of(templates: &TemplateHandle) -> Self {
        Self {
            tips: templates.tips(),
            stale: templates.staleness(),
        }
    }

    /// The newest ones, the newest last; none while the node is away for too long to be compared with.
    fn now(&self) -> VecDeque<Tip> {
        if *self.stale.borrow() {
            return VecDeque::new();
        }
        let tips = self.tips.borrow();
        let old = tips.len().saturating_sub(TIPS_COMPARED_MAX);
        tips.range(old..).copied().collect()
    }
}

/// Waits for the next tip of our node; without one for ever. Cancellation-safe.
pub(super) async fn node_moved(node: &mut Option<NodeTips>) {
    if let Some(node) = node
        && node.tips.changed().await.is_ok()
    {
        return;
    }
    // There is no node, or its source has stopped.
    std::future::pending().await
}

impl Worker {
    /// Devices may have another job of the pool.
    pub(super) fn on_job(&self, session: &mut Session) {
        let usable = session.pool_jobs.is_usable();
        session.watch.on_job(usable, Instant::now());
    }

    /// The pool has a new tip. What is wrong with it is said before a device sees it.
    pub(super) fn on_tip(
        &self,
        session: &mut Session,
        tip: &SetNewPrevHash,
    ) -> Result<(), SessionFailure> {
        let tip = Tip {
            prev_hash: tip.prev_hash.to_array(),
            nbits: tip.nbits,
            min_ntime: tip.min_ntime,
        };
        session.watch.on_tip(tip, &tips(session), Instant::now());
        self.check_pool(session)
    }

    /// Our node has a new tip.
    pub(super) fn on_node(&self, session: &mut Session) -> Result<(), SessionFailure> {
        session.watch.on_node(&tips(session), Instant::now());
        self.check_pool(session)
    }

    /// Ends the session if the pool does not do its part.
    pub(super) fn check_pool(&self, session: &mut Session) -> Result<(), SessionFailure> {
        let now = Instant::now();
        if session.numbers.has_accepted_job() {
            session.watch.on_job(true, now);
        }
        let measured = self.stats.mining.measured_hash_rate();
        let hash_rate = measured.unwrap_or(f64::from(session.told_hash_rate.0));
        let target = session.pool.channel().target;
        session.watch.on_target(&target, hash_rate, now);
        session.watch.check(&session.numbers, &tips(session), now)?;
        Ok(())
    }
}

fn tips(session: &Session) -> VecDeque<Tip> {
    session.node.as_ref().map(NodeTips::now).unwrap_or_default()
}
