//! Mailboxes of connected workers: how the rest of the pool reaches the connection that a worker is on.
//! A newer connection of the same worker takes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dovetail_commitment::{TaskId, WorkerKey};
use tokio::sync::mpsc;

use crate::assignment::Assignment;

/// How many commands may wait for one worker's connection. A task and its cancellation are two,
/// so this is well above what a worker is given at once; a full mailbox takes no more tasks.
pub(crate) const COMMANDS_MAX: usize = 64;

/// What the pool asks of a worker's connection.
#[derive(Debug)]
pub(crate) enum WorkerCommand {
    /// Run this task.
    Assign(Arc<Assignment>),
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

/// A command was not put into a mailbox: the worker is not connected, or its mailbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undelivered;

struct Open {
    number: u64,
    commands: mpsc::Sender<WorkerCommand>,
}

#[derive(Default)]
struct State {
    last_number: u64,
    open: HashMap<WorkerKey, Open>,
}

/// The mailboxes of all workers; clones share them. The lock is never held across an await.
#[derive(Clone, Default)]
pub(crate) struct Mailboxes(Arc<Mutex<State>>);

/// One connection's end of a mailbox. It closes when this is dropped.
pub(crate) struct Mailbox {
    mailboxes: Mailboxes,
    worker: WorkerKey,
    number: u64,
    commands: mpsc::Receiver<WorkerCommand>,
}

impl Mailboxes {
    /// Opens a mailbox for a connection of this worker. The sender is for the tasks that are assigned to it.
    pub(crate) fn open(&self, worker: WorkerKey) -> (Mailbox, mpsc::Sender<WorkerCommand>) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let mut state = self.state();
        state.last_number += 1;
        let number = state.last_number;
        let open = Open {
            number,
            commands: sender.clone(),
        };
        state.open.insert(worker, open);
        let mailbox = Mailbox {
            mailboxes: self.clone(),
            worker,
            number,
            commands,
        };
        (mailbox, sender)
    }

    /// Whether the worker is connected.
    #[cfg(test)]
    pub(crate) fn is_open(&self, worker: &WorkerKey) -> bool {
        self.state().open.contains_key(worker)
    }

    /// The workers that are connected.
    pub(crate) fn open_workers(&self) -> Vec<WorkerKey> {
        self.state().open.keys().copied().collect()
    }

    /// Puts a command into the worker's mailbox. It does not wait for room.
    pub(crate) fn send(
        &self,
        worker: &WorkerKey,
        command: WorkerCommand,
    ) -> Result<(), Undelivered> {
        let state = self.state();
        let open = state.open.get(worker).ok_or(Undelivered)?;
        open.commands.try_send(command).map_err(|_| Undelivered)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a whole map: every change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailbox {
    /// Tells this mailbox from earlier ones of the same worker.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next command; none comes any more once a newer connection has taken over.
    pub(crate) async fn next(&mut self) -> Option<WorkerCommand> {
        self.commands.recv().await
    }

    /// Takes no more commands. What waits in it is not read any more.
    pub(crate) fn close(&mut self) {
        self.commands.close();
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.mailboxes.state();
        let current = state.open.get(&self.worker);
        if current.is_some_and(|open| open.number == self.number) {
            state.open.remove(&self.worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: WorkerKey = WorkerKey::from_bytes([9; 32]);

    fn cancel() -> WorkerCommand {
        WorkerCommand::Cancel(TaskId::from_bytes([1; 32]))
    }

    #[tokio::test]
    async fn a_command_reaches_the_newest_connection_and_an_older_one_closes_nothing() {
        let mailboxes = Mailboxes::default();
        assert_eq!(mailboxes.send(&WORKER, cancel()), Err(Undelivered));
        let (older, _) = mailboxes.open(WORKER);
        let (mut newer, _) = mailboxes.open(WORKER);
        drop(older);
        assert!(mailboxes.is_open(&WORKER));
        assert_eq!(mailboxes.send(&WORKER, cancel()), Ok(()));
        assert!(matches!(newer.next().await, Some(WorkerCommand::Cancel(_))));
        drop(newer);
        assert!(!mailboxes.is_open(&WORKER));
    }

    #[test]
    fn a_full_mailbox_takes_nothing_and_waits_for_nobody() {
        let mailboxes = Mailboxes::default();
        let (_mailbox, _) = mailboxes.open(WORKER);
        for _ in 0..COMMANDS_MAX {
            assert_eq!(mailboxes.send(&WORKER, cancel()), Ok(()));
        }
        assert_eq!(mailboxes.send(&WORKER, cancel()), Err(Undelivered));
    }
}
