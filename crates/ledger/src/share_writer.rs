//! The one writer of a log into the ledger: it reads what is durable, writes it in sets, each with the position up to which
//! it goes, and gives the log's room free. Whatever it is stopped at, each share is in the ledger once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use dovetail_share_log::{Position, ReadError, Reader, Records, Recovered, ShareLog};
use dovetail_units::time::unix_now;
use sqlx::{PgPool, Row};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::committer::CommitterConfig;
use crate::error::Fault;
use crate::known_shares::{HEIGHTS_MAX, KnownShares, key};
use crate::partitions::Partitions;
use crate::rewards::{self, SliceBook};
use crate::share_record::LoggedShare;
use crate::share_set::{self, LogWriter, ShareSet};
use crate::{Ledger, LedgerError, hash_credits, share_sums};

/// How many records one set has at most: one transaction, far shorter than [`SET_TIME_MAX`].
const SET_RECORDS_MAX: usize = 8_192;
/// After a set this small the writer waits for more: a transaction for each share would be most of its cost.
const SET_RECORDS_FEW: usize = 2_048;
/// A set that takes longer means that Postgres is away.
const SET_TIME_MAX: Duration = Duration::from_secs(20);
/// How long the writer waits for Postgres between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// How often a set that collided with another transaction is tried at once.
const TRIES_MAX: usize = 3;
/// How often old partitions and sums are looked for.
const TIDY_INTERVAL: Duration = Duration::from_secs(3_600);
/// Proofs that are read back from the ledger at the start, at most.
const KNOWN_SHARES_MAX: i64 = 2_000_000;
/// A set that takes too long is written in parts, down to this.
const PART_RECORDS_MIN: usize = 256;
/// Records of one set that are set aside. More are not the records' fault.
const REJECTS_MAX: usize = 64;
/// When an interval that could not be settled is tried again.
const SETTLE_RETRY: Duration = Duration::from_secs(1);
/// How long the writer goes on when the pool stops. What is left stays in the log.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

/// Takes the log over, and finds where the writer goes on, by the ledger's word. What is logged from there on, and what the
/// ledger has of the newest heights, is noted as known.
pub(crate) async fn resume(
    ledger: &Ledger,
    log: &ShareLog,
    recovered: &Recovered,
    known: &mut KnownShares,
) -> Result<(Position, LogWriter), LedgerError> {
    let taken = LogWriter {
        log_id: recovered.log_id.cast_signed(),
        // The standard library's hasher is seeded by the system.
        writer: RandomState::new().hash_one(recovered.log_id).cast_signed(),
    };
    sqlx::query(
        "INSERT INTO share_logs (log_id, position, writer) VALUES ($1, $2, $3)
         ON CONFLICT (log_id) DO NOTHING",
    )
    .bind(taken.log_id)
    // A ledger that does not know the log has nothing of it.
    .bind(0_i64)
    .bind(taken.writer)
    .execute(&ledger.pool)
    .await?;
    let row = sqlx::query(
        "SELECT position, uuid_send(last_proof) AS last_proof FROM share_logs WHERE log_id = $1",
    )
    .bind(taken.log_id)
    .fetch_one(&ledger.pool)
    .await?;
    let position: i64 = row.try_get("position")?;
    let position = u64::try_from(position).map_err(|_| LedgerError::Corrupt("log position"))?;
    let position = Position(position);
    if position > recovered.end {
        return Err(LedgerError::Log(format!(
            "the ledger has it up to record {position}, but it ends at {}: it is an older copy. Put the newest one back, \
             or move the folder aside and start with an empty one",
            recovered.end
        )));
    }
    check_last(log, recovered, position, row.try_get("last_proof")?).await?;
    if position < recovered.acknowledged {
        tracing::error!(
            ledger = %position, log = %recovered.acknowledged,
            "the ledger is older than the log: was it restored from a backup? The shares between the two may be lost"
        );
    }
    let from = position.max(recovered.first);
    read_known(ledger, known).await?;
    let mut reader = log.reader(from).map_err(log_error)?;
    loop {
        let (back, records) = read(reader).await?;
        for (_, record) in records.iter() {
            if let Some(share) = LoggedShare::decode(record) {
                known.insert(share.height, key(&share.header_hash));
            }
        }
        if records.is_empty() {
            break;
        }
        reader = back;
    }
    // From now on no other pool writes it. Where the ledger lags behind what the log still has, it goes on from there.
    let took = sqlx::query(
        "UPDATE share_logs SET writer = $2, position = $3 WHERE log_id = $1 AND position = $4",
    )
    .bind(taken.log_id)
    .bind(taken.writer)
    .bind(database_position(from)?)
    .bind(database_position(position)?)
    .execute(&ledger.pool)
    .await?;
    if took.rows_affected() == 0 {
        return Err(LedgerError::Log(
            "another pool has written a copy of it meanwhile: start only one of the two".to_owned(),
        ));
    }
    log.acknowledge(from)
        .map_err(|error| LedgerError::Log(error.to_string()))?;
    Ok((from, taken))
}

/// Whether the last record that the ledger has is this log's, where the log still holds it.
async fn check_last(
    log: &ShareLog,
    recovered: &Recovered,
    position: Position,
    last_proof: Option<Vec<u8>>,
) -> Result<(), LedgerError> {
    let (Some(last_proof), Some(last)) = (last_proof, position.0.checked_sub(1)) else {
        return Ok(());
    };
    if Position(last) < recovered.first {
        return Ok(());
    }
    let (_, records) = read(log.reader(Position(last)).map_err(log_error)?).await?;
    let share = records
        .iter()
        .next()
        .and_then(|(_, record)| LoggedShare::decode(record));
    if share.is_none_or(|share| key(&share.header_hash).as_slice() == last_proof) {
        return Ok(());
    }
    Err(LedgerError::Log(format!(
        "record {last} is not the one that the ledger has: another pool has written a copy of this log. Start that one, \
         or move this folder aside for a person to compare, and start with an empty one"
    )))
}

/// The proofs of the newest heights that are in the ledger already.
async fn read_known(ledger: &Ledger, known: &mut KnownShares) -> Result<(), LedgerError> {
    let rows = sqlx::query(
        "SELECT height, string_agg(uuid_send(header_hash), ''::bytea) AS keys FROM
             (SELECT height, header_hash FROM shares
               WHERE height > (SELECT max(height) FROM shares) - $1 ORDER BY height DESC LIMIT $2) newest
          GROUP BY height ORDER BY height",
    )
    .bind(i32::try_from(HEIGHTS_MAX).unwrap_or(i32::MAX))
    .bind(KNOWN_SHARES_MAX)
    .fetch_all(&ledger.pool)
    .await?;
    // The lowest first, so that the newest heights stay.
    for row in &rows {
        let (height, keys): (i32, Vec<u8>) = (row.try_get("height")?, row.try_get("keys")?);
        let (keys, _) = keys.as_chunks();
        for key in keys {
            known.insert(u32::try_from(height).unwrap_or(0), *key);
        }
    }
    Ok(())
}

pub(crate) fn database_position(position: Position) -> Result<i64, LedgerError> {
    i64::try_from(position.0).map_err(|_| LedgerError::Corrupt("log position"))
}

fn log_error(error: ReadError) -> LedgerError {
    LedgerError::Log(error.to_string())
}

/// Reads away from the runtime's threads.
async fn read(mut reader: Reader) -> Result<(Reader, Records), LedgerError> {
    let done = tokio::task::spawn_blocking(move || {
        let records = reader.read(SET_RECORDS_MAX);
        (reader, records)
    });
    let (reader, records) = done
        .await
        .map_err(|_| LedgerError::Log("a thread ended while the log was read".to_owned()))?;
    Ok((reader, records.map_err(log_error)?))
}

/// Writes one log into the ledger.
pub(crate) struct ShareWriter {
    pool: PgPool,
    log: ShareLog,
    reader: Option<Reader>,
    writes: LogWriter,
    config: CommitterConfig,
    progress: watch::Sender<Position>,
    partitions: Partitions,
    /// The slices that blocks are divided over.
    slices: Option<SliceBook>,
    /// Records of one transaction at most: fewer while Postgres is slow.
    part_records_max: usize,
    /// When the credit interval ends; `None` if each set ends it.
    settle_at: Option<Instant>,
    tidied_at: Option<Instant>,
    is_away: bool,
    /// When it stops, once the pool does.
    stop_at: Option<Instant>,
    shutdown: CancellationToken,
}

/// Why the writer stops.
enum Stop {
    /// Nothing more will come, or Postgres is away while the pool stops.
    Done,
    /// It cannot go on; the pool must not go on either.
    Failed(LedgerError),
}

impl ShareWriter {
    pub(crate) fn new(
        ledger: &Ledger,
        log: &ShareLog,
        config: CommitterConfig,
        (position, writes): (Position, LogWriter),
        progress: watch::Sender<Position>,
        shutdown: &CancellationToken,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            pool: ledger.pool.clone(),
            log: log.clone(),
            reader: Some(log.reader(position).map_err(log_error)?),
            writes,
            partitions: Partitions::new(config.keep_blocks),
            slices: config.rewards.clone().map(SliceBook::new),
            settle_at: (!config.settle_interval.is_zero())
                .then(|| Instant::now() + config.settle_interval),
            config,
            progress,
            part_records_max: SET_RECORDS_MAX,
            stop_at: None,
            tidied_at: None,
            is_away: false,
            shutdown: shutdown.clone(),
        })
    }

    /// # Errors
    /// [`LedgerError::Log`] if it cannot go on, and the pool must not either.
    pub(crate) async fn run(mut self) -> Result<(), LedgerError> {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(Stop::Done) => break,
                Err(Stop::Failed(error)) => {
                    self.log.close();
                    return Err(error);
                }
            }
        }
        // What is left of the interval becomes transfers with the next start, if Postgres is away now.
        if !self.is_away {
            self.settle().await;
        }
        let failure = self.log.failure();
        failure.map_or(Ok(()), |failure| Err(LedgerError::Log(failure.to_string())))
    }

    /// Writes what there is, or waits for something to do.
    async fn step(&mut self) -> Result<(), Stop> {
        if self.is_overdue() {
            return Err(Stop::Done);
        }
        let due = self.settle_at;
        let Some(reader) = &mut self.reader else {
            return Err(Stop::Done);
        };
        tokio::select! {
            waited = reader.wait() => match waited {
                Ok(()) => {}
                Err(ReadError::Ended) => return Err(Stop::Done),
                Err(error) => return Err(Stop::Failed(log_error(error))),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                self.settle().await;
                return Ok(());
            }
        }
        let reader = self.reader.take().ok_or(Stop::Done)?;
        let from = reader.position();
        let (reader, records) = read(reader).await.map_err(Stop::Failed)?;
        self.reader = Some(reader);
        self.until_written(from, &records).await?;
        if records.len() < SET_RECORDS_FEW {
            tokio::select! {
                () = sleep(self.config.write_interval) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Whether the pool has been stopping for too long.
    fn is_overdue(&mut self) -> bool {
        if !self.shutdown.is_cancelled() {
            return false;
        }
        let now = Instant::now();
        *self.stop_at.get_or_insert(now + STOP_TIME_MAX) <= now
    }

    /// Writes the records until Postgres has taken them.
    async fn until_written(&mut self, from: Position, records: &Records) -> Result<(), Stop> {
        loop {
            if let Some(failure) = self.log.failure() {
                return Err(Stop::Failed(LedgerError::Log(failure.to_string())));
            }
            match self.write(from, records).await {
                Ok(()) => {
                    if std::mem::take(&mut self.is_away) {
                        tracing::info!("Postgres is back");
                    }
                    return Ok(());
                }
                Err(error @ LedgerError::Log(_)) => return Err(Stop::Failed(error)),
                Err(error) => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        tracing::error!(%error, "Postgres does not take shares: they wait in the log");
                    }
                }
            }
            if self.shutdown.is_cancelled() {
                return Err(Stop::Done);
            }
            tokio::select! {
                () = sleep(RETRY_INTERVAL) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    async fn write(&mut self, from: Position, records: &Records) -> Result<(), LedgerError> {
        let decoded = share_set::decode(records)?;
        let set = ShareSet::new(self.writes, from, &decoded);
        self.prepare(&set).await?;
        // Parts that are not written yet, the last one first.
        let mut open: Vec<_> = set.parts(self.part_records_max).rev().collect();
        let (mut rejects, mut is_prepared_anew) = (0, false);
        while let Some(set) = open.pop() {
            match self.write_set(&set).await {
                Ok(duplicates) if duplicates > 0 => tracing::error!(
                    duplicates,
                    "acknowledged shares were in the ledger already, and count once: two pools, or a fault of this one"
                ),
                Ok(_) => {}
                Err(error) if error.fault() == Fault::Row => {
                    // A partition may be missing that was there.
                    if !std::mem::replace(&mut is_prepared_anew, true) {
                        self.partitions.forget();
                        self.prepare(&set).await?;
                        open.push(set);
                    } else if let Some([first, second]) = set.halves() {
                        open.extend([second, first]);
                    } else {
                        rejects += 1;
                        self.reject(&set, rejects, &error).await?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.part_records_max = self.part_records_max.saturating_mul(2).min(SET_RECORDS_MAX);
        if self.config.settle_interval.is_zero() {
            self.settle().await;
        }
        let end = records.end();
        self.log
            .acknowledge(end)
            .map_err(|error| LedgerError::Log(error.to_string()))?;
        self.progress.send_replace(end);
        Ok(())
    }

    async fn prepare(&mut self, set: &ShareSet<'_>) -> Result<(), LedgerError> {
        let prepared = timeout(SET_TIME_MAX, self.partitions.prepare(&self.pool, set));
        prepared.await.unwrap_or_else(|_| Err(too_late()))
    }

    /// Sets a single record aside. Many of them are a fault of the schema or of this release, and a person's to mend.
    async fn reject(
        &self,
        set: &ShareSet<'_>,
        rejects: usize,
        error: &LedgerError,
    ) -> Result<(), LedgerError> {
        if rejects > REJECTS_MAX {
            return Err(LedgerError::Log(format!(
                "the ledger refuses record {} and {REJECTS_MAX} others: {error}",
                set.from()
            )));
        }
        tracing::error!(%error, position = %set.from(), "the ledger never takes a logged share: see share_log_rejects");
        let reason = error.to_string();
        let rejected = timeout(SET_TIME_MAX, set.reject(&self.pool, &reason));
        rejected.await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn write_set(&mut self, set: &ShareSet<'_>) -> Result<u64, LedgerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let written = share_set::write(&self.pool, set, self.slices.as_mut());
            let written = timeout(SET_TIME_MAX, written).await;
            let written = written.unwrap_or_else(|_| {
                // Less at a time may be in time.
                self.part_records_max = (self.part_records_max / 2).max(PART_RECORDS_MIN);
                Err(too_late())
            });
            match written {
                Err(error) if error.fault() == Fault::Collision && tries < TRIES_MAX => {
                    tracing::debug!(%error, "a set of shares is tried again");
                }
                written => return written,
            }
        }
    }

    /// A credit interval is over: what hashes have earned in it becomes transfers. If that fails, shares go on being written.
    async fn settle(&mut self) {
        let settled = timeout(SET_TIME_MAX, hash_credits::settle(&self.pool)).await;
        let interval = self.config.settle_interval;
        match settled.unwrap_or_else(|_| Err(too_late())) {
            Ok(_) => {
                self.settle_at = (!interval.is_zero()).then(|| Instant::now() + interval);
                self.tidy().await;
            }
            Err(error) => {
                tracing::error!(%error, "what hashes have earned cannot become transfers yet");
                self.settle_at = Some(Instant::now() + interval.max(SETTLE_RETRY));
            }
        }
    }

    /// Drops what is older than it is kept, once in a while.
    async fn tidy(&mut self) {
        if self
            .tidied_at
            .is_some_and(|at| at.elapsed() < TIDY_INTERVAL)
        {
            return;
        }
        self.tidied_at = Some(Instant::now());
        let tidied = timeout(SET_TIME_MAX, async {
            self.partitions.drop_old(&self.pool).await;
            if let Some(rewards) = &self.config.rewards {
                rewards::drop_old(&self.pool, rewards).await;
            }
            share_sums::drop_old(&self.pool, unix_now()).await
        });
        if let Err(error) = tidied.await.unwrap_or_else(|_| Err(too_late())) {
            tracing::warn!(%error, "cannot delete old sums of shares yet");
        }
    }
}

/// Postgres did not answer in time.
fn too_late() -> LedgerError {
    sqlx::Error::PoolTimedOut.into()
}
