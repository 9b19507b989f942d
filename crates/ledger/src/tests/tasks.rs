//! The life of a task, and declared jobs.

use super::*;
use crate::{BatchRefusal, BatchState, DeclaredJob, LedgerError, TaskRecord, TaskState};

async fn state(ledger: &Ledger, n: u8) -> (TaskState, bool) {
    let task = ledger
        .task(TaskId::from_bytes([n; 32]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(task.stop.is_some(), task.prompt.is_some());
    assert_eq!(task.constraint.is_some(), task.prompt.is_some());
    assert!(
        task.constraint
            .is_none_or(|form| Some(form) == new_task(n).constraint)
    );
    assert!(task.stop.is_none_or(|stop| stop == new_task(n).stop));
    let has_prompt = task.prompt.is_some();
    assert!(
        task.prompt
            .is_none_or(|prompt| prompt == new_task(n).prompt)
    );
    (task.state, has_prompt)
}

#[test]
fn a_repeated_request_is_the_same_task_and_another_under_its_id_is_refused() {
    run(|_db, ledger| async move {
        assert!(ledger.create_task(&new_task(1)).await.unwrap());
        assert!(!ledger.create_task(&new_task(1)).await.unwrap());
        let other_prompt = NewTask {
            prompt: prompt(b"another", new_task(1).prompt.tokens()),
            ..new_task(1)
        };
        let other_stop = NewTask {
            stop: StopSequences::default(),
            ..new_task(1)
        };
        let other_form = NewTask {
            constraint: Some(constraint("{}")),
            ..new_task(1)
        };
        let no_form = NewTask {
            constraint: None,
            ..new_task(1)
        };
        for other in [other_prompt, other_stop, other_form, no_form] {
            assert!(matches!(
                ledger.create_task(&other).await,
                Err(LedgerError::Conflict(_))
            ));
        }
    });
}

/// Each looks for the task only once it has the right to set money aside, and finds what the one before has written.
#[test]
fn a_request_that_comes_many_times_at_once_is_one_task_and_set_aside_once() {
    run(|db, ledger| async move {
        let others = [db.ledger().await, db.ledger().await];
        let mut asked = tokio::task::JoinSet::new();
        for n in 0..16 {
            let ledger = others[n % 2].clone();
            asked.spawn(async move { ledger.create_task(&new_task(1)).await.unwrap() });
        }
        let created = asked.join_all().await;
        assert_eq!(created.iter().filter(|is_new| **is_new).count(), 1);
        let reserved = ledger.subsidy().await.unwrap().reserved;
        assert_eq!(reserved, new_task(1).price_max());
    });
}

#[test]
fn a_new_task_is_known_as_the_ledger_has_it() {
    run(|_db, ledger| async move {
        let task = new_task(1);
        ledger.create_task(&task).await.unwrap();
        let (known, stored) = (task.record(), ledger.task(task.id).await.unwrap().unwrap());
        let seen = |record: TaskRecord| {
            (
                (record.id, record.state, record.model_id, record.sampling),
                (record.stop, record.constraint, record.salt, record.seed),
                (record.price, record.input_tokens, record.prices),
                (record.worker, record.transcript, record.output_tokens),
                (record.error_code, record.stops_at_unix),
                (record.created_at_unix, record.expires_at_unix),
            )
        };
        assert!(known.prompt.is_some() && known.prompt == stored.prompt);
        assert_eq!(seen(known), seen(stored));
    });
}

#[test]
fn a_request_that_is_repeated_after_an_update_of_the_tokenizer_is_the_same_task_with_its_first_tokens()
 {
    run(|_db, ledger| async move {
        let task = new_task(1);
        assert!(ledger.create_task(&task).await.unwrap());
        let again = NewTask {
            prompt: EncodedPrompt::from_parts(*task.prompt.text(), vec![9]).unwrap(),
            ..task.clone()
        };
        assert!(!ledger.create_task(&again).await.unwrap());
        let record = ledger.task(task.id).await.unwrap().unwrap();
        assert_eq!(record.prompt, Some(task.prompt));
    });
}

#[test]
fn a_task_is_assigned_to_one_worker_only() {
    run(|db, ledger| async move {
        ledger.create_task(&new_task(1)).await.unwrap();
        let other = db.ledger().await;
        let id = TaskId::from_bytes([1; 32]);
        let (first, second) = tokio::join!(
            ledger.assign_task(id, WORKER),
            other.assign_task(id, WORKER)
        );
        assert!(first.unwrap() ^ second.unwrap());
    });
}

#[test]
fn only_the_worker_that_runs_a_task_finishes_it_and_with_its_own_transcript() {
    run(|_db, ledger| async move {
        let task = new_task(1);
        let good = transcript(&task, &[1, 2]);
        ledger.create_task(&task).await.unwrap();
        let refused = |result| assert!(matches!(result, Err(LedgerError::Refused(_))));
        refused(ledger.finish_task(task.id, WORKER, &good, &[1, 2]).await);
        ledger.assign_task(task.id, WORKER).await.unwrap();
        let stranger = WorkerKey::from_bytes([1; 32]);
        refused(ledger.finish_task(task.id, stranger, &good, &[1, 2]).await);
        refused(ledger.finish_task(task.id, WORKER, &good, &[1, 3]).await);
        let of_another = transcript(&new_task(2), &[1, 2]);
        refused(
            ledger
                .finish_task(task.id, WORKER, &of_another, &[1, 2])
                .await,
        );
        ledger
            .finish_task(task.id, WORKER, &good, &[1, 2])
            .await
            .unwrap();
        refused(ledger.finish_task(task.id, WORKER, &good, &[1, 2]).await);
        let record = ledger.task(task.id).await.unwrap().unwrap();
        assert_eq!(record.state, TaskState::Finished);
        assert_eq!(record.transcript, Some(good));
        assert_eq!(record.output_tokens, Some(vec![1, 2]));
        assert_eq!(record.sampling, SAMPLING);
    });
}

#[test]
fn a_task_that_its_worker_gives_back_is_anothers_and_keeps_its_prompt() {
    run(|_db, ledger| async move {
        let (task, other) = (new_task(1), WorkerKey::from_bytes([1; 32]));
        let good = transcript(&task, &[1, 2]);
        ledger.create_task(&task).await.unwrap();
        assert!(!ledger.release_task(task.id, WORKER).await.unwrap());
        ledger.assign_task(task.id, other).await.unwrap();
        assert!(!ledger.release_task(task.id, WORKER).await.unwrap());
        assert!(ledger.release_task(task.id, other).await.unwrap());
        assert!(!ledger.release_task(task.id, other).await.unwrap());
        assert_eq!(state(&ledger, 1).await, (TaskState::Queued, true));
        assert!(ledger.assign_task(task.id, WORKER).await.unwrap());
        // The one that gave it back has no part in it any more.
        assert!(!ledger.fail_task(task.id, Some(other), "x").await.unwrap());
        ledger
            .finish_task(task.id, WORKER, &good, &[1, 2])
            .await
            .unwrap();
        assert!(!ledger.release_task(task.id, WORKER).await.unwrap());
        assert_eq!(state(&ledger, 1).await, (TaskState::Finished, true));
    });
}

#[test]
fn only_the_moves_of_a_task_between_workers_do_not_wait_for_the_disk() {
    run(|db, _ledger| async move {
        // One connection: what a statement left behind would show in the next.
        let ledger = Ledger::open(db.options(), 1).await.unwrap();
        let ledger = ledger.with_content_key(&CONTENT_KEY);
        let task = new_task(1);
        ledger.create_task(&task).await.unwrap();
        assert!(ledger.assign_task(task.id, WORKER).await.unwrap());
        assert!(ledger.release_task(task.id, WORKER).await.unwrap());
        let waits: String = sqlx::query_scalar("SHOW synchronous_commit")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(waits, "on");
    });
}

#[test]
fn a_task_that_ends_early_keeps_no_prompt() {
    run(|_db, ledger| async move {
        for n in 1..=4 {
            ledger.create_task(&new_task(n)).await.unwrap();
        }
        let id = |n: u8| TaskId::from_bytes([n; 32]);
        assert!(ledger.cancel_task(id(1)).await.unwrap());
        assert!(!ledger.cancel_task(id(1)).await.unwrap());
        ledger.assign_task(id(2), WORKER).await.unwrap();
        let stranger = WorkerKey::from_bytes([1; 32]);
        assert!(!ledger.fail_task(id(2), Some(stranger), "x").await.unwrap());
        assert!(
            ledger
                .fail_task(id(2), Some(WORKER), "worker-lost")
                .await
                .unwrap()
        );
        assert_eq!(ledger.fail_unfinished("pool-restarted").await.unwrap(), 2);
        finished_task(&ledger, 5).await;
        assert_eq!(state(&ledger, 5).await, (TaskState::Finished, true));
        assert!(ledger.expire_tasks(unix_now()).await.unwrap().is_empty());
        assert_eq!(
            ledger.expire_tasks(unix_now() + 601).await.unwrap(),
            [id(5)]
        );
        assert_eq!(state(&ledger, 1).await, (TaskState::Cancelled, false));
        assert_eq!(state(&ledger, 2).await, (TaskState::Failed, false));
        assert_eq!(state(&ledger, 3).await, (TaskState::Failed, false));
        assert_eq!(state(&ledger, 5).await, (TaskState::Expired, false));
    });
}

#[test]
fn a_batch_is_registered_only_by_its_worker_with_its_own_root_and_finished_tasks() {
    run(|_db, ledger| async move {
        let mut transcripts = vec![
            finished_task(&ledger, 1).await,
            finished_task(&ledger, 2).await,
        ];
        let root = root_of(&transcripts);
        let ids: Vec<TaskId> = transcripts.iter().map(|of| of.task_id).collect();
        let register =
            async |worker, root, ids: Vec<TaskId>| ledger.register_batch(worker, root, &ids).await;
        let stranger = WorkerKey::from_bytes([1; 32]);
        let unknown = TaskId::from_bytes([9; 32]);
        assert!(matches!(
            register(WORKER, root, vec![]).await,
            Err(BatchRefusal::Size)
        ));
        assert!(matches!(
            register(WORKER, root, vec![ids[0]; 65]).await,
            Err(BatchRefusal::Size)
        ));
        assert!(matches!(
            register(WORKER, root, vec![ids[0]; 2]).await,
            Err(BatchRefusal::Size)
        ));
        let with_unknown = vec![ids[0], unknown];
        assert!(matches!(
            register(WORKER, root, with_unknown).await,
            Err(BatchRefusal::TaskUnknown)
        ));
        assert!(matches!(
            register(stranger, root, ids.clone()).await,
            Err(BatchRefusal::TaskNotYours)
        ));
        let swapped = vec![ids[1], ids[0]];
        assert!(matches!(
            register(WORKER, root, swapped).await,
            Err(BatchRefusal::RootMismatch)
        ));
        register(WORKER, root, ids.clone()).await.unwrap();
        register(WORKER, root, ids.clone()).await.unwrap();
        // Each may be as long; both together are more than a pool must be able to replay in time.
        let long = |n| NewTask {
            prompt: prompt(b"?", &vec![7; 40_000]),
            prices: TokenPrices::FREE,
            ..new_task(n)
        };
        let of_both = [
            finish(&ledger, &long(11)).await,
            finish(&ledger, &long(12)).await,
        ];
        let both = [11, 12].map(|n| long(n).id).to_vec();
        assert!(matches!(
            register(WORKER, root_of(&of_both), both.clone()).await,
            Err(BatchRefusal::TooLong)
        ));
        let first = root_of(&of_both[..1]);
        register(WORKER, first, both[..1].to_vec()).await.unwrap();
        let batch = ledger.batch(root).await.unwrap().unwrap();
        assert_eq!((batch.state, batch.worker), (BatchState::Open, WORKER));
        assert_eq!(
            batch.tasks.iter().map(|task| task.id).collect::<Vec<_>>(),
            ids
        );
        assert!(!batch.is_expired());
        ledger.expire_tasks(unix_now() + 601).await.unwrap();
        assert!(ledger.batch(root).await.unwrap().unwrap().is_expired());
        assert!(matches!(
            register(WORKER, root, ids).await,
            Err(BatchRefusal::Expired)
        ));
        transcripts.clear();
    });
}

#[test]
fn a_task_is_in_a_few_open_batches_at_most() {
    run(|_db, ledger| async move {
        let mut transcripts = Vec::new();
        for n in 1..=5 {
            transcripts.push(finished_task(&ledger, n).await);
        }
        let alone = transcripts.pop().unwrap();
        // Each order of the tasks has a root of its own.
        let mut registered = Vec::new();
        for turn in 0..24 {
            let mut order = transcripts.clone();
            let mut batch = Vec::new();
            for (choices, divisor) in [(4, 6), (3, 2), (2, 1), (1, 1)] {
                batch.push(order.remove(turn / divisor % choices));
            }
            let root = root_of(&batch);
            let ids: Vec<TaskId> = batch.iter().map(|of| of.task_id).collect();
            match ledger.register_batch(WORKER, root, &ids).await {
                Ok(()) => registered.push((root, ids)),
                Err(refusal) => {
                    assert!(matches!(refusal, BatchRefusal::TooManyOfTask), "{refusal}")
                }
            }
        }
        assert_eq!(registered.len(), 16);
        // Again is harmless, and other tasks have room.
        let (root, ids) = &registered[0];
        ledger.register_batch(WORKER, *root, ids).await.unwrap();
        let root = root_of(std::slice::from_ref(&alone));
        ledger
            .register_batch(WORKER, root, &[alone.task_id])
            .await
            .unwrap();
    });
}

#[test]
fn a_worker_has_so_many_open_batches_at_most_however_many_connections_register_them() {
    run(|db, ledger| async move {
        let mut batches = Vec::new();
        for n in 1..=100 {
            let transcript = finished_task(&ledger, n).await;
            batches.push((
                root_of(std::slice::from_ref(&transcript)),
                transcript.task_id,
            ));
        }
        // All at once, on two connections.
        let other = db.ledger().await;
        let registering: Vec<_> = batches
            .iter()
            .enumerate()
            .map(|(at, (root, task))| {
                let ledger = if at % 2 == 0 { &ledger } else { &other };
                let (ledger, root, task) = (ledger.clone(), *root, *task);
                tokio::spawn(async move { ledger.register_batch(WORKER, root, &[task]).await })
            })
            .collect();
        let (mut registered, mut refused) = (Vec::new(), Vec::new());
        for (registering, batch) in registering.into_iter().zip(&batches) {
            match registering.await.unwrap() {
                Ok(()) => registered.push(*batch),
                Err(BatchRefusal::TooManyOfWorker) => refused.push(*batch),
                Err(refusal) => panic!("{refusal}"),
            }
        }
        assert_eq!((registered.len(), refused.len()), (64, 36));
        // Again is harmless.
        let (root, task) = registered[0];
        ledger.register_batch(WORKER, root, &[task]).await.unwrap();
        // One that is settled makes room for another one, and so do those that have expired.
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let share = inference_share(1, root, &[task]);
        running.committer.commit(share).await.unwrap();
        let (root, task) = refused[0];
        ledger.register_batch(WORKER, root, &[task]).await.unwrap();
        let (root, task) = refused[1];
        let full = ledger.register_batch(WORKER, root, &[task]).await;
        assert!(matches!(full, Err(BatchRefusal::TooManyOfWorker)));
        ledger.expire_tasks(unix_now() + 601).await.unwrap();
        let (root, task) = {
            let transcript = finished_task(&ledger, 101).await;
            (
                root_of(std::slice::from_ref(&transcript)),
                transcript.task_id,
            )
        };
        ledger.register_batch(WORKER, root, &[task]).await.unwrap();
    });
}

fn job(token: u8, batch_root: Option<BatchRoot>) -> DeclaredJob {
    DeclaredJob {
        token: vec![token; 58],
        identity: "miner".to_owned(),
        batch_root,
        coinbase_prefix: vec![1, 2],
        coinbase_suffix: vec![3],
        version: u32::MAX,
        prev_hash: [8; 32],
        nbits: u32::MAX,
        txids: vec![[4; 32], [5; 32]],
        wtxids: vec![[14; 32], [15; 32]],
        pool_value_sat: 5_000_000_000,
        expires_at_unix: unix_now() + 60,
    }
}

fn transactions() -> Vec<([u8; 32], Vec<u8>)> {
    vec![([14; 32], vec![6; 10]), ([15; 32], vec![])]
}

#[test]
fn a_declared_job_comes_back_whole_with_its_transactions() {
    run(|_, ledger| async move {
        let (root, _) = open_batch(&ledger, &[1]).await;
        let declared = job(7, Some(root));
        ledger
            .put_declared_job(&declared, &transactions())
            .await
            .unwrap();
        assert_eq!(
            ledger.declared_job(&[7; 58]).await.unwrap(),
            Some(declared.clone())
        );
        assert_eq!(ledger.declared_job(&[8; 58]).await.unwrap(), None);
        assert!(matches!(
            ledger.put_declared_job(&declared, &transactions()).await,
            Err(LedgerError::Conflict(_))
        ));
        let unregistered = job(8, Some(BatchRoot::from_bytes([1; 32])));
        assert!(matches!(
            ledger
                .put_declared_job(&unregistered, &transactions())
                .await,
            Err(LedgerError::Refused(_))
        ));
        let wanted = [[15; 32], [14; 32], [99; 32]];
        let known = ledger.declared_transactions(&wanted).await.unwrap();
        assert_eq!(known, transactions().into_iter().collect());
        let void = DeclaredJob {
            expires_at_unix: unix_now(),
            ..job(9, None)
        };
        ledger
            .put_declared_job(&void, &transactions())
            .await
            .unwrap();
        assert_eq!(ledger.declared_job(&[9; 58]).await.unwrap(), None);
    });
}

#[test]
fn a_token_is_spent_once_whoever_asks() {
    run(|db, ledger| async move {
        let other = db.ledger().await;
        let end = unix_now() + 60;
        let (first, second) = tokio::join!(
            ledger.spend_job_token([7; 16], end),
            other.spend_job_token([7; 16], end)
        );
        assert!(first.unwrap() ^ second.unwrap());
        assert!(ledger.spend_job_token([8; 16], end).await.unwrap());
        // An expired one is remembered beyond its end.
        assert!(ledger.spend_job_token([9; 16], 0).await.unwrap());
        let lately = unix_now() - 60;
        assert!(ledger.spend_job_token([10; 16], lately).await.unwrap());
        assert!(!ledger.spend_job_token([10; 16], lately).await.unwrap());
    });
}

#[test]
fn transactions_that_two_declarations_share_are_stored_once_in_any_order() {
    run(|db, ledger| async move {
        let many: Vec<([u8; 32], Vec<u8>)> = (0..200_u8).map(|n| ([n; 32], vec![n])).collect();
        let backwards: Vec<_> = many.iter().rev().cloned().collect();
        let other = db.ledger().await;
        for round in 0..5 {
            let (one, two) = (job(round, None), job(round + 100, None));
            let (first, second) = tokio::join!(
                ledger.put_declared_job(&one, &many),
                other.put_declared_job(&two, &backwards)
            );
            first.unwrap();
            second.unwrap();
        }
        let ids: Vec<[u8; 32]> = many.iter().map(|(id, _)| *id).collect();
        let known = ledger.declared_transactions(&ids).await.unwrap();
        assert_eq!(known, many.into_iter().collect());
    });
}
