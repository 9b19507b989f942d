//! Continuous batching: all tasks that are open go through the model together, a step at a time; new
//! ones join at the next step, and each leaves when it ends. Nobody's tokens depend on the others.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dovetail_commitment::{
    TaskId, Transcript, WorkerKey, output_digest, prompt_commitment, trace_root,
};
use dovetail_engine::{
    ENGINE_VERSION, EngineError, Generation, GuideError, Prefixes, Request, step,
};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::task::{CHUNK_TOKENS_MAX, OpenTasks, TakenTask, TaskError, TaskEvent, lock};

/// Tokens are held back for at most this long, so that fast models do not send a frame for each and
/// slow ones still look alive.
const CHUNK_TIME_MAX: Duration = Duration::from_millis(20);

/// Nobody takes events any more.
struct Gone;

/// The tasks under way, and what they run on. It is alone on its thread.
pub(crate) struct Scheduler {
    engine: Engine,
    worker_key: WorkerKey,
    events: mpsc::Sender<TaskEvent>,
    open: Arc<Mutex<OpenTasks>>,
    prefixes: Prefixes,
    running: Vec<Running>,
}

struct Running {
    taken: TakenTask,
    /// How much of the prompt was known.
    reused_tokens: usize,
    generation: Generation,
    stream: TokenStream,
}

impl Scheduler {
    pub(crate) fn new(
        engine: Engine,
        worker_key: WorkerKey,
        events: mpsc::Sender<TaskEvent>,
        open: Arc<Mutex<OpenTasks>>,
    ) -> Self {
        Self {
            prefixes: Prefixes::new(engine.prefix_bytes_max),
            engine,
            worker_key,
            events,
            open,
            running: Vec::new(),
        }
    }

    /// Runs until the queue is closed or nobody takes events any more.
    pub(crate) fn run(mut self, queue: &Receiver<TakenTask>) {
        loop {
            let taken = if self.running.is_empty() {
                queue.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                queue.try_recv()
            };
            let went_on = match taken {
                Ok(taken) => self.admit(taken),
                Err(TryRecvError::Empty) => self.step(),
                Err(TryRecvError::Disconnected) => return,
            };
            if went_on.is_err() {
                return;
            }
        }
    }

    fn admit(&mut self, taken: TakenTask) -> Result<(), Gone> {
        let task_id = taken.task.id;
        match self.begin(&taken) {
            Ok(mut generation) => {
                let stream = TokenStream::new(task_id, self.events.clone());
                let reused_tokens = generation.reuse(&mut self.prefixes);
                self.running.push(Running {
                    taken,
                    reused_tokens,
                    generation,
                    stream,
                });
                Ok(())
            }
            Err(error) => self.close(TaskEvent::Failed { task_id, error }, task_id),
        }
    }

    fn begin(&mut self, taken: &TakenTask) -> Result<Generation, TaskError> {
        let task = &taken.task;
        let model = self.engine.models.get(&task.model_id);
        let model = model.ok_or(TaskError::ModelUnknown)?;
        let refused = |error| refusal(&error);
        let request = Request {
            prompt_tokens: task.prompt.tokens().to_vec(),
            sampling: task.sampling,
            seed: task.seed,
            stop: task.stop.clone(),
            constraint: task.constraint.clone(),
        };
        Generation::new(&model, request).map_err(refused)
    }

    /// One step of all running tasks, of which those that are over leave.
    fn step(&mut self) -> Result<(), Gone> {
        let over: Vec<Running> = self
            .running
            .extract_if(.., |running| running.taken.is_over())
            .collect();
        for running in over {
            self.end_early(running)?;
        }
        let mut generations: Vec<&mut Generation> = self
            .running
            .iter_mut()
            .map(|running| &mut running.generation)
            .collect();
        let tokens = step(&self.engine.runtime, &mut generations);
        for (running, token) in self.running.iter_mut().zip(tokens) {
            if running.generation.tokens().len() == 1 {
                running.generation.keep_prompt(&mut self.prefixes);
            }
            if let Some(token) = token {
                running.stream.push(token)?;
            }
        }
        let finished: Vec<Running> = self
            .running
            .extract_if(.., |running| running.generation.is_finished())
            .collect();
        for mut running in finished {
            running.stream.flush()?;
            let task_id = running.taken.task.id;
            let event = self.finished(running);
            self.close(event, task_id)?;
        }
        Ok(())
    }

    /// Ends a task that nobody waits for any more: with what there is of it, if that is wanted.
    fn end_early(&self, mut running: Running) -> Result<(), Gone> {
        let task_id = running.taken.task.id;
        let has_prefix = !running.generation.tokens().is_empty();
        let event = if has_prefix && running.taken.wants_prefix() {
            // The transcript covers what was computed, so that has to be there first.
            running.stream.flush()?;
            self.finished(running)
        } else {
            TaskEvent::Dropped(task_id)
        };
        self.close(event, task_id)
    }

    fn finished(&self, running: Running) -> TaskEvent {
        let task = running.taken.task;
        let task_id = task.id;
        let output = running.generation.finish();
        let Ok(output_tokens) = u32::try_from(output.tokens.len()) else {
            let error = TaskError::Internal;
            return TaskEvent::Failed { task_id, error };
        };
        let transcript = Transcript {
            task_id,
            worker_key: self.worker_key,
            model_id: task.model_id,
            engine_version: ENGINE_VERSION,
            prompt_commitment: prompt_commitment(
                &task.salt,
                &task.stop,
                task.constraint.as_ref(),
                &task.prompt,
            ),
            sampling: task.sampling,
            seed: task.seed,
            output_tokens,
            output_digest: output_digest(&output.tokens),
            trace_root: trace_root(&output.trace),
            finish_reason: output.finish_reason,
        };
        TaskEvent::Finished {
            transcript: Box::new(transcript),
            input_tokens: task.prompt.tokens().len(),
            expires: running.taken.expires,
            reused_tokens: running.reused_tokens,
        }
    }

    /// Tells a task's last event.
    fn close(&self, last: TaskEvent, task_id: TaskId) -> Result<(), Gone> {
        // Before the event: whoever sees it may give the next task at once.
        lock(&self.open).remove(&task_id);
        self.events.blocking_send(last).map_err(|_| Gone)
    }
}

/// What is wrong with a request that the engine does not take.
fn refusal(error: &EngineError) -> TaskError {
    match error {
        EngineError::PromptTooLong { .. } => TaskError::PromptTooLong,
        EngineError::PromptInvalid => TaskError::PromptInvalid,
        EngineError::Sampling(_) => TaskError::SamplingInvalid,
        // Its words stay here: they may quote what was asked for.
        EngineError::Constraint(GuideError::OtherGuide) => TaskError::GuideUnknown,
        EngineError::Constraint(_) => TaskError::ConstraintInvalid,
        // None of these is the request's fault, and none comes up once a model is loaded.
        EngineError::Read(_)
        | EngineError::Format(_)
        | EngineError::Tokenizer(_)
        | EngineError::Unsupported(_)
        | EngineError::Threads => TaskError::Internal,
    }
}

/// Groups a task's tokens into chunks.
struct TokenStream {
    task_id: TaskId,
    events: mpsc::Sender<TaskEvent>,
    first_position: u32,
    held: Vec<u32>,
    sent_at: Option<Instant>,
}

impl TokenStream {
    fn new(task_id: TaskId, events: mpsc::Sender<TaskEvent>) -> Self {
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
        if due || self.held.len() == CHUNK_TOKENS_MAX {
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
