//! Answers to shares, and what they come to: a success never passes a share that may yet be refused,
//! refusals wait for nothing, and neither holds up what is credited.

use std::time::Duration;

use dovetail_commitment::WorkerKey;
use dovetail_sv2::extension::{BatchOutcome, claim_tlv};
use dovetail_sv2::messages::{
    CloseChannel, Str0255Owned, SubmitSharesError, SubmitSharesExtended, SubmitSharesSuccess,
};

use crate::fixture::{BATCH_MSAT, Case};
use crate::scripted_worker::{ScriptedWorker, TIME_MAX, TestBatch, Told, Verdict};

/// Waits until this worker was credited for so many shares that claimed nothing.
async fn wait_for_hash_shares(case: &Case, worker: WorkerKey, count: i64) {
    let sql =
        format!("SELECT count(*) FROM named_shares WHERE account = '{worker}' AND kind = 'hash'");
    let credited = async {
        while case.fixture.number(&sql) < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(TIME_MAX, credited).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_behind_a_claim_are_credited_at_once_and_told_of_after_it() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let job = cheat.job(Some(&batch.root)).await;
    let mut shares = Vec::new();
    for _ in 0..5 {
        shares.push(cheat.hash(&job).await);
    }
    // One that was sent before, under another number.
    shares[4].message = SubmitSharesExtended {
        sequence_number: shares[4].message.sequence_number,
        ..shares[0].message.clone()
    };
    let numbers: Vec<u32> = shares
        .iter()
        .map(|share| share.message.sequence_number)
        .collect();

    // The audit cannot begin: it fixes the batch's sample first.
    let hold = case.hold("SELECT 1 FROM batches FOR UPDATE");
    for (at, share) in shares.iter().enumerate() {
        let claim = (at == 1).then(|| claim_tlv(&batch.root));
        cheat.send_share(share, claim.as_slice()).await;
    }
    wait_for_hash_shares(&case, cheat.keys.name, 3).await;
    let refused: SubmitSharesError = cheat.wire.receive().await;
    assert_eq!(refused.sequence_number, numbers[4]);
    assert_eq!(refused.error_code.as_utf8_or_hex(), "duplicate-share");
    let before: SubmitSharesSuccess = cheat.wire.receive().await;
    assert_eq!(before.last_sequence_number, numbers[0]);
    assert_eq!(before.new_submits_accepted_count, 1);
    case.earned_nothing(&cheat);
    drop(hold);

    let (mut last, mut count) = (before.last_sequence_number, 1);
    while count < 4 {
        let success: SubmitSharesSuccess = cheat.wire.receive().await;
        assert!(success.last_sequence_number > last);
        last = success.last_sequence_number;
        count += success.new_submits_accepted_count;
        // The claim is in it, or was in one before.
        assert!(last >= numbers[1]);
    }
    assert_eq!((last, count), (numbers[3], 4));
    let outcome: BatchOutcome = cheat.wire.receive().await;
    assert!(outcome.accepted);
    let earned = u64::try_from(BATCH_MSAT).unwrap();
    assert_eq!((outcome.credit_msat, outcome.held_msat), (earned, earned));
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_channel_that_is_closed_under_a_claim_only_the_outcome_is_told() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let job = cheat.job(Some(&batch.root)).await;
    let (claim, behind) = (cheat.hash(&job).await, cheat.hash(&job).await);
    let closed = cheat.channel.id;
    let hold = case.hold("SELECT 1 FROM batches FOR UPDATE");
    cheat.send_share(&claim, &[claim_tlv(&batch.root)]).await;
    cheat.send_share(&behind, &[]).await;
    wait_for_hash_shares(&case, cheat.keys.name, 1).await;
    cheat
        .wire
        .send(&CloseChannel {
            channel_id: closed,
            reason_code: Str0255Owned::try_from("done").unwrap(),
        })
        .await;
    let account = cheat.keys.name.to_string();
    cheat.open_channel_as(&account).await;
    drop(hold);
    let outcome: BatchOutcome = cheat.wire.receive().await;
    assert!(outcome.accepted);
    case.earned_batches(&cheat, 1);
    // The next channel begins from nothing.
    let job = cheat.job(None).await;
    let share = cheat.hash(&job).await;
    assert_eq!(cheat.submit(&share, None).await, Verdict::Hashes);
    assert_eq!(cheat.acknowledged(cheat.channel.id).accepted, 1);
    assert_eq!(cheat.acknowledged(closed), Told::default());
    case.end().await;
}

/// A batch of one new task that holds something else than the model's output.
async fn lie(case: &Case, cheat: &mut ScriptedWorker) -> TestBatch {
    let task = case.task(cheat).await;
    let mut output = crate::scripted_worker::honest(&case.models().asked, &task);
    let token = &mut output.tokens[3];
    *token = if *token == 40 { 41 } else { 40 };
    cheat.batch_output(&task, &output).await
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_sums_add_up_over_every_life_of_a_connection() {
    let (case, mut cheat) = Case::with_worker().await;
    let (mut batches, mut worked, mut credited) = (0, 0, 0);
    for life in 0..3 {
        let honest = case.batch(&mut cheat).await;
        let wrong = match life {
            // Worth as much as is held by then, so that it is replayed for certain.
            0 => lie(&case, &mut cheat).await,
            _ => case.batch(&mut cheat).await,
        };
        let (job, other) = (
            cheat.job(Some(&honest.root)).await,
            cheat.job(Some(&wrong.root)).await,
        );
        // Sent without waiting for any answer: good ones, claims, refusals of each kind.
        let mut sent = Vec::new();
        for (job, root) in [
            (&job, None),
            (&job, Some(honest.root)),
            (&job, None),
            (&job, Some(wrong.root)),
            (&job, None),
            (&other, Some(wrong.root)),
            (&other, None),
            (&job, Some(honest.root)),
            (&other, None),
        ] {
            sent.push((cheat.hash(job).await, root));
        }
        let (mut unknown, _) = sent[0].clone();
        unknown.message.job_id = u32::MAX;
        unknown.message.sequence_number = sent[8].0.message.sequence_number + 1;
        sent.push((unknown, None));
        for (share, root) in &sent {
            let claim = root.as_ref().map(claim_tlv);
            cheat.send_share(share, claim.as_slice()).await;
        }
        let mut good = 0;
        for (share, root) in &sent {
            match cheat.verdict(share, root.as_ref()).await {
                Verdict::Hashes => good += 1,
                Verdict::Credited(outcome) => {
                    good += 1;
                    batches += 1;
                    let earned = u64::try_from(BATCH_MSAT).unwrap();
                    let told = (outcome.credit_msat, outcome.held_msat);
                    assert_eq!(told, (earned, batches * earned));
                }
                // All that was held is lost.
                Verdict::Caught(outcome) => {
                    assert_eq!((outcome.credit_msat, outcome.held_msat), (0, 0));
                    batches = 0;
                }
                Verdict::Refused(_) => {}
            }
        }
        // Five without a claim, and one claim of each batch that holds no lie.
        assert_eq!(good, if life == 0 { 6 } else { 7 });
        let told = cheat.acknowledged(cheat.channel.id);
        credited += good as usize;
        case.fixture
            .credited(&cheat.keys.name, &credited.to_string());
        let total = case.fixture.number(&format!(
            "SELECT COALESCE(sum(work), 0)::bigint FROM named_shares WHERE account = '{}'",
            cheat.keys.name
        ));
        let work = (total - std::mem::replace(&mut worked, total)) >> 32;
        assert_eq!(told.accepted, good);
        assert_eq!(i64::try_from(told.difficulty).unwrap(), work);
        cheat = case.renewed(cheat).await;
    }
    assert_eq!(credited, 6 + 7 + 7);
    case.end().await;
}
