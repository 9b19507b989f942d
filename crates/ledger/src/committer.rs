//! Group commit: shares gather until there are enough or the first has waited long enough,
//! whichever comes first; one transaction makes them durable; only then is each acknowledged.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::{Acquire, PgPool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::shares::{Share, write};
use crate::spool::{Spool, Spooled};
use crate::{CommitRefusal, Ledger, LedgerError};

/// How often shares in the spool are tried again.
const SPOOL_RETRY: Duration = Duration::from_secs(1);
/// How many shares of the spool go into one transaction.
const SPOOL_GROUP: usize = 500;
/// A group that takes longer means that Postgres is away.
const GROUP_TIME_MAX: Duration = Duration::from_secs(5);

/// How shares are grouped and where they wait.
#[derive(Debug, Clone)]
pub struct CommitterConfig {
    /// A group is committed at this size ..
    pub group_max: usize,
    /// .. or this long after its first share.
    pub group_wait: Duration,
    /// How many shares may wait; more are refused with [`CommitRefusal::QueueFull`].
    pub queue_max: usize,
    /// Where hash shares wait while Postgres is away.
    pub spool_dir: PathBuf,
}

struct Request {
    share: Share,
    answer: oneshot::Sender<Result<(), CommitRefusal>>,
}

/// Takes shares; clones feed one task.
#[derive(Clone)]
pub struct Committer {
    requests: mpsc::Sender<Request>,
}

impl Committer {
    /// Starts the task. It ends, after the shares it has taken, once `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the spool cannot be opened.
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
        let (requests, queue) = mpsc::channel(config.queue_max.max(1));
        let task = Task {
            away: !spool.is_empty(),
            pool: ledger.pool,
            config,
            spool,
            queue,
        };
        tokio::spawn(task.run(shutdown));
        Ok(Self { requests })
    }

    /// Returns once the share is durable, in the ledger or (hash shares only) in the spool.
    ///
    /// # Errors
    /// [`CommitRefusal`]; nothing was credited then.
    pub async fn commit(&self, share: Share) -> Result<(), CommitRefusal> {
        share.check()?;
        let (answer, answered) = oneshot::channel();
        self.requests
            .try_send(Request { share, answer })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => CommitRefusal::QueueFull,
                mpsc::error::TrySendError::Closed(_) => CommitRefusal::Unavailable,
            })?;
        answered.await.unwrap_or(Err(CommitRefusal::Unavailable))
    }
}

struct Task {
    pool: PgPool,
    config: CommitterConfig,
    spool: Spool,
    queue: mpsc::Receiver<Request>,
    /// Whether the last attempt failed: shares go straight to the spool then, until the spool's
    /// own retry succeeds. So shares keep their order and nobody waits for time-outs.
    away: bool,
}

impl Task {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut retry = interval(SPOOL_RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                request = self.queue.recv() => match request {
                    Some(first) => {
                        let group = self.gather(first).await;
                        self.settle(group).await;
                    }
                    None => return,
                },
                _ = retry.tick(), if self.away => self.replay().await,
                () = shutdown.cancelled() => {
                    // What was queued before is still committed; new shares are refused.
                    self.queue.close();
                    while let Some(first) = self.queue.recv().await {
                        let group = self.gather(first).await;
                        self.settle(group).await;
                    }
                    return;
                }
            }
        }
    }

    async fn gather(&mut self, first: Request) -> Vec<Request> {
        let deadline = Instant::now() + self.config.group_wait;
        let mut group = vec![first];
        while group.len() < self.config.group_max {
            match timeout_at(deadline, self.queue.recv()).await {
                Ok(Some(request)) => group.push(request),
                Ok(None) | Err(_) => break,
            }
        }
        group
    }

    async fn settle(&mut self, group: Vec<Request>) {
        if !self.away {
            let shares: Vec<&Share> = group.iter().map(|request| &request.share).collect();
            match write_group(&self.pool, &shares).await {
                Ok(outcomes) => {
                    for (request, outcome) in group.into_iter().zip(outcomes) {
                        // The connection may be gone; the credit stands.
                        let _ = request.answer.send(outcome);
                    }
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "Postgres is away: shares go to the spool");
                    self.away = true;
                }
            }
        }
        self.spool_group(group);
    }

    fn spool_group(&mut self, group: Vec<Request>) {
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            let outcome = if request.share.batch.is_some() {
                Err(CommitRefusal::Unavailable)
            } else {
                match self.spool.append(&request.share) {
                    Ok(Spooled::Queued) => Ok(()),
                    Ok(Spooled::Duplicate) => Err(CommitRefusal::DuplicateShare),
                    Ok(Spooled::Full) => Err(CommitRefusal::QueueFull),
                    Err(error) => {
                        tracing::error!(%error, "cannot write to the spool");
                        Err(CommitRefusal::Unavailable)
                    }
                }
            };
            answers.push((request.answer, outcome));
        }
        let synced = self.spool.sync();
        if let Err(error) = &synced {
            tracing::error!(%error, "cannot sync the spool");
        }
        for (answer, outcome) in answers {
            let outcome = match (outcome, &synced) {
                (Ok(()), Err(_)) => Err(CommitRefusal::Unavailable),
                (outcome, _) => outcome,
            };
            let _ = answer.send(outcome);
        }
    }

    /// Moves the spool into the ledger, in order. Shares that are there already are passed over.
    async fn replay(&mut self) {
        let shares = match self.spool.read() {
            Ok(shares) => shares,
            Err(error) => return tracing::error!(%error, "cannot read the spool"),
        };
        for group in shares.chunks(SPOOL_GROUP) {
            let group: Vec<&Share> = group.iter().collect();
            if let Err(error) = write_group(&self.pool, &group).await {
                return tracing::debug!(%error, "Postgres is still away");
            }
        }
        if shares.is_empty() && sqlx::query("SELECT 1").execute(&self.pool).await.is_err() {
            return;
        }
        if let Err(error) = self.spool.clear() {
            return tracing::error!(%error, "cannot empty the spool");
        }
        tracing::info!(
            shares = shares.len(),
            "Postgres is back: the spool is in the ledger"
        );
        self.away = false;
    }
}

/// Writes a group in one transaction. A share that is refused does not sink the others.
async fn write_group(
    pool: &PgPool,
    shares: &[&Share],
) -> Result<Vec<Result<(), CommitRefusal>>, LedgerError> {
    let deadline = Instant::now() + GROUP_TIME_MAX;
    timeout_at(deadline, async {
        let mut transaction = pool.begin().await?;
        let mut outcomes = Vec::with_capacity(shares.len());
        for share in shares {
            let mut savepoint = transaction.begin().await?;
            let outcome = write(&mut savepoint, share).await?;
            match outcome {
                Ok(()) => savepoint.commit().await?,
                Err(_) => savepoint.rollback().await?,
            }
            outcomes.push(outcome);
        }
        transaction.commit().await?;
        Ok(outcomes)
    })
    .await
    .unwrap_or(Err(LedgerError::Unavailable(sqlx::Error::PoolTimedOut)))
}
