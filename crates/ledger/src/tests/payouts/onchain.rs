//! Batches: stored whole, replaced so that one can confirm, booked at once; and what the database refuses whoever asks.

use super::super::consistency::every_fault_is_found;
use super::*;
use crate::{Attempt, NewOutput, NewTransaction, OnchainBatch, OnchainState};

const FEE_MAX: i64 = 2_000_000;

fn onchain(n: u8, payee: &str, sat: i64, fees_borne_by: FeesBorneBy) -> NewPayout {
    let payout = new_payout(n, payee, sat * 1_000, n, FEE_MAX);
    NewPayout {
        fees_borne_by,
        attempt: NewAttempt {
            rail: Rail::Onchain,
            destination: format!("bcrt1q{n}"),
            payment_hash: None,
            ..payout.attempt
        },
        ..payout
    }
}

fn output(n: u8, sat: i64) -> NewOutput {
    NewOutput {
        attempt: [n; 32],
        script: vec![n; 22],
        amount_sat: sat,
    }
}

/// The transaction of this number, which spends the coins of these numbers.
fn spending(n: u8, coins: &[u8], fee_sat: i64) -> NewTransaction {
    NewTransaction {
        txid: [n; 32],
        raw: vec![n; 100],
        inputs: coins.iter().map(|&coin| [coin; 36]).collect(),
        fee_sat,
        tip_height: 100,
    }
}

/// Two payees with a payout each, of 50,000 and 40,000 sat.
async fn two_wait(ledger: &Ledger, fees_borne_by: FeesBorneBy) {
    earn(ledger, &["alice", "bob"], 100_000_000).await;
    both_begin(ledger, fees_borne_by).await;
}

async fn both_begin(ledger: &Ledger, fees_borne_by: FeesBorneBy) {
    for (n, payee, sat) in [(1, "alice", 50_000), (2, "bob", 40_000)] {
        let payout = onchain(n, payee, sat, fees_borne_by);
        ledger.begin_payout(&payout, SOON).await.unwrap();
    }
}

async fn begun(ledger: &Ledger) -> i64 {
    let outputs = [output(1, 50_000), output(2, 40_000)];
    ledger
        .begin_batch(&outputs, &spending(11, &[1], 301))
        .await
        .unwrap()
}

/// So many payouts that are to be tried again. What was refused just now is rolled back behind the refusal, and may hold its
/// locks for a moment: the ledger passes over what is locked.
async fn due_again(ledger: &Ledger, count: usize) -> Vec<Attempt> {
    let mut due = Vec::new();
    for _ in 0..500 {
        due.extend(ledger.claim_retries(9, SOON).await.unwrap());
        if due.len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(due.len(), count);
    due
}

async fn open(ledger: &Ledger) -> OnchainBatch {
    ledger.open_batch().await.unwrap().unwrap()
}

const BLOCK: ([u8; 32], u32) = ([77; 32], 101);

fn shares(sat: [i64; 2]) -> [Msat; 2] {
    sat.map(|sat| Msat::new(sat * 1_000))
}

/// What an account has, and what is set aside on it.
async fn holds(ledger: &Ledger, account: &str) -> (i64, i64) {
    sqlx::query_as(
        "SELECT credits_posted - debits_posted, debits_pending FROM accounts WHERE name = $1",
    )
    .bind(account)
    .fetch_one(&ledger.pool)
    .await
    .unwrap()
}

#[test]
fn a_batch_pays_all_of_its_payees_at_once_and_divides_its_fee() {
    for by in [FeesBorneBy::Pool, FeesBorneBy::Payee] {
        run(move |_db, ledger| async move {
            two_wait(&ledger, by).await;
            // The Lightning wallet is never asked about them.
            ledger.recheck_open_attempts().await.unwrap();
            assert!(ledger.claim_checks(9, SOON).await.unwrap().is_empty());
            let waiting = ledger.waiting_outputs(9).await.unwrap();
            assert_eq!(waiting.len(), 2);
            assert_eq!(
                (&*waiting[0].address, waiting[0].has_expired),
                ("bcrt1q1", false)
            );
            let number = begun(&ledger).await;
            assert!(ledger.waiting_outputs(9).await.unwrap().is_empty());
            ledger.note_broadcast([11; 32]).await.unwrap();
            ledger
                .add_transaction(number, &spending(12, &[1, 2], 603))
                .await
                .unwrap();
            let batch = open(&ledger).await;
            assert_eq!(batch.newest().unwrap().n, 2);
            assert_eq!(batch.outputs[1].payee, "bob");
            let parts = shares([302, 301]);
            let booked = ledger
                .confirm_batch(number, [12; 32], BLOCK, &parts)
                .await
                .unwrap();
            assert_eq!(booked.len(), 2);
            assert_eq!(
                (booked[0].success, booked[0].fee),
                (Success::Paid, parts[0])
            );
            // Again: nothing more.
            let again = ledger.confirm_batch(number, [12; 32], BLOCK, &parts).await;
            assert!(again.unwrap().is_empty());
            let borne = if by == FeesBorneBy::Payee { 302_000 } else { 0 };
            assert_eq!(
                holds(&ledger, "worker:alice").await,
                (50_000_000 - borne, 0)
            );
            assert_eq!(holds(&ledger, "pool:onchain").await, (90_603_000, 0));
            let fees = if by == FeesBorneBy::Pool { -603_000 } else { 0 };
            assert_eq!(holds(&ledger, "pool:onchain_fees").await, (fees, 0));
            let record = &ledger.payout_records(Some("bob"), false, 9).await.unwrap()[0];
            assert_eq!(record.state, PayoutState::Paid);
            assert_eq!(record.attempts[0].txid, Some([12; 32]));
            let found = ledger.check_consistency().await.unwrap();
            assert_eq!(found.differences, []);
            assert_eq!(found.obligations.paid.get(), 90_603_000);
            // Another block may come to have it.
            ledger.note_moved([12; 32], ([78; 32], 102)).await.unwrap();
            refused(ledger.note_moved([11; 32], BLOCK).await);
            let paid = ledger.paid_batches().await.unwrap();
            assert_eq!(paid[0].transactions[1].block, Some(([78; 32], 102)));
            ledger.note_buried(number).await.unwrap();
            assert!(ledger.paid_batches().await.unwrap().is_empty());
        });
    }
}

#[test]
fn one_batch_is_open_at_a_time_and_its_transactions_replace_each_other() {
    run(|_db, ledger| async move {
        two_wait(&ledger, FeesBorneBy::Pool).await;
        let pay = |n, sat| [output(n, sat)];
        // Not what the payout says; not what waits; more than was set aside for the fee.
        refused(
            ledger
                .begin_batch(&pay(1, 50_001), &spending(11, &[1], 9))
                .await,
        );
        refused(
            ledger
                .begin_batch(&pay(9, 50_000), &spending(11, &[1], 9))
                .await,
        );
        refused(
            ledger
                .begin_batch(&pay(1, 50_000), &spending(11, &[1], 2_001))
                .await,
        );
        assert!(ledger.open_batch().await.unwrap().is_none());
        let number = ledger
            .begin_batch(&pay(1, 50_000), &spending(11, &[1, 2], 9))
            .await
            .unwrap();
        refused(
            ledger
                .begin_batch(&pay(2, 40_000), &spending(13, &[3], 9))
                .await,
        );
        // It would not keep the first from confirming as well.
        refused(
            ledger
                .add_transaction(number, &spending(12, &[1, 3], 10))
                .await,
        );
        refused(
            ledger
                .add_transaction(number, &spending(12, &[3], 10))
                .await,
        );
        refused(
            ledger
                .add_transaction(number + 1, &spending(12, &[1, 2], 10))
                .await,
        );
        ledger
            .add_transaction(number, &spending(12, &[3, 2, 1], 10))
            .await
            .unwrap();
        refused(
            ledger
                .add_transaction(number, &spending(13, &[1, 2], 11))
                .await,
        );
    });
}

#[test]
fn a_batch_is_booked_by_its_own_transactions_and_fees() {
    run(|_db, ledger| async move {
        two_wait(&ledger, FeesBorneBy::Pool).await;
        let number = ledger
            .begin_batch(&[output(1, 50_000)], &spending(11, &[1, 2], 9))
            .await
            .unwrap();
        ledger
            .add_transaction(number, &spending(12, &[3, 2, 1], 10))
            .await
            .unwrap();
        // A fee that is not its own, or a transaction of nobody's, is not booked.
        let part = |sat: i64| [Msat::new(sat * 1_000)];
        refused(
            ledger
                .confirm_batch(number, [12; 32], BLOCK, &part(9))
                .await,
        );
        refused(
            ledger
                .confirm_batch(number, [12; 32], BLOCK, &shares([5, 5]))
                .await,
        );
        refused(
            ledger
                .confirm_batch(number, [99; 32], BLOCK, &part(10))
                .await,
        );
        // The first one may be what confirms.
        ledger
            .confirm_batch(number, [11; 32], BLOCK, &part(9))
            .await
            .unwrap();
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        refused(
            ledger
                .add_transaction(number, &spending(14, &[1, 2, 3], 20))
                .await,
        );
    });
}

#[test]
fn a_batch_that_never_confirms_is_tried_again_and_pays_once() {
    run(|_db, ledger| async move {
        two_wait(&ledger, FeesBorneBy::Payee).await;
        let number = begun(&ledger).await;
        // Nobody but the chain ends it.
        refused(ledger.note_failed([1; 32], "other", None).await);
        refused(ledger.give_payout_up([1; 32], "other").await);
        refused(ledger.fail_batch(number, "conflict", Duration::ZERO).await);
        ledger.note_conflict(number, Some(105)).await.unwrap();
        ledger.note_conflict(number, None).await.unwrap();
        refused(ledger.fail_batch(number, "conflict", Duration::ZERO).await);
        ledger.note_conflict(number, Some(106)).await.unwrap();
        assert_eq!(open(&ledger).await.conflict_height, Some(106));
        ledger
            .fail_batch(number, "conflict", Duration::ZERO)
            .await
            .unwrap();
        assert!(ledger.open_batch().await.unwrap().is_none());
        refused(
            ledger
                .confirm_batch(number, [11; 32], BLOCK, &shares([151, 150]))
                .await,
        );
        // The money is set aside still; a new attempt waits for another batch.
        assert_eq!(
            holds(&ledger, "worker:alice").await,
            (100_000_000, 52_000_000)
        );
        let due = due_again(&ledger, 2).await;
        for (n, last) in (3_u8..).zip(due.iter().filter(|last| last.payee == "alice")) {
            ledger
                .prepare_attempt(last.payout, [n; 32], SOON)
                .await
                .unwrap();
        }
        let again = ledger
            .begin_batch(&[output(3, 50_000)], &spending(21, &[5], 200))
            .await
            .unwrap();
        let booked = ledger
            .confirm_batch(again, [21; 32], BLOCK, &[Msat::new(200_000)])
            .await
            .unwrap();
        assert_eq!(booked[0].success, Success::Paid);
        assert_eq!(holds(&ledger, "pool:onchain").await, (50_200_000, 0));
        // The other one is given up.
        ledger.give_payout_up([2; 32], "conflict").await.unwrap();
        assert_eq!(holds(&ledger, "worker:bob").await, (100_000_000, 0));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn what_waits_for_no_batch_can_be_given_up_and_says_why_it_waits() {
    run(|_db, ledger| async move {
        let key = "3a".repeat(32);
        let names = ["alice", "bob", "bcrt1qcarol", "m1", &*key];
        earn(&ledger, &names, 100_000_000).await;
        both_begin(&ledger, FeesBorneBy::Pool).await;
        ledger.note_failed([1; 32], "expired", None).await.unwrap();
        ledger.give_payout_up([1; 32], "expired").await.unwrap();
        assert_eq!(holds(&ledger, "worker:alice").await, (100_000_000, 0));
        ledger
            .note_waiting(&["bob".to_owned()], "pool_short")
            .await
            .unwrap();
        let standing = ledger.payee_standing("bob").await.unwrap().unwrap();
        assert_eq!(
            (standing.failure_class.as_deref(), standing.tries),
            (Some("pool_short"), 0)
        );
    });
}

#[test]
fn batches_cannot_be_changed_by_hand() {
    run(|db, ledger| async move {
        two_wait(&ledger, FeesBorneBy::Pool).await;
        let number = begun(&ledger).await;
        let mut by_hand = db.connection().await;
        for sql in [
            "DELETE FROM onchain_batches",
            "UPDATE onchain_batches SET state = 'paid'",
            "UPDATE onchain_batches SET state = 'buried'",
            "UPDATE onchain_batches SET state = 'failed'",
            "UPDATE onchain_batches SET since_height = 0",
            "INSERT INTO onchain_batches (since_height, state) VALUES (1, 'failed')",
            "TRUNCATE onchain_batches CASCADE",
            "DELETE FROM onchain_outputs",
            "UPDATE onchain_outputs SET amount_sat = amount_sat + 1",
            "TRUNCATE onchain_outputs",
            "DELETE FROM onchain_transactions",
            "UPDATE onchain_transactions SET raw = raw || raw",
            "UPDATE onchain_transactions SET fee_sat = 1",
            "TRUNCATE onchain_transactions CASCADE",
            "UPDATE attempts SET state = 'failed', failure_class = 'other', ended_at = now()",
            "UPDATE attempts SET state = 'succeeded', fee_msat = 1, ended_at = now(), txid = '\\x0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b'",
            "UPDATE attempts SET state = 'succeeded', fee_msat = 1, ended_at = now()",
        ] {
            sqlx::query(sql).execute(&mut by_hand).await.expect_err(sql);
        }
        // A batch without a transaction does not come to be.
        ledger.note_conflict(number, Some(1)).await.unwrap();
        ledger.fail_batch(number, "conflict", SOON).await.unwrap();
        sqlx::query("INSERT INTO onchain_batches (since_height) VALUES (1)")
            .execute(&mut by_hand)
            .await
            .unwrap_err();
        assert_eq!(OnchainState::Failed.name(), "failed");
    });
}

/// What was done to the tables past their triggers, and a word of the rule that is broken then.
const FAULTS: [(&str, &str); 8] = [
    (
        "DELETE FROM onchain_transactions WHERE state = 'confirmed'",
        "has confirmed",
    ),
    ("UPDATE onchain_batches SET state = 'open'", "has confirmed"),
    (
        "UPDATE attempts SET state = 'dispatched', txid = NULL, fee_msat = NULL, ended_at = NULL WHERE rail = 'onchain'",
        "has confirmed",
    ),
    (
        "UPDATE onchain_outputs SET amount_sat = amount_sat + 1 WHERE vout = 0",
        "says",
    ),
    (
        "UPDATE onchain_transactions SET fee_sat = fee_sat + 1",
        "are its fee",
    ),
    (
        "UPDATE attempts SET fee_msat = fee_msat + 1000 WHERE rail = 'onchain'",
        "are its fee",
    ),
    (
        "UPDATE onchain_transactions SET inputs = inputs[2:] WHERE n = 2",
        "earlier ones",
    ),
    (
        "UPDATE accounts SET credits_posted = credits_posted + 1 WHERE name = 'pool:onchain'",
        "has left on the chain",
    ),
];

#[test]
fn what_comes_in_past_the_triggers_is_found() {
    run(|db, ledger| async move {
        two_wait(&ledger, FeesBorneBy::Pool).await;
        let number = begun(&ledger).await;
        ledger
            .add_transaction(number, &spending(12, &[1, 2], 603))
            .await
            .unwrap();
        ledger
            .confirm_batch(number, [12; 32], BLOCK, &shares([302, 301]))
            .await
            .unwrap();
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        every_fault_is_found(&db, &FAULTS).await;
    });
}
