//! Keys of the operator's: whatever is asked for at once, no key pays more than its budget.

use std::path::Path;

use super::consistency::every_fault_is_found;
use super::payers::{refused, settle};
use super::*;
use crate::payers::reserve_on;
use crate::{KeyId, KeyRecord, KeyRefusal, Lack, NewKey, TaskState};

/// A key of this name, whose secret is `sk-` and the name.
async fn key(ledger: &Ledger, name: &str, budget: i64, per_day: Option<i64>) -> KeyId {
    try_key(ledger, name, budget, per_day).await.unwrap()
}

async fn try_key(
    ledger: &Ledger,
    name: &str,
    budget: i64,
    per_day: Option<i64>,
) -> Result<KeyId, KeyRefusal> {
    let secret = format!("sk-{name}");
    let new = NewKey {
        name,
        secret: &secret,
        budget: Msat::new(budget),
        per_day: per_day.map(Msat::new),
    };
    ledger.add_key(&new).await
}

/// A task that may cost 1,008 msat and costs 1,003 if three tokens come.
fn task_of(n: u8, key: KeyId) -> NewTask {
    NewTask {
        prices: TokenPrices::new(1_000_000_000, 1_000_000).unwrap(),
        payer: Payer::Key(key),
        ..new_task(n)
    }
}

async fn standing(ledger: &Ledger, name: &str) -> KeyRecord {
    let keys = ledger.keys().await.unwrap();
    keys.into_iter().find(|key| key.name == name).unwrap()
}

/// What the key has spent, and what is set aside and left.
async fn sums(ledger: &Ledger, name: &str) -> (i64, i64, i64) {
    let key = standing(ledger, name).await;
    (key.spent.get(), key.reserved.get(), key.left.get())
}

/// The key `paid`, which has paid for one task and has another one running.
pub(super) async fn a_key_that_has_paid(ledger: &Ledger, log: &Path) {
    let key = key(ledger, "paid", 5_000, Some(4_000)).await;
    for n in [101, 102] {
        assert!(ledger.create_task(&task_of(n, key)).await.unwrap());
    }
    settle(ledger, log, &task_of(101, key)).await;
    assert_eq!(sums(ledger, "paid").await, (1_003, 1_008, 2_989));
}

#[test]
fn a_key_is_found_by_its_secret_alone_and_its_name_is_never_given_again() {
    run(|db, ledger| async move {
        let alice = key(&ledger, "alice", 5_000, None).await;
        let bob = key(&ledger, "Bob-2_x.y", 5_000, Some(5_000)).await;
        assert_ne!(alice, bob);
        let found = ledger.find_key("sk-alice").await.unwrap().unwrap();
        assert_eq!((found.id, &*found.name), (alice, "alice"));
        for secret in ["", "sk-", "alice", "sk-alice ", "SK-ALICE", "sk-\0"] {
            assert_eq!(ledger.find_key(secret).await.unwrap(), None, "{secret:?}");
        }
        for name in ["", "-a", "a b", "ä", "a\n", &"a".repeat(65)] {
            let refused = try_key(&ledger, name, 5_000, None).await;
            assert!(matches!(refused, Err(KeyRefusal::Name)), "{name:?}");
        }
        for (budget, per_day) in [(0, None), (-1, None), (5, Some(6)), (5, Some(0))] {
            let refused = try_key(&ledger, "carol", budget, per_day).await;
            assert!(matches!(refused, Err(KeyRefusal::Budget)), "{refused:?}");
        }
        assert!(ledger.revoke_key("alice").await.unwrap());
        assert!(!ledger.revoke_key("alice").await.unwrap());
        assert_eq!(ledger.find_key("sk-alice").await.unwrap(), None);
        let taken = try_key(&ledger, "alice", 5_000, None).await;
        assert!(matches!(taken, Err(KeyRefusal::Taken)), "{taken:?}");
        let unknown = ledger.revoke_key("carol").await;
        assert!(matches!(unknown, Err(KeyRefusal::Unknown)), "{unknown:?}");
        // What was refused has left nothing.
        assert_eq!(ledger.keys().await.unwrap().len(), 2);
        let mut connection = db.connection().await;
        let dump: String = sqlx::query_scalar("SELECT string_agg(k::text, ' ') FROM agent_keys k")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(
            !dump.contains("sk-") && !dump.contains(&hex::encode("sk-alice")),
            "{dump}"
        );
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn a_key_pays_until_its_money_is_reserved_or_gone_and_says_which() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&ledger, "alice", 2_015, None).await;
        assert_eq!(sums(&ledger, "alice").await, (0, 0, 2_015));
        assert!(ledger.create_task(&task_of(1, key)).await.unwrap());
        let reserved = Lack::BalanceReserved {
            available: Msat::new(1_007),
            reserved: Msat::new(1_008),
            required: Msat::new(1_008),
        };
        assert_eq!(refused(&ledger, &task_of(2, key)).await, reserved);
        // The same order again is the same task.
        assert!(!ledger.create_task(&task_of(1, key)).await.unwrap());
        settle(&ledger, dir.path(), &task_of(1, key)).await;
        assert_eq!(sums(&ledger, "alice").await, (1_003, 0, 1_012));
        assert_eq!(
            standing(&ledger, "alice").await.spent_today,
            Msat::new(1_003)
        );
        // It did not cost all that was set aside, so there is enough for another one.
        assert!(ledger.create_task(&task_of(2, key)).await.unwrap());
        settle(&ledger, dir.path(), &task_of(2, key)).await;
        let gone = Lack::InsufficientBalance {
            available: Msat::new(9),
            reserved: Msat::ZERO,
            required: Msat::new(1_008),
        };
        assert_eq!(refused(&ledger, &task_of(3, key)).await, gone);
        let dear = NewTask {
            prices: TokenPrices::new(2_100_000_000, 0).unwrap(),
            ..task_of(3, key)
        };
        let too_dear = Lack::TooDear {
            most: Msat::new(2_015),
            required: Msat::new(2_100),
        };
        assert_eq!(refused(&ledger, &dear).await, too_dear);
        // Nobody else's money was touched.
        assert_eq!(ledger.subsidy().await.unwrap(), crate::Subsidy::default());
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn a_revoked_key_admits_nothing_and_still_pays_for_what_runs() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&ledger, "alice", 5_000, Some(5_000)).await;
        for n in [1, 2] {
            assert!(ledger.create_task(&task_of(n, key)).await.unwrap());
        }
        assert!(ledger.revoke_key("alice").await.unwrap());
        assert_eq!(refused(&ledger, &task_of(3, key)).await, Lack::KeyInvalid);
        let free = NewTask {
            prices: TokenPrices::FREE,
            ..task_of(3, key)
        };
        assert_eq!(refused(&ledger, &free).await, Lack::KeyInvalid);
        assert!(ledger.task(free.id).await.unwrap().is_none());
        // It was ordered before.
        assert!(!ledger.create_task(&task_of(1, key)).await.unwrap());
        settle(&ledger, dir.path(), &task_of(1, key)).await;
        assert!(ledger.cancel_task(task_of(2, key).id).await.unwrap());
        assert_eq!(sums(&ledger, "alice").await, (1_003, 0, 3_997));
        assert_eq!(mature(&ledger).await, 1_003);
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

/// Far more is asked for than there is, on several connections at once, while earlier tasks end in every way.
#[test]
fn however_many_tasks_are_asked_for_at_once_no_key_pays_more_than_its_budget() {
    const BUDGET: i64 = 10 * 1_008 + 500;
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&ledger, "alice", BUDGET, Some(BUDGET)).await;
        let others = [db.ledger().await, db.ledger().await];
        let ask = async |numbers: std::ops::Range<u8>| {
            let mut asked = tokio::task::JoinSet::new();
            for n in numbers {
                let ledger = others[usize::from(n % 2)].clone();
                asked.spawn(async move {
                    match ledger.create_task(&task_of(n, key)).await {
                        Ok(is_new) => is_new.then_some(n),
                        Err(LedgerError::Unpaid(Lack::BalanceReserved { .. })) => None,
                        Err(error) => panic!("{error}"),
                    }
                });
            }
            let mut taken: Vec<u8> = asked.join_all().await.into_iter().flatten().collect();
            taken.sort_unstable();
            taken
        };
        let first = ask(0..60).await;
        assert_eq!(first.len(), 10);
        assert_eq!(sums(&ledger, "alice").await, (0, 10 * 1_008, 500));
        // Two are paid, the others end; more is asked for meanwhile.
        let ends = async {
            for n in &first[..2] {
                settle(&ledger, dir.path(), &task_of(*n, key)).await;
            }
            for n in &first[2..] {
                let id = task_of(*n, key).id;
                let ended = match n % 2 {
                    0 => ledger.cancel_task(id).await,
                    _ => ledger.fail_task(id, None, "x").await,
                };
                assert!(ended.unwrap());
            }
        };
        let (second, ()) = tokio::join!(ask(60..120), ends);
        let third = ask(120..180).await;
        // 10,580 less twice 1,003 are enough for eight of 1,008.
        assert_eq!(second.len() + third.len(), 8);
        assert_eq!(sums(&ledger, "alice").await, (2 * 1_003, 8 * 1_008, 510));
        for n in second.into_iter().chain(third) {
            settle(&ledger, dir.path(), &task_of(n, key)).await;
        }
        assert_eq!(sums(&ledger, "alice").await, (10 * 1_003, 0, 550));
        assert_eq!(mature(&ledger).await, 10 * 1_003);
        let gone = refused(&ledger, &task_of(200, key)).await;
        assert!(matches!(gone, Lack::InsufficientBalance { .. }), "{gone:?}");
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

/// A day begins at midnight, whatever is held over it.
#[test]
fn what_a_day_may_cost_holds_over_midnight() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&ledger, "alice", 10_000, Some(2_500)).await;
        let today = unix_now() / 86_400;
        for n in [1, 2] {
            assert!(ledger.create_task(&task_of(n, key)).await.unwrap());
        }
        assert_eq!(standing(&ledger, "alice").await.left_today, Msat::new(484));
        let reserved = refused(&ledger, &task_of(3, key)).await;
        assert!(matches!(reserved, Lack::BalanceReserved { .. }));
        settle(&ledger, dir.path(), &task_of(1, key)).await;
        settle(&ledger, dir.path(), &task_of(2, key)).await;
        let limit = Lack::DailyLimit {
            per_day: Msat::new(2_500),
            resets_at_unix: (today + 1) * 86_400,
        };
        assert_eq!(refused(&ledger, &task_of(3, key)).await, limit);
        assert_eq!(sums(&ledger, "alice").await, (2_006, 0, 7_994));

        // What a day's tasks are set aside; the transaction is left open, since no clock says that it is tomorrow.
        let mut connection = db.connection().await;
        let mut later = connection.begin().await.unwrap();
        let mut reserve = async |n: u8, msat: i64, day: u64| {
            let mut point = later.begin().await.unwrap();
            let id = TaskId::from_bytes([n; 32]);
            let payer = Payer::Key(key);
            let reserved = reserve_on(&mut point, id, payer, Msat::new(msat), day).await;
            match reserved {
                Ok(_) => {
                    point.commit().await.unwrap();
                    Ok(())
                }
                Err(LedgerError::Unpaid(lack)) => Err(lack),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(reserve(11, 2_500, today + 1).await, Ok(()));
        // Held over midnight, it is all that the next day has.
        let held = reserve(12, 1, today + 2).await;
        assert!(
            matches!(held, Err(Lack::BalanceReserved { .. })),
            "{held:?}"
        );
        // Two days on there is no more either: the day is filled up, not added to.
        let held = reserve(12, 1, today + 3).await;
        assert!(
            matches!(held, Err(Lack::BalanceReserved { .. })),
            "{held:?}"
        );
        let too_dear = reserve(12, 2_501, today + 3).await;
        assert!(
            matches!(too_dear, Err(Lack::TooDear { .. })),
            "{too_dear:?}"
        );
        later.rollback().await.unwrap();
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

/// Tasks of yesterday that are settled today, before anything was asked for today, are part of what today may cost.
#[test]
fn what_was_spent_before_the_first_task_of_a_day_counts_for_that_day() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let key = key(&ledger, "alice", 10_000, Some(2_500)).await;
        let yesterday = unix_now() / 86_400 - 1;
        assert!(ledger.create_task(&task_of(1, key)).await.unwrap());
        // Its day was filled yesterday.
        let mut by_hand = db.connection().await;
        sqlx::raw_sql("SET session_replication_role = replica")
            .execute(&mut by_hand)
            .await
            .unwrap();
        sqlx::query("UPDATE agent_key_days SET day = $1")
            .bind(i64::try_from(yesterday).unwrap())
            .execute(&mut by_hand)
            .await
            .unwrap();
        settle(&ledger, dir.path(), &task_of(1, key)).await;
        assert_eq!(
            standing(&ledger, "alice").await.left_today,
            Msat::new(1_497)
        );
        assert!(ledger.create_task(&task_of(2, key)).await.unwrap());
        // 2,500 a day, of which 1,003 are spent and 1,008 held.
        let key = standing(&ledger, "alice").await;
        assert_eq!((key.left_today.get(), key.spent_today.get()), (489, 1_003));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn the_database_gives_no_key_more_than_its_budget_whoever_asks_it_to() {
    run(|db, ledger| async move {
        key(&ledger, "whole", 5_000, None).await;
        key(&ledger, "daily", 5_000, Some(2_000)).await;
        let mut by_hand = db.connection().await;
        for (name, msat, is_taken) in [
            ("whole", 1, false),
            ("daily", 2_001, false),
            ("daily", 2_000, true),
            ("daily", 2_000, true),
            ("daily", 1_001, false),
            ("daily", 1_000, true),
        ] {
            let given = sqlx::query(
                "INSERT INTO agent_key_days (key, day, given_msat)
                 SELECT number, (SELECT count(*) FROM agent_key_days), $2 FROM agent_keys WHERE name = $1",
            )
            .bind(name)
            .bind(msat)
            .execute(&mut by_hand)
            .await;
            assert_eq!(given.is_ok(), is_taken, "{name} {msat}");
        }
        for sql in [
            "UPDATE agent_keys SET budget_msat = 9000",
            "UPDATE agent_keys SET revoked_at = NULL",
            "DELETE FROM agent_keys",
            "TRUNCATE agent_keys CASCADE",
            "UPDATE agent_key_days SET given_msat = 0",
            "DELETE FROM agent_key_days",
            "TRUNCATE agent_key_days",
        ] {
            let done = sqlx::raw_sql(sql).execute(&mut by_hand).await;
            assert!(done.is_err(), "{sql}");
        }
    });
}

/// What was done to the tables, and a word of the rule that is broken then.
const FAULTS: [(&str, &str); 8] = [
    (
        "UPDATE agent_key_days SET given_msat = given_msat - 1",
        "days",
    ),
    (
        "UPDATE agent_keys SET budget_msat = 3999, per_day_msat = NULL",
        "budget",
    ),
    ("UPDATE agent_keys SET per_day_msat = 3999", "budget"),
    (
        "INSERT INTO transfers (id, kind, debit, credit, amount, reason)
      SELECT '\\x00112233445566778899aabbccddeeff', 'posted', p.id, a.id, 5, 'budget'
        FROM accounts p, accounts a WHERE p.name = 'pool:subsidy' AND a.name = 'payer:key:paid'",
        "filled",
    ),
    (
        "UPDATE tasks SET state = 'cancelled', prompt = NULL, stop = NULL, answer_form = NULL WHERE state = 'queued'",
        "set aside",
    ),
    (
        "UPDATE tasks SET price_msat = price_msat + 1 WHERE state = 'settled'",
        "batch",
    ),
    (
        "UPDATE agent_keys SET revoked_at = created_at - interval '1 minute'",
        "revoked",
    ),
    ("DELETE FROM transfers WHERE reason = 'tasks'", "settled"),
];

#[test]
fn a_key_that_was_only_used_is_what_its_facts_say_and_every_fault_is_found() {
    run(|db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        // So that there is an account of the operator's too.
        assert!(ledger.create_task(&new_task(1)).await.unwrap());
        a_key_that_has_paid(&ledger, dir.path()).await;
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
        every_fault_is_found(&db, &FAULTS).await;
        let task = ledger.task(TaskId::from_bytes([101; 32])).await.unwrap();
        assert_eq!(task.unwrap().state, TaskState::Settled);
    });
}
