//! `[wallet]`: the Lightning wallet that payouts go to.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;

/// A Lightning wallet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wallet {
    /// Its Unix socket.
    pub socket: PathBuf,
    /// The least payout that an invoice is made for, in msat.
    #[serde(default = "payout_min_msat")]
    pub payout_min_msat: u64,
    /// The largest one.
    #[serde(default = "payout_max_msat")]
    pub payout_max_msat: u64,
}

impl Wallet {
    /// The payouts that an invoice is made for, in msat.
    pub fn payouts_msat(&self) -> RangeInclusive<u64> {
        self.payout_min_msat..=self.payout_max_msat
    }

    /// Whether the values are within their bounds.
    pub(super) fn is_valid(&self) -> bool {
        self.payout_min_msat > 0 && self.payout_min_msat <= self.payout_max_msat
    }
}

fn payout_min_msat() -> u64 {
    // A satoshi. Less is not worth an invoice.
    1_000
}

fn payout_max_msat() -> u64 {
    // A tenth of a bitcoin: more than a channel of a home node holds.
    10_000_000_000
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigRefused};

    #[test]
    fn a_range_of_payouts_that_has_none_is_refused() {
        let mut config: Config =
            toml::from_str(include_str!("../../../../config/dovetail-worker.toml")).unwrap();
        let wallet = config.wallet.as_mut().unwrap();
        (wallet.payout_min_msat, wallet.payout_max_msat) = (5, 4);
        assert_eq!(config.validate(), Err(ConfigRefused::PayoutRange));
        let wallet = config.wallet.as_mut().unwrap();
        (wallet.payout_min_msat, wallet.payout_max_msat) = (0, 4);
        assert_eq!(config.validate(), Err(ConfigRefused::PayoutRange));
    }
}
