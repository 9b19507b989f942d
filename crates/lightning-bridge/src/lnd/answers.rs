//! What is read of LND's answers. Its JSON has 64-bit numbers as text, bytes as Base64 in some fields and as hex in others, and
//! leaves no field out. Words are text, so that an unknown one is no error but decides nothing.

use std::fmt;

use dovetail_lightning::Hash32;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// A number of 64 bits that is not below zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, as text or as it is")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(E::custom)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct GetInfo {
    pub(super) identity_pubkey: String,
    #[serde(default)]
    pub(super) block_height: u32,
    #[serde(default)]
    pub(super) synced_to_chain: bool,
    #[serde(default)]
    pub(super) chains: Vec<Chain>,
    #[serde(default)]
    pub(super) uris: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Chain {
    pub(super) network: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct AddedInvoice {
    /// Base64.
    pub(super) r_hash: String,
    pub(super) payment_request: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Invoice {
    #[serde(default)]
    pub(super) state: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Payment {
    pub(super) payment_hash: Hash32,
    pub(super) status: String,
    /// Hex; empty or zeros before the end.
    #[serde(default)]
    pub(super) payment_preimage: String,
    #[serde(default)]
    pub(super) fee_msat: Number,
    #[serde(default)]
    pub(super) failure_reason: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Channels {
    #[serde(default)]
    pub(super) channels: Vec<OpenChannel>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OpenChannel {
    #[serde(default)]
    pub(super) active: bool,
    pub(super) remote_pubkey: String,
    pub(super) channel_point: String,
    #[serde(default)]
    pub(super) capacity: Number,
    #[serde(default)]
    pub(super) local_balance: Number,
    #[serde(default)]
    pub(super) remote_balance: Number,
    #[serde(default)]
    pub(super) initiator: bool,
    #[serde(default)]
    pub(super) local_constraints: Constraints,
    #[serde(default)]
    pub(super) remote_constraints: Constraints,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Constraints {
    #[serde(default)]
    pub(super) chan_reserve_sat: Number,
}

#[derive(Debug, Deserialize)]
pub(super) struct FeeReport {
    #[serde(default)]
    pub(super) channel_fees: Vec<ChannelFee>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ChannelFee {
    pub(super) channel_point: String,
    #[serde(default)]
    pub(super) base_fee_msat: Number,
    #[serde(default)]
    pub(super) fee_per_mil: Number,
}

#[derive(Debug, Deserialize)]
pub(super) struct WalletBalance {
    #[serde(default)]
    pub(super) total_balance: Number,
    #[serde(default)]
    pub(super) confirmed_balance: Number,
    #[serde(default)]
    pub(super) reserved_balance_anchor_chan: Number,
}

#[derive(Debug, Deserialize)]
pub(super) struct PendingChannels {
    #[serde(default)]
    pub(super) total_limbo_balance: Number,
}

#[derive(Debug, Deserialize)]
pub(super) struct NewAddress {
    pub(super) address: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ChannelBackups {
    pub(super) multi_chan_backup: MultiBackup,
}

#[derive(Debug, Deserialize)]
pub(super) struct MultiBackup {
    /// Base64.
    pub(super) multi_chan_backup: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct PolicyUpdate {
    #[serde(default)]
    pub(super) failed_updates: Vec<serde_json::Value>,
}
