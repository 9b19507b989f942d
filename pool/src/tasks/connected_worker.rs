//! A connected worker, as its connection holds it: it takes commands and hands in tokens and transcripts.

use dovetail_commitment::{ModelId, TaskId, Transcript, WorkerKey};
use dovetail_telemetry::Event;

use super::Tasks;
use super::delivery::DeliveryError;
use super::live_tasks::Joining;
use super::progress::StreamRefusal;
use super::refusal::GivenBack;
use crate::mailboxes::{Mailbox, WorkerCommand};

/// How many tasks one worker is given at once, whatever it says it takes: its commands must fit
/// their mailbox.
const TASKS_MAX: usize = 16;

/// A worker that has proved its key, on one connection. Dropping it gives the worker's tasks back.
pub(crate) struct Connected {
    tasks: Tasks,
    worker: WorkerKey,
    mailbox: Mailbox,
}

impl Tasks {
    /// Takes a worker on that serves these models and runs so many tasks at once. Models that the pool does
    /// not have are passed over. A newer connection of the same worker takes over.
    pub(crate) fn connect(
        &self,
        worker: WorkerKey,
        mut models: Vec<ModelId>,
        room: usize,
    ) -> Connected {
        models.retain(|id| self.models.get(id).is_some());
        let model_count = models.len();
        let (mailbox, commands) = self.mailboxes.open(worker);
        self.live.register(Joining {
            key: worker,
            connection: mailbox.number(),
            models,
            tasks_max: room.min(TASKS_MAX),
            commands,
        });
        self.telemetry.emit(&Event::WorkerRegistered {
            worker: &worker.to_string(),
            models: model_count,
        });
        tracing::info!(%worker, models = model_count, "worker registered");
        self.pair();
        self.look_at_standing(worker);
        Connected {
            tasks: self.clone(),
            worker,
            mailbox,
        }
    }
}

impl Connected {
    /// The worker's key.
    pub(crate) fn worker(&self) -> WorkerKey {
        self.worker
    }

    /// What the pool asks of the worker next.
    pub(crate) async fn next_command(&mut self) -> Option<WorkerCommand> {
        self.mailbox.next().await
    }

    /// Takes tokens that the worker streamed. A task that it was given after another worker goes to a third one if its
    /// tokens differ from those before.
    pub(crate) fn stream(
        &self,
        task: &TaskId,
        first_position: u32,
        tokens: &[u32],
    ) -> Result<(), StreamRefusal> {
        let live = &self.tasks.live;
        let taken = live.stream(&self.worker, task, first_position, tokens);
        if taken == Err(StreamRefusal::Differs) {
            let (tasks, worker, task) = (self.tasks.clone(), self.worker, *task);
            tracing::warn!(%task, %worker, "a worker gives other tokens than the one before");
            self.tasks.tracker.spawn(async move {
                tasks.give_back(&[task], worker, GivenBack::Unable).await;
            });
        }
        taken
    }

    /// Takes the transcript of a task that the worker has run. Once begun it goes on to its end, whether the answer is
    /// waited for or not.
    pub(crate) fn deliver(
        &self,
        task: TaskId,
        transcript: Transcript,
    ) -> impl Future<Output = Result<(), DeliveryError>> + Send + use<> {
        let (tasks, worker) = (self.tasks.clone(), self.worker);
        let delivery = self
            .tasks
            .tracker
            .spawn(async move { tasks.deliver(worker, task, &transcript).await });
        async move { delivery.await.unwrap_or(Err(DeliveryError::Unfinished)) }
    }

    /// The worker does not run a task that it was given.
    pub(crate) async fn refuse(&self, task: TaskId, why: GivenBack) {
        self.tasks.give_back(&[task], self.worker, why).await;
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        // First, so that no task is sent to where nobody reads.
        self.mailbox.close();
        let (tasks, worker) = (self.tasks.clone(), self.worker);
        let lost = tasks.live.unregister(&worker, self.mailbox.number());
        self.tasks.tracker.spawn(async move {
            tasks.give_back(&lost, worker, GivenBack::Lost).await;
        });
    }
}
