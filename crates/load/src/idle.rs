//! Connections that wait: how long many of them take to open, what memory each takes, and how long a new block's job takes to
//! the first and to the last of them. And further channels on each.

use std::collections::HashSet;
use std::io::{BufRead, stdin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dovetail_sv2::messages::CloseChannel;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

use crate::channel::News;
use crate::connection::{Miner, Pool, granted};
use crate::opening::{OPENING_TIME_MAX, open_all};
use crate::percentile::Times;
use crate::processes::{CpuTime, Watched, rss_bytes};

/// Connections that are opened before anything is measured, a tenth at most: the first ones pay for what all share.
const FIRST_MAX: u64 = 64;
/// After which a process that was told nothing new does nothing any more.
const SETTLING: Duration = Duration::from_secs(1);
/// How long the caller may take to make a block.
const ORDER_TIME_MAX: Duration = Duration::from_secs(120);
/// How long a pool may take to tell everybody.
const BLOCK_TIME_MAX: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) connections: u64,
    /// How many blocks the caller makes; it says so by a line on standard input for each.
    pub(crate) blocks: u32,
    /// Channels besides the first, on each connection.
    pub(crate) more_channels: u32,
}

/// What happened on a connection.
enum Event {
    Tip(u64, Instant),
    Opened,
    Ended(String),
}

/// Connections that wait, and what they hear.
struct Waiting {
    events: mpsc::UnboundedReceiver<Event>,
    /// How many channels each is to have besides its first.
    more: watch::Sender<u32>,
    /// Aborted when this is dropped.
    _tasks: JoinSet<()>,
}

/// Runs the plan. Prints a line when everything is open and quiet, for the caller to make its block; again for each block.
///
/// # Errors
/// A connection that cannot be opened or ends, a block of which nobody hears, or a watched process that has ended.
pub(crate) async fn run(
    pool: &Arc<Pool>,
    plan: &Plan,
    watched: &[Watched],
) -> anyhow::Result<Map<String, Value>> {
    let mut report = Map::new();
    let first = FIRST_MAX.min(plan.connections / 10);
    let (mut miners, _) = open_all(pool, 0..first).await?;
    sleep(SETTLING).await;
    let rss_before = rss_bytes(watched)?;
    let before = CpuTime::now(watched)?;
    let (others, opening) = open_all(pool, first..plan.connections).await?;
    miners.extend(others);
    let opened = plan.connections - first;
    let mut handshakes = Times::default();
    for miner in &miners {
        handshakes.push(miner.opened - miner.handshaken);
    }
    sleep(SETTLING).await;
    before.report(watched, "opening", opened, &mut report)?;
    let open_rss = rss_bytes(watched)?;
    report.insert("connections".to_owned(), json!(plan.connections));
    report.insert("opened".to_owned(), json!(opened));
    report.insert("opening_s".to_owned(), json!(opening.as_secs_f64()));
    report.insert("rss_bytes".to_owned(), json!(open_rss));
    let growth = each(rss_before, open_rss, opened);
    report.insert("rss_bytes_per_idle_connection".to_owned(), growth);
    handshakes.report("channel", &mut report);

    let mut waiting = wait(pool, miners);
    if plan.blocks > 0 {
        blocks(&mut waiting.events, plan, watched, &mut report).await?;
    }
    if plan.more_channels > 0 {
        let channels = plan.connections * u64::from(plan.more_channels);
        open_more(&mut waiting, plan.more_channels, channels).await?;
        sleep(SETTLING).await;
        let growth = each(open_rss, rss_bytes(watched)?, channels);
        report.insert("rss_bytes_per_channel".to_owned(), growth);
    }
    Ok(report)
}

/// Growth per one, in bytes; null where nothing is watched.
fn each(before: Option<u64>, after: Option<u64>, count: u64) -> Value {
    let (Some(before), Some(after), 1..) = (before, after, count) else {
        return Value::Null;
    };
    json!((after as f64 - before as f64) / count as f64)
}

fn wait(pool: &Arc<Pool>, miners: Vec<Miner>) -> Waiting {
    // Unbounded in name: a pool's messages on idle connections, and the longest of these waits, bound it.
    let (sender, events) = mpsc::unbounded_channel();
    let (more, wanted) = watch::channel(0);
    let mut tasks = JoinSet::new();
    for (number, miner) in (0..).zip(miners) {
        let (pool, sender, wanted) = (Arc::clone(pool), sender.clone(), wanted.clone());
        tasks.spawn(async move {
            if let Err(error) = listen(&pool, number, miner, &sender, wanted).await {
                // Whoever has gone does not care.
                let _ = sender.send(Event::Ended(format!("{error:#}")));
            }
        });
    }
    Waiting {
        events,
        more,
        _tasks: tasks,
    }
}

/// Tells what a connection hears, until nobody listens.
async fn listen(
    pool: &Pool,
    number: u64,
    mut miner: Miner,
    events: &mpsc::UnboundedSender<Event>,
    mut wanted: watch::Receiver<u32>,
) -> anyhow::Result<()> {
    loop {
        let frame = tokio::select! {
            frame = miner.reader.read() => frame?,
            changed = wanted.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let more = *wanted.borrow_and_update();
                for request_id in 2..2 + more {
                    miner.writer.write(&pool.request(number, request_id)?).await?;
                }
                continue;
            }
        };
        let now = Instant::now();
        if frame.is::<CloseChannel>() {
            let close: CloseChannel = frame.message()?;
            bail!(
                "a channel was closed: {}",
                close.reason_code.as_utf8_or_hex()
            );
        }
        let event = match granted(&frame)? {
            Some(_) => Some(Event::Opened),
            None if miner.channel.take(&frame)? == News::Tip => Some(Event::Tip(number, now)),
            None => None,
        };
        if event.is_some_and(|event| events.send(event).is_err()) {
            return Ok(());
        }
    }
}

/// Has the caller make its blocks. Times are the median block's.
async fn blocks(
    events: &mut mpsc::UnboundedReceiver<Event>,
    plan: &Plan,
    watched: &[Watched],
    report: &mut Map<String, Value>,
) -> anyhow::Result<()> {
    let before = CpuTime::now(watched)?;
    let (mut firsts, mut lasts, mut spans) = (Times::default(), Times::default(), Times::default());
    let mut waits = Times::default();
    for _ in 0..plan.blocks {
        let connections = plan.connections;
        println!("{}", json!({ "event": "open", "connections": connections }));
        let (first, last) = block(events, connections, &mut waits).await?;
        firsts.push(first);
        lasts.push(last);
        spans.push(last - first);
        sleep(SETTLING).await;
    }
    report.insert("blocks".to_owned(), json!(plan.blocks));
    report.insert("block_to_first_ms".to_owned(), firsts.median_ms());
    report.insert("block_to_last_ms".to_owned(), lasts.median_ms());
    report.insert("block_first_to_last_ms".to_owned(), spans.median_ms());
    waits.report("block", report);
    let mut cpu = Map::new();
    let jobs = plan.connections * u64::from(plan.blocks);
    before.report(watched, "job", jobs, &mut cpu)?;
    report.insert(
        "cpu_us_per_block_job".to_owned(),
        cpu["cpu_us_per_job"].clone(),
    );
    Ok(())
}

/// Waits for the caller's word that it makes a block, and then until every connection has a job on it. How long that took the
/// first and the last of them; each one's wait goes to `waits`.
async fn block(
    events: &mut mpsc::UnboundedReceiver<Event>,
    connections: u64,
    waits: &mut Times,
) -> anyhow::Result<(Duration, Duration)> {
    let ordered = order().await?;
    let mut heard = HashSet::new();
    let (mut first, mut last) = (BLOCK_TIME_MAX, Duration::ZERO);
    while (heard.len() as u64) < connections {
        let event = timeout_at((ordered + BLOCK_TIME_MAX).into(), events.recv()).await;
        let event = event.with_context(|| {
            format!(
                "{} of {connections} heard of the block within {} s",
                heard.len(),
                BLOCK_TIME_MAX.as_secs()
            )
        })?;
        match event.context("all connections have ended")? {
            // Of a tip that came before.
            Event::Tip(_, at) if at < ordered => {}
            Event::Tip(number, at) => {
                if heard.insert(number) {
                    let wait = at - ordered;
                    waits.push(wait);
                    first = first.min(wait);
                    last = last.max(wait);
                }
            }
            Event::Opened => {}
            Event::Ended(why) => bail!("a connection ended: {why}"),
        }
    }
    Ok((first, last))
}

/// When the caller's line comes. A thread reads it, which may outlive the wait.
async fn order() -> anyhow::Result<Instant> {
    let (sender, line) = oneshot::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        if matches!(stdin().lock().read_line(&mut text), Ok(1..)) {
            // The wait may be over.
            let _ = sender.send(Instant::now());
        }
    });
    let line = timeout(ORDER_TIME_MAX, line).await;
    line.context("no line on standard input in time")?
        .context("standard input has ended without a line")
}

/// Opens further channels, and waits until the pool has granted all of them.
async fn open_more(waiting: &mut Waiting, each: u32, all: u64) -> anyhow::Result<()> {
    waiting
        .more
        .send(each)
        .context("all connections have ended")?;
    let until = Instant::now() + OPENING_TIME_MAX;
    let mut opened = 0;
    while opened < all {
        let event = timeout_at(until.into(), waiting.events.recv()).await;
        let event = event.with_context(|| format!("{opened} of {all} channels are open"))?;
        match event.context("all connections have ended")? {
            Event::Opened => opened += 1,
            Event::Tip(..) => {}
            Event::Ended(why) => bail!("a connection ended: {why}"),
        }
    }
    Ok(())
}
