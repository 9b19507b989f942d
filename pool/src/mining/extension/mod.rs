//! Extension 0x4149 on a mining connection: one file per family of messages. The specification is
//! `docs/extension-0x4149.md`; what the messages set going is decided in `tasks`, `claims` and `payouts`.

mod batches;
pub(super) mod challenge;
mod invoices;
mod registration;
mod tasks;

use dovetail_sv2::EndReason;
use dovetail_sv2::extension::{CancelTask, PayoutResult, RequestInvoice};

use super::connection::Connection;
use crate::mailboxes::WorkerCommand;

impl Connection {
    /// What the rest of the pool asks of this worker.
    pub(super) fn on_command(&mut self, command: WorkerCommand) -> Result<(), EndReason> {
        match command {
            WorkerCommand::Assign(task) => self.assign(&task),
            WorkerCommand::Cancel(task_id) => self.send(&CancelTask { task_id }),
            WorkerCommand::RequestInvoice {
                payout_id,
                amount_msat,
            } => self.send(&RequestInvoice {
                payout_id,
                amount_msat,
            }),
            WorkerCommand::PayoutResult { payout_id, paid } => {
                self.send(&PayoutResult { payout_id, paid })
            }
        }
    }
}
