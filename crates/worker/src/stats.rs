//! What is counted about the worker's inference and its pay, beside what the miner counts, for the local page and
//! the log. Nothing is decided by these counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dovetail_miner::stats::{self as mining, RateWindow, add};
use dovetail_sv2::extension::{BatchOutcome, MSAT_UNKNOWN};

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
    /// Batches credited.
    pub batches_credited: AtomicU64,
    /// Output tokens of those batches.
    pub tokens_credited: AtomicU64,
    /// What pools credited those batches with, in millisatoshi.
    pub inference_msat: AtomicU64,
    /// Batches that the pool will never pay for.
    pub batches_refused: AtomicU64,
    /// Outcomes by which a pool broke its own beacon; the worker leaves it then.
    pub beacons_broken: AtomicU64,
    /// Payouts that arrived, in millisatoshi.
    pub paid_msat: AtomicU64,
    /// What each pool last said that it holds for this worker. As many as the configuration has pools.
    held_msat: Mutex<BTreeMap<String, u64>>,
    generated: Mutex<RateWindow>,
}

impl Stats {
    /// Nothing counted yet, beside these counters of the miner.
    pub fn beside(mining: Arc<mining::Stats>) -> Self {
        Self {
            mining,
            ..Self::default()
        }
    }

    /// A pool said what it credited a batch with, and what it holds for this worker. It does so once for each
    /// claim that it audited.
    pub fn outcome(&self, pool: &str, outcome: &BatchOutcome) {
        let known = |msat: u64| (msat != MSAT_UNKNOWN).then_some(msat);
        let (credit_msat, held_msat) = (known(outcome.credit_msat), known(outcome.held_msat));
        tracing::info!(root = %outcome.root, accepted = outcome.accepted, credit_msat, held_msat, "what the pool credited the batch with, and what has not matured");
        add(&self.inference_msat, credit_msat.unwrap_or(0));
        if let Some(held) = held_msat {
            let mut pools = self
                .held_msat
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            pools.insert(pool.to_owned(), held);
        }
    }

    /// Credit for inference that had not matured when pools last spoke of it, in millisatoshi.
    pub fn held_msat(&self) -> u64 {
        let pools = self
            .held_msat
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let held = pools.values().copied();
        held.fold(0, u64::saturating_add)
    }

    /// This many tokens were generated.
    pub fn generated(&self, tokens: usize) {
        self.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
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
}
