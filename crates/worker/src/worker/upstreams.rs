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
use crate::claim::ClaimShares;
use crate::config::{JobDeclarator, Pool};

/// The waits between attempts at one pool.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);
/// The least wait after a session that the pool did not do its part in: it has just cost some time.
const FAULT_WAIT_MIN: Duration = Duration::from_secs(15);
/// How long a preferred pool that failed again and again must have been there before the worker returns to it, at most.
const RETURN_WAIT_MAX: Duration = Duration::from_secs(3_600);
/// What the wait grows from where the setting is shorter.
const RETURN_WAIT_STEP: Duration = Duration::from_secs(5);
/// A session that lasted this long says that the pool is a good one.
const GOOD_SESSION: Duration = Duration::from_secs(1_800);
/// Time for opening a session. A pool that needs longer is passed over for the next.
const OPEN_TIME_MAX: Duration = Duration::from_secs(8);
/// How often the worker looks whether a pool that it prefers is there, at most and at least.
const PROBE_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(250)..=Duration::from_secs(15);

/// No pool may be used any more, and there is no solo mining to fall back on.
#[derive(Debug, thiserror::Error)]
#[error(
    "every pool was left for breaking its word, and there is no [solo] to go on with; to go back to a \
     pool, take its entry out of {file}"
)]
pub struct NoPoolLeft {
    /// The file that says which pools were left, and why.
    file: String,
}

/// One pool.
pub(super) struct Upstream {
    pub(super) options: PoolOptions,
    /// Where jobs of ours are declared for it, and which.
    pub(super) declarator: Option<JobDeclarator>,
    /// Transcripts of its tasks that wait for a claim.
    pub(super) transcripts: Transcripts,
    /// Which shares claimed which batch. It outlives sessions: the sample belongs to the batch.
    pub(super) claim_shares: ClaimShares,
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
    /// Sessions in a row that failed.
    failures: u32,
}

impl Upstream {
    pub(super) fn new(pool: &Pool, options: PoolOptions) -> Self {
        Self {
            options,
            declarator: pool.job_declarator.clone(),
            transcripts: Transcripts::default(),
            claim_shares: ClaimShares::default(),
            waiting_since: None,
            no_claim_before: None,
            unexplained: 0,
            uncredited: Uncredited::default(),
            not_before: Instant::now(),
            wait: *BACKOFF.start(),
            failures: 0,
        }
    }

    /// A session that lasted this long is over. After a long one the pool may be asked again at once: most likely only the
    /// connection broke. Not so after a `fault` of the pool.
    fn ended(&mut self, lasted: Duration, fault: bool, now: Instant) {
        self.failures = match lasted >= GOOD_SESSION && !fault {
            true => 1,
            false => self.failures.saturating_add(1),
        };
        if fault {
            self.wait = self.wait.max(FAULT_WAIT_MIN);
        }
        if fault || lasted <= *BACKOFF.end() {
            return self.wait_longer(now);
        }
        self.wait = *BACKOFF.start();
        self.not_before = now;
    }

    /// No session opened. That may be for as long as it likes: it is there again when it is.
    fn wait_longer(&mut self, now: Instant) {
        self.not_before = now + self.wait;
        self.wait = (self.wait * 2).min(*BACKOFF.end());
    }

    /// It was there for long enough, and then it was not.
    pub(super) fn not_there(&mut self) {
        self.ended(Duration::ZERO, false, Instant::now());
    }

    /// How long the pool must have been there without a break before the worker returns to it from another: longer each
    /// time that it failed.
    fn steady(&self, at_least: Duration) -> Duration {
        let again = self.failures.saturating_sub(1);
        if again == 0 {
            return at_least;
        }
        let doubled = 2_u32.saturating_pow(again);
        let longer = at_least.max(RETURN_WAIT_STEP).saturating_mul(doubled);
        longer.min(RETURN_WAIT_MAX.max(at_least))
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
                        self.upstreams[index].wait_longer(Instant::now());
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
                    let file = self.left.path().display().to_string();
                    return Err(NoPoolLeft { file });
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

    /// Whether the pool broke its word: it is not used any more.
    fn has_left(&self, index: usize) -> bool {
        let name = self.upstreams[index].options.name();
        self.left.reason(&name).is_some()
    }

    /// The session with this pool is over.
    pub(super) fn session_ended(&mut self, index: usize, lasted: Duration, error: &SessionFailure) {
        let upstream = &mut self.upstreams[index];
        tracing::warn!(pool = upstream.options.address, %error, "the session with the pool is over");
        upstream.ended(lasted, error.is_fault(), Instant::now());
        if let Some(reason) = self.left.reason(&upstream.options.name()) {
            tracing::error!(pool = upstream.options.address, reason, file = %self.left.path().display(), "this worker does not use the pool any more, because the pool broke its word; to use it again, delete its entry from the file and restart");
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
        let at_least = Duration::from_secs(self.config.worker.pool_return_s);
        let preferred: Vec<Preferred> = (0..index)
            .filter(|preferred| !self.has_left(*preferred))
            .map(|index| {
                let upstream = &self.upstreams[index];
                Preferred {
                    index,
                    options: upstream.options.clone(),
                    not_before: upstream.not_before,
                    steady: upstream.steady(at_least),
                    there_since: None,
                }
            })
            .collect();
        if preferred.is_empty() {
            return None;
        }
        Some(AbortOnDropHandle::new(tokio::spawn(scout(preferred))))
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

/// A pool that we would rather use.
struct Preferred {
    index: usize,
    options: PoolOptions,
    /// It is left alone until then.
    not_before: Instant,
    /// How long it must have been there without a break.
    steady: Duration,
    there_since: Option<Instant>,
}

/// Comes back with the first of the pools that has been there for long enough without a break.
async fn scout(mut pools: Vec<Preferred>) -> usize {
    let steady_min = pools.iter().map(|pool| pool.steady).min();
    let interval =
        (steady_min.unwrap_or_default() / 4).clamp(*PROBE_INTERVAL.start(), *PROBE_INTERVAL.end());
    loop {
        for pool in &mut pools {
            if Instant::now() < pool.not_before {
                continue;
            }
            match timeout(OPEN_TIME_MAX, probe(&pool.options)).await {
                Ok(Ok(())) => {
                    let since = pool.there_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= pool.steady {
                        return pool.index;
                    }
                }
                _ => pool.there_since = None,
            }
        }
        tokio::time::sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use dovetail_sv2::AuthorityKeys;
    use dovetail_units::KeptCredit;

    use super::*;

    fn upstream() -> Upstream {
        let pool = Pool {
            address: "127.0.0.1:1".to_owned(),
            authority_public_key: AuthorityKeys::generate().public(),
            job_declarator: None,
        };
        let options = PoolOptions {
            address: pool.address.clone(),
            authority: pool.authority_public_key,
            models: Vec::new(),
            max_tasks: 1,
            keep: KeptCredit::NONE,
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
            upstream.ended(Duration::ZERO, false, now);
            waits.push(upstream.not_before - now);
        }
        assert_eq!(waits.first(), Some(BACKOFF.start()));
        assert_eq!(waits.last(), Some(BACKOFF.end()));
        upstream.ended(2 * *BACKOFF.end(), false, now);
        assert_eq!(upstream.not_before, now);
        upstream.ended(Duration::ZERO, false, now);
        assert_eq!(upstream.not_before - now, *BACKOFF.start());
    }

    #[test]
    fn a_pool_that_was_no_good_is_not_asked_at_once_however_long_its_session_lasted() {
        let (mut upstream, now) = (upstream(), Instant::now());
        upstream.ended(GOOD_SESSION, true, now);
        assert_eq!(upstream.not_before - now, FAULT_WAIT_MIN);
        upstream.ended(GOOD_SESSION, true, now);
        assert_eq!(upstream.not_before - now, 2 * FAULT_WAIT_MIN);
    }

    #[test]
    fn the_way_back_to_a_preferred_pool_is_longer_each_time_that_it_failed() {
        let (mut upstream, now) = (upstream(), Instant::now());
        let minute = Duration::from_secs(60);
        let mut waits = Vec::new();
        for _ in 0..40 {
            // It opens a session, serves it for a minute and is no good then.
            upstream.ended(minute, true, now);
            waits.push(upstream.steady(minute).as_secs());
        }
        assert_eq!(waits[..4], [60, 120, 240, 480]);
        assert_eq!(waits.last(), Some(&RETURN_WAIT_MAX.as_secs()));
        // After a good one the connection may break.
        upstream.ended(GOOD_SESSION, false, now);
        assert_eq!(upstream.steady(minute), minute);
        // No setting makes it come and go all the time.
        upstream.ended(Duration::ZERO, false, now);
        assert_eq!(upstream.steady(Duration::ZERO), 2 * RETURN_WAIT_STEP);
    }
}
