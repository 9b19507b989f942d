//! Group commit: shares gather until there are enough or the first has waited long enough,
//! whichever comes first; one transaction makes them durable; only then is each acknowledged.
//! Each source of shares has a lane of its own, and waits for nobody's but its own flood.
//! While Postgres is away, hash shares are acknowledged from the spool, and moved later.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::{Acquire, PgConnection, PgPool};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::error::Fault;
use crate::fair_queue::{Closed, Lane, Outlet, fair_queue};
use crate::share_set::{self, write_set};
use crate::shares::{Share, write};
use crate::spool::{Spool, Spooled};
use crate::{CommitRefusal, Ledger, LedgerError, collateral};

/// How often an absent Postgres is looked for.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// A group that takes longer means that Postgres is away.
const GROUP_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a group that collided with another transaction is tried.
const GROUP_TRIES_MAX: usize = 3;
/// How many shares of the spool go into one transaction, at least: enough to catch up with a pool
/// that goes on spooling, and few enough for [`GROUP_TIME_MAX`].
const CHUNK_SHARES: usize = 500;

/// How shares are grouped and where they wait.
#[derive(Debug, Clone)]
pub struct CommitterConfig {
    /// A group is committed at this size ..
    pub group_max: usize,
    /// .. or this long after its first share.
    pub group_wait: Duration,
    /// How many shares of one source may wait in the queue. More wait outside of it.
    pub lane_max: usize,
    /// Where hash shares wait while Postgres is away. One process at a time.
    pub spool_dir: PathBuf,
}

struct Request {
    share: Share,
    answer: oneshot::Sender<Result<(), CommitRefusal>>,
}

/// Takes the shares of one source. Clones are the same source.
#[derive(Clone)]
pub struct Committer {
    requests: Lane<Request>,
    task: TaskTracker,
}

impl Committer {
    /// Starts the task. Once `shutdown` is cancelled it takes no more shares, and ends after those
    /// that it has; wait for that with [`Committer::stopped`].
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the spool cannot be opened, or another process has it.
    pub async fn start(
        ledger: Ledger,
        config: CommitterConfig,
        shutdown: CancellationToken,
    ) -> Result<Self, LedgerError> {
        let dir = config.spool_dir.clone();
        let spool = tokio::task::spawn_blocking(move || Spool::open(&dir))
            .await
            .map_err(|_| LedgerError::Refused("the spool could not be opened"))?
            .map_err(|error| {
                tracing::error!(%error, "cannot open the spool");
                LedgerError::Refused("the spool could not be opened")
            })?;
        let (requests, queue) = fair_queue(config.lane_max.max(1));
        let task = Task {
            link: if spool.is_empty() {
                Link::Up
            } else {
                Link::Draining
            },
            pool: ledger.pool,
            config,
            spool: Arc::new(Mutex::new(spool)),
            queue,
        };
        let tracker = TaskTracker::new();
        tracker.spawn(task.run(shutdown));
        tracker.close();
        Ok(Self {
            requests,
            task: tracker,
        })
    }

    /// The same committer for another source. Whatever one source brings, the shares of others take turns with its own.
    pub fn for_another_source(&self) -> Self {
        Self {
            requests: self.requests.another(),
            task: self.task.clone(),
        }
    }

    /// Returns once the share is durable, in the ledger or (hash shares only) in the spool. It waits while as many
    /// shares of the source wait as may. Once it is queued, the share is committed even if the caller goes away.
    ///
    /// # Errors
    /// [`CommitRefusal`]; nothing was credited then. One exception: after
    /// [`CommitRefusal::Unavailable`] an inference share may have been, if the connection broke
    /// while it was committed; submitting it again gives [`CommitRefusal::DuplicateShare`] then.
    pub async fn commit(&self, share: Share) -> Result<(), CommitRefusal> {
        share.check()?;
        let (answer, answered) = oneshot::channel();
        let queued = self.requests.push(Request { share, answer }).await;
        queued.map_err(|Closed| CommitRefusal::Unavailable)?;
        answered.await.unwrap_or(Err(CommitRefusal::Unavailable))
    }

    /// Returns once the task has ended: all that was taken is durable or refused.
    pub async fn stopped(&self) {
        self.task.wait().await;
    }
}

/// How the task stands with Postgres. Unless it is [`Link::Up`], shares go to the spool: so they
/// keep their order, and nobody waits for time-outs.
enum Link {
    Up,
    /// The probe ends when Postgres answers.
    Away(AbortOnDropHandle<()>),
    /// Postgres answers; the spool is being moved.
    Draining,
}

impl Link {
    /// Waits until the spool may be moved.
    async fn may_drain(&mut self) {
        match self {
            Self::Up => std::future::pending().await,
            Self::Away(probe) => {
                if probe.await.is_err() {
                    tracing::error!("the probe for Postgres failed");
                }
            }
            Self::Draining => {}
        }
    }
}

struct Task {
    pool: PgPool,
    config: CommitterConfig,
    /// Locked inside [`Task::spooling`] only, and never across an await.
    spool: Arc<Mutex<Spool>>,
    queue: Outlet<Request>,
    link: Link,
}

impl Task {
    async fn run(mut self, shutdown: CancellationToken) {
        loop {
            // Not biased: while the spool is being moved, new shares take turns with it.
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.link.may_drain() => self.drain().await,
                request = self.queue.next() => match request {
                    Some(first) => self.settle(first).await,
                    None => return,
                },
            }
        }
        // What was queued before is still committed; new shares are refused.
        self.queue.close();
        while let Some(first) = self.queue.next().await {
            self.settle(first).await;
        }
    }

    async fn settle(&mut self, first: Request) {
        let deadline = Instant::now() + self.config.group_wait;
        let (mut shares, mut answers) = (vec![first.share], vec![first.answer]);
        while shares.len() < self.config.group_max {
            match timeout_at(deadline, self.queue.next()).await {
                Ok(Some(request)) => {
                    shares.push(request.share);
                    answers.push(request.answer);
                }
                Ok(None) | Err(_) => break,
            }
        }
        let outcomes = self.make_durable(shares).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // The connection may be gone; the credit stands.
            let _ = answer.send(outcome);
        }
    }

    async fn make_durable(&mut self, shares: Vec<Share>) -> Vec<Result<(), CommitRefusal>> {
        if matches!(self.link, Link::Up) {
            match write_group(&self.pool, &shares).await {
                Ok(outcomes) => return outcomes,
                Err(error) => {
                    tracing::error!(%error, "Postgres is away: hash shares go to the spool");
                    self.look_for_postgres();
                }
            }
        }
        self.spool_group(shares).await
    }

    async fn spool_group(&self, shares: Vec<Share>) -> Vec<Result<(), CommitRefusal>> {
        let inference: Vec<bool> = shares.iter().map(|share| share.batch.is_some()).collect();
        let hash_shares: Vec<Share> = shares
            .into_iter()
            .filter(|share| share.batch.is_none())
            .collect();
        let count = hash_shares.len();
        let spooled = self
            .spooling(move |spool| spool.append(&hash_shares))
            .await
            .map_or_else(
                |error| {
                    tracing::error!(%error, "cannot write to the spool");
                    vec![Err(CommitRefusal::Unavailable); count]
                },
                |outcomes| outcomes.into_iter().map(acknowledge).collect(),
            );
        let mut spooled = spooled.into_iter();
        inference
            .into_iter()
            .map(|inference| {
                // An inference share needs the batch's state, which only Postgres knows.
                let outcome = if inference { None } else { spooled.next() };
                outcome.unwrap_or(Err(CommitRefusal::Unavailable))
            })
            .collect()
    }

    /// Moves some of the spool into the ledger. Shares that are there already are passed over.
    async fn drain(&mut self) {
        self.link = Link::Draining;
        match self.move_chunk().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!("Postgres is back, and the spool is empty");
                self.link = Link::Up;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot move the spool yet");
                self.look_for_postgres();
            }
        }
    }

    /// `false` once there was nothing left to be moved.
    async fn move_chunk(&self) -> Result<bool, MoveError> {
        let max = CHUNK_SHARES.max(self.config.group_max.saturating_mul(2));
        let Some(chunk) = self.spooling(move |spool| spool.next(max)).await? else {
            self.spooling(Spool::clear).await?;
            return Ok(false);
        };
        let outcomes = write_group(&self.pool, &chunk.shares).await?;
        let refused: Vec<Share> = chunk
            .shares
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| !matches!(outcome, Ok(()) | Err(CommitRefusal::DuplicateShare)))
            .map(|(share, _)| share.clone())
            .collect();
        if !refused.is_empty() {
            tracing::error!(
                shares = refused.len(),
                "acknowledged shares are not accepted by the ledger: see rejected.jsonl"
            );
        }
        tracing::info!(shares = chunk.shares.len(), "moved shares from the spool");
        self.spooling(move |spool| spool.moved(&chunk, &refused))
            .await?;
        Ok(true)
    }

    fn look_for_postgres(&mut self) {
        let pool = self.pool.clone();
        self.link = Link::Away(AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(PROBE_INTERVAL).await;
                let answer = sqlx::query("SELECT 1").execute(&pool);
                if let Ok(Ok(_)) = timeout(GROUP_TIME_MAX, answer).await {
                    return;
                }
            }
        })));
    }

    /// Runs file work away from the runtime's threads.
    async fn spooling<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || match spool.lock() {
            Ok(mut spool) => work(&mut spool),
            // What a panic left behind is not to be trusted; a restart reads it afresh.
            Err(_) => Err(io::Error::other("the spool is damaged until a restart")),
        })
        .await
        .map_err(io::Error::other)?
    }
}

fn acknowledge(spooled: Spooled) -> Result<(), CommitRefusal> {
    match spooled {
        Spooled::Durable => Ok(()),
        Spooled::Duplicate => Err(CommitRefusal::DuplicateShare),
        Spooled::Full => Err(CommitRefusal::SpoolFull),
    }
}

#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error("the spool: {0}")]
    Spool(#[from] io::Error),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

type Outcomes = Vec<Result<(), CommitRefusal>>;

/// Writes a group in one transaction. A share that is refused does not sink the others; an error
/// means that Postgres is away, and that nothing is known to be written.
async fn write_group(pool: &PgPool, shares: &[Share]) -> Result<Outcomes, LedgerError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let written = timeout(GROUP_TIME_MAX, try_group(pool, shares))
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut.into()));
        match written {
            Err(error) if error.fault() == Fault::Collision && tries < GROUP_TRIES_MAX => {
                tracing::debug!(%error, "a group of shares is tried again");
            }
            written => return written,
        }
    }
}

async fn try_group(pool: &PgPool, shares: &[Share]) -> Result<Outcomes, LedgerError> {
    let mut transaction = pool.begin().await?;
    let moves_held = |share: &Share| share.batch.is_some() || share.is_coinbase_only;
    if shares.iter().any(moves_held) {
        collateral::lock(&mut transaction).await?;
    }
    // A claim of the same proof comes first: it needs more.
    let (in_set, one_by_one): (Vec<usize>, Vec<usize>) =
        (0..shares.len()).partition(|place| share_set::fits(&shares[*place]));
    let mut outcomes = vec![Ok(()); shares.len()];
    write_each(&mut transaction, shares, &one_by_one, &mut outcomes).await?;
    if !write_together(&mut transaction, shares, &in_set, &mut outcomes).await? {
        write_each(&mut transaction, shares, &in_set, &mut outcomes).await?;
    }
    transaction.commit().await?;
    Ok(outcomes)
}

/// Writes the shares of these places in a set; `false`, and nothing is written, if one of them is not taken.
async fn write_together(
    transaction: &mut PgConnection,
    shares: &[Share],
    places: &[usize],
    outcomes: &mut [Result<(), CommitRefusal>],
) -> Result<bool, LedgerError> {
    if places.is_empty() {
        return Ok(true);
    }
    let set: Vec<&Share> = places.iter().map(|place| &shares[*place]).collect();
    let mut savepoint = transaction.begin().await?;
    let written = match write_set(&mut savepoint, &set).await {
        Ok(written) => written,
        Err(error) if error.fault() == Fault::Row => None,
        Err(error) => return Err(error),
    };
    let Some(written) = written else {
        savepoint.rollback().await?;
        return Ok(false);
    };
    savepoint.commit().await?;
    for (place, outcome) in places.iter().zip(written) {
        outcomes[*place] = outcome;
    }
    Ok(true)
}

/// Writes the shares of these places one after the other, so that one that is not taken does not sink the others.
async fn write_each(
    transaction: &mut PgConnection,
    shares: &[Share],
    places: &[usize],
    outcomes: &mut [Result<(), CommitRefusal>],
) -> Result<(), LedgerError> {
    for &place in places {
        let share = &shares[place];
        let mut savepoint = transaction.begin().await?;
        let outcome = match write(&mut savepoint, share).await {
            Ok(outcome) => outcome,
            Err(error) if error.fault() == Fault::Row => {
                tracing::error!(%error, share = %share.header_hash, "the ledger does not take a share");
                Err(CommitRefusal::Invalid)
            }
            Err(error) => return Err(error),
        };
        match outcome {
            Ok(()) => savepoint.commit().await?,
            Err(_) => savepoint.rollback().await?,
        }
        outcomes[place] = outcome;
    }
    Ok(())
}
