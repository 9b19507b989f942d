//! Whole lives of tasks, on a real ledger.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::{
    EncodedPrompt, FinishReason, Form, GUIDE, PROMPT_BYTES_MAX, SamplingParams, Transcript,
    WorkerKey, output_digest, prompt_commitment,
};
use tokio::time::timeout;

use super::*;
use crate::assignment::Assignment;
use crate::mailboxes::WorkerCommand;
use crate::test_support::{Database, encoded, task_parts};
use crate::validation::tests::tiny_model;

pub(super) const FIRST: WorkerKey = WorkerKey::from_bytes([1; 32]);
pub(super) const SECOND: WorkerKey = WorkerKey::from_bytes([2; 32]);
const SAMPLING: SamplingParams = SamplingParams {
    temperature_milli: 0,
    top_k: 0,
    top_p_milli: 1_000,
    max_tokens: 8,
};

/// A ledger, and the tasks of a pool with one model.
pub(super) struct Fixture {
    database: Database,
    pub(super) tasks: Tasks,
    model: ModelId,
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// With other prices or limits.
    pub(super) async fn start_with(change: impl FnOnce(&mut TaskParts)) -> Self {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let model = tiny_model(1);
        let mut parts = task_parts(&ledger, [model.clone()].into_iter().collect());
        change(&mut parts);
        Self {
            database,
            model: model.id(),
            tasks: Tasks::new(parts),
        }
    }

    pub(super) fn connect(&self, worker: WorkerKey) -> Connected {
        self.tasks.connect(worker, vec![self.model], 4)
    }

    pub(super) fn order(&self, n: u8) -> Order {
        Order {
            caller: Caller::new(1, Ipv4Addr::LOCALHOST.into()),
            payer: Payment::Subsidy,
            id: Some(TaskId::from_bytes([n; 32])),
            model: self.model,
            prompt: Prompt::Text(b"an invoice".to_vec()),
            as_many_as_fit: false,
            stop: Vec::new(),
            form: None,
            salt: [0; 32],
            sampling: SAMPLING,
            seed: Some([0; 32]),
        }
    }

    pub(super) async fn admit(&self, order: Order) -> Result<TaskRecord, AdmissionError> {
        let admitted = self.tasks.admit(order).await;
        admitted.map(|admitted| admitted.task)
    }

    /// Ends what the tasks still do, and the database with it.
    pub(super) async fn end(self) {
        self.tasks.tracker.close();
        drop(self.tasks);
        self.database.drop().await;
    }
}

pub(crate) async fn given(worker: &mut Connected) -> Arc<Assignment> {
    let command = timeout(Duration::from_secs(20), worker.next_command());
    let Ok(Some(WorkerCommand::Assign(task))) = command.await else {
        panic!("no task was assigned");
    };
    task
}

/// The transcript of a worker that gave these tokens.
pub(crate) fn transcript(task: &Assignment, worker: WorkerKey, tokens: &[u32]) -> Transcript {
    Transcript {
        task_id: task.id,
        worker_key: worker,
        model_id: task.model,
        engine_version: dovetail_engine::ENGINE_VERSION,
        prompt_commitment: prompt_commitment(
            &task.salt,
            &task.stop,
            task.constraint.as_ref(),
            &task.prompt,
        ),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens: u32::try_from(tokens.len()).unwrap(),
        output_digest: output_digest(tokens),
        trace_root: [0; 32],
        finish_reason: FinishReason::Stop,
    }
}

#[tokio::test]
async fn a_connection_that_is_dropped_gives_its_tasks_back_and_another_worker_gets_them() {
    let fixture = Fixture::start().await;
    let mut first = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut first).await;
    let mut second = fixture.connect(SECOND);
    drop(first);
    assert_eq!(given(&mut second).await.id, task.id);
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(record.worker, Some(SECOND));
    assert_eq!(record.state, TaskState::Assigned);
    drop(second);
    fixture.end().await;
}

#[tokio::test]
async fn a_prompt_is_encoded_once_for_its_agent_its_worker_and_its_audit() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    let admit = async || fixture.tasks.admit(fixture.order(1)).await.unwrap();
    let admitted = admit().await;
    let expected = encoded(&tiny_model(1), "an invoice");
    assert_eq!(admitted.prompt, expected);
    let task = given(&mut worker).await;
    assert_eq!(task.prompt, expected);
    worker.stream(&task.id, 0, &[5]).unwrap();
    // Other tokens than were assigned, under the same text.
    let other = Assignment {
        prompt: EncodedPrompt::new(b"an invoice", vec![256, 97]).unwrap(),
        ..(*task).clone()
    };
    let lie = transcript(&other, FIRST, &[5]);
    let refused = worker.deliver(task.id, lie).await;
    assert!(matches!(refused, Err(DeliveryError::Mismatch)));
    let honest = transcript(&task, FIRST, &[5]);
    worker.deliver(task.id, honest).await.unwrap();
    let kept = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(kept.prompt, Some(expected.clone()));
    // Asked for again after its end, when the ledger has no prompt any more.
    fixture.tasks.ledger.expire_tasks(u64::MAX).await.unwrap();
    let again = admit().await;
    assert_eq!((again.task.prompt, again.prompt), (None, expected));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn prompts_out_of_the_models_or_the_extensions_bounds_are_not_admitted() {
    let fixture = Fixture::start().await;
    let worker = fixture.connect(FIRST);
    let of = async |bytes: usize| {
        let order = Order {
            prompt: Prompt::Text(vec![b'x'; bytes]),
            ..fixture.order(1)
        };
        fixture.admit(order).await.err()
    };
    let context = tiny_model(1).context_tokens();
    // With the token that begins a prompt.
    let full = of(context - 1).await;
    assert!(
        matches!(full, Some(AdmissionError::ContextFull { .. })),
        "{full:?}"
    );
    let long = of(PROMPT_BYTES_MAX).await;
    assert!(
        matches!(long, Some(AdmissionError::ContextFull { .. })),
        "{long:?}"
    );
    let longer = of(PROMPT_BYTES_MAX + 1).await;
    assert!(
        matches!(
            longer,
            Some(AdmissionError::PromptTooLong {
                bytes_max: PROMPT_BYTES_MAX
            })
        ),
        "{longer:?}"
    );
    assert!(of(context - 2).await.is_none());
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_form_that_cannot_be_followed_is_refused_before_anything_is_stored() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    let schema = |text: &str| Form::JsonSchema(text.to_owned());
    for form in [
        Form::Regex("(".to_owned()),
        Form::Choice(Vec::new()),
        schema(&" ".repeat(20_000)),
        schema("{"),
        schema(r#"{"$ref": "https://example.invalid/schema.json"}"#),
        schema(r#"{"type": "object", "patternProperties": {}}"#),
    ] {
        let order = Order {
            form: Some(form),
            ..fixture.order(1)
        };
        let refused = fixture.admit(order).await;
        assert!(matches!(refused, Err(AdmissionError::ConstraintInvalid(_))));
    }
    let task = fixture.tasks.task(TaskId::from_bytes([1; 32])).await;
    assert!(matches!(task, Err(TaskError::Unknown)));

    let form = Form::Choice(vec!["yes".to_owned(), "no".to_owned()]);
    let order = Order {
        form: Some(form.clone()),
        ..fixture.order(1)
    };
    fixture.admit(order).await.unwrap();
    let task = given(&mut worker).await;
    let constraint = task.constraint.as_ref().unwrap();
    assert_eq!((constraint.form(), constraint.guide()), (&form, GUIDE));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn an_agent_that_follows_a_task_sees_its_tokens_and_each_of_its_states() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    let admitted = fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut worker).await;
    worker.stream(&task.id, 0, &[5, 6]).unwrap();
    let mut follower = fixture.tasks.follow(admitted.id, 1).await.unwrap();
    let (mut states, mut tokens) = (Vec::new(), Vec::new());
    let delivered = async {
        worker.stream(&task.id, 2, &[7]).unwrap();
        let other = transcript(&task, FIRST, &[5, 6]);
        let refused = worker.deliver(task.id, other).await;
        assert!(matches!(refused, Err(DeliveryError::Mismatch)));
        let whole = transcript(&task, FIRST, &[5, 6, 7]);
        worker.deliver(task.id, whole.clone()).await.unwrap();
        // Its answer may have been lost with a connection.
        worker.deliver(task.id, whole.clone()).await.unwrap();
    };
    let followed = async {
        while let Some(event) = follower.next().await.unwrap() {
            match event {
                TaskEvent::Tokens {
                    first_position,
                    tokens: more,
                    ..
                } => {
                    assert_eq!(first_position, 1 + tokens.len());
                    tokens.extend(more);
                }
                TaskEvent::State(record) => states.push(record.state),
            }
        }
    };
    tokio::join!(delivered, followed);
    assert_eq!(tokens, [6, 7]);
    assert_eq!(states.first(), Some(&TaskState::Assigned));
    assert_eq!(states.last(), Some(&TaskState::Finished));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn an_order_is_admitted_once_and_refused_where_nobody_could_run_it() {
    let fixture = Fixture::start().await;
    let refused = fixture.admit(fixture.order(1)).await;
    assert!(matches!(refused, Err(AdmissionError::NoWorker)));
    let worker = fixture.connect(FIRST);
    let admitted = fixture.admit(fixture.order(1)).await.unwrap();
    let again = fixture.admit(fixture.order(1)).await.unwrap();
    assert_eq!(admitted.id, again.id);
    let mut other = fixture.order(1);
    other.prompt = Prompt::Text(b"another".to_vec());
    let refused = fixture.admit(other).await;
    assert!(matches!(refused, Err(AdmissionError::IdTaken)));
    let mut unknown = fixture.order(2);
    unknown.model = ModelId::from_bytes([9; 32]);
    let refused = fixture.admit(unknown).await;
    assert!(matches!(refused, Err(AdmissionError::ModelUnknown)));
    let cancelled = fixture.tasks.cancel(admitted.id).await.unwrap();
    assert_eq!(cancelled.state, TaskState::Cancelled);
    let receipt = fixture.tasks.receipt(admitted.id).await;
    assert!(matches!(receipt, Err(ReceiptError::Never)));
    drop(worker);
    fixture.end().await;
}

#[tokio::test]
async fn a_task_that_stalls_is_finished_by_another_worker_and_its_agent_reads_on() {
    let fixture = Fixture::start().await;
    let mut first = fixture.connect(FIRST);
    fixture.admit(fixture.order(1)).await.unwrap();
    let task = given(&mut first).await;
    first.stream(&task.id, 0, &[5, 6]).unwrap();
    let mut follower = fixture.tasks.follow(task.id, 0).await.unwrap();
    let mut second = fixture.connect(SECOND);
    let late = Instant::now();
    fixture
        .tasks
        .live
        .state()
        .tasks
        .get_mut(&task.id)
        .unwrap()
        .due = Some(late);
    fixture.tasks.hand_on_stalled().await;
    let again = given(&mut second).await;
    assert_eq!((again.id, &again.prompt), (task.id, &task.prompt));
    let command = timeout(Duration::from_secs(20), first.next_command());
    assert!(matches!(command.await, Ok(Some(WorkerCommand::Cancel(_)))));
    assert!(first.stream(&task.id, 2, &[7]).is_err());
    // What it has not computed itself it cannot hand in.
    let whole = transcript(&task, SECOND, &[5, 6, 7]);
    let refused = second.deliver(task.id, whole.clone()).await;
    assert!(matches!(refused, Err(DeliveryError::Mismatch)));
    second.stream(&task.id, 0, &[5, 6, 7]).unwrap();
    second.deliver(task.id, whole).await.unwrap();
    let mut read = Vec::new();
    while let Some(event) = follower.next().await.unwrap() {
        if let TaskEvent::Tokens {
            first_position,
            tokens,
            ..
        } = event
        {
            assert_eq!(first_position, read.len());
            read.extend(tokens);
        }
    }
    assert_eq!(read, [5, 6, 7]);
    let record = fixture.tasks.task(task.id).await.unwrap();
    assert_eq!(
        (record.worker, record.state),
        (Some(SECOND), TaskState::Finished)
    );
    drop((first, second));
    fixture.end().await;
}

#[tokio::test]
async fn an_agent_reads_the_first_tokens_before_the_state_that_came_with_them() {
    let fixture = Fixture::start().await;
    let mut worker = fixture.connect(FIRST);
    // Nobody takes it yet: the agent follows a task that waits.
    let busy = fixture.admit(fixture.order(1)).await.unwrap();
    let first = given(&mut worker).await;
    let waits = fixture.admit(fixture.order(2)).await.unwrap();
    let mut follower = fixture.tasks.follow(waits.id, 0).await.unwrap();
    let state = follower.next().await.unwrap();
    assert!(matches!(state, Some(TaskEvent::State(task)) if task.state == TaskState::Queued));
    fixture.tasks.cancel(busy.id).await.unwrap();
    let cancelled = timeout(Duration::from_secs(20), worker.next_command());
    assert!(matches!(cancelled.await, Ok(Some(WorkerCommand::Cancel(id))) if id == first.id));
    given(&mut worker).await;
    worker.stream(&waits.id, 0, &[5]).unwrap();
    let tokens = follower.next().await.unwrap();
    assert!(matches!(tokens, Some(TaskEvent::Tokens { .. })));
    let state = follower.next().await.unwrap();
    assert!(matches!(state, Some(TaskEvent::State(task)) if task.state == TaskState::Assigned));
    drop(worker);
    fixture.end().await;
}
