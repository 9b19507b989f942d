//! What the task that owns a source is asked, and how it answers.

use bitcoin::block::Header;
use bitcoin::{BlockHash, Transaction};
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;
use tokio::sync::oneshot;

use crate::error::TemplateError;

/// The transactions of a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TransactionData {
    /// Whatever else a pool needs to validate the work; empty today.
    pub excess_data: Vec<u8>,
    /// The serialised transactions in the order of the block, without the coinbase.
    pub transactions: Vec<Vec<u8>>,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, TemplateError>>;

/// What the task that owns a source is asked.
#[derive(Debug)]
pub(crate) enum Request {
    Solution(SubmitSolutionOwned, Reply<()>),
    TransactionData(u64, Reply<TransactionData>),
    Block(Vec<u8>, Reply<()>),
    /// A header and its coinbase, for a template with the transactions that the header commits to.
    Equal(Box<(Header, Transaction)>, Reply<()>),
    /// A block without proof of work: would it be valid on the tip?
    Check(Vec<u8>, Reply<()>),
    /// Is this block the tip or under it?
    IsInChain(BlockHash, Reply<bool>),
    Undo(Reply<()>),
}

impl Request {
    /// Answers with a refusal, whatever was asked.
    pub(crate) fn refuse(self, error: TemplateError) {
        // Whoever asked may have given up; then nobody needs the answer.
        match self {
            Self::Solution(_, reply)
            | Self::Block(_, reply)
            | Self::Equal(_, reply)
            | Self::Check(_, reply)
            | Self::Undo(reply) => {
                drop(reply.send(Err(error)));
            }
            Self::TransactionData(_, reply) => drop(reply.send(Err(error))),
            Self::IsInChain(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
