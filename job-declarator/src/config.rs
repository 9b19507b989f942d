//! The declarator's configuration: one TOML file, overridable through `DOVETAIL_JD__SECTION__KEY`;
//! and what the pool's file says of a declarator inside the pool.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use bitcoin::Network;
use dovetail_daemon::{ConfigError, Secret, within};
use dovetail_ledger::Ledger;
use dovetail_sv2::AuthorityKeys;
use dovetail_templates::{Payout, PayoutKeys, TemplatesConfig};
use serde::Deserialize;

use crate::token::TokenKey;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Sv2 port.
    pub declaration: DeclarationConfig,
    /// The ledger that the pool reads too.
    pub ledger: LedgerConfig,
    /// The node whose tip and rules declared jobs are checked by, and the nodes that take their blocks.
    pub templates: TemplatesConfig,
}

/// The Sv2 port.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclarationConfig {
    /// Where miners connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The authority's public key, base58 as other Sv2 software prints it.
    pub authority_public_key: String,
    /// The authority's secret key.
    pub authority_secret_key: Secret,
    /// How long the certificate shown in the Noise handshake is valid, in seconds.
    #[serde(default = "defaults::cert_validity_s")]
    pub cert_validity_s: u64,
    /// The network whose addresses hold. It must be the node's.
    pub network: Network,
    /// Take plain names for identities, as the pool's `mining.plain_names` says.
    #[serde(default)]
    pub plain_names: bool,
    /// What declared jobs must pay: the pool's address or descriptor, as the pool has it.
    pub payout_address: Option<String>,
    /// With a descriptor that has a range, the pool's `mining.payout_first_height`.
    pub payout_first_height: Option<u32>,
    /// In place of the address, for experts: the hex of a scriptPubKey.
    pub payout_script: Option<String>,
    /// The key that tokens are authenticated with: 64 hex digits, the same as the pool's. A file
    /// that is not there is made, with a new key.
    pub token_key: Secret,
    /// Where solved blocks wait that the node has not taken yet. Without it they do not survive a restart.
    pub blocks_dir: Option<PathBuf>,
    /// Whether miners may keep their transactions to themselves (coinbase-only mode). What such a job would
    /// pay, nobody but its miner can check.
    #[serde(default)]
    pub coinbase_only: bool,
    /// What miners may ask for.
    #[serde(default)]
    pub limits: Limits,
}

/// What the pool's file says of job declaration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// Where miners declare their jobs in the pool itself; left out where `dovetail-jd` runs.
    pub listen: Option<SocketAddr>,
    /// The key that tokens are authenticated with: 64 hex digits, the same as the declarator's. A
    /// file that is not there is made, with a new key.
    pub token_key: Secret,
    /// Whether miners may keep their transactions to themselves (coinbase-only mode). What such a job would
    /// pay, nobody but its miner can check.
    #[serde(default)]
    pub coinbase_only: bool,
    /// How far a job in coinbase-only mode may go beyond what the pool's own template pays, in
    /// satoshi: fees that nobody here can see. Beyond, its block is taken for invalid.
    #[serde(default = "defaults::coinbase_only_fees_max_sat")]
    pub coinbase_only_fees_max_sat: u64,
    /// How long a block of such a job is looked for on the chain, in seconds. If it is not seen, what the account
    /// earned on such jobs up to it is void.
    #[serde(default = "defaults::coinbase_only_seen_within_s")]
    pub coinbase_only_seen_within_s: u64,
    /// What miners may ask for.
    #[serde(default)]
    pub limits: Limits,
}

/// What miners may ask for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How many connections may be open at once.
    pub connections_max: usize,
    /// How many of these may come from one address without an accepted job. Each one that has one lets another in.
    pub connections_per_address_max: usize,
    /// The same for one network: a /24 of IPv4, a /48 of IPv6.
    pub connections_per_network_max: usize,
    /// How long a token is good for, in seconds.
    pub token_lifetime_s: u64,
    /// How many tokens one connection may take per minute; who takes more is dropped.
    pub tokens_per_minute: u32,
    /// How many tokens all connections together may take per minute; who comes too late waits.
    pub tokens_per_minute_total: u32,
    /// How many declared jobs are checked by the node at once. One miner has one of these turns.
    pub checks_max: usize,
    /// How long the node may take over one of them, in seconds.
    pub check_time_max_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            connections_per_address_max: 32,
            connections_per_network_max: 64,
            token_lifetime_s: 300,
            tokens_per_minute: 240,
            tokens_per_minute_total: 6_000,
            checks_max: 8,
            check_time_max_s: 20,
        }
    }
}

/// The ledger.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// A `postgres://` URL. It may hold a password, so it is a secret.
    pub url: Secret,
    /// How many connections the declarator holds at most.
    #[serde(default = "defaults::ledger_connections_max")]
    pub connections_max: u32,
}

mod defaults {
    pub(super) fn cert_validity_s() -> u64 {
        3600
    }
    pub(super) fn coinbase_only_fees_max_sat() -> u64 {
        // Blocks with more than this in fees exist, and whoever has one can declare it in full.
        50_000_000
    }
    pub(super) fn coinbase_only_seen_within_s() -> u64 {
        // Three blocks of the main chain.
        1_800
    }
    pub(super) fn ledger_connections_max() -> u32 {
        4
    }
}

/// A certificate's end is 32 bits of Unix seconds.
const DECADE_S: u64 = 10 * 365 * 86_400;
/// The longest life of a token: transactions of declared jobs are kept a little longer.
const TOKEN_LIFETIME_S_MAX: u64 = 3_600;

impl Limits {
    /// Rules that the types alone do not carry; `section` is where the limits stand.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self, section: &str) -> Result<(), String> {
        within(
            &format!("{section}.token_lifetime_s"),
            self.token_lifetime_s,
            1..=TOKEN_LIFETIME_S_MAX,
        )?;
        if self.tokens_per_minute == 0
            || self.tokens_per_minute_total < self.tokens_per_minute
            || self.tokens_per_minute_total > 1_000_000
        {
            return Err(format!(
                "{section}: need 0 < tokens_per_minute <= tokens_per_minute_total <= 1000000"
            ));
        }
        let key = |name: &str| format!("{section}.{name}");
        within(&key("connections_max"), self.connections_max, 1..=1 << 16)?;
        let each = self.connections_per_address_max;
        within(&key("connections_per_address_max"), each, 1..=1 << 16)?;
        let each = self.connections_per_network_max;
        within(&key("connections_per_network_max"), each, 1..=1 << 16)?;
        within(&key("checks_max"), self.checks_max, 1..=1_024)?;
        within(&key("check_time_max_s"), self.check_time_max_s, 1..=3_600)
    }
}

impl Config {
    /// Rules that the types alone do not carry.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.declaration.payout()?;
        let validity = self.declaration.cert_validity_s;
        within("declaration.cert_validity_s", validity, 60..=DECADE_S)?;
        within(
            "ledger.connections_max",
            self.ledger.connections_max,
            1..=1_000,
        )?;
        self.templates.check()?;
        self.declaration.limits.check("declaration.limits")
    }
}

impl Config {
    /// The secrets, by their keys.
    pub fn secrets(&self) -> [(&'static str, &Secret); 3] {
        let declaration = &self.declaration;
        [
            (
                "declaration.authority_secret_key",
                &declaration.authority_secret_key,
            ),
            ("declaration.token_key", &declaration.token_key),
            ("ledger.url", &self.ledger.url),
        ]
    }

    /// Opens and reads the files that it names, as `--check-config` does. Nothing is connected to, made or changed.
    ///
    /// # Errors
    /// The first that the declarator could not start with.
    pub fn check_files(&self) -> anyhow::Result<()> {
        self.declaration.authority()?;
        let token_key = self.declaration.token_key.look_at_key();
        token_key.context("declaration.token_key")?;
        let url = self.ledger.url.read().context("ledger.url")?;
        Ledger::check_url(&url).context("ledger.url")?;
        if let Some(folder) = &self.declaration.blocks_dir {
            ensure!(
                !folder.exists() || folder.is_dir(),
                "declaration.blocks_dir: {} is no folder",
                folder.display()
            );
        }
        Ok(())
    }
}

impl DeclarationConfig {
    /// The keys that miners recognise the declarator by.
    pub(crate) fn authority(&self) -> anyhow::Result<AuthorityKeys> {
        let secret = self.authority_secret_key.read();
        let secret = secret.context("declaration.authority_secret_key")?;
        AuthorityKeys::parse(&self.authority_public_key, &secret)
            .context("declaration: the authority keys")
    }

    /// What declared jobs must pay.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn payout(&self) -> Result<Payout, String> {
        Payout::parse(PayoutKeys {
            section: "declaration",
            network: self.network,
            address: self.payout_address.as_deref(),
            script: self.payout_script.as_deref(),
            first_height: self.payout_first_height,
        })
    }
}

/// The token key of a configuration; a file that is not there is made.
///
/// # Errors
/// [`ConfigError`] where the key cannot be read or made, or is not 64 hex digits.
pub fn token_key(secret: &Secret) -> Result<TokenKey, ConfigError> {
    secret.read_or_make_key().map(TokenKey::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Config {
        toml::from_str(include_str!("../../config/dovetail-jd.toml")).unwrap()
    }

    #[test]
    fn the_example_is_valid_and_shows_the_defaults() {
        let config = example();
        config.check().unwrap();
        let shown = format!("{:?}", config.declaration.limits);
        assert_eq!(shown, format!("{:?}", Limits::default()));
        assert!(!config.declaration.coinbase_only);
    }

    #[test]
    fn limits_that_cannot_be_are_named() {
        type Change = fn(&mut Limits);
        let changes: [(&str, Change); 7] = [
            ("token_lifetime_s", |limits| limits.token_lifetime_s = 3_601),
            ("tokens_per_minute", |limits| limits.tokens_per_minute = 0),
            ("tokens_per_minute_total", |limits| {
                limits.tokens_per_minute_total = 1;
            }),
            ("checks_max", |limits| limits.checks_max = 0),
            ("checks_max", |limits| limits.checks_max = usize::MAX),
            ("check_time_max_s", |limits| {
                limits.check_time_max_s = u64::MAX
            }),
            ("connections_max", |limits| {
                limits.connections_max = usize::MAX
            }),
        ];
        for (key, change) in changes {
            let mut config = example();
            change(&mut config.declaration.limits);
            let refused = config.check().unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
        let mut config = example();
        config.declaration.cert_validity_s = u64::MAX;
        let refused = config.check().unwrap_err();
        assert!(refused.contains("cert_validity_s"), "{refused}");
    }
}
