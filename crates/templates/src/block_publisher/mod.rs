//! Publishes solved blocks, and loses none: a block is handed to every node and written to disk at the same time, and
//! sent again until a node has taken or judged it or it is too deep to matter, across restarts. Pool, declarator
//! and workers with a node of their own share it. It credits nobody: whoever published a block is told the outcome.

mod attempt;
#[cfg(test)]
mod disk_tests;
mod live_transactions;
mod record;
mod sink;
#[cfg(test)]
mod sink_tests;
mod solved_block;
mod store;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::BlockHash;
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::TemplateHandle;
use live_transactions::LiveTransactions;
use record::Record;
use store::Store;
use task::Task;

pub use sink::Sink;
pub(crate) use solved_block::solution_of;
pub use solved_block::{BlockParts, BrokenBlock, Finder, SolvedBlock, Transactions};

/// How long the word on a share that solves a block waits for the disk. A disk that takes longer hangs.
const KEPT_TIME_MAX: Duration = Duration::from_secs(10);

/// What came of a block, in the source's word or the chain's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A node has it.
    Accepted,
    /// A node says what is wrong with it, and no other has it.
    Refused(String),
    /// No node ever said anything, and the chain has gone on.
    Unknown,
    /// It stays with its miner, who alone can publish it: whether the chain has it is to be asked of the chain.
    LeftToMiner,
}

/// What a publisher needs.
#[derive(Debug)]
pub struct PublisherOptions {
    /// Where blocks go: the source of their templates.
    pub templates: TemplateHandle,
    /// Where they go besides.
    pub sinks: Vec<Sink>,
    /// Where blocks that nobody has judged yet wait; `None`: they do not survive a restart.
    pub dir: Option<PathBuf>,
    /// Whether blocks of the source's own templates are published here: then the transactions of those are fetched as
    /// they come.
    pub solves_templates: bool,
    /// No block is sent again from then on.
    pub shutdown: CancellationToken,
}

/// Publishes solved blocks. Clones share it.
#[derive(Debug, Clone)]
pub struct BlockPublisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    templates: TemplateHandle,
    sinks: Vec<Sink>,
    store: Option<Arc<Store>>,
    transactions: LiveTransactions,
    /// Those that are being published.
    open: Mutex<HashMap<BlockHash, watch::Sender<Progress>>>,
    /// How many blocks there have been: each has its number.
    count: watch::Sender<usize>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// How far a block is.
#[derive(Debug, Clone, Default)]
struct Progress {
    verdict: Option<Verdict>,
    /// Whether a node has taken or refused it.
    is_judged: bool,
    /// Whether it is on disk.
    is_stored: bool,
    /// Whether nothing more can be done to keep it: it is on disk, or it cannot be written.
    is_kept: bool,
}

/// A block that is being published. The block's file stays until all of these are dropped, so that what came of it is
/// noted before it is forgotten.
#[derive(Debug)]
pub struct Publication {
    block: SolvedBlock,
    progress: watch::Receiver<Progress>,
}

impl Publication {
    /// The block.
    pub fn block(&self) -> &SolvedBlock {
        &self.block
    }

    /// Waits for what comes of it; `None` if the publisher stops before that. Cancellation-safe.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        let progress = self.progress.wait_for(|now| now.verdict.is_some()).await;
        progress.ok().and_then(|progress| progress.verdict.clone())
    }

    /// What waits until the block cannot be lost any more.
    pub fn keeping(&self) -> Keeping {
        Keeping(self.progress.clone())
    }
}

/// The wait for a block to be on disk.
#[derive(Debug)]
pub struct Keeping(watch::Receiver<Progress>);

impl Keeping {
    /// Returns once the block survives a crash: it is on disk, or a node has it. Also where that is not possible: the
    /// disk takes nothing, or hangs.
    pub async fn done(mut self) {
        let is_kept = |now: &Progress| now.is_kept || now.verdict.is_some();
        let kept = timeout(KEPT_TIME_MAX, self.0.wait_for(is_kept)).await;
        if kept.is_err() {
            tracing::error!("a solved block is not on disk yet: the disk hangs");
        }
    }
}

impl BlockPublisher {
    /// A publisher, and the blocks that an earlier run has left, which it goes on with. A folder that cannot be used
    /// is told to the operator and stops nothing.
    pub async fn start(options: PublisherOptions) -> (Self, Vec<Publication>) {
        let PublisherOptions {
            templates,
            sinks,
            dir,
            solves_templates,
            shutdown,
        } = options;
        let publisher = Self(Arc::new(Inner {
            templates,
            sinks,
            store: dir.map(|dir| Arc::new(Store::new(dir))),
            transactions: LiveTransactions::default(),
            open: Mutex::default(),
            count: watch::Sender::new(0),
            tracker: TaskTracker::new(),
            shutdown,
        }));
        if solves_templates {
            let inner = Arc::clone(&publisher.0);
            publisher.0.tracker.spawn(async move {
                let templates = inner.templates.clone();
                let shutdown = inner.shutdown.clone();
                inner.transactions.follow(templates, shutdown).await;
            });
        }
        let mut left = Vec::new();
        for (block, found_at_unix) in publisher.0.load().await {
            tracing::warn!(hash = %block.hash(), "a block of an earlier run waits; it is sent again");
            left.push(publisher.begin(block, Some(found_at_unix)));
        }
        (publisher, left)
    }

    /// The source that blocks go to.
    pub fn templates(&self) -> &TemplateHandle {
        &self.0.templates
    }

    /// Hands a block over, at once and for as long as it takes. One that is being published already is not begun with
    /// again. It goes on whatever becomes of what this returns.
    pub fn publish(&self, block: SolvedBlock) -> Publication {
        self.begin(block, None)
    }

    /// Keeps a block whose parts do not fit together, for a person to repair, and raises the alarm.
    pub fn keep(&self, broken: Box<BrokenBlock>) {
        let (hash, reason) = (broken.proven, broken.reason.as_str());
        let coinbase = hex::encode(&broken.parts.coinbase);
        tracing::error!(%hash, reason, coinbase, "a solved block cannot be put together and is not published");
        let inner = Arc::clone(&self.0);
        self.0.tracker.spawn(async move {
            let record = Record::of_broken(&inner.with_known_transactions(*broken), unix_now());
            let put = inner.on_disk(move |store| store.put_broken(hash, &record));
            if let Err(error) = put.await {
                tracing::error!(%hash, %error, "a solved block cannot be written to disk");
            }
        });
    }

    /// Waits until nothing is being published any more, after the shutdown and the last [`publish`](Self::publish).
    pub async fn stopped(&self) {
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    fn begin(&self, block: SolvedBlock, found_at_unix: Option<u64>) -> Publication {
        let hash = block.hash();
        let sender = {
            let mut open = self.0.lock();
            if let Some(sender) = open.get(&hash) {
                let progress = sender.subscribe();
                return Publication { block, progress };
            }
            let is_stored = found_at_unix.is_some();
            let sender = watch::Sender::new(Progress {
                is_stored,
                is_kept: is_stored,
                ..Progress::default()
            });
            open.insert(hash, sender.clone());
            sender
        };
        let progress = sender.subscribe();
        let mut number = 0;
        self.0.count.send_modify(|count| {
            number = *count;
            *count += 1;
        });
        let task = Arc::new(Task {
            inner: Arc::clone(&self.0),
            hash,
            number,
            found_at_unix: found_at_unix.unwrap_or_else(unix_now),
            block: Mutex::new(block.clone()),
            progress: sender,
        });
        self.0.tracker.spawn(task.run());
        Publication { block, progress }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<BlockHash, watch::Sender<Progress>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is done for this block.
    fn close(&self, hash: BlockHash) {
        self.lock().remove(&hash);
    }

    async fn load(&self) -> Vec<(SolvedBlock, u64)> {
        let mut blocks = Vec::new();
        if self.store.is_some() {
            let (loaded, loading) = tokio::sync::oneshot::channel();
            let load = self.on_disk(move |store| {
                // Whoever started us may have given up.
                let _ = loaded.send(store.load()?);
                Ok(())
            });
            match load.await {
                Ok(()) => blocks = loading.await.unwrap_or_default(),
                Err(error) => {
                    tracing::error!(%error, "the folder of solved blocks cannot be used: blocks will not survive a restart");
                }
            }
        }
        blocks
    }

    /// Does something with the folder, away from the runtime's threads. Without a folder there is nothing to do.
    async fn on_disk(
        &self,
        work: impl FnOnce(&Store) -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<()> {
        let Some(store) = self.store.clone() else {
            return Ok(());
        };
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }
}
