//! What is kept of slices: as long as a block needs it, what shows their shares, and nothing that is dropped too early.

use dovetail_rewards::{Answer, ShareProof, SliceHeader, points};

use super::rewards::{WRONG_IN_WINDOW, block, count, divides, pplns, weighty};
use super::*;
use crate::RewardState;
use crate::migrations::migrator_up_to;

/// Slices in a partition.
const PARTITION: u16 = 1_024;
/// A share that is worth a hundred slices, and closes one.
const HUNDRED: u128 = 1_600;

async fn drop_old(ledger: &Ledger, table: &str, before: &str) -> i32 {
    sqlx::query_scalar("SELECT drop_slice_partitions($1, $2::timestamptz)")
        .bind(table)
        .bind(before)
        .fetch_one(&ledger.pool)
        .await
        .unwrap()
}

#[test]
fn slices_are_dropped_once_no_block_needs_them_and_the_rest_goes_on() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start_with(&ledger, divides(dir.path(), pplns(1))).await;
        let found = block(500, "bob", HUNDRED, 1_000);
        let hash = found.header_hash;
        for n in 0..PARTITION + 20 {
            let share = match n {
                500 => found.clone(),
                _ => weighty(n, if n % 3 == 0 { "alice" } else { "bob" }, HUNDRED),
            };
            running.log(share).await.unwrap();
        }
        running.stop().await;
        // The window is the newest eleven slices, and the block's are in the first partition.
        assert_eq!(count(&ledger, WRONG_IN_WINDOW).await, 0);
        for table in ["slice_work", "slice_shares"] {
            assert_eq!(drop_old(&ledger, table, "infinity").await, 0);
        }
        let noted = ledger.note_reward(hash, RewardState::Active).await;
        assert!(noted.unwrap());
        assert_eq!(drop_old(&ledger, "slice_work", "infinity").await, 0);
        ledger.mature_reward(hash).await.unwrap().unwrap();
        // Not yet old enough.
        assert_eq!(drop_old(&ledger, "slice_work", "-infinity").await, 0);
        assert_eq!(ledger.slices_kept_from().await.unwrap(), 0);
        let leaf = ledger.slice_leaf(495, "alice").await.unwrap();
        assert!(leaf.is_some());

        assert_eq!(drop_old(&ledger, "slice_work", "infinity").await, 1);
        assert_eq!(drop_old(&ledger, "slice_shares", "infinity").await, 1);
        let kept_from = u64::from(PARTITION);
        assert_eq!(ledger.slices_kept_from().await.unwrap(), kept_from);
        assert_eq!(ledger.slice_leaf(495, "alice").await.unwrap(), None);
        assert!(!ledger.sample_window(hash).await.unwrap().unwrap().is_kept());
        // What was signed stays: the headers, and each account's part.
        let slices = ledger.published_slices(0, 10).await.unwrap();
        assert_eq!(slices.len(), 10);
        let part = ledger.stated_part(hash, "bob").await.unwrap();
        assert!(part.unwrap().amount > Msat::ZERO);
        let earned = ledger.earned_rewards("bob", 10).await.unwrap();
        assert!(earned.matured > Msat::ZERO && earned.weight > Weight::ZERO);
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);

        // A longer window begins with what is kept.
        let running = Running::start_with(&ledger, divides(dir.path(), pplns(64))).await;
        running.log(weighty(2_000, "alice", HUNDRED)).await.unwrap();
        running.stop().await;
        assert_eq!(count(&ledger, WRONG_IN_WINDOW).await, 0);
        let first = count(&ledger, "SELECT first_slice FROM reward_chain").await;
        assert_eq!(first, i64::from(PARTITION));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        let mut connection = db.connection().await;
        for sql in [
            "DELETE FROM slice_work",
            "UPDATE slice_work SET weight = weight + 1",
            "TRUNCATE slice_work",
            "TRUNCATE slice_work_1024",
            "SELECT drop_slice_partitions('accounts', 'infinity')",
        ] {
            let done = sqlx::raw_sql(sql).execute(&mut connection).await;
            assert!(done.is_err(), "{sql}");
        }
    });
}

const BEFORE_PARTITIONS: &str = "
    INSERT INTO accounts (name, never_negative) VALUES ('worker:alice', true);
    INSERT INTO reward_slices (number, previous, accounts, total, top, root, signer, signature)
        SELECT n, sha256('p'), 1, 7 + n, sha256('t'), sha256(n::text::bytea), sha256('s'), sha512('s')
          FROM generate_series(0, 2999) n;
    INSERT INTO slice_work (slice, account, weight, shares, evidence)
        SELECT n, (SELECT id FROM accounts WHERE name = 'worker:alice'), 7 + n, 1 + n, sha256(n::text::bytea)
          FROM generate_series(0, 2999) n;
    INSERT INTO open_slice_work (account, slice, weight, shares, evidence) VALUES (1, 3000, 5, 1, sha256('e'));
";

#[test]
fn slices_of_a_release_without_partitions_are_kept_as_they_were() {
    run_empty(|_db, ledger| async move {
        migrator_up_to(22).run(&ledger.pool).await.unwrap();
        sqlx::raw_sql(BEFORE_PARTITIONS)
            .execute(&ledger.pool)
            .await
            .unwrap();
        let sum = "SELECT sum(hashtext(slice || ' ' || account || ' ' || weight || ' ' || shares || encode(evidence, 'hex')))::bigint
                     FROM slice_work";
        let before = count(&ledger, sum).await;
        ledger.migrate().await.unwrap();
        assert_eq!(count(&ledger, sum).await, before);
        let partitions =
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'slice_work'::regclass";
        assert_eq!(count(&ledger, partitions).await, 3);
        // No share of before can be shown, those of the open slice included.
        let from = "SELECT shares_from FROM reward_chain";
        assert_eq!(count(&ledger, from).await, 3_001);
    });
}

fn shown(n: u16) -> Option<Box<ShareProof>> {
    let mut header = [7; 80];
    header[..2].copy_from_slice(&n.to_le_bytes());
    Some(Box::new(ShareProof {
        work: Work::new(1 << 40),
        value_sat: 1,
        reference_sat: 2,
        header,
        merkle_path: vec![[1; 32], [2; 32]],
        coinbase: [&[9; 150][..], &n.to_le_bytes()].concat(),
    }))
}

/// The numbers of the shares that a block's points fall on, as an auditor finds them.
async fn sampled(ledger: &Ledger, block: HeaderHash, count: u32) -> Vec<u16> {
    let published = ledger.published_block(block).await.unwrap().unwrap();
    let terms = published.window.unwrap();
    let slices = ledger.published_slices(terms.first, 1_024).await.unwrap();
    let headers: Vec<SliceHeader> = slices
        .iter()
        .map(|slice| slice.header)
        .filter(|header| header.number <= terms.last)
        .collect();
    let total: u128 = headers.iter().map(|header| header.total.get()).sum();
    let newest = headers.last().unwrap().root();
    let window = ledger.sample_window(block).await.unwrap().unwrap();
    assert!(window.is_kept());
    let mut numbers = Vec::new();
    let drawn = points(&block, &newest, Weight::new(total).unwrap(), count);
    for (number, point) in (0..).zip(drawn) {
        let found = ledger.shown_point(&window, number).await.unwrap().unwrap();
        let answer = Answer {
            proof: found.leaf,
            shares: found.shares,
        };
        let share = answer.share_at(point, &headers).unwrap();
        let of = u16::from_le_bytes([share.id.0[0], share.id.0[1]]);
        let proof = found.proof.unwrap();
        assert_eq!(Some(Box::new(proof)), shown(of));
        numbers.push(of);
    }
    numbers
}

/// However sets are cut and pools are stopped, each point of a window is shown with its share.
#[test]
fn the_shares_that_a_block_has_chosen_are_there() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let start = || Running::start_with(&ledger, divides(dir.path(), pplns(8)));
        let mut running = Some(start().await);
        for n in 0..60 {
            // A slice and a bit for every three shares.
            let share = Share {
                proof: shown(n),
                ..weighty(n, &format!("miner{}", n % 4), 6)
            };
            let pool = running.as_ref().unwrap();
            match n % 5 {
                0 => pool.committer.commit(share).await.unwrap(),
                _ => pool.log(share).await.unwrap(),
            }
            if n % 13 == 12 {
                running.take().unwrap().stop().await;
                running = Some(start().await);
            }
        }
        let pool = running.unwrap();
        let found = block(60, "miner0", 1, 1_000);
        let hash = found.header_hash;
        pool.log(found).await.unwrap();
        pool.stop().await;
        let mut numbers = sampled(&ledger, hash, 200).await;
        numbers.sort_unstable();
        numbers.dedup();
        // Twenty slices have closed, with three shares each.
        assert!(
            numbers.len() > 40 && numbers.iter().all(|n| *n < 60),
            "{numbers:?}"
        );
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn a_pool_that_keeps_no_headers_for_a_while_shows_no_block_of_then() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        // A window holds two of the heavy shares. The slice that is open when the pool begins to keep them again is not whole.
        for (keeps, heavy, is_kept) in [
            (true, 3, true),
            (false, 3, false),
            (true, 2, false),
            (true, 2, true),
        ] {
            let mut config = divides(dir.path(), pplns(1));
            if !keeps {
                config.rewards.as_mut().unwrap().keep_shares = None;
            }
            let running = Running::start_with(&ledger, config).await;
            for at in 0..=heavy {
                let share = match at == heavy {
                    true => block(n, "bob", 8, 1_000),
                    false => weighty(n, "alice", 6 * HUNDRED),
                };
                let share = Share {
                    proof: shown(n),
                    ..share
                };
                running.log(share).await.unwrap();
                n += 1;
            }
            running.stop().await;
            let of = weighty(n - 1, "bob", 8).header_hash;
            let window = ledger.sample_window(of).await.unwrap().unwrap();
            assert_eq!(window.is_kept(), is_kept, "{n}");
            if is_kept {
                let shown = sampled(&ledger, of, 20).await;
                assert!(shown.iter().all(|of| *of < n));
            }
        }
    });
}
