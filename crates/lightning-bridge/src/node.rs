//! What a bridge asks of a node, and what a node's answers prove.

use std::future::Future;
use std::time::Duration;

use bitcoin::Network;
use dovetail_lightning::{
    Channel, CreatedInvoice, CreatedOffer, FailureClass, Hash32, NodeState, Preimage, Refusal,
    Request,
};

/// Why a node gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    /// There was no connection: the node has not heard the question.
    #[error("the node cannot be reached: {0}")]
    Away(String),
    /// It was asked, and gave no answer in time or none that can be understood.
    #[error("the node's answer: {0}")]
    Unclear(String),
    /// It answered with an error.
    #[error("the node refuses ({code}): {message}")]
    Refused {
        /// Its number for it.
        code: i64,
        /// Its words.
        message: String,
    },
}

impl NodeError {
    /// As the pool or the operator hears it.
    pub(crate) fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Away(_) => "node-away",
            Self::Unclear(_) => "node-unclear",
            Self::Refused { .. } => "node",
        };
        Refusal::new(code, self.to_string())
    }
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: String,
    pub(crate) network: Network,
}

/// What a node is told to pay.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The invoice, of BOLT 11 or BOLT 12.
    pub(crate) invoice: String,
    pub(crate) payment_hash: Hash32,
    pub(crate) max_fee_msat: u64,
    pub(crate) cltv_max: u32,
    /// For how long it looks for routes.
    pub(crate) retry_for: Duration,
}

/// A payment's proof and price, as a node tells them. The proof is yet to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paid {
    pub(crate) fee_msat: u64,
    pub(crate) preimage: Preimage,
}

/// How a node's command to pay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// With the money at the payee.
    Paid(Paid),
    /// The node looks for no more routes. What it has sent may still be on its way.
    GaveUp(FailureClass),
    /// It cannot be told: the node's own list will.
    Unclear(String),
}

/// What a node's list of payments says of a payment hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has never paid it, or tried to.
    Nothing,
    /// Some of it is on its way.
    Pending,
    /// It is paid.
    Paid(Paid),
    /// It has failed; why, where the node says so.
    Failed(Option<FailureClass>),
}

/// The answer to an offer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OfferInvoice {
    pub(crate) bolt12: String,
    pub(crate) payment_hash: Hash32,
    pub(crate) amount_msat: u64,
}

/// What a node gives to be restored from: the file's name and its bytes.
pub(crate) struct NodeBackup {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// What it is good for, and what not.
    pub(crate) note: &'static str,
}

/// A node. It keeps payments by payment hash, and never has two of one hash on their way.
pub(crate) trait Node: Send + Sync + 'static {
    /// What it is called on the wire.
    const RAIL: &'static str;

    /// Who it is.
    fn identity(&self) -> impl Future<Output = Result<Identity, NodeError>> + Send;

    /// Makes an invoice.
    fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> impl Future<Output = Result<CreatedInvoice, NodeError>> + Send;

    /// Makes an offer; `None` if it knows none.
    fn create_offer(
        &self,
        description: &str,
    ) -> impl Future<Output = Result<Option<CreatedOffer>, NodeError>> + Send;

    /// Asks an offer's payee for an invoice. Nothing is sent.
    fn fetch_invoice(
        &self,
        offer: &str,
        amount_msat: u64,
    ) -> impl Future<Output = Result<OfferInvoice, FailureClass>> + Send;

    /// Pays; returns when the node's command ends, in `retry_for` and a little.
    fn send(&self, order: &Order) -> impl Future<Output = Sent> + Send;

    /// What became of a payment of this hash. `amount_msat` is what its payee is to have.
    fn look_up(
        &self,
        payment_hash: Hash32,
        amount_msat: u64,
    ) -> impl Future<Output = Result<Found, NodeError>> + Send;

    /// Whether an invoice of its own is paid.
    fn invoice_paid(
        &self,
        payment_hash: Hash32,
    ) -> impl Future<Output = Result<bool, NodeError>> + Send;

    /// What its usable channels can send now, in msat.
    fn can_send_msat(&self) -> impl Future<Output = Result<u64, NodeError>> + Send;

    /// How it stands, but for attempts: those are the bridge's.
    fn state(&self) -> impl Future<Output = Result<NodeState, NodeError>> + Send;

    /// Its channels.
    fn channels(&self) -> impl Future<Output = Result<Vec<Channel>, NodeError>> + Send;

    /// Its own backup.
    fn back_up(&self) -> impl Future<Output = Result<NodeBackup, NodeError>> + Send;

    /// What else its operator asks for: an address, channels, fees.
    fn operate(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<serde_json::Value, NodeError>> + Send;
}
