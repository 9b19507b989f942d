//! Asking a worker for an invoice, and what is made of its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use dovetail_commitment::WorkerKey;
use dovetail_lightning::{InvoiceError, ParsedInvoice, parse_invoice};
use dovetail_sv2::extension::verify_invoice;
use dovetail_units::time::unix_now;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Pace;
use crate::config::LightningConfig;
use crate::mailboxes::{Mailboxes, WorkerCommand};

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

/// That a payout's invoice is waited for; it is no more once this is dropped.
struct Expected<'a> {
    answers: &'a InvoiceAnswers,
    payout_id: [u8; 32],
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.answers.waiting().remove(&self.payout_id);
    }
}

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

    /// Asks the worker for an invoice, and waits for it.
    pub(super) async fn ask(
        &self,
        mailboxes: &Mailboxes,
        request: InvoiceRequest,
        pace: &Pace,
    ) -> Result<SignedInvoice, NoInvoice> {
        let InvoiceRequest {
            worker,
            payout_id,
            amount_msat,
        } = request;
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(payout_id, (worker, sender));
        let _expected = Expected {
            answers: self,
            payout_id,
        };
        let command = WorkerCommand::RequestInvoice {
            payout_id,
            amount_msat,
        };
        mailboxes
            .send(&worker, command)
            .map_err(|_| NoInvoice::Unasked)?;
        match timeout(pace.invoice_time_max, receiver).await {
            Ok(Ok(Some(invoice))) => Ok(invoice),
            Ok(_) => Err(NoInvoice::Refused),
            Err(_) => Err(NoInvoice::Late),
        }
    }
}

/// An invoice that a worker is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct InvoiceRequest {
    pub(super) worker: WorkerKey,
    pub(super) payout_id: [u8; 32],
    pub(super) amount_msat: u64,
}

/// Why there is no invoice to pay.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoInvoice {
    #[error("the worker is not there, or has too many messages waiting")]
    Unasked,
    #[error("the worker gives no invoice")]
    Refused,
    #[error("the worker gave no invoice in time")]
    Late,
    #[error("the worker's invoice is not acceptable: {0}")]
    Bad(#[from] InvoiceError),
    #[error("the payee's invoice ends too soon: it has to be good for {0} s")]
    EndsTooSoon(u64),
    #[error("the payee's invoice lets its payee hold the money for longer than {0} blocks")]
    HeldTooLong(u16),
    #[error("the invoice does not carry the worker's signature over its payment hash")]
    Unsigned,
}

impl NoInvoice {
    /// The failure's class, as the payee sees it.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Unasked | Self::Refused | Self::Late => "no_invoice",
            Self::Bad(_) | Self::EndsTooSoon(_) | Self::HeldTooLong(_) | Self::Unsigned => {
                "bad_invoice"
            }
        }
    }
}

/// Whether it is the invoice that was asked for, and one that can be paid in time.
pub(super) fn accept(
    request: &InvoiceRequest,
    signed: &SignedInvoice,
    network: Network,
    config: &LightningConfig,
    pace: &Pace,
) -> Result<ParsedInvoice, NoInvoice> {
    let invoice = parse_invoice(&signed.bolt11, network, request.amount_msat)?;
    let (worker, payout_id) = (&request.worker, &request.payout_id);
    if !verify_invoice(worker, payout_id, &invoice.payment_hash, &signed.signature) {
        return Err(NoInvoice::Unsigned);
    }
    is_in_time(&invoice, pace.invoice_life_min, config)?;
    Ok(invoice)
}

/// Whether the invoice lives for long enough to be paid, and does not let its payee hold the money for too long.
pub(super) fn is_in_time(
    invoice: &ParsedInvoice,
    life_min: Duration,
    config: &LightningConfig,
) -> Result<(), NoInvoice> {
    let life_min = life_min.as_secs();
    if invoice.expires_at_unix < unix_now() + life_min {
        return Err(NoInvoice::EndsTooSoon(life_min));
    }
    if invoice.min_final_cltv > u64::from(config.cltv_max) {
        return Err(NoInvoice::HeldTooLong(config.cltv_max));
    }
    Ok(())
}
