//! Coinbases that pay accounts themselves: who is listed, for how long, and what is left of a part when its block matures.

use super::consistency::every_fault_is_found;
use super::rewards::{block, divides, pplns, weighty};
use super::*;
use crate::{BesidePool, ListedOutput, NewPayoutList, RewardState};

const A: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
const B: &str = "bcrt1qft5p2uhsdcdc3l2ua4ap5qqfg4pjaqlp250x7us7a8qqhrxrxfsqseac85";

fn output(account: &str, script: u8, amount_sat: u64) -> ListedOutput {
    ListedOutput {
        account: account.to_owned(),
        script: vec![script; 22],
        amount_sat,
    }
}

fn list(subsidy_sat: u64, outputs: Vec<ListedOutput>) -> NewPayoutList {
    NewPayoutList {
        subsidy_sat,
        heights: 0..150,
        outputs,
    }
}

/// Two slices of A's, one of B's and one of a plain account, and then a block of 1,000 satoshi.
async fn found(ledger: &Ledger, dir: &Path) -> HeaderHash {
    let running = Running::start_with(ledger, divides(dir, pplns(8))).await;
    for (n, account, sixteenths) in [(1, A, 32), (2, B, 16), (3, "plain", 16)] {
        running.log(weighty(n, account, sixteenths)).await.unwrap();
    }
    let found = block(4, "plain", 1, 1_000);
    let hash = found.header_hash;
    running.log(found).await.unwrap();
    running.stop().await;
    hash
}

async fn balance(ledger: &Ledger, name: &str) -> i64 {
    sqlx::query_scalar("SELECT credits_posted - debits_posted FROM accounts WHERE name = $1")
        .bind(name)
        .fetch_one(&ledger.pool)
        .await
        .unwrap()
}

#[test]
fn the_heaviest_accounts_are_those_that_are_paid_on_chain_now() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        found(&ledger, dir.path()).await;
        let (window, heaviest) = ledger.heaviest_accounts(10).await.unwrap();
        let of = |heavy: &[crate::HeavyAccount]| {
            let names = heavy
                .iter()
                .map(|heavy| (heavy.account.clone(), heavy.address.clone()));
            names.collect::<Vec<_>>()
        };
        let own = |name: &str| (name.to_owned(), name.to_owned());
        assert_eq!(of(&heaviest), [own(A), own(B)]);
        assert_eq!(heaviest[0].weight.get() * 2, window.get());
        let (_, one) = ledger.heaviest_accounts(1).await.unwrap();
        assert_eq!(of(&one), [own(A)]);
        // Who wants to be paid over Lightning is not paid in coinbases.
        payouts::destinations::state(&ledger, A, "first@wallet.example", 1).await;
        let (_, rest) = ledger.heaviest_accounts(10).await.unwrap();
        assert_eq!(of(&rest), [own(B)]);
    });
}

#[test]
fn a_list_is_made_anew_when_it_is_old_or_for_another_subsidy_and_ended_by_an_empty_one() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        found(&ledger, dir.path()).await;
        let (hour, never) = (Duration::from_secs(3_600), Duration::ZERO);
        let make = |list: NewPayoutList, renew_after| {
            let ledger = ledger.clone();
            async move { ledger.make_payout_list(&list, renew_after).await }
        };
        // Nothing ends nothing.
        assert!(!make(list(900, Vec::new()), never).await.unwrap());
        let one = || list(900, vec![output(A, 1, 300)]);
        assert!(make(one(), hour).await.unwrap());
        assert!(!make(one(), hour).await.unwrap());
        assert!(make(one(), never).await.unwrap());
        let later = NewPayoutList {
            heights: 150..300,
            ..one()
        };
        assert!(make(later, hour).await.unwrap());
        assert!(make(list(900, Vec::new()), hour).await.unwrap());
        assert!(!make(list(900, Vec::new()), never).await.unwrap());
        let lists = ledger.payout_lists(hour).await.unwrap();
        let outputs: Vec<usize> = lists.iter().map(|list| list.outputs.len()).collect();
        assert_eq!(outputs, [1, 1, 1, 0]);
        assert_eq!(lists[0].outputs, [(vec![1; 22], 300)]);
        assert_eq!(
            (lists[2].heights.clone(), lists[2].subsidy_sat),
            (150..300, 900)
        );
        assert_eq!(ledger.payout_lists(never).await.unwrap(), []);
        // It leaves the pool a part, names each account and script once, and only accounts that there are.
        for refused in [
            list(900, vec![output(A, 1, 900)]),
            list(900, vec![output(A, 1, 300), output(A, 2, 300)]),
            list(900, vec![output(A, 1, 300), output(B, 1, 300)]),
            list(900, vec![output("nobody", 1, 300)]),
        ] {
            make(refused, never).await.unwrap_err();
        }
        assert_eq!(ledger.payout_lists(hour).await.unwrap().len(), 4);
    });
}

#[test]
fn what_a_coinbase_has_paid_is_taken_off_the_parts_to_the_last_msat() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let block = found(&ledger, dir.path()).await;
        // Of 990 satoshi A has half, B and the plain account a quarter each.
        let listed = list(900, vec![output(A, 1, 400), output(B, 2, 300)]);
        ledger
            .make_payout_list(&listed, Duration::ZERO)
            .await
            .unwrap();
        let paid = [(vec![1; 22], 400), (vec![2; 22], 300)];
        let noted = ledger.note_active(block, &paid).await.unwrap();
        assert_eq!(noted, Some(BesidePool::Accounts));
        assert_eq!(ledger.note_active(block, &paid).await.unwrap(), None);
        let sums = ledger.obligations().await.unwrap();
        // B's part is smaller than what it was paid.
        assert_eq!(
            (sums.immature.get(), sums.immature_rewards.get()),
            (95_000 + 247_500, 300_000)
        );
        // The chain may leave it and come back: what it paid was noted.
        assert!(
            ledger
                .note_reward(block, RewardState::Orphaned)
                .await
                .unwrap()
        );
        let back = ledger.note_active(block, &[]).await.unwrap();
        assert_eq!(back, Some(BesidePool::Accounts));
        let matured = ledger.mature_reward(block).await.unwrap().unwrap();
        assert_eq!(
            (matured.paid_ahead.get(), matured.loss.get()),
            (700_000, 52_500)
        );
        for (name, amount) in [
            (format!("worker:{A}"), 95_000),
            (format!("worker:{B}"), 0),
            ("worker:plain".to_owned(), 247_500),
            ("pool:fees".to_owned(), 10_000),
            ("pool:rewards".to_owned(), -1_000_000),
            ("pool:coinbase".to_owned(), 700_000),
            ("pool:loss".to_owned(), -52_500),
        ] {
            assert_eq!(balance(&ledger, &name).await, amount, "{name}");
        }
        let sums = ledger.obligations().await.unwrap();
        assert_eq!(
            (sums.owed.get(), sums.rewards.get(), sums.immature.get()),
            (342_500, 300_000, 0)
        );
        let earned = ledger.earned_rewards(A, 1).await.unwrap();
        let of_a = (
            earned.blocks[0].amount.get(),
            earned.blocks[0].paid_ahead.get(),
        );
        assert_eq!(of_a, (495_000, 400_000));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        facts_stay(&db).await;
        let faults = [
            ("DELETE FROM block_advances", "what coinbases have paid"),
            (
                "UPDATE block_advances SET amount_sat = 500",
                "less than its reward",
            ),
        ];
        every_fault_is_found(&db, &faults).await;
    });
}

/// No statement changes what was listed or paid, and a list that is no week old is not dropped.
async fn facts_stay(db: &Database) {
    let mut connection = db.connection().await;
    for change in [
        "UPDATE payout_lists SET subsidy_sat = 1",
        "UPDATE payout_list_outputs SET amount_sat = 1",
        "UPDATE block_advances SET amount_sat = 1",
        "DELETE FROM payout_lists",
        "DELETE FROM payout_list_outputs",
        "DELETE FROM block_advances",
        "TRUNCATE payout_list_outputs",
        "INSERT INTO payout_list_outputs SELECT number, 99, 'x', 1 FROM payout_lists",
        "INSERT INTO block_advances SELECT header_hash, 99, 1 FROM block_rewards",
    ] {
        let refused = sqlx::raw_sql(change).execute(&mut connection).await;
        assert!(refused.is_err(), "{change}");
    }
    let dropped: i64 = sqlx::query_scalar("SELECT drop_payout_lists()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(dropped, 0);
    let old = "SET session_replication_role = replica; UPDATE payout_lists SET made_at = now() - interval '8 days';
               SET session_replication_role = origin";
    sqlx::raw_sql(old).execute(&mut connection).await.unwrap();
    let dropped: i64 = sqlx::query_scalar("SELECT drop_payout_lists()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(dropped, 1);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM payout_list_outputs")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_coinbase_that_pays_what_no_list_has_is_nobodys_advance() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let block = found(&ledger, dir.path()).await;
        for outputs in [
            vec![output(A, 1, 400), output(B, 2, 300)],
            vec![output(A, 1, 401)],
        ] {
            let list = list(900, outputs);
            let made = ledger.make_payout_list(&list, Duration::ZERO).await;
            assert!(made.unwrap());
        }
        // Of two lists, and one output twice.
        let (a, other, b) = ((vec![1; 22], 400), (vec![1; 22], 401), (vec![2; 22], 300));
        for paid in [
            vec![b.clone(), other],
            vec![a.clone(), a],
            vec![(vec![9; 22], 300)],
        ] {
            let mut transaction = ledger.begin().await.unwrap();
            let noted = crate::rewards::advances::note(&mut transaction, block, &paid).await;
            assert!(!noted.unwrap(), "{paid:?}");
            transaction.rollback().await.unwrap();
        }
        let noted = ledger
            .note_active(block, &[(vec![9; 22], 300)])
            .await
            .unwrap();
        assert_eq!(noted, Some(BesidePool::Others));
        let matured = ledger.mature_reward(block).await.unwrap().unwrap();
        assert_eq!((matured.paid_ahead.get(), matured.loss.get()), (0, 0));
        assert_eq!(balance(&ledger, &format!("worker:{A}")).await, 495_000);
    });
}
