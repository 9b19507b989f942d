//! Who gets what of a block.

use dovetail_rewards::{PoolFee, WindowLength};
use dovetail_templates::SourceConfig;
use serde::Deserialize;

use super::Config;

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
        }
    }
}

fn fee_percent() -> f64 {
    1.0
}

fn window() -> u16 {
    WindowLength::default().get()
}

impl RewardsConfig {
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
}
