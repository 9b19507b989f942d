//! Tasks on their way: which workers are connected, which task runs where, and the tokens as they
//! arrive. What must survive a restart lies in the ledger; this is the part that may be lost.

mod reassign;
mod live;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use dovetail_api::codes;
use dovetail_commitment::{ModelId, SamplingParams, StopSequences, TaskId, WorkerKey};
use tokio::sync::{mpsc, watch};

pub(crate) use reassign::{GivenBack, Next, REFUSAL_PAUSE};
pub(crate) use live::{Live, Phase, StreamRefusal};

use reassign::Refusal;

/// How many commands may wait for one worker's connection. A task and its cancellation are two,
/// so this is well above what `max_tasks` permits; a connection that lets it fill is dropped.
pub(crate) const COMMANDS_MAX: usize = 64;

/// What the pool asks of a worker's connection.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    /// Run this task.
    Assign(Arc<TaskOrder>),
    /// Stop this task; nobody waits for it any more.
    Cancel(TaskId),
    /// Ask the worker's wallet for an invoice.
    RequestInvoice {
        /// The payout it is for.
        payout_id: [u8; 32],
        /// Its amount.
        amount_msat: u64,
    },
    /// Say how a payout ended.
    PayoutResult {
        /// The payout.
        payout_id: [u8; 32],
        /// Whether it was paid.
        paid: bool,
    },
}

/// Everything a worker needs to run a task. No `Debug`: it holds a prompt.
#[derive(Clone)]
pub(crate) struct TaskOrder {
    pub(crate) id: TaskId,
    pub(crate) model: ModelId,
    pub(crate) prompt: Vec<u8>,
    pub(crate) stop: StopSequences,
    pub(crate) salt: [u8; 32],
    pub(crate) sampling: SamplingParams,
    pub(crate) seed: [u8; 32],
    /// When its result is worthless, in Unix seconds.
    pub(crate) expires_at_unix: u64,
}

impl std::fmt::Debug for TaskOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskOrder({})", self.id)
    }
}

struct Worker {
    connection: u64,
    models: Vec<ModelId>,
    commands: mpsc::Sender<WorkerCommand>,
    tasks_max: usize,
    running: Vec<TaskId>,
    /// When it last gave a task back, if none of its tasks has ended since.
    refused_at: Option<Instant>,
}

impl Worker {
    /// Whether it may be given one more. A worker that gave a task back has as many as it can take until
    /// one of them ends; where it has none, for a while.
    fn has_room(&self, now: Instant) -> bool {
        self.running.len() < self.tasks_max
            && self.refused_at.is_none_or(|at| {
                self.running.is_empty() && now.saturating_duration_since(at) >= REFUSAL_PAUSE
            })
    }
}

struct Running {
    live: watch::Sender<Live>,
    worker: Option<WorkerKey>,
    /// The connection that it was last sent on.
    sent_on: Option<u64>,
    /// Kept until the first token comes: as long as another worker may still be given the task.
    order: Option<Arc<TaskOrder>>,
    /// How often it was given to a worker.
    tries: u32,
    /// Who gave it back.
    refusals: Vec<Refusal>,
}

#[derive(Default)]
struct State {
    workers: HashMap<WorkerKey, Worker>,
    tasks: HashMap<TaskId, Running>,
    queue: VecDeque<TaskId>,
}

/// What [`Dispatcher::pair`] found.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    /// Tasks and the workers that are to have them.
    pub(crate) pairs: Vec<Assignment>,
    /// Tasks that were given back, and which nobody is left to take; with why.
    pub(crate) hopeless: Vec<(TaskId, &'static str)>,
}

/// An assignment that the ledger has to confirm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assignment {
    pub(crate) task: TaskId,
    pub(crate) worker: WorkerKey,
}

/// The one shared map of the pool. Its lock is never held across an await.
#[derive(Clone, Default)]
pub(crate) struct Dispatcher {
    state: Arc<Mutex<State>>,
}

impl Dispatcher {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves maps that are whole: every change is a single
        // insertion or removal.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A worker proved its key. A newer connection of the same key takes over.
    pub(crate) fn register(
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
    /// [`Dispatcher::start`] will find the worker gone.
    pub(crate) fn unregister(&self, key: &WorkerKey, connection: u64) -> Vec<TaskId> {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let Some(worker) = workers.get(key) else {
            return Vec::new();
        };
        let is_current = worker.connection == connection;
        let mut lost = worker.running.clone();
        lost.retain(|id| {
            tasks.get(id).is_some_and(|task| {
                let ran_here = task.sent_on == Some(connection) && task.order.is_some();
                task.live.borrow().phase == Phase::Running && (is_current || ran_here)
            })
        });
        if is_current {
            workers.remove(key);
        }
        lost
    }

    /// How many workers serve `model`.
    pub(crate) fn workers_for(&self, model: &ModelId) -> usize {
        self.state()
            .workers
            .values()
            .filter(|worker| worker.models.contains(model))
            .count()
    }

    /// Whether this connection may claim for `key`.
    pub(crate) fn commands_of(&self, key: &WorkerKey) -> Option<mpsc::Sender<WorkerCommand>> {
        self.state()
            .workers
            .get(key)
            .map(|worker| worker.commands.clone())
    }

    /// Whether one more task may wait.
    pub(crate) fn has_room(&self, queue_max: usize) -> bool {
        self.state().queue.len() < queue_max
    }

    /// Takes a new task into the queue; `false` if that is full.
    pub(crate) fn enqueue(&self, order: TaskOrder, queue_max: usize) -> bool {
        let mut state = self.state();
        if state.queue.len() >= queue_max {
            return false;
        }
        let live = Live::queued(order.model, &order.sampling);
        state.queue.push_back(order.id);
        state.tasks.insert(
            order.id,
            Running {
                live: watch::Sender::new(live),
                worker: None,
                sent_on: None,
                order: Some(Arc::new(order)),
                tries: 0,
                refusals: Vec::new(),
            },
        );
        true
    }

    /// Pairs waiting tasks with free workers, and reserves both. The caller has the ledger
    /// confirm each pair and then calls [`Dispatcher::start`] or [`Dispatcher::finish`]; hopeless tasks
    /// are taken out of the queue and are the caller's to fail.
    pub(crate) fn pair(&self) -> Pairing {
        self.pair_at(Instant::now())
    }

    fn pair_at(&self, now: Instant) -> Pairing {
        let mut state = self.state();
        let State {
            workers,
            tasks,
            queue,
        } = &mut *state;
        let mut found = Pairing::default();
        queue.retain(|id| {
            let Some(task) = tasks.get_mut(id) else {
                return false;
            };
            if let Some(code) = task.hopeless(workers) {
                found.hopeless.push((*id, code));
                return false;
            }
            let model = task.live.borrow().model;
            let free = workers
                .iter_mut()
                .filter(|(key, worker)| {
                    worker.models.contains(&model) && worker.has_room(now) && task.may_go_to(key)
                })
                .min_by_key(|(_, worker)| worker.running.len());
            let Some((key, worker)) = free else {
                return true;
            };
            worker.running.push(*id);
            task.worker = Some(*key);
            task.tries += 1;
            found.pairs.push(Assignment {
                task: *id,
                worker: *key,
            });
            false
        });
        found
    }

    /// Sends a confirmed assignment to its worker; `false` if the worker cannot take it.
    pub(crate) fn start(&self, pair: Assignment) -> bool {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let (Some(worker), Some(task)) = (workers.get_mut(&pair.worker), tasks.get_mut(&pair.task))
        else {
            return false;
        };
        let Some(order) = task.order.clone() else {
            return false;
        };
        // A connection that came since knows nothing of it yet.
        if !worker.running.contains(&pair.task) {
            worker.running.push(pair.task);
        }
        if worker
            .commands
            .try_send(WorkerCommand::Assign(order))
            .is_err()
        {
            return false;
        }
        task.sent_on = Some(worker.connection);
        task.live.send_modify(|live| live.phase = Phase::Running);
        true
    }

    /// Takes tokens that a worker streamed.
    pub(crate) fn stream(
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
        running.live.send_if_modified(|live| {
            refusal = live.append(first_position, tokens).err();
            refusal.is_none()
        });
        if refusal.is_none() {
            // Its agent reads along: nobody else can begin it again.
            running.order = None;
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The task has ended in this way: frees its worker and tells who watches. Settled, failed
    /// and cancelled tasks are forgotten here; the ledger keeps them.
    pub(crate) fn finish(&self, id: &TaskId, phase: Phase, code: Option<&'static str>) {
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
        task.order = None;
        task.live.send_modify(|live| {
            live.phase = phase;
            live.code = code;
        });
        if phase != Phase::Finished {
            state.tasks.remove(id);
        }
    }

    /// Replaces what was streamed by what the transcript holds (they are equal for an honest
    /// worker), and marks the task finished.
    pub(crate) fn complete(&self, id: &TaskId, tokens: &[u32]) {
        if let Some(task) = self.state().tasks.get(id) {
            task.live.send_modify(|live| live.tokens = tokens.to_vec());
        }
        self.finish(id, Phase::Finished, None);
    }

    /// Forgets tasks that ended long ago and which nobody settled.
    pub(crate) fn forget(&self, ids: &[TaskId]) {
        for id in ids {
            self.finish(id, Phase::Failed, Some(codes::TASK_EXPIRED));
        }
    }

    /// Whether the task runs on this worker.
    pub(crate) fn is_with(&self, id: &TaskId, key: &WorkerKey) -> bool {
        let state = self.state();
        let task = state.tasks.get(id);
        task.is_some_and(|task| {
            task.worker == Some(*key) && task.live.borrow().phase.is_streaming()
        })
    }

    /// A view of the task that follows it.
    pub(crate) fn watch(&self, id: &TaskId) -> Option<watch::Receiver<Live>> {
        self.state().tasks.get(id).map(|task| task.live.subscribe())
    }

    /// Asks the worker to stop.
    pub(crate) fn cancel(&self, id: &TaskId) {
        let state = self.state();
        let worker = state
            .tasks
            .get(id)
            .and_then(|task| task.worker)
            .and_then(|key| state.workers.get(&key));
        if let Some(worker) = worker {
            // A full queue means that the connection is about to be dropped anyway.
            let _ = worker.commands.try_send(WorkerCommand::Cancel(*id));
        }
        drop(state);
        self.finish(id, Phase::Cancelled, Some("cancelled"));
    }
}
