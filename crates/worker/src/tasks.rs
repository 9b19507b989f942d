//! Running tasks on the engine: one thread of its own, one task at a time, a bounded queue before
//! it. What it makes comes back as [`TaskEvent`]s in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dovetail_commitment::{
    FinishReason, ModelId, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
    trace_root,
};
use dovetail_engine::{ENGINE_VERSION, EngineError, Generation, Model, Request};
use dovetail_sv2::extension::{AssignTask, SEQUENCE_ITEMS_MAX, codes};
use tokio::sync::mpsc;

/// Tokens that are held back for at most this long, so that fast models do not send a frame for
/// each and slow ones still look alive.
const CHUNK_TIME_MAX: Duration = Duration::from_millis(20);
/// Events waiting for the session: a few seconds of a fast model. A full queue makes the engine
/// wait, which is right: its tokens cannot leave anyway.
const EVENTS_MAX: usize = 256;

/// The models a worker serves, by id.
pub type Models = BTreeMap<ModelId, Arc<Model>>;

/// What a running task gives.
#[derive(Debug)]
pub enum TaskEvent {
    /// Some tokens; the first stands at this position of the output.
    Tokens {
        /// The task.
        task_id: TaskId,
        /// Position of the first.
        first_position: u32,
        /// At most 64.
        tokens: Vec<u32>,
    },
    /// The task is done.
    Finished {
        /// What it comes to.
        transcript: Box<Transcript>,
        /// When the pool stops paying for it.
        expires: Instant,
    },
    /// The task cannot be done, with the code for the pool.
    Failed {
        /// The task.
        task_id: TaskId,
        /// One of the extension's codes.
        code: &'static str,
    },
    /// The task was cancelled, or its time was over before it was done.
    Dropped(TaskId),
}

struct Job {
    task: AssignTask,
    expires: Instant,
    cancelled: Arc<AtomicBool>,
}

/// The engine's thread and the queue before it. Dropping it ends the thread after the running token.
#[derive(Debug)]
pub struct TaskRunner {
    jobs: std::sync::mpsc::SyncSender<Job>,
    /// The tasks that were taken and are not over, with their cancel flags.
    open: Arc<Mutex<HashMap<TaskId, Arc<AtomicBool>>>>,
    tasks_max: usize,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Job({})", self.task.task_id)
    }
}

impl TaskRunner {
    /// Starts the thread. At most `tasks_max` tasks are taken at once; all but one wait.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(
        models: Models,
        worker_key: WorkerKey,
        tasks_max: usize,
    ) -> std::io::Result<(Self, mpsc::Receiver<TaskEvent>)> {
        let (jobs, queue) = std::sync::mpsc::sync_channel::<Job>(tasks_max.max(1));
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let open: Arc<Mutex<HashMap<TaskId, Arc<AtomicBool>>>> = Arc::default();
        let closing = open.clone();
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                for job in queue {
                    let task_id = job.task.task_id;
                    let last = run_job(&models, worker_key, &job, &events);
                    // Before the event: whoever sees it may give the next task at once.
                    lock(&closing).remove(&task_id);
                    if events.blocking_send(last).is_err() {
                        return;
                    }
                }
            })?;
        let runner = Self {
            jobs,
            open,
            tasks_max: tasks_max.max(1),
        };
        Ok((runner, receiver))
    }

    /// Takes a task.
    ///
    /// # Errors
    /// The code for the pool, where the queue is full or the task is here already.
    pub fn take(&self, task: AssignTask) -> Result<(), &'static str> {
        let mut open = lock(&self.open);
        if open.len() >= self.tasks_max || open.contains_key(&task.task_id) {
            return Err(codes::TOO_MANY_TASKS);
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        let task_id = task.task_id;
        let expires = Instant::now() + Duration::from_millis(u64::from(task.deadline_ms));
        let job = Job {
            task,
            expires,
            cancelled: cancelled.clone(),
        };
        self.jobs.try_send(job).map_err(|_| codes::TOO_MANY_TASKS)?;
        open.insert(task_id, cancelled);
        Ok(())
    }

    /// Nobody waits for the task any more.
    pub fn cancel(&self, task_id: &TaskId) {
        if let Some(cancelled) = lock(&self.open).get(task_id) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// Cancels everything, because the connection that gave it is gone.
    pub fn cancel_all(&self) {
        for cancelled in lock(&self.open).values() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// How many tasks are running or waiting.
    pub fn open(&self) -> usize {
        lock(&self.open).len()
    }
}

type OpenTasks = HashMap<TaskId, Arc<AtomicBool>>;

fn lock(open: &Mutex<OpenTasks>) -> std::sync::MutexGuard<'_, OpenTasks> {
    // The map is a plain set of flags: a panic elsewhere leaves it usable.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs one task and returns its last event.
fn run_job(
    models: &Models,
    worker_key: WorkerKey,
    job: &Job,
    events: &mpsc::Sender<TaskEvent>,
) -> TaskEvent {
    let task = &job.task;
    let task_id = task.task_id;
    let Some(model) = models.get(&task.model_id) else {
        let code = codes::MODEL_UNKNOWN;
        return TaskEvent::Failed { task_id, code };
    };
    let request = Request {
        prompt_tokens: model.encode(&task.prompt.0),
        sampling: task.sampling,
        seed: task.seed,
    };
    let mut generation = match Generation::new(model, &request) {
        Ok(generation) => generation,
        Err(error) => {
            let code = match error {
                EngineError::PromptTooLong { .. } => codes::PROMPT_TOO_LONG,
                _ => codes::INTERNAL,
            };
            return TaskEvent::Failed { task_id, code };
        }
    };
    let mut stream = TokenStream::new(task_id, events);
    while let Some(token) = generation.next_token() {
        let over = job.cancelled.load(Ordering::Relaxed) || Instant::now() >= job.expires;
        if over || stream.push(token).is_err() {
            return TaskEvent::Dropped(task_id);
        }
    }
    if stream.flush().is_err() {
        return TaskEvent::Dropped(task_id);
    }
    let output = generation.finish();
    let Ok(output_tokens) = u32::try_from(output.tokens.len()) else {
        let code = codes::INTERNAL;
        return TaskEvent::Failed { task_id, code };
    };
    let transcript = Transcript {
        task_id,
        worker_key,
        model_id: task.model_id,
        engine_version: ENGINE_VERSION,
        prompt_commitment: prompt_commitment(&task.salt, &task.prompt.0),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens,
        output_digest: output_digest(&output.tokens),
        trace_root: trace_root(&output.trace),
        finish_reason: output.finish_reason,
    };
    debug_assert_ne!(transcript.finish_reason, FinishReason::Cancelled);
    TaskEvent::Finished {
        transcript: Box::new(transcript),
        expires: job.expires,
    }
}

/// Groups tokens into chunks.
struct TokenStream<'a> {
    task_id: TaskId,
    events: &'a mpsc::Sender<TaskEvent>,
    first_position: u32,
    held: Vec<u32>,
    sent_at: Option<Instant>,
}

/// The session's side of the events is gone.
struct Gone;

impl<'a> TokenStream<'a> {
    fn new(task_id: TaskId, events: &'a mpsc::Sender<TaskEvent>) -> Self {
        Self {
            task_id,
            events,
            first_position: 0,
            held: Vec::new(),
            sent_at: None,
        }
    }

    fn push(&mut self, token: u32) -> Result<(), Gone> {
        self.held.push(token);
        // The first token goes out alone: it is what a reader waits for.
        let due = self
            .sent_at
            .is_none_or(|sent| sent.elapsed() >= CHUNK_TIME_MAX);
        if due || self.held.len() == SEQUENCE_ITEMS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.held.is_empty() {
            return Ok(());
        }
        let tokens = std::mem::take(&mut self.held);
        let first_position = self.first_position;
        self.first_position += u32::try_from(tokens.len()).map_err(|_| Gone)?;
        self.sent_at = Some(Instant::now());
        let event = TaskEvent::Tokens {
            task_id: self.task_id,
            first_position,
            tokens,
        };
        self.events.blocking_send(event).map_err(|_| Gone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use dovetail_commitment::SamplingParams;
    use dovetail_sv2::extension::Bytes;

    fn models() -> Models {
        let model = Model::from_bytes(&dovetail_engine::tiny::generate(1)).unwrap();
        BTreeMap::from([(model.id(), Arc::new(model))])
    }

    fn task(model_id: ModelId, number: u8, prompt: &[u8]) -> AssignTask {
        AssignTask {
            task_id: TaskId::from_bytes([number; 32]),
            model_id,
            prompt: Bytes(prompt.to_vec()),
            salt: [7; 32],
            sampling: SamplingParams {
                temperature_milli: 800,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 24,
            },
            seed: [number; 32],
            deadline_ms: 60_000,
        }
    }

    fn key() -> WorkerKey {
        WorkerKey::from_bytes([1; 32])
    }

    #[tokio::test]
    async fn streamed_tokens_are_those_of_the_transcript_without_gaps() {
        let models = models();
        let id = *models.keys().next().unwrap();
        let (runner, mut events) = TaskRunner::start(models, key(), 2).unwrap();
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
        let id = *models.keys().next().unwrap();
        let (runner, mut events) = TaskRunner::start(models, key(), 2).unwrap();
        let other = ModelId::from_bytes([9; 32]);
        runner.take(task(other, 1, b"x")).unwrap();
        runner.take(task(id, 2, &[b'x'; 30_000])).unwrap();
        for expected in [codes::MODEL_UNKNOWN, codes::PROMPT_TOO_LONG] {
            match events.recv().await.unwrap() {
                TaskEvent::Failed { code, .. } => assert_eq!(code, expected),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn no_more_tasks_are_taken_than_were_announced_and_none_twice() {
        let models = models();
        let id = *models.keys().next().unwrap();
        let (runner, _events) = TaskRunner::start(models, key(), 2).unwrap();
        let mut long = task(id, 1, b"hello");
        long.sampling.max_tokens = 4000;
        runner.take(long.clone()).unwrap();
        assert_eq!(runner.take(long), Err(codes::TOO_MANY_TASKS));
        runner.cancel_all();
    }

    #[tokio::test]
    async fn a_cancelled_or_overdue_task_ends_without_a_transcript() {
        let models = models();
        let id = *models.keys().next().unwrap();
        let (runner, mut events) = TaskRunner::start(models, key(), 2).unwrap();
        let mut overdue = task(id, 1, b"hello");
        overdue.deadline_ms = 0;
        let cancelled = task(id, 2, b"hello");
        let cancelled_id = cancelled.task_id;
        runner.take(overdue).unwrap();
        runner.take(cancelled).unwrap();
        runner.cancel(&cancelled_id);
        let mut dropped = 0;
        while dropped < 2 {
            match events.recv().await.unwrap() {
                TaskEvent::Tokens { .. } => {}
                TaskEvent::Dropped(_) => dropped += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}
