//! Blocks that accounts solve on jobs in coinbase-only mode. Only the chain can say whether such a block was good, and
//! the credit that is held for its account waits for it. The ledger knows which blocks are followed, so a restart
//! forgets none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_commitment::HeaderHash;
use dovetail_ledger::{FollowedBlock, LedgerError, OnChain};
use dovetail_telemetry::Event;
use dovetail_templates::TemplateError;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// How many blocks are followed at a time; later ones wait for these. Each took the work of a block.
const BLOCKS_MAX: u32 = 1_000;
/// How often the chain is looked at, besides at each new template: ten times in the time that a block has, within these.
const LOOKS: u32 = 10;
const INTERVAL_MIN: Duration = Duration::from_millis(200);
const INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Follows blocks until `shutdown`.
pub(crate) async fn follow_on_chain(shared: Arc<Shared>, shutdown: CancellationToken) {
    let time_max = Duration::from_secs(shared.config.job_declarator.coinbase_only_seen_within_s);
    let pause = (time_max / LOOKS).clamp(INTERVAL_MIN, INTERVAL_MAX);
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = shared.templates.subscribe();
    let mut follower = Follower {
        shared,
        time_max,
        pause,
        watched: HashMap::new(),
        last_round: None,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = work.changed() => {}
        }
        if let Err(error) = follower.round().await {
            // What was not noted was not watched.
            follower.last_round = None;
            tracing::warn!(%error, "cannot follow the blocks of coinbase-only jobs");
        }
    }
}

struct Follower {
    shared: Arc<Shared>,
    /// How long a block is looked for.
    time_max: Duration,
    /// The longest time between two rounds, unless this process stood still.
    pause: Duration,
    /// How each block was looked for.
    watched: HashMap<HeaderHash, Watch>,
    /// When the last round was, if it was whole and the source was fresh then.
    last_round: Option<Instant>,
}

/// How a block was looked for.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// How long, by this process and those before it.
    time: Duration,
    /// Whether this process has listened to the source since the block was solved: then it would have heard of it.
    is_whole: bool,
}

impl Follower {
    async fn round(&mut self) -> Result<(), LedgerError> {
        let passed = self.passed();
        let blocks = self.shared.ledger.followed_blocks(BLOCKS_MAX).await?;
        let mut watched = HashMap::with_capacity(blocks.len());
        for followed in blocks {
            let before = self.watched.get(&followed.block).copied();
            let before = before.unwrap_or(Watch {
                time: Duration::from_secs(followed.watched_s),
                is_whole: true,
            });
            let now = Watch {
                time: before.time.saturating_add(passed.unwrap_or_default()),
                is_whole: before.is_whole && passed.is_some(),
            };
            if let Some(watch) = self.look_for(&followed, before, now).await? {
                watched.insert(followed.block, watch);
            }
        }
        let seconds: Vec<(HeaderHash, u64)> = watched
            .iter()
            .map(|(block, watch)| (*block, watch.time.as_secs()))
            .collect();
        self.watched = watched;
        if seconds.is_empty() {
            return Ok(());
        }
        self.shared.ledger.note_watched(&seconds).await
    }

    /// The time since the last round, if the source gave work then and gives work now.
    fn passed(&mut self) -> Option<Duration> {
        let templates = &self.shared.templates;
        let is_fresh = templates.is_connected() && !templates.is_stale();
        let now = Instant::now();
        let last = self.last_round.take();
        self.last_round = is_fresh.then_some(now);
        // A process that stood still has seen nothing meanwhile.
        last.filter(|_| is_fresh)
            .map(|last| now.duration_since(last).min(self.pause * 2))
    }

    /// Looks for a block on the chain; how it was looked for by now, or `None` if it is decided.
    async fn look_for(
        &self,
        followed: &FollowedBlock,
        before: Watch,
        now: Watch,
    ) -> Result<Option<Watch>, LedgerError> {
        let hash = BlockHash::from_byte_array(followed.block.to_bytes());
        let word = match self.shared.templates.is_in_chain(hash).await {
            Ok(true) => OnChain::Seen,
            Ok(false) => OnChain::NotSeen,
            // A source that cannot be asked would have built on it.
            Err(TemplateError::Unsupported) if now.is_whole => OnChain::NotSeen,
            Err(TemplateError::Unsupported) => OnChain::Unknown,
            Err(error) => {
                tracing::debug!(%hash, %error, "the chain cannot be asked for a block now");
                let time = before.time;
                return Ok(Some(Watch { time, ..now }));
            }
        };
        if word != OnChain::Seen && now.time < self.time_max {
            return Ok(Some(now));
        }
        self.decide(followed, hash, word).await?;
        Ok(None)
    }

    async fn decide(
        &self,
        followed: &FollowedBlock,
        hash: BlockHash,
        word: OnChain,
    ) -> Result<(), LedgerError> {
        let decided = self
            .shared
            .ledger
            .decide_block(followed.block, word)
            .await?;
        // Another process was faster.
        let Some(decided) = decided else {
            return Ok(());
        };
        let (account, credit_msat) = (decided.account.as_str(), decided.amount.get());
        match word {
            OnChain::Seen => {
                tracing::info!(%hash, account, credit_msat, "the chain has a block of a coinbase-only job: what was held is posted");
            }
            OnChain::NotSeen => {
                tracing::warn!(%hash, account, credit_msat, "a block of a coinbase-only job was not seen on the chain: what was held is void");
            }
            OnChain::Unknown => {
                tracing::warn!(%hash, account, credit_msat, "a block of a coinbase-only job may have been missed: what was held waits for the next one");
            }
        }
        let hash = hash.to_string();
        if decided.is_found {
            self.shared.telemetry.emit(&Event::BlockFound {
                hash: &hash,
                worker: account,
                declared: true,
            });
        }
        self.shared.telemetry.emit(&Event::CoinbaseOnlyBlock {
            hash: &hash,
            worker: account,
            result: word.as_str(),
            credit_msat: decided.amount,
        });
        Ok(())
    }
}
