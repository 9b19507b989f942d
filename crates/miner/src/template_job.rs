//! A job on a template of the miner's own node, as devices see it: what a declared job and a solo job have in common.

use dovetail_templates::WorkSnapshot;
use dovetail_templates::block_publisher::BlockPublisher;
use dovetail_units::header::job_min_ntime;
use dovetail_units::time::header_time_now;

use crate::coinbase::JobCoinbase;
use crate::job::{BlockSink, JobParts};
use crate::search::Hash256;

/// Who grants the extranonce of a job, and what a share of it must meet.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The upstream's part of the extranonce.
    pub extranonce_prefix: &'a [u8],
    /// Bytes of the extranonce that are the miner's.
    pub extranonce_size: usize,
    /// What a share must meet to be worth something, little-endian.
    pub target: Hash256,
}

/// The parts of a job whose coinbase was built on `work`. Its blocks go to `blocks` at once.
pub fn job_parts(
    blocks: &BlockPublisher,
    work: &WorkSnapshot,
    coinbase: &JobCoinbase,
    terms: Terms<'_>,
) -> JobParts {
    let (coinbase_prefix, coinbase_suffix) = coinbase.stripped_parts();
    let sink = BlockSink::new(blocks.clone(), work.template_id(), coinbase);
    JobParts {
        upstream_job_id: None,
        version: work.template.version,
        // Custom jobs carry no such flag; pools allow it on extended channels.
        version_rolling: true,
        prev_hash: work.prev_hash(),
        min_ntime: min_ntime(work),
        nbits: work.nbits(),
        coinbase_prefix: coinbase_prefix.to_vec(),
        coinbase_suffix: coinbase_suffix.to_vec(),
        merkle_path: work.merkle_path(),
        extranonce_prefix: terms.extranonce_prefix.to_vec(),
        extranonce_size: terms.extranonce_size,
        target: terms.target,
        blocks: Some(sink),
    }
}

/// The smallest time of a job's headers: the clock, unless the chain is ahead of it. The template's
/// own time would do for the block, but the pool compares with the time of *its* template source,
/// which may have heard of the block later than the miner's.
pub fn min_ntime(work: &WorkSnapshot) -> u32 {
    job_min_ntime(work.min_ntime(), header_time_now())
}
