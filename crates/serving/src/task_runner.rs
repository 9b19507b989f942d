//! Runs tasks on the engine: a scheduler on a thread of its own, a bounded queue before it. What it
//! makes comes back as [`TaskEvent`]s, in order for each task.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use dovetail_commitment::{TaskId, WorkerKey};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::scheduler::Scheduler;
use crate::task::{OpenTasks, TakenTask, Task, TaskError, TaskEvent, Wanted, lock};

/// Events waiting for whoever gave the tasks: a few seconds of a fast model. A full queue makes the engine
/// wait, which is right: its tokens cannot leave anyway.
const EVENTS_MAX: usize = 256;

/// The engine's thread and the queue before it. Dropping it ends the thread after the running step.
#[derive(Debug)]
pub struct TaskRunner {
    queue: std::sync::mpsc::SyncSender<TakenTask>,
    /// The tasks that were taken and are not over, with their cancel flags.
    open: Arc<Mutex<OpenTasks>>,
    tasks_max: usize,
}

impl TaskRunner {
    /// Starts the thread. At most `tasks_max` tasks are taken at once; they run side by side.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(
        engine: Engine,
        worker_key: WorkerKey,
        tasks_max: usize,
    ) -> std::io::Result<(Self, mpsc::Receiver<TaskEvent>)> {
        let (queue, taken) = std::sync::mpsc::sync_channel(tasks_max.max(1));
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let open = Arc::<Mutex<OpenTasks>>::default();
        let scheduler = Scheduler::new(engine, worker_key, events, open.clone());
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || scheduler.run(&taken))?;
        let runner = Self {
            queue,
            open,
            tasks_max: tasks_max.max(1),
        };
        Ok((runner, receiver))
    }

    /// Takes a task.
    ///
    /// # Errors
    /// [`TaskError::TooManyTasks`] where the queue is full or the task is here already.
    pub fn take(&self, task: Task) -> Result<(), TaskError> {
        let mut open = lock(&self.open);
        if open.len() >= self.tasks_max || open.contains_key(&task.id) {
            return Err(TaskError::TooManyTasks);
        }
        let wanted = Arc::new(Wanted::default());
        let task_id = task.id;
        let taken = TakenTask {
            expires: Instant::now() + task.deadline,
            task,
            wanted: wanted.clone(),
        };
        let queued = self.queue.try_send(taken);
        queued.map_err(|_| TaskError::TooManyTasks)?;
        open.insert(task_id, wanted);
        Ok(())
    }

    /// Nobody waits for more of the task. It ends with what there is of it, or is dropped if that is nothing.
    pub fn cancel(&self, task_id: &TaskId) {
        if let Some(wanted) = lock(&self.open).get(task_id) {
            wanted.only_prefix();
        }
    }

    /// Drops everything, because the connection that gave it is gone.
    pub fn cancel_all(&self) {
        for wanted in lock(&self.open).values() {
            wanted.nothing();
        }
    }

    /// How many tasks are running or waiting.
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use dovetail_commitment::{
        Constraint, EncodedPrompt, FinishReason, Form, ModelId, SamplingParams, StopSequences,
        output_digest, prompt_commitment, trace_root,
    };
    use dovetail_engine::{Model, Output, Request, Runtime, run};

    use super::*;
    use crate::models::Models;

    fn models() -> Models {
        Models::from_iter([tiny(1)])
    }

    fn tiny(seed: u64) -> Model {
        Model::from_bytes(&dovetail_engine::tiny::generate(seed)).unwrap()
    }

    fn engine(models: Models) -> Engine {
        Engine {
            models,
            runtime: Runtime::new(1).unwrap(),
            prefix_bytes_max: 1 << 20,
        }
    }

    /// The text as a pool encodes it for the byte tokenizer.
    fn encoded(text: &[u8]) -> EncodedPrompt {
        EncodedPrompt::new(text, tiny(1).encode(text).unwrap()).unwrap()
    }

    fn task(model_id: ModelId, number: u8, prompt: &[u8]) -> Task {
        Task {
            id: TaskId::from_bytes([number; 32]),
            model_id,
            prompt: encoded(prompt),
            salt: [7; 32],
            sampling: SamplingParams {
                temperature_milli: 800,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 24,
            },
            stop: StopSequences::default(),
            constraint: None,
            seed: [number; 32],
            deadline: Duration::from_secs(60),
        }
    }

    /// What the engine gives alone.
    fn expected(model: &Arc<Model>, task: &Task) -> Output {
        let request = Request {
            prompt_tokens: task.prompt.tokens().to_vec(),
            sampling: task.sampling,
            seed: task.seed,
            stop: task.stop.clone(),
            constraint: task.constraint.clone(),
        };
        run(&Runtime::new(1).unwrap(), model, request).unwrap()
    }

    fn key() -> WorkerKey {
        WorkerKey::from_bytes([1; 32])
    }

    #[tokio::test]
    async fn streamed_tokens_are_those_of_the_transcript_without_gaps() {
        let models = models();
        let id = models.ids()[0];
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        runner.take(task(id, 1, b"hello")).unwrap();
        let mut streamed = Vec::new();
        let transcript = loop {
            match events.recv().await.unwrap() {
                TaskEvent::Tokens {
                    first_position,
                    tokens,
                    ..
                } => {
                    assert_eq!(first_position as usize, streamed.len());
                    streamed.extend(tokens);
                }
                TaskEvent::Finished { transcript, .. } => break transcript,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(transcript.output_tokens as usize, streamed.len());
        assert_eq!(transcript.output_digest, output_digest(&streamed));
        assert_eq!(runner.open(), 0);
    }

    #[tokio::test]
    async fn a_task_for_another_model_or_too_long_a_prompt_is_refused_with_its_code() {
        let models = models();
        let id = models.ids()[0];
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let other = ModelId::from_bytes([9; 32]);
        runner.take(task(other, 1, b"x")).unwrap();
        runner.take(task(id, 2, &[b'x'; 30_000])).unwrap();
        for expected in [TaskError::ModelUnknown, TaskError::PromptTooLong] {
            match events.recv().await.unwrap() {
                TaskEvent::Failed { error, .. } => assert_eq!(error, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn tokens_are_run_as_they_were_given_and_none_that_the_model_lacks() {
        let models = models();
        let model = models.all().remove(0);
        let vocabulary = u32::try_from(model.manifest().architecture.vocabulary).unwrap();
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let of = |number: u8, tokens: Vec<u32>| Task {
            prompt: EncodedPrompt::new(b"hello", tokens).unwrap(),
            ..task(model.id(), number, b"hello")
        };
        // No tokenizer makes these of "hello", without what begins a prompt.
        let odd = of(1, vec![vocabulary - 1, 104, 101]);
        runner.take(odd.clone()).unwrap();
        let transcript = loop {
            if let TaskEvent::Finished { transcript, .. } = events.recv().await.unwrap() {
                break transcript;
            }
        };
        let output = expected(&model, &odd);
        assert_eq!(transcript.output_digest, output_digest(&output.tokens));
        let commitment = prompt_commitment(&odd.salt, &odd.stop, None, &odd.prompt);
        assert_eq!(transcript.prompt_commitment, commitment);

        for (number, token) in [(2, vocabulary), (3, u32::MAX)] {
            runner.take(of(number, vec![256, token])).unwrap();
            match events.recv().await.unwrap() {
                TaskEvent::Failed { error, .. } => assert_eq!(error, TaskError::PromptInvalid),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(runner.open(), 0);
    }

    #[tokio::test]
    async fn a_form_is_followed_and_committed_to_and_one_that_cannot_be_is_refused() {
        let models = models();
        let model = models.all().remove(0);
        let id = model.id();
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let regex = |text: &str| Form::Regex(text.to_owned());
        let of = |number: u8, constraint: Constraint| Task {
            constraint: Some(constraint),
            ..task(id, number, b"When?")
        };
        let date = of(1, Constraint::new(regex("[0-9]{4}-[0-9]{2}")).unwrap());
        runner.take(date.clone()).unwrap();
        let transcript = loop {
            if let TaskEvent::Finished { transcript, .. } = events.recv().await.unwrap() {
                break transcript;
            }
        };
        let output = expected(&model, &date);
        assert_eq!(output.tokens.len(), 7);
        assert_eq!(transcript.output_digest, output_digest(&output.tokens));
        let constraint = date.constraint.as_ref();
        let commitment = prompt_commitment(&date.salt, &date.stop, constraint, &date.prompt);
        assert_eq!(transcript.prompt_commitment, commitment);

        let broken = of(2, Constraint::new(regex("(")).unwrap());
        let other = of(3, Constraint::for_guide("another-1", regex("a")).unwrap());
        for (task, expected) in [
            (broken, TaskError::ConstraintInvalid),
            (other, TaskError::GuideUnknown),
        ] {
            runner.take(task).unwrap();
            match events.recv().await.unwrap() {
                TaskEvent::Failed { error, .. } => assert_eq!(error, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_model_that_arrives_while_tasks_run_is_served() {
        let models = models();
        let (id, arriving) = (models.ids()[0], tiny(2));
        let (runner, mut events) = TaskRunner::start(engine(models.clone()), key(), 2).unwrap();
        runner.take(task(id, 1, b"hello")).unwrap();
        let arrived = arriving.id();
        models.insert(arriving);
        runner.take(task(arrived, 2, b"hello")).unwrap();
        let mut finished = Vec::new();
        while finished.len() < 2 {
            match events.recv().await.unwrap() {
                TaskEvent::Finished { transcript, .. } => finished.push(transcript.model_id),
                TaskEvent::Tokens { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        finished.sort();
        let mut expected = [id, arrived];
        expected.sort();
        assert_eq!(finished, expected);
    }

    #[tokio::test]
    async fn a_request_that_no_worker_could_run_is_not_called_a_fault_of_this_one() {
        let models = models();
        let id = models.ids()[0];
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 4).unwrap();
        let mut hot = task(id, 1, b"x");
        hot.sampling.temperature_milli = 2001;
        let mut endless = task(id, 2, b"x");
        endless.sampling.max_tokens = 0;
        let mut nothing = task(id, 3, b"x");
        nothing.sampling.top_p_milli = 0;
        for bad in [hot, endless, nothing] {
            runner.take(bad).unwrap();
            match events.recv().await.unwrap() {
                TaskEvent::Failed { error, .. } => {
                    assert_eq!(error, TaskError::SamplingInvalid);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(runner.open(), 0);
    }

    #[tokio::test]
    async fn a_common_instruction_is_computed_once_and_no_bit_changes() {
        let models = models();
        let model = models.all().remove(0);
        let id = model.id();
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 4).unwrap();
        let instruction = "You turn invoices into JSON. ".repeat(6);
        let tasks: Vec<Task> = (1..=3)
            .map(|n| task(id, n, format!("{instruction}Invoice {n}").as_bytes()))
            .collect();
        // The first alone; the others find its beginning, side by side.
        let mut reused = BTreeMap::new();
        for tasks in [&tasks[..1], &tasks[1..]] {
            for task in tasks {
                runner.take(task.clone()).unwrap();
            }
            let mut left = tasks.len();
            while left > 0 {
                if let TaskEvent::Finished {
                    transcript,
                    reused_tokens,
                    ..
                } = events.recv().await.unwrap()
                {
                    left -= 1;
                    let task = tasks.iter().find(|task| task.id == transcript.task_id);
                    let output = expected(&model, task.unwrap());
                    assert_eq!(transcript.output_digest, output_digest(&output.tokens));
                    assert_eq!(transcript.trace_root, trace_root(&output.trace));
                    reused.insert(transcript.task_id, reused_tokens);
                }
            }
        }
        // What begins a prompt, the instruction, "Invoice ".
        let common = 1 + instruction.len() + 8;
        let reused: Vec<usize> = reused.into_values().collect();
        assert_eq!(reused, [0, common, common]);
    }

    #[tokio::test]
    async fn no_more_tasks_are_taken_than_were_announced_and_none_twice() {
        let models = models();
        let id = models.ids()[0];
        let (runner, _events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let mut long = task(id, 1, b"hello");
        long.sampling.max_tokens = 4000;
        runner.take(long.clone()).unwrap();
        assert_eq!(runner.take(long), Err(TaskError::TooManyTasks));
        runner.cancel_all();
    }

    #[tokio::test]
    async fn a_task_that_is_overdue_or_whose_connection_is_gone_ends_without_a_transcript() {
        let models = models();
        let id = models.ids()[0];
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let mut overdue = task(id, 1, b"hello");
        overdue.deadline = Duration::ZERO;
        let mut cancelled = task(id, 2, b"hello");
        cancelled.sampling.max_tokens = 4_000;
        runner.take(overdue).unwrap();
        runner.take(cancelled).unwrap();
        runner.cancel_all();
        let mut dropped = 0;
        while dropped < 2 {
            match events.recv().await.unwrap() {
                TaskEvent::Tokens { .. } => {}
                TaskEvent::Dropped(_) => dropped += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_cancelled_task_ends_with_a_transcript_of_what_was_streamed() {
        let models = models();
        let model = models.all().remove(0);
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let mut long = task(model.id(), 1, b"a long story");
        long.sampling.max_tokens = 4_000;
        runner.take(long.clone()).unwrap();
        let mut streamed = Vec::new();
        let transcript = loop {
            match events.recv().await.unwrap() {
                TaskEvent::Tokens { tokens, .. } => streamed.extend(tokens),
                TaskEvent::Finished { transcript, .. } => break transcript,
                other => panic!("{other:?}"),
            }
            runner.cancel(&long.id);
        };
        assert_eq!(transcript.finish_reason, FinishReason::Cancelled);
        assert_eq!(transcript.output_tokens as usize, streamed.len());
        assert_eq!(transcript.output_digest, output_digest(&streamed));
        assert_eq!(runner.open(), 0);
    }

    #[tokio::test]
    async fn a_short_task_does_not_wait_for_a_long_one_and_neither_changes() {
        let models = models();
        let model = models.all().remove(0);
        let id = model.id();
        let (runner, mut events) = TaskRunner::start(engine(models), key(), 2).unwrap();
        let mut long = task(id, 1, b"a long story");
        long.sampling.max_tokens = 600;
        let mut short = task(id, 2, b"a short one");
        // Its own text stops it early.
        let text = model.decode(&expected(&model, &short).tokens);
        short.stop = StopSequences::new(vec![text[8..10].to_vec()]).unwrap();
        let tasks = [long, short];
        for task in &tasks {
            runner.take(task.clone()).unwrap();
        }
        let mut finished = Vec::new();
        while finished.len() < 2 {
            if let TaskEvent::Finished { transcript, .. } = events.recv().await.unwrap() {
                finished.push(transcript);
            }
        }
        assert_eq!(finished[0].task_id, tasks[1].id);
        assert_eq!(finished[0].finish_reason, FinishReason::Stop);
        for (transcript, task) in finished.iter().rev().zip(&tasks) {
            let output = expected(&model, task);
            assert_eq!(transcript.output_digest, output_digest(&output.tokens));
            assert_eq!(transcript.trace_root, trace_root(&output.trace));
        }
    }
}
