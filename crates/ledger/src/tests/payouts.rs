//! Payouts: money is set aside before it is sent, and given back only when it is proven unsent.

use super::*;
use crate::{LedgerError, PayoutState};

const ID: [u8; 32] = [1; 32];
const HASH: [u8; 32] = [2; 32];

async fn with_balance(ledger: &Ledger, msat: i64) {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(ledger, dir.path()).await;
    running
        .committer
        .commit(hash_share(1, "alice", msat))
        .await
        .unwrap();
    running.stop().await;
}

async fn balance(ledger: &Ledger) -> (i64, i64) {
    let balance = ledger.balance("alice").await.unwrap();
    (balance.available.get(), balance.pending.get())
}

/// What the pool's account of fees stands at: posted, pending.
async fn fees(ledger: &Ledger) -> (i64, i64) {
    sqlx::query_as(
        "SELECT debits_posted, debits_pending FROM accounts WHERE name = 'pool:lightning_fees'",
    )
    .fetch_one(&ledger.pool)
    .await
    .unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(matches!(result, Err(LedgerError::Refused(_))), "{result:?}");
}

#[test]
fn a_payout_that_arrives_costs_the_worker_its_amount_and_the_pool_the_fee() {
    run(|_db, ledger| async move {
        with_balance(&ledger, 10_000).await;
        let due = ledger
            .workers_with_balance_at_least(Msat::new(10_000), 5)
            .await
            .unwrap();
        assert_eq!(due, [("alice".to_owned(), Msat::new(10_000))]);
        ledger
            .create_payout(ID, "alice", Msat::new(9_000))
            .await
            .unwrap();
        assert_eq!(balance(&ledger).await, (10_000, 0));
        refused(ledger.mark_sent(ID).await);
        ledger
            .reserve_payout(ID, "lnbcrt1", HASH, Msat::new(50))
            .await
            .unwrap();
        assert_eq!(
            (balance(&ledger).await, fees(&ledger).await),
            ((1_000, 9_000), (0, 50))
        );
        refused(ledger.settle_payout(ID, Msat::new(3)).await);
        ledger.mark_sent(ID).await.unwrap();
        let open = ledger.open_payouts().await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!(
            (open[0].state, open[0].payment_hash),
            (PayoutState::Sent, HASH)
        );
        ledger.settle_payout(ID, Msat::new(3)).await.unwrap();
        assert_eq!(
            (balance(&ledger).await, fees(&ledger).await),
            ((1_000, 0), (3, 0))
        );
        refused(ledger.settle_payout(ID, Msat::new(3)).await);
        refused(ledger.fail_payout(ID).await);
        assert!(ledger.open_payouts().await.unwrap().is_empty());
        let stats = ledger.stats().await.unwrap();
        assert_eq!((stats.payouts, stats.paid), (1, Msat::new(9_000)));
        assert!(
            ledger
                .workers_with_balance_at_least(Msat::new(1_001), 5)
                .await
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_payout_that_failed_gives_the_money_back_once() {
    run(|_db, ledger| async move {
        with_balance(&ledger, 10_000).await;
        for (n, sent) in [(1u8, false), (2, true)] {
            let id = [n; 32];
            ledger
                .create_payout(id, "alice", Msat::new(9_000))
                .await
                .unwrap();
            ledger
                .reserve_payout(id, "lnbcrt1", [n; 32], Msat::new(50))
                .await
                .unwrap();
            if sent {
                ledger.mark_sent(id).await.unwrap();
            }
            ledger.fail_payout(id).await.unwrap();
            assert_eq!(
                (balance(&ledger).await, fees(&ledger).await),
                ((10_000, 0), (0, 0))
            );
            refused(ledger.fail_payout(id).await);
            refused(ledger.mark_sent(id).await);
            refused(ledger.settle_payout(id, Msat::ZERO).await);
        }
        // One that never came to a reservation, and one without a fee.
        ledger
            .create_payout([3; 32], "alice", Msat::new(1))
            .await
            .unwrap();
        ledger.fail_payout([3; 32]).await.unwrap();
        ledger
            .create_payout([4; 32], "alice", Msat::new(10_000))
            .await
            .unwrap();
        ledger
            .reserve_payout([4; 32], "lnbcrt1", [4; 32], Msat::ZERO)
            .await
            .unwrap();
        ledger.mark_sent([4; 32]).await.unwrap();
        ledger.settle_payout([4; 32], Msat::ZERO).await.unwrap();
        assert_eq!(balance(&ledger).await, (0, 0));
    });
}

#[test]
fn a_payment_hash_is_reserved_once_ever() {
    run(|_db, ledger| async move {
        with_balance(&ledger, 10_000).await;
        ledger
            .create_payout(ID, "alice", Msat::new(1_000))
            .await
            .unwrap();
        ledger
            .reserve_payout(ID, "lnbcrt1", HASH, Msat::ZERO)
            .await
            .unwrap();
        ledger.fail_payout(ID).await.unwrap();
        ledger
            .create_payout([9; 32], "alice", Msat::new(1_000))
            .await
            .unwrap();
        let again = ledger
            .reserve_payout([9; 32], "lnbcrt1", HASH, Msat::ZERO)
            .await;
        assert!(matches!(again, Err(LedgerError::Conflict(_))), "{again:?}");
        assert_eq!(balance(&ledger).await, (10_000, 0));
        // The refused reservation left the payout where it was.
        ledger
            .reserve_payout([9; 32], "lnbcrt1", [3; 32], Msat::ZERO)
            .await
            .unwrap();
    });
}

#[test]
fn more_than_the_balance_is_never_set_aside_even_at_once() {
    run(|db, ledger| async move {
        with_balance(&ledger, 10_000).await;
        let other = db.ledger().await;
        ledger
            .create_payout([1; 32], "alice", Msat::new(6_000))
            .await
            .unwrap();
        ledger
            .create_payout([2; 32], "alice", Msat::new(6_000))
            .await
            .unwrap();
        let (first, second) = tokio::join!(
            ledger.reserve_payout([1; 32], "lnbcrt1", [1; 32], Msat::ZERO),
            other.reserve_payout([2; 32], "lnbcrt1", [2; 32], Msat::ZERO),
        );
        assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1);
        assert_eq!(balance(&ledger).await, (4_000, 6_000));
    });
}

#[test]
fn a_payout_id_names_one_payout() {
    run(|_db, ledger| async move {
        ledger
            .create_payout(ID, "alice", Msat::new(1_000))
            .await
            .unwrap();
        ledger
            .create_payout(ID, "alice", Msat::new(1_000))
            .await
            .unwrap();
        let other = ledger.create_payout(ID, "alice", Msat::new(2_000)).await;
        assert!(matches!(other, Err(LedgerError::Conflict(_))));
        refused(ledger.create_payout([5; 32], "alice", Msat::ZERO).await);
        refused(ledger.mark_sent([6; 32]).await);
    });
}
