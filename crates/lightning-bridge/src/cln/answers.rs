//! What is read of Core Lightning's answers. Fields that are not needed are not named, so that newer nodes may add theirs; words
//! are text, so that an unknown one is no error but decides nothing.

use dovetail_lightning::{Hash32, Preimage};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(super) struct GetInfo {
    pub(super) id: String,
    pub(super) network: String,
    #[serde(default)]
    pub(super) blockheight: u32,
    #[serde(default)]
    pub(super) address: Vec<Address>,
    pub(super) warning_bitcoind_sync: Option<String>,
    pub(super) warning_lightningd_sync: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Address {
    pub(super) address: Option<String>,
    pub(super) port: u16,
}

#[derive(Debug, Deserialize)]
pub(super) struct Invoice {
    pub(super) bolt11: String,
    pub(super) payment_hash: Hash32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Offer {
    pub(super) bolt12: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct FetchedInvoice {
    pub(super) invoice: String,
}

/// Of `decode`.
#[derive(Debug, Deserialize)]
pub(super) struct Decoded {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) valid: bool,
    pub(super) invoice_amount_msat: Option<u64>,
    pub(super) invoice_payment_hash: Option<Hash32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PaidNow {
    pub(super) payment_preimage: Preimage,
    pub(super) amount_msat: u64,
    pub(super) amount_sent_msat: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pays {
    pub(super) pays: Vec<Pay>,
}

/// One group of parts of a payment hash.
#[derive(Debug, Deserialize)]
pub(super) struct Pay {
    pub(super) payment_hash: Hash32,
    pub(super) status: String,
    pub(super) preimage: Option<Preimage>,
    pub(super) amount_msat: Option<u64>,
    pub(super) amount_sent_msat: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Invoices {
    pub(super) invoices: Vec<ListedInvoice>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListedInvoice {
    pub(super) payment_hash: Hash32,
    pub(super) status: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct PeerChannels {
    pub(super) channels: Vec<PeerChannel>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PeerChannel {
    pub(super) peer_id: String,
    #[serde(default)]
    pub(super) peer_connected: bool,
    pub(super) state: String,
    pub(super) channel_id: Option<String>,
    pub(super) funding_txid: Option<String>,
    pub(super) funding_outnum: Option<u32>,
    pub(super) opener: Option<String>,
    #[serde(default)]
    pub(super) total_msat: u64,
    #[serde(default)]
    pub(super) to_us_msat: u64,
    #[serde(default)]
    pub(super) spendable_msat: u64,
    #[serde(default)]
    pub(super) receivable_msat: u64,
    #[serde(default)]
    pub(super) fee_base_msat: u64,
    #[serde(default)]
    pub(super) fee_proportional_millionths: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Funds {
    #[serde(default)]
    pub(super) outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Output {
    pub(super) amount_msat: u64,
    pub(super) status: String,
    #[serde(default)]
    pub(super) reserved: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct NewAddress {
    pub(super) bech32: Option<String>,
    pub(super) p2tr: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StaticBackup {
    pub(super) scb: Vec<String>,
}
