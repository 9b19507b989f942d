//! The pools in order of preference: what we keep of each while no session is open, which may be tried
//! now, and which is left for good.

use std::time::{Duration, Instant};

use dovetail_miner::current_job::Base;
use dovetail_miner::keys::WorkerKeys;
use dovetail_miner::pool_session::{PoolOptions, PoolSession, SessionError, probe};
use dovetail_miner::solo;
use dovetail_miner::stats::Upstream as InUse;
use dovetail_serving::transcripts::Transcripts;
use dovetail_templates::{Readiness, tell_payout};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::Worker;
use super::session_failure::SessionFailure;
use super::uncredited::Uncredited;
use crate::config::{JobDeclarator, Pool};

/// The waits between attempts at one pool.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);
/// Time for opening a session. A pool that needs longer is passed over for the next.
const OPEN_TIME_MAX: Duration = Duration::from_secs(8);
/// How often the worker looks whether a pool that it prefers is there, at most and at least.
const PROBE_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(15);

/// No pool may be used any more, and there is no solo mining to fall back on.
#[derive(Debug, thiserror::Error)]
#[error(
    "every pool was left for breaking its own beacon, and there is no [solo] to go on with; to go back to a \
     pool, take its entry out of {beacons}"
)]
pub struct NoPoolLeft {
    /// The file that says which pools were left, and why.
    beacons: String,
}

/// One pool.
pub(super) struct Upstream {
    pub(super) options: PoolOptions,
    /// Where jobs of ours are declared for it, and which.
    pub(super) declarator: Option<JobDeclarator>,
    /// Transcripts of its tasks that wait for a claim.
    pub(super) transcripts: Transcripts,
    /// When the oldest transcript that is ready began to wait for others.
    pub(super) waiting_since: Option<Instant>,
    /// Before this no claim is started, after one failed.
    pub(super) no_claim_before: Option<Instant>,
    /// Shares of claims that were accepted without an outcome, since the last outcome.
    pub(super) unexplained: u32,
    /// What it has not credited.
    pub(super) uncredited: Uncredited,
    not_before: Instant,
    wait: Duration,
}

impl Upstream {
    pub(super) fn new(pool: &Pool, options: PoolOptions) -> Self {
        Self {
            options,
            declarator: pool.job_declarator.clone(),
            transcripts: Transcripts::default(),
            waiting_since: None,
            no_claim_before: None,
            unexplained: 0,
            uncredited: Uncredited::default(),
            not_before: Instant::now(),
            wait: *BACKOFF.start(),
        }
    }

    /// A session that lasted this long is over, or one did not open. After a long one the pool may be
    /// asked again at once: most likely only the connection broke.
    fn ended(&mut self, lasted: Duration, now: Instant) {
        if lasted > *BACKOFF.end() {
            self.wait = *BACKOFF.start();
            self.not_before = now;
        } else {
            self.not_before = now + self.wait;
            self.wait = (self.wait * 2).min(*BACKOFF.end());
        }
    }
}

impl Worker {
    /// A session with the first pool in order of preference that opens one. Meanwhile devices stay on
    /// the job that they have, or mine solo once every pool has failed.
    ///
    /// # Errors
    /// There is no pool left to wait for.
    pub(super) async fn find_pool(
        &mut self,
        told: &mut impl FnMut(&Self, Readiness<'_>),
    ) -> Result<(usize, PoolSession), NoPoolLeft> {
        let mut solo_mining = None;
        let mut last_failure = None;
        loop {
            for index in 0..self.upstreams.len() {
                let due = Instant::now() >= self.upstreams[index].not_before;
                if !due || self.has_left(index) {
                    continue;
                }
                let options = self.options(index);
                match open(&options, &self.keys).await {
                    Ok(pool) => return Ok((index, pool)),
                    Err(error) => {
                        tracing::warn!(pool = options.address, %error, "no session with the pool");
                        last_failure = Some(format!("{}: {error}", options.address));
                        self.upstreams[index].ended(Duration::ZERO, Instant::now());
                    }
                }
            }
            self.stats.mining.set_upstream(InUse::None);
            if solo_mining.is_none() {
                solo_mining = self.mine_solo();
            }
            if solo_mining.is_some() {
                self.stats.mining.set_upstream(InUse::Solo);
                told(self, Readiness::Ready);
            } else if let Some(failure) = &last_failure {
                let reason =
                    format!("no session with any pool; the last that was tried is {failure}");
                told(self, Readiness::NotReady(&reason));
            }
            let usable = (0..self.upstreams.len()).filter(|index| !self.has_left(*index));
            match usable.map(|index| self.upstreams[index].not_before).min() {
                Some(next) => tokio::time::sleep_until(next.into()).await,
                None if solo_mining.is_some() => std::future::pending().await,
                None => {
                    let beacons = self.beacons.path().display().to_string();
                    return Err(NoPoolLeft { beacons });
                }
            }
        }
    }

    /// What we tell a pool about us now.
    pub(super) fn options(&self, index: usize) -> PoolOptions {
        let mut options = self.upstreams[index].options.clone();
        options.models = self.models.ids();
        if let Some(measured) = self.stats.mining.measured_hash_rate() {
            let measured = measured as f32;
            options.nominal_hash_rate = measured;
        }
        options
    }

    /// Whether the pool broke its beacon: it is not used any more.
    fn has_left(&self, index: usize) -> bool {
        let name = self.upstreams[index].options.name();
        self.beacons.left(&name).is_some()
    }

    /// The session with this pool is over.
    pub(super) fn session_ended(&mut self, index: usize, lasted: Duration, error: &SessionFailure) {
        let upstream = &mut self.upstreams[index];
        tracing::warn!(pool = upstream.options.address, %error, "the session with the pool is over");
        upstream.ended(lasted, Instant::now());
        if let Some(reason) = self.beacons.left(&upstream.options.name()) {
            tracing::error!(pool = upstream.options.address, reason, file = %self.beacons.path().display(), "this worker does not use the pool any more, because the pool broke its word; to use it again, delete its entry from the file and restart");
        }
    }

    fn mine_solo(&self) -> Option<AbortOnDropHandle<()>> {
        let (Some(blocks), Some(config)) = (&self.blocks, &self.config.solo) else {
            return None;
        };
        let payout = config
            .payout()
            .inspect_err(|reason| tracing::error!(reason, "cannot mine solo"))
            .ok()?;
        tracing::warn!("no pool can be reached; mining solo");
        tell_payout(&payout, config.network);
        let run = solo::run(blocks.clone(), payout, Base::new(self.current_job.clone()));
        Some(AbortOnDropHandle::new(tokio::spawn(run)))
    }

    /// Looks after the pools that are preferred to this one, if there are any to go back to.
    pub(super) fn scout(&self, index: usize) -> Option<AbortOnDropHandle<usize>> {
        let preferred: Vec<(usize, PoolOptions)> = (0..index)
            .filter(|preferred| !self.has_left(*preferred))
            .map(|preferred| (preferred, self.upstreams[preferred].options.clone()))
            .collect();
        if preferred.is_empty() {
            return None;
        }
        let steady = Duration::from_secs(self.config.worker.pool_return_s);
        Some(AbortOnDropHandle::new(tokio::spawn(scout(
            preferred, steady,
        ))))
    }
}

/// Opens a session within bounds.
pub(super) async fn open(
    options: &PoolOptions,
    keys: &WorkerKeys,
) -> Result<PoolSession, SessionError> {
    timeout(OPEN_TIME_MAX, PoolSession::open(options, keys))
        .await
        .map_err(|_| SessionError::TimeOut)?
}

/// Comes back with the first of the pools that has been there for `steady` without a break.
async fn scout(pools: Vec<(usize, PoolOptions)>, steady: Duration) -> usize {
    let interval = (steady / 4).clamp(*PROBE_INTERVAL.start(), *PROBE_INTERVAL.end());
    let mut there_since: Vec<Option<Instant>> = vec![None; pools.len()];
    loop {
        for ((index, options), since) in pools.iter().zip(&mut there_since) {
            match timeout(OPEN_TIME_MAX, probe(options)).await {
                Ok(Ok(())) => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= steady {
                        return *index;
                    }
                }
                _ => *since = None,
            }
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Upstream {
        let pool = Pool {
            address: "127.0.0.1:1".to_owned(),
            authority_public_key: None,
            job_declarator: None,
        };
        let options = PoolOptions {
            address: pool.address.clone(),
            authority: None,
            models: Vec::new(),
            max_tasks: 1,
            nominal_hash_rate: 0.0,
            declares_jobs: false,
        };
        Upstream::new(&pool, options)
    }

    #[test]
    fn a_pool_that_fails_is_tried_ever_later_and_a_long_session_forgives_it() {
        let (mut upstream, now) = (upstream(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            upstream.ended(Duration::ZERO, now);
            waits.push(upstream.not_before - now);
        }
        assert_eq!(waits.first(), Some(BACKOFF.start()));
        assert_eq!(waits.last(), Some(BACKOFF.end()));
        upstream.ended(2 * *BACKOFF.end(), now);
        assert_eq!(upstream.not_before, now);
        upstream.ended(Duration::ZERO, now);
        assert_eq!(upstream.not_before - now, *BACKOFF.start());
    }
}
