//! What an earlier release left, and what becomes of it.

use super::*;
use crate::CommitRefusal;
use crate::migrations::migrator_up_to;

/// Two miners, one of whom has earned nothing yet, a settled batch with its share, and a block.
const BEFORE_THE_LOG: &str = "
    INSERT INTO accounts (name, never_negative) VALUES ('pool:hash', false), ('worker:alice', true);
    INSERT INTO transfers (id, kind, debit, credit, amount, reason)
        SELECT decode(repeat('01', 16), 'hex'), 'posted', p.id, a.id, 30, 'hash'
          FROM accounts p, accounts a WHERE p.name = 'pool:hash' AND a.name = 'worker:alice';
    INSERT INTO batches (root, worker, state, task_ids, ended_at, expires_at)
        VALUES (decode(repeat('bb', 32), 'hex'), decode(repeat('aa', 32), 'hex'), 'settled',
                ARRAY[decode(repeat('cc', 32), 'hex')], now(), 0),
               (decode(repeat('dd', 32), 'hex'), decode(repeat('aa', 32), 'hex'), 'open',
                ARRAY[decode(repeat('cc', 32), 'hex')], NULL, 0);
    INSERT INTO shares (header_hash, account, kind, work, credit_msat, is_block, batch_root)
        VALUES (decode(repeat('01', 32), 'hex'), 'alice', 'hash', 5, 10, false, NULL),
               (decode(repeat('02', 32), 'hex'), 'alice', 'inference', 6, 20, true, decode(repeat('bb', 32), 'hex')),
               (decode(repeat('03', 32), 'hex'), 'bob', 'hash', 100000000000000000000, 0, false, NULL);
    INSERT INTO blocks (header_hash, height, account, result)
        VALUES (decode(repeat('02', 32), 'hex'), 900100, 'alice', 'accepted');
";

#[test]
fn shares_of_a_release_without_a_log_are_kept_with_their_credit_and_their_batch() {
    run_empty(|_db, ledger| async move {
        migrator_up_to(18).run(&ledger.pool).await.unwrap();
        sqlx::raw_sql(BEFORE_THE_LOG)
            .execute(&ledger.pool)
            .await
            .unwrap();
        ledger.migrate().await.unwrap();

        let stats = ledger.stats().await.unwrap();
        assert_eq!((stats.shares, stats.inference_shares), (3, 1));
        assert_eq!(available(&ledger, "alice").await, 30);
        let shares: Vec<(i32, String, i64, String)> = sqlx::query_as(
            "SELECT height, account, work, kind FROM named_shares ORDER BY header_hash",
        )
        .fetch_all(&ledger.pool)
        .await
        .unwrap();
        let share =
            |account: &str, work, kind: &str| (900_100, account.to_owned(), work, kind.to_owned());
        assert_eq!(
            shares,
            [
                share("alice", 5, "hash"),
                share("alice", 6, "inference"),
                share("bob", i64::MAX, "hash")
            ]
        );
        let days = ledger
            .share_sums(None, crate::Span::Day, 0, 10)
            .await
            .unwrap();
        let day: Vec<_> = days
            .iter()
            .map(|day| (day.shares, &*day.work, day.credit.get()))
            .collect();
        assert_eq!(day, [(3, "100000000000000000011", 30)]);
        let settled: Vec<(Option<Vec<u8>>,)> =
            sqlx::query_as("SELECT settled_by FROM batches ORDER BY root")
                .fetch_all(&ledger.pool)
                .await
                .unwrap();
        assert_eq!(settled, [(Some(vec![2; 32]),), (None,)]);

        // It goes on from there: proofs are known, credit comes on top.
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let at_its_height = |n, account| Share {
            height: 900_100,
            ..hash_share(n, account, 4)
        };
        assert_eq!(
            running.committer.commit(at_its_height(3, "bob")).await,
            Err(CommitRefusal::DuplicateShare)
        );
        running
            .committer
            .commit(at_its_height(4, "bob"))
            .await
            .unwrap();
        running
            .committer
            .commit(at_its_height(5, "alice"))
            .await
            .unwrap();
        assert_eq!(
            (
                available(&ledger, "alice").await,
                available(&ledger, "bob").await
            ),
            (34, 4)
        );
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
