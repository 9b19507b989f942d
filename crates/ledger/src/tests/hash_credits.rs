//! What hashes earn: they move no money by share, and nothing is lost to rounding. Sums for pages, partitions, retention.

use dovetail_units::ShareCredit;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::{Span, hash_credits};

/// A share of so many parts of a millisatoshi.
fn easy(n: u16, account: &str, parts: u128) -> Share {
    Share {
        credit: ShareCredit::new(parts),
        ..numbered_share(n, account, 0)
    }
}

/// A credit interval that does not end by itself.
fn by_hand(dir: &Path) -> CommitterConfig {
    CommitterConfig {
        settle_interval: Duration::from_secs(3_600),
        ..config(dir)
    }
}

#[test]
fn easy_shares_do_not_round_to_nothing_and_an_interval_is_one_transfer() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start_with(&ledger, by_hand(dir.path())).await;
        // A third of a millisatoshi each, and one part.
        let third = ShareCredit::PER_MSAT / 3 + 1;
        for n in 0..10 {
            running
                .committer
                .commit(easy(n, "alice", third))
                .await
                .unwrap();
        }
        let balance = ledger.balance("alice").await.unwrap();
        assert_eq!((balance.available.get(), balance.unsettled.get()), (0, 3));
        assert_eq!(hash_credits::settle(&ledger.pool).await.unwrap(), 1);
        assert_eq!(hash_credits::settle(&ledger.pool).await.unwrap(), 0);
        let balance = ledger.balance("alice").await.unwrap();
        assert_eq!((balance.available.get(), balance.unsettled.get()), (3, 0));
        for n in 10..12 {
            running
                .committer
                .commit(easy(n, "alice", third))
                .await
                .unwrap();
        }
        assert_eq!(hash_credits::settle(&ledger.pool).await.unwrap(), 1);
        assert_eq!(available(&ledger, "alice").await, 4);
        let statement = ledger.statement("alice", 10).await.unwrap();
        let amounts: Vec<_> = statement
            .iter()
            .map(|line| (line.amount_msat, &*line.reason))
            .collect();
        assert_eq!(amounts, [(1, "hash"), (3, "hash")]);
        running.stop().await;
    });
}

#[test]
fn an_interval_that_was_open_at_the_end_is_settled_and_one_of_an_outage_at_the_next_start() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start_with(&ledger, by_hand(dir.path())).await;
        running
            .committer
            .commit(hash_share(1, "alice", 7))
            .await
            .unwrap();
        running.stop().await;
        assert_eq!(available(&ledger, "alice").await, 7);
        let running = Running::start_with(&ledger, by_hand(dir.path())).await;
        running
            .committer
            .commit(hash_share(2, "alice", 5))
            .await
            .unwrap();
        db.go_away().await;
        running.stop().await;
        db.come_back().await;
        let ledger = db.ledger().await;
        assert_eq!(ledger.balance("alice").await.unwrap().unsettled.get(), 5);
        let running = Running::start_with(&ledger, by_hand(dir.path())).await;
        running.stop().await;
        assert_eq!(available(&ledger, "alice").await, 12);
    });
}

/// Whatever the credits, and wherever intervals end: transfers and what is left are what was earned, to the last part.
#[test]
fn transfers_and_remainders_are_what_was_earned_to_the_last_part() {
    let shares = proptest::collection::vec(
        (0..3_usize, 0..3 * ShareCredit::PER_MSAT, any::<bool>()),
        1..40,
    );
    let mut runner = TestRunner::new(ProptestConfig::with_cases(4));
    runner
        .run(&shares, |shares| {
            run(|_db, ledger| async move {
                let dir = tempfile::tempdir().unwrap();
                let running = Running::start_with(&ledger, by_hand(dir.path())).await;
                let mut earned = [0_u128; 3];
                for (n, (who, parts, ends)) in shares.iter().enumerate() {
                    let account = ["alice", "bob", "carol"][*who];
                    let n = u16::try_from(n).unwrap();
                    running.committer.commit(easy(n, account, *parts)).await.unwrap();
                    earned[*who] += parts;
                    if *ends {
                        hash_credits::settle(&ledger.pool).await.unwrap();
                    }
                }
                for (who, account) in ["alice", "bob", "carol"].into_iter().enumerate() {
                    let left: Option<String> = sqlx::query_scalar(
                        "SELECT unsettled::text FROM hash_credits JOIN accounts ON id = account WHERE name = $1",
                    )
                    .bind(format!("worker:{account}"))
                    .fetch_optional(&ledger.pool)
                    .await
                    .unwrap();
                    let left: u128 = left.map_or(0, |left| left.parse().unwrap());
                    let paid = u128::try_from(available(&ledger, account).await).unwrap();
                    assert_eq!(paid * ShareCredit::PER_MSAT + left, earned[who], "{account}");
                }
                super::model::transfers_explain_the_accounts(&ledger).await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_held_for_a_block_keeps_its_parts_too() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 0..3 {
            let share = Share {
                is_coinbase_only: true,
                ..easy(n, "alice", ShareCredit::PER_MSAT / 2)
            };
            running.committer.commit(share).await.unwrap();
        }
        let balance = ledger.balance("alice").await.unwrap();
        assert_eq!(
            (balance.held_for_blocks.get(), balance.available.get()),
            (1, 0)
        );
    });
}

#[test]
fn pages_read_sums_of_minutes_hours_and_days_for_an_account_and_for_all() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=4 {
            let account = if n == 4 { "bob" } else { "alice" };
            running
                .committer
                .commit(hash_share(n, account, 2))
                .await
                .unwrap();
        }
        let since = unix_now() - 7_200;
        for span in [Span::Minute, Span::Hour, Span::Day] {
            let since = since - since % u64::from(span.seconds());
            let of = async |account| -> (u64, i64, u128) {
                let sums = ledger.share_sums(account, span, since, 10).await.unwrap();
                let sum = |of: fn(&crate::SpanSum) -> u128| sums.iter().map(of).sum::<u128>();
                let shares = sum(|sum| u128::from(sum.shares));
                let credit = sum(|sum| u128::try_from(sum.credit.get()).unwrap());
                let work = sum(|sum| sum.work.parse().unwrap());
                (
                    u64::try_from(shares).unwrap(),
                    i64::try_from(credit).unwrap(),
                    work,
                )
            };
            assert_eq!(of(Some("alice")).await, (3, 6, 3 << 40));
            assert_eq!(of(Some("bob")).await, (1, 2, 1 << 40));
            assert_eq!(of(None).await, (4, 8, 4 << 40));
            assert_eq!(of(Some("nobody")).await, (0, 0, 0));
        }
        let later = unix_now() + 3 * 86_400;
        let dropped = crate::share_sums::drop_old(&ledger.pool, later)
            .await
            .unwrap();
        assert!((3..=6).contains(&dropped), "{dropped}");
        assert_eq!(
            ledger.share_sums(None, Span::Minute, 0, 10).await.unwrap(),
            []
        );
        assert_ne!(
            ledger.share_sums(None, Span::Hour, 0, 10).await.unwrap(),
            []
        );
    });
}

#[test]
fn shares_lie_in_partitions_by_height_and_old_ones_are_dropped_as_a_whole() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let keeps = CommitterConfig {
            keep_blocks: 300,
            ..config(dir.path())
        };
        let running = Running::start_with(&ledger, keeps.clone()).await;
        let at = |n, height| Share {
            height,
            ..hash_share(n, "alice", 1)
        };
        for (n, height) in [(1, 143), (2, 144), (3, 700)] {
            running.committer.commit(at(n, height)).await.unwrap();
        }
        let mut sql = db.connection().await;
        let mut partitions = async || -> Vec<(String, i64)> {
            sqlx::query_as(
                "SELECT tableoid::regclass::text, count(*) FROM shares GROUP BY 1 ORDER BY 1",
            )
            .fetch_all(&mut sql)
            .await
            .unwrap()
        };
        let named = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), 1))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            partitions().await,
            named(&["shares_0", "shares_144", "shares_576"])
        );
        running.stop().await;
        // A start looks for old ones with its first interval.
        let running = Running::start_with(&ledger, keeps).await;
        running.committer.commit(at(4, 720)).await.unwrap();
        running.stop().await;
        assert_eq!(partitions().await, named(&["shares_576", "shares_720"]));
        assert_eq!(ledger.stats().await.unwrap().shares, 4);
        assert_eq!(available(&ledger, "alice").await, 4);
    });
}
