//! Blocks that are divided, on their way to maturity: what the chain says of each, and the credit of those whose coinbase
//! can be spent. The ledger knows them all, so a restart forgets none; the chain may take one back at any depth until then.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_jd::payout_lists;
use dovetail_ledger::{
    BesidePool, LedgerError, OpenReward, PaidOutput, RewardState, RewardsConfig,
};
use dovetail_telemetry::Event;
use dovetail_templates::TemplateError;
use dovetail_units::Msat;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::found_on_chain::Search;
use crate::shared::Shared;

/// A coinbase can be spent in a block that lies so much higher (consensus rule `COINBASE_MATURITY`), which is the next one
/// when the tip has so many confirmations of it.
const MATURITY: u32 = 100;
/// How deep a block that has left the chain is looked for: the chain would have to be replaced down to it.
const LOOKED_FOR_DEPTH: u32 = 1_000;
/// How many are looked at in one round.
const BLOCKS_MAX: u32 = 1_000;
/// How often, besides at each new template: a reorganisation always brings one.
const INTERVAL: Duration = Duration::from_secs(10);

/// Follows blocks until `shutdown`.
pub(crate) async fn follow_rewards(
    shared: Arc<Shared>,
    config: RewardsConfig,
    shutdown: CancellationToken,
) {
    let mut search = Search::new(config);
    let mut knows_lists = false;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut work = shared.templates.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
            Ok(()) = work.changed() => {}
        }
        let height = work.borrow_and_update().as_ref().map(|work| work.height());
        let Some(tip) = height.and_then(|next| next.checked_sub(1)) else {
            continue;
        };
        let following = async {
            // Without them it is not known what a block has paid for the pool.
            while !knows_lists {
                match payout_lists::read(&shared.ledger, &shared.payout).await {
                    Ok(()) => knows_lists = true,
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the payout lists, so no block is looked at yet");
                        sleep(INTERVAL).await;
                    }
                }
            }
            if let Err(error) = search.round(&shared, tip).await {
                tracing::warn!(%error, "cannot search the chain for blocks of the pool");
            }
            if let Err(error) = round(&shared, tip).await {
                tracing::warn!(%error, "cannot follow the blocks that are divided");
            }
        };
        // Whatever it is at is one transaction, done or not.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = following => {}
        }
    }
}

async fn round(shared: &Shared, tip: u32) -> Result<(), LedgerError> {
    let from = tip.saturating_sub(LOOKED_FOR_DEPTH);
    for open in shared.ledger.open_rewards(from, BLOCKS_MAX).await? {
        // One that cannot be followed now stops no other.
        if let Err(error) = follow(shared, &open, tip).await {
            let hash = hash(&open);
            tracing::warn!(%hash, %error, "a block's state cannot be noted yet");
        }
    }
    Ok(())
}

fn hash(open: &OpenReward) -> BlockHash {
    BlockHash::from_byte_array(open.block.to_bytes())
}

async fn follow(shared: &Shared, open: &OpenReward, tip: u32) -> Result<(), LedgerError> {
    let hash = hash(open);
    let is_there = match shared.templates.is_in_chain_now(hash).await {
        Ok(is_there) => is_there,
        Err(error) => {
            tracing::debug!(%hash, %error, "the chain cannot be asked for a block now");
            return Ok(());
        }
    };
    let confirmations = (tip + 1).saturating_sub(open.height);
    let state = match (is_there, open.state) {
        (true, RewardState::Active) if confirmations >= MATURITY => {
            return mature(shared, open).await;
        }
        (true, _) => RewardState::Active,
        (false, RewardState::Active) => RewardState::Orphaned,
        // The node may still be checking it.
        (false, RewardState::Submitted) if confirmations >= MATURITY => RewardState::Refused,
        (false, _) => return Ok(()),
    };
    if state == open.state || !note(shared, open, state).await? {
        return Ok(());
    }
    let reward_msat = open.reward.get();
    if state == RewardState::Active {
        tracing::info!(%hash, reward_msat, "the chain has a block that is divided");
    } else {
        tracing::warn!(%hash, reward_msat, state = state.name(), "the chain does not have a block that is divided");
    }
    shared.telemetry.emit(&Event::BlockReward {
        hash: &hash.to_string(),
        state: state.name(),
        reward_msat: open.reward,
    });
    Ok(())
}

/// Notes it; `false` if the ledger knows it, or it cannot be noted yet.
async fn note(shared: &Shared, open: &OpenReward, state: RewardState) -> Result<bool, LedgerError> {
    if state != RewardState::Active {
        return shared.ledger.note_reward(open.block, state).await;
    }
    let hash = hash(open);
    let coinbase = match shared.templates.coinbase_at(open.height).await {
        Ok(Some(found)) if found.block == hash => found.coinbase,
        // The chain has moved meanwhile.
        Ok(_) => return Ok(false),
        // A chain of one process, where no coinbase pays anybody beside the pool.
        Err(TemplateError::Unsupported) => {
            return shared.ledger.note_reward(open.block, state).await;
        }
        Err(error) => {
            tracing::warn!(%hash, %error, "the node does not show a block of the pool's that its chain has: it is asked again");
            return Ok(false);
        }
    };
    let beside = shared.payout.paid_beside(&coinbase, open.height);
    let outputs: Vec<PaidOutput> = beside
        .into_iter()
        .map(|output| (output.script_pubkey.into_bytes(), output.value.to_sat()))
        .collect();
    let noted = shared.ledger.note_active(open.block, &outputs).await?;
    if noted == Some(BesidePool::Others) {
        tracing::error!(%hash, outputs = outputs.len(), "a block that is divided pays others beside the pool, and no payout list has them: nobody is charged for it");
    }
    Ok(noted.is_some())
}

async fn mature(shared: &Shared, open: &OpenReward) -> Result<(), LedgerError> {
    // Another process may have been faster.
    let Some(matured) = shared.ledger.mature_reward(open.block).await? else {
        return Ok(());
    };
    let hash = hash(open);
    let (reward_msat, fee_msat) = (matured.reward.get(), matured.fee.get());
    let paid_ahead_msat = matured.paid_ahead.get();
    tracing::info!(%hash, reward_msat, fee_msat, accounts = matured.accounts, paid_ahead_msat, "a block has matured: its parts are credited");
    if matured.loss > Msat::ZERO {
        tracing::warn!(
            %hash,
            loss_msat = matured.loss.get(),
            "ALARM: a coinbase has paid accounts more than they have: the rest is booked to pool:loss"
        );
    }
    shared.telemetry.emit(&Event::BlockReward {
        hash: &hash.to_string(),
        state: RewardState::Matured.name(),
        reward_msat: matured.reward,
    });
    Ok(())
}
