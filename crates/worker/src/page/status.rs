//! What the page tells, as a value.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dovetail_miner::stats::{Templates, Upstream};
use serde::Serialize;

use super::models::Model;
use crate::stats::{PoolStats, Stats};

/// Everything on the page, as `/status.json` has it. Counts are since the worker's start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The worker's key.
    pub worker: String,
    /// Of the program.
    pub version: &'static str,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Whom devices work for.
    pub upstream: Upstream,
    /// Whose templates they work on; nobody's while they work for nobody.
    pub templates: Option<Templates>,
    /// What devices hash, in h/s, as their shares of the last minutes prove it.
    pub hash_rate: f64,
    /// Tokens per second over the last minutes.
    pub token_rate: f64,
    /// The models, there or still to come.
    pub models: Vec<Model>,
    /// Tasks.
    pub tasks: Tasks,
    /// Shares by result.
    pub shares: Shares,
    /// What was earned, by kind.
    pub earned: Earned,
    /// What was done for each pool, and what came of it.
    pub pools: Vec<PoolStatus>,
    /// What is connected.
    pub devices: Devices,
}

/// Tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// Running or waiting now.
    pub open: u64,
    /// Finished.
    pub finished: u64,
    /// Failed, refused or dropped.
    pub failed: u64,
    /// Tokens generated.
    pub tokens: u64,
}

/// Shares by result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// Credited by a pool.
    pub accepted: u64,
    /// Sent, and not answered yet.
    pub unanswered: u64,
    /// Found while no pool was there to take them, or to answer.
    pub lost: u64,
    /// Refused by a pool, by its code.
    pub refused: BTreeMap<String, u64>,
}

/// What was earned, by kind. Pools tell what inference is credited with when they answer a claim; for
/// hashing there is the difficulty until they pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Earned {
    /// Hashing: the difficulty of the shares credited.
    pub hash_difficulty: u64,
    /// Inference: batches credited,
    pub inference_batches: u64,
    /// the tokens in them,
    pub inference_tokens: u64,
    /// what they were credited with, in millisatoshi,
    pub inference_msat: u64,
    /// what of it, and of earlier credit, had not matured when pools last spoke of it,
    pub inference_held_msat: u64,
    /// batches that will never be,
    pub inference_batches_refused: u64,
    /// and batches whose share was accepted without a word on their audit.
    pub inference_batches_unexplained: u64,
    /// Blocks found while mining solo.
    pub solo_blocks: u64,
    /// Payouts that the worker's own wallet has, in millisatoshi.
    pub paid_msat: u64,
}

/// What was done for a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Its address.
    pub address: String,
    /// The rest.
    #[serde(flatten)]
    pub stats: PoolStats,
}

/// What is connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Devices {
    /// Connections.
    pub connections: u64,
    /// Channels on them.
    pub channels: u64,
}

impl Status {
    /// The counters as they are now.
    pub fn of(worker: &str, uptime: Duration, stats: &Stats, models: Vec<Model>) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mining = &stats.mining;
        Self {
            worker: worker.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            upstream: mining.upstream(),
            templates: mining.templates(),
            hash_rate: mining.hash_rate(),
            token_rate: stats.token_rate(),
            models,
            tasks: Tasks {
                open: count(&stats.tasks_open),
                finished: count(&stats.tasks_finished),
                failed: count(&stats.tasks_failed),
                tokens: count(&stats.tokens),
            },
            shares: Shares {
                accepted: count(&mining.shares_accepted),
                unanswered: mining.open_shares.count() as u64,
                lost: count(&mining.shares_lost),
                refused: mining.refusals(),
            },
            earned: Earned {
                hash_difficulty: count(&mining.difficulty_accepted),
                inference_batches: count(&stats.batches_credited),
                inference_tokens: count(&stats.tokens_credited),
                inference_msat: count(&stats.inference_msat),
                inference_held_msat: stats.held_msat(),
                inference_batches_refused: count(&stats.batches_refused),
                inference_batches_unexplained: count(&stats.batches_unexplained),
                solo_blocks: count(&mining.solo_blocks),
                paid_msat: count(&stats.paid_msat),
            },
            pools: pools(stats),
            devices: Devices {
                connections: count(&mining.connections),
                channels: count(&mining.channels),
            },
        }
    }
}

fn pools(stats: &Stats) -> Vec<PoolStatus> {
    let pools = stats.pools().into_iter();
    pools
        .map(|(address, stats)| PoolStatus { address, stats })
        .collect()
}
