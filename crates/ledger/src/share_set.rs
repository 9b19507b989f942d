//! A set of logged shares in one transaction: a few statements, however many shares there are, and with them the position
//! up to which the log is in the ledger.

use std::collections::{BTreeMap, HashSet};

use dovetail_share_log::{Position, Records};
use dovetail_units::{ShareCredit, Work};
use sqlx::{PgConnection, PgPool, Row};

use crate::begin::begin;
use crate::known_shares::{Key, key};
use crate::rewards::SliceBook;
use crate::share_record::LoggedShare;
use crate::share_sums::SpanSums;
use crate::share_writer::database_position;
use crate::transfers::worker_account;
use crate::{LedgerError, coinbase_only, collateral, hash_credits};

/// A record, and what it says.
pub(crate) struct LoggedRecord<'a> {
    record: &'a [u8],
    share: Option<LoggedShare>,
}

/// All of these.
///
/// # Errors
/// [`LedgerError::Log`] if another release wrote one of them.
pub(crate) fn decode(records: &Records) -> Result<Vec<LoggedRecord<'_>>, LedgerError> {
    let decoded = |(position, record)| {
        if LoggedShare::is_of_another_release(record) {
            return Err(LedgerError::Log(format!(
                "record {position} was written by another release: start that one until the log is drained"
            )));
        }
        let share = LoggedShare::decode(record);
        Ok(LoggedRecord { record, share })
    };
    records.iter().map(decoded).collect()
}

/// Who writes which log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogWriter {
    pub(crate) log_id: i64,
    /// Drawn at the start.
    pub(crate) writer: i64,
}

/// Records that follow each other in a log.
#[derive(Clone, Copy)]
pub(crate) struct ShareSet<'a> {
    log: LogWriter,
    from: Position,
    records: &'a [LoggedRecord<'a>],
}

impl<'a> ShareSet<'a> {
    pub(crate) fn new(log: LogWriter, from: Position, records: &'a [LoggedRecord<'a>]) -> Self {
        Self { log, from, records }
    }

    pub(crate) fn from(&self) -> Position {
        self.from
    }

    fn end(&self) -> Position {
        Position(self.from.0 + self.records.len() as u64)
    }

    pub(crate) fn heights(&self) -> impl Iterator<Item = i32> {
        let shares = self.records.iter().filter_map(|of| of.share.as_ref());
        shares.filter_map(|share| i32::try_from(share.height).ok())
    }

    /// Both halves; `None` of a single record.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let half = self.records.len() / 2;
        let mut parts = (half > 0).then(|| self.parts(self.records.len() - half))?;
        Some([parts.next()?, parts.next()?])
    }

    /// Parts of so many records at most, in their order.
    pub(crate) fn parts(
        &self,
        records_max: usize,
    ) -> impl DoubleEndedIterator<Item = Self> + use<'a> {
        let (log, from, records_max) = (self.log, self.from, records_max.max(1));
        let parts = self.records.chunks(records_max).enumerate();
        parts.map(move |(number, records)| {
            let offset = number.saturating_mul(records_max) as u64;
            Self::new(log, Position(from.0 + offset), records)
        })
    }

    /// Sets the records aside for a person, and goes on behind them.
    pub(crate) async fn reject(&self, pool: &PgPool, reason: &str) -> Result<(), LedgerError> {
        let mut transaction = begin(pool).await?;
        let done = self.advance(&mut transaction).await?;
        for (number, of) in self.records.iter().enumerate().skip(done) {
            sqlx::query(
                "INSERT INTO share_log_rejects (log_id, position, record, reason) VALUES ($1, $2, $3, $4)",
            )
            .bind(self.log.log_id)
            .bind(database_position(Position(self.from.0 + number as u64))?)
            .bind(of.record)
            .bind(reason)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Moves the log's position behind the set. How many of its records are in the ledger already: a commit whose answer
    /// was lost, or half of the set.
    async fn advance(&self, connection: &mut PgConnection) -> Result<usize, LedgerError> {
        let position: Option<i64> = sqlx::query_scalar(
            "SELECT position FROM share_logs WHERE log_id = $1 AND writer = $2 FOR UPDATE",
        )
        .bind(self.log.log_id)
        .bind(self.log.writer)
        .fetch_optional(&mut *connection)
        .await?;
        let (from, end) = (
            database_position(self.from)?,
            database_position(self.end())?,
        );
        let Some(position) = position.filter(|position| (from..=end).contains(position)) else {
            return Err(LedgerError::Log(format!(
                "another pool writes a copy of it to the ledger, or the ledger was replaced: nothing is written from \
                 record {} on. See which pool is the right one, and start only that",
                self.from
            )));
        };
        let last = self.records.last().and_then(|of| of.share.as_ref());
        sqlx::query(
            "UPDATE share_logs SET position = $2, last_proof = share_key($3) WHERE log_id = $1",
        )
        .bind(self.log.log_id)
        .bind(end)
        .bind(last.map(|share| share.header_hash.to_bytes().to_vec()))
        .execute(connection)
        .await?;
        Ok(usize::try_from(position - from).unwrap_or(usize::MAX))
    }
}

/// Writes the set; how many of its shares were in the ledger already. These count once.
///
/// # Errors
/// [`LedgerError`], and nothing of it counts. [`LedgerError::Log`] if somebody else writes the same log.
pub(crate) async fn write(
    pool: &PgPool,
    set: &ShareSet<'_>,
    mut slices: Option<&mut SliceBook>,
) -> Result<u64, LedgerError> {
    if let Some(duplicates) = try_write(pool, set, slices.as_deref_mut(), false).await? {
        return Ok(duplicates);
    }
    let careful = try_write(pool, set, slices, true).await?;
    // Somebody wrote the same proof meanwhile: the next try sees it.
    careful.ok_or_else(|| sqlx::Error::PoolTimedOut.into())
}

/// `None`, and nothing is written, if a proof was there that was not looked for.
async fn try_write(
    pool: &PgPool,
    set: &ShareSet<'_>,
    slices: Option<&mut SliceBook>,
    looks_for_duplicates: bool,
) -> Result<Option<u64>, LedgerError> {
    let mut transaction = begin(pool).await?;
    let moves_held = |of: &LoggedRecord<'_>| of.share.as_ref().is_some_and(|s| s.is_coinbase_only);
    if set.records.iter().any(moves_held) {
        collateral::lock(&mut transaction).await?;
    }
    let done = set.advance(&mut transaction).await?;
    let open = set.records.iter().skip(done);
    let shares: Option<Vec<&LoggedShare>> = open.map(|of| of.share.as_ref()).collect();
    let mut shares = shares.ok_or(LedgerError::Corrupt("record of the log"))?;
    let given = shares.len() as u64;
    let claims: Vec<&LoggedShare> = shares
        .iter()
        .copied()
        .filter(|of| of.is_inference)
        .collect();
    if looks_for_duplicates {
        let mut known = present(&mut transaction, &shares).await?;
        shares.retain(|share| known.insert(key(&share.header_hash)));
    }
    if !shares.is_empty() {
        let accounts = accounts(&mut transaction, &shares).await?;
        if insert(&mut transaction, &shares, &accounts).await? != shares.len() as u64 {
            return Ok(None);
        }
        count(&mut transaction, &shares, &accounts).await?;
        hold(&mut transaction, &shares, &accounts).await?;
    }
    forget_claimed(&mut transaction, &claims).await?;
    match slices {
        // The last lock that is taken: pools that write one ledger count one after the other.
        Some(slices) => {
            let counted = slices.count(&mut transaction, &shares).await?;
            transaction.commit().await?;
            slices.keep(counted);
        }
        None => transaction.commit().await?,
    }
    Ok(Some(given - shares.len() as u64))
}

/// The shares of claims are here now, from this set or from before.
async fn forget_claimed(
    connection: &mut PgConnection,
    claims: &[&LoggedShare],
) -> Result<(), LedgerError> {
    if !claims.is_empty() {
        sqlx::query(
            "DELETE FROM claimed_shares WHERE header_hash IN (SELECT share_key(proof) FROM unnest($1::bytea[]) AS given (proof))",
        )
        .bind(keys(claims))
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Those of these proofs that are there.
async fn present(
    connection: &mut PgConnection,
    shares: &[&LoggedShare],
) -> Result<HashSet<Key>, LedgerError> {
    let rows = sqlx::query(
        "SELECT uuid_send(header_hash) AS key FROM shares
           JOIN unnest($1::integer[], $2::bytea[]) AS given (height, proof)
             ON shares.height = given.height AND shares.header_hash = share_key(given.proof)",
    )
    .bind(heights(shares))
    .bind(keys(shares))
    .fetch_all(connection)
    .await?;
    let keys = rows.iter().map(|row| {
        let key: Vec<u8> = row.try_get("key")?;
        key.try_into().map_err(|_| LedgerError::Corrupt("share"))
    });
    keys.collect()
}

/// The number of each account, by its name. New ones are opened.
type Accounts<'a> = BTreeMap<&'a str, i32>;

async fn accounts<'a>(
    connection: &mut PgConnection,
    shares: &[&'a LoggedShare],
) -> Result<Accounts<'a>, LedgerError> {
    // In one order, as another set may open the same ones.
    let mut accounts: Accounts<'a> = shares.iter().map(|of| (&*of.account, 0)).collect();
    let names: Vec<String> = accounts.keys().map(|name| worker_account(name)).collect();
    sqlx::query(
        "INSERT INTO accounts (name, never_negative) SELECT name, true FROM unnest($1::text[]) AS given (name)
          WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.name = given.name)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(&names)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query("SELECT id, substr(name, 8) AS name FROM accounts WHERE name = ANY($1)")
        .bind(&names)
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let (id, name): (i64, String) = (row.try_get("id")?, row.try_get("name")?);
        let id =
            i32::try_from(id).map_err(|_| LedgerError::Refused("there are too many accounts"))?;
        if let Some(of) = accounts.get_mut(&*name) {
            *of = id;
        }
    }
    Ok(accounts)
}

/// Inserts the shares; how many were not there.
async fn insert(
    connection: &mut PgConnection,
    shares: &[&LoggedShare],
    accounts: &Accounts<'_>,
) -> Result<u64, LedgerError> {
    // In the order of the index, which then is written page by page.
    let mut sorted = shares.to_vec();
    sorted.sort_unstable_by_key(|share| (share.height, key(&share.header_hash)));
    let work = |share: &&LoggedShare| i64::try_from(share.work.get()).unwrap_or(i64::MAX);
    let inserted = sqlx::query(
        "INSERT INTO shares (work, height, account, header_hash)
         SELECT work, height, account, share_key(proof)
           FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bytea[]) AS given (work, height, account, proof)
         ON CONFLICT (height, header_hash) DO NOTHING",
    )
    .bind(sorted.iter().map(work).collect::<Vec<_>>())
    .bind(heights(&sorted))
    .bind(sorted.iter().map(|share| accounts[&*share.account]).collect::<Vec<_>>())
    .bind(keys(&sorted))
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected())
}

fn heights(shares: &[&LoggedShare]) -> Vec<i32> {
    let height = |share: &&LoggedShare| i32::try_from(share.height).unwrap_or(i32::MAX);
    shares.iter().map(height).collect()
}

fn keys(shares: &[&LoggedShare]) -> Vec<Vec<u8>> {
    shares
        .iter()
        .map(|share| key(&share.header_hash).to_vec())
        .collect()
}

/// What shares come to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    pub(crate) shares: i64,
    pub(crate) inference_shares: i64,
    pub(crate) work: Work,
    /// What is credited at the end of the interval.
    pub(crate) credit: ShareCredit,
    /// What is held until a block.
    pub(crate) held: ShareCredit,
}

impl Sum {
    pub(crate) fn add(&mut self, share: &LoggedShare) {
        self.shares += 1;
        self.inference_shares += i64::from(share.is_inference);
        self.work = self.work.saturating_add(share.work);
        let credit = if share.is_coinbase_only {
            &mut self.held
        } else {
            &mut self.credit
        };
        *credit = credit.saturating_add(share.credit);
    }
}

async fn count(
    connection: &mut PgConnection,
    shares: &[&LoggedShare],
    accounts: &Accounts<'_>,
) -> Result<(), LedgerError> {
    let mut sums: BTreeMap<i32, Sum> = BTreeMap::new();
    let mut spans = SpanSums::default();
    for share in shares {
        let account = accounts[&*share.account];
        sums.entry(account).or_default().add(share);
        spans.add(account, share);
    }
    hash_credits::add(connection, &sums).await?;
    spans.add_to(connection).await
}

/// Adds what is held until a block of its account to what is held, up to each block in its order.
async fn hold(
    connection: &mut PgConnection,
    shares: &[&LoggedShare],
    accounts: &Accounts<'_>,
) -> Result<(), LedgerError> {
    let mut open: BTreeMap<&str, Sum> = BTreeMap::new();
    for share in shares.iter().filter(|share| share.is_coinbase_only) {
        let account = &*share.account;
        open.entry(account).or_default().add(share);
        if share.is_block
            && let Some(sum) = open.remove(account)
        {
            let held = hold_sum(connection, account, accounts[account], &sum).await?;
            coinbase_only::follow(connection, held, account, share.header_hash).await?;
        }
    }
    for (account, sum) in open {
        hold_sum(connection, account, accounts[account], &sum).await?;
    }
    Ok(())
}

async fn hold_sum(
    connection: &mut PgConnection,
    account: &str,
    number: i32,
    sum: &Sum,
) -> Result<i64, LedgerError> {
    let amount = hash_credits::take_held(connection, number, sum.held).await?;
    coinbase_only::hold(connection, account, amount, sum.shares).await
}
