//! Why a declaration is refused, with the code that the miner is told. `docs/job-declaration.md`
//! lists the codes.

use dovetail_ledger::LedgerError;
use dovetail_templates::TemplateError;

use crate::batches::BatchRefusal;
use crate::coinbase::CoinbaseRefusal;

/// The first rule that a declaration breaks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the token is void: it was used, has expired, or was given to another connection")]
    Token,
    #[error("this connection was set up without DECLARE_TX_DATA, for coinbase-only mode")]
    CoinbaseOnly,
    #[error(transparent)]
    Coinbase(#[from] CoinbaseRefusal),
    #[error("the job is for height {declared}, the next block here is {ours}")]
    Stale { declared: u32, ours: u32 },
    #[error("the tip has changed")]
    Moved,
    #[error("no work is known here yet")]
    NoWork,
    #[error("the declarator's template source is away: nobody can say what a job would be worth")]
    SourceAway,
    #[error("the version's top bits must be 001 (BIP 9)")]
    Version,
    #[error("{0}")]
    Batch(#[from] BatchRefusal),
    #[error("the list of transactions {0}")]
    List(&'static str),
    #[error("{0}")]
    Missing(&'static str),
    #[error("the block is refused: {0}")]
    Block(String),
    #[error("the node does not answer: {0}")]
    Node(TemplateError),
    #[error("the check of the block took too long")]
    Slow,
    #[error("too many declarations of this connection are being checked")]
    Busy,
    #[error("it was replaced by later declarations before its transactions came")]
    Replaced,
    #[error("the ledger could not take it")]
    Ledger(#[from] LedgerError),
}

impl Refusal {
    /// The error code of `DeclareMiningJob.Error`.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Token => "invalid-mining-job-token",
            Self::CoinbaseOnly => "declare-tx-data-not-set",
            Self::Coinbase(CoinbaseRefusal::Unpaid) => {
                "invalid-job-param-value-coinbase_tx_outputs"
            }
            Self::Coinbase(_) => "invalid-coinbase-tx",
            Self::Stale { .. } | Self::Moved => "stale-chain-tip",
            Self::Version => "invalid-job-param-value-version",
            Self::Batch(BatchRefusal::Ledger(_)) => "internal-error",
            Self::Batch(_) => "invalid-batch-commitment",
            Self::List(_) => "invalid-job-param-value-wtxid_list",
            Self::Missing(_) | Self::Replaced => "missing-txs",
            Self::Block(_) => "invalid-job",
            Self::Busy => "too-many-declarations",
            Self::SourceAway => "template-source-away",
            Self::NoWork | Self::Node(_) | Self::Slow | Self::Ledger(_) => "internal-error",
        }
    }

    /// Whether the declarator is at fault, and its operator should know.
    pub(crate) fn is_ours(&self) -> bool {
        self.code() == "internal-error"
    }
}
