//! Connections that come and go: connect, handshake, open, first job, leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::connection::Pool;
use crate::opening::open;
use crate::percentile::Times;
use crate::processes::{CpuTime, Watched, per_second, rss_bytes};
use crate::schedule::Schedule;
use crate::shares::Loop;

/// Visits under way at once in an open loop. What is due beyond them counts as a failure.
const UNDER_WAY_MAX: usize = 4_096;
/// Reasons that are told apart.
const REASONS_MAX: usize = 32;
/// After which a server has noticed who left.
const SETTLING: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) offered: Loop,
    pub(crate) time: Duration,
}

/// How long a visit took, from when it was to begin.
struct Visit {
    handshake: Duration,
    channel: Duration,
    job: Duration,
}

#[derive(Default)]
struct Tally {
    visits: u64,
    handshakes: Times,
    channels: Times,
    jobs: Times,
    failures: u64,
    reasons: BTreeMap<String, u64>,
}

impl Tally {
    fn take(&mut self, visit: anyhow::Result<Visit>) {
        match visit {
            Ok(visit) => {
                self.visits += 1;
                self.handshakes.push(visit.handshake);
                self.channels.push(visit.channel);
                self.jobs.push(visit.job);
            }
            Err(error) => {
                self.failures += 1;
                let reason = format!("{error:#}");
                let known = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason);
                let reason = if known { reason } else { "others".to_owned() };
                *self.reasons.entry(reason).or_default() += 1;
            }
        }
    }
}

/// Runs the plan.
///
/// # Errors
/// A watched process that has ended.
pub(crate) async fn run(
    pool: &Arc<Pool>,
    plan: &Plan,
    watched: &[Watched],
) -> anyhow::Result<Map<String, Value>> {
    let rss_before = rss_bytes(watched)?;
    let before = CpuTime::now(watched)?;
    let begin = Instant::now();
    let tally = match plan.offered {
        Loop::Open { rate } => visit_at(pool, Schedule::new(begin, rate, plan.time)?).await?,
        Loop::Closed { in_flight } => visit_always(pool, in_flight, begin + plan.time).await?,
    };
    let taken = begin.elapsed();
    let mut report = Map::new();
    sleep(SETTLING).await;
    before.report(watched, "connection", tally.visits, &mut report)?;
    let (kind, value) = match plan.offered {
        Loop::Open { rate } => ("rate", json!(rate)),
        Loop::Closed { in_flight } => ("in_flight", json!(in_flight)),
    };
    let growth = rss_before
        .zip(rss_bytes(watched)?)
        .map(|(before, after)| after as f64 - before as f64);
    let rows = [
        (kind, value),
        ("seconds", json!(taken.as_secs_f64())),
        ("connections", json!(tally.visits)),
        ("connections_per_s", per_second(tally.visits, taken)),
        ("failures", json!(tally.failures)),
        ("failure_reasons", json!(tally.reasons)),
        ("rss_growth_bytes", json!(growth)),
    ];
    report.extend(rows.map(|(name, value)| (name.to_owned(), value)));
    tally.handshakes.report("handshake", &mut report);
    tally.channels.report("channel", &mut report);
    tally.jobs.report("job", &mut report);
    Ok(report)
}

/// Comes when it is due, whoever is still there.
async fn visit_at(pool: &Arc<Pool>, schedule: Schedule) -> anyhow::Result<Tally> {
    let (sender, mut due) = mpsc::unbounded_channel();
    schedule.keep(move |number, planned| sender.send((number, planned)).is_ok())?;
    let mut tally = Tally::default();
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            next = due.recv() => {
                let Some((number, planned)) = next else { break };
                if visits.len() >= UNDER_WAY_MAX {
                    tally.take(Err(anyhow::anyhow!("too many were under way")));
                    continue;
                }
                let pool = Arc::clone(pool);
                visits.spawn(async move { visit(&pool, number, planned).await });
            }
            Some(visit) = visits.join_next() => tally.take(visit.context("a visit's task")?),
        }
    }
    while let Some(visit) = visits.join_next().await {
        tally.take(visit.context("a visit's task")?);
    }
    Ok(tally)
}

/// Keeps so many visits under way.
async fn visit_always(pool: &Arc<Pool>, in_flight: usize, end: Instant) -> anyhow::Result<Tally> {
    let room = Arc::new(Semaphore::new(in_flight));
    let mut tally = Tally::default();
    let mut visits = JoinSet::new();
    let mut number = 0;
    while Instant::now() < end {
        let turn = Arc::clone(&room).acquire_owned().await;
        let turn = turn.context("the queue is gone")?;
        let pool = Arc::clone(pool);
        visits.spawn(async move {
            let _turn = turn;
            visit(&pool, number, Instant::now()).await
        });
        number += 1;
        while let Some(visit) = visits.try_join_next() {
            tally.take(visit.context("a visit's task")?);
        }
    }
    while let Some(visit) = visits.join_next().await {
        tally.take(visit.context("a visit's task")?);
    }
    Ok(tally)
}

async fn visit(pool: &Pool, number: u64, planned: Instant) -> anyhow::Result<Visit> {
    let miner = open(pool, number).await?;
    let since = |moment: Instant| moment.saturating_duration_since(planned);
    Ok(Visit {
        handshake: since(miner.handshaken),
        channel: since(miner.opened),
        job: planned.elapsed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_and_reasons_are_bounded() {
        let mut tally = Tally::default();
        for number in 0..100 {
            tally.take(Err(anyhow::anyhow!("reason {number}")));
        }
        tally.take(Err(anyhow::anyhow!("reason 0")));
        assert_eq!((tally.failures, tally.visits), (101, 0));
        assert_eq!(tally.reasons["reason 0"], 2);
        assert_eq!(tally.reasons["others"], 100 - REASONS_MAX as u64);
    }
}
