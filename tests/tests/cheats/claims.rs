//! Claims that the share's own coinbase does not bear: the commitment missing, doubled, malformed or
//! in another place, and fields that are no claim.

use bitcoin::script::PushBytesBuf;
use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_commitment::coinbase::commitment_output;
use dovetail_commitment::{BatchRoot, WorkerKey};
use dovetail_sv2::Tlv;
use dovetail_sv2::extension::{CLAIM_FIELD_TYPE, EXTENSION_TYPE, claim_tlv};
use dovetail_sv2::messages::{B064KOwned, B0255Owned};

use crate::fixture::Case;
use crate::scripted_worker::{ScriptedWorker, assert_refused};

/// The claim on a job without the root is refused; then, to show that the root itself is good, it is
/// credited on a job with it.
async fn is_refused(case: &Case, cheat: &mut ScriptedWorker, root: &BatchRoot, code: &str) {
    let job = cheat.job(None).await;
    let verdict = cheat.submit_new(&job, Some(root)).await;
    assert_eq!(verdict.refusal(), code);
    cheat.claim(root).await.credited();
    case.earned_batches(cheat, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_a_declared_job_without_the_commitment() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    is_refused(&case, &mut cheat, &batch.root, "claim-without-commitment").await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_another_batch_than_the_coinbase_commits_to() {
    let (case, mut cheat) = Case::with_worker().await;
    let (first, second) = (case.batch(&mut cheat).await, case.batch(&mut cheat).await);
    let job = cheat.job(Some(&first.root)).await;
    for other in [
        second.root,
        case.bystander_batch().root,
        BatchRoot::from_bytes([1; 32]),
    ] {
        let verdict = cheat.submit_new(&job, Some(&other)).await;
        assert_eq!(verdict.refusal(), "claim-mismatch");
    }
    cheat.submit_new(&job, Some(&first.root)).await.credited();
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_that_is_doubled_malformed_or_worth_something() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let own = cheat.keys.name;
    let op_return = |data: Vec<u8>| TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::new_op_return(PushBytesBuf::try_from(data).unwrap()),
    };
    let good = commitment_output(batch.root);
    let other = commitment_output(case.bystander_batch().root);
    let version_2 = op_return([b"DVTL\x02".as_slice(), batch.root.as_bytes()].concat());
    let short = op_return([b"DVTL\x01".as_slice(), &batch.root.as_bytes()[..31]].concat());
    let second_push = TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from(
            [&[0x6a, 1, 0], &good.script_pubkey.as_bytes()[1..]].concat(),
        ),
    };
    for outputs in [
        vec![good.clone(), good.clone()],
        vec![good.clone(), other],
        vec![good.clone(), version_2.clone()],
        vec![version_2],
        vec![short],
        vec![second_push],
    ] {
        assert_refused(
            cheat
                .declare_as(own, None, |declared| declared.extend(outputs))
                .await,
            "invalid-coinbase-tx",
        );
    }
    let burning = TxOut {
        value: Amount::from_sat(1),
        ..good
    };
    let refused = cheat
        .declare_as(own, None, |declared| declared.push(burning))
        .await
        .err();
    let unpaid = "invalid-job-param-value-coinbase_tx_outputs";
    assert_eq!(refused.as_deref(), Some(unpaid));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commitment_where_none_is_looked_for() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let own = cheat.keys.name;
    let script = commitment_output(batch.root).script_pubkey;
    // In a script that is spendable rather than an OP_RETURN, and behind bytes that are no magic.
    let pushed = ScriptBuf::from(script.as_bytes()[1..].to_vec());
    let late = [&[0x6a, 38, 0], &script.as_bytes()[2..]].concat();
    for script_pubkey in [pushed, ScriptBuf::from(late)] {
        let output = TxOut {
            value: Amount::ZERO,
            script_pubkey,
        };
        let declared = cheat
            .declare_as(own, None, |outputs| outputs.push(output))
            .await;
        let job = cheat.set(&declared.unwrap()).await.unwrap();
        let verdict = cheat.submit_new(&job, Some(&batch.root)).await;
        assert_eq!(verdict.refusal(), "claim-without-commitment");
    }
    is_refused(&case, &mut cheat, &batch.root, "claim-without-commitment").await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_not_the_one_declared() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    // Declared without the root, set with it: in its outputs, or in its script.
    let declared = cheat.declare(None).await.unwrap();
    let mut outputs: Vec<TxOut> =
        bitcoin::consensus::deserialize(&declared.coinbase.outputs).unwrap();
    outputs.push(commitment_output(batch.root));
    let outputs = bitcoin::consensus::serialize(&outputs);
    let set = cheat.set_changed(&declared, |message| {
        message.coinbase_tx_outputs = B064KOwned::new(outputs).unwrap();
    });
    assert_eq!(
        set.await.err().as_deref(),
        Some("invalid-coinbase-tx-outputs")
    );

    let mut cheat = case.again(&cheat.keys).await;
    let declared = cheat.declare(None).await.unwrap();
    let set = cheat.set_changed(&declared, |message| {
        let script = [message.coinbase_prefix.as_bytes(), batch.root.as_bytes()].concat();
        message.coinbase_prefix = B0255Owned::new(script).unwrap();
    });
    assert_eq!(set.await.err().as_deref(), Some("invalid-coinbase-prefix"));
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_no_claim() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    let job = cheat.job(Some(&batch.root)).await;
    let root = batch.root.to_bytes().to_vec();
    let field = |field_type: u8, value: Vec<u8>| Tlv {
        extension_type: EXTENSION_TYPE,
        field_type,
        value,
    };
    for malformed in [
        field(CLAIM_FIELD_TYPE, root[..31].to_vec()),
        field(CLAIM_FIELD_TYPE, [root.clone(), vec![0]].concat()),
        field(CLAIM_FIELD_TYPE, Vec::new()),
        field(CLAIM_FIELD_TYPE + 1, root.clone()),
    ] {
        let share = cheat.hash(&job).await;
        cheat.send_share(&share, &[malformed]).await;
        let refused = cheat.verdict(&share, None).await.refusal();
        assert_eq!(refused, "claim-malformed");
    }
    // The same field twice makes the message malformed, whichever of the two were meant.
    let share = cheat.hash(&job).await;
    let twice = [claim_tlv(&batch.root), field(CLAIM_FIELD_TYPE, vec![1; 32])];
    cheat.send_share(&share, &twice).await;
    cheat.wire.hung_up().await;
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_a_channel_that_earns_for_another_account() {
    let (case, mut cheat, batch) = Case::with_batch().await;
    // A purse that no forfeiture would reach, or somebody else's good name.
    for account in ["purse".to_owned(), case.bystander_key().to_string()] {
        cheat.open_channel_as(&account).await;
        let identity = account.parse().unwrap_or(WorkerKey::from_bytes([2; 32]));
        let declared = cheat.declare_as(identity, Some(&batch.root), |_| ()).await;
        assert_eq!(
            declared.err().as_deref(),
            Some("invalid-batch-commitment"),
            "a root is declared by the worker it belongs to"
        );
    }
    // The declarator is told the key, the channel another account: the job is not the account's.
    let declared = cheat.declare(Some(&batch.root)).await.unwrap();
    assert_refused(cheat.set(&declared).await, "invalid-mining-job-token");
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_of_anothers_batch_on_a_job_in_their_name() {
    let case = Case::start().await;
    let victim = case.bystander_key();
    let theirs = case.bystander_batch().root;
    let mut thief = case.worker().await;
    // Nobody proves to be somebody for a declaration or a channel, only for a registration.
    thief.open_channel_as(&victim.to_string()).await;
    let declared = thief.declare_as(victim, Some(&theirs), |_| ()).await;
    let job = thief.set(&declared.unwrap()).await.unwrap();
    let verdict = thief.submit_new(&job, Some(&theirs)).await;
    assert_eq!(verdict.refusal(), "batch-not-yours");
    case.earned_nothing(&thief);
    case.end().await;
}
