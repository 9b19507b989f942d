//! Messages that cost a pool nothing cost the worker little, and are not listened to without end.

use dovetail_commitment::{BatchRoot, HeaderHash, ModelId, TaskId};
use dovetail_sv2::extension::{
    CancelTask, DeliverTranscriptSuccess, PayoutResult, RegisterBatchSuccess,
};
use dovetail_sv2::{Frame, Message};

use crate::support::claim::passed;
use crate::support::fixture::BLOCKS_NEVER;
use crate::support::pool::{hung_up, settled, task};
use crate::support::{Fixture, Played, Setup};
use crate::{resident, status};

/// Useless messages of a minute that end a session.
const USELESS_MAX: usize = 600;
/// What a session with a flooding pool may cost, whatever the pool sends.
const MEMORY_MAX: u64 = 64 << 20;

/// Sends the message more often than anybody has a reason to. The worker may hang up before the end.
async fn flood(pool: &mut Played, message: &impl Message) {
    let frame = Frame::new(message).unwrap();
    for _ in 0..200_000 {
        if pool.writer.write(&frame).await.is_err() {
            return;
        }
    }
}

/// The worker hangs up on a pool that sends this again and again.
async fn is_cut_off(message: &impl Message) {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    flood(&mut pool, message).await;
    hung_up(&mut pool).await;
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_talks_without_end_is_hung_up_on() {
    let (task_id, payout_id) = (TaskId::from_bytes([1; 32]), [1; 32]);
    let before = resident();
    is_cut_off(&CancelTask { task_id }).await;
    is_cut_off(&DeliverTranscriptSuccess { task_id }).await;
    is_cut_off(&RegisterBatchSuccess { request_id: 1 }).await;
    let paid = true;
    is_cut_off(&PayoutResult { payout_id, paid }).await;
    let (root, header_hash) = (
        BatchRoot::from_bytes([1; 32]),
        HeaderHash::from_bytes([2; 32]),
    );
    is_cut_off(&passed(root, header_hash)).await;
    is_cut_off(&task(ModelId::from_bytes([9; 32]), 1)).await;
    let cost = resident().saturating_sub(before);
    assert!(cost < MEMORY_MAX, "{cost} B");
}

#[tokio::test]
async fn a_pool_that_talks_a_little_too_much_is_listened_to() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    let task_id = TaskId::from_bytes([1; 32]);
    for _ in 0..USELESS_MAX / 2 {
        pool.send(&CancelTask { task_id }).await;
    }
    settled(&mut pool).await;
    let page = status(&fixture, |page| page["upstream"]["kind"] == "pool").await;
    assert_eq!(page["upstream"]["address"], fixture.pool.address);
    fixture.stop().await;
}
