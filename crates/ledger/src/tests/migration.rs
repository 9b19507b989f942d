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

/// Payouts as an earlier release left them: one in each state, with the transfers that it made. Their ids are what the
/// release derived from a payout's: the tagged hash of the length of a purpose, the purpose, and the payout.
const BEFORE_ATTEMPTS: &str = "
    CREATE FUNCTION named(purpose text, payout bytea) RETURNS bytea LANGUAGE sql AS $$
        SELECT substr(sha256(sha256('dovetail/transfer') || sha256('dovetail/transfer')
               || decode(lpad(to_hex(length(purpose)), 2, '0'), 'hex') || purpose::bytea || payout), 1, 16) $$;
    INSERT INTO accounts (name, never_negative) VALUES ('pool:hash', false), ('pool:lightning', false),
        ('pool:lightning_fees', false), ('worker:alice', true) ON CONFLICT DO NOTHING;
    INSERT INTO transfers (id, kind, debit, credit, amount, reason)
        SELECT decode(repeat('01', 16), 'hex'), 'posted', p.id, a.id, 10000, 'hash'
          FROM accounts p, accounts a WHERE p.name = 'pool:hash' AND a.name = 'worker:alice';
    CREATE TABLE given AS SELECT decode(repeat(lpad(n::text, 2, '0'), 32), 'hex') AS id, state,
           CASE WHEN state <> 'requested' THEN decode(repeat(lpad((n + 20)::text, 2, '0'), 32), 'hex') END AS hash
      FROM (VALUES (1, 'requested'), (2, 'reserved'), (3, 'sent'), (4, 'paid'), (5, 'failed')) AS v (n, state);
    INSERT INTO payouts (id, worker, amount_msat, state, bolt11, payment_hash, fee_max_msat)
        SELECT id, 'alice', 1000, state, CASE WHEN hash IS NOT NULL THEN 'lnbcrt1' END, hash, 50 FROM given;
    INSERT INTO transfers (id, kind, debit, credit, amount, reason)
        SELECT named('payout', g.id), 'pending', a.id, l.id, 1000, 'payout'
          FROM given g, accounts a, accounts l
         WHERE g.hash IS NOT NULL AND a.name = 'worker:alice' AND l.name = 'pool:lightning';
    INSERT INTO transfers (id, kind, debit, credit, amount, reason)
        SELECT named('payout-fee', g.id), 'pending', a.id, l.id, 50, 'payout fee'
          FROM given g, accounts a, accounts l
         WHERE g.hash IS NOT NULL AND a.name = 'pool:lightning_fees' AND l.name = 'pool:lightning';
    INSERT INTO transfers (id, kind, ends, debit, credit, amount, reason)
        SELECT substr(sha256(t.id), 1, 16), CASE g.state WHEN 'paid' THEN 'post' ELSE 'void' END, t.id, t.debit,
               t.credit, t.amount, 'payout'
          FROM given g JOIN transfers t ON t.id IN (named('payout', g.id), named('payout-fee', g.id))
         WHERE g.state IN ('paid', 'failed');
";

#[test]
fn payouts_of_a_release_without_attempts_end_as_the_wallet_says() {
    use super::payouts::SOON;
    use crate::{AttemptState, PayoutState};
    run_empty(|_db, ledger| async move {
        migrator_up_to(20).run(&ledger.pool).await.unwrap();
        sqlx::raw_sql(BEFORE_ATTEMPTS)
            .execute(&ledger.pool)
            .await
            .unwrap();
        ledger.migrate().await.unwrap();

        let records = ledger.payout_records(None, false, 9).await.unwrap();
        let state = |n: u8| {
            let record = records.iter().find(|record| record.id == [n; 32]).unwrap();
            let attempts: Vec<_> = record
                .attempts
                .iter()
                .map(|attempt| attempt.state)
                .collect();
            (record.state, attempts)
        };
        assert_eq!(state(1), (PayoutState::Failed, vec![]));
        assert_eq!(
            state(2),
            (PayoutState::Reserved, vec![AttemptState::Failed])
        );
        assert_eq!(
            state(3),
            (PayoutState::Reserved, vec![AttemptState::Dispatched])
        );
        assert_eq!(state(4), (PayoutState::Paid, vec![]));
        assert_eq!(state(5), (PayoutState::Failed, vec![AttemptState::Failed]));

        // What was sent: the wallet is asked by the payment hash, as before. What was reserved is given up.
        let checks = ledger.claim_checks(9, SOON).await.unwrap();
        let sent = checks.iter().find(|check| check.payout == [3; 32]).unwrap();
        assert_eq!(sent.id, [0x23; 32]);
        assert_eq!(sent.payment_hash, Some([0x23; 32]));
        let due = ledger.claim_retries(9, SOON).await.unwrap();
        let due: Vec<_> = due.iter().map(|attempt| attempt.payout).collect();
        assert_eq!(due, [[2; 32]]);
        assert_eq!(available(&ledger, "alice").await, 10_000 - 3 * 1_000);
        ledger.give_payout_up([2; 32], "expired").await.unwrap();
        ledger.note_failed(sent.id, "no_route", None).await.unwrap();
        ledger.give_payout_up([3; 32], "expired").await.unwrap();
        assert_eq!(available(&ledger, "alice").await, 10_000 - 1_000);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
