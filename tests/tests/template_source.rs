//! What a template source may say and do, and what of it reaches miners: a target or a time that changes on the same
//! tip, a tip that is hours old, a template that nothing can be made of, and its absence.

#![allow(clippy::unwrap_used)]

mod played;

use dovetail_sv2::messages::{
    CoinbaseOutputConstraints, NewTemplate, RequestTransactionDataError, TemplateSetNewPrevHash,
};
use dovetail_tests::scenario::{Options, Scenario};
use played::miner::Miner;
use played::provider::{Odd, Provider};
use played::{TIME_MAX, now};
use tempfile::TempDir;

/// How long the last work stands, in these tests.
const STALE_AFTER_S: u64 = 5;
/// Every other header meets the target of so slow a miner.
const HASH_RATE: f32 = 1.0;

struct Fixture {
    provider: Provider,
    scenario: Scenario,
    _dir: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with(Provider::start().await, STALE_AFTER_S).await
    }

    async fn start_with(provider: Provider, stale_after_s: u64) -> Self {
        let options = Options {
            worker: false,
            hasher: false,
            min_hashrate: 1,
            templates: Some(provider.config(stale_after_s)),
            ..Options::default()
        };
        let start = move || dovetail_tests::scenario(&options).unwrap();
        let (dir, scenario) = tokio::task::spawn_blocking(start).await.unwrap();
        Self {
            provider,
            scenario,
            _dir: dir,
        }
    }

    async fn miner(&self) -> Miner {
        Miner::open(&self.scenario.mining, HASH_RATE).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_changes_on_the_same_tip_reaches_miners() {
    let mut fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let first = miner.job(0, |_| true).await;
    // As on testnets, twenty minutes after a block.
    let (before, after) = (first.parts.nbits, 0x207f_ffff);
    fixture.provider.tip(|tip| {
        tip.n_bits = after;
        tip.header_timestamp += 1_201;
    });
    let next = miner.job(0, |job| job.parts.nbits == after).await;
    assert!(next.with_tip);
    assert_eq!(next.parts.prev_hash, first.parts.prev_hash);
    // Of the old target it is no block, and earns nothing.
    let old = miner.share(&first, next.parts.min_ntime).await;
    assert_eq!(old.unwrap_err(), "stale-share");
    fixture.provider.tip(|tip| tip.n_bits = before);
    let last = miner.job(2, |job| job.parts.nbits == before).await;
    miner.share(&last, last.parts.min_ntime).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_earlier_time_on_the_same_tip_costs_nobody_the_connection() {
    let mut fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let first = miner.job(0, |_| true).await;
    let told = first.parts.min_ntime;
    fixture.provider.tip(|tip| tip.header_timestamp += 5_000);
    fixture.provider.template(|_| {});
    let late = miner.job(1, |job| job.parts.min_ntime > told + 4_000).await;
    // The node restarts with its clock set right.
    fixture.provider.tip(|tip| tip.header_timestamp -= 6_000);
    let early = miner.job(1, |job| job.parts.min_ntime < told + 1_000).await;
    assert!(early.with_tip);
    assert_eq!(early.parts.prev_hash, late.parts.prev_hash);
    miner.share(&early, early.parts.min_ntime).await.unwrap();
    fixture.provider.template(|_| {});
    let jobs = miner.jobs.len();
    let next = miner.job(jobs, |_| true).await;
    miner.share(&next, next.parts.min_ntime).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_tip_that_is_hours_old_shares_with_the_time_of_day_are_good() {
    let mut provider = Provider::start().await;
    let tip_time = now() - 3 * 3_600;
    provider.tip(|tip| tip.header_timestamp = tip_time);
    let mut fixture = Fixture::start_with(provider, STALE_AFTER_S).await;
    let mut miner = fixture.miner().await;
    let first = miner.job(0, |_| true).await;
    assert!(first.parts.min_ntime >= tip_time);
    miner.share(&first, now()).await.unwrap();
    fixture.provider.template(|_| {});
    let better = miner.job(1, |_| true).await;
    assert!(!better.with_tip);
    miner.share(&better, now()).await.unwrap();
    miner.share(&better, now() + 7_000).await.unwrap();
    let too_far = miner.share(&better, now() + 7_300).await;
    assert_eq!(too_far.unwrap_err(), "invalid-share");
    let too_early = miner.share(&better, tip_time - 1).await;
    assert_eq!(too_early.unwrap_err(), "invalid-share");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_gives_no_job_reaches_the_log_and_nobody_else() {
    let mut fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let first = miner.job(0, |_| true).await;
    // A script that leaves no room for the extranonce.
    fixture.provider.template(|template| {
        let mut prefix = template.coinbase_prefix.as_bytes().to_vec();
        prefix.resize(95, 0);
        template.coinbase_prefix = prefix.try_into().unwrap();
    });
    miner.share(&first, now()).await.unwrap();
    fixture.provider.template(|_| {});
    let next = miner.job(1, |_| true).await;
    miner.share(&next, now()).await.unwrap();
    let log = fixture.scenario.pool.log();
    assert_eq!(log.matches("a template gives no job").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn miners_are_let_go_once_the_source_is_away_for_too_long_and_taken_again_when_it_is_back() {
    let mut fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let job = miner.job(0, |_| true).await;
    fixture.provider.leave();
    // Within the bound the last work is good.
    miner.share(&job, now()).await.unwrap();
    assert_eq!(
        miner.hung_up().await.as_deref(),
        Some("template-source-away")
    );
    let newcomer = Miner::open(&fixture.scenario.mining, HASH_RATE).await;
    assert_eq!(newcomer.err().as_deref(), Some("template-source-away"));
    let log = fixture.scenario.pool.log();
    assert!(
        log.contains("ALARM: the template source gives no work"),
        "{log}"
    );

    fixture.provider.come_back().await;
    let back = async {
        loop {
            match Miner::open(&fixture.scenario.mining, HASH_RATE).await {
                Ok(miner) => return miner,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    };
    let mut miner = tokio::time::timeout(TIME_MAX, back).await.unwrap();
    let job = miner.job(0, |_| true).await;
    miner.share(&job, now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_a_forgotten_job_is_stale_and_of_one_that_never_was_invalid() {
    let mut fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let first = miner.job(0, |_| true).await;
    for templates in 1..=70 {
        fixture.provider.template(|_| {});
        miner.job(templates, |_| true).await;
    }
    let forgotten = miner.share(&first, now()).await;
    assert_eq!(forgotten.unwrap_err(), "stale-share");
    for _ in 0..2 {
        fixture.provider.tip(|tip| tip.n_bits ^= 1);
        let jobs = miner.jobs.len();
        miner.job(jobs, |_| true).await;
    }
    let two_tips_ago = miner.share(&first, now()).await;
    assert_eq!(two_tips_ago.unwrap_err(), "stale-share");
    let mut never = first;
    never.id += 1_000;
    let never = miner.share(&never, now()).await;
    assert_eq!(never.unwrap_err(), "invalid-job-id");
}

#[tokio::test(flavor = "multi_thread")]
async fn absurd_hash_rates_are_refused_and_a_restart_gives_no_extranonce_again() {
    let mut fixture = Fixture::start().await;
    for rate in [f32::NAN, -1.0, f32::INFINITY, f32::NEG_INFINITY] {
        let opened = Miner::open(&fixture.scenario.mining, rate).await;
        assert_eq!(opened.err().as_deref(), Some("invalid-nominal-hashrate"));
    }
    let before = fixture.miner().await.prefix();
    let fixture = tokio::task::spawn_blocking(move || {
        fixture.scenario.restart_pool().unwrap();
        fixture
    })
    .await
    .unwrap();
    let after = fixture.miner().await.prefix();
    assert_eq!(before.len(), after.len());
    assert_ne!(before, after);
}

/// What makes a message odd, and its name.
type Change<T> = (&'static str, fn(&mut T));

/// Templates that make no sense, made of a good one.
fn odd_templates() -> Vec<Change<NewTemplate>> {
    vec![
        ("no height", |template| {
            template.coinbase_prefix = Vec::new().try_into().unwrap();
        }),
        ("a prefix as long as its field", |template| {
            let mut prefix = template.coinbase_prefix.as_bytes().to_vec();
            prefix.resize(255, 0);
            template.coinbase_prefix = prefix.try_into().unwrap();
        }),
        ("more outputs than it has", |template| {
            template.coinbase_tx_outputs_count = u32::MAX
        }),
        ("fewer outputs than it has", |template| {
            template.coinbase_tx_outputs_count = 0
        }),
        ("an output as long as its field", |template| {
            let script = bitcoin::ScriptBuf::from_bytes(vec![0x6a; 65_000]);
            let value = bitcoin::Amount::ZERO;
            let output = bitcoin::TxOut {
                value,
                script_pubkey: script,
            };
            let bytes = bitcoin::consensus::serialize(&output);
            template.coinbase_tx_outputs = bytes.try_into().unwrap();
            template.coinbase_tx_outputs_count = 1;
        }),
        ("more money than there is", |template| {
            template.coinbase_tx_value_remaining = u64::MAX;
        }),
        ("no money", |template| {
            template.coinbase_tx_value_remaining = 0
        }),
        ("a path as long as its field", |template| {
            template.merkle_path = vec![[7; 32].into(); 255].try_into().unwrap();
        }),
        ("every bit of the version", |template| {
            template.version = u32::MAX
        }),
        ("no version", |template| template.version = 0),
        ("a coinbase that is locked", |template| {
            template.coinbase_tx_version = u32::MAX;
            template.coinbase_tx_locktime = u32::MAX;
            template.coinbase_tx_input_sequence = 0;
        }),
        ("a number again", |template| template.template_id = 1),
        ("a number out of order", |template| {
            template.template_id = u64::MAX
        }),
        ("a future that never comes", |template| {
            template.future_template = true
        }),
    ]
}

/// Tips that make no sense.
fn odd_tips() -> Vec<Change<TemplateSetNewPrevHash>> {
    vec![
        ("a template that nobody told", |tip| {
            tip.template_id = u64::MAX - 1
        }),
        ("no target", |tip| tip.n_bits = 0),
        ("a negative target", |tip| tip.n_bits = 0x0492_3456),
        ("a target beyond 256 bits", |tip| tip.n_bits = 0xff7f_ffff),
        ("every bit of a target", |tip| tip.n_bits = u32::MAX),
        ("no time", |tip| tip.header_timestamp = 0),
        ("the end of time", |tip| tip.header_timestamp = u32::MAX),
        ("no block before", |tip| tip.prev_hash = [0; 32].into()),
        ("another target in its field", |tip| {
            tip.target = [0; 32].into()
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_message_costs_no_miner_its_connection() {
    // The client reconnects after some of them, with pauses.
    let mut fixture = Fixture::start_with(Provider::start().await, 60).await;
    let mut miner = fixture.miner().await;
    miner.job(0, |_| true).await;
    for (what, change) in odd_templates() {
        eprintln!("a template with {what}");
        let (mut template, _) = fixture.provider.parts();
        change(&mut template);
        fixture.provider.odd(Odd::Template(template));
        good_work_follows(&mut fixture, &mut miner, false).await;
    }
    for (what, change) in odd_tips() {
        eprintln!("a tip with {what}");
        let (mut template, mut tip) = fixture.provider.parts();
        template.future_template = true;
        tip.template_id = template.template_id;
        change(&mut tip);
        fixture.provider.odd(Odd::Template(template));
        fixture.provider.odd(Odd::Tip(tip));
        good_work_follows(&mut fixture, &mut miner, true).await;
    }
    eprintln!("messages that nobody asked for");
    fixture
        .provider
        .odd(Odd::NoTransactions(RequestTransactionDataError {
            template_id: 5,
            error_code: "no-word-of-the-protocol".try_into().unwrap(),
        }));
    fixture
        .provider
        .odd(Odd::Constraints(CoinbaseOutputConstraints {
            coinbase_output_max_additional_size: u32::MAX,
            coinbase_output_max_additional_sigops: u16::MAX,
        }));
    for _ in 0..100 {
        let (mut template, _) = fixture.provider.parts();
        template.future_template = true;
        fixture.provider.odd(Odd::Template(template));
    }
    good_work_follows(&mut fixture, &mut miner, true).await;
    let log = fixture.scenario.pool.log();
    assert!(
        log.contains("ALARM: the template source says what makes no sense"),
        "{log}"
    );
}

/// The provider speaks sense again: there is work, and a share of it is good, on the connection of before.
async fn good_work_follows(fixture: &mut Fixture, miner: &mut Miner, on_new_tip: bool) {
    // A tip that the odd ones did not have.
    let number = u32::try_from(miner.jobs.len()).unwrap();
    match on_new_tip {
        true => fixture.provider.tip(|tip| {
            let mut prev_hash = [0; 32];
            prev_hash[..4].copy_from_slice(&number.to_be_bytes());
            prev_hash[4] = 1;
            tip.prev_hash = prev_hash.into();
        }),
        false => fixture.provider.template(|_| {}),
    }
    let wanted = fixture.provider.newest_version();
    let job = miner.job(0, |job| job.parts.version == wanted).await;
    let time = now().max(job.parts.min_ntime);
    miner.share(&job, time).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn miners_may_roll_every_general_purpose_bit_of_the_version() {
    let fixture = Fixture::start().await;
    let mut miner = fixture.miner().await;
    let job = miner.job(0, |_| true).await;
    // Bits 5 to 28 (BIP 323).
    let rolled = job.parts.version ^ 0x1fff_ffe0;
    miner.share_of_version(&job, now(), rolled).await.unwrap();
    for bit in [4, 29] {
        let rolled = job.parts.version ^ (1 << bit);
        let refused = miner.share_of_version(&job, now(), rolled).await;
        assert_eq!(refused.unwrap_err(), "invalid-non-rollable-version-bit");
    }
}
