//! Credit weighed by what it is worth: in which order it matures, and what samples are drawn against.

use dovetail_units::SplitMix64;

use super::*;

pub(super) const SEED_VARIABLE: &str = "DOVETAIL_TEST_SEED";
const NO_TIME: MaturityWindow = MaturityWindow {
    seconds: 0,
    seconds_max: 1_000_000,
};

/// A batch of one task that is worth so many thousand msat.
pub(super) async fn batch_worth(ledger: &Ledger, n: u8, thousands: u32) -> (BatchRoot, Transcript) {
    let task = NewTask {
        prices: TokenPrices::new(u64::from(thousands) * 1_000_000_000, 0).unwrap(),
        ..new_task(n)
    };
    let transcript = finish(ledger, &task).await;
    let root = root_of(std::slice::from_ref(&transcript));
    ledger
        .register_batch(WORKER, root, &[task.id])
        .await
        .unwrap();
    (root, transcript)
}

/// Settles a batch that is worth so many thousand msat.
pub(super) async fn settle(ledger: &Ledger, running: &Running, n: u8, thousands: u32) {
    let (root, transcript) = batch_worth(ledger, n, thousands).await;
    commit(running, n, root, &transcript, thousands).await;
}

pub(super) async fn commit(
    running: &Running,
    n: u8,
    root: BatchRoot,
    transcript: &Transcript,
    thousands: u32,
) {
    let mut share = inference_share(n, root, &[transcript.task_id]);
    let batch = share.batch.as_mut().unwrap();
    batch.credit = Msat::new(i64::from(thousands) * 1_000);
    running.committer.commit(share).await.unwrap();
}

pub(super) async fn matured(ledger: &Ledger) -> i64 {
    let matured = ledger.mature_credits(NO_TIME, None).await.unwrap();
    matured.iter().map(|of| of.amount.get()).sum()
}

pub(super) async fn held(ledger: &Ledger) -> i64 {
    ledger.balance("miner").await.unwrap().held.get()
}

#[test]
fn a_large_credit_waits_for_as_much_later_credit_and_those_behind_it_wait_with_it() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1, 1).await;
        assert_eq!(matured(&ledger).await, 0);
        settle(&ledger, &running, 2, 5).await;
        assert_eq!(matured(&ledger).await, 1_000);
        for n in 3..=6 {
            settle(&ledger, &running, n, 1).await;
            assert_eq!(matured(&ledger).await, 0, "{n}");
        }
        settle(&ledger, &running, 7, 1).await;
        assert_eq!(matured(&ledger).await, 9_000);
        assert_eq!(held(&ledger).await, 1_000);
    });
}

#[test]
fn nothing_matures_while_a_batch_of_the_worker_is_under_audit() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1, 1).await;
        settle(&ledger, &running, 2, 1).await;
        let (root, transcript) = batch_worth(&ledger, 3, 1).await;
        let stake = ledger.stake(WORKER, root).await.unwrap();
        assert_eq!(stake, Some(Msat::new(2_000)));
        assert_eq!(mature(&ledger).await, 0);
        commit(&running, 3, root, &transcript, 1).await;
        assert_eq!(mature(&ledger).await, 3_000);
        // A batch that has ended is under audit no more.
        assert_eq!(ledger.stake(WORKER, root).await.unwrap(), None);
    });
}

#[test]
fn a_batch_that_nobody_can_claim_any_more_holds_up_nothing() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1, 1).await;
        let (root, _) = batch_worth(&ledger, 2, 1).await;
        ledger.stake(WORKER, root).await.unwrap();
        assert_eq!(mature(&ledger).await, 0);
        sqlx::query("UPDATE batches SET expires_at = $1")
            .bind(i64::try_from(unix_now()).unwrap() - 1)
            .execute(&mut db.connection().await)
            .await
            .unwrap();
        assert_eq!(mature(&ledger).await, 1_000);
    });
}

/// Its tasks were kept for another batch that names them too, so it can be claimed after its own time.
#[test]
fn nothing_matures_while_a_batch_is_under_audit_whose_tasks_were_kept_for_another() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1, 1).await;
        let (root, _) = batch_worth(&ledger, 2, 1).await;
        sqlx::query("UPDATE batches SET expires_at = 1")
            .execute(&mut db.connection().await)
            .await
            .unwrap();
        let stake = ledger.stake(WORKER, root).await.unwrap();
        assert_eq!(stake, Some(Msat::new(1_000)));
        assert_eq!(mature(&ledger).await, 0);
        let lost = fail(&ledger, root, 2, 2).await.unwrap().unwrap();
        assert_eq!(lost.amount, Msat::new(1_000));
    });
}

#[test]
fn nothing_that_a_worker_does_after_its_claim_raises_what_the_sample_is_drawn_against() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        settle(&ledger, &running, 1, 2).await;
        let (root, _) = batch_worth(&ledger, 2, 9).await;
        let stake = async || ledger.stake(WORKER, root).await.unwrap();
        assert_eq!(stake().await, Some(Msat::new(2_000)));
        settle(&ledger, &running, 3, 100).await;
        assert_eq!(stake().await, Some(Msat::new(2_000)));
        let (bad, _) = open_batch(&ledger, &[4]).await;
        fail(&ledger, bad, 4, 100).await.unwrap();
        assert_eq!(stake().await, Some(Msat::ZERO));
        settle(&ledger, &running, 5, 100).await;
        assert_eq!(stake().await, Some(Msat::ZERO));
        let stranger = WorkerKey::from_bytes([1; 32]);
        assert_eq!(ledger.stake(stranger, root).await.unwrap(), None);
    });
}

/// What the database posts, against the rule in a few lines of another language.
#[test]
fn credit_of_any_worth_matures_as_a_model_says() {
    let seed = std::env::var(SEED_VARIABLE).map_or_else(|_| random(), |text| text.parse().unwrap());
    println!("to run this again: {SEED_VARIABLE}={seed}");
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (mut random, mut model) = (SplitMix64::new(seed), Vec::<i64>::new());
        let mut n = 0;
        while n < 60 {
            match random.below(8) {
                0 => {
                    n += 1;
                    let (bad, _) = open_batch(&ledger, &[n]).await;
                    let lost = fail(&ledger, bad, n, n).await.unwrap().unwrap();
                    assert_eq!(lost.amount.get(), model.drain(..).sum::<i64>());
                }
                1..=3 => {
                    let mut due = 0;
                    while let Some((first, later)) = model.split_first()
                        && later.iter().sum::<i64>() >= *first
                    {
                        due += first;
                        model.remove(0);
                    }
                    assert_eq!(matured(&ledger).await, due, "{n}");
                }
                _ => {
                    n += 1;
                    let thousands = 1 + u32::try_from(random.below(9)).unwrap().pow(2);
                    settle(&ledger, &running, n, thousands).await;
                    model.push(i64::from(thousands) * 1_000);
                }
            }
            assert_eq!(held(&ledger).await, model.iter().sum::<i64>());
        }
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn a_task_earns_what_its_prices_say_whatever_the_numbers() {
    run(|_db, ledger| async move {
        let mut random = SplitMix64::new(7);
        for n in 0..40 {
            let price = |random: &mut SplitMix64| random.below(1 << (10 * (1 + n % 4)));
            let prices = TokenPrices::new(price(&mut random), price(&mut random)).unwrap();
            let input = 1 + usize::try_from(random.below(1 << 16)).unwrap();
            let task = NewTask {
                prompt: prompt(b"?", &vec![7; input]),
                prices,
                payer: Payer::Operator(SubsidyBudget {
                    per_day: Msat::new(1 << 62),
                    in_all: Msat::new(1 << 62),
                }),
                ..new_task(u8::try_from(n).unwrap())
            };
            finish(&ledger, &task).await;
            let record = ledger.task(task.id).await.unwrap().unwrap();
            assert_eq!(record.price, prices.of(u32::try_from(input).unwrap(), 3));
        }
    });
}
