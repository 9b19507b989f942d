//! The wallet's methods on an LDK node.

use std::sync::{Arc, Mutex, PoisonError};

use dovetail_lightning::server::Wallet;
use dovetail_lightning::{CreatedInvoice, Hash32, Info, PaymentStatus, Refusal, Request};
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::{Event, Node, NodeError, payment};
use tokio_util::sync::CancellationToken;

use crate::records::{Records, succeeded};

/// An LDK node as a wallet; clones are the same wallet.
#[derive(Clone)]
pub(crate) struct LdkWallet {
    node: Arc<Node>,
    /// Held while a payment is begun, so that two requests for one hash cannot both begin it.
    records: Arc<Mutex<Records>>,
}

impl LdkWallet {
    pub(crate) fn new(node: Arc<Node>, records: Records) -> Self {
        Self {
            node,
            records: Arc::new(Mutex::new(records)),
        }
    }

    /// Records how payments end. An event is acknowledged only once it is recorded, so LDK offers
    /// it again after a crash.
    pub(crate) async fn follow_events(self, shutdown: CancellationToken) {
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = self.node.next_event_async() => event,
            };
            if let Err(error) = self.record(&event) {
                tracing::error!(%error, "cannot record an event; it will be offered again");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
            if let Err(error) = self.node.event_handled() {
                tracing::warn!(%error, "cannot acknowledge an event");
            }
        }
    }

    fn record(&self, event: &Event) -> std::io::Result<()> {
        let (hash, status) = match event {
            Event::PaymentSuccessful {
                payment_hash,
                payment_preimage: Some(preimage),
                fee_paid_msat,
                ..
            } => (
                payment_hash,
                succeeded(fee_paid_msat.unwrap_or(0), preimage.0),
            ),
            Event::PaymentFailed {
                payment_hash: Some(payment_hash),
                ..
            } => (payment_hash, PaymentStatus::Failed),
            _ => return Ok(()),
        };
        tracing::info!(payment = %hex::encode(hash.0), ?status, "payment ended");
        self.records().end(&hash.0, &status)
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_payment(
        &self,
        hash: [u8; 32],
        bolt11: &str,
        max_fee_msat: u64,
    ) -> Result<PaymentStatus, Refusal> {
        let invoice: Bolt11Invoice = bolt11
            .parse()
            .map_err(|_| Refusal::new("invalid-invoice", "it is not a BOLT 11 invoice"))?;
        if AsRef::<[u8]>::as_ref(invoice.payment_hash()) != hash {
            return Err(Refusal::new(
                "invalid-invoice",
                "the invoice has another payment hash",
            ));
        }
        let records = self.records();
        if !records.begin(&hash).map_err(|error| storage(&error))? {
            return records.get(&hash).map_err(|error| storage(&error));
        }
        let route = RouteParametersConfig {
            max_total_routing_fee_msat: Some(max_fee_msat),
            ..RouteParametersConfig::default()
        };
        match self.node.bolt11_payment().send(&invoice, Some(route)) {
            Ok(_) => Ok(PaymentStatus::Pending),
            // LDK gave up before any HTLC left, which proves the failure.
            Err(
                NodeError::PaymentSendingFailed | NodeError::NotRunning | NodeError::InvalidInvoice,
            ) => {
                records
                    .end(&hash, &PaymentStatus::Failed)
                    .map_err(|error| storage(&error))?;
                Ok(PaymentStatus::Failed)
            }
            // Anything else may have left: the event will tell.
            Err(error) => {
                tracing::warn!(%error, "a payment is uncertain");
                Ok(PaymentStatus::Pending)
            }
        }
    }

    fn operate_now(&self, request: Request) -> Result<serde_json::Value, Refusal> {
        let refused = |error: NodeError| Refusal::new("node", error.to_string());
        match request {
            Request::NewAddress => {
                let address = self.node.onchain_payment().new_address().map_err(refused)?;
                Ok(address.to_string().into())
            }
            Request::Sync => {
                self.node.sync_wallets().map_err(refused)?;
                Ok(true.into())
            }
            Request::OnchainBalance => Ok(self
                .node
                .list_balances()
                .spendable_onchain_balance_sats
                .into()),
            Request::OpenChannel {
                node_id,
                address,
                amount_sat,
                push_msat,
            } => {
                let node_id: PublicKey = node_id
                    .parse()
                    .map_err(|_| Refusal::new("invalid", "node_id is no public key"))?;
                let address: SocketAddress = address
                    .parse()
                    .map_err(|_| Refusal::new("invalid", "address is not host:port"))?;
                self.node
                    .open_channel(node_id, address, amount_sat, Some(push_msat), None)
                    .map_err(refused)?;
                Ok(true.into())
            }
            Request::UsableChannels => {
                let usable = self
                    .node
                    .list_channels()
                    .iter()
                    .filter(|c| c.is_usable)
                    .count();
                Ok(usable.into())
            }
            _ => Err(Refusal::new("unsupported", "this is no operator's request")),
        }
    }
}

fn storage(error: &std::io::Error) -> Refusal {
    Refusal::new("storage", error.to_string())
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
            .map_err(|error| Refusal::new("node", error.to_string()))?;
        let hash: &[u8] = invoice.payment_hash().as_ref();
        Ok(CreatedInvoice {
            payment_hash: Hash32(
                hash.try_into()
                    .map_err(|_| Refusal::new("internal", "a hash has 32 bytes"))?,
            ),
            bolt11: invoice.to_string(),
        })
    }

    async fn pay(
        &self,
        payment_hash: [u8; 32],
        bolt11: &str,
        max_fee_msat: u64,
    ) -> Result<PaymentStatus, Refusal> {
        let (wallet, bolt11) = (self.clone(), bolt11.to_owned());
        // Runs to its end even if the client hangs up.
        tokio::task::spawn_blocking(move || {
            wallet.begin_payment(payment_hash, &bolt11, max_fee_msat)
        })
        .await
        .map_err(|_| Refusal::new("internal", "the payment's task did not end"))?
    }

    async fn payment(&self, payment_hash: [u8; 32]) -> Result<PaymentStatus, Refusal> {
        self.records()
            .get(&payment_hash)
            .map_err(|error| storage(&error))
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
        let wallet = self.clone();
        tokio::task::spawn_blocking(move || wallet.operate_now(request))
            .await
            .map_err(|_| Refusal::new("internal", "the request's task did not end"))?
    }
}
