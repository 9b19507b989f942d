//! What the page tells, as a value.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::stats::{self, Stats};

/// Everything on the page, as `/status.json` has it. Counts are since the worker's start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The worker's key.
    pub worker: String,
    /// Of the program.
    pub version: &'static str,
    /// How long it has run, in seconds.
    pub uptime_s: u64,
    /// Whom hashers work for.
    pub upstream: Upstream,
    /// Whose templates they work on; nobody's while they work for nobody.
    pub templates: Option<Templates>,
    /// What devices hash, in h/s, as their shares of the last minutes prove it.
    pub hash_rate: f64,
    /// Tokens per second over the last minutes.
    pub token_rate: f64,
    /// Tasks.
    pub tasks: Tasks,
    /// Shares by result.
    pub shares: Shares,
    /// What was earned, by kind.
    pub earned: Earned,
    /// What is connected.
    pub devices: Devices,
}

/// Whom hashers work for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Upstream {
    /// Nobody can be reached.
    None,
    /// Ourselves.
    Solo,
    /// A pool.
    Pool {
        /// Its address.
        address: String,
    },
}

/// Whose templates hashers work on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Templates {
    /// The pool's, as it was configured.
    Pool,
    /// Our own.
    Own,
    /// The pool's, although ours are wanted.
    FallenBack {
        /// Why.
        reason: String,
    },
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
    /// Found while no pool was there to take them.
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
    /// and batches that will never be.
    pub inference_batches_refused: u64,
    /// Blocks found while mining solo.
    pub solo_blocks: u64,
    /// Payouts that arrived, in millisatoshi.
    pub paid_msat: u64,
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
    pub fn of(worker: &str, uptime: Duration, stats: &Stats) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let upstream = stats.upstream();
        let templates = match (&upstream, stats.templates()) {
            (stats::Upstream::None, _) => None,
            (stats::Upstream::Solo, _) | (_, stats::Templates::Own) => Some(Templates::Own),
            (_, stats::Templates::Pools) => Some(Templates::Pool),
            (_, stats::Templates::FallenBack(reason)) => Some(Templates::FallenBack { reason }),
        };
        Self {
            worker: worker.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: uptime.as_secs(),
            upstream: match upstream {
                stats::Upstream::None => Upstream::None,
                stats::Upstream::Solo => Upstream::Solo,
                stats::Upstream::Pool(address) => Upstream::Pool { address },
            },
            templates,
            hash_rate: stats.hash_rate(),
            token_rate: stats.token_rate(),
            tasks: Tasks {
                open: count(&stats.tasks_open),
                finished: count(&stats.tasks_finished),
                failed: count(&stats.tasks_failed),
                tokens: count(&stats.tokens),
            },
            shares: Shares {
                accepted: count(&stats.shares_accepted),
                lost: count(&stats.shares_lost),
                refused: stats.refusals(),
            },
            earned: Earned {
                hash_difficulty: count(&stats.difficulty_accepted),
                inference_batches: count(&stats.batches_credited),
                inference_tokens: count(&stats.tokens_credited),
                inference_msat: count(&stats.inference_msat),
                inference_held_msat: stats.held_msat(),
                inference_batches_refused: count(&stats.batches_refused),
                solo_blocks: count(&stats.solo_blocks),
                paid_msat: count(&stats.paid_msat),
            },
            devices: Devices {
                connections: count(&stats.connections),
                channels: count(&stats.channels),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_templates_are_hashed_is_said_while_hashers_work_for_somebody() {
        let stats = Stats::default();
        let said = |stats: &Stats| Status::of("key", Duration::ZERO, stats).templates;
        assert_eq!(said(&stats), None);
        let pool = || stats.set_upstream(stats::Upstream::Pool("a:1".to_owned()));
        pool();
        assert_eq!(said(&stats), Some(Templates::Pool));
        stats.set_templates(stats::Templates::Own);
        assert_eq!(said(&stats), Some(Templates::Own));
        let reason = "no declarator".to_owned();
        stats.set_templates(stats::Templates::FallenBack(reason.clone()));
        assert_eq!(said(&stats), Some(Templates::FallenBack { reason }));
        // The next session begins anew.
        pool();
        assert_eq!(said(&stats), Some(Templates::Pool));
    }
}
