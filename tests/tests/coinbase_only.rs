//! Coinbase-only mode: what nobody but the miner can check is paid once the chain shows the account's block.

#![allow(clippy::unwrap_used)]

mod declaration;
mod played;

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use bitcoin::Amount;
use declaration::{DeclaratorClient, Job, Mining, TIME_MAX};
use dovetail_miner::search::Found;
use dovetail_miner::template_job::min_ntime;
use dovetail_templates::{SourceConfig, TemplateHandle, WorkSnapshot};
use dovetail_tests::process::output;
use dovetail_tests::program;
use dovetail_tests::scenario::{Options, Scenario};
use played::miner::{Job as PoolsJob, Miner as PlainMiner};
use played::provider::Provider;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Enough that a share of some thousand hashes earns something.
const HASH_MSAT_PER_MEBIHASH: u32 = 1_000_000;
/// The time that the configuration gives a block.
const LONG_S: u32 = 1_800;
const SHORT_S: u32 = 1;

/// A pool, and the templates that a miner's own node gives.
struct Fixture {
    scenario: Scenario,
    _dir: TempDir,
    templates: TemplateHandle,
    stop: CancellationToken,
}

impl Fixture {
    async fn start(provider: Option<&Provider>) -> Self {
        let options = Options {
            worker: false,
            hasher: false,
            // Some million hashes find a block.
            bits: "1e03ffff",
            hash_msat_per_mebihash: HASH_MSAT_PER_MEBIHASH,
            templates: provider.map(|provider| provider.config(600)),
            ..Options::default()
        };
        let start = move || dovetail_tests::scenario(&options).unwrap();
        let (dir, scenario) = tokio::task::spawn_blocking(start).await.unwrap();
        let source = match provider {
            Some(provider) => {
                let key = provider.keys.public().to_string().parse().unwrap();
                SourceConfig::template_provider(provider.address.clone(), Some(key))
            }
            None => {
                let address = scenario.network.template_provider().unwrap();
                SourceConfig::template_provider(address, None)
            }
        };
        let stop = CancellationToken::new();
        Self {
            templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            scenario,
            _dir: dir,
            stop,
        }
    }

    async fn work(&self) -> Arc<WorkSnapshot> {
        let mut work = self.templates.subscribe();
        let work = work.wait_for(Option::is_some).await.unwrap();
        work.clone().unwrap()
    }

    /// A miner with a job on this work, which pays the pool so much more than it is worth.
    async fn miner(&self, work: Arc<WorkSnapshot>, more_sat: u64) -> Miner {
        let mut declarator = DeclaratorClient::coinbase_only(&self.scenario.declaration).await;
        let mut mining = Mining::open(&self.scenario.mining, "alice").await;
        let token = declarator.token("alice").await;
        let job = Job::new(work, Vec::new(), &token, &mining.channel, |outputs| {
            outputs[0].value += Amount::from_sat(more_sat);
        });
        let message = job.custom(&mining.channel, &token.bytes);
        // A pool that is only just back may hear of the tip later than the miner.
        let deadline = Instant::now() + TIME_MAX;
        let job_id = loop {
            match mining.set_custom_job(&message).await {
                Ok(job_id) => break job_id,
                Err(code) if code == "stale-chain-tip" && Instant::now() < deadline => {}
                Err(code) => panic!("the pool refused the job: {code}"),
            }
        };
        Miner {
            start: min_ntime(&job.work),
            mining,
            job_id,
            job,
        }
    }

    /// What a query says, once it says anything.
    fn wait_for(&self, query: &str) -> String {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let said = self.scenario.query(query).unwrap();
            if !said.is_empty() {
                return said;
            }
            let log = self.scenario.pool.log_tail();
            assert!(Instant::now() < deadline, "{query} says nothing:\n{log}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// What the account can be paid, and what became of the rest of its credit.
    fn credit(&self) -> Credit {
        let sum = |sql: &str| -> i64 { self.scenario.query(sql).unwrap().parse().unwrap() };
        self.scenario.written().unwrap();
        let of_state = |state: &str| {
            sum(&format!(
                "SELECT COALESCE(sum(amount_msat), 0)::bigint FROM coinbase_only_credits WHERE state = '{state}'"
            ))
        };
        let balance = sum(
            "SELECT COALESCE(sum(credits_posted), 0)::bigint FROM accounts WHERE name = 'worker:alice'",
        );
        Credit {
            balance,
            open: of_state("open"),
            followed: of_state("followed"),
            posted: of_state("posted"),
            voided: of_state("voided"),
        }
    }

    /// Starts the pool again, after a crash or not, with another time for blocks.
    fn restart(&mut self, from_s: u32, to_s: u32) {
        let file = self.scenario.file("pool.toml");
        let line = |seconds| format!("coinbase_only_seen_within_s = {seconds}\n");
        let config = std::fs::read_to_string(&file).unwrap();
        assert!(config.contains(&line(from_s)));
        std::fs::write(&file, config.replace(&line(from_s), &line(to_s))).unwrap();
        self.scenario.restart_pool().unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Credit {
    balance: i64,
    open: i64,
    followed: i64,
    posted: i64,
    voided: i64,
}

/// A miner with a job that the pool took.
struct Miner {
    mining: Mining,
    job_id: u32,
    job: Job,
    /// The time of the next share, so that it is another one.
    start: u32,
}

impl Miner {
    async fn submit(&mut self, found: &Found) {
        self.mining
            .submit(self.job_id, &self.job, found)
            .await
            .unwrap();
    }

    /// Hands in a share that solves no block.
    async fn share(&mut self) {
        let found = self
            .job
            .search_no_block(&self.mining.channel, self.start)
            .await;
        self.start = found.ntime + 1;
        self.submit(&found).await;
    }

    /// Hands in a share that does; returns the block's hash, as the ledger has it.
    async fn block(&mut self) -> String {
        let target = self.job.block_target();
        let found = self.job.search(&self.mining.channel, target).await;
        self.submit(&found).await;
        hex::encode(found.hash)
    }
}

/// The work with a merkle path that nobody has transactions for.
fn garbage(work: &WorkSnapshot) -> Arc<WorkSnapshot> {
    let mut garbage = work.clone();
    garbage.template.merkle_path = vec![[7; 32].into()].try_into().unwrap();
    Arc::new(garbage)
}

/// What the ledger says of a block.
fn result_of(hash: &str) -> String {
    format!("SELECT result FROM blocks WHERE header_hash = decode('{hash}', 'hex')")
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_of_a_coinbase_only_job_is_posted_once_the_chain_shows_the_accounts_block() {
    let mut fixture = Fixture::start(None).await;
    let mut miner = fixture.miner(fixture.work().await, 0).await;
    miner.share().await;
    let held = fixture.credit();
    assert!(held.open > 0, "{held:?}");
    assert_eq!((held.balance, held.posted), (0, 0), "{held:?}");
    let hash = miner.block().await;
    let seen = fixture.scenario.pool.event("coinbase_only_block", TIME_MAX);
    let seen = seen.unwrap();
    assert_eq!(
        (&seen["result"], &seen["worker"]),
        (&"seen".into(), &"alice".into())
    );
    let paid = fixture.credit();
    assert!(paid.posted > held.open, "{paid:?}");
    assert_eq!(
        (paid.balance, paid.followed, paid.open),
        (paid.posted, 0, 0),
        "{paid:?}"
    );
    assert_eq!(fixture.wait_for(&result_of(&hash)), "seen");
    let mut command = Command::new(program("dovetail-pool"));
    command.args(["coinbase-only", "--json", "--config"]);
    let said = output(command.arg(fixture.scenario.file("pool.toml"))).unwrap();
    let record: Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!(
        (&record["account"], &record["seen_blocks"]),
        (&"alice".into(), &1.into())
    );
    assert_eq!(record["posted_msat"], paid.posted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_the_chain_never_shows_voids_what_was_held_and_nothing_else() {
    let mut fixture = Fixture::start(None).await;
    fixture.restart(LONG_S, SHORT_S);
    let mut miner = fixture.miner(garbage(&*fixture.work().await), 0).await;
    miner.share().await;
    let hash = miner.block().await;
    let not_seen = fixture.scenario.pool.event("coinbase_only_block", TIME_MAX);
    assert_eq!(not_seen.unwrap()["result"], "not seen");
    let void = fixture.credit();
    assert!(void.voided > 0, "{void:?}");
    assert_eq!(
        (void.balance, void.followed, void.open),
        (0, 0, 0),
        "{void:?}"
    );
    assert_eq!(fixture.wait_for(&result_of(&hash)), "not seen");
    let chain = fixture.scenario.network.daemons().remove(0).log();
    assert!(!chain.contains("block accepted"), "{chain}");
    drop(miner);

    // A good block posts what was earned since, and not what is void.
    fixture.restart(SHORT_S, LONG_S);
    let mut miner = fixture.miner(fixture.work().await, 0).await;
    miner.share().await;
    miner.block().await;
    fixture.wait_for("SELECT 1 FROM coinbase_only_credits WHERE state = 'posted'");
    let paid = fixture.credit();
    assert!(paid.posted > 0, "{paid:?}");
    assert_eq!(
        (paid.balance, paid.voided),
        (paid.posted, void.voided),
        "{paid:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_followed_over_a_crash_of_the_pool_and_voids_nothing_if_it_may_have_been_missed()
{
    let mut fixture = Fixture::start(None).await;
    let mut miner = fixture.miner(garbage(&*fixture.work().await), 0).await;
    miner.block().await;
    let held = fixture.credit();
    assert!(held.followed > 0, "{held:?}");
    drop(miner);
    fixture.scenario.pool.kill();
    fixture.restart(LONG_S, SHORT_S);
    // A template provider cannot be asked what came while the pool was away.
    fixture.wait_for("SELECT 1 FROM coinbase_only_credits WHERE state = 'carried'");
    let carried = "SELECT amount_msat FROM coinbase_only_credits WHERE state = 'open'";
    assert_eq!(fixture.wait_for(carried), held.followed.to_string());
    assert_eq!(fixture.credit().balance, 0);
    // The account's next block decides.
    let mut miner = fixture.miner(garbage(&*fixture.work().await), 0).await;
    miner.block().await;
    let void = "SELECT amount_msat > HELD FROM coinbase_only_credits WHERE state = 'voided'";
    let void = void.replace("HELD", &held.followed.to_string());
    assert_eq!(fixture.wait_for(&void), "t");
    assert_eq!(fixture.credit().balance, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_above_the_pools_own_template_is_not_believed_and_the_template_at_the_share_counts()
{
    let mut provider = Provider::start().await;
    let fixture = Fixture::start(Some(&provider)).await;
    let work = fixture.work().await;
    let worth_sat = work.coinbase_value_remaining_sat();
    let mut miner = fixture.miner(work, 40_000_000).await;
    miner.share().await;
    let held = |fixture: &Fixture| -> (u64, u64) {
        fixture.scenario.written().unwrap();
        let said = fixture.wait_for(
            "SELECT (SELECT sum(work) FROM shares) || ' ' || amount_msat FROM coinbase_only_credits",
        );
        let (work, credit) = said.split_once(' ').unwrap();
        (work.parse().unwrap(), credit.parse().unwrap())
    };
    let (work, first) = held(&fixture);
    // Twice as much is to be had now.
    provider.template(|template| template.coinbase_tx_value_remaining *= 2);
    let wanted = (worth_sat * 2).to_le_bytes();
    // Who declares jobs is sent none of the pool's: another miner shows when the pool has the template.
    let mut other = PlainMiner::open(&fixture.scenario.mining, 1e6)
        .await
        .unwrap();
    let pays = |job: &PoolsJob| {
        let mut places = job.parts.coinbase_suffix.windows(wanted.len());
        places.any(|bytes| bytes == wanted)
    };
    other.job(0, pays).await;
    miner.share().await;
    let (both, sum) = held(&fixture);
    let hashes = |work: u64| (work * u64::from(HASH_MSAT_PER_MEBIHASH)) >> 20;
    // Neither is what the coinbase says it pays. The second share is worth half; only the sum is rounded.
    assert_eq!((both, first), (2 * work, hashes(work)));
    assert_eq!(sum, hashes(3 * work) / 2);
}
