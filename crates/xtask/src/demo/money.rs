//! `cargo xtask demo --real`, how it ends: blocks mature, are divided over the miners by their newest work, and are paid over
//! each rail. The sums of the ledger are held against the chain.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use dovetail_tests::bitcoin_core::{BitcoinCore, OTHERS_ADDRESS, turned};
use dovetail_tests::network::Network;
use dovetail_tests::process::{Daemon, output, wait_at_most};
use dovetail_tests::scenario::{Options, RECEIPT_PUBLIC, Scenario};
use serde_json::{Value, json};

use super::Story;

/// The pool's money on the chain: the first script of the wallet that test pools pay from. Its blocks pay there.
const PAYOUT_ADDRESS: &str = "bcrt1qp5wfcq48h6d63wyy9qz0awtpfqwwv4sm4gc9mc";
const ONCHAIN: &str = "range = 10
interval_s = 1
confirmations = 2
check_interval_ms = 200";
/// The rest of what the pool does otherwise here than in the short story. A change of a destination is held for a day
/// elsewhere.
const SETTINGS: &[(&str, &str)] = &[
    ("REWARDS__SCHEME", "pplns"),
    ("REWARDS__FEE_PERCENT", "1"),
    ("JOB_DECLARATOR__COINBASE_ONLY", "false"),
    ("DESTINATIONS__HOLD_S", "0"),
];
/// The key of the miner that is paid by an offer, and its account: the public half. A test's key.
const MINER_SECRET: &str = "0202020202020202020202020202020202020202020202020202020202020202";
const MINER_ACCOUNT: &str = "4d4b6cd1361032ca9bd2aeb9d900aa4d45d9ead80ac9423374c451a7254d0766";
/// The account of the miner that is paid on the chain: an address, which nobody has the key of.
const ADDRESS_ACCOUNT: &str = "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw";
/// Coinbases pay after this many blocks on top.
const MATURITY: u32 = 100;
/// How long the two miners may take until one block is divided over both, and how long the payouts may take then.
const MINING_TIME_MAX: Duration = Duration::from_secs(180);
const PAYING_TIME_MAX: Duration = Duration::from_secs(120);
/// Every this often the chain grows while something on it waits to be confirmed.
const BLOCK_INTERVAL: Duration = Duration::from_secs(2);
/// What a satoshi has.
const MSAT: u64 = 1_000;

/// The two plain miners of the story, besides the worker: one is paid by an offer, the other on-chain.
pub(super) struct Miners {
    hashers: Vec<Daemon>,
}

/// What came of the blocks.
pub(super) struct Money {
    blocks_matured: usize,
    is_split_exact: bool,
    reward_msat: u64,
    fee_msat: u64,
    /// Of each rail: its name, how many payouts it has paid, and what they add up to.
    rails: Vec<(String, u64, u64)>,
}

/// A matured block, as the ledger divides it.
struct Divided {
    hash: String,
    reward_msat: u64,
    fee_msat: u64,
    parts_msat: u64,
}

/// Sets up the scenario for this end of the story.
pub(super) fn configure(options: &mut Options) {
    options.hasher = false;
    options.hash_msat_per_mebihash = 0;
    options.payout_address = PAYOUT_ADDRESS;
    options.onchain = Some(ONCHAIN);
    options.pool_settings = SETTINGS;
}

impl Miners {
    /// Starts them.
    pub(super) fn start(story: &Story, scenario: &Scenario) -> anyhow::Result<Self> {
        story.tell(
            "miners",
            "two more hash for themselves: a key, and a Bitcoin address",
        );
        let mut hashers = Vec::new();
        for (name, account) in [("miner-1", MINER_ACCOUNT), ("miner-2", ADDRESS_ACCOUNT)] {
            let (hasher, _) = scenario.spawn_hasher(name, &format!("{account}/cpu"))?;
            hashers.push(hasher);
        }
        Ok(Self { hashers })
    }

    /// Lets them mine until a block of the chain is divided over both, and stops them.
    fn until_divided(mut self, scenario: &Scenario) -> anyhow::Result<()> {
        let both = divided_over_both("active");
        wait_at_most(
            MINING_TIME_MAX,
            "a block that both miners have a part of",
            || Ok(scenario.query(&both)? == "t"),
        )?;
        self.hashers.iter_mut().for_each(Daemon::stop);
        Ok(())
    }
}

/// Whether a block of this state has a part of each of the two miners.
fn divided_over_both(state: &str) -> String {
    format!(
        "SELECT EXISTS (SELECT FROM block_rewards r WHERE state = '{state}' AND 2 = (
            SELECT count(*) FROM block_credits JOIN accounts ON id = account
             WHERE block = r.header_hash AND name IN ('worker:{MINER_ACCOUNT}', 'worker:{ADDRESS_ACCOUNT}')))"
    )
}

/// Has the first miner state an offer of the worker's node as its destination.
fn state_offer(scenario: &Scenario) -> anyhow::Result<()> {
    let Network::Real(network) = &scenario.network else {
        bail!("there is no Lightning node");
    };
    let created = network.worker_node.ask(&json!({
        "method": "create_offer", "params": { "description": "blocks" },
    }))?;
    let offer = created["offer"]
        .as_str()
        .context("the node gives no offer")?;
    let key_file = scenario.file("miner.key");
    std::fs::write(&key_file, MINER_SECRET)?;
    output(
        scenario
            .agent()
            .args(["payout", "destination", "set", "--kind", "bolt12"])
            .args([
                "--to",
                offer,
                "--pool-key",
                RECEIPT_PUBLIC,
                "--worker-key-file",
            ])
            .arg(&key_file),
    )?;
    Ok(())
}

/// Tells how the blocks that were found mature and are paid.
pub(super) fn tell(story: &Story, scenario: &Scenario, miners: Miners) -> anyhow::Result<Money> {
    let core = scenario
        .network
        .bitcoin_core()
        .context("there is no chain")?;
    miners.until_divided(scenario)?;
    story.tell("miners", "each have a part of one block; they stop");
    state_offer(scenario)?;
    story.tell(
        "miners",
        "the first has signed where it is paid: a BOLT12 offer",
    );
    core.mine(MATURITY, OTHERS_ADDRESS)?;
    story.tell(
        "chain",
        &format!("grows by {MATURITY} blocks: what was found before may be spent"),
    );
    let both = divided_over_both("matured");
    wait_at_most(PAYING_TIME_MAX, "the blocks to mature", || {
        Ok(scenario.query(&both)? == "t")
    })?;
    let blocks = matured(scenario)?;
    let mut money = Money {
        blocks_matured: blocks.len(),
        is_split_exact: true,
        reward_msat: blocks.iter().map(|block| block.reward_msat).sum(),
        fee_msat: blocks.iter().map(|block| block.fee_msat).sum(),
        rails: Vec::new(),
    };
    for block in &blocks {
        let on_chain = coinbase_msat(core, &block.hash)?;
        let is_exact =
            block.parts_msat + block.fee_msat == block.reward_msat && on_chain == block.reward_msat;
        money.is_split_exact &= is_exact;
    }
    story.tell("pool", &money.divided());
    money.rails = until_paid(story, scenario, core)?;
    money.check()?;
    Ok(money)
}

impl Money {
    fn divided(&self) -> String {
        let exactly = match self.is_split_exact {
            true => "exactly",
            false => "NOT exactly",
        };
        format!(
            "{} blocks have matured; their parts and the pool's fee are {exactly} what their coinbases pay, {} sat",
            self.blocks_matured,
            self.reward_msat / MSAT
        )
    }

    /// Fails unless the books are right and each rail has paid.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.blocks_matured > 0, "no block has matured");
        ensure!(
            self.is_split_exact,
            "a block's parts are not what its coinbase pays"
        );
        let missing = RAILS
            .iter()
            .find(|rail| self.rails.iter().all(|(name, ..)| name != *rail));
        ensure!(
            missing.is_none(),
            "nothing was paid over {}",
            missing.unwrap_or(&"")
        );
        Ok(())
    }

    /// For people.
    pub(super) fn summary(&self) -> String {
        let mut text = format!(
            "  blocks matured       {}, {} sat in all, of which the pool keeps {} sat\n",
            self.blocks_matured,
            self.reward_msat / MSAT,
            self.fee_msat / MSAT
        );
        for (rail, payouts, msat) in &self.rails {
            text.push_str(&format!(
                "  paid by {rail:<12} {msat} msat in {payouts} payouts\n"
            ));
        }
        text
    }

    /// For `--json`.
    pub(super) fn add_to(&self, summary: &mut Value) {
        summary["blocks_matured"] = json!(self.blocks_matured);
        summary["reward_split_exact"] = json!(self.is_split_exact);
        summary["reward_msat"] = json!(self.reward_msat);
        summary["reward_fee_msat"] = json!(self.fee_msat);
        let rails = self.rails.iter().map(|(rail, payouts, msat)| {
            (rail.clone(), json!({ "payouts": payouts, "msat": msat }))
        });
        summary["payout_rails"] = Value::Object(rails.collect());
    }
}

/// What the story is to show.
const RAILS: [&str; 3] = ["bolt11", "bolt12", "onchain"];

/// Waits until something was paid over each rail; the chain grows meanwhile.
fn until_paid(
    story: &Story,
    scenario: &Scenario,
    core: &BitcoinCore,
) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let mut told = Vec::new();
    let mut grown = Instant::now();
    wait_at_most(PAYING_TIME_MAX, "a payout over each rail", || {
        if grown.elapsed() > BLOCK_INTERVAL {
            core.mine(1, OTHERS_ADDRESS)?;
            grown = Instant::now();
        }
        for (rail, _, msat) in paid(scenario)? {
            if !told.contains(&rail) {
                story.tell("pool", &format!("has paid {msat} msat by {rail}"));
                told.push(rail);
            }
        }
        Ok(RAILS
            .iter()
            .all(|rail| told.iter().any(|told| told == rail)))
    })?;
    paid(scenario)
}

/// What was paid over each rail.
fn paid(scenario: &Scenario) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let rows = scenario.query(
        "SELECT rail, count(*), sum(p.amount_msat) FROM payouts p JOIN attempts a ON a.payout = p.id
          WHERE p.state = 'paid' AND a.state = 'succeeded' GROUP BY rail ORDER BY rail",
    )?;
    rows.lines()
        .map(|row| match *row.split('|').collect::<Vec<_>>() {
            [rail, payouts, msat] => Ok((rail.to_owned(), payouts.parse()?, msat.parse()?)),
            _ => bail!("the ledger answers {row:?}"),
        })
        .collect()
}

fn matured(scenario: &Scenario) -> anyhow::Result<Vec<Divided>> {
    let rows = scenario.query(
        "SELECT encode(header_hash, 'hex'), reward_msat, fee_msat,
                (SELECT COALESCE(sum(amount_msat), 0) FROM block_credits WHERE block = header_hash)
           FROM block_rewards WHERE state = 'matured' ORDER BY height",
    )?;
    rows.lines()
        .map(|row| match *row.split('|').collect::<Vec<_>>() {
            [hash, reward, fee, parts] => Ok(Divided {
                hash: turned(hash),
                reward_msat: reward.parse()?,
                fee_msat: fee.parse()?,
                parts_msat: parts.parse()?,
            }),
            _ => bail!("the ledger answers {row:?}"),
        })
        .collect()
}

/// What the block's coinbase pays, as the chain has it.
fn coinbase_msat(core: &BitcoinCore, hash: &str) -> anyhow::Result<u64> {
    let block: Value = serde_json::from_str(&core.rpc(&["getblock", hash, "2"])?)?;
    let outputs = block["tx"][0]["vout"]
        .as_array()
        .context("a block without a coinbase")?;
    let bitcoin: f64 = outputs
        .iter()
        .filter_map(|output| output["value"].as_f64())
        .sum();
    // Some 50 bitcoin: a double holds them to less than a satoshi.
    let sat = (bitcoin * 1e8).round() as u64;
    Ok(sat * MSAT)
}
