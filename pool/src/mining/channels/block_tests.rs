//! The block of a share, on both kinds of channel: the very bytes that were hashed, or nothing that is submitted.

use bitcoin::ScriptBuf;
use dovetail_templates::WorkSnapshot;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use stratum_core::mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};

use super::*;
use crate::mining::template_jobs::job_maker::{JobMaker, Start};
use crate::test_support::work;

const CHANNEL: u32 = 3;
const EXTRANONCE_BYTES: u8 = 16;

/// On work with this target every other header is a block.
const BITS: u32 = 0x207f_ffff;

fn job(work: &WorkSnapshot, maker: &mut JobMaker) -> Arc<ExtendedJob> {
    Arc::new(maker.build(work, CHANNEL, Start::WithItsTip).unwrap())
}

fn maker() -> JobMaker {
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let size = usize::from(EXTRANONCE_BYTES);
    JobMaker::new(
        Arc::default(),
        "Dovetail",
        true,
        size,
        dovetail_templates::Payout::one(script),
    )
}

/// A channel of one kind or the other, with this job to hash.
fn channel(is_standard: bool, work: &WorkSnapshot, job: &Arc<ExtendedJob>) -> Channel {
    let mut extranonces = ExtranonceAllocator::new(vec![1; 3], EXTRANONCE_BYTES, 16).unwrap();
    let (name, easiest) = ("alice".to_owned(), Target::MAX);
    let (whose, now) = (Identity::parse("alice").unwrap(), Instant::now());
    let vardiff = Vardiff::new(60.0, 1.0, 1.0);
    let tag = "Dovetail".to_owned();
    let mut channel = if is_standard {
        let prefix = extranonces.allocate_standard().unwrap();
        let opened =
            StandardChannel::new_for_pool(CHANNEL, name, prefix, easiest, 1.0, 1, 60.0, tag, None);
        Channel::standard(opened.unwrap(), whose, vardiff)
    } else {
        let prefix = extranonces.allocate_extended(4).unwrap();
        let rollable = u16::from(extranonces.rollable_extranonce_size());
        let opened = ExtendedChannel::new_for_pool(
            CHANNEL, name, prefix, easiest, 1.0, true, rollable, 1, 60.0, tag, None,
        );
        Channel::extended(opened.unwrap(), whose, vardiff)
    };
    channel.install(job, now).unwrap();
    channel.activate(&work.prev_hash, now).unwrap();
    channel
}

fn share(channel: &Channel, work: &WorkSnapshot, job_id: u32, nonce: u32) -> SubmittedShare {
    let (ntime, version) = (work.min_ntime(), work.version());
    match channel.as_extended() {
        None => SubmittedShare::from(SubmitSharesStandardOwned {
            channel_id: CHANNEL,
            sequence_number: nonce,
            job_id,
            nonce,
            ntime,
            version,
        }),
        Some(extended) => SubmittedShare::from(SubmitSharesExtendedOwned {
            channel_id: CHANNEL,
            sequence_number: nonce,
            job_id,
            nonce,
            ntime,
            version,
            extranonce: vec![5; usize::from(extended.get_rollable_extranonce_size())]
                .try_into()
                .unwrap(),
        }),
    }
}

/// What the first share that solves a block makes of it, after this change of the share.
fn solved(
    channel: &mut Channel,
    work: &WorkSnapshot,
    job_id: u32,
    change: fn(&mut SubmittedShare),
) -> ([u8; 32], Result<SolvedBlock, AssemblyError>) {
    (0..1_000)
        .find_map(|nonce| {
            let mut share = share(channel, work, job_id, nonce);
            change(&mut share);
            let valid = channel.validate(&share, Instant::now()).ok()?;
            Some((valid.header_hash, valid.block?))
        })
        .expect("every other header is a block")
}

#[tokio::test]
async fn the_block_of_a_share_has_the_hash_that_was_proven() {
    let work = work(BITS).await;
    for is_standard in [true, false] {
        let job = job(&work, &mut maker());
        let mut channel = channel(is_standard, &work, &job);
        let (proven, block) = solved(&mut channel, &work, job.get_job_id(), |_| {});
        assert_eq!(block.unwrap().hash().to_byte_array(), proven);
    }
}

#[tokio::test]
async fn a_block_whose_coinbase_was_not_hashed_is_kept_and_not_published() {
    let work = work(BITS).await;
    // A standard channel: the coinbase at hand is another job's.
    let mut maker = maker();
    let (hashed, other) = (job(&work, &mut maker), job(&work, &mut maker));
    let job_id = hashed.get_job_id();
    let mut standard = channel(true, &work, &hashed);
    standard.hashed_jobs.insert(job_id, other);
    let (proven, block) = solved(&mut standard, &work, job_id, |_| {});
    check_broken(proven, block);
    // An extended one: the extranonce is another.
    let mut extended = channel(false, &work, &hashed);
    let (proven, block) = solved(&mut extended, &work, job_id, |share| {
        share.extranonce[0] ^= 1
    });
    check_broken(proven, block);
}

fn check_broken(proven: [u8; 32], block: Result<SolvedBlock, AssemblyError>) {
    let Err(AssemblyError::Broken(broken)) = block else {
        panic!("it would be published: {block:?}");
    };
    assert_eq!(broken.proven.to_byte_array(), proven);
    assert!(!broken.parts.coinbase.is_empty());
}
