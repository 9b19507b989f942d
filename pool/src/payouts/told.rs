//! What is told of a payout that has been booked as paid, over whichever rail: events, the log, and its worker.

use dovetail_ledger::Success;
use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::Msat;

use crate::mailboxes::{Mailboxes, WorkerCommand};

/// A payout, as it was paid.
pub(super) struct PaidOut<'a> {
    pub(super) payout: [u8; 32],
    pub(super) payee: &'a str,
    pub(super) amount: Msat,
    pub(super) fee: Msat,
    pub(super) rail: &'a str,
    /// The alarm, if the money had been given up.
    pub(super) alarm: &'static str,
}

impl PaidOut<'_> {
    /// Tells what the success came to; nothing if it was known before.
    pub(super) fn tell(&self, success: Success, telemetry: &Telemetry, mailboxes: &Mailboxes) {
        match success {
            Success::Known => return,
            Success::Paid => {
                tracing::info!(
                    payee = self.payee,
                    amount_msat = self.amount.get(),
                    "paid out"
                );
                telemetry.emit(&Event::PayoutPaid {
                    worker: self.payee,
                    amount_msat: self.amount,
                    fee_msat: self.fee,
                    rail: self.rail,
                });
            }
            Success::Late { from_balance, loss } => {
                let payout = hex::encode(self.payout);
                tracing::error!(
                    payout,
                    payee = self.payee,
                    amount_msat = self.amount.get(),
                    loss_msat = loss.get(),
                    "ALARM: {}",
                    self.alarm
                );
                telemetry.emit(&Event::PayoutLate {
                    payout: &payout,
                    worker: self.payee,
                    amount_msat: self.amount,
                    from_balance_msat: from_balance,
                    loss_msat: loss,
                });
            }
        }
        tell_worker(mailboxes, self.payee, self.payout, true);
    }
}

/// Tells a worker how its payout ended, if the payee is one and is there.
pub(super) fn tell_worker(mailboxes: &Mailboxes, payee: &str, payout_id: [u8; 32], paid: bool) {
    if let Ok(worker) = payee.parse() {
        let result = WorkerCommand::PayoutResult { payout_id, paid };
        // A courtesy: the worker's own wallet knows anyway.
        let _ = mailboxes.send(&worker, result);
    }
}
