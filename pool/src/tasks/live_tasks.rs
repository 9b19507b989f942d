//! The part of tasks' lives that may be lost: which workers are connected, which task is with which
//! worker, and the tokens as they arrive. What must survive a restart lies in the ledger.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use dovetail_commitment::{ModelId, TaskId, WorkerKey};
use tokio::sync::{mpsc, watch};

use super::progress::{Phase, Progress, StreamRefusal};
use super::refusal::{REFUSAL_PAUSE, Refusal};
use crate::assignment::Assignment;
use crate::mailboxes::WorkerCommand;

/// A connected worker.
pub(super) struct Worker {
    /// The number of its mailbox.
    pub(super) connection: u64,
    pub(super) models: Vec<ModelId>,
    pub(super) commands: mpsc::Sender<WorkerCommand>,
    pub(super) tasks_max: usize,
    pub(super) running: Vec<TaskId>,
    /// When it last gave a task back, if none of its tasks has ended since.
    pub(super) refused_at: Option<Instant>,
}

impl Worker {
    /// Whether it may be given one more. A worker that gave a task back has as many as it can take until
    /// one of them ends; where it has none, for a while.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.running.len() < self.tasks_max
            && self.refused_at.is_none_or(|at| {
                self.running.is_empty() && now.saturating_duration_since(at) >= REFUSAL_PAUSE
            })
    }
}

/// A task that waits or runs, or whose transcript waits for a share.
pub(super) struct LiveTask {
    pub(super) progress: watch::Sender<Progress>,
    pub(super) worker: Option<WorkerKey>,
    /// The connection that it was last sent on.
    pub(super) sent_on: Option<u64>,
    /// Kept until the first token comes: as long as another worker may still be given the task.
    pub(super) assignment: Option<Arc<Assignment>>,
    /// How often it was given to a worker.
    pub(super) tries: u32,
    /// Who gave it back.
    pub(super) refusals: Vec<Refusal>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) workers: HashMap<WorkerKey, Worker>,
    pub(super) tasks: HashMap<TaskId, LiveTask>,
    pub(super) queue: VecDeque<TaskId>,
}

/// Workers, tasks and the queue behind one lock, which is never held across an await.
#[derive(Clone, Default)]
pub(super) struct LiveTasks {
    state: Arc<Mutex<State>>,
}

impl LiveTasks {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves maps that are whole: every change is a single
        // insertion or removal.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A worker proved its key. A newer connection of the same key takes over.
    pub(super) fn register(
        &self,
        key: WorkerKey,
        connection: u64,
        models: Vec<ModelId>,
        tasks_max: usize,
        commands: mpsc::Sender<WorkerCommand>,
    ) {
        let mut state = self.state();
        let running = state
            .workers
            .remove(&key)
            .map(|old| old.running)
            .unwrap_or_default();
        state.workers.insert(
            key,
            Worker {
                connection,
                models,
                commands,
                tasks_max,
                running,
                refused_at: None,
            },
        );
    }

    /// The connection is gone. Returns the tasks that it was running, which are to be given back. Of a
    /// connection that a newer one has taken over from, those that it had not begun; what it streamed may
    /// be delivered on the newer one. Tasks that were about to be assigned are not among them:
    /// [`LiveTasks::start`] will find the worker gone.
    pub(super) fn unregister(&self, key: &WorkerKey, connection: u64) -> Vec<TaskId> {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let Some(worker) = workers.get(key) else {
            return Vec::new();
        };
        let is_current = worker.connection == connection;
        let mut lost = worker.running.clone();
        lost.retain(|id| {
            tasks.get(id).is_some_and(|task| {
                let ran_here = task.sent_on == Some(connection) && task.assignment.is_some();
                task.progress.borrow().phase == Phase::Running && (is_current || ran_here)
            })
        });
        if is_current {
            workers.remove(key);
        }
        lost
    }

    /// How many workers serve `model`.
    pub(super) fn workers_for(&self, model: &ModelId) -> usize {
        self.state()
            .workers
            .values()
            .filter(|worker| worker.models.contains(model))
            .count()
    }

    /// Takes tokens that a worker streamed.
    pub(super) fn stream(
        &self,
        key: &WorkerKey,
        task: &TaskId,
        first_position: u32,
        tokens: &[u32],
    ) -> Result<(), StreamRefusal> {
        let mut state = self.state();
        let running = state
            .tasks
            .get_mut(task)
            .filter(|running| running.worker.as_ref() == Some(key))
            .ok_or(StreamRefusal::NotYours)?;
        let mut refusal = None;
        running.progress.send_if_modified(|progress| {
            refusal = progress.append(first_position, tokens).err();
            refusal.is_none()
        });
        if refusal.is_none() {
            // Its agent reads along: nobody else can begin it again.
            running.assignment = None;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The task has ended in this way: frees its worker and tells who watches. Settled, failed
    /// and cancelled tasks are forgotten here; the ledger keeps them.
    pub(super) fn finish(&self, id: &TaskId, phase: Phase) {
        let mut state = self.state();
        state.queue.retain(|queued| queued != id);
        for worker in state.workers.values_mut() {
            let before = worker.running.len();
            worker.running.retain(|running| running != id);
            if worker.running.len() < before {
                worker.refused_at = None;
            }
        }
        let Some(task) = state.tasks.get_mut(id) else {
            return;
        };
        task.assignment = None;
        task.progress.send_modify(|progress| progress.phase = phase);
        if phase != Phase::Finished {
            state.tasks.remove(id);
        }
    }

    /// Replaces what was streamed by what the transcript holds (they are equal for an honest
    /// worker), and marks the task finished.
    pub(super) fn complete(&self, id: &TaskId, tokens: &[u32]) {
        if let Some(task) = self.state().tasks.get(id) {
            let whole = tokens.to_vec();
            task.progress
                .send_modify(|progress| progress.tokens = whole);
        }
        self.finish(id, Phase::Finished);
    }

    /// A view of the task that follows it.
    pub(super) fn watch(&self, id: &TaskId) -> Option<watch::Receiver<Progress>> {
        self.state()
            .tasks
            .get(id)
            .map(|task| task.progress.subscribe())
    }

    /// Asks the worker to stop, and forgets the task.
    pub(super) fn cancel(&self, id: &TaskId) {
        self.stop(id);
        self.finish(id, Phase::Cancelled);
    }

    /// Asks the worker to stop. What it streamed before is still taken.
    pub(super) fn stop(&self, id: &TaskId) {
        let state = self.state();
        if let Some(task) = state.tasks.get(id) {
            task.progress.send_modify(Progress::stops);
        }
        let worker = state
            .tasks
            .get(id)
            .and_then(|task| task.worker)
            .and_then(|key| state.workers.get(&key));
        if let Some(worker) = worker {
            // A full queue means that the connection is about to be dropped anyway.
            let _ = worker.commands.try_send(WorkerCommand::Cancel(*id));
        }
    }
}
