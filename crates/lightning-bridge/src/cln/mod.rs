//! Core Lightning (25.02 or newer) as a node. Its list of payments is asked with `listpays`; it pays with `xpay`, which the node
//! refuses for a payment hash that is on its way or has arrived. The commands are those of its manual pages.

mod answers;
mod failures;
mod operator;
mod rpc;

use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Network;
use dovetail_lightning::{
    Channel, CreatedInvoice, CreatedOffer, FailureClass, Hash32, NodeState, Request,
};
use serde_json::json;

use crate::node::{Found, Identity, Node, NodeBackup, NodeError, OfferInvoice, Order, Paid, Sent};
use answers::{
    Decoded, FetchedInvoice, GetInfo, Invoice, Invoices, Offer, PaidNow, Pay, Pays, PeerChannels,
};
use rpc::Rpc;

/// How long a question may take that the node answers from its memory.
const TIME_MAX: Duration = Duration::from_secs(8);
/// How long an offer's payee may take to answer, and the node in all.
const OFFER_TIME_S: u64 = 40;
const FETCH_TIME_MAX: Duration = Duration::from_secs(OFFER_TIME_S + 5);

/// A node of Core Lightning.
pub(crate) struct CoreLightning {
    rpc: Rpc,
}

impl CoreLightning {
    /// The node that listens at this socket, `lightning-rpc` in the folder of its network.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self {
            rpc: Rpc::new(socket),
        }
    }

    async fn info(&self) -> Result<GetInfo, NodeError> {
        self.rpc.call("getinfo", json!({}), TIME_MAX).await
    }

    async fn peer_channels(&self) -> Result<PeerChannels, NodeError> {
        self.rpc.call("listpeerchannels", json!({}), TIME_MAX).await
    }
}

impl Node for CoreLightning {
    const RAIL: &'static str = "core_lightning";

    async fn identity(&self) -> Result<Identity, NodeError> {
        let info = self.info().await?;
        let network = match info.network.as_str() {
            "bitcoin" => Network::Bitcoin,
            // Invoices of testnet 4 are marked as testnet's.
            "testnet" | "testnet4" => Network::Testnet,
            "signet" => Network::Signet,
            "regtest" => Network::Regtest,
            other => return Err(NodeError::Unclear(format!("its network is {other:?}"))),
        };
        Ok(Identity {
            node_id: info.id,
            network,
        })
    }

    async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, NodeError> {
        // The node wants a name for each invoice that it had never before.
        let label = format!("dovetail-{}", hex::encode(rand::random::<[u8; 16]>()));
        let params = json!({
            "amount_msat": amount_msat,
            "label": label,
            "description": description,
            "expiry": expiry_s,
        });
        let invoice: Invoice = self.rpc.call("invoice", params, TIME_MAX).await?;
        Ok(CreatedInvoice {
            bolt11: invoice.bolt11,
            payment_hash: invoice.payment_hash,
        })
    }

    async fn create_offer(&self, description: &str) -> Result<Option<CreatedOffer>, NodeError> {
        let params = json!({ "amount": "any", "description": description });
        let offer: Offer = self.rpc.call("offer", params, TIME_MAX).await?;
        Ok(Some(CreatedOffer {
            offer: offer.bolt12,
        }))
    }

    async fn fetch_invoice(
        &self,
        offer: &str,
        amount_msat: u64,
    ) -> Result<OfferInvoice, FailureClass> {
        // Without a note to the payee: some payees refuse one together with a blinded path.
        let params = json!({ "offer": offer, "amount_msat": amount_msat, "timeout": OFFER_TIME_S });
        let fetched = self.rpc.call("fetchinvoice", params, FETCH_TIME_MAX).await;
        let FetchedInvoice { invoice } = fetched.map_err(|error| {
            tracing::info!(%error, "an offer's payee gave no invoice");
            failures::of_offer(&error)
        })?;
        let params = json!({ "string": invoice });
        let decoded = self.rpc.call("decode", params, TIME_MAX).await;
        let decoded: Decoded = decoded.map_err(|_| FailureClass::Other)?;
        match (decoded.invoice_payment_hash, decoded.invoice_amount_msat) {
            (Some(payment_hash), Some(amount_msat))
                if decoded.valid && decoded.kind == "bolt12 invoice" =>
            {
                Ok(OfferInvoice {
                    bolt12: invoice,
                    payment_hash,
                    amount_msat,
                })
            }
            _ => Err(FailureClass::Invalid),
        }
    }

    async fn send(&self, order: &Order) -> Sent {
        let params = json!({
            "invstring": order.invoice,
            "maxfee": order.max_fee_msat,
            "maxdelay": order.cltv_max,
            "retry_for": order.retry_for.as_secs(),
        });
        // The caller gives up earlier than this.
        let time_max = order.retry_for.saturating_mul(2) + FETCH_TIME_MAX;
        match self.rpc.call::<PaidNow>("xpay", params, time_max).await {
            Ok(paid) => Sent::Paid(Paid {
                fee_msat: paid.amount_sent_msat.saturating_sub(paid.amount_msat),
                preimage: paid.payment_preimage,
            }),
            Err(error) => {
                tracing::info!(%error, "the node did not pay");
                failures::of_pay(&error)
            }
        }
    }

    async fn look_up(&self, payment_hash: Hash32, amount_msat: u64) -> Result<Found, NodeError> {
        let params = json!({ "payment_hash": payment_hash });
        let list: Pays = self.rpc.call("listpays", params, TIME_MAX).await?;
        verdict(&list.pays, payment_hash, amount_msat)
    }

    async fn invoice_paid(&self, payment_hash: Hash32) -> Result<bool, NodeError> {
        let params = json!({ "payment_hash": payment_hash });
        let list: Invoices = self.rpc.call("listinvoices", params, TIME_MAX).await?;
        let mut invoices = list.invoices.iter();
        Ok(invoices.any(|it| it.payment_hash == payment_hash && it.status == "paid"))
    }

    async fn can_send_msat(&self) -> Result<u64, NodeError> {
        let list = self.peer_channels().await?;
        Ok(operator::sum(&list.channels, operator::can_send_msat))
    }

    async fn state(&self) -> Result<NodeState, NodeError> {
        self.node_state().await
    }

    async fn channels(&self) -> Result<Vec<Channel>, NodeError> {
        let list = self.peer_channels().await?;
        Ok(operator::listed(&list.channels))
    }

    async fn back_up(&self) -> Result<NodeBackup, NodeError> {
        self.static_backup().await
    }

    async fn operate(&self, request: Request) -> Result<serde_json::Value, NodeError> {
        self.operate_now(request).await
    }
}

/// What the groups of a payment hash say together. A word that is not known means that it may be on its way.
fn verdict(pays: &[Pay], payment_hash: Hash32, amount_msat: u64) -> Result<Found, NodeError> {
    if pays.iter().any(|pay| pay.payment_hash != payment_hash) {
        return Err(NodeError::Unclear(
            "listpays speaks of another payment".to_owned(),
        ));
    }
    if let Some(paid) = pays.iter().find(|pay| pay.status == "complete") {
        let preimage = paid.preimage.ok_or_else(|| {
            NodeError::Unclear("listpays has a payment without its preimage".to_owned())
        })?;
        let got = paid.amount_msat.unwrap_or(amount_msat);
        let cost = paid.amount_sent_msat.unwrap_or(got);
        return Ok(Found::Paid(Paid {
            fee_msat: cost.saturating_sub(got),
            preimage,
        }));
    }
    let mut words = pays.iter().map(|pay| pay.status.as_str());
    Ok(match words.all(|word| word == "failed") {
        true if pays.is_empty() => Found::Nothing,
        true => Found::Failed(None),
        false => Found::Pending,
    })
}

#[cfg(test)]
mod tests {
    use dovetail_lightning::Preimage;

    use super::*;

    const HASH: Hash32 = Hash32([1; 32]);

    fn pay(status: &str) -> Pay {
        Pay {
            payment_hash: HASH,
            status: status.to_owned(),
            preimage: (status == "complete").then_some(Preimage([2; 32])),
            amount_msat: Some(1_000),
            amount_sent_msat: Some(1_003),
        }
    }

    #[test]
    fn one_group_that_arrived_decides_and_an_unknown_word_may_be_on_its_way() {
        let paid = Found::Paid(Paid {
            fee_msat: 3,
            preimage: Preimage([2; 32]),
        });
        let cases = [
            (vec![], Found::Nothing),
            (vec!["failed"], Found::Failed(None)),
            (vec!["failed", "pending"], Found::Pending),
            (vec!["failed", "stuck"], Found::Pending),
            (vec!["failed", "complete", "pending"], paid),
        ];
        for (words, expected) in cases {
            let pays: Vec<Pay> = words.iter().map(|word| pay(word)).collect();
            assert_eq!(verdict(&pays, HASH, 1_000), Ok(expected), "{words:?}");
        }
    }

    #[test]
    fn a_list_of_something_else_or_without_a_proof_decides_nothing() {
        verdict(&[pay("failed")], Hash32([9; 32]), 1_000).unwrap_err();
        let mut without = pay("complete");
        without.preimage = None;
        verdict(&[without], HASH, 1_000).unwrap_err();
    }
}
