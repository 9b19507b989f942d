//! Publishes solved blocks, and loses none: a block is handed to the source and written to disk at the same time, and
//! sent again until the source has taken or judged it or it is too deep to matter, across restarts. Pool, declarator
//! and workers with a node of their own share it. It credits nobody: whoever published a block is told the outcome.

mod attempt;
mod live_transactions;
mod record;
mod solved_block;
mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::TemplateHandle;
use attempt::Answer;
use live_transactions::LiveTransactions;
use record::Record;
use store::{Aside, Store, WAITING_MAX};

pub(crate) use solved_block::solution_of;
pub use solved_block::{BlockParts, BrokenBlock, Finder, SolvedBlock, Transactions};

/// How soon a block that nobody has judged is sent again, and the longest such pause.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The operator is told of a block that nobody has judged after this time.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// A block under this many others, or this old, will not be in the chain any more.
const DEPTH_MAX: u32 = 100;
const AGE_MAX_S: u64 = 24 * 60 * 60;
/// How long a block that only its miner can publish is kept for a template of the source that has its transactions.
const MINERS_TIME_MAX_S: u64 = 10 * 60;

/// What came of a block, in the source's word or the chain's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The source has it.
    Accepted,
    /// The source says what is wrong with it.
    Refused(String),
    /// The source never said anything, and the chain has gone on.
    Unknown,
    /// It stays with its miner, who alone can publish it: whether the chain has it is to be asked of the chain.
    LeftToMiner,
}

/// What a publisher needs.
#[derive(Debug)]
pub struct PublisherOptions {
    /// Where blocks go.
    pub templates: TemplateHandle,
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
    store: Option<Store>,
    transactions: LiveTransactions,
    /// Those that are being published.
    open: Mutex<HashMap<BlockHash, watch::Sender<Option<Verdict>>>>,
    /// How many blocks there have been: each has its number.
    count: watch::Sender<usize>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

/// A block that is being published. The block's file stays until all of these are dropped, so that what came of it is
/// noted before it is forgotten.
#[derive(Debug)]
pub struct Publication {
    block: SolvedBlock,
    verdict: watch::Receiver<Option<Verdict>>,
}

impl Publication {
    /// The block.
    pub fn block(&self) -> &SolvedBlock {
        &self.block
    }

    /// Waits for what comes of it; `None` if the publisher stops before that. Cancellation-safe.
    pub async fn verdict(&mut self) -> Option<Verdict> {
        let verdict = self.verdict.wait_for(Option::is_some).await;
        verdict.ok().and_then(|verdict| verdict.clone())
    }
}

impl BlockPublisher {
    /// A publisher, and the blocks that an earlier run has left, which it goes on with. A folder that cannot be used
    /// is told to the operator and stops nothing.
    pub async fn start(options: PublisherOptions) -> (Self, Vec<Publication>) {
        let PublisherOptions {
            templates,
            dir,
            solves_templates,
            shutdown,
        } = options;
        let publisher = Self(Arc::new(Inner {
            templates,
            store: dir.map(Store::new),
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
        let (verdict_sender, verdict) = {
            let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sender) = open.get(&hash) {
                let verdict = sender.subscribe();
                return Publication { block, verdict };
            }
            let (sender, verdict) = watch::channel(None);
            open.insert(hash, sender.clone());
            (sender, verdict)
        };
        let mut number = 0;
        self.0.count.send_modify(|count| {
            number = *count;
            *count += 1;
        });
        let inner = Arc::clone(&self.0);
        let task = Task {
            inner,
            hash,
            number,
            found_at_unix: found_at_unix.unwrap_or_else(unix_now),
            is_stored: found_at_unix.is_some(),
            block: block.clone(),
        };
        self.0.tracker.spawn(task.run(verdict_sender));
        Publication { block, verdict }
    }
}

impl Inner {
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

/// What publishes one block, from its begin to its end.
struct Task {
    inner: Arc<Inner>,
    hash: BlockHash,
    number: usize,
    found_at_unix: u64,
    is_stored: bool,
    block: SolvedBlock,
}

impl Task {
    async fn run(mut self, verdicts: watch::Sender<Option<Verdict>>) {
        let verdict = self.verdict().await;
        if let Some(verdict) = &verdict {
            self.tell(verdict);
            verdicts.send_replace(Some(verdict.clone()));
            // It is noted when nobody holds the publication any more.
            verdicts.closed().await;
            self.forget(verdict).await;
        }
        let mut open = self
            .inner
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.hash);
    }

    /// Sends the block until it is judged; `None` if the publisher stops before that.
    async fn verdict(&mut self) -> Option<Verdict> {
        let inner = Arc::clone(&self.inner);
        let mut work = inner.templates.subscribe();
        let mut connected = inner.templates.connections();
        let (mut count, number) = (inner.count.subscribe(), self.number);
        let (mut pause, mut alarm) = (PAUSE_MIN, Some(Instant::now() + ALARM_AFTER));
        loop {
            work.mark_unchanged();
            connected.mark_unchanged();
            let answer = self.round().await;
            if let Answer::Final(verdict) = answer {
                return Some(verdict);
            }
            let tip = self.hash.to_byte_array();
            let next = Instant::now() + pause;
            tokio::select! {
                biased;
                () = inner.shutdown.cancelled() => return None,
                () = inner.templates.until_tip(tip) => return Some(Verdict::Accepted),
                // A source that is back, and one that has the templates again after that.
                () = reconnected(&mut connected) => pause = PAUSE_MIN,
                Ok(()) = work.changed(), if answer == Answer::NotSent => {}
                // Too many came after it.
                () = crowded(&mut count, number) => return Some(Verdict::Unknown),
                () = sleep_until(next) => pause = (pause * 2).min(PAUSE_MAX),
            }
            if let Some(verdict) = self.given_up() {
                return Some(verdict);
            }
            if alarm.is_some_and(|at| at <= Instant::now()) && !self.block.is_miners() {
                tracing::error!(hash = %self.hash, "a solved block is not known to be in the chain yet; it is sent again");
                alarm = None;
            }
        }
    }

    /// Sends it once, and writes it down if it is not: neither waits for the other, and neither fails the other.
    async fn round(&mut self) -> Answer {
        if !self.is_stored {
            let store = async {
                let block = self.with_known_transactions().await;
                let stored = self.store(&block).await;
                (block, stored)
            };
            let (answer, (block, is_stored)) = tokio::join!(self.attempt(), store);
            self.is_stored = is_stored;
            if answer == Answer::NotSent || answer == Answer::Sent {
                self.block = block;
                self.complete().await;
            }
            return answer;
        }
        let answer = self.attempt().await;
        self.complete().await;
        answer
    }

    /// Learns what the block lacks to be whole while the source still knows it, and writes it down again.
    async fn complete(&mut self) {
        let Transactions::Template(Some(_)) = self.block.transactions else {
            return;
        };
        if let Some(bytes) = self.whole_block().await {
            self.block.transactions = Transactions::Here(bytes);
            self.is_stored = self.store(&self.block).await;
        }
    }

    /// Writes the block down; whether it is on disk now.
    async fn store(&self, block: &SolvedBlock) -> bool {
        let hash = self.hash;
        let record = Record::of(block, self.found_at_unix);
        let put = self.inner.on_disk(move |store| store.put(hash, &record));
        if let Err(error) = put.await {
            tracing::error!(%hash, %error, "a solved block cannot be written to disk: it does not survive a restart");
            return false;
        }
        true
    }

    /// Whether it is too deep to matter, or too long ago.
    fn given_up(&self) -> Option<Verdict> {
        let age_s = unix_now().saturating_sub(self.found_at_unix);
        if self.block.is_miners() {
            return (age_s > MINERS_TIME_MAX_S).then_some(Verdict::LeftToMiner);
        }
        let work = self.inner.templates.current();
        let depth = work.zip(self.block.height());
        let is_deep =
            depth.is_some_and(|(work, height)| work.height().saturating_sub(height) > DEPTH_MAX);
        (is_deep || age_s > AGE_MAX_S).then_some(Verdict::Unknown)
    }

    fn tell(&self, verdict: &Verdict) {
        let hash = self.hash;
        match verdict {
            Verdict::Accepted => tracing::info!(%hash, "the node has a block that was found here"),
            Verdict::Refused(reason) => {
                tracing::error!(%hash, reason, "the node refuses a block that was found here");
            }
            Verdict::Unknown => {
                tracing::error!(%hash, "gave up on a block: nobody said what came of it");
            }
            Verdict::LeftToMiner => {
                tracing::info!(%hash, "a block is left to its miner to publish");
            }
        }
    }

    async fn forget(&self, verdict: &Verdict) {
        let (hash, is_accepted) = (self.hash, *verdict == Verdict::Accepted);
        let done = self.inner.on_disk(move |store| match is_accepted {
            true => store.remove(hash),
            false => store.set_aside(hash, Aside::Judged),
        });
        if let Err(error) = done.await {
            tracing::warn!(%hash, %error, "the file of a block that is judged stays");
        }
    }
}

/// Waits until more blocks have come after this one than may wait.
async fn crowded(count: &mut watch::Receiver<usize>, number: usize) {
    let is_crowded = |count: &usize| count.saturating_sub(number) > WAITING_MAX;
    if count.wait_for(is_crowded).await.is_err() {
        // The publisher's own task holds the other end.
        std::future::pending::<()>().await;
    }
}

/// Waits until the source has been connected to anew.
async fn reconnected(connected: &mut watch::Receiver<bool>) {
    loop {
        if connected.changed().await.is_err() {
            return std::future::pending().await;
        }
        if *connected.borrow_and_update() {
            return;
        }
    }
}
