//! The declarator's configuration: one TOML file, overridable through `DOVETAIL_JD__SECTION__KEY`.

use std::net::SocketAddr;

use bitcoin::ScriptBuf;
use dovetail_daemon::Secret;
use dovetail_templates::SourceConfig;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The Sv2 port.
    pub declaration: DeclarationConfig,
    /// The ledger that the pool reads too.
    pub ledger: LedgerConfig,
    /// Where solved blocks are submitted. Without it a declared block is propagated by its miner
    /// and by the pool.
    pub templates: Option<SourceConfig>,
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
    /// The script that every declared job must pay: hex of a scriptPubKey.
    pub payout_script: ScriptBuf,
    /// How many connections may be open at once.
    #[serde(default = "defaults::connections_max")]
    pub connections_max: usize,
    /// How long a token is good for, in seconds.
    #[serde(default = "defaults::token_lifetime_s")]
    pub token_lifetime_s: u64,
    /// How many tokens one connection may take per minute.
    #[serde(default = "defaults::tokens_per_minute")]
    pub tokens_per_minute: u32,
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
    pub(super) fn connections_max() -> usize {
        256
    }
    pub(super) fn token_lifetime_s() -> u64 {
        300
    }
    pub(super) fn tokens_per_minute() -> u32 {
        240
    }
    pub(super) fn ledger_connections_max() -> u32 {
        4
    }
}

impl Config {
    /// Rules that the types alone do not carry.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.declaration.payout_script.is_empty() {
            return Err("declaration.payout_script must not be empty".into());
        }
        if self.declaration.tokens_per_minute == 0 || self.declaration.token_lifetime_s == 0 {
            return Err(
                "declaration: tokens_per_minute and token_lifetime_s must be positive".into(),
            );
        }
        Ok(())
    }
}
