//! Work that is done for a pool is not lost silently, and not done for nothing without end.

use dovetail_commitment::{Batch, EncodedPrompt, LeafHash, PROMPT_TOKENS_MAX};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{AssignTask, DeliverTranscriptSuccess, StreamTokens};

use crate::support::claim::Claim;
use crate::support::fixture::BLOCKS_NEVER;
use crate::support::pool::{accept_batch, batch_of, next, refusal, settled, task};
use crate::support::{Fixture, Setup};
use crate::{impatient, status};

#[tokio::test]
async fn a_task_that_still_waits_for_its_claim_is_not_taken_again() {
    let fixture = Fixture::start(impatient()).await;
    let mut pool = fixture.session().await;
    let again = task(fixture.model_id, 1);
    // It waits to be accepted.
    let transcript = fixture.transcript(&mut pool, 1).await;
    let busy = Code::TooManyTasks;
    assert_eq!(refusal(&mut pool, &again).await, busy.as_str());
    // It is being claimed.
    let root = accept_batch(&mut pool, &transcript).await;
    let mut declarator = fixture.declarator().await;
    assert_eq!(refusal(&mut pool, &again).await, busy.as_str());
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    assert_eq!(refusal(&mut pool, &again).await, busy.as_str());
    // It waits to be claimed again, and is.
    claim.refuse(&mut pool, Code::Internal.as_str()).await;
    assert_eq!(refusal(&mut pool, &again).await, busy.as_str());
    batch_of(&mut pool, root).await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    claim.accept(&mut pool).await;
    pool.send(&claim.passed()).await;
    status(&fixture, |page| page["earned"]["inference_batches"] == 1).await;
    // Now it is done with.
    fixture.transcript(&mut pool, 1).await;
    fixture.stop().await;
}

#[tokio::test]
async fn tokens_that_the_model_cannot_take_in_are_refused_and_the_session_goes_on() {
    let fixture = Fixture::start(impatient()).await;
    let mut pool = fixture.session().await;
    let of = |number: u8, tokens: Vec<u32>| AssignTask {
        prompt: EncodedPrompt::new(b"hello", tokens).unwrap(),
        ..task(fixture.model_id, number)
    };
    // The byte tokenizer has 258 tokens.
    for token in [258, u32::MAX] {
        let lacking = of(1, vec![256, 104, token]);
        let code = refusal(&mut pool, &lacking).await;
        assert_eq!(code, Code::PromptInvalid.as_str());
    }
    let longest = of(2, vec![104; PROMPT_TOKENS_MAX]);
    let code = refusal(&mut pool, &longest).await;
    assert_eq!(code, Code::PromptTooLong.as_str());
    fixture.transcript(&mut pool, 3).await;
    fixture.stop().await;
}

#[tokio::test]
async fn all_that_was_finished_is_claimed_though_the_pool_gave_a_task_twice() {
    let fixture = Fixture::start(impatient()).await;
    let mut pool = fixture.session().await;
    let mut leaves: Vec<LeafHash> = Vec::new();
    for number in 1..=3 {
        leaves.push(fixture.transcript(&mut pool, number).await.leaf());
    }
    refusal(&mut pool, &task(fixture.model_id, 2)).await;
    let ids = [1, 2, 3].map(|number| task(fixture.model_id, number).task_id);
    for task_id in [ids[1], ids[1], ids[0], ids[2]] {
        pool.send(&DeliverTranscriptSuccess { task_id }).await;
    }
    let mut claimed = Vec::new();
    while claimed.len() < 3 {
        let batch = next::<dovetail_sv2::extension::RegisterBatch>(&mut pool).await;
        let its_leaves = batch.task_ids.iter().map(|id| {
            let place = ids.iter().position(|known| known == id);
            leaves[place.unwrap()]
        });
        let root = Batch::new(its_leaves.collect()).unwrap().root();
        assert_eq!(batch.root, root);
        claimed.extend(batch.task_ids.clone());
        pool.send(&dovetail_sv2::extension::RegisterBatchError {
            request_id: batch.request_id,
            code: Code::BatchSpent.to_string(),
        })
        .await;
    }
    claimed.sort_unstable();
    assert_eq!(claimed, ids);
    fixture.stop().await;
}

#[tokio::test]
async fn a_pool_that_owes_too_much_gets_no_work_until_it_has_paid_up() {
    let setup = Setup {
        worker: "uncredited_tokens_max = 20\nuncredited_after_s = 1\n".to_owned(),
        ..impatient()
    };
    let fixture = Fixture::start(setup).await;
    let mut pool = fixture.session().await;
    let mut transcripts = Vec::new();
    for number in [1, 2] {
        transcripts.push(fixture.transcript(&mut pool, number).await);
    }
    // It has taken 24 tokens and accepted nothing.
    let page = status(&fixture, |page| page["pools"][0]["tokens_overdue"] == 24).await;
    assert_eq!(page["pools"][0]["tokens_generated"], 24);
    assert_eq!(page["pools"][0]["tokens_credited"], 0);
    assert_eq!(page["pools"][0]["gets_work"], false);
    let third = task(fixture.model_id, 3);
    let refused = refusal(&mut pool, &third).await;
    assert_eq!(refused, Code::TooManyTasks.as_str());
    // It credits one batch.
    let root = accept_batch(&mut pool, &transcripts[0]).await;
    let mut declarator = fixture.declarator().await;
    let claim = Claim::take(&mut pool, &mut declarator, root).await;
    claim.accept(&mut pool).await;
    pool.send(&claim.passed()).await;
    let page = status(&fixture, |page| page["pools"][0]["gets_work"] == true).await;
    assert_eq!(page["pools"][0]["tokens_credited"], 12);
    settled(&mut pool).await;
    pool.send(&third).await;
    let chunk: StreamTokens = next(&mut pool).await;
    assert_eq!(chunk.task_id, third.task_id);
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_not_credited_yet_is_no_reason_before_its_time() {
    let setup = Setup {
        worker: "uncredited_tokens_max = 20\nuncredited_after_s = 3600\n".to_owned(),
        ..Setup::alone(BLOCKS_NEVER)
    };
    let fixture = Fixture::start(setup).await;
    let mut pool = fixture.session().await;
    for number in 1..=4 {
        fixture.transcript(&mut pool, number).await;
    }
    let page = fixture.status().await;
    assert_eq!(page["pools"][0]["tokens_overdue"], 0);
    fixture.stop().await;
}
