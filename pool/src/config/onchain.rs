//! The pool's money on the chain, and how miners are paid from it.

use std::path::PathBuf;

use bitcoin::Network;
use dovetail_bitcoin_rpc::Credentials;
use dovetail_daemon::{Secret, within};
use dovetail_ledger::FeesBorneBy;
use dovetail_onchain::WalletKeys;
use serde::Deserialize;

/// Payouts by transactions (`docs/onchain.md`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnchainConfig {
    /// The JSON-RPC of a Bitcoin Core, `host:port`. It needs no wallet.
    pub rpc: String,
    /// A file with `user:password`, for example the node's `.cookie` ..
    pub cookie_file: Option<PathBuf>,
    /// .. or the user and password themselves.
    pub user_password: Option<Secret>,
    /// The wallet: an output descriptor with its private keys.
    pub descriptor: Secret,
    /// How many of its scripts are looked for.
    #[serde(default = "defaults::range")]
    pub range: u32,
    /// A payee is paid once its balance reaches this ..
    #[serde(default = "defaults::threshold_msat")]
    pub threshold_msat: i64,
    /// .. and at most this much at once.
    #[serde(default = "defaults::payout_max_msat")]
    pub payout_max_msat: i64,
    /// What a payout's part of a transaction may cost at most. It is set aside with the payout.
    #[serde(default = "defaults::fee_max_msat")]
    pub fee_max_msat: i64,
    /// Who bears it: `pool` or `payee`.
    #[serde(default = "defaults::fees_borne_by")]
    pub fees_borne_by: FeesBorneBy,
    /// A batch is made once a payout has waited for this many seconds ..
    #[serde(default = "defaults::interval_s")]
    pub interval_s: u64,
    /// .. or so many wait, which is also the most that one pays.
    #[serde(default = "defaults::outputs_max")]
    pub outputs_max: u32,
    /// A payout is paid once its transaction is this deep in the chain; 1: once a block has it.
    #[serde(default = "defaults::confirmations")]
    pub confirmations: u32,
    /// In how many blocks a transaction is to be in the chain. One that is not is replaced by one with a higher fee.
    #[serde(default = "defaults::conf_target")]
    pub conf_target: u16,
    /// What a transaction pays for a virtual byte at most, in satoshi.
    #[serde(default = "defaults::fee_rate_max_sat_vb")]
    pub fee_rate_max_sat_vb: u32,
    /// How often the chain is looked at, in milliseconds.
    #[serde(default = "defaults::check_interval_ms")]
    pub check_interval_ms: u64,
}

mod defaults {
    use dovetail_ledger::FeesBorneBy;

    pub(super) fn range() -> u32 {
        1_000
    }
    pub(super) fn threshold_msat() -> i64 {
        100_000_000
    }
    pub(super) fn payout_max_msat() -> i64 {
        100_000_000_000
    }
    pub(super) fn fee_max_msat() -> i64 {
        20_000_000
    }
    pub(super) fn fees_borne_by() -> FeesBorneBy {
        FeesBorneBy::Payee
    }
    pub(super) fn interval_s() -> u64 {
        3_600
    }
    pub(super) fn outputs_max() -> u32 {
        200
    }
    pub(super) fn confirmations() -> u32 {
        6
    }
    pub(super) fn conf_target() -> u16 {
        6
    }
    pub(super) fn fee_rate_max_sat_vb() -> u32 {
        100
    }
    pub(super) fn check_interval_ms() -> u64 {
        10_000
    }
}

/// The least that is paid out: an output has to be worth more than it costs to spend it, at any rate that is usual.
const THRESHOLD_MIN_MSAT: i64 = 5_000_000;
/// All bitcoin that there can be.
const MSAT_MAX: i64 = 21_000_000 * 100_000_000 * 1_000;

impl OnchainConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.cookie_file.is_some() == self.user_password.is_some() {
            return Err("onchain needs cookie_file or user_password, and not both".to_owned());
        }
        within(
            "onchain.threshold_msat",
            self.threshold_msat,
            THRESHOLD_MIN_MSAT..=MSAT_MAX,
        )?;
        within(
            "onchain.payout_max_msat",
            self.payout_max_msat,
            self.threshold_msat..=MSAT_MAX,
        )?;
        within("onchain.fee_max_msat", self.fee_max_msat, 0..=MSAT_MAX)?;
        if self.fees_borne_by == FeesBorneBy::Payee && self.fee_max_msat > self.threshold_msat / 2 {
            return Err(
                "onchain.fee_max_msat must not be more than half of onchain.threshold_msat where payees bear it"
                    .to_owned(),
            );
        }
        within("onchain.interval_s", self.interval_s, 0..=7 * 86_400)?;
        within("onchain.outputs_max", self.outputs_max, 1..=2_000)?;
        within("onchain.confirmations", self.confirmations, 1..=100)?;
        within("onchain.conf_target", self.conf_target, 1..=1_008)?;
        within(
            "onchain.fee_rate_max_sat_vb",
            self.fee_rate_max_sat_vb,
            1..=10_000,
        )?;
        within(
            "onchain.check_interval_ms",
            self.check_interval_ms,
            50..=600_000,
        )
    }

    /// The wallet's keys.
    ///
    /// # Errors
    /// A sentence that names the key of the configuration, and does not repeat it.
    pub(crate) fn keys(&self, network: Network) -> Result<WalletKeys, String> {
        let text = self.descriptor.read();
        let text = text.map_err(|error| format!("onchain.descriptor: {error}"))?;
        WalletKeys::parse(text.trim(), network, self.range)
            .map_err(|error| format!("onchain.descriptor: {error}"))
    }

    /// What the node knows us by.
    ///
    /// # Errors
    /// A sentence that names the key of the configuration.
    pub(crate) fn credentials(&self) -> Result<Credentials, String> {
        match (&self.cookie_file, &self.user_password) {
            (Some(file), None) => Ok(Credentials::CookieFile(file.clone())),
            (None, Some(secret)) => secret
                .read()
                .map(Credentials::UserPassword)
                .map_err(|error| format!("onchain.user_password: {error}")),
            _ => Err("onchain needs cookie_file or user_password, and not both".to_owned()),
        }
    }
}
