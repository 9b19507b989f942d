//! Tasks on their way: which workers are connected, which task runs where, and the tokens as they
//! arrive. What must survive a restart lies in the ledger; this is the part that may be lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use dovetail_commitment::{ModelId, SamplingParams, StopSequences, TaskId, WorkerKey};
use tokio::sync::{mpsc, watch};

/// How many commands may wait for one worker's connection. A task and its cancellation are two,
/// so this is well above what `max_tasks` permits; a connection that lets it fill is dropped.
pub(crate) const COMMANDS_MAX: usize = 64;

/// What the pool asks of a worker's connection.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    /// Run this task.
    Assign(Box<TaskOrder>),
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
}

impl std::fmt::Debug for TaskOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TaskOrder({})", self.id)
    }
}

/// Where a task stands, as its agent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Running,
    Finished,
    Settled,
    Failed,
    Cancelled,
}

impl Phase {
    /// Whether more tokens can follow.
    pub(crate) fn is_streaming(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// A task's tokens so far and its phase; watched by the agents' streams.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) model: ModelId,
    pub(crate) phase: Phase,
    pub(crate) tokens: Vec<u32>,
    /// Why it failed, where it did.
    pub(crate) code: Option<&'static str>,
    tokens_max: usize,
}

/// Why tokens were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamRefusal {
    /// No such task, or it does not run on this worker.
    #[error("the task does not run on this worker")]
    NotYours,
    /// The tokens do not follow those already there.
    #[error("the tokens do not follow the ones before")]
    OutOfOrder,
    /// More tokens than the task permits.
    #[error("the task is longer than it may be")]
    TooLong,
}

struct Worker {
    connection: u64,
    models: Vec<ModelId>,
    commands: mpsc::Sender<WorkerCommand>,
    tasks_max: usize,
    running: Vec<TaskId>,
}

struct Running {
    live: watch::Sender<Live>,
    worker: Option<WorkerKey>,
    /// Kept until the task is assigned.
    order: Option<Box<TaskOrder>>,
}

#[derive(Default)]
struct State {
    workers: HashMap<WorkerKey, Worker>,
    tasks: HashMap<TaskId, Running>,
    queue: VecDeque<TaskId>,
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
            },
        );
    }

    /// The connection is gone. Returns the tasks that it was running, which then have failed;
    /// nothing if a newer connection has taken over.
    pub(crate) fn unregister(&self, key: &WorkerKey, connection: u64) -> Vec<TaskId> {
        let mut state = self.state();
        match state.workers.get(key) {
            Some(worker) if worker.connection == connection => {}
            _ => return Vec::new(),
        }
        state
            .workers
            .remove(key)
            .map(|worker| worker.running)
            .unwrap_or_default()
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
        let live = Live {
            model: order.model,
            phase: Phase::Queued,
            tokens: Vec::new(),
            code: None,
            tokens_max: order.sampling.max_tokens as usize,
        };
        state.queue.push_back(order.id);
        state.tasks.insert(
            order.id,
            Running {
                live: watch::Sender::new(live),
                worker: None,
                order: Some(Box::new(order)),
            },
        );
        true
    }

    /// Pairs waiting tasks with free workers, and reserves both. The caller has the ledger
    /// confirm each pair and then calls [`Dispatcher::start`] or [`Dispatcher::finish`].
    pub(crate) fn pair(&self) -> Vec<Assignment> {
        let mut state = self.state();
        let State {
            workers,
            tasks,
            queue,
        } = &mut *state;
        let mut pairs = Vec::new();
        queue.retain(|id| {
            let Some(task) = tasks.get_mut(id) else {
                return false;
            };
            let model = task.live.borrow().model;
            let free = workers
                .iter_mut()
                .filter(|(_, worker)| {
                    worker.models.contains(&model) && worker.running.len() < worker.tasks_max
                })
                .min_by_key(|(_, worker)| worker.running.len());
            let Some((key, worker)) = free else {
                return true;
            };
            worker.running.push(*id);
            task.worker = Some(*key);
            pairs.push(Assignment {
                task: *id,
                worker: *key,
            });
            false
        });
        pairs
    }

    /// Sends a confirmed assignment to its worker; `false` if the worker cannot take it.
    pub(crate) fn start(&self, pair: Assignment) -> bool {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let (Some(worker), Some(task)) = (workers.get(&pair.worker), tasks.get_mut(&pair.task))
        else {
            return false;
        };
        let Some(order) = task.order.take() else {
            return false;
        };
        if worker
            .commands
            .try_send(WorkerCommand::Assign(order))
            .is_err()
        {
            return false;
        }
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
        let state = self.state();
        let running = state
            .tasks
            .get(task)
            .filter(|running| running.worker.as_ref() == Some(key))
            .ok_or(StreamRefusal::NotYours)?;
        let mut refusal = None;
        running.live.send_if_modified(|live| {
            refusal = live.append(first_position, tokens).err();
            refusal.is_none()
        });
        refusal.map_or(Ok(()), Err)
    }

    /// The task has ended in this way: frees its worker and tells who watches. Settled, failed
    /// and cancelled tasks are forgotten here; the ledger keeps them.
    pub(crate) fn finish(&self, id: &TaskId, phase: Phase, code: Option<&'static str>) {
        let mut state = self.state();
        state.queue.retain(|queued| queued != id);
        for worker in state.workers.values_mut() {
            worker.running.retain(|running| running != id);
        }
        let Some(task) = state.tasks.get(id) else {
            return;
        };
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
            self.finish(id, Phase::Failed, Some("expired"));
        }
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

impl Live {
    fn append(&mut self, first_position: u32, tokens: &[u32]) -> Result<(), StreamRefusal> {
        if self.phase != Phase::Running || first_position as usize != self.tokens.len() {
            return Err(StreamRefusal::OutOfOrder);
        }
        if self.tokens.len().saturating_add(tokens.len()) > self.tokens_max {
            return Err(StreamRefusal::TooLong);
        }
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn order(n: u8) -> TaskOrder {
        TaskOrder {
            id: TaskId::from_bytes([n; 32]),
            model: ModelId::from_bytes([7; 32]),
            prompt: b"secret".to_vec(),
            stop: StopSequences::default(),
            salt: [0; 32],
            sampling: SamplingParams {
                temperature_milli: 0,
                top_k: 0,
                top_p_milli: 1000,
                max_tokens: 4,
            },
            seed: [0; 32],
        }
    }

    fn with_worker(tasks_max: usize) -> (Dispatcher, WorkerKey, mpsc::Receiver<WorkerCommand>) {
        let dispatcher = Dispatcher::default();
        let key = WorkerKey::from_bytes([9; 32]);
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        dispatcher.register(
            key,
            1,
            vec![ModelId::from_bytes([7; 32])],
            tasks_max,
            sender,
        );
        (dispatcher, key, receiver)
    }

    #[test]
    fn a_task_goes_to_a_worker_that_is_free_and_serves_its_model() {
        let (dispatcher, key, mut commands) = with_worker(1);
        assert!(dispatcher.enqueue(order(1), 10));
        assert!(dispatcher.enqueue(order(2), 10));
        let pairs = dispatcher.pair();
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].worker, key);
        assert!(dispatcher.start(pairs[0]));
        assert!(matches!(commands.try_recv(), Ok(WorkerCommand::Assign(_))));
        assert!(dispatcher.pair().is_empty());
        dispatcher.complete(&pairs[0].task, &[1]);
        assert_eq!(dispatcher.pair().len(), 1);
    }

    #[test]
    fn tokens_must_follow_each_other_and_stay_within_the_limit() {
        let (dispatcher, key, _commands) = with_worker(1);
        dispatcher.enqueue(order(1), 10);
        let pair = dispatcher.pair()[0];
        dispatcher.start(pair);
        let other = WorkerKey::from_bytes([1; 32]);
        assert_eq!(
            dispatcher.stream(&other, &pair.task, 0, &[1]),
            Err(StreamRefusal::NotYours)
        );
        assert_eq!(dispatcher.stream(&key, &pair.task, 0, &[1, 2]), Ok(()));
        assert_eq!(
            dispatcher.stream(&key, &pair.task, 1, &[3]),
            Err(StreamRefusal::OutOfOrder)
        );
        assert_eq!(
            dispatcher.stream(&key, &pair.task, 2, &[3, 4, 5]),
            Err(StreamRefusal::TooLong)
        );
        assert_eq!(
            dispatcher.watch(&pair.task).unwrap().borrow().tokens,
            vec![1, 2]
        );
    }

    #[test]
    fn the_queue_is_bounded_and_a_lost_worker_hands_its_tasks_back() {
        let (dispatcher, key, _commands) = with_worker(1);
        assert!(dispatcher.enqueue(order(1), 1));
        assert!(!dispatcher.has_room(1));
        assert!(!dispatcher.enqueue(order(2), 1));
        let pair = dispatcher.pair()[0];
        assert!(dispatcher.unregister(&key, 2).is_empty());
        assert_eq!(dispatcher.unregister(&key, 1), vec![pair.task]);
    }

    #[test]
    fn a_prompt_is_never_shown() {
        assert!(!format!("{:?}", order(1)).contains("secret"));
        assert!(!format!("{:?}", WorkerCommand::Assign(Box::new(order(1)))).contains("115"));
    }
}
