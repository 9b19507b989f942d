//! The worker's configuration: one TOML file, described in `config/dovetail-worker.toml`.

mod declarator;
mod files;
mod pools;
mod solo;
mod wallet;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dovetail_miner::firmware::FirmwareOptions;
use dovetail_serving::downloads::{Downloads, PoolModels};
use dovetail_serving::fetch::{AuthorityError, Pace, PoolAddress};
use dovetail_serving::models::Models;
use dovetail_sv2::AuthorityPublicKey;
use dovetail_templates::TemplatesConfig;
use dovetail_units::KeptCredit;
use dovetail_units::header::is_hash_rate;
use serde::Deserialize;

pub use declarator::{BetweenBatches, JobDeclarator};
pub use files::FileRefused;
pub use solo::Solo;
pub use wallet::Wallet;

/// More pools than anybody lists by preference.
const POOLS_MAX: usize = 16;

/// Everything that `dovetail-worker run` reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The worker itself.
    pub worker: Worker,
    /// The pools in order of preference: one `[pool]`, or several `[[pool]]`. It may be empty where
    /// there is a `[solo]`.
    #[serde(default, deserialize_with = "pools::one_or_many")]
    pub pool: Vec<Pool>,
    /// Where this stood once; see [`ConfigRefused::DeclaratorMoved`].
    job_declarator: Option<toml::Value>,
    /// Models that the pool hands out.
    pub fetch: Option<Fetch>,
    /// Our own node: where block templates come from, for declared jobs and for solo mining. And where blocks go besides.
    pub templates: Option<TemplatesConfig>,
    /// What to hash for while no pool can be reached; without it devices stay on the last pool's job.
    pub solo: Option<Solo>,
    /// The Lightning wallet that payouts go to; without it invoices are refused.
    pub wallet: Option<Wallet>,
    /// The port for the miner's own firmware; without it none is served.
    #[serde(rename = "downstream")]
    pub firmware: Option<Firmware>,
    /// The local page; without it there is none.
    pub page: Option<Page>,
}

/// The worker itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// The key file; made with mode 0600 if it is absent.
    pub key_file: PathBuf,
    /// The model files to serve; with those that are fetched, 1 to 64.
    #[serde(default)]
    pub models: Vec<PathBuf>,
    /// Tasks taken at once; they run side by side, which costs each of them little.
    #[serde(default = "tasks_max")]
    pub max_tasks: u16,
    /// How much of the credit that a pool holds for us stays held although it could be paid out, in msat. The more a
    /// pool holds, the less it replays.
    #[serde(default)]
    pub keep_msat: KeptCredit,
    /// Threads that run models; 0: one per core. They do not change a bit of the output.
    #[serde(default)]
    pub threads: usize,
    /// How much of earlier prompts is kept for later ones that begin the same, in MiB.
    #[serde(default = "prefix_cache_mib")]
    pub prefix_cache_mib: usize,
    /// What the pool is told that we hash, in h/s; it sets the first target from it.
    #[serde(default = "nominal_hash_rate")]
    pub nominal_hash_rate: f32,
    /// How long a finished transcript waits for others while tasks are running, in ms. With
    /// nothing running, a batch is made at once.
    #[serde(default = "batch_wait_ms")]
    pub batch_wait_ms: u64,
    /// Search jobs that carry a batch on this machine's CPU, besides whatever firmware does.
    #[serde(default = "search")]
    pub search: bool,
    /// How long a preferred pool must have been there again before we go back to it, in s.
    #[serde(default = "pool_return_s")]
    pub pool_return_s: u64,
    /// How many tokens may wait for a pool's credit for longer than `uncredited_after_s` before no more tasks are
    /// taken from it; 0: any number.
    #[serde(default = "uncredited_tokens_max")]
    pub uncredited_tokens_max: u64,
    /// See there; in s.
    #[serde(default = "uncredited_after_s")]
    pub uncredited_after_s: u64,
}

/// Models that are fetched from the pool where they are not here yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    /// The address of the pool's API, such as `http://127.0.0.1:50051`, or `https://pool.example:50051` where it speaks TLS.
    pub api: String,
    /// The only authority that may vouch for an `https://` pool, as a PEM file; left out: those that this machine trusts.
    pub ca: Option<PathBuf>,
    /// The models to serve, by id or by name. An id is what it names, wherever it comes from; a name
    /// is what the pool calls a model when the worker starts.
    pub models: Vec<String>,
    /// Where they are kept, each in a file named by its id.
    pub cache_dir: PathBuf,
    /// The longest file that is fetched.
    #[serde(default = "model_bytes_max")]
    pub model_bytes_max: u64,
}

/// A pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// host:port of its mining port.
    pub address: String,
    /// The authority key that its certificate must be signed with. The worker proves its key to this pool alone.
    pub authority_public_key: AuthorityPublicKey,
    /// Where jobs on our own templates are declared. Without it the pool builds the jobs that carry our
    /// batches.
    pub job_declarator: Option<JobDeclarator>,
}

/// The Sv2 mining port for the miner's own firmware.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// Where firmware connects; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file of the authority key that signs the port's certificates; made with mode 0600 if it
    /// is absent. The public half is logged: firmware is configured with it.
    pub key_file: PathBuf,
    /// How many devices may be connected at once, 1 to 4096.
    #[serde(default = "connections_max")]
    pub connections_max: usize,
    /// How many channels one connection may open, 1 to 1024.
    #[serde(default = "channels_per_connection_max")]
    pub channels_per_connection_max: usize,
    /// What vardiff steers each channel to. Difficulty exceeds what the pool asks only where that is a flood.
    #[serde(default = "shares_per_minute")]
    pub shares_per_minute: f32,
    /// The least hash rate that is assumed of a device, in h/s.
    #[serde(default = "min_hash_rate")]
    pub min_hash_rate: f32,
    /// The least time between two jobs on one tip, in ms. A new tip waits only if another came a moment before.
    #[serde(default = "job_interval_ms")]
    pub job_interval_ms: u64,
}

/// The local page.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Where browsers connect; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// What is wrong with a configuration that parses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigRefused {
    /// No models, or more than a registration can name.
    #[error("worker.models and fetch.models together must name 1 to 64 models")]
    Models,
    /// A name that no model can have.
    #[error(
        "fetch.models names models by their ids (64 hexadecimal digits) or names (1 to 64 bytes)"
    )]
    ModelName,
    /// Nothing could be fetched.
    #[error("fetch.model_bytes_max must not be 0")]
    ModelBytes,
    /// A worker that takes no task.
    #[error("worker.max_tasks must be 1 to 64")]
    MaxTasks,
    /// More threads than any machine runs well, or a cache beyond memory.
    #[error("worker.threads must be at most 1024, worker.prefix_cache_mib at most 1048576")]
    Engine,
    /// A hash rate that is no number of hashes.
    #[error("worker.nominal_hash_rate must be a finite number, 0 or more")]
    HashRate,
    /// Nothing to hash for.
    #[error("name at least one pool, or [solo]; at most {POOLS_MAX} pools")]
    Upstreams,
    /// A pace that the declarator would not stand.
    #[error("pool.job_declarator.renew_interval_s must be 1 to 3600")]
    RenewInterval,
    /// A key that has moved.
    #[error("[job_declarator] is [pool.job_declarator] now, behind the pool that it belongs to")]
    DeclaratorMoved,
    /// Jobs of our own without a node.
    #[error("[templates] is missing: [pool.job_declarator] and [solo] need a node of your own")]
    NoTemplates,
    /// A node that nothing uses.
    #[error("[templates] is used by nothing: add [pool.job_declarator] or [solo], or leave it out")]
    TemplatesUnused,
    /// Blocks that would pay nobody.
    #[error("{0}")]
    Payout(String),
    /// Payouts of no amount.
    #[error("wallet.payout_min_msat must be 1 to wallet.payout_max_msat")]
    PayoutRange,
    /// Limits of the port for firmware.
    #[error(
        "downstream: connections_max must be 1 to 4096, channels_per_connection_max 1 to 1024, \
         shares_per_minute and min_hash_rate above 0, job_interval_ms at most 60000"
    )]
    Firmware,
}

impl Config {
    /// The models that are fetched from a pool, to be served beside these.
    ///
    /// # Errors
    /// A `fetch.ca` that is no authority's file.
    pub fn downloads(&self, models: &Models) -> Result<Option<Downloads>, AuthorityError> {
        let Some(fetch) = &self.fetch else {
            return Ok(None);
        };
        Ok(Some(Downloads::new(fetch.models()?, models.clone())))
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first value out of its bounds.
    pub fn validate(&self) -> Result<(), ConfigRefused> {
        let fetched = self.fetch.as_ref().map_or(&[][..], |fetch| &fetch.models);
        if !(1..=64).contains(&(self.worker.models.len() + fetched.len())) {
            return Err(ConfigRefused::Models);
        }
        if !fetched.iter().all(|name| (1..=64).contains(&name.len())) {
            return Err(ConfigRefused::ModelName);
        }
        if self
            .fetch
            .as_ref()
            .is_some_and(|fetch| fetch.model_bytes_max == 0)
        {
            return Err(ConfigRefused::ModelBytes);
        }
        if !(1..=64).contains(&self.worker.max_tasks) {
            return Err(ConfigRefused::MaxTasks);
        }
        if self.worker.threads > 1024 || self.worker.prefix_cache_mib > 1 << 20 {
            return Err(ConfigRefused::Engine);
        }
        if !is_hash_rate(self.worker.nominal_hash_rate) {
            return Err(ConfigRefused::HashRate);
        }
        self.validate_upstreams()?;
        if !self.wallet.as_ref().is_none_or(Wallet::is_valid) {
            return Err(ConfigRefused::PayoutRange);
        }
        match &self.firmware {
            Some(firmware) if !firmware.is_valid() => Err(ConfigRefused::Firmware),
            _ => Ok(()),
        }
    }
}

impl Config {
    fn validate_upstreams(&self) -> Result<(), ConfigRefused> {
        if self.job_declarator.is_some() {
            return Err(ConfigRefused::DeclaratorMoved);
        }
        if self.pool.len() > POOLS_MAX || (self.pool.is_empty() && self.solo.is_none()) {
            return Err(ConfigRefused::Upstreams);
        }
        let declares = self.pool.iter().any(|pool| pool.job_declarator.is_some());
        match (declares || self.solo.is_some(), &self.templates) {
            (true, None) => return Err(ConfigRefused::NoTemplates),
            (false, Some(_)) => return Err(ConfigRefused::TemplatesUnused),
            _ => {}
        }
        let mut declarators = self
            .pool
            .iter()
            .filter_map(|pool| pool.job_declarator.as_ref());
        if !declarators.all(JobDeclarator::is_valid) {
            return Err(ConfigRefused::RenewInterval);
        }
        match self.solo.as_ref().map(Solo::payout) {
            Some(Err(reason)) => Err(ConfigRefused::Payout(reason)),
            _ => Ok(()),
        }
    }
}

impl Fetch {
    /// Where they come from.
    fn address(&self) -> Result<PoolAddress, AuthorityError> {
        PoolAddress::vouched_for(&self.api, self.ca.as_deref())
    }

    fn models(&self) -> Result<PoolModels, AuthorityError> {
        let wanted = |name: &String| {
            let Ok(wanted) = name.parse();
            wanted
        };
        Ok(PoolModels {
            api: self.address()?,
            models: self.models.iter().map(wanted).collect(),
            cache_dir: self.cache_dir.clone(),
            model_bytes_max: self.model_bytes_max,
            pace: Pace::default(),
        })
    }
}

impl Firmware {
    /// What devices may do.
    pub fn options(&self) -> FirmwareOptions {
        FirmwareOptions {
            connections_max: self.connections_max,
            channels_per_connection_max: self.channels_per_connection_max,
            shares_per_minute: self.shares_per_minute,
            min_hash_rate: self.min_hash_rate,
            job_interval: Duration::from_millis(self.job_interval_ms),
        }
    }

    fn is_valid(&self) -> bool {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        (1..=4_096).contains(&self.connections_max)
            && (1..=1_024).contains(&self.channels_per_connection_max)
            && positive(self.shares_per_minute)
            && positive(self.min_hash_rate)
            && self.job_interval_ms <= 60_000
    }
}

fn tasks_max() -> u16 {
    8
}

fn prefix_cache_mib() -> usize {
    256
}

fn model_bytes_max() -> u64 {
    // Room for 8 billion parameters and their tables.
    10 << 30
}

fn nominal_hash_rate() -> f32 {
    // One thread of a plain SHA-256 loop.
    1_000_000.0
}

fn batch_wait_ms() -> u64 {
    5_000
}

fn search() -> bool {
    true
}

fn pool_return_s() -> u64 {
    // A pool that restarts twice in a row should not move everybody twice.
    60
}

fn uncredited_tokens_max() -> u64 {
    // Some hours of a small model's work.
    1_000_000
}

fn uncredited_after_s() -> u64 {
    // A batch waits for its share and its audit, and no longer.
    1_800
}

fn connections_max() -> usize {
    256
}

fn channels_per_connection_max() -> usize {
    64
}

fn shares_per_minute() -> f32 {
    12.0
}

fn min_hash_rate() -> f32 {
    // A slow CPU; steering finds an ASIC's rate within minutes.
    100_000.0
}

fn job_interval_ms() -> u64 {
    1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_valid() {
        let example = include_str!("../../../config/dovetail-worker.toml");
        let config: Config = toml::from_str(example).unwrap();
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        let example = include_str!("../../../config/dovetail-worker.toml");
        let mut config: Config = toml::from_str(example).unwrap();
        config.worker.max_tasks = 0;
        assert_eq!(config.validate(), Err(ConfigRefused::MaxTasks));
        config.worker.max_tasks = 1;
        let fetch = config.fetch.as_mut().unwrap();
        fetch.models = vec![String::new()];
        assert_eq!(config.validate(), Err(ConfigRefused::ModelName));
        config.fetch.as_mut().unwrap().models.clear();
        assert_eq!(config.validate(), Ok(()));
        config.worker.models.clear();
        assert_eq!(config.validate(), Err(ConfigRefused::Models));
    }

    #[test]
    fn no_more_than_one_bitcoin_is_left_with_a_pool() {
        let example = include_str!("../../../config/dovetail-worker.toml");
        let with = |msat: u64| {
            let text = example.replace("keep_msat = 0\n", &format!("keep_msat = {msat}\n"));
            toml::from_str::<Config>(&text)
        };
        let kept = with(5_000_000).unwrap().worker.keep_msat;
        assert_eq!(kept, KeptCredit::new(5_000_000).unwrap());
        let refused = with(KeptCredit::MAX + 1).unwrap_err().to_string();
        assert!(refused.contains("100000000000"), "{refused}");
    }

    fn example() -> Config {
        toml::from_str(include_str!("../../../config/dovetail-worker.toml")).unwrap()
    }

    #[test]
    fn templates_are_there_exactly_where_something_uses_them() {
        let mut config = example();
        config.templates = None;
        assert_eq!(config.validate(), Err(ConfigRefused::NoTemplates));
        config.pool[0].job_declarator = None;
        config.solo = None;
        assert_eq!(config.validate(), Ok(()));
        config.templates = example().templates;
        assert_eq!(config.validate(), Err(ConfigRefused::TemplatesUnused));
    }

    #[test]
    fn a_worker_needs_a_pool_or_solo_mining() {
        let mut config = example();
        config.pool.clear();
        config.solo = None;
        assert_eq!(config.validate(), Err(ConfigRefused::Upstreams));
    }

    #[test]
    fn a_worker_may_have_no_file_and_fetch_all_its_models() {
        let example = include_str!("../../../config/dovetail-worker.toml");
        let mut config: Config = toml::from_str(example).unwrap();
        config.worker.models.clear();
        config.fetch.as_mut().unwrap().models = vec!["clerk".to_owned()];
        assert_eq!(config.validate(), Ok(()));
    }
}
