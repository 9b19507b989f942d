//! The writer's memory of the open slice and the window. What it says is in the database too, with the shares that made it
//! so, in one transaction; whoever finds that somebody else has counted meanwhile reads it anew.

use std::collections::BTreeSet;

use dovetail_rewards::{
    AccountId, CountedShare, Evidence, OpenSlice, ShareId, Slice, SliceHeader, SliceRoot, SumTree,
    Tally, Window, WindowLength, WindowSlice,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::division::{self, ClosedSlices, Solved};
use super::kept;
use super::kept_shares::KeptShares;
use super::{RewardsConfig, Scheme, broken, read_number, slice_number, weight};
use crate::LedgerError;
use crate::share_record::LoggedShare;
use crate::tasks::array;

/// The slices of one writer.
pub(crate) struct SliceBook {
    config: RewardsConfig,
    /// As of the last commit; `None` if it has to be read.
    kept: Option<OpenBook>,
}

/// What is counted, in one transaction.
pub(crate) struct OpenBook {
    version: i64,
    open: OpenSlice,
    window: Window,
    /// The root of the newest closed slice.
    newest: SliceRoot,
    /// Accounts of the open slice that are not written yet.
    changed: BTreeSet<AccountId>,
    /// Slices that are not written yet ..
    closed: Vec<(SliceHeader, Slice)>,
    /// .. and those that they have pushed out of the window.
    gone: Vec<WindowSlice>,
    /// What shows shares, where it is kept.
    kept: KeptShares,
    /// Below this slice there are partitions.
    made_below: u64,
}

impl SliceBook {
    pub(crate) fn new(config: RewardsConfig) -> Self {
        Self { config, kept: None }
    }

    /// Counts these shares, in their order, and divides the blocks among them. To be kept with [`SliceBook::keep`] once the
    /// transaction is committed. `None` if there is nothing to count.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing has changed.
    pub(crate) async fn count(
        &mut self,
        connection: &mut PgConnection,
        shares: &[&LoggedShare],
    ) -> Result<Option<OpenBook>, LedgerError> {
        let counts = |share: &&LoggedShare| share.weight.get() > 0 || share.reward_sat > 0;
        if !shares.iter().any(counts) {
            return Ok(None);
        }
        let mut book = self.take(connection).await?;
        for share in shares.iter().filter(|share| counts(share)) {
            if share.is_block && share.reward_sat > 0 {
                // A block is divided over what was closed, and published, before its own share.
                book.write(connection, &self.config).await?;
                let solved = Solved::by(share);
                division::divide(connection, &self.config, &solved, &book.slices()).await?;
            }
            book.add(share, self.config.keep_shares.is_some())?;
        }
        book.write(connection, &self.config).await?;
        book.end(connection).await?;
        Ok(Some(book))
    }

    /// What was counted is committed.
    pub(crate) fn keep(&mut self, book: Option<OpenBook>) {
        if book.is_some() {
            self.kept = book;
        }
    }

    /// Divides a block of the chain whose share was never logged, over the window as it is now; `false` if it was divided
    /// before, or cannot be.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing has changed.
    pub(super) async fn divide_found(
        &mut self,
        connection: &mut PgConnection,
        found: &Solved<'_>,
    ) -> Result<bool, LedgerError> {
        let book = self.take(connection).await?;
        division::divide(connection, &self.config, found, &book.slices()).await
    }

    /// Locks the chain of slices, until the transaction ends.
    async fn take(&mut self, connection: &mut PgConnection) -> Result<OpenBook, LedgerError> {
        let row =
            sqlx::query("SELECT version, draw, length, first_slice FROM reward_chain FOR UPDATE")
                .fetch_one(&mut *connection)
                .await?;
        let version: i64 = row.try_get("version")?;
        match self.kept.take() {
            Some(kept) if kept.version == version => Ok(kept),
            _ => OpenBook::read(connection, &self.config, &row).await,
        }
    }
}

impl Scheme {
    /// How much a window holds. Solo mining needs none; it is kept, so that a pool can change to the other scheme.
    pub(super) fn length(self) -> WindowLength {
        match self {
            Self::Pplns(length) => length,
            Self::Solo => WindowLength::default(),
        }
    }
}

impl OpenBook {
    async fn read(
        connection: &mut PgConnection,
        config: &RewardsConfig,
        chain: &PgRow,
    ) -> Result<Self, LedgerError> {
        let draw = array(chain.try_get("draw")?)?;
        let newest: Option<PgRow> =
            sqlx::query("SELECT number, root FROM reward_slices ORDER BY number DESC LIMIT 1")
                .fetch_optional(&mut *connection)
                .await?;
        let (number, newest) = match newest {
            Some(row) => {
                let number = read_number(row.try_get("number")?)?;
                let root = SliceRoot::from_bytes(array(row.try_get("root")?)?);
                (number + 1, root)
            }
            None => (
                0,
                SliceRoot::genesis(&config.signer, &config.first_block, &draw),
            ),
        };
        let length = config.scheme.length();
        let (of_length, first): (Option<i32>, Option<i64>) =
            (chain.try_get("length")?, chain.try_get("first_slice")?);
        let window = if of_length == Some(i32::from(length.get())) {
            read_window(connection, length, first.unwrap_or_default()).await?
        } else {
            rebuild_window(connection, length).await?
        };
        Ok(Self {
            version: chain.try_get("version")?,
            open: read_open(connection, number).await?,
            window,
            newest,
            changed: BTreeSet::new(),
            closed: Vec::new(),
            gone: Vec::new(),
            kept: KeptShares::read(connection, config, number).await?,
            made_below: 0,
        })
    }

    /// What a block is divided over now.
    fn slices(&self) -> ClosedSlices<'_> {
        ClosedSlices {
            window: &self.window,
            newest: self.newest,
        }
    }

    fn add(&mut self, share: &LoggedShare, keeps_shares: bool) -> Result<(), LedgerError> {
        let account =
            AccountId::new(&share.account).map_err(|_| LedgerError::Corrupt("account"))?;
        let counted = CountedShare {
            id: ShareId::of(&share.header_hash),
            weight: share.weight,
        };
        let proof = share.proof.as_deref();
        self.kept.add(self.open.number(), &account, counted, proof);
        let closed = self.open.add(&account, &counted);
        let Some(slice) = closed.map_err(|_| LedgerError::Corrupt("weight of a share"))? else {
            if share.weight.get() > 0 {
                self.changed.insert(account);
            }
            return Ok(());
        };
        self.kept.begin_slice(keeps_shares);
        self.changed.clear();
        let header = SumTree::new(slice.clone()).header(self.newest);
        self.newest = header.root();
        let entered = WindowSlice {
            number: slice.number(),
            total: slice.total(),
        };
        let gone = self.window.push(entered);
        self.gone
            .extend(gone.map_err(|error| broken(&error.to_string()))?);
        self.closed.push((header, slice));
        Ok(())
    }

    /// Writes what has changed since the last time.
    async fn write(
        &mut self,
        connection: &mut PgConnection,
        config: &RewardsConfig,
    ) -> Result<(), LedgerError> {
        self.make_partitions(connection).await?;
        self.kept.write(connection).await?;
        if !self.closed.is_empty() {
            self.write_closed(connection, config).await?;
            self.move_window(connection).await?;
            sqlx::query("DELETE FROM open_slice_work")
                .execute(&mut *connection)
                .await?;
            self.closed.clear();
            self.gone.clear();
        }
        let rows: Vec<_> = self
            .changed
            .iter()
            .filter_map(|account| Some((account, self.open.accounts().get(account)?)))
            .collect();
        if !rows.is_empty() {
            let columns = TallyColumns::new(rows.into_iter().map(|row| (self.open.number(), row)))?;
            columns
                .insert(
                    connection,
                    "INSERT INTO open_slice_work AS o (slice, account, weight, shares, evidence)
                     SELECT * FROM named
                     ON CONFLICT (account) DO UPDATE
                        SET weight = EXCLUDED.weight, shares = EXCLUDED.shares, evidence = EXCLUDED.evidence",
                )
                .await?;
        }
        self.changed.clear();
        Ok(())
    }

    /// The partitions of all slices that are written now.
    async fn make_partitions(&mut self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let closed = self.closed.iter().map(|(header, _)| header.number);
        let kept = self.kept.slices();
        let (first, last) = closed
            .chain(kept)
            .fold((u64::MAX, 0), |(first, last), number| {
                (first.min(number), last.max(number))
            });
        if first <= last && last >= self.made_below {
            self.made_below = kept::make(connection, first, last).await?;
        }
        Ok(())
    }

    async fn write_closed(
        &self,
        connection: &mut PgConnection,
        config: &RewardsConfig,
    ) -> Result<(), LedgerError> {
        let headers = || self.closed.iter().map(|(header, _)| header);
        let numbers: Result<Vec<i64>, _> = headers().map(|of| slice_number(of.number)).collect();
        let accounts: Vec<i32> = headers()
            .map(|of| i32::try_from(of.accounts).unwrap_or(i32::MAX))
            .collect();
        sqlx::query(
            "INSERT INTO reward_slices (number, previous, accounts, total, top, root, signer, signature)
             SELECT number, previous, accounts, total::numeric, top, root, $7, signature
               FROM unnest($1::bigint[], $2::bytea[], $3::integer[], $4::text[], $5::bytea[], $6::bytea[], $8::bytea[])
                 AS given (number, previous, accounts, total, top, root, signature)",
        )
        .bind(numbers?)
        .bind(headers().map(|of| of.previous.as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(accounts)
        .bind(headers().map(|of| of.total.get().to_string()).collect::<Vec<_>>())
        .bind(headers().map(|of| of.top.to_vec()).collect::<Vec<_>>())
        .bind(headers().map(|of| of.root().as_bytes().to_vec()).collect::<Vec<_>>())
        .bind(config.signer.to_vec())
        .bind(headers().map(|of| (config.sign)(of.root().as_bytes()).to_vec()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
        let rows = self
            .closed
            .iter()
            .flat_map(|(_, slice)| slice.accounts().iter().map(|row| (slice.number(), row)));
        TallyColumns::new(rows)?
            .insert(
                connection,
                "INSERT INTO slice_work (slice, account, weight, shares, evidence) SELECT * FROM named",
            )
            .await
    }

    /// Adds the new slices to the window's weights, and takes those away that have left.
    async fn move_window(&self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        let closed: Result<Vec<i64>, _> = self
            .closed
            .iter()
            .map(|(header, _)| slice_number(header.number))
            .collect();
        let gone: Result<Vec<i64>, _> =
            self.gone.iter().map(|of| slice_number(of.number)).collect();
        sqlx::query(
            "MERGE INTO window_now AS w
             USING (SELECT account, sum(weight) AS weight FROM (
                        SELECT account, weight FROM slice_work WHERE slice = ANY($1)
                        UNION ALL
                        SELECT account, -weight FROM slice_work WHERE slice = ANY($2)) parts
                    GROUP BY account ORDER BY account) AS d
                ON w.account = d.account
             WHEN MATCHED AND w.weight + d.weight = 0 THEN DELETE
             WHEN MATCHED THEN UPDATE SET weight = w.weight + d.weight
             WHEN NOT MATCHED AND d.weight <> 0 THEN INSERT (account, weight) VALUES (d.account, d.weight)",
        )
        .bind(closed?)
        .bind(gone?)
        .execute(connection)
        .await?;
        Ok(())
    }

    async fn end(&mut self, connection: &mut PgConnection) -> Result<(), LedgerError> {
        self.version += 1;
        let first = self.window.slices().next().map(|of| of.number);
        let first = first.map(slice_number).transpose()?;
        sqlx::query("UPDATE reward_chain SET version = $1, length = $2, first_slice = $3")
            .bind(self.version)
            .bind(i32::from(self.window.length().get()))
            .bind(first)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Tallies of accounts, as columns.
struct TallyColumns {
    slices: Vec<i64>,
    accounts: Vec<String>,
    weights: Vec<String>,
    shares: Vec<i64>,
    evidence: Vec<Vec<u8>>,
}

impl TallyColumns {
    fn new<'a>(
        rows: impl Iterator<Item = (u64, (&'a AccountId, &'a Tally))>,
    ) -> Result<Self, LedgerError> {
        let mut columns = Self {
            slices: Vec::new(),
            accounts: Vec::new(),
            weights: Vec::new(),
            shares: Vec::new(),
            evidence: Vec::new(),
        };
        for (slice, (account, tally)) in rows {
            let name = std::str::from_utf8(account.as_bytes());
            columns.slices.push(slice_number(slice)?);
            columns.accounts.push(
                name.map_err(|_| LedgerError::Corrupt("account"))?
                    .to_owned(),
            );
            columns.weights.push(tally.weight.get().to_string());
            columns
                .shares
                .push(i64::try_from(tally.shares).unwrap_or(i64::MAX));
            columns.evidence.push(tally.evidence.as_bytes().to_vec());
        }
        Ok(columns)
    }

    /// Runs an insertion that selects from `named`.
    async fn insert(self, connection: &mut PgConnection, insert: &str) -> Result<(), LedgerError> {
        let rows = self.accounts.len() as u64;
        let statement = format!(
            "WITH named AS (
                 SELECT slice, accounts.id::integer AS account, weight::numeric AS weight, shares, evidence
                   FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bytea[])
                     AS given (slice, name, weight, shares, evidence)
                   JOIN accounts ON accounts.name = 'worker:' || given.name ORDER BY slice, account)
             {insert}"
        );
        let inserted = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(self.slices)
            .bind(self.accounts)
            .bind(self.weights)
            .bind(self.shares)
            .bind(self.evidence)
            .execute(connection)
            .await?;
        match inserted.rows_affected() == rows {
            true => Ok(()),
            false => Err(broken("an account of a slice is not open")),
        }
    }
}

async fn read_open(connection: &mut PgConnection, number: u64) -> Result<OpenSlice, LedgerError> {
    let rows = sqlx::query(
        "SELECT slice, substr(name, 8) AS name, weight::text AS weight, shares, evidence
           FROM open_slice_work JOIN accounts ON accounts.id = account",
    )
    .fetch_all(connection)
    .await?;
    let of_number = slice_number(number)?;
    let mut accounts = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<i64, _>("slice")? != of_number {
            return Err(broken("the open slice has shares of another one"));
        }
        accounts.push(tally(row)?);
    }
    OpenSlice::resume(number, Slice::SIZE, accounts).map_err(|error| broken(&error.to_string()))
}

/// An account's part of a slice.
pub(super) fn tally(row: &PgRow) -> Result<(AccountId, Tally), LedgerError> {
    let name: String = row.try_get("name")?;
    let account = AccountId::new(name).map_err(|_| LedgerError::Corrupt("account"))?;
    let shares: i64 = row.try_get("shares")?;
    let tally = Tally {
        weight: weight(row, "weight")?,
        shares: u64::try_from(shares).map_err(|_| LedgerError::Corrupt("slice"))?,
        evidence: Evidence::from_bytes(array(row.try_get("evidence")?)?),
    };
    Ok((account, tally))
}

fn window_of(rows: &[PgRow], length: WindowLength) -> Result<Window, LedgerError> {
    let slices = rows.iter().map(|row| {
        Ok(WindowSlice {
            number: read_number(row.try_get("number")?)?,
            total: weight(row, "total")?,
        })
    });
    let slices: Result<Vec<_>, LedgerError> = slices.collect();
    Window::from_newest(length, slices?).map_err(|error| broken(&error.to_string()))
}

async fn read_window(
    connection: &mut PgConnection,
    length: WindowLength,
    first: i64,
) -> Result<Window, LedgerError> {
    let rows = sqlx::query(
        "SELECT number, total::text AS total FROM reward_slices WHERE number >= $1 ORDER BY number DESC",
    )
    .bind(first)
    .fetch_all(connection)
    .await?;
    window_of(&rows, length)
}

/// The window has another length than before: finds its slices, and sums what they hold.
async fn rebuild_window(
    connection: &mut PgConnection,
    length: WindowLength,
) -> Result<Window, LedgerError> {
    let rows = sqlx::query(
        "SELECT number, total::text AS total FROM (
             SELECT number, total, sum(total) OVER (ORDER BY number DESC) - total AS newer FROM reward_slices) summed
          WHERE newer < $1::text::numeric AND number >= (SELECT work_from FROM reward_chain) ORDER BY number DESC",
    )
    .bind(length.weight().get().to_string())
    .fetch_all(&mut *connection)
    .await?;
    let window = window_of(&rows, length)?;
    let first = window.slices().next().map_or(0, |of| of.number);
    sqlx::query("DELETE FROM window_now")
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO window_now (account, weight)
         SELECT account, sum(weight) FROM slice_work WHERE slice >= $1 GROUP BY account",
    )
    .bind(slice_number(first)?)
    .execute(connection)
    .await?;
    Ok(window)
}
