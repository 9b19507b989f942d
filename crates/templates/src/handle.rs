//! The handle that daemons hold: the newest work, and a bounded queue of requests to the task that
//! owns the source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network, Transaction};
use dovetail_units::header::Tip;
use stratum_core::template_distribution_sv2::{
    NewTemplateOwned, SetNewPrevHashOwned, SubmitSolutionOwned,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::block_door::{BlockDoor, ChainCoinbase};
use crate::error::TemplateError;
use crate::freshness::Freshness;
use crate::readiness::{Origin, Standing};
use crate::request::{Reply, Request, TransactionData};
use crate::snapshot::{SnapshotError, WorkSnapshot};
use crate::subsidy::HalvingInterval;

/// Requests that may wait for the source. Each waits for one round trip, so a queue this long means
/// that the source hangs.
const REQUESTS_MAX: usize = 64;
/// The time a request may take, queueing included. A full block travels in far less.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);

/// How many tips of the source are remembered: those of a month on the main chain, of some minutes where a test mines
/// fast.
const TIPS_MAX: usize = 4_096;

/// A template source. Clones share it; it runs until the token given to [`start`](crate::start) is
/// cancelled.
#[derive(Debug, Clone)]
pub struct TemplateHandle {
    work: watch::Receiver<Option<Arc<WorkSnapshot>>>,
    /// The newest tips that templates were built on, the newest last.
    tips: watch::Receiver<VecDeque<Tip>>,
    requests: mpsc::Sender<Request>,
    connected: watch::Receiver<bool>,
    stale: watch::Receiver<bool>,
    standing: watch::Receiver<Standing>,
    origin: Origin,
    /// The network that the source's work must be of, where its user has said one.
    network: Option<Network>,
    /// A node that takes whole blocks, where the source has one.
    node: Option<BlockDoor>,
    judges_solutions: bool,
}

impl TemplateHandle {
    /// The newest work, and every change of it. `None` until the source has given its first; after
    /// that it is never `None` again: if the source drops, the last work stands.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.work.clone()
    }

    /// The newest work, if there has been any.
    pub fn current(&self) -> Option<Arc<WorkSnapshot>> {
        self.work.borrow().clone()
    }

    /// How old the newest template is. A template that is old while the source
    /// [is connected](Self::is_connected) only means that nothing better came along.
    pub fn template_age(&self) -> Option<Duration> {
        self.work.borrow().as_ref().map(|work| work.age())
    }

    /// The newest tips that templates were built on, the newest last, and every change of them. A tip with another target
    /// is another one.
    pub fn tips(&self) -> watch::Receiver<VecDeque<Tip>> {
        self.tips.clone()
    }

    /// Whether the source can be spoken to now.
    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Whether the source has given no work for longer than its `stale_after_s`: what it gave last may be worthless.
    pub fn is_stale(&self) -> bool {
        *self.stale.borrow()
    }

    /// [`is_stale`](Self::is_stale), and every change of it.
    pub fn staleness(&self) -> watch::Receiver<bool> {
        self.stale.clone()
    }

    /// Whether the source can be spoken to, and every change of it.
    pub(crate) fn connections(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    /// Returns once the source has built on the block with this hash (in the byte order of the header). The only way to
    /// learn what came of a solution where the source's protocol has no answer to it. A tip that another one replaced at
    /// once may not be seen.
    pub(crate) async fn until_tip(&self, hash: [u8; 32]) {
        let mut tips = self.tips.clone();
        let is_there = |tips: &VecDeque<Tip>| tips.iter().any(|tip| tip.prev_hash == hash);
        if tips.wait_for(is_there).await.is_err() {
            // The source has stopped.
            std::future::pending::<()>().await;
        }
    }

    /// Whether a block is in the chain: it was the tip while this process watched, or it is the tip or under it now.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] if it was not the tip here and the source cannot be asked (a template provider,
    /// Bitcoin Core before 31), [`TemplateError::Unavailable`] or [`TemplateError::TimeOut`] if it does not answer.
    pub async fn is_in_chain(&self, block: BlockHash) -> Result<bool, TemplateError> {
        let hash = block.to_byte_array();
        if self.tips.borrow().iter().any(|tip| tip.prev_hash == hash) {
            return Ok(true);
        }
        self.is_in_chain_now(block).await
    }

    /// Whether a block is the tip or under it now, by the source's own word: one that was the tip may have been replaced.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] if the source cannot be asked (a template provider, Bitcoin Core before 31),
    /// [`TemplateError::Unavailable`] or [`TemplateError::TimeOut`] if it does not answer.
    pub async fn is_in_chain_now(&self, block: BlockHash) -> Result<bool, TemplateError> {
        match &self.node {
            Some(_) if self.is_elsewhere() => Err(TemplateError::Unavailable),
            Some(node) => node.is_in_chain(block).await,
            None => self.ask(|reply| Request::IsInChain(block, reply)).await,
        }
    }

    /// The coinbase of the block at this height of the source's chain; `None` if it is not so high.
    ///
    /// # Errors
    /// As [`is_in_chain_now`](Self::is_in_chain_now); the embedded chain, which no process outlives, is not asked either.
    pub async fn coinbase_at(&self, height: u32) -> Result<Option<ChainCoinbase>, TemplateError> {
        match &self.node {
            Some(_) if self.is_elsewhere() => Err(TemplateError::Unavailable),
            Some(node) => node.coinbase(height).await,
            None => Err(TemplateError::Unsupported),
        }
    }

    /// Whether the source is a node that takes any whole block and says what it thinks of it: then `Ok` of
    /// [`submit_block`](Self::submit_block) means that it has the block.
    pub(crate) fn judges_blocks(&self) -> bool {
        self.node.is_some()
    }

    /// Whether the source itself says what it thinks of a solution: then `Ok` of
    /// [`submit_solution`](Self::submit_solution) means that it has the block.
    pub(crate) fn judges_solutions(&self) -> bool {
        self.judges_solutions
    }

    /// Hands over a solved template: the whole coinbase with its witness, and the header's fields.
    /// The embedded chain answers whether it took the block; the other sources do not say, and
    /// there `Ok` means that the solution was sent.
    ///
    /// # Errors
    /// [`TemplateError::Unavailable`] if the source is away, [`TemplateError::UnknownTemplate`],
    /// [`TemplateError::StaleTemplate`], or [`TemplateError::Rejected`].
    pub async fn submit_solution(
        &self,
        solution: SubmitSolutionOwned,
    ) -> Result<(), TemplateError> {
        self.ask(|reply| Request::Solution(solution, reply)).await
    }

    /// Hands over a header and its coinbase with its witness as the solution of whatever template of the source has the
    /// transactions that the header commits to.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] if no template has them; otherwise as
    /// [`submit_solution`](Self::submit_solution).
    pub(crate) async fn submit_equal(
        &self,
        header: &Header,
        coinbase: &Transaction,
    ) -> Result<(), TemplateError> {
        let solved = Box::new((*header, coinbase.clone()));
        self.ask(|reply| Request::Equal(solved, reply)).await
    }

    /// Fetches the transactions of a template that is not long gone.
    ///
    /// # Errors
    /// As [`submit_solution`](Self::submit_solution), but never [`TemplateError::Rejected`].
    pub async fn transaction_data(
        &self,
        template_id: u64,
    ) -> Result<TransactionData, TemplateError> {
        self.ask(|reply| Request::TransactionData(template_id, reply))
            .await
    }

    /// Hands over a whole serialised block. The embedded chain and Bitcoin Core take any block, one
    /// that they know already included; a template provider takes one that has the transactions of
    /// a recent template, which is sent as its solution.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] for a block of no known template where the source takes only
    /// those, [`TemplateError::Refused`] or [`TemplateError::Rejected`] for one that breaks a rule;
    /// otherwise as [`submit_solution`](Self::submit_solution).
    pub async fn submit_block(&self, block: impl Into<Vec<u8>>) -> Result<(), TemplateError> {
        let block = block.into();
        match &self.node {
            // Its judgement would be worth nothing.
            Some(_) if self.is_elsewhere() => Err(TemplateError::Unavailable),
            Some(node) => node.submit(block).await,
            None => self.ask(|reply| Request::Block(block, reply)).await,
        }
    }

    /// Asks whether a serialised block that lacks only its proof of work would be valid on the tip:
    /// Bitcoin Core's own check, or the embedded chain's rules. Dropping the future gives up.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] or [`TemplateError::Rejected`] with the rule that it breaks,
    /// [`TemplateError::Unsupported`] where the source cannot tell (a template provider).
    pub async fn check_block(&self, block: impl Into<Vec<u8>>) -> Result<(), TemplateError> {
        let block = block.into();
        match &self.node {
            Some(_) if self.is_elsewhere() => Err(TemplateError::Unavailable),
            Some(node) => node.check(block).await,
            None => self.ask(|reply| Request::Check(block, reply)).await,
        }
    }

    /// How the source stood when it last was, or was not, connected to.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether the source was of another network when it was last connected to.
    fn is_elsewhere(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::WrongNetwork { .. })
    }

    pub(crate) fn network(&self) -> Option<Network> {
        self.network
    }

    pub(crate) fn of_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    pub(crate) fn of_network(self, network: Option<Network>) -> Self {
        Self { network, ..self }
    }

    pub(crate) fn with_node(self, node: BlockDoor) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    /// Of a source that judges solutions.
    pub(crate) fn judging_solutions(self) -> Self {
        Self {
            judges_solutions: true,
            ..self
        }
    }

    /// Takes the embedded chain's last block back, for trying what a reorganisation does. The genesis
    /// block stays.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] of any other source.
    pub async fn undo_block(&self) -> Result<(), TemplateError> {
        self.ask(Request::Undo).await
    }

    /// Returns once the source has stopped and everything it started has ended.
    pub async fn stopped(&self) {
        self.requests.closed().await;
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, TemplateError> {
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.requests
                .send(request(reply))
                .await
                .map_err(|_| TemplateError::Stopped)?;
            answer.await.map_err(|_| TemplateError::Unavailable)?
        };
        tokio::time::timeout(REQUEST_TIME_MAX, exchange)
            .await
            .map_err(|_| TemplateError::TimeOut)?
    }
}

/// The source's end of a handle.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) publisher: Publisher,
}

/// Publishes work, and keeps the last of it standing.
#[derive(Debug)]
pub(crate) struct Publisher {
    work: watch::Sender<Option<Arc<WorkSnapshot>>>,
    tips: watch::Sender<VecDeque<Tip>>,
    sequence: u64,
    connected: watch::Sender<bool>,
    pub(crate) freshness: Arc<Freshness>,
    standing: watch::Sender<Standing>,
    /// The network that work must be of, where the user of the source has said one.
    pub(crate) network: Option<Network>,
    /// How often the source halves the subsidy, where it is a chain of our own. Otherwise its network tells, or its blocks.
    pub(crate) halving: Option<HalvingInterval>,
}

impl Publisher {
    pub(crate) fn publish(
        &mut self,
        template: NewTemplateOwned,
        prev_hash: SetNewPrevHashOwned,
    ) -> Result<Arc<WorkSnapshot>, SnapshotError> {
        let bits = prev_hash.n_bits;
        let snapshot = WorkSnapshot::new(template, prev_hash, self.sequence + 1)?;
        let halving = match (self.halving, self.network) {
            (Some(halving), _) => halving,
            (None, Some(network)) => HalvingInterval::of_network(network),
            (None, None) => HalvingInterval::of_bits(bits),
        };
        snapshot.check_reward(halving)?;
        let snapshot = Arc::new(snapshot);
        self.sequence += 1;
        let tip = snapshot.tip();
        self.tips.send_if_modified(|tips| {
            let is_new = tips.back().is_none_or(|newest| !tip.is_same_block(newest));
            if is_new {
                if tips.len() == TIPS_MAX {
                    tips.pop_front();
                }
                tips.push_back(tip);
            }
            is_new
        });
        self.work.send_replace(Some(Arc::clone(&snapshot)));
        self.freshness.set_giving(true);
        Ok(snapshot)
    }

    /// Gives work again under another number of its template, so that jobs are made of it that carry the time of day.
    pub(crate) fn renew(&mut self, work: &WorkSnapshot, template_id: u64) -> Arc<WorkSnapshot> {
        self.sequence += 1;
        let snapshot = Arc::new(work.renumbered(template_id, self.sequence));
        self.work.send_replace(Some(Arc::clone(&snapshot)));
        snapshot
    }

    pub(crate) fn set_connected(&self, connected: bool) {
        self.connected.send_replace(connected);
        if !connected {
            self.freshness.set_giving(false);
        }
        self.standing.send_replace(match connected {
            true => Standing::Connected,
            false => Standing::Connecting,
        });
    }

    /// There is no session with the source, for this reason.
    pub(crate) fn set_lost(&self, error: &TemplateError) {
        self.standing.send_replace(match error {
            TemplateError::WrongNetwork { configured, node } => Standing::WrongNetwork {
                configured: *configured,
                node: node.clone(),
            },
            error => Standing::Unreachable(error.to_string()),
        });
    }
}

/// A handle and the end of it that a source serves.
pub(crate) fn channel() -> (TemplateHandle, Port) {
    let (work_sender, work) = watch::channel(None);
    let (tips_sender, tips) = watch::channel(VecDeque::new());
    let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
    let (connected_sender, connected) = watch::channel(false);
    let freshness = Arc::new(Freshness::new());
    let (standing_sender, standing) = watch::channel(Standing::Connecting);
    let handle = TemplateHandle {
        work,
        tips,
        requests: request_sender,
        connected,
        stale: freshness.staleness(),
        standing,
        origin: Origin::Provider,
        network: None,
        node: None,
        judges_solutions: false,
    };
    let publisher = Publisher {
        work: work_sender,
        tips: tips_sender,
        sequence: 0,
        connected: connected_sender,
        freshness,
        standing: standing_sender,
        network: None,
        halving: None,
    };
    (
        handle,
        Port {
            requests,
            publisher,
        },
    )
}
