//! How miners are paid over Lightning.

use std::path::PathBuf;

use dovetail_ledger::FeesBorneBy;
use serde::Deserialize;

/// The wallet that pays miners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LightningConfig {
    /// The wallet's Unix socket. Without one nothing is paid out; balances grow.
    pub socket: Option<PathBuf>,
    /// A worker is paid once its balance reaches this.
    pub payout_threshold_msat: i64,
    /// What one payout moves at most.
    pub payout_max_msat: i64,
    /// What one payout may cost in routing fees at most; never more than a satoshi and half a percent of it.
    pub fee_max_msat: i64,
    /// Who bears them: `pool` or `payee`.
    pub fees_borne_by: FeesBorneBy,
    /// For how many blocks a payment may be held on its way.
    pub cltv_max: u16,
    /// How long a payee that could not be paid waits, in milliseconds; twice as long each time, up to an hour.
    pub retry_base_ms: u64,
    /// How often balances are looked at, in milliseconds.
    pub interval_ms: u64,
}

impl Default for LightningConfig {
    fn default() -> Self {
        Self {
            socket: None,
            payout_threshold_msat: 10_000,
            payout_max_msat: 100_000_000,
            fee_max_msat: 5_000,
            fees_borne_by: FeesBorneBy::Pool,
            // Three days.
            cltv_max: 432,
            retry_base_ms: 10_000,
            interval_ms: 1_000,
        }
    }
}
