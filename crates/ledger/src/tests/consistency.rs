//! What comes in past triggers and constraints is found.

use super::*;

/// What was done to the tables, and a word of the rule that is broken then.
const FAULTS: [(&str, &str); 15] = [
    (
        "UPDATE accounts SET credits_posted = credits_posted + 1 WHERE name = 'worker:alice'",
        "totals",
    ),
    (
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
      SELECT '\\x00112233445566778899aabbccddeeff', 'posted', p.id, a.id, 5, 'reward'
        FROM accounts p, accounts a WHERE p.name = 'pool:rewards' AND a.name = 'worker:alice'",
        "credited",
    ),
    (
        "DELETE FROM block_credits WHERE amount_msat = (SELECT min(amount_msat) FROM block_credits)",
        "reward",
    ),
    ("UPDATE block_rewards SET state = 'active'", "matured"),
    ("UPDATE block_rewards SET fee_msat = fee_msat + 1", "fees"),
    (
        "UPDATE reward_slices SET previous = root WHERE number = 1",
        "follow",
    ),
    (
        "UPDATE slice_work SET weight = weight + 1 WHERE slice = 0 AND account = (SELECT min(account) FROM slice_work)",
        "work",
    ),
    (
        "DELETE FROM window_now WHERE account = (SELECT min(account) FROM window_now)",
        "window",
    ),
    (
        "UPDATE payees SET destination = NULL WHERE payee = 'alice'",
        "statement",
    ),
    (
        "UPDATE destinations SET made_at = 'epoch' WHERE replaces IS NOT NULL",
        "statement",
    ),
    (
        "INSERT INTO slice_shares (slice, piece, shares, bytes) VALUES (0, 99, 1000, 'x')",
        "shown",
    ),
    ("UPDATE reward_chain SET work_from = 1024", "dropped"),
    // What adds up all the same.
    (
        "UPDATE block_credits SET amount_msat = 990000 - amount_msat",
        "signed",
    ),
    ("UPDATE block_rewards SET height = height + 1", "signed"),
    ("UPDATE block_rewards SET parts = parts + 1", "signed"),
];

#[test]
fn a_ledger_that_was_only_used_is_what_its_facts_say_and_every_fault_is_found() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        rewards::a_matured_block(&ledger, dir.path()).await;
        payouts::destinations::state(&ledger, "alice", "first@wallet.example", 1).await;
        payouts::destinations::state(&ledger, "alice", "second@wallet.example", 2).await;
        let found = ledger.check_consistency().await.unwrap();
        assert_eq!(found.differences, []);
        let sums = found.obligations;
        let sums = [
            sums.owed,
            sums.held,
            sums.immature,
            sums.rewards,
            sums.fees,
            sums.paid,
        ];
        assert_eq!(sums.map(Msat::get), [990_000, 0, 0, 1_000_000, 10_000, 0]);
        every_fault_is_found(&db, &FAULTS).await;
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

/// Does each of these to the tables, and takes it back: what was done, and a word of the rule that is broken then.
pub(super) async fn every_fault_is_found(db: &Database, faults: &[(&'static str, &str)]) {
    for (fault, word) in faults {
        let mut connection = db.connection().await;
        // As a superuser may, or a table that was restored without the others.
        let mut change = connection.begin().await.unwrap();
        sqlx::raw_sql("SET LOCAL session_replication_role = replica")
            .execute(&mut *change)
            .await
            .unwrap();
        let changed = sqlx::raw_sql(*fault).execute(&mut *change).await.unwrap();
        assert!(changed.rows_affected() > 0, "{fault}");
        let found = crate::consistency::differences(&mut change).await.unwrap();
        assert!(
            found
                .iter()
                .any(|difference| difference.rule.contains(word)),
            "{fault}: {found:?}"
        );
        change.rollback().await.unwrap();
    }
}
