//! The wallet's methods on a node.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use dovetail_lightning::server::Wallet;
use dovetail_lightning::{
    CreatedInvoice, CreatedOffer, Hash32, Info, InvoicePayment, OfferPayment, PaymentStatus,
    Refusal, Request,
};

use crate::backup;
use crate::node::Node;
use crate::records::Records;

/// A node as a wallet; clones are the same wallet.
pub(crate) struct Bridge<N> {
    pub(crate) shared: Arc<Shared<N>>,
}

pub(crate) struct Shared<N> {
    pub(crate) node: N,
    pub(crate) network: Network,
    /// For how long the node looks for routes.
    pub(crate) retry_for: Duration,
    records: Mutex<Records>,
    /// The attempts whose command this process waits for.
    running: Mutex<HashSet<Hash32>>,
}

impl<N> Clone for Bridge<N> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<N: Node> Bridge<N> {
    pub(crate) fn new(node: N, network: Network, records: Records, retry_for: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                node,
                network,
                retry_for,
                records: Mutex::new(records),
                running: Mutex::default(),
            }),
        }
    }

    /// Held for a file's write at most: the node is never asked under it.
    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        let records = self.shared.records.lock();
        records.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running(&self) -> MutexGuard<'_, HashSet<Hash32>> {
        let running = self.shared.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn node(&self) -> &N {
        &self.shared.node
    }

    async fn back_up(&self, folder: &Path) -> Result<serde_json::Value, Refusal> {
        let node = self.node();
        let (state, channels, of_node) =
            tokio::try_join!(node.state(), node.channels(), node.back_up())
                .map_err(|error| error.refusal())?;
        let records = self.records();
        backup::write(folder, &state.node_id, channels, &of_node, &records)
            .map_err(|error| storage(&error))
            .and_then(|backup| value(&backup))
    }
}

pub(crate) fn storage(error: &std::io::Error) -> Refusal {
    Refusal::new("storage", error.to_string())
}

fn value(result: &impl serde::Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(result).map_err(|_| Refusal::new("internal", "the answer does not encode"))
}

impl<N: Node> Wallet for Bridge<N> {
    async fn info(&self) -> Result<Info, Refusal> {
        let identity = self.node().identity().await;
        Ok(Info {
            rail: N::RAIL.to_owned(),
            node_id: identity.map_err(|error| error.refusal())?.node_id,
        })
    }

    async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, Refusal> {
        let made = self
            .node()
            .create_invoice(amount_msat, description, expiry_s);
        made.await.map_err(|error| error.refusal())
    }

    async fn create_offer(&self, description: &str) -> Result<CreatedOffer, Refusal> {
        let made = self.node().create_offer(description).await;
        made.map_err(|error| error.refusal())?
            .ok_or_else(|| Refusal::new("unsupported", "this node knows no offers: use invoices"))
    }

    async fn pay(&self, payment: InvoicePayment) -> Result<PaymentStatus, Refusal> {
        let attempt = payment.attempt;
        self.in_the_background(attempt, move |bridge| async move {
            bridge.pay_invoice(payment).await
        })
        .await
    }

    async fn pay_offer(&self, payment: OfferPayment) -> Result<PaymentStatus, Refusal> {
        let attempt = payment.attempt;
        self.in_the_background(attempt, move |bridge| async move {
            bridge.pay_an_offer(payment).await
        })
        .await
    }

    async fn payment(&self, attempt: [u8; 32]) -> Result<PaymentStatus, Refusal> {
        self.status(Hash32(attempt)).await
    }

    async fn invoice_paid(&self, payment_hash: [u8; 32]) -> Result<bool, Refusal> {
        let paid = self.node().invoice_paid(Hash32(payment_hash)).await;
        paid.map_err(|error| error.refusal())
    }

    async fn balance(&self) -> Result<u64, Refusal> {
        let can_send = self.node().can_send_msat().await;
        can_send.map_err(|error| error.refusal())
    }

    async fn operate(&self, request: Request) -> Result<serde_json::Value, Refusal> {
        let node = self.node();
        let refused = |error: crate::node::NodeError| error.refusal();
        match request {
            Request::NodeState => {
                let mut state = node.state().await.map_err(refused)?;
                (state.attempts_pending, state.attempts_in_review) = self.records().open_counts();
                value(&state)
            }
            Request::ListChannels => value(&node.channels().await.map_err(refused)?),
            Request::UsableChannels => {
                let channels = node.channels().await.map_err(refused)?;
                let usable = channels.iter().filter(|channel| channel.is_usable);
                Ok(usable.count().into())
            }
            Request::OnchainBalance => {
                let state = node.state().await.map_err(refused)?;
                Ok(state.onchain_spendable_sat.into())
            }
            // The node follows the chain by itself; that it answers is all that can be asked of it.
            Request::Sync => {
                node.identity().await.map_err(refused)?;
                Ok(true.into())
            }
            Request::Backup { folder } => self.back_up(&folder).await,
            request => node.operate(request).await.map_err(refused),
        }
    }
}
