//! Many connections at once, as fast as the pool lets.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::{Miner, Pool};

/// Handshakes under way at once: enough to keep a pool busy, below what a listener's queue holds.
const UNDER_WAY_MAX: usize = 64;
/// For one connection, from its first packet to its first job.
pub(crate) const OPENING_TIME_MAX: Duration = Duration::from_secs(30);

/// Opens the connections of these numbers with a channel each, and says how long that took.
///
/// # Errors
/// The first connection that cannot be opened.
pub(crate) async fn open_all(
    pool: &Arc<Pool>,
    numbers: Range<u64>,
) -> anyhow::Result<(Vec<Miner>, Duration)> {
    let begin = Instant::now();
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut opening = JoinSet::new();
    for number in numbers {
        let (pool, room) = (Arc::clone(pool), Arc::clone(&room));
        opening.spawn(async move {
            let _turn = room.acquire().await.context("the queue is gone")?;
            open(&pool, number).await
        });
    }
    let mut miners = Vec::new();
    while let Some(opened) = opening.join_next().await {
        let opened = opened.context("a connection's task")?;
        let opened = opened.with_context(|| format!("after {} connections", miners.len()))?;
        miners.push(opened);
    }
    Ok((miners, begin.elapsed()))
}

/// Opens one within its time.
///
/// # Errors
/// What the pool did not do.
pub(crate) async fn open(pool: &Pool, number: u64) -> anyhow::Result<Miner> {
    timeout(OPENING_TIME_MAX, pool.open(number))
        .await
        .with_context(|| format!("no job within {} s", OPENING_TIME_MAX.as_secs()))?
}
