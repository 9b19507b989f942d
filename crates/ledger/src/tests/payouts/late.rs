//! Successes that come after a failure was proven: the money has left, and is booked once.

use super::*;

async fn late(ledger: &Ledger, attempt: u8, of_hash: u8) -> (i64, i64) {
    let success = ledger
        .note_succeeded([attempt; 32], &proof(of_hash, 4))
        .await;
    let Success::Late { from_balance, loss } = success.unwrap() else {
        panic!("it was not booked as a late success");
    };
    (from_balance.get(), loss.get())
}

#[test]
fn a_late_success_comes_from_the_balance_and_the_rest_is_the_pools_loss() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        ledger.note_failed([1; 32], "other", None).await.unwrap();
        ledger.give_payout_up([1; 32], "expired").await.unwrap();
        // Meanwhile the next payout has taken most of it.
        begin(&ledger, 2, "alice", 8_000).await.unwrap();
        assert_eq!(late(&ledger, 1, 1).await, (2_000, 7_000));
        let known = ledger.note_succeeded([1; 32], &proof(1, 4)).await;
        assert_eq!(known.unwrap(), Success::Known);
        assert_eq!(balance(&ledger).await, (0, 8_000));
        assert_eq!(spent(&ledger, "pool:loss").await, (7_000, 0));
        assert_eq!(fees(&ledger).await, (4, 50));
        let paid = ledger.note_succeeded([2; 32], &proof(2, 0)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        let stats = ledger.stats().await.unwrap();
        assert_eq!((stats.payouts, stats.paid), (2, Msat::new(17_000)));
        super::super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn a_late_success_of_an_invoice_that_is_tried_again_pays_the_payout_once() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        ledger.note_failed([1; 32], "other", None).await.unwrap();
        ledger
            .prepare_attempt([1; 32], [2; 32], SOON)
            .await
            .unwrap();
        let paid = ledger.note_succeeded([1; 32], &proof(1, 4)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        // The second one was not dispatched, and need not be; if it was, it is the same payment.
        let record = &ledger.payout_records(None, false, 9).await.unwrap()[0];
        assert_eq!(record.attempts[1].state, AttemptState::Failed);
        let twin = ledger.note_succeeded([2; 32], &proof(1, 4)).await;
        assert_eq!(twin.unwrap(), Success::Known);
        assert_eq!(balance(&ledger).await, (1_000, 0));
        assert_eq!(fees(&ledger).await, (4, 0));
        assert_eq!(spent(&ledger, "pool:loss").await, (0, 0));
    });
}

#[test]
fn an_offer_that_two_attempts_have_paid_is_booked_twice_and_the_second_time_as_a_loss() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        let payout = by_offer(new_payout(1, "alice", 9_000, 1, 50));
        ledger.begin_payout(&payout, SOON).await.unwrap();
        ledger.note_failed([1; 32], "other", None).await.unwrap();
        ledger
            .prepare_attempt([1; 32], [2; 32], SOON)
            .await
            .unwrap();
        ledger.note_dispatched([2; 32], SOON).await.unwrap();
        let paid = ledger.note_succeeded([1; 32], &proof(1, 0)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        assert_eq!(late(&ledger, 2, 2).await, (1_000, 8_000));
        assert_eq!(balance(&ledger).await, (0, 0));
        assert_eq!(spent(&ledger, "pool:loss").await, (8_000, 0));
        super::super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
