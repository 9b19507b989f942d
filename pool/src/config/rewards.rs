//! Who gets what of a block.

use std::time::Duration;

use dovetail_rewards::{PoolFee, WindowLength};
use dovetail_templates::SourceConfig;
use serde::Deserialize;

use super::{Config, within};

/// How blocks are divided (`docs/rewards.md`).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardsConfig {
    /// By what rule.
    #[serde(default)]
    pub scheme: RewardScheme,
    /// What the pool keeps of a block, in percent, with four places behind the point at most.
    #[serde(default = "fee_percent")]
    pub fee_percent: f64,
    /// How much work the window of `pplns` holds, in difficulties.
    #[serde(default = "window")]
    pub window: u16,
    /// How many days what accounts did in a slice is kept, once no block is divided over it that may still be paid.
    #[serde(default = "keep_slices_days")]
    pub keep_slices_days: u32,
    /// The same of what shows shares to auditors: headers and coinbases. 0: it is not kept, and nobody can sample shares.
    #[serde(default = "keep_shares_days")]
    pub keep_shares_days: u32,
    /// How many accounts at most a coinbase pays itself, beside the pool. 0: none.
    #[serde(default)]
    pub coinbase_payouts_max: u32,
    /// What such an output is worth at least.
    #[serde(default = "coinbase_payout_min_sat")]
    pub coinbase_payout_min_sat: u64,
    /// After how many seconds the outputs are reckoned anew.
    #[serde(default = "coinbase_payouts_renewed_s")]
    pub coinbase_payouts_renewed_s: u64,
}

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RewardScheme {
    /// None: hashes earn `credit.hash_msat_per_mebihash`, whatever blocks pay. For demonstrations and tests.
    #[default]
    Rate,
    /// Blocks are divided over the newest work.
    Pplns,
    /// Who finds a block has it.
    Solo,
}

impl Default for RewardsConfig {
    fn default() -> Self {
        Self {
            scheme: RewardScheme::default(),
            fee_percent: fee_percent(),
            window: window(),
            keep_slices_days: keep_slices_days(),
            keep_shares_days: keep_shares_days(),
            coinbase_payouts_max: 0,
            coinbase_payout_min_sat: coinbase_payout_min_sat(),
            coinbase_payouts_renewed_s: coinbase_payouts_renewed_s(),
        }
    }
}

fn fee_percent() -> f64 {
    1.0
}

fn window() -> u16 {
    WindowLength::default().get()
}

fn keep_slices_days() -> u32 {
    30
}

fn keep_shares_days() -> u32 {
    2
}

fn coinbase_payout_min_sat() -> u64 {
    1_000_000
}

fn coinbase_payouts_renewed_s() -> u64 {
    600
}

/// So many outputs fit beside the pool's own and a commitment into what templates keep free for them.
const COINBASE_PAYOUTS_MAX: u32 = 20;
/// Nodes relay no output of less, whatever its script.
const COINBASE_PAYOUT_MIN_SAT: u64 = 1_000;
/// All bitcoin.
const COINBASE_PAYOUT_MIN_SAT_MAX: u64 = 2_100_000_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);
/// Ten years.
const DAYS_MAX: u32 = 3_650;

impl RewardsConfig {
    /// How long slices are kept.
    pub(crate) fn keep_slices(&self) -> Duration {
        DAY * self.keep_slices_days
    }

    /// How long what shows shares is kept; `None` if it is not.
    pub(crate) fn keep_shares(&self) -> Option<Duration> {
        let is_kept = self.scheme == RewardScheme::Pplns && self.keep_shares_days > 0;
        is_kept.then(|| DAY * self.keep_shares_days)
    }

    /// What the pool keeps.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(crate) fn fee(&self) -> Result<PoolFee, String> {
        let refused = || {
            "rewards.fee_percent must lie from 0 to 100, with four places behind the point at most"
                .to_owned()
        };
        let millionths = self.fee_percent * 10_000.0;
        let whole = millionths.round();
        if !(0.0..=1_000_000.0).contains(&whole) || (millionths - whole).abs() > 1e-6 {
            return Err(refused());
        }
        PoolFee::from_millionths(whole as u32).map_err(|_| refused())
    }

    /// The window's length.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub(crate) fn length(&self) -> Result<WindowLength, String> {
        WindowLength::new(self.window).map_err(|error| format!("rewards.window: {error}"))
    }
}

impl Config {
    /// Blocks are divided where hashes earn nothing else, and where somebody can say which blocks the chain has.
    pub(super) fn check_rewards(&self) -> Result<(), String> {
        self.rewards.fee()?;
        self.rewards.length()?;
        let (slices, shares) = (self.rewards.keep_slices_days, self.rewards.keep_shares_days);
        within("rewards.keep_slices_days", slices, 1..=DAYS_MAX)?;
        within("rewards.keep_shares_days", shares, 0..=slices)?;
        self.check_coinbase_payouts()?;
        if self.rewards.scheme == RewardScheme::Rate {
            return Ok(());
        }
        if self.credit.hash_msat_per_mebihash.get() > 0 {
            return Err(
                "credit.hash_msat_per_mebihash must be 0 where rewards.scheme divides blocks: hashes would be paid twice"
                    .into(),
            );
        }
        if let SourceConfig::TemplateProvider { .. } = self.templates.source {
            return Err(
                "rewards.scheme needs a node that says which blocks its chain has: a template provider does not, \
                 templates.source.kind = \"bitcoin-core\" does"
                    .into(),
            );
        }
        if self.rewards.scheme == RewardScheme::Pplns && self.job_declarator.coinbase_only {
            return Err(
                "job_declarator.coinbase_only must be false with rewards.scheme = \"pplns\": nobody can check the \
                 transactions of such jobs, and their miners would share the blocks of the others"
                    .into(),
            );
        }
        Ok(())
    }

    fn check_coinbase_payouts(&self) -> Result<(), String> {
        let rewards = &self.rewards;
        let (most, least) = (
            rewards.coinbase_payouts_max,
            rewards.coinbase_payout_min_sat,
        );
        within(
            "rewards.coinbase_payouts_max",
            most,
            0..=COINBASE_PAYOUTS_MAX,
        )?;
        let amounts = COINBASE_PAYOUT_MIN_SAT..=COINBASE_PAYOUT_MIN_SAT_MAX;
        within("rewards.coinbase_payout_min_sat", least, amounts)?;
        let renewed = rewards.coinbase_payouts_renewed_s;
        within("rewards.coinbase_payouts_renewed_s", renewed, 1..=1_200)?;
        let is_node = matches!(self.templates.source, SourceConfig::BitcoinCore { .. });
        match most > 0 && (rewards.scheme != RewardScheme::Pplns || !is_node) {
            true => Err(
                "rewards.coinbase_payouts_max must be 0 but with rewards.scheme = \"pplns\" and \
                 templates.source.kind = \"bitcoin-core\": what a coinbase has paid is read from the chain"
                    .into(),
            ),
            false => Ok(()),
        }
    }
}
