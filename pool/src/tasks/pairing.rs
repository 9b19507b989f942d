//! Pairing: which waiting task goes to which worker. Private to the tasks: whatever changes a task or a
//! worker pairs again by itself.
//!
//! The ledger confirms each pair before the worker hears of it, so that a task never runs twice.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use dovetail_api::codes::Code;
use dovetail_commitment::{TaskId, WorkerKey};
use dovetail_ledger::LedgerError;
use dovetail_telemetry::Event;

use super::Tasks;
use super::live_tasks::{LiveTasks, State};
use super::progress::{Phase, Progress};
use super::refusal::GivenBack;
use crate::mailboxes::WorkerCommand;

/// What [`LiveTasks::pair`] found.
#[derive(Debug, Default)]
pub(super) struct Pairing {
    /// Tasks and the workers that are to have them.
    pub(super) pairs: Vec<Pair>,
    /// Tasks that were given back, and which nobody is left to take; with why.
    pub(super) hopeless: Vec<(TaskId, Code)>,
}

/// A task and the worker that is to have it, once the ledger has confirmed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) task: TaskId,
    pub(super) worker: WorkerKey,
}

impl LiveTasks {
    /// Pairs waiting tasks with free workers, and reserves both. The caller has the ledger
    /// confirm each pair and then calls [`LiveTasks::start`] or [`LiveTasks::finish`]; hopeless tasks
    /// are taken out of the queue and are the caller's to fail.
    pub(super) fn pair(&self) -> Pairing {
        self.pair_at(Instant::now())
    }

    pub(super) fn pair_at(&self, now: Instant) -> Pairing {
        let mut state = self.state();
        let mut found = Pairing::default();
        if state.queue.is_empty() {
            return found;
        }
        let mut gone = HashSet::new();
        for id in state.queue.turns(state.given_by_host()) {
            let Some(task) = state.tasks.get(&id) else {
                gone.insert(id);
                continue;
            };
            if let Some(code) = task.hopeless(&state.workers) {
                found.hopeless.push((id, code));
                gone.insert(id);
            } else if let Some(key) = state.choose(task, now) {
                state.reserve(id, key);
                found.pairs.push(Pair {
                    task: id,
                    worker: key,
                });
                gone.insert(id);
            }
        }
        state.queue.retain(|id| !gone.contains(id));
        found
    }

    /// Sends a confirmed assignment to its worker; `false` if the worker cannot take it.
    pub(super) fn start(&self, pair: Pair) -> bool {
        let mut state = self.state();
        let State { workers, tasks, .. } = &mut *state;
        let (Some(worker), Some(task)) = (workers.get_mut(&pair.worker), tasks.get_mut(&pair.task))
        else {
            return false;
        };
        let Some(assignment) = task.assignment.clone() else {
            return false;
        };
        // A connection that came since knows nothing of it yet.
        worker.hand.put(pair.task, task.worth);
        let prompt_tokens = assignment.prompt.tokens().len();
        let due = self.patience.for_first_token(prompt_tokens);
        let assign = WorkerCommand::Assign(assignment);
        if worker.commands.try_send(assign).is_err() {
            return false;
        }
        task.sent_on = Some(worker.connection);
        task.due = Some(Instant::now() + due);
        task.progress.send_modify(Progress::begin);
        true
    }
}

impl State {
    /// How many tasks of each host are with workers.
    fn given_by_host(&self) -> HashMap<IpAddr, usize> {
        let mut given = HashMap::new();
        let with_workers = self.workers.values().flat_map(|worker| worker.hand.tasks());
        for task in with_workers.filter_map(|id| self.tasks.get(&id)) {
            *given.entry(task.caller.host).or_default() += 1;
        }
        given
    }

    /// The task is to be this worker's, once the ledger has confirmed it.
    fn reserve(&mut self, id: TaskId, key: WorkerKey) {
        self.given += 1;
        let (Some(worker), Some(task)) = (self.workers.get_mut(&key), self.tasks.get_mut(&id))
        else {
            return;
        };
        worker.hand.put(id, task.worth);
        worker.last_given = self.given;
        task.worker = Some(key);
        task.tries += 1;
    }
}

impl Tasks {
    /// Gives waiting tasks to workers that have room, and fails those that nobody is left to take.
    pub(super) fn pair(&self) {
        let found = self.live.pair();
        for pair in found.pairs {
            let tasks = self.clone();
            self.tracker.spawn(async move { tasks.assign(pair).await });
        }
        for (task, code) in found.hopeless {
            let tasks = self.clone();
            self.tracker
                .spawn(async move { tasks.fail(task, None, code).await });
        }
    }

    async fn assign(&self, pair: Pair) {
        let assigned = self.ledger.assign_task(pair.task, pair.worker).await;
        if !self.goes_on(pair.task, assigned) {
            return;
        }
        if !self.live.start(pair) {
            return self
                .give_back(&[pair.task], pair.worker, GivenBack::Lost)
                .await;
        }
        self.telemetry.emit(&Event::TaskAssigned {
            task: &pair.task.to_string(),
            worker: &pair.worker.to_string(),
        });
    }

    /// Whether the ledger let a task take its next step. If it did not, nobody runs it: its time is over, or
    /// will be before the ledger hears of it.
    pub(super) fn goes_on(&self, task: TaskId, answer: Result<bool, LedgerError>) -> bool {
        match answer {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => tracing::error!(%task, %error, "the ledger cannot move a task on"),
        }
        self.live.finish(&task, Phase::Failed);
        false
    }

    /// Ends a task, of this worker if one is named.
    pub(super) async fn fail(&self, task: TaskId, worker: Option<WorkerKey>, code: Code) {
        if let Err(error) = self.ledger.fail_task(task, worker, code.as_str()).await {
            tracing::error!(%task, %error, "cannot fail a task");
        }
        self.live.finish(&task, Phase::Failed);
    }
}
