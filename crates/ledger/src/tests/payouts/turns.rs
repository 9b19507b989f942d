//! Whose turn it is to be paid, and how long one that cannot be paid waits.

use super::*;

const LEASE: Duration = Duration::from_secs(3_600);

/// A worker's key.
fn key(n: u16) -> String {
    format!("{n:064x}")
}

/// An offer, as an account is named after it.
fn offer(n: u16) -> String {
    format!("lno1{n:0>60}")
}

#[test]
fn payees_that_cannot_be_paid_take_nobodys_place() {
    run(|_db, ledger| async move {
        // Richer than everybody, and without a way to be paid: plain miners, and workers that are not there.
        let plain: Vec<String> = (0..40).map(|n| format!("bc1qminer{n}")).collect();
        let away: Vec<String> = (0..40).map(key).collect();
        let rich: Vec<&str> = plain.iter().chain(&away).map(|name| &**name).collect();
        earn(&ledger, &rich, 90_000).await;
        let (here, offer) = (key(99), offer(1));
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for (n, name) in [(200, &here), (201, &offer)] {
            let share = numbered_share(n, name, 10_000);
            running.committer.commit(share).await.unwrap();
        }
        running.stop().await;
        let due = claim(&ledger, &[&here], 10_000).await;
        assert_eq!(due, [here.clone(), offer.clone()]);
        // Once only, whoever asks.
        assert_eq!(claim(&ledger, &[&here], 10_000).await, [] as [&str; 0]);
        assert_eq!(claim(&ledger, &[&away[0]], 10_000).await, [&*away[0]]);
        assert_eq!(claim(&ledger, &[&away[1]], 90_001).await, [] as [&str; 0]);
    });
}

#[test]
fn two_pools_on_one_ledger_claim_each_payee_once() {
    run(|db, ledger| async move {
        let names: Vec<String> = (0..20).map(key).collect();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        earn(&ledger, &names, 10_000).await;
        let other = db.ledger().await;
        for _ in 0..20 {
            let (first, second) =
                tokio::join!(claim(&ledger, &names, 1_000), claim(&other, &names, 1_000));
            assert_eq!(first.len() + second.len(), names.len());
            sqlx::query("UPDATE payees SET next_try_at = now()")
                .execute(&ledger.pool)
                .await
                .unwrap();
        }
    });
}

async fn wait_s(ledger: &Ledger, payee: &str) -> f64 {
    sqlx::query_scalar(
        "SELECT extract(epoch FROM next_try_at - now())::double precision FROM payees WHERE payee = $1",
    )
    .bind(payee)
    .fetch_one(&ledger.pool)
    .await
    .unwrap()
}

#[test]
fn a_payee_that_cannot_be_paid_waits_twice_as_long_each_time_up_to_an_hour() {
    run(|_db, ledger| async move {
        let mut longest = 10.0_f64;
        for tries in 1..40 {
            let put_off = ledger.put_payee_off("alice", "no_invoice", Duration::from_secs(10));
            put_off.await.unwrap();
            let wait = wait_s(&ledger, "alice").await;
            assert!(
                wait <= longest && wait > longest / 2.0 - 1.0,
                "{tries}: {wait}"
            );
            longest = (longest * 2.0).min(3_600.0);
            let standing = ledger.payee_standing("alice").await.unwrap().unwrap();
            assert_eq!(standing.tries, tries);
            assert_eq!(standing.failure_class.as_deref(), Some("no_invoice"));
        }
        assert_eq!(ledger.payee_standing("bob").await.unwrap(), None);
    });
}

#[test]
fn a_failed_attempt_is_due_again_after_its_payees_wait_and_a_success_ends_the_waiting() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        begin(&ledger, 1, "alice", 4_000).await.unwrap();
        assert!(ledger.claim_retries(9, LEASE).await.unwrap().is_empty());
        let backoff = Some(Duration::from_secs(10));
        ledger
            .note_failed([1; 32], "no_route", backoff)
            .await
            .unwrap();
        assert!(ledger.claim_retries(9, LEASE).await.unwrap().is_empty());
        sqlx::query("UPDATE payees SET next_try_at = now()")
            .execute(&ledger.pool)
            .await
            .unwrap();
        // Not for a new payout: there is one.
        assert_eq!(claim(&ledger, &["alice"], 1_000).await, [] as [&str; 0]);
        let due = ledger.claim_retries(9, LEASE).await.unwrap();
        assert_eq!(
            (due.len(), due[0].id, due[0].state),
            (1, [1; 32], AttemptState::Failed)
        );
        assert!(ledger.claim_retries(9, LEASE).await.unwrap().is_empty());
        ledger
            .prepare_attempt([1; 32], [2; 32], SOON)
            .await
            .unwrap();
        let paid = ledger.note_succeeded([2; 32], &proof(1, 0)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        let standing = ledger.payee_standing("alice").await.unwrap().unwrap();
        assert_eq!((standing.tries, standing.failure_class), (0, None));
        assert_eq!(claim(&ledger, &["alice"], 1_000).await, ["alice"]);
    });
}

#[test]
fn attempts_are_looked_at_when_it_is_their_time_and_all_open_ones_after_a_start() {
    run(|_db, ledger| async move {
        let names = ["alice", "bob", "carol"];
        earn(&ledger, &names, 10_000).await;
        for (n, name) in (1..).zip(names) {
            begin(&ledger, n, name, 1_000).await.unwrap();
        }
        ledger.note_failed([3; 32], "no_route", None).await.unwrap();
        let due = async || -> Vec<u8> {
            let checks = ledger.claim_checks(9, LEASE).await.unwrap();
            let mut due: Vec<u8> = checks.iter().map(|attempt| attempt.id[0]).collect();
            due.sort_unstable();
            due
        };
        assert_eq!(due().await, [] as [u8; 0]);
        let now = Some(Duration::ZERO);
        ledger.note_checked([1; 32], now).await.unwrap();
        assert_eq!(due().await, [1]);
        assert_eq!(due().await, [] as [u8; 0]);
        ledger.recheck_open_attempts().await.unwrap();
        assert_eq!(due().await, [1, 2]);
        ledger.recheck_failed_attempts([3; 32]).await.unwrap();
        assert_eq!(due().await, [3]);
        ledger.note_checked([1; 32], None).await.unwrap();
        assert_eq!(due().await, [] as [u8; 0]);
    });
}
