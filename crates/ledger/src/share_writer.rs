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
const KNOWN_SHARES_MAX: i64 = 4_000_000;

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
    .bind(database_position(recovered.acknowledged)?)
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
    sqlx::query(
        "UPDATE share_logs SET writer = $2, position = GREATEST(position, $3) WHERE log_id = $1",
    )
    .bind(taken.log_id)
    .bind(taken.writer)
    .bind(database_position(from)?)
    .execute(&ledger.pool)
    .await?;
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
        "SELECT height, uuid_send(header_hash) AS key FROM shares
          WHERE height > (SELECT max(height) FROM shares) - $1 ORDER BY height DESC LIMIT $2",
    )
    .bind(i32::try_from(HEIGHTS_MAX).unwrap_or(i32::MAX))
    .bind(KNOWN_SHARES_MAX)
    .fetch_all(&ledger.pool)
    .await?;
    // The lowest first, so that the newest heights stay.
    for row in rows.iter().rev() {
        let (height, key): (i32, Vec<u8>) = (row.try_get("height")?, row.try_get("key")?);
        let key = key.try_into().map_err(|_| LedgerError::Corrupt("share"))?;
        known.insert(u32::try_from(height).unwrap_or(0), key);
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
    settled_at: Instant,
    tidied_at: Option<Instant>,
    is_away: bool,
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
            config,
            progress,
            settled_at: Instant::now(),
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
        // What is left of the slice becomes transfers with the next start, if Postgres is away now.
        if !self.is_away && self.settle().await.is_err() {
            tracing::warn!("the last slice of hash credit becomes transfers at the next start");
        }
        let failure = self.log.failure();
        failure.map_or(Ok(()), |failure| Err(LedgerError::Log(failure.to_string())))
    }

    /// Writes what there is, or waits for something to do.
    async fn step(&mut self) -> Result<(), Stop> {
        let due = self.settled_at + self.config.settle_interval;
        let Some(reader) = &mut self.reader else {
            return Err(Stop::Done);
        };
        tokio::select! {
            waited = reader.wait() => match waited {
                Ok(()) => {}
                Err(ReadError::Ended) => return Err(Stop::Done),
                Err(error) => return Err(Stop::Failed(log_error(error))),
            },
            () = sleep_until(due), if !self.config.settle_interval.is_zero() => {
                return self.until_done(None).await;
            }
        }
        let reader = self.reader.take().ok_or(Stop::Done)?;
        let from = reader.position();
        let (reader, records) = read(reader).await.map_err(Stop::Failed)?;
        self.reader = Some(reader);
        self.until_done(Some((from, &records))).await?;
        if records.len() < SET_RECORDS_FEW {
            tokio::select! {
                () = sleep(self.config.write_interval) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Writes the records, or settles, until Postgres has done it.
    async fn until_done(&mut self, records: Option<(Position, &Records)>) -> Result<(), Stop> {
        loop {
            let done = match records {
                Some((from, records)) => self.write(from, records).await,
                None => self.settle().await,
            };
            match done {
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
        let decoded = share_set::decode(records);
        let set = ShareSet::new(self.writes, from, &decoded);
        self.partitions.prepare(&self.pool, &set).await?;
        // Halves of a set that is not taken, the last one first.
        let mut open = vec![set];
        while let Some(set) = open.pop() {
            match self.write_set(&set).await {
                Ok(duplicates) if duplicates > 0 => tracing::error!(
                    duplicates,
                    "acknowledged shares were in the ledger already, and count once: two pools, or a fault of this one"
                ),
                Ok(_) => {}
                Err(error) if error.fault() == Fault::Row => match set.halves() {
                    Some([first, second]) => open.extend([second, first]),
                    None => {
                        tracing::error!(%error, position = %set.from(), "the ledger never takes a logged share: see share_log_rejects");
                        set.reject(&self.pool, &error.to_string()).await?;
                    }
                },
                Err(error) => return Err(error),
            }
        }
        if self.config.settle_interval.is_zero() {
            self.settle().await?;
        }
        let end = records.end();
        self.log
            .acknowledge(end)
            .map_err(|error| LedgerError::Log(error.to_string()))?;
        self.progress.send_replace(end);
        Ok(())
    }

    async fn write_set(&self, set: &ShareSet<'_>) -> Result<u64, LedgerError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let written = timeout(SET_TIME_MAX, share_set::write(&self.pool, set))
                .await
                .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()));
            match written {
                Err(error) if error.fault() == Fault::Collision && tries < TRIES_MAX => {
                    tracing::debug!(%error, "a set of shares is tried again");
                }
                written => return written,
            }
        }
    }

    /// A slice is over: what hashes have earned in it becomes transfers.
    async fn settle(&mut self) -> Result<(), LedgerError> {
        let settled = timeout(SET_TIME_MAX, hash_credits::settle_slice(&self.pool));
        match settled.await {
            Ok(Ok(_)) => {}
            // Shares go on being written; a person has to look at the amounts.
            Ok(Err(error)) if error.fault() == Fault::Row => {
                tracing::error!(%error, "what hashes have earned cannot become transfers");
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(sqlx::Error::PoolTimedOut.into()),
        }
        self.settled_at = Instant::now();
        if self
            .tidied_at
            .is_none_or(|at| at.elapsed() >= TIDY_INTERVAL)
        {
            self.tidied_at = Some(Instant::now());
            self.partitions.drop_old(&self.pool).await;
            if let Err(error) = share_sums::drop_old(&self.pool, unix_now()).await {
                tracing::warn!(%error, "cannot delete old sums of shares yet");
            }
        }
        Ok(())
    }
}
