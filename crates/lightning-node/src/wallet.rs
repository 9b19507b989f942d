//! The wallet's methods on an LDK node, and its record of how payments end.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dovetail_lightning::server::Wallet;
use dovetail_lightning::{
    CreatedInvoice, CreatedOffer, Hash32, Info, InvoicePayment, OfferPayment, PaymentStatus,
    Preimage, Refusal, Request,
};
use ldk_node::lightning::events::PaymentFailureReason;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::{Event, Node, payment};
use tokio_util::sync::CancellationToken;

use crate::failures;
use crate::records::{Ending, Records};
use crate::watch::Watch;

/// How long an event waits that could not be recorded.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An LDK node as a wallet; clones are the same wallet.
#[derive(Clone)]
pub(crate) struct LdkWallet {
    pub(crate) node: Arc<Node>,
    records: Arc<Mutex<Records>>,
    /// Held while an attempt is handed to LDK: one after the other, so that at most one can stop half-way.
    pub(crate) dispatching: Arc<Mutex<()>>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) started: Instant,
}

impl LdkWallet {
    /// Of a node that has just started.
    pub(crate) fn new(node: Arc<Node>, records: Records, watch: Arc<Watch>) -> Self {
        Self {
            node,
            records: Arc::new(Mutex::new(records)),
            dispatching: Arc::default(),
            watch,
            started: Instant::now(),
        }
    }

    /// Records the events that LDK kept from before the start.
    pub(crate) fn catch_up(&self) -> io::Result<()> {
        while let Some(event) = self.node.next_event() {
            self.take(&event)?;
        }
        Ok(())
    }

    /// Records how payments end. An event is acknowledged only once it is recorded, so LDK offers
    /// it again after a crash.
    pub(crate) async fn follow_events(self, shutdown: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = self.node.next_event_async() => event,
            };
            if let Err(error) = self.take(&event) {
                tracing::error!(%error, "cannot record an event; it will be offered again");
                tokio::time::sleep(RECORD_AGAIN_AFTER).await;
            }
        }
    }

    fn take(&self, event: &Event) -> io::Result<()> {
        self.record(event)?;
        self.node.event_handled().map_err(io::Error::other)
    }

    fn record(&self, event: &Event) -> io::Result<()> {
        let (id, ending) = match event {
            Event::PaymentSuccessful {
                payment_id,
                payment_hash,
                payment_preimage: Some(preimage),
                fee_paid_msat,
            } => (
                payment_id.map_or(payment_hash.0, |id| id.0),
                Ending::Success {
                    fee_msat: fee_paid_msat.unwrap_or(0),
                    preimage: Preimage(preimage.0),
                    payment_hash: Hash32(payment_hash.0),
                },
            ),
            Event::PaymentFailed {
                payment_id: Some(id),
                reason,
                ..
            } => (id.0, self.failure(*id, *reason)),
            Event::ChannelClosed {
                channel_id, reason, ..
            } => {
                tracing::warn!(channel = %channel_id, ?reason, "a channel was closed");
                return Ok(());
            }
            _ => return Ok(()),
        };
        let attempt = self.records().end(Hash32(id), ending)?;
        match (attempt, ending) {
            (Some(attempt), Ending::Success { fee_msat, .. }) => {
                tracing::info!(attempt = %hex::encode(attempt.0), fee_msat, "payment succeeded");
            }
            (Some(attempt), Ending::Failure(reason)) => {
                tracing::info!(attempt = %hex::encode(attempt.0), reason = reason.name(), "payment failed");
            }
            (None, Ending::Success { .. }) if !self.records().is_known(&Hash32(id)) => {
                tracing::error!("LDK made a payment that no attempt explains");
            }
            // Told again, after a crash between the record and LDK's note that it was taken.
            (None, Ending::Success { .. }) => {}
            (None, Ending::Failure(_)) => {}
        }
        Ok(())
    }

    fn failure(&self, id: PaymentId, reason: Option<PaymentFailureReason>) -> Ending {
        let amount = self
            .node
            .payment(&id)
            .and_then(|payment| payment.amount_msat);
        let has_room = self.can_send_msat() >= amount.unwrap_or(0);
        Ending::Failure(failures::of_event(reason, has_room))
    }

    /// Held for a file's write at most: LDK is never called under it.
    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs to its end even if the client hangs up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let wallet = self.clone();
        tokio::task::spawn_blocking(move || work(&wallet))
            .await
            .map_err(|_| Refusal::new("internal", "the request's task did not end"))?
    }
}

pub(crate) fn storage(error: &io::Error) -> Refusal {
    Refusal::new("storage", error.to_string())
}

pub(crate) fn refused(error: ldk_node::NodeError) -> Refusal {
    Refusal::new("node", error.to_string())
}

impl Wallet for LdkWallet {
    async fn info(&self) -> Result<Info, Refusal> {
        Ok(Info {
            rail: "ldk".to_owned(),
            node_id: self.node.node_id().to_string(),
        })
    }

    async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, Refusal> {
        let description = Description::new(description.to_owned())
            .map_err(|_| Refusal::new("invalid", "the description is too long"))?;
        let invoice = self
            .node
            .bolt11_payment()
            .receive(
                amount_msat,
                &Bolt11InvoiceDescription::Direct(description),
                expiry_s,
            )
            .map_err(refused)?;
        let hash: &[u8] = invoice.payment_hash().as_ref();
        Ok(CreatedInvoice {
            payment_hash: Hash32(
                hash.try_into()
                    .map_err(|_| Refusal::new("internal", "a hash has 32 bytes"))?,
            ),
            bolt11: invoice.to_string(),
        })
    }

    async fn create_offer(&self, description: &str) -> Result<CreatedOffer, Refusal> {
        let offers = self.node.bolt12_payment();
        let offer = offers
            .receive_variable_amount(description, None)
            .map_err(refused)?;
        Ok(CreatedOffer {
            offer: offer.to_string(),
        })
    }

    async fn pay(&self, payment: InvoicePayment) -> Result<PaymentStatus, Refusal> {
        self.blocking(move |wallet| wallet.pay_invoice(&payment))
            .await
    }

    async fn pay_offer(&self, payment: OfferPayment) -> Result<PaymentStatus, Refusal> {
        self.blocking(move |wallet| wallet.pay_offer_now(&payment))
            .await
    }

    async fn payment(&self, attempt: [u8; 32]) -> Result<PaymentStatus, Refusal> {
        self.blocking(move |wallet| Ok(wallet.records().status(&Hash32(attempt))))
            .await
    }

    async fn invoice_paid(&self, payment_hash: [u8; 32]) -> Result<bool, Refusal> {
        let details = self.node.payment(&PaymentId(payment_hash));
        Ok(details.is_some_and(|details| {
            details.direction == payment::PaymentDirection::Inbound
                && details.status == payment::PaymentStatus::Succeeded
        }))
    }

    async fn balance(&self) -> Result<u64, Refusal> {
        let channels = self.node.list_channels();
        Ok(channels
            .iter()
            .map(|channel| channel.outbound_capacity_msat)
            .sum())
    }

    async fn operate(&self, request: Request) -> Result<serde_json::Value, Refusal> {
        self.blocking(move |wallet| wallet.operate_now(request))
            .await
    }
}
