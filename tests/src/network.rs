//! What a scenario runs on: a Bitcoin chain with its templates, and two Lightning wallets; simulated or
//! real.

use anyhow::bail;
use serde_json::{Value, json};

use crate::bitcoin_core::{BitcoinCore, CoreParts};
use crate::lightning_node::{self, LightningNode, RealParts};
use crate::options::Options;
use crate::process::Daemon;
use crate::scenario::{AUTHORITY_SECRET, Layout, PAYOUT_ADDRESS, START_TIME_MAX, text};

/// What the worker's node has of the pool's channel at first.
const WORKER_MSAT: u64 = 1_000_000;

/// The chain and the wallets.
pub enum Network {
    /// The embedded chain as a template provider, and simulated wallets.
    Simulated(Box<SimulatedNetwork>),
    /// Bitcoin Core, and simulated wallets.
    Core(Box<CoreNetwork>),
    /// Bitcoin Core, and two LDK nodes with a channel.
    Real(Box<RealNetwork>),
}

/// The real chain and the simulated wallets.
pub struct CoreNetwork {
    /// The chain.
    pub core: BitcoinCore,
    /// Both wallets.
    pub wallets: Daemon,
}

/// The embedded chain and the simulated wallets.
pub struct SimulatedNetwork {
    /// The template provider.
    pub source: Daemon,
    /// The compact target of its blocks.
    pub(crate) bits: String,
    /// Its address.
    pub templates: String,
    /// Its authority key.
    pub authority_public_key: String,
    /// Both wallets.
    pub wallets: Daemon,
}

/// The real chain and wallets.
pub struct RealNetwork {
    /// The chain.
    pub core: BitcoinCore,
    /// The pool's node.
    pub pool_node: LightningNode,
    /// The worker's node.
    pub worker_node: LightningNode,
}

impl Network {
    pub(crate) fn simulated(
        layout: &Layout<'_>,
        options: &Options,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let bits = options.bits;
        let (source, ready) = template_provider(layout, "templates", "127.0.0.1:0", bits)?;
        tell("templates", &ready);
        let wallets = wallets(layout, options, tell)?;
        Ok(Self::Simulated(Box::new(SimulatedNetwork {
            source,
            bits: bits.to_owned(),
            templates: text(&ready, "tdp")?,
            authority_public_key: text(&ready, "authority_public_key")?,
            wallets,
        })))
    }

    pub(crate) fn core(
        layout: &Layout<'_>,
        parts: &CoreParts,
        options: &Options,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let core = BitcoinCore::start(parts, &layout.file("bitcoin"), &layout.file("logs"))?;
        core.mine(1, PAYOUT_ADDRESS)?;
        tell("bitcoin", &json!({ "socket": core.socket() }));
        let wallets = wallets(layout, options, tell)?;
        Ok(Self::Core(Box::new(CoreNetwork { core, wallets })))
    }

    pub(crate) fn real(
        layout: &Layout<'_>,
        parts: &RealParts,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let logs = layout.file("logs");
        let core = BitcoinCore::start(&parts.core, &layout.file("bitcoin"), &logs)?;
        core.mine(1, PAYOUT_ADDRESS)?;
        tell("bitcoin", &json!({ "socket": core.socket() }));
        let node = |name: &str, trusted: &[&str]| {
            let socket = layout.file(&format!("{name}.sock"));
            LightningNode::start(name, parts, &core, layout.dir, &socket, trusted)
        };
        let pool_node = node("pool", &[])?;
        let worker_node = node("worker", &[pool_node.node_id()])?;
        lightning_node::connect(&core, &pool_node, &worker_node, PAYOUT_ADDRESS, WORKER_MSAT)?;
        tell("lightning", &json!({ "pool": pool_node.node_id() }));
        Ok(Self::Real(Box::new(RealNetwork {
            core,
            pool_node,
            worker_node,
        })))
    }

    /// The `[templates]` section of a daemon on this network.
    pub(crate) fn templates_config(&self) -> String {
        match self {
            Self::Simulated(simulated) => format!(
                "kind = \"template-provider\"\naddress = \"{}\"\n\
                 authority_public_key = \"{}\"\n",
                simulated.templates, simulated.authority_public_key
            ),
            Self::Core(network) => network.core.templates_config(),
            Self::Real(real) => real.core.templates_config(),
        }
    }

    /// The template provider's address, where there is one.
    pub fn template_provider(&self) -> Option<&str> {
        match self {
            Self::Simulated(simulated) => Some(&simulated.templates),
            Self::Core(_) | Self::Real(_) => None,
        }
    }

    /// The `[onchain]` section of a pool, if it is to have one.
    pub(crate) fn onchain_config(&self, options: &Options) -> String {
        match (options.onchain, self.bitcoin_core()) {
            (Some(keys), Some(core)) => core.onchain_config(keys),
            _ => String::new(),
        }
    }

    /// Bitcoin Core, where there is one.
    pub fn bitcoin_core(&self) -> Option<&BitcoinCore> {
        match self {
            Self::Simulated(_) => None,
            Self::Core(network) => Some(&network.core),
            Self::Real(real) => Some(&real.core),
        }
    }

    /// Takes the embedded chain's last block back, as a reorganisation does. The real chain is Bitcoin
    /// Core's affair.
    pub fn undo_block(&self) {
        if let Self::Simulated(simulated) = self {
            simulated.source.signal("USR1");
        }
    }

    /// Kills the embedded chain's template provider, as a crash would. The real chain is Bitcoin Core's affair.
    pub fn kill_templates(&mut self) {
        if let Self::Simulated(simulated) = self {
            simulated.source.kill();
        }
    }

    /// Starts the template provider again on the same port. Its chain starts over too.
    pub(crate) fn restart_templates(&mut self, layout: &Layout<'_>) -> anyhow::Result<()> {
        let Self::Simulated(simulated) = self else {
            bail!("there is no template provider");
        };
        simulated.source.stop();
        let (address, bits) = (&simulated.templates, &simulated.bits);
        let (source, _) = template_provider(layout, "templates-restarted", address, bits)?;
        simulated.source = source;
        Ok(())
    }

    /// Every process, the chain's first.
    pub fn daemons(&mut self) -> Vec<&mut Daemon> {
        match self {
            Self::Simulated(simulated) => vec![&mut simulated.source, &mut simulated.wallets],
            Self::Core(network) => vec![network.core.daemon(), &mut network.wallets],
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

/// The embedded chain as a template provider, and its ready line.
fn template_provider(
    layout: &Layout<'_>,
    name: &str,
    listen: &str,
    bits: &str,
) -> anyhow::Result<(Daemon, Value)> {
    let mut arguments = vec!["--listen", listen, "--bits", bits];
    // The same key after a restart, so that its clients believe it.
    arguments.extend(["--authority-secret-key", AUTHORITY_SECRET]);
    let mut source = layout.spawn(name, "dovetail-regtest", &arguments)?;
    let ready = source.ready(START_TIME_MAX)?;
    Ok((source, ready))
}

fn wallets(
    layout: &Layout<'_>,
    options: &Options,
    tell: &mut impl FnMut(&str, &Value),
) -> anyhow::Result<Daemon> {
    let pool = format!("pool={}", layout.file("pool.sock").display());
    let worker = format!("worker={}", layout.file("worker.sock").display());
    let (faults, seed) = options.wallet_faults;
    let (faults, seed) = (faults.to_string(), seed.to_string());
    let mut arguments = vec!["--socket", &pool, "--socket", &worker];
    arguments.extend(["--faults", &faults, "--faults-seed", &seed]);
    let mut wallets = layout.spawn("wallets", "dovetail-lightning-sim", &arguments)?;
    tell("wallets", &wallets.ready(START_TIME_MAX)?);
    Ok(wallets)
}
