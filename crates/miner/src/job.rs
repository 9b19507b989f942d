//! A job as every device sees it, whoever built it: the pool, or the miner itself for a declaration or for solo mining.
//!
//! `channels_sv2` has server-side channels, but their jobs must come from a template or a custom
//! job message of their own; ours come from an upstream's extended jobs as well, and one search on
//! this machine shares them. So a job is its header's parts here, and judging a share is arithmetic.

use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{BlockHash, CompactTarget, Target, TxMerkleNode};
use dovetail_commitment::block::merkle_root;
use dovetail_templates::block_publisher::{
    BlockParts, BlockPublisher, Finder, SolvedBlock, Transactions,
};
use dovetail_units::header::{BadHeader, JobHeader, Tip};
use tokio::sync::mpsc;

use crate::coinbase::JobCoinbase;
use crate::search::{Hash256, header_bytes, header_hash, meets};

/// Bytes of the extranonce that devices share: the index of a channel and what
/// the channel rolls. An upstream that grants more gets the rest as zeros, so the layout towards
/// firmware never depends on the upstream.
pub const EXTRANONCE_BYTES: usize = 8;
/// Shares of one job that wait for its owner: while a declaration is pending they are kept here.
/// At the usual few shares a minute this is many minutes; what exceeds it is counted as lost.
pub const SHARES_WAITING_MAX: usize = 64;

/// A header that a device found, and what of it is submitted upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundShare {
    /// Our number of the job.
    pub job_id: u32,
    /// The upstream's number of the job, where the upstream built it.
    pub upstream_job_id: Option<u32>,
    /// Our whole part of the extranonce.
    pub extranonce: Vec<u8>,
    /// The nonce.
    pub nonce: u32,
    /// The time.
    pub ntime: u32,
    /// The version, possibly rolled.
    pub version: u32,
    /// The header's hash, internal byte order.
    pub hash: Hash256,
    /// What it must meet upstream, little-endian.
    pub target: Hash256,
    /// Whether it is a block.
    pub block: bool,
}

/// What became of a share that was handed to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// Its owner will submit it.
    Kept,
    /// It does not meet the upstream's target: it only measures the device.
    Easy,
    /// The owner of the job is gone or does not keep up.
    Lost,
}

/// How to publish a block that is found on the job: on our own template source, at once.
#[derive(Debug, Clone)]
pub struct BlockSink {
    /// What publishes blocks.
    pub blocks: BlockPublisher,
    /// The template of its source.
    pub template_id: u64,
    /// The coinbase with its witness, before the extranonce ..
    pub coinbase_prefix: Vec<u8>,
    /// .. and after it.
    pub coinbase_suffix: Vec<u8>,
}

/// What a job is made of.
#[derive(Debug, Clone)]
pub struct JobParts {
    /// The upstream's number, where it built the job.
    pub upstream_job_id: Option<u32>,
    /// Block version.
    pub version: u32,
    /// Whether devices may roll the version's general-purpose bits (BIP 323).
    pub version_rolling: bool,
    /// Hash of the block before, internal byte order.
    pub prev_hash: Hash256,
    /// The least time of a header.
    pub min_ntime: u32,
    /// Network target, compact.
    pub nbits: u32,
    /// The coinbase without witness, before the extranonce.
    pub coinbase_prefix: Vec<u8>,
    /// The coinbase without witness, after the extranonce.
    pub coinbase_suffix: Vec<u8>,
    /// From the coinbase to the root.
    pub merkle_path: Vec<Hash256>,
    /// The upstream's part of the extranonce.
    pub extranonce_prefix: Vec<u8>,
    /// Bytes of the extranonce that are ours.
    pub extranonce_size: usize,
    /// What a share must meet to be worth something upstream, little-endian.
    pub target: Hash256,
    /// Where a block goes besides upstream.
    pub blocks: Option<BlockSink>,
}

/// An upstream's extranonce that is too small to be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream grants {0} bytes of extranonce, {EXTRANONCE_BYTES} are needed")]
pub struct ExtranonceTooSmall(pub usize);

impl JobParts {
    /// The tip that the job builds on.
    pub fn tip(&self) -> Tip {
        Tip {
            prev_hash: self.prev_hash,
            nbits: self.nbits,
            min_ntime: self.min_ntime,
        }
    }
}

/// A job that is being hashed.
#[derive(Debug)]
pub struct HashJob {
    /// Our number, which firmware sees; never reused while a job lives.
    pub id: u32,
    /// The number under which its owner knows it.
    owners_id: u32,
    parts: JobParts,
    /// The coinbase up to the part of the extranonce that devices share.
    prefix: Vec<u8>,
    filler: usize,
    shares: mpsc::Sender<FoundShare>,
}

impl HashJob {
    /// A job whose shares go to `shares`.
    ///
    /// # Errors
    /// An extranonce that cannot be shared.
    pub fn new(
        id: u32,
        parts: JobParts,
        shares: mpsc::Sender<FoundShare>,
    ) -> Result<Self, ExtranonceTooSmall> {
        let filler = parts
            .extranonce_size
            .checked_sub(EXTRANONCE_BYTES)
            .ok_or(ExtranonceTooSmall(parts.extranonce_size))?;
        let prefix = [
            &parts.coinbase_prefix[..],
            &parts.extranonce_prefix,
            &vec![0; filler],
        ]
        .concat();
        Ok(Self {
            id,
            owners_id: id,
            parts,
            prefix,
            filler,
            shares,
        })
    }

    /// The same job under another number, for a device that gets it again with another target.
    pub(crate) fn again(&self, id: u32) -> Self {
        Self {
            id,
            owners_id: self.owners_id,
            parts: self.parts.clone(),
            prefix: self.prefix.clone(),
            filler: self.filler,
            shares: self.shares.clone(),
        }
    }

    /// What it is made of.
    pub fn parts(&self) -> &JobParts {
        &self.parts
    }

    /// The coinbase as firmware sees it: what is fixed for all devices stands in the prefix.
    pub fn coinbase_prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The header's Merkle root for the shared part of the extranonce.
    pub fn merkle_root(&self, extranonce: &[u8]) -> Hash256 {
        let coinbase = [&self.prefix[..], extranonce, &self.parts.coinbase_suffix].concat();
        let txid = sha256d::Hash::hash(&coinbase).to_byte_array();
        merkle_root(txid, &self.parts.merkle_path)
    }

    /// The share that these fields make; whether it meets any target is not looked at.
    ///
    /// # Errors
    /// Fields that no header of this job may have.
    pub fn share(
        &self,
        extranonce: &[u8],
        version: u32,
        ntime: u32,
        nonce: u32,
    ) -> Result<FoundShare, BadHeader> {
        let rules = JobHeader {
            version: self.parts.version,
            version_rolling: self.parts.version_rolling,
            min_ntime: self.parts.min_ntime,
            extranonce_size: EXTRANONCE_BYTES,
        };
        rules.check(extranonce.len(), ntime, version)?;
        let root = self.merkle_root(extranonce);
        let header = header_bytes(
            version,
            &self.parts.prev_hash,
            &root,
            ntime,
            self.parts.nbits,
            nonce,
        );
        let hash = header_hash(&header);
        let network = Target::from_compact(CompactTarget::from_consensus(self.parts.nbits));
        Ok(FoundShare {
            job_id: self.owners_id,
            upstream_job_id: self.parts.upstream_job_id,
            extranonce: [&vec![0; self.filler][..], extranonce].concat(),
            nonce,
            ntime,
            version,
            hash,
            target: self.parts.target,
            block: network >= Target::from_le_bytes(hash),
        })
    }

    /// Hands a share to the job's owner if it is worth something upstream, and a block to our own
    /// template source as well. Never waits.
    pub fn offer(&self, share: FoundShare) -> Offered {
        if !share.block && !meets(&share.hash, &self.parts.target) {
            return Offered::Easy;
        }
        let block = share.block.then(|| share.clone());
        let offered = match self.shares.try_send(share) {
            Ok(()) => Offered::Kept,
            Err(_) => Offered::Lost,
        };
        // Whatever became of the share, a block is a block.
        if let Some(share) = block {
            self.publish_block(&share);
        }
        offered
    }

    fn publish_block(&self, share: &FoundShare) {
        let mut hash = share.hash;
        hash.reverse();
        tracing::info!(job_id = self.id, hash = %hex::encode(hash), "a share is a block");
        let Some(sink) = &self.parts.blocks else {
            return;
        };
        let coinbase = [
            &sink.coinbase_prefix[..],
            &self.parts.extranonce_prefix,
            &share.extranonce,
            &sink.coinbase_suffix,
        ]
        .concat();
        let parts = BlockParts {
            header: Header {
                version: Version::from_consensus(share.version.cast_signed()),
                prev_blockhash: BlockHash::from_byte_array(self.parts.prev_hash),
                // It is computed from the parts.
                merkle_root: TxMerkleNode::all_zeros(),
                time: share.ntime,
                bits: CompactTarget::from_consensus(self.parts.nbits),
                nonce: share.nonce,
            },
            coinbase,
            merkle_path: self.parts.merkle_path.clone(),
            transactions: Transactions::Template(Some(sink.template_id)),
            finder: Finder::default(),
        };
        match SolvedBlock::assemble(parts, BlockHash::from_byte_array(share.hash)) {
            // It goes on by itself, and says in the log what came of it.
            Ok(block) => drop(sink.blocks.publish(block)),
            Err(broken) => sink.blocks.keep(broken),
        }
    }
}

impl BlockSink {
    /// For a job that was built on a template of the source of `blocks`.
    pub fn new(blocks: BlockPublisher, template_id: u64, coinbase: &JobCoinbase) -> Self {
        Self {
            blocks,
            template_id,
            coinbase_prefix: coinbase.prefix.clone(),
            coinbase_suffix: coinbase.suffix.clone(),
        }
    }
}

/// A job as it is handed around.
pub type SharedJob = Arc<HashJob>;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bitcoin::consensus::serialize;
    use bitcoin::{Amount, ScriptBuf, TxOut};
    use dovetail_templates::block_publisher::PublisherOptions;
    use dovetail_templates::{SourceConfig, WorkSnapshot};
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::coinbase::job_outputs;
    use crate::template_job::{Terms, job_parts};

    /// A job on a template of this source, on which every other header is a block.
    fn parts(blocks: &BlockPublisher, work: &WorkSnapshot) -> JobParts {
        let payout = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        };
        let outputs = job_outputs(&work.template, &serialize(&vec![payout]), None).unwrap();
        let coinbase = JobCoinbase::new(&work.template, outputs, 4 + EXTRANONCE_BYTES).unwrap();
        let terms = Terms {
            extranonce_prefix: &[1; 4],
            extranonce_size: EXTRANONCE_BYTES,
            target: [0xff; 32],
        };
        job_parts(blocks, work, &coinbase, terms)
    }

    fn offer_block(parts: JobParts) {
        let job = HashJob::new(1, parts, mpsc::channel(1).0).unwrap();
        let (version, ntime) = (job.parts().version, job.parts().min_ntime);
        let block = (0..1_000)
            .filter_map(|nonce| {
                job.share(&[0; EXTRANONCE_BYTES], version, ntime, nonce)
                    .ok()
            })
            .find(|share| share.block);
        job.offer(block.unwrap());
    }

    #[tokio::test]
    async fn a_block_whose_coinbase_was_not_hashed_is_kept_on_disk_and_not_published() {
        let (stop, dir) = (CancellationToken::new(), tempfile::tempdir().unwrap());
        let source = SourceConfig::embedded_with_bits(0x207f_ffff);
        let templates = dovetail_templates::start(source, stop.clone()).unwrap();
        let (blocks, _) = BlockPublisher::start(PublisherOptions {
            templates: templates.clone(),
            sinks: Vec::new(),
            dir: Some(dir.path().to_owned()),
            solves_templates: true,
            shutdown: stop.clone(),
        })
        .await;
        let work = templates.current().unwrap();
        let mut broken = parts(&blocks, &work);
        if let Some(sink) = &mut broken.blocks {
            // The bytes before the extranonce are not those that devices hash.
            let last = sink.coinbase_prefix.last_mut().unwrap();
            *last ^= 1;
        }
        offer_block(broken);
        let kept = async {
            let folder = dir.path().join("broken");
            while std::fs::read_dir(&folder).map_or(0, Iterator::count) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), kept).await.unwrap();
        assert_eq!(templates.current().unwrap().height(), work.height());

        // As it was hashed, it is a block.
        offer_block(parts(&blocks, &work));
        let mut newest = templates.subscribe();
        let next =
            newest.wait_for(|now| now.as_ref().is_some_and(|now| now.height() > work.height()));
        timeout(Duration::from_secs(20), next)
            .await
            .unwrap()
            .unwrap();
        stop.cancel();
    }
}
