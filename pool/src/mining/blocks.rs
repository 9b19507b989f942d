//! A share that solves a block: the block goes out before anything else is done with the share.

use std::time::Duration;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use dovetail_commitment::HeaderHash;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;
use tokio::time::{Instant, sleep};

use super::channel::SolvedBlock;
use super::connection::Connection;
use super::custom::AcceptedJob;
use super::shares::{HeaderFields, header_of};
use crate::events::Event;
use crate::settle::ProvenShare;
use crate::shared::Shared;

/// How long a found block is told to a ledger that is away.
const RECORD_TIME_MAX: Duration = Duration::from_secs(120);
/// How long between two tries.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

enum Submission {
    Solution(SubmitSolutionOwned),
    Block(Vec<u8>),
    /// A block in coinbase-only mode, whose transactions only its miner has.
    Miners,
}

impl Submission {
    /// Hands the block over; what came of it, in words.
    async fn submit(self, shared: &Shared, hash: BlockHash) -> String {
        let submitted = match self {
            Self::Solution(solution) => shared.templates.submit_solution(solution).await,
            Self::Block(bytes) => shared.templates.submit_block(bytes).await,
            Self::Miners => {
                tracing::info!(%hash, "only its miner can publish this block");
                return "left to its miner".to_owned();
            }
        };
        match submitted {
            Ok(()) => "submitted".to_owned(),
            Err(error) => {
                tracing::warn!(%hash, %error, "the template source did not take the block");
                error.to_string()
            }
        }
    }
}

/// A block that a share solved.
struct Found {
    header_hash: HeaderHash,
    hash: BlockHash,
    height: u32,
    account: String,
    declared: bool,
}

impl Found {
    /// Records the block and tells the supervisor of it, once: a header may come again after a
    /// reorganisation or a restart. `false` if this is not the first time.
    async fn announce(&self, shared: &Shared) -> bool {
        let ledger = &shared.settler.ledger;
        let deadline = Instant::now() + RECORD_TIME_MAX;
        loop {
            let recorded = ledger.record_block(self.header_hash, self.height, &self.account);
            match recorded.await {
                Ok(true) => break,
                Ok(false) => {
                    tracing::info!(hash = %self.hash, "a block that was found before came again");
                    return false;
                }
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(hash = %self.hash, %error, "cannot record a block yet");
                    sleep(RECORD_PAUSE).await;
                }
                // Better told of twice than never.
                Err(error) => {
                    tracing::error!(hash = %self.hash, %error, "cannot record a block");
                    break;
                }
            }
        }
        Event::BlockFound {
            hash: &self.hash.to_string(),
            worker: &self.account,
            declared: self.declared,
        }
        .emit();
        tracing::info!(hash = %self.hash, declared = self.declared, "block found");
        true
    }

    async fn note(&self, shared: &Shared, result: &str) {
        let ledger = &shared.settler.ledger;
        if let Err(error) = ledger.note_submission(self.header_hash, result).await {
            tracing::error!(hash = %self.hash, result, %error, "cannot note what came of a block");
        }
    }
}

impl Connection {
    /// Publishes a solved block at once: nothing that follows may delay it. One that comes again is
    /// published again, which does no harm, and is found once.
    pub(super) fn publish(
        &self,
        proven: &ProvenShare,
        block: Option<&SolvedBlock>,
        fields: &HeaderFields,
        accepted: Option<&AcceptedJob>,
    ) {
        let Some(block) = block else { return };
        let shared = self.shared.clone();
        let found = Found {
            header_hash: proven.header_hash,
            hash: BlockHash::from_byte_array(proven.header_hash.to_bytes()),
            height: self.work.as_ref().map_or(0, |work| work.height()),
            account: proven.account.clone(),
            declared: accepted.is_some(),
        };
        let submission = match (block.template_id, accepted) {
            (Some(template_id), _) => self.solution(template_id, fields, &block.coinbase),
            (None, Some(job)) => {
                self.declared_block(&block.coinbase, fields, proven.header_hash, job)
            }
            (None, None) => None,
        };
        self.shared.tracker.spawn(async move {
            let submitting = async {
                match submission {
                    Some(submission) => submission.submit(&shared, found.hash).await,
                    None => {
                        tracing::error!(hash = %found.hash, "a solved block could not be assembled");
                        "not assembled".to_owned()
                    }
                }
            };
            let (result, is_new) = tokio::join!(submitting, found.announce(&shared));
            if is_new {
                found.note(&shared, &result).await;
            }
        });
    }

    fn solution(
        &self,
        template_id: u64,
        fields: &HeaderFields,
        coinbase: &[u8],
    ) -> Option<Submission> {
        Some(Submission::Solution(SubmitSolutionOwned {
            template_id,
            version: fields.version,
            header_timestamp: fields.ntime,
            header_nonce: fields.nonce,
            coinbase_tx: coinbase.to_vec().try_into().ok()?,
        }))
    }

    /// The whole block of a declared job: header, coinbase, the declared transactions. In
    /// coinbase-only mode the transactions are the miner's secret, and the block is the miner's to
    /// publish, unless the pool's own template has the very same ones.
    fn declared_block(
        &self,
        coinbase: &[u8],
        fields: &HeaderFields,
        header_hash: HeaderHash,
        job: &AcceptedJob,
    ) -> Option<Submission> {
        let work = self.work.as_ref()?;
        let transaction: Transaction = bitcoin::consensus::deserialize(coinbase).ok()?;
        let txid = transaction.compute_txid().to_byte_array();
        let header = |root| header_of(fields, work.prev_hash(), work.nbits(), root);
        let Some(block) = &job.block else {
            let same = header(work.merkle_root(txid)).block_hash().to_byte_array();
            return match same == header_hash.to_bytes() {
                true => self.solution(work.template_id(), fields, coinbase),
                false => Some(Submission::Miners),
            };
        };
        let root = merkle_root_from_path(
            &serialize_without_witness(&transaction),
            &[],
            &[],
            &block.path,
        )?;
        let transactions = block.transactions.iter().map(AsRef::as_ref);
        dovetail_jd::block_bytes(&header(root), &transaction, transactions).map(Submission::Block)
    }
}

fn serialize_without_witness(transaction: &Transaction) -> Vec<u8> {
    let mut stripped = transaction.clone();
    for input in &mut stripped.input {
        input.witness.clear();
    }
    serialize(&stripped)
}
