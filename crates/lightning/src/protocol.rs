//! What goes over the socket: one request per line, one answer per line, both JSON.

use std::fmt;
use std::path::PathBuf;

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
    /// Make an offer: a destination that can be paid again and again.
    CreateOffer {
        /// What it is for; payers see it.
        description: String,
    },
    /// Pay an invoice. The same attempt again only says how it stands.
    Pay(InvoicePayment),
    /// Pay an offer. The same attempt again only says how it stands.
    PayOffer(OfferPayment),
    /// How an attempt to pay stands.
    Payment {
        /// The attempt.
        attempt: Hash32,
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
        #[serde(default)]
        push_msat: u64,
    },
    /// How many channels can be used now. For its operator.
    UsableChannels,
    /// How the node stands ([`crate::NodeState`]). For its operator.
    NodeState,
    /// Its channels ([`crate::Channel`]). For its operator.
    ListChannels,
    /// Close a channel. For its operator.
    CloseChannel {
        /// The channel's id.
        channel: String,
        /// Without the other node: costs more, and locks our part for some days. For when it does not answer.
        #[serde(default)]
        force: bool,
    },
    /// Set what others pay for payments that they send through a channel. For its operator.
    SetFees {
        /// The channel's id.
        channel: String,
        /// For each payment.
        base_msat: u32,
        /// For each million that is sent.
        parts_per_million: u32,
    },
    /// Copy what may be copied while the node runs into a new folder ([`crate::Backup`]). For its operator.
    Backup {
        /// The folder, on the node's machine. It must not be there yet.
        folder: PathBuf,
    },
}

/// One attempt to pay an invoice.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoicePayment {
    /// The attempt, as the payer names it: it has it in its ledger before the wallet hears of it.
    pub attempt: Hash32,
    /// The invoice's.
    pub payment_hash: Hash32,
    /// The invoice.
    pub bolt11: String,
    /// What the route may cost.
    pub max_fee_msat: u64,
    /// For how many blocks a node on the way may hold the money, in all.
    pub cltv_max: u16,
}

/// One attempt to pay an offer. Its invoice, and so its payment hash, comes to be on the way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferPayment {
    /// The attempt, as the payer names it.
    pub attempt: Hash32,
    /// The BOLT 12 offer.
    pub offer: String,
    /// What the payee gets.
    pub amount_msat: u64,
    /// What the route may cost.
    pub max_fee_msat: u64,
}

// Invoices and offers are not for logs.
impl fmt::Debug for InvoicePayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvoicePayment")
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for OfferPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferPayment")
            .field("attempt", &self.attempt)
            .field("amount_msat", &self.amount_msat)
            .finish_non_exhaustive()
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `ldk`, `core_lightning`, `lnd`, or `simulated`.
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

/// An offer that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedOffer {
    /// The offer.
    pub offer: String,
}

/// How an attempt to pay stands. Only a proven failure is `Failed`: a time-out, a broken connection or a forgetful node
/// is not. Even so, networks have been seen to deliver what was proven failed: `Failed` may become `Succeeded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The wallet has never heard of this attempt: nothing has left for it.
    Unknown,
    /// On its way.
    Pending,
    /// The receiver has the money.
    Succeeded {
        /// What the route cost.
        fee_msat: u64,
        /// The proof: its SHA-256 is the payment hash.
        preimage: Preimage,
        /// The hash that was paid. An offer's is known only now.
        payment_hash: Hash32,
    },
    /// Nothing was paid, and nothing is on its way.
    Failed {
        /// Why.
        reason: FailureClass,
    },
    /// The wallet cannot tell and never will: it stopped where nothing could be noted. A person has to decide.
    Review,
}

impl PaymentStatus {
    /// A failure of this class.
    pub fn failed(reason: FailureClass) -> Self {
        Self::Failed { reason }
    }

    /// Whether it has ended.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. })
    }
}

/// Why an attempt failed. The payee sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// No way leads to the payee with this amount and within these limits.
    NoRoute,
    /// The paying wallet has no room in its channels for it.
    NoLiquidity,
    /// The payee was reached and did not take it.
    RefusedByPayee,
    /// The invoice is too old.
    Expired,
    /// The invoice or offer is none that this wallet can pay.
    Invalid,
    /// There are ways, and each costs more than the limit.
    FeeOverLimit,
    /// Something else.
    Other,
}

impl FailureClass {
    /// As it is on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoLiquidity => "no_liquidity",
            Self::RefusedByPayee => "refused_by_payee",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::FeeOverLimit => "fee_over_limit",
            Self::Other => "other",
        }
    }
}

/// The code of a refusal: an earlier attempt of this payment hash has no proven failure, so this one was not noted.
pub const HASH_IN_FLIGHT: &str = "hash-in-flight";
/// The code of a refusal: the attempt's name was used for another payment.
pub const ATTEMPT_REUSED: &str = "attempt-reused";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_named_on_the_wire_as_it_is_shown() {
        let all = [
            FailureClass::NoRoute,
            FailureClass::NoLiquidity,
            FailureClass::RefusedByPayee,
            FailureClass::Expired,
            FailureClass::Invalid,
            FailureClass::FeeOverLimit,
            FailureClass::Other,
        ];
        for reason in all {
            let line = serde_json::to_string(&PaymentStatus::failed(reason)).unwrap();
            let name = reason.name();
            assert_eq!(line, format!(r#"{{"state":"failed","reason":"{name}"}}"#));
        }
    }

    #[test]
    fn a_payment_is_one_flat_object_on_the_wire_and_its_invoice_is_not_logged() {
        let request = Request::Pay(InvoicePayment {
            attempt: Hash32([1; 32]),
            payment_hash: Hash32([2; 32]),
            bolt11: "lnbcrt1secret".to_owned(),
            max_fee_msat: 5,
            cltv_max: 432,
        });
        assert!(!format!("{request:?}").contains("secret"));
        let line = serde_json::to_value(&request).unwrap();
        assert_eq!(line["method"], "pay");
        assert_eq!(line["params"]["attempt"], "01".repeat(32));
        assert_eq!(line["params"]["cltv_max"], 432);
        assert_eq!(serde_json::from_value::<Request>(line).unwrap(), request);
    }
}
