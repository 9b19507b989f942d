//! One hash is paid once, whatever targets its miner has played for.

use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_tests::scenario::Options;

use crate::fixture::{Case, options};
use crate::scripted_worker::{Job, Verdict};

/// Headers that are tried of each space.
const HEADERS: u32 = 400_000;
/// What the miner says that it hashes, one after the other: to begin with it said 1,000. It is believed to be slower once
/// in two minutes.
const RATES: [f32; 4] = [8_000.0, 1_000.0, 2_000.0, 4_000.0];
/// Shares that are under way at once.
const AT_ONCE: usize = 64;

/// More custom jobs than a connection keeps.
const JOBS: u8 = 17;

/// The shares' work is what was hashed, by expectation. Its variance is that times a share's work, at most. By Bernstein's
/// inequality six standard deviations are exceeded by chance less than once in four million runs.
const SIGMAS: f64 = 6.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_paid_once_under_whatever_targets_its_headers_were_asked_for() {
    // A block is four thousand million hashes: no share of this test may be one, since the others were stale then.
    let options = Options {
        bits: "1d00ffff",
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut cheat = case.worker().await;
    let batch = case.batch(&mut cheat).await;
    let mut jobs = vec![cheat.job(None).await];
    let declared = cheat.declare_soon(None).await.unwrap();
    jobs.push(cheat.set(&declared).await.unwrap());
    // All ways to a job, under every target.
    for rate in RATES {
        jobs.push(cheat.state_rate(rate).await);
        jobs.push(cheat.pool_job(batch.root).await.unwrap());
        jobs.push(cheat.job(None).await);
    }
    // Another channel, and the same declared jobs there.
    let identity = cheat.keys.name.to_string();
    cheat.open_channel_as(&identity).await;
    jobs.push(cheat.job(None).await);
    jobs.push(cheat.state_rate(RATES[0]).await);
    jobs.push(cheat.job(None).await);
    let targets = jobs
        .iter()
        .map(Job::work)
        .collect::<std::collections::BTreeSet<_>>();
    assert!(targets.len() >= 4, "{targets:?}");

    let (shares, hashes) = cheat.hash_once(&jobs, HEADERS);
    for together in shares.chunks(AT_ONCE) {
        for share in together {
            cheat.send_share(share, &[]).await;
        }
        for share in together {
            assert_eq!(cheat.verdict(share, None).await, Verdict::Hashes);
        }
    }
    case.fixture
        .credited(&cheat.keys.name, &shares.len().to_string());
    let credited = case.fixture.number(&format!(
        "SELECT COALESCE(sum(work), 0)::bigint FROM named_shares WHERE account = '{}'",
        cheat.keys.name
    ));
    let hardest = *targets.last().unwrap() as f64;
    let by_chance = SIGMAS * (hardest * hashes as f64).sqrt();
    let too_much = credited as f64 - hashes as f64;
    assert!(
        too_much.abs() < by_chance,
        "{credited} for {hashes}, by chance {by_chance}"
    );
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_job_that_is_brought_again_is_the_same_job_with_the_same_target() {
    let (case, mut cheat) = Case::with_worker().await;
    let first = cheat.job(None).await;
    cheat.state_rate(8_000.0).await;
    let again = cheat.job(None).await;
    assert_eq!(again.id, first.id);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_job_that_the_pool_has_forgotten_has_its_first_target() {
    // A block by chance would be another tip, on which the job is another one.
    let options = Options {
        bits: "1d00ffff",
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut cheat = case.worker().await;
    let first = cheat.job(None).await;
    cheat.state_rate(8_000.0).await;
    for number in 0..JOBS {
        let another = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new_op_return([number]),
        };
        let identity = cheat.keys.name;
        let declared = cheat
            .declare_as(identity, None, |outputs| outputs.insert(1, another))
            .await
            .unwrap();
        cheat.set(&declared).await.unwrap();
    }
    let again = cheat.job(None).await;
    assert_ne!(again.id, first.id);
    let share = cheat.hash_as_easy(&again, &first).await;
    assert_eq!(cheat.submit(&share, None).await, Verdict::Hashes);
    case.end().await;
}
