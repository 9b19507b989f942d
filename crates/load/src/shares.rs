//! Shares against a pool: at a rate that no answer changes (open loop), or so many under way on each connection (closed
//! loop), which finds the most that the pool takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use dovetail_sv2::messages::{CloseChannel, SubmitSharesError, SubmitSharesSuccess};
use dovetail_sv2::{Frame, FrameReader, FrameWriter};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep_until, timeout_at};

use crate::channel::{Channel, News};
use crate::connection::{Miner, Pool};
use crate::opening::open_all;
use crate::percentile::Times;
use crate::processes::{CpuTime, Watched, per_second, rss_bytes, settle};
use crate::schedule::Schedule;
use crate::unanswered::{Sent, Unanswered};

/// Refusal codes that are told apart. A pool's own are a dozen.
const CODES_MAX: usize = 32;

/// How shares are offered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loop {
    /// So many a second over all connections, whatever is answered.
    Open { rate: f64 },
    /// So many unanswered on each connection.
    Closed { in_flight: usize },
}

/// What to do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) connections: u64,
    pub(crate) offered: Loop,
    /// What counts begins after `warm_up` and ends after `time` more.
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
    /// How long answers are waited for after the last share.
    pub(crate) drain: Duration,
    /// How long the watched processes may then go on working.
    pub(crate) settling: Duration,
}

/// The times between which things count.
#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn holds(&self, moment: Instant) -> bool {
        (self.begin..self.end).contains(&moment)
    }
}

/// What became of the shares of one connection, or of all.
#[derive(Debug, Default)]
struct Tally {
    /// Of the shares that were planned within the window.
    accepted: u64,
    refused: u64,
    codes: BTreeMap<String, u64>,
    acks: Times,
    /// Shares that were answered within the window, whenever they were planned.
    accepted_in_window: u64,
    /// And whenever they were answered.
    accepted_in_all: u64,
    /// `SubmitShares.Success` messages in all, and those whose count is not that of the shares that they answer.
    messages: u64,
    mismatched: u64,
    jobs: u64,
    tips: u64,
    targets: u64,
    /// Why connections ended before they were to.
    ended: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.acks.append(other.acks);
        self.accepted_in_window += other.accepted_in_window;
        self.accepted_in_all += other.accepted_in_all;
        self.messages += other.messages;
        self.mismatched += other.mismatched;
        self.jobs += other.jobs;
        self.tips += other.tips;
        self.targets += other.targets;
        self.ended.extend(other.ended);
        for (code, count) in other.codes {
            self.count_code(code, count);
        }
    }

    fn count_code(&mut self, code: String, count: u64) {
        let known = self.codes.len() < CODES_MAX || self.codes.contains_key(&code);
        let code = if known { code } else { "others".to_owned() };
        *self.codes.entry(code).or_default() += count;
    }
}

/// A connection's state, which its two tasks share.
struct Shared {
    channel: Channel,
    unanswered: Unanswered,
    tally: Tally,
}

/// Locked for some microseconds, and never across a wait.
type State = Arc<Mutex<Shared>>;

fn locked(state: &State) -> MutexGuard<'_, Shared> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that mines.
struct Running {
    state: State,
    /// Gives the writing half back: a pool hangs up on those who hang up, whatever it owes them.
    writing: JoinHandle<FrameWriter>,
    reading: JoinHandle<()>,
}

/// Runs the plan.
///
/// # Errors
/// A connection that cannot be opened, or a watched process that has ended.
pub(crate) async fn run(
    pool: &Arc<Pool>,
    plan: &Plan,
    watched: &[Watched],
) -> anyhow::Result<Map<String, Value>> {
    let (miners, opening) = open_all(pool, 0..plan.connections).await?;
    let before = CpuTime::now(watched)?;
    let begin = Instant::now() + plan.warm_up;
    let window = Window {
        begin,
        end: begin + plan.time,
    };
    let (running, planned) = start(miners, plan, window)?;
    sleep_until(window.end.into()).await;
    let mut report = Map::new();
    report.insert("rss_bytes".to_owned(), json!(rss_bytes(watched)?));
    let (tally, unanswered) = finish(running, window, plan.drain).await;
    // A pool may write behind its acknowledgements. What that takes belongs to the shares too.
    let settling = settle(watched, plan.settling).await?;
    report.insert("settling_s".to_owned(), json!(settling.as_secs_f64()));
    let all = tally.accepted_in_all;
    before.report(watched, "share", all, &mut report)?;
    // What could not even be sent has no answer either.
    let offered = planned.unwrap_or(tally.accepted + tally.refused + unanswered);
    describe(plan, &tally, offered, &mut report);
    report.insert("opening_s".to_owned(), json!(opening.as_secs_f64()));
    tally.acks.report("ack", &mut report);
    Ok(report)
}

/// Starts the tasks of every connection, and what tells them when a share is due. Of an open loop, also how many are due
/// within the window.
fn start(
    miners: Vec<Miner>,
    plan: &Plan,
    window: Window,
) -> anyhow::Result<(Vec<Running>, Option<u64>)> {
    let Loop::Open { rate } = plan.offered else {
        let running = miners.into_iter().map(|miner| mine(miner, plan, window));
        return Ok((running.collect(), None));
    };
    // Unbounded in name: the schedule's own bound holds.
    let (queues, running): (Vec<_>, Vec<_>) = miners
        .into_iter()
        .map(|miner| {
            let (queue, planned) = mpsc::unbounded_channel();
            (queue, mine_planned(miner, planned, window))
        })
        .unzip();
    let now = Instant::now();
    let time = window.end.saturating_duration_since(now);
    let schedule = Schedule::new(now, rate, time)?;
    let planned = schedule.before(window.end) - schedule.before(window.begin);
    // Its thread ends with the schedule, which is over when the window is.
    schedule.keep(move |number, planned| {
        let queue = &queues[number as usize % queues.len()];
        // A connection that has ended takes no more; the others do.
        let _ = queue.send(planned);
        true
    })?;
    Ok((running, Some(planned)))
}

fn state(channel: Channel) -> State {
    Arc::new(Mutex::new(Shared {
        channel,
        unanswered: Unanswered::default(),
        tally: Tally::default(),
    }))
}

/// Sends each share when it is due.
fn mine_planned(
    miner: Miner,
    mut planned: mpsc::UnboundedReceiver<Instant>,
    window: Window,
) -> Running {
    let state = state(miner.channel);
    let (shared, mut writer) = (Arc::clone(&state), miner.writer);
    let writing = tokio::spawn(async move {
        while let Some(planned) = planned.recv().await {
            if !send(&shared, &mut writer, planned).await {
                break;
            }
        }
        writer
    });
    let reading = read(miner.reader, Arc::clone(&state), window, None);
    Running {
        state,
        writing,
        reading,
    }
}

/// Keeps so many shares under way.
fn mine(miner: Miner, plan: &Plan, window: Window) -> Running {
    let Loop::Closed { in_flight } = plan.offered else {
        // The caller has looked.
        return mine_planned(miner, mpsc::unbounded_channel().1, window);
    };
    let state = state(miner.channel);
    let room = Arc::new(Semaphore::new(in_flight));
    let (shared, permits, mut writer) = (Arc::clone(&state), Arc::clone(&room), miner.writer);
    let writing = tokio::spawn(async move {
        while let Ok(Ok(permit)) = timeout_at(window.end.into(), permits.acquire()).await {
            permit.forget();
            let now = Instant::now();
            if now >= window.end || !send(&shared, &mut writer, now).await {
                break;
            }
        }
        writer
    });
    let reading = read(miner.reader, Arc::clone(&state), window, Some(room));
    Running {
        state,
        writing,
        reading,
    }
}

/// Sends the next share. Whether the connection goes on.
async fn send(state: &State, writer: &mut FrameWriter, planned: Instant) -> bool {
    let share = {
        let mut shared = locked(state);
        match shared.channel.share() {
            Ok((frame, sequence_number)) => {
                shared.unanswered.push(Sent {
                    sequence_number,
                    planned,
                });
                frame
            }
            Err(error) => {
                shared.tally.ended.push(format!("{error:#}"));
                return false;
            }
        }
    };
    match writer.write(&share).await {
        Ok(()) => true,
        Err(error) => {
            locked(state).tally.ended.push(format!("writing: {error}"));
            false
        }
    }
}

/// Reads what the pool says, for as long as it says anything.
fn read(
    mut reader: FrameReader,
    state: State,
    window: Window,
    room: Option<Arc<Semaphore>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let why = loop {
            let frame = match reader.read().await {
                Ok(frame) => frame,
                Err(error) => break format!("reading: {error}"),
            };
            match locked(&state).take(&frame, Instant::now(), window) {
                Ok(answered) => {
                    if let (Some(room), true) = (&room, answered > 0) {
                        room.add_permits(answered);
                    }
                }
                Err(error) => break format!("{error:#}"),
            }
        };
        locked(&state).tally.ended.push(why);
        // Nobody waits for answers that cannot come.
        if let Some(room) = room {
            room.close();
        }
    })
}

impl Shared {
    /// Takes a frame; how many shares it answers.
    fn take(&mut self, frame: &Frame, now: Instant, window: Window) -> anyhow::Result<usize> {
        if frame.is::<SubmitSharesSuccess>() {
            let success: SubmitSharesSuccess = frame.message()?;
            let mut answered = 0;
            for share in self.unanswered.accepted(success.last_sequence_number) {
                answered += 1;
                if window.holds(share.planned) {
                    self.tally.accepted += 1;
                    let wait = now.saturating_duration_since(share.planned);
                    self.tally.acks.push(wait);
                }
            }
            self.tally.accepted_in_all += answered as u64;
            if window.holds(now) {
                self.tally.accepted_in_window += answered as u64;
            }
            self.tally.messages += 1;
            let said = success.new_submits_accepted_count as usize;
            self.tally.mismatched += u64::from(said != answered);
            return Ok(answered);
        }
        if frame.is::<SubmitSharesError>() {
            let error: SubmitSharesError = frame.message()?;
            let refused = self.unanswered.refused(error.sequence_number);
            let share = refused.context("a refusal of a share that is not under way")?;
            if window.holds(share.planned) {
                self.tally.refused += 1;
                let code = error.error_code.as_utf8_or_hex();
                self.tally.count_code(code, 1);
            }
            return Ok(1);
        }
        if frame.is::<CloseChannel>() {
            let close: CloseChannel = frame.message()?;
            let reason = close.reason_code.as_utf8_or_hex();
            anyhow::bail!("the channel was closed: {reason}");
        }
        match self.channel.take(frame)? {
            News::Job => self.tally.jobs += 1,
            News::Tip => self.tally.tips += 1,
            News::Target => self.tally.targets += 1,
            News::None => {}
        }
        Ok(0)
    }
}

/// Waits for answers, and ends everything. All tallies together, and how many shares of the window have no answer.
async fn finish(running: Vec<Running>, window: Window, drain: Duration) -> (Tally, u64) {
    let until = Instant::now() + drain;
    let mut ending = JoinSet::new();
    for running in running {
        ending.spawn(async move {
            let mut writing = running.writing;
            let written = timeout_at(until.into(), &mut writing).await;
            writing.abort();
            while written.is_ok()
                && Instant::now() < until
                && !running.reading.is_finished()
                && locked(&running.state).unanswered.len() > 0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            running.reading.abort();
            let mut shared = locked(&running.state);
            let unanswered = shared.unanswered.iter();
            let unanswered = unanswered.filter(|share| window.holds(share.planned));
            let unanswered = unanswered.count() as u64;
            (std::mem::take(&mut shared.tally), unanswered)
        });
    }
    let (mut all, mut unanswered) = (Tally::default(), 0);
    while let Some(ended) = ending.join_next().await {
        // The tasks end by themselves; none panics.
        if let Ok((tally, left)) = ended {
            all.add(tally);
            unanswered += left;
        }
    }
    (all, unanswered)
}

fn describe(plan: &Plan, tally: &Tally, offered: u64, into: &mut Map<String, Value>) {
    let unanswered = offered.saturating_sub(tally.accepted + tally.refused);
    let (kind, value) = match plan.offered {
        Loop::Open { rate } => ("rate", json!(rate)),
        Loop::Closed { in_flight } => ("in_flight", json!(in_flight)),
    };
    let mut ended = tally.ended.clone();
    ended.sort_unstable();
    ended.dedup();
    let rows = [
        (kind, value),
        ("connections", json!(plan.connections)),
        ("seconds", json!(plan.time.as_secs_f64())),
        ("offered", json!(offered)),
        ("offered_per_s", per_second(offered, plan.time)),
        ("accepted", json!(tally.accepted)),
        ("accepted_in_all", json!(tally.accepted_in_all)),
        (
            "accepted_per_s",
            per_second(tally.accepted_in_window, plan.time),
        ),
        ("refused", json!(tally.refused)),
        ("refused_codes", json!(tally.codes)),
        ("unanswered", json!(unanswered)),
        ("ack_messages", json!(tally.messages)),
        ("mismatched_acks", json!(tally.mismatched)),
        ("dead_connections", json!(tally.ended.len())),
        ("dead_reasons", json!(ended)),
        ("jobs", json!(tally.jobs)),
        ("tips", json!(tally.tips)),
        ("targets", json!(tally.targets)),
    ];
    into.extend(rows.map(|(name, value)| (name.to_owned(), value)));
}
