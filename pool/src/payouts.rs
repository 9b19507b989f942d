//! Paying workers over Lightning. The ledger is written before every step that cannot be taken
//! back: a payout is reserved with its fee before the send, marked sent before the wallet hears of
//! it, and a payment hash is never sent twice. What is uncertain stays open and is reconciled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use dovetail_commitment::WorkerKey;
use dovetail_ledger::{Ledger, LedgerError, OpenPayout, PayoutState};
use dovetail_lightning::{Client, PaymentStatus, parse_invoice};
use dovetail_sv2::extension::verify_invoice;
use dovetail_telemetry::{Event, Telemetry};
use dovetail_units::Msat;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::LightningConfig;
use crate::mailboxes::{Mailboxes, WorkerCommand};

/// How long a worker may take to make an invoice.
const INVOICE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a payment is watched before it is left to reconciliation.
const PAYMENT_WATCH: Duration = Duration::from_secs(60);
/// How often a pending payment is looked at.
const PAYMENT_POLL: Duration = Duration::from_millis(200);
/// How many payouts one round starts.
const ROUND_MAX: u32 = 32;

/// A worker's answer to `RequestInvoice`.
#[derive(Debug)]
pub(crate) struct InvoiceAnswer {
    pub(crate) payout_id: [u8; 32],
    pub(crate) worker: WorkerKey,
    pub(crate) invoice: Option<SignedInvoice>,
}

/// An invoice with the worker's signature over its payment hash: a connection alone does not say where the money goes.
#[derive(Debug)]
pub(crate) struct SignedInvoice {
    pub(crate) bolt11: String,
    pub(crate) signature: [u8; 64],
}

type Waiting = HashMap<[u8; 32], (WorkerKey, oneshot::Sender<Option<SignedInvoice>>)>;

/// Where connections hand in the invoices that their workers sent.
#[derive(Clone, Default)]
pub(crate) struct InvoiceAnswers(Arc<Mutex<Waiting>>);

impl InvoiceAnswers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer; one that nobody waits for, or of another worker, is dropped.
    pub(crate) fn take(&self, answer: InvoiceAnswer) {
        let mut waiting = self.waiting();
        let expected = waiting
            .get(&answer.payout_id)
            .is_some_and(|(worker, _)| *worker == answer.worker);
        if expected && let Some((_, sender)) = waiting.remove(&answer.payout_id) {
            // The payout may have timed out meanwhile.
            let _ = sender.send(answer.invoice);
        }
    }
}

/// Why a payout did not go on. None of these loses money: it is reserved or back on the balance.
#[derive(Debug, thiserror::Error)]
enum PayoutError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the wallet: {0}")]
    Wallet(#[from] dovetail_lightning::ClientError),
    #[error("the worker gave no invoice in time")]
    NoInvoice,
    #[error("the worker's invoice is not acceptable: {0}")]
    BadInvoice(#[from] dovetail_lightning::InvoiceError),
    #[error("the invoice does not carry the worker's signature over its payment hash")]
    Unsigned,
    #[error("an amount is out of range")]
    Amount,
}

/// The payout service.
pub(crate) struct Payouts {
    pub(crate) ledger: Ledger,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) answers: InvoiceAnswers,
    pub(crate) wallet: Client,
    pub(crate) config: LightningConfig,
    pub(crate) network: Network,
    pub(crate) telemetry: Telemetry,
}

impl Payouts {
    /// Reconciles what was open when the pool last stopped, then pays until `shutdown`. A payout
    /// that is under way runs to its end.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let rail = loop {
            match self.wallet.get_info().await {
                Ok(info) => break info.rail,
                Err(error) => {
                    tracing::warn!(%error, "the wallet does not answer yet");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    }
                }
            }
        };
        let mut ticks = interval(Duration::from_millis(self.config.interval_ms.max(50)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.reconcile(&rail).await {
                tracing::warn!(%error, "cannot reconcile payouts");
            }
            if let Err(error) = self.round(&rail).await {
                tracing::warn!(%error, "a round of payouts failed");
            }
        }
    }

    /// Asks the wallet about every payout that is marked sent and has no end yet.
    async fn reconcile(&self, rail: &str) -> Result<(), PayoutError> {
        for open in self.ledger.open_payouts().await? {
            if open.state == PayoutState::Sent {
                let mut status = self.wallet.payment(open.payment_hash).await?;
                if matches!(status, PaymentStatus::Unknown) {
                    // The pool stopped between its note and the send. The wallet refuses to send a
                    // hash twice, so asking again cannot pay twice.
                    status = self.send(&open).await?;
                }
                self.conclude(&open, &status, rail).await?;
            } else {
                // Reserved but never marked sent: the wallet has not heard of it.
                self.ledger.fail_payout(open.id).await?;
            }
        }
        Ok(())
    }

    async fn send(&self, payout: &OpenPayout) -> Result<PaymentStatus, PayoutError> {
        let fee_max_msat = u64::try_from(payout.fee_max.get()).map_err(|_| PayoutError::Amount)?;
        Ok(self
            .wallet
            .pay(payout.payment_hash, &payout.bolt11, fee_max_msat)
            .await?)
    }

    async fn round(&self, rail: &str) -> Result<(), PayoutError> {
        let threshold = Msat::new(self.config.payout_threshold_msat);
        let due = self
            .ledger
            .workers_with_balance_at_least(threshold, ROUND_MAX)
            .await?;
        for (identity, balance) in due {
            // Only identities that are keys of connected workers can be asked for an invoice.
            let Ok(worker) = identity.parse::<WorkerKey>() else {
                continue;
            };
            if !self.mailboxes.is_open(&worker) {
                continue;
            }
            let whole_sat = balance.get().min(self.config.payout_max_msat) / 1000 * 1000;
            if whole_sat < self.config.payout_threshold_msat {
                continue;
            }
            if let Err(error) = self.pay(worker, Msat::new(whole_sat), rail).await {
                tracing::warn!(%worker, %error, "a payout was stopped; its money is reserved, or back on the balance");
            }
        }
        Ok(())
    }

    async fn pay(&self, worker: WorkerKey, amount: Msat, rail: &str) -> Result<(), PayoutError> {
        let id: [u8; 32] = rand::random();
        let amount_msat = u64::try_from(amount.get()).map_err(|_| PayoutError::Amount)?;
        let SignedInvoice { bolt11, signature } = self.invoice(worker, id, amount_msat).await?;
        let invoice = parse_invoice(&bolt11, self.network, amount_msat)?;
        if !verify_invoice(&worker, &id, &invoice.payment_hash, &signature) {
            return Err(PayoutError::Unsigned);
        }
        let fee_max = Msat::new(self.config.fee_max_msat);
        self.ledger
            .create_payout(id, &worker.to_string(), amount)
            .await?;
        self.ledger
            .reserve_payout(id, &bolt11, invoice.payment_hash, fee_max)
            .await?;
        self.ledger.mark_sent(id).await?;
        let open = OpenPayout {
            id,
            worker: worker.to_string(),
            amount,
            state: PayoutState::Sent,
            bolt11,
            payment_hash: invoice.payment_hash,
            fee_max,
        };
        let mut status = self.send(&open).await?;
        let watch = async {
            while !status.is_final() {
                tokio::time::sleep(PAYMENT_POLL).await;
                status = self.wallet.payment(invoice.payment_hash).await?;
            }
            Ok::<_, PayoutError>(())
        };
        match timeout(PAYMENT_WATCH, watch).await {
            Ok(Ok(())) => self.conclude(&open, &status, rail).await,
            // Uncertain is not failed: reconciliation goes on with it.
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(()),
        }
    }

    async fn invoice(
        &self,
        worker: WorkerKey,
        payout_id: [u8; 32],
        amount_msat: u64,
    ) -> Result<SignedInvoice, PayoutError> {
        let (sender, receiver) = oneshot::channel();
        self.answers.waiting().insert(payout_id, (worker, sender));
        let request = WorkerCommand::RequestInvoice {
            payout_id,
            amount_msat,
        };
        let asked = self.mailboxes.send(&worker, request);
        let answer = match asked {
            Ok(()) => timeout(INVOICE_TIMEOUT, receiver).await,
            Err(_) => Ok(Ok(None)),
        };
        self.answers.waiting().remove(&payout_id);
        match answer {
            Ok(Ok(Some(invoice))) => Ok(invoice),
            _ => Err(PayoutError::NoInvoice),
        }
    }

    /// Books a payment's end, where it has one, and tells the worker.
    async fn conclude(
        &self,
        payout: &OpenPayout,
        status: &PaymentStatus,
        rail: &str,
    ) -> Result<(), PayoutError> {
        let paid = match status {
            PaymentStatus::Succeeded { fee_msat, .. } => {
                let fee = i64::try_from(*fee_msat).map_err(|_| PayoutError::Amount)?;
                let fee = Msat::new(fee);
                self.ledger.settle_payout(payout.id, fee).await?;
                tracing::info!(
                    worker = payout.worker,
                    amount_msat = payout.amount.get(),
                    "paid out"
                );
                self.telemetry.emit(&Event::PayoutPaid {
                    worker: &payout.worker,
                    amount_msat: payout.amount,
                    fee_msat: fee,
                    rail,
                });
                true
            }
            PaymentStatus::Failed => {
                self.ledger.fail_payout(payout.id).await?;
                false
            }
            PaymentStatus::Pending | PaymentStatus::Unknown => return Ok(()),
        };
        if let Ok(worker) = payout.worker.parse() {
            let result = WorkerCommand::PayoutResult {
                payout_id: payout.id,
                paid,
            };
            // A courtesy: the worker's own wallet knows anyway.
            let _ = self.mailboxes.send(&worker, result);
        }
        Ok(())
    }
}
