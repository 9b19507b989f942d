//! Blocks of the pool's that the chain has and the ledger does not: the pool stopped after a block had left and before its
//! share was logged. The chain is searched from where it was searched last, at the start and with each new tip.

use std::time::Duration;

use bitcoin::hashes::Hash;
use dovetail_commitment::HeaderHash;
use dovetail_ledger::{LedgerError, RewardsConfig};
use dovetail_templates::{ChainCoinbase, TemplateError};
use tokio::time::timeout;

use crate::shared::Shared;

/// A block is looked at when it has one more on it: its share is in the ledger by then, if it was logged.
const DEPTH: u32 = 1;
/// How far back a new process begins: a reorganisation may have brought a block back meanwhile.
const BACK: u32 = 100;
/// The first block of a network pays nobody.
const FIRST: u32 = 1;
/// How many heights one round looks at. The next round goes on.
const HEIGHTS_MAX: u32 = 500;
/// How long the log may take to be in the ledger before a block counts as unknown.
const LOG_TIME_MAX: Duration = Duration::from_secs(30);

/// How far the chain was searched.
pub(super) struct Search {
    config: RewardsConfig,
    /// The next height; `None` until the ledger was asked.
    next: Option<u32>,
    /// Whether the source can be asked.
    is_possible: bool,
}

impl Search {
    pub(super) fn new(config: RewardsConfig) -> Self {
        Self {
            config,
            next: None,
            is_possible: true,
        }
    }

    /// Goes on up to below the tip.
    pub(super) async fn round(&mut self, shared: &Shared, tip: u32) -> Result<(), LedgerError> {
        if !self.is_possible {
            return Ok(());
        }
        let end = tip.saturating_sub(DEPTH);
        let next = match self.next {
            Some(next) => next,
            None => match shared.ledger.searched_height().await? {
                Some(searched) => searched.saturating_sub(BACK).max(FIRST),
                // A new ledger: nothing that is there is its miners'.
                None => end.saturating_add(1),
            },
        };
        let mut height = next;
        while height <= end && height - next < HEIGHTS_MAX {
            match shared.templates.coinbase_at(height).await {
                Ok(Some(coinbase)) => self.look_at(shared, height, &coinbase).await?,
                // Another chain, which is shorter, has come.
                Ok(None) => break,
                Err(TemplateError::Unsupported) => {
                    self.is_possible = false;
                    return Ok(());
                }
                Err(error @ TemplateError::Refused { .. }) => {
                    tracing::warn!(%error, height, "the node does not show a block: whether it is the pool's stays unknown");
                }
                Err(error) => {
                    tracing::debug!(%error, height, "the chain cannot be searched now");
                    break;
                }
            }
            height += 1;
        }
        if self.next != Some(height) {
            shared
                .ledger
                .note_searched(Some(height.saturating_sub(1)))
                .await?;
            self.next = Some(height);
        }
        Ok(())
    }

    async fn look_at(
        &self,
        shared: &Shared,
        height: u32,
        found: &ChainCoinbase,
    ) -> Result<(), LedgerError> {
        let reward_sat = shared.payout.paid_by(&found.coinbase, height);
        if reward_sat == 0 {
            return Ok(());
        }
        let block = HeaderHash::from_bytes(found.block.to_byte_array());
        if timeout(LOG_TIME_MAX, shared.settler.committer.written())
            .await
            .is_err()
        {
            return Err(LedgerError::Refused("the log is not in the ledger yet"));
        }
        if shared.ledger.has_reward(block).await? {
            return Ok(());
        }
        let (hash, tag) = (found.block, shared.config.mining.tag.as_bytes());
        let script = found.coinbase.input.first().map(|input| &input.script_sig);
        let is_tagged = !tag.is_empty()
            && script
                .is_some_and(|script| script.as_bytes().windows(tag.len()).any(|part| part == tag));
        if !is_tagged {
            tracing::error!(%hash, height, reward_sat, "a block pays the pool, and neither the ledger nor its coinbase says that its miners found it: nobody is credited");
            return Ok(());
        }
        let divided = shared
            .ledger
            .divide_found_block(&self.config, block, height, reward_sat);
        match divided.await? {
            true => {
                tracing::warn!(%hash, height, reward_sat, "the chain has a block whose share was never logged: it is divided over the window of now");
            }
            false => {
                tracing::error!(%hash, height, reward_sat, "the chain has a block whose share was never logged, and only its finder could have it: nobody is credited");
            }
        }
        Ok(())
    }
}
