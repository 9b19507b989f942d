//! A solved block as a file: JSON, so that a person can read it and `bitcoin-cli submitblock` can take it.

use std::sync::Arc;

use bitcoin::Block;
use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use serde::{Deserialize, Serialize};

use super::solved_block::{BlockParts, BrokenBlock, Finder, SolvedBlock, Transactions};

/// What a file of a solved block says. Bytes are in hex.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The block's hash, as nodes print it.
    hash: String,
    height: Option<u32>,
    /// Unix seconds.
    pub(super) found_at_unix: u64,
    account: String,
    declared: bool,
    /// Whether only its miner can publish it.
    only_miner: bool,
    /// The template, in the numbering of the process that wrote the file: it means nothing to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    template_id: Option<u64>,
    header: String,
    coinbase: String,
    merkle_path: Vec<String>,
    /// The whole block, where all of its transactions are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    /// Why its parts do not make the block, where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

/// Why a file is not that of a block.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it is not a record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0} does not parse")]
    Field(&'static str),
    #[error("its parts are of another block")]
    OtherBlock,
}

impl Record {
    pub(super) fn of(block: &SolvedBlock, found_at_unix: u64) -> Self {
        let (template_id, whole) = match &block.transactions {
            Transactions::Template(id) => (*id, None),
            Transactions::Here(bytes) => (None, Some(hex::encode(bytes.as_slice()))),
            Transactions::Miners => (None, None),
        };
        Self {
            hash: block.hash().to_string(),
            height: block.height(),
            found_at_unix,
            account: block.finder.account.clone(),
            declared: block.finder.declared,
            only_miner: block.is_miners(),
            template_id,
            header: hex::encode(serialize(&block.header)),
            coinbase: hex::encode(serialize(&block.coinbase)),
            merkle_path: block.merkle_path.iter().map(hex::encode).collect(),
            block: whole,
            broken: None,
        }
    }

    pub(super) fn of_broken(broken: &BrokenBlock, found_at_unix: u64) -> Self {
        let parts = &broken.parts;
        let (template_id, whole) = match &parts.transactions {
            Transactions::Template(id) => (*id, None),
            Transactions::Here(bytes) => (None, Some(hex::encode(bytes.as_slice()))),
            Transactions::Miners => (None, None),
        };
        Self {
            hash: broken.proven.to_string(),
            height: None,
            found_at_unix,
            account: parts.finder.account.clone(),
            declared: parts.finder.declared,
            only_miner: parts.transactions == Transactions::Miners,
            template_id,
            header: hex::encode(serialize(&parts.header)),
            coinbase: hex::encode(&parts.coinbase),
            merkle_path: parts.merkle_path.iter().map(hex::encode).collect(),
            block: whole,
            broken: Some(broken.reason.clone()),
        }
    }

    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a file, and believes nothing of it: what does not hash to its header is no block.
    pub(super) fn parse(bytes: &[u8]) -> Result<(SolvedBlock, u64), RecordError> {
        let record: Self = serde_json::from_slice(bytes)?;
        let decode = |text: &str, name| hex::decode(text).map_err(|_| RecordError::Field(name));
        let header: Header = deserialize(&decode(&record.header, "header")?)
            .map_err(|_| RecordError::Field("header"))?;
        let merkle_path = record
            .merkle_path
            .iter()
            .map(|node| {
                let node = decode(node, "merkle_path")?;
                node.try_into()
                    .map_err(|_| RecordError::Field("merkle_path"))
            })
            .collect::<Result<Vec<[u8; 32]>, _>>()?;
        let transactions = match &record.block {
            Some(block) => Transactions::Here(Arc::new(whole(&decode(block, "block")?, &header)?)),
            None if record.only_miner => Transactions::Miners,
            None => Transactions::Template(None),
        };
        let parts = BlockParts {
            header,
            coinbase: decode(&record.coinbase, "coinbase")?,
            merkle_path,
            transactions,
            finder: Finder {
                account: record.account,
                declared: record.declared,
            },
        };
        let block = SolvedBlock::assemble(parts, header.block_hash());
        let block = block.map_err(|_| RecordError::OtherBlock)?;
        match block.hash().to_string() == record.hash {
            true => Ok((block, record.found_at_unix)),
            false => Err(RecordError::OtherBlock),
        }
    }
}

/// A whole block that is the header's.
fn whole(bytes: &[u8], header: &Header) -> Result<Vec<u8>, RecordError> {
    let block: Block = deserialize(bytes).map_err(|_| RecordError::Field("block"))?;
    match block.header == *header && block.check_merkle_root() {
        true => Ok(bytes.to_vec()),
        false => Err(RecordError::OtherBlock),
    }
}
