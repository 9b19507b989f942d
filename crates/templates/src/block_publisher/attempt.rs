//! One try to hand a block to a node, by whatever way the node has.

use std::sync::Arc;

use bitcoin::Block;
use bitcoin::consensus::deserialize;

use super::live_transactions::TransactionList;
use super::sink::{Sink, Way};
use super::solved_block::{BrokenBlock, SolvedBlock, Transactions, block_bytes};
use super::task::Task;
use super::{Inner, Verdict};
use crate::chain::BlockRejection;
use crate::error::TemplateError;

/// Bitcoin Core's words for a block that may be good later: its parent is not there yet, or its time has not come.
const NOT_YET: [&str; 2] = ["prev-blk-not-found", "time-too-new"];

/// What a try came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The node has judged the block.
    Final(Verdict),
    /// The node got it and does not say what came of it.
    Sent,
    /// The node did not get it.
    NotSent,
    /// The node is there and cannot take it, as things stand.
    CannotTake,
}

impl Task {
    /// At the source of its template.
    pub(super) async fn attempt(&self) -> Answer {
        let templates = &self.inner.templates;
        let sent = self.hand_over().await;
        if let Some(verdict) = judgement(&sent, templates.judges_solutions()) {
            return Answer::Final(verdict);
        }
        // A node takes any whole block, and says what it thinks of it.
        let mut whole = None;
        if templates.judges_blocks()
            && let Some(bytes) = self.whole_block().await
        {
            let answered = templates.submit_block(bytes.to_vec()).await;
            if let Some(verdict) = judgement(&answered, true) {
                return Answer::Final(verdict);
            }
            whole = answered.err();
        }
        match (sent, whole) {
            (Ok(()), _) => Answer::Sent,
            // Nothing was to be sent: the chain will show it or not.
            (Err(_), None) if self.is_miners() => Answer::Sent,
            (Err(_), Some(error)) | (Err(error), None) => {
                self.not_taken("the template source", &error)
            }
        }
    }

    /// At a further node.
    pub(super) async fn attempt_at(&self, sink: &Sink) -> Answer {
        let (sent, is_judge) = match &sink.way {
            Way::Solutions(handle) => {
                let block = self.block();
                let sent = handle.submit_equal(&block.header, &block.coinbase).await;
                (sent, handle.judges_solutions())
            }
            Way::Blocks(door) => match self.whole_block().await {
                Some(bytes) => (door.submit(bytes.to_vec()).await, true),
                // Its own source may tell its transactions yet.
                None => return Answer::NotSent,
            },
        };
        match (judgement(&sent, is_judge), sent) {
            (Some(verdict), _) => Answer::Final(verdict),
            (None, Ok(())) => Answer::Sent,
            (None, Err(error)) => self.not_taken(&sink.name, &error),
        }
    }

    fn not_taken(&self, node: &str, error: &TemplateError) -> Answer {
        let hash = self.hash;
        match error {
            TemplateError::Unsupported => {
                tracing::debug!(%hash, node, "a node cannot take a block: it has no template with its transactions");
                Answer::CannotTake
            }
            error => {
                tracing::warn!(%hash, node, %error, "a node did not take a block; it is sent again");
                Answer::NotSent
            }
        }
    }

    /// Hands the block over as what the source takes: the solution of its template or of an equal one, or the whole
    /// block.
    async fn hand_over(&self) -> Result<(), TemplateError> {
        let (templates, block) = (&self.inner.templates, self.block());
        match &block.transactions {
            Transactions::Here(bytes) if !templates.judges_blocks() => {
                return templates.submit_block(bytes.to_vec()).await;
            }
            Transactions::Template(Some(id)) => {
                let solution = block.solution(*id).ok_or_else(|| {
                    TemplateError::MalformedBlock("its coinbase is too long".into())
                })?;
                match templates.submit_solution(solution).await {
                    Err(TemplateError::UnknownTemplate(_)) => {}
                    sent => return sent,
                }
            }
            _ => {}
        }
        templates.submit_equal(&block.header, &block.coinbase).await
    }

    /// The block with its transactions, where they are known without asking.
    pub(super) async fn with_known_transactions(&self) -> SolvedBlock {
        let mut block = self.block();
        if let Some(list) = self.inner.known(&block.transactions)
            && let Some(bytes) = whole(&block, list).await
        {
            block.transactions = Transactions::Here(bytes);
        }
        block
    }

    /// The whole block, if its transactions can be had.
    pub(super) async fn whole_block(&self) -> Option<Arc<Vec<u8>>> {
        let block = self.block();
        let id = match &block.transactions {
            Transactions::Here(bytes) => return Some(Arc::clone(bytes)),
            Transactions::Template(id) => (*id)?,
            Transactions::Miners => return None,
        };
        let list = match self.inner.known(&block.transactions) {
            Some(list) => list,
            None => {
                let data = self.inner.templates.transaction_data(id).await.ok()?;
                data.transactions.into_iter().map(Arc::from).collect()
            }
        };
        whole(&block, list).await
    }
}

impl Inner {
    fn known(&self, transactions: &Transactions) -> Option<TransactionList> {
        match transactions {
            Transactions::Template(Some(id)) => self.transactions.of(*id),
            _ => None,
        }
    }

    /// What a person needs to repair a block, as far as it is known here.
    pub(super) fn with_known_transactions(&self, mut broken: BrokenBlock) -> BrokenBlock {
        if let Some(list) = self.known(&broken.parts.transactions)
            && let Ok(coinbase) = deserialize(&broken.parts.coinbase)
        {
            let raw = list.iter().map(AsRef::as_ref);
            let bytes = block_bytes(&broken.parts.header, &coinbase, raw);
            broken.parts.transactions = Transactions::Here(Arc::new(bytes));
        }
        broken
    }
}

/// The whole block over a template's transactions; `None` if they are not those that its header commits to.
async fn whole(block: &SolvedBlock, list: TransactionList) -> Option<Arc<Vec<u8>>> {
    let (header, coinbase) = (block.header, block.coinbase.clone());
    // A full block takes some tens of milliseconds.
    let built = tokio::task::spawn_blocking(move || {
        let bytes = block_bytes(&header, &coinbase, list.iter().map(AsRef::as_ref));
        let parsed: Block = deserialize(&bytes).ok()?;
        parsed.check_merkle_root().then(|| Arc::new(bytes))
    });
    let built = built.await.ok().flatten();
    if built.is_none() {
        tracing::error!(hash = %block.hash(), "the template's transactions are not those of the solved header");
    }
    built
}

/// What an answer says of the block, if it says anything for good. `is_judge`: `Ok` means that the source has the block.
fn judgement(answer: &Result<(), TemplateError>, is_judge: bool) -> Option<Verdict> {
    match answer {
        Ok(()) => is_judge.then_some(Verdict::Accepted),
        Err(TemplateError::Rejected(BlockRejection::Duplicate)) => Some(Verdict::Accepted),
        Err(TemplateError::Rejected(
            BlockRejection::UnknownParent | BlockRejection::TimeTooNew,
        )) => None,
        Err(TemplateError::Refused { reason }) if NOT_YET.contains(&reason.as_str()) => None,
        Err(
            error @ (TemplateError::Rejected(_)
            | TemplateError::Refused { .. }
            | TemplateError::MalformedBlock(_)
            | TemplateError::StaleTemplate(_)),
        ) => Some(Verdict::Refused(error.to_string())),
        Err(_) => None,
    }
}
