//! What a miner may declare, over the wire: the tokens, the checks with their codes, and the block
//! of a declared job.

#![allow(clippy::unwrap_used)]

mod test_support;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::bip32::Xpub;
use bitcoin::consensus::deserialize;
use bitcoin::{Amount, Network, NetworkKind, ScriptBuf, TxOut};
use dovetail_commitment::BatchRoot;
use dovetail_commitment::coinbase::commitment_output;
use dovetail_jd::config::Limits;
use dovetail_jd::token::{JobToken, TokenKind, coinbase_only_content, declared_content};
use dovetail_sv2::messages::AllocateMiningJobTokenSuccess;
use dovetail_templates::{Payout, PayoutKeys};
use dovetail_units::time::unix_now;
use test_support::{Fixture, Job, Miner, Setting, TIME_MAX, payout, payout_script, spend};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_accepted_and_its_token_vouches_for_what_the_ledger_keeps() {
    let fixture = Fixture::start(Setting::default()).await;
    let mut miner = fixture.miner().await;
    let job = Job::of(fixture.work());
    let token = miner.declare("alice.rig1", &job).await.unwrap();
    let kept = fixture.ledger.declared_job(&token).await.unwrap().unwrap();
    assert_eq!(kept.identity, "alice");
    assert_eq!(kept.prev_hash, job.work.prev_hash());
    assert_eq!(kept.nbits, job.work.nbits());
    assert_eq!(kept.pool_value_sat, job.work.coinbase_value_remaining_sat());
    let read = JobToken::parse(&token).unwrap();
    assert_eq!(read.kind, TokenKind::Declared);
    let content = declared_content(&kept, &payout());
    let key = &fixture.token_key;
    assert_eq!(key.verify(&read, "alice", &content, unix_now()), Ok(()));
    assert!(key.verify(&read, "bob", &content, unix_now()).is_err());
    // Whoever can write to the database cannot make the pool take another job under the token.
    fixture.query("UPDATE declared_jobs SET pool_value_sat = pool_value_sat + 1");
    let changed = fixture.ledger.declared_job(&token).await.unwrap().unwrap();
    let content = declared_content(&changed, &payout());
    assert!(key.verify(&read, "alice", &content, unix_now()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_and_on_its_own_connection() {
    let fixture = Fixture::start(Setting::default()).await;
    let (mut alice, mut bob) = (fixture.miner().await, fixture.miner().await);
    let job = Job::of(fixture.work());
    let token = alice.token("alice").await;
    let refused = Err("invalid-mining-job-token".to_owned());
    assert_eq!(bob.declare_with(&token, &job).await, refused);
    let declared = alice.declare_with(&token, &job).await.unwrap();
    assert_eq!(alice.declare_with(&token, &job).await, refused);
    // The token of a declared job declares no other.
    assert_eq!(alice.declare_with(&declared, &job).await, refused);
}

type Change = Box<dyn Fn(&mut Job)>;

/// What breaks a rule, with the code of the refusal.
fn broken_rules() -> Vec<(&'static str, Change)> {
    let other_script = ScriptBuf::from(vec![0x52]);
    let root = commitment_output(BatchRoot::from_bytes([3; 32]));
    let (first, second) = (spend(0), spend(1));
    vec![
        (
            "invalid-job-param-value-coinbase_tx_outputs",
            Box::new(move |job| job.coinbase.output[0].script_pubkey = other_script.clone()),
        ),
        (
            "invalid-job-param-value-coinbase_tx_outputs",
            Box::new(|job| job.coinbase.output[0].value = Amount::ZERO),
        ),
        // More than subsidy and fees: the node's judgement.
        (
            "invalid-job",
            Box::new(|job| job.coinbase.output[0].value += Amount::from_sat(1)),
        ),
        // The witness commitment is missing.
        (
            "invalid-job",
            Box::new(|job| drop(job.coinbase.output.pop())),
        ),
        (
            "invalid-coinbase-tx",
            Box::new(|job| job.coinbase.input[0].previous_output.vout = 0),
        ),
        (
            "stale-chain-tip",
            Box::new(|job| {
                let script = job.coinbase.input[0].script_sig.to_bytes();
                // OP_1 is the first height.
                let other = [&[0x55], &script[1..]].concat();
                job.coinbase.input[0].script_sig = other.into();
            }),
        ),
        (
            "invalid-job-param-value-version",
            Box::new(|job| job.version = 3),
        ),
        (
            "invalid-batch-commitment",
            Box::new({
                let root = root.clone();
                move |job| job.coinbase.output.push(root.clone())
            }),
        ),
        (
            "invalid-coinbase-tx",
            Box::new(move |job| job.coinbase.output.extend([root.clone(), root.clone()])),
        ),
        (
            "invalid-job-param-value-wtxid_list",
            Box::new(move |job| job.transactions = vec![first.clone(), first.clone()]),
        ),
        // The embedded chain knows no outputs to spend.
        (
            "invalid-job",
            Box::new(move |job| job.transactions = vec![second.clone()]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_that_a_job_breaks_has_its_code() {
    let fixture = Fixture::start(Setting::default()).await;
    let mut miner = fixture.miner().await;
    for (number, (code, change)) in broken_rules().into_iter().enumerate() {
        let mut job = Job::of(fixture.work());
        change(&mut job);
        let outcome = miner.declare("alice", &job).await;
        assert_eq!(outcome, Err(code.to_owned()), "case {number}");
    }
    // After all that the same connection declares a good one.
    let good = Job::of(fixture.work());
    miner.declare("alice", &good).await.unwrap();
    // Outputs without value may be added, in any order.
    let mut more = Job::of(fixture.work());
    more.coinbase.output.insert(
        0,
        TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new_op_return([1; 8]),
        },
    );
    miner.declare("alice", &more).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_other_than_those_declared_are_refused_and_none_is_asked_for_twice() {
    let fixture = Fixture::start(Setting::default()).await;
    let mut miner = fixture.miner().await;
    let mut job = Job::of(fixture.work());
    job.transactions = vec![spend(0), spend(1)];
    let token = miner.token("alice").await;
    let request_id = miner.request_id();
    miner.send(&job.message(request_id, &token)).await;
    // Another list, in the right number.
    let mut other = job.clone();
    other.transactions = vec![spend(0), spend(2)];
    let outcome = miner.outcome(request_id, &other).await;
    assert_eq!(outcome, Err("missing-txs".to_owned()));
    // Answers to nothing are passed over.
    let job = Job::of(fixture.work());
    miner.declare("alice", &job).await.unwrap();
}

/// A script for each height. The key is of BIP 32's first test vector.
fn ranged() -> Payout {
    let xpub = "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8";
    let mut key: Xpub = xpub.parse().unwrap();
    key.network = NetworkKind::Test;
    let descriptor = format!("wpkh({key}/0/*)");
    Payout::parse(PayoutKeys {
        section: "declaration",
        network: Network::Regtest,
        address: Some(&descriptor),
        script: None,
        first_height: None,
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_range_a_job_pays_the_script_of_its_height_or_of_its_older_token() {
    let payout = ranged();
    let setting = Setting {
        payout: payout.clone(),
        ..Setting::default()
    };
    let fixture = Fixture::start(setting).await;
    let mut miner = fixture.miner().await;
    miner.ask_for_token("alice").await;
    let given: AllocateMiningJobTokenSuccess = miner.receive().await;
    let outputs: Vec<TxOut> = deserialize(given.coinbase_outputs.as_bytes()).unwrap();
    let work = fixture.work();
    assert_eq!(outputs[0].script_pubkey, payout.at(work.height()));
    // The chain goes on, and the token's script is that of the block before.
    let mut job = Job::of(Arc::clone(&work));
    job.coinbase.output[0].script_pubkey = payout.at(work.height());
    let declared = miner.declare("alice", &job).await.unwrap();
    assert!(!declared.is_empty());
    for (height, is_taken) in [
        (work.height().saturating_sub(1), true),
        (work.height() + 1, false),
    ] {
        job.coinbase.output[0].script_pubkey = payout.at(height);
        let declared = miner.declare("alice", &job).await;
        assert_eq!(declared.is_ok(), is_taken, "{height}");
    }
    job.coinbase.output[0].script_pubkey = payout_script();
    let refused = miner.declare("alice", &job).await;
    assert_eq!(
        refused,
        Err("invalid-job-param-value-coinbase_tx_outputs".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn coinbase_only_mode_gives_tokens_for_the_pool_and_takes_no_declarations() {
    let fixture = Fixture::start(Setting::default()).await;
    let mut miner = fixture.coinbase_only_miner().await;
    let token = miner.token("alice.rig").await;
    let read = JobToken::parse(&token).unwrap();
    assert_eq!(read.kind, TokenKind::CoinbaseOnly);
    let content = coinbase_only_content(&payout());
    let verified = fixture
        .token_key
        .verify(&read, "alice", &content, unix_now());
    assert_eq!(verified, Ok(()));
    let job = Job::of(fixture.work());
    let refused = miner.declare_with(&token, &job).await;
    assert_eq!(refused, Err("declare-tx-data-not-set".to_owned()));

    let strict = Fixture::start(Setting {
        coinbase_only: false,
        ..Setting::default()
    })
    .await;
    let refused = Miner::try_open(&strict, 0).await.err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("missing-declare-tx-data-flag"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_too_many_tokens_is_dropped_and_a_crowd_waits() {
    let fixture = Fixture::start(Setting {
        limits: Limits {
            tokens_per_minute: 5,
            tokens_per_minute_total: 8,
            ..Limits::default()
        },
        ..Setting::default()
    })
    .await;
    let mut greedy = fixture.miner().await;
    for _ in 0..5 {
        greedy.token("greedy").await;
    }
    greedy.ask_for_token("greedy").await;
    greedy.hung_up().await;
    let mut other = fixture.miner().await;
    for _ in 0..3 {
        other.token("other").await;
    }
    // All eight of this minute are gone: the next answer waits, and the connection lives.
    other.ask_for_token("other").await;
    let answer = timeout(
        Duration::from_millis(500),
        other.receive::<AllocateMiningJobTokenSuccess>(),
    );
    assert!(answer.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_solution_becomes_a_block_here() {
    let fixture = Fixture::start(Setting::default()).await;
    let mut miner = fixture.miner().await;
    let older = Job::of(fixture.work());
    miner.declare("alice", &older).await.unwrap();
    let mut newer = older.clone();
    newer.coinbase.output[0].value -= Amount::from_sat(1);
    miner.declare("alice", &newer).await.unwrap();
    // Of a job that was not declared, of another tip, with another target: nothing happens.
    let mut undeclared = newer.clone();
    undeclared.coinbase.output[0].value -= Amount::from_sat(1);
    let mut elsewhere = newer.solve();
    elsewhere.prev_hash = [1; 32].into();
    let mut easier = newer.solve();
    easier.nbits = 0x2100_ffff;
    for junk in [undeclared.solve(), elsewhere, easier] {
        miner.send(&junk).await;
    }
    // The message does not say which job it solves; it is the older one. Then the miner is gone.
    miner.send(&older.solve()).await;
    drop(miner);
    let mut work = fixture.templates.subscribe();
    let next = work.wait_for(|work| {
        work.as_ref()
            .is_some_and(|work| work.height() == older.work.height() + 1)
    });
    timeout(TIME_MAX, next).await.unwrap().unwrap();
}
