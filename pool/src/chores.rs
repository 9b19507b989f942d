//! What goes on whoever is connected: tasks that are over, have stalled or are abandoned, credit that has matured, blocks that are
//! looked for on the chain, whom coinbases pay, mismatches that nobody has confirmed yet, what the operator has paid, and what the
//! pool holds beside what it owes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_jd::payout_lists;
use dovetail_ledger::{Ledger, RewardsConfig, TASKS_WIPED_MAX};
use dovetail_units::time::unix_now;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::blocks;
use crate::claims::settle::Settler;
use crate::claims::suspects;
use crate::shared::Shared;
use crate::solvency::{self, Purses};
use crate::subsidy;
use crate::tasks::Tasks;

/// How often expired tasks are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(2);
/// How often outputs that nobody needs any more are looked for.
const WIPE_INTERVAL: Duration = Duration::from_secs(30);
/// How often tasks that have stalled are looked for, and those that their agents have left.
const STALL_INTERVAL: Duration = Duration::from_secs(1);
/// How often credit that has matured is looked for, besides after each batch of its worker.
const MATURITY_INTERVAL: Duration = Duration::from_secs(1);

/// Starts all of it, until `shutdown`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    rewards: Option<RewardsConfig>,
    purses: Purses,
    shutdown: &CancellationToken,
) {
    let tracker = &shared.tracker;
    tracker.spawn(expire(shared.tasks.clone(), shutdown.clone()));
    tracker.spawn(wipe(Arc::clone(shared), shutdown.clone()));
    tracker.spawn(hand_on_stalled(shared.tasks.clone(), shutdown.clone()));
    tracker.spawn(stop_abandoned(shared.tasks.clone(), shutdown.clone()));
    tracker.spawn(mature(Arc::clone(shared), shutdown.clone()));
    let (ledger, budget) = (shared.ledger.clone(), shared.config.inference.subsidy);
    let telling = subsidy::keep_telling(ledger, budget, shared.telemetry.clone(), shutdown.clone());
    tracker.spawn(telling);
    let (ledger, telemetry) = (shared.ledger.clone(), shared.telemetry.clone());
    let telling = solvency::keep_telling(ledger, purses, telemetry, shutdown.clone());
    tracker.spawn(telling);
    let settler = Settler::clone(&shared.settler);
    tracker.spawn(suspects::keep_confirming(settler, shutdown.clone()));
    let following = blocks::follow_on_chain(Arc::clone(shared), shutdown.clone());
    tracker.spawn(following);
    if let Some(rewards) = rewards {
        let (ledger, payout) = (shared.ledger.clone(), shared.payout.clone());
        tracker.spawn(payout_lists::keep_reading(ledger, payout, shutdown.clone()));
        tracker.spawn(blocks::payout_lists::keep_making(
            Arc::clone(shared),
            shutdown.clone(),
        ));
        tracker.spawn(blocks::follow_rewards(
            Arc::clone(shared),
            rewards,
            shutdown.clone(),
        ));
    }
}

/// Ticks that do not make up for those that were missed.
fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Ends tasks whose time is over, wherever they stand.
async fn expire(tasks: Tasks, shutdown: CancellationToken) {
    let mut ticks = ticks(EXPIRY_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => tasks.expire().await,
        }
    }
}

/// Wipes what is left of tasks that ended long ago.
async fn wipe(shared: Arc<Shared>, shutdown: CancellationToken) {
    let kept_s = shared.config.inference.outputs_kept_s;
    let mut ticks = ticks(WIPE_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                let before = unix_now().saturating_sub(kept_s);
                wipe_before(&shared.ledger, before).await;
            }
        }
    }
}

async fn wipe_before(ledger: &Ledger, before_unix: u64) {
    loop {
        match ledger.wipe_contents(before_unix).await {
            Ok(TASKS_WIPED_MAX) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot wipe outputs of tasks");
                return;
            }
        }
    }
}

/// Gives tasks whose workers let them lie to others.
async fn hand_on_stalled(tasks: Tasks, shutdown: CancellationToken) {
    let mut ticks = ticks(STALL_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => tasks.hand_on_stalled().await,
        }
    }
}

/// Stops tasks whose agents have left.
async fn stop_abandoned(tasks: Tasks, shutdown: CancellationToken) {
    let mut ticks = ticks(STALL_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => tasks.stop_abandoned(Instant::now()).await,
        }
    }
}

/// Posts held credit whose window is over.
async fn mature(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = ticks(MATURITY_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => shared.settler.mature(None).await,
        }
    }
}
