//! What goes over the socket: one request per line, one answer per line, both JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest line. Invoices have a few hundred bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// 32 bytes, as hex on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hash32(#[serde(with = "hex::serde")] pub [u8; 32]);

/// A payment's preimage: proof of payment. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preimage(#[serde(with = "hex::serde")] pub [u8; 32]);

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(..)")
    }
}

/// What a wallet is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Request {
    /// Who answers.
    GetInfo,
    /// Make an invoice.
    CreateInvoice {
        /// Its amount.
        amount_msat: u64,
        /// What it is for; the payer sees it.
        description: String,
        /// How long it is good for.
        expiry_s: u32,
    },
    /// Pay an invoice, unless its hash was ever paid or tried before.
    Pay {
        /// The invoice's.
        payment_hash: Hash32,
        /// The invoice.
        bolt11: String,
        /// What the route may cost.
        max_fee_msat: u64,
    },
    /// How an outgoing payment stands.
    Payment {
        /// Its hash.
        payment_hash: Hash32,
    },
    /// Whether an invoice of ours was paid.
    InvoicePaid {
        /// Its hash.
        payment_hash: Hash32,
    },
    /// What can be spent, in msat.
    Balance,
    /// An on-chain address to fund the wallet with. For its operator.
    NewAddress,
    /// Look at the chain now. For its operator.
    Sync,
    /// What can be spent on-chain, in satoshi. For its operator.
    OnchainBalance,
    /// Open a channel. For its operator.
    OpenChannel {
        /// The other node's public key.
        node_id: String,
        /// Where it listens, host:port.
        address: String,
        /// What the channel holds.
        amount_sat: u64,
        /// How much of it the other side gets.
        push_msat: u64,
    },
    /// How many channels can be used now. For its operator.
    UsableChannels,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `ldk`, or `simulated`.
    pub rail: String,
    /// The node's public key.
    pub node_id: String,
}

/// An invoice that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedInvoice {
    /// The invoice.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: Hash32,
}

/// How an outgoing payment stands. Only a proven failure is `Failed`: a time-out, a broken
/// connection or a forgetful node is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The wallet has never been asked to pay this hash.
    Unknown,
    /// On its way.
    Pending,
    /// The receiver has the money.
    Succeeded {
        /// What the route cost.
        fee_msat: u64,
        /// The proof.
        preimage: Preimage,
    },
    /// It can never succeed.
    Failed,
}

impl PaymentStatus {
    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed)
    }
}

/// A wallet's refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// An answer: the method's result, or a refusal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The method's result.
    Result(serde_json::Value),
    /// Why there is none.
    Error(Refusal),
}
