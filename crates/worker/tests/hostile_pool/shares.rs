//! A pool credits what it was sent, and not more.

use dovetail_sv2::messages::SubmitSharesSuccess;

use crate::support::claim::Claim;
use crate::support::fixture::BLOCKS_NEVER;
use crate::support::pool::{CHANNEL, settled};
use crate::support::{Fixture, Setup};

#[tokio::test]
async fn no_more_shares_are_accepted_than_were_sent_and_those_without_an_answer_are_told() {
    let fixture = Fixture::start(Setup::alone(BLOCKS_NEVER)).await;
    let mut pool = fixture.session().await;
    let generous = |last_sequence_number| SubmitSharesSuccess {
        channel_id: CHANNEL,
        last_sequence_number,
        new_submits_accepted_count: u32::MAX,
        new_shares_sum: u64::MAX,
    };
    pool.send(&generous(0)).await;
    pool.send(&generous(7)).await;
    settled(&mut pool).await;
    let page = fixture.status().await;
    assert_eq!(page["shares"]["accepted"], 0);
    assert_eq!(page["earned"]["hash_difficulty"], 0);
    let root = fixture.batch(&mut pool).await;
    let mut declarator = fixture.declarator().await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    settled(&mut pool).await;
    assert_eq!(fixture.status().await["shares"]["unanswered"], 1);
    // The channel's target is below difficulty 1.
    pool.send(&generous(claim.share.sequence_number)).await;
    pool.send(&generous(claim.share.sequence_number)).await;
    settled(&mut pool).await;
    let page = fixture.status().await;
    assert_eq!(page["shares"]["accepted"], 1);
    assert_eq!(page["shares"]["unanswered"], 0);
    assert_eq!(page["earned"]["hash_difficulty"], 1);
    fixture.stop().await;
}
