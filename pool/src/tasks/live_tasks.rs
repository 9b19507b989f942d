//! The part of tasks' lives that may be lost: which workers are connected, which task is with which
//! worker, and the tokens as they arrive. What must survive a restart lies in the ledger.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use dovetail_commitment::{ModelId, TaskId, WorkerKey};
use dovetail_ledger::{NewTask, Standing, TaskRecord};
use dovetail_units::Msat;
use tokio::sync::{mpsc, watch};

use super::allowances::Hold;
use super::audience::Audience;
use super::caller::Caller;
use super::endings::Endings;
use super::first_tokens::FirstTokens;
use super::hand::Hand;
use super::progress::{Phase, Progress, StreamRefusal};
use super::queue::{NoRoom, Queue};
use super::refusal::{REFUSAL_PAUSE, Refusal};
use super::stalls::{Patience, Stalls};
use crate::assignment::Assignment;
use crate::mailboxes::WorkerCommand;

/// A connected worker.
pub(super) struct Worker {
    /// The number of its mailbox.
    pub(super) connection: u64,
    pub(super) models: Vec<ModelId>,
    pub(super) commands: mpsc::Sender<WorkerCommand>,
    pub(super) tasks_max: usize,
    pub(super) hand: Hand,
    /// As the ledger has last told it.
    pub(super) standing: Standing,
    /// When it last gave a task back, if none of its tasks has ended since.
    pub(super) refused_at: Option<Instant>,
    /// Which of all assignments was its last one; of workers that are equal, whoever has waited longest comes first.
    pub(super) last_given: u64,
}

impl Worker {
    /// Whether it may be given one more. A worker that gave a task back has as many as it can take until
    /// one of them ends; where it has none, for a while.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.hand.len() < self.tasks_max
            && self.hand.may_grow(&self.standing)
            && self.refused_at.is_none_or(|at| {
                self.hand.is_empty() && now.saturating_duration_since(at) >= REFUSAL_PAUSE
            })
    }

    /// Whether nothing of it was settled yet.
    pub(super) fn is_new(&self) -> bool {
        !self.standing.has_settled
    }
}

/// A task that waits or runs, or whose transcript waits for a share.
pub(super) struct LiveTask {
    pub(super) progress: watch::Sender<Progress>,
    /// When it was put into the queue first.
    pub(super) arrived_at: Instant,
    pub(super) caller: Caller,
    pub(super) audience: Audience,
    /// What it may earn.
    pub(super) worth: Msat,
    /// What it takes of its address's part of the operator's budget.
    pub(super) hold: Option<Hold>,
    pub(super) worker: Option<WorkerKey>,
    /// The connection that it was last sent on.
    pub(super) sent_on: Option<u64>,
    /// When its worker has to have given the next token, or the transcript.
    pub(super) due: Option<Instant>,
    /// Whether its worker has handed it in, and the ledger takes it.
    pub(super) is_handed_in: bool,
    /// Whether its agent wants no more of it, and its worker is to hand in what it has streamed.
    pub(super) is_stopping: bool,
    /// What the ledger had of it at first, without what is private.
    pub(super) record: Arc<TaskRecord>,
    /// Kept as long as another worker may be given the task: until its end.
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
    pub(super) queue: Queue,
    pub(super) stalls: Stalls,
    pub(super) first_tokens: FirstTokens,
    /// How many tasks were given to workers.
    pub(super) given: u64,
}

/// A task that is to wait for a worker.
pub(super) struct Arrival {
    pub(super) task: NewTask,
    pub(super) caller: Caller,
    pub(super) hold: Option<Hold>,
}

/// A worker that has proved its key.
pub(super) struct Joining {
    pub(super) key: WorkerKey,
    pub(super) connection: u64,
    pub(super) models: Vec<ModelId>,
    pub(super) tasks_max: usize,
    pub(super) commands: mpsc::Sender<WorkerCommand>,
}

/// Workers, tasks and the queue behind one lock, which is never held across an await.
#[derive(Clone, Default)]
pub(super) struct LiveTasks {
    state: Arc<Mutex<State>>,
    pub(super) endings: Endings,
    pub(super) patience: Patience,
}

impl LiveTasks {
    /// No tasks and no workers, who may take so long.
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            state: Arc::default(),
            endings: Endings::default(),
            patience,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves maps that are whole: every change is a single
        // insertion or removal.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A worker proved its key. A newer connection of the same key takes over; what is known of a new one comes with
    /// [`LiveTasks::set_standing`].
    pub(super) fn register(&self, joining: Joining) {
        let mut state = self.state();
        let old = state.workers.remove(&joining.key);
        let (hand, standing, last_given) = old
            .map(|old| (old.hand, old.standing, old.last_given))
            .unwrap_or_default();
        let worker = Worker {
            connection: joining.connection,
            models: joining.models,
            commands: joining.commands,
            tasks_max: joining.tasks_max,
            hand,
            standing,
            refused_at: None,
            last_given,
        };
        state.workers.insert(joining.key, worker);
    }

    /// What the worker has shown and has to lose.
    pub(super) fn set_standing(&self, key: &WorkerKey, standing: Standing) {
        if let Some(worker) = self.state().workers.get_mut(key) {
            worker.standing = standing;
        }
    }

    /// Whether the worker is connected.
    pub(super) fn is_connected(&self, key: &WorkerKey) -> bool {
        self.state().workers.contains_key(key)
    }

    /// Whether this caller may have one more task wait, where `most` may in all.
    pub(super) fn room(&self, caller: &Caller, most: usize) -> Result<(), NoRoom> {
        self.state().queue.room(caller, most)
    }

    /// Takes a new task into the queue, where there is room.
    pub(super) fn enqueue(&self, arrival: Arrival, most: usize) -> Result<(), NoRoom> {
        let mut state = self.state();
        let Arrival { task, caller, hold } = arrival;
        state.queue.room(&caller, most)?;
        let id = task.id;
        let progress = Progress::queued(task.model_id, &task.sampling);
        state.queue.push(id, caller);
        state.tasks.insert(
            id,
            LiveTask {
                arrived_at: Instant::now(),
                progress: watch::Sender::new(progress),
                caller,
                audience: Audience::default(),
                worth: task.price_max(),
                hold,
                worker: None,
                sent_on: None,
                due: None,
                is_handed_in: false,
                is_stopping: false,
                record: Arc::new(without_contents(task.record())),
                assignment: Some(Arc::new(task.into())),
                tries: 0,
                refusals: Vec::new(),
            },
        );
        Ok(())
    }

    /// Puts a task that was given back before all that wait. Nothing if it has ended meanwhile.
    pub(super) fn requeue(&self, id: &TaskId) {
        let mut state = self.state();
        let State { tasks, queue, .. } = &mut *state;
        let waits = tasks
            .get(id)
            .filter(|task| task.worker.is_none() && task.assignment.is_some());
        if let Some(task) = waits {
            queue.push_back_again(*id, task.caller);
        }
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
        let is_lost = |id: &TaskId| {
            tasks.get(id).is_some_and(|task| {
                let progress = task.progress.borrow();
                let waits_here = task.sent_on == Some(connection) && !progress.is_begun();
                progress.phase == Phase::Running && (is_current || waits_here)
            })
        };
        let lost = worker.hand.tasks().filter(is_lost).collect();
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
        if running.is_handed_in {
            return Err(StreamRefusal::OutOfOrder);
        }
        let (mut taken, mut is_first) = (Ok(false), false);
        running.progress.send_if_modified(|progress| {
            let was_empty = progress.tokens.is_empty();
            taken = progress.append(first_position, tokens);
            is_first = was_empty && !progress.tokens.is_empty();
            taken == Ok(true)
        });
        taken?;
        let now = Instant::now();
        if !tokens.is_empty() && !running.is_stopping {
            running.due = Some(now + self.patience.progress);
        }
        let model = running.assignment.as_ref().map(|task| task.model);
        let waited = now.saturating_duration_since(running.arrived_at);
        if let Some(model) = model.filter(|_| is_first) {
            state.first_tokens.record(model, waited);
        }
        Ok(())
    }

    /// The task has ended in this way: frees its worker and tells who watches, or waits for its end. Settled, failed
    /// and cancelled tasks are forgotten here; the ledger keeps them.
    pub(super) fn finish(&self, id: &TaskId, phase: Phase) {
        if phase != Phase::Finished {
            self.endings.tell(id);
        }
        let mut state = self.state();
        state.queue.retain(|queued| queued != id);
        for worker in state.workers.values_mut() {
            if worker.hand.remove(id) {
                worker.refused_at = None;
            }
        }
        let Some(task) = state.tasks.get_mut(id) else {
            return;
        };
        task.assignment = None;
        task.due = None;
        task.progress.send_modify(|progress| progress.phase = phase);
        if phase == Phase::Finished {
            return;
        }
        let ended = state.tasks.remove(id);
        drop(state);
        if let Some((hold, progress)) = ended.and_then(|task| Some((task.hold?, task.progress)))
            && phase == Phase::Settled
        {
            let tokens = progress.borrow().tokens.len();
            hold.spend(u32::try_from(tokens).unwrap_or(u32::MAX));
        }
    }

    /// A view of the task that follows it.
    pub(super) fn watch(&self, id: &TaskId) -> Option<watch::Receiver<Progress>> {
        self.state()
            .tasks
            .get(id)
            .map(|task| task.progress.subscribe())
    }

    /// The same of a task that waits or runs, with what its followers are told of it until its output is whole.
    pub(super) fn watch_streaming(
        &self,
        id: &TaskId,
    ) -> Option<(watch::Receiver<Progress>, Arc<TaskRecord>)> {
        let state = self.state();
        let task = state.tasks.get(id)?;
        let is_streaming = task.progress.borrow().phase.is_streaming();
        is_streaming.then(|| (task.progress.subscribe(), Arc::clone(&task.record)))
    }
}

fn without_contents(record: TaskRecord) -> TaskRecord {
    TaskRecord {
        prompt: None,
        stop: None,
        salt: None,
        ..record
    }
}
