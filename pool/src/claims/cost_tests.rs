//! What a batch may cost, on a real ledger.

use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::{Batch, BatchRoot, TaskId};
use dovetail_engine::Runtime;
use dovetail_ledger::{Ledger, TaskExtent};
use dovetail_sv2::extension::codes::Code;

use super::batch::register;
use crate::test_support::{Database, Worker};
use crate::validation::ReplayPace;
use crate::validation::tests::tiny_model;

/// The tasks of a registered batch without the first `without`, the last one first: a batch that is not registered yet.
async fn other_batch(ledger: &Ledger, root: BatchRoot, without: usize) -> (BatchRoot, Vec<TaskId>) {
    let tasks = ledger.batch(root).await.unwrap().unwrap().tasks;
    let tasks = tasks.iter().skip(without).rev();
    let leaves = tasks
        .clone()
        .map(|task| task.transcript.as_ref().unwrap().leaf());
    let root = Batch::new(leaves.collect()).unwrap().root();
    (root, tasks.map(|task| task.id).collect())
}

#[tokio::test]
async fn a_batch_whose_replay_would_take_too_long_is_refused_and_its_parts_are_taken() {
    let database = Database::create().await;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    let model = tiny_model(1);
    let worker = Worker {
        model: Arc::clone(&model),
        runtime: Arc::new(Runtime::new(1).unwrap()),
        number: 1,
        output_tokens: 6,
    };
    let whole = worker.finish(&ledger, 0, 4, |_, _| ()).await.root;
    let tasks = ledger.batch(whole).await.unwrap().unwrap().tasks;
    let (root, ids) = other_batch(&ledger, whole, 0).await;
    // The ledger knows what is replayed of each task.
    let extents = ledger
        .extents_of_new_batch(worker.key(), root, &ids)
        .await
        .unwrap();
    assert_eq!(extents.len(), 4);
    for task in &tasks {
        let expected = TaskExtent {
            model_id: model.id(),
            input_tokens: task.prompt.as_ref().unwrap().tokens().len() as u64,
            output_tokens: task.output_tokens.as_ref().unwrap().len() as u64,
            constrained: false,
        };
        assert!(extents.contains(&expected), "{extents:?}");
    }
    // All four take twice the time that there is.
    let time_max = Duration::from_secs(60);
    let pace = ReplayPace::new([Arc::clone(&model)].into_iter().collect(), time_max);
    pace.assume(&model.id(), &extents_of(&extents), 2 * time_max);
    let key = worker.key();
    let refused = register(&ledger, &pace, key, root, &ids).await;
    assert_eq!(refused, Err(Code::BatchTooCostly));
    assert!(ledger.batch(root).await.unwrap().is_none());
    // A single one is taken, and one that is registered stays so.
    let (one, ids_of_one) = other_batch(&ledger, whole, 3).await;
    assert_eq!(
        register(&ledger, &pace, key, one, &ids_of_one).await,
        Ok(())
    );
    let registered: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    assert_eq!(
        register(&ledger, &pace, key, whole, &registered).await,
        Ok(())
    );
    // Tasks of somebody else are no batch of this worker, whatever they cost.
    let stranger = Worker {
        number: 2,
        ..worker
    }
    .key();
    let refused = register(&ledger, &pace, stranger, root, &ids).await;
    assert_eq!(refused, Err(Code::TaskNotYours));
    // Faster validators take the same batch.
    pace.assume(&model.id(), &extents_of(&extents), time_max / 2);
    assert_eq!(register(&ledger, &pace, key, root, &ids).await, Ok(()));
    database.drop().await;
}

fn extents_of(tasks: &[TaskExtent]) -> Vec<crate::validation::Extent> {
    let extent = |task: &TaskExtent| super::batch::extent_of(*task).1;
    tasks.iter().map(extent).collect()
}
