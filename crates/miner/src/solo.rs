//! Mining without a pool: on templates of the miner's own node, for the miner's own payout. It is what devices do
//! while no pool can be reached, so that they are never idle.

use bitcoin::{Amount, CompactTarget, ScriptBuf, Target, TxOut, consensus::serialize};
use dovetail_templates::WorkSnapshot;
use dovetail_templates::block_publisher::BlockPublisher;
use tokio::sync::mpsc;

use crate::coinbase::{BuildError, JobCoinbase, job_outputs};
use crate::current_job::Base;
use crate::job::{EXTRANONCE_BYTES, ExtranonceTooSmall, JobParts, SHARES_WAITING_MAX};
use crate::stats;
use crate::template_job::{Terms, job_parts};

/// Bytes of the extranonce that tell the runs of this program apart.
const PREFIX_BYTES: usize = 4;

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
enum SoloError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Extranonce(#[from] ExtranonceTooSmall),
}

/// Gives devices a job on the newest template, and on every better one, until it is dropped. The last job
/// stays and stays good: its blocks go to the node without this task.
pub async fn run(blocks: BlockPublisher, payout_script: ScriptBuf, base: Base) {
    let (offers, mut shares) = mpsc::channel(SHARES_WAITING_MAX);
    // Nobody gives us one: after a restart the same headers would be hashed again.
    let extranonce_prefix: [u8; PREFIX_BYTES] = rand::random();
    let mut work = blocks.templates().subscribe();
    work.mark_changed();
    loop {
        tokio::select! {
            changed = work.changed() => {
                if changed.is_err() {
                    return tracing::error!("the template source stopped; there is nothing to mine solo");
                }
                let newest = work.borrow_and_update().clone();
                let Some(newest) = newest else { continue };
                let offered = job(&blocks, &newest, &payout_script, &extranonce_prefix)
                    .map_err(SoloError::from)
                    .and_then(|parts| Ok(base.offer(parts, offers.clone())?));
                if let Err(error) = offered {
                    tracing::error!(%error, "cannot mine solo on this template");
                }
            }
            Some(share) = shares.recv() => if share.block {
                stats::count(&base.stats().solo_blocks);
            },
        }
    }
}

/// The job of a template that pays us.
fn job(
    blocks: &BlockPublisher,
    work: &WorkSnapshot,
    payout_script: &ScriptBuf,
    extranonce_prefix: &[u8],
) -> Result<JobParts, BuildError> {
    let payout = vec![TxOut {
        value: Amount::ZERO,
        script_pubkey: payout_script.clone(),
    }];
    let outputs = job_outputs(&work.template, &serialize(&payout), None)?;
    let coinbase = JobCoinbase::new(
        &work.template,
        outputs,
        extranonce_prefix.len() + EXTRANONCE_BYTES,
    )?;
    let network = Target::from_compact(CompactTarget::from_consensus(work.nbits()));
    let terms = Terms {
        extranonce_prefix,
        extranonce_size: EXTRANONCE_BYTES,
        // Nothing less than a block is worth anything here.
        target: network.to_le_bytes(),
    };
    Ok(job_parts(blocks, work, &coinbase, terms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::current_job::CurrentJob;
    use dovetail_templates::SourceConfig;
    use dovetail_templates::block_publisher::PublisherOptions;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn a_block_found_solo_pays_us_and_brings_the_next_job() {
        let stop = CancellationToken::new();
        let source = SourceConfig::Embedded {
            // Every header is a block.
            bits: 0x207f_ffff,
            network: bitcoin::Network::Regtest,
        };
        let templates = dovetail_templates::start(source, stop.clone()).unwrap();
        let current_job = Arc::new(CurrentJob::default());
        let script = ScriptBuf::from_hex("0014ebe1b7dcc293ccaa0ee743a86f89df8258c208fc").unwrap();
        let (blocks, _) = BlockPublisher::start(PublisherOptions {
            templates,
            sinks: Vec::new(),
            dir: None,
            solves_templates: true,
            shutdown: stop.clone(),
        })
        .await;
        let solo = tokio::spawn(run(blocks, script.clone(), Base::new(current_job.clone())));
        let mut display = current_job.subscribe();
        let time_max = Duration::from_secs(10);
        let first = timeout(time_max, display.wait_for(Option::is_some)).await;
        let first = first.unwrap().unwrap().clone().unwrap();
        let suffix = hex::encode(&first.parts().coinbase_suffix);
        assert!(suffix.contains(&script.to_hex_string()));
        let share = (0..64).find_map(|nonce| {
            let version = first.parts().version;
            let share = first.share(&[0; 8], version, first.parts().min_ntime, nonce);
            share.ok().filter(|share| share.block)
        });
        first.offer(share.unwrap());
        let next = display.wait_for(|job| {
            job.as_ref()
                .is_some_and(|job| job.parts().prev_hash != first.parts().prev_hash)
        });
        timeout(time_max, next).await.unwrap().unwrap();
        assert_eq!(
            current_job
                .stats()
                .solo_blocks
                .load(std::sync::atomic::Ordering::Relaxed),
            1
        );
        solo.abort();
        stop.cancel();
    }
}
