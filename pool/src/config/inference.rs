//! The section of models and tasks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dovetail_commitment::PROMPT_BYTES_MAX;
use dovetail_daemon::{Secret, within};
use dovetail_units::{Msat, TokenPrices};
use serde::Deserialize;

use super::WEEK_S;

/// 21 million bitcoin.
const SUPPLY_MSAT: i64 = 2_100_000_000_000_000_000;

/// Models and tasks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferenceConfig {
    /// Model files that the pool can replay; only these are offered to agents.
    pub models: Vec<PathBuf>,
    /// What tokens cost, and earn their worker.
    pub price: TokenPrices,
    /// What tokens of a model cost instead, by its name or id.
    #[serde(default)]
    pub model_prices: BTreeMap<String, TokenPrices>,
    /// What the operator pays for tasks of agents that show no key.
    #[serde(default)]
    pub subsidy: SubsidyConfig,
    /// The key that signs receipts: 64 hex digits.
    pub receipt_key: Secret,
    /// The key that draws the samples of audits: 64 hex digits. A file that is not there is made. In no backup of the
    /// database: whoever has it knows each sample before the share is sent.
    pub vrf_key: Secret,
    /// The key that prompts and outputs are encrypted with in the database: 64 hex digits. A file that is not there is made;
    /// unless it is said otherwise, `content.key` in `ledger.dir`. In no backup of the database. Pools on one ledger share it.
    #[serde(default)]
    pub content_key: Option<Secret>,
    /// How long outputs are kept after a task's time is over, in seconds. Until then agents may read them again.
    #[serde(default = "defaults::outputs_kept_s")]
    pub outputs_kept_s: u64,
    /// The longest prompt, in bytes: at most, and unless it is said otherwise, that of the extension
    /// ([`PROMPT_BYTES_MAX`]).
    #[serde(default = "defaults::prompt_bytes_max")]
    pub prompt_bytes_max: usize,
    /// How many tasks may wait for a worker.
    #[serde(default = "defaults::queue_max")]
    pub queue_max: usize,
    /// How long a task may take from its creation to its settlement, in seconds.
    #[serde(default = "defaults::task_lifetime_s")]
    pub task_lifetime_s: u64,
    /// How long a worker may take for the first token of a task, in seconds, besides one second for each 256 tokens
    /// of the prompt. Then another worker gets the task.
    #[serde(default = "defaults::first_token_s")]
    pub first_token_s: u64,
    /// And how long from then on without a token.
    #[serde(default = "defaults::progress_s")]
    pub progress_s: u64,
    /// How long an agent may be away that has hung up on its task, in seconds. Then the task is stopped.
    #[serde(default = "defaults::agent_absence_s")]
    pub agent_absence_s: u64,
}

/// The operator's budget for tasks of agents that show no key. Without it none of theirs is taken that costs anything.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubsidyConfig {
    /// What the tasks of a day may cost, in millisatoshi.
    pub msat_per_day: i64,
    /// What all tasks may cost, ever.
    pub msat_in_all: i64,
    /// What the tasks of one address (a /64 of IPv6) may cost on a day (UTC); without it, whatever the budget gives.
    #[serde(default)]
    pub msat_per_address_and_day: Option<i64>,
}

mod defaults {
    pub(super) fn prompt_bytes_max() -> usize {
        dovetail_commitment::PROMPT_BYTES_MAX
    }
    pub(super) fn outputs_kept_s() -> u64 {
        6 * 3_600
    }
    pub(super) fn queue_max() -> usize {
        256
    }
    pub(super) fn task_lifetime_s() -> u64 {
        600
    }
    pub(super) fn first_token_s() -> u64 {
        30
    }
    pub(super) fn progress_s() -> u64 {
        30
    }
    pub(super) fn agent_absence_s() -> u64 {
        10
    }
}

impl InferenceConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within(
            "inference.prompt_bytes_max",
            self.prompt_bytes_max,
            1..=PROMPT_BYTES_MAX,
        )?;
        within("inference.queue_max", self.queue_max, 1..=1 << 16)?;
        within(
            "inference.task_lifetime_s",
            self.task_lifetime_s,
            1..=WEEK_S,
        )?;
        within("inference.outputs_kept_s", self.outputs_kept_s, 0..=WEEK_S)?;
        within("inference.first_token_s", self.first_token_s, 1..=3_600)?;
        within("inference.progress_s", self.progress_s, 1..=3_600)?;
        within(
            "inference.agent_absence_s",
            self.agent_absence_s,
            1..=WEEK_S,
        )?;
        self.subsidy.check()
    }
}

impl SubsidyConfig {
    fn check(self) -> Result<(), String> {
        let day = self.msat_per_day;
        within("inference.subsidy.msat_per_day", day, 0..=SUPPLY_MSAT)?;
        let all = self.msat_in_all;
        within("inference.subsidy.msat_in_all", all, 0..=SUPPLY_MSAT)?;
        let address = self.msat_per_address_and_day.unwrap_or_default();
        let key = "inference.subsidy.msat_per_address_and_day";
        within(key, address, 0..=SUPPLY_MSAT)
    }

    /// What the tasks of one address may cost on a day, if that is limited.
    pub(crate) fn per_address(self) -> Option<Msat> {
        self.msat_per_address_and_day.map(Msat::new)
    }
}
