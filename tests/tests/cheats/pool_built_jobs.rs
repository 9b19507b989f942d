//! Jobs that the pool builds for workers without a node: only for a batch that the worker may claim.

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::NewExtendedMiningJob;

use crate::fixture::Case;
use crate::scripted_worker::assert_refused;

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_a_job_of_the_pools_that_carries_no_batch() {
    let (case, mut cheat) = Case::with_worker().await;
    let job: NewExtendedMiningJob = cheat.wire.receive().await;
    let job = cheat.given(&job);
    let batch = case.batch(&mut cheat).await;
    let verdict = cheat.submit_new(&job, Some(&batch.root)).await;
    assert_eq!(verdict.refusal(), "claim-without-commitment");
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_another_batch_than_the_pool_built_the_job_for() {
    let (case, mut cheat) = Case::with_worker().await;
    let (first, second) = (case.batch(&mut cheat).await, case.batch(&mut cheat).await);
    let job = cheat.pool_job(first.root).await.unwrap();
    for other in [second.root, case.bystander_batch().root] {
        let verdict = cheat.submit_new(&job, Some(&other)).await;
        assert_eq!(verdict.refusal(), "claim-mismatch");
    }
    cheat.submit_new(&job, Some(&first.root)).await.credited();
    // Spent, on its own job and on any further one.
    let verdict = cheat.submit_new(&job, Some(&first.root)).await;
    assert_eq!(verdict.refusal(), "batch-spent");
    assert_refused(cheat.pool_job(first.root).await, "batch-spent");
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_a_batch_that_is_not_ones_own_or_on_a_channel_that_is_not() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let unknown = BatchRoot::from_bytes([9; 32]);
    assert_refused(cheat.pool_job(unknown).await, "batch-unknown");
    let theirs = case.bystander_batch().root;
    assert_refused(cheat.pool_job(theirs).await, "batch-not-yours");

    let own = cheat.channel.clone();
    cheat.channel.id = 99;
    assert_refused(cheat.pool_job(batch.root).await, "channel-unknown");
    // A purse that no forfeiture would reach.
    cheat.channel = own;
    cheat.open_channel_as("purse").await;
    assert_refused(cheat.pool_job(batch.root).await, "batch-not-yours");

    let mut nobody = case.unregistered(&cheat.keys).await;
    assert_refused(nobody.pool_job(batch.root).await, "not-registered");
    case.earned_nothing(&cheat);
    case.end().await;
}
