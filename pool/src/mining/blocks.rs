//! A share that solves a block: the block goes out before anything else is done with the share.

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};
use dovetail_commitment::HeaderHash;
use stratum_core::channels_sv2::merkle_root::merkle_root_from_path;
use stratum_core::template_distribution_sv2::SubmitSolutionOwned;

use super::channel::SolvedBlock;
use super::connection::Connection;
use super::custom::AcceptedJob;
use super::shares::{HeaderFields, header_of};
use crate::events::Event;
use crate::settle::ProvenShare;
use crate::shared::Shared;

enum Submission {
    Solution(SubmitSolutionOwned),
    Block(Vec<u8>),
    /// A block in coinbase-only mode, whose transactions only its miner has.
    Miners,
}

async fn record(
    shared: &Shared,
    header_hash: HeaderHash,
    height: u32,
    account: &str,
    result: &str,
) {
    let ledger = &shared.settler.ledger;
    if let Err(error) = ledger
        .record_block(header_hash, height, account, result)
        .await
    {
        tracing::error!(%error, "cannot record a block");
    }
}

impl Connection {
    /// Publishes a solved block at once: nothing that follows may delay it.
    pub(super) fn publish(
        &self,
        proven: &ProvenShare,
        block: Option<&SolvedBlock>,
        fields: &HeaderFields,
        accepted: Option<&AcceptedJob>,
    ) {
        let Some(block) = block else { return };
        let hash = BlockHash::from_byte_array(proven.header_hash.to_bytes());
        Event::BlockFound {
            hash: &hash.to_string(),
            worker: &proven.account,
            declared: accepted.is_some(),
        }
        .emit();
        tracing::info!(%hash, declared = accepted.is_some(), "block found");
        let shared = self.shared.clone();
        let account = proven.account.clone();
        let header_hash = proven.header_hash;
        let height = self.work.as_ref().map_or(0, |work| work.height());
        let submission = match (block.template_id, accepted) {
            (Some(template_id), _) => self.solution(template_id, fields, &block.coinbase),
            (None, Some(job)) => {
                self.declared_block(&block.coinbase, fields, proven.header_hash, job)
            }
            (None, None) => None,
        };
        self.shared.tracker.spawn(async move {
            let submitted = match submission {
                Some(Submission::Solution(solution)) => {
                    shared.templates.submit_solution(solution).await
                }
                Some(Submission::Block(bytes)) => shared.templates.submit_block(bytes).await,
                Some(Submission::Miners) => {
                    tracing::info!(%hash, "only its miner can publish this block");
                    return record(&shared, header_hash, height, &account, "left to its miner")
                        .await;
                }
                None => return tracing::error!("a solved block could not be assembled"),
            };
            let result = match &submitted {
                Ok(()) => "submitted".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Err(error) = &submitted {
                tracing::warn!(%error, "the template source did not take the block");
            }
            record(&shared, header_hash, height, &account, &result).await;
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
