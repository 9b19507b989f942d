//! What a worker counts about itself, for the local page and the log. Counters only: nothing is
//! decided by them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_sv2::extension::{BatchOutcome, MSAT_UNKNOWN};

/// Refusal codes that are counted apart; a pool that invents more gets them counted together.
const CODES_MAX: usize = 32;
/// How far back rates look.
const RATE_WINDOW: Duration = Duration::from_secs(300);
/// Less says nothing about a rate.
const RATE_TIME_MIN: Duration = Duration::from_secs(60);
/// Accepted shares that are remembered for the rate; more than a window has at a sane share rate.
const RATE_EVENTS_MAX: usize = 4_096;

/// Whom hashers work for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Upstream {
    /// Nobody can be reached; they stay on the last job.
    #[default]
    None,
    /// Ourselves.
    Solo,
    /// The pool at this address.
    Pool(String),
}

/// Whose templates hashers work on while they work for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Templates {
    /// The pool's, as far as no batch is under way.
    #[default]
    Pools,
    /// Our own node's.
    Own,
    /// The pool's, since no job on our own comes about; with the reason.
    FallenBack(String),
}

/// The counters.
#[derive(Debug, Default)]
pub struct Stats {
    /// Shares that the pool credited.
    pub shares_accepted: AtomicU64,
    /// The difficulty of those shares, summed.
    pub difficulty_accepted: AtomicU64,
    /// Shares that no pool was there to take.
    pub shares_lost: AtomicU64,
    /// Blocks found while mining solo.
    pub solo_blocks: AtomicU64,
    /// Output tokens generated.
    pub tokens: AtomicU64,
    /// Tasks that are running or waiting.
    pub tasks_open: AtomicU64,
    /// Tasks finished.
    pub tasks_finished: AtomicU64,
    /// Tasks failed, refused or dropped.
    pub tasks_failed: AtomicU64,
    /// Batches credited.
    pub batches_credited: AtomicU64,
    /// Output tokens of those batches.
    pub tokens_credited: AtomicU64,
    /// What pools credited those batches with, in millisatoshi.
    pub inference_msat: AtomicU64,
    /// Batches that the pool will never pay for.
    pub batches_refused: AtomicU64,
    /// Outcomes by which a pool broke its own beacon; it is left then.
    pub beacons_broken: AtomicU64,
    /// Payouts that arrived, in millisatoshi.
    pub paid_msat: AtomicU64,
    /// Firmware connections that are open.
    pub connections: AtomicU64,
    /// Firmware channels that are open.
    pub channels: AtomicU64,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    upstream: Upstream,
    /// What each pool last said to hold of ours. As many as the configuration has pools.
    held_msat: BTreeMap<String, u64>,
    templates: Templates,
    refused: BTreeMap<String, u64>,
    work: std::collections::VecDeque<(Instant, f64)>,
    tokens: std::collections::VecDeque<(Instant, f64)>,
}

impl Stats {
    /// Counts one more of `counter`.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds to a sum.
    pub fn add(sum: &AtomicU64, amount: u64) {
        // What wraps after 2^64 is a display.
        sum.fetch_add(amount, Ordering::Relaxed);
    }

    /// Counts one less of `counter`, which counts what is open.
    pub fn uncount(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a refused share by its code.
    pub fn refused(&self, code: &str) {
        let mut recent = self.recent();
        let known = recent.refused.len() < CODES_MAX || recent.refused.contains_key(code);
        let key = if known { code } else { "other" };
        *recent.refused.entry(key.to_owned()).or_default() += 1;
    }

    /// Refused shares by code.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        self.recent().refused.clone()
    }

    /// A pool said what it credited a batch with, and what it holds of ours. It does so once for each claim
    /// that it audited.
    pub fn outcome(&self, pool: &str, outcome: &BatchOutcome) {
        let known = |msat: u64| (msat != MSAT_UNKNOWN).then_some(msat);
        let (credit_msat, held_msat) = (known(outcome.credit_msat), known(outcome.held_msat));
        tracing::info!(root = %outcome.root, accepted = outcome.accepted, credit_msat, held_msat, "what the pool credited the batch with, and what has not matured");
        Self::add(&self.inference_msat, credit_msat.unwrap_or(0));
        if let Some(held) = held_msat {
            self.recent().held_msat.insert(pool.to_owned(), held);
        }
    }

    /// Credit for inference that had not matured when pools last spoke of it, in millisatoshi.
    pub fn held_msat(&self) -> u64 {
        let recent = self.recent();
        let held = recent.held_msat.values().copied();
        held.fold(0, u64::saturating_add)
    }

    /// Whom hashers work for now.
    pub fn upstream(&self) -> Upstream {
        self.recent().upstream.clone()
    }

    /// Hashers work for somebody else from now on, on their templates until ours are heard of.
    pub fn set_upstream(&self, upstream: Upstream) {
        let mut recent = self.recent();
        recent.upstream = upstream;
        recent.templates = Templates::Pools;
    }

    /// Whose templates hashers work on.
    pub fn templates(&self) -> Templates {
        self.recent().templates.clone()
    }

    /// Hashers work on others' templates from now on.
    pub fn set_templates(&self, templates: Templates) {
        self.recent().templates = templates;
    }

    /// A hasher proved this many hashes.
    pub fn proved(&self, hashes: f64) {
        push(&mut self.recent().work, hashes);
    }

    /// This many tokens were generated.
    pub fn generated(&self, tokens: usize) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        push(&mut self.recent().tokens, tokens as f64);
    }

    /// Hashes per second, as shares of the last minutes prove them.
    pub fn hash_rate(&self) -> f64 {
        rate(&mut self.recent().work)
    }

    /// The same once a whole minute has been measured; `None` before.
    pub fn measured_hash_rate(&self) -> Option<f64> {
        let mut recent = self.recent();
        let rate = rate(&mut recent.work);
        let (first, _) = recent.work.front()?;
        (first.elapsed() >= RATE_TIME_MIN).then_some(rate)
    }

    /// Tokens per second over the last minutes.
    pub fn token_rate(&self) -> f64 {
        rate(&mut self.recent().tokens)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(events: &mut std::collections::VecDeque<(Instant, f64)>, amount: f64) {
    if events.len() == RATE_EVENTS_MAX {
        events.pop_front();
    }
    events.push_back((Instant::now(), amount));
}

/// The sum of the window over its length; a window that has just begun counts as a minute.
fn rate(events: &mut std::collections::VecDeque<(Instant, f64)>) -> f64 {
    while events
        .front()
        .is_some_and(|(at, _)| at.elapsed() > RATE_WINDOW)
    {
        events.pop_front();
    }
    let Some((first, _)) = events.front() else {
        return 0.0;
    };
    let seconds = first.elapsed().max(RATE_TIME_MIN).as_secs_f64();
    events.iter().map(|(_, amount)| amount).sum::<f64>() / seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_commitment::{BatchRoot, HeaderHash};

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
    fn credit_adds_up_and_what_is_held_is_what_each_pool_said_last() {
        let stats = Stats::default();
        let outcome = |credit_msat, held_msat| BatchOutcome {
            root: BatchRoot::from_bytes([1; 32]),
            header_hash: HeaderHash::from_bytes([2; 32]),
            accepted: credit_msat > 0,
            beacon_step: 0,
            preimage: [0; 32],
            code: String::new(),
            credit_msat,
            held_msat,
        };
        stats.outcome("one", &outcome(500, 500));
        stats.outcome("one", &outcome(700, MSAT_UNKNOWN));
        stats.outcome("two", &outcome(0, 40));
        assert_eq!(stats.inference_msat.load(Ordering::Relaxed), 1_200);
        assert_eq!(stats.held_msat(), 540);
        stats.outcome("one", &outcome(0, u64::MAX - 1));
        assert_eq!(stats.held_msat(), u64::MAX);
    }

    #[test]
    fn a_rate_is_what_was_proved_over_the_window() {
        let stats = Stats::default();
        assert!(stats.hash_rate().abs() < f64::EPSILON);
        stats.proved(600.0);
        stats.proved(600.0);
        assert!((stats.hash_rate() - 20.0).abs() < 1.0);
    }
}
