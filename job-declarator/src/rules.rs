//! The checks of a declaration, cheap ones first: what stands in its message, then the node's
//! judgement on the whole block.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Transaction, TxMerkleNode, TxOut, Weight, Witness,
};
use dovetail_ledger::{DeclaredJob, Ledger};
use dovetail_templates::{BlockRejection, Payout, TemplateError, WorkSnapshot};
use dovetail_units::consensus::witness_commitment;
use dovetail_units::time::unix_now;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::batches::check_batch;
use crate::coinbase::{CheckedCoinbase, check_coinbase};
use crate::node::Node;
use crate::refusal::Refusal;
use crate::token::{JobToken, TokenKey, TokenKind, declared_content};
use crate::transactions::BlockTransaction;

/// A miner's node may hear of a block before ours: how long a declaration one block ahead waits for
/// ours to follow. Blocks cross the network in a second or two.
const TIP_WAIT_MAX: Duration = Duration::from_secs(5);
/// What the top three bits of a block's version must be for its other bits to be miners' to use.
const VERSION_BITS: u32 = 0x2000_0000;
const VERSION_MASK: u32 = 0xe000_0000;

/// Whether a declared job may have this version.
pub fn is_version(version: u32) -> bool {
    version & VERSION_MASK == VERSION_BITS
}

/// What declarations are checked against.
pub(crate) struct Rules {
    pub(crate) payout: Payout,
    pub(crate) token_key: TokenKey,
    pub(crate) token_lifetime_s: u64,
    pub(crate) ledger: Ledger,
    pub(crate) node: Arc<dyn Node>,
    /// Turns at the node.
    pub(crate) turns: Semaphore,
    pub(crate) check_time_max: Duration,
}

/// A declaration whose message is in order, and whose transactions are next.
pub(crate) struct Declaration {
    pub(crate) account: String,
    pub(crate) prefix: Vec<u8>,
    pub(crate) suffix: Vec<u8>,
    pub(crate) version: u32,
    pub(crate) coinbase: CheckedCoinbase,
    pub(crate) work: Arc<WorkSnapshot>,
}

/// An accepted job with its transactions, in block order.
#[derive(Debug)]
pub(crate) struct WholeJob {
    pub(crate) job: DeclaredJob,
    pub(crate) transactions: Vec<Arc<BlockTransaction>>,
    /// The merkle path of the coinbase.
    pub(crate) path: Vec<[u8; 32]>,
}

impl Rules {
    /// What can be said without the transactions.
    pub(crate) async fn check_message(
        &self,
        account: String,
        prefix: Vec<u8>,
        suffix: Vec<u8>,
        version: u32,
    ) -> Result<Declaration, Refusal> {
        let coinbase = check_coinbase(&prefix, &suffix, &self.payout)?;
        if !is_version(version) {
            return Err(Refusal::Version);
        }
        let work = self.work_at(coinbase.height).await?;
        if let Some(root) = coinbase.batch_root {
            check_batch(&self.ledger, root, &account).await?;
        }
        Ok(Declaration {
            account,
            prefix,
            suffix,
            version,
            coinbase,
            work,
        })
    }

    /// The newest work, which must be for a block of this height; waits a little if that is the
    /// very next one, or if there is none yet because the declarator has just started.
    async fn work_at(&self, height: u32) -> Result<Arc<WorkSnapshot>, Refusal> {
        let mut newest = self.node.work();
        let awaited = |work: &Option<Arc<WorkSnapshot>>| {
            work.as_ref()
                .is_some_and(|work| work.height().checked_add(1) != Some(height))
        };
        // In time or not: what counts is what is there now.
        let _ = timeout(TIP_WAIT_MAX, newest.wait_for(awaited)).await;
        let here = newest.borrow().clone().ok_or(Refusal::NoWork)?;
        match here.height() == height {
            true => Ok(here),
            false => Err(Refusal::Stale {
                declared: height,
                ours: here.height(),
            }),
        }
    }

    /// The node's judgement, then the ledger: a declaration with all its transactions becomes a
    /// job under a new token.
    pub(crate) async fn accept(
        &self,
        declaration: Declaration,
        transactions: Vec<Arc<BlockTransaction>>,
        own_turn: &Semaphore,
    ) -> Result<WholeJob, Refusal> {
        let block = assemble(&declaration, &transactions)?;
        // One turn per miner, then one of all: who declares much waits for itself first. Nobody
        // closes the semaphores.
        let own = own_turn.acquire().await;
        let turn = self.turns.acquire().await;
        self.judge(block, &declaration.work).await?;
        let job = self.job(declaration, &transactions);
        let stored: Vec<([u8; 32], &[u8])> = transactions
            .iter()
            .map(|transaction| (transaction.wtxid, transaction.raw.as_slice()))
            .collect();
        self.ledger.put_declared_job(&job, &stored).await?;
        drop((own, turn));
        Ok(WholeJob {
            path: crate::transactions::merkle_path(&job.txids),
            job,
            transactions,
        })
    }

    async fn judge(&self, block: Vec<u8>, declared_on: &WorkSnapshot) -> Result<(), Refusal> {
        match timeout(self.check_time_max, self.node.check_block(block)).await {
            Ok(Ok(())) => Ok(()),
            // A template provider cannot tell; what could be checked here was, while the tip was that one.
            Ok(Err(TemplateError::Unsupported)) => {
                let newest = self.node.work().borrow().clone().ok_or(Refusal::NoWork)?;
                match newest.tip().is_same_block(&declared_on.tip()) {
                    true => Ok(()),
                    false => Err(Refusal::Moved),
                }
            }
            Ok(Err(TemplateError::Refused { reason })) if reason == NOT_THE_TIP => {
                Err(Refusal::Moved)
            }
            Ok(Err(TemplateError::Rejected(BlockRejection::StaleParent))) => Err(Refusal::Moved),
            Ok(Err(
                error @ (TemplateError::Refused { .. }
                | TemplateError::Rejected(_)
                | TemplateError::MalformedBlock(_)),
            )) => Err(Refusal::Block(error.to_string())),
            Ok(Err(error)) => Err(Refusal::Node(error)),
            Err(_) => Err(Refusal::Slow),
        }
    }

    fn job(&self, declared: Declaration, transactions: &[Arc<BlockTransaction>]) -> DeclaredJob {
        let mut job = DeclaredJob {
            token: Vec::new(),
            identity: declared.account,
            batch_root: declared.coinbase.batch_root,
            coinbase_prefix: declared.prefix,
            coinbase_suffix: declared.suffix,
            version: declared.version,
            prev_hash: declared.work.prev_hash(),
            nbits: declared.work.nbits(),
            txids: transactions.iter().map(|each| each.txid).collect(),
            wtxids: transactions.iter().map(|each| each.wtxid).collect(),
            pool_value_sat: declared.coinbase.pool_value_sat,
            expires_at_unix: unix_now().saturating_add(self.token_lifetime_s),
        };
        let content = declared_content(&job, &self.payout);
        let end = job.expires_at_unix;
        job.token = self
            .token_key
            .make(TokenKind::Declared, &job.identity, &content, end)
            .to_bytes();
        job
    }

    /// The outputs of the next block's jobs. Without work yet, those of the first block: whoever is given them is told to
    /// declare anew. The pool's output has value 0, and takes what the others leave; these are for miners who have been
    /// granted the extension.
    pub(crate) fn outputs(&self, has_extension: bool) -> Vec<TxOut> {
        let work = self.node.work().borrow().clone();
        let height = work.map_or(0, |work| work.height());
        let pools = TxOut {
            value: Amount::ZERO,
            script_pubkey: self.payout.at(height),
        };
        let listed = match has_extension {
            true => self.payout.listed(height),
            false => Vec::new(),
        };
        std::iter::once(pools).chain(listed).collect()
    }

    /// A token that is good for one job in coinbase-only mode.
    pub(crate) fn coinbase_only_token(&self, account: &str) -> JobToken {
        let content = crate::token::coinbase_only_content(&self.payout);
        let end = unix_now().saturating_add(self.token_lifetime_s);
        self.token_key
            .make(TokenKind::CoinbaseOnly, account, &content, end)
    }
}

/// Bitcoin Core's word for a block that does not build on its tip.
const NOT_THE_TIP: &str = "inconclusive-not-best-prevblk";

/// The block that the declaration would become, with zeros for the extranonce and the nonce, if it
/// keeps to the rules that need no node.
fn assemble(
    declaration: &Declaration,
    transactions: &[Arc<BlockTransaction>],
) -> Result<Vec<u8>, Refusal> {
    let mut coinbase = declaration.coinbase.transaction.clone();
    complete_witness(&mut coinbase);
    let mut txdata = vec![coinbase];
    for transaction in transactions {
        let parsed: Transaction = deserialize(&transaction.raw)
            .map_err(|_| Refusal::List("names bytes that are no transaction"))?;
        txdata.push(parsed);
    }
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(declaration.version.cast_signed()),
            prev_blockhash: BlockHash::from_byte_array(declaration.work.prev_hash()),
            merkle_root: TxMerkleNode::all_zeros(),
            // The template's own time: the least that every node takes here.
            time: declaration.work.min_ntime(),
            bits: CompactTarget::from_consensus(declaration.work.nbits()),
            nonce: 0,
        },
        txdata,
    };
    block.header.merkle_root = block
        .compute_merkle_root()
        .ok_or(Refusal::List("has no merkle root"))?;
    if block.weight() > Weight::MAX_BLOCK {
        return Err(Refusal::List("is too heavy for a block"));
    }
    if !block.check_witness_commitment() {
        return Err(Refusal::Block(
            "the coinbase does not commit to the transactions' witnesses".into(),
        ));
    }
    Ok(serialize(&block))
}

/// Gives a coinbase that commits to witnesses the reserved value of BIP 141, which a serialisation
/// without witness leaves out.
pub(crate) fn complete_witness(coinbase: &mut Transaction) {
    let commits = coinbase
        .output
        .iter()
        .any(|output| witness_commitment(output.script_pubkey.as_bytes()).is_some());
    if let Some(input) = coinbase.input.first_mut()
        && input.witness.is_empty()
        && commits
    {
        input.witness = Witness::from(vec![vec![0; 32]]);
    }
}
