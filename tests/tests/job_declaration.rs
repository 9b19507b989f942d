//! Jobs that miners declare, at the pool: both modes, what the pool insists on, and restarts of
//! either daemon in between.

#![allow(clippy::unwrap_used)]

mod declaration;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, TxOut};
use declaration::{DeclaratorClient, Job, Mining, TIME_MAX, Token};
use dovetail_sv2::messages::SetCustomMiningJob;
use dovetail_templates::{SourceConfig, TemplateHandle, WorkSnapshot};
use dovetail_tests::scenario::{Options, Scenario};
use tokio_util::sync::CancellationToken;

/// A pool without workers, and its templates as a miner's own node would give them.
struct Fixture {
    scenario: Scenario,
    _dir: tempfile::TempDir,
    templates: TemplateHandle,
    stop: CancellationToken,
}

impl Fixture {
    fn start() -> Self {
        let options = Options {
            worker: false,
            hasher: false,
            ..Options::default()
        };
        let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
        let stop = CancellationToken::new();
        let source =
            SourceConfig::template_provider(scenario.network.template_provider().unwrap(), None);
        Self {
            templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            scenario,
            _dir: dir,
            stop,
        }
    }

    async fn work(&self) -> Arc<WorkSnapshot> {
        let mut work = self.templates.subscribe();
        let work = work.wait_for(Option::is_some).await.unwrap();
        work.clone().unwrap()
    }

    async fn job(
        &self,
        token: &Token,
        mining: &Mining,
        change: impl FnOnce(&mut Vec<TxOut>),
    ) -> Job {
        Job::new(
            self.work().await,
            Vec::new(),
            token,
            &mining.channel,
            change,
        )
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn hash_and_submit(mining: &mut Mining, job_id: u32, job: &Job) {
    let found = job.search_share(&mining.channel).await;
    mining.submit(job_id, job, &found).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_job_earns_at_the_pool_and_outlives_restarts_of_both_daemons() {
    let mut fixture = Fixture::start();
    let mut declarator = DeclaratorClient::full_template(&fixture.scenario.declaration).await;
    let mining = Mining::open(&fixture.scenario.mining, "alice.rig1").await;
    let token = declarator.token("alice.rig2").await;
    let job = fixture.job(&token, &mining, |_| {}).await;
    let job_token = declarator.declare(&token, &job).await.unwrap();
    drop((declarator, mining));
    fixture.scenario.declarator.stop();
    fixture.scenario.restart_pool().unwrap();

    let mut mining = Mining::open(&fixture.scenario.mining, "alice.rig1").await;
    // The new channel's extranonce has the same length, so the declared coinbase stands.
    let message = job.custom(&mining.channel, &job_token);
    let job_id = mining.set_custom_job(&message).await.unwrap();
    hash_and_submit(&mut mining, job_id, &job).await;
    let shares = "SELECT count(*) FROM named_shares WHERE account = 'alice'";
    fixture.scenario.query_until(shares, "1").unwrap();
    // Once is enough, also after another restart.
    let again = mining.set_custom_job(&message).await;
    assert_eq!(again, Err("invalid-mining-job-token".to_owned()));
    fixture.scenario.restart_pool().unwrap();
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let again = mining.set_custom_job(&message).await;
    assert_eq!(again, Err("invalid-mining-job-token".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_job_must_be_the_declared_one_field_by_field() {
    let fixture = Fixture::start();
    let mut declarator = DeclaratorClient::full_template(&fixture.scenario.declaration).await;
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let token = declarator.token("alice").await;
    let job = fixture.job(&token, &mining, |_| {}).await;
    let declared = declarator.declare(&token, &job).await.unwrap();
    let good = job.custom(&mining.channel, &declared);
    type Change = fn(&mut SetCustomMiningJob);
    let cases: [(&str, Change); 13] = [
        ("invalid-mining-job-token", |m| {
            let mut token = m.token.to_owned_bytes();
            *token.last_mut().unwrap() ^= 1;
            m.token = token.try_into().unwrap();
        }),
        ("invalid-mining-job-token", |m| {
            m.token = vec![1; 32].try_into().unwrap();
        }),
        ("stale-chain-tip", |m| m.prev_hash = [1; 32].into()),
        ("invalid-nbits", |m| m.nbits += 1),
        ("invalid-min-ntime", |m| m.min_ntime -= 3_600),
        ("invalid-min-ntime", |m| m.min_ntime += 3_600),
        ("invalid-version", |m| m.version |= 1),
        ("invalid-coinbase-tx-version", |m| {
            m.coinbase_tx_version += 1
        }),
        ("invalid-coinbase-prefix", |m| {
            m.coinbase_prefix = vec![0x51; 3].try_into().unwrap();
        }),
        ("invalid-coinbase-tx-input-n-sequence", |m| {
            m.coinbase_tx_input_n_sequence -= 1;
        }),
        ("invalid-coinbase-tx-outputs", |m| {
            m.coinbase_tx_outputs = vec![1].try_into().unwrap();
        }),
        ("invalid-coinbase-tx-locktime", |m| {
            m.coinbase_tx_locktime += 1
        }),
        ("invalid-merkle-path", |m| {
            m.merkle_path = vec![[1; 32].into()].try_into().unwrap();
        }),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let mut message = good.clone();
        change(&mut message);
        let refused = mining.set_custom_job(&message).await;
        assert_eq!(refused, Err(code.to_owned()), "case {number}");
    }
    // Somebody else's token is void, too.
    let mut mallory = Mining::open(&fixture.scenario.mining, "mallory").await;
    let refused = mallory
        .set_custom_job(&job.custom(&mallory.channel, &declared))
        .await;
    assert_eq!(refused, Err("invalid-mining-job-token".to_owned()));
    // None of it has spent the token.
    let job_id = mining.set_custom_job(&good).await.unwrap();
    hash_and_submit(&mut mining, job_id, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coinbase_only_jobs_are_taken_and_checked_at_the_pool() {
    let mut fixture = Fixture::start();
    let mut declarator = DeclaratorClient::coinbase_only(&fixture.scenario.declaration).await;
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let other = TxOut {
        value: Amount::from_sat(1),
        script_pubkey: bitcoin::ScriptBuf::from(vec![0x52]),
    };
    let two = |outputs: &mut Vec<TxOut>| {
        let root = dovetail_commitment::BatchRoot::from_bytes([3; 32]);
        outputs.push(dovetail_commitment::coinbase::commitment_output(root));
    };
    type Change = Box<dyn FnOnce(&mut Vec<TxOut>)>;
    let cases: [Change; 5] = [
        // Somebody else is paid, nobody is, more than any block could pay, a batch of nobody's.
        Box::new(move |outputs| outputs.push(other)),
        Box::new(|outputs| outputs[0].value = Amount::ZERO),
        Box::new(|outputs| outputs[0].value += Amount::from_sat(50_000_001)),
        Box::new(two),
        Box::new(move |outputs| {
            two(outputs);
            two(outputs);
        }),
    ];
    let token = declarator.token("alice").await;
    for change in cases {
        let job = fixture.job(&token, &mining, change).await;
        let message = job.custom(&mining.channel, &token.bytes);
        let refused = mining.set_custom_job(&message).await;
        assert_eq!(refused, Err("invalid-coinbase-tx-outputs".to_owned()));
    }
    let job = fixture.job(&token, &mining, |_| {}).await;
    let good = job.custom(&mining.channel, &token.bytes);
    let mut wrong_height = good.clone();
    wrong_height.coinbase_prefix = vec![0x60, 0x51].try_into().unwrap();
    let mut long_path = good.clone();
    long_path.merkle_path = vec![[1; 32].into(); 15].try_into().unwrap();
    let mut locked = good.clone();
    locked.coinbase_tx_locktime = job.work.height();
    for (message, code) in [
        (wrong_height, "invalid-coinbase-prefix"),
        (long_path, "invalid-merkle-path"),
        (locked, "invalid-coinbase-tx-locktime"),
    ] {
        let refused = mining.set_custom_job(&message).await;
        assert_eq!(refused, Err(code.to_owned()));
    }
    // The token is for alice alone, and no restart of the pool or the declarator voids it.
    let mut mallory = Mining::open(&fixture.scenario.mining, "mallory").await;
    let refused = mallory
        .set_custom_job(&job.custom(&mallory.channel, &token.bytes))
        .await;
    assert_eq!(refused, Err("invalid-mining-job-token".to_owned()));
    fixture.scenario.declarator.stop();
    fixture.scenario.restart_pool().unwrap();
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    // The pool that is only just back may hear of the tip later than the miner, or a block may come first.
    let (job_id, job, message) = loop {
        let job = fixture.job(&token, &mining, |_| {}).await;
        let message = job.custom(&mining.channel, &token.bytes);
        match mining.set_custom_job(&message).await {
            Ok(job_id) => break (job_id, job, message),
            Err(code) if code == "stale-chain-tip" => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(code) => panic!("the pool refused the job: {code}"),
        }
    };
    hash_and_submit(&mut mining, job_id, &job).await;
    let again = mining.set_custom_job(&message).await;
    assert_eq!(again, Err("invalid-mining-job-token".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declaring_miner_keeps_its_earlier_jobs() {
    let fixture = Fixture::start();
    let mut declarator = DeclaratorClient::full_template(&fixture.scenario.declaration).await;
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let mut jobs = Vec::new();
    for change in 0..3 {
        let token = declarator.token("alice").await;
        let job = fixture
            .job(&token, &mining, |outputs| {
                outputs[0].value -= Amount::from_sat(change);
            })
            .await;
        let declared = declarator.declare(&token, &job).await.unwrap();
        // Each starts a second later than the one before.
        let mut message = job.custom(&mining.channel, &declared);
        message.min_ntime += u32::try_from(change).unwrap();
        jobs.push((mining.set_custom_job(&message).await.unwrap(), job));
    }
    for (job_id, job) in jobs {
        hash_and_submit(&mut mining, job_id, &job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_job_that_the_pool_has_forgotten_earns_nothing() {
    let fixture = Fixture::start();
    let mut declarator = DeclaratorClient::full_template(&fixture.scenario.declaration).await;
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let mut jobs = Vec::new();
    // The pool remembers sixteen, with what each of them pays.
    for change in 0..17 {
        let token = declarator.token("alice").await;
        let job = fixture
            .job(&token, &mining, |outputs| {
                outputs[0].value = Amount::from_sat(1 + change);
            })
            .await;
        let declared = declarator.declare(&token, &job).await.unwrap();
        let message = job.custom(&mining.channel, &declared);
        jobs.push((mining.set_custom_job(&message).await.unwrap(), job));
    }
    let (job_id, job) = jobs.first().unwrap();
    let found = job.search_share(&mining.channel).await;
    let refused = mining.submit(*job_id, job, &found).await;
    assert_eq!(refused, Err("stale-share".to_owned()));
    let (job_id, job) = jobs.last().unwrap();
    hash_and_submit(&mut mining, *job_id, job).await;
}

#[test]
fn a_worker_declares_at_a_declarator_inside_the_pool() {
    let options = Options {
        hasher: false,
        embedded_declarator: true,
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let answer = scenario.ask("a prompt", 16, "receipt.json", &[]).unwrap();
    assert_eq!(answer["receipt"]["verified"], true);
    scenario.pool.event("batch_settled", TIME_MAX).unwrap();
    assert!(scenario.pool.log().contains("job declared"));
    assert!(!scenario.declarator.log().contains("job declared"));
}
