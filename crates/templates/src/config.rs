//! Which source to take templates from, and where solved blocks go besides.

use std::path::PathBuf;

use bitcoin::Network;
use dovetail_daemon::within;
use dovetail_sv2::AuthorityPublicKey;
use serde::Deserialize;

use crate::chain::DEFAULT_BITS;

/// How many nodes a solved block may be sent to besides the source. A few nodes in different places are enough.
pub(crate) const BLOCK_SINKS_MAX: usize = 8;

/// The section `[templates]`: the source, and further nodes that get every solved block.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TemplatesConfig {
    /// Where templates come from. It gets the blocks that are solved on them.
    // Its unknown keys are refused by the kind.
    #[serde(flatten)]
    pub source: SourceConfig,
    /// `[[templates.block_sinks]]`: where solved blocks go besides.
    #[serde(default)]
    pub block_sinks: Vec<SinkConfig>,
}

impl TemplatesConfig {
    /// Rules that the types alone do not carry.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        self.source.check()?;
        within(
            "the number of templates.block_sinks",
            self.block_sinks.len(),
            0..=BLOCK_SINKS_MAX,
        )
    }
}

impl From<SourceConfig> for TemplatesConfig {
    fn from(source: SourceConfig) -> Self {
        Self {
            source,
            block_sinks: Vec::new(),
        }
    }
}

/// A node that gets solved blocks, whoever the template came from (`kind = "..."`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SinkConfig {
    /// A Bitcoin Core 31 that serves IPC on a Unix socket: it takes whole blocks. Core 30 has no call for them.
    BitcoinCore {
        /// The node's socket.
        socket: PathBuf,
    },
    /// A node's JSON-RPC port: any version of Bitcoin Core, on this machine or another. It takes whole blocks.
    BitcoinRpc {
        /// Host and port. The connection is plain HTTP.
        address: String,
        /// A file that holds `user:password`: the node's own `.cookie`, or one of yours. It is read anew for each block.
        cookie_file: PathBuf,
    },
    /// An Sv2 Template Provider over Noise. Its protocol has no message for whole blocks: it gets a block as the solution
    /// of a template of its own with the same transactions, if it has one.
    TemplateProvider {
        /// Host and port.
        address: String,
        /// Its authority key; without one the provider is not authenticated.
        #[serde(default)]
        authority_public_key: Option<AuthorityPublicKey>,
    },
}

/// A template source, as a configuration names it (`kind = "..."`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SourceConfig {
    /// A chain of its own inside the process, for first runs and tests: `kind = "embedded"`.
    Embedded {
        /// The compact target of every block; by default a block takes about four million hashes.
        #[serde(default = "default_bits")]
        bits: u32,
        /// Regtest. Any other network is refused: the chain is nobody else's.
        #[serde(default = "regtest")]
        network: Network,
    },
    /// A `bitcoin-node` that serves IPC on a Unix socket: `kind = "bitcoin-core"`.
    BitcoinCore {
        /// The node's socket, e.g. `<datadir>/regtest/node.sock`.
        socket: PathBuf,
        /// The node's major version: 31 (default) or 30.
        #[serde(default = "core_version")]
        version: u8,
        /// A template whose fees are better by this much is worth new jobs; 1000 sat by default.
        #[serde(default = "fee_threshold_sat")]
        fee_threshold_sat: u64,
        /// The least time between such templates; 5 s by default. A new tip never waits.
        #[serde(default = "interval_min_s")]
        interval_min_s: u8,
        /// How long the last work stands while the node is away, in seconds; 120 by default. After that
        /// nobody works on it.
        #[serde(default = "stale_after_s")]
        stale_after_s: u64,
    },
    /// An Sv2 Template Provider over Noise: `kind = "template-provider"`.
    TemplateProvider {
        /// Host and port.
        address: String,
        /// Its authority key; without one the provider is not authenticated, which is for trusted
        /// networks only.
        #[serde(default)]
        authority_public_key: Option<AuthorityPublicKey>,
        /// How long the last work stands while the provider is away, in seconds; 120 by default. After that
        /// nobody works on it.
        #[serde(default = "stale_after_s")]
        stale_after_s: u64,
    },
}

impl SourceConfig {
    /// The embedded chain with blocks of the default difficulty.
    pub fn embedded() -> Self {
        Self::embedded_with_bits(DEFAULT_BITS)
    }

    /// The embedded chain with blocks of the compact target `bits`.
    pub fn embedded_with_bits(bits: u32) -> Self {
        Self::Embedded {
            bits,
            network: Network::Regtest,
        }
    }

    /// Bitcoin Core behind a Unix socket, with everything else at its default.
    pub fn bitcoin_core(socket: impl Into<PathBuf>) -> Self {
        Self::BitcoinCore {
            socket: socket.into(),
            version: core_version(),
            fee_threshold_sat: fee_threshold_sat(),
            interval_min_s: interval_min_s(),
            stale_after_s: stale_after_s(),
        }
    }

    /// Rules that the types alone do not carry.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Embedded { .. } => Ok(()),
            // Shorter than a reconnection would let miners go for nothing; on a day old work nobody finds a block.
            Self::BitcoinCore { stale_after_s, .. }
            | Self::TemplateProvider { stale_after_s, .. } => {
                within("templates.stale_after_s", *stale_after_s, 1..=86_400)
            }
        }
    }

    /// A template provider, with everything else at its default.
    pub fn template_provider(
        address: impl Into<String>,
        authority_public_key: Option<AuthorityPublicKey>,
    ) -> Self {
        Self::TemplateProvider {
            address: address.into(),
            authority_public_key,
            stale_after_s: stale_after_s(),
        }
    }
}

fn default_bits() -> u32 {
    DEFAULT_BITS
}

fn regtest() -> Network {
    Network::Regtest
}

fn core_version() -> u8 {
    31
}

fn fee_threshold_sat() -> u64 {
    1_000
}

fn interval_min_s() -> u8 {
    5
}

/// A node that restarts is back within a minute or two.
fn stale_after_s() -> u64 {
    120
}
