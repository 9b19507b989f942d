//! What is counted about mining, for the local page and the log. Nothing is decided by these counters, except
//! what the pool is told of the devices' hash rate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::open_shares::OpenShares;

/// Refusal codes that are counted apart; a pool that invents more gets them counted together.
const CODES_MAX: usize = 32;
/// How far back rates look.
const RATE_WINDOW: Duration = Duration::from_secs(300);
/// Less says nothing about a rate.
const RATE_TIME_MIN: Duration = Duration::from_secs(60);
/// Events that are remembered for a rate; more than a window has at a sane share rate.
const RATE_EVENTS_MAX: usize = 4_096;

/// Whom devices work for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Upstream {
    /// Nobody can be reached; devices stay on the last job.
    #[default]
    None,
    /// The miner, without a pool.
    Solo,
    /// A pool.
    Pool {
        /// Its address.
        address: String,
    },
}

/// Whose templates devices work on while they work for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Templates {
    /// The pool's, as it was configured, as far as no batch is under way.
    #[default]
    Pool,
    /// Those of the miner's own node.
    Own,
    /// The pool's, because no job on an own template could be made.
    FallenBack {
        /// Why.
        reason: String,
    },
}

/// The counters.
#[derive(Debug, Default)]
pub struct Stats {
    /// Shares that the pool credited.
    pub shares_accepted: AtomicU64,
    /// The difficulty of those shares, summed.
    pub difficulty_accepted: AtomicU64,
    /// Shares of the present session that the pool has not answered.
    pub open_shares: OpenShares,
    /// Shares that no pool was there to take, or to answer.
    pub shares_lost: AtomicU64,
    /// Blocks found while mining solo.
    pub solo_blocks: AtomicU64,
    /// Firmware connections that are open.
    pub connections: AtomicU64,
    /// Firmware channels that are open.
    pub channels: AtomicU64,
    recent: Mutex<Recent>,
    work: Mutex<RateWindow>,
}

#[derive(Debug, Default)]
struct Recent {
    upstream: Upstream,
    templates: Templates,
    refused: BTreeMap<String, u64>,
}

/// Counts one more of `counter`.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Adds to a sum.
pub fn add(sum: &AtomicU64, amount: u64) {
    change(sum, |sum| sum.saturating_add(amount));
}

/// Counts one less of `counter`, which counts what is open.
pub fn uncount(counter: &AtomicU64) {
    change(counter, |count| count.saturating_sub(1));
}

/// Others that change it at the same time are heard first.
fn change(number: &AtomicU64, to: impl Fn(u64) -> u64) {
    let always = |now| Some(to(now));
    let _ = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, always);
}

impl Stats {
    /// Counts the shares that the pool says it accepted, as far as it was sent them; whether there is one.
    pub fn accepted(&self, last: u32, count: u32, difficulty: u64) -> bool {
        let accepted = self.open_shares.accepted(last, count, difficulty);
        add(&self.shares_accepted, accepted.count);
        add(&self.difficulty_accepted, accepted.difficulty);
        accepted.count > 0
    }

    /// The session is over: nobody answers its shares any more.
    pub fn session_ended(&self) {
        add(&self.shares_lost, self.open_shares.clear());
    }

    /// Counts a refused share by its code.
    pub fn refused(&self, code: &str) {
        let mut recent = self.recent();
        let known = recent.refused.len() < CODES_MAX || recent.refused.contains_key(code);
        let key = if known { code } else { "other" };
        let refused = recent.refused.entry(key.to_owned()).or_default();
        *refused = refused.saturating_add(1);
    }

    /// Refused shares by code.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        self.recent().refused.clone()
    }

    /// Whom devices work for now.
    pub fn upstream(&self) -> Upstream {
        self.recent().upstream.clone()
    }

    /// Devices work for somebody else from now on, on their templates until ours are heard of.
    pub fn set_upstream(&self, upstream: Upstream) {
        let mut recent = self.recent();
        recent.upstream = upstream;
        recent.templates = Templates::Pool;
    }

    /// Whose templates devices work on; nobody's while they work for nobody.
    pub fn templates(&self) -> Option<Templates> {
        let recent = self.recent();
        match &recent.upstream {
            Upstream::None => None,
            Upstream::Solo => Some(Templates::Own),
            Upstream::Pool { .. } => Some(recent.templates.clone()),
        }
    }

    /// Devices work on others' templates from now on.
    pub fn set_templates(&self, templates: Templates) {
        self.recent().templates = templates;
    }

    /// A device proved this many hashes.
    pub fn proved(&self, hashes: f64) {
        self.work().push(hashes);
    }

    /// Hashes per second, as shares of the last minutes prove them.
    pub fn hash_rate(&self) -> f64 {
        self.work().rate()
    }

    /// The same once a whole minute has been measured; `None` before.
    pub fn measured_hash_rate(&self) -> Option<f64> {
        let mut work = self.work();
        let rate = work.rate();
        let (first, _) = work.events.front()?;
        (first.elapsed() >= RATE_TIME_MIN).then_some(rate)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> MutexGuard<'_, RateWindow> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The amounts of the last minutes.
#[derive(Debug, Default)]
pub struct RateWindow {
    events: VecDeque<(Instant, f64)>,
}

impl RateWindow {
    /// Adds an amount of this moment.
    pub fn push(&mut self, amount: f64) {
        if self.events.len() == RATE_EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((Instant::now(), amount));
    }

    /// The sum of the window over its length, per second; a window that has just begun counts as a minute.
    pub fn rate(&mut self) -> f64 {
        let is_old = |(at, _): &(Instant, f64)| at.elapsed() > RATE_WINDOW;
        while self.events.front().is_some_and(is_old) {
            self.events.pop_front();
        }
        let Some((first, _)) = self.events.front() else {
            return 0.0;
        };
        let seconds = first.elapsed().max(RATE_TIME_MIN).as_secs_f64();
        self.events.iter().map(|(_, amount)| amount).sum::<f64>() / seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stop_at_their_ends() {
        let sum = AtomicU64::new(u64::MAX - 1);
        add(&sum, 5);
        assert_eq!(sum.into_inner(), u64::MAX);
        let none = AtomicU64::new(0);
        uncount(&none);
        assert_eq!(none.into_inner(), 0);
    }

    #[test]
    fn refusal_codes_that_a_pool_invents_do_not_grow_without_bound() {
        let stats = Stats::default();
        for number in 0..1_000 {
            stats.refused(&format!("code-{number}"));
        }
        let refusals = stats.refusals();
        assert!(refusals.len() <= CODES_MAX + 1);
        assert_eq!(refusals.values().sum::<u64>(), 1_000);
    }

    #[test]
    fn a_rate_is_what_was_proved_over_the_window() {
        let stats = Stats::default();
        assert!(stats.hash_rate().abs() < f64::EPSILON);
        stats.proved(600.0);
        stats.proved(600.0);
        assert!((stats.hash_rate() - 20.0).abs() < 1.0);
    }

    #[test]
    fn whose_templates_are_hashed_is_said_while_devices_work_for_somebody() {
        let stats = Stats::default();
        assert_eq!(stats.templates(), None);
        let address = "a:1".to_owned();
        let pool = Upstream::Pool { address };
        stats.set_upstream(pool.clone());
        assert_eq!(stats.templates(), Some(Templates::Pool));
        stats.set_templates(Templates::Own);
        assert_eq!(stats.templates(), Some(Templates::Own));
        let reason = "no declarator".to_owned();
        let fallen_back = Templates::FallenBack { reason };
        stats.set_templates(fallen_back.clone());
        assert_eq!(stats.templates(), Some(fallen_back));
        // The next session begins anew.
        stats.set_upstream(pool);
        assert_eq!(stats.templates(), Some(Templates::Pool));
    }
}
