//! Transfers: both phases, ids, and the balances.

use super::*;
use crate::LedgerError;
use crate::transfers::{POOL_HASH, POOL_LIGHTNING, Phase, Transfer, TransferId, transfer};

fn of(
    id: u8,
    phase: Phase,
    debit: &'static str,
    credit: &'static str,
    msat: i64,
) -> Transfer<'static> {
    Transfer {
        id: TransferId::of("test", &[id]),
        phase,
        debit,
        credit,
        amount: Msat::new(msat),
        reason: "test",
    }
}

/// Each in its own transaction, as callers do.
async fn make(ledger: &Ledger, entry: &Transfer<'_>) -> Result<(), LedgerError> {
    let mut transaction = ledger.pool.begin().await?;
    transfer(&mut transaction, entry).await?;
    transaction.commit().await?;
    Ok(())
}

async fn balance(ledger: &Ledger) -> (i64, i64) {
    let balance = ledger.balance("alice").await.unwrap();
    (balance.available.get(), balance.pending.get())
}

const ALICE: &str = "worker:alice";

#[test]
fn the_same_transfer_twice_is_one_and_another_under_its_id_is_refused() {
    run(|_db, ledger| async move {
        let first = of(1, Phase::Posted, POOL_HASH, ALICE, 100);
        make(&ledger, &first).await.unwrap();
        make(&ledger, &first).await.unwrap();
        assert_eq!(balance(&ledger).await, (100, 0));
        for other in [
            of(1, Phase::Posted, POOL_HASH, ALICE, 101),
            of(1, Phase::Pending, POOL_HASH, ALICE, 100),
            of(1, Phase::Posted, POOL_HASH, "worker:bob", 100),
        ] {
            let refused = make(&ledger, &other).await;
            assert!(
                matches!(refused, Err(LedgerError::Conflict(_))),
                "{refused:?}"
            );
        }
        assert_eq!(balance(&ledger).await, (100, 0));
    });
}

#[test]
fn a_worker_can_never_owe_the_pool_counting_what_is_pending() {
    run(|_db, ledger| async move {
        make(&ledger, &of(1, Phase::Posted, POOL_HASH, ALICE, 100))
            .await
            .unwrap();
        make(&ledger, &of(2, Phase::Pending, ALICE, POOL_LIGHTNING, 70))
            .await
            .unwrap();
        assert_eq!(balance(&ledger).await, (30, 70));
        for phase in [Phase::Posted, Phase::Pending] {
            let refused = make(&ledger, &of(3, phase, ALICE, POOL_LIGHTNING, 31)).await;
            assert!(
                matches!(refused, Err(LedgerError::Refused(_))),
                "{refused:?}"
            );
        }
        make(&ledger, &of(4, Phase::Pending, ALICE, POOL_LIGHTNING, 30))
            .await
            .unwrap();
        assert_eq!(balance(&ledger).await, (0, 100));
        let negative = make(&ledger, &of(5, Phase::Posted, POOL_HASH, ALICE, -1)).await;
        assert!(matches!(negative, Err(LedgerError::Refused(_))));
    });
}

#[test]
fn a_pending_transfer_ends_once_either_way() {
    run(|_db, ledger| async move {
        make(&ledger, &of(1, Phase::Posted, POOL_HASH, ALICE, 100))
            .await
            .unwrap();
        let pending = of(2, Phase::Pending, ALICE, POOL_LIGHTNING, 60);
        make(&ledger, &pending).await.unwrap();
        let void = of(3, Phase::Void(pending.id), ALICE, POOL_LIGHTNING, 60);
        let post = of(4, Phase::Post(pending.id), ALICE, POOL_LIGHTNING, 60);
        make(&ledger, &void).await.unwrap();
        make(&ledger, &void).await.unwrap();
        let refused = make(&ledger, &post).await;
        assert!(
            matches!(refused, Err(LedgerError::Conflict(_))),
            "{refused:?}"
        );
        assert_eq!(balance(&ledger).await, (100, 0));
        // Another amount, or the end of something that is not pending.
        let pending = of(5, Phase::Pending, ALICE, POOL_LIGHTNING, 60);
        make(&ledger, &pending).await.unwrap();
        for wrong in [
            of(6, Phase::Post(pending.id), ALICE, POOL_LIGHTNING, 59),
            of(
                7,
                Phase::Post(TransferId::of("test", &[1])),
                POOL_HASH,
                ALICE,
                100,
            ),
        ] {
            assert!(make(&ledger, &wrong).await.is_err());
        }
        assert_eq!(balance(&ledger).await, (40, 60));
    });
}

#[test]
fn of_two_withdrawals_at_once_only_what_is_there_goes_out() {
    run(|db, ledger| async move {
        make(&ledger, &of(1, Phase::Posted, POOL_HASH, ALICE, 100))
            .await
            .unwrap();
        let other = db.ledger().await;
        let (one, two) = (
            of(2, Phase::Pending, ALICE, POOL_LIGHTNING, 60),
            of(3, Phase::Pending, ALICE, POOL_LIGHTNING, 60),
        );
        let (first, second) = tokio::join!(make(&ledger, &one), make(&other, &two));
        assert_eq!(u8::from(first.is_ok()) + u8::from(second.is_ok()), 1);
        assert_eq!(balance(&ledger).await, (40, 60));
    });
}

/// As intervals are settled, and as no caller of ours does otherwise.
#[test]
fn transfers_of_one_statement_move_their_accounts_once_and_all_or_nothing() {
    run(|db, ledger| async move {
        make(&ledger, &of(1, Phase::Posted, POOL_HASH, ALICE, 100))
            .await
            .unwrap();
        make(&ledger, &of(2, Phase::Posted, POOL_HASH, "worker:bob", 1))
            .await
            .unwrap();
        let pending = of(3, Phase::Pending, ALICE, POOL_LIGHTNING, 60);
        make(&ledger, &pending).await.unwrap();
        let mut sql = db.connection().await;
        let rows = |rows: &str| {
            AssertSqlSafe(format!(
                "INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
                 SELECT decode(lpad(to_hex(given.id), 32, '0'), 'hex'), given.kind,
                        (SELECT id FROM transfers p WHERE p.kind = 'pending' AND p.amount = given.ends::bigint),
                        d.id, c.id, given.amount, 'test'
                   FROM (VALUES {rows}) AS given (id, kind, debit, credit, amount, ends)
                   JOIN accounts d ON d.name = given.debit JOIN accounts c ON c.name = given.credit"
            ))
        };
        // What was pending is moved, and three more move the same accounts.
        let moved = rows(
            "(10, 'post', 'worker:alice', 'pool:lightning', 60, 60),
             (11, 'posted', 'pool:hash', 'worker:alice', 5, NULL), (12, 'posted', 'pool:hash', 'worker:alice', 6, NULL),
             (13, 'pending', 'worker:alice', 'pool:lightning', 20, NULL)",
        );
        let moved = sqlx::query(moved).execute(&mut sql).await.unwrap();
        assert_eq!(moved.rows_affected(), 4);
        assert_eq!(balance(&ledger).await, (100 - 60 + 5 + 6 - 20, 20));
        // One of them has not enough; one ends what is not pending, or another amount.
        for refused in [
            "(20, 'posted', 'pool:hash', 'worker:alice', 5, NULL), (21, 'posted', 'worker:bob', 'pool:hash', 2, NULL)",
            "(22, 'posted', 'pool:hash', 'worker:alice', 5, NULL), (23, 'post', 'worker:alice', 'pool:lightning', 19, 20)",
        ] {
            let refused = sqlx::query(rows(refused)).execute(&mut sql).await;
            let refused = refused.unwrap_err().into_database_error().unwrap();
            assert_eq!(refused.code().unwrap(), "23514", "{refused}");
            assert_eq!(balance(&ledger).await, (31, 20));
        }
        assert_eq!(ledger.balance("bob").await.unwrap().available, Msat::new(1));
    });
}
