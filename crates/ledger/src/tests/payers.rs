//! Who pays: no task without money for it, and no credit without a payer.

use super::*;
use crate::{CommitRefusal, Lack, TaskState};

/// A task of 1,000 msat on this budget.
fn on_budget(n: u8, per_day: i64, in_all: i64) -> NewTask {
    NewTask {
        payer: Payer::Operator(SubsidyBudget {
            per_day: Msat::new(per_day),
            in_all: Msat::new(in_all),
        }),
        ..new_task(n)
    }
}

pub(super) async fn refused(ledger: &Ledger, task: &NewTask) -> Lack {
    match ledger.create_task(task).await {
        Err(LedgerError::Unpaid(lack)) => lack,
        other => panic!("{other:?}"),
    }
}

async fn subsidy(ledger: &Ledger) -> (i64, i64, i64) {
    let subsidy = ledger.subsidy().await.unwrap();
    let [granted, reserved, spent] = [subsidy.granted, subsidy.reserved, subsidy.spent];
    (granted.get(), reserved.get(), spent.get())
}

#[test]
fn without_a_budget_no_task_that_costs_anything_is_taken() {
    run(|_db, ledger| async move {
        assert_eq!(subsidy(&ledger).await, (0, 0, 0));
        assert_eq!(refused(&ledger, &on_budget(1, 0, 0)).await, Lack::Unpaid);
        assert!(ledger.task(new_task(1).id).await.unwrap().is_none());
        let free = NewTask {
            prices: TokenPrices::FREE,
            ..on_budget(1, 0, 0)
        };
        assert!(ledger.create_task(&free).await.unwrap());
    });
}

#[test]
fn a_days_budget_is_given_once_and_its_tasks_fit_it() {
    run(|_db, ledger| async move {
        for n in 1..=2 {
            assert!(
                ledger
                    .create_task(&on_budget(n, 2_500, 9_000))
                    .await
                    .unwrap()
            );
        }
        let third = on_budget(3, 2_500, 9_000);
        // It would do, if the others cost less.
        let lack = Lack::BalanceReserved {
            available: Msat::new(500),
            reserved: Msat::new(2_000),
            required: Msat::new(1_000),
        };
        assert_eq!(refused(&ledger, &third).await, lack);
        assert_eq!(subsidy(&ledger).await, (2_500, 2_000, 0));
        // The same order again is the same task, and sets nothing more aside.
        assert!(
            !ledger
                .create_task(&on_budget(1, 2_500, 9_000))
                .await
                .unwrap()
        );
        assert_eq!(subsidy(&ledger).await, (2_500, 2_000, 0));
        // What is not needed any more pays for another task.
        assert!(ledger.cancel_task(new_task(1).id).await.unwrap());
        assert_eq!(subsidy(&ledger).await, (2_500, 1_000, 0));
        assert!(ledger.create_task(&third).await.unwrap());
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

/// Else whoever holds tasks open over midnight, and then has them end, has two days' budget on the next day.
#[test]
fn what_is_set_aside_overnight_is_part_of_the_next_days_budget() {
    run(|db, ledger| async move {
        for n in 1..=2 {
            let task = on_budget(n, 2_500, 9_000);
            assert!(ledger.create_task(&task).await.unwrap());
        }
        let tomorrow = unix_now() / 86_400 + 1;
        let budget = SubsidyBudget {
            per_day: Msat::new(2_500),
            in_all: Msat::new(9_000),
        };
        let mut connection = db.connection().await;
        crate::subsidy::open(&mut connection, budget, tomorrow)
            .await
            .unwrap();
        assert_eq!(subsidy(&ledger).await, (2_500, 2_000, 0));
        assert_eq!(ledger.fail_unfinished("x").await.unwrap(), 2);
        // What one day may cost, and no more.
        let mut taken = 0;
        for n in 3..=9 {
            let task = on_budget(n, 2_500, 9_000);
            taken += usize::from(ledger.create_task(&task).await.is_ok());
        }
        assert_eq!(taken, 2);
    });
}

/// Takes a task that was created all the way to its settlement, for what it costs.
pub(super) async fn settle(ledger: &Ledger, log: &std::path::Path, task: &NewTask) {
    assert!(ledger.assign_task(task.id, WORKER).await.unwrap());
    let transcript = transcript(task, &[1, 2, 3]);
    ledger
        .finish_task(task.id, WORKER, &transcript, &[1, 2, 3])
        .await
        .unwrap();
    let root = root_of(std::slice::from_ref(&transcript));
    ledger
        .register_batch(WORKER, root, &[task.id])
        .await
        .unwrap();
    let mut share = inference_share(task.id.to_bytes()[0], root, &[task.id]);
    share.batch.as_mut().unwrap().credit = task.prices.of(task.input_tokens(), 3);
    let running = Running::start(ledger, log).await;
    running.committer.commit(share).await.unwrap();
    running.stop().await;
}

#[test]
fn the_budget_in_all_bounds_the_days() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let first = on_budget(1, 2_500, 1_500);
        assert!(ledger.create_task(&first).await.unwrap());
        assert_eq!(subsidy(&ledger).await, (1_500, 1_000, 0));
        settle(&ledger, dir.path(), &on_budget(1, 2_500, 1_500)).await;
        let second = on_budget(2, 2_500, 1_500);
        assert_eq!(refused(&ledger, &second).await, Lack::Unpaid);
        // With a larger budget there is more, tomorrow.
        let second = on_budget(2, 1_000, 9_000);
        let lack = refused(&ledger, &second).await;
        assert!(matches!(lack, Lack::DailyLimit { .. }), "{lack:?}");
    });
}

#[test]
fn what_was_spent_on_earlier_days_is_not_todays() {
    run(|_db, ledger| async move {
        assert!(
            ledger
                .create_task(&on_budget(1, 2_500, 9_000))
                .await
                .unwrap()
        );
        for (days_ago, amount) in [(2, 400), (0, 100)] {
            sqlx::query(
                "INSERT INTO transfers (id, kind, debit, credit, amount, reason, created_at)
                 SELECT substr(sha256(int8send($2)), 1, 16), 'posted', d.id, c.id, $2, 'tasks',
                        now() - make_interval(days => $1)
                   FROM accounts d, accounts c WHERE d.name = 'payer:subsidy' AND c.name = 'paid:inference'",
            )
            .bind(days_ago)
            .bind(amount)
            .execute(&ledger.pool)
            .await
            .unwrap();
        }
        let subsidy = ledger.subsidy().await.unwrap();
        assert_eq!(subsidy.spent, Msat::new(500));
        assert_eq!(subsidy.spent_today, Msat::new(100));
        assert_eq!(subsidy.available(), Msat::new(2_500 - 1_000 - 500));
    });
}

/// However a task ends, what was set aside for it moves once.
#[test]
fn every_end_of_a_task_gives_back_what_it_did_not_cost() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let task = |n| NewTask {
            // 3 of at most 8 output tokens come: 1,003 of 1,008 msat.
            prices: TokenPrices::new(1_000_000_000, 1_000_000).unwrap(),
            ..new_task(n)
        };
        for n in 1..=3 {
            assert!(ledger.create_task(&task(n)).await.unwrap());
        }
        assert_eq!(subsidy(&ledger).await.1, 3 * 1_008);
        assert!(ledger.cancel_task(task(1).id).await.unwrap());
        assert!(ledger.fail_task(task(2).id, None, "x").await.unwrap());
        assert_eq!(ledger.fail_unfinished("x").await.unwrap(), 1);
        assert_eq!(subsidy(&ledger).await.1, 0);

        let expired = finish(&ledger, &task(4)).await;
        ledger.expire_tasks(unix_now() + 700).await.unwrap();
        assert_eq!(subsidy(&ledger).await.1, 0);
        let settled = finish(&ledger, &task(5)).await;
        assert_ne!(expired.task_id, settled.task_id);
        let root = root_of(std::slice::from_ref(&settled));
        ledger
            .register_batch(WORKER, root, &[settled.task_id])
            .await
            .unwrap();
        let mut share = inference_share(1, root, &[settled.task_id]);
        share.batch.as_mut().unwrap().credit = Msat::new(1_003);
        running.committer.commit(share).await.unwrap();
        let (_, reserved, spent) = subsidy(&ledger).await;
        assert_eq!((reserved, spent), (0, 1_003));
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}

#[test]
fn a_worker_is_not_credited_with_more_than_was_paid() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let mut share = inference_share(1, root, &tasks);
        share.batch.as_mut().unwrap().credit = Msat::new(1_001);
        let refused = running.committer.commit(share.clone()).await;
        assert_eq!(refused, Err(CommitRefusal::Invalid));
        assert_eq!(subsidy(&ledger).await.2, 0);
        share.batch.as_mut().unwrap().credit = Msat::new(1_000);
        running.committer.commit(share).await.unwrap();
    });
}

#[test]
fn a_task_that_was_stopped_ends_with_its_prefix_or_is_cancelled() {
    run(|_db, ledger| async move {
        let priced = |n| NewTask {
            prices: TokenPrices::new(1_000_000_000, 1_000_000).unwrap(),
            ..new_task(n)
        };
        let until = unix_now() + 100;
        for n in 1..=2 {
            let id = priced(n).id;
            assert!(ledger.create_task(&priced(n)).await.unwrap());
            assert!(!ledger.stop_task(id, 5).await.unwrap(), "it does not run");
            assert!(ledger.assign_task(id, WORKER).await.unwrap());
            assert!(ledger.stop_task(id, until).await.unwrap());
            // The first word counts.
            assert!(ledger.stop_task(id, until + 100).await.unwrap());
            let record = ledger.task(id).await.unwrap().unwrap();
            assert_eq!(record.state, TaskState::Assigned);
            assert_eq!(record.stops_at_unix, Some(until));
            assert!(!ledger.release_task(id, WORKER).await.unwrap());
        }
        let prefix = transcript(&priced(1), &[1]);
        ledger
            .finish_task(prefix.task_id, WORKER, &prefix, &[1])
            .await
            .unwrap();
        let ended = ledger.expire_tasks(unix_now() + 150).await.unwrap();
        assert_eq!(ended, [priced(2).id]);
        let task = async |n| ledger.task(priced(n).id).await.unwrap().unwrap();
        let (first, second) = (task(1).await, task(2).await);
        assert_eq!(first.state, TaskState::Finished);
        assert_eq!(first.price, Msat::new(1_001));
        assert_eq!(second.state, TaskState::Cancelled);
        assert_eq!(second.prompt, None);
        // What it costs, of the 1008 that it might have cost.
        assert_eq!(subsidy(&ledger).await.1, 1_001);
    });
}

/// A worker that asks its own questions would get its stake back otherwise.
#[test]
fn forfeited_credit_goes_to_the_pool_and_not_back_to_who_paid() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1]).await;
        let share = inference_share(1, root, &tasks);
        running.committer.commit(share).await.unwrap();
        let (bad, _) = open_batch(&ledger, &[2]).await;
        fail(&ledger, bad, 2, 2).await.unwrap();
        let (_, reserved, spent) = subsidy(&ledger).await;
        assert_eq!((reserved, spent), (0, 1_000));
        let kept: i64 =
            sqlx::query_scalar("SELECT credits_posted FROM accounts WHERE name = 'pool:forfeited'")
                .fetch_one(&ledger.pool)
                .await
                .unwrap();
        assert_eq!(kept, 1_000);
        super::model::transfers_explain_the_accounts(&ledger).await;
    });
}
