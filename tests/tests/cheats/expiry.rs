//! Roots of tasks whose time is over, at every step of their way.

use std::time::Duration;

use dovetail_tests::scenario::Options;
use tokio::time::sleep;

use crate::fixture::{Case, options};
use crate::scripted_worker::{assert_refused, batch_of, honest, transcript};

/// Long enough for a job on a busy machine, short enough to wait for.
const LIFETIME_S: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_expired_tasks() {
    let options = Options {
        task_lifetime_s: LIFETIME_S,
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let mut cheat = case.worker().await;
    let claimed = case.batch(&mut cheat).await;
    let declared = cheat.declare(Some(&claimed.root)).await.unwrap();
    let job = cheat.job(Some(&claimed.root)).await;
    let delivered = batch_of(&[case.transcript(&mut cheat).await]);
    let late = case.task(&mut cheat).await;
    sleep(Duration::from_secs(u64::from(LIFETIME_S) + 1)).await;

    let output = honest(&case.models().asked, &late);
    let late = transcript(cheat.keys.name, &late, &output);
    assert_refused(cheat.deliver(&output.tokens, &late).await, "task-unknown");
    assert_refused(cheat.register_batch(&delivered).await, "batch-expired");
    assert_refused(
        cheat.declare(Some(&claimed.root)).await,
        "invalid-batch-commitment",
    );
    // A share kept for too long, and one on a job that was declared in time.
    let second = cheat.set(&declared).await;
    for job in [Some(job), second.ok()].into_iter().flatten() {
        let verdict = cheat.submit_new(&job, Some(&claimed.root)).await;
        assert_eq!(verdict.refusal(), "batch-expired");
    }
    case.earned_nothing(&cheat);
    // The honest worker's batch has expired just so; what it does now is credited.
    case.end_afresh().await;
}
