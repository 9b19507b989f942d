//! What a scenario stands on: a chain with its templates, and two Lightning wallets; simulated or
//! real.

use serde_json::{Value, json};

use crate::process::Daemon;
use crate::real::{self, BitcoinCore, LightningNode, RealParts};
use crate::scenario::{Layout, PAYOUT_SCRIPT, START_TIME_MAX, text};

/// The chain and the wallets.
pub enum Ground {
    /// The embedded chain as a template provider, and simulated wallets.
    Simulated(Box<SimulatedGround>),
    /// Bitcoin Core, and two LDK nodes with a channel.
    Real(Box<RealGround>),
}

/// The embedded chain and the simulated wallets.
pub struct SimulatedGround {
    /// The template provider.
    pub source: Daemon,
    /// Its address.
    pub templates: String,
    /// Its authority key.
    pub authority_public_key: String,
    /// Both wallets.
    pub wallets: Daemon,
}

/// The real chain and wallets.
pub struct RealGround {
    /// The chain.
    pub core: BitcoinCore,
    /// The pool's node.
    pub pool_node: LightningNode,
    /// The worker's node.
    pub worker_node: LightningNode,
}

impl Ground {
    pub(crate) fn simulated(
        layout: &Layout<'_>,
        bits: &str,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let arguments = ["--listen", "127.0.0.1:0", "--bits", bits];
        let mut source = layout.spawn("templates", "dovetail-regtest", &arguments)?;
        let ready = source.ready(START_TIME_MAX)?;
        tell("templates", &ready);
        let pool = format!("pool={}", layout.file("pool.sock").display());
        let worker = format!("worker={}", layout.file("worker.sock").display());
        let arguments = ["--socket", &pool, "--socket", &worker];
        let mut wallets = layout.spawn("wallets", "dovetail-lightning-sim", &arguments)?;
        tell("wallets", &wallets.ready(START_TIME_MAX)?);
        Ok(Self::Simulated(Box::new(SimulatedGround {
            source,
            templates: text(&ready, "tdp")?,
            authority_public_key: text(&ready, "authority_public_key")?,
            wallets,
        })))
    }

    pub(crate) fn real(
        layout: &Layout<'_>,
        parts: &RealParts,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let logs = layout.file("logs");
        let core = BitcoinCore::start(parts, &layout.file("bitcoin"), &logs)?;
        let mining_address = core.address_of(PAYOUT_SCRIPT)?;
        core.mine(1, &mining_address)?;
        tell("bitcoin", &json!({ "socket": core.socket() }));
        let node = |name: &str, trusted: &[&str]| {
            let socket = layout.file(&format!("{name}.sock"));
            LightningNode::start(name, parts, &core, layout.dir, &socket, trusted)
        };
        let pool_node = node("pool", &[])?;
        let worker_node = node("worker", &[pool_node.node_id()])?;
        real::connect(&core, &pool_node, &worker_node, &mining_address)?;
        tell("lightning", &json!({ "pool": pool_node.node_id() }));
        Ok(Self::Real(Box::new(RealGround {
            core,
            pool_node,
            worker_node,
        })))
    }

    /// The `[templates]` section of a daemon on this ground.
    pub(crate) fn templates_config(&self) -> String {
        match self {
            Self::Simulated(simulated) => format!(
                "kind = \"template-provider\"\naddress = \"{}\"\n\
                 authority_public_key = \"{}\"\n",
                simulated.templates, simulated.authority_public_key
            ),
            Self::Real(real) => format!(
                "kind = \"bitcoin-core\"\nsocket = \"{}\"\n",
                real.core.socket().display()
            ),
        }
    }

    /// The template provider's address, where there is one.
    pub fn template_provider(&self) -> Option<&str> {
        match self {
            Self::Simulated(simulated) => Some(&simulated.templates),
            Self::Real(_) => None,
        }
    }

    /// Takes the embedded chain's last block back, as a reorganisation does. The real chain is Bitcoin
    /// Core's affair.
    pub fn undo_block(&self) {
        if let Self::Simulated(simulated) = self {
            simulated.source.signal("USR1");
        }
    }

    /// Every process, the chain's first.
    pub fn daemons(&mut self) -> Vec<&mut Daemon> {
        match self {
            Self::Simulated(simulated) => vec![&mut simulated.source, &mut simulated.wallets],
            Self::Real(real) => vec![
                real.core.daemon(),
                real.pool_node.daemon(),
                real.worker_node.daemon(),
            ],
        }
    }

    /// Stops everything: the wallets before the chain that they follow.
    pub fn stop(&mut self) {
        self.daemons().into_iter().rev().for_each(Daemon::stop);
    }
}
