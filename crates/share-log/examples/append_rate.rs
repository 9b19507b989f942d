//! How many records a second become durable, and how long one takes: 100 bytes each, 1,000 in flight.
//! `cargo run --release --example append_rate -- [directory] [records] [in flight] [records per call]`

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs::File, io};

use dovetail_share_log::{Config, Disk, Durable, Position, ShareLog};

/// Counts the syncs, to tell a group's size.
#[derive(Default)]
struct Counted(AtomicU64);

impl Disk for Counted {
    fn sync(&self, file: &File) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        file.sync_data()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let mut number = |or: usize| arguments.next().map_or(Ok(or), |text| text.parse());
    let (count, in_flight, per_call) = (number(1_000_000)?, number(1_000)?, number(1)?);
    let dir = dir.join(format!("append-rate-{}", std::process::id()));
    let disk = Arc::new(Counted::default());
    let opened = ShareLog::open_on(&dir, Config::default(), Arc::<Counted>::clone(&disk) as _);
    let (log, _) = opened?;
    // The segment after the first one is made meanwhile.
    std::thread::sleep(Duration::from_secs(2));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let syncs = disk.0.load(Ordering::Relaxed);
    let started = Instant::now();
    let mut times = runtime.block_on(append(&log, count, in_flight, per_call))?;
    let took = started.elapsed();
    let syncs = disk.0.load(Ordering::Relaxed) - syncs;
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_micros();
    println!(
        "{count} records of 100 bytes, {in_flight} in flight, {per_call} per call: {:.0} records/s, {:.0} per sync; \
         durable after {} us (p50), {} us (p99), {} us (most)",
        count as f64 / took.as_secs_f64(),
        count as f64 / syncs.max(1) as f64,
        at(0.5),
        at(0.99),
        at(1.0),
    );
    let started = Instant::now();
    let mut reader = log.reader(Position(0))?;
    while reader.position() < log.end() {
        let read = reader.read(10_000)?;
        log.acknowledge(read.end())?;
    }
    println!(
        "read: {:.0} records/s",
        count as f64 / started.elapsed().as_secs_f64()
    );
    drop((log, reader));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

async fn append(
    log: &ShareLog,
    count: usize,
    in_flight: usize,
    per_call: usize,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let records = vec![[7; 100]; per_call];
    let mut waiting: VecDeque<(Instant, Durable)> = VecDeque::new();
    let mut times = Vec::with_capacity(count / per_call);
    for _ in 0..count / per_call {
        if waiting.len() * per_call >= in_flight
            && let Some((since, durable)) = waiting.pop_front()
        {
            durable.await?;
            times.push(since.elapsed());
        }
        let appended = log.append_all(&records).await?;
        waiting.push_back((Instant::now(), appended.durable));
    }
    for (since, durable) in waiting {
        durable.await?;
        times.push(since.elapsed());
    }
    Ok(times)
}
