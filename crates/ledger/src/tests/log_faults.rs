//! Kills at each boundary, damage, two pools, a full log: each acknowledged share is in the ledger once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dovetail_share_log::{Position, ShareLog};

use super::outage::shares_reach;
use super::*;
use crate::share_record::LoggedShare;

/// What is in the log of a pool that was killed: these shares, acknowledged or not makes no difference.
fn log_by_hand(dir: &Path, shares: &[Share]) -> u64 {
    let (log, recovered) = ShareLog::open(dir, config(dir).log).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for share in shares {
        let record = LoggedShare::new(share, unix_now()).encode();
        let durable = log.try_append(&record).unwrap().durable;
        runtime.block_on(durable).unwrap();
    }
    drop(log);
    recovered.log_id
}

/// The same in a thread of its own, for tests that run on a runtime.
async fn logged(dir: &Path, shares: Vec<Share>) -> u64 {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || log_by_hand(&dir, &shares))
        .await
        .unwrap()
}

fn shares(from: u16, to: u16) -> Vec<Share> {
    (from..to).map(|n| numbered_share(n, "alice", 1)).collect()
}

#[test]
fn a_pool_that_was_killed_between_log_and_ledger_or_between_ledger_and_log_counts_each_share_once()
{
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        // Killed after the log was synced, before anything was in the ledger.
        let log_id = logged(dir.path(), shares(0, 10)).await;
        let running = Running::start(&ledger, dir.path()).await;
        shares_reach(&ledger, 10).await;
        running.stop().await;
        // Killed after the ledger's commit, before the log was told: its checkpoint is that of before.
        let before = tempfile::tempdir().unwrap();
        copy(dir.path(), before.path());
        let running = Running::start(&ledger, dir.path()).await;
        for share in shares(10, 20) {
            running.committer.commit(share).await.unwrap();
        }
        running.stop().await;
        std::fs::copy(
            before.path().join("checkpoint"),
            dir.path().join("checkpoint"),
        )
        .unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(numbered_share(20, "alice", 1))
            .await
            .unwrap();
        assert_eq!(ledger.stats().await.unwrap().shares, 21);
        assert_eq!(available(&ledger, "alice").await, 21);
        let position: i64 = sqlx::query_scalar("SELECT position FROM share_logs WHERE log_id = $1")
            .bind(log_id.cast_signed())
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(position, 21);
    });
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Postgres ends a connection at any moment, again and again, under load.
#[test]
fn however_often_postgres_breaks_off_each_share_is_there_once() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let breaking = {
            let (db, is_over) = (db.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut broken = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let sql = format!(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle'",
                        db.name
                    );
                    db.admin(&sql).await;
                    broken += 1;
                    tokio::time::sleep(Duration::from_millis(7)).await;
                }
                broken
            })
        };
        for share in shares(0, 1_000) {
            running.log(share).await.unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(breaking.await.unwrap() > 0);
        running.committer.0.written().await;
        let again = db.ledger().await;
        assert_eq!(again.stats().await.unwrap().shares, 1_000);
        assert_eq!(available(&again, "alice").await, 1_000);
        super::model::transfers_explain_the_accounts(&again).await;
    });
}

#[test]
fn a_log_that_is_full_refuses_with_its_own_word_after_it_has_slowed_down_and_recovers() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let mut small = config(dir.path());
        small.log.bytes_max = 2 * small.log.segment_bytes;
        let running = Running::start_with(&ledger, small).await;
        let committer = &running.committer.0;
        committer
            .commit(numbered_share(0, "alice", 1))
            .await
            .unwrap();
        committer.written().await;
        db.go_away().await;
        assert_eq!(committer.pause(), Duration::ZERO);
        let (mut taken, mut slowed) = (1_u16, false);
        loop {
            slowed |= committer.pause() > Duration::ZERO;
            match committer.commit(numbered_share(taken, "alice", 1)).await {
                Ok(()) => taken += 1,
                Err(refusal) => {
                    assert_eq!(refusal, CommitRefusal::LogFull);
                    break;
                }
            }
        }
        assert!(slowed && taken > 1_000, "{taken}");
        db.come_back().await;
        shares_reach(&ledger, u64::from(taken)).await;
        // The refused one may come again.
        while committer
            .commit(numbered_share(taken, "alice", 1))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(committer.pause(), Duration::ZERO);
        shares_reach(&ledger, u64::from(taken) + 1).await;
        assert_eq!(available(&ledger, "alice").await, i64::from(taken) + 1);
    });
}

#[test]
fn a_log_has_one_pool_and_a_ledger_one_copy_of_a_log() {
    run(|db, ledger| async move {
        let (dir, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(numbered_share(0, "alice", 1))
            .await
            .unwrap();
        let other = Committer::start(
            db.ledger().await,
            config(dir.path()),
            CancellationToken::new(),
        );
        let error = other.await.err().unwrap().to_string();
        assert!(error.contains("in use"), "{error}");
        running.stop().await;
        copy(dir.path(), copied.path());
        let one = Running::start(&ledger, dir.path()).await;
        let two = Running::start(&db.ledger().await, copied.path()).await;
        // The later one has taken the log over: the earlier one stops.
        one.log(numbered_share(1, "alice", 1)).await.unwrap();
        let failed = tokio::time::timeout(Duration::from_secs(20), one.committer.0.failed());
        let error = failed.await.expect("the earlier pool stops").to_string();
        assert!(error.contains("another pool"), "{error}");
        let late = one.log(numbered_share(7, "alice", 1)).await;
        assert_eq!(late, Err(CommitRefusal::Unavailable));
        one.stop().await;
        for n in [2, 3] {
            two.committer
                .commit(numbered_share(n, "bob", 1))
                .await
                .unwrap();
        }
        assert_eq!(ledger.stats().await.unwrap().shares, 3);
        two.stop().await;
        // What it has at the ledger's position is not what the ledger has.
        let start = async || {
            let start = Committer::start(
                db.ledger().await,
                config(dir.path()),
                CancellationToken::new(),
            );
            start.await.err().unwrap().to_string()
        };
        let error = start().await;
        assert!(error.contains("older copy"), "{error}");
        logged(dir.path(), shares(4, 6)).await;
        let error = start().await;
        assert!(error.contains("another pool has written a copy"), "{error}");
    });
}

#[test]
fn a_record_that_the_ledger_never_takes_is_set_aside_and_holds_nothing_up() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let nul = Share {
            account: "a\0b".to_owned(),
            ..numbered_share(50, "", 1)
        };
        let mut all = shares(0, 20);
        all.insert(7, nul);
        let log_id = logged(dir.path(), all).await;
        let running = Running::start(&ledger, dir.path()).await;
        shares_reach(&ledger, 20).await;
        running.committer.0.written().await;
        assert_eq!(available(&ledger, "alice").await, 20);
        let rejected: (i64, i64, Vec<u8>) =
            sqlx::query_as("SELECT log_id, position, record FROM share_log_rejects")
                .fetch_one(&ledger.pool)
                .await
                .unwrap();
        assert_eq!((rejected.0, rejected.1), (log_id.cast_signed(), 7));
        let share = LoggedShare::decode(&rejected.2).unwrap();
        assert_eq!(share.account, "a\0b");
    });
}

/// The ledger was restored from a backup: what the log still has is written again, the rest is said.
#[test]
fn a_ledger_that_is_older_than_its_log_is_given_what_the_log_still_has() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for share in shares(0, 5) {
            running.committer.commit(share).await.unwrap();
        }
        running.stop().await;
        sqlx::raw_sql(
            "UPDATE share_logs SET position = 2, last_proof = '0100eeee-eeee-eeee-eeee-eeeeeeeeeeee';
             ALTER TABLE shares DISABLE TRIGGER shares_are_facts;
             DELETE FROM shares WHERE ctid IN (SELECT ctid FROM shares ORDER BY header_hash DESC LIMIT 3);",
        )
        .execute(&ledger.pool)
        .await
        .unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(numbered_share(9, "alice", 1))
            .await
            .unwrap();
        let position = running.committer.0.position();
        assert_eq!(position, Position(6));
    });
}

/// Torn by a power cut: what was not acknowledged is gone, what was is there.
#[test]
fn a_torn_tail_takes_nothing_that_was_acknowledged_with_it() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        logged(dir.path(), shares(0, 8)).await;
        let segment = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .find(|path| std::fs::metadata(path).unwrap().len() == 128 << 10 && is_used(path))
            .unwrap();
        // Half of a ninth record.
        let mut bytes = std::fs::read(&segment).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes[end + 8..end + 40].fill(0x5a);
        std::fs::write(&segment, bytes).unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(numbered_share(8, "alice", 1))
            .await
            .unwrap();
        assert_eq!(available(&ledger, "alice").await, 9);
        assert_eq!(ledger.stats().await.unwrap().shares, 9);
    });
}

fn is_used(path: &Path) -> bool {
    std::fs::read(path)
        .unwrap()
        .iter()
        .filter(|byte| **byte != 0)
        .count()
        > 200
}

#[test]
fn shares_of_an_earlier_release_that_wait_in_its_spool_are_not_forgotten() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        // The folder of before, in which the log has one of its own.
        let log = dir.path().join("log");
        std::fs::write(dir.path().join("shares.jsonl"), "{}\n").unwrap();
        let start = Committer::start(ledger.clone(), config(&log), CancellationToken::new());
        let error = start.await.err().unwrap().to_string();
        assert!(error.contains("earlier release"), "{error}");
        std::fs::write(dir.path().join("shares.jsonl"), "").unwrap();
        Running::start(&ledger, &log).await.stop().await;
    });
}

/// A newer release wrote it, and somebody went back.
#[test]
fn records_of_another_release_are_not_set_aside_the_pool_stops() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_owned();
        tokio::task::spawn_blocking(move || {
            let (log, _) = ShareLog::open(&place, config(&place).log).unwrap();
            log.try_append(b"\xff whatever it says").unwrap();
        })
        .await
        .unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let failed = tokio::time::timeout(Duration::from_secs(20), running.committer.0.failed());
        let error = failed.await.unwrap().to_string();
        assert!(error.contains("another release"), "{error}");
        let late = running.log(hash_share(1, "alice", 1)).await;
        assert_eq!(late, Err(CommitRefusal::Unavailable));
    });
}

/// Another pool, or a person, has dropped a partition that this one goes on writing to.
#[test]
fn a_partition_that_is_gone_is_made_again_and_sets_nothing_aside() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running
            .committer
            .commit(numbered_share(0, "alice", 1))
            .await
            .unwrap();
        let mut by_hand = db.connection().await;
        let drop_all = "
            DO $$ DECLARE name regclass; BEGIN
                FOR name IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'shares'::regclass LOOP
                    EXECUTE 'DROP TABLE ' || name;
                END LOOP;
            END $$";
        sqlx::raw_sql(drop_all).execute(&mut by_hand).await.unwrap();
        for n in 1..=5 {
            running.log(numbered_share(n, "alice", 1)).await.unwrap();
        }
        running.committer.0.written().await;
        assert_eq!(ledger.stats().await.unwrap().shares, 6);
        let rejects: i64 = sqlx::query_scalar("SELECT count(*) FROM share_log_rejects")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(rejects, 0);
    });
}

/// The ledger is another one, or of before the log was made.
#[test]
fn a_ledger_that_does_not_know_the_log_is_given_what_the_log_still_has() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for share in shares(0, 5) {
            running.committer.commit(share).await.unwrap();
        }
        running.stop().await;
        sqlx::raw_sql(
            "DELETE FROM share_logs; ALTER TABLE shares DISABLE TRIGGER shares_are_facts; DELETE FROM shares;",
        )
        .execute(&ledger.pool)
        .await
        .unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        running.committer.0.written().await;
        let shares: i64 = sqlx::query_scalar("SELECT count(*) FROM shares")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(shares, 5);
    });
}
