//! Payouts: money is set aside before it is sent, and given back only when it is proven unsent.

pub(super) mod destinations;
mod late;
mod onchain;
mod turns;

use bitcoin::hashes::{Hash, sha256};

use super::*;
use crate::{
    AttemptState, FeesBorneBy, LedgerError, NewAttempt, NewPayout, PayeeQuery, PayoutState, Proof,
    Rail, Success,
};

pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) fn preimage(n: u8) -> [u8; 32] {
    [n; 32]
}

pub(super) fn hash(n: u8) -> [u8; 32] {
    sha256::Hash::hash(&preimage(n)).to_byte_array()
}

pub(super) fn proof(n: u8, fee: i64) -> Proof {
    Proof {
        payment_hash: hash(n),
        preimage: preimage(n),
        fee: Msat::new(fee),
    }
}

/// The payout of this number; its attempt has the same.
pub(super) fn new_payout(n: u8, payee: &str, msat: i64, of_hash: u8, fee_max: i64) -> NewPayout {
    NewPayout {
        id: [n; 32],
        payee: payee.to_owned(),
        amount: Msat::new(msat),
        fees_borne_by: FeesBorneBy::Pool,
        attempt: NewAttempt {
            id: [n; 32],
            rail: Rail::Bolt11,
            destination: format!("lnbcrt1{of_hash}"),
            payment_hash: Some(hash(of_hash)),
            fee_max: Msat::new(fee_max),
            cltv_max: 432,
            expires_at_unix: unix_now() + 3_600,
        },
    }
}

/// The same by an offer: its hash is not known.
fn by_offer(payout: NewPayout) -> NewPayout {
    let attempt = NewAttempt {
        rail: Rail::Bolt12,
        payment_hash: None,
        ..payout.attempt
    };
    NewPayout { attempt, ..payout }
}

pub(super) async fn begin(
    ledger: &Ledger,
    n: u8,
    payee: &str,
    msat: i64,
) -> Result<(), LedgerError> {
    let payout = new_payout(n, payee, msat, n, 50);
    ledger.begin_payout(&payout, SOON).await
}

/// Who is claimed of those connected, with a lease of an hour.
pub(super) async fn claim(ledger: &Ledger, connected: &[&str], threshold: i64) -> Vec<String> {
    let connected: Vec<String> = connected.iter().map(|&name| name.to_owned()).collect();
    let query = PayeeQuery {
        connected: &connected,
        threshold: Msat::new(threshold),
        payout_max: Msat::new(1 << 40),
        onchain_threshold: None,
        lightning_addresses: true,
        limit: 32,
    };
    let due = ledger
        .claim_payees(&query, Duration::from_secs(3_600))
        .await
        .unwrap();
    let mut names: Vec<String> = due.into_iter().map(|due| due.payee).collect();
    names.sort();
    names
}

async fn earn(ledger: &Ledger, names: &[&str], msat: i64) {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(ledger, dir.path()).await;
    for (n, name) in (0..).zip(names) {
        let share = numbered_share(n, name, msat);
        running.committer.commit(share).await.unwrap();
    }
    running.stop().await;
}

async fn balance(ledger: &Ledger) -> (i64, i64) {
    let balance = ledger.balance("alice").await.unwrap();
    (balance.available.get(), balance.pending.get())
}

/// What has left an account of the pool: posted, pending.
async fn spent(ledger: &Ledger, account: &str) -> (i64, i64) {
    let spent =
        sqlx::query_as("SELECT debits_posted, debits_pending FROM accounts WHERE name = $1")
            .bind(account)
            .fetch_optional(&ledger.pool)
            .await
            .unwrap();
    spent.unwrap_or_default()
}

async fn fees(ledger: &Ledger) -> (i64, i64) {
    spent(ledger, "pool:lightning_fees").await
}

fn refused<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(matches!(result, Err(LedgerError::Refused(_))), "{result:?}");
}

fn conflicts<T: std::fmt::Debug>(result: Result<T, LedgerError>) {
    assert!(
        matches!(result, Err(LedgerError::Conflict(_))),
        "{result:?}"
    );
}

#[test]
fn a_payout_that_arrives_costs_the_worker_its_amount_and_the_pool_the_fee() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        assert_eq!(
            (balance(&ledger).await, fees(&ledger).await),
            ((1_000, 9_000), (0, 50))
        );
        ledger.note_dispatched([1; 32], SOON).await.unwrap();
        ledger.note_dispatched([1; 32], SOON).await.unwrap();
        refused(ledger.give_payout_up([1; 32], "other").await);
        let paid = ledger.note_succeeded([1; 32], &proof(1, 3)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        let again = ledger.note_succeeded([1; 32], &proof(1, 3)).await;
        assert_eq!(again.unwrap(), Success::Known);
        assert_eq!(
            (balance(&ledger).await, fees(&ledger).await),
            ((1_000, 0), (3, 0))
        );
        refused(ledger.note_failed([1; 32], "no_route", None).await);
        refused(ledger.give_payout_up([1; 32], "other").await);
        let stats = ledger.stats().await.unwrap();
        assert_eq!((stats.payouts, stats.paid), (1, Msat::new(9_000)));
        let record = &ledger.payout_records(None, false, 9).await.unwrap()[0];
        assert_eq!(record.attempts[0].fee, Some(Msat::new(3)));
        assert_eq!(record.attempts[0].state, AttemptState::Succeeded);
        assert_eq!(ledger.payout_records(None, true, 9).await.unwrap(), []);
    });
}

#[test]
fn a_fee_that_the_payee_bears_comes_from_its_balance_up_to_its_limit() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        let borne = |n, fee_max| NewPayout {
            fees_borne_by: FeesBorneBy::Payee,
            ..new_payout(n, "alice", 4_000, n, fee_max)
        };
        refused(ledger.begin_payout(&borne(9, 6_001), SOON).await);
        for (n, fee) in [(1, 30), (2, 60)] {
            ledger.begin_payout(&borne(n, 50), SOON).await.unwrap();
            assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
            let paid = ledger.note_succeeded([n; 32], &proof(n, fee)).await;
            assert_eq!(paid.unwrap(), Success::Paid);
        }
        // The wallet spent ten more than it should have.
        assert_eq!(balance(&ledger).await, (10_000 - 4_030 - 4_050, 0));
        assert_eq!(fees(&ledger).await, (10, 0));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn a_success_without_its_proof_is_refused() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice", "bob"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        let forged = Proof {
            preimage: preimage(2),
            ..proof(1, 0)
        };
        refused(ledger.note_succeeded([1; 32], &forged).await);
        refused(ledger.note_succeeded([1; 32], &proof(2, 0)).await);
        // The database itself holds to it, whoever writes.
        let by_hand = sqlx::query(
            "UPDATE attempts SET state = 'succeeded', preimage = sha256(id), fee_msat = 0, ended_at = now()",
        );
        let error = by_hand.execute(&ledger.pool).await.unwrap_err();
        assert!(error.to_string().contains("attempts_have_a_proof"));
        // An offer's hash comes with the proof.
        let offer = by_offer(new_payout(2, "bob", 9_000, 2, 50));
        ledger.begin_payout(&offer, SOON).await.unwrap();
        refused(ledger.note_succeeded([2; 32], &forged).await);
        assert_eq!(balance(&ledger).await, (1_000, 9_000));
        let paid = ledger.note_succeeded([2; 32], &proof(2, 0)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        // What one payout has paid proves nothing for another.
        let other = by_offer(new_payout(3, "bob", 500, 3, 0));
        ledger.begin_payout(&other, SOON).await.unwrap();
        conflicts(ledger.note_succeeded([3; 32], &proof(2, 0)).await);
    });
}

#[test]
fn a_payout_that_is_given_up_gives_the_money_back_once() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        for (n, is_dispatched) in [(1, false), (2, true)] {
            begin(&ledger, n, "alice", 9_000).await.unwrap();
            if is_dispatched {
                ledger.note_dispatched([n; 32], SOON).await.unwrap();
            }
            let failed = ledger.note_failed([n; 32], "no_route", Some(SOON));
            failed.await.unwrap();
            assert_eq!(balance(&ledger).await, (1_000, 9_000));
            ledger.give_payout_up([n; 32], "expired").await.unwrap();
            assert_eq!(
                (balance(&ledger).await, fees(&ledger).await),
                ((10_000, 0), (0, 0))
            );
            refused(ledger.give_payout_up([n; 32], "expired").await);
            refused(
                ledger
                    .prepare_attempt([n; 32], [9; 32], SOON)
                    .await
                    .map(drop),
            );
            refused(ledger.note_dispatched([n; 32], SOON).await);
        }
    });
}

#[test]
fn a_payee_has_one_payout_at_a_time_and_a_hash_belongs_to_one_payout_ever() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice", "bob"], 10_000).await;
        let other = db.ledger().await;
        let (first, second) = tokio::join!(
            begin(&ledger, 1, "alice", 3_000),
            begin(&other, 2, "alice", 3_000),
        );
        assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1);
        assert_eq!(balance(&ledger).await, (7_000, 3_000));
        let used = if first.is_ok() { 1 } else { 2 };
        let theft = new_payout(3, "bob", 3_000, used, 0);
        conflicts(ledger.begin_payout(&theft, SOON).await);
        ledger
            .note_failed([used; 32], "no_route", None)
            .await
            .unwrap();
        ledger.give_payout_up([used; 32], "expired").await.unwrap();
        conflicts(ledger.begin_payout(&theft, SOON).await);
        // The name of a payout is its own as well.
        conflicts(begin(&ledger, used, "bob", 1_000).await);
        assert_eq!(balance(&ledger).await, (10_000, 0));
        refused(begin(&ledger, 4, "bob", 0).await);
        refused(begin(&ledger, 4, "bob", 10_001).await);
        assert!(matches!(
            ledger.note_dispatched([77; 32], SOON).await,
            Ok(())
        ));
    });
}

#[test]
fn a_payout_has_one_open_attempt_and_the_next_one_pays_the_same_invoice() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        for n in 2..5 {
            refused(
                ledger
                    .prepare_attempt([1; 32], [n; 32], SOON)
                    .await
                    .map(drop),
            );
            ledger
                .note_failed([n - 1; 32], "no_route", None)
                .await
                .unwrap();
            conflicts(
                ledger
                    .prepare_attempt([1; 32], [1; 32], SOON)
                    .await
                    .map(drop),
            );
            let next = ledger
                .prepare_attempt([1; 32], [n; 32], SOON)
                .await
                .unwrap();
            assert_eq!((next.state, next.payout), (AttemptState::Prepared, [1; 32]));
            assert_eq!(next.payment_hash, Some(hash(1)));
            assert_eq!(next.destination, "lnbcrt11");
        }
        let by_hand = sqlx::query(
            "INSERT INTO attempts (id, payout, n, rail, destination, payment_hash, fee_max_msat, cltv_max, expires_at, state)
             SELECT sha256(id), payout, 99, rail, destination, payment_hash, 0, 1, now(), 'prepared' FROM attempts LIMIT 1",
        );
        let error = by_hand.execute(&ledger.pool).await.unwrap_err();
        assert!(error.to_string().contains("attempts_one_open"), "{error}");
        assert_eq!(balance(&ledger).await, (1_000, 9_000));
    });
}

#[test]
fn payouts_and_attempts_cannot_be_changed_or_deleted_even_by_hand() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice", "bob"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        begin(&ledger, 2, "bob", 9_000).await.unwrap();
        ledger.note_failed([2; 32], "no_route", None).await.unwrap();
        let mut by_hand = db.connection().await;
        for sql in [
            "UPDATE payouts SET state = 'paid', fee_msat = 0",
            "UPDATE payouts SET state = 'failed', failure_class = 'other'",
            "UPDATE payouts SET amount_msat = 1",
            "UPDATE payouts SET payment_hash = NULL",
            "UPDATE payouts SET transfer = NULL",
            "DELETE FROM payouts",
            "TRUNCATE payouts CASCADE",
            "INSERT INTO payouts (id, worker, amount_msat, state) VALUES (sha256('x'), 'alice', 5, 'reserved')",
            "INSERT INTO payouts (id, worker, amount_msat, state) VALUES (sha256('x'), 'alice', 5, 'paid')",
            "UPDATE attempts SET state = 'prepared' WHERE state = 'failed'",
            "UPDATE attempts SET state = 'dispatched' WHERE state = 'failed'",
            "UPDATE attempts SET failure_class = 'other' WHERE state = 'failed'",
            "UPDATE attempts SET destination = 'lnbcrt1mine'",
            "UPDATE attempts SET payment_hash = sha256('x')",
            "UPDATE attempts SET fee_max_msat = 7",
            "DELETE FROM attempts",
            "TRUNCATE attempts CASCADE",
        ] {
            let refused = sqlx::query(sql).execute(&mut by_hand).await;
            let message = refused.expect_err(sql).to_string();
            assert!(message.contains("are facts"), "{sql}: {message}");
        }
        assert_eq!(balance(&ledger).await, (1_000, 9_000));
    });
}

#[test]
fn what_nobody_can_know_is_decided_by_hand_and_with_the_proof() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice", "bob"], 10_000).await;
        begin(&ledger, 1, "alice", 9_000).await.unwrap();
        refused(ledger.decide_paid([1; 32], preimage(1)).await);
        refused(ledger.decide_failed([1; 32]).await);
        ledger.note_dispatched([1; 32], SOON).await.unwrap();
        ledger
            .note_review([1; 32], "forgotten", SOON)
            .await
            .unwrap();
        let record = ledger.payout_records(Some("alice"), true, 9).await.unwrap();
        assert_eq!(record[0].attempts[0].state, AttemptState::Review);
        let class = record[0].attempts[0].failure_class.as_deref();
        assert_eq!(class, Some("forgotten"));
        refused(ledger.decide_paid([1; 32], preimage(2)).await);
        let paid = ledger.decide_paid([1; 32], preimage(1)).await;
        assert_eq!(paid.unwrap(), Success::Paid);
        refused(ledger.decide_failed([1; 32]).await);
        assert_eq!(balance(&ledger).await, (1_000, 0));

        begin(&ledger, 2, "bob", 9_000).await.unwrap();
        ledger.note_review([2; 32], "wallet", SOON).await.unwrap();
        refused(ledger.give_payout_up([2; 32], "expired").await);
        ledger.decide_failed([2; 32]).await.unwrap();
        ledger.give_payout_up([2; 32], "expired").await.unwrap();
        let bob = ledger.balance("bob").await.unwrap();
        assert_eq!((bob.available.get(), bob.pending.get()), (10_000, 0));
        // The operator was wrong.
        let late = ledger.note_succeeded([2; 32], &proof(2, 0)).await.unwrap();
        assert!(matches!(late, Success::Late { .. }));
        let states: Vec<PayoutState> = ledger
            .payout_records(None, false, 9)
            .await
            .unwrap()
            .iter()
            .map(|record| record.state)
            .collect();
        assert_eq!(states, [PayoutState::Paid; 2]);
    });
}
