//! Credit of jobs in coinbase-only mode: held until a block, posted if the chain shows the block, void if not.

use std::collections::BTreeMap;

use dovetail_units::SplitMix64;

use super::*;
use crate::FollowedBlock;
use crate::OnChain::{self, NotSeen, Seen, Unknown};

fn share(n: u16, account: &str, msat: i64, is_block: bool) -> Share {
    Share {
        header_hash: header(n),
        is_coinbase_only: true,
        is_block,
        ..hash_share(0, account, msat)
    }
}

fn header(n: u16) -> HeaderHash {
    let mut hash = [0; 32];
    hash[..2].copy_from_slice(&n.to_le_bytes());
    HeaderHash::from_bytes(hash)
}

/// What the account can be paid, what is held for its blocks, and what is held for inference.
async fn balance(ledger: &Ledger, account: &str) -> (i64, i64, i64) {
    let balance = ledger.balance(account).await.unwrap();
    let [available, for_blocks, held] =
        [balance.available, balance.held_for_blocks, balance.held].map(Msat::get);
    (available, for_blocks, held)
}

async fn followed(ledger: &Ledger) -> Vec<HeaderHash> {
    let blocks = ledger.followed_blocks(100).await.unwrap();
    blocks.into_iter().map(|followed| followed.block).collect()
}

#[test]
fn credit_of_coinbase_only_jobs_is_held_and_cannot_be_paid_out() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 0..3 {
            let held = share(n, "alice", 1_000, n == 2);
            running.committer.commit(held).await.unwrap();
        }
        assert_eq!(balance(&ledger, "alice").await, (0, 3_000, 0));
        let due = payouts::claim(&ledger, &["alice"], 1_000).await;
        assert_eq!(due, [] as [&str; 0]);
        let refused = payouts::begin(&ledger, 1, "alice", 1_000).await;
        assert!(matches!(refused, Err(LedgerError::Refused(_))));
        // The same proof is the same share.
        let again = running.committer.commit(share(1, "alice", 1_000, false));
        assert_eq!(again.await, Err(crate::CommitRefusal::DuplicateShare));
        assert_eq!(balance(&ledger, "alice").await, (0, 3_000, 0));
    });
}

#[test]
fn a_seen_block_posts_what_was_held_up_to_it_and_nothing_after_it() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let shares = [
            share(1, "alice", 10, false),
            share(2, "alice", 20, true),
            share(3, "alice", 40, false),
            share(4, "bob", 80, false),
            // A job that was declared in full is none of this.
            hash_share(200, "alice", 160),
        ];
        for share in shares {
            running.committer.commit(share).await.unwrap();
        }
        assert_eq!(balance(&ledger, "alice").await, (160, 70, 0));
        assert_eq!(followed(&ledger).await, [header(2)]);
        ledger.record_block(header(2), 7, "alice").await.unwrap();
        let decided = ledger.decide_block(header(2), Seen).await.unwrap().unwrap();
        assert_eq!(
            (decided.account.as_str(), decided.amount.get()),
            ("alice", 30)
        );
        assert!(decided.is_found);
        assert_eq!(balance(&ledger, "alice").await, (190, 40, 0));
        assert_eq!(balance(&ledger, "bob").await, (0, 80, 0));
        assert_eq!(followed(&ledger).await, []);
        assert_eq!(ledger.stats().await.unwrap().blocks, 1);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn a_block_that_is_not_seen_voids_what_was_held_up_to_it_and_the_next_one_decides_about_the_rest() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for n in 1..=6 {
            let held = share(n, "alice", 10, n % 2 == 0);
            running.committer.commit(held).await.unwrap();
        }
        // The second of three blocks is the first of which something is known.
        ledger.decide_block(header(4), Seen).await.unwrap().unwrap();
        assert_eq!(balance(&ledger, "alice").await, (20, 40, 0));
        let lost = ledger
            .decide_block(header(2), NotSeen)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((lost.amount.get(), lost.is_found), (20, false));
        assert_eq!(balance(&ledger, "alice").await, (20, 20, 0));
        assert_eq!(followed(&ledger).await, [header(6)]);
        ledger.decide_block(header(6), Seen).await.unwrap().unwrap();
        assert_eq!(balance(&ledger, "alice").await, (40, 0, 0));
        let records = ledger
            .coinbase_only_records(Some("alice"), 1)
            .await
            .unwrap();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!((record.seen_blocks, record.posted_msat), (2, 40));
        assert_eq!((record.not_seen_blocks, record.voided_msat), (1, 20));
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn what_was_held_up_to_a_block_that_nobody_can_know_of_is_held_for_the_next_one() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let commit = |n, is_block| running.committer.commit(share(n, "alice", 10, is_block));
        commit(1, true).await.unwrap();
        commit(2, true).await.unwrap();
        // One is added to a new sum, the other one to that.
        for n in [1, 2] {
            ledger
                .decide_block(header(n), Unknown)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(balance(&ledger, "alice").await, (0, 20, 0));
        }
        commit(3, true).await.unwrap();
        assert_eq!(followed(&ledger).await, [header(3)]);
        let decided = ledger.decide_block(header(3), Seen).await.unwrap().unwrap();
        assert_eq!(decided.amount.get(), 30);
        assert_eq!(balance(&ledger, "alice").await, (30, 0, 0));
        let records = ledger.coinbase_only_records(None, 1).await.unwrap();
        assert_eq!((records[0].unknown_blocks, records[0].posted_msat), (2, 30));
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn the_first_word_on_a_block_stands_and_saying_it_again_is_harmless() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(share(1, "alice", 10, true))
            .await
            .unwrap();
        assert_eq!(ledger.decide_block(header(9), Seen).await.unwrap(), None);
        let other = db.ledger().await;
        let (one, two) = tokio::join!(
            ledger.decide_block(header(1), NotSeen),
            other.decide_block(header(1), NotSeen)
        );
        let words = [one.unwrap(), two.unwrap()];
        assert_eq!(words.iter().flatten().count(), 1);
        assert_eq!(ledger.decide_block(header(1), Seen).await.unwrap(), None);
        assert_eq!(balance(&ledger, "alice").await, (0, 0, 0));
        // A block without any credit is followed all the same.
        running
            .committer
            .commit(share(2, "alice", 0, true))
            .await
            .unwrap();
        let decided = ledger.decide_block(header(2), Seen).await.unwrap().unwrap();
        assert_eq!(decided.amount, Msat::ZERO);
    });
}

#[test]
fn a_block_that_is_recorded_late_has_the_result_that_was_decided() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for (n, word) in [(1, Seen), (2, NotSeen)] {
            running
                .committer
                .commit(share(n, "alice", 10, true))
                .await
                .unwrap();
            ledger.decide_block(header(n), word).await.unwrap().unwrap();
            assert!(ledger.record_block(header(n), 7, "alice").await.unwrap());
            // What the publisher says of it later changes nothing.
            let noted = ledger.note_submission(header(n), "left to its miner").await;
            assert!(!noted.unwrap());
        }
        let results: Vec<String> =
            sqlx::query_scalar("SELECT result FROM blocks ORDER BY header_hash")
                .fetch_all(&ledger.pool)
                .await
                .unwrap();
        assert_eq!(results, ["seen", "not seen"]);
    });
}

#[test]
fn followed_blocks_and_the_time_that_they_were_looked_for_survive_a_restart() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(share(1, "alice", 10, true))
            .await
            .unwrap();
        running
            .committer
            .commit(share(2, "bob", 10, true))
            .await
            .unwrap();
        ledger
            .note_watched(&[(header(1), 60), (header(2), 3), (header(9), 1)])
            .await
            .unwrap();
        // Another process that has watched for less.
        ledger.note_watched(&[(header(1), 5)]).await.unwrap();
        running.stop().await;
        drop(ledger);
        let after = db.ledger().await;
        let followed = |n, account: &str, watched_s| FollowedBlock {
            block: header(n),
            account: account.to_owned(),
            watched_s,
        };
        assert_eq!(
            after.followed_blocks(100).await.unwrap(),
            [followed(1, "alice", 60), followed(2, "bob", 3)]
        );
        after
            .decide_block(header(1), NotSeen)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(balance(&after, "alice").await, (0, 0, 0));
        assert_eq!(balance(&after, "bob").await, (0, 10, 0));
    });
}

#[test]
fn a_share_of_a_coinbase_only_job_that_waited_in_the_log_is_held_too() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        db.go_away().await;
        for n in 1..=2 {
            let held = share(n, "alice", 10, n == 2);
            running.log(held).await.unwrap();
        }
        db.come_back().await;
        super::outage::shares_reach(&ledger, 2).await;
        assert_eq!(balance(&ledger, "alice").await, (0, 20, 0));
        assert_eq!(followed(&ledger).await, [header(2)]);
    });
}

#[test]
fn sums_of_coinbase_only_credit_end_by_their_transfers_even_by_hand() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(share(1, "alice", 10, true))
            .await
            .unwrap();
        running
            .committer
            .commit(share(2, "alice", 10, false))
            .await
            .unwrap();
        let mut by_hand = db.connection().await;
        for sql in [
            "UPDATE coinbase_only_credits SET state = 'posted', decided_at = now() WHERE state = 'followed'",
            "UPDATE coinbase_only_credits SET state = 'voided', decided_at = now() WHERE state = 'followed'",
            "UPDATE coinbase_only_credits SET amount_msat = 5",
            "UPDATE coinbase_only_credits SET watched_s = 5 WHERE state = 'open'",
            "UPDATE coinbase_only_credits SET account = 'mallory'",
            "INSERT INTO coinbase_only_credits (account, amount_msat, shares, state, block, decided_at)
                 VALUES ('alice', 0, 1, 'posted', decode(repeat('01', 32), 'hex'), now())",
            "DELETE FROM coinbase_only_credits",
            "TRUNCATE coinbase_only_credits CASCADE",
        ] {
            let refused = sqlx::query(sql).execute(&mut by_hand).await;
            assert!(refused.is_err(), "{sql}");
        }
        ledger.decide_block(header(1), Seen).await.unwrap().unwrap();
        let again =
            sqlx::query("UPDATE coinbase_only_credits SET state = 'voided' WHERE state = 'posted'")
                .execute(&mut by_hand);
        assert!(again.await.is_err());
        assert_eq!(balance(&ledger, "alice").await, (10, 10, 0));
    });
}

#[test]
fn what_is_posted_held_and_void_is_what_was_credited_after_every_random_step() {
    let seed = std::env::var("DOVETAIL_TEST_SEED")
        .map_or_else(|_| super::random(), |text| text.parse().unwrap());
    println!("to run this again: DOVETAIL_TEST_SEED={seed}");
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let mut random = SplitMix64::new(seed);
        // Credited, posted and void, by account; and open blocks with what is held up to them.
        let mut sums: BTreeMap<&str, [i64; 3]> = BTreeMap::new();
        let mut since: BTreeMap<&str, i64> = BTreeMap::new();
        let mut blocks: Vec<(u16, &str, i64)> = Vec::new();
        for n in 0..300 {
            let account = ["alice", "bob"][usize::try_from(random.below(2)).unwrap()];
            let amount = i64::try_from(random.below(1_000)).unwrap();
            if random.below(4) > 0 {
                let is_block = random.below(5) == 0;
                let held = share(n, account, amount, is_block);
                running.committer.commit(held).await.unwrap();
                sums.entry(account).or_default()[0] += amount;
                *since.entry(account).or_default() += amount;
                if is_block {
                    blocks.push((n, account, since.remove(account).unwrap()));
                }
            } else if !blocks.is_empty() {
                let at = usize::try_from(random.below(blocks.len() as u64)).unwrap();
                let (block, account, amount) = blocks.swap_remove(at);
                let word = word(usize::try_from(random.below(3)).unwrap());
                let decided = ledger.decide_block(header(block), word).await.unwrap();
                assert_eq!(decided.unwrap().amount.get(), amount);
                match word {
                    Seen => sums.entry(account).or_default()[1] += amount,
                    NotSeen => sums.entry(account).or_default()[2] += amount,
                    Unknown => *since.entry(account).or_default() += amount,
                }
            }
            for (account, [credited, posted, void]) in &sums {
                let expected = (*posted, credited - posted - void, 0);
                assert_eq!(balance(&ledger, account).await, expected, "step {n}");
            }
        }
        let shares: i64 = sqlx::query_scalar(
            "SELECT sum(shares)::bigint FROM coinbase_only_credits WHERE carried_to IS NULL",
        )
        .fetch_one(&ledger.pool)
        .await
        .unwrap();
        assert_eq!(ledger.stats().await.unwrap().shares, shares.unsigned_abs());
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

fn word(n: usize) -> OnChain {
    [Seen, NotSeen, Unknown][n % 3]
}

#[test]
fn committing_and_deciding_at_once_never_lock_each_other_out() {
    run(|db, ledger| async move {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let pools = [
            Running::start(&ledger, dirs[0].path()).await,
            Running::start(&db.ledger().await, dirs[1].path()).await,
        ];
        let deciding = {
            let ledger = db.ledger().await;
            tokio::spawn(async move {
                let mut decided = 0;
                while decided < 20 {
                    for block in followed(&ledger).await {
                        let done = ledger.decide_block(block, word(decided)).await.unwrap();
                        decided += usize::from(done.is_some());
                    }
                    tokio::task::yield_now().await;
                }
            })
        };
        let mut committing = Vec::new();
        for n in 0..200_u16 {
            let committer = pools[usize::from(n % 2)].committer.clone();
            let account = ["alice", "bob"][usize::from(n / 2 % 2)];
            committing.push(tokio::spawn(async move {
                committer
                    .commit(share(n, account, 10, n % 10 == 0))
                    .await
                    .unwrap();
                let mut posted = hash_share(0, account, 1);
                posted.header_hash = header(1_000 + n);
                committer.commit(posted).await.unwrap();
            }));
        }
        for task in committing {
            task.await.unwrap();
        }
        deciding.await.unwrap();
        let records = ledger.coinbase_only_records(None, 10).await.unwrap();
        let all: i64 = records
            .iter()
            .map(|of| of.held_msat + of.followed_msat + of.posted_msat + of.voided_msat)
            .sum();
        assert_eq!(all, 2_000);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
