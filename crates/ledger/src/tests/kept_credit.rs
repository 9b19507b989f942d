//! Credit that a worker leaves held: how much stays, how long, and that no wish is ever worth more than what is held.

use dovetail_units::{KeptCredit, SplitMix64};

use super::value::{SEED_VARIABLE, batch_worth, commit, held, matured, settle};
use super::*;

async fn keep(ledger: &Ledger, msat: u64) {
    let kept = KeptCredit::new(msat).unwrap();
    ledger.keep_credit(WORKER, kept).await.unwrap();
}

/// Makes what is held, or the worker's last word, so many seconds older.
async fn age(db: &Database, column: &str, seconds: u32) {
    let table = match column {
        "held_at" => "held_credits",
        _ => "audit_records",
    };
    let older = format!(
        "ALTER TABLE {table} DISABLE TRIGGER USER;
         UPDATE {table} SET {column} = {column} - make_interval(secs => {seconds});
         ALTER TABLE {table} ENABLE TRIGGER USER"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(older))
        .execute(&mut db.connection().await)
        .await
        .unwrap();
}

#[test]
fn so_much_stays_held_as_its_worker_leaves_there_and_the_rest_matures() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=6 {
            settle(&ledger, &running, n, 1).await;
        }
        keep(&ledger, 3_500).await;
        // Without the third credit, less would be held.
        assert_eq!(matured(&ledger).await, 2_000);
        assert_eq!(held(&ledger).await, 4_000);
        settle(&ledger, &running, 7, 1).await;
        assert_eq!(matured(&ledger).await, 1_000);
        // More can be kept than is there: then nothing matures.
        keep(&ledger, KeptCredit::MAX).await;
        settle(&ledger, &running, 8, 1).await;
        assert_eq!(matured(&ledger).await, 0);
        assert_eq!(held(&ledger).await, 5_000);
        // As soon as less is kept, the window is all that counts.
        keep(&ledger, 2_000).await;
        assert_eq!(matured(&ledger).await, 3_000);
        keep(&ledger, 0).await;
        assert_eq!(matured(&ledger).await, 1_000);
        assert_eq!(held(&ledger).await, 1_000);
    });
}

#[test]
fn a_worker_that_is_there_keeps_credit_of_any_age_and_one_that_is_gone_is_paid() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=3 {
            settle(&ledger, &running, n, 1).await;
        }
        keep(&ledger, 2_000).await;
        let window = MaturityWindow {
            seconds: 0,
            seconds_max: 3_600,
        };
        let due = async || -> i64 {
            let matured = ledger.mature_credits(window, None).await.unwrap();
            matured.iter().map(|of| of.amount.get()).sum()
        };
        // All of it is past the longest time; the worker's last word is not.
        age(&db, "held_at", 4_000).await;
        age(&db, "kept_at", 3_000).await;
        assert_eq!(due().await, 1_000);
        assert_eq!(due().await, 0);
        assert_eq!(held(&ledger).await, 2_000);
        age(&db, "kept_at", 1_000).await;
        assert_eq!(due().await, 2_000);
        assert_eq!(held(&ledger).await, 0);
    });
}

#[test]
fn a_wish_is_its_workers_own_and_of_a_key_that_never_earned_nothing_is_noted() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let rows = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM audit_records")
                .fetch_one(&mut db.connection().await)
                .await
                .unwrap()
        };
        keep(&ledger, 5_000).await;
        assert_eq!(rows().await, 0);
        settle(&ledger, &running, 1, 1).await;
        settle(&ledger, &running, 2, 1).await;
        let stranger = WorkerKey::from_bytes([1; 32]);
        let most = KeptCredit::new(KeptCredit::MAX).unwrap();
        ledger.keep_credit(stranger, most).await.unwrap();
        assert_eq!(rows().await, 1);
        assert_eq!(matured(&ledger).await, 1_000);
    });
}

#[test]
fn what_is_kept_no_longer_stays_where_it_is_until_the_audit_has_ended() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=4 {
            settle(&ledger, &running, n, 1).await;
        }
        keep(&ledger, 4_000).await;
        let (root, _) = batch_worth(&ledger, 5, 1).await;
        let stake = async || ledger.stake(WORKER, root).await.unwrap();
        assert_eq!(stake().await, Some(Msat::new(4_000)));
        keep(&ledger, 0).await;
        assert_eq!(matured(&ledger).await, 0);
        // Nor does a wish count for anything at the next claim.
        keep(&ledger, KeptCredit::MAX).await;
        assert_eq!(stake().await, Some(Msat::new(4_000)));
        keep(&ledger, 0).await;
        let lost = fail(&ledger, root, 5, 5).await.unwrap().unwrap();
        assert_eq!(lost.amount, Msat::new(4_000));
        assert_eq!(held(&ledger).await, 0);
    });
}

/// Whatever a worker does: what a sample was drawn against is there when the batch is judged.
#[test]
fn the_stake_of_a_claim_is_never_more_than_what_a_mismatch_then_forfeits() {
    let seed = std::env::var(SEED_VARIABLE).map_or_else(|_| random(), |text| text.parse().unwrap());
    println!("to run this again: {SEED_VARIABLE}={seed}");
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let mut random = SplitMix64::new(seed);
        // From its first batch on its wishes are noted.
        settle(&ledger, &running, 0, 1).await;
        let (mut n, mut open) = (0, None::<(BatchRoot, Transcript, u32, i64)>);
        let mut kept = 0;
        while n < 60 {
            match (random.below(10), open.take()) {
                // Claims, or claims again.
                (0..=2, None) => {
                    n += 1;
                    let thousands = 1 + u32::try_from(random.below(9)).unwrap();
                    let (root, transcript) = batch_worth(&ledger, n, thousands).await;
                    let stake = ledger.stake(WORKER, root).await.unwrap().unwrap().get();
                    assert_eq!(stake, held(&ledger).await);
                    open = Some((root, transcript, thousands, stake));
                }
                (0..=2, Some((root, transcript, thousands, before))) => {
                    let stake = ledger.stake(WORKER, root).await.unwrap().unwrap().get();
                    assert!(stake <= before && stake <= held(&ledger).await);
                    open = Some((root, transcript, thousands, stake));
                }
                // Is judged.
                (3, Some((root, transcript, thousands, _))) => {
                    commit(&running, n, root, &transcript, thousands).await;
                }
                (4, Some((root, _, _, stake))) => {
                    let lost = fail(&ledger, root, n, n).await.unwrap().unwrap();
                    assert!(lost.amount.get() >= stake, "{stake} at stake, {lost:?}");
                }
                // Wants more or less of it.
                (5 | 6, waits) => {
                    open = waits;
                    kept = 1_000 * i64::try_from(random.below(30)).unwrap();
                    keep(&ledger, u64::try_from(kept).unwrap()).await;
                }
                // Is paid, or tries to be.
                (7.., waits) => {
                    let before = held(&ledger).await;
                    let due = matured(&ledger).await;
                    assert_eq!(held(&ledger).await, before - due);
                    assert!(due == 0 || (waits.is_none() && before - due >= kept));
                    open = waits;
                }
                (_, None) => {
                    n += 1;
                    let thousands = 1 + u32::try_from(random.below(9)).unwrap();
                    settle(&ledger, &running, n, thousands).await;
                }
            }
        }
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
