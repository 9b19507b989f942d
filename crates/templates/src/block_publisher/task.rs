//! The life of one block: it goes to the source of its template, to every further node and to disk, all at the same
//! time. It counts as published as soon as one node has it. To the others it is sent for as long as the process runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use dovetail_units::time::unix_now;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::attempt::Answer;
use super::record::Record;
use super::sink::{Sink, Way};
use super::solved_block::{SolvedBlock, Transactions};
use super::store::{Aside, WAITING_MAX};
use super::{Inner, Progress, Verdict};
use crate::handle::TemplateHandle;

/// How soon a block that has not been judged is sent again, and the longest such pause.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The operator is told of a block that no node has judged after this time.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// A node that has just been connected to has no templates yet. One that cannot take a block so often will not.
const VAIN_MAX: u32 = 3;
/// A block under this many others, or this old, will not be in the chain any more.
const DEPTH_MAX: u32 = 100;
const AGE_MAX_S: u64 = 24 * 60 * 60;
/// How long a block that only its miner can publish is kept for a template of the source that has its transactions.
pub(super) const MINERS_TIME_MAX_S: u64 = 10 * 60;

/// A block that is being published.
pub(super) struct Task {
    pub(super) inner: Arc<Inner>,
    pub(super) hash: BlockHash,
    /// Its number among all blocks.
    pub(super) number: usize,
    pub(super) found_at_unix: u64,
    /// It learns its transactions while it is published.
    pub(super) block: Mutex<SolvedBlock>,
    pub(super) progress: watch::Sender<Progress>,
}

/// How one node stands to a block.
enum Lane {
    /// The source of its template.
    Own,
    Sink(Sink),
}

impl Task {
    pub(super) async fn run(self: Arc<Self>) {
        let mut lanes = JoinSet::new();
        lanes.spawn(Arc::clone(&self).lane(Lane::Own));
        for sink in self.inner.sinks.clone() {
            lanes.spawn(Arc::clone(&self).lane(Lane::Sink(sink)));
        }
        let mut words = Vec::new();
        while let Some(ended) = lanes.join_next().await {
            // A lane that panicked has no word; the file stays for the next start.
            words.push(ended.ok().flatten());
        }
        // Once a node has it, what is left to do for the others does not outlive this process.
        let accepted = self.progress.borrow().verdict.clone();
        if let Some(verdict) = accepted.or_else(|| self.final_word(words)) {
            self.set_verdict(&verdict);
            // It is noted when nobody holds the publication any more.
            self.progress.closed().await;
            self.forget(&verdict).await;
        }
        self.inner.close(self.hash);
    }

    /// What came of it when every lane has ended; `None` if the publisher stops before that.
    fn final_word(&self, words: Vec<Option<Verdict>>) -> Option<Verdict> {
        let words: Vec<Verdict> = words.into_iter().collect::<Option<_>>()?;
        let of = |wanted: fn(&Verdict) -> bool| words.iter().find(|word| wanted(word)).cloned();
        of(|word| *word == Verdict::Accepted)
            .or_else(|| of(|word| matches!(word, Verdict::Refused(_))))
            .or_else(|| of(|word| *word == Verdict::LeftToMiner))
            .or(Some(Verdict::Unknown))
    }

    /// Sends the block to one node until that node has taken or judged it; `None` if the publisher stops before that.
    async fn lane(self: Arc<Self>, lane: Lane) -> Option<Verdict> {
        let inner = Arc::clone(&self.inner);
        let handle = lane.handle(&inner);
        let mut work = handle.unwrap_or(&inner.templates).subscribe();
        let mut progress = self.progress.subscribe();
        let mut connected = handle.map(TemplateHandle::connections);
        let mut count = inner.count.subscribe();
        let (mut pause, mut alarm) = (PAUSE_MIN, Some(Instant::now() + ALARM_AFTER));
        let mut vain = 0;
        if self.is_miners() && handle.is_none() {
            return Some(Verdict::LeftToMiner);
        }
        loop {
            work.mark_unchanged();
            if let Some(connected) = &mut connected {
                connected.mark_unchanged();
            }
            let answer = self.round(&lane).await;
            if let Answer::Final(verdict) = answer {
                self.judged(&lane, &verdict);
                return Some(verdict);
            }
            vain = match answer {
                Answer::CannotTake => vain + 1,
                _ => 0,
            };
            let is_done = answer == Answer::Sent || vain >= VAIN_MAX;
            let next = Instant::now() + pause;
            tokio::select! {
                biased;
                () = inner.shutdown.cancelled() => return None,
                () = on_chain(handle, self.hash) => {
                    self.judged(&lane, &Verdict::Accepted);
                    return Some(Verdict::Accepted);
                }
                // A node that got it, or that cannot take it, need not be asked for ever.
                () = judged_elsewhere(&mut progress, vain > 0), if is_done => {
                    return Some(Verdict::Unknown);
                }
                // A node that is back, and one that has the templates again after that.
                () = reconnected(connected.as_mut()) => pause = PAUSE_MIN,
                Ok(()) = work.changed(), if answer != Answer::Sent => {}
                // Too many came after it.
                () = crowded(&mut count, self.number) => return Some(Verdict::Unknown),
                () = sleep_until(next) => pause = (pause * 2).min(PAUSE_MAX),
            }
            if let Some(verdict) = self.given_up() {
                return Some(verdict);
            }
            if alarm.is_some_and(|at| at <= Instant::now()) && !self.is_miners() {
                self.alarm(&lane);
                alarm = None;
            }
        }
    }

    /// Sends it once. The own source's lane also writes it down: neither waits for the other, and neither fails the
    /// other.
    async fn round(&self, lane: &Lane) -> Answer {
        if let Lane::Sink(sink) = lane {
            return self.attempt_at(sink).await;
        }
        if self.is_stored() {
            let answer = self.attempt().await;
            self.complete().await;
            return answer;
        }
        let store = async {
            let block = self.with_known_transactions().await;
            self.set_block(block);
            self.store().await;
        };
        let (answer, ()) = tokio::join!(self.attempt(), store);
        if matches!(answer, Answer::NotSent | Answer::Sent | Answer::CannotTake) {
            self.complete().await;
        }
        answer
    }

    /// Learns what the block lacks to be whole while the source still knows it, and writes it down again.
    async fn complete(&self) {
        let mut block = self.block();
        if let Transactions::Template(Some(_)) = block.transactions
            && let Some(bytes) = self.whole_block().await
        {
            block.transactions = Transactions::Here(bytes);
            self.set_block(block);
            self.store().await;
        }
    }

    /// Writes the block down as it is known now.
    async fn store(&self) {
        let hash = self.hash;
        let record = Record::of(&self.block(), self.found_at_unix);
        let put = self
            .inner
            .on_disk(move |store| store.put(hash, &record))
            .await;
        if let Err(error) = &put {
            tracing::error!(%hash, %error, "a solved block cannot be written to disk: it does not survive a restart");
        }
        self.progress.send_modify(|progress| {
            progress.is_stored = put.is_ok();
            progress.is_kept = true;
        });
    }

    fn is_stored(&self) -> bool {
        self.progress.borrow().is_stored
    }

    /// The block as it is known now.
    pub(super) fn block(&self) -> SolvedBlock {
        self.lock().clone()
    }

    fn set_block(&self, block: SolvedBlock) {
        *self.lock() = block;
    }

    pub(super) fn is_miners(&self) -> bool {
        self.lock().is_miners()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SolvedBlock> {
        self.block.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node has spoken: one that has the block is enough for it to be published.
    fn judged(&self, lane: &Lane, verdict: &Verdict) {
        let (hash, node) = (self.hash, lane.name());
        match verdict {
            Verdict::Accepted => {
                tracing::debug!(%hash, node, "a node has a block");
                self.set_verdict(verdict);
            }
            Verdict::Refused(reason) => {
                tracing::error!(%hash, node, reason, "a node refuses a block")
            }
            Verdict::Unknown | Verdict::LeftToMiner => {}
        }
        self.progress
            .send_modify(|progress| progress.is_judged = true);
    }

    /// Tells what came of the block, once.
    fn set_verdict(&self, verdict: &Verdict) {
        let is_new = self.progress.send_if_modified(|progress| {
            let is_new = progress.verdict.is_none();
            if is_new {
                progress.verdict = Some(verdict.clone());
            }
            is_new
        });
        let hash = self.hash;
        match verdict {
            _ if !is_new => {}
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

    /// Whether it is too deep to matter, or too long ago.
    fn given_up(&self) -> Option<Verdict> {
        let age_s = unix_now().saturating_sub(self.found_at_unix);
        if self.is_miners() {
            return (age_s > MINERS_TIME_MAX_S).then_some(Verdict::LeftToMiner);
        }
        let work = self.inner.templates.current();
        let depth = work.zip(self.lock().height());
        let is_deep =
            depth.is_some_and(|(work, height)| work.height().saturating_sub(height) > DEPTH_MAX);
        (is_deep || age_s > AGE_MAX_S).then_some(Verdict::Unknown)
    }

    fn alarm(&self, lane: &Lane) {
        let (hash, node) = (self.hash, lane.name());
        match self.progress.borrow().verdict {
            Some(Verdict::Accepted) => {
                tracing::warn!(%hash, node, "a node has not taken a block that another one has; it is sent again");
            }
            _ => tracing::error!(
                %hash, node, "a solved block is not known to be in the chain yet; it is sent again"
            ),
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

impl Lane {
    fn name(&self) -> &str {
        match self {
            Self::Own => "the template source",
            Self::Sink(sink) => &sink.name,
        }
    }

    /// Where the chain can be watched, and a solution handed over; a node that takes whole blocks has none.
    fn handle<'a>(&'a self, inner: &'a Inner) -> Option<&'a TemplateHandle> {
        match self {
            Self::Own => Some(&inner.templates),
            Self::Sink(sink) => match &sink.way {
                Way::Solutions(handle) => Some(handle),
                Way::Blocks(_) => None,
            },
        }
    }
}

/// Waits until the node has built on the block.
async fn on_chain(handle: Option<&TemplateHandle>, hash: BlockHash) {
    match handle {
        Some(handle) => handle.until_tip(hash.to_byte_array()).await,
        None => std::future::pending().await,
    }
}

/// Waits until another node has taken the block. Its refusal is not the last word on a block that a node got, but on one
/// that a node cannot take.
async fn judged_elsewhere(progress: &mut watch::Receiver<Progress>, cannot: bool) {
    let is_judged =
        |now: &Progress| now.verdict == Some(Verdict::Accepted) || (cannot && now.is_judged);
    if progress.wait_for(is_judged).await.is_err() {
        // The task itself holds the other end.
        std::future::pending::<()>().await;
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

/// Waits until the node has been connected to anew.
async fn reconnected(connected: Option<&mut watch::Receiver<bool>>) {
    let Some(connected) = connected else {
        return std::future::pending().await;
    };
    loop {
        if connected.changed().await.is_err() {
            return std::future::pending().await;
        }
        if *connected.borrow_and_update() {
            return;
        }
    }
}
