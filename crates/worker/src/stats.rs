//! What is counted about the worker's inference and its pay, beside what the miner counts, for the local page and
//! the log. Nothing is decided by these counters.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_miner::stats::{self as mining, RateWindow, add, count};
use dovetail_sv2::extension::{BatchOutcome, MSAT_UNKNOWN};
use serde::Serialize;

/// The counters.
#[derive(Debug, Default)]
pub struct Stats {
    /// What the miner counts.
    pub mining: Arc<mining::Stats>,
    /// Output tokens generated.
    pub tokens: AtomicU64,
    /// Tasks that are running or waiting.
    pub tasks_open: AtomicU64,
    /// Tasks finished.
    pub tasks_finished: AtomicU64,
    /// Tasks failed, refused or dropped.
    pub tasks_failed: AtomicU64,
    /// Batches credited, as the outcomes of this worker's own claims say.
    pub batches_credited: AtomicU64,
    /// Output tokens of those batches.
    pub tokens_credited: AtomicU64,
    /// What pools credited those batches with, in millisatoshi.
    pub inference_msat: AtomicU64,
    /// Batches that the pool will never pay for.
    pub batches_refused: AtomicU64,
    /// Batches whose share a pool accepted without ever saying how their audit ended.
    pub batches_unexplained: AtomicU64,
    /// Times that a pool broke its word on audits, which the worker leaves it for.
    pub promises_broken: AtomicU64,
    /// Payouts that the worker's own wallet has, in millisatoshi.
    pub paid_msat: AtomicU64,
    /// What is known of each pool by its address. As many as the configuration has pools.
    pools: Mutex<BTreeMap<String, PoolStats>>,
    generated: Mutex<RateWindow>,
}

/// What was done for a pool, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStats {
    /// Output tokens generated for it.
    pub tokens_generated: u64,
    /// Output tokens of the batches that it credited.
    pub tokens_credited: u64,
    /// Output tokens that have waited too long for credit.
    pub tokens_overdue: u64,
    /// Whether tasks are taken from it: not while it owes too much.
    pub gets_work: bool,
    /// Outcomes of claims that nobody made.
    pub outcomes_ignored: u64,
    /// What it last said that it holds for this worker, in millisatoshi.
    pub held_msat: u64,
}

impl Default for PoolStats {
    fn default() -> Self {
        Self {
            tokens_generated: 0,
            tokens_credited: 0,
            tokens_overdue: 0,
            gets_work: true,
            outcomes_ignored: 0,
            held_msat: 0,
        }
    }
}

impl Stats {
    /// Nothing counted yet, beside these counters of the miner.
    pub fn beside(mining: Arc<mining::Stats>) -> Self {
        Self {
            mining,
            ..Self::default()
        }
    }

    /// A pool said how the audit of one of this worker's claims ended, and what it holds for this worker. The
    /// batch has this many output tokens.
    pub fn outcome(&self, pool: &str, outcome: &BatchOutcome, output_tokens: u64) {
        let known = |msat: u64| (msat != MSAT_UNKNOWN).then_some(msat);
        let (credit_msat, held_msat) = (known(outcome.credit_msat), known(outcome.held_msat));
        tracing::info!(root = %outcome.root, accepted = outcome.accepted, credit_msat, held_msat, "what the pool credited the batch with, and what has not matured");
        let tokens = if outcome.accepted { output_tokens } else { 0 };
        if outcome.accepted {
            count(&self.batches_credited);
            add(&self.tokens_credited, output_tokens);
            add(&self.inference_msat, credit_msat.unwrap_or(0));
        }
        self.pool(pool, |pool| {
            pool.tokens_credited = pool.tokens_credited.saturating_add(tokens);
            pool.held_msat = held_msat.unwrap_or(pool.held_msat);
        });
    }

    /// Changes what is known of the pool with this address.
    pub fn pool(&self, address: &str, change: impl FnOnce(&mut PoolStats)) {
        let mut pools = self.lock_pools();
        match pools.get_mut(address) {
            Some(pool) => change(pool),
            None => change(pools.entry(address.to_owned()).or_default()),
        }
    }

    /// What is known of each pool, by its address.
    pub fn pools(&self) -> BTreeMap<String, PoolStats> {
        self.lock_pools().clone()
    }

    fn lock_pools(&self) -> MutexGuard<'_, BTreeMap<String, PoolStats>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Credit for inference that had not matured when pools last spoke of it, in millisatoshi.
    pub fn held_msat(&self) -> u64 {
        let pools = self.lock_pools();
        let held = pools.values().map(|pool| pool.held_msat);
        held.fold(0, u64::saturating_add)
    }

    /// This many tokens were generated.
    pub fn generated(&self, tokens: usize) {
        add(&self.tokens, tokens as u64);
        let mut generated = self
            .generated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generated.push(tokens as f64);
    }

    /// Tokens per second over the last minutes.
    pub fn token_rate(&self) -> f64 {
        let mut generated = self
            .generated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generated.rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_commitment::{BatchRoot, HeaderHash};
    use dovetail_vrf::VrfProof;
    use std::sync::atomic::Ordering;

    #[test]
    fn credit_adds_up_and_what_is_held_is_what_each_pool_said_last() {
        let stats = Stats::default();
        let outcome = |credit_msat, held_msat| BatchOutcome {
            root: BatchRoot::from_bytes([1; 32]),
            header_hash: HeaderHash::from_bytes([2; 32]),
            accepted: credit_msat > 0,
            sample_header: HeaderHash::from_bytes([0; 32]),
            proof: VrfProof::NONE,
            stake_msat: 0,
            code: String::new(),
            credit_msat,
            held_msat,
        };
        stats.outcome("one", &outcome(500, 500), 10);
        stats.outcome("one", &outcome(700, MSAT_UNKNOWN), 20);
        stats.outcome("two", &outcome(0, 40), 40);
        assert_eq!(stats.inference_msat.load(Ordering::Relaxed), 1_200);
        assert_eq!(stats.tokens_credited.load(Ordering::Relaxed), 30);
        assert_eq!(stats.pools()["one"].tokens_credited, 30);
        assert_eq!(stats.held_msat(), 540);
        stats.outcome("one", &outcome(0, u64::MAX - 1), 0);
        assert_eq!(stats.held_msat(), u64::MAX);
        // A refusal credits nothing, whatever it says.
        let refused = BatchOutcome {
            accepted: false,
            ..outcome(9, 0)
        };
        stats.outcome("one", &refused, 5);
        assert_eq!(stats.inference_msat.load(Ordering::Relaxed), 1_200);
        assert_eq!(stats.batches_credited.load(Ordering::Relaxed), 2);
    }
}
