//! Jobs that the pool builds for workers without a node: only for a batch that the worker may claim.

use dovetail_commitment::BatchRoot;
use dovetail_sv2::messages::NewExtendedMiningJob;

use crate::arena::Case;

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_a_job_of_the_pools_that_carries_no_batch() {
    let case = Case::start().await;
    let mut cheat = case.worker().await;
    let job: NewExtendedMiningJob = cheat.wire.receive().await;
    let job = cheat.given(&job);
    let batch = case.batch(&mut cheat).await;
    let share = cheat.hash(&job).await;
    let refused = cheat.submit(&share, Some(&batch.root)).await.refusal();
    assert_eq!(refused, "claim-without-commitment");
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_another_batch_than_the_pool_built_the_job_for() {
    let case = Case::start().await;
    let mut cheat = case.worker().await;
    let (first, second) = (case.batch(&mut cheat).await, case.batch(&mut cheat).await);
    let job = cheat.pool_job(first.root).await.unwrap();
    for other in [second.root, case.bystander_batch().root] {
        let share = cheat.hash(&job).await;
        let refused = cheat.submit(&share, Some(&other)).await.refusal();
        assert_eq!(refused, "claim-mismatch");
    }
    let share = cheat.hash(&job).await;
    cheat.submit(&share, Some(&first.root)).await.credited();
    // Spent, on its own job and on any further one.
    let share = cheat.hash(&job).await;
    let refused = cheat.submit(&share, Some(&first.root)).await.refusal();
    assert_eq!(refused, "batch-spent");
    let refused = cheat.pool_job(first.root).await.err();
    assert_eq!(refused.as_deref(), Some("batch-spent"));
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_a_batch_that_is_not_ones_own_or_on_a_channel_that_is_not() {
    let case = Case::start().await;
    let mut cheat = case.worker().await;
    let batch = case.batch(&mut cheat).await;
    let refused = cheat.pool_job(BatchRoot::from_bytes([9; 32])).await.err();
    assert_eq!(refused.as_deref(), Some("batch-unknown"));
    let theirs = case.bystander_batch().root;
    let refused = cheat.pool_job(theirs).await.err();
    assert_eq!(refused.as_deref(), Some("batch-not-yours"));

    let own = cheat.channel.clone();
    cheat.channel.id = 99;
    let refused = cheat.pool_job(batch.root).await.err();
    assert_eq!(refused.as_deref(), Some("channel-unknown"));
    // A purse that no forfeiture would reach.
    cheat.channel = own;
    cheat.open_channel_as("purse").await;
    let refused = cheat.pool_job(batch.root).await.err();
    assert_eq!(refused.as_deref(), Some("batch-not-yours"));

    let mut nobody = case.unregistered(&cheat.keys).await;
    let refused = nobody.pool_job(batch.root).await.err();
    assert_eq!(refused.as_deref(), Some("not-registered"));
    case.earned_nothing(&cheat);
    case.end().await;
}
