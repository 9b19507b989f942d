//! What a test chooses of a scenario.

use crate::bitcoin_core::CoreParts;
use crate::lightning_node::RealParts;
use crate::served_model::ServedModel;

/// What differs from one scenario to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// The compact target of the embedded chain's blocks.
    pub bits: &'static str,
    /// Start the inference worker.
    pub worker: bool,
    /// Give the worker a node, so that it declares its jobs; without one the pool builds them.
    pub node: bool,
    /// Let the worker serve firmware, and leave the searching to it.
    pub firmware: bool,
    /// Start the plain hasher.
    pub hasher: bool,
    /// How many shares vardiff aims at, per channel and minute.
    pub shares_per_minute: u32,
    /// The least hash rate that vardiff assumes, in h/s.
    pub min_hashrate: u32,
    /// What the worker says it hashes when it connects, in h/s.
    pub nominal_hash_rate: u32,
    /// What the worker serves.
    pub model: ServedModel,
    /// Let the worker have no model file and fetch the model from the pool.
    pub fetch: bool,
    /// Start a validator as a process of its own, and have the pool replay there.
    pub validator: bool,
    /// For how many seconds credit for inference is held at least; 0: it matures at once.
    pub maturity_s: u32,
    /// Have miners declare their jobs at the pool itself instead of at `dovetail-jd`.
    pub embedded_declarator: bool,
    /// Where pool, declarator and worker take templates from, in place of the scenario's own chain: a whole
    /// `[templates]` section.
    pub templates: Option<String>,
    /// Bitcoin Core instead of the embedded chain.
    pub core: Option<CoreParts>,
    /// The seeds of tiny models that the pool serves besides.
    pub more_models: &'static [u64],
    /// How long a task may take from its creation to its settlement, in seconds.
    pub task_lifetime_s: u32,
    /// Further keys of the pool's configuration, as its environment says them: `MINING__CONNECTIONS_MAX`.
    pub pool_settings: &'static [(&'static str, &'static str)],
    /// What blocks pay to.
    pub payout_address: &'static str,
    /// Pay miners on the chain, with Bitcoin Core: the keys of `[onchain]` besides its wallet and those of the node's RPC.
    pub onchain: Option<&'static str>,
    /// What 2^20 expected hashes earn, in msat.
    pub hash_msat_per_mebihash: u32,
    /// At how many payments the pool's simulated wallet does what real ones have been seen to do, and the seed of which
    /// these are.
    pub wallet_faults: (usize, u64),
    /// Bitcoin Core and LDK instead of the embedded chain and the simulated network.
    pub real: Option<RealParts>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // About 16 million hashes: some seconds of one CPU thread.
            bits: "1e00ffff",
            worker: true,
            node: true,
            firmware: false,
            hasher: true,
            shares_per_minute: 60,
            min_hashrate: 100_000,
            nominal_hash_rate: 1_000_000,
            model: ServedModel::Tiny,
            fetch: false,
            validator: false,
            maturity_s: 0,
            embedded_declarator: false,
            templates: None,
            core: None,
            more_models: &[],
            task_lifetime_s: 600,
            pool_settings: &[],
            payout_address: crate::scenario::PAYOUT_ADDRESS,
            onchain: None,
            hash_msat_per_mebihash: 10,
            wallet_faults: (0, 0),
            real: None,
        }
    }
}
