//! The pool's configuration: one TOML file, overridable through `DOVETAIL_POOL__SECTION__KEY`.

mod destinations;
mod files;
mod hash_rate;
mod inference;
mod lightning;
mod onchain;
mod ports;
mod rewards;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use bitcoin::Network;
use dovetail_commitment::BATCH_LEAVES_MAX;
use dovetail_daemon::{Secret, within};
use dovetail_jd::config::EmbeddedConfig;
use dovetail_ledger::MaturityWindow;
use dovetail_templates::TemplatesConfig;
use serde::Deserialize;

use crate::validation::RemoteValidator;

pub use destinations::DestinationsConfig;
pub use hash_rate::HashRate;
pub use inference::{InferenceConfig, SubsidyConfig};
pub use lightning::LightningConfig;
pub use onchain::OnchainConfig;
pub use rewards::{RewardScheme, RewardsConfig};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Sv2 mining port.
    pub mining: MiningConfig,
    /// The agents' gRPC port.
    pub api: ApiConfig,
    /// Where block templates come from, and where solved blocks go.
    pub templates: TemplatesConfig,
    /// The jobs that miners assemble themselves.
    pub job_declarator: EmbeddedConfig,
    /// The Postgres ledger.
    pub ledger: LedgerConfig,
    /// The wallet that pays miners. Without this section nothing is paid out; balances grow.
    #[serde(default)]
    pub lightning: LightningConfig,
    /// What pays miners on the chain. Without this section nobody is paid so.
    pub onchain: Option<OnchainConfig>,
    /// Where payees may be paid, and how that changes.
    #[serde(default)]
    pub destinations: DestinationsConfig,
    /// Models and tasks.
    pub inference: InferenceConfig,
    /// How what workers claim is checked.
    #[serde(default)]
    pub audit: AuditConfig,
    /// What work is worth.
    pub credit: CreditConfig,
    /// Who gets what of a block.
    #[serde(default)]
    pub rewards: RewardsConfig,
}

/// The Sv2 mining port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MiningConfig {
    /// Where miners connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The authority's public key, base58 as other Sv2 software prints it.
    pub authority_public_key: String,
    /// The authority's secret key.
    pub authority_secret_key: Secret,
    /// How long the certificate shown in the Noise handshake is valid, in seconds.
    #[serde(default = "defaults::cert_validity_s")]
    pub cert_validity_s: u64,
    /// The network whose rules and addresses hold. It must be the node's.
    pub network: Network,
    /// Take plain names for identities, whose earnings nobody can be paid. For tests.
    #[serde(default)]
    pub plain_names: bool,
    /// What blocks pay: an address, or an output descriptor. One with a range (`*`) gives each block an address of its own, by
    /// its height.
    pub payout_address: Option<String>,
    /// The height whose block pays the address with the number 0 of the range; 0 if it is left out.
    pub payout_first_height: Option<u32>,
    /// In place of the address, for experts: the hex of a scriptPubKey.
    pub payout_script: Option<String>,
    /// What the pool writes into the coinbase, at most 16 bytes.
    #[serde(default = "defaults::tag")]
    pub tag: String,
    /// How many shares vardiff aims at, per channel and minute.
    #[serde(default = "defaults::shares_per_minute")]
    pub shares_per_minute: f32,
    /// How many shares of one account are taken in a second, over all its connections. Whoever sends more is read from
    /// more slowly. Enough for a farm of some thousand devices.
    #[serde(default = "defaults::shares_per_account_and_second_max")]
    pub shares_per_account_and_second_max: u32,
    /// The easiest hash rate that vardiff assumes, in h/s.
    #[serde(default = "defaults::min_hashrate")]
    pub min_hashrate: f32,
    /// How many connections may be open at once.
    #[serde(default = "defaults::connections_max")]
    pub connections_max: usize,
    /// How many of these may come from one address without a good share. Each one that has sent one lets another in,
    /// so a farm of a thousand devices behind one address is in after some rounds.
    #[serde(default = "defaults::connections_per_address_max")]
    pub connections_per_address_max: usize,
    /// The same for one network: a /24 of IPv4, a /48 of IPv6.
    #[serde(default = "defaults::connections_per_network_max")]
    pub connections_per_network_max: usize,
    /// How many places only known addresses, known accounts and workers that have earned before may keep; by default an
    /// eighth.
    pub connections_reserved: Option<usize>,
    /// A connection without a good share is closed after this many seconds. A device that overstated its hash rate a
    /// thousandfold has come down to its target by then.
    #[serde(default = "defaults::first_share_s")]
    pub first_share_s: u64,
    /// And one whose last good share is this many seconds ago, or as many as it has been at work if that is less (and more
    /// than `first_share_s`). Registered workers that have earned before are not.
    #[serde(default = "defaults::silence_s")]
    pub silence_s: u64,
    /// How many channels one connection may open ..
    #[serde(default = "defaults::channels_per_connection_max")]
    pub channels_per_connection_max: usize,
    /// .. and how many before the first good share. Each channel with one lets two more in.
    #[serde(default = "defaults::channels_unproven_max")]
    pub channels_unproven_max: usize,
}

/// The gRPC port of agents, and of workers that fetch models.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where agents connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The port's certificate and those that signed it, its own first: a PEM file. With it the port speaks TLS and nothing else.
    pub tls_certificate: Option<PathBuf>,
    /// The private key of that certificate, as PEM. Both are read again when they change.
    pub tls_key: Option<Secret>,
    /// How many connections may be open at once.
    #[serde(default = "defaults::api_connections_max")]
    pub connections_max: usize,
    /// How many of these may come from one address. A proxy in front is one address too.
    #[serde(default = "defaults::api_connections_per_address_max")]
    pub connections_per_address_max: usize,
    /// How many requests one connection may have under way.
    #[serde(default = "defaults::requests_per_connection_max")]
    pub requests_per_connection_max: usize,
    /// How many requests of the HTTP API one address may make in a minute; this machine may make any number.
    #[serde(default = "defaults::requests_per_address_and_minute_max")]
    pub requests_per_address_and_minute_max: NonZeroU32,
    /// How many model files workers may fetch at once; 0: none is handed out.
    #[serde(default = "defaults::downloads_max")]
    pub downloads_max: usize,
}

/// The Postgres ledger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// A `postgres://` URL. It may hold a password, so it is a secret.
    pub url: Secret,
    /// How many connections the pool holds at most.
    #[serde(default = "defaults::ledger_connections_max")]
    pub connections_max: u32,
    /// Where the pool keeps its log of shares, and solved blocks until they are judged.
    pub dir: PathBuf,
    /// How large the log may become while Postgres is away.
    #[serde(default = "defaults::log_bytes_max")]
    pub log_bytes_max: u64,
    /// For how many blocks a share is kept in the ledger.
    #[serde(default = "defaults::keep_blocks")]
    pub keep_blocks: u32,
}

/// How what workers claim is checked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// How many replays this process runs at once. With `validators` it runs them only while those are
    /// away; 0: never.
    pub in_process: usize,
    /// How many threads these replays share; 0: one per core. They do not change a bit of the result.
    pub threads: usize,
    /// Validators in processes of their own: `http://` URLs of `dovetail-pool validator`. They read prompts
    /// and are believed.
    pub validators: Vec<String>,
    /// The secret that this pool shares with them: 64 hex digits. A file that is not there is made. Needed for validators
    /// anywhere but on the loopback interface.
    pub validators_secret: Option<Secret>,
    /// How many transcripts may wait for a validator. A claim that finds no room may be made again.
    pub queue_max: usize,
    /// How many transcripts of different claims are replayed together.
    pub batch_max: usize,
    /// How long a replay may take, in seconds. An audit whose replay takes longer earns nothing and costs nothing. The
    /// replay that confirms a mismatch has as long again.
    pub timeout_s: u64,
    /// How long a validator in another process may take for one replay, in seconds, before another one
    /// gets it.
    pub validator_timeout_s: u64,
    /// Credit for inference matures once it was held for this many seconds and later credit worth as much is held.
    /// Until then a mismatch forfeits it: it is the worker's stake, and the more is held, the less is replayed.
    pub maturity_s: u32,
    /// In any case after this many seconds without a mismatch: so a worker that stops is paid.
    pub maturity_max_s: u32,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            in_process: 1,
            // Half the machine is left to mining and the ledger.
            threads: std::thread::available_parallelism()
                .map_or(1, |cores| cores.get().div_ceil(2)),
            validators: Vec::new(),
            validators_secret: None,
            // 16 whole batches.
            queue_max: 1_024,
            batch_max: 64,
            timeout_s: 120,
            validator_timeout_s: 60,
            maturity_s: 600,
            // A day.
            maturity_max_s: 86_400,
        }
    }
}

/// What work is worth. Amounts are millisatoshi.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditConfig {
    /// For 2^20 expected hashes of proven work.
    pub hash_msat_per_mebihash: HashRate,
    /// How often what hashes have earned is credited.
    #[serde(default = "defaults::settle_interval_s")]
    pub settle_interval_s: u64,
}

mod defaults {
    pub(super) fn cert_validity_s() -> u64 {
        3600
    }
    pub(super) fn tag() -> String {
        "Dovetail".to_owned()
    }
    pub(super) fn shares_per_minute() -> f32 {
        6.0
    }
    pub(super) fn shares_per_account_and_second_max() -> u32 {
        500
    }
    pub(super) fn min_hashrate() -> f32 {
        1_000.0
    }
    pub(super) fn connections_max() -> usize {
        1_024
    }
    pub(super) fn connections_per_address_max() -> usize {
        64
    }
    pub(super) fn connections_per_network_max() -> usize {
        256
    }
    pub(super) fn first_share_s() -> u64 {
        600
    }
    pub(super) fn silence_s() -> u64 {
        3_600
    }
    pub(super) fn channels_per_connection_max() -> usize {
        256
    }
    pub(super) fn channels_unproven_max() -> usize {
        32
    }
    pub(super) fn api_connections_max() -> usize {
        512
    }
    pub(super) fn api_connections_per_address_max() -> usize {
        128
    }
    pub(super) fn requests_per_connection_max() -> usize {
        64
    }
    pub(super) fn requests_per_address_and_minute_max() -> std::num::NonZeroU32 {
        const { std::num::NonZeroU32::new(600).unwrap() }
    }
    pub(super) fn downloads_max() -> usize {
        4
    }
    pub(super) fn ledger_connections_max() -> u32 {
        8
    }
    pub(super) fn log_bytes_max() -> u64 {
        4 << 30
    }
    pub(super) fn keep_blocks() -> u32 {
        4_320
    }
    pub(super) fn settle_interval_s() -> u64 {
        600
    }
}

impl Config {
    /// Rules that the types alone do not carry.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.mining.tag.len() > 16 || !self.mining.tag.is_ascii() {
            return Err("mining.tag must be at most 16 ASCII characters".into());
        }
        if !(self.mining.shares_per_minute > 0.0 && self.mining.shares_per_minute <= 600.0) {
            return Err("mining.shares_per_minute must lie above 0 and at most at 600".into());
        }
        if !(self.mining.min_hashrate > 0.0 && self.mining.min_hashrate.is_finite()) {
            return Err("mining.min_hashrate must be positive".into());
        }
        self.check_sizes()?;
        self.api.check()?;
        self.check_rewards()?;
        self.templates.check()?;
        self.mining.payout()?;
        self.job_declarator.limits.check("job_declarator.limits")?;
        self.audit.check()?;
        let lightning = &self.lightning;
        if lightning.payout_threshold_msat <= 0
            || lightning.payout_max_msat < lightning.payout_threshold_msat
            || lightning.fee_max_msat < 0
        {
            return Err(
                "lightning: need 0 < payout_threshold_msat <= payout_max_msat, fee_max_msat >= 0"
                    .into(),
            );
        }
        self.onchain.as_ref().map_or(Ok(()), OnchainConfig::check)
    }
}

impl Config {
    /// What no machine has, no certificate can say, or an amount could not be reckoned with.
    fn check_sizes(&self) -> Result<(), String> {
        let Self {
            mining,
            api,
            job_declarator,
            ledger,
            lightning,
            inference,
            credit,
            ..
        } = self;
        within(
            "mining.cert_validity_s",
            mining.cert_validity_s,
            60..=DECADE_S,
        )?;
        mining.check_places()?;
        let shares = mining.shares_per_account_and_second_max;
        within(
            "mining.shares_per_account_and_second_max",
            shares,
            1..=1_000_000,
        )?;
        within("api.connections_max", api.connections_max, 1..=1 << 16)?;
        let each = api.connections_per_address_max;
        within("api.connections_per_address_max", each, 1..=1 << 16)?;
        let requests = api.requests_per_connection_max;
        within("api.requests_per_connection_max", requests, 1..=1 << 16)?;
        within("api.downloads_max", api.downloads_max, 0..=1_024)?;
        within("ledger.connections_max", ledger.connections_max, 1..=1_000)?;
        within(
            "ledger.log_bytes_max",
            ledger.log_bytes_max,
            LOG_BYTES_MIN..=1 << 42,
        )?;
        // A block matures after a hundred more; receipts of a day refer to shares.
        within("ledger.keep_blocks", ledger.keep_blocks, 288..=1 << 24)?;
        let seconds = job_declarator.coinbase_only_seen_within_s;
        within(
            "job_declarator.coinbase_only_seen_within_s",
            seconds,
            1..=WEEK_S,
        )?;
        within(
            "lightning.interval_ms",
            lightning.interval_ms,
            1..=3_600_000,
        )?;
        within(
            "lightning.retry_base_ms",
            lightning.retry_base_ms,
            1..=3_600_000,
        )?;
        within(
            "lightning.cltv_max",
            u64::from(lightning.cltv_max),
            18..=2_016,
        )?;
        within(
            "credit.settle_interval_s",
            credit.settle_interval_s,
            0..=86_400,
        )?;
        self.destinations.check()?;
        inference.check()
    }
}

/// A certificate's end is 32 bits of Unix seconds.
const DECADE_S: u64 = 10 * 365 * 86_400;
/// A worker is told the time that a task has left as 32 bits of milliseconds: seven weeks.
const WEEK_S: u64 = 7 * 86_400;
/// Some minutes of a busy pool.
const LOG_BYTES_MIN: u64 = 16 << 20;

impl AuditConfig {
    fn check(&self) -> Result<(), String> {
        if self.in_process == 0 && self.validators.is_empty() {
            return Err("audit.in_process must not be 0 without audit.validators".into());
        }
        if self.in_process == 0 && self.validators.len() == 1 {
            return Err(
                "audit.in_process must not be 0 with one of audit.validators: what it finds is confirmed by another one"
                    .into(),
            );
        }
        if self.validators_secret.is_none()
            && let Some(url) = self
                .validators
                .iter()
                .find(|url| !RemoteValidator::is_on_loopback(url))
        {
            return Err(format!(
                "audit.validators_secret is needed for {url}, which is not on the loopback interface"
            ));
        }
        let distinct: BTreeSet<_> = self.validators.iter().collect();
        if distinct.len() < self.validators.len() {
            return Err(
                "audit.validators names one twice: it is no second opinion on itself".into(),
            );
        }
        if self.in_process > 64 || self.validators.len() > 64 {
            return Err("audit: at most 64 in_process and 64 validators".into());
        }
        if self.threads > 1_024 {
            return Err("audit.threads must be at most 1024".into());
        }
        if self.queue_max < BATCH_LEAVES_MAX || self.queue_max > 1 << 20 {
            return Err("audit.queue_max must be 64 to 1048576: a whole batch must fit".into());
        }
        if !(1..=4_096).contains(&self.batch_max) {
            return Err("audit.batch_max must be 1 to 4096".into());
        }
        let seconds = 1..=3_600;
        if !seconds.contains(&self.timeout_s) || !seconds.contains(&self.validator_timeout_s) {
            return Err("audit.timeout_s and audit.validator_timeout_s must be 1 to 3600".into());
        }
        if self.maturity_max_s < self.maturity_s {
            return Err("audit.maturity_max_s must not be less than audit.maturity_s".into());
        }
        Ok(())
    }

    /// When held credit matures.
    pub(crate) fn window(&self) -> MaturityWindow {
        MaturityWindow {
            seconds: self.maturity_s,
            seconds_max: self.maturity_max_s,
        }
    }
}

#[cfg(test)]
mod tests;
